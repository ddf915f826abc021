"""What a store adds to an ensemble, what many tiles cost, and what a second process costs."""

import shutil
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import ct_adam as ct
from ct_adam.caches import keep_compilations
from ct_adam.sweep.distributed import on_cluster
from ct_adam.sweep.execute import execute
from ct_adam.sweep.layout import level_tiles, make_store
from ct_adam.sweep.local import Runner
from ct_adam.sweep.stopping import StopRequests
from ct_adam.sweep.sweep import METRICS

from .output import finish, print_rows
from .timing import seconds
from .words import duration
from .workloads import QUADRATIC

STEPS = 300
_LEARNING_RATE = 1e-2


def optimizer(b1: Any, b2: Any) -> Any:
    return ct.k_adam(_LEARNING_RATE, b1, b2)


def flow(b1: Any, b2: Any) -> Any:
    return ct.AdamFlow(_LEARNING_RATE, b1, b2)


def main(quick: bool) -> None:
    keep_compilations()
    with tempfile.TemporaryDirectory() as folder:
        reports = [_store(quick, Path(folder)), _many_tiles(quick, Path(folder))]
        reports += [_workers(quick, Path(folder), name, make) for name, make in _MAKES.items()]
    finish("sweep", quick, reports)


_MAKES = {"AdamFlow": flow, "Adam": optimizer}


def _swept(side: int, make: Any = optimizer, **options: Any) -> ct.Sweep:
    cells = ct.axes.cells(0.5, 1, side)
    return ct.Sweep(
        make, QUADRATIC.of, QUADRATIC.start, STEPS, ct.Grid(b1=cells, b2=cells), **options
    )


def _store(quick: bool, folder: Path) -> dict[str, Any]:
    """The same lanes through a store and as one table in memory, turn by turn."""
    side = 300 if quick else 1000
    sweep = _swept(side)
    lanes = sweep.grid.lanes(np.arange(side**2))

    def bare() -> None:
        ct.ensemble(optimizer, QUADRATIC.of, QUADRATIC.start, STEPS, lanes, metrics=METRICS)

    def stored() -> None:
        shutil.rmtree(folder / "store.zarr", ignore_errors=True)
        execute(sweep, folder / "store.zarr")

    bare(), stored()
    rounds = [(seconds(stored), seconds(bare)) for _ in range(5 if quick else 15)]
    ratios = sorted(a / b for a, b in rounds)
    print(f"\n{side**2} lanes of Adam, {STEPS} steps, through a store of {_tiles(sweep)} tiles")
    print(f"in memory {np.median([b for _, b in rounds]):.2f} s; through the store", end=" ")
    print(f"{np.median(ratios):.2f} times that (rounds {ratios[0]:.2f} … {ratios[-1]:.2f})")
    return {"title": "store", "lanes": side**2, "target": 1.2, "rounds_s": rounds}


def _tiles(sweep: ct.Sweep) -> int:
    return len(sweep.levels[0].tiling)


def _many_tiles(quick: bool, folder: Path) -> dict[str, Any]:
    """Listing and resuming 10⁴ tiles: one is computed, and stands for all."""
    side = 30 if quick else 100
    grid = ct.Grid(b1=ct.axes.cells(0.5, 1, side**2), b2=ct.axes.cells(0.5, 1, 16))
    sweep, store = (
        ct.Sweep(optimizer, QUADRATIC.of, QUADRATIC.start, STEPS, grid, tile=16),
        folder / "many.zarr",
    )
    make_store(sweep, store)
    tiles, count = level_tiles(store, 0), _tiles(sweep)
    tiles.write(0, sweep.compute(0, 0))
    for name in (*METRICS, "status"):
        for tile in range(1, count):
            shutil.copy(store / name / "c.0.0", store / name / f"c.{tile}.0")
    found = {
        "open, every byte checked": seconds(lambda: ct.open(store)),
        "open, unchecked": seconds(lambda: ct.open(store, check=False)),
        "resume, nothing missing": seconds(lambda: execute(sweep, store)),
    }
    for tile in range(0, count, 100):
        tiles.forget(tile)
    found["resume, one in 100 missing"] = seconds(lambda: execute(sweep, store))
    with on_cluster(2, None) as runner:
        run = partial(made_again, runner, sweep, store)
        run([0, 1])  # both have the sweep
        found["1000 Dask tasks of finished tiles"] = seconds(
            lambda: run([i % count for i in range(1000)])
        )
    print(f"\n{count} tiles of {len(METRICS)} variables")
    print_rows(["what", "time"], [[what, duration(spent)] for what, spent in found.items()])
    return {"title": "many tiles", "tiles": count, "seconds": found}


def made_again(runner: Runner, sweep: ct.Sweep, store: Path, tiles: list[int]) -> list[int]:
    """The tiles of level 0 that a runner says are made."""
    return list(runner(sweep, store, 0, tiles, StopRequests(store)))


def _workers(quick: bool, folder: Path, name: str, make: Any) -> dict[str, Any]:
    """All cores in one process, and the same cores in two: with everything that starting and
    ending takes, and a tile of the steady part."""
    side = {"AdamFlow": 128, "Adam": 1024}[name] * (1 if quick else 3)
    sweep = _swept(side, make, rtol=1e-3, atol=1e-6)
    _timed(sweep, folder / "one.zarr", 0)  # compiled, and kept on disk for the workers
    rounds = range(1 if quick else 3)
    rows = [{w: _timed(sweep, folder / f"{w}.zarr", w) for w in (2, 0)} for _ in rounds]
    whole = sorted(row[2]["seconds"] / row[0]["seconds"] for row in rows)
    steady = np.median([row[2]["a_tile"] / row[0]["a_tile"] for row in rows])
    alone = np.median([row[0]["seconds"] for row in rows])
    print(f"\n{side**2} lanes of {name} in {_tiles(sweep)} tiles, {alone:.0f} s in one process")
    print(f"two workers on the same cores: {np.median(whole):.2f} times that", end=" ")
    print(f"(rounds {whole[0]:.2f} … {whole[-1]:.2f}), {steady:.2f} times a tile once they run")
    return {"title": f"workers, {name}", "lanes": side**2, "target": 1.3, "rounds": rows}


def _timed(sweep: ct.Sweep, store: Path, workers: int) -> dict[str, float]:
    """Seconds in all, and of a tile between the first quarter of them and the last one."""
    shutil.rmtree(store, ignore_errors=True)
    ticks: list[float] = []
    begun = time.perf_counter()
    execute(sweep, store, workers=workers, progress=lambda *_: ticks.append(time.perf_counter()))
    quarter = len(ticks) // 4
    steady = (ticks[-1] - ticks[quarter]) / (len(ticks) - 1 - quarter)
    return {"seconds": time.perf_counter() - begun, "a_tile": steady}
