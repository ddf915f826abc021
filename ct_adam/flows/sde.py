"""Adam and RMSProp with noisy gradients as stochastic differential equations."""

import abc
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
    rate,
)
from ..optimizers import Optimizer, stage_states
from ..problems import AbstractProblem
from ..problems.base import Loss
from ..problems.noise import as_white
from .base import AbstractFlow
from .rmsprop import RMSPropFlow, held_second_moment
from .stages import AbstractAdamFlow, AdamState, Start, stage_input, unit_response

Moments = Literal["own", "warm"]


class AbstractSDE(AbstractFlow):
    """dz = vector_field ds + noise_increment(diffusion · dW), a Brownian motion W a parameter.

    Its loss is a `ct.problems.GaussianNoise`. Noise only ever enters what the diffusion does not
    depend on, so that Itô's and Stratonovich's readings agree.
    """

    @property
    @abc.abstractmethod
    def additive(self) -> bool:
        """Whether the diffusion is a function of time alone."""

    @abc.abstractmethod
    def diffusion(self, step: Any, state: PyTree, loss: Loss | AbstractProblem) -> PyTree:
        """Standard deviation per √step of each coordinate's noise, a PyTree like the parameters."""

    @abc.abstractmethod
    def noise_increment(self, noise: PyTree) -> PyTree:
        """Noise, a PyTree like the parameters, as an increment of the state."""


class AbstractAdamSDE(AbstractAdamFlow, AbstractSDE):
    """The equations of `AdamSDE`; without m its noise falls on θ."""

    moments: eqx.AbstractVar[Moments]

    @property
    @abc.abstractmethod
    def bias_correction(self) -> bool:
        """Whether the optimizer divides its moments by B."""

    @property
    def rates(self) -> Rates:
        return "euler"

    @property
    def order(self) -> int:
        return 1

    @property
    def start(self) -> Start:
        return "zero"

    @property
    def additive(self) -> bool:
        return not is_removed(self.hyperparameters.b1[0]) or self.moments == "warm"

    def init(self, loss: Loss | AbstractProblem, params: PyTree) -> AdamState:
        if self.moments == "own":
            raise ValueError(
                f"{type(self).__name__} is singular at step 0, where √v = 0: take warm_steps of at "
                'least 1, or moments="warm".'
            )
        origin = jnp.zeros((), jnp.result_type(*jax.tree.leaves(params)))
        m = None
        if not is_removed(self.hyperparameters.b1[0]):
            m = self._gradient(origin, params, loss)
        return AdamState(params, None, (m,), (as_white(loss).variance_like(params),), origin)

    def from_optimizer(
        self, loss: Loss | AbstractProblem, params: PyTree, optimizer_state: PyTree, step: Any
    ) -> AdamState:
        origin = jnp.asarray(step, jnp.result_type(*jax.tree.leaves(params)))
        m, v = self._held(optimizer_state)
        b1 = self.hyperparameters.b1[0]
        m = None if is_removed(b1) else m
        if self.moments == "warm":
            m = jax.tree.map(lambda x: (x / (1 - b1**origin)).astype(x.dtype), m)
            v = as_white(loss).variance_like(params)
        return AdamState(params, None, (m,), (v,), origin)

    def _held(self, optimizer_state: PyTree) -> tuple[PyTree, PyTree]:
        """m and v of the optimizer."""
        (held,) = stage_states(optimizer_state, 1)
        return held.m, held.v

    def vector_field(self, step: Any, state: AdamState, loss: Loss | AbstractProblem) -> AdamState:
        (m,), (v,) = state.m, state.v
        variance = as_white(loss).variance_like(state.params)
        gradient = self._gradient(step, state.params, loss)
        update = self._update_of_stage(0, step, state.origin, gradient, m, v)
        return AdamState(
            self._drift(step, state.params, update),
            None,
            (self._relaxation(self.hyperparameters.b1[0], m, gradient),),
            (self._relaxation(self.hyperparameters.b2[0], v, variance),),
            jnp.zeros_like(state.origin),
        )

    def diffusion(self, step: Any, state: AdamState, loss: Loss | AbstractProblem) -> PyTree:
        root = jax.tree.map(jnp.sqrt, as_white(loss).variance_like(state.params))
        if state.m[0] is None:  # the noise of the gradient is that of u
            update = self._update_of_stage(0, step, state.origin, root, None, state.v[0])
            eta = learning_rate_at(self.hyperparameters.learning_rate, step)
            return jax.tree.map(lambda u: (-eta * u).astype(u.dtype), update)
        a = rate(self.hyperparameters.b1[0], self.rates)
        return jax.tree.map(lambda x: (a * x).astype(x.dtype), root)

    def noise_increment(self, noise: PyTree) -> AdamState:
        still = jax.tree.map(jnp.zeros_like, noise)
        origin = jnp.zeros((), jnp.result_type(*jax.tree.leaves(noise)))
        if is_removed(self.hyperparameters.b1[0]):
            return AdamState(noise, None, (None,), (still,), origin)
        return AdamState(still, None, (noise,), (still,), origin)

    def bias_factor(self, b: Scalar, step: Any, origin: Any) -> Array:
        if self.moments == "warm" or not self.bias_correction:
            return jnp.ones_like(origin)
        return unit_response(b, step, origin, self.rates, self.start)

    def _gradient(self, step: Any, params: PyTree, loss: Loss | AbstractProblem) -> PyTree:
        return stage_input(self.hyperparameters, as_white(loss), step, self.lag, params)


