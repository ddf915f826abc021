"""`ct.ensemble`: many trajectories at once, as a table over lanes."""

import os
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import ArrayLike, PyTree

from ..decays import choice, in_range, out_of_range
from ..flows import AbstractFlow
from ..optimizers import Optimizer
from ..problems import AbstractProblem, as_params, check_problem, working_dtype
from ..problems.base import Loss
from ..simulate.cost import solver_budget
from ..simulate.trajectory import Save, UpdateKind, check_steps, check_tolerances
from .case import hyperparameters_of_method, resolve
from .reference import LaneResult, Settings, flow_lane, jit_map_lanes, optimizer_lane
from .table import METRICS, to_dataset

if TYPE_CHECKING:
    import xarray

ENGINES = ("auto", "reference")


def ensemble(
    make: Callable[..., Any],
    loss: Loss | AbstractProblem | None,
    params: PyTree,
    steps: int,
    lanes: Mapping[str, ArrayLike],
    *,
    engine: str = "auto",
    rtol: float = 1e-6,
    atol: float = 1e-9,
    max_solver_steps: int | None = None,
    warm_steps: int = 0,
    save: Save | None = None,
    metrics: tuple[str, ...] = METRICS,
) -> "xarray.Dataset":
    """Runs `make(**lane)` for every lane and keeps a few numbers of each.

    **Arguments:**

    - `make`: `make(**lane)` returns a flow, an optimizer, or a `ct.Case` with a loss or a start
        of its own. It is called on traced numbers, once: keep it at hand (a new function compiles
        anew).
    - `loss`, `params`, `steps`, `warm_steps`, `rtol`, `atol`, `max_solver_steps`: as in
        `ct.solve`; the budget is per lane, and a lane that spends it is an outcome, not an error.
    - `lanes`: named one-dimensional numbers of equal length, zipped.
    - `engine`: `"reference"`, or `"auto"`: the fastest that takes this problem.
    - `save`: `save(step, params, update, loss)` of the last state, kept as further variables.
    - `metrics`: which of the variables below to compute.

    **Returns:** an `xarray.Dataset` over `lane`:

    - `max_update`: largest ‖u‖_∞, over a flow's accepted solver steps and both ends, over steps
        0 … steps - 1 of an optimizer.
    - `update_slope`: least-squares slope of ln‖u‖_∞ over the last half, per step.
    - `final_loss`, `min_loss` (NaN for streams), `final_params` (lane, parameter).
    - `outcome` (see its `flag_meanings`), `evaluations` (gradients).

    Attributes: `steps`, and `update_kind` as in a `Trajectory`.

    **Raises:** `ValueError` for bad input, naming the lane.

    !!! example
        >>> import ct_adam as ct, jax.numpy as jnp
        >>> table = ct.ensemble(
        ...     lambda b1: ct.AdamFlow(1e-2, b1=b1), lambda x: jnp.sum(x**2), jnp.ones(2), 50,
        ...     {"b1": [0.5, 0.9]},
        ... )
        >>> table.max_update.round(2).values.tolist()
        [1.0, 1.0]
    """
    choice("engine", engine, ENGINES)
    for metric in metrics:
        choice("metrics", metric, METRICS)
    steps, warm_steps = check_steps(steps, warm_steps)
    check_tolerances(rtol, atol, max_solver_steps)
    params = as_params(params)
    dtype = working_dtype(params)
    columns = _columns(lanes, dtype)
    update_kind = _check_lanes(make, loss, params, warm_steps + steps, columns)
    settings = Settings(
        jnp.asarray(steps, dtype),
        warm_steps,
        jnp.asarray(rtol, dtype),
        jnp.asarray(atol, dtype),
        solver_budget(steps) if max_solver_steps is None else max_solver_steps,
        wants_loss="min_loss" in metrics,
        wants_line="update_slope" in metrics,
        wants_update="max_update" in metrics or "update_slope" in metrics,
        save=save,
    )
    result = _over_threads(_Lane(make, loss, params, settings), columns)
    dataset = to_dataset(result, columns, metrics)
    return dataset.assign_attrs(steps=steps, update_kind=update_kind)


