"""Test loss along curves of decays: does a larger stability coefficient C train faster?

A character transformer and a convolutional network along the normal curves through (0.9, 0.999)
and (0.9, 0.95), where C changes fastest, and along a level curve, where it does not change. At one
learning rate, and at each point's best of a few: C and the effective step are confounded. The
paper's claims are put to a test with its confidence, whatever comes out (EQUATIONS §2).
"""

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ct_adam.plotting.generalisation import generalisation_figure
from ct_adam.sweep.provenance import provenance
from ct_adam.theory import stability_coefficient

from . import Progress
from . import _generalisation as measured
from . import _generalisation_claims as claims
from ._checked import check_counts
from ._generalisation import Network, Piece
from ._generalisation_claims import CLAIMS, Measured, Reading, best_within
from ._kept import resumed
from ._statistics import tally

if TYPE_CHECKING:
    import xarray
    from matplotlib.figure import Figure

CURVES = {
    "default": "normal curve through (0.9, 0.999)",
    "second": "normal curve through (0.9, 0.95)",
    "level": "level curve of the default's C",
}
EXPECTED = (
    "The paper's figure: along the normal curves a larger C is faster at the short horizon, all "
    "C > 0 are about equal at the long one, and the loss rises sharply at C < 0. Whatever is found "
    "is printed with its confidence; the check is of the runs alone: losses at C > 0 stay finite "
    "and fall."
)


@dataclass(frozen=True)
class Config:
    """Which networks, how many points and runs, and for how long."""

    points: int = 128
    """of a normal curve"""
    level_points: int = 64
    seeds: int = 3
    short: int = 1000
    long: int = 3000
    """steps within which the best test loss counts"""
    every: int = 25
    """steps between two looks at the test loss"""
    learning_rate: float = 1e-3
    """of the first reading"""
    learning_rates: tuple[float, ...] = (1e-3, 3e-3, 1e-2, 3e-2)
    """of the second: the best of them at every point; at 0.1 the small networks are worse again"""
    text: str = "tinyshakespeare"
    images: str = "mnist"
    cifar: bool = False
    """CIFAR-10 too, where its archive is at hand"""
    size: str = "small"
    layers: int = 1
    context: int = 32
    batch: int = 16
    """windows, and images"""
    held_out: int = 256
    """windows, and images, of the test loss"""
    resamples: int = 1000

    def __post_init__(self) -> None:
        check_counts(self, points=6, level_points=3, seeds=2, every=1, resamples=100)
        check_counts(self, short=1, long=1, layers=1, context=1, batch=1, held_out=1)
        if not self.every <= self.short < self.long or self.long % self.every:
            raise ValueError(
                f"every = {self.every} ≤ short = {self.short} < long = {self.long} is needed, the "
                "last a multiple of the first."
            )
        if self.learning_rate not in self.learning_rates:
            raise ValueError(f"learning_rates must contain {self.learning_rate:g}, the first's.")

    @property
    def readings(self) -> dict[str, Reading]:
        return {
            "fixed": Reading(self.learning_rates.index(self.learning_rate)),
            "tuned": Reading(None),
        }


SIZES = {
    "smoke": Config(
        points=6, level_points=6, seeds=2, short=20, long=60, every=10, learning_rate=1e-2,
        learning_rates=(1e-2, 3e-2), text="python_topics", images="digits", context=8, batch=8,
        held_out=32, resamples=200,
    ),
    "quick": Config(
        points=12, level_points=6, short=300, long=900, every=50,
        learning_rates=(1e-3, 1e-2, 3e-2), context=16, held_out=128,
    ),
    "full": Config(
        cifar=True, size="medium", layers=2, context=64, batch=32,
    ),
}  # fmt: skip


def run(config: Config, progress: Progress) -> "xarray.DataTree":
    """Nodes `text/default`, `text/second`, `text/level`, and the same of `images`: test losses."""
    return resumed("generalisation", config, lambda folder: _run(config, progress, folder))


def _run(config: Config, progress: Progress, folder: Path) -> "xarray.DataTree":
    import xarray

    begun = time.perf_counter()
    curves = {
        "default": measured.normal_pairs(measured.DEFAULT, config.points),
        "second": measured.normal_pairs(measured.SECOND, config.points),
        "level": measured.level_pairs(config.level_points),
    }
    networks = _networks(config)
    # Networks turn by turn: what runs at once at the beginning compiles different programs.
    pieces = [
        Piece(network, curve, pairs, seed, rate)
        for curve, pairs in curves.items()
        for rate in config.learning_rates
        for seed in range(config.seeds)
        for network in networks
    ]
    losses = measured.losses_of(pieces, config.long, config.every, progress, folder)
    parts: dict[str, list[tuple[Piece, np.ndarray]]] = {}
    for piece, loss in zip(pieces, losses, strict=True):
        parts.setdefault(f"{piece.network.name}/{piece.curve}", []).append((piece, loss))
    nodes = {
        name: _node(part[0][0], np.array([loss for _, loss in part]), config)
        for name, part in parts.items()
    }
    tree = xarray.DataTree.from_dict(nodes)
    tree.attrs = provenance(config, time.perf_counter() - begun)
    return tree


