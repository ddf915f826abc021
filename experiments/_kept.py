"""Tiles of a long experiment, kept until it is through: stopped, the same call goes on."""

import hashlib
import shutil
import tempfile
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import ct_adam
import experiments
from ct_adam.caches import cache_folder
from ct_adam.sweep.claims import Claims
from ct_adam.sweep.layout import AnotherSweepError
from ct_adam.sweep.provenance import versions

from . import Progress

Result = TypeVar("Result")
Run = TypeVar("Run", bound=Hashable)


def resumed(name: str, config: Any, measure: Callable[[Path], Result]) -> Result:
    """`measure(folder)`, the folder being that of an earlier call with the same configuration and
    code that did not get through; it is removed when this one does.

    While another process measures the same, a folder of its own that is kept for nobody.
    """
    known = hashlib.sha256((repr(config) + code_digest()).encode()).hexdigest()[:12]
    folder = cache_folder("experiments") / f"{name}-{known}"
    # The lock lies beside the folder and stays: one that is removed is no lock to who waits for it.
    with Claims(folder.with_suffix(".lock")) as claims:
        if not claims.take(0):
            with tempfile.TemporaryDirectory() as passing:
                return measure(Path(passing))
        folder.mkdir(exist_ok=True)
        try:
            found = measure(folder)
        except AnotherSweepError:  # made on another device, or by other threads: made anew
            shutil.rmtree(folder)
            folder.mkdir()
            found = measure(folder)
        shutil.rmtree(folder, ignore_errors=True)
        return found


def code_digest() -> str:
    """What numbers depend on beside the configuration: every file of the program, and libraries."""
    digest = hashlib.sha256(repr(versions()).encode())
    for package in (ct_adam, experiments):
        for file in sorted(Path(str(package.__file__)).parent.rglob("*.py")):
            digest.update(file.read_bytes())
    return digest.hexdigest()


Arrays = dict[str, Any]
"""Arrays by name."""


def remembered(path: Path, compute: Callable[[], Arrays]) -> Arrays:
    """What `compute()` returns, kept in the file for the next call."""
    import numpy as np

    if path.exists():
        with np.load(path) as kept:
            return dict(kept)
    found = compute()
    passing = path.with_suffix(".part.npz")
    np.savez(passing, **found)
    passing.replace(path)  # whole or not at all, whenever this is killed
    return found


Keep = Callable[[str, Callable[[], Arrays]], Arrays]
"""`keep(what, compute)`: what `compute()` returns, or did in the call that was stopped."""


def numbered(folder: Path, progress: Progress, total: int) -> Keep:
    """`remembered` in the files 0, 1, … of the folder, by the order of the calls, which have to be
    those of the call that was stopped. Tells of each of the `total` pieces."""
    done = 0

    def keep(what: str, compute: Callable[[], Arrays]) -> Arrays:
        nonlocal done
        found = remembered(folder / f"{done}.npz", compute)
        done += 1
        progress(what, done, total)
        return found

    return keep


def workers() -> int:
    """Threads for `all_remembered`: a step of a small network keeps one core busy."""
    import jax

    return 2 if jax.default_backend() == "cpu" else 1


def all_remembered(
    work: Sequence[tuple[Path, Callable[[], Arrays]]], told: Callable[[int, Arrays], None]
) -> list[Arrays]:
    """`remembered` of every (path, compute), a thread a core; `told(i, found)` of each in order.

    Stopped, it leaves what has not begun for the next call.
    """
    pool = ThreadPoolExecutor(workers())
    try:
        under_way = [pool.submit(remembered, *piece) for piece in work]
        found = []
        for i, future in enumerate(under_way):
            found.append(future.result())
            told(i, found[-1])
        return found
    finally:
        pool.shutdown(cancel_futures=True)


def remembered_runs(
    pieces: Sequence[list[Run]],
    compute: Callable[[list[Run]], Arrays],
    told: Callable[[int], None],
    path: Path,
) -> dict[Run, Arrays]:
    """Of every run its row of what `compute` finds of its piece, in arrays with the runs first.

    Pieces are kept in files that begin with `path`; a thread a core. `told(runs)` of each piece.
    """
    work = [
        (path.with_name(f"{path.name}-{number}.npz"), partial(compute, piece))
        for number, piece in enumerate(pieces)
    ]
    kept = all_remembered(work, lambda i, _: told(len(pieces[i])))
    return {
        run: {name: values[i] for name, values in one.items()}
        for piece, one in zip(pieces, kept, strict=True)
        for i, run in enumerate(piece)
    }
