"""One trajectory of a flow, integrated by diffrax."""

from typing import Any

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from equinox.internal import nextafter
from jaxtyping import Array, PyTree

from ..flows import AbstractFlow, as_dynamic
from ..optimizers import UpdateRule
from ..problems import AbstractProblem, as_params, as_problem, check_problem, like, working_dtype
from ..problems.base import Loss
from .controllers import WholeStepBreaks, default_controller
from .outcome import all_finite, flow_outcome, start_is_finite
from .trajectory import (
    Save,
    Trajectory,
    check_steps,
    check_tolerances,
    checked_save_steps,
    raise_unless_okay,
    tree_where,
)

DEFAULT_SAVES = 1001  # steps 0 … 1000


def solver_budget(steps: int) -> int:
    """Default `max_solver_steps`: 60 solver steps an optimizer step were seen in stiff corners.

    diffrax compiles the budget in: rounded up to a power of two, runs of like length share one
    program.
    """
    return 2 ** (4096 + 100 * steps).bit_length()


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
    problem, params = as_problem(loss), as_params(params)
    check_problem(problem, params, warm_steps + steps + 1 - flow.lag)
    solver = diffrax.Tsit5() if solver is None else solver
    if problem.held:
        _check_stays_in_step(solver, controller)
    dtype = working_dtype(params)
    trajectory = _solve(
        as_dynamic(flow, dtype),
        problem,
        params,
        jnp.asarray(steps, dtype),
        jnp.asarray(checked_save_steps(save_steps, steps, DEFAULT_SAVES)),
        save,
        solver,
        controller,
        event,
        diffrax.RecursiveCheckpointAdjoint() if adjoint is None else adjoint,
        jnp.asarray(rtol, dtype),
        jnp.asarray(atol, dtype),
        solver_budget(steps) if max_solver_steps is None else max_solver_steps,
        warm_steps,
        None if dt0 is None else jnp.asarray(dt0, dtype),
        diffrax.TqdmProgressMeter() if progress else diffrax.NoProgressMeter(),
    )
    return raise_unless_okay(trajectory) if throw else trajectory


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


@eqx.filter_jit
def _solve(
    flow: AbstractFlow,
    problem: AbstractProblem,
    params: PyTree,
    steps: Array,
    save_steps: Array,
    save: Save | None,
    solver: diffrax.AbstractSolver,
    controller: diffrax.AbstractStepSizeController | None,
    event: diffrax.Event | None,
    adjoint: diffrax.AbstractAdjoint,
    rtol: Array,
    atol: Array,
    max_solver_steps: int,
    warm_steps: int,
    dt0: Array | None,
    progress_meter: diffrax.AbstractProgressMeter,
) -> Trajectory:
    dtype = steps.dtype
    state = warm_state(flow, problem, params, warm_steps)
    t0, t1 = start_time(problem, warm_steps, dtype), warm_steps + steps

    def observe(time: Array, state: PyTree, problem: AbstractProblem) -> PyTree:
        # A saved time is a whole step, but for the first of a held problem: right after it.
        step = jnp.round(time)
        path, value = flow.params(state), problem.value(flow.params(state))
        update = flow.update(step, state, problem)
        if save is None:
            return path, update, value
        return save(step - warm_steps, path, update, value), value

    times = jnp.maximum(save_steps + warm_steps, t0).astype(dtype)
    saveat = diffrax.SaveAt(
        subs=[diffrax.SubSaveAt(ts=times, fn=observe), diffrax.SubSaveAt(t1=True)]
    )
    solution = diffrax.diffeqsolve(
        diffrax.ODETerm(flow.vector_field),  # pyright: ignore[reportArgumentType]
        solver,
        t0,
        t1,
        dt0,
        state,
        problem,
        saveat=saveat,
        stepsize_controller=controller_for(flow, problem, controller, rtol, atol, dtype, t1),
        adjoint=adjoint,
        event=event,
        max_steps=max_solver_steps,
        throw=False,
        progress_meter=progress_meter,
    )
    assert solution.ts is not None
    assert solution.ys is not None
    saved_times, end_time = solution.ts
    observed, end = solution.ys
    reached = jnp.isfinite(saved_times)
    observed = tree_where(reached, observed)
    (path, update, values), saved = (
        (observed, None) if save is None else ((None, None, observed[1]), observed[0])
    )
    end_finite = all_finite(end) & jnp.all(jnp.isfinite(end_time))
    if problem.has_value:
        end_finite = end_finite & jnp.all(jnp.isfinite(values) | ~reached)
    stats = {
        **{k: v for k, v in solution.stats.items() if k != "max_steps"},
        "evaluations": count_evaluations(
            solver, solution.stats["num_steps"], problem, steps, warm_steps
        ),
    }
    outcome = flow_outcome(solution.result, start_is_finite(problem, 0, params), end_finite)
    return Trajectory(save_steps, path, update, values, saved, outcome, stats)


