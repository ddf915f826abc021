"""AdamW as dynamic regularisation: descent, stationary laws, PAC-Bayes terms and what networks show
of them (EQUATIONS §6).

Zhou et al., *Towards Understanding Convergence and Generalization of AdamW*: the inequality of
F_k(x) = F(x) + (λ_k/2)‖x‖²_{v_k} at every step, in its regime and outside; the number of steps to a
gradient of size ε; covariances around a minimum and the terms of a PAC-Bayes bound that follow.

Networks are beside it, found and not expected: learning rate and decay of Adam, Adam-ℓ2 and AdamW
are tuned on tuning seeds by validation cross-entropy; flatness and generalisation gap are those of
other seeds, the gap on test images that chose nothing.
"""

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ct_adam.plotting.dynamic_regularization import dynamic_regularization_figure
from ct_adam.sweep.provenance import provenance

from . import Progress, _complexity, _descent, _pac_bayes, _stationary
from . import _dynamic_claims as claims
from . import _flatness as measured
from ._checked import check_counts, check_distinct, check_names, check_positive
from ._dynamic_claims import GAPS, QUARTER
from ._flatness import FLATNESS, METHODS, SCORES, Net
from ._kept import Arrays, all_remembered, resumed
from ._scale_freeness import Run, Training

if TYPE_CHECKING:
    import xarray
    from matplotlib.figure import Figure

EXPECTED = (
    "In the regime no step violates the inequality; outside (μ > 1, a λ_k that falls otherwise, "
    "η above its limit) steps do. The mean square gradient is below its bound and falls like "
    "T^(-1/2), on the toy like T^(-1/2) for η ∝ T^(-1/2) and like 1/T for η ∝ 1/T and in stages. "
    "Covariances of chains are the discrete law's, those of real Adam have √b, and laws of another "
    "kind are rejected at 10 standard errors. Where all x > 1, AdamW's PAC-Bayes term is below "
    "Adam-ℓ2's exactly where σ < 1 (b with real Adam's Q), and plain Adam's is the least of the "
    "three. Flatness and gaps of networks are found, not expected."
)


SPECTRUM_IMAGES = 1797
"""All that scikit-learn's digits are."""


@dataclass(frozen=True)
class Config:
    """How many steps, replicas and seeds; which networks, and how they are tuned."""

    descent_steps: int = 20_000
    descent_seeds: int = 5
    targets: tuple[float, ...] = _complexity.TARGETS
    """ε² of the general complexity"""
    complexity_seeds: int = 8
    horizons: tuple[int, ...] = _complexity.HORIZONS
    """T of the toy"""
    toy_groups: int = 8
    toy_replicas: int = 128
    toy_target: float = 0.004
    """F − F* after the last stage"""
    replicas: int = 80_000
    """chains with the preconditioner held: 2·10⁴ at least, for power"""
    parts: tuple[float, ...] = (0.05, 0.15, QUARTER, 0.4, 0.55, 0.7)
    """η over the largest stable one"""
    live_replicas: int = 2000
    live_steps: int = 4000
    hidden: int = 16
    """units of the network whose Gauss–Newton spectrum is taken"""
    spectrum_images: int = 600
    spectrum_steps: int = 1000
    nets: tuple[str, ...] = measured.NETS
    images: str = "digits"
    rates: tuple[float, ...] = (3e-3, 1e-2, 3e-2, 1e-1, 3e-1)
    decays: tuple[float, ...] = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1, 1.0)
    tuning_seeds: int = 3
    seeds: int = 12
    """other than the tuning ones, at the best cells"""
    batch: int = 16
    train: int = 256
    """images: so few that networks fit them, and a gap opens"""
    validation: int = 400
    test: int = 781
    steps: int = 400
    lanes: int = 15

    def __post_init__(self) -> None:
        check_counts(self, descent_steps=1, descent_seeds=1, complexity_seeds=2, toy_groups=2)
        check_counts(self, toy_replicas=1, replicas=2, live_replicas=2, live_steps=100)
        check_counts(self, hidden=1, spectrum_images=1, spectrum_steps=1)
        check_counts(self, tuning_seeds=1, seeds=2, batch=1, train=1, validation=1, test=1)
        check_counts(self, steps=1, lanes=1)
        check_names(self, once=True, nets=measured.NETS)
        check_positive(self, "toy_target")
        if not self.toy_target < _complexity.LARGEST_TARGET:
            raise ValueError(
                f"toy_target = {self.toy_target} must be below {_complexity.LARGEST_TARGET:g}: "
                "an exponent needs two stages after the first three."
            )
        if self.images not in measured.IMAGES:
            raise ValueError(f"images = {self.images!r} must be {' or '.join(measured.IMAGES)}.")
        check_distinct(self, 1, "rates", "decays")
        check_distinct(self, 2, "targets", "horizons")
        if not all(isinstance(steps, int) for steps in self.horizons):
            raise ValueError(f"horizons = {self.horizons} must be whole numbers of steps.")
        there, wanted = measured.IMAGES[self.images], self.train + self.validation + self.test
        if wanted > there:
            raise ValueError(
                f"train + validation + test = {wanted}, {self.images} has {there}: ask for fewer."
            )
        if self.spectrum_images > SPECTRUM_IMAGES:
            raise ValueError(
                f"spectrum_images = {self.spectrum_images} must be {SPECTRUM_IMAGES} at most."
            )
        if QUARTER not in self.parts or not all(0 < part < 1 for part in self.parts):
            raise ValueError(f"parts = {self.parts} must lie in (0, 1), {QUARTER} among them.")

    @property
    def training(self) -> Training:
        return Training(
            self.batch, self.train, self.validation, self.test, self.steps, 1, self.lanes
        )


