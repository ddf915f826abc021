"""The reference engine: diffrax for flows, a scan for optimizers, a lane at a time.

Every flow, optimizer and PyTree; the oracle of faster engines. Reductions of a flow live in the
step-size controller's state: it is the one place that sees each accepted step, and diffrax hands
it back at the end, so that memory does not grow with the number of steps.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, PyTree

from ..flows import AbstractFlow
from ..optimizers import optimizer_step
from ..problems import AbstractProblem
from ..simulate.controllers import controller_for, end_at, start_time
from ..simulate.cost import count_evaluations
from ..simulate.discrete import update_of, warm_state, warmed
from ..simulate.outcome import OUTCOME, all_finite, flow_outcome, run_outcome, start_is_finite
from .reductions import Reductions, floored_log, largest


class Settings(NamedTuple):
    """What all lanes share. `steps` and the tolerances are numbers of the working type."""

    steps: Any
    warm_steps: int
    rtol: Any
    atol: Any
    max_solver_steps: Any
    wants_loss: bool
    wants_line: bool
    wants_update: bool
    save: Callable[[Any, PyTree, PyTree, Array], PyTree] | None


class LaneResult(NamedTuple):
    """One lane's numbers; `params` and `saved` are PyTrees."""

    reductions: Reductions
    update_slope: Array
    final_loss: Array
    params: PyTree
    saved: PyTree
    outcome: OUTCOME
    evaluations: Array


def flow_lane(
    flow: AbstractFlow, problem: AbstractProblem, params: PyTree, settings: Settings
) -> LaneResult:
    """Integrates one flow and keeps its reductions."""
    dtype = settings.steps.dtype
    t0 = start_time(problem, settings.warm_steps, dtype)
    t1 = settings.warm_steps + settings.steps
    state = warm_state(flow, problem, params, settings.warm_steps)
    inner = controller_for(flow, problem, None, settings.rtol, settings.atol, dtype, t1)
    solver, observer = diffrax.Tsit5(), Observer(inner, flow, settings)
    drift: Any = diffrax.ODETerm(flow.vector_field)  # pyright: ignore[reportArgumentType]
    ended = integrated(drift, solver, t0, state, problem, observer, settings)
    return flow_result(flow, problem, params, settings, *ended, solver)


def integrated(
    terms: diffrax.AbstractTerm,
    solver: diffrax.AbstractSolver,
    t0: Array,
    state: PyTree,
    problem: AbstractProblem,
    controller: diffrax.AbstractStepSizeController,
    settings: Settings,
) -> tuple[Array, PyTree, Reductions, diffrax.RESULTS, Array]:
    """Where and how diffrax ended: step, state, reductions, result, solver steps. The controller's
    state holds the reductions."""
    solution = diffrax.diffeqsolve(
        terms,
        solver,
        t0,
        settings.warm_steps + settings.steps,
        None,
        state,
        problem,
        saveat=diffrax.SaveAt(t1=True, controller_state=True),
        stepsize_controller=controller,
        # Nobody differentiates through a map: the plain while loop.
        adjoint=diffrax.ForwardMode(),
        max_steps=settings.max_solver_steps,
        throw=False,
    )
    assert solution.ys is not None
    end_step, end = solution.ts[0], jax.tree.map(lambda leaf: leaf[0], solution.ys)  # pyright: ignore[reportOptionalSubscript]
    seen = solution.controller_state.reductions  # pyright: ignore[reportOptionalMemberAccess]
    return end_step, end, seen, solution.result, solution.stats["num_steps"]


def flow_result(
    flow: AbstractFlow,
    problem: AbstractProblem,
    params: PyTree,
    settings: Settings,
    end_step: Array,
    end: PyTree,
    seen: Reductions,
    result: diffrax.RESULTS,
    solver_steps: Any,
    solver: diffrax.AbstractSolver | None = None,
) -> LaneResult:
    """A lane's numbers from how its integration ended."""
    outcome = flow_outcome(
        result,
        start_is_finite(problem, 0, params),
        all_finite((end, seen.max_update)),
        (end_step - settings.warm_steps) / solver_steps,
    )
    solver = diffrax.Tsit5() if solver is None else solver
    spent = count_evaluations(
        solver, flow, solver_steps, problem, settings.steps, settings.warm_steps
    )
    params_end = flow.params(end)
    update = flow.update(end_step, end, problem)
    return _result(seen, problem, params_end, update, outcome, spent, settings)


class ObserverState(NamedTuple):
    inner: Any
    reductions: Reductions
    log_update: Array


