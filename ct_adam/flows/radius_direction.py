"""Adam's flow in the radius and the direction of scale-invariant weights."""

from dataclasses import replace
from typing import Any, ClassVar, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from ..decays import choice, learning_rate_at
from ..optimizers import Optimizer
from ..problems import AbstractProblem, as_problem
from ..problems.base import Loss
from ..theory.scale_invariance import weight_norm_rate
from .base import AbstractFlow, parameter_scale
from .stages import AbstractAdamFlow, AdamState

Radius = Literal["exact", "corrected", "uncorrected"]
RADII: tuple[Radius, ...] = ("exact", "corrected", "uncorrected")


class RadiusDirectionState(eqx.Module):
    """`state`: that of the flow beneath, with W/‖W‖ in place of each invariant W; `radius`: a
    PyTree like the parameters of the numbers ‖W‖, 1 for tensors that are not invariant."""

    radius: PyTree
    state: AdamState


class RadiusDirectionFlow(AbstractFlow):
    """Any flow of Adam in the coordinates r = ‖W‖ and Ŵ = W/‖W‖ of its scale-invariant tensors.

        r' = ⟨Ŵ, W'⟩        Ŵ' = (I − ŴŴᵀ) W'/r        g = ∇L(Ŵ)/r

    W' is the flow's own, W' = −η(u + λW) at order 1:

        r' = −η⟨Ŵ, u⟩ − ηλ r        Ŵ' = −(η/r)(I − ŴŴᵀ) u

    The gradient is only ever taken on the sphere, so that r acts as a learning rate η/r alone. For
    an invariant loss this is the flow itself, in other coordinates; for another loss it is not, and
    the difference tells how far the loss is from invariant. Source: EQUATIONS §3; Gould & Tanaka
    (arXiv 2411.05746) for the reduced equations of the radius, in which ⟨W, u⟩ is eliminated:

        (r²)' = −2ηλ r² + c η²‖u‖²        c = 1, or (1+b1)/(1−b1) corrected for momentum

    **Arguments:**

    - `flow`: an `AdamFlow`, or another of its family, with all of its options.
    - `invariant`: which tensors are scale-invariant, a PyTree of booleans like the parameters
        (`ct.theory.scale_invariance.find(...).mask`); None: all of them.
    - `radius`: `"exact"`, or `"corrected"` or `"uncorrected"`: the reduced equation of the radius,
        of one stage and order 1. With `"corrected"` it is the discrete optimizer's.

    **Raises:** `ValueError` for a flow of another family, an unknown radius, a reduced one with
    order 2, several stages or ℓ2 decay, and at its start for a mask that is none of booleans like
    the parameters. A tensor of norm 0 has no direction and gives NaN.

    !!! example
        >>> import ct_adam as ct, jax.numpy as jnp
        >>> loss, start = ct.problems.rayleigh_quotient(jnp.diag(jnp.arange(1.0, 4.0))), jnp.ones(3)
        >>> flow = ct.AdamFlow(0.05, weight_decay=0.1)
        >>> path = ct.solve(ct.flows.RadiusDirectionFlow(flow), loss, start, 50)
        >>> ct.compare(path, ct.solve(flow, loss, start, 50)).relative_error < 1e-5
        True
    """

    flow: AbstractAdamFlow
    invariant: PyTree
    radius: Radius = eqx.field(static=True)

    def __init__(self, flow: AbstractAdamFlow, invariant: PyTree = None, radius: Radius = "exact"):
        if not isinstance(flow, AbstractAdamFlow):
            raise ValueError(f"flow must be an AdamFlow or one of its family, not {flow!r}.")
        choice("radius", radius, RADII)
        if radius != "exact" and (flow.order != 1 or len(flow.hyperparameters.b1) != 1):
            raise ValueError(
                f"radius = {radius!r} is an equation of one stage and order 1: take 'exact'."
            )
        if radius != "exact" and flow.hyperparameters.decay == "l2":
            raise ValueError(
                f"radius = {radius!r} needs gradients orthogonal to W, and decay = 'l2' adds λW to "
                "them: take 'exact', or decay = 'decoupled'."
            )
        self.flow, self.invariant, self.radius = flow, invariant, radius

    @property
    def lag(self) -> int:
        return self.flow.lag

    @property
    def evaluations(self) -> int:
        return self.flow.evaluations

    @property
    def optimizer(self) -> Optimizer:
        return self.flow.optimizer

    def init(self, loss: Loss | AbstractProblem, params: PyTree) -> RadiusDirectionState:
        self._check_mask(params)
        return self._polar(self.flow.init(self._on_sphere(loss), params))

    def from_optimizer(
        self, loss: Loss | AbstractProblem, params: PyTree, optimizer_state: PyTree, step: Any
    ) -> RadiusDirectionState:
        self._check_mask(params)
        sphere = self._on_sphere(loss)
        return self._polar(self.flow.from_optimizer(sphere, params, optimizer_state, step))

    def params(self, state: RadiusDirectionState) -> PyTree:
        return self._map(
            lambda r, w: r * w / _norm(w), lambda r, w: w, state.radius, state.state.params
        )

    def update(
        self, step: Any, state: RadiusDirectionState, loss: Loss | AbstractProblem
    ) -> PyTree:
        return self.flow.update(step, self._cartesian(state), self._on_sphere(loss))

    def vector_field(
        self, step: Any, state: RadiusDirectionState, loss: Loss | AbstractProblem
    ) -> RadiusDirectionState:
        sphere, cartesian = self._on_sphere(loss), self._cartesian(state)
        rates = self.flow.vector_field(step, cartesian, sphere)
        units = self._map(lambda w: w / _norm(w), lambda w: w, state.state.params)
        outwards = self._map(
            lambda unit, rate: jnp.sum(unit * rate),
            lambda _, rate: jnp.zeros((), rate.dtype),
            units,
            rates.params,
        )
        turning = self._map(
            lambda unit, rate, out, r: (rate - out * unit) / r,
            lambda _, rate, *__: rate,
            units,
            rates.params,
            outwards,
            state.radius,
        )
        if self.radius != "exact":
            update = self.flow.update(step, cartesian, sphere)
            outwards = self._map(
                lambda r, u: self._reduced(step, r, _norm(u)).astype(r.dtype),
                lambda r, _: jnp.zeros_like(r),
                state.radius,
                update,
            )
        return RadiusDirectionState(outwards, replace(rates, params=turning))

    def error_scale(
        self, state: RadiusDirectionState, rtol: float, atol: float
    ) -> RadiusDirectionState:
        radius = jax.tree.map(lambda r: parameter_scale(r, rtol, atol), state.radius)
        return RadiusDirectionState(radius, self.flow.error_scale(state.state, rtol, atol))

    def _check_mask(self, params: PyTree) -> None:
        leaves = jax.tree.leaves(self.invariant)
        like = jax.tree.structure(self.invariant) == jax.tree.structure(params)
        if self.invariant is None or (like and all(isinstance(x, bool) for x in leaves)):
            return
        raise ValueError(
            "invariant must be a PyTree like the parameters with True or False in place of each "
            "tensor: give ct.theory.scale_invariance.find(…).mask, or None for all."
        )

    def _reduced(self, step: Any, r: Array, update_norm: Array) -> Array:
        """r' of (r²)' = −2ηλ r² + c η²‖u‖²."""
        of = self.flow.hyperparameters
        eta = learning_rate_at(of.learning_rate, step)
        corrected = self.radius == "corrected"
        decay = of.outer_weight_decay
        return weight_norm_rate(r, update_norm, eta, decay, of.b1[0], corrected) / (2 * r)

    def _polar(self, state: AdamState) -> RadiusDirectionState:
        radius = self._map(_norm, lambda w: jnp.ones((), w.dtype), state.params)
        units = self._map(lambda w, r: w / r, lambda w, _: w, state.params, radius)
        return RadiusDirectionState(radius, replace(state, params=units))

    def _cartesian(self, state: RadiusDirectionState) -> AdamState:
        return replace(state.state, params=self.params(state))

    def _on_sphere(self, loss: Loss | AbstractProblem) -> "_OnSphere":
        return _OnSphere(as_problem(loss), self.invariant)

    def _map(self, invariant: Any, other: Any, *trees: PyTree) -> PyTree:
        return _map_chosen(self.invariant, invariant, other, *trees)


