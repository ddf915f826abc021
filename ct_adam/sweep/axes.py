"""Axes of a grid: the values of one hyperparameter, or of several that move together.

On the command line and in a file an axis is one word, `kind:number:number:…`, or numbers with
commas; `parse` reads it.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .. import theory

_MOST = 2**27
OWN = ""
"""Stands for the axis's own name, which the grid gives it."""


@dataclass(frozen=True)
class Axis:
    """Values along one dimension, by name, and the word that makes them.

    `finer()` is the axis with every cell cut in two, None where there are no cells.
    """

    columns: dict[str, np.ndarray]
    word: str
    finer: Callable[[], "Axis"] | None = field(default=None, compare=False)
    width: float = float("nan")
    """of a cell"""

    def __post_init__(self) -> None:
        for name, values in self.columns.items():
            if values.ndim != 1 or not len(values) or values.dtype.kind not in "fiu":
                raise ValueError(f"axis {name or self.word!r}: give one number at least, in a row.")
            if not np.all(np.isfinite(values)):
                raise ValueError(f"axis {name or self.word!r} holds a number that is not finite.")
        if len({len(values) for values in self.columns.values()}) != 1:
            raise ValueError(f"axis {self.word!r}: columns that move together have one length.")

    def __len__(self) -> int:
        return len(next(iter(self.columns.values())))


def linear(start: float, stop: float, num: int) -> Axis:
    """`num` values evenly from `start` to `stop`, both included.

    !!! example
        >>> linear(0.5, 0.9, 3).columns[OWN].round(2).tolist()
        [0.5, 0.7, 0.9]
    """
    return _own(np.linspace(start, stop, _count(num)), "linear", start, stop, num)


def log(start: float, stop: float, num: int) -> Axis:
    """`num` values from `start` to `stop`, evenly in the logarithm, as one looks at learning rates.

    !!! example
        >>> log(1e-3, 1e-1, 3).columns[OWN].round(6).tolist()
        [0.001, 0.01, 0.1]
    """
    _positive("log", start, stop)
    return _own(np.geomspace(start, stop, _count(num)), "log", start, stop, num)


def one_minus_log(start: float, stop: float, num: int) -> Axis:
    """`num` values from `start` to `stop`, evenly in ln(1 − value), as one looks at decays.

    !!! example
        >>> one_minus_log(0.9, 0.999, 3).columns[OWN].round(6).tolist()
        [0.9, 0.99, 0.999]
    """
    _positive("1-log", 1 - start, 1 - stop)
    values = 1 - np.geomspace(1 - start, 1 - stop, _count(num))
    return _own(values, "1-log", start, stop, num)


def cells(low: float, high: float, num: int) -> Axis:
    """The centres of `num` equal cells of (low, high): the ends are left out, and a cell can be
    cut in two.

    !!! example
        >>> cells(0.5, 1, 2).columns[OWN].tolist()
        [0.625, 0.875]
    """
    values = low + (high - low) * (np.arange(_count(num)) + 0.5) / num
    own = _own(values, "cells", low, high, num)
    return Axis(own.columns, own.word, lambda: cells(low, high, 2 * num), abs(high - low) / num)


def explicit(values: Any) -> Axis:
    """The values as they are given; integers stay integers."""
    numbers = np.asarray(values)
    return Axis({OWN: numbers}, ",".join(map(_text, numbers.ravel())))


def seeds(num: int, first: int = 0) -> Axis:
    """Seeds first, first + 1, …, integers.

    !!! example
        >>> seeds(3).columns[OWN].tolist()
        [0, 1, 2]
    """
    return _own(np.arange(first, first + _count(num)), "seeds", num, first)


def zipped(**columns: Any) -> Axis:
    """Columns that move together along one dimension: `zipped(b1=[...], b2=[...])`."""
    values = {name: np.asarray(column) for name, column in columns.items()}
    rows = (",".join(map(_text, column.ravel())) for column in values.values())
    return Axis(values, f"zipped:{';'.join(map('='.join, zip(values, rows, strict=True)))}")