class _Lane(eqx.Module):
    """lane → its numbers. A module, so that its arrays are arguments of the compiled program."""

    make: Callable[..., Any]
    loss: Loss | AbstractProblem | None
    params: PyTree
    settings: Settings

    def __call__(self, lane: dict[str, Any]) -> LaneResult:
        problem, params, method = resolve(self.make, self.loss, self.params, lane)
        if isinstance(method, AbstractFlow):
            return flow_lane(method, problem, params, self.settings)
        return optimizer_lane(method, problem, params, self.settings)


def _columns(lanes: Mapping[str, ArrayLike], dtype: Any) -> dict[str, np.ndarray]:
    """The lanes as equally long columns; floats in the working type, integers as they are."""
    if not lanes:
        raise ValueError("lanes is empty: name one column of numbers at least.")
    columns = {}
    for name, values in lanes.items():
        column = np.asarray(values)
        if name in (*METRICS, "parameter", "lane"):
            raise ValueError(f"lanes[{name!r}] would hide a column of the table: rename it.")
        if column.ndim != 1 or column.dtype.kind not in "fiu":
            raise ValueError(f"lanes[{name!r}] must be one-dimensional and numeric.")
        columns[name] = column.astype(dtype) if column.dtype.kind == "f" else column
    lengths = {name: len(column) for name, column in columns.items()}
    if len(set(lengths.values())) != 1 or 0 in lengths.values():
        raise ValueError(f"lanes must have one common length of at least 1: got {lengths}.")
    return columns


def _check_lanes(
    make: Callable[..., Any],
    loss: Loss | AbstractProblem | None,
    params: PyTree,
    gradients: int,
    columns: dict[str, np.ndarray],
) -> UpdateKind:
    """Checks shapes once and every lane's hyperparameters, before anything runs.

    Returns what the lanes' updates are: u, or the plain step of an opaque optimizer.
    """
    known = []

    def look(lane: dict[str, Any]) -> dict[str, Any]:
        problem, start, method = resolve(make, loss, params, lane)
        ahead = 1 - method.lag if isinstance(method, AbstractFlow) else 0
        check_problem(problem, start, gradients + ahead)
        known.append(isinstance(method, AbstractFlow | Optimizer))
        # Python numbers were checked when the method was made.
        named = hyperparameters_of_method(method)
        return {name: value for name, value in named.items() if isinstance(value, jax.Array)}

    named = jax.jit(lambda stacked: jax.lax.map(look, stacked))(columns)
    for name, column in named.items():
        values = np.asarray(column)
        fine = in_range(name, values, arrays=True)
        if not np.all(fine):
            lane = int(np.argmin(fine))
            raise ValueError(f"lane {lane}: {out_of_range(name, values[lane])}")
    return "u" if known[0] else "step"


def _cpus() -> int:
    """Cores that this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def _over_threads(lane: _Lane, columns: dict[str, np.ndarray]) -> LaneResult:
    """All lanes, every T-th on thread t: neighbours cost alike, so the threads end together."""
    count = len(next(iter(columns.values())))
    threads = min(_cpus(), count)
    padded = -(-count // threads) * threads
    order = np.minimum(np.arange(padded), count - 1).reshape(-1, threads)
    parts = [{k: column[order[:, t]] for k, column in columns.items()} for t in range(threads)]
    wide = jax.config.jax_enable_x64  # a context of the caller's thread, unknown to the others

    def run(part: dict[str, np.ndarray]) -> LaneResult:
        with jax.enable_x64(wide):
            return jax.device_get(jit_map_lanes(lane, part))

    with ThreadPoolExecutor(threads) as pool:
        results = list(pool.map(run, parts))
    arrays = [eqx.filter(result, eqx.is_array) for result in results]
    return jax.tree.map(
        lambda *xs: np.stack(xs, axis=1).reshape(padded, *xs[0].shape[1:])[:count], *arrays
    )
