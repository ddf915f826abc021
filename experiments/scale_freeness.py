"""AdamW as a proximal method, and what it is to be scale-free (EQUATIONS §7).

Zhuang et al. (arXiv 2202.00089): AdamW against its proximal twin, quadratics by condition number,
and networks with and without normalisation layers, where learning rate and decay are tuned for
Adam-ℓ2, AdamW and AdamProx and the loss is multiplied by 1, 10 and 100.

The cell (learning rate, decay) of the least validation cross-entropy on tuning seeds is the best.
What is compared are other runs there, of fresh seeds, on test images that chose nothing.
"""

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ct_adam.plotting.scale_freeness import scale_freeness_figure
from ct_adam.sweep.provenance import provenance

from . import Progress, _scale_free_steps
from . import _scale_free_claims as claims
from . import _scale_freeness as measured
from ._checked import check_counts, check_distinct
from ._kept import resumed
from ._scale_freeness import METHODS, Cell, Net, Run, Training

if TYPE_CHECKING:
    import xarray
    from matplotlib.figure import Figure

IMAGES = ("digits", "mnist", "cifar10")
EXPECTED = (
    "AdamW and AdamProx differ by order 2 in a step and 1 in a run, and as the closed form says to "
    "1e-12; loss × c is eps / c (Adam-ℓ2: and λ / c); on diagonal quadratics their runs do not "
    "know the condition number, on rotated ones they do, and Adam-ℓ2's do on both. On the network "
    "without normalisation the best cell of AdamW is the same whatever the loss is multiplied by; "
    "Adam-ℓ2's moves with it. AdamProx's cells, test errors, their gap beside the published one "
    "and the spread of update magnitudes are found, not expected."
)


@dataclass(frozen=True)
class Config:
    """Which networks, how large a grid, how many seeds, and for how long."""

    etas: tuple[float, ...] = (0.1, 0.01, 0.001)
    """of AdamW against AdamProx, from large to small"""
    conditions: tuple[float, ...] = (1.0, 1e3, 1e6)
    images: str = "digits"
    size: str = "small"
    depths: tuple[int, ...] = (2, 0)
    """residual blocks after each convolution of stride 2; the loss of the first is multiplied,
    without normalisation"""
    norm: str = "group"
    """of the networks beside those without"""
    scales: tuple[float, ...] = (1.0, 10.0, 100.0)
    """by which the loss is multiplied, 1 the first"""
    rates: tuple[float, ...] = (1e-2, 3e-2, 1e-1, 3e-1)
    decays: tuple[float, ...] = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)
    tuning_seeds: int = 4
    seeds: int = 8
    """other than the tuning ones, at the best cells"""
    batch: int = 16
    train: int = 256
    """images: so few that decay matters in a short run"""
    validation: int = 500
    test: int = 640
    """images; both are held out"""
    steps: int = 400
    looks: int = 8
    lanes: int = 12

    def __post_init__(self) -> None:
        check_counts(self, tuning_seeds=1, seeds=2, batch=1, train=1, validation=1, test=1)
        check_counts(self, steps=1, looks=1, lanes=1)
        if self.images not in IMAGES:
            raise ValueError(f"images = {self.images!r} must be {' or '.join(IMAGES)}.")
        if not self.depths or min(self.depths) < 0:
            raise ValueError(f"depths = {self.depths} must be 0 or more, some.")
        check_distinct(self, 1, "rates")
        check_distinct(self, 2, "etas", "conditions", "scales", "decays")
        if self.scales[0] != 1 or self.conditions[0] != 1:
            raise ValueError(
                f"scales = {self.scales} and conditions = {self.conditions} must begin with 1."
            )
        if self.norm not in ("batch", "group", "layer"):
            raise ValueError(f"norm = {self.norm!r} must be batch, group or layer.")
        if self.steps % self.looks:
            raise ValueError(f"looks = {self.looks} must divide steps = {self.steps}.")

    @property
    def training(self) -> Training:
        return Training(
            self.batch, self.train, self.validation, self.test, self.steps, self.looks, self.lanes
        )

    @property
    def nets(self) -> list[Net]:
        """The first is the one whose loss is multiplied."""
        return [Net(self.images, self.size, n, d) for d in self.depths for n in ("", self.norm)]

    def cells(self, net: Net) -> list[Cell]:
        scales = self.scales if net == self.nets[0] else self.scales[:1]
        return [Cell(*one) for one in product(METHODS, scales, self.rates, self.decays)]


SIZES = {
    "smoke": Config(etas=(0.1, 0.01), depths=(0,), scales=(1.0, 100.0), rates=(3e-2,),
                    decays=(1e-2, 1.0), tuning_seeds=1, seeds=2, batch=8, train=64, validation=100,
                    test=100, steps=240, looks=4, lanes=6),
    "quick": Config(),
    "full": Config(etas=(0.1, 0.03, 0.01, 0.003, 0.001), conditions=(1.0, 10.0, 1e3, 1e6),
                   images="mnist", depths=(16, 4, 0), rates=(1e-3, 3e-3, 1e-2, 3e-2, 1e-1),
                   decays=tuple(10.0 ** (x / 2) for x in range(-10, 3)), tuning_seeds=5, seeds=20,
                   batch=64, train=1024, validation=2000, test=5000, steps=5000, looks=20),
}  # fmt: skip


