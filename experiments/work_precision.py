"""For a wanted error, which flow costs least, and when to run the optimizer itself.

Error against gradient evaluations and solver steps, of plain orders, strides, degrees above the
order (EQUATIONS §1, `ct.theory.coefficients`) and the models of Adam that ask for one gradient a
call, by tolerance and solver. The optimizer's own run costs one gradient a step and has no error.
`python tools/choosing_table.py` writes the table of docs/choosing.md from the record.
"""

import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ct_adam.plotting.work_precision import work_figure
from ct_adam.sweep.provenance import provenance

from . import Progress, _work
from ._checked import check_counts, check_names
from ._kept import Arrays, numbered, resumed
from ._work import CASES, Case

if TYPE_CHECKING:
    import xarray
    from matplotlib.figure import Figure

WANTED = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5)
"""Errors over the distance travelled."""
CHEAPER = ("smooth", "digits, small steps")
AT = 1e-3
"""The error at which flows are compared with the optimizer; past the edge the first of `WANTED`."""
SAVED = 0.5
"""Solver steps of the highest degree over those of the plain order: the largest rates on |μ| = √b1
are 4.0 and 3.6 times shorter, and half of that is to be left by the rest of the run."""
EXPECTED = (
    "For an error of 1e-3 a flow costs fewer gradients than the optimizer on the smooth problem "
    "and on the digits MLP at η = 1e-4; at η = 0.01, and past the edge for 0.1, the optimizer "
    "itself is cheaper than every flow. At η = 0.01 the degrees 6 and 7 take less than half the "
    "solver steps of the plain orders 2 and 3, and degree 7 fewer gradients than order 3 with "
    "stride 2."
)


@dataclass(frozen=True)
class Config:
    """What to run. Budgets on two free cores: smoke 10 s (25 s with compilation), quick 8 min."""

    cases: tuple[str, ...] = tuple(CASES)
    """names among `smooth`, `digits, small steps`, `digits`, `edge`"""
    rtols: tuple[float, ...] = (1e-2, 1e-3, 1e-4)
    """relative tolerances of the solver; the absolute one is a thousandth"""
    solvers: tuple[str, ...] = _work.ALL
    """those of them that a case asks for"""
    highest: int = 6
    """order"""
    budget: int = 2048
    """most solver steps a run"""

    def __post_init__(self) -> None:
        check_names(self, cases=CASES, solvers=_work.SOLVERS)
        if not self.rtols or not all(0 < rtol < 1 for rtol in self.rtols):
            raise ValueError(f"rtols = {self.rtols} must lie between 0 and 1.")
        check_counts(self, highest=1, budget=1)

    def solvers_of(self, case: Case) -> list[str]:
        return [name for name in self.solvers if name in case.solvers]

    def variants_of(self, case: Case) -> list[_work.Variant]:
        return [variant for variant in case.variants if variant.order <= self.highest]


SIZES = {
    "smoke": Config(cases=("smooth",), rtols=(1e-2, 1e-3), solvers=("Tsit5",), highest=2),
    "quick": Config(),
    "full": Config(rtols=(1e-2, 1e-3, 1e-4, 1e-5, 1e-6), budget=16_384),
}


def run(config: Config, progress: Progress) -> "xarray.DataTree":
    """A node a case, over (solver, flow, rtol): error, solver steps and evaluations."""
    return resumed("work_precision", config, lambda folder: _run(config, progress, folder))


def _run(config: Config, progress: Progress, folder: Path) -> "xarray.DataTree":
    import xarray

    begun = time.perf_counter()
    chosen = {name: CASES[name] for name in config.cases}
    total = sum(len(config.solvers_of(c)) * len(config.variants_of(c)) for c in chosen.values())
    nodes = {}
    progress(f"{total} flows; smoke 10 s, quick 8 min", 0, total)
    keep = numbered(folder, progress, total)
    for name, case in chosen.items():
        against = _work.reference(case)
        rows = []
        for solver in config.solvers_of(case):
            for variant in config.variants_of(case):
                compute = partial(
                    _work.measure, case, against, variant, solver, config.rtols, config.budget
                )
                rows.append(keep(f"{name}, {solver}", compute))
        nodes[name] = _labelled(case, config, rows)
    tree = xarray.DataTree.from_dict(nodes)
    tree.attrs = provenance(config, time.perf_counter() - begun)
    return tree


_MEASURED = {
    "error": "largest |flow − optimizer| over the distance travelled",
    "solver_steps": "solver steps, rejected ones too",
    "evaluations": "gradient evaluations, warm steps too",
}


def _labelled(case: Case, config: Config, rows: list[Arrays]) -> "xarray.Dataset":
    import xarray

    solvers, variants = config.solvers_of(case), config.variants_of(case)
    shape = (len(solvers), len(variants), len(config.rtols))
    return xarray.Dataset(
        {
            key: (
                ("solver", "flow", "rtol"),
                np.array([row[key] for row in rows]).reshape(shape),
                {"long_name": words, "units": "1"},
            )
            for key, words in _MEASURED.items()
        },
        coords={
            "solver": solvers,
            "flow": [variant.name for variant in variants],
            "order": ("flow", [variant.order for variant in variants]),
            "stride": ("flow", [variant.stride for variant in variants]),
            "degree": ("flow", [variant.degree for variant in variants]),
            "model": ("flow", [variant.model for variant in variants]),
            "rtol": list(config.rtols),
        },
        attrs={"title": case.title, "steps": case.steps, "cost": case.cost},
    )


