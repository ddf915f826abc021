"""How far a sweep is, and the time left."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

Progress = Callable[[str, int, int], None]
"""Is told `(what, done, total)`, in lanes; the first call tells what was kept from before."""


@contextmanager
def lane_bar(prefix: str = "") -> Iterator[Progress]:
    """A bar on the error stream. What was kept counts as done, but not as speed."""
    from tqdm import tqdm

    with tqdm(total=0, unit="lane", dynamic_ncols=True) as bar:

        def tell(what: str, done: int, total: int) -> None:
            if not bar.total:
                bar.initial = done
            bar.total = total
            bar.set_description(f"{prefix}{what}", refresh=False)
            bar.update(done - bar.n)

        yield tell
