"""The k-stage equations that all flows of Adam's family share."""

from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from ..decays import Hyperparameters, Rates, Scalar, is_removed, learning_rate_at, rate
from ..optimizers import (
    Optimizer,
    averaged,
    from_hyperparameters,
    map_moments,
    normalized,
    stage_states,
)
from ..problems import AbstractProblem, as_problem, like
from ..problems.base import Loss
from .base import AbstractFlow, parameter_scale

Start = Literal["first_step", "zero", "paper"]
Moment = PyTree | None


class AdamState(eqx.Module):
    """State of an Adam flow: parameters, their velocity (order 2 only), a stage's moments each.

    `origin` is the step w at which the flow took over from the discrete optimizer; it enters the
    bias factors and has derivative 0. Moments whose decay is a Python 0 are None.
    """

    params: PyTree
    velocity: PyTree | None
    m: tuple[Moment, ...]
    v: tuple[Moment, ...]
    origin: Float[Array, ""]


class AbstractAdamFlow(AbstractFlow):
    """The k-stage equations of EQUATIONS §1 and §4; `AdamFlow` is k = 1.

    With u⁰ = g(θ), for each stage i

        m_i' = a_i (u^{i-1} - m_i)      v_i' = b_i ((u^{i-1})² - v_i)
        u^i  = (m_i/B1_i) / (√(v_i/B2_i + eps_root) + eps)

    order 1:  θ' = -η (u + λθ)          order 2:  ½θ'' + θ' = -η (u + λθ)
    """

    hyperparameters: eqx.AbstractVar[Hyperparameters]
    rates: eqx.AbstractVar[Rates]
    order: eqx.AbstractVar[int]
    start: eqx.AbstractVar[Start]

    @property
    def lag(self) -> int:
        return 0 if self.start == "first_step" else 1

    @property
    def evaluations(self) -> int:
        return 1

    @property
    def optimizer(self) -> Optimizer:
        return from_hyperparameters(self.hyperparameters)

    def params(self, state: AdamState) -> PyTree:
        return state.params

    def init(self, loss: Loss | AbstractProblem, params: PyTree) -> AdamState:
        return self.from_optimizer(loss, params, self.optimizer.init(params), 0)

    def from_optimizer(
        self, loss: Loss | AbstractProblem, params: PyTree, optimizer_state: PyTree, step: Any
    ) -> AdamState:
        origin = jnp.asarray(step, jnp.result_type(*jax.tree.leaves(params)))
        ms, vs = [], []
        u = self._gradient(origin, params, loss)
        for i, held in enumerate(stage_states(optimizer_state, len(self.hyperparameters.b1))):
            b1, b2 = self.hyperparameters.b1[i], self.hyperparameters.b2[i]
            if self.start == "first_step":
                m = averaged(b1, held.m, u)
                v = averaged(b2, held.v, _squared(u))
            else:
                m = None if is_removed(b1) else held.m
                v = None if is_removed(b2) else held.v
            ms.append(m)
            vs.append(v)
            u = self._update_of_stage(i, origin, origin, u, m, v)
        state = AdamState(params, None, tuple(ms), tuple(vs), origin)
        if self.order == 1:
            return state
        return eqx.tree_at(
            lambda s: s.velocity,
            state,
            self._drift(origin, params, u),
            is_leaf=lambda x: x is None,
        )

    def update(self, step: Any, state: AdamState, loss: Loss | AbstractProblem) -> PyTree:
        return self._stages(step, state, loss)[0][-1]

    def stage_updates(
        self, step: Any, state: AdamState, loss: Loss | AbstractProblem
    ) -> tuple[PyTree, ...]:
        """u¹ … u^k, PyTrees like the parameters; the last one is `update`."""
        return self._stages(step, state, loss)[0]

    def vector_field(self, step: Any, state: AdamState, loss: Loss | AbstractProblem) -> AdamState:
        updates, m_rates, v_rates = self._stages(step, state, loss)
        drift = self._drift(step, state.params, updates[-1])
        origin_rate = jnp.zeros_like(state.origin)
        if self.order == 1:
            return AdamState(drift, None, m_rates, v_rates, origin_rate)
        acceleration = jax.tree.map(lambda d, p: 2 * (d - p), drift, state.velocity)
        return AdamState(state.velocity, acceleration, m_rates, v_rates, origin_rate)

    def error_scale(self, state: AdamState, rtol: float, atol: float) -> AdamState:
        def v_scale(v: Array) -> Array:
            return jnp.maximum(rtol * jnp.abs(v), jnp.finfo(v.dtype).tiny)

        def m_scale(m: Array, v: Array | None) -> Array:
            root = 0 if v is None else jnp.sqrt(jnp.maximum(v, 0))
            return jnp.maximum(rtol * jnp.maximum(jnp.abs(m), root), jnp.finfo(m.dtype).tiny)

        def parameters(tree: PyTree) -> PyTree:
            return jax.tree.map(lambda leaf: parameter_scale(leaf, rtol, atol), tree)

        return AdamState(
            params=parameters(state.params),
            velocity=parameters(state.velocity),
            m=tuple(
                None if m is None else map_moments(lambda m, v, _: m_scale(m, v), m, v, None)
                for m, v in zip(state.m, state.v, strict=True)
            ),
            v=jax.tree.map(v_scale, state.v),
            origin=jnp.ones_like(state.origin),
        )

    def _gradient(self, step: Any, params: PyTree, loss: Loss | AbstractProblem) -> PyTree:
        return stage_input(self.hyperparameters, as_problem(loss), step, self.lag, params)

    def _stages(
        self, step: Any, state: AdamState, loss: Loss | AbstractProblem
    ) -> tuple[tuple[PyTree, ...], tuple[Moment, ...], tuple[Moment, ...]]:
        """u of every stage, and the rates of all moments."""
        u = self._gradient(step, state.params, loss)
        updates, m_rates, v_rates = [], [], []
        for i, (m, v) in enumerate(zip(state.m, state.v, strict=True)):
            b1, b2 = self.hyperparameters.b1[i], self.hyperparameters.b2[i]
            m_rates.append(self._relaxation(b1, m, u))
            v_rates.append(self._relaxation(b2, v, _squared(u)))
            u = self._update_of_stage(i, step, state.origin, u, m, v)
            updates.append(u)
        return tuple(updates), tuple(m_rates), tuple(v_rates)

    def _relaxation(self, b: Scalar, moment: Moment, target: PyTree) -> Moment:
        if moment is None:
            return None
        return jax.tree.map(
            lambda x, y: (rate(b, self.rates) * (y - x)).astype(x.dtype), moment, target
        )

    def _update_of_stage(
        self, i: int, step: Any, origin: Array, inputs: PyTree, m: Moment, v: Moment
    ) -> PyTree:
        shared = self.hyperparameters

        def corrected(b: Scalar, moment: Array, sample: Array) -> Array:
            factor = self.bias_factor(b, step, origin)
            if self.start != "zero":
                # "paper" begins at m = v = 0 with a factor that is not 0: its u(0) is 0.
                return moment / factor
            # The limit of m/B as both go to 0 is the moment's input itself.
            begun = factor > 0
            return jnp.where(begun, moment / jnp.where(begun, factor, 1), sample)

        def leaf(x: Array, m_leaf: Array | None, v_leaf: Array | None) -> Array:
            m_hat = x if m_leaf is None else corrected(shared.b1[i], m_leaf, x)
            v_hat = x**2 if v_leaf is None else corrected(shared.b2[i], v_leaf, x**2)
            # Interpolation between solver steps may leave a v of relative size rtol below 0.
            return normalized(m_hat, jnp.maximum(v_hat, 0), shared.eps, shared.eps_root)

        return map_moments(leaf, inputs, m, v)

    def bias_factor(self, b: Scalar, step: Any, origin: Any) -> Array:
        """B(s): the moment's own response to a unit gradient since step 0 (EQUATIONS §1)."""
        return unit_response(b, step, origin, self.rates, self.start)

    def _drift(self, step: Any, params: PyTree, update: PyTree) -> PyTree:
        """-η (u + λθ)."""
        eta = learning_rate_at(self.hyperparameters.learning_rate, step)
        decay = self.hyperparameters.outer_weight_decay
        return jax.tree.map(lambda u, p: (-eta * (u + decay * p)).astype(p.dtype), update, params)


