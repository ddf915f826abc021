"""Gradient descent on (η, b1, b2, λ) through the flow, against searches of equal cost.

A small network on digits, AdamW for a fixed number of steps; the outer loss is that on validation
images at the end. Four searches begin with the same random draws: gradient descent by the flow's
hypergradient, by the discrete run's own (unrolled), random search, and optuna's TPE where it is
installed. Cost is counted in discrete runs, `steps` gradients of the training loss each; a gradient
with four tangents counts as many as it has floating-point operations. Every candidate is run by the
discrete optimizer, at the cost of one run: that is the loss that counts. The losses on test images
chose nothing.
"""

import json
import time
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ct_adam.plotting.hyperparameters import hyperparameters_figure
from ct_adam.sweep.provenance import provenance

from . import Progress, _searches
from . import _hyperparameters as measured
from . import _hyperparameters_claims as claims
from ._checked import check_counts
from ._hyperparameters import NAMES
from ._hyperparameters_claims import NEAR, SHARES, SOLVER
from ._kept import remembered, resumed
from ._searches import Found, Search
from ._statistics import of_every

if TYPE_CHECKING:
    import xarray
    from matplotlib.figure import Figure

TAME = np.log([2e-3, 0.1, 0.01, 0.1])
"""A point where no iterate chatters, the first probe."""
IMAGES = 1797
EXPECTED = (
    f"Where no iterate chatters (η = 2e-3) the flow's hypergradient is that of the discrete run "
    f"to {NEAR:.0%}, of which the solver makes {SOLVER:.0%} at most. Whether descent through the "
    "flow finds a lower validation loss than random search, TPE and descent through the discrete "
    "run at equal cost is found, not expected."
)


@dataclass(frozen=True)
class Config:
    """Which network, how much may be spent, how often. Quick takes 4 minutes on two cores."""

    seeds: int = 10
    """of network, splits and draws, all at once"""
    hidden: int = 8
    train: int = 128
    """images: so few that decay matters"""
    validation: int = 400
    """images; the rest are for the test"""
    steps: int = 100
    budget: int = 600
    """discrete runs a search"""
    first: int = 10
    """random draws that all searches begin with: as many as TPE's own"""
    probes: int = 8
    """points of the box where hypergradients are compared, beside the tame one"""

    def __post_init__(self) -> None:
        check_counts(self, seeds=2, hidden=1, train=1, validation=1, steps=2, first=1, probes=1)
        check_counts(self, budget=2 * self.first)
        if self.train + self.validation >= IMAGES:
            raise ValueError(
                f"train = {self.train} and validation = {self.validation} leave none of {IMAGES} "
                "images for the test: take fewer."
            )


SIZES = {
    "smoke": Config(seeds=2, hidden=4, train=32, validation=100, steps=20, budget=120, first=4,
                    probes=2),
    "quick": Config(),
    "full": Config(seeds=40, hidden=16, train=256, steps=300, budget=2000, probes=16),
}  # fmt: skip


def run(config: Config, progress: Progress) -> "xarray.DataTree":
    """Nodes best, probes, and one a search with its candidates by (seed, candidate)."""
    return resumed("hyperparameters", config, lambda folder: _run(config, progress, folder))


def _run(config: Config, progress: Progress, folder: Path) -> "xarray.DataTree":
    import xarray

    begun = time.perf_counter()
    names = _searches.at_hand()
    rows: dict[str, list[Found]] = {name: [] for name in (*names, "probes")}
    factors = measured.cost_factors(_task(config, 0))
    done, total = 0, (len(names) + 1) * config.seeds
    for seed in range(config.seeds):
        task, first = _task(config, seed), measured.draws(config.first, seed)
        search = Search(task, config.steps, config.budget, first, factors["four tangents"], seed)
        points = np.vstack([TAME, measured.draws(config.probes, 1000 + seed)])
        work = {name: partial(_searches.timed, search, name) for name in names}
        work["probes"] = partial(measured.probes, task, config.steps, points)
        for name, compute in work.items():
            rows[name].append(remembered(folder / f"{name}-{seed}.npz", compute))
            done += 1
            progress(f"seed {seed}, {name}", done, total)
    nodes = {name: _candidates(rows[name]) for name in names}
    nodes["best"] = _best(config, nodes)
    nodes["probes"] = _probes(rows["probes"])
    tree = xarray.DataTree.from_dict(nodes)
    optuna = version("optuna") if "TPE" in names else "not installed"
    tree.attrs = {
        "factors": json.dumps(factors),
        "optuna": optuna,
        **provenance(config, time.perf_counter() - begun),
    }
    return tree


