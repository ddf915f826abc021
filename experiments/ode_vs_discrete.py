"""The paper's first figure: parameters of a transformer, the optimizer's dots on the ODE's line."""

import json
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import PyTree

import ct_adam as ct
from ct_adam.flows.registry import flow_named
from ct_adam.plotting.ode_vs_discrete import paths_figure
from ct_adam.problems.data import MissingData
from ct_adam.problems.models import count_parameters
from ct_adam.simulate.trajectory import outcome_name
from ct_adam.sweep.provenance import provenance

from . import Progress
from ._checked import check_counts, check_positive
from ._paths import rows

if TYPE_CHECKING:
    import xarray
    from matplotlib.figure import Figure

EXPECTED = (
    "Parameters of a transformer under Adam and AdamW lie on the lines of their ODEs to a few "
    "learning rates (the median, of `log`); the flow through the optimizer's iterates is nearer "
    "than any, in the median and at its farthest."
)
FEW = 5


@dataclass(frozen=True)
class Config:
    """A transformer on one batch under Adam (no decay) and AdamW, and flows beside both."""

    data: str = "tinyshakespeare"
    """a text's name; without that data set, the text that comes with Python"""
    flows: tuple[str, ...] = ("log", "lag", "euler", "paper", "interpolating")
    steps: int = 200
    warm_steps: int = 5
    """discrete steps before all flows take over"""
    learning_rate: float = 1e-3
    weight_decay: float = 1.0
    """of AdamW; large, so that it shows within the run"""
    points: int = 41
    shown: int = 16
    """how many random parameters are drawn"""
    context: int = 32
    batch: int = 16
    seed: int = 0

    def __post_init__(self) -> None:
        check_counts(self, steps=1, warm_steps=0, points=2, shown=1, context=1, batch=1, seed=0)
        check_positive(self, "learning_rate")
        if not self.flows:
            raise ValueError(f"flows = {self.flows} must name one at least.")


SIZES = {
    "smoke": Config(
        data="python_topics",
        flows=("log",),
        steps=10,
        points=3,
        context=8,
        batch=4,
    ),
    "quick": Config(),
    "full": Config(steps=1000, points=101),
}
OPTIMIZERS = ("Adam", "AdamW")


def run(config: Config, progress: Progress) -> "xarray.Dataset":
    """Errors of all parameters over (optimizer, flow, step), paths of a few of them."""
    begun = time.perf_counter()
    data, problem, params = _problem(config)
    saved = np.unique(np.linspace(0, config.steps, config.points).round().astype(int))
    shown = np.random.default_rng(config.seed).choice(
        count_parameters(params), config.shown, replace=False
    )
    total, done, sides = len(OPTIMIZERS) * (1 + len(config.flows)), 0, []
    for name in OPTIMIZERS:
        taken = []
        for what in ("optimizer", *config.flows):
            taken.append(_side(config, what, _decay(config, name), problem, params, saved))
            done += 1
            progress(f"{name}, {what}", done, total)
        sides.append(_measured(taken, shown))
    dataset = _labelled(config, saved, shown, sides)
    dataset.attrs = provenance(config, time.perf_counter() - begun) | {
        "text": data,
        "parameters": count_parameters(params),
    }
    return dataset


def _problem(config: Config) -> tuple[str, Any, PyTree]:
    for data in (config.data, "python_topics"):
        try:
            problem, params = ct.problems.text_network(
                data, context=config.context, batch=config.batch, seed=config.seed
            )
        except MissingData:
            continue
        # One batch, the same for all: between whole steps a flow has nothing else to look at.
        return data, ct.problems.full_batch(problem.loss, problem.batch(0)), params
    raise AssertionError("python_topics comes with Python")


def _decay(config: Config, name: str) -> float:
    return config.weight_decay if name == "AdamW" else 0.0


def _side(
    config: Config, what: str, weight_decay: float, problem: Any, params: PyTree, saved: np.ndarray
) -> ct.Trajectory:
    eta, warm = config.learning_rate, config.warm_steps
    optimizer = ct.adamw(eta, weight_decay=weight_decay)
    where = {"save_steps": saved, "warm_steps": warm}
    if what == "optimizer":
        return ct.run(optimizer, problem, params, config.steps, **where)
    settings = {"learning_rate": eta, "weight_decay": weight_decay}
    flow = flow_named(what, optimizer, **settings)
    return ct.solve(flow, problem, params, config.steps, throw=False, rtol=1e-5, **where)


