"""AdamW as constrained optimisation: the box ‖x‖_∞ ≤ 1/λ (EQUATIONS §5).

A language model in full batch; both rates of normalised steepest descent with decay; methods side
by side on a quadratic over a box; b1 > b2 and its cycle; where eps > 0 ends.
"""

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ct_adam.plotting.linf import constraint_figure
from ct_adam.sweep.provenance import provenance
from ct_adam.theory import average_update, box_steps

from . import Progress, _linf, _linf_cycle, _linf_network
from ._checked import check_counts, check_positive
from ._kept import resumed
from ._linf_network import Training

if TYPE_CHECKING:
    import xarray
    from matplotlib.figure import Figure

CLOSED, SAME, ROUNDING = 1e-9, 1e-14, 1e-12
"""Errors of the fixed points, of a step of Frank–Wolfe, and of a gap over its scale."""
TEXTS = ("tinyshakespeare", "python_topics")
WITHIN = 0.01
"""Above 1/λ, where ‖x‖_∞ counts as inside."""
PEAK, SHARE = 1.4366, 0.58
"""Of the cycle, EQUATIONS §5."""
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
    return {
        "fixed points": _fixed(nodes["fixed"], nodes.get("lyapunov")),
        "Frank–Wolfe": json.loads(dataset.attrs["frank_wolfe"]),
        "rates": _rates(nodes["rates"]),
        "box-constrained quadratic": _methods(nodes["methods"]),
        "cycle": _cycles(nodes["cycles"]),
        "language model": _network(nodes["network"], json.loads(dataset.attrs["config"])),
    }


def _fixed(fixed: "xarray.Dataset", lyapunov: "xarray.Dataset | None") -> dict[str, Any]:
    # Adam-ℓ2 with eps = 0 ends on a cycle of size η, as Adam does at any minimum.
    goal = dict.fromkeys(fixed.optimizer.values.tolist(), fixed.limit)
    goal["Adam-ℓ2"] = fixed.ridge.where(fixed.eps > 0)
    errors = {
        name: float(np.abs(fixed.end.sel(optimizer=name) - limit).max())
        for name, limit in goal.items()
    }
    found: dict[str, Any] = {"largest error": errors}
    if lyapunov is not None:
        value = lyapunov.value.values
        found["along the SignFlow"] = {
            "L + barrier, start": value[0],
            "end": value[-1],
            "largest rise": float(np.diff(value).max()),
        }
    return found


