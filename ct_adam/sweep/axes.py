"""Axes of a grid: the values of one hyperparameter, or of several that move together.

On the command line and in a file an axis is one word, `kind:number:number:…`, or numbers with
commas; `parse` reads it.
"""

import math
import reprlib
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
            _check_numbers(values, name or repr(self.word))
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
    _check_finite("linear", start, stop)
    values = np.linspace(start, stop, _count(num))
    return Axis({OWN: values}, _word("linear", start, stop, num))


def log(start: float, stop: float, num: int) -> Axis:
    """`num` values from `start` to `stop`, evenly in the logarithm, as one looks at learning rates.

    !!! example
        >>> log(1e-3, 1e-1, 3).columns[OWN].round(6).tolist()
        [0.001, 0.01, 0.1]
    """
    _check_positive("log", start, stop)
    values = np.geomspace(start, stop, _count(num))
    return Axis({OWN: values}, _word("log", start, stop, num))


def one_minus_log(start: float, stop: float, num: int) -> Axis:
    """`num` values from `start` to `stop`, evenly in ln(1 − value), as one looks at decays.

    !!! example
        >>> one_minus_log(0.9, 0.999, 3).columns[OWN].round(6).tolist()
        [0.9, 0.99, 0.999]
    """
    _check_positive("1-log", 1 - start, 1 - stop)
    values = 1 - np.geomspace(1 - start, 1 - stop, _count(num))
    return Axis({OWN: values}, _word("1-log", start, stop, num))


def cells(low: float, high: float, num: int) -> Axis:
    """The centres of `num` equal cells of (low, high): the ends are left out, and a cell can be
    cut in two.

    !!! example
        >>> cells(0.5, 1, 2).columns[OWN].tolist()
        [0.625, 0.875]
    """
    _check_finite("cells", low, high)
    if low == high:
        raise ValueError(f"axis cells: nothing lies between {low:g} and {high:g}.")
    values = low + (high - low) * (np.arange(_count(num)) + 0.5) / num
    return Axis(
        {OWN: values},
        _word("cells", low, high, num),
        lambda: cells(low, high, 2 * num),
        abs(high - low) / num,
    )


def explicit(values: Any) -> Axis:
    """The values as they are given; integers stay integers."""
    numbers = np.asarray(values)
    _check_numbers(numbers)
    return Axis({OWN: numbers}, ",".join(map(_text, numbers)))


def seeds(num: int, first: int = 0) -> Axis:
    """Seeds first, first + 1, …, integers.

    !!! example
        >>> seeds(3).columns[OWN].tolist()
        [0, 1, 2]
    """
    _check_finite("seeds", first)
    return Axis({OWN: np.arange(first, first + _count(num))}, _word("seeds", num, first))


def zipped(**columns: Any) -> Axis:
    """Columns that move together along one dimension: `zipped(b1=[...], b2=[...])`."""
    values = {name: np.asarray(column) for name, column in columns.items()}
    for name, column in values.items():
        _check_numbers(column, name)
    rows = (f"{name}={','.join(map(_text, column))}" for name, column in values.items())
    return Axis(values, f"zipped:{';'.join(rows)}")


def normal_curve(b1: float, b2: float, num: int) -> Axis:
    """`num` pairs (b1, b2) on the curve through a pair at right angles to the level curves of C.

    Source: EQUATIONS §2; `ct.theory.normal_curve`.

    !!! example
        >>> sorted(normal_curve(0.9, 0.999, 64).columns)
        ['b1', 'b2']
    """
    b1s, b2s = theory.normal_curve(b1, b2, _count(num))
    columns = {"b1": np.asarray(b1s), "b2": np.asarray(b2s)}
    return Axis(columns, _word("normal", b1, b2, num))


def level_curve(c: float, low: float, high: float, num: int) -> Axis:
    """`num` pairs on the level curve C(b1, b2) = c, b1 evenly from `low` to `high`.

    Source: EQUATIONS §2; `ct.theory.level_curve`.
    """
    _check_finite("level", c, low, high)
    b1s = np.linspace(low, high, _count(num))
    b2s = np.asarray(theory.level_curve(c, b1s))
    if not np.all((b2s > 0) & (b2s < 1)):
        outside = float(b1s[np.argmin((b2s > 0) & (b2s < 1))])
        raise ValueError(f"level:{c:g}: there is no b2 in (0, 1) at b1 = {outside:g}.")
    return Axis({"b1": b1s, "b2": b2s}, _word("level", c, low, high, num))


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
    forms = ", ".join(f"{name}:{form}" for name, (_, form) in _KINDS.items())
    if not colon:
        words = text if isinstance(text, list | tuple) else str(text).split(",")
        return explicit([_number(word, text, f"numbers with commas, or {forms}") for word in words])
    if kind not in _KINDS:
        raise ValueError(f"axis {text!r} is unknown: give numbers with commas, or {forms}.")
    make, form = _KINDS[kind]
    numbers = [_number(word, text, f"{kind}:{form}") for word in rest.split(":")]
    try:
        return make(*numbers)
    except TypeError:
        raise ValueError(f"axis {text!r}: write {kind}:{form}.") from None


def _number(word: Any, axis: Any, form: str) -> int | float:
    for number in (int, float):
        try:
            return number(str(word))
        except ValueError:
            continue
    raise ValueError(f"axis {axis!r}: {str(word).strip()!r} is no number: write {form}.")


def _text(number: Any) -> str:
    """As short as brings the number back."""
    return f"{number:g}" if float(f"{number:g}") == number else repr(float(number))


def _word(kind: str, *numbers: float) -> str:
    return ":".join([kind, *map(_text, numbers)])


def _count(num: int) -> int:
    try:
        whole = math.isfinite(num) and num == int(num) and num >= 1
    except TypeError:  # such as the text "3"
        whole = False
    if not whole:
        raise ValueError(f"axis: num = {num} must be a whole number of at least 1.")
    if num > _MOST:
        raise ValueError(f"axis: num = {num} is more than an axis holds: at most {_MOST}.")
    return int(num)


def _check_numbers(values: np.ndarray, name: str | None = None) -> None:
    name = reprlib.repr(values.tolist()) if name is None else name
    if values.dtype.kind == "U":
        raise ValueError(f"axis {name} is text: ct.axes.parse reads it.")
    if values.ndim != 1 or not len(values) or values.dtype.kind not in "fiu":
        raise ValueError(f"axis {name}: give one number at least, in a row.")
    if not np.all(np.isfinite(values)):
        raise ValueError(f"axis {name} holds a number that is not finite.")


def _check_finite(kind: str, *numbers: float) -> None:
    for number in numbers:
        if not math.isfinite(number):
            raise ValueError(f"axis {kind}: {number:g} is not finite.")


def _check_positive(kind: str, *numbers: float) -> None:
    _check_finite(kind, *numbers)
    if min(numbers) <= 0:
        raise ValueError(f"axis {kind}: {min(numbers):g} has no logarithm; keep away from the end.")
