"""One trajectory of a discrete optimizer, under one compiled scan."""

from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Int, PyTree

from ..decays import Scalar, Schedule, check_hyperparameters
from ..flows import AbstractFlow, InterpolatingFlow, as_dynamic
from ..optimizers import Optimizer, UpdateRule, optimizer_step
from ..problems import AbstractProblem, as_params, as_problem, check_problem, working_dtype
from ..problems.base import Loss
from .discrete import update_of
from .outcome import OUTCOME, all_finite, run_outcome, start_is_finite
from .resumable import Observation, resumable
from .trajectory import Save, Trajectory, check_save, check_steps, checked_save_steps


def run(
    optimizer_or_flow: optax.GradientTransformation | AbstractFlow,
    loss: Loss | AbstractProblem,
    params: PyTree,
    steps: int,
    *,
    save_steps: Any = None,
    save: Save | None = None,
    warm_steps: int = 0,
    learning_rate: Scalar | Schedule | None = None,
    weight_decay: Scalar = 0.0,
    checkpoint: str | Path | None = None,
    checkpoint_every: int = 1000,
    progress: bool = False,
) -> Trajectory:
    """Takes `steps` steps of any optax optimizer, or of a flow's own.

    **Arguments:**

    - `optimizer_or_flow`: an optax transformation; a flow stands for its `.optimizer`.
    - `loss`, `params`, `steps`, `save_steps`, `save`: as in `ct.solve`; every step is saved by
        default. The run ends at the last saved step.
    - `warm_steps`: steps taken first, not saved; the clock of streams goes on from there.
    - `learning_rate`, `weight_decay`: of an opaque optax transformation, so that
        u = (θ_n - θ_{n+1})/η(n) - λθ_n can be told. Ours know theirs. Without a learning rate
        `update` is the plain step θ_n - θ_{n+1} and `update_kind` is `"step"`.
    - `checkpoint`: a folder for long runs. What is done is kept there every `checkpoint_every`
        steps; the same call goes on from it after Ctrl-C or a kill, and ends bitwise as if it
        had never stopped. `progress` shows a bar with the time left.

    **Returns:** a `Trajectory`; numbers that are not finite are an outcome, never an error.
    `update[N]` of a stream of N gradients is NaN.

    **Raises:** `ValueError` for bad input, or a checkpoint of another run.

    !!! example
        >>> import ct_adam as ct, jax.numpy as jnp, optax
        >>> traj = ct.run(optax.sgd(0.1), lambda x: jnp.sum(x**2) / 2, jnp.array([1.0]), 2)
        >>> print(traj.params[:, 0], traj.update_kind)
        [1.   0.9  0.81] step
    """
    steps, warm_steps = check_steps(steps, warm_steps)
    problem, params = as_problem(loss), as_params(params)
    check_problem(problem, params, warm_steps + steps)
    check_save(save)
    method, rule = optimizer_or_flow, _known_rule(optimizer_or_flow, learning_rate, weight_decay)
    if isinstance(method, AbstractFlow):
        method = as_dynamic(method, working_dtype(params))
    save_at = checked_save_steps(save_steps, steps)
    runner = _Runner(method, problem, rule, save, warm_steps)
    if checkpoint is not None or progress:
        seen = resumable(
            _start(runner, params),
            partial(_advance, runner),
            partial(_record, runner),
            save_at,
            checkpoint,
            checkpoint_every,
            progress,
        )
        if len(seen.value) < len(save_at):  # Ctrl-C
            kept = _trajectory(runner, params, jnp.asarray(save_at[: len(seen.value)]), seen)
            return eqx.tree_at(lambda t: t.result, kept, OUTCOME.interrupted)
    else:
        gaps = np.diff(save_at, prepend=-1) - 1
        seen = _scan(runner, params, jnp.asarray(gaps), bool(np.any(gaps)))
    return _trajectory(runner, params, jnp.asarray(save_at), seen)


