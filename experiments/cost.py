"""When a flow is cheaper than its optimizer: evaluations against steps, η → 0 at fixed η·steps.

Derived beforehand. What a run costs is C + L·steps:

- *C, of the path itself*, which has a limit at fixed η·steps. To be as near to the limit as the
  flow is to the optimizer, an error O(η^p), a solver of order 5 takes steps ∝ η^{p/5}: exponent
  p/5 in 1/η at the flow's own error, 0 at a wanted error that stays.
- *L, of the memory*. With fixed decays m' = a (g - m) relaxes in 1/a optimizer steps however small
  η is, and no explicit solver steps further than its stability interval: L is
  `_cost.derived_limit`, 0.18 evaluations a step for Tsit5 at b1 = 0.9, twice that where a call
  takes two steps of the optimizer (Bosh3 0.13, Heun 0.11). The exponent tends to 1, and no flow is
  more than 1/L times cheaper. Rejected steps come on top. With 1-b ∝ η, without memory or with an
  implicit solver L is 0; of the latter solver steps are shown, which claims leave out.
"""

import time
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from ct_adam.plotting.cost import cost_figure
from ct_adam.sweep.provenance import provenance

from . import Progress
from . import _cost as measured
from ._checked import check_counts, check_names
from ._cost import FLOWS, PROBLEMS, SCALINGS
from ._crossing import SLOPE, crossing, crossing_words, exponents, interval
from ._kept import Arrays, remembered, resumed

if TYPE_CHECKING:
    from pathlib import Path

    import xarray
    from matplotlib.figure import Figure

LARGEST = 4e-3
"""Learning rate; the others are each a quarter of the one before."""
WANTED = 1e-2
"""Error over the distance travelled."""
FLOOR = 2.0
"""A solver is good enough with an error of the flow of at most so many times that at the tightest
tolerance, which is the model's own."""
LEVELS = ("wanted", "own")
ORDERS = {"log": 1, "staggered": 2, "interpolating-2": 2}
"""p of the flows that have Adam's memory."""
FLAT, BEND = 0.2, 0.1
SETTLED = 30
"""Longest stable steps in a run, from which on L is a bound: before, an error that grows may stay
below the tolerance."""
BELOW = 0.9
"""Of L: with steps that are longer and shorter in turn, the mean of ln|R| is 0 and not of R."""
RULES, STEEP = 8.0, 0.8
"""C + L·steps has a local exponent of 0.79 between two runs, one four times longer than the other,
where L·steps of the longer one is 8 C."""
EXPECTED = (
    "With 1-b ∝ η a flow's evaluations stay: their exponent in 1/η is below 0.2 at an error of "
    "1e-2, and below p/5 + 0.1 at its own. With fixed decays they do not fall below 0.9 of the "
    "derived 0.18 evaluations a step (0.36 for the interpolating flow), and grow with an exponent "
    "above 0.8 once the memory is most of the cost. On every problem and in both limits there is "
    "an η below which a flow is cheaper than the optimizer and within 1e-2 of it."
)


@dataclass(frozen=True)
class Config:
    """What to run. Budgets on two free cores: smoke 10 s (25 s with compilation), quick 8 min."""

    problems: tuple[str, ...] = tuple(PROBLEMS)
    flows: tuple[str, ...] = tuple(FLOWS)
    points: int = 5
    """learning rates"""
    seeds: int = 3
    rtols: tuple[float, ...] = (1e-2, 1e-3, 1e-5)
    """relative tolerances of the solver, the tightest last; the absolute one is a thousandth"""

    def __post_init__(self) -> None:
        check_names(self, problems=PROBLEMS, flows=FLOWS)
        check_counts(self, points=SLOPE, seeds=2)
        falling = all(b < a for a, b in zip(self.rtols, self.rtols[1:], strict=False))
        if not self.rtols or not falling or not all(0 < rtol < 1 for rtol in self.rtols):
            raise ValueError(f"rtols = {self.rtols} must fall, between 1 and 0.")

    def lengths(self, problem: str) -> tuple[int, ...]:
        first = round(PROBLEMS[problem].horizon / LARGEST)
        return tuple(first * 4**k for k in range(self.points))

    def flows_of(self, problem: str) -> list[str]:
        return [flow for flow in self.flows if problem in FLOWS[flow].problems]


SIZES = {
    "smoke": Config(problems=("quadratic",), flows=("log",), seeds=2),
    "quick": Config(),
    "full": Config(points=7, seeds=8, rtols=(1e-2, 3e-3, 1e-3, 1e-4, 1e-5, 1e-6)),
}