def run(config: Config, progress: Progress) -> "xarray.DataTree":
    """Nodes orders, quadratics, and a node a network over its runs."""
    return resumed("scale_freeness", config, lambda folder: _run(config, progress, folder))


def _run(config: Config, progress: Progress, folder: Path) -> "xarray.DataTree":
    import xarray

    begun = time.perf_counter()
    fresh = len(METHODS) * config.seeds
    counts = [len(config.cells(net)) * config.tuning_seeds + fresh for net in config.nets]
    total, done = sum(counts) + 1, 0

    def told(runs: int) -> None:
        nonlocal done
        done += runs
        progress(net.name, done, total)

    nodes = {}
    for i, net in enumerate(config.nets):
        tuning = [Run(c, s) for c in config.cells(net) for s in range(config.tuning_seeds)]
        found = measured.results(net, tuning, config.training, told, folder / f"{i}-tuning")
        nodes[f"network_{i}"] = tuned = _labelled(net, found, config)
        again = [Run(claims.best_cell(tuned, m, 1.0), s) for m in METHODS for s in _fresh(config)]
        found |= measured.results(net, again, config.training, told, folder / f"{i}-fresh")
        nodes[f"network_{i}"] = _labelled(net, found, config)
    nodes["orders"] = _scale_free_steps.orders(config.etas)
    nodes["quadratics"] = _scale_free_steps.quadratics(config.conditions)
    tree = xarray.DataTree.from_dict(nodes)
    same = {f"c = {c:g}": _scale_free_steps.identities(c) for c in (10.0, 1024.0)}
    progress("quadratics", total, total)
    tree.attrs = {"identities": json.dumps(same), **provenance(config, time.perf_counter() - begun)}
    return tree


def _fresh(config: Config) -> range:
    return range(config.tuning_seeds, config.tuning_seeds + config.seeds)


def _labelled(net: Net, found: dict[Run, Any], config: Config) -> "xarray.Dataset":
    """A row a run; those of tuning first."""
    import xarray

    runs = list(found)
    values = {name: np.array([found[run][name] for run in runs]) for name in found[runs[0]]}
    dims = {
        "validation": ("run", "score"),
        "test": ("run", "score"),
        "share": ("run", "look", "bin"),
    }
    coords = {name: ("run", [getattr(run.cell, name) for run in runs]) for name in Cell._fields}
    looks = config.steps // config.looks * np.arange(1, config.looks + 1)
    return xarray.Dataset(
        {name: (dims[name], values[name]) for name in values},
        coords={
            **coords,
            "seed": ("run", [run.seed for run in runs]),
            "tuning": ("run", [run.seed < config.tuning_seeds for run in runs]),
            "score": ["cross-entropy", "error"],
            "look": ("look", looks, {"units": "steps"}),
            "bin": measured.BINS,
        },
        attrs={"name": net.name, "normalised": int(bool(net.norm)), "depth": net.depth},
    )


def plot(dataset: "xarray.DataTree") -> "Figure":
    return scale_freeness_figure(dataset, numbers(dataset))


def _networks(dataset: "xarray.DataTree") -> Iterator["xarray.Dataset"]:
    for name, node in dataset.children.items():
        if name.startswith("network"):
            yield node.to_dataset()


def numbers(dataset: "xarray.DataTree") -> dict[str, Any]:
    """By topic, what was found beside what was expected."""
    orders, quadratics = (dataset[name].to_dataset() for name in ("orders", "quadratics"))
    apart = quadratics.apart.max(("step", "condition"))
    networks = list(_networks(dataset))
    return {
        "AdamW from AdamProx": {
            f"{eta:g}": {
                "constant gradient": float(one.constant),
                "closed form": float(one.closed),
                "one step": float(one.local),
                "at most": float(one.along),
            }
            for eta in orders.eta.values
            for one in [orders.sel(eta=eta)]
        }
        | {
            "order, local": claims.order_of(orders.local),
            "order, global": claims.order_of(orders.along),
        },
        "loss × c against eps / c": json.loads(dataset.attrs["identities"]),
        "quadratics: difference from condition number 1": {
            method: {
                axes: float(apart.sel(optimizer=method, axes=axes)) for axes in apart.axes.values
            }
            for method in apart.optimizer.values.tolist()
        },
        "best cells by the loss's scale": claims.best_cells(networks[0]),
        "networks": {network.attrs["name"]: claims.of_network(network) for network in networks},
    }


def check(dataset: "xarray.DataTree") -> list[str]:
    found = numbers(dataset)
    missing = claims.check_steps(found)
    apart = found["quadratics: difference from condition number 1"]
    for method, row in apart.items():
        free = method in _scale_free_steps.SCALE_FREE
        if (row["diagonal"] <= claims.ROUNDING) != free or row["rotated"] <= 1e-3:
            missing.append(
                f"{method}: another condition number changes the run by {row['diagonal']:.2g} on "
                f"diagonal quadratics, by {row['rotated']:.2g} on rotated ones."
            )
    for method, cells in found["best cells by the loss's scale"].items():
        if method == "AdamProx":  # nobody's claim; near cells may change places by chance
            continue
        still = len(set(cells.values())) == 1
        if still != (method != "Adam-ℓ2"):
            at = "; ".join(f"{scale}: {cell}" for scale, cell in cells.items())
            missing.append(f"{method}'s best cell {'stays' if still else 'moves'}: {at}.")
    return missing
