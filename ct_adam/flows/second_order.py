"""Adam to second order where 1 - b ∝ η: a modified equation with curvature, and a staggered one."""

from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from ..decays import (
    Decay,
    Hyperparameters,
    Rates,
    Scalar,
    Schedule,
    check_one_stage,
    choice,
    is_removed,
    learning_rate_at,
)
from ..optimizers import averaged, stage_states
from ..problems import AbstractProblem
from ..problems.base import Loss
from .stages import AbstractAdamFlow, AdamState, Start

Curvature = Literal["full", "released", "none"]
CURVATURES: tuple[Curvature, ...] = ("full", "released", "none")


class SMEFlow(AbstractAdamFlow):
    """Drift of the second-order stochastic modified equation of Adam, without noise.

    One step is Φ: θ → θ + X, m → m + (1-b1)(g(θ+X) - m), v alike, with X = -η(u + λθ). The field
    whose time-one map is Φ, in the scaling 1 - b1, 1 - b2 ∝ η, up to O(η³) a step:

        θ' = X - ½ dX/ds      m' = a (g + ½HX - m)      v' = b (g² + g·HX - v)
        X = -η (u + λθ)       u = (m/B1)/(√(v/B2 + eps_root) + eps)       a = -ln b1, b = -ln b2

    H the Hessian, B_i = 1 - b_i^{s+1}, dX/ds along the flow, its bias factors and schedule
    included. The *curvature terms* HX are one Hessian-vector product. Source: backward error
    analysis, f = Δ - ½ Δ'Δ with Δ = Φ - 1; Li, Tai & E (JMLR 20, 2019) for SGD, where it is
    X = -η∇L, X - ½X' = -∇(L + (η/4)‖∇L‖²) η; for Adam the ballistic regime of Callisti, Romito &
    Triggiano (arXiv 2509.21614), whose v before the step and moments without the present gradient
    are changed here for what Adam uses. The program that they released (LucaCallisti/
    SME_for_Adam_and_RMSProp, `b_1_v`) multiplies H in v' by g̃/(√v̂ + eps) where the chain rule has
    the step's own m̂/(√v̂ + eps): `curvature="released"`, here with g̃ = g/B1. (Their
    printed formula was not to be had.) That, and `"none"`, leave an error of O(η).

    With 1 - b1, 1 - b2 ∝ η the error is O(η²) over a fixed η·steps after a fixed η·warm_steps. From
    step 0 on, where the bias factors change by their own size in a step, it falls a little slower.
    With fixed decays it is O(η) in the end, that of the `log` rates' lag, (1-b)/12 of a step.

    **Arguments:** as `AdamFlow`; `curvature`: `"full"`, or one of the others to judge it by.

    **Raises:** `ValueError` for a value outside its range or an unknown option.

    !!! example
        >>> import ct_adam as ct, jax.numpy as jnp
        >>> flow, loss, start = ct.SMEFlow(0.05, eps=1.0), lambda x: jnp.sum(x**2), jnp.ones(2)
        >>> path = ct.solve(flow, loss, start, 40, warm_steps=10)
        >>> ct.compare(path, ct.run(flow, loss, start, 40, warm_steps=10)).relative_error < 2e-3
        True
    """

    hyperparameters: Hyperparameters
    curvature: Curvature = eqx.field(static=True)
    rates: Rates = eqx.field(static=True)
    order: int = eqx.field(static=True)
    start: Start = eqx.field(static=True)

    def __init__(
        self,
        learning_rate: Scalar | Schedule,
        b1: Scalar = 0.9,
        b2: Scalar = 0.999,
        eps: Scalar = 1e-8,
        weight_decay: Scalar = 0.0,
        *,
        decay: Decay = "decoupled",
        eps_root: Scalar = 0.0,
        curvature: Curvature = "full",
    ):
        choice("curvature", curvature, CURVATURES)
        check_one_stage("SMEFlow", b1=b1, b2=b2)
        self.hyperparameters = Hyperparameters(
            learning_rate, b1, b2, eps, weight_decay, eps_root, decay
        )
        self.curvature = curvature
        self.rates, self.order, self.start = "log", 1, "first_step"

    @property
    def evaluations(self) -> int:
        if self.curvature == "none":
            return 1
        return 2 if self.curvature == "full" else 3  # an H x costs about a gradient

    def vector_field(self, step: Any, state: AdamState, loss: Loss | AbstractProblem) -> AdamState:
        params, (m,), (v,) = state.params, state.m, state.v
        time = jnp.asarray(step, state.origin.dtype)
        g, times_hessian = jax.linearize(lambda p: self._gradient(time, p, loss), params)

        def velocity(s: Array, p: PyTree, g: PyTree, m: PyTree, v: PyTree) -> PyTree:
            """X."""
            return self._drift(s, p, self._update_of_stage(0, s, state.origin, g, m, v))

        x = velocity(time, params, g, m, v)
        if self.curvature == "none":
            hx = hx_of_v = jax.tree.map(jnp.zeros_like, g)
        else:
            hx = hx_of_v = times_hessian(x)
        if self.curvature == "released":
            hx_of_v = times_hessian(velocity(time, params, g, None if m is None else g, v))

        ahead = jax.tree.map(lambda g, h: g + h / 2, g, hx)
        square_ahead = jax.tree.map(lambda g, h: g**2 + g * h, g, hx_of_v)
        m_rate = self._relaxation(self.hyperparameters.b1[0], m, ahead)
        v_rate = self._relaxation(self.hyperparameters.b2[0], v, square_ahead)
        along = (jnp.ones_like(time), x, hx, m_rate, v_rate)
        acceleration = jax.jvp(velocity, (time, params, g, m, v), along)[1]
        drift = jax.tree.map(lambda x, dx: x - dx / 2, x, acceleration)
        return AdamState(drift, None, (m_rate,), (v_rate,), jnp.zeros_like(state.origin))


