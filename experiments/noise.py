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
from . import _noise_claims as claims
from . import _scaling_networks as networks
from ._checked import check_counts, check_distinct, check_names, check_positive
from ._kept import resumed
from ._scaling import ANCHOR, BATCHES, NOISES, Case, without
from ._scaling_networks import Rule, Training

if TYPE_CHECKING:
    import xarray
    from matplotlib.figure import Figure

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
        check_distinct(self, 2, "noises", "sizes")
        for size in self.sizes:
            _weak.scaled(_weak.Setting(), size)
        if len(self.shown) != 2 or not set(self.shown) <= set(self.noises):
            raise ValueError(f"shown = {self.shown} must be two of noises = {self.noises}.")
        if len(self.batches) < 2 or self.batches[-1] != ANCHOR or not _divide(self.batches):
            raise ValueError(f"batches = {self.batches} must grow to {ANCHOR} and divide it.")

    @property
    def cases(self) -> list[Case]:
        found = [case for noise in NOISES for case in claims.both(noise)]
        for case, left, _ in claims.PARTS.values():
            found += [case, case._replace(scale=without(*left))]
        for noise in self.noises:
            found += claims.map_cases(noise).values()
        return list(dict.fromkeys(found))

    @property
    def training(self) -> Training:
        return Training(self.examples, self.learning_rate, self.looks, self.steps, self.seeds)


def _divide(batches: tuple[int, ...]) -> bool:
    growing = all(a < b for a, b in pairwise(batches))
    return growing and all(b > 0 and ANCHOR % b == 0 for b in batches)


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
            "learning_rate": claims.SMALL_RATE,
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


def numbers(dataset: "xarray.DataTree") -> dict[str, Any]:
    """By topic, what was found beside what was expected."""
    quadratic = dataset["quadratic"].to_dataset()
    nets = [node.to_dataset() for name, node in dataset.children.items() if name[:7] == "network"]
    return {
        "collapse by σ/|∇f|": {
            f"{noise / 3:.3g}": claims.of_rules(quadratic, noise) for noise in NOISES
        },
        "collapse, scaled or not": {part: claims.of_part(quadratic, part) for part in claims.PARTS},
        "regime map": claims.of_map(quadratic),
        "networks": {
            net.attrs["name"]: claims.of_network(net, claims.verdicts(nets)) for net in nets
        },
        "SDE against the moment ODE": claims.of_errors(dataset["moments"]),
        "SDE against §6's stationary variances": claims.of_errors(dataset["stationary"]),
        "stationary variances": claims.of_stationary(dataset["stationary"].to_dataset()),
        "weak order": claims.of_weak_order(dataset["weak"].to_dataset()),
    }


def check(dataset: "xarray.DataTree") -> list[str]:
    found = numbers(dataset)
    # Intervals of few groups are wide: a smoke run need not decide, only not contradict.
    enough = dataset["quadratic"].sizes["group"] >= claims.LEAST_GROUPS
    bad = ("does not hold", "undecided") if enough else ("does not hold",)
    return [*claims.check_rules(found, bad), *claims.check_sde(found, bad)]
