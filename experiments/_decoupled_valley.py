"""The valley of least test loss that runs through a map of learning rates and decays: where it
lies, its slope, and how sure both are."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from ._crossing import Interval
from ._jackknife import half_width, left_out


class Valley(NamedTuple):
    """ln λ* by learning rate, NaN where it is not inside the grid, with half the width of its
    interval; the slope over the learning rates that count, NaN where there is none."""

    log_best: Float[np.ndarray, " rate"]
    half_width: Float[np.ndarray, " rate"]
    slope: Interval
    counts: Bool[np.ndarray, " rate"]
    residual: float
    """root mean square of what the line leaves of ln λ*"""

    @property
    def line(self) -> bool:
        """Whether a slope describes it; not known, and true, of too few learning rates."""
        return not self.residual > NOT_A_LINE


LEAST_RATES = 3
FAR = 0.3
"""Share by which the least loss of a learning rate may exceed the map's for it to count."""
WIDEST = np.log(10)
"""Width of the interval of ln λ* from which on a learning rate does not count: a decade."""
NOT_A_LINE = np.log(2)
"""Residual above which λ* is off its line by a factor 2: no slope is given."""


def valley(
    losses: Float[np.ndarray, "seed rate decay"], rates: np.ndarray, decays: np.ndarray
) -> Valley:
    """The best decay of each learning rate by a parabola through the least loss and its neighbours,
    and d ln λ*/d ln lr by least squares; of the mean over seeds.

    A learning rate counts where its least loss is at most `FAR` above the map's least and the
    interval of ln λ* no wider than `WIDEST`.
    """
    best = left_out(losses, lambda mean: np.array([lowest(np.log(decays), row) for row in mean]))
    best[:, np.isnan(best).any(axis=0)] = np.nan
    half, least = half_width(best), losses.mean(axis=0).min(axis=-1)
    counts = (2 * half <= WIDEST) & (least <= (1 + FAR) * least.min())  # NaN does not count
    if counts.sum() < LEAST_RATES:
        return Valley(best[0], half, Interval(np.nan, np.nan), counts, np.nan)
    x = np.log(rates[counts])
    slopes, offsets = np.polyfit(x, best[:, counts].T, 1)
    residual = float(np.std(best[0, counts] - slopes[0] * x - offsets[0]))
    slope = Interval(float(slopes[0]), float(half_width(slopes)))
    if residual > NOT_A_LINE:
        slope = Interval(np.nan, np.nan)
    return Valley(best[0], half, slope, counts, residual)


def sheared(one: Valley, rates: np.ndarray) -> Valley:
    """With λ_LH over the learning rate on the axis: every slope is less by 1."""
    slope = Interval(one.slope.mean - 1, one.slope.half_width)
    return one._replace(log_best=one.log_best - np.log(rates), slope=slope)


def lowest(x: np.ndarray, y: np.ndarray) -> float:
    """Where the parabola through the least of `y` and its neighbours is lowest; NaN at an end of
    the evenly spaced `x`, or beside a run that diverged."""
    i = int(np.argmin(y))
    near = y[i - 1 : i + 2]
    if i in (0, len(y) - 1) or not np.isfinite(near).all():
        return np.nan
    bend = near[0] - 2 * near[1] + near[2]
    aside = (near[0] - near[2]) / bend / 2 if bend else 0.0
    return float(x[i] + aside * (x[1] - x[0]))
