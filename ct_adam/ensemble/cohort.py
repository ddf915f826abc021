"""The cohort engine: `while active: body` in JAX.

On a CPU a loop a lane, over threads; elsewhere cohorts side by side; several devices share.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from .cores import cpus
from .program import Lane, Program
from .reference import LaneResult

WIDTH = 4096
"""Lanes side by side on a device that wants many."""
_PASSES = 8
"""Passes of the body between two looks for lanes that have ended."""


class Cohort:
    """A program's compiled loop."""

    def __init__(self, program: Program):
        static = eqx.partition(program, eqx.is_array)[1]
        devices = jax.devices()
        on_cpu = devices[0].platform == "cpu"

        def share(arrays: PyTree, lanes: Lane, first: Any, stride: Any) -> LaneResult:
            run = partial(whole_lane, eqx.combine(arrays, static))
            return one_by_one(run, lanes, first, stride)

        def all_lanes(arrays: PyTree, lanes: Lane) -> LaneResult:
            program = eqx.combine(arrays, static)
            here = partial(_all_one_by_one if on_cpu else side_by_side, program)
            return (here if len(devices) == 1 else over_devices(here, devices))(lanes)

        self._threaded = len(devices) == 1 and on_cpu
        self._run = jax.jit(share if self._threaded else all_lanes)
        self._devices = len(devices)

    def __call__(self, arrays: PyTree, columns: dict[str, np.ndarray]) -> LaneResult:
        if self._threaded:
            return over_threads(partial(self._run, arrays, columns), columns)
        count = len(next(iter(columns.values())))
        padding = (0, -count % self._devices)
        full = {name: np.pad(column, padding, "edge") for name, column in columns.items()}
        result = jax.device_get(self._run(arrays, full))
        return jax.tree.map(lambda x: x[:count], result)


def whole_lane(program: Program, lane: Lane) -> LaneResult:
    """One lane from its start to its numbers."""
    fixed, carry = program.init(lane)
    carry = jax.lax.while_loop(
        partial(program.active, fixed), partial(program.body, lane, fixed), carry
    )
    return program.output(lane, fixed, carry)


def side_by_side(program: Program, lanes: Lane, width: int = WIDTH) -> LaneResult:
    """All lanes, `width` of them at a time; one that ends makes room for the next."""
    count = len(next(iter(lanes.values())))
    width = min(width, count)
    waiting = jax.vmap(lambda lane: (lane, *program.init(lane)))(lanes)

    def step(block: PyTree) -> PyTree:
        lane, fixed, carry = block
        going = program.active(fixed, carry)
        after = program.body(lane, fixed, carry)
        return lane, fixed, jax.tree.map(lambda a, b: jnp.where(going, a, b), after, carry)

    def turn(state: Any) -> Any:
        where, taken, block, done = state
        block = jax.lax.fori_loop(0, _PASSES, lambda _, b: jax.vmap(step)(b), block)
        ended = (where < count) & ~jax.vmap(program.active)(*block[1:])
        # A place past the end: written nowhere.
        row = jnp.where(ended, where, count)
        done = jax.tree.map(lambda d, b: d.at[row].set(b, mode="drop"), done, block[2])
        next_one = taken + jnp.cumsum(ended) - 1
        where = jnp.where(ended, jnp.minimum(next_one, count), where)
        fresh = jax.tree.map(lambda w: w[jnp.minimum(where, count - 1)], waiting)

        def swapped(old: Any, new: Any) -> Any:
            return jnp.where(ended.reshape(-1, *[1] * (new.ndim - 1)), new, old)

        return where, taken + jnp.sum(ended), jax.tree.map(swapped, block, fresh), done

    first = jax.tree.map(lambda w: w[:width], waiting)
    state = (jnp.arange(width), jnp.asarray(width), first, waiting[2])
    *_, done = jax.lax.while_loop(lambda s: jnp.any(s[0] < count), turn, state)
    return jax.vmap(program.output)(*waiting[:2], done)


def one_by_one(
    run: Callable[[Lane], LaneResult], lanes: Lane, first: Any, stride: Any
) -> LaneResult:
    """Lanes first, first + stride, …, one after the other; the other rows of the result are 0.

    Numbers, not shapes: how many threads share the lanes must not change what is compiled, or the
    last digits would depend on the machine's cores.
    """
    count = len(next(iter(lanes.values())))
    once = jax.jit(lambda lane: run(lane))  # one trace, for the shapes and for the loop

    def lane(i: Any) -> Lane:
        return {name: column[i] for name, column in lanes.items()}

    def step(state: Any) -> Any:
        i, done = state
        return i + stride, jax.tree.map(lambda d, x: d.at[i].set(x), done, once(lane(i)))

    row = jax.eval_shape(once, jax.eval_shape(lane, 0))
    done = jax.tree.map(lambda x: jnp.zeros((count, *x.shape), x.dtype), row)
    return jax.lax.while_loop(lambda s: s[0] < count, step, (first, done))[1]


def _all_one_by_one(program: Program, lanes: Lane) -> LaneResult:
    return one_by_one(partial(whole_lane, program), lanes, jnp.asarray(0), jnp.asarray(1))


def over_devices(run: Callable[[Lane], LaneResult], devices: list[Any]) -> Callable:
    """`run` on each device's share of the lanes; their number must divide."""
    spec = jax.sharding.PartitionSpec("lane")
    mesh = jax.sharding.Mesh(np.array(devices), ("lane",))
    return jax.shard_map(run, mesh=mesh, in_specs=spec, out_specs=spec, check_vma=False)


def over_threads(
    run: Callable[[int, int], LaneResult], columns: dict[str, np.ndarray]
) -> LaneResult:
    """`run(first, stride)` on each thread: every T-th lane on thread t. Neighbours cost alike, so
    the threads end together."""
    count = len(next(iter(columns.values())))
    threads = min(cpus(), count)
    wide = jax.config.jax_enable_x64  # a context of the caller's thread, unknown to the others

    def part(first: int) -> LaneResult:
        with jax.enable_x64(wide):
            return jax.device_get(run(first, threads))

    pool = ThreadPoolExecutor(threads)
    try:
        results = list(pool.map(part, range(threads)))
    finally:
        pool.shutdown(wait=False)  # after Ctrl-C: what XLA has begun cannot be stopped
    own = np.arange(count) % threads

    def merged(*parts: np.ndarray) -> np.ndarray:
        whole = np.array(parts[0])
        for t, other in enumerate(parts[1:], 1):
            whole[own == t] = other[own == t]
        return whole

    return jax.tree.map(merged, *results)
