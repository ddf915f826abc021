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
from . import _cost_claims as claims
from ._checked import check_counts, check_names
from ._cost import FLOWS, PROBLEMS, SCALINGS
from ._crossing import SLOPE
from ._kept import Arrays, numbered, resumed

if TYPE_CHECKING:
    from pathlib import Path

    import xarray
    from matplotlib.figure import Figure

LARGEST = 4e-3
"""Learning rate; the others are each a quarter of the one before."""
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
        if not set(self.flows) & set(claims.ORDERS):
            raise ValueError(
                f"flows = {self.flows} must name one of {', '.join(claims.ORDERS)} too: what is "
                "claimed is claimed of those."
            )
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
    nodes, total = {}, len(config.problems) * config.seeds
    progress(f"{total} problems; smoke 10 s, quick 8 min", 0, total)
    keep = numbered(folder, progress, total)
    for name in config.problems:
        rows = []
        for seed in range(config.seeds):
            compute = partial(
                measured.measure, name, seed, config.lengths(name), config.flows_of(name),
                config.rtols,
            )  # fmt: skip
            rows.append(keep(name, compute))
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
    for level in claims.LEVELS:
        for key in ("evaluations", "solver_steps"):
            table[f"{key}_{level}"] = claims.cheapest(table, key, level)
    return table


def plot(dataset: "xarray.DataTree") -> "Figure":
    return cost_figure(dataset, claims.WANTED)


def numbers(dataset: "xarray.DataTree") -> dict[str, Any]:
    """By problem, limit and flow: the η below which it is cheaper, exponents, work a step."""
    tables = {name: node.to_dataset() for name, node in dataset.children.items()}
    return {
        f"cheaper below, within {claims.WANTED:g}": {
            name: claims.of_best(table) for name, table in tables.items()
        },
        **{name: claims.of_problem(table) for name, table in tables.items()},
    }


def check(dataset: "xarray.DataTree") -> list[str]:
    missing = []
    for name, node in dataset.children.items():
        missing += claims.check_problem(str(name), node.to_dataset())
    return missing