SIZES = {
    "smoke": Config(descent_steps=1000, descent_seeds=2, targets=_complexity.TARGETS[:2],
                    complexity_seeds=4, horizons=_complexity.HORIZONS[:2], toy_groups=4,
                    toy_replicas=32, toy_target=0.05, replicas=30_000, parts=(QUARTER,),
                    live_replicas=300, live_steps=1500, hidden=4, spectrum_images=100,
                    spectrum_steps=200,
                    nets=("MLP",), rates=(3e-2,), decays=(1e-3, 1e-1), tuning_seeds=1, seeds=2,
                    train=64, validation=100, test=200, steps=50, lanes=6),
    "quick": Config(),
    "full": Config(descent_steps=200_000, descent_seeds=20, complexity_seeds=32,
                   horizons=(100, 316, 1000, 3162, 10_000, 31_623, 100_000), toy_target=0.001,
                   replicas=1_000_000, live_replicas=5000, live_steps=20_000, hidden=32,
                   spectrum_images=1797, spectrum_steps=2000, images="mnist",
                   rates=(1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1), tuning_seeds=5, seeds=20, batch=64,
                   train=1024, validation=2000, test=5000, steps=4000),
}  # fmt: skip


def run(config: Config, progress: Progress) -> "xarray.DataTree":
    """Nodes descent (`_descent`), general, toy_rates, toy_stages (`_complexity`), modes, matrices,
    live (`_stationary`), spectrum, pac_bayes, priors (`_pac_bayes`), and a node a network over its
    fresh runs."""
    return resumed("dynamic_regularization", config, lambda folder: _run(config, progress, folder))


def _theory(config: Config) -> dict[str, Callable[[], "xarray.Dataset"]]:
    """What is measured without networks, by the node's name; the longest first."""
    size = config.toy_groups, config.toy_replicas
    spectrum = config.hidden, config.spectrum_images, config.spectrum_steps
    return {
        "general": partial(_complexity.general, config.complexity_seeds, config.targets),
        "live": partial(_stationary.live, config.live_replicas, config.live_steps),
        "toy_rates": partial(_complexity.toy_rates, *size, config.horizons),
        "toy_stages": partial(_complexity.toy_stages, *size, config.toy_target),
        "modes": partial(_stationary.modes, config.replicas, config.parts),
        "matrices": partial(_stationary.matrices, config.replicas),
        "descent": partial(_descent.inequality, config.descent_steps, config.descent_seeds),
        "spectrum": partial(_pac_bayes.network_spectrum, *spectrum),
    }