def _networks(config: Config) -> list[Network]:
    networks = [
        measured.text_model(
            config.text, config.size, config.layers, config.context, config.batch, config.held_out
        ),
        measured.image_model("images", config.images, config.size, config.batch, config.held_out),
    ]
    if config.cifar:
        cifar = measured.image_model("cifar", "cifar10", config.size, config.batch, config.held_out)
        networks += [cifar] if measured.at_hand("cifar10") else []
    return networks


def _node(piece: Piece, losses: np.ndarray, config: Config) -> "xarray.Dataset":
    import xarray

    b1, b2 = piece.pairs
    steps = np.arange(0, config.long + 1, config.every)
    by_run = losses.reshape(len(config.learning_rates), config.seeds, len(b1), len(steps))
    c = np.array(stability_coefficient(b1, b2))
    return xarray.Dataset(
        {
            "loss": (
                ("learning_rate", "seed", "point", "step"), by_run,
                {"long_name": "test loss", "units": "nats"},
            )
        },
        coords={
            "b1": ("point", b1, {"long_name": "first-moment decay b1", "units": "1"}),
            "b2": ("point", b2, {"long_name": "second-moment decay b2", "units": "1"}),
            "c": ("point", c, {"long_name": "stability coefficient C", "units": "1/step"}),
            "learning_rate": list(config.learning_rates),
            "seed": np.arange(config.seeds),
            "step": ("step", steps, {"long_name": "steps", "units": "steps"}),
        },
        attrs={"network": piece.network.title, "curve": CURVES[piece.curve]},
    )  # fmt: skip


def _config(tree: "xarray.DataTree") -> Config:
    known = json.loads(tree.attrs["config"])
    return Config(**{**known, "learning_rates": tuple(known["learning_rates"])})


def _measured(node: Any, config: Config) -> Measured:
    losses, steps = node["loss"].values, node["step"].values
    best = (best_within(losses, steps, n) for n in (config.short, config.long))
    return Measured(node["c"].values, *best)


def plot(dataset: "xarray.DataTree") -> "Figure":
    return generalisation_figure(dataset, best_losses(dataset), numbers(dataset))


def best_losses(tree: "xarray.DataTree") -> dict[str, Any]:
    """By network, curve and reading, within both horizons: the mean over seeds."""
    config = _config(tree)
    return {
        name: {
            curve: {
                reading: {n: read(getattr(best, n)) for n in ("short", "long")}
                for reading, read in config.readings.items()
            }
            for curve in CURVES
            for best in [_measured(tree[f"{name}/{curve}"], config)]
        }
        for name in tree.children
    }


def numbers(dataset: "xarray.DataTree") -> dict[str, Any]:
    """By network, curve and reading: what was found of each claim, its interval, the verdict."""
    config = _config(dataset)
    found: dict[str, Any] = {}
    for name, node in dataset.children.items():
        by_curve = {curve: _measured(node[curve], config) for curve in CURVES}
        found[name] = {
            curve: {
                reading: claims.of_normal_curve(by_curve[curve], read, config.resamples)
                for reading, read in config.readings.items()
            }
            for curve in ("default", "second")
        }
        found[name]["level"] = {
            reading: claims.of_level_curve(
                by_curve["level"], by_curve["default"], read, config.resamples
            )
            for reading, read in config.readings.items()
        }
        found[name]["best learning rate"] = {
            curve: claims.of_rates(best, config.learning_rates) for curve, best in by_curve.items()
        }
    tallies = {
        claim: {"expected": words, **tally(_verdicts(found, claim))}
        for claim, words in CLAIMS.items()
    }
    return {"claims": tallies, **found}


def _verdicts(found: Mapping[str, Any], claim: str) -> list[str]:
    return [
        row[claim]["verdict"]
        for node in found.values()
        for curve in CURVES
        for row in node[curve].values()
        if claim in row
    ]


def check(dataset: "xarray.DataTree") -> list[str]:
    """Defects of the runs: what they show of the claims is found, not expected."""
    missing = []
    for name, node in dataset.children.items():
        for curve in CURVES:
            one = node[curve].to_dataset()
            inside = one.loss.isel(point=one.c.values > 0)
            if not np.isfinite(inside).all():
                missing.append(f"{name}, {curve}: a test loss at C > 0 is not finite.")
            if not (inside.min("step") < inside.isel(step=0)).all():
                missing.append(f"{name}, {curve}: a test loss at C > 0 never falls.")
    return missing
