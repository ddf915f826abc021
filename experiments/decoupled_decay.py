"""Decoupled weight decay: valleys of test loss over learning rate and decay (EQUATIONS §8).

SGD, SGDW, Adam-ℓ2 and AdamW in both parametrisations, on linear regression where the decay's work
is to forget the start, on a counter-example where it is not, and on networks. Restarts with their
anytime performance; the best normalised decay of short and of long runs.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ct_adam.plotting.decoupled_decay import decay_figure
from ct_adam.sweep.provenance import provenance

from . import Progress
from . import _decoupled as measured
from . import _decoupled_values as exact
from ._checked import check_counts, check_names
from ._crossing import interval
from ._decoupled import MEASURED, Task, Valley
from ._kept import Arrays, remembered, resumed

if TYPE_CHECKING:
    import xarray
    from matplotlib.figure import Figure

VALLEYS = {
    "SGD": ("sgd", True),
    "SGDW": ("sgdw", False),
    "Adam-ℓ2": ("adam_l2", False),
    "AdamW-LH": ("adamw", False),
    "AdamW-PyTorch": ("adamw", True),
}
"""Which runs, and whether the axis is what was varied over the learning rate: one algorithm in two
parametrisations is one map, sheared by −1."""
SLOPES = {
    "forget": {"SGD": -1.05, "SGDW": -0.05, "AdamW-LH": 0.02, "AdamW-PyTorch": -0.96},
    "counter": {"SGD": 0.38, "SGDW": 1.37, "AdamW-LH": 1.21, "AdamW-PyTorch": 0.02},
}
"""d ln λ*/d ln lr of EQUATIONS §8."""
ALLOWED = 0.25
NOT_A_LINE = "not a line"
RIDGE_EPOCHS = 50
BUDGET_GRIDS = {"forget": (1e-3, (1e-4, 1)), "counter": (3e-3, (1e-4, 1)), "mlp": (3e-2, (1e-4, 1))}
"""AdamW's learning rate, λ_LH from, to."""
NETWORKS = ("mlp", "convnet")
EXPECTED = (
    "Values and propositions of §8 to rounding, the misprint of Prop. 3 a factor 1/α. On linear "
    "regression from a start far off the valleys have the slopes -1 (SGD, AdamW-PyTorch) and 0 "
    "(SGDW, AdamW-LH), on the counter-example 0.38, 1.37, 1.21, 0.02, all within 0.25. The slopes "
    "of networks, restarts and normalised decays are found, not expected."
)


@dataclass(frozen=True)
class Config:
    """Which networks, how fine the maps, how many seeds, for how long."""

    rates: int = 12
    """learning rates of a map"""
    per_decade: int = 12
    """decays of a map of linear regression, by decade"""
    seeds: int = 10
    networks: tuple[str, ...] = NETWORKS
    network_rates: int = 9
    network_per_decade: int = 5
    mlp_epochs: int = 150
    mlp_points: int = 256
    mlp_seeds: int = 10
    images: str = "mnist"
    convnet_epochs: int = 100
    convnet_points: int = 1024
    convnet_seeds: int = 5
    batch: int = 32
    """of networks"""
    held_out: int = 2000
    """images of the convolutional network's test loss"""
    budgets: tuple[int, ...] = (25, 100, 400)
    """epochs of the runs whose best decays are compared"""
    budget_tasks: tuple[str, ...] = ("forget", "counter", "mlp")
    restart_task: str = "mlp"
    first: int = 15
    """epochs of the first cycle of warm restarts; there are four"""

    def __post_init__(self) -> None:
        check_counts(self, rates=3, per_decade=2, seeds=2, network_rates=3, network_per_decade=1)
        check_counts(self, mlp_epochs=1, mlp_points=1, mlp_seeds=2, batch=1, held_out=1, first=1)
        check_counts(self, convnet_epochs=1, convnet_points=1, convnet_seeds=2)
        check_names(self, once=True, budget_tasks=BUDGET_GRIDS)
        if self.restart_task not in BUDGET_GRIDS:
            raise ValueError(
                f"restart_task = {self.restart_task!r} must be one of {', '.join(BUDGET_GRIDS)}."
            )
        if self.networks:
            check_names(self, once=True, networks=NETWORKS)
        if len(self.budgets) < 2 or list(self.budgets) != sorted(set(self.budgets)):
            raise ValueError(f"budgets = {self.budgets} must be two or more, rising.")
        if self.batch > min(self.mlp_points, self.convnet_points):
            raise ValueError(f"batch = {self.batch} must not exceed the training points.")


