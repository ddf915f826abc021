"""An ensemble before its lanes: what one call of `ct.ensemble` and all tiles of a sweep share."""

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import ArrayLike, PyTree

from ..decays import choice
from ..identity import hash_and_shapes
from ..problems import AbstractProblem, as_params, working_dtype
from ..problems.base import Loss
from ..simulate.cost import solver_budget
from ..simulate.trajectory import Save, check_steps, check_tolerances
from .compiled import ENGINES, Compiled, compiled
from .program import Program
from .reference import LaneResult, Settings
from .table import METRICS, to_dataset

if TYPE_CHECKING:
    import xarray


@dataclass(frozen=True)
class Prepared:
    """What every lane runs, and what is kept of it.

    `expected` lanes are to come in all, so that `auto` need not judge by the first call's.
    """

    program: Program
    gradients: int
    metrics: tuple[str, ...]
    engine: str
    attrs: dict[str, Any]
    expected: int | None = None
    _made: dict[Hashable, tuple[Compiled, PyTree]] = field(default_factory=dict, init=False)

    def check(self, lanes: Mapping[str, ArrayLike]) -> None:
        """Checks lanes without running them: `ValueError`, naming the lane."""
        columns = self._columns(lanes)
        made, arrays = self._compiled(columns)
        made.check(arrays, columns, self.gradients)

    def table(self, lanes: Mapping[str, ArrayLike]) -> "xarray.Dataset":
        """The lanes' numbers."""
        columns = self._columns(lanes)
        made, arrays = self._compiled(columns)
        made.check(arrays, columns, self.gradients)
        return self._labelled(made, made.run(arrays, columns), columns)

    def engine_for(self, lanes: Mapping[str, ArrayLike]) -> str:
        """The engine that runs such lanes; it is made, not run."""
        columns = self._columns(lanes)
        made, arrays = self._compiled(columns)
        return made.prepare(arrays, columns)

    def template(self, lanes: Mapping[str, ArrayLike]) -> tuple["xarray.Dataset", str]:
        """A table of one lane with zeros in it, for its variables, types and labels, and a hash of
        what a lane computes: its program with all constants, data and starts.

        Nothing runs. The first lane's values are part of the hash: give the same one each time.
        """
        columns = {name: column[:1] for name, column in self._columns(lanes).items()}
        made, arrays = self._compiled(columns)
        made.check(arrays, columns, self.gradients)
        static = eqx.partition(self.program, eqx.is_array)[1]
        lane = {name: jnp.asarray(column[0]) for name, column in columns.items()}

        def lap(arrays: PyTree, lane: dict[str, Any]) -> PyTree:
            program = eqx.combine(arrays, static)
            fixed, carry = program.init(lane)
            after = program.body(lane, fixed, carry)
            inside = jax.tree.leaves((fixed, after)), program.active(fixed, after)
            return program.output(lane, fixed, after), inside

        named, (result, _) = hash_and_shapes(lap, arrays, lane)
        zeros = jax.tree.map(lambda leaf: np.zeros((1, *leaf.shape), leaf.dtype), result)
        return self._labelled(made, zeros, columns), named

    def _labelled(
        self, made: Compiled, result: LaneResult, columns: dict[str, np.ndarray]
    ) -> "xarray.Dataset":
        attrs = self.attrs | {"update_kind": made.update_kind}
        return to_dataset(result, columns, self.metrics, attrs)

    def _columns(self, lanes: Mapping[str, ArrayLike]) -> dict[str, np.ndarray]:
        return _columns(lanes, working_dtype(self.program.params))

    def _compiled(self, columns: dict[str, np.ndarray]) -> tuple[Compiled, PyTree]:
        types = tuple((name, column.dtype) for name, column in columns.items())
        if types not in self._made:
            made = compiled(self.program, columns, self.engine, self.expected)
            self._made[types] = made
        return self._made[types]


def prepared(
    make: Callable[..., Any],
    loss: Loss | AbstractProblem | None,
    params: PyTree,
    steps: int,
    *,
    engine: str = "auto",
    rtol: float = 1e-6,
    atol: float = 1e-9,
    max_solver_steps: int | None = None,
    warm_steps: int = 0,
    save: Save | None = None,
    metrics: tuple[str, ...] = METRICS,
    expected: int | None = None,
) -> Prepared:
    """Checks what all lanes share; the arguments are those of `ct.ensemble`."""
    choice("engine", engine, ENGINES)
    if isinstance(metrics, str):
        raise ValueError(f"metrics = {metrics!r}: give a tuple of names.")
    for metric in metrics:
        choice("metrics", metric, METRICS)
    steps, warm_steps = check_steps(steps, warm_steps)
    check_tolerances(rtol, atol, max_solver_steps)
    params = as_params(params)
    dtype = working_dtype(params)
    budget = solver_budget(steps) if max_solver_steps is None else int(max_solver_steps)
    settings = Settings(
        jnp.asarray(steps, dtype),
        warm_steps,
        jnp.asarray(rtol, dtype),
        jnp.asarray(atol, dtype),
        # diffrax compiles its budget in.
        budget if engine == "reference" else jnp.asarray(budget),
        wants_loss="min_loss" in metrics,
        wants_line="update_slope" in metrics,
        wants_update="max_update" in metrics or "update_slope" in metrics,
        save=save,
    )
    program = Program(make, loss, params, settings)
    return Prepared(program, warm_steps + steps, metrics, engine, {"steps": steps}, expected)


def _columns(lanes: Mapping[str, ArrayLike], dtype: Any) -> dict[str, np.ndarray]:
    """The lanes as equally long columns; floats in the working type, integers as they are."""
    if not isinstance(lanes, Mapping):
        raise ValueError(
            f"lanes is a {type(lanes).__name__}: give columns by name, as {{'b1': [0.5, 0.9]}}."
        )
    if not lanes:
        raise ValueError("lanes is empty: name one column of numbers at least.")
    columns = {}
    for name, values in lanes.items():
        column = np.asarray(values)
        if name in (*METRICS, "parameter", "lane"):
            raise ValueError(f"lanes[{name!r}] would hide a column of the table: rename it.")
        if column.ndim != 1 or column.dtype.kind not in "fiu":
            raise ValueError(f"lanes[{name!r}] must be one-dimensional and numeric.")
        columns[name] = column.astype(dtype) if column.dtype.kind == "f" else column
    lengths = {name: len(column) for name, column in columns.items()}
    if len(set(lengths.values())) != 1 or 0 in lengths.values():
        raise ValueError(f"lanes must have one common length of at least 1: got {lengths}.")
    return columns
