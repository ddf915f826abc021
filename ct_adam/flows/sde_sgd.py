"""SGD with noisy gradients as a stochastic differential equation."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from ..decays import Scalar, Schedule, is_removed, learning_rate_at
from ..optimizers import Optimizer
from ..problems import AbstractProblem
from ..problems.base import Loss
from ..problems.noise import as_white
from .momentum import MomentumFlow, MomentumState, held_momentum
from .sde import AbstractSDE


class SGDSDE(AbstractSDE):
    """SGD with noisy gradients as an SDE over steps.

        dθ = -η (∇f + λθ) ds - η √Σ dW,        with momentum β:
        dm = ∇f ds - (1-β) m ds + √Σ dW        dθ = -η (m + λθ) ds

    Source: Li, Tai & E (JMLR 20, 2019), order 1, in steps; momentum undamped as in `sgdw`, of which
    this is the limit. Its drift is `MomentumFlow(rates="euler")`.

    **Arguments:** `learning_rate`, `momentum`, `weight_decay` as in `MomentumFlow`.

    **Raises:** `ValueError` for a value outside its range, and at the start of a run for a loss
    without noise.

    !!! example
        >>> import ct_adam as ct, jax.numpy as jnp
        >>> noisy = ct.problems.GaussianNoise(lambda x: jnp.sum(x**2) / 2, variance=4.0)
        >>> flow = ct.flows.SGDSDE(0.1)
        >>> print(flow.diffusion(0, flow.init(noisy, jnp.ones(2)), noisy))
        [-0.2 -0.2]
    """

    learning_rate: Scalar | Schedule
    momentum: Scalar
    weight_decay: Scalar

    def __init__(
        self,
        learning_rate: Scalar | Schedule,
        momentum: Scalar = 0.0,
        weight_decay: Scalar = 0.0,
    ):
        drift = MomentumFlow(learning_rate, momentum, weight_decay)  # which checks them
        self.learning_rate, self.momentum = drift.learning_rate, drift.momentum
        self.weight_decay = drift.weight_decay

    @property
    def _drift(self) -> MomentumFlow:
        return MomentumFlow(self.learning_rate, self.momentum, self.weight_decay, rates="euler")

    @property
    def additive(self) -> bool:
        return True

    @property
    def lag(self) -> int:
        return 1

    @property
    def evaluations(self) -> int:
        return 1

    @property
    def optimizer(self) -> Optimizer:
        return self._drift.optimizer

    def init(self, loss: Loss | AbstractProblem, params: PyTree) -> MomentumState:
        still = jax.tree.map(jnp.zeros_like, params)
        return MomentumState(params, None if is_removed(self.momentum) else still)

    def from_optimizer(
        self, loss: Loss | AbstractProblem, params: PyTree, optimizer_state: PyTree, step: Any
    ) -> MomentumState:
        return MomentumState(
            params, None if is_removed(self.momentum) else held_momentum(optimizer_state)
        )

    def params(self, state: MomentumState) -> PyTree:
        return state.params

    def update(self, step: Any, state: MomentumState, loss: Loss | AbstractProblem) -> PyTree:
        return self._drift.update(step, state, as_white(loss))

    def vector_field(
        self, step: Any, state: MomentumState, loss: Loss | AbstractProblem
    ) -> MomentumState:
        return self._drift.vector_field(step, state, as_white(loss))

    def diffusion(self, step: Any, state: MomentumState, loss: Loss | AbstractProblem) -> PyTree:
        root = jax.tree.map(jnp.sqrt, as_white(loss).variance_like(state.params))
        if state.m is not None:
            return root
        eta = learning_rate_at(self.learning_rate, step)
        return jax.tree.map(lambda x: (-eta * x).astype(x.dtype), root)

    def noise_increment(self, noise: PyTree) -> MomentumState:
        if is_removed(self.momentum):
            return MomentumState(noise, None)
        return MomentumState(jax.tree.map(jnp.zeros_like, noise), noise)

    def error_scale(self, state: MomentumState, rtol: float, atol: float) -> MomentumState:
        return self._drift.error_scale(state, rtol, atol)