def _measured(sides: list[ct.Trajectory], shown: np.ndarray) -> dict[str, Any]:
    """Of the optimizer first, then of each flow."""
    paths = [rows(row.params) for row in sides]
    apart = [np.abs(path - paths[0]) for path in paths[1:]]
    return {
        "path": np.stack([path[:, shown] for path in paths]),
        "loss": np.stack([np.asarray(row.loss) for row in sides]),
        "error": np.stack([x.max(axis=1) for x in apart]),
        "median_error": np.stack([np.median(x, axis=1) for x in apart]),
        "distance": np.max(np.abs(paths[0] - paths[0][0])),
        "outcome": [outcome_name(row.result) for row in sides[1:]],
        "solver_steps": [int(row.stats["num_steps"]) for row in sides[1:]],
    }


_DIMS = {
    "path": (("optimizer", "side", "step", "parameter"), "parameter"),
    "loss": (("optimizer", "side", "step"), "loss, in nats"),
    "error": (("optimizer", "flow", "step"), "largest |flow − optimizer| of all parameters"),
    "median_error": (("optimizer", "flow", "step"), "median |flow − optimizer| of all parameters"),
    "distance": (("optimizer",), "distance travelled, largest of all parameters"),
    "outcome": (("optimizer", "flow"), "how the flow ended"),
    "solver_steps": (("optimizer", "flow"), "solver steps"),
}


def _labelled(
    config: Config, saved: np.ndarray, shown: np.ndarray, sides: list[dict[str, Any]]
) -> "xarray.Dataset":
    import xarray

    return xarray.Dataset(
        {
            name: (dims, np.stack([np.asarray(side[name]) for side in sides]), {"long_name": label})
            for name, (dims, label) in _DIMS.items()
        },
        coords={
            "optimizer": list(OPTIMIZERS),
            "side": ["optimizer", *config.flows],
            "flow": list(config.flows),
            "step": ("step", saved, {"long_name": "optimizer step", "units": "steps"}),
            "parameter": ("parameter", shown, {"long_name": "index among all parameters"}),
        },
    )


def numbers(dataset: "xarray.Dataset") -> dict[str, Any]:
    """Per optimizer and flow: errors in units of η and of the distance travelled."""
    eta = json.loads(dataset.attrs["config"])["learning_rate"]
    found: dict[str, Any] = {
        "text": dataset.attrs["text"],
        "parameters": dataset.attrs["parameters"],
    }
    for name in dataset.optimizer.values.tolist():
        side = dataset.sel(optimizer=name)
        found[name] = {
            flow: {
                "largest / η": float(side.error.sel(flow=flow).max()) / eta,
                "median at the end / η": float(side.median_error.sel(flow=flow)[-1]) / eta,
                "largest / distance": float(side.error.sel(flow=flow).max() / side.distance),
                "outcome": side.outcome.sel(flow=flow).item(),
            }
            for flow in dataset.flow.values.tolist()
        }
    return found


def check(dataset: "xarray.Dataset") -> list[str]:
    """Of the typical parameter: the one that `log` misses most wakes late, and is far off."""
    found, missing = numbers(dataset), []
    for name in dataset.optimizer.values.tolist():
        by_flow = found[name]
        for flow, row in by_flow.items():
            if row["outcome"] != "successful":
                missing.append(f"{name}: flow {flow} ended with {row['outcome']}.")
        error = by_flow[dataset.flow.values[0]]["median at the end / η"]
        if not error < FEW:
            missing.append(f"{name}: half of the parameters are {error:.3g} η away or more.")
        for what in ("median at the end / η", "largest / η"):
            nearest = min(by_flow, key=lambda flow: by_flow[flow][what])
            if "interpolating" in by_flow and nearest != "interpolating":
                missing.append(f"{name}: {nearest} is nearer than the flow through the iterates.")
    return missing


def plot(dataset: "xarray.Dataset") -> "Figure":
    return paths_figure(dataset)
