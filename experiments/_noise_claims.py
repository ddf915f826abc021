"""Which cases `noise` claims something of, what was found, and where it is not as expected."""

from typing import TYPE_CHECKING, Any

import numpy as np

from . import _scaling
from ._scaling import ANCHOR, NOISES, Case, Estimate, without
from ._statistics import verdict_of_interval

if TYPE_CHECKING:
    import xarray

COLLAPSED, APART = 0.1, 0.5
"""Collapse numbers of a rule that holds, and of one that does not."""
ORDER, ABOVE = 0.2, 5.0
"""How far a weak order may be from 1; how many standard errors its errors must have."""
LEAST_GROUPS = 16
"""From which on a claim is to be decided."""
PUBLISHED = {20.0: (0.04, 0.67), 5.0: (0.06, 0.77), 1.0: (1.5, None)}
"""EQUATIONS §9 by σ: under the square-root rule, under the linear one."""
LARGE_B1, LARGE_EPS, LARGE_DECAY = 0.98, 20.0, 0.3
"""At the anchor: with these it shows whether decays, eps (σ there) and λ are scaled."""
PARTS: dict[str, tuple[Case, tuple[str, ...], tuple[float, float] | None]] = {
    "decays, b1 = 0.98": (Case(NOISES[0], b1=LARGE_B1), ("b1", "b2"), (0.06, 0.27)),
    "decays, b1 = 0.9": (Case(NOISES[0]), ("b1", "b2"), None),
    "eps = σ": (Case(NOISES[0], eps=LARGE_EPS), ("eps",), None),
    "λ = 0.3": (Case(NOISES[0], weight_decay=LARGE_DECAY), ("weight_decay",), None),
}
"""A case, what of it is scaled or not, and EQUATIONS §9's numbers (scaled, unscaled)."""
SMALL_RATE = 0.05
"""Of the regime map: there the loss falls, where at the other cases' 0.15 and σ = 20 it rises."""


def both(noise: float) -> tuple[Case, Case]:
    """The two rules."""
    return Case(noise), Case(noise, "linear")


def map_cases(noise: float) -> dict[str, Case]:
    """A column of the regime map."""
    root = Case(noise, learning_rate=SMALL_RATE)
    return {
        "square root": root,
        "linear": root._replace(rule="linear"),
        "square root, decays unscaled": root._replace(scale=without("b1", "b2")),
    }


def collapses(quadratic: "xarray.Dataset", case: Case, comparisons: int = 1) -> Estimate:
    return _scaling.collapse_of_means(quadratic.loss.sel(case=case.name).values, comparisons)


def _told(found: Estimate) -> dict[str, float]:
    return {name: float(x) for name, x in found._asdict().items()}


def _judged(found: Estimate, threshold: float, above: bool) -> dict[str, Any]:
    verdict = verdict_of_interval(float(found.low), float(found.high), threshold, above)
    return {**_told(found), f"{'≥' if above else '≤'} {threshold:g}": verdict}


CLAIMS = 2 * len(PARTS) + 5
"""Intervals of the quadratic of which something is claimed, all at once."""


def of_rules(quadratic: "xarray.Dataset", noise: float) -> dict[str, Any]:
    """Under both rules. Of the linear one at the least noise nothing is claimed."""
    dominated = noise != NOISES[-1]
    root, linear = (collapses(quadratic, case, CLAIMS) for case in both(noise))
    rows = {
        "square root": _judged(root, COLLAPSED if dominated else APART, not dominated),
        "linear": _judged(linear, APART, True) if dominated else _told(linear),
    }
    for row, published in zip(rows.values(), PUBLISHED[noise], strict=True):
        row["§9"] = published
    return rows


def of_part(quadratic: "xarray.Dataset", part: str) -> dict[str, Any]:
    """Collapse with it scaled and not: it is to be less, the two intervals being apart."""
    case, left, published = PARTS[part]
    scaled, unscaled = (
        collapses(quadratic, one, CLAIMS) for one in (case, case._replace(scale=without(*left)))
    )
    low, high = float(unscaled.low - scaled.high), float(unscaled.high - scaled.low)
    rows = {
        word: {**_told(one), "§9": published[i] if published else None}
        for i, (word, one) in enumerate((("scaled", scaled), ("unscaled", unscaled)))
    }
    return {**rows, "scaled is less": verdict_of_interval(low, high, 0.0)}


def of_map(quadratic: "xarray.Dataset") -> dict[str, Any]:
    """By √(tr Σ/B)/‖∇f‖ at the start and batch 64."""
    found: dict[str, Any] = {}
    for noise in quadratic.attrs["noises"]:
        row = {rule: _told(collapses(quadratic, case)) for rule, case in map_cases(noise).items()}
        found[f"{_scaling.noise_to_signal(noise):.3g}"] = row
    return found


