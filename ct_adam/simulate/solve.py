"""One trajectory of a flow, integrated by diffrax."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, PyTree

from ..decays import numbers
from ..flows import AbstractFlow, AbstractSDE, InterpolatingFlow, as_dynamic
from ..problems import AbstractProblem, as_params, as_problem, check_problem, working_dtype
from ..problems.base import Loss
from .controllers import controller_for, start_time
from .cost import count_evaluations, solver_budget, trial_budget
from .discrete import warm_state
from .meter import SolverBar
from .method import Method, method_for
from .outcome import all_finite, flow_outcome, start_is_finite
from .saving import SavePlan, save_at, save_plan
from .stochastic import forward_only, terms_of, while_integrated
from .trajectory import (
    Save,
    Trajectory,
    check_save,
    check_steps,
    check_tolerances,
    checked_save_steps,
    raise_unless_okay,
    tree_where,
)
from .trust import chosen, judged, windows

DEFAULT_SAVES = 1001  # steps 0 … 1000


def solve(
    flow: AbstractFlow,
    loss: Loss | AbstractProblem,
    params: PyTree,
    steps: int,
    *,
    save_steps: Any = None,
    save: Save | None = None,
    solver: diffrax.AbstractSolver | None = None,
    controller: diffrax.AbstractStepSizeController | None = None,
    event: diffrax.Event | None = None,
    adjoint: diffrax.AbstractAdjoint | None = None,
    rtol: float = 1e-6,
    atol: float = 1e-9,
    max_solver_steps: int | None = None,
    warm_steps: int = 0,
    throw: bool = True,
    dt0: float | None = None,
    progress: bool = False,
) -> Trajectory:
    """Integrates a flow over `steps` optimizer steps.

    **Arguments:**

    - `flow`: any flow of `ct_adam`.
    - `loss`: `params -> scalar`, or a problem of `ct.problems`.
    - `params`: PyTree of floating arrays; its type is the working type of time and state.
    - `steps`: length of the run in optimizer steps.
    - `save_steps`: increasing whole steps counted from the start of the run; default every step,
        or 1001 of them evenly over a longer run.
    - `save`: `save(step, params, update, loss) -> PyTree`, kept as `.saved` in place of whole
        parameters and updates; `step` counts as `save_steps` does.
    - `solver`: default Tsit5. `controller`: default diffrax's in the error scale of
        EQUATIONS §1; your own is taken as it is (but for the break points of streams).
        Stochastic flows (`AdamSDE`) on a `GaussianNoise` have ShARK or SlowRK and steps of ½ (or
        `dt0`), whatever the tolerances; the path is a function of the loss's seed. With a
        controller of your own it is that of diffrax's `VirtualBrownianTree` between the run's ends:
        the same for all solver steps down to 2⁻¹⁰, another for another `steps`. Only so can it be
        differentiated in reverse mode (`controller=diffrax.ConstantStepSize(), dt0=0.5`).
    - `event`, `adjoint`: passed to diffrax. Forward-mode derivatives need
        `adjoint=diffrax.ForwardMode()`. Reverse-mode derivatives want float64, or rtol ≥ 1e-3:
        in float32 1e-6 is eight units in the last place, the error estimate is noise, and the
        backward pass may take other steps than the forward one.
    - `rtol`, `atol`: relative error of the moments, and atol + rtol·|θ| for the parameters.
    - `max_solver_steps`: default above 4096 + 100·steps.
    - `warm_steps`: discrete steps of `flow.optimizer` taken first, not saved. The clock of
        schedules and streams then starts at `warm_steps`.
    - `throw`: raise if the run does not reach its end; otherwise see `.result`.
    - `dt0`: length of the first solver step (needed by constant-step controllers).
    - `progress`: show a bar with the time left.

    After a gap without gradients and b2 < b1², u falls from huge to ordinary within a tiny
    fraction of a step; the error of the parameters is then far above `rtol`, that of u is not
    (see `experiments/state_formulation.py`).

    **Returns:** a `Trajectory`.

    **Raises:** `ValueError` for bad input, `RunError` (with `throw`) with what to change.

    !!! example
        >>> import ct_adam as ct, jax.numpy as jnp
        >>> traj = ct.solve(ct.AdamFlow(0.01), lambda x: jnp.sum(x**2), jnp.array([1.0]), 50)
        >>> print(traj.params[-1].round(3), int(traj.steps[-1]))
        [0.538] 50
    """
    if not isinstance(flow, AbstractFlow):
        raise ValueError(
            f"solve takes a flow, not {type(flow).__name__}: use run for an optimizer."
        )
    steps, warm_steps = check_steps(steps, warm_steps)
    check_tolerances(rtol, atol, max_solver_steps)
    if dt0 is not None and not isinstance(dt0, Tracer) and not 0 < numbers("dt0", dt0) < np.inf:
        raise ValueError(f"dt0 = {dt0} must be positive and finite, in optimizer steps.")
    problem, params = as_problem(loss), as_params(params)
    check_problem(problem, params, warm_steps + steps + 1 - flow.lag)
    check_save(save)
    method = method_for(flow, problem, solver, controller, adjoint, event)
    dtype = working_dtype(params)
    save_steps = checked_save_steps(save_steps, steps, DEFAULT_SAVES)
    automatic = isinstance(flow, InterpolatingFlow) and flow.order == "auto"
    default_budget = trial_budget(steps) if automatic else solver_budget(steps)
    budget = default_budget if max_solver_steps is None else int(max_solver_steps)

    def attempt(flow: AbstractFlow) -> Trajectory:
        return _solve(
            as_dynamic(flow, dtype),
            problem,
            params,
            save_plan(flow, save_steps, steps, dtype),
            save,
            method,
            jnp.asarray(rtol, dtype),
            jnp.asarray(atol, dtype),
            budget,
            warm_steps,
            None if dt0 is None else jnp.asarray(dt0, dtype),
            SolverBar(jnp.asarray(steps)) if progress else diffrax.NoProgressMeter(),
        )

    if isinstance(flow, InterpolatingFlow) and flow.order == "auto":
        trajectory = chosen(flow, steps, attempt)
    else:
        trajectory = attempt(flow)
    return raise_unless_okay(trajectory) if throw else trajectory


@eqx.filter_jit
def _solve(
    flow: AbstractFlow,
    problem: AbstractProblem,
    params: PyTree,
    plan: SavePlan,
    save: Save | None,
    method: Method,
    rtol: Array,
    atol: Array,
    max_solver_steps: int,
    warm_steps: int,
    dt0: Array | None,
    progress_meter: diffrax.AbstractProgressMeter,
) -> Trajectory:
    state = warm_state(flow, problem, params, warm_steps)
    problem = while_integrated(flow, problem)
    dtype = plan.end.dtype
    t0, t1 = start_time(problem, warm_steps, dtype), warm_steps + plan.end
    look = _observer(flow, save, warm_steps, plan.offsets)
    subs = [save_at(plan, t0, warm_steps, look), diffrax.SubSaveAt(t1=True)]
    if isinstance(flow, InterpolatingFlow):
        subs.append(windows(flow, problem, t0, plan.windows, plan.window))
    solution = diffrax.diffeqsolve(
        terms_of(flow, problem, params, t0, t1, method.tree),
        method.solver,
        t0,
        t1,
        dt0,
        state,
        problem,
        saveat=diffrax.SaveAt(subs=subs),
        stepsize_controller=controller_for(flow, problem, method.controller, rtol, atol, dtype, t1),
        adjoint=method.adjoint,
        event=method.event,
        max_steps=max_solver_steps,
        throw=False,
        progress_meter=progress_meter,
    )
    path = _trajectory(solution, flow, problem, params, plan, save, method.solver, warm_steps)
    if isinstance(flow, InterpolatingFlow):
        assert solution.ts is not None
        assert solution.ys is not None
        path = replace(path, update_kind="step")
        return judged(path, flow, solution.ts[2], solution.ys[2], warm_steps)
    return forward_only(path) if isinstance(flow, AbstractSDE) and not method.tree else path


def _observer(
    flow: AbstractFlow, save: Save | None, warm_steps: int, offsets: int
) -> Callable[[Array, PyTree, AbstractProblem], PyTree]:
    """What diffrax saves of a state: (parameters, update, loss), or (what `save` makes, loss)."""

    def look(step: Array, state: PyTree, problem: AbstractProblem) -> PyTree:
        path, value = flow.params(state), problem.value(flow.params(state))
        update = flow.update(step, state, problem)
        if save is None:
            return path, update, value
        return save(step - warm_steps, path, update, value), value

    def observe(time: Array, state: PyTree, problem: AbstractProblem) -> PyTree:
        # A saved time is a whole step, but for the first of a held problem: right after it.
        step = jnp.round(time)
        if isinstance(flow, InterpolatingFlow):
            # What lies between two strides is saved through the optimizer's own steps.
            return flow.onwards(step, state, problem, look, offsets)
        return jax.tree.map(lambda x: x[None], look(step, state, problem))

    return observe


def _trajectory(
    solution: diffrax.Solution,
    flow: AbstractFlow,
    problem: AbstractProblem,
    params: PyTree,
    plan: SavePlan,
    save: Save | None,
    solver: diffrax.AbstractSolver,
    warm_steps: int,
) -> Trajectory:
    """The solution in our words, at the steps that were asked for."""
    assert solution.ts is not None
    assert solution.ys is not None
    (saved_times, end_time), (observed, end) = solution.ts[:2], solution.ys[:2]
    reached = jnp.isfinite(saved_times)[plan.base]
    observed = jax.tree.map(lambda x: x[plan.base, plan.offset], observed)
    observed = tree_where(reached, observed)
    (path, update, values), saved = (
        (observed, None) if save is None else ((None, None, observed[1]), observed[0])
    )
    end_finite = all_finite(end) & jnp.all(jnp.isfinite(end_time))
    if problem.has_value:
        end_finite = end_finite & jnp.all(jnp.isfinite(values) | ~reached)
    solver_steps = solution.stats["num_steps"]
    evaluations = count_evaluations(solver, flow, solver_steps, problem, plan.end, warm_steps)
    stats = {k: v for k, v in solution.stats.items() if k != "max_steps"}
    stats["evaluations"] = evaluations
    outcome = flow_outcome(
        solution.result,
        start_is_finite(problem, 0, params),
        end_finite,
        (end_time[0] - warm_steps) / solver_steps,
    )
    return Trajectory(plan.steps, path, update, values, saved, outcome, stats)
