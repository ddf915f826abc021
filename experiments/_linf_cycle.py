"""AdamW with b1 > b2 on a parabola whose minimum is outside the box: cycles and their basins.

EQUATIONS §5: the theorem asks for b1 ≤ b2. Otherwise AdamW need not converge; where it does, it is
to the box's minimum still.
"""

from functools import partial
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

import ct_adam as ct

if TYPE_CHECKING:
    import xarray

CYCLE = {"minimum": 1.3, "eta": 5e-3, "slow": 3.5e-3}
PAIRS = {"b1 > b2": (0.99, 0.9), "b1 < b2": (0.9, 0.999)}


def cycles(cells: int, steps: int) -> "xarray.Dataset":
    """L = ½(x − 1.3)², λ = 1, eps = 0: paths at η = 5e-3, and over (η, x₀) the late max |x|."""
    import xarray

    etas, starts = np.geomspace(1e-3, 1e-2, cells), np.linspace(-0.5, 2, cells)
    grid = np.stack(np.meshgrid(etas, starts, indexing="ij"), -1).reshape(-1, 2)
    bad, good = PAIRS.values()
    shown = [(CYCLE["eta"], 0.0, *bad), (CYCLE["eta"], 1.0, *bad), (CYCLE["slow"], 0.0, *bad)]
    lanes = np.array([*((*pair, *bad) for pair in grid), *shown, (CYCLE["eta"], 0.0, *good)])
    largest, outside = map(np.asarray, _late(jnp.asarray(lanes), steps))
    paths = np.asarray(_paths(jnp.asarray(lanes[len(grid) :]), steps))
    run = ["cycle", "other basin", "slow", "b1 < b2"]
    return xarray.Dataset(
        {
            "late": (("eta", "start"), largest[: len(grid)].reshape(cells, cells)),
            "path": (("run", "step"), paths),
            "largest": ("run", largest[len(grid) :]),
            "outside": ("run", outside[len(grid) :]),
            "rate": ("run", lanes[len(grid) :, 0]),
        },
        coords={"eta": etas, "start": starts, "run": run, "step": np.arange(steps)},
    )


def _adam_step(lane: Array) -> Any:
    eta, _, b1, b2 = lane
    optimizer = ct.adamw(eta, b1, b2, eps=0.0, weight_decay=1.0)

    def step(carry: Any, _: Any) -> Any:
        x, state = carry
        delta, state = optimizer.update(x - CYCLE["minimum"], state, x)
        return (x + delta, state), x

    return optimizer, step


@partial(jax.jit, static_argnums=1)
def _late(lanes: Array, steps: int) -> tuple[Array, Array]:
    """Of the second half: the largest |x|, and the share of iterates with |x| > 1 by 1e-6."""

    @jax.vmap
    def lane(numbers: Array) -> tuple[Array, Array]:
        optimizer, step = _adam_step(numbers)

        def seen(carry: Any, n: Array) -> Any:
            inner, largest, outside = carry
            inner, x = step(inner, n)
            late, size = n >= steps // 2, jnp.abs(x)
            largest = jnp.where(late, jnp.maximum(largest, size), largest)
            return (inner, largest, outside + (late & (size > 1 + 1e-6))), None

        start = numbers[1]
        carry = ((start, optimizer.init(start)), jnp.zeros(()), jnp.zeros((), int))
        (_, largest, outside), _ = jax.lax.scan(seen, carry, jnp.arange(steps))
        return largest, outside / (steps - steps // 2)

    return lane(lanes)


@partial(jax.jit, static_argnums=1)
def _paths(lanes: Array, steps: int) -> Array:
    @jax.vmap
    def lane(numbers: Array) -> Array:
        optimizer, step = _adam_step(numbers)
        start = numbers[1]
        return jax.lax.scan(step, (start, optimizer.init(start)), None, steps)[1]

    return lane(lanes)
