"""What the test losses of `generalisation` say of its claims, and how sure that is."""

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from ._statistics import verdict_of_interval

Losses = Float[np.ndarray, "rate seed point"]

CLAIMS = {
    "faster": "larger C > 0 is faster at the short horizon: rank correlation above 0",
    "equal": "C > 0 are about equal at the long horizon: spread below half of the short one's",
    "rise": "sharp rise at C < 0 at the long horizon: above the line through C > 0",
    "alone": "C alone decides: spread along the level curve below half of the normal curve's",
}
"""The first three are the paper's; the last is what would make C more than a name for a pair."""
HALF = 0.5


def best_within(losses: np.ndarray, steps: np.ndarray, most: int) -> np.ndarray:
    """The least loss up to `most` steps, along the last axis; NaN is no loss."""
    return np.fmin.reduce(losses[..., steps <= most], axis=-1)


class Reading(NamedTuple):
    """How losses (…, rate, seed, point) become one a point: the mean over seeds, at one learning
    rate or (None) the best of those there are, chosen point by point by that mean."""

    rate: int | None

    def __call__(self, best: np.ndarray) -> np.ndarray:
        mean = best.mean(axis=-2)
        return mean.min(axis=-2) if self.rate is None else mean[..., self.rate, :]


def spearman(c: np.ndarray, loss: np.ndarray) -> np.ndarray:
    """Rank correlation of C with the speed −loss along the last axis."""
    from scipy.stats import rankdata

    x, y = (rankdata(a, axis=-1) for a in (c, -loss))
    x, y = (a - a.mean(axis=-1, keepdims=True) for a in (x, y))
    with np.errstate(invalid="ignore"):  # a resample of one point only has none
        return (x * y).sum(-1) / np.sqrt((x * x).sum(-1) * (y * y).sum(-1))


def permutation_p(c: np.ndarray, loss: np.ndarray, seed: int = 0) -> float:
    """Two-sided: how often points in random order correlate as strongly."""
    from scipy.stats import permutation_test, rankdata

    ranks = rankdata(-loss)

    def statistic(x: np.ndarray, axis: int) -> np.ndarray:
        del axis  # always the last: one sample
        return spearman(x, np.broadcast_to(-ranks, x.shape))

    return float(
        permutation_test(
            (c,), statistic, permutation_type="pairings", vectorized=True, n_resamples=9999,
            rng=np.random.default_rng(seed),
        ).pvalue
    )  # fmt: skip


def rise(c: np.ndarray, loss: np.ndarray) -> np.ndarray:
    """How far losses at C < 0 lie above the least-squares line through those at C > 0, in the
    mean. Along the last axis; as many points with C < 0 in every row."""
    count = int((c < 0).sum(-1).flat[0])
    order = np.argsort(c, axis=-1)
    c, loss = (np.take_along_axis(x, order, -1) for x in (c, loss))
    x, y = c[..., count:], loss[..., count:]
    mean, level = x.mean(-1, keepdims=True), y.mean(-1, keepdims=True)
    with np.errstate(invalid="ignore"):  # a resample of one point only has no line
        slope = ((x - mean) * (y - level)).sum(-1, keepdims=True) / ((x - mean) ** 2).sum(
            -1, keepdims=True
        )
    return (loss[..., :count] - level - slope * (c[..., :count] - mean)).mean(-1)


class Resampling(NamedTuple):
    """A bootstrap over seeds and points: which of them, by resample."""

    seeds: np.ndarray
    points: np.ndarray

    def __call__(self, best: Losses) -> Float[np.ndarray, "resample rate seed point"]:
        drawn = best[:, self.seeds[:, :, None], self.points[:, None, :]]
        return np.moveaxis(drawn, 0, 1)


def resampling(c: np.ndarray, seeds: int, resamples: int, seed: int = 0) -> Resampling:
    """As many points of either sign of C in every resample as there are."""
    draw = np.random.default_rng(seed)
    chosen = draw.integers(seeds, size=(resamples, seeds))  # first: the same on every curve
    sides = [np.flatnonzero(c < 0), np.flatnonzero(c >= 0)]
    points = [draw.choice(s, (resamples, len(s))) for s in sides if len(s)]
    return Resampling(chosen, np.concatenate(points, axis=1))