SIZES = {
    "smoke": Config(
        rates=6, per_decade=4, seeds=2, networks=(), mlp_seeds=2, restart_task="forget", first=2,
        budgets=(25, 100), budget_tasks=("forget",),
    ),
    "quick": Config(
        rates=8, per_decade=8, seeds=5, network_rates=5, network_per_decade=3, mlp_seeds=5,
        images="digits", convnet_points=512, convnet_epochs=30, convnet_seeds=4, held_out=512,
    ),
    "full": Config(),
}  # fmt: skip


class Grid(NamedTuple):
    """Learning rates and decays of the map of one method."""

    rates: np.ndarray
    decays: np.ndarray


RIDGE_GRIDS = {
    "sgd": ((3e-5, 1e-2), (1e-5, 1)),
    "sgdw": ((3e-5, 1e-2), (1e-5, 1)),
    "adam_l2": ((3e-4, 1e-1), (1e-6, 1e4)),
    "adamw": ((3e-4, 1e-1), (1e-5, 1)),
}
MLP_GRIDS = {
    "sgd": ((1e-2, 0.5), (1e-5, 1e-1)),
    "sgdw": ((1e-2, 0.5), (1e-5, 1e-1)),
    "adam_l2": ((1e-3, 5e-2), (1e-4, 1)),
    "adamw": ((1e-3, 5e-2), (1e-4, 1e-1)),
}
CONVNET_GRIDS = {
    "sgd": ((0.1, 0.7), (1e-4, 1e-1)),
    "sgdw": ((0.1, 0.7), (1e-4, 1e-1)),
    "adam_l2": ((1.2e-2, 8e-2), (1e-4, 1e-1)),
    "adamw": ((1.2e-2, 8e-2), (1e-4, 1e-1)),
}
"""From, to: learning rates; then λ_LH (of `"adam_l2"` λ')."""
RESTARTS = (1e-2, 0.1, 4)
"""AdamWR's learning rate and normalised decay, its cycles."""


def _grids(ranges: Any, rates: int, per_decade: int) -> dict[str, Grid]:
    return {
        method: Grid(np.geomspace(rate[0], rate[1], rates), _decays(decay[0], decay[1], per_decade))
        for method, (rate, decay) in ranges.items()
    }


def _decays(low: float, high: float, per_decade: int) -> np.ndarray:
    return np.geomspace(low, high, round(np.log10(high / low) * per_decade) + 1)


class Map(NamedTuple):
    task: Task
    grids: dict[str, Grid]
    seeds: int
    epochs: int


def tasks(config: Config) -> dict[str, Task]:
    """Every problem by name."""
    return {
        "forget": measured.ridge_task(
            "forget", "linear regression, θ$_0$ far off", noise=0.1, start=10.0, cosine=True
        ),
        "counter": measured.ridge_task(
            "counter", "counter-example: θ$_0$ = 0, noise", noise=1.0, start=0.0, cosine=False
        ),
        "mlp": measured.mlp_task(config.mlp_points, config.batch),
        "convnet": measured.convnet_task(
            config.images, config.convnet_points, config.batch, config.held_out
        ),
    }


def maps(config: Config) -> list[Map]:
    known = tasks(config)
    ridge = _grids(RIDGE_GRIDS, config.rates, config.per_decade)
    fine = config.network_rates, config.network_per_decade
    every = {
        "forget": Map(known["forget"], ridge, config.seeds, RIDGE_EPOCHS),
        "counter": Map(known["counter"], ridge, config.seeds, RIDGE_EPOCHS),
        "mlp": Map(
            known["mlp"], _grids(MLP_GRIDS, *fine), config.mlp_seeds, config.mlp_epochs
        ),
        "convnet": Map(
            known["convnet"], _grids(CONVNET_GRIDS, *fine), config.convnet_seeds,
            config.convnet_epochs,
        ),
    }  # fmt: skip
    return [every[name] for name in ("forget", "counter", *config.networks)]


def run(config: Config, progress: Progress) -> "xarray.DataTree":
    """Nodes by problem with maps, `budgets/NAME`, `restarts`."""
    return resumed("decoupled_decay", config, lambda folder: _run(config, progress, folder))


