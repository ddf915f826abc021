"""SGD with momentum as a flow: a heavy ball, and the gradient flow."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import PyTree

from ..decays import (
    RATES,
    Rates,
    Scalar,
    Schedule,
    check_hyperparameters,
    choice,
    is_removed,
    learning_rate_at,
    rate,
)
from ..optimizers import Optimizer, sgdw
from ..problems import AbstractProblem, as_problem, like
from ..problems.base import Loss
from .base import AbstractFlow, parameter_scale


class MomentumState(eqx.Module):
    """Parameters and momentum; None where the momentum is a Python 0."""

    params: PyTree
    m: PyTree | None


class MomentumFlow(AbstractFlow):
    """SGD with undamped momentum, m ← βm + g, θ ← θ - η(m + λθ), as an ODE over steps.

        m' = a (g/(1-β) - m)      θ' = -η (m + λθ)      a = rate(β)

    Without m, for constant η and λ = 0: (1/a) θ'' + θ' = -(η/(1-β)) g. With `rates="lag"`,
    1/a = β/(1-β), this is

        (β/η) θ'' + ((1-β)/η) θ' = -g

    Polyak's heavy ball as a mass β/η in a medium of friction (1-β)/η (Qian, Neural Networks 12,
    1999, in steps as the unit of time). Expanding the discrete step to second order gives
    1/a = ½(1+β)/(1-β) instead (a modified equation, as in Kovachki & Stuart, JMLR 22, 2021);
    `"lag"` is half a step below it, `"euler"` half a step above, `"log"` within (1-β)/12.

    At step n the momentum has seen g(θ_n), as in `AdamFlow`'s start "first_step": m(0) = g(θ_0).
    So the flow has the speed of the optimizer's step n → n + 1 at its begin, not in its middle:
    with a large η/(1-β)² an oscillation runs half a step ahead.

    **Arguments:**

    - `learning_rate`: η, a number or a schedule.
    - `momentum`: β in [0, 1). A Python 0 removes m: the gradient flow θ' = -η(g + λθ).
    - `weight_decay`: λ, decoupled.
    - `rates`: `"lag"`, `"log"` (follows a held stream exactly) or `"euler"`.

    **Raises:** `ValueError` for a value outside its range or an unknown option.

    !!! example
        >>> import ct_adam as ct, jax.numpy as jnp
        >>> flow = MomentumFlow(0.1, momentum=0.5)
        >>> state = flow.init(lambda x: jnp.sum(x**2) / 2, jnp.array([1.0, -3.0]))
        >>> print(flow.update(0, state, lambda x: jnp.sum(x**2) / 2))
        [ 1. -3.]
    """

    learning_rate: Scalar | Schedule
    momentum: Scalar
    weight_decay: Scalar
    rates: Rates = eqx.field(static=True)

    def __init__(
        self,
        learning_rate: Scalar | Schedule,
        momentum: Scalar = 0.9,
        weight_decay: Scalar = 0.0,
        *,
        rates: Rates = "lag",
    ):
        choice("rates", rates, RATES)
        named = {"learning_rate": learning_rate, "momentum": momentum, "weight_decay": weight_decay}
        check_hyperparameters(named)
        # NumPy's zero removes the momentum too.
        self.momentum = momentum.item() if isinstance(momentum, np.generic) else momentum
        self.learning_rate, self.weight_decay, self.rates = learning_rate, weight_decay, rates

    @property
    def lag(self) -> int:
        # Without memory, batch ⌊s⌋ rules from step ⌊s⌋ on (EQUATIONS §1).
        return 1 if is_removed(self.momentum) else 0

    @property
    def evaluations(self) -> int:
        return 1

    @property
    def optimizer(self) -> Optimizer:
        return sgdw(self.learning_rate, self.momentum, self.weight_decay)

    def params(self, state: MomentumState) -> PyTree:
        return state.params

    def init(self, loss: Loss | AbstractProblem, params: PyTree) -> MomentumState:
        return self.from_optimizer(loss, params, self.optimizer.init(params), 0)

    def from_optimizer(
        self, loss: Loss | AbstractProblem, params: PyTree, optimizer_state: PyTree, step: Any
    ) -> MomentumState:
        """m = βm_w + g(θ_w): what the optimizer itself would use next."""
        if is_removed(self.momentum):
            return MomentumState(params, None)
        gradient = _gradient(as_problem(loss).seen(step, self.lag), params, loss)
        m = jax.tree.map(
            lambda held, g: (g + self.momentum * held).astype(g.dtype),
            held_momentum(optimizer_state),
            gradient,
        )
        return MomentumState(params, m)

    def update(self, step: Any, state: MomentumState, loss: Loss | AbstractProblem) -> PyTree:
        if state.m is None:
            return _gradient(as_problem(loss).seen(step), state.params, loss)
        return state.m

    def vector_field(
        self, step: Any, state: MomentumState, loss: Loss | AbstractProblem
    ) -> MomentumState:
        eta = learning_rate_at(self.learning_rate, step)
        gradient = _gradient(as_problem(loss).seen(step, self.lag), state.params, loss)
        m = gradient if state.m is None else state.m
        drift = jax.tree.map(
            lambda u, p: (-eta * (u + self.weight_decay * p)).astype(p.dtype), m, state.params
        )
        return MomentumState(drift, None if state.m is None else self._force(gradient, state.m))

    def _force(self, gradient: PyTree, m: PyTree) -> PyTree:
        """a (g/(1-β) - m)."""
        a = rate(self.momentum, self.rates)
        return jax.tree.map(
            lambda g, x: (a * (g / (1 - self.momentum) - x)).astype(x.dtype), gradient, m
        )

    def error_scale(self, state: MomentumState, rtol: float, atol: float) -> MomentumState:
        # There is no v whose root tells how large m was lately. Relative to each |m| the solver
        # would crawl through every turning point of the ball, and stall at the minimum: there g's
        # rounding, which no step size lessens, is all of m (tests: 500 000 steps and no end
        # against 2824). So: the leaf's largest entry, and atol in the gradient's units. Nothing
        # is lost that SGD had, it is not scale-free.
        def momentum(m: jax.Array) -> jax.Array:
            largest = jnp.max(jnp.abs(m), initial=0)
            return jnp.full_like(m, parameter_scale(largest, rtol, atol))

        return MomentumState(
            jax.tree.map(lambda leaf: parameter_scale(leaf, rtol, atol), state.params),
            jax.tree.map(momentum, state.m),
        )


def _gradient(seen: Any, params: PyTree, loss: Loss | AbstractProblem) -> PyTree:
    return like(as_problem(loss).gradient(seen, params), params)


def held_momentum(optimizer_state: PyTree) -> PyTree:
    """The momentum in the state of `sgdw`, or of an optax chain around `optax.trace`."""

    def is_trace(node: Any) -> bool:
        return isinstance(node, optax.TraceState)

    leaves = jax.tree.leaves(optimizer_state, is_leaf=is_trace)
    found = [node.trace for node in leaves if is_trace(node)]
    if len(found) != 1:
        raise ValueError(
            f"The optimizer state holds {len(found)} momenta, the flow has 1: hand over the state "
            "of flow.optimizer (or of optax.sgd with momentum)."
        )
    return found[0]