class Measured(NamedTuple):
    """The best losses (rate, seed, point) of a curve within both horizons, and their C."""

    c: np.ndarray
    short: np.ndarray
    long: np.ndarray

    def where(self, chosen: np.ndarray) -> "Measured":
        return Measured(self.c[chosen], self.short[..., chosen], self.long[..., chosen])


def of_normal_curve(best: Measured, read: Reading, resamples: int) -> dict[str, dict[str, Any]]:
    """The paper's three claims."""
    positive, seeds = best.where(best.c > 0), best.short.shape[1]
    again = resampling(positive.c, seeds, resamples)
    c = positive.c[again.points]
    short, long = (read(again(x)) for x in (positive.short, positive.long))
    everywhere = resampling(best.c, seeds, resamples)
    return {
        "faster": _correlation(positive.c, read(positive.short), spearman(c, short)),
        "faster, C < 0 too": _correlation(
            best.c,
            read(best.short),
            spearman(best.c[everywhere.points], read(everywhere(best.short))),
        ),
        "faster, long": _correlation(positive.c, read(positive.long), spearman(c, long)),
        "equal": _ratio(read(positive.long), read(positive.short), long, short),
        "rise": _rise(best, read, everywhere),
    }


def of_level_curve(
    level: Measured, normal: Measured, read: Reading, resamples: int
) -> dict[str, dict[str, Any]]:
    """Against the normal curve through the same pair."""
    normal, seeds = normal.where(normal.c > 0), level.short.shape[1]
    # One draw of seeds for both: a seed's batches are the same on both curves.
    drawn = [read(resampling(best.c, seeds, resamples)(best.short)) for best in (level, normal)]
    return {"alone": _ratio(read(level.short), read(normal.short), *drawn)}


def of_rates(best: Measured, learning_rates: tuple[float, ...]) -> dict[str, float]:
    """How often each learning rate is a point's best at the long horizon."""
    chosen = best.long.mean(axis=1).argmin(axis=0)
    return {f"{r:g}": float((chosen == i).mean()) for i, r in enumerate(learning_rates)}


def _correlation(c: np.ndarray, loss: np.ndarray, resampled: np.ndarray) -> dict[str, Any]:
    rho, p = float(spearman(c, loss)), permutation_p(c, loss)
    low, high = _middle(resampled)
    verdict = _verdict_of_correlation(rho, p, low, high)
    return {"found": rho, "low": low, "high": high, "p": p, "verdict": verdict}


def _ratio(
    one: np.ndarray, other: np.ndarray, ones: np.ndarray, others: np.ndarray
) -> dict[str, Any]:
    """Of the spreads over the points; then of those of resamples."""
    with np.errstate(invalid="ignore", divide="ignore"):  # a resample of one point only has none
        value, resampled = one.std() / other.std(), ones.std(-1) / others.std(-1)
    low, high = _middle(resampled)
    verdict = verdict_of_interval(low, high, HALF, above=False)
    return {"found": float(value), "low": low, "high": high, "verdict": verdict}


def _rise(best: Measured, read: Reading, again: Resampling) -> dict[str, Any]:
    value = float(rise(best.c, read(best.long)))
    low, high = _middle(rise(best.c[again.points], read(again(best.long))))
    verdict = verdict_of_interval(low, high, 0.0)
    return {"found": value, "low": low, "high": high, "verdict": verdict}


def _middle(values: np.ndarray) -> tuple[float, float]:
    """The middle 95 %."""
    low, high = np.nanpercentile(values, [2.5, 97.5])
    return float(low), float(high)


def _verdict_of_correlation(rho: float, p: float, low: float, high: float) -> str:
    """Of "larger C faster": chance alone orders points so well in 5 % or less, and other seeds and
    points would have shown the same sign."""
    if not p <= 0.05 or not (low > 0 or high < 0):
        return "undecided"
    return "holds" if rho > 0 else "does not hold"
