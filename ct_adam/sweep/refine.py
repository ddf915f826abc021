"""Refinement: only tiles that the measured boundary crosses are cut finer.

Level 0 is the grid of a coarse map. A tile of level k + 1 has the shape of one of level k and
covers a quarter of its area; it is computed where the class of the parent cells under it, or of
their neighbours, is not everywhere the same. What is smaller than a cell of level 0 is not found.
"""

import json
import math
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING

import numpy as np

from .grid import Grid, Tiling

if TYPE_CHECKING:
    import xarray


_MOST = 2**28
"""Cells of the finest grid: all of them are held in memory when a refined map is opened."""


@dataclass(frozen=True)
class Refine:
    """Follow the boundary {variable = threshold} to a resolution.

    - `resolution`: largest width of a cell of the second of `dims` that the boundary crosses.
    - `variable`: one of the sweep's metrics. A lane is beyond the boundary where it is above the
        `threshold`, or no number (it broke down on the way).
    - `threshold`: by default 1/steps for `update_slope`, the criterion of EQUATIONS §2.
    - `dims`: the two axes that are refined; `ct.axes.cells` both.
    - `tile`: cells a side of a tile, even; by default 8, 4 or 2, as the grid allows.
    """

    resolution: float = 2.0**-10
    variable: str = "update_slope"
    threshold: float | None = None
    dims: tuple[str, str] = ("b1", "b2")
    tile: int | None = None

    def __post_init__(self) -> None:
        if not 0 < self.resolution < math.inf:
            raise ValueError(f"resolution = {self.resolution} must be positive and finite.")
        if self.threshold is not None and not math.isfinite(self.threshold):
            raise ValueError(f"threshold = {self.threshold} must be finite.")
        if self.tile is not None and (self.tile < 2 or self.tile % 2):
            raise ValueError(f"tile = {self.tile} cells a side must be even to be cut in two.")
        if self.threshold is None and self.variable != "update_slope":
            raise ValueError(f"threshold: say where the boundary of {self.variable} lies.")

    def threshold_of(self, steps: int) -> float:
        return 1 / steps if self.threshold is None else self.threshold

    def _side(self, grid: Grid) -> int:
        if self.tile is not None:
            return self.tile
        counts = [len(grid.axes[dim]) for dim in self.dims]
        return next((n for n in (8, 4) if not any(count % n for count in counts)), 2)

    def grids(self, grid: Grid) -> list[Grid]:
        """The grid of every level, the coarse one first."""
        for dim in self.dims:
            if dim not in grid.axes:
                raise ValueError(f"refine: the grid has no axis {dim!r}: it has {grid.dims}.")
        grid.finer(self.dims)  # says so if an axis has no cells
        side = self._side(grid)
        for dim in self.dims:
            if len(grid.axes[dim]) % side:
                count = len(grid.axes[dim])
                raise ValueError(
                    f"refine: {dim} has {count} cells: give it a multiple of {side}, the side of "
                    "a tile."
                )
        width = grid.axes[self.dims[1]].width
        doublings = max(0, math.ceil(math.log2(width / self.resolution) - 1e-9))
        if grid.size * 4**doublings > _MOST:
            raise ValueError(
                f"refine: resolution = {self.resolution:g} is {doublings} levels below this grid, "
                f"more than {_MOST} cells in all: take fewer seeds, or stop earlier."
            )
        return [*accumulate(range(doublings), lambda g, _: g.finer(self.dims), initial=grid)]

    def tile_of(self, grid: Grid) -> tuple[int, ...]:
        """Squares over both axes, whole in all others."""
        side = self._side(grid)
        return tuple(
            side if dim in self.dims else length
            for dim, length in zip(grid.dims, grid.shape, strict=True)
        )


def beyond(values: np.ndarray, threshold: float) -> np.ndarray:
    """Where a lane is beyond the boundary; NaN counts as beyond."""
    return ~(values <= threshold)


def doubled(values: np.ndarray, axes: tuple[int, ...]) -> np.ndarray:
    """Every cell as the two by two that it is cut into."""
    for axis in axes:
        values = np.repeat(values, 2, axis)
    return values


