"""A sweep's tiles, computed one after the other, here or by the workers of a Dask cluster."""

import math
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np

from ..progress import Progress
from .claims import Claims
from .distributed import on_cluster
from .layout import level_tiles, make_store
from .local import Runner, here
from .refine import beyond, crossed, doubled
from .stopping import StopRequests
from .tiles import Tiles, few
from .work import Work


def execute(
    sweep: Work,
    store: Path,
    *,
    workers: int = 0,
    scheduler: str | None = None,
    progress: Progress | None = None,
    notice: Callable[[str], Any] = warnings.warn,
) -> None:
    """Computes the tiles of a sweep that its store lacks.

    It may be stopped at any moment, by Ctrl-C, a kill or a full disk: the same call goes on, and
    the store ends bitwise the same. Processes that run the same sweep on one store share its
    tiles. A tile that is damaged is computed anew.

    **Arguments:**

    - `store`: the folder, made where there is none.
    - `workers`: so many processes of a local Dask cluster. `scheduler`: the address of a Dask
        scheduler whose workers see the same folder, or its scheduler file. Neither: this process.
    - `progress`: is told how far it is.
    - `notice`: is told what the user should know, a sentence at a time.

    **Raises:** `ValueError` for a store of another sweep, `OSError` where it cannot be written,
    `KeyboardInterrupt` where another process asks the store to stop (`ask_to_stop`).
    """
    whoever = _runner(workers, scheduler)
    make_store(sweep, store)
    requests = StopRequests(store)
    tell = progress or (lambda what, done, total: None)
    with whoever as runner:
        classes, done, total = None, 0, 0
        for k in range(len(sweep.levels)):
            tiles, what = level_tiles(store, k), f"level {k}" if k else store.name
            every = [*range(len(tiles.tiling))]
            wanted = every if classes is None else crossed(classes, _axes(sweep), tiles.tiling)
            missing = _missing(tiles, wanted, notice)
            total += _lanes(tiles, wanted)
            done += _lanes(tiles, wanted) - _lanes(tiles, missing)
            tell(what, done, total)
            for tile in runner(sweep, store, k, missing, requests):
                done += _lanes(tiles, [tile])
                tell(what, done, total)
            _check_written(tiles, missing)
            if sweep.refine is not None:
                classes = _classes(sweep, store, k, wanted, classes)


def _runner(workers: int, scheduler: str | None) -> AbstractContextManager[Runner]:
    if workers < 0:
        raise ValueError(f"workers = {workers} must not be negative.")
    if workers and scheduler is not None:
        raise ValueError("Give workers or a scheduler, not both.")
    if workers or scheduler is not None:
        return on_cluster(workers, scheduler)
    return nullcontext(here)


def _missing(tiles: Tiles, wanted: list[int], notice: Callable[[str], Any]) -> list[int]:
    """The tiles that are not done; damaged ones are taken for that."""
    states = tiles.states(wanted)
    damaged = [tile for tile, state in states.items() if state == "damaged"]
    with Claims(tiles.claims_file) as claims:
        for tile in damaged:
            if claims.take(tile):  # else another process is mending it
                tiles.forget(tile)
                claims.free(tile)
        if claims.alone(len(tiles.tiling)):
            tiles.sweep_up()
            claims.free(0, len(tiles.tiling))
    if damaged:
        notice(f"{tiles.folder}: damaged and computed anew: {few(damaged)}.")
    missing = [tile for tile, state in states.items() if state != "done"]
    # Spread by the golden ratio: dear and cheap tiles take turns, so that the time left is about
    # right from the start, and an unfinished map is a coarse one.
    return sorted(missing, key=lambda tile: tile * 0.6180339887498949 % 1)


def _check_written(tiles: Tiles, computed: list[int]) -> None:
    lost = [tile for tile in computed if not tiles.done(tile)]
    if lost:
        raise OSError(
            f"{len(lost)} tiles of {tiles.folder} were not written, though nobody said why. All "
            "finished tiles are kept: run the same again."
        )


def _classes(
    sweep: Work, store: Path, level: int, computed: list[int], parents: np.ndarray | None
) -> np.ndarray:
    """Which cells of a level are beyond the boundary; those not computed are as their parents."""
    refine, tiles = sweep.refine, level_tiles(store, level)
    assert refine is not None
    threshold = refine.threshold_of(sweep.steps)
    found = np.zeros(tiles.tiling.shape, bool)
    if parents is not None:
        found = doubled(parents, _axes(sweep))
    for tile in computed:
        block = tiles.tiling.block(tile)
        found[block] = beyond(tiles.read(refine.variable, tile), threshold)
    return found


def _axes(sweep: Work) -> tuple[int, ...]:
    assert sweep.refine is not None
    return tuple(sweep.levels[0].dims.index(dim) for dim in sweep.refine.dims)


def _lanes(tiles: Tiles, which: list[int]) -> int:
    return sum(math.prod(s.stop - s.start for s in tiles.tiling.block(t)) for t in which)