class _OnSphere(AbstractProblem):
    """g(W) = ∇L(Ŵ)/‖W‖: a problem as its directions see it."""

    problem: AbstractProblem
    invariant: PyTree
    has_value: ClassVar[bool] = True

    def __init__(self, problem: AbstractProblem, invariant: PyTree):
        self.problem, self.invariant = problem, invariant

    @property
    def held(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.problem.held

    def value(self, params: PyTree) -> Float[Array, ""]:
        return self.problem.value(params)

    def gradient(self, step: Any, params: PyTree) -> PyTree:
        units = _map_chosen(self.invariant, lambda w: w / _norm(w), lambda w: w, params)
        gradient = self.problem.gradient(step, units)
        return _map_chosen(
            self.invariant, lambda g, w: g / _norm(w), lambda g, _: g, gradient, params
        )

    @property
    def steps_available(self) -> int | None:
        return self.problem.steps_available


def _map_chosen(chosen: PyTree, invariant: Any, other: Any, *trees: PyTree) -> PyTree:
    """`invariant` over the leaves that are chosen (all for None), `other` over the rest."""
    if chosen is None:
        return jax.tree.map(invariant, *trees)
    return jax.tree.map(
        lambda leaf, yes, *rest: (invariant if yes else other)(leaf, *rest),
        trees[0],
        chosen,
        *trees[1:],
    )


def _norm(x: Array) -> Array:
    """Frobenius' norm."""
    return jnp.sqrt(jnp.sum(x**2))
