"""Numbers as source text: what a lowering is made of."""

import itertools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

MAX_SCALARS = 64
"""Largest array that is taken apart, and most names a value may have."""
MAX_LINES = 8000
"""numba takes about 1.2 ms a line."""
KINDS = {"float64": "f8", "float32": "f4", "bool": "b"}


class LoweringError(Exception):
    """Names what stands in the way of a lowering; not an error of the user's."""


class Atom:
    """One number: the text that reads it, its kind (f8, f4, i, b), and whether it is live.

    `value` is that of a constant, None otherwise; `whole` tells of a float that was an integer.
    """

    __slots__ = ("kind", "live", "text", "value", "whole")

    def __init__(self, text: str, kind: str, live: bool, value: Any = None, whole: bool = False):
        self.text, self.kind, self.live, self.value = text, kind, live, value
        self.whole = whole or kind == "i"


class Table(NamedTuple):
    """A known array too large for names: read at live positions only."""

    index: int
    shape: tuple[int, ...]
    kind: str


class Source:
    """Lines so far; an expression that was written once is not written again."""

    def __init__(self) -> None:
        self.setup: list[str] = []
        self.body: list[str] = []
        self.kept: dict[str, str] = {}
        self._seen: dict[tuple[str, str], Atom] = {}
        self._names = itertools.count()

    def line(self, template: str, kind: str, *atoms: Atom) -> Atom:
        """A name for `template` filled in with the atoms."""
        text = template.format(*(atom.text for atom in atoms))
        # A count and the same count as a float read alike, but are not divided alike.
        if (text, kind) in self._seen:
            return self._seen[text, kind]
        live = any(atom.live for atom in atoms)
        if live:
            self.kept |= {a.text: a.kind for a in atoms if not a.live and a.value is None}
        made = Atom(f"{'t' if live else 's'}{next(self._names)}", kind, live)
        (self.body if live else self.setup).append(f"{made.text} = {text}")
        self._seen[text, kind] = made
        if len(self.body) > MAX_LINES:
            raise LoweringError(f"more than {MAX_LINES} operations")
        return made


def constant(value: Any, kind: str) -> Atom:
    """A number as source."""
    if kind == "b":
        return Atom(str(bool(value)), kind, False, bool(value))
    number = float(value)
    if kind == "i" and abs(number) >= 2**53:
        raise LoweringError(f"the whole number {value}, beyond 2**53")
    text = repr(number) if np.isfinite(number) else ("nan" if np.isnan(number) else "inf")
    text = f"-{text}" if number == -np.inf else text
    return Atom(f"f4({text})" if kind == "f4" else text, kind, False, number)


def kind_of(dtype: Any) -> str:
    """f8, f4, i or b."""
    extended = jnp.issubdtype(dtype, jax.dtypes.extended)  # e.g. random keys
    name = str(dtype) if extended else np.dtype(dtype).name
    if name in ("int64", "int32"):
        return "i"
    if name not in KINDS:
        raise LoweringError(f"numbers of type {name}")
    return KINDS[name]
