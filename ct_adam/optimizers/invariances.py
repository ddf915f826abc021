"""Which changes of the gradients' units an optimizer does not see, told numerically."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from ..decays import whole_number

FAR = 1e-10
"""A difference below this, over the distance moved, is rounding in float64: steps · size rounding
errors of 1e-16, enlarged by what an optimizer divides by. Adam's eps = 1e-8 alone makes 1e-8 of a
scaled loss and 2e-6 of scale-freeness."""


class Invariances(NamedTuple):
    """Largest difference of two runs over the largest distance moved, by property; 0 is bitwise."""

    scale: float
    """scale-free: gradients times a positive diagonal matrix leave the iterates alone"""
    loss: float
    """gradients times one positive number leave the iterates alone"""
    shift: float
    """shift-free: from a shifted start, with the same gradients, the iterates are shifted"""
    rotation: float
    """rotation-free: start and gradients rotated, the iterates are rotated"""

    @property
    def names(self) -> tuple[str, ...]:
        """Of the properties that hold, to rounding."""
        pairs = zip(self._fields, self, strict=True)
        return tuple(name for name, difference in pairs if difference <= FAR)


def invariances(
    optimizer: optax.GradientTransformation,
    *,
    size: int = 6,
    steps: int = 40,
    octaves: int = 8,
    seed: int = 0,
    dtype: Any = None,
) -> Invariances:
    """Which of scale-, shift- and rotation-freeness an optimizer has, from pairs of runs.

    Both runs of a pair see a stream of random normal gradients, one of them changed. A stream, not
    a loss: what holds for every stream holds on every loss, and no run can be chaotic. Scales are
    powers of two, so that a scale-free optimizer is so bitwise. Source: Zhuang et al.
    (arXiv 2202.00089), whose scale-free is `scale`; that of Orabona & Pál (arXiv 1601.01974) is
    `loss`. EQUATIONS §7.

    **Arguments:**

    - `optimizer`: any optax transformation that needs gradient and parameters alone; they are one
        vector. A learning rate of 0.01 or so is well: what is compared are relative differences.
    - `size`: of the vector, at least 2. `steps`: how many gradients, at least 1.
    - `octaves`: scales lie in 2^±octaves.
    - `seed`: of NumPy's default generator. `dtype`: JAX's default float type if None; in float32
        shift and rotation round to more than `Invariances.names` allows.

    **Returns:** the differences, over the distance moved; infinite for a run that is not finite.

    **Raises:** `ValueError` for numbers out of range, and for an optimizer that does not move.

    !!! example
        >>> import ct_adam as ct
        >>> print(invariances(ct.adamw(0.01, eps=0.0, weight_decay=0.1)).names)
        ('scale', 'loss')
        >>> print(invariances(ct.sgdw(0.01, momentum=0.9)).names)
        ('shift', 'rotation')
    """
    if not isinstance(optimizer, optax.GradientTransformation):
        kind = type(optimizer).__name__
        raise ValueError(f"invariances takes an optax transformation, not {kind}.")
    size, steps = whole_number("size", size, 2), whole_number("steps", steps)
    octaves = whole_number("octaves", octaves)
    rng = np.random.default_rng(seed)
    dtype = jnp.result_type(float) if dtype is None else dtype
    start, shift = rng.standard_normal((2, size))
    gradients = rng.standard_normal((steps, size))
    scales = np.exp2(rng.integers(-octaves, octaves, size, endpoint=True))
    scales[:2] = 2.0**octaves, 2.0**-octaves  # not all alike
    rotation = np.linalg.qr(rng.standard_normal((size, size)))[0]

    compiled = jax.jit(partial(_path, optimizer))  # once for all runs

    def path(start: np.ndarray, gradients: np.ndarray) -> np.ndarray:
        made = compiled(jnp.asarray(start, dtype), jnp.asarray(gradients, dtype))
        return np.asarray(made, float)

    plain = path(start, gradients)
    moved = np.abs(plain - plain[0]).max()
    if not 0 < moved < np.inf:
        raise ValueError(f"The optimizer moves by {moved}: give one that moves by finite steps.")

    def difference(other: np.ndarray) -> float:
        found = float(np.abs(other - plain).max() / moved)
        return found if np.isfinite(found) else np.inf

    return Invariances(
        difference(path(start, gradients * scales)),
        difference(path(start, gradients * 2.0**octaves)),
        difference(path(start + shift, gradients) - shift),
        difference(path(rotation @ start, gradients @ rotation.T) @ rotation),
    )


def _path(
    optimizer: optax.GradientTransformation,
    start: Float[Array, " size"],
    gradients: Float[Array, "steps size"],
) -> Float[Array, "steps+1 size"]:
    def step(carry: Any, gradient: Array) -> Any:
        params, state = carry
        delta, state = optimizer.update(gradient, state, params)
        params = jnp.asarray(optax.apply_updates(params, delta))
        return (params, state), params

    _, path = jax.lax.scan(step, (start, optimizer.init(start)), gradients)
    return jnp.concatenate([start[None], path])
