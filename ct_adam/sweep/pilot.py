"""What a sweep will cost, from a few of its lanes."""

import math
import sys
import time
from dataclasses import dataclass

import numpy as np

from .sweep import Sweep

_LONG_ENOUGH = 1.0
"""Seconds that a pilot's call should take, so that they say something."""


@dataclass(frozen=True)
class Estimate:
    """What a sweep costs.

    - `lanes`, `tiles`, `lanes_per_tile`: of the coarse grid where it is refined.
    - `pilot_lanes`: lanes that were run to tell. `compile_seconds`: before the first lane.
    - `seconds`: of the whole sweep on this machine in one process, with `uncertainty` (one standard
        error, of how much lanes differ). `memory_bytes`: largest resident set of a process.
    - `disk_bytes`: of the store, at most. `engines`: by method.
    """

    lanes: int
    tiles: int
    lanes_per_tile: int
    pilot_lanes: int
    compile_seconds: float
    seconds: float
    uncertainty: float
    memory_bytes: int
    disk_bytes: int
    engines: dict[str, str]


def estimate(sweep: Sweep) -> Estimate:
    """Runs a sample of lanes, spread evenly over the grid, and no more than it takes to tell.

    Every method has its own; a sample grows until a call of it takes a second or is a tile. Nothing
    is written.
    """
    level = sweep.levels[0]
    tiling, methods = level.tiling, len(sweep.ensembles)
    seconds = variance = compiling = 0.0
    lanes = 0
    for name in sweep.ensembles:
        pilot = _pilot(sweep, name, tiling.lanes)
        lanes += pilot.lanes
        compiling += pilot.compile_seconds
        share = level.size / methods
        # The sample's lanes are all there are, where it takes them all.
        left = 1 - pilot.lanes / share
        seconds += share * pilot.per_lane
        variance += left * (share * pilot.per_lane * pilot.spread) ** 2 / pilot.lanes
    row = sum(v.dtype.itemsize * math.prod(v.shape[1:]) for v in sweep.template.data_vars.values())
    return Estimate(
        lanes=level.size,
        tiles=len(tiling),
        lanes_per_tile=tiling.lanes,
        pilot_lanes=lanes,
        compile_seconds=compiling,
        seconds=seconds,
        uncertainty=math.sqrt(variance),
        # A tile's table exists about four times over: lanes, carries, results, what is written.
        memory_bytes=_resident() + 4 * max(0, tiling.lanes - lanes) * row,
        disk_bytes=level.size * row,
        engines=sweep.engines,
    )


@dataclass(frozen=True)
class _Pilot:
    lanes: int
    per_lane: float
    spread: float
    """Standard deviation of a lane's cost over its mean."""
    compile_seconds: float


def _pilot(sweep: Sweep, name: str, most: int) -> _Pilot:
    ensemble, size = sweep.ensembles[name], sweep.grid.size
    count = min(16, most, size)
    while True:
        # Evenly spread by the golden ratio: no axis's period is that of the sample.
        points = np.sort((np.arange(count) * 0.6180339887498949 % 1 * size).astype(int))
        lanes = sweep.grid.lanes(points)
        begun = time.perf_counter()
        ensemble.table(lanes)
        first = time.perf_counter() - begun
        begun = time.perf_counter()
        table = ensemble.table(lanes)
        second = time.perf_counter() - begun
        if second >= _LONG_ENOUGH or count == min(most, size):
            break
        growth = max(2.0, min(8.0, 2 * _LONG_ENOUGH / second))
        count = min(int(count * growth), most, size)
    work = table["evaluations"].values if "evaluations" in table else np.ones(count)
    spread = float(np.std(work) / max(np.mean(work), 1e-300))
    return _Pilot(count, second / count, spread, max(0.0, first - second))


def _resident() -> int:
    """Bytes of the largest resident set so far."""
    import resource  # not on Windows

    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else 1024 * most


def describe_estimate(found: Estimate, workers: int = 1, refined: bool = False) -> str:
    """The estimate in a few lines of plain text."""
    lines = [
        f"{found.lanes} lanes in {found.tiles} tiles of {found.lanes_per_tile} "
        f"({', '.join(sorted(set(found.engines.values())))}); pilot of {found.pilot_lanes} lanes",
        f"time    {duration(found.seconds)} ± {duration(found.uncertainty)} in one process, after "
        f"{duration(found.compile_seconds)} of compilation",
        f"memory  {size(found.memory_bytes)} a process"
        + (f", {size(workers * found.memory_bytes)} for {workers}" if workers > 1 else ""),
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
