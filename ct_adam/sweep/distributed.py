"""Tiles as tasks of a Dask cluster, on this machine or on many.

The workers write to the store themselves: it must be one folder for all. A sweep travels to each
worker once, with its functions and data, and stays there compiled.
"""

import hashlib
import math
import threading
import time
import uuid
from collections import OrderedDict, deque
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import jax

from ..caches import keep_compilations
from ..ensemble.cores import CORES, XLA_CORES, cpus, xla_threads
from .layout import level_folder, level_tiles
from .local import PAUSE, Runner, compute_tile
from .provenance import surroundings
from .stopping import StopRequests
from .tiles import STATUS, Tiles
from .work import Work

_RETRIES = 3
_AHEAD = 4
"""Tiles in the queue for each thread of a worker: so many that none waits."""
_ANSWER = 10
"""Seconds for a scheduler to answer."""
_PATIENCE = 60
"""Seconds until a scheduler without workers is given up."""


@contextmanager
def on_cluster(workers: int, scheduler: str | None) -> Iterator[Runner]:
    """A runner whose tiles are tasks; one that fails, or whose worker dies, is tried again.

    **Raises:** `ValueError` where Dask is not installed or no scheduler answers.
    """
    dask = _dask()
    with _local(dask, workers) if scheduler is None else _answering(dask, scheduler) as client:
        yield lambda *job: _run(client, *job)


def _dask() -> Any:
    try:
        from dask import distributed
    except ImportError:
        raise ValueError(
            "Dask is missing for workers: pip install '.[distributed]' in ct_adam's repository."
        ) from None
    return distributed


