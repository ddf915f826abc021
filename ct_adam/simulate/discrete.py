"""Discrete steps inside runs and flows: the warm ones, and the update that a step tells."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, PyTree

from ..flows import AbstractFlow
from ..optimizers import UpdateRule, optimizer_step
from ..problems import AbstractProblem


def warm_state(
    flow: AbstractFlow, problem: AbstractProblem, params: PyTree, warm_steps: int
) -> PyTree:
    """The flow's state after `warm_steps` discrete steps of its own optimizer."""
    if not warm_steps:
        return flow.init(problem, params)
    params, state = warmed(flow.optimizer, problem, params, warm_steps)
    return flow.from_optimizer(problem, params, state, warm_steps)


def warmed(
    optimizer: optax.GradientTransformation,
    problem: AbstractProblem,
    params: PyTree,
    warm_steps: int,
) -> tuple[PyTree, PyTree]:
    """Parameters and optimizer state after the warm steps."""

    def step(n: Array, carry: tuple[PyTree, PyTree]) -> tuple[PyTree, PyTree]:
        return optimizer_step(optimizer, problem, n, *carry)[:2]

    return jax.lax.fori_loop(0, warm_steps, step, (params, optimizer.init(params)))


def update_of(
    rule: UpdateRule | None, problem: AbstractProblem, step: Any, params: PyTree, delta: PyTree
) -> PyTree:
    """u from Δθ where the rule is known, -Δθ otherwise; NaN where no gradient was left."""
    opaque = rule is None
    update = jax.tree.map(jnp.negative, delta) if opaque else rule.update(step, params, delta)
    available = problem.steps_available
    if available is None:
        return update
    return jax.tree.map(lambda u: jnp.where(step < available, u, jnp.nan), update)