def _rates(rates: "xarray.Dataset") -> dict[str, Any]:
    over = ((rates.gap - rates.bound) / rates.scale).max(("instance", "step"))
    late = rates.isel(step=slice(rates.sizes["step"] // 2, None))
    # A gap from outside the ball can be negative, and so can its bound.
    share = (late.gap / late.bound).where(late.bound > 0).max(("instance", "step"))
    return {
        f"{norm}, η {schedule}": {
            "largest (gap − bound)/scale": float(over.sel(norm=norm, schedule=schedule)),
            "largest gap/bound, second half": float(share.sel(norm=norm, schedule=schedule)),
        }
        for norm in rates.norm.values.tolist()
        for schedule in rates.schedule.values.tolist()
    } | {
        "instances": rates.sizes["instance"],
        "of which start outside": int((rates.radii.sel(norm="linf") > 1).sum()),
    }


def _methods(methods: "xarray.Dataset") -> dict[str, Any]:
    last = methods.isel(step=-1)
    return {
        name: {
            "stationarity/‖g‖₁": float(one.stationarity / one.gradient),
            "feasibility": float(one.feasibility),
            "distance to SciPy's minimum": float(one.error),
        }
        for name in methods.optimizer.values.tolist()
        for one in [last.sel(optimizer=name)]
    } | {"coordinates at ±1/λ": methods.attrs["held"], "of": methods.attrs["size"]}


def _cycles(cycles: "xarray.Dataset") -> dict[str, Any]:
    rows = {
        name: {
            "largest |x|, second half": float(cycles.largest.sel(run=name)),
            "share outside": float(cycles.outside.sel(run=name)),
            "end": float(cycles.path.sel(run=name)[-1]),
            "|average update|": _average(cycles.path.sel(run=name).values, float(eta)),
        }
        for name, eta in zip(cycles.run.values.tolist(), cycles.rate.values, strict=True)
    }
    leaves = (cycles.late > 1 + 1e-3).any("start")
    first = cycles.eta.values[leaves.values]
    return rows | {"least η of the map with a cycle": float(first[0]) if len(first) else None}


def _average(path: np.ndarray, eta: float) -> float:
    """|Δ̄_T| over the whole run, of u = (x_n − x_{n+1})/η − x_n."""
    update = -np.diff(path) / eta - path[:-1]
    return abs(float(average_update(update)[-1])) if len(update) else np.nan


def _network(network: "xarray.Dataset", config: dict[str, Any]) -> dict[str, Any]:
    """By run λ‖x‖_∞ at start and end, and the steps after which it is below 1 % over."""
    training = Config(**config).training
    return {label(row): _training(row, training) for row in _each(network)}


def _training(row: "xarray.Dataset", training: Training) -> dict[str, Any]:
    decay = float(row.weight_decay)
    radii = row.norm.values.astype(float) * (decay or 1.0)
    found = {
        "λ‖x‖ at start": radii[0],
        "at end": radii[-1],
        "stationarity/‖g‖₁ at end": float((row.stationarity / row.gradient)[-1]),
        "loss at end": float(row.loss[-1]),
    }
    if not np.isfinite(radii).all():
        found["finite until step"] = int(row.step[np.argmin(np.isfinite(radii)) - 1])
    if not decay:
        return found
    inside = row.step.values[_since(radii <= 1 + WITHIN)] if radii[-1] <= 1 + WITHIN else None
    time = np.cumsum(training.rates())
    wanted = float(box_steps(row.norm.values[0], 1.0, decay, WITHIN))  # in learning-rate time
    return found | {
        "inside from step": None if inside is None else int(inside),
        "predicted step": int(np.searchsorted(time, wanted)) if wanted <= time[-1] else None,
    }


def _since(good: np.ndarray) -> int:
    """From which entry on all are good; the last one is."""
    return int(len(good) - np.argmin(good[::-1])) if not good.all() else 0


def _each(network: "xarray.Dataset") -> list["xarray.Dataset"]:
    return [network.isel(run=i) for i in range(network.sizes["run"])]


def label(row: "xarray.Dataset") -> str:
    """Which run of the language model."""
    decay, scale = float(row.weight_decay), float(row.scale)
    name = f"AdamW, λ = {decay:g}" if decay else "Adam"
    more = f", start × {scale:g}" if scale != 1 else ""
    return f"{name}, ({float(row.b1):g}, {float(row.b2):g}){more}"


def check(dataset: "xarray.DataTree") -> list[str]:
    found = numbers(dataset)
    missing = [
        f"{name} ends {error:.2g} from the closed form."
        for name, error in found["fixed points"]["largest error"].items()
        if not error <= CLOSED
    ]
    along = found["fixed points"].get("along the SignFlow")
    if along and not along["largest rise"] <= ROUNDING * abs(along["L + barrier, start"]):
        missing.append(f"L + barrier rises by {along['largest rise']:.2g} along the SignFlow.")
    missing += [
        f"{norm}: a step differs from Frank–Wolfe's by {difference:.2g}."
        for norm, difference in found["Frank–Wolfe"].items()
        if not difference <= SAME
    ]
    missing += [
        f"{name}: a gap exceeds its bound by {row['largest (gap − bound)/scale']:.2g} of its scale."
        for name, row in found["rates"].items()
        if isinstance(row, dict) and not row["largest (gap − bound)/scale"] <= ROUNDING
    ]
    missing += _check_methods(dataset["methods"].to_dataset())
    return missing + _check_cycle(found["cycle"]) + _check_network(dataset, found)


def _check_methods(methods: "xarray.Dataset") -> list[str]:
    """Who is within some steps of the minimum over the box; Adam-ℓ2 minimises something else."""
    near = 10 * float(_linf.harmonic(methods.sizes["step"]))
    return [
        f"{name} ends {error:.2g} from the minimum over the box."
        for name in methods.optimizer.values.tolist()
        for error in [float(methods.error.sel(optimizer=name)[-1])]
        if (error <= near) == (name == "Adam-ℓ2")
    ]


def _check_cycle(cycle: dict[str, Any]) -> list[str]:
    missing = []
    peak, share = (cycle["cycle"][key] for key in ("largest |x|, second half", "share outside"))
    # Four digits are given; the share of 18 periods of 1081 steps is within 1/36 of a period.
    if not (abs(peak - PEAK) < 1e-4 and abs(share - SHARE) < 0.01):
        missing.append(f"The cycle reaches {peak:.5g} with {share:.1%} outside.")
    missing += [
        f"{name}: AdamW ends at {cycle[name]['end']:.6g}, not at 1."
        for name in ("other basin", "slow", "b1 < b2")
        if not abs(cycle[name]["end"] - 1) <= 1e-4
    ]
    least = cycle["least η of the map with a cycle"]
    if not (least or np.inf) > _linf_cycle.CYCLE["slow"]:
        missing.append(f"AdamW cycles at η = {least:.3g} already.")
    return missing


def _check_network(dataset: "xarray.DataTree", found: dict[str, Any]) -> list[str]:
    rows = {label(row): row for row in _each(dataset["network"].to_dataset())}
    missing = []
    for name, one in found["language model"].items():
        row = rows[name]
        if not (float(row.weight_decay) and float(row.b1) <= float(row.b2)):
            continue
        if not one["at end"] <= 1 + WITHIN:
            missing.append(f"{name}: λ‖x‖ ends at {one['at end']:.4g}.")
    return missing