def _run(config: Config, progress: Progress, folder: Path) -> "xarray.DataTree":
    import xarray

    begun = time.perf_counter()
    work = _work(config)
    found: dict[str, Arrays] = {}
    for name, compute in work.items():
        found[name] = remembered(folder / f"{name}.npz", compute)
        progress(name, len(found), len(work))
    nodes = {one.task.name: _labelled(one, found) for one in maps(config)}
    for name in config.budget_tasks:
        nodes[f"budgets/{name}"] = _budgets(name, found, config)
    restarts = found["restarts"]
    nodes["restarts"] = xarray.Dataset(
        {"loss": (("run", "seed", "step"), restarts["loss"], {"long_name": "test loss"})},
        coords={"run": restarts["run"], "step": ("step", restarts["step"], {"units": "steps"})},
        attrs={
            "ends": restarts["ends"].tolist(),
            "title": tasks(config)[config.restart_task].title,
        },
    )
    tree = xarray.DataTree.from_dict(nodes)
    tree.attrs = provenance(config, time.perf_counter() - begun)
    return tree


def _work(config: Config) -> dict[str, Callable[[], Arrays]]:
    """Every piece by the name under which it is kept."""
    known = tasks(config)

    def losses(task: Task, method: str, grid: Grid, seeds: int, epochs: int) -> Arrays:
        return {"loss": measured.test_losses(task, method, *grid, seeds, epochs)}

    work: dict[str, Callable[[], Arrays]] = {
        f"{one.task.name}-{method}": partial(
            losses, one.task, method, one.grids[method], one.seeds, one.epochs
        )
        for one in maps(config)
        for method in MEASURED
    }
    for name in config.budget_tasks:
        seeds = config.mlp_seeds if name == "mlp" else config.seeds
        for epochs in config.budgets:
            work[f"{name}-{epochs}-epochs"] = partial(
                losses, known[name], "adamw", _budget_grid(name, config), seeds, epochs
            )
    task = known[config.restart_task]
    rate, decay, cycles = RESTARTS
    seeds = config.mlp_seeds
    work["restarts"] = partial(
        measured.anytime, task, rate, decay, config.first * task.epoch, cycles, seeds
    )
    return work


def _budget_grid(name: str, config: Config) -> Grid:
    rate, (low, high) = BUDGET_GRIDS[name]
    return Grid(np.array([rate]), _decays(low, high, config.per_decade))


def _labelled(one: Map, found: dict[str, Arrays]) -> "xarray.Dataset":
    import xarray

    variables, coords = {}, {}
    for method, grid in one.grids.items():
        rate, decay = f"rate_{method}", f"decay_{method}"
        loss = found[f"{one.task.name}-{method}"]["loss"]
        variables[method] = (("seed", rate, decay), loss, {"long_name": "test loss"})
        coords[rate] = (rate, grid.rates, {"long_name": "learning rate"})
        named = "λ'" if method == "adam_l2" else "λ_LH"
        coords[decay] = (decay, grid.decays, {"long_name": f"weight decay {named}"})
    steps = one.epochs * one.task.epoch
    attrs = {"title": one.task.title, "steps": steps, "momentum": one.task.momentum}
    return xarray.Dataset(variables, coords, attrs)


def _budgets(name: str, found: dict[str, Arrays], config: Config) -> "xarray.Dataset":
    import xarray

    losses = np.array([found[f"{name}-{epochs}-epochs"]["loss"][:, 0] for epochs in config.budgets])
    task = tasks(config)[name]
    return xarray.Dataset(
        {"loss": (("epochs", "seed", "decay"), losses, {"long_name": "test loss"})},
        coords={
            "epochs": list(config.budgets),
            "steps": ("epochs", [epochs * task.epoch for epochs in config.budgets]),
            "decay": _budget_grid(name, config).decays,
        },
        attrs={"title": task.title, "rate": BUDGET_GRIDS[name][0]},
    )


def valleys(dataset: "xarray.DataTree") -> dict[str, dict[str, Valley]]:
    """By problem and panel; the decay in the panel's parametrisation."""
    found: dict[str, dict[str, Valley]] = {}
    for name in dataset.children:
        if name in ("budgets", "restarts"):
            continue
        node = dataset[name].to_dataset()
        found[name] = {}
        for panel, (method, sheared) in VALLEYS.items():
            rates = node[f"rate_{method}"].values
            one = measured.valley(node[method].values, rates, node[f"decay_{method}"].values)
            found[name][panel] = measured.sheared(one, rates) if sheared else one
    return found


