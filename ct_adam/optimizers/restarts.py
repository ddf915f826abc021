"""Cosine annealing with warm restarts, and the normalised decay of each cycle.

Source: EQUATIONS §8; Loshchilov & Hutter (arXiv 1608.03983, 1711.05101).
"""

from typing import Any

import jax.numpy as jnp
import optax

from ..conventions import convert_decay, within
from ..decays import Scalar, Schedule, check_hyperparameters, whole_number


def restart_steps(first: int, multiple: int = 2, cycles: int = 4) -> tuple[int, ...]:
    """The steps at which a cycle is over and the next one begins.

    **Arguments:** `first`: length of the first cycle, in steps; each is `multiple` times as long
    as the one before. `cycles`: how many.

    **Raises:** `ValueError` unless all are whole numbers of at least 1.

    !!! example
        >>> restart_steps(100)
        (100, 300, 700, 1500)
    """
    first, multiple = whole_number("first", first), whole_number("multiple", multiple)
    cycles = whole_number("cycles", cycles)
    return tuple(first * sum(multiple**j for j in range(i + 1)) for i in range(cycles))


def warm_restarts(
    learning_rate: Scalar, first: int, multiple: int = 2, cycles: int = 4, lowest: float = 0.0
) -> Schedule:
    """η falls as half a cosine in every cycle and starts anew; optax's schedules, joined.

    **Arguments:** `learning_rate`: α, at the start of every cycle. `first`, `multiple`, `cycles`:
    as in `restart_steps`. `lowest`: η/α at the end of a cycle, in [0, 1].

    **Returns:** a schedule of the step count; after the last cycle it stays at the lowest.

    **Raises:** `ValueError` for values outside their range.

    !!! example
        >>> schedule = warm_restarts(1.0, first=100)
        >>> print([round(float(schedule(n)), 3) for n in (0, 50, 99, 100, 299, 300)])
        [1.0, 0.5, 0.0, 1.0, 0.0, 1.0]
    """
    ends = restart_steps(first, multiple, cycles)
    if callable(learning_rate):
        raise ValueError("learning_rate must be a number: the schedule is made of it.")
    check_hyperparameters({"learning_rate": learning_rate})
    within("lowest", lowest, lambda x: (x >= 0) & (x <= 1), "in [0, 1]: it is a share of α")
    falls = [
        optax.cosine_decay_schedule(learning_rate, end - begin, lowest)  # pyright: ignore[reportArgumentType]
        for begin, end in zip((0, *ends), ends, strict=False)
    ]
    return optax.join_schedules(falls, ends[:-1])


def restart_decay(decay: Scalar, first: int, multiple: int = 2, cycles: int = 4) -> Schedule:
    """λ_LH = λ_norm/√(steps of the cycle): the decay of AdamWR, for `decoupled`.

    **Arguments:** `decay`: λ_norm. The others as in `restart_steps`.

    **Returns:** λ_LH as a schedule of the step count.

    !!! example
        >>> decay = restart_decay(0.05, first=100)
        >>> print([round(float(decay(n)), 5) for n in (0, 99, 100, 300)])
        [0.005, 0.005, 0.00354, 0.0025]
    """
    ends = restart_steps(first, multiple, cycles)
    check_hyperparameters({"decay": decay})
    lengths = jnp.diff(jnp.array((0, *ends)))
    by_cycle = convert_decay(decay, "normalised", "loshchilov_hutter", steps=lengths)

    def schedule(step: Any) -> Any:
        place = jnp.searchsorted(jnp.array(ends), jnp.asarray(step), side="right")
        return by_cycle[jnp.minimum(place, cycles - 1)]

    return schedule
