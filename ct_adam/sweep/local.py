"""Tiles computed by this process, and what it writes of them."""

import errno
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np

from .claims import Claims
from .layout import level_tiles
from .stopping import StopRequests
from .tiles import Tiles
from .work import Work

Runner = Callable[[Work, Path, int, list[int], StopRequests], Iterator[int]]
"""Computes tiles of a level of a store, and yields each when it is done, until asked to stop."""
PAUSE = 0.5
"""Seconds between two looks at tiles that another process has taken."""


def here(
    sweep: Work, store: Path, level: int, missing: list[int], requests: StopRequests
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


def compute_tile(sweep: Work, tiles: Tiles, level: int, tile: int) -> bool:
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


def _timed(sweep: Work, level: int, tile: int) -> _Values:
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
