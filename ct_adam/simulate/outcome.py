"""How a run ended: diffrax's results and those that only a map of optimizers needs."""

from typing import Any

import diffrax
import jax
import jax.numpy as jnp
from equinox.internal import nextafter
from jaxtyping import Array, Bool, PyTree

from ..problems import AbstractProblem


class OUTCOME(diffrax.RESULTS):  # pyright: ignore[reportGeneralTypeIssues]
    """Outcomes of `ct.solve`, `ct.run` and `ct.ensemble`; the text says what to change."""

    nonfinite_start = (
        "The loss or its gradient is not finite at the initial parameters: check the loss there, "
        "or start elsewhere."
    )
    nonfinite_run = (
        "A parameter, moment or loss became NaN or infinite during the run: lower the learning "
        "rate, or raise eps."
    )
    budget_spent = (
        "The solver's budget was spent before the last step: raise max_solver_steps, loosen rtol, "
        "or leave the stiff corner (b1 above b2, v near 0)."
    )
    interrupted = "The run was interrupted: the same call with the same checkpoint goes on."
    stalled = (
        "The solver's step shrank to nothing: the loss turns NaN, its gradient jumps or the flow "
        "is singular there; smooth the loss, raise eps, or lower the learning rate."
    )
    order_too_high = (
        "The interpolating flow's order is too high here: it grows modes that the optimizer damps; "
        "take order 2, or a larger stride (ct.theory.smallest_stride)."
    )
    period_two = (
        "The optimizer oscillates from stride to stride here and the interpolating flow broke "
        "down: take twice the stride."
    )
    faster_than_steps = (
        "The solver's budget went into an oscillation many times faster than the optimizer's own "
        "steps, where the flow is no model of it: raise eps, lower the learning rate, smooth the "
        "loss where it has kinks (relu), or look at the optimizer itself."
    )


FLOOR = 1 / 16
"""Mean length of a solver step, in optimizer steps, below which a flow is no model of its
optimizer: a period takes Tsit5 some six steps, so the flow turns over within half a step."""


def flow_outcome(
    result: diffrax.RESULTS,
    start_finite: Bool[Array, ""],
    end_finite: Bool[Array, ""],
    mean_step: Any = 1.0,
) -> OUTCOME:
    """diffrax's result in our words; non-finite numbers are named before what they led to."""
    outcome = OUTCOME.promote(result)
    spent = result == diffrax.RESULTS.max_steps_reached
    outcome = OUTCOME.where(spent, OUTCOME.budget_spent, outcome)
    outcome = OUTCOME.where(spent & (mean_step < FLOOR), OUTCOME.faster_than_steps, outcome)
    stalled = result == diffrax.RESULTS.dt_min_reached
    outcome = OUTCOME.where(stalled, OUTCOME.stalled, outcome)
    outcome = OUTCOME.where(end_finite, outcome, OUTCOME.nonfinite_run)
    return OUTCOME.where(start_finite, outcome, OUTCOME.nonfinite_start)


def run_outcome(start_finite: Bool[Array, ""], end_finite: Bool[Array, ""]) -> OUTCOME:
    """The outcome of discrete steps."""
    return flow_outcome(
        diffrax.RESULTS.successful, jnp.asarray(start_finite), jnp.asarray(end_finite)
    )


def all_finite(tree: PyTree) -> Bool[Array, ""]:
    """True where every number of every leaf is finite."""
    leaves = [jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(tree)]
    return jnp.all(jnp.stack(leaves)) if leaves else jnp.array(True)


def right_after(problem: AbstractProblem, whole: Any) -> Array:
    """When a flow leaves a whole step: of a held problem right after it, where the next gradient
    begins to rule."""
    return nextafter(whole) if problem.held else whole


def start_is_finite(problem: AbstractProblem, step: Any, params: PyTree) -> Bool[Array, ""]:
    """Whether the loss (where there is one) and its gradient are finite at the start."""
    gradient = problem.gradient(problem.seen(step), params)
    return all_finite((problem.value(params), gradient) if problem.has_value else gradient)
