"""One trajectory of a discrete optimizer, under one compiled scan."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, PyTree

from ..decays import Scalar, Schedule, check_hyperparameters
from ..flows import AbstractFlow, as_dynamic
from ..optimizers import Optimizer, UpdateRule
from ..problems import AbstractProblem, as_params, as_problem, check_problem, working_dtype
from ..problems.base import Loss
from .outcome import all_finite, run_outcome, start_is_finite
from .solve import optimizer_step
from .trajectory import Save, Trajectory, check_steps, checked_save_steps


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
) -> Trajectory:
    """Takes `steps` steps of any optax optimizer, or of a flow's own.

    **Arguments:**

    - `optimizer_or_flow`: an optax transformation; a flow stands for its `.optimizer`.
    - `loss`, `params`, `steps`, `save_steps`, `save`: as in `ct.solve`; every step is saved by
        default.
    - `warm_steps`: steps taken first, not saved; the clock of streams goes on from there.
    - `learning_rate`, `weight_decay`: of an opaque optax transformation, so that
        u = (θ_n - θ_{n+1})/η(n) - λθ_n can be told. Ours know theirs. Where it is not given,
        `update` is the plain step θ_n - θ_{n+1} and `update_kind` is `"step"`.

    **Returns:** a `Trajectory`; numbers that are not finite are an outcome, never an error.
    `update[N]` of a stream of N gradients is NaN.

    **Raises:** `ValueError` for bad input.

    !!! example
        >>> import ct_adam as ct, jax.numpy as jnp, optax
        >>> traj = ct.run(optax.sgd(0.1), lambda x: jnp.sum(x**2) / 2, jnp.array([1.0]), 2)
        >>> print(traj.params[:, 0], traj.update_kind)
        [1.   0.9  0.81] step
    """
    check_steps(steps, warm_steps)
    problem, params = as_problem(loss), as_params(params)
    check_problem(problem, params, warm_steps + steps)
    rule = None
    if learning_rate is not None:
        check_hyperparameters({"learning_rate": learning_rate, "weight_decay": weight_decay})
        rule = UpdateRule(learning_rate, weight_decay)
    method = optimizer_or_flow
    if isinstance(method, AbstractFlow):
        method = as_dynamic(method, working_dtype(params))
    elif isinstance(method, Optimizer):
        rule = method.rule if rule is None else rule
    elif not isinstance(method, optax.GradientTransformation):
        raise ValueError(
            f"run takes an optax transformation or a flow, not {type(method).__name__}."
        )
    save_at = checked_save_steps(save_steps, steps)
    gaps = np.diff(save_at, prepend=-1) - 1
    return _run(
        method,
        problem,
        params,
        jnp.asarray(save_at),
        jnp.asarray(gaps),
        bool(np.any(gaps)),
        save,
        warm_steps,
        rule,
    )


@eqx.filter_jit
def _run(
    method: optax.GradientTransformation | AbstractFlow,
    problem: AbstractProblem,
    params: PyTree,
    save_steps: Array,
    gaps: Array,
    sparse: bool,
    save: Save | None,
    warm_steps: int,
    rule: UpdateRule | None,
) -> Trajectory:
    optimizer = method.optimizer if isinstance(method, AbstractFlow) else method
    if rule is None and isinstance(optimizer, Optimizer):
        rule = optimizer.rule

    def advance(n: Array, carry: tuple[PyTree, PyTree]) -> tuple[PyTree, PyTree]:
        return optimizer_step(optimizer, problem, n, *carry)[:2]

    def to_save(carry: tuple[Array, PyTree, PyTree], gap: Array):
        """Steps over the gap, observes step n, and takes that step too: u_n is its update."""
        clock, params, state = carry
        if sparse:
            params, state = jax.lax.fori_loop(clock, clock + gap, advance, (params, state))
        clock = clock + gap
        after, after_state, delta = optimizer_step(optimizer, problem, clock, params, state)
        update = (
            jax.tree.map(jnp.negative, delta) if rule is None else rule.update(clock, params, delta)
        )
        available = problem.steps_available
        if available is not None:
            update = jax.tree.map(lambda u: jnp.where(clock < available, u, jnp.nan), update)
        value = problem.value(params)
        seen = (params, update) if save is None else save(clock - warm_steps, params, update, value)
        return (clock + 1, after, after_state), (seen, value, all_finite(params))

    carry = jax.lax.fori_loop(0, warm_steps, advance, (params, optimizer.init(params)))
    _, (seen, values, finite) = jax.lax.scan(to_save, (jnp.asarray(warm_steps), *carry), gaps)
    if problem.has_value:
        finite = finite & jnp.isfinite(values)
    outcome = run_outcome(start_is_finite(problem, 0, params), jnp.all(finite))
    path, update = seen if save is None else (None, None)
    return Trajectory(
        steps=save_steps,
        params=path,
        update=update,
        loss=values,
        saved=None if save is None else seen,
        result=outcome,
        stats={"evaluations": jnp.asarray(warm_steps) + save_steps[-1] + 1},
        update_kind="step" if rule is None else "u",
    )
