"""What a flow is integrated with: the parts that a user may give, checked, and the default ones."""

from typing import Any, NamedTuple

import diffrax
import numpy as np

from ..flows import AbstractFlow, AbstractSDE
from ..problems import AbstractProblem
from ..problems.noise import as_white
from .stochastic import EqualSteps, check_path, check_solver, default_solver


class Method(NamedTuple):
    """Parts of diffrax; `controller` None for the default one, whose tolerances are numbers of the
    run. `tree`: along a Brownian path that any steps can follow."""

    solver: diffrax.AbstractSolver
    controller: diffrax.AbstractStepSizeController | None
    adjoint: diffrax.AbstractAdjoint
    event: diffrax.Event | None
    tree: bool


def method_for(
    flow: AbstractFlow,
    problem: AbstractProblem,
    solver: diffrax.AbstractSolver | None,
    controller: diffrax.AbstractStepSizeController | None,
    adjoint: diffrax.AbstractAdjoint | None,
    event: diffrax.Event | None,
) -> Method:
    """What was given, and what fits this kind of flow in place of the rest."""
    _check_kind("solver", solver, diffrax.AbstractSolver, "diffrax.Tsit5()")
    _check_kind(
        "controller",
        controller,
        diffrax.AbstractStepSizeController,
        "diffrax.PIDController(rtol=1e-6, atol=1e-9)",
    )
    _check_kind("adjoint", adjoint, diffrax.AbstractAdjoint, "diffrax.ForwardMode()")
    _check_kind("event", event, diffrax.Event, "diffrax.Event(condition)")
    solver = default_solver(flow) if solver is None else solver
    check_solver(flow, solver)
    # Steps of one length draw their noise as they go; others need a path that is there already.
    tree = controller is not None
    if isinstance(flow, AbstractSDE):
        check_path(controller, adjoint)
        as_white(problem)
        adjoint = diffrax.ForwardMode() if adjoint is None and not tree else adjoint
        controller = EqualSteps() if controller is None else controller
    elif problem.held:
        _check_stays_in_step(solver, controller)
    adjoint = diffrax.RecursiveCheckpointAdjoint() if adjoint is None else adjoint
    return Method(solver, controller, adjoint, event, tree)


def _check_kind(name: str, given: Any, kind: type, example: str) -> None:
    """Raises a `ValueError` for what is none of diffrax's, such as a class where one of it is
    wanted."""
    if given is not None and not isinstance(given, kind):
        shown = given.__name__ if isinstance(given, type) else repr(given)
        raise ValueError(f"{name} = {shown} must be one of diffrax's, made: {example}.")


def _check_stays_in_step(
    solver: diffrax.AbstractSolver, controller: diffrax.AbstractStepSizeController | None
) -> None:
    """Refuses what would see a gradient of another step than the one that it integrates over."""
    tableau = getattr(solver, "tableau", None)
    nodes = getattr(tableau, "c", None)
    if nodes is not None and np.max(nodes) > 1:
        raise ValueError(
            f"{type(solver).__name__} looks beyond the end of its step, where a stream or batch "
            "has another gradient: take Kvaerno3, or an explicit solver."
        )
    adaptive = diffrax.AbstractAdaptiveStepSizeController
    if controller is not None and not isinstance(controller, adaptive):
        raise ValueError(
            f"{type(controller).__name__} does not stop at whole steps, where a stream's or "
            "minibatches' gradient jumps: take an adaptive controller."
        )
