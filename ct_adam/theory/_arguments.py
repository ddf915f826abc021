"""What several topics ask of their arguments."""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, ArrayLike

from ..decays import in_range, numbers, out_of_range, whole_number


def arrays(*values: ArrayLike) -> tuple[Array, ...]:
    return tuple(jnp.asarray(value) for value in values)


def check(**values: Any) -> None:
    """`ValueError` at a hyperparameter outside its range; traced ones cannot be looked at."""
    for name, value in values.items():
        if isinstance(value, Tracer):
            continue
        number = numbers(name, value)
        good = in_range(name, number, False)
        if not np.all(good):
            raise ValueError(out_of_range(name, number[~good].flat[0]))


def check_positive(**values: Any) -> None:
    """`ValueError` unless each is one number, positive and finite."""
    for name, value in values.items():
        number = numbers(name, value)
        if number.ndim:
            raise ValueError(f"{name} has shape {number.shape}: give one number.")
        if not 0 < number < np.inf:
            raise ValueError(f"{name} = {number:g} must be positive and finite.")


def count_steps(steps: Any) -> int:
    """The steps of a run, a number of Python's; beyond 10¹⁵ floats do not count one by one."""
    steps = whole_number("steps", steps)
    if steps > 10**15:
        raise ValueError(f"steps = {steps} must be a whole number of at most 10¹⁵.")
    return steps


def check_shrink(learning_rate: ArrayLike, weight_decay: ArrayLike) -> None:
    """`ValueError` unless 0 < ηλ ≤ 1."""
    if isinstance(learning_rate, Tracer) or isinstance(weight_decay, Tracer):
        return
    shrink = np.asarray(learning_rate, float) * np.asarray(weight_decay, float)
    if not np.all((shrink > 0) & (shrink <= 1)):
        raise ValueError(
            "learning_rate · weight_decay must lie in (0, 1]: without decay the norm of a "
            "scale-invariant weight grows for ever."
        )