def warm_state(
    flow: AbstractFlow, problem: AbstractProblem, params: PyTree, warm_steps: int
) -> PyTree:
    """The flow's state after `warm_steps` discrete steps of its own optimizer."""
    if not warm_steps:
        return flow.init(problem, params)
    optimizer = flow.optimizer

    def step(n: Array, carry: tuple[PyTree, PyTree]) -> tuple[PyTree, PyTree]:
        return optimizer_step(optimizer, problem, n, *carry)[:2]

    carry = (params, optimizer.init(params))
    params, state = jax.lax.fori_loop(0, warm_steps, step, carry)
    return flow.from_optimizer(problem, params, state, warm_steps)


def optimizer_step(
    optimizer: optax.GradientTransformation,
    problem: AbstractProblem,
    step: Any,
    params: PyTree,
    state: PyTree,
) -> tuple[PyTree, PyTree, PyTree]:
    """(θ_{n+1}, optimizer state, Δθ) from θ_n and g_n."""
    gradient = like(problem.gradient(step, params), params)
    delta, state = optimizer.update(gradient, state, params)
    return optax.apply_updates(params, delta), state, delta


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


def start_time(problem: AbstractProblem, warm_steps: int, dtype: Any) -> Array:
    """When the flow starts: for a held problem right after the whole step, where gradient
    warm_steps + 1 begins to rule; gradient warm_steps has entered through the start."""
    whole = jnp.asarray(warm_steps, dtype)
    return nextafter(whole) if problem.held else whole


def controller_for(
    flow: AbstractFlow,
    problem: AbstractProblem,
    controller: diffrax.AbstractStepSizeController | None,
    rtol: Any,
    atol: Any,
    dtype: Any,
    last_step: Any,
) -> diffrax.AbstractStepSizeController:
    """The user's controller or the default one, with break points where the problem has them."""
    if controller is None:
        controller = default_controller(flow, rtol, atol, dtype, last_step)
    if not problem.held:
        return controller
    assert isinstance(controller, diffrax.AbstractAdaptiveStepSizeController)
    return WholeStepBreaks(controller)


def count_evaluations(
    solver: diffrax.AbstractSolver,
    solver_steps: Any,
    problem: AbstractProblem,
    steps: Any,
    warm_steps: int,
) -> Any:
    """Gradients of warm steps and of an explicit Runge–Kutta solver; None for other solvers.

    A first-same-as-last method saves one a step, but for the first step and those after a break.
    """
    if not isinstance(solver, diffrax.AbstractERK):
        return None
    tableau: Any = solver.tableau
    stages = np.asarray(tableau.b_sol).size
    if not tableau.fsal:
        return warm_steps + solver_steps * stages
    restarts = steps if problem.held else 1
    return warm_steps + solver_steps * (stages - 1) + jnp.asarray(restarts, int)
