"""A store is asked to stop: its sweeps end as by Ctrl-C, on whichever machine they run.

The request is a file of the store, as its locks are: a signal would need the number of a process,
which may be on another machine, or by now another program's. It ends those sweeps that were running
when it was made, each of which remembers the request that it has found at its beginning. So nobody
has to take it back, and the call that goes on cannot take it away from one that has not seen it.
"""

import os
import uuid
from pathlib import Path

from .tiles import STATUS


def ask_to_stop(store: Path) -> None:
    """Asks the sweeps that are running on a store to end after the tile that they are at.

    **Raises:** `OSError` where the store cannot be written.

    !!! example
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     earlier = StopRequests(Path(folder))
        ...     ask_to_stop(Path(folder))
        ...     later = StopRequests(Path(folder))
        ...     earlier.fresh(), later.fresh()
        (True, False)
    """
    file = _file(store)
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_name(f"stop.{uuid.uuid4().hex}")
    try:
        partial.write_text(uuid.uuid4().hex, encoding="utf-8")
        os.replace(partial, file)
    finally:
        partial.unlink(missing_ok=True)


class StopRequests:
    """The requests that are made from now on."""

    def __init__(self, store: Path):
        self._file = _file(store)
        self._before = self._read()

    def fresh(self) -> bool:
        return self._read() not in ("", self._before)

    def check(self) -> None:
        """Raises `KeyboardInterrupt` after a request, as Ctrl-C does."""
        if self.fresh():
            raise KeyboardInterrupt("stopped, as its store was asked to")

    def _read(self) -> str:
        try:
            return self._file.read_text(encoding="utf-8")
        except OSError:
            return ""


def _file(store: Path) -> Path:
    # Among the journals: what is there is no part of the result.
    return store / STATUS / "journal" / "stop"