def run(config: Config, progress: Progress) -> "xarray.DataTree":
    """A node a problem, over (seed, scaling, flow, eta, rtol)."""
    return resumed("cost", config, lambda folder: _run(config, progress, folder))


def _run(config: Config, progress: Progress, folder: "Path") -> "xarray.DataTree":
    import xarray

    begun = time.perf_counter()
    nodes, done, total = {}, 0, len(config.problems) * config.seeds
    progress(f"{total} problems; smoke 10 s, quick 8 min", done, total)
    for name in config.problems:
        rows = []
        for seed in range(config.seeds):
            compute = partial(
                measured.measure, name, seed, config.lengths(name), config.flows_of(name),
                config.rtols,
            )  # fmt: skip
            rows.append(remembered(folder / f"{done}.npz", compute))
            done += 1
            progress(name, done, total)
        nodes[name] = _labelled(name, config, rows)
    tree = xarray.DataTree.from_dict(nodes)
    tree.attrs = provenance(config, time.perf_counter() - begun)
    return tree


_MEASURED = {
    "error": "max |flow − optimizer| / distance travelled",
    "solver_steps": "solver steps, rejected ones too",
    "evaluations": "gradient evaluations, those of warm steps too",
}


def _labelled(name: str, config: Config, rows: list[Arrays]) -> "xarray.Dataset":
    import xarray

    problem, lengths = PROBLEMS[name], np.array(config.lengths(name))
    dims = ("seed", "scaling", "flow", "eta", "rtol")
    losses = np.array([row["loss"] for row in rows])
    table = xarray.Dataset(
        {
            **{
                key: (dims, np.array([row[key] for row in rows]), {"long_name": words})
                for key, words in _MEASURED.items()
            },
            "loss": (("seed", "scaling", "eta", "end"), losses, {"long_name": "optimizer's loss"}),
        },
        coords={
            "scaling": list(SCALINGS),
            "flow": config.flows_of(name),
            "learning_rate": ("eta", problem.horizon / lengths),
            "steps": ("eta", lengths),
            "rtol": list(config.rtols),
            "end": ["first", "last"],
            "limit": (
                "flow",
                [measured.derived_limit(flow) or np.nan for flow in config.flows_of(name)],
                {"long_name": "derived evaluations a step, fixed decays"},
            ),
        },
        attrs={"title": problem.title, "horizon": problem.horizon, "warm": measured.WARM},
    )
    table["own"] = table.error.isel(rtol=-1, drop=True)
    for level in LEVELS:
        for key in ("evaluations", "solver_steps"):
            table[f"{key}_{level}"] = cheapest(table, key, level)
    return table


def cheapest(table: "xarray.Dataset", key: str, level: str) -> "xarray.DataArray":
    """The least work of a run that is good enough: within `WANTED`, or near its own floor; NaN if
    none is."""
    allowed = WANTED if level == "wanted" else FLOOR * table.error.isel(rtol=-1, drop=True)
    good = (table.error <= allowed) & np.isfinite(table.error)
    return table[key].where(good).min("rtol")


def plot(dataset: "xarray.DataTree") -> "Figure":
    return cost_figure(dataset, WANTED)


def crossings(one: "xarray.Dataset", level: str) -> np.ndarray:
    """One a seed: where a flow gets cheaper than the optimizer, at its own error or at `WANTED`."""
    ratio = one[f"evaluations_{level}"] / (one.attrs["warm"] + one.steps)
    excess = np.log(ratio.transpose("seed", "eta").values)
    if level == "wanted":
        # Where it is not good enough it is not cheaper either, however few its evaluations.
        off = np.log(one.own.transpose("seed", "eta").values / WANTED)
        excess = np.fmax(excess, off)
    return np.array([crossing(one.learning_rate.values, row) for row in excess])


def numbers(dataset: "xarray.DataTree") -> dict[str, Any]:
    """By problem, limit and flow: the η below which it is cheaper, exponents, work a step."""
    found: dict[str, Any] = {f"cheaper below, within {WANTED:g}": _best(dataset)}
    for name, node in dataset.children.items():
        table = node.to_dataset()
        first, last = (
            float(table.loss.sel(end=end).isel(eta=-1, scaling=0).mean()) for end in table.end
        )
        found[name] = {
            "problem": {"η·steps": table.horizon, "loss from": first, "to": last},
            **{
                f"{WORDS[scaling]}, {flow}": _row(table.sel(scaling=scaling, flow=flow))
                for scaling in table.scaling.values
                for flow in table.flow.values
                if scaling in FLOWS[str(flow)].scalings
            },
        }
    return found


