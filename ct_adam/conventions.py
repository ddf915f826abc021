"""Weight decay in every convention: the one place where one becomes another.

Source: EQUATIONS §0 and §8; Loshchilov & Hutter (arXiv 1711.05101). With α the base learning rate
and 0 ≤ η_t ≤ 1 their schedule, one step is

    θ ← θ − η_t (α u + λ_LH θ) = θ − η(u + λθ),   η = α η_t,   λ = λ_LH/α

so that λ_LH is the share of a weight that a step at full rate takes away.
"""

from collections.abc import Callable
from typing import Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, ArrayLike, Float

from .decays import choice, numbers

Convention = Literal[
    "optax", "pytorch", "keras", "zhou", "loshchilov_hutter", "tensorflow_addons", "normalised"
]
CONVENTIONS: tuple[Convention, ...] = get_args(Convention)
"""Whose weight decay a number is."""
MULTIPLIED_BY_RATE: tuple[Convention, ...] = CONVENTIONS[:4]
"""λ is multiplied by the learning rate. The others give a share per step."""


def convert_decay(
    decay: ArrayLike,
    source: Convention,
    target: Convention = "optax",
    *,
    learning_rate: ArrayLike | None = None,
    steps: ArrayLike | None = None,
) -> Float[Array, "..."]:
    """The same decoupled decay in another convention.

        optax, pytorch, keras, zhou             λ                 the step takes ηλθ
        loshchilov_hutter, tensorflow_addons    λ_LH = αλ         it takes λ_LH θ at full rate
        normalised                              λ_LH √steps       λ_LH = λ_norm √(b/(BT))

    Keras takes it before the update, which is the same. TensorFlow Addons keeps the share whatever
    the schedule does: `decoupled(…, follows="nothing")`. Zhou et al. (`from_zhou`) let λ fall.

    **Arguments:**

    - `decay`: in `source`'s convention, any shape.
    - `learning_rate`: α, the base rate; between conventions that it divides.
    - `steps`: BT/b, the steps of the run or cycle; for `"normalised"`.

    **Returns:** the decay in `target`'s convention.

    **Raises:** `ValueError` for an unknown convention, a negative decay, or where α or the steps
    are wanted and not given, or not positive.

    !!! example
        >>> print(convert_decay(1e-4, "loshchilov_hutter", "pytorch", learning_rate=1e-3))
        0.1
    """
    choice("source", source, CONVENTIONS)
    choice("target", target, CONVENTIONS)
    found = not_negative("decay", decay)
    if _kind(source) == _kind(target):
        return found
    if _kind(source) == "rate":
        found = found * conversion_factor("learning_rate", learning_rate)
    if _kind(source) == "normalised":
        found = found / jnp.sqrt(conversion_factor("steps", steps))
    if _kind(target) == "rate":
        found = found / conversion_factor("learning_rate", learning_rate)
    if _kind(target) == "normalised":
        found = found * jnp.sqrt(conversion_factor("steps", steps))
    return found


def _kind(convention: Convention) -> str:
    if convention in MULTIPLIED_BY_RATE:
        return "rate"
    return "normalised" if convention == "normalised" else "share"


def conversion_factor(name: str, value: ArrayLike | None) -> Array:
    """What two conventions differ by; `ValueError` where it is missing or not positive."""
    if value is None:
        raise ValueError(f"Give {name}: these two conventions differ by it.")
    return positive(name, value)


def positive(name: str, value: ArrayLike) -> Array:
    """The value as an array; `ValueError` where it is not positive."""
    return within(name, value, lambda x: (x > 0) & np.isfinite(x), "positive and finite")


def not_negative(name: str, value: ArrayLike) -> Array:
    """The value as an array; `ValueError` where it is negative or not finite."""
    return within(name, value, lambda x: (x >= 0) & np.isfinite(x), "finite and not negative")


def within(
    name: str, value: ArrayLike, allowed: Callable[[np.ndarray], np.ndarray], words: str
) -> Array:
    """The value as an array; `ValueError` at the first number in it that is not `allowed`.

    Tracers cannot be looked at and are left out.
    """
    if not any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(value)):
        known = numbers(name, value)
        wrong = known[~allowed(known)]
        if wrong.size:
            raise ValueError(f"{name} = {wrong[0]:g} must be {words}.")
    return jnp.asarray(value, float)