class Observer(diffrax.AbstractAdaptiveStepSizeController):
    """Keeps the reductions of a flow over its accepted steps; leaves the steps' sizes alone,
    but for one end at half time, where the fitted line begins."""

    controller: diffrax.AbstractStepSizeController
    flow: AbstractFlow
    settings: Settings

    def __init__(
        self,
        controller: diffrax.AbstractStepSizeController,
        flow: AbstractFlow,
        settings: Settings,
    ):
        self.controller, self.flow, self.settings = controller, flow, settings

    @property
    def rtol(self) -> Any:
        return self.settings.rtol

    @property
    def atol(self) -> Any:
        return self.settings.atol

    @property
    def norm(self) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        return self.controller.norm  # pyright: ignore[reportAttributeAccessIssue]

    def wrap(self, direction: Any) -> "Observer":
        return Observer(self.controller.wrap(direction), self.flow, self.settings)

    def init(self, terms, t0, t1, y0, dt0, args, func, error_order):
        first, inner = self.controller.init(terms, t0, t1, y0, dt0, args, func, error_order)
        size, loss = self._look(jnp.floor(t0), y0, args)
        seen = Reductions.empty(self.settings.steps.dtype).see(size, loss)
        return first, ObserverState(inner, seen, floored_log(size))

    def adapt_step_size(
        self, t0, t1, y0, y1_candidate, args, y_error, error_order, controller_state
    ):
        keep, next_t0, next_t1, made_jump, inner, result = self.controller.adapt_step_size(
            t0, t1, y0, y1_candidate, args, y_error, error_order, controller_state.inner
        )
        half = self.settings.warm_steps + self.settings.steps / 2
        next_t1 = jnp.where(next_t0 < half, end_at(next_t0, next_t1, half), next_t1)
        size, loss = self._look(t1, y1_candidate, args)
        seen, log_update = controller_state.reductions.see(size, loss), floored_log(size)
        if self.settings.wants_line:
            # Trapezoids: each end of a step of length h weighs h/2. In whole runs as units, t is
            # of order one around the middle of the last half.
            middle, length = half + self.settings.steps / 4, self.settings.steps
            weight = jnp.where(t0 >= half, t1 - t0, 0) / 2
            line = seen.line.add(weight, (t0 - middle) / length, controller_state.log_update)
            line = line.add(weight, (t1 - middle) / length, log_update)
            seen = seen._replace(line=line)
        new = ObserverState(inner, seen, log_update)
        old = controller_state._replace(inner=inner)
        state = jax.tree.map(lambda a, b: jnp.where(keep, a, b), new, old)
        return keep, next_t0, next_t1, made_jump, state, result

    def _look(self, step: Any, state: PyTree, problem: Any) -> tuple[Array, Array]:
        nothing = jnp.zeros((), self.settings.steps.dtype)
        wants = self.settings
        size = largest(self.flow.update(step, state, problem)) if wants.wants_update else nothing
        loss = problem.value(self.flow.params(state)) if wants.wants_loss else nothing
        return size, loss


def optimizer_lane(
    optimizer: optax.GradientTransformation,
    problem: AbstractProblem,
    params: PyTree,
    settings: Settings,
) -> LaneResult:
    """Takes the discrete steps of one optimizer and keeps the reductions of updates 0 … steps-1."""
    start = jnp.asarray(settings.warm_steps)
    carry = warmed(optimizer, problem, params, settings.warm_steps)
    end = jax.lax.fori_loop(
        start,
        start + settings.steps.astype(int),
        lambda n, carry: seen_step(optimizer, problem, settings, n, carry),
        (*carry, Reductions.empty(settings.steps.dtype)),
    )
    return optimizer_result(optimizer, problem, params, settings, *end)


def seen_step(
    optimizer: optax.GradientTransformation,
    problem: AbstractProblem,
    settings: Settings,
    n: Array,
    carry: tuple[PyTree, PyTree, Reductions],
) -> tuple[PyTree, PyTree, Reductions]:
    """Step n, looked at."""
    before, state, seen = carry
    dtype, steps = settings.steps.dtype, settings.steps
    after, state, delta = optimizer_step(optimizer, problem, n, before, state)
    nothing = jnp.zeros((), dtype)
    size, loss = nothing, nothing
    if settings.wants_update:  # without it a step that is not finite still shows in θ at the end
        size = largest(update_of(_rule(optimizer), problem, n, before, delta))
    if settings.wants_loss:
        loss = problem.value(before)
    seen = seen.see(size, loss)
    if settings.wants_line:
        since = (n - settings.warm_steps).astype(dtype)
        weight = jnp.where(2 * since >= steps, 1.0, 0.0).astype(dtype)
        line = seen.line.add(weight, since / steps - 0.75, floored_log(size))
        seen = seen._replace(line=line)
    return after, state, seen


def optimizer_result(
    optimizer: optax.GradientTransformation,
    problem: AbstractProblem,
    params: PyTree,
    settings: Settings,
    end: PyTree,
    state: PyTree,
    seen: Reductions,
) -> LaneResult:
    """A lane's numbers from θ and the optimizer's state after the last step."""
    finite = all_finite((end, seen.max_update, eqx.filter(state, eqx.is_inexact_array)))
    # `save` sees θ_N and the update that would lead on from it, NaN where no gradient is left.
    last = jnp.asarray(settings.warm_steps) + settings.steps.astype(int)
    delta = optimizer_step(optimizer, problem, last, end, state)[2]
    update = update_of(_rule(optimizer), problem, last, end, delta)
    outcome = run_outcome(start_is_finite(problem, 0, params), finite)
    return _result(seen, problem, end, update, outcome, last, settings)


def _rule(optimizer: optax.GradientTransformation) -> Any:
    return getattr(optimizer, "rule", None)


def _result(
    seen: Reductions,
    problem: AbstractProblem,
    params: PyTree,
    update: PyTree,
    outcome: OUTCOME,
    evaluations: Any,
    settings: Settings,
) -> LaneResult:
    loss = problem.value(params)
    seen = seen._replace(min_loss=jnp.minimum(seen.min_loss, loss))
    saved = None if settings.save is None else settings.save(settings.steps, params, update, loss)
    # The line's abscissa is in units of the whole run.
    slope = seen.line.slope / settings.steps
    return LaneResult(seen, slope, loss, params, saved, outcome, jnp.asarray(evaluations))