def plot(dataset: "xarray.DataTree") -> "Figure":
    return work_figure(dataset)


def numbers(dataset: "xarray.DataTree") -> dict[str, Any]:
    """Per case and wanted error the cheapest flow by gradients and by solver steps; what degrees
    above the order win; solver steps and gradients by flow and solver at the best tolerance."""
    found: dict[str, Any] = {}
    for name, node in dataset.children.items():
        table = node.to_dataset()
        found[name] = {
            "gradients of the optimizer": table.cost,
            **{f"error {wanted:g}": _choice(table, wanted) for wanted in WANTED},
        }
        found[f"{name}, at {_level(name):g}"] = {
            str(solver): {
                str(flow): _shown(cheapest(table.sel(solver=[solver], flow=[flow]), _level(name)))
                for flow in table.flow.values
            }
            for solver in table.solver.values
        }
    found["what degrees win"] = _wins(dataset)
    return found


def _level(case: str) -> float:
    return WANTED[0] if case == "edge" else AT


Best = dict[str, Any]


def cheapest(table: "xarray.Dataset", wanted: float, by: str = "evaluations") -> Best | None:
    """The cheapest run that is as good as wanted, None if none is."""
    cost = np.where(table.error.values <= wanted, table[by].values, np.inf)
    if not np.isfinite(cost).any():
        return None
    i, j, k = np.unravel_index(cost.argmin(), cost.shape)
    one = table.isel(solver=i, flow=j, rtol=k)
    return {
        "flow": str(one.flow.values),
        "solver": str(one.solver.values),
        "rtol": float(one.rtol),
        **{key: float(one[key]) for key in _MEASURED},
        "ratio": float(one.evaluations) / table.cost,
    }


def _choice(table: "xarray.Dataset", wanted: float) -> dict[str, Any]:
    gradients, steps = cheapest(table, wanted), cheapest(table, wanted, "solver_steps")
    if gradients is None or steps is None:
        return {"by gradients": "no flow", "by solver steps": "no flow", "take": "the optimizer"}
    ours = gradients["ratio"] < 1
    return {
        "by gradients": _words(gradients),
        "by solver steps": _words(steps),
        "take": gradients["flow"] if ours else "the optimizer",
    }


def _words(best: Best) -> str:
    return (
        f"{best['flow']}, {best['solver']}, rtol {best['rtol']:g}: "
        f"{best['ratio']:.2f} times the optimizer's gradients, "
        f"{best['solver_steps']:.0f} solver steps, error {best['error']:.1e}"
    )


def _shown(best: Best | None) -> str:
    if best is None:
        return "not reached"
    return f"{best['ratio']:.2f} times, {best['solver_steps']:.0f} steps, error {best['error']:.1e}"


def _wins(dataset: "xarray.DataTree") -> dict[str, list[str]]:
    """Where a degree above the order is the cheapest flow, with any solver or with the default."""
    won: dict[str, list[str]] = {}
    for name, node in dataset.children.items():
        table = node.to_dataset()
        for by in ("evaluations", "solver_steps"):
            for wanted in WANTED:
                for solver in ("any solver", "Tsit5"):
                    among = table if solver == "any solver" else table.sel(solver=[solver])
                    best = cheapest(among, wanted, by)
                    if best is not None and best["flow"][:1].isdigit() and "d" in best["flow"]:
                        where = f"{name}, {wanted:g}, {solver}, {by}"
                        won.setdefault(best["flow"], []).append(where)
    return won


def check(dataset: "xarray.DataTree") -> list[str]:
    """Of the cases that were run."""
    missing = []
    for name, node in dataset.children.items():
        best = cheapest(node.to_dataset(), _level(name))
        if name in CHEAPER and best is None:
            missing.append(f"{name}: no flow has an error of {AT:g}.")
        if best is None:
            continue
        ratio = best["ratio"]
        if (ratio < 1) != (name in CHEAPER):
            missing.append(
                f"{name}: the cheapest flow takes {ratio:.2f} times the optimizer's gradients."
            )
    if "digits" in dataset.children:
        missing += _check_degrees(dataset["digits"].to_dataset().sel(solver=["Tsit5"]))
    return missing


def _check_degrees(table: "xarray.Dataset") -> list[str]:
    missing = []
    for degree, other, by, most in (
        ("2d6", "2", "solver_steps", SAVED),
        ("3d7", "3", "solver_steps", SAVED),
        ("3d7", "3x2", "evaluations", 1.0),
    ):
        ours, theirs = (cheapest(table.sel(flow=[flow]), AT, by) for flow in (degree, other))
        ratio = ours[by] / theirs[by] if ours and theirs else np.nan
        if not ratio < most:
            missing.append(f"digits: {degree} takes {ratio:.2f} times the {by} of {other}.")
    return missing
