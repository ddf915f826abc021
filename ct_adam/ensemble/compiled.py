"""What is kept between calls of `ct.ensemble`, so that a second one neither traces nor compiles."""

import threading
import warnings
from collections import OrderedDict
from collections.abc import Callable, Hashable
from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from ..decays import in_range, out_of_range
from ..flows import AbstractFlow
from ..named import told
from ..optimizers import Optimizer
from ..problems import check_problem
from ..simulate.trajectory import UpdateKind
from .atoms import LoweringError
from .case import hyperparameters_of_method, resolve
from .cohort import Cohort, one_by_one, over_threads
from .program import Lane, Program
from .reference import LaneResult

ENGINES = ("auto", "reference", "cohort", "fused")
FUSED_FROM = 512
"""Lanes from which `auto` thinks a kernel worth its compilation of a few seconds."""
_KEPT = 64

Run = Callable[[PyTree, dict[str, np.ndarray]], LaneResult]
_programs: OrderedDict[Hashable, "Compiled"] = OrderedDict()
_lock = threading.Lock()


class Reference:
    """diffrax, or a scan, a lane at a time."""

    def __init__(self, program: Program):
        static = eqx.partition(program, eqx.is_array)[1]

        def share(arrays: PyTree, lanes: Lane, first: Any, stride: Any) -> LaneResult:
            return one_by_one(eqx.combine(arrays, static).reference, lanes, first, stride)

        self._run = jax.jit(share)

    def __call__(self, arrays: PyTree, columns: dict[str, np.ndarray]) -> LaneResult:
        return over_threads(partial(self._run, arrays, columns), columns)


class Compiled:
    """One program with its checks and its engine, compiled for one type of lanes."""

    update_kind: UpdateKind

    def __init__(self, program: Program, engine: str):
        self._static = eqx.partition(program, eqx.is_array)[1]
        self._engine = engine
        self._run: Run | None = None
        self._named = jax.jit(self._hyperparameters)
        self._looked_at: set[int] = set()

    def check(self, arrays: PyTree, columns: dict[str, np.ndarray], gradients: int) -> None:
        """Checks shapes once and every lane's hyperparameters, before anything runs."""
        if gradients not in self._looked_at:
            lane = {name: column[0] for name, column in columns.items()}
            jax.eval_shape(partial(self._look, gradients), arrays, lane)
            self._looked_at.add(gradients)
        for name, column in self._named(arrays, columns).items():
            values = np.asarray(column)
            fine = in_range(name, values, arrays=True)
            if not np.all(fine):
                lane = int(np.argmin(fine))
                raise ValueError(f"lane {lane}: {out_of_range(name, values[lane])}")

    def prepare(self, arrays: PyTree, columns: dict[str, np.ndarray]) -> str:
        """Makes the engine, and tells its name."""
        return type(self._made(arrays, columns)).__name__.lower()

    def run(self, arrays: PyTree, columns: dict[str, np.ndarray]) -> LaneResult:
        return self._made(arrays, columns)(arrays, columns)

    def _made(self, arrays: PyTree, columns: dict[str, np.ndarray]) -> Run:
        if self._run is None:
            program = eqx.combine(arrays, self._static)
            self._run = _engine(program, columns, self._engine)
        return self._run

    def _look(self, gradients: int, arrays: PyTree, lane: Lane) -> None:
        program = eqx.combine(arrays, self._static)
        problem, start, method = resolve(program.make, program.loss, program.params, lane)
        ahead = 1 - method.lag if isinstance(method, AbstractFlow) else 0
        check_problem(problem, start, gradients + ahead)
        known = isinstance(method, AbstractFlow | Optimizer)
        self.update_kind = "u" if known else "step"

    def _hyperparameters(self, arrays: PyTree, lanes: Lane) -> dict[str, Any]:
        def look(lane: Lane) -> dict[str, Any]:
            program = eqx.combine(arrays, self._static)
            method = resolve(program.make, program.loss, program.params, lane)[2]
            # Python numbers were checked when the method was made.
            named = hyperparameters_of_method(method)
            return {name: value for name, value in named.items() if isinstance(value, jax.Array)}

        return jax.vmap(look)(lanes)


def compiled(
    program: Program, columns: dict[str, np.ndarray], engine: str, expected: int | None = None
) -> tuple[Compiled, PyTree]:
    """The program's compiled form, made at most once, and its arrays.

    `auto` judges by the lanes that are expected, by those at hand if nobody knows.
    """
    if engine == "auto":
        count = len(next(iter(columns.values()))) if expected is None else expected
        engine = "auto, many" if count >= FUSED_FROM else "cohort"
    numpys = (np.ndarray, np.generic)
    program = jax.tree.map(lambda x: jnp.asarray(x) if isinstance(x, numpys) else x, program)
    arrays, static = eqx.partition(program, eqx.is_array)
    key = (
        jax.tree.structure(arrays),
        tuple((x.shape, x.dtype, x.weak_type) for x in jax.tree.leaves(arrays)),
        tuple((type(x), x) for x in jax.tree.leaves(static)),
        str(jax.tree.structure(static)),  # as text: True and 1 are equal
        jax.tree.structure(static),
        tuple((name, column.dtype) for name, column in columns.items()),
        (engine, jax.config.jax_enable_x64),
    )
    try:
        hash(key)
    except TypeError:  # a loss of the user's that holds a list, say: as good as a new one
        return Compiled(program, engine), arrays
    with _lock:
        made = _programs.get(key) or Compiled(program, engine)
        _programs[key] = made
        _programs.move_to_end(key)
        while len(_programs) > _KEPT:
            _programs.popitem(last=False)
    return made, arrays


def _engine(program: Program, columns: dict[str, np.ndarray], engine: str) -> Run:
    if engine == "reference":
        return Reference(program)
    if engine in ("fused", "auto, many"):
        try:
            from .fused import Fused

            return Fused(program, columns)
        except LoweringError as reason:
            if engine == "fused":
                raise ValueError(
                    f"engine='fused' cannot take this problem: {reason}. Take engine='auto'."
                ) from None
        except Exception as error:
            if engine == "fused":
                raise
            warnings.warn(
                f"The fused engine fails on this problem ({told(error)}); the cohort engine runs "
                "it instead, slower. Please tell the authors.",
                stacklevel=4,
            )
    return Cohort(program)
