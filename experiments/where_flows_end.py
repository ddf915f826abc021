"""Where interpolating flows end, and whether their own diagnostics say so in time (EQUATIONS §1).

Kinks, chattering, signs, switches inside an optimizer, clipping, a wrong order, spikes and the edge
of stability, and controls that flows follow. A flow has *left* where its error against the
optimizer exceeds 1e-2 of the distance travelled; it *alarms* at the end of the window in which the
sum of its windows' defects (`Trust.defect`) passes the limit of trust, 2e-2.
"""

import time
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from ct_adam.plotting.where_flows_end import ends_figure
from ct_adam.simulate.trust import LIMIT
from ct_adam.sweep.provenance import provenance

from . import Progress
from ._checked import check_counts, check_names
from ._ends import AMPLIFYING, CASES, LEFT, measure
from ._kept import numbered, resumed

if TYPE_CHECKING:
    from pathlib import Path

    import xarray
    from matplotlib.figure import Figure

FALSE_ALARMS = 0.1
"""Most of the runs that stay within 1e-2 may be doubted: defects are summed as if nothing forgot
them, so that a few must be."""
EXPECTED = (
    "Every control is trusted and stays within 1e-2 of the distance travelled. Where nothing "
    "amplifies errors, outside of spikes and of the edge of stability, every flow whose error "
    "exceeds trust's limit of 2e-2 alarms, at latest one window (a sixteenth of the run) after "
    "that. Of the runs that stay within 1e-2 at most a tenth alarms."
)


@dataclass(frozen=True)
class Config:
    """Which cases, on how many problems. smoke 9 s, quick 5 min of two cores; compiling is most of
    it."""

    seeds: int = 3
    """random starts or initial weights"""
    cases: tuple[str, ...] = tuple(CASES)
    """names as in `experiments._ends.CASES`"""

    def __post_init__(self) -> None:
        check_counts(self, seeds=1)
        check_names(self, cases=CASES)


SIZES = {
    "smoke": Config(seeds=2, cases=("chattering: RMSProp, wavy", "control: Adam, wavy")),
    "quick": Config(),
    "full": Config(seeds=20),
}
_SCALARS = {
    "left": ("first step with an error above 1e-2, NaN for none", "steps"),
    "left_far": ("first step with an error above 2e-2, NaN for none", "steps"),
    "alarm": ("step at which the diagnostics alarm, NaN for none", "steps"),
    "max_error": ("largest error over the distance travelled", "1"),
    "estimate": ("error that the flow's own diagnostics estimate", "1"),
    "verdict": ("what the diagnostics say", "1"),
    "outcome": ("how the solver's run ended", "1"),
}


def run(config: Config, progress: Progress) -> "xarray.Dataset":
    """Over (case, seed, step): errors, infinite where a flow did not get, NaN after the run; and
    over (case, seed) the steps of leaving and alarm."""
    return resumed("where_flows_end", config, lambda folder: _run(config, progress, folder))


def _run(config: Config, progress: Progress, folder: "Path") -> "xarray.Dataset":
    begun = time.perf_counter()
    keep = numbered(folder, progress, len(config.cases) * config.seeds)
    found = [
        keep(f"{name}, seed {seed}", partial(measure, CASES[name], seed))
        for name in config.cases
        for seed in range(config.seeds)
    ]
    dataset = _labelled(config, _plain(found))
    dataset.attrs = {**provenance(config, time.perf_counter() - begun), "left": LEFT}
    return dataset


def _labelled(config: Config, found: list[dict[str, np.ndarray]]) -> "xarray.Dataset":
    import xarray

    shape = (len(config.cases), config.seeds)
    cases = [CASES[name] for name in config.cases]
    longest = max(case.steps for case in cases) + 1
    error = np.full((*shape, longest), np.nan)
    for row, one in zip(error.reshape(-1, longest), found, strict=True):
        row[: len(one["error"])] = one["error"]

    def about(name: str, units: str = "1") -> dict[str, str]:
        return {"long_name": name, "units": units}

    scalars = {
        key: (
            ("case", "seed"),
            np.array([one[key].item() for one in found]).reshape(shape),
            about(*words),
        )
        for key, words in _SCALARS.items()
    }
    of_error = about("max |flow − optimizer| / distance travelled")
    return xarray.Dataset(
        {"error": (("case", "seed", "step"), error, of_error), **scalars},
        coords={
            "case": list(config.cases),
            "seed": np.arange(config.seeds),
            "step": ("step", np.arange(longest), about("step after the warm ones", "steps")),
            **{
                key: ("case", [getattr(case, key) for case in cases])
                for key in ("group", "title", "problem", "steps", "order", "stride")
            },
            "window": ("case", [int(one["window"]) for one in found[:: config.seeds]]),
        },
    )


