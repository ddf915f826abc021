"""A jaxpr as straight-line scalar source: one name a number.

Knows nothing of differential equations, optimizers or the language beyond: names and calls that
stand in a kernel's prelude. Floats are float64 or float32; an integer is a float64 with a whole
value, exact below 2⁵³, so that a loop over lanes needs one kind of register.
"""

import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import Literal

from .atoms import MAX_SCALARS, Atom, LoweringError, Source, Table, constant, kind_of
from .jaxprs import Split, apply
from .lower_rules import RULES, STRUCTURAL


class Lowered(NamedTuple):
    """Source of one pass of the body.

    `setup` runs where a lane enters: it reads `h0, …` (numbers of the known arrays `scalars`) and
    makes names of which the body reads `kept`. `body` reads these, the live inputs `c0, …` and the
    tables `table0, …`; `outputs` are expressions.
    """

    setup: list[str]
    body: list[str]
    kept: dict[str, str]
    """their kinds by name"""
    outputs: list[str]
    """each a float64"""
    live_kinds: list[str]
    known_kinds: list[str]
    scalars: list[int]
    """positions among the residuals of the arrays that are read as h0, …, one after the other"""
    tables: list[int]
    """positions among the residuals of those that are read as table0, …"""


def lower(split: Split, live_inputs: int) -> Lowered:
    """Source of the live equations; their inputs are the last `live_inputs` of all.

    **Raises:** `LoweringError` with the name of a primitive that has no rule.
    """
    return _Lowering(split, live_inputs).run()


class _Lowering:
    def __init__(self, split: Split, live_inputs: int):
        self.split, self.source = split, Source()
        self.env: dict[Any, Any] = {}
        self.scalars: list[int] = []
        self.tables: list[int] = []
        names = (f"c{i}" for i in itertools.count())
        self.live_kinds: list[str] = []
        self.known_kinds: list[str] = []
        for var in split.invars[len(split.invars) - live_inputs :]:
            self.env[var] = _named(var.aval, names, live=True)
            self.live_kinds += [kind_of(var.aval.dtype)] * var.aval.size
        self._names_of_known = (f"h{i}" for i in itertools.count())
        self._constants = {var: value for var, value in split.consts.items() if _baked(value)}
        for eqn in split.known:  # equations of constants alone
            if all(isinstance(v, Literal) or v in self._constants for v in eqn.invars):
                given = [
                    v.val if isinstance(v, Literal) else self._constants[v] for v in eqn.invars
                ]
                with jax.ensure_compile_time_eval():
                    results = apply(eqn, given)
                self._constants |= {
                    v: np.asarray(x)
                    for v, x in zip(eqn.outvars, results, strict=True)
                    if _small(x) and not jnp.issubdtype(v.aval.dtype, jax.dtypes.extended)
                }

    def run(self) -> Lowered:
        for eqn in self.split.live:
            inputs = [self._read(eqn, var) for var in eqn.invars]
            for var, value in zip(eqn.outvars, self._apply(eqn, inputs), strict=True):
                self.env[var] = value
        outputs = []
        for var in self.split.outvars:
            for atom in np.ravel(self._read(None, var)):
                if not atom.live and atom.value is None:
                    self.source.kept[atom.text] = atom.kind
                outputs.append(as_number(atom))
        source = self.source
        return Lowered(
            source.setup,
            source.body,
            source.kept,
            outputs,
            self.live_kinds,
            self.known_kinds,
            self.scalars,
            self.tables,
        )

    def _read(self, eqn: Any, var: Any) -> Any:
        if isinstance(var, Literal):
            aval: Any = var.aval
            return _constants(np.asarray(var.val), aval.dtype)
        if var not in self.env:
            self.env[var] = self._known(eqn, var)
        return self.env[var]

    def _known(self, eqn: Any, var: Any) -> Any:
        if var in self._constants:
            return _constants(np.asarray(self._constants[var]), var.aval.dtype)
        at = self.split.residuals.index(var)
        if var.aval.size <= MAX_SCALARS:
            self.scalars.append(at)
            self.known_kinds += [kind_of(var.aval.dtype)] * var.aval.size
            return _named(var.aval, self._names_of_known, live=False)
        if eqn is None or eqn.primitive.name != "dynamic_slice":
            what = "an output" if eqn is None else eqn.primitive.name
            raise LoweringError(f"{what} of {var.aval.size} numbers")
        self.tables.append(at)
        return Table(len(self.tables) - 1, var.aval.shape, kind_of(var.aval.dtype))

    def _apply(self, eqn: Any, inputs: list[Any]) -> list[Any]:
        name = eqn.primitive.name
        for var in eqn.outvars:
            if var.aval.size > MAX_SCALARS:
                raise LoweringError(f"{name} of {var.aval.size} numbers")
        if name in STRUCTURAL and not any(isinstance(x, Table) for x in inputs):
            return rearranged(eqn, inputs)
        if name not in RULES:
            raise LoweringError(f"the primitive {name}")
        return RULES[name](self.source, eqn, *inputs)


def rearranged(eqn: Any, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
    """What only moves numbers about: done by the primitive itself, to the numbers' positions."""
    flat = np.concatenate([np.ravel(x) for x in inputs]) if inputs else np.empty(0, object)
    starts = np.cumsum([0, *(x.size for x in inputs)])
    positions = [
        np.arange(start, start + x.size, dtype=np.int32).reshape(x.shape)
        for start, x in zip(starts, inputs, strict=False)
    ]
    with jax.ensure_compile_time_eval():
        results = apply(eqn, positions)
    return [np.asarray(flat[np.asarray(result)], object) for result in results]


def read_as(kind: str, number: str) -> str:
    """A float64 as a number of `kind`: the inverse of `as_number`."""
    return {"b": f"({number} != 0.0)", "f4": f"f4({number})"}.get(kind, number)


def as_number(atom: Atom) -> str:
    """The text of an atom as a float64."""
    if atom.kind == "b":
        return f"select({atom.text}, 1.0, 0.0)" if atom.value is None else str(float(atom.value))
    return f"f8({atom.text})" if atom.kind == "f4" else atom.text


def _named(aval: Any, names: Any, live: bool) -> np.ndarray:
    kind = kind_of(aval.dtype)
    return _array([Atom(next(names), kind, live) for _ in range(aval.size)], aval.shape)


def _constants(values: np.ndarray, dtype: Any) -> np.ndarray:
    kind = kind_of(dtype)
    return _array([constant(value, kind) for value in values.ravel()], values.shape)


def _array(atoms: Sequence[Atom], shape: Sequence[int]) -> np.ndarray:
    made = np.empty(len(atoms), object)
    made[:] = atoms
    return made.reshape(shape)


def _small(value: Any) -> bool:
    return np.size(value) <= MAX_SCALARS


def _baked(value: Any) -> bool:
    """Whole numbers and truth values stand in the source, as positions must; floats are read, so
    that another curvature is no other program."""
    return _small(value) and np.asarray(value).dtype.kind in "iub"
