"""Differences between what was measured by the same seeds, and what they say of a claim."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from ._crossing import Interval, interval

VERDICTS = ("holds", "does not hold", "undecided")


def simultaneous(values: Float[np.ndarray, " seed"], comparisons: int) -> Interval:
    """Mean and half the width of one of so many intervals, all of which hold at once with 95 %
    (Bonferroni)."""
    from scipy import stats

    alone = interval(values)
    tails = 0.025, 0.025 / comparisons
    narrow, wide = (stats.t.isf(tail, len(values) - 1) for tail in tails)
    return Interval(alone.mean, float(alone.half_width * wide / narrow))


def paired(
    values: Float[np.ndarray, " seed"], comparisons: int = 1, above: bool = True
) -> dict[str, Any]:
    """Of differences seed by seed: mean, interval, and the verdict on their lying above 0 (or
    below). One that is NaN leaves it undecided."""
    mean, half = simultaneous(values, comparisons)
    low, high = mean - half, mean + half
    verdict = verdict_of_interval(low, high, 0.0, above)
    return {"found": mean, "low": low, "high": high, "seeds": len(values), "verdict": verdict}


def of_some(rows: Sequence[Mapping[str, Any]], all_of_them: bool = True) -> str:
    """The verdict on "one of these at least", their intervals being simultaneous. It may yet hold
    where not all that the claim speaks of were measured."""
    found = [row["verdict"] for row in rows]
    return "holds" if "holds" in found else _all_alike(found, all_of_them)


def of_every(rows: Sequence[Mapping[str, Any]], all_of_them: bool = True) -> str:
    """The verdict on "each of these", their intervals being simultaneous. It may yet fail where
    not all that the claim speaks of were measured."""
    found = [row["verdict"] for row in rows]
    return "does not hold" if "does not hold" in found else _all_alike(found, all_of_them)


def _all_alike(found: list[str], all_of_them: bool) -> str:
    return found[0] if all_of_them and len(set(found)) == 1 else "undecided"


def verdict_of_interval(low: float, high: float, threshold: float, above: bool = True) -> str:
    """Whether the whole interval lies above (or below) the threshold, or on the other side."""
    holds, fails = (low > threshold, high < threshold)[:: 1 if above else -1]
    return "holds" if holds else "does not hold" if fails else "undecided"


def tally(verdicts: Sequence[str]) -> dict[str, int]:
    """How often each verdict was given."""
    counted = Counter(verdicts)
    return {verdict: counted[verdict] for verdict in VERDICTS}