def _plain(found: list[dict[str, Any]]) -> list[dict[str, np.ndarray]]:
    """Numbers as NumPy has them, whether they were kept in a file or not."""
    return [{key: np.asarray(value) for key, value in one.items()} for one in found]


def plot(dataset: "xarray.Dataset") -> "Figure":
    return ends_figure(dataset)


TABLE = ("left, alarm", "left, no alarm", "stayed, alarm", "stayed, no alarm")
"""Hits, misses, false alarms, and quiet."""


def table(left: np.ndarray, alarm: np.ndarray) -> dict[str, int]:
    """How many runs left and alarmed, by steps of which NaN is never."""
    left, alarm = np.isfinite(left), np.isfinite(alarm)
    cells = (left & alarm, left & ~alarm, ~left & alarm, ~left & ~alarm)
    return {name: int(cell.sum()) for name, cell in zip(TABLE, cells, strict=True)}


def numbers(dataset: "xarray.Dataset") -> dict[str, Any]:
    """Contingency tables, how early alarms are, and a line a case and seed."""
    found: dict[str, Any] = {"left at 1e-2": _tables(dataset, "left")}
    found["left at trust's limit, 2e-2"] = _tables(dataset, "left_far")
    lead = ((dataset.left - dataset.alarm) / dataset.window).values
    found["alarm before leaving 1e-2, in windows"] = _spread(lead[np.isfinite(lead)])
    ended = np.isfinite(dataset.max_error.values) & np.isfinite(dataset.estimate.values)
    found["error over its estimate, where the flow got to its end"] = _spread(
        (dataset.max_error / dataset.estimate).values[ended]
    )
    found["runs"] = {
        str(name): {f"seed {seed}": _row(row.sel(seed=seed)) for seed in row.seed.values}
        for name, row in ((name, dataset.sel(case=name)) for name in dataset.case.values)
    }
    return found


def _spread(values: np.ndarray) -> dict[str, float | None]:
    functions = {"least": np.min, "median": np.median, "most": np.max}
    return {name: float(f(values)) if values.size else None for name, f in functions.items()}


def _tables(dataset: "xarray.Dataset", left: str) -> dict[str, dict[str, int]]:
    groups = {"all": dataset}
    for group in dict.fromkeys(dataset.group.values):
        groups[str(group)] = dataset.isel(case=np.flatnonzero(dataset.group.values == group))
    return {name: table(of[left].values, of.alarm.values) for name, of in groups.items()}


def _row(one: "xarray.Dataset") -> dict[str, Any]:
    kept = ("left", "alarm", "max_error", "estimate", "verdict", "outcome")
    return {key: one[key].item() for key in kept}


def check(dataset: "xarray.Dataset") -> list[str]:
    missing = []
    for name in dataset.case.values:
        row = dataset.sel(case=name)
        for seed in dataset.seed.values:
            one = row.sel(seed=seed)
            problem = _unexpected(str(row.group.item()), one)
            if problem:
                missing.append(f"{name}, seed {seed}: {problem}.")
    found = table(dataset.left.values, dataset.alarm.values)
    false, quiet = found["stayed, alarm"], found["stayed, no alarm"]
    if false > FALSE_ALARMS * (false + quiet):
        missing.append(f"Of {false + quiet} runs that stay within {LEFT:g} {false} alarm.")
    return missing


def _unexpected(group: str, one: "xarray.Dataset") -> str:
    """What is wrong with a run, or nothing."""
    left, far, alarm, window = (float(one[k]) for k in ("left", "left_far", "alarm", "window"))
    if group == "control":
        if np.isfinite(left):
            return f"a control leaves at step {left:.0f}"
        return f"a control alarms at step {alarm:.0f}" if np.isfinite(alarm) else ""
    if group in AMPLIFYING or np.isnan(far):
        return ""
    if np.isnan(alarm):
        return f"its error exceeds {LIMIT:g} at step {far:.0f} and nothing alarms"
    late = alarm - far
    return f"it alarms {late:.0f} steps late, more than a window" if late > window else ""
