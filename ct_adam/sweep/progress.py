"""How far a sweep is, and the time left."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

Progress = Callable[[str, int, int], None]
"""Is told `(what, done, total)`, in lanes; the first call tells what was kept from before."""


@contextmanager
def lane_bar(prefix: str = "") -> Iterator[Progress]:
    """A bar on the error stream, from the first call on. What was kept counts as done, but not as
    speed."""
    from tqdm import tqdm

    bars: list[Any] = []

    def tell(what: str, done: int, total: int) -> None:
        if not bars:
            bars.append(tqdm(initial=done, total=total, unit="lane", dynamic_ncols=True))
        bar = bars[0]
        bar.total = total
        bar.set_description(f"{prefix}{what}", refresh=False)
        bar.update(done - bar.n)

    try:
        yield tell
    finally:
        for bar in bars:
            bar.close()