def verdicts(nets: list["xarray.Dataset"]) -> int:
    """How many intervals of networks are compared with `COLLAPSED`."""
    return sum(net.sizes["rule"] * (net.sizes["batch"] - 1) for net in nets)


def of_network(net: "xarray.Dataset", comparisons: int) -> dict[str, Any]:
    """Noise-to-signal at the anchor; collapse by rule and by the largest batch compared, beside
    the ratio there; the intervals of all networks hold at once."""
    noise = net.noise.mean("seed")
    rules: dict[str, Any] = {}
    for rule in net.rule.values.tolist():
        loss = net.loss.sel(rule=rule).transpose("seed", "look", "batch").values
        rules[rule] = {
            f"to {batch}": {
                **_judged(
                    _scaling.collapse_of_means(loss[..., : i + 1], comparisons), COLLAPSED, False
                ),
                "median noise-to-signal": float(noise.median()) * np.sqrt(ANCHOR / batch),
            }
            for i, batch in enumerate(net.batch.values[1:].tolist(), 1)
        }
    start, end = float(noise[0]), float(noise[-1])
    return {"noise-to-signal at batch 64": {"start": start, "end": end}, **rules}


def of_weak_order(weak: "xarray.Dataset") -> dict[str, Any]:
    low, high = weak.attrs["order_low"], weak.attrs["order_high"]
    return {
        "order": weak.attrs["order"],
        "low": low,
        "high": high,
        "within 1 ± 0.2": _verdict_of_order(low, high),
        "least error, in standard errors": float(weak.z.min()),
        "errors": {
            f"η² = {size:g}": {"error": float(one.error), "±": float(one.standard_error)}
            for size in weak["size"].values
            for one in [weak.sel(size=size)]
        },
    }


def _verdict_of_order(low: float, high: float) -> str:
    """Whether the whole interval lies in 1 ± `ORDER`, or outside."""
    if low >= 1 - ORDER and high <= 1 + ORDER:
        return "holds"
    return "does not hold" if high < 1 - ORDER or low > 1 + ORDER else "undecided"


def of_errors(node: Any) -> dict[str, Any]:
    """The largest error in standard errors, and how large that of one as expected is at most with
    95 %: that of so many comparisons at once (Bonferroni), or 3 of few."""
    from scipy import stats

    z = np.abs(node.to_dataset().z.values)
    limit = max(3.0, float(stats.norm.isf(0.025 / z.size)))
    beyond = int((z > 3).sum())
    return {"largest |z|": float(z.max()), "compared": z.size, "above 3": beyond, "limit": limit}


def of_stationary(stationary: "xarray.Dataset") -> dict[str, Any]:
    return {
        f"λ = {decay:g}, h = {h:g}": {
            name: float(one[name]) for name in ("theory", "estimate", "standard_error", "published")
        }
        for decay in stationary.decay.values
        for h in stationary.curvature.values
        for one in [stationary.sel(decay=decay, curvature=h)]
    }


def check_rules(found: dict[str, Any], bad: tuple[str, ...]) -> list[str]:
    missing = []
    for ratio, rules in found["collapse by σ/|∇f|"].items():
        for rule, row in rules.items():
            claim = next((name for name in row if name[0] in "≤≥"), None)
            if claim and row[claim] in bad:
                said = f"collapse {claim} under the {rule} rule {_said(row[claim])}"
                missing.append(f"σ/|∇f| = {ratio}: {said}: {_words(row)}.")
    for part, row in found["collapse, scaled or not"].items():
        if row["scaled is less"] in bad:
            missing.append(
                f"{part}: that scaling it makes the collapse less {_said(row['scaled is less'])}: "
                f"{_words(row['scaled'])}, unscaled {_words(row['unscaled'])}."
            )
    return missing


def check_sde(found: dict[str, Any], bad: tuple[str, ...]) -> list[str]:
    missing = [
        f"{name}: {row['largest |z|']:.2f} standard errors, more than {row['limit']:.2f}."
        for name, row in found.items()
        if name.startswith("SDE") and not row["largest |z|"] <= row["limit"]
    ]
    weak = found["weak order"]
    if weak["within 1 ± 0.2"] in bad:
        missing.append(
            f"that the weak order lies within 1 ± {ORDER} {_said(weak['within 1 ± 0.2'])}: "
            f"{weak['order']:.2f} [{weak['low']:.2f}, {weak['high']:.2f}]."
        )
    if not weak["least error, in standard errors"] >= ABOVE:
        missing.append(
            f"an error of the weak order has {weak['least error, in standard errors']:.1f} "
            "standard errors."
        )
    return missing


def _said(verdict: str) -> str:
    return "is undecided" if verdict == "undecided" else verdict


def _words(row: dict[str, float]) -> str:
    return f"{row['value']:.3f} [{row['low']:.3f}, {row['high']:.3f}]"
