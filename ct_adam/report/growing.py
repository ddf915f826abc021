"""Stores that may still grow: how far they are, and their maps as they are by now."""

import shlex
import threading
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..sweep.layout import is_sweep, level_tiles, root_attributes
from ..sweep.stopping import ask_to_stop
from .document import document
from .maps import read_about, read_maps
from .trajectories import Trajectories

_SEEN = 20
"""Changes from which the time that is left is judged."""
_WHY = "none are run while a store may grow; ct-adam report without --serve runs them"


class GrowingStores:
    """The stores of a served page, for several threads at once.

    **Arguments:**

    - `stores`: as in `read_maps`; a store of `ct-adam region` is written as a whole, and does not
        grow.

    **Raises:** `ValueError` where `read_maps` does.
    """

    def __init__(self, stores: Sequence[str | Path]):
        self._stores = [GrowingStore(Path(store)) for store in dict.fromkeys(map(str, stores))]
        self._lock = threading.Lock()
        self._known: dict[str, Any] = {}
        self.document()

    def progress(self) -> dict[str, Any]:
        """`stores`, a dictionary each, and the `tag` that a document of now would have."""
        with self._lock:
            stores = [store.look() for store in self._stores]
        return {"tag": self._tag(), "stores": stores}

    def document(self) -> dict[str, Any]:
        """As of `report.document`, with its `tag`; made anew only where a tile is new."""
        with self._lock:
            for store in self._stores:
                store.look()
            # Before the numbers are read: a tile that comes meanwhile is found by the next look.
            tag = self._tag()
            if self._known.get("tag") != tag:
                maps = read_maps([store.path for store in self._stores], check=False)
                runs = [Trajectories(None, _WHY)] * len(maps)
                self._known = document(maps, runs) | {"tag": tag}
            return self._known

    def stop(self) -> int:
        """Asks the sweeps of all unfinished stores to stop; how many stores these are.

        **Raises:** `OSError` where a store cannot be written.
        """
        with self._lock:
            asked = [store for store in self._stores if store.look()["grows"]]
        for store in asked:
            ask_to_stop(store.path)
        return len(asked)

    def _tag(self) -> str:
        return " ".join(store.tag for store in self._stores)


class GrowingStore:
    """One store, and when its tiles came."""

    def __init__(self, path: Path):
        self.path, self.tag = path, ""
        self._seen: deque[tuple[float, int]] = deque(maxlen=_SEEN)

    def look(self) -> dict[str, Any]:
        """What the page says of the store; a refined one's number of tiles is known at its end."""
        attributes = root_attributes(self.path)
        made = (self.path / "zarr.json").stat().st_mtime_ns
        if not is_sweep(attributes):
            self.tag = f"{made}"
            return {"name": self.path.name, "grows": False}
        levels = [level_tiles(self.path, k) for k in range(attributes["levels"])]
        done = sum(len(tiles.done_tiles()) for tiles in levels)
        total = len(levels[0].tiling) if len(levels) == 1 else None
        self.tag = f"{made}-{done}"
        now = time.monotonic()
        if not self._seen or self._seen[-1][1] != done:
            self._seen.append((now, done))
        return {
            "name": self.path.name,
            "grows": total is None or done < total,
            "done": done,
            "total": total,
            "seconds": sum(tiles.seconds() for tiles in levels),
            "quiet": now - self._seen[-1][0],
            "rest": self._rest(total, now),
            "resume": _resume(self.path, attributes),
        }

    def _rest(self, total: int | None, now: float) -> float | None:
        """Seconds that are left at the pace of the last tiles; None where nobody knows."""
        (begun, before), (last, done) = self._seen[0], self._seen[-1]
        if total is None or done <= before:
            return None
        return max((total - done) * (last - begun) / (done - before) - (now - last), 0.0)


def _resume(path: Path, attributes: dict[str, Any]) -> str:
    """The command that goes on; "" for a sweep from Python."""
    made_by_command = bool(read_about(attributes)["config"])
    return f"ct-adam sweep --resume {shlex.quote(str(path))}" if made_by_command else ""
