"""Where the corrected norm fails: a loss of the direction, over signal, b1 and the kind of v."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from ct_adam.optimizers import normalized
from ct_adam.problems import NormalizedWeight

from ._kept import Arrays
from ._meta import B2, EPS

KINDS = {
    "one coordinate, elementwise v": (True, False),
    "spread, elementwise v": (False, False),
    "one coordinate, scalar v": (True, True),
}
"""Whether the mean gradient lies in one coordinate (or in all), and whether v is one number."""


def mapped(
    dimension: int, signals: Any, b1s: Any, rate: float, decay: float, steps: int, seed: int
) -> Arrays:
    """Over the last half of the run, (kind, signal, b1): root mean squares of ‖W‖ (`norm`) and ‖u‖
    (`update_norm`), the mean of cos(W, u) (`cosine`). Starts at the norm of pure noise."""
    rng = np.random.default_rng(seed)
    start = rng.standard_normal(dimension)
    start *= np.sqrt(rate * dimension / (2 * decay)) / np.linalg.norm(start)
    one = np.eye(dimension)[0]
    spread = rng.standard_normal(dimension)
    directions = np.stack([one if alone else spread / np.linalg.norm(spread)
                           for alone, _ in KINDS.values()])  # fmt: skip
    scalar = np.array([of for _, of in KINDS.values()], float)
    grid = np.meshgrid(np.arange(len(KINDS)), signals, b1s, indexing="ij")
    kind, signal, b1 = (axis.ravel() for axis in grid)
    found = _mapped(
        NormalizedWeight(one, seed=seed), jnp.asarray(start), jnp.asarray(directions[kind]),
        jnp.asarray(signal, float), jnp.asarray(scalar[kind]), jnp.asarray(b1, float),
        jnp.asarray(rate), jnp.asarray(decay), steps,
    )  # fmt: skip
    return {name: np.asarray(values).reshape(grid[0].shape) for name, values in found.items()}


@eqx.filter_jit
def _mapped(
    problem: NormalizedWeight,
    start: Array,
    directions: Array,
    signals: Array,
    scalars: Array,
    b1s: Array,
    rate: Array,
    decay: Array,
    steps: int,
) -> dict[str, Array]:
    """A lane a cell; all see the same noise, which is drawn once."""

    def lane(direction: Array, signal: Array, scalar: Array, b1: Array) -> Any:
        own = eqx.tree_at(lambda p: (p.direction, p.signal), problem, (direction, signal))

        def step(carry: Any, n: Array) -> Any:
            w, m, v, sums = carry
            g = own.gradient(n, w)
            square = jnp.where(scalar > 0, jnp.mean(g**2), g**2)
            m, v = b1 * m + (1 - b1) * g, B2 * v + (1 - B2) * square
            u = normalized(m / (1 - b1 ** (n + 1.0)), v / (1 - B2 ** (n + 1.0)), EPS)
            seen = jnp.stack([jnp.sum(w**2), jnp.sum(u**2), jnp.sum(w * u)])
            cosine = seen[2] / jnp.sqrt(seen[0] * seen[1])
            late = n >= steps // 2
            sums = sums + jnp.where(late, jnp.stack([seen[0], seen[1], cosine]), 0)
            return (w - rate * (u + decay * w), m, v, sums), None

        zero = jnp.zeros_like(start)
        (*_, sums), _ = jax.lax.scan(step, (start, zero, zero, jnp.zeros(3)), jnp.arange(steps))
        square, power, cosine = sums / (steps - steps // 2)
        return {"norm": jnp.sqrt(square), "update_norm": jnp.sqrt(power), "cosine": cosine}

    return jax.vmap(lane)(directions, signals, scalars, b1s)
