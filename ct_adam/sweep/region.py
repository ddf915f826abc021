"""Where Adam is stable over (b1, b2): measured, with the flow and with the optimizer."""

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import PyTree

from ..ensemble import ensemble
from ..ensemble.reductions import largest
from ..simulate import OUTCOME, RunError
from ..theory import stability_boundary, update_bound
from .panels import Panel, RegionConfig, panels_of
from .provenance import provenance

if TYPE_CHECKING:
    import xarray

SIDES = ("optimizer", "flow")
_TILE = 4096  # lanes between two ticks of the progress bar


def region(
    config: RegionConfig | None = None, progress: Callable[[str, int, int], None] | None = None
) -> "xarray.DataTree":
    """Measures the largest update and its growth over the square of decays.

    **Arguments:**

    - `config`: what to map. `progress(panel, done, total)` is told of each finished tile.

    **Returns:** a `DataTree` with a node a panel, each over (side, b1, b2): `max_update`,
    `update_slope`, `unstable` (slope above 1/steps: EQUATIONS §2), `answered` (whether the lane
    reached its end with a number), `log_bound` (ln of the largest update that theory allows),
    `outcome`, `evaluations`, `final_loss`; over (side, b1) `boundary`, the theory's b2.

    **Raises:** `ValueError` for a configuration that makes no sense.
    """
    import xarray

    config = RegionConfig() if config is None else config
    begun = time.perf_counter()
    panels = panels_of(config)
    total = sum(len(SIDES) * panel.cells**2 for panel in panels.values())
    done = 0
    nodes = {}
    for name, panel in panels.items():
        centres = config.low + (1 - config.low) * (np.arange(panel.cells) + 0.5) / panel.cells
        maps = []
        for side in SIDES:
            tiles = []
            for tile in _tiles(centres):
                tiles.append(_measure(panel, side, tile))
                done += len(tiles[-1].lane)
                if progress is not None:
                    progress(name, done, total)
            maps.append(xarray.concat(tiles, "lane"))
            if np.all(maps[-1].outcome == _START):
                raise RunError(f"{panel.title}: {OUTCOME[OUTCOME.nonfinite_start]}")
        nodes[name] = _labelled(panel, centres, maps, config)
    tree = xarray.DataTree.from_dict(nodes)
    tree.attrs = provenance(config, time.perf_counter() - begun)
    return tree


def _tiles(centres: np.ndarray) -> list[dict[str, np.ndarray]]:
    b1, b2 = (axis.ravel() for axis in np.meshgrid(centres, centres, indexing="ij"))
    starts = range(0, b1.size, _TILE)
    return [{"b1": b1[i : i + _TILE], "b2": b2[i : i + _TILE]} for i in starts]


def _measure(panel: Panel, side: str, tile: dict[str, np.ndarray]) -> "xarray.Dataset":
    metrics = ("max_update", "update_slope", "final_loss", "outcome", "evaluations")
    count = len(tile["b1"])
    # The last tile is filled up, so that all share one compiled program.
    lanes = {name: np.pad(column, (0, _pad(count, panel)), "edge") for name, column in tile.items()}
    table = ensemble(
        panel.make[side],
        panel.problem,
        panel.params,
        panel.steps,
        lanes,
        metrics=metrics,
        save=_last_update,
        **panel.tolerances,  # pyright: ignore[reportArgumentType]
    )
    return table.isel(lane=slice(count))


def _pad(count: int, panel: Panel) -> int:
    return min(_TILE, panel.cells**2) - count


def _last_update(step: Any, params: PyTree, update: PyTree, loss: Any) -> Any:
    del step, params, loss
    return largest(update)


def _labelled(
    panel: Panel, centres: np.ndarray, maps: list["xarray.Dataset"], config: RegionConfig
) -> "xarray.Dataset":
    """The sides' lanes as one map over (side, b1, b2), with theory beside measurement."""
    import xarray

    n = len(centres)
    dims = ("side", "b1", "b2")

    def square(name: str) -> np.ndarray:
        return np.stack([table[name].values.reshape(n, n) for table in maps])

    attrs = {name: maps[0][name].attrs for name in maps[0].data_vars}
    dataset = xarray.Dataset(
        {
            name: (dims, square(name), attrs[name])
            for name in ("max_update", "update_slope", "final_loss", "outcome", "evaluations")
        },
        coords={
            "side": list(SIDES),
            "b1": ("b1", centres, {"long_name": "first-moment decay b1", "units": "1"}),
            "b2": ("b2", centres, {"long_name": "second-moment decay b2", "units": "1"}),
        },
        attrs={"title": panel.title, "steps": panel.steps, "optimizer": panel.optimizer},
    )
    # An update that underflowed to 0 was too small for floating point, not stable.
    tiny = np.finfo(float).tiny
    fine = (square("outcome") == _SUCCESSFUL) & (square("saved") > tiny)
    answered = fine & np.isfinite(square("update_slope"))
    dataset["answered"] = (dims, answered, {"long_name": "lane reached its end with a number"})
    unstable = answered & (square("update_slope") > 1 / panel.steps)
    dataset["unstable"] = (dims, unstable, {"long_name": "slope of ln ‖u‖_∞ above 1/steps"})
    # "flow" also where the stream is held: between whole steps a held one exceeds its own bound.
    kinds = {"optimizer": "discrete", "flow": "flow"}
    b1, b2 = np.meshgrid(centres, centres, indexing="ij")
    # u(s) of a flow has seen s + 1 gradients; the optimizer's last update is that of step n - 1.
    seen = {"optimizer": panel.steps, "flow": panel.steps + 1}
    bounds = [
        np.asarray(update_bound(b1, b2, seen[m], kinds[m], config.rates, log=True))  # pyright: ignore[reportArgumentType]
        for m in SIDES
    ]
    if panel.optimizer != "Adam":
        bounds[0] = np.full_like(bounds[0], np.inf)  # theory has none for it
    label = {"long_name": "ln of the largest update that theory allows", "units": "1"}
    dataset["log_bound"] = (dims, np.stack(bounds), label)
    edges = [
        np.asarray(stability_boundary(centres, kinds[m], config.rates))  # pyright: ignore[reportArgumentType]
        for m in SIDES
    ]
    label = {"long_name": "second-moment decay b2 at the boundary", "units": "1"}
    dataset["boundary"] = (("side", "b1"), np.stack(edges), label)
    return dataset


_START = int(OUTCOME.nonfinite_start._value)  # pyright: ignore[reportAttributeAccessIssue]
_SUCCESSFUL = int(OUTCOME.successful._value)  # pyright: ignore[reportAttributeAccessIssue]