def crossed(classes: np.ndarray, axes: tuple[int, ...], tiling: Tiling) -> list[int]:
    """The tiles of the next level that the boundary crosses.

    - `classes`: of the cells of this level. `axes`: the two that are refined. `tiling`: of the
        next level.
    """
    from scipy.ndimage import maximum_filter, minimum_filter

    # A cell and its neighbours: a boundary between two tiles must find both.
    size = [3 if axis in axes else 1 for axis in range(classes.ndim)]
    number = classes.astype(np.uint8)
    mixed = maximum_filter(number, size, mode="nearest") != minimum_filter(
        number, size, mode="nearest"
    )
    starts = [
        np.arange(0, length, tile // 2 if axis in axes else tile)
        for axis, (length, tile) in enumerate(zip(classes.shape, tiling.tile, strict=True))
    ]
    for axis, at in enumerate(starts):
        mixed = np.logical_or.reduceat(mixed, at, axis=axis)
    return np.flatnonzero(mixed.ravel()).tolist()


def boundary(
    dataset: "xarray.Dataset",
    variable: str | None = None,
    threshold: float | None = None,
    along: str = "b2",
) -> "xarray.Dataset":
    """Where `variable` crosses `threshold` along a dimension, and how far that varies by seed.

    Where it crosses several times, the highest crossing counts.

    **Arguments:**

    - `dataset`: a sweep, as `ct.open` gives it.
    - `variable`, `threshold`: as in `ct.Refine`; by default those that the sweep was refined with,
        else `update_slope` and 1/steps.
    - `along`: the dimension.

    **Returns:** a dataset over the other dimensions: `boundary`, midway between two neighbours of
    different class; `uncertainty`, half the width of the wider one's cell; `crossings`; `beyond`,
    the share of the column that lies beyond. Without a crossing the first two are NaN, and
    `beyond` is 0 or 1. With a dimension `seed` also `mean` and `spread` (standard deviation, n − 1)
    over the seeds that have a boundary, and their `count`.

    **Raises:** `ValueError` for a name that the dataset does not have, for a variable without a
    threshold, and for an unfinished sweep.
    """
    import xarray

    refined = json.loads(dataset.attrs.get("sweep", "{}")).get("refine") or {}
    if variable is None:
        variable = str(refined.get("variable", "update_slope"))
    _check_has_boundary(dataset, variable, along)
    if threshold is None and refined.get("variable") == variable:
        threshold = refined["threshold"]
    if threshold is None and variable != "update_slope":
        raise ValueError(f"threshold: say where the boundary of {variable} lies.")
    dataset = dataset.sortby(along)
    level = 1 / dataset.attrs["steps"] if threshold is None else threshold
    values = dataset[variable].transpose(..., along)
    rows, at = values.dims[:-1], dataset[along].values
    classes = beyond(values.values, level)
    changes = classes[..., 1:] != classes[..., :-1]
    last = changes.shape[-1] - 1 - np.argmax(changes[..., ::-1], axis=-1)
    some = changes.any(axis=-1)
    half = np.take_along_axis(_half_widths(dataset, values), last[..., None], -1)[..., 0]
    label = {"units": "1"}
    found = xarray.Dataset(
        {
            "boundary": (rows, np.where(some, ((at[1:] + at[:-1]) / 2)[last], np.nan), label),
            "uncertainty": (rows, np.where(some, half, np.nan), label),
            "crossings": (rows, changes.sum(axis=-1)),
            "beyond": (rows, classes.mean(axis=-1), label),
        },
        coords={k: c for k, c in dataset.coords.items() if along not in c.dims},
        attrs={"variable": variable, "threshold": level, "along": along},
    )
    if "seed" in found.dims:
        found["mean"] = found.boundary.mean("seed")
        found["spread"] = found.boundary.std("seed", ddof=1)
        found["count"] = found.boundary.count("seed")
    return found


def _check_has_boundary(dataset: "xarray.Dataset", variable: str, along: str) -> None:
    if variable not in dataset.data_vars:
        raise ValueError(f"{variable!r} is no variable here: choose among {[*dataset.data_vars]}.")
    if along not in dataset.dims:
        raise ValueError(f"{along!r} is no dimension here: choose among {[*dataset.dims]}.")
    if dataset.sizes[along] < 2:
        raise ValueError(f"{along!r} has one value: a boundary lies between two.")
    done, tiles = (dataset.attrs.get(name, 0) for name in ("tiles_done", "tiles"))
    if done < tiles:
        raise ValueError(
            f"{done} of {tiles} tiles are done: a gap is no boundary; finish the sweep."
        )


def _half_widths(dataset: "xarray.Dataset", values: "xarray.DataArray") -> np.ndarray:
    """Half the distance of neighbours along the last dimension; of a refined map that of the
    coarser one's cells, as they were computed."""
    half = np.abs(np.diff(dataset[values.dims[-1]].values)) / 2
    if "level" not in dataset:
        return np.broadcast_to(half, (*values.shape[:-1], len(half)))
    level = dataset.level.broadcast_like(values).transpose(*values.dims).values
    coarser = np.minimum(level[..., 1:], level[..., :-1])
    return half * 2.0 ** (level.max() - coarser)


def flattened(
    levels: list["xarray.Dataset"], computed: list[np.ndarray], axes: tuple[int, ...]
) -> "xarray.Dataset":
    """All levels as one dataset on the finest grid: a cell has the numbers of the finest level at
    which it was computed, and `level` says which.

    - `computed`: by level, which cells; its dimensions are the grid's, the first of a variable's.
    """
    import xarray

    merged = {name: variable.values for name, variable in levels[0].data_vars.items()}
    level = np.zeros(computed[0].shape, np.int8)
    for k, (finer, mask) in enumerate(zip(levels[1:], computed[1:], strict=True), 1):
        level = np.where(mask, k, doubled(level, axes))
        for name, coarse in merged.items():
            values = finer[name].values
            wide = mask.reshape(mask.shape + (1,) * (values.ndim - mask.ndim))
            merged[name] = np.where(wide, values, doubled(coarse, axes))
    last = levels[-1]
    dims = next(iter(last.data_vars.values())).dims[: level.ndim]
    variables = {
        name: (last[name].dims, values, last[name].attrs) for name, values in merged.items()
    }
    label = {"long_name": "level of refinement at which the cell was computed"}
    return xarray.Dataset(
        {**variables, "level": (dims, level, label)}, coords=last.coords, attrs=levels[0].attrs
    )