def _known_rule(
    method: Any, learning_rate: Scalar | Schedule | None, weight_decay: Scalar
) -> UpdateRule | None:
    """The update rule that is given, or that one of our optimizers knows; a flow's is told later,
    by its optimizer."""
    if not isinstance(method, AbstractFlow | optax.GradientTransformation):
        kind = type(method).__name__
        raise ValueError(f"run takes an optax transformation or a flow, not {kind}.")
    if learning_rate is not None:
        check_hyperparameters({"learning_rate": learning_rate, "weight_decay": weight_decay})
        return UpdateRule(learning_rate, weight_decay)
    if not (isinstance(weight_decay, int | float) and weight_decay == 0):
        raise ValueError(
            "weight_decay says how an update is told from a step, with learning_rate: give both, "
            "or build the optimizer with it."
        )
    # A PyTree map leaves the transformation and loses the rule: it is opaque then.
    return getattr(method, "rule", None) if isinstance(method, Optimizer) else None


class Carry(NamedTuple):
    """Where a run is: the clock (warm steps counted in), θ and the optimizer's state."""

    clock: Int[Array, ""]
    params: PyTree
    state: PyTree
    finite: Bool[Array, ""]


class _Runner(eqx.Module):
    """One optimizer on one problem; its two compiled moves are `_advance` and `_record`."""

    method: optax.GradientTransformation | AbstractFlow
    problem: AbstractProblem
    given_rule: UpdateRule | None
    save: Save | None
    warm_steps: int = eqx.field(static=True)

    @property
    def optimizer(self) -> optax.GradientTransformation:
        method = self.method
        return method.optimizer if isinstance(method, AbstractFlow) else method

    @property
    def rule(self) -> UpdateRule | None:
        if isinstance(self.method, InterpolatingFlow):
            return self.given_rule  # its update is the plain step, as in solve
        if self.given_rule is None and isinstance(self.method, AbstractFlow):
            optimizer = self.optimizer
            return getattr(optimizer, "rule", None)
        return self.given_rule

    def start(self, params: PyTree) -> Carry:
        """The first step to be saved, after the warm ones."""
        state = self.optimizer.init(params)
        begin = Carry(jnp.asarray(0), params, state, jnp.asarray(True))
        return self.advance(begin, self.warm_steps)

    def step(self, carry: Carry) -> tuple[Carry, PyTree]:
        clock, params, state, finite = carry
        after, state, delta = optimizer_step(self.optimizer, self.problem, clock, params, state)
        numbers = (params, eqx.filter(state, eqx.is_inexact_array))
        return Carry(clock + 1, after, state, finite & all_finite(numbers)), delta

    def advance(self, carry: Carry, count: Any) -> Carry:
        return jax.lax.fori_loop(0, count, lambda _, c: self.step(c)[0], carry)

    def record(self, carry: Carry) -> tuple[Carry, Observation]:
        """Observes step n, and takes that step too: u_n is its update."""
        clock, params = carry.clock, carry.params
        after, delta = self.step(carry)
        update = update_of(self.rule, self.problem, clock, params, delta)
        value = self.problem.value(params)
        step = clock - self.warm_steps
        seen = (params, update) if self.save is None else self.save(step, params, update, value)
        return after, Observation(seen, value, after.finite)


@eqx.filter_jit
def _scan(runner: _Runner, params: PyTree, gaps: Array, sparse: bool) -> Observation:
    def to_save(carry: Carry, gap: Array) -> tuple[Carry, Observation]:
        return runner.record(runner.advance(carry, gap) if sparse else carry)

    return jax.lax.scan(to_save, runner.start(params), gaps)[1]


@eqx.filter_jit
def _start(runner: _Runner, params: PyTree) -> Carry:
    return runner.start(params)


@eqx.filter_jit
def _advance(runner: _Runner, carry: Carry, count: Array) -> Carry:
    return runner.advance(carry, count)


@eqx.filter_jit
def _record(runner: _Runner, carry: Carry) -> tuple[Carry, Observation]:
    return runner.record(carry)


@eqx.filter_jit
def _trajectory(
    runner: _Runner, params: PyTree, save_steps: Array, seen: Observation
) -> Trajectory:
    finite = jnp.all(seen.finite)
    if runner.problem.has_value:
        finite = finite & jnp.all(jnp.isfinite(seen.value))
    path, update = seen.saved if runner.save is None else (None, None)
    return Trajectory(
        steps=save_steps,
        params=path,
        update=update,
        loss=seen.value,
        saved=None if runner.save is None else seen.saved,
        result=run_outcome(start_is_finite(runner.problem, 0, params), finite),
        stats={"evaluations": jnp.asarray(runner.warm_steps) + save_steps[-1] + 1},
        update_kind="step" if runner.rule is None else "u",
    )
