"""Orders of convergence of every published model and of the interpolating flows (EQUATIONS §1).

Error against the flow's own optimizer over a fixed η·steps, in two limits η → 0: with fixed decays,
where the memory of 1/(1-b) steps gets short beside the run, and with 1-b ∝ η, where it keeps its
part of the run and Adam becomes an ODE with memory.

Derived beforehand. Of a lag of ℓ steps that a flow has too much, θ keeps an error of ℓ·η·Δu.

- *Fixed decays.* The start is forgotten and the table of mean lags decides: every equation of order
  1 misses -(1-b)/12 (`log`, and `sme`, `staggered` with its rates), -½ (`lag`, and `heavy_ball`,
  `rmsprop_stable` with its rates), ½ (`euler`) of a step: slope 1. `paper`, of order 2 with the lag
  rates, misses none: slope 2. Without memory the whole lag is missed (1) but for the modified
  equation, which has it (2). On the slow manifold, which an interpolating flow shares up to its
  order, every μ is 1 - O(η): slope p.
- *1-b ∝ η.* Each step of the optimizer is O(η) and an ODE of its limit has slope 1. Not more for
  `log` and `paper`, although their lag is right to O(η): the hand-over leaves m off by a part of
  a step, δm = O(η)(g - m), and it is forgotten in O(1/η) steps only, so that θ keeps η·δm/(1-b) =
  O(η). `sme` and `staggered` mend just that: 2. Memoryless models have another limit: 0.
  Interpolating flows: p, since (1-μ)^{p+1} = O(η^{p+1}) a step in every mode.
- *From the first step*, not judged: 1 - bⁿ and, without bias correction, √v are no smooth functions
  of ηn there; `rmsprop_stable` without bias correction starts from ν = 0, and falls below 1.
"""

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from jaxtyping import Float

from ct_adam.flows.registry import FLOWS
from ct_adam.plotting.convergence_order import convergence_figure
from ct_adam.simulate.orders import fit_order
from ct_adam.sweep.provenance import provenance

from . import Progress
from . import _orders as measured
from ._checked import check_counts, check_names
from ._crossing import interval
from ._kept import remembered, resumed

if TYPE_CHECKING:
    from pathlib import Path

    import xarray
    from matplotlib.figure import Figure


class Slopes(NamedTuple):
    """The derived order in the judged limits; 0 where the error tends to a constant."""

    fixed: int
    scaled: int


THEORY = {
    "log": Slopes(1, 1),
    "lag": Slopes(1, 1),
    "euler": Slopes(1, 1),
    "paper": Slopes(2, 1),
    "sme": Slopes(1, 2),
    "staggered": Slopes(1, 2),
    "modified": Slopes(2, 0),
    "memoryless": Slopes(1, 0),
    "heavy_ball": Slopes(1, 1),
    "gradient": Slopes(1, 1),
    "sign": Slopes(1, 1),
    "rmsprop_stable": Slopes(1, 1),
    **{f"interpolating-{p}": Slopes(p, p) for p in range(1, 7)},
    **{f"interpolating-{p}x2": Slopes(p, p) for p in (2, 3)},
}
LIMITS = {"fixed": measured.fixed, "scaled": measured.scaled, "first": measured.first}
JUDGED = Slopes._fields
LENGTHS = np.array([80, 100, 120, 160, 200, 240, 320, 400, 480, 640, 800, 960, 1280, 1600])
"""Steps in the horizon, one a learning rate."""
FLOOR = {"fixed": 1e-12, "scaled": 2e-11}
"""Errors below are left out: the solver's own are up to 3e-14 and 1e-12."""
POINTS = 5
"""A slope is taken over the smallest η that the floor leaves, so many."""
TOLERANCE = 0.1
"""Of the derived order (of 1, where it is less): at a finite η the next order in η bends a slope by
a part of it."""
WIDEST = 0.5
"""An interval of twice this width holds two orders."""
EXPECTED = (
    "The slope of the error against η is the one derived: its 95 % interval meets it within a "
    "tenth, and is no wider than ± 0.5. With fixed decays "
    "1 for equations of order 1 and memoryless ones, 2 for the paper's equation and the modified "
    "one; with 1-b ∝ η 1 for every ODE with Adam's memory, 2 for those to second order, 0 for "
    "those without memory; p for interpolating flows in both."
)


@dataclass(frozen=True)
class Config:
    """Which models, on how many problems. smoke 6 s, quick 2 min of two cores; compiling is most
    of it."""

    seeds: int = 8
    """random rotations and starts"""
    models: tuple[str, ...] = tuple(name for name in THEORY if name in FLOWS or "-" in name)

    def __post_init__(self) -> None:
        check_counts(self, seeds=2)
        check_names(self, models=THEORY)


SIZES = {
    "smoke": Config(seeds=4, models=("log", "interpolating-2")),
    "quick": Config(),
    "full": Config(seeds=64),
}


def run(config: Config, progress: Progress) -> "xarray.DataTree":
    """Nodes `fixed`, `scaled` and `first`, over (model, eta, seed)."""
    return resumed("convergence_order", config, lambda folder: _run(config, progress, folder))


