"""The tiles of a sweep on disk: zarr v3, a chunk a tile, `status` written last.

Every chunk ends with its checksum, so that a damaged tile is known as such, and is computed anew.
The files are read for that directly: a store of 10⁴ tiles is looked through in seconds.
"""

import json
import os
import socket
import threading
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from .grid import Tiling

STATUS = "status"
REFINED = "refined"
DONE = 1
_WRITING = threading.Lock()
"""Claims hold between processes; two threads of one that write the same chunk would take each
other's temporary file."""


class Tiles:
    """One group of a store, opened to read or to write tiles.

    Two processes may write, each its own tiles. Metadata were written when it was made.
    """

    def __init__(self, folder: Path):
        import zarr

        self.folder = folder
        # Also chunks of nothing but the fill value (a stream's loss is NaN): a tile's files are all
        # there, or it is damaged.
        with zarr.config.set({"array.write_empty_chunks": True}):
            group = zarr.open_group(folder, mode="r+", zarr_format=3)
            arrays = dict(group.arrays())
        self._arrays = {n: array for n, array in arrays.items() if array.attrs.get("tiled", False)}
        some, n = next(iter(self._arrays.values())), len(arrays[STATUS].shape)
        self.tiling = Tiling(tuple(some.shape[:n]), tuple(some.chunks[:n]))
        self._status: Any = arrays[STATUS]
        # Beyond the grid's dimensions a tile is whole: there its place is 0.
        further = {name: len(array.shape) - n for name, array in self._arrays.items()}
        self._further = {name: (0,) * more for name, more in further.items()} | {STATUS: ()}

    @property
    def variables(self) -> tuple[str, ...]:
        return tuple(self._arrays)

    @property
    def claims_file(self) -> Path:
        return self.folder / STATUS / "claims.lock"

    def write(self, tile: int, values: Mapping[str, np.ndarray]) -> None:
        """Writes a tile, then that it is done."""
        place = self.tiling.place(tile)
        with _WRITING:
            for name, array in self._arrays.items():
                array.set_block_selection((*place, *self._further[name]), values[name])
            self._status.set_block_selection(place, np.uint8(DONE))

    def read(self, name: str, tile: int) -> np.ndarray:
        """A tile of one variable."""
        return np.asarray(self._arrays[name][self.tiling.block(tile)])

    def forget(self, tile: int) -> None:
        """Takes back that a tile is done."""
        Path(self._path(STATUS, tile)).unlink(missing_ok=True)

    def log(self, tile: int, seconds: float) -> None:
        """Adds to this process's journal: a line a tile, with the time that it took."""
        folder = self.folder / STATUS / "journal"
        folder.mkdir(exist_ok=True)
        line = json.dumps({"tile": tile, "seconds": round(seconds, 4)})
        with (folder / f"{socket.gethostname()}-{os.getpid()}.jsonl").open("a") as file:
            file.write(line + "\n")

    def seconds(self) -> float:
        """Time spent on tiles, as far as the journals tell."""
        total = 0.0
        for file in (self.folder / STATUS / "journal").glob("*.jsonl"):
            for line in file.read_text(encoding="utf-8").splitlines():
                try:
                    total += json.loads(line)["seconds"]
                except (ValueError, KeyError, TypeError):  # cut by a kill
                    continue
        return total

    def done_tiles(self) -> list[int]:
        """All that are done, by their status alone."""
        return [tile for tile in range(len(self.tiling)) if self.done(tile)]

    def done(self, tile: int) -> bool:
        """Whether its status says so; False also where the status is damaged."""
        return checked(self._path(STATUS, tile)) == bytes([DONE])

    def state(self, tile: int) -> str:
        """`"done"`, `"missing"`, or `"damaged"`: a status, or a chunk, whose checksum is wrong."""
        status = self._path(STATUS, tile)
        if not os.path.exists(status):
            return "missing"
        chunks = (self._path(name, tile) for name in self._arrays)
        fine = self.done(tile) and all(checked(path) is not None for path in chunks)
        return "done" if fine else "damaged"

    def states(self, tiles: Iterable[int]) -> dict[int, str]:
        """The state of each, every byte read."""
        tiles = list(tiles)
        with ThreadPoolExecutor(8) as pool:
            return dict(zip(tiles, pool.map(self.state, tiles, chunksize=64), strict=True))

    def sweep_up(self) -> None:
        """Removes what a killed process had begun to write; only while no other process writes."""
        with _WRITING:  # another thread's files are no leftovers
            for name in (*self._arrays, STATUS):
                for path in (self.folder / name).rglob("*.partial"):
                    path.unlink(missing_ok=True)

    def _path(self, name: str, tile: int) -> str:
        place = (*self.tiling.place(tile), *self._further[name])
        return f"{self.folder}/{name}/c.{'.'.join(map(str, place))}"


def few(names: Iterable[Any]) -> str:
    """`tile 3`, `tiles 3, 5`: at most eight of them by name."""
    words = [str(name) for name in names]
    more = ", …" if len(words) > 8 else ""
    return f"{'tiles' if len(words) > 1 else 'tile'} {', '.join(words[:8])}{more}"


def checked(path: str) -> bytes | None:
    """A chunk without its checksum; None if it is missing or damaged."""
    import google_crc32c

    try:
        with open(path, "rb", buffering=0) as file:
            content = file.read()
    except OSError:
        return None
    body, checksum = content[:-4], content[-4:]
    return body if checksum == google_crc32c.value(body).to_bytes(4, "little") else None
