"""A solve's progress, in the bar of all other long work."""

import threading
from itertools import count
from typing import Any

import diffrax
import jax.numpy as jnp
import numpy as np
from jax import ShapeDtypeStruct, lax, pure_callback
from jax.experimental import io_callback
from jaxtyping import Array

from ..progress import bar

_EVERY = 20
"""Solver steps between two looks: a look leaves the device."""
_bars: dict[int, Any] = {}
_keys = count(1)
_lock = threading.Lock()


class SolverBar(diffrax.AbstractProgressMeter[tuple[Array, Array]]):
    """Optimizer steps integrated so far; `steps` in all. Its state: a bar's key, solver steps."""

    steps: Array

    def init(self) -> tuple[Array, Array]:
        key = io_callback(_begin, ShapeDtypeStruct((), jnp.int32), self.steps)
        return key, jnp.array(0, jnp.int32)

    def step(self, state: tuple[Array, Array], progress: Any) -> tuple[Array, Array]:
        key, taken = state

        def look(key: Array) -> Array:
            # Not `io_callback`, which a vmapped `cond` does not take. The key that comes back is
            # the next look's, so that none is left out.
            shape = ShapeDtypeStruct((), jnp.int32)
            done = lax.stop_gradient(progress * self.steps)
            return pure_callback(_tell, shape, key, done, vmap_method="broadcast_all")

        return lax.cond(taken % _EVERY == 0, look, lambda key: key, key), taken + 1

    def close(self, state: tuple[Array, Array]) -> None:
        io_callback(_end, None, state[0])


def _begin(steps: Array) -> np.int32:
    with _lock:
        key = next(_keys)
        _bars[key] = bar(int(steps), "step")
    return np.int32(key)


def _tell(key: Array, steps: Array) -> Array:
    """Of a batch, how far its last is."""
    with _lock:
        # A backward pass takes the steps again, when the bar is gone.
        if (shown := _bars.get(int(np.max(key)))) is not None:
            shown.update(max(int(np.min(steps)) - shown.n, 0))
    return key


def _end(key: Array) -> None:
    """Each of a batch ends the one bar."""
    with _lock:
        if (shown := _bars.pop(int(key), None)) is not None:
            shown.update(shown.total - shown.n)
            shown.close()
