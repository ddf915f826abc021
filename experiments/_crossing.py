"""From costs and errors to exponents, to the η from which on something is cheaper, and to the work
that an error takes."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Shaped

SLOPE = 3
"""Learning rates, the smallest, over which an exponent is fitted."""


class Interval(NamedTuple):
    """Mean over seeds and half the width of its 95 % interval, by Student's t."""

    mean: float
    half_width: float

    @property
    def words(self) -> str:
        if np.isnan(self.mean):
            return "not known"
        return f"{self.mean:.3f} ± {self.half_width:.3f}"


def interval(values: Float[np.ndarray, " seed"]) -> Interval:
    from scipy import stats

    reach = stats.t.ppf(0.975, len(values) - 1) / np.sqrt(len(values))
    return Interval(float(values.mean()), float(reach * values.std(ddof=1)))


def exponents(steps: np.ndarray, work: Float[np.ndarray, "seed eta"]) -> np.ndarray:
    """d ln work/d ln(1/η) over those of the smallest learning rates that are good enough, one a
    seed; NaN of fewer than two."""
    found = np.full(len(work), np.nan)
    for seed, row in enumerate(work[:, -SLOPE:]):
        good = np.isfinite(row)
        if good.sum() >= 2:
            logs = np.log(steps[-SLOPE:][good])
            found[seed] = np.polyfit(logs, np.log(row[good]), 1)[0]
    return found


def crossing(rates: np.ndarray, excess: np.ndarray) -> float:
    """The η below which `excess` (of one seed, the largest η first) stays negative; NaN if there is
    none, infinite if it is negative from the first η on. Interpolated in ln η."""
    above = np.flatnonzero(~(excess < 0))
    if not above.size:
        return np.inf
    last = above[-1]
    if last == len(excess) - 1:
        return np.nan
    if not np.isfinite(excess[last]):
        return float(rates[last + 1])
    part = excess[last] / (excess[last] - excess[last + 1])
    return float(rates[last] * (rates[last + 1] / rates[last]) ** part)


def crossing_words(rates: np.ndarray, found: np.ndarray) -> str:
    if np.isnan(found).all():
        return f"none down to η = {rates.min():.2g}"
    if np.isnan(found).any():
        lost = int(np.isnan(found).sum())
        return f"none down to η = {rates.min():.2g} for {lost} of {len(found)} seeds"
    if np.isinf(found).any():
        return f"from η = {rates.max():.2g} on, or above ({int(np.isinf(found).sum())} seeds)"
    log = interval(np.log(found))
    low, high = np.exp([log.mean - log.half_width, log.mean + log.half_width])
    return f"η = {np.exp(log.mean):.2g} [{low:.2g}, {high:.2g}]"


def evaluations_at(
    target: float, errors: Shaped[np.ndarray, " n"], evaluations: Shaped[np.ndarray, " n"]
) -> float:
    """Evaluations at which the error falls below `target` for good, interpolated between two
    tolerances in logarithms; those of the loosest where it is below from the start; or NaN."""
    above = np.flatnonzero(~(errors <= target))
    last = above.max(initial=-1)
    if last == len(errors) - 1:
        return float("nan")
    if last < 0:
        return float(evaluations[0])
    # An error of exactly 0 would have no logarithm.
    high, low = np.log(np.maximum(errors[last : last + 2], 1e-300))
    share = (high - np.log(target)) / (high - low)
    begin, end = np.log(evaluations[last : last + 2])
    return float(np.exp(begin + share * (end - begin)))
