"""AdamW as constrained optimisation: the box ‖x‖_∞ ≤ 1/λ (EQUATIONS §5).

A language model in full batch; both rates of normalised steepest descent with decay; methods side
by side on a quadratic over a box; b1 > b2 and its cycle; where eps > 0 ends.
"""

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ct_adam.plotting.linf import constraint_figure
from ct_adam.sweep.provenance import provenance

from . import Progress, _linf, _linf_cycle, _linf_network
from . import _linf_claims as claims
from ._checked import check_counts, check_positive
from ._kept import resumed
from ._linf_network import Training

if TYPE_CHECKING:
    import xarray
    from matplotlib.figure import Figure

TEXTS = ("tinyshakespeare", "python_topics")
EXPECTED = (
    "AdamW, AdamProx and the flow end at the closed forms, to 1e-9, and Adam-ℓ2 at ridge; L plus "
    "the barrier never rises along the SignFlow. Steepest descent with decay is Frank–Wolfe to "
    "1e-14 a step, and no gap exceeds either bound. With b1 > b2 AdamW cycles (1.4366, 58 % "
    "outside), but not from x₀ = 1, nor for η ≤ 3.5e-3; with b1 < b2 it converges to 1. A language "
    "model that AdamW trains in full batch ends within 1 % of the box for b1 ≤ b2."
)


@dataclass(frozen=True)
class Config:
    """How fine, and which language model for how long."""

    levels: int = 9
    """of eps, log-spaced in 1e-3 … 3, for fixed points"""
    flow: bool = True
    """whether flows are solved too"""
    instances: int = 400
    """quadratics on which both rates are tried"""
    method_steps: int = 20_000
    cells: int = 64
    """a side of the map of basins"""
    cycle_steps: int = 40_000
    data: str = "tinyshakespeare"
    """or python_topics, for which no file is needed"""
    pairs: int = 6
    """of decays, the first of `_linf_network.PAIRS`"""
    context: int = 4
    """So short that the same characters go on differently, and the loss cannot reach 0."""
    windows: int = 32
    """the full batch"""
    learning_rate: float = 2e-3
    flat: int = 600
    """steps of that learning rate, from where on it falls as 1/n (Ση = ∞, as the theorem asks)"""
    steps: int = 30_000
    every: int = 50

    @property
    def training(self) -> Training:
        return Training(
            self.data, self.context, self.windows, self.learning_rate, self.flat, self.steps,
            self.every,
        )  # fmt: skip

    def __post_init__(self) -> None:
        check_counts(self, levels=2, instances=2, method_steps=100, cells=2, cycle_steps=2)
        check_counts(self, pairs=1, context=1, windows=1, flat=1, every=1, steps=1)
        if self.data not in TEXTS:
            raise ValueError(f"data = {self.data!r} must be one of {', '.join(TEXTS)}.")
        if self.pairs > len(_linf_network.PAIRS):
            raise ValueError(f"pairs = {self.pairs}: there are {len(_linf_network.PAIRS)}.")
        if self.steps % self.every:
            raise ValueError(f"steps = {self.steps} must be a multiple of every = {self.every}.")
        check_positive(self, "learning_rate")


SIZES = {
    "smoke": Config(levels=3, flow=False, instances=20, method_steps=2000, cells=12, pairs=1,
                    data="python_topics", context=2, windows=8, learning_rate=0.02, flat=200,
                    steps=4000, every=10),
    "quick": Config(),
    "full": Config(levels=25, instances=4000, cells=256, context=8, windows=256, steps=100_000,
                   flat=1000),
}  # fmt: skip


def run(config: Config, progress: Progress) -> "xarray.DataTree":
    """Nodes fixed, lyapunov (with flows), rates, methods, cycles, network."""
    return resumed("linf_constraint", config, lambda folder: _run(config, progress, folder))


def _run(config: Config, progress: Progress, folder: Path) -> "xarray.DataTree":
    import xarray

    begun = time.perf_counter()
    pairs = _linf_network.PAIRS[: config.pairs]
    runs = _linf_network.runs_of(pairs, adam=config.pairs > 1)
    total = len(runs) + 4

    def told(what: str, done: int, _: int) -> None:
        progress(what, done, total)

    nodes = {"network": _linf_network.trained(runs, config.training, folder, told)}
    nodes["fixed"] = _linf.fixed_points(config.levels, config.flow)
    if config.flow:
        nodes["lyapunov"] = _linf.lyapunov()
    progress("fixed points", len(runs) + 1, total)
    nodes["rates"] = _linf.rates(config.instances)
    nodes["methods"] = _linf.methods(config.method_steps)
    progress("rates", len(runs) + 2, total)
    nodes["cycles"] = _linf_cycle.cycles(config.cells, config.cycle_steps)
    progress("cycles", len(runs) + 3, total)
    tree = xarray.DataTree.from_dict(nodes)
    difference = json.dumps(_linf.frank_wolfe_difference())
    progress("Frank–Wolfe", total, total)
    tree.attrs = {"frank_wolfe": difference, **provenance(config, time.perf_counter() - begun)}
    return tree


def plot(dataset: "xarray.DataTree") -> "Figure":
    return constraint_figure(dataset, numbers(dataset))


def numbers(dataset: "xarray.DataTree") -> dict[str, Any]:
    """By topic, what was found beside what was expected."""
    nodes = {name: node.to_dataset() for name, node in dataset.children.items()}
    config = Config(**json.loads(dataset.attrs["config"]))
    return {
        "fixed points": claims.of_fixed(nodes["fixed"], nodes.get("lyapunov")),
        "Frank–Wolfe": json.loads(dataset.attrs["frank_wolfe"]),
        "rates": claims.of_rates(nodes["rates"]),
        "box-constrained quadratic": claims.of_methods(nodes["methods"]),
        "cycle": claims.of_cycles(nodes["cycles"]),
        "language model": claims.of_network(nodes["network"], config.training),
    }


def check(dataset: "xarray.DataTree") -> list[str]:
    found = numbers(dataset)
    missing = [
        f"{name} ends {error:.2g} from the closed form."
        for name, error in found["fixed points"]["largest error"].items()
        if not error <= claims.CLOSED
    ]
    along = found["fixed points"].get("along the SignFlow")
    if along and not along["largest rise"] <= claims.ROUNDING * abs(along["L + barrier, start"]):
        missing.append(f"L + barrier rises by {along['largest rise']:.2g} along the SignFlow.")
    missing += [
        f"{norm}: a step differs from Frank–Wolfe's by {difference:.2g}."
        for norm, difference in found["Frank–Wolfe"].items()
        if not difference <= claims.SAME
    ]
    missing += [
        f"{name}: a gap exceeds its bound by {row['largest (gap − bound)/scale']:.2g} of its scale."
        for name, row in found["rates"].items()
        if isinstance(row, dict) and not row["largest (gap − bound)/scale"] <= claims.ROUNDING
    ]
    missing += claims.check_methods(dataset["methods"].to_dataset())
    return missing + claims.check_cycle(found["cycle"]) + claims.check_network(dataset, found)
