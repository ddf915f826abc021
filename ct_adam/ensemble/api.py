"""`ct.ensemble`: many trajectories at once, as a table over lanes."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import ArrayLike, PyTree

from ..decays import choice
from ..problems import AbstractProblem, as_params, working_dtype
from ..problems.base import Loss
from ..simulate.cost import solver_budget
from ..simulate.trajectory import Save, check_steps, check_tolerances
from .compiled import ENGINES, compiled
from .program import Program
from .reference import Settings
from .table import METRICS, to_dataset

if TYPE_CHECKING:
    import xarray


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
        of its own. It is called on traced numbers: keep it at hand (a new function compiles anew,
        the same one on lanes of the same types does not).
    - `loss`, `params`, `steps`, `warm_steps`, `rtol`, `atol`, `max_solver_steps`: as in
        `ct.solve`; the budget is per lane, and a lane that spends it is an outcome, not an error.
    - `lanes`: named one-dimensional numbers of equal length, zipped.
    - `engine`: `"reference"` (diffrax, or a scan, a lane at a time), `"cohort"` (one loop in JAX
        that never waits for a slower lane), `"fused"` (a generated kernel, SIMD over lanes; small
        losses whose primitives it knows), or `"auto"`: the fastest that takes this problem.
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
    budget = solver_budget(steps) if max_solver_steps is None else int(max_solver_steps)
    settings = Settings(
        jnp.asarray(steps, dtype),
        warm_steps,
        jnp.asarray(rtol, dtype),
        jnp.asarray(atol, dtype),
        # diffrax compiles its budget in.
        budget if engine == "reference" else jnp.asarray(budget),
        wants_loss="min_loss" in metrics,
        wants_line="update_slope" in metrics,
        wants_update="max_update" in metrics or "update_slope" in metrics,
        save=save,
    )
    made, arrays = compiled(Program(make, loss, params, settings), columns, engine)
    made.check(arrays, columns, warm_steps + steps)
    attrs = {"steps": steps, "update_kind": made.update_kind}
    return to_dataset(made.run(arrays, columns), columns, metrics, attrs)


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
