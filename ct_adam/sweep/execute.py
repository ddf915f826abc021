"""A sweep's tiles, computed one after the other, here or by the workers of a Dask cluster."""

import errno
import math
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from .claims import Claims
from .layout import level_tiles, make_store
from .progress import Progress
from .refine import beyond, crossed, doubled
from .stopping import StopRequests
from .tiles import Tiles, few

if TYPE_CHECKING:
    from .sweep import Sweep

Runner = Callable[["Sweep", Path, int, list[int], StopRequests], Iterator[int]]
"""Computes tiles of a level of a store, and yields each when it is done, until asked to stop."""
PAUSE = 0.5
"""Seconds between two looks at tiles that another process has taken."""


def execute(
    sweep: "Sweep",
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
    if workers < 0:
        raise ValueError(f"workers = {workers} must not be negative.")
    if workers and scheduler is not None:
        raise ValueError("Give workers or a scheduler, not both.")
    make_store(sweep, store)
    requests = StopRequests(store)
    cluster: AbstractContextManager[Runner] = nullcontext(_here)
    if workers or scheduler is not None:
        from .distributed import on_cluster

        cluster = on_cluster(workers, scheduler)
    tell = progress or (lambda what, done, total: None)
    with cluster as runner:
        classes, done, total = None, 0, 0
        for k in range(len(sweep.levels)):
            tiles, what = level_tiles(store, k), f"level {k}" if k else store.name
            wanted = list(range(len(tiles.tiling)))
            if classes is not None:
                wanted = crossed(classes, _axes(sweep), tiles.tiling)
            missing = _missing(tiles, wanted, notice)
            total += _lanes(tiles, wanted)
            done += _lanes(tiles, wanted) - _lanes(tiles, missing)
            tell(what, done, total)
            for tile in runner(sweep, store, k, missing, requests):
                done += _lanes(tiles, [tile])
                tell(what, done, total)
            lost = [tile for tile in missing if not tiles.done(tile)]
            if lost:
                raise OSError(
                    f"{len(lost)} tiles of {tiles.folder} were not written, though nobody said "
                    "why. All finished tiles are kept: run the same again."
                )
            if sweep.refine is not None:
                classes = _classes(sweep, store, k, wanted, classes)


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


def _here(
    sweep: "Sweep", store: Path, level: int, missing: list[int], requests: StopRequests
) -> Iterator[int]:
    """This process, tile by tile; a tile is written while the next one is computed. Those that
    another process has taken are waited for."""
    tiles = level_tiles(store, level)
    with Claims(tiles.claims_file) as claims, ThreadPoolExecutor(1) as writer:
        while missing:
            busy, written = [], None
            for tile in missing:
                requests.check()  # what was computed is being written, and is waited for
                if not claims.take(tile):
                    busy.append(tile)
                    continue
                values = None if tiles.done(tile) else _timed(sweep, level, tile)
                if written is not None:
                    yield written.result()
                written = writer.submit(_keep, tiles, claims, tile, values)
            if written is not None:
                yield written.result()
            missing = busy
            if missing:
                time.sleep(PAUSE)


def compute_tile(sweep: "Sweep", tiles: Tiles, level: int, tile: int) -> bool:
    """Computes a tile and writes it, unless it is done; False if another process has taken it."""
    with Claims(tiles.claims_file) as claims:
        if not claims.take(tile):
            return False
        # Another may have done it since it was looked for.
        _keep(tiles, claims, tile, None if tiles.done(tile) else _timed(sweep, level, tile))
        return True


class _Values(NamedTuple):
    by_name: dict[str, np.ndarray]
    seconds: float


def _timed(sweep: "Sweep", level: int, tile: int) -> _Values:
    begun = time.perf_counter()
    values = sweep.compute(level, tile)
    return _Values(values, time.perf_counter() - begun)


def _keep(tiles: Tiles, claims: Claims, tile: int, values: _Values | None) -> int:
    """Writes a claimed tile, unless it is done already, and frees it."""
    try:
        if values is not None:
            tiles.write(tile, values.by_name)
            tiles.log(tile, values.seconds)
    except OSError as error:
        raise OSError(f"Tile {tile} of {tiles.folder} was not written: {_reason(error)}") from None
    finally:
        claims.free(tile)
    return tile


def _reason(error: OSError) -> str:
    full = error.errno in (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC))
    reason = "the disk is full" if full else error.strerror or error
    return f"{reason}. All finished tiles are kept: mend that and run the same again."


def _classes(
    sweep: "Sweep", store: Path, level: int, computed: list[int], parents: np.ndarray | None
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


def _axes(sweep: "Sweep") -> tuple[int, ...]:
    assert sweep.refine is not None
    return tuple(sweep.levels[0].dims.index(dim) for dim in sweep.refine.dims)


def _lanes(tiles: Tiles, which: list[int]) -> int:
    return sum(math.prod(s.stop - s.start for s in tiles.tiling.block(t)) for t in which)