def _run(config: Config, progress: Progress, folder: "Path") -> "xarray.DataTree":
    import xarray

    begun = time.perf_counter()
    draw = measured.drawn(config.seeds)
    rows: dict[str, list[dict[str, np.ndarray]]] = {limit: [] for limit in LIMITS}
    for done, name in enumerate(config.models):
        for limit, setting_of in LIMITS.items():
            setting = setting_of(LENGTHS)

            def found(name: str = name, setting: measured.Setting = setting) -> dict[str, Any]:
                errors = np.asarray(measured.errors(name, setting, draw))
                return {"error": errors, "learning_rate": np.asarray(setting.learning_rate)}

            rows[limit].append(remembered(folder / f"{name}-{limit}.npz", found))
        progress(name, done + 1, len(config.models))
    tree = xarray.DataTree.from_dict(
        {limit: _labelled(limit, config.models, found) for limit, found in rows.items()}
    )
    tree.attrs = provenance(config, time.perf_counter() - begun)
    return tree


def judged(limit: str) -> str:
    """The limit whose orders are derived; that from the first step has those of `scaled`."""
    return limit if limit in JUDGED else "scaled"


def _labelled(
    limit: str, models: tuple[str, ...], rows: list[dict[str, np.ndarray]]
) -> "xarray.Dataset":
    import xarray

    def about(name: str) -> dict[str, str]:
        return {"long_name": name, "units": "1"}

    floor = FLOOR[judged(limit)]
    slopes = np.array([slopes_of(row["learning_rate"], row["error"], floor) for row in rows])
    intervals = np.array([interval(of) for of in slopes])
    orders = [getattr(THEORY[name], judged(limit)) for name in models]
    return xarray.Dataset(
        {
            "error": (
                ("model", "eta", "seed"),
                np.array([row["error"] for row in rows]),
                about("max |flow − optimizer| / distance travelled"),
            ),
            "slope": (("model", "seed"), slopes, about("slope of ln error against ln η")),
            "mean": ("model", intervals[:, 0], about("mean slope over seeds")),
            "half_width": ("model", intervals[:, 1], about("of its 95 % interval, by Student's t")),
        },
        coords={
            "model": list(models),
            "learning_rate": (
                ("model", "eta"),
                np.array([row["learning_rate"] for row in rows]),
                about("learning rate η"),
            ),
            "derived": ("model", orders, about("derived order")),
        },
        attrs={"limit": limit, "floor": floor},
    )


def slopes_of(rates: np.ndarray, errors: np.ndarray, floor: float) -> Float[np.ndarray, " seed"]:
    """One a seed, over the smallest rates that leave an error above the floor; NaN for fewer than
    three."""
    found = np.full(errors.shape[1], np.nan)
    for seed, column in enumerate(errors.T):
        clear = np.flatnonzero(column > floor)
        used = clear[np.argsort(rates[clear])][:POINTS]
        if len(used) >= 3:
            found[seed] = fit_order(rates[used], column[used]).order
    return found


def verdict(mean: float, half_width: float, derived: int) -> str:
    """ "as derived" if the interval meets the derived order ± the tolerance, "higher", "lower";
    "undecided" if the interval is so wide that orders cannot be told apart."""
    if not half_width <= WIDEST or np.isnan(mean):
        return "undecided"
    reach = half_width + TOLERANCE * max(1, derived)
    if abs(mean - derived) <= reach:
        return "as derived"
    return "higher" if mean > derived else "lower"


def plot(dataset: "xarray.DataTree") -> "Figure":
    return convergence_figure(dataset)


def numbers(dataset: "xarray.DataTree") -> dict[str, Any]:
    """A line a model and limit; the models of the registry of which no order is derived here."""
    found: dict[str, Any] = {}
    for limit in LIMITS:
        node = dataset[limit].to_dataset()
        found[WORDS[limit]] = {str(name): _row(node.sel(model=name)) for name in node.model.values}
    left = [name for name in FLOWS if name not in THEORY and name != "interpolating"]
    if left:
        found["no order derived"] = ", ".join(left)
    return found


WORDS = {
    "fixed": "fixed decays",
    "scaled": "1 - b in proportion to η",
    "first": "1 - b in proportion to η, from the first step (not judged)",
}


def _row(one: "xarray.Dataset") -> dict[str, Any]:
    mean, half, derived = (x.item() for x in (one["mean"], one.half_width, one.derived))
    typical = np.exp(np.log(one.error).mean("seed"))
    smallest = int(np.flatnonzero(typical > one.attrs.get("floor", 0))[-1])
    return {
        "derived": derived,
        "slope": mean,
        "95 % from": mean - half,
        "to": mean + half,
        "verdict": verdict(mean, half, derived),
        "smallest η above the floor": float(one.learning_rate[smallest]),
        "error there (geometric mean)": float(typical[smallest]),
    }


def check(dataset: "xarray.DataTree") -> list[str]:
    missing, found = [], numbers(dataset)
    for words in (WORDS[limit] for limit in JUDGED):
        for name, row in found[words].items():
            if row["verdict"] != "as derived":
                missing.append(
                    f"{words}, {name}: the slope is {row['slope']:.3f} [{row['95 % from']:.3f}, "
                    f"{row['to']:.3f}], derived {row['derived']}: {row['verdict']}."
                )
    return missing
