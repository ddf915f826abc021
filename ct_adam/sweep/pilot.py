"""What a sweep will cost, from a few of its lanes."""

import math
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .layout import level_tiles, make_store
from .sweep import Sweep

_LONG_ENOUGH = 1.0
"""Seconds that a pilot's call should take, so that they say something."""


@dataclass(frozen=True)
class Estimate:
    """What a sweep costs.

    - `lanes`, `tiles`, `lanes_per_tile` (at most): of the coarse grid where it is refined.
    - `tiles_left`: that a store lacks.
    - `pilot_lanes`: lanes that were run to tell. `compile_seconds`: before the first lane, less
        when it was compiled before.
    - `seconds`: by method, of the lanes that are left, on this machine in one process, with
        `uncertainty` (one standard error of their sum, of how much lanes differ).
    - `memory_bytes`: largest resident set of a process. `disk_bytes`: of the store, at most.
    - `engines`: by method.
    """

    lanes: int
    tiles: int
    lanes_per_tile: int
    tiles_left: int
    pilot_lanes: int
    compile_seconds: float
    seconds: dict[str, float]
    uncertainty: float
    memory_bytes: int
    disk_bytes: int
    engines: dict[str, str]


def estimate(sweep: Sweep, store: Path | None = None) -> Estimate:
    """Runs a sample of lanes, spread evenly over the grid, and no more than it takes to tell.

    Every method has its own; a sample grows until a call of it takes a second or is a tile. Nothing
    is written.

    - `store`: one that may hold a part of the sweep already.

    **Raises:** `ValueError` for a store of another sweep.
    """
    begun = time.perf_counter()
    level = sweep.levels[0]
    left = _lanes_left(sweep, store)
    pilots = {name: _pilot(sweep, name, level.tiling.lanes) for name in sweep.ensembles}
    spent = sum(pilot.seconds for pilot in pilots.values())
    # A sample that is everything leaves nothing to guess.
    errors = [
        pilot.per_lane * pilot.spread * left[name][1] * math.sqrt(1 / p - 1 / sweep.grid.size)
        for name, pilot in pilots.items()
        for p in [pilot.lanes]
    ]
    lanes = sum(pilot.lanes for pilot in pilots.values())
    row = sum(v.dtype.itemsize * math.prod(v.shape[1:]) for v in sweep.template.data_vars.values())
    return Estimate(
        lanes=level.size,
        tiles=len(level.tiling),
        lanes_per_tile=level.tiling.lanes,
        tiles_left=sum(tiles for tiles, _ in left.values()),
        pilot_lanes=lanes,
        compile_seconds=max(0.0, time.perf_counter() - begun - spent),
        seconds={name: pilot.per_lane * left[name][1] for name, pilot in pilots.items()},
        uncertainty=math.hypot(*errors),
        # A tile's table exists about four times over: lanes, carries, results, what is written.
        memory_bytes=_resident() + 4 * max(0, level.tiling.lanes - lanes) * row,
        disk_bytes=level.size * row,
        engines=sweep.engines,
    )


def _lanes_left(sweep: Sweep, store: Path | None) -> dict[str, tuple[int, int]]:
    """By method the tiles and the lanes that a store lacks."""
    tiling, names = sweep.levels[0].tiling, [*sweep.ensembles]
    states: dict[int, str] = {}
    if store is not None and store.exists():
        make_store(sweep, store)  # only checks it
        states = level_tiles(store, 0).states(range(len(tiling)))
    left: dict[str, tuple[int, int]] = dict.fromkeys(names, (0, 0))
    for tile in range(len(tiling)):
        if states.get(tile) != "done":
            name = names[tile * len(names) // len(tiling)]
            lanes = math.prod(s.stop - s.start for s in tiling.block(tile))
            left[name] = (left[name][0] + 1, left[name][1] + lanes)
    return left


@dataclass(frozen=True)
class _Pilot:
    lanes: int
    per_lane: float
    spread: float
    """Standard deviation of a lane's cost over its mean."""
    seconds: float
    """Spent on lanes, not on their compilation."""


def _pilot(sweep: Sweep, name: str, most: int) -> _Pilot:
    ensemble, size = sweep.ensembles[name], sweep.grid.size
    count, spent = min(16, most, size), 0.0
    while True:
        # Evenly spread by the golden ratio: no axis's period is that of the sample.
        points = np.sort((np.arange(count) * 0.6180339887498949 % 1 * size).astype(int))
        lanes = sweep.grid.lanes(points)
        ensemble.table(lanes)  # compiles
        begun = time.perf_counter()
        table = ensemble.table(lanes)
        seconds = time.perf_counter() - begun
        spent += 2 * seconds
        if seconds >= _LONG_ENOUGH or count == min(most, size):
            break
        growth = max(2.0, min(8.0, 2 * _LONG_ENOUGH / seconds))
        count = min(int(count * growth), most, size)
    work = table["evaluations"].values if "evaluations" in table else np.ones(count)
    spread = float(np.std(work) / max(np.mean(work), 1e-300))
    return _Pilot(count, seconds / count, spread, spent)


def _resident() -> int:
    """Bytes of the largest resident set so far."""
    import resource  # not on Windows

    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else 1024 * most


def describe_estimate(found: Estimate, workers: int = 1, refined: bool = False) -> str:
    """The estimate in a few lines of plain text."""
    total = sum(found.seconds.values())
    tiles = f"{found.tiles} tile{'s' if found.tiles > 1 else ''}"
    # Without an error bar where the pilot ran all lanes that are left.
    error = f" ± {duration(found.uncertainty)}" if found.uncertainty else ""
    lines = [
        f"{found.lanes} lanes in {tiles} of at most {found.lanes_per_tile} "
        f"({', '.join(sorted(set(found.engines.values())))}), {found.tiles_left} of them to do; "
        f"pilot of {found.pilot_lanes} lanes",
        f"time    {duration(total)}{error} in one process; the pilot's "
        f"compilation took {duration(found.compile_seconds)}",
    ]
    if len(found.seconds) > 1:
        shares = ", ".join(f"{name} {duration(s)}" for name, s in found.seconds.items())
        lines.append(f"        of it {shares}")
    several = f", {size(workers * found.memory_bytes)} for {workers}" if workers > 1 else ""
    lines += [
        f"memory  {size(found.memory_bytes)} a process{several}",
        f"disk    {size(found.disk_bytes)} at most",
    ]
    if refined:
        lines.append("of the coarse map; each finer level doubles the tiles along the boundary")
    return "\n".join(lines)


def duration(seconds: float) -> str:
    """In the unit that one would say.

    !!! example
        >>> duration(0.25), duration(100), duration(1e5)
        ('0.25 s', '1.7 min', '27.8 h')
    """
    if seconds < 90:
        return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def size(count: float) -> str:
    """Bytes in the unit that one would say.

    !!! example
        >>> size(2_500_000)
        '2.5 MB'
    """
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"
