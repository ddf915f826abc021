"""`ct.ensemble`: many trajectories at once, as a table over lanes."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from jaxtyping import ArrayLike, PyTree

from ..problems import AbstractProblem
from ..problems.base import Loss
from ..simulate.trajectory import Save
from .prepared import prepared
from .table import METRICS

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
    return prepared(
        make,
        loss,
        params,
        steps,
        engine=engine,
        rtol=rtol,
        atol=atol,
        max_solver_steps=max_solver_steps,
        warm_steps=warm_steps,
        save=save,
        metrics=metrics,
    ).table(lanes)
