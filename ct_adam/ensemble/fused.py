"""The fused engine: JAX begins and ends the lanes, a generated kernel runs between."""

from types import ModuleType
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from .cores import cpus
from .jaxprs import Split, split
from .lower import Lowered, lower
from .program import Lane, Program
from .reference import LaneResult


class Fused:
    """A program's kernel and the compiled functions around it.

    **Raises:** `LoweringError`, with what stands in the way.
    """

    def __init__(
        self,
        program: Program,
        columns: dict[str, np.ndarray],
        kernels: ModuleType | None = None,
    ):
        """`kernels`: a module of kernels, that of JAX's device by default."""
        kernels = _kernels() if kernels is None else kernels
        arrays, static = eqx.partition(program, eqx.is_array)
        made = plan(arrays, static, {name: column[0] for name, column in columns.items()})
        self.kernel: Any = kernels.compiled(made.lowered, made.table_sizes)
        self._run, self._most = kernels.run_kernel, kernels.TILE
        self._begin = jax.jit(lambda arrays, *rest: made.begin(eqx.combine(arrays, static), *rest))
        self._end = jax.jit(lambda arrays, *rest: made.end(eqx.combine(arrays, static), *rest))

    def __call__(self, arrays: PyTree, columns: dict[str, np.ndarray]) -> LaneResult:
        count = len(next(iter(columns.values())))
        tile = min(self._most, count)
        parts = []
        for start in range(0, count, tile):
            part = {k: column[start : start + tile] for k, column in columns.items()}
            parts.append(self._tile(arrays, part, tile))
        if len(parts) == 1:
            return parts[0]
        return jax.tree.map(lambda *xs: np.concatenate(xs), *parts)

    def _tile(self, arrays: PyTree, part: dict[str, np.ndarray], tile: int) -> LaneResult:
        count = len(next(iter(part.values())))
        # The last tile is filled up, so that all share one compiled program; nothing runs there.
        full = {k: np.pad(column, (0, tile - count), "edge") for k, column in part.items()}
        fixed, carry, known, tables, going = self._begin(arrays, full)
        carry = np.array(carry, float)  # also where JAX itself has no float64
        lanes = np.flatnonzero(np.asarray(going)[:count])
        self._run(
            self.kernel,
            carry,
            np.asarray(known, float),
            [np.asarray(table, float) for table in tables],
            lanes,
            cpus(),
        )
        result = jax.device_get(self._end(arrays, full, fixed, carry))
        return jax.tree.map(lambda x: x[:count], result)


def _kernels() -> ModuleType:
    from . import kernels, kernels_cuda

    on_gpu = jax.default_backend() == "gpu" and kernels_cuda.available()
    return kernels_cuda if on_gpu else kernels


class Plan(NamedTuple):
    """How a program's lanes become rows of numbers for a kernel, and what the kernel does."""

    split: Split
    lowered: Lowered
    table_sizes: list[int]
    """numbers a lane of each table, 0 where all lanes share it"""
    carry: Any
    """a carry's shapes and types"""

    def begin(self, program: Program, lanes: Lane) -> tuple[PyTree, ...]:
        """Fixed parts, carries and known numbers a lane, tables, and which lanes run at all."""
        varies = [self.split.varies[at] for at in self.lowered.tables]

        def one(lane: Lane) -> tuple[PyTree, ...]:
            fixed, carry = program.init(lane)
            shared = eqx.filter(program, eqx.is_array)
            values = self.split.values(*_flat(shared), *_flat((lane, fixed)))
            known = _row([values[at] for at in self.lowered.scalars])
            tables = [values[at].astype(float).ravel() for at in self.lowered.tables]
            return fixed, _row(_flat(carry)), known, tables, program.active(fixed, carry)

        axes = (0, 0, 0, [0 if v else None for v in varies], 0)
        fixed, carry, known, tables, going = jax.vmap(one, out_axes=axes)(lanes)
        return fixed, carry, known, [t.ravel() for t in tables], going

    def end(self, program: Program, lanes: Lane, fixed: PyTree, carry: Any) -> LaneResult:
        """The lanes' numbers from the carries' rows."""
        leaves, structure = jax.tree.flatten(self.carry)

        def one(lane: Lane, fixed: PyTree, row: Any) -> LaneResult:
            at = np.cumsum([0, *(leaf.size for leaf in leaves)])
            parts = [
                row[start : start + leaf.size].reshape(leaf.shape).astype(leaf.dtype)
                for start, leaf in zip(at, leaves, strict=False)
            ]
            return program.output(lane, fixed, jax.tree.unflatten(structure, parts))

        return jax.vmap(one)(lanes, fixed, carry)


def plan(arrays: PyTree, static: PyTree, lane: Lane) -> Plan:
    """Traces and lowers the body of a program, given in two parts, for a lane of these types."""
    lane = {name: jnp.asarray(value) for name, value in lane.items()}
    fixed, carry = jax.eval_shape(lambda a, x: eqx.combine(a, static).init(x), arrays, lane)
    shared, structure = jax.tree.flatten(arrays)
    known, known_structure = jax.tree.flatten((lane, fixed))
    live, live_structure = jax.tree.flatten(carry)

    def function(*args: Any) -> list[Any]:
        here = eqx.combine(jax.tree.unflatten(structure, args[: len(shared)]), static)
        inner = args[len(shared) : len(shared) + len(known)]
        lane, fixed = jax.tree.unflatten(known_structure, inner)
        carry = jax.tree.unflatten(live_structure, args[len(shared) + len(known) :])
        after = here.body(lane, fixed, carry)
        return [*_flat(after), here.active(fixed, after)]

    cut = split(function, shared, known, live)
    lowered = lower(cut, len(live))
    sizes = [cut.residuals[at].aval.size if cut.varies[at] else 0 for at in lowered.tables]
    return Plan(cut, lowered, sizes, carry)


def _flat(tree: PyTree) -> list[Any]:
    return [jnp.asarray(leaf) for leaf in jax.tree.leaves(tree)]


def _row(values: list[Any]) -> Any:
    parts = [jnp.ravel(value).astype(float) for value in values]
    return jnp.concatenate(parts) if parts else jnp.zeros(0)