def _best(dataset: "xarray.DataTree") -> dict[str, dict[str, str]]:
    """By problem and limit the flow that is the first to be worth its while."""
    found: dict[str, dict[str, str]] = {}
    for name, node in dataset.children.items():
        table, found[name] = node.to_dataset(), {}
        for scaling in table.scaling.values:
            ways = {
                str(flow): crossings(table.sel(scaling=scaling, flow=flow), "wanted")
                for flow in table.flow.values
                if flow in ORDERS
            }
            # In a mean of logarithms a seed without a crossing, NaN, counts as 0.
            first = max(ways, key=lambda flow: np.log(np.fmax(ways[flow], 1e-300)).mean())
            words = crossing_words(table.learning_rate.values, ways[first])
            found[name][WORDS[str(scaling)]] = f"{first}: {words}"
    return found


WORDS = {"fixed": "fixed decays", "scaled": "1-b ∝ η"}


def _row(one: "xarray.Dataset") -> dict[str, Any]:
    rates, steps, smallest = one.learning_rate.values, one.steps.values, one.isel(eta=-1)
    implicit = bool(one.evaluations.isnull().all())
    key = "solver_steps" if implicit else "evaluations"
    row: dict[str, Any] = {"of": key}
    for level, words in (("wanted", f"at {WANTED:g}"), ("own", "at its own error")):
        work = one[f"{key}_{level}"].transpose("seed", "eta").values
        row[f"exponent {words}"] = interval(exponents(steps, work)).words
        if not implicit:
            row[f"cheaper below, {words}"] = crossing_words(rates, crossings(one, level))
    row["at the smallest η"] = float(smallest[f"{key}_own"].mean())
    row["a step"] = float(((smallest[f"{key}_own"] - one.attrs["warm"]) / smallest.steps).mean())
    if str(one.scaling.values) == "fixed" and np.isfinite(one.limit):
        row["derived"] = float(one.limit)
    row["own error there, largest of the seeds"] = float(smallest.own.max())
    return row


def check(dataset: "xarray.DataTree") -> list[str]:
    missing = []
    for name, node in dataset.children.items():
        table = node.to_dataset()
        judged = [str(flow) for flow in table.flow.values if flow in ORDERS]
        for flow in judged:
            one = table.sel(flow=flow)
            missing += _check_flat(f"{name}, {flow}", flow, one.sel(scaling="scaled"))
            missing += _check_memory(f"{name}, {flow}", one)
        for scaling in SCALINGS:
            ways = [crossings(table.sel(flow=flow, scaling=scaling), "wanted") for flow in judged]
            if not any(np.all(way > 0) for way in ways):  # NaN: none
                missing.append(
                    f"{name}, {WORDS[scaling]}: no flow is cheaper and within {WANTED:g} down to "
                    f"η = {float(table.learning_rate.min()):.2g} for every seed."
                )
    return missing


def _check_flat(where: str, flow: str, one: "xarray.Dataset") -> list[str]:
    missing = []
    for level, most in (("wanted", FLAT), ("own", ORDERS[flow] / 5 + BEND)):
        work = one[f"evaluations_{level}"].transpose("seed", "eta").values
        found = interval(exponents(one.steps.values, work))
        if not found.mean < most:
            missing.append(
                f"{where}, 1-b ∝ η: the exponent at {LEVEL_WORDS[level]} is {found.words}: claimed "
                f"was below {most:g}."
            )
    return missing


LEVEL_WORDS = {"wanted": f"an error of {WANTED:g}", "own": "its own error"}


def _check_memory(where: str, one: "xarray.Dataset") -> list[str]:
    """The bound, and the exponent where the memory rules."""
    missing, limit, steps = [], float(one.limit), one.steps.values
    ours = one.evaluations_own.sel(scaling="fixed").transpose("seed", "eta").values
    path = one.evaluations_own.sel(scaling="scaled").transpose("seed", "eta").values
    a_step = (ours - one.attrs["warm"]) / steps
    # Tsit5's six calls a step, over L, are its longest stable step.
    settled = steps * limit / (6 * FLOWS[str(one.flow.values)].calls) >= SETTLED
    if settled.any() and not a_step[:, settled].min() >= BELOW * limit:
        least = a_step[:, settled].min()
        missing.append(f"{where}: {least:.3f} evaluations a step, derived {limit:.3f} at least.")
    if np.all(limit * steps[-1] >= RULES * path[:, -1]):
        slope = np.log(ours[:, -1] / ours[:, -2]) / np.log(steps[-1] / steps[-2])
        if not slope.mean() > STEEP:
            missing.append(f"{where}, fixed decays: the exponent is {slope.mean():.3f}.")
    return missing
