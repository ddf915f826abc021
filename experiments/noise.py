"""Adam under noise: how hyperparameters follow the batch size, and its SDE (EQUATIONS §9).

Malladi et al. (arXiv 2205.10287): from batch B to κB, η√κ, 1 − b → κ(1 − b), eps/√κ, λ√κ. Where
that holds, losses against samples seen are one curve for all B. The collapse number is the largest
|L_B/L_ref − 1| over samples and batch sizes, L_ref of the largest one, at which hyperparameters are
given. Beside it the moments, the stationary law and the weak order of the stochastic equation.
"""

import time
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ct_adam.plotting.noise import noise_figure
from ct_adam.sweep.provenance import provenance

from . import Progress, _scaling, _sde_paths, _weak
from . import _scaling_networks as networks
from ._checked import check_counts, check_names, check_positive
from ._generalisation import verdict_of_interval
from ._kept import resumed
from ._scaling import ANCHOR, BATCHES, NOISES, Case, Estimate, without
from ._scaling_networks import Rule, Training

if TYPE_CHECKING:
    import xarray
    from matplotlib.figure import Figure

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
RULES = {
    "square root": Rule("square_root"),
    "linear": Rule("linear"),
    "square root, decays unscaled": Rule("square_root", without("b1", "b2")),
}
EXPECTED = (
    "Where noise dominates (noisy quadratic, σ/|∇f| = 20/3 and 5/3 at batch 64) losses of batches "
    "1 to 64 collapse to 0.1 under the square-root rule and not to 0.5 under the linear one; at "
    "1/3 the square root fails by 0.5 or more; decays, eps and λ left unscaled collapse less; all "
    "this by intervals that hold at once with 95 %. Moments of the SDE are the moment ODE's and "
    "its stationary variances §6's, within 3 standard errors, or what so many comparisons at once "
    "allow with 95 % where that is more (3.34 of 60); it is of weak order 1 ± 0.2 in η², by its "
    "interval, every error above 5 standard errors. What networks do, and their noise-to-signal "
    "ratios, are found, not expected."
)


@dataclass(frozen=True)
class Config:
    """How many replicas, which noises, networks, and paths."""

    noises: tuple[float, ...] = (0.25, 0.5, 1.0, 2.0, 3.0, 5.0, 10.0, 20.0, 40.0)
    """σ of a coordinate at the anchor, for the regime map"""
    shown: tuple[float, float] = (20.0, 0.5)
    """of these, those whose curves are drawn"""
    saves: int = 400
    """batches of the anchor's size, after each of which losses are compared"""
    groups: int = 32
    replicas: int = 256
    """a group"""
    networks: tuple[str, ...] = networks.NETWORKS
    batches: tuple[int, ...] = (1, 4, 16, ANCHOR)
    """of the networks"""
    examples: int = 512
    learning_rate: float = 3e-3
    looks: int = 15
    steps: int = 10
    """at the anchor, between two looks"""
    seeds: int = 8
    sizes: tuple[float, ...] = (0.2, 0.1, 0.05, 0.025, 0.0125)
    """η² of the weak order"""
    weak_paths: int = 200_000
    paths: int = 10_000
    """of the SDE"""

    def __post_init__(self) -> None:
        check_counts(self, saves=1, groups=3, replicas=1, examples=2, looks=1, steps=1, seeds=3)
        check_counts(self, weak_paths=2, paths=2)
        check_names(self, once=True, networks=networks.NETWORKS)
        check_positive(self, "learning_rate")
        if len(self.noises) < 2 or not all(0 < x < np.inf for x in self.noises):
            raise ValueError(f"noises = {self.noises} must be positive numbers, two at least.")
        if len(self.shown) != 2 or not set(self.shown) <= set(self.noises):
            raise ValueError(f"shown = {self.shown} must be two of noises = {self.noises}.")
        if len(self.batches) < 2 or self.batches[-1] != ANCHOR or not _divide(self.batches):
            raise ValueError(f"batches = {self.batches} must grow to {ANCHOR} and divide it.")

    @property
    def cases(self) -> list[Case]:
        found = [case for noise in NOISES for case in both(noise)]
        for case, left, _ in PARTS.values():
            found += [case, case._replace(scale=without(*left))]
        for noise in self.noises:
            found += map_cases(noise).values()
        return list(dict.fromkeys(found))

    @property
    def training(self) -> Training:
        return Training(self.examples, self.learning_rate, self.looks, self.steps, self.seeds)