def _task(config: Config, seed: int) -> measured.Task:
    return measured.digits_task(config.hidden, config.train, config.validation, seed)


def _candidates(rows: list[Found]) -> "xarray.Dataset":
    """Searches of different length side by side, NaN after their end."""
    import xarray

    most = max(len(row["cost"]) for row in rows)

    def padded(name: str) -> np.ndarray:
        values = [row[name] for row in rows]
        full = np.full((len(rows), most, *values[0].shape[1:]), np.nan)
        for i, one in enumerate(values):
            full[i, : len(one)] = one
        return full

    each = ("seed", "candidate")
    return xarray.Dataset(
        {
            "value": ((*each, "hyperparameter"), np.exp(padded("point"))),
            "slope": ((*each, "hyperparameter"), padded("slope"), {"long_name": "d ln loss / d z"}),
            "loss": ((*each, "images"), padded("losses"), {"long_name": "cross-entropy"}),
            "flow": (each, padded("flow"), {"long_name": "validation loss of the flow itself"}),
            "cost": (each, padded("cost"), {"units": "discrete runs"}),
            "seconds": ("seed", [float(row["seconds"]) for row in rows]),
        },
        coords={
            "hyperparameter": list(AXES),
            "low": ("hyperparameter", np.exp(measured.LOW)),
            "high": ("hyperparameter", np.exp(measured.HIGH)),
            "images": ["validation", "test"],
        },
    )


AXES = ("η", "1 − b1", "1 − b2", "λ")
"""What `NAMES` are searched in the logarithm of."""
assert len(AXES) == len(NAMES)


def _best(config: Config, nodes: dict[str, "xarray.Dataset"]) -> "xarray.Dataset":
    """What each search had found within each budget, from the end of the common draws on."""
    import xarray

    grid = np.unique(np.geomspace(config.first, config.budget, 80).round())
    budgets = np.union1d(grid, [share * config.budget for share in SHARES])
    found = [
        [
            _searches.best_within(c, x, budgets)
            for c, x in zip(n.cost.values, n.loss.values, strict=True)
        ]
        for n in nodes.values()
    ]
    return xarray.Dataset(
        {"loss": (("search", "seed", "budget", "images"), np.array(found))},
        coords={
            "search": list(nodes),
            "budget": ("budget", budgets, {"units": "discrete runs"}),
            "images": ["validation", "test"],
        },
    )


def _probes(rows: list[Found]) -> "xarray.Dataset":
    import xarray

    dims = {"fine": ("seed", "hyperparameter"), "evaluations": ("seed", "probe")}
    each = ("seed", "probe", "hyperparameter")
    return xarray.Dataset(
        {name: (dims.get(name, each), np.stack([row[name] for row in rows])) for name in rows[0]},
        coords={"hyperparameter": list(AXES)},
    )


def plot(dataset: "xarray.DataTree") -> "Figure":
    return hyperparameters_figure(dataset, numbers(dataset))


def numbers(dataset: "xarray.DataTree") -> dict[str, Any]:
    """Costs, losses, comparisons with their verdicts, and hypergradients."""
    best = dataset["best"].to_dataset()
    compared = claims.of_comparisons(dataset)
    random = [row for name, row in compared.items() if name.startswith("random, validation")]
    without = "TPE: optuna is not installed (pip install optuna)."
    return {
        "cost of a gradient, in gradients": json.loads(dataset.attrs["factors"]),
        "searches": {
            name: claims.of_search(dataset[name].to_dataset(), best.sel(search=name))
            for name in best.search.values.tolist()
        },
        "ln(loss by flow / loss by the other), intervals simultaneous": compared,
        "descent through the flow is below random search, at every budget": of_every(random),
        "hypergradients": claims.of_slopes(dataset["probes"].to_dataset()),
        "ln(flow's own loss / discrete loss) where its own is lowest": claims.of_model_gap(
            dataset["flow"].to_dataset()
        ),
        **({} if "TPE" in dataset else {"left out": without}),
    }


def check(dataset: "xarray.DataTree") -> list[str]:
    return claims.check_slopes(claims.of_slopes(dataset["probes"].to_dataset()))
