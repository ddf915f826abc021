"""How sure a number is that is found from the mean over seeds: what becomes of it without each."""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float


def left_out(
    values: Float[np.ndarray, "seed ..."], of: Callable[[np.ndarray], np.ndarray]
) -> Float[np.ndarray, "one_and_seed ..."]:
    """`of` the mean over all seeds, then of the mean over all but each: one seed alone may show
    more noise than their mean does."""
    without = [np.delete(values, i, axis=0).mean(axis=0) for i in range(len(values))]
    return np.array([of(mean) for mean in (values.mean(axis=0), *without)])


def half_width(found: Float[np.ndarray, "one_and_seed ..."]) -> np.ndarray:
    """Half of the 95 % interval by the jackknife and Student's t, of what `left_out` gives."""
    from scipy import stats

    seeds = len(found) - 1
    spread = np.sqrt((seeds - 1) * found[1:].var(axis=0))
    return stats.t.ppf(0.975, seeds - 1) * spread
