"""The ODE whose time-one map is one step of a discrete optimizer, any optax optimizer."""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, PyTree

from ..decays import whole_number
from ..optimizers import optimizer_step
from ..optimizers.stage import StageState
from ..problems import AbstractProblem, as_problem
from ..problems.base import Loss
from ..theory.interpolation import difference_weights, error_constant, extra_terms
from .base import AbstractFlow, parameter_scale
from .fitness import check_counts, check_step

Order = int | Literal["auto"]


class InterpolatingState(eqx.Module):
    """Parameters and the optimizer's whole state, its step counts as real numbers.

    `origin` is the step at which the flow began: strides are counted from there.
    """

    params: PyTree
    optimizer: PyTree
    origin: Float[Array, ""]


class Differences(NamedTuple):
    """What a flow can say of itself in one state, over all parameters.

    - `speed`: ‖θ'‖_∞ per step. `tail`: K‖Δ^{p+1}θ‖_∞/((p+1)q), the first term by which the flow
        differs from the logarithm (K is `ct.theory.error_constant`, 1 without extra degrees).
    - `turn`: the cosine of the angle by which one stride of the optimizer turns the last
        difference Δ^pθ, -1 for period two.
    """

    speed: Array
    tail: Array
    turn: Array


class InterpolatingFlow(AbstractFlow):
    """z' = f(z) with time-one map Φ, one whole step of `optimizer`; z = (θ, optimizer state).

        f(z) = (1/q) Σ_{j=1..p} (-1)^{j+1}/j Δ^j z      Δz = Φ^q(z) - z

    the logarithm of Φ^q by forward differences: no derivatives, p·q steps of Φ a call. Source:
    EQUATIONS §1. Order p has the error (1-μ^q)^{p+1}/(p+1) in a mode with multiplier μ; orders
    above 2 grow modes that the optimizer damps (`ct.theory.stability_radius`), a stride of 2 sees
    an oscillation of period two as standing still. `ct.solve` fills `trajectory.trust` and saves
    steps between two strides through Φ.

    **Arguments:**

    - `optimizer`: any optax transformation whose integers count steps.
    - `order`: p ≥ 1; 2 damps whatever the optimizer damps, 3 with stride 2 is the best all-round
        choice for b1 ≤ 0.95. `"auto"`: `ct.solve` takes the highest that can be trusted.
    - `stride`: q ≥ 1, the flow passes through every q-th iterate.
    - `degree`: s ≥ p, of the polynomial in Φ^q; None: p. Above p the flow has the same order from
        s·q evaluations a call, its rates are shorter and it damps more, for which the solver takes
        longer steps: `ct.theory.coefficients`, docs/choosing.md.

    **Raises:** `ValueError` for an optimizer that no flow can follow: its state holds random keys,
    flags, or integers that do not count steps; for an order without coefficients of that degree.

    !!! example
        >>> import ct_adam as ct, jax.numpy as jnp, optax
        >>> loss, start = lambda x: jnp.sum(x**2) / 2, jnp.array([1.0, -2.0])
        >>> flow = InterpolatingFlow(optax.sgd(0.1, momentum=0.5), order=4)
        >>> traj = ct.solve(flow, loss, start, 20, warm_steps=3)
        >>> discrete = ct.run(flow, loss, start, 20, warm_steps=3)
        >>> ct.compare(traj, discrete).relative_error < 1e-2
        True
    """

    gradient_transformation: optax.GradientTransformation = eqx.field(static=True)
    order: Order = eqx.field(static=True)
    stride: int = eqx.field(static=True)
    degree: int | None = eqx.field(static=True)

    def __init__(
        self,
        optimizer: optax.GradientTransformation,
        order: Order = 2,
        stride: int = 1,
        degree: int | None = None,
    ):
        if not isinstance(optimizer, optax.GradientTransformation):
            raise ValueError(
                f"InterpolatingFlow takes an optax transformation, not {type(optimizer).__name__}."
            )
        if isinstance(order, str):
            if order != "auto":
                raise ValueError(f"order = {order!r} must be a whole number, or 'auto'.")
            if degree is not None:
                raise ValueError("order = 'auto' has no degree: leave it out, or give an order.")
        else:
            order = whole_number("order", order)
            extra_terms(order, degree)  # raises where there are none
            degree = order if degree is None else degree
        self.gradient_transformation, self.order = optimizer, order
        self.stride, self.degree = whole_number("stride", stride), degree

    @property
    def lag(self) -> int:
        return 1  # batch ⌊s⌋ rules from step ⌊s⌋ on (EQUATIONS §1)

    @property
    def evaluations(self) -> int:
        return self._degree * self.stride

    @property
    def optimizer(self) -> optax.GradientTransformation:
        return self.gradient_transformation

    def init(self, loss: Loss | AbstractProblem, params: PyTree) -> InterpolatingState:
        return self.from_optimizer(loss, params, self.optimizer.init(params), 0)

    def from_optimizer(
        self, loss: Loss | AbstractProblem, params: PyTree, optimizer_state: PyTree, step: Any
    ) -> InterpolatingState:
        check_counts(self.optimizer, params)
        dtype = jnp.result_type(*jax.tree.leaves(params))
        real = jax.tree.map(
            lambda x: x if jnp.issubdtype(jnp.result_type(x), jnp.inexact) else x.astype(dtype),
            jax.tree.map(jnp.asarray, optimizer_state),
        )
        state = InterpolatingState(params, real, jnp.asarray(step, dtype))
        check_step(lambda z: self.next(step, z, loss), state)
        return state

    def params(self, state: InterpolatingState) -> PyTree:
        return state.params

    def next(
        self, step: Any, state: InterpolatingState, loss: Loss | AbstractProblem
    ) -> InterpolatingState:
        """Φ: the state after one discrete step with the gradient of `step`."""
        return self._step(step, state, loss)[0]

    def _step(
        self, step: Any, state: InterpolatingState, loss: Loss | AbstractProblem
    ) -> tuple[InterpolatingState, PyTree]:
        params, optimizer, delta = optimizer_step(
            self.optimizer, as_problem(loss), step, state.params, state.optimizer
        )
        return InterpolatingState(params, optimizer, state.origin), delta

    def onwards(
        self,
        step: Any,
        state: InterpolatingState,
        loss: Loss | AbstractProblem,
        look: Callable[[Any, InterpolatingState, Any], PyTree],
        count: int,
    ) -> PyTree:
        """What `look(step, state, loss)` sees in `state` and after 1 … count - 1 steps Φ of it."""

        def move(z: InterpolatingState, i: Array) -> tuple[InterpolatingState, PyTree]:
            return self.next(step + i, z, loss), look(step + i, z, loss)

        return jax.lax.scan(move, state, jnp.arange(count))[1]

    def update(self, step: Any, state: InterpolatingState, loss: Loss | AbstractProblem) -> PyTree:
        """-Δθ of one Φ: learning rate and decay of an optax transformation are not known."""
        seen = as_problem(loss).seen(step)
        return jax.tree.map(jnp.negative, self._step(seen, state, loss)[1])

    def rod(
        self, step: Any, state: InterpolatingState, loss: Loss | AbstractProblem
    ) -> tuple[PyTree, PyTree]:
        """Centre (θ + Φθ)/2 and half extent (θ - Φθ)/2 of an oscillation of period two."""
        partner = self.next(as_problem(loss).seen(step), state, loss).params
        centre = jax.tree.map(lambda x, y: (x + y) / 2, state.params, partner)
        return centre, jax.tree.map(lambda x, y: (x - y) / 2, state.params, partner)

    def vector_field(
        self, step: Any, state: InterpolatingState, loss: Loss | AbstractProblem
    ) -> InterpolatingState:
        weights = jnp.asarray(np.repeat(self._weights, self.stride) / self.stride)

        def move(carry: tuple[Any, Any], turn: tuple[Array, Array]) -> tuple[tuple[Any, Any], None]:
            z, total = carry
            i, weight = turn
            after = self.next(self._seen(step, i, z, loss), z, loss)
            total = jax.tree.map(
                lambda t, x, y: t + (weight * (y - x)).astype(t.dtype), total, z, after
            )
            return (after, total), None

        nothing = jax.tree.map(jnp.zeros_like, state)
        turns = (jnp.arange(len(weights)), weights)
        return jax.lax.scan(move, (state, nothing), turns)[0][1]

    def differences(
        self, step: Any, state: InterpolatingState, loss: Loss | AbstractProblem
    ) -> Differences:
        """How much the last term still moves, and what the optimizer makes of it."""

        order, stride, weights = self._order, self.stride, self._weights
        last_row = max(order + 1, len(weights))

        def move(z: InterpolatingState, i: Array) -> tuple[InterpolatingState, PyTree]:
            return self.next(self._seen(step, i, z, loss), z, loss), z.params

        points = jax.lax.scan(move, state, jnp.arange(last_row * stride + 1))[1]
        rows = jnp.concatenate(
            [x[::stride].reshape(last_row + 1, -1) for x in jax.tree.leaves(points)], axis=1
        )
        last, after = jnp.diff(rows[: order + 2], n=order, axis=0)
        speed = jnp.asarray(weights) @ jnp.diff(rows[: len(weights) + 1], axis=0) / stride
        norm, norm_after = jnp.linalg.norm(last), jnp.linalg.norm(after)
        return Differences(
            jnp.max(jnp.abs(speed)),
            error_constant(order, self.degree)
            * jnp.max(jnp.abs(after - last))
            / ((order + 1) * stride),
            jnp.vdot(last, after) / (norm * norm_after),
        )

    def error_scale(self, state: InterpolatingState, rtol: float, atol: float) -> PyTree:
        def moments(node: Any) -> PyTree:
            """Relative to each number; of Adam's kin m relative to max(|m|, √v) (EQUATIONS §1)."""
            scale = jax.tree.map(lambda leaf: _relative(leaf, rtol), node)
            if not _has_moments(node):
                return scale
            first, second = _moment_names(node)
            m = jax.tree.map(
                lambda m, v: _relative(jnp.maximum(jnp.abs(m), jnp.sqrt(jnp.abs(v))), rtol),
                getattr(node, first),
                getattr(node, second),
            )
            return scale._replace(**{first: m})

        return InterpolatingState(
            jax.tree.map(lambda leaf: parameter_scale(leaf, rtol, atol), state.params),
            jax.tree.map(moments, state.optimizer, is_leaf=_has_moments),
            jnp.ones_like(state.origin),
        )

    @property
    def _order(self) -> int:
        if isinstance(self.order, str):
            raise ValueError(
                "order = 'auto' is chosen by ct.solve for one run: give a number to use the flow "
                "elsewhere."
            )
        return self.order

    @property
    def _degree(self) -> int:
        return self._order if self.degree is None else self.degree

    @property
    def _weights(self) -> np.ndarray:
        return difference_weights(self._order, self.degree)

    def _seen(
        self, step: Any, i: Array, state: InterpolatingState, loss: Loss | AbstractProblem
    ) -> Any:
        """The gradient of the i-th Φ of a call at time `step`: of a held problem the stride's own
        batches, frozen, otherwise the one at that time."""
        problem = as_problem(loss)
        if not problem.held:
            return step + i
        elapsed = problem.seen(step, self.lag) - state.origin
        block = jnp.floor(elapsed / self.stride) * self.stride
        return state.origin + block + i % self.stride


def _relative(leaf: Array, rtol: float) -> Array:
    return jnp.maximum(rtol * jnp.abs(leaf), jnp.finfo(leaf.dtype).tiny)


def _has_moments(node: Any) -> bool:
    """Whether a part of an optimizer's state holds both of Adam's moments."""
    m, v = (getattr(node, name, None) for name in _moment_names(node))
    return m is not None and jax.tree.structure(m) == jax.tree.structure(v)


def _moment_names(node: Any) -> tuple[str, str]:
    """Ours, or optax's."""
    return ("m", "v") if isinstance(node, StageState) else ("mu", "nu")