def plot(dataset: "xarray.DataTree") -> "Figure":
    return decay_figure(dataset, VALLEYS, valleys(dataset), numbers(dataset))


def numbers(dataset: "xarray.DataTree") -> dict[str, Any]:
    """Values and propositions; slopes by problem; best decays by budget; restarts."""
    slopes: dict[str, Any] = {}
    for name, panels in valleys(dataset).items():
        slopes[name] = {panel: _slope(name, panel, one) for panel, one in panels.items()}
    return {
        "propositions": exact.propositions(),
        "values": exact.values(),
        "slopes": slopes,
        "budgets": {
            name: budget_numbers(node.to_dataset())
            for name, node in dataset["budgets"].children.items()
        },
        "restarts": _restart_numbers(dataset["restarts"].to_dataset()),
    }


def _slope(name: str, panel: str, one: Valley) -> dict[str, Any]:
    mean, half = one.slope
    expected = SLOPES.get(name, {}).get(panel)
    return {
        **({"found": mean, "low": mean - half, "high": mean + half} if one.line else {}),
        **({} if one.line else {"found": NOT_A_LINE}),
        "learning rates": int(one.counts.sum()),
        "rms residual of ln λ*": one.residual,
        **({} if expected is None else {"expected": expected}),
    }


def budget_numbers(node: "xarray.Dataset") -> dict[str, Any]:
    """Best λ_LH and λ_norm by epochs, how far each is spread over them, and d ln λ_LH/d ln T."""
    x, epochs = np.log(node.decay.values), node.epochs.values
    best = measured.left_out(
        node.loss.transpose("seed", "epochs", "decay").values,
        lambda mean: np.array([measured.lowest(x, row) for row in mean]),
    )
    normed = best + np.log(node.steps.values) / 2
    found: dict[str, Any] = {
        f"T = {t}": {"λ_LH": float(np.exp(best[0, i])), "λ_norm": float(np.exp(normed[0, i]))}
        for i, t in enumerate(epochs)
    }
    found["slope"] = _with_ends(np.polyfit(np.log(epochs), best.T, 1)[0])
    raw, other = np.ptp(best, axis=1), np.ptp(normed, axis=1)
    for name, spread in (("spread of λ_LH", raw), ("spread of λ_norm", other)):
        found[name] = {end: float(np.exp(value)) for end, value in _with_ends(spread).items()}
    return found


def _with_ends(found: np.ndarray) -> dict[str, float]:
    half = float(measured.half_width(found))
    return {"found": float(found[0]), "low": float(found[0] - half), "high": float(found[0] + half)}


def _restart_numbers(node: "xarray.Dataset") -> dict[str, Any]:
    """At the end of each cycle: restarts, a cosine of that budget, the cosine over all steps."""
    last = str(max(int(name) for name in node.run.values if name.isdigit()))
    found: dict[str, Any] = {}
    for end in node.attrs["ends"]:
        at = node.loss.sel(step=end)
        own = at.sel(run="restarts").values - at.sel(run=str(end)).values
        found[f"step {end}"] = {
            "restarts": float(at.sel(run="restarts").mean()),
            "cosine of this budget": float(at.sel(run=str(end)).mean()),
            "cosine over all": float(at.sel(run=last).mean()),
            "constant": float(at.sel(run="constant").mean()),
            # Until its first cycle is over AdamWR is the cosine of that budget.
            "restarts − cosine of this budget": (
                "the same run" if end == node.attrs["ends"][0] else interval(own).words
            ),
        }
    return found


def check(dataset: "xarray.DataTree") -> list[str]:
    missing, found = exact.missing(), valleys(dataset)
    for name, expected in SLOPES.items():
        for panel, wanted in expected.items():
            one = found[name][panel]
            if not one.line:
                missing.append(f"{name}, {panel}: the valley is {NOT_A_LINE}.")
            elif not abs(one.slope.mean - wanted) <= ALLOWED:
                slope = f"{one.slope.mean:.2f}"
                missing.append(f"{name}, {panel}: the slope is {slope}, not {wanted:g}.")
    for name in dataset.children:
        if name in ("budgets", "restarts"):
            continue
        for method in MEASURED:
            if not np.isfinite(dataset[name][method].values).any(axis=-1).all():
                missing.append(f"{name}, {method}: a learning rate diverges at every decay.")
    return missing
