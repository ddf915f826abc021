"""How far long work is: a bar for whoever looks on, a line now and then for a log."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TextIO

Progress = Callable[[str, int, int], None]
"""Is told `(what, done, total)`; the first call tells what was kept from before."""

_PAUSE = 60.0
"""Seconds between two lines of a log; work that is done by then leaves none."""


def bar(total: int, unit: str, initial: int = 0, shown: bool = True) -> Any:
    """tqdm's bar on the error stream, drawn over where somebody looks on, else in whole lines."""
    from tqdm import tqdm

    # A notebook's stream is no terminal, but its session is interactive.
    if sys.stderr.isatty() or hasattr(sys, "ps1"):
        how: dict[str, Any] = {"dynamic_ncols": True}
    else:
        how = {
            "file": _Lines(sys.stderr),
            "bar_format": "{l_bar} {n_fmt}/{total_fmt} {unit} [{elapsed}<{remaining}, {rate_fmt}]",
            "mininterval": _PAUSE,
            "delay": _PAUSE,
            "miniters": 1,  # asks the clock each time: no guess at how many updates make a minute
            "position": 0,
        }
    return tqdm(total=total, unit=unit, initial=initial, disable=not shown, **how)


class _Lines:
    """A stream on which nothing is drawn over: every text becomes a line, blanks are left out."""

    def __init__(self, stream: TextIO):
        self._stream = stream

    def write(self, text: str) -> None:
        if text.strip():
            self._stream.write(f"{text.strip()}\n")

    def flush(self) -> None:
        self._stream.flush()


@contextmanager
def progress_bar(unit: str, prefix: str = "") -> Iterator[Progress]:
    """A bar that can be told how far it is, from the first call on. What was kept counts as done,
    but not as speed."""
    bars: list[Any] = []

    def tell(what: str, done: int, total: int) -> None:
        if not bars:
            bars.append(bar(total, unit, initial=done))
        shown = bars[0]
        shown.total = total
        shown.set_description(f"{prefix}{what}", refresh=False)
        shown.update(done - shown.n)

    try:
        yield tell
    finally:
        for shown in bars:
            shown.close()