def _run(config: Config, progress: Progress, folder: Path) -> "xarray.DataTree":
    import xarray

    begun = time.perf_counter()
    work = _theory(config)
    each = len(_tuning(config)) + len(METHODS) * config.seeds
    total, done = each * len(config.nets) + len(work), 0

    def told(what: str, pieces: int) -> None:
        nonlocal done
        done += pieces
        progress(what, done, total)

    kept = all_remembered(
        [(folder / f"{name}.npz", partial(_flat, compute)) for name, compute in work.items()],
        lambda i, _: told(list(work)[i], 1),
    )
    nodes = dict(zip(work, map(_dataset, kept), strict=True))
    nodes["pac_bayes"] = _pac_bayes.pac_bayes(nodes["spectrum"])
    nodes["priors"] = _pac_bayes.priors(nodes["spectrum"])
    h = np.diag(_stationary.LIVE_HESSIANS["modes"]).tolist()
    nodes["live"] = nodes["live"].assign_attrs(curvatures=h)
    for i, net in enumerate(Net(name, config.images) for name in config.nets):
        nodes[f"network_{i}"] = _network(net, config, partial(told, net.name), folder / str(i))
    tree = xarray.DataTree.from_dict(nodes)
    tree.attrs = provenance(config, time.perf_counter() - begun)
    return tree


def _tuning(config: Config) -> list[Run]:
    cells = measured.cells(config.rates, config.decays)
    return [Run(cell, seed) for cell in cells for seed in range(config.tuning_seeds)]


def _network(net: Net, config: Config, told: Callable[[int], None], path: Path) -> "xarray.Dataset":
    """Its pieces are kept in files that begin with `path`."""
    there = config.training
    tuning, fresh = (path.with_name(f"{path.name}-{part}") for part in ("tuning", "fresh"))
    chose = measured.results(net, _tuning(config), there, False, told, tuning)
    best = measured.best_cells(chose)
    again = [Run(best[m], s) for m in METHODS for s in _fresh(config)]
    found = measured.results(net, again, there, True, told, fresh)
    return _labelled(net, best, found, config)


def _flat(compute: Callable[[], "xarray.Dataset"]) -> Arrays:
    """A Dataset as arrays, which can be kept; its labels as JSON."""
    dataset = compute()
    about = dataset.to_dict(data=False)
    return {**{str(k): v.values for k, v in dataset.variables.items()}, "/": json.dumps(about)}


def _dataset(arrays: Arrays) -> "xarray.Dataset":
    import xarray

    about = json.loads(str(arrays["/"]))
    for part in ("coords", "data_vars"):
        for name, one in about[part].items():
            one["data"] = arrays[name]
    return xarray.Dataset.from_dict(about)


def _fresh(config: Config) -> range:
    return range(config.tuning_seeds, config.tuning_seeds + config.seeds)


def _labelled(net: Net, best: Any, found: dict[Run, Any], config: Config) -> "xarray.Dataset":
    """Fresh runs by method and seed, their cells by method."""
    import xarray

    values = {
        name: (
            ("optimizer", "seed"),
            [[float(found[Run(best[m], s)][name]) for s in _fresh(config)] for m in METHODS],
        )
        for name in (*SCORES, *FLATNESS)
    }
    dataset = xarray.Dataset(
        values,
        {
            "optimizer": list(METHODS),
            "seed": list(_fresh(config)),
            "rate": ("optimizer", [best[m].rate for m in METHODS]),
            "decay": ("optimizer", [best[m].decay for m in METHODS]),
        },
        {"name": net.name},
    )
    for gap, score in zip(GAPS, ("loss", "error"), strict=True):
        dataset[gap] = dataset[f"test {score}"] - dataset[f"train {score}"]
    return dataset


def plot(dataset: "xarray.DataTree") -> "Figure":
    return dynamic_regularization_figure(dataset, numbers(dataset))


def _networks(dataset: "xarray.DataTree") -> Iterator["xarray.Dataset"]:
    for name, node in dataset.children.items():
        if name.startswith("network"):
            yield node.to_dataset()


def numbers(dataset: "xarray.DataTree") -> dict[str, Any]:
    """By topic, what was found beside what was expected."""
    networks = list(_networks(dataset))
    node = {name: dataset[name].to_dataset() for name in dataset.children}
    return {
        "descent": claims.of_descent(node["descent"]),
        "gradients": claims.of_gradients(node),
        "variances of §6": claims.of_variances(node["live"]),
        "laws": {name: claims.of_laws(node[name]) for name in ("modes", "matrices", "live")},
        "PAC-Bayes": claims.of_pac_bayes(node["pac_bayes"], node["spectrum"], node["priors"]),
        "networks": {net.attrs["name"]: claims.of_network(net, len(networks)) for net in networks},
    }


def check(dataset: "xarray.DataTree") -> list[str]:
    found = numbers(dataset)
    return [
        *claims.check_descent(found["descent"]),
        *claims.check_gradients(found["gradients"]),
        *claims.check_laws(found),
        *claims.check_pac(found["PAC-Bayes"]),
    ]
