"""Which process works on which tile: a byte of a lock file stands for a tile.

The system frees the bytes of a process that dies, however it dies. Nothing depends on the locks but
the time: a tile that two processes compute comes out the same, and is replaced as a whole.
"""

import os
from pathlib import Path
from types import TracebackType
from typing import Any

try:
    import fcntl
except ImportError:  # Windows: no byte is ever locked
    fcntl = None


class Claims:
    """The claims of this process on one group of tiles, freed at the latest at its end."""

    def __init__(self, file: Path):
        self._fd = os.open(file, os.O_RDWR | os.O_CREAT, 0o666)

    def __enter__(self) -> "Claims":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: Any, trace: TracebackType | None
    ) -> None:
        os.close(self._fd)

    def take(self, tile: int) -> bool:
        """Claims a tile; False if another process has it. Without locks nobody knows: True."""
        return self._lock(tile, 1) is not False

    def alone(self, count: int) -> bool:
        """Claims all tiles below `count`; False unless it is certain that nobody else has one."""
        return self._lock(0, count) is True

    def _lock(self, tile: int, count: int) -> bool | None:
        if fcntl is None:
            return None
        try:
            fcntl.lockf(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB, count, tile)
        except (BlockingIOError, PermissionError):
            return False
        except OSError:  # a file system without locks
            return None
        return True

    def free(self, tile: int, count: int = 1) -> None:
        if fcntl is None:
            return
        try:
            fcntl.lockf(self._fd, fcntl.LOCK_UN, count, tile)
        except OSError:
            return
