"""Where Adam is stable over (b1, b2): measured, with the flow and with the optimizer."""

import json
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import PyTree

from ..decays import Rates
from ..ensemble.reductions import largest
from ..progress import Progress
from ..simulate import OUTCOME, RunError
from ..theory import stability_boundary, update_bound
from .axes import cells
from .grid import Grid
from .panels import Panel, RegionConfig, panels_of
from .provenance import provenance
from .sweep import Sweep

if TYPE_CHECKING:
    import xarray

SIDES = ("optimizer", "flow")
"""The two dynamics of a map, along its dimension `side`."""


def region(
    config: RegionConfig | None = None,
    progress: Progress | None = None,
    folder: Path | None = None,
) -> "xarray.DataTree":
    """Measures the largest update and its growth over the square of decays.

    **Arguments:**

    - `config`: what to map. `progress(panel, done, total)` is told of each finished tile.
    - `folder`: where the tiles are kept, so that the same call goes on where it was stopped.

    **Returns:** a `DataTree` with a node a panel, each over (side, b1, b2): `max_update`,
    `update_slope`, `unstable` (slope above 1/steps: EQUATIONS §2), `answered` (whether the lane
    reached its end with a number), `log_bound` (ln of the largest update that theory allows),
    `outcome`, `evaluations`, `final_loss`; over (side, b1) `boundary`, the theory's b2.

    **Raises:** `ValueError` for a configuration that makes no sense.
    """
    if folder is None:
        with tempfile.TemporaryDirectory() as passing:
            return region(config, progress, Path(passing))
    import xarray

    config = RegionConfig() if config is None else config
    begun = time.perf_counter()
    panels = panels_of(config)
    total = sum(len(SIDES) * panel.cells**2 for panel in panels.values())
    before, nodes = 0, {}
    for name, panel in panels.items():

        def tell(what: str, done: int, of: int, name: str = name, before: int = before) -> None:
            if progress is not None:
                progress(name, before + done, total)

        axis = cells(config.low, 1, panel.cells)
        store = folder / f"{name}.zarr"
        nodes[name] = panel_map(panel, Grid(b1=axis, b2=axis), config.rates, store, tell)
        before += len(SIDES) * panel.cells**2
    tree = xarray.DataTree.from_dict(nodes)
    tree.attrs = provenance(config, time.perf_counter() - begun)
    return tree


def panel_map(
    panel: Panel, grid: Grid, rates: Rates, store: Path, progress: Progress | None = None
) -> "xarray.Dataset":
    """One panel over a grid of b1 and b2, as a node of `region`; tiles are kept in `store`."""
    swept = Sweep(
        {side: panel.make[side] for side in SIDES},
        panel.problem,
        panel.params,
        panel.steps,
        grid,
        save=_last_update,
        **panel.tolerances,
    )
    found = swept.run(store, progress=False if progress is None else progress)
    return _labelled(panel, found.load(), rates)


def _last_update(step: Any, params: PyTree, update: PyTree, loss: Any) -> Any:
    del step, params, loss
    return largest(update)


def _labelled(panel: Panel, swept: "xarray.Dataset", rates: Rates) -> "xarray.Dataset":
    """The sweep as one map over (side, b1, b2), with theory beside measurement."""
    swept = swept.rename(dynamics="side").assign_coords(side=list(SIDES))
    for side in SIDES:
        if np.all(swept.outcome.sel(side=side) == _START):
            raise RunError(f"{panel.title}: {OUTCOME[OUTCOME.nonfinite_start]}")
    dims = ("side", "b1", "b2")
    dataset = swept.drop_vars("saved").drop_attrs(deep=False)
    dataset.attrs = {"title": panel.title, "steps": panel.steps, "optimizer": panel.optimizer}
    answered, unstable = _judged(panel, swept)
    dataset["answered"] = (dims, answered, {"long_name": "lane reached its end with a number"})
    dataset["unstable"] = (dims, unstable, {"long_name": "slope of ln ‖u‖_∞ above 1/steps"})
    log_bound, boundary = _theory(panel, swept.b1.values, swept.b2.values, rates)
    label = {"long_name": "ln of the largest update that theory allows", "units": "1"}
    dataset["log_bound"] = (dims, log_bound, label)
    label = {"long_name": "second-moment decay b2 at the boundary", "units": "1"}
    dataset["boundary"] = (("side", "b1"), boundary, label)
    return dataset


def _judged(panel: Panel, swept: "xarray.Dataset") -> tuple[np.ndarray, np.ndarray]:
    """Which lanes have an answer, and which of them are unstable."""
    # An update that underflowed to 0 was too small for floating point, not stable.
    tiny = np.finfo(float).tiny
    fine = (swept.outcome.values == _SUCCESSFUL) & (swept.saved.values > tiny)
    answered = fine & np.isfinite(swept.update_slope.values)
    unstable = answered & (swept.update_slope.values > 1 / panel.steps)
    if panel.problem is None:
        # A stream's flow knows m to rtol of √v a solver step; what is left of it once its mode has
        # died was seen to grow to 1.4 of that, with a slope of its own.
        noise = 10 * json.loads(swept.attrs["sweep"])["rtol"]
        of_flow = (swept.side == "flow").values[:, None, None]
        unstable &= ~of_flow | (swept.saved.values > noise)
    return answered, unstable


def _theory(
    panel: Panel, b1s: np.ndarray, b2s: np.ndarray, rates: Rates
) -> tuple[np.ndarray, np.ndarray]:
    """By side the logarithm of the bound at each pair, and the boundary's b2 at each b1."""
    # "flow" also where the stream is held: between whole steps a held one exceeds its own bound.
    kinds: dict[str, Any] = {"optimizer": "discrete", "flow": "flow"}
    b1, b2 = np.meshgrid(b1s, b2s, indexing="ij")
    # u(s) of a flow has seen s + 1 gradients; the optimizer's last update is that of step n - 1.
    seen = {"optimizer": panel.steps, "flow": panel.steps + 1}
    bounds = [
        np.asarray(update_bound(b1, b2, seen[side], kinds[side], rates, log=True)) for side in SIDES
    ]
    if panel.optimizer != "Adam":
        bounds[0] = np.full_like(bounds[0], np.inf)  # theory has none for it
    edges = [np.asarray(stability_boundary(b1s, kinds[side], rates)) for side in SIDES]
    return np.stack(bounds), np.stack(edges)


_START = int(OUTCOME.nonfinite_start._value)  # pyright: ignore[reportAttributeAccessIssue]
_SUCCESSFUL = int(OUTCOME.successful._value)  # pyright: ignore[reportAttributeAccessIssue]