class AdamSDE(AbstractAdamSDE):
    """Adam and AdamW with noisy gradients as an SDE over optimizer steps.

        dm = (1-b1) [(∇f - m) ds + √Σ dW]        dv = (1-b2) (Σ - v) ds
        dθ = -η (u + λθ) ds                      u = (m/B1)/(√(v/B2 + eps_root) + eps)

    Σ the variance of one gradient's noise, coordinate by coordinate, W Brownian motion: so much
    noise a step as the optimizer has. Source: EQUATIONS §9; Malladi, Lyu, Panigrahi & Arora (arXiv
    2205.10287), in steps. It is `AdamFlow(rates="euler", start="zero")` with Σ in the place of g²,
    which holds where noise dominates, and noise on m. B = 1 - b^w e^{-(1-b)(s-w)} after w warm
    steps, as there; they print 1 - e^{-(1-b)s}, which is the same up to O(1-b).

    Weak error: O(η²) over a fixed η²·steps, with the noise's deviation ∝ 1/η, eps ∝ 1/η and
    1-b ∝ η²: order 1 in η², their time.

    **Arguments:**

    - `learning_rate`, `b1`, `b2`, `eps`, `weight_decay`, `decay`, `eps_root`: as in `AdamFlow`;
        b2 > 0. b1 = 0 (a Python 0) puts the noise on θ: RMSProp with bias correction.
    - `moments`: `"own"`, as above: singular at step 0, it asks for `warm_steps`. With `"warm"`
        v = Σ and B = 1 throughout, the limit of a long run, from m(0) = ∇f (from m/B1 after warm
        steps): a preconditioner that stands, and on a quadratic a linear SDE
        (`theory.sde_moments`).

    Loss: a `ct.problems.GaussianNoise`, which holds Σ and the path's seed. Σ of minibatches:
    `ct.problems.estimate_noise`.

    **Raises:** `ValueError` for a value outside its range or an unknown option, and at the start
    of a run for a loss without noise, or without warm steps.

    !!! example
        >>> import ct_adam as ct, jax.numpy as jnp
        >>> noisy = ct.problems.GaussianNoise(lambda x: jnp.sum(x**2) / 2, variance=4.0, seed=3)
        >>> path = ct.solve(ct.AdamSDE(1e-2), noisy, jnp.ones(2), 200, warm_steps=10)
        >>> path.params.shape, int(path.stats["num_steps"])
        ((201, 2), 400)
    """

    hyperparameters: Hyperparameters
    moments: Moments = eqx.field(static=True)

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
        moments: Moments = "own",
    ):
        choice("moments", moments, ("own", "warm"))
        check_one_stage("AdamSDE", b1=b1, b2=b2)
        self.hyperparameters = Hyperparameters(
            learning_rate, b1, b2, eps, weight_decay, eps_root, decay
        )
        _check_second_moment(self.hyperparameters)
        self.moments = moments

    @property
    def bias_correction(self) -> bool:
        return True


class RMSPropSDE(AbstractAdamSDE):
    """RMSProp with noisy gradients as an SDE over steps.

        dθ = -η (∇f ds + √Σ dW)/(√ν + eps)        dν = (1-b2) (Σ - ν) ds

    Source: EQUATIONS §9; Malladi et al. (arXiv 2205.10287), in steps. Like theirs and optax's it
    corrects no bias; with it: `AdamSDE(learning_rate, b1=0, b2=b2)`.

    **Arguments:** `learning_rate`, `b2`, `eps` as in `RMSPropFlow`; `moments` as in `AdamSDE`.

    **Raises:** as `AdamSDE`.

    !!! example
        >>> import ct_adam as ct, jax.numpy as jnp
        >>> noisy = ct.problems.GaussianNoise(lambda x: jnp.sum(x**2) / 2, variance=4.0)
        >>> flow = ct.flows.RMSPropSDE(0.01, moments="warm")
        >>> print(flow.diffusion(0, flow.init(noisy, jnp.ones(2)), noisy).round(5))
        [-0.01 -0.01]
    """

    hyperparameters: Hyperparameters
    moments: Moments = eqx.field(static=True)

    def __init__(
        self,
        learning_rate: Scalar | Schedule,
        b2: Scalar = 0.9,
        eps: Scalar = 1e-8,
        *,
        moments: Moments = "own",
    ):
        choice("moments", moments, ("own", "warm"))
        check_one_stage("RMSPropSDE", b2=b2)
        self.hyperparameters = Hyperparameters(learning_rate, 0, b2, eps, 0.0, 0.0, "decoupled")
        _check_second_moment(self.hyperparameters)
        self.moments = moments

    @property
    def bias_correction(self) -> bool:
        return False

    @property
    def optimizer(self) -> Optimizer:
        of = self.hyperparameters
        return RMSPropFlow(of.learning_rate, of.b2[0], of.eps).optimizer

    def _held(self, optimizer_state: PyTree) -> tuple[PyTree, PyTree]:
        return None, held_second_moment(optimizer_state)


def _check_second_moment(hyperparameters: Hyperparameters) -> None:
    if is_removed(hyperparameters.b2[0]):
        raise ValueError("b2 = 0 leaves no second moment: take SGDSDE.")