@contextmanager
def _local(dask: Any, workers: int) -> Iterator[Any]:
    """The client of a cluster of this machine's processes."""
    share = max(1, cpus() // workers)
    try:
        cluster = dask.LocalCluster(
            n_workers=workers,
            threads_per_worker=1,
            dashboard_address=":0",  # any port: several sweeps share a machine
            silence_logs=50,
            env={CORES: str(share), XLA_CORES: str(xla_threads())},
        )
    except RuntimeError:
        raise ValueError(
            "The local Dask cluster did not start. A script must call it below "
            "`if __name__ == '__main__':`, as every worker imports the script."
        ) from None
    with cluster, dask.Client(cluster) as client:
        yield client


def _answering(dask: Any, scheduler: str) -> Any:
    """The client of a scheduler that has a worker."""
    by_file = scheduler.endswith(".json")  # as Dask's commands write it for each other
    where: Any = {"scheduler_file": scheduler} if by_file else {"address": scheduler}
    try:
        client = dask.Client(**where, timeout=_ANSWER)
        client.wait_for_workers(1, timeout=_PATIENCE)
    except (OSError, ValueError, TimeoutError) as error:
        raise ValueError(
            f"No Dask scheduler with a worker answers at {scheduler}: {error or 'timeout'}."
        ) from None
    return client


class _Parcel(NamedTuple):
    """What a worker needs once: the sweep's name and place, what the digits depend on, JAX's
    settings."""

    name: str
    file: str
    surroundings: dict[str, Any]
    float64: bool
    cached: bool


@contextmanager
def _packed(sweep: Work, store: Path) -> Iterator[_Parcel]:
    """The sweep as a file of the store, which all workers see: what Dask scatters can be lost with
    the workers that hold it."""
    import cloudpickle

    content = cloudpickle.dumps(sweep)
    file = store.absolute() / STATUS / "journal" / f"{uuid.uuid4().hex}.pickle"
    file.parent.mkdir(exist_ok=True)
    parcel = _Parcel(
        hashlib.sha256(content).hexdigest(),
        str(file),
        sweep.description()["surroundings"],
        bool(jax.config.jax_enable_x64),
        jax.config.jax_compilation_cache_dir is not None,
    )
    try:
        file.write_bytes(content)
        yield parcel
    finally:
        file.unlink(missing_ok=True)


def _run(
    client: Any,
    sweep: Work,
    store: Path,
    level: int,
    missing: list[int],
    requests: StopRequests,
) -> Iterator[int]:
    """Keeps the workers' queues filled; tiles that another process has taken come again later."""
    if not missing:
        return
    with (
        _packed(sweep, store) as parcel,
        closing(_results(client, parcel, store, level, missing)) as results,
    ):
        for tile in results:
            yield tile
            requests.check()


def _results(
    client: Any, parcel: _Parcel, store: Path, level: int, missing: list[int]
) -> Generator[int, None, None]:
    from dask.distributed import CancelledError, as_completed
    from distributed.comm.core import CommClosedError

    waiting, tile_of = deque(missing), {}
    running = as_completed(with_results=True, raise_errors=False)
    capacity = _Capacity(client)

    def submit() -> None:
        while waiting and len(tile_of) < _AHEAD * capacity.threads():
            tile = waiting.popleft()
            job = (parcel, str(store.absolute()), level, tile)
            future = client.submit(_task, *job, pure=False, retries=_RETRIES)
            tile_of[future.key] = tile
            running.add(future)

    submit()
    try:
        for future, result in running:
            tile = tile_of.pop(future.key)
            if future.status == "error":
                raise _told(result[1], tile, store)
            if future.status != "finished":
                raise OSError(_LOST)
            if result is True:
                yield tile
            else:
                waiting.append(tile)
                time.sleep(PAUSE)
            submit()
    except (RuntimeError, CancelledError, CommClosedError):  # of a client without its scheduler
        raise OSError(_LOST) from None
    finally:
        with suppress(Exception):
            client.cancel([*running.futures])


_LOST = (
    "The Dask scheduler was lost. All finished tiles are kept: start a cluster, and run the same "
    "again."
)


class _Capacity:
    """The threads of all workers, asked for now and then: workers come and go, and each asking is
    a journey to the scheduler."""

    def __init__(self, client: Any):
        self._client, self._known, self._asked = client, 1, -math.inf

    def threads(self) -> int:
        if time.monotonic() > self._asked + _PATIENCE / 10:
            self._known = max(1, sum(self._client.nthreads().values()))
            self._asked = time.monotonic()
        return self._known


def _told(error: BaseException, tile: int, store: Path) -> BaseException:
    from dask.distributed import KilledWorker

    if not isinstance(error, KilledWorker):
        return error
    return OSError(
        f"Tile {tile} of {store} has killed {_RETRIES + 1} workers, out of memory perhaps. All "
        "finished tiles are kept: take smaller tiles (in another store), or larger machines."
    )


_sweeps: OrderedDict[str, Work] = OrderedDict()
_lock = threading.Lock()


def _task(parcel: _Parcel, store: str, level: int, tile: int) -> bool:
    """Runs in a worker."""
    if not Path(store).exists():
        raise OSError(
            f"A worker does not see {store}: give all workers the folder under the same name."
        )
    made = (level_folder(Path(store), level) / "zarr.json").stat().st_mtime_ns
    return compute_tile(_unpacked(parcel), _opened(store, level, made), level, tile)


@lru_cache(maxsize=16)
def _opened(store: str, level: int, made: int) -> Tiles:
    """`made`: when the store was; another of its name is another store."""
    del made
    return level_tiles(Path(store), level)


def _unpacked(parcel: _Parcel) -> Work:
    import cloudpickle

    with _lock:
        if parcel.name not in _sweeps:
            jax.config.update("jax_enable_x64", parcel.float64)
            if parcel.cached:
                keep_compilations()
            _check_alike(parcel.surroundings)
            _sweeps[parcel.name] = cloudpickle.loads(Path(parcel.file).read_bytes())
            while len(_sweeps) > 4:
                _sweeps.popitem(last=False)
        return _sweeps[parcel.name]


def _check_alike(there: dict[str, Any]) -> None:
    """A worker of other libraries or another device would write other digits."""
    here = surroundings()
    unlike = [f"{k} is {here[k]} there and {there[k]} here" for k in there if here[k] != there[k]]
    if unlike:
        raise OSError(
            f"A worker is unlike this process: {'; '.join(unlike)}. Give all the same environment."
        )