def stage_input(
    shared: Hyperparameters, problem: AbstractProblem, step: Any, lag: int, params: PyTree
) -> PyTree:
    """u⁰: the gradient that rules at `step`, with λθ where decay acts inside (`"l2"`)."""
    gradient = like(problem.gradient(problem.seen(step, lag), params), params)
    if shared.decay == "l2":
        return jax.tree.map(lambda g, p: g + shared.weight_decay * p, gradient, params)
    return gradient


def unit_response(b: Scalar, step: Any, origin: Any, rates: Rates, start: Start) -> Array:
    """The response of a moment with decay `b` to a unit gradient since step 0.

    1 - b^{w+1} e^{-a(s-w)} for `"first_step"`, 1 - b^w e^{-a(s-w)} for the other two, but
    `"paper"` from w = 0 has 1 - b^{1+s}, as it is printed.
    """
    elapsed = rate(b, rates) * (step - origin)
    if start == "first_step":
        # As the discrete side computes it, so that update[0] is equal to rounding.
        return 1 - b ** (origin + 1) * jnp.exp(-elapsed)
    ours = -jnp.expm1(origin * jnp.log(b) - elapsed)  # keeps its digits from 0 on
    if start == "zero":
        return ours
    return jnp.where(origin == 0, 1 - b ** (1 + step), ours)


def _squared(tree: PyTree) -> PyTree:
    return jax.tree.map(jnp.square, tree)
