"""What a flow may cost, and what it did."""

from typing import Any

import diffrax
import jax.numpy as jnp
import numpy as np

from ..flows import AbstractFlow
from ..problems import AbstractProblem


def solver_budget(steps: int) -> int:
    """Default `max_solver_steps`: 60 solver steps an optimizer step were seen in stiff corners.

    diffrax compiles the budget in: rounded up to a power of two, runs of like length share one
    program.
    """
    return 2 ** (4096 + 100 * steps).bit_length()


def trial_budget(steps: int) -> int:
    """`max_solver_steps` of one trial of `order="auto"`: a flow that can be trusted takes a few
    solver steps an optimizer step, and a wrong choice shall not cost minutes."""
    return 2 ** (256 + 16 * steps).bit_length()


def count_evaluations(
    solver: diffrax.AbstractSolver,
    flow: AbstractFlow,
    solver_steps: Any,
    problem: AbstractProblem,
    steps: Any,
    warm_steps: int,
) -> Any:
    """Gradients of warm steps and of an explicit Runge–Kutta solver, or of the default ones of
    stochastic flows, None for other solvers; what is looked at costs more.

    A first-same-as-last method saves a call a step, but for the first step and those after a break.
    """
    if isinstance(solver, diffrax.ShARK | diffrax.SlowRK):
        return warm_steps + flow.evaluations * 2 * solver_steps
    if not isinstance(solver, diffrax.AbstractERK):
        return None
    tableau: Any = solver.tableau
    stages = np.asarray(tableau.b_sol).size
    calls = solver_steps * stages
    if tableau.fsal:
        restarts = steps if problem.held else 1
        calls = solver_steps * (stages - 1) + jnp.asarray(restarts, int)
    return warm_steps + flow.evaluations * calls