def _divide(batches: tuple[int, ...]) -> bool:
    growing = all(a < b for a, b in pairwise(batches))
    return growing and all(b > 0 and ANCHOR % b == 0 for b in batches)


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


SIZES = {
    "smoke": Config(noises=(0.5, 20.0), saves=150, groups=8, replicas=96,
                    networks=("digits MLP",), batches=(8, ANCHOR), examples=64, looks=2, steps=2,
                    seeds=3, sizes=(0.1, 0.05), weak_paths=20_000, paths=800),
    "quick": Config(),
    "full": Config(noises=(0.2, 0.3, 0.5, 1.0, 1.5, 2.0, 3.0, 5.0, 7.0, 10.0, 20.0, 40.0),
                   saves=800, groups=32, replicas=4096, batches=BATCHES,
                   examples=1700, looks=100, steps=20, seeds=20,
                   sizes=(0.2, 0.1, 0.05, 0.025, 0.0125, 0.00625), weak_paths=8_000_000,
                   paths=200_000),
}  # fmt: skip


def run(config: Config, progress: Progress) -> "xarray.DataTree":
    """Nodes quadratic, one a network, moments, stationary, weak."""
    return resumed("noise", config, lambda folder: _run(config, progress, folder))


def _run(config: Config, progress: Progress, folder: Path) -> "xarray.DataTree":
    import xarray

    begun = time.perf_counter()
    total, done = config.groups + len(config.networks) * len(config.batches) + 3, 0

    def told(what: str) -> None:
        nonlocal done
        done += 1
        progress(what, done, total)

    nodes = {"quadratic": _quadratic(config, lambda: told("quadratic"), folder)}
    for i, name in enumerate(config.networks):
        found = networks.results(
            name, tuple(RULES.values()), config.batches, config.training,
            lambda name=name: told(name), folder / f"network-{i}",
        )  # fmt: skip
        nodes[f"network_{i}"] = _network_labelled(name, found, config)
    nodes["weak"] = _weak.weak_order(config.sizes, config.weak_paths)
    told("weak order")
    nodes["moments"] = _sde_paths.moment_check(config.paths)
    told("moments")
    nodes["stationary"] = _sde_paths.stationary_check(config.paths)
    told("stationary law")
    tree = xarray.DataTree.from_dict(nodes)
    tree.attrs = provenance(config, time.perf_counter() - begun)
    return tree


def _quadratic(config: Config, told: Any, folder: Path) -> "xarray.Dataset":
    import xarray

    cases = config.cases
    loss = _scaling.groups(
        cases, config.saves, config.replicas, config.groups, told, folder / "quadratic"
    )
    return xarray.Dataset(
        {"loss": (("group", "save", "batch", "case"), loss)},
        {
            "batch": list(BATCHES),
            "case": [case.name for case in cases],
            "save": ("save", ANCHOR * np.arange(1, config.saves + 1), {"units": "samples"}),
        },
        {
            "noises": config.noises,
            "shown": config.shown,
            "ratios": [float(_scaling.noise_to_signal(noise)) for noise in config.shown],
            "learning_rate": SMALL_RATE,
        },
    )


def _network_labelled(name: str, found: Any, config: Config) -> "xarray.Dataset":
    import xarray

    return xarray.Dataset(
        {
            "loss": (("rule", "batch", "seed", "look"), found["loss"]),
            "noise": (("seed", "look"), found["noise"]),
        },
        {
            "rule": list(RULES),
            "batch": list(config.batches),
            "look": (
                "look",
                ANCHOR * config.steps * np.arange(config.looks + 1),
                {"units": "samples"},
            ),
        },
        {"name": name},
    )


def plot(dataset: "xarray.DataTree") -> "Figure":
    return noise_figure(dataset, numbers(dataset))


def collapses(quadratic: "xarray.Dataset", case: Case, comparisons: int = 1) -> Estimate:
    return _scaling.collapse_of_means(quadratic.loss.sel(case=case.name).values, comparisons)