class StaggeredFlow(AbstractAdamFlow):
    """`SMEFlow` at one gradient a call: moments half a step behind the parameters.

        m' = a (g - m)        v' = b (g² - v)        u = (m/B1)/(√(v/B2 + eps_root) + eps)
        θ' = -(η + ½λη² - ½η') (u + λθ)              a = -ln b1, b = -ln b2, B_i = 1 - b_i^{s+½}

    η' the schedule's slope. At s = w, after w optimizer steps, the moments have taken half of the
    next average: m = √b1 m_w + (1-√b1) g(θ_w), v alike. Source: this package. With m(s) for the m
    of `SMEFlow` at s - ½ that flow's curvature terms and its -½ du/ds cancel each other up to
    O(η³) a step: they *are* a shift in time by half a step. What is left is `AdamFlow` with `log`
    rates, another start and another clock of the bias; hence the accuracy of `log`.

    Its error is that of `SMEFlow`, O(η²) where 1 - b ∝ η, but only where the gradient has no jumps:
    of a stream or of minibatches it sees each half a step too early, and `AdamFlow` none.

    **Arguments:** as `AdamFlow`; b1 and b2 above 0, since what is removed cannot be staggered.

    **Raises:** `ValueError` for a value outside its range or an unknown option.

    !!! example
        >>> import ct_adam as ct, jax.numpy as jnp
        >>> flow = ct.StaggeredFlow(0.05, eps=1.0)
        >>> loss, start = lambda x: jnp.sum(x**2), jnp.ones(2)
        >>> path = ct.solve(flow, loss, start, 40, warm_steps=10)
        >>> ct.compare(path, ct.run(flow, loss, start, 40, warm_steps=10)).relative_error < 2e-3
        True
    """

    hyperparameters: Hyperparameters
    rates: Rates = eqx.field(static=True)
    order: int = eqx.field(static=True)
    start: Start = eqx.field(static=True)

    def __init__(
        self,
        learning_rate: Scalar | Schedule,
        b1: Scalar = 0.9,
        b2: Scalar = 0.999,
        eps: Scalar = 1e-8,
        weight_decay: Scalar = 0.0,
        *,
        decay: Decay = "decoupled",
        eps_root: Scalar = 0.0,
    ):
        check_one_stage("StaggeredFlow", b1=b1, b2=b2)
        self.hyperparameters = Hyperparameters(
            learning_rate, b1, b2, eps, weight_decay, eps_root, decay
        )
        for name in ("b1", "b2"):
            if is_removed(getattr(self.hyperparameters, name)[0]):
                raise ValueError(f"{name} = 0 leaves no moment to stagger: take SMEFlow.")
        self.rates, self.order, self.start = "log", 1, "first_step"

    def from_optimizer(
        self, loss: Loss | AbstractProblem, params: PyTree, optimizer_state: PyTree, step: Any
    ) -> AdamState:
        (held,) = stage_states(optimizer_state, 1)
        origin = jnp.asarray(step, jnp.result_type(*jax.tree.leaves(params)))
        g = self._gradient(origin, params, loss)
        m, v = self._half_step(held.m, held.v, g)
        return AdamState(params, None, (m,), (v,), origin)

    def update(self, step: Any, state: AdamState, loss: Loss | AbstractProblem) -> PyTree:
        """u_{n+1}: the other half of the average, so that `update[0]` is the optimizer's own."""
        g = self._gradient(step, state.params, loss)
        m, v = self._half_step(state.m[0], state.v[0], g)
        return self._update_of_stage(0, step + 0.5, state.origin, g, m, v)

    def bias_factor(self, b: Scalar, step: Any, origin: Any) -> Array:
        """1 - b^{s+½}: a unit gradient's average, half a step short of `update`'s."""
        del origin  # `log` rates keep to the discrete powers wherever the flow begins
        return 1 - b ** (step + 0.5)

    def _half_step(self, m: PyTree, v: PyTree, g: PyTree) -> tuple[PyTree, PyTree]:
        half1, half2 = (jnp.sqrt(b[0]) for b in (self.hyperparameters.b1, self.hyperparameters.b2))
        return averaged(half1, m, g), averaged(half2, v, jax.tree.map(jnp.square, g))

    def _drift(self, step: Any, params: PyTree, update: PyTree) -> PyTree:
        decay = self.hyperparameters.outer_weight_decay
        time = jnp.asarray(step, jnp.result_type(*jax.tree.leaves(params)))
        schedule = self.hyperparameters.learning_rate
        eta, slope = jax.jvp(
            lambda s: jnp.asarray(learning_rate_at(schedule, s), s.dtype),
            (time,),
            (jnp.ones_like(time),),
        )
        pace = eta + decay * eta**2 / 2 - slope / 2
        return jax.tree.map(lambda u, p: (-pace * (u + decay * p)).astype(p.dtype), update, params)
