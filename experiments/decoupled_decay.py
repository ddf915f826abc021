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
from . import _decoupled_claims as claims
from . import _decoupled_values as exact
from ._checked import check_counts, check_names
from ._decoupled import MEASURED, Task
from ._decoupled_grids import BUDGET_GRIDS, Grid, budget_grid, grids
from ._kept import Arrays, remembered, resumed

if TYPE_CHECKING:
    import xarray
    from matplotlib.figure import Figure

RIDGE_EPOCHS = 50
RESTARTS = (1e-2, 0.1, 4)
"""AdamWR's learning rate and normalised decay, its cycles."""
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


class Map(NamedTuple):
    """A problem, and what is tried on it."""

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
    ridge = grids("ridge", config.rates, config.per_decade)
    fine = config.network_rates, config.network_per_decade
    every = {
        "forget": Map(known["forget"], ridge, config.seeds, RIDGE_EPOCHS),
        "counter": Map(known["counter"], ridge, config.seeds, RIDGE_EPOCHS),
        "mlp": Map(
            known["mlp"], grids("mlp", *fine), config.mlp_seeds, config.mlp_epochs
        ),
        "convnet": Map(
            known["convnet"], grids("convnet", *fine), config.convnet_seeds,
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
                losses, known[name], "adamw", budget_grid(name, config.per_decade), seeds, epochs
            )
    task = known[config.restart_task]
    rate, decay, cycles = RESTARTS
    seeds = config.mlp_seeds
    work["restarts"] = partial(
        measured.anytime, task, rate, decay, config.first * task.epoch, cycles, seeds
    )
    return work


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
            "decay": budget_grid(name, config.per_decade).decays,
        },
        attrs={"title": task.title, "rate": BUDGET_GRIDS[name][0]},
    )


def plot(dataset: "xarray.DataTree") -> "Figure":
    return decay_figure(dataset, claims.VALLEYS, claims.valleys(dataset), numbers(dataset))


def numbers(dataset: "xarray.DataTree") -> dict[str, Any]:
    """Values and propositions; slopes by problem; best decays by budget; restarts."""
    slopes: dict[str, Any] = {}
    for name, panels in claims.valleys(dataset).items():
        slopes[name] = {panel: claims.of_slope(name, panel, one) for panel, one in panels.items()}
    return {
        "propositions": exact.propositions(),
        "values": exact.values(),
        "slopes": slopes,
        "budgets": {
            name: claims.of_budgets(node.to_dataset())
            for name, node in dataset["budgets"].children.items()
        },
        "restarts": claims.of_restarts(dataset["restarts"].to_dataset()),
    }


def check(dataset: "xarray.DataTree") -> list[str]:
    return [
        *exact.missing(),
        *claims.check_slopes(claims.valleys(dataset)),
        *claims.check_maps(dataset),
    ]