def normal_curve(b1: float, b2: float, num: int) -> Axis:
    """`num` pairs (b1, b2) on the curve through a pair at right angles to the level curves of C.

    Source: EQUATIONS §2; `ct.theory.normal_curve`.

    !!! example
        >>> sorted(normal_curve(0.9, 0.999, 64).columns)
        ['b1', 'b2']
    """
    b1s, b2s = theory.normal_curve(b1, b2, _count(num))
    return _pairs(b1s, b2s, "normal", b1, b2, num)


def level_curve(c: float, low: float, high: float, num: int) -> Axis:
    """`num` pairs on the level curve C(b1, b2) = c, b1 evenly from `low` to `high`.

    Source: EQUATIONS §2; `ct.theory.level_curve`.
    """
    b1s = np.linspace(low, high, _count(num))
    b2s = np.asarray(theory.level_curve(c, b1s))
    if not np.all((b2s > 0) & (b2s < 1)):
        outside = float(b1s[np.argmin((b2s > 0) & (b2s < 1))])
        raise ValueError(f"level:{c:g}: there is no b2 in (0, 1) at b1 = {outside:g}.")
    return _pairs(b1s, b2s, "level", c, low, high, num)


_KINDS: dict[str, tuple[Callable[..., Axis], str]] = {
    "linear": (linear, "START:STOP:NUM"),
    "log": (log, "START:STOP:NUM"),
    "1-log": (one_minus_log, "START:STOP:NUM"),
    "cells": (cells, "LOW:HIGH:NUM"),
    "seeds": (seeds, "NUM[:FIRST]"),
    "normal": (normal_curve, "B1:B2:NUM"),
    "level": (level_curve, "C:LOW:HIGH:NUM"),
}


def parse(text: Any) -> Axis:
    """The axis that a word, a number, or a list of numbers stands for.

    **Raises:** `ValueError` that lists the kinds.

    !!! example
        >>> len(parse("1-log:0.9:0.9999:64")), parse("0,0.1").columns[OWN].tolist()
        (64, [0.0, 0.1])
    """
    kind, colon, rest = str(text).partition(":")
    if not colon:
        return explicit(_numbers(text))
    if kind not in _KINDS:
        listed = ", ".join(f"{name}:{form}" for name, (_, form) in _KINDS.items())
        raise ValueError(f"axis {text!r} is unknown: give numbers with commas, or {listed}.")
    make, form = _KINDS[kind]
    try:
        return make(*map(_number, rest.split(":")))
    except TypeError:
        raise ValueError(f"axis {text!r}: write {kind}:{form}.") from None


def _numbers(text: Any) -> list[int | float]:
    if isinstance(text, list | tuple):
        return [_number(str(x)) for x in text]
    return [_number(word) for word in str(text).split(",")]


def _number(word: str) -> int | float:
    try:
        return int(word)
    except ValueError:
        pass
    try:
        return float(word)
    except ValueError:
        raise ValueError(f"axis: {word.strip()!r} is no number.") from None


def _text(number: Any) -> str:
    """As short as brings the number back."""
    return f"{number:g}" if float(f"{number:g}") == number else repr(float(number))


def _own(values: np.ndarray, kind: str, *numbers: float) -> Axis:
    return Axis({OWN: values}, ":".join([kind, *map(_text, numbers)]))


def _pairs(b1s: Any, b2s: Any, kind: str, *numbers: float) -> Axis:
    word = ":".join([kind, *map(_text, numbers)])
    return Axis({"b1": np.asarray(b1s), "b2": np.asarray(b2s)}, word)


def _count(num: int) -> int:
    if num != int(num) or num < 1:
        raise ValueError(f"axis: num = {num} must be a whole number of at least 1.")
    if num > _MOST:
        raise ValueError(f"axis: num = {num} is more than an axis holds: at most {_MOST}.")
    return int(num)


def _positive(kind: str, *numbers: float) -> None:
    if min(numbers) <= 0:
        raise ValueError(f"axis {kind}: {min(numbers):g} has no logarithm; keep away from the end.")
