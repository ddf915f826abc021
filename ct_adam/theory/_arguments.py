"""What several topics ask of their arguments."""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, ArrayLike

from ..decays import check_hyperparameters, in_range, numbers, out_of_range


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
    check_hyperparameters(values)
    for name, value in values.items():
        if value == 0:
            raise ValueError(f"{name} = 0 must be positive.")


def count_steps(steps: Any) -> int:
    """The steps of a run, a number of Python's; beyond 10¹⁵ floats do not count one by one."""
    whole = isinstance(steps, int | np.integer) and not isinstance(steps, bool)
    if not whole or not 1 <= steps <= 10**15:
        raise ValueError(f"steps = {steps!r} must be a whole number from 1 to 10¹⁵.")
    return int(steps)


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
