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
        run = one_by_one if devices[0].platform == "cpu" else side_by_side

        def all_lanes(arrays: PyTree, lanes: Lane) -> LaneResult:
            here = partial(run, eqx.combine(arrays, static))
            return (here if len(devices) == 1 else over_devices(here, devices))(lanes)

        self._run = jax.jit(all_lanes)
        self._devices = len(devices)
        self._threaded = len(devices) == 1 and devices[0].platform == "cpu"

    def __call__(self, arrays: PyTree, columns: dict[str, np.ndarray]) -> LaneResult:
        if self._threaded:
            return over_threads(partial(self._run, arrays), columns)
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


def one_by_one(program: Program, lanes: Lane) -> LaneResult:
    """All lanes, one after the other."""
    return jax.lax.map(partial(whole_lane, program), lanes)


def over_devices(run: Callable[[Lane], LaneResult], devices: list[Any]) -> Callable:
    """`run` on each device's share of the lanes; their number must divide."""
    spec = jax.sharding.PartitionSpec("lane")
    mesh = jax.sharding.Mesh(np.array(devices), ("lane",))
    return jax.shard_map(run, mesh=mesh, in_specs=spec, out_specs=spec, check_vma=False)


def over_threads(run: Callable[[Lane], LaneResult], columns: dict[str, np.ndarray]) -> LaneResult:
    """Every T-th lane on thread t: neighbours cost alike, so the threads end together."""
    count = len(next(iter(columns.values())))
    threads = min(cpus(), count)
    padded = -(-count // threads) * threads
    order = np.minimum(np.arange(padded), count - 1).reshape(-1, threads)
    parts = [{k: column[order[:, t]] for k, column in columns.items()} for t in range(threads)]
    wide = jax.config.jax_enable_x64  # a context of the caller's thread, unknown to the others

    def part(lanes: dict[str, np.ndarray]) -> LaneResult:
        with jax.enable_x64(wide):
            return jax.device_get(run(lanes))

    with ThreadPoolExecutor(threads) as pool:
        results = list(pool.map(part, parts))
    return jax.tree.map(
        lambda *xs: np.stack(xs, axis=1).reshape(padded, *xs[0].shape[1:])[:count], *results
    )
