"""RMSProp as a flow: the stable flow of Central Flows."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, PyTree

from ..decays import Hyperparameters, Rates, Scalar, Schedule, check_one_stage, is_removed
from ..optimizers import Optimizer, UpdateRule, averaged
from ..problems import AbstractProblem
from ..problems.base import Loss
from .stages import AbstractAdamFlow, AdamState, Start, unit_response


class RMSPropFlow(AbstractAdamFlow):
    """RMSProp, ν ← b2 ν + (1-b2) g², θ ← θ - ηg/(√ν + eps), as an ODE over steps.

        θ' = -η g/(√ν + eps)        ν' = ((1-b2)/b2) (g² - ν)

    the *stable flow* of Cohen et al. (Central Flows, arXiv 2410.24206; ICLR 2025): what RMSProp
    does while it does not oscillate. It ends where the preconditioned sharpness passes 2; their
    central flow goes on from there with a correction by the third derivative, which is not here
    (`InterpolatingFlow` with stride 2 is). Read in their programs (centralflows, central_flows_jax,
    `RMSProp.dstate_dt`): time in steps, the lag's rate, eps outside the root, ν without bias
    correction unless asked for. They start ν(0) = ν_w, at 0 before any step; here, as in
    `AdamFlow`, ν(0) is what the optimizer uses next, b2 ν_w + (1-b2) g(θ_w)². Against
    `optax.rmsprop` the error is O(η).

    **Arguments:**

    - `learning_rate`: η, a number or a schedule. `b2`: the decay, in (0, 1).
    - `eps`: outside the root; inside it with `eps_in_sqrt`, which is optax's default.
    - `bias_correction`: ν/B for ν, B = 1 - b2^{w+1} e^{-(s-w)(1-b2)/b2}, ν's own response to a unit
        gradient; then it is `AdamFlow` with b1 = 0 and the `lag` rates.

    **Raises:** `ValueError` for a value outside its range.

    !!! example
        >>> import ct_adam as ct, jax.numpy as jnp
        >>> flow, loss, start = ct.RMSPropFlow(0.01), lambda x: jnp.sum(x**2), jnp.ones(2)
        >>> path = ct.solve(flow, loss, start, 40, warm_steps=10)
        >>> ct.compare(path, ct.run(flow, loss, start, 40, warm_steps=10)).relative_error < 0.02
        True
    """

    hyperparameters: Hyperparameters
    bias_correction: bool = eqx.field(static=True)
    eps_in_sqrt: bool = eqx.field(static=True)
    rates: Rates = eqx.field(static=True)
    order: int = eqx.field(static=True)
    start: Start = eqx.field(static=True)

    def __init__(
        self,
        learning_rate: Scalar | Schedule,
        b2: Scalar = 0.9,
        eps: Scalar = 1e-8,
        *,
        bias_correction: bool = False,
        eps_in_sqrt: bool = False,
    ):
        check_one_stage("RMSPropFlow", b2=b2)
        outside, inside = (0.0, eps) if eps_in_sqrt else (eps, 0.0)
        self.hyperparameters = Hyperparameters(
            learning_rate, 0, b2, outside, 0.0, inside, "decoupled"
        )
        if is_removed(self.hyperparameters.b2[0]):
            raise ValueError("b2 = 0 leaves sign descent: take SignFlow.")
        self.bias_correction, self.eps_in_sqrt = bias_correction, eps_in_sqrt
        self.rates, self.order, self.start = "lag", 1, "first_step"

    @property
    def optimizer(self) -> Optimizer:
        of = self.hyperparameters
        rmsprop = optax.rmsprop(
            of.learning_rate,  # pyright: ignore[reportArgumentType]
            decay=of.b2[0],
            eps=of.eps_root if self.eps_in_sqrt else of.eps,
            eps_in_sqrt=self.eps_in_sqrt,
            bias_correction=self.bias_correction,
        )
        return Optimizer.make(rmsprop, UpdateRule(of.learning_rate), of.named())

    def from_optimizer(
        self, loss: Loss | AbstractProblem, params: PyTree, optimizer_state: PyTree, step: Any
    ) -> AdamState:
        """ν = b2 ν_w + (1-b2) g(θ_w)²: what the optimizer itself would use next."""
        origin = jnp.asarray(step, jnp.result_type(*jax.tree.leaves(params)))
        square = jax.tree.map(jnp.square, self._gradient(origin, params, loss))
        nu = averaged(self.hyperparameters.b2[0], held_second_moment(optimizer_state), square)
        return AdamState(params, None, (None,), (nu,), origin)

    def bias_factor(self, b: Scalar, step: Any, origin: Any) -> Array:
        if not self.bias_correction:
            return jnp.ones_like(origin)
        return unit_response(b, step, origin, self.rates, self.start)


def held_second_moment(optimizer_state: PyTree) -> PyTree:
    """ν in the state of `optax.rmsprop`, or of a chain around `optax.scale_by_rms`."""

    def is_rms(node: Any) -> bool:
        # With bias correction optax's state is of another class, which optax does not export.
        return type(node).__name__.startswith("ScaleByRms")

    leaves = jax.tree.leaves(optimizer_state, is_leaf=is_rms)
    found = [node.nu for node in leaves if is_rms(node)]
    if len(found) != 1:
        raise ValueError(
            f"The optimizer state holds {len(found)} averages of g², the flow has 1: hand over the "
            "state of flow.optimizer (or of optax.rmsprop)."
        )
    return found[0]
