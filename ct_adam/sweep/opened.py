"""`ct.open`: a store as labelled data."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from .layout import check_format, is_sweep, level_folder, level_tiles, root_attributes
from .metadata import damaged_coords
from .provenance import PROGRAM
from .refine import flattened
from .store import read_tree
from .tiles import STATUS, Tiles, few

if TYPE_CHECKING:
    import xarray


def open(store: str | Path, check: bool = True) -> "xarray.Dataset | xarray.DataTree":
    """What a sweep, or a command of ct-adam, has written.

    **Arguments:**

    - `store`: the folder. `check`: whether to read every byte once, to tell damaged tiles.

    **Returns:** of a sweep a dataset over the grid's dimensions, read when it is looked at, with
    the attributes `tiles`, `tiles_done` and `tile_seconds` (time spent on them, of all processes);
    what is not done yet is NaN, −1 for integers. A refined sweep comes loaded, on its finest grid,
    with `level`. Of `region` a tree of datasets, of `compare` a dataset. Any of them goes to netCDF
    by `.to_netcdf(path)`.

    **Raises:** `ValueError` for a path that holds none of these, and for damaged tiles.
    """
    store = Path(store)
    attributes = root_attributes(store)
    if not is_sweep(attributes):
        if attributes.get("program") != PROGRAM:
            raise ValueError(f"{store} was not written by this program.")
        tree = read_tree(store)
        return tree if tree.children else tree.to_dataset()
    check_format(store, attributes)
    levels = [level_tiles(store, k) for k in range(attributes["levels"])]
    if check:
        _check(store, levels, attributes["coordinates"])
    datasets = [_dataset(level_folder(store, k)) for k in range(len(levels))]
    dataset = datasets[0]
    if len(levels) > 1:
        refine = json.loads(attributes["sweep"])["refine"]
        computed = [_computed(tiles) for tiles in levels]
        dims = dataset[refine["variable"]].dims
        axes = tuple(dims.index(dim) for dim in refine["dims"])
        dataset = flattened([d.load() for d in datasets], computed, axes)
    done = [tiles.done_tiles() for tiles in levels]
    return dataset.assign_attrs(
        tiles=len(levels[0].tiling) + sum(map(len, done[1:])),
        tiles_done=sum(map(len, done)),
        tile_seconds=round(sum(tiles.seconds() for tiles in levels), 2),
    )


def _check(store: Path, levels: list[Tiles], names: list[str]) -> None:
    damaged = []
    for k, tiles in enumerate(levels):
        coords = damaged_coords(level_folder(store, k), names)
        if coords:
            raise ValueError(
                f"{store}: damaged coordinate {', '.join(coords)}: run the sweep again, it writes "
                "them anew; check=False opens what is there."
            )
        states = tiles.states(range(len(tiles.tiling)))
        where = f" of level {k}" if k else ""
        damaged += [f"{tile}{where}" for tile, state in states.items() if state == "damaged"]
    if damaged:
        raise ValueError(
            f"{store}: damaged {few(damaged)}: run the sweep again, it computes them anew; "
            "check=False opens what is there."
        )


def _dataset(folder: Path) -> "xarray.Dataset":
    import xarray

    dataset = xarray.open_zarr(folder, consolidated=False, chunks=None)
    dataset = dataset.drop_vars(STATUS, errors="ignore")
    coords = [name for name, found in dataset.data_vars.items() if "tiled" not in found.attrs]
    for variable in dataset.variables.values():
        variable.attrs.pop("tiled", None)
    # A folder lists its arrays in no order of its own.
    return dataset.set_coords(coords)[sorted(map(str, set(dataset.data_vars) - set(coords)))]


def _computed(tiles: Tiles) -> np.ndarray:
    """Which cells are done."""
    cells = np.zeros(tiles.tiling.shape, bool)
    for tile in tiles.done_tiles():
        cells[tiles.tiling.block(tile)] = True
    return cells