def numbers(dataset: "xarray.DataTree") -> dict[str, Any]:
    """By topic, what was found beside what was expected."""
    quadratic = dataset["quadratic"].to_dataset()
    nets = [node.to_dataset() for name, node in dataset.children.items() if name[:7] == "network"]
    weak = dataset["weak"].to_dataset()
    return {
        "collapse by σ/|∇f|": {f"{noise / 3:.3g}": _rules(quadratic, noise) for noise in NOISES},
        "collapse, scaled or not": {part: _part(quadratic, part) for part in PARTS},
        "regime map": _map(quadratic),
        "networks": {net.attrs["name"]: _network(net, _verdicts(nets)) for net in nets},
        "SDE against the moment ODE": _errors(dataset["moments"]),
        "SDE against §6's stationary variances": _errors(dataset["stationary"]),
        "stationary variances": _stationary(dataset["stationary"].to_dataset()),
        "weak order": {
            "order": weak.attrs["order"],
            "low": weak.attrs["order_low"],
            "high": weak.attrs["order_high"],
            "within 1 ± 0.2": _verdict_of_order(weak.attrs["order_low"], weak.attrs["order_high"]),
            "least error, in standard errors": float(weak.z.min()),
            "errors": {
                f"η² = {size:g}": {"error": float(one.error), "±": float(one.standard_error)}
                for size in weak["size"].values
                for one in [weak.sel(size=size)]
            },
        },
    }


def _told(found: Estimate) -> dict[str, float]:
    return {name: float(x) for name, x in found._asdict().items()}


def _judged(found: Estimate, threshold: float, above: bool) -> dict[str, Any]:
    verdict = verdict_of_interval(float(found.low), float(found.high), threshold, above)
    return {**_told(found), f"{'≥' if above else '≤'} {threshold:g}": verdict}


CLAIMS = 2 * len(PARTS) + 5
"""Intervals of the quadratic of which something is claimed, all at once."""


def _rules(quadratic: "xarray.Dataset", noise: float) -> dict[str, Any]:
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


def _part(quadratic: "xarray.Dataset", part: str) -> dict[str, Any]:
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


def _map(quadratic: "xarray.Dataset") -> dict[str, Any]:
    """By √(tr Σ/B)/‖∇f‖ at the start and batch 64."""
    found: dict[str, Any] = {}
    for noise in quadratic.attrs["noises"]:
        row = {rule: _told(collapses(quadratic, case)) for rule, case in map_cases(noise).items()}
        found[f"{_scaling.noise_to_signal(noise):.3g}"] = row
    return found


def _verdicts(nets: list["xarray.Dataset"]) -> int:
    return sum(net.sizes["rule"] * (net.sizes["batch"] - 1) for net in nets)


def _network(net: "xarray.Dataset", comparisons: int) -> dict[str, Any]:
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


def _verdict_of_order(low: float, high: float) -> str:
    """Whether the whole interval lies in 1 ± `ORDER`, or outside."""
    if low >= 1 - ORDER and high <= 1 + ORDER:
        return "holds"
    return "does not hold" if high < 1 - ORDER or low > 1 + ORDER else "undecided"


def _errors(node: Any) -> dict[str, Any]:
    """The largest error in standard errors, and how large that of one as expected is at most with
    95 %: that of so many comparisons at once (Bonferroni), or 3 of few."""
    from scipy import stats

    z = np.abs(node.to_dataset().z.values)
    limit = max(3.0, float(stats.norm.isf(0.025 / z.size)))
    beyond = int((z > 3).sum())
    return {"largest |z|": float(z.max()), "compared": z.size, "above 3": beyond, "limit": limit}


def _stationary(stationary: "xarray.Dataset") -> dict[str, Any]:
    return {
        f"λ = {decay:g}, h = {h:g}": {
            name: float(one[name]) for name in ("theory", "estimate", "standard_error", "published")
        }
        for decay in stationary.decay.values
        for h in stationary.curvature.values
        for one in [stationary.sel(decay=decay, curvature=h)]
    }


def check(dataset: "xarray.DataTree") -> list[str]:
    found = numbers(dataset)
    # Intervals of few groups are wide: a smoke run need not decide, only not contradict.
    enough = dataset["quadratic"].sizes["group"] >= LEAST_GROUPS
    bad = ("does not hold", "undecided") if enough else ("does not hold",)
    return [*_check_rules(found, bad), *_check_sde(found, bad)]


def _check_rules(found: dict[str, Any], bad: tuple[str, ...]) -> list[str]:
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


def _check_sde(found: dict[str, Any], bad: tuple[str, ...]) -> list[str]:
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
