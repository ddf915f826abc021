"""What `cost` says of a problem's flows, and where they are not as derived."""

from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from ._cost import FLOWS, SCALINGS
from ._crossing import crossing, crossing_words, exponents, interval

if TYPE_CHECKING:
    import xarray

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
WORDS = {"fixed": "fixed decays", "scaled": "1-b ∝ η"}
LEVEL_WORDS = {"wanted": f"an error of {WANTED:g}", "own": "its own error"}


def cheapest(table: "xarray.Dataset", key: str, level: str) -> "xarray.DataArray":
    """The least work of a run that is good enough: within `WANTED`, or near its own floor; NaN if
    none is."""
    allowed = WANTED if level == "wanted" else FLOOR * table.error.isel(rtol=-1, drop=True)
    good = (table.error <= allowed) & np.isfinite(table.error)
    return table[key].where(good).min("rtol")


def _by_seed(values: "xarray.DataArray") -> Float[np.ndarray, "seed eta"]:
    return values.transpose("seed", "eta").values


def _crossings(one: "xarray.Dataset", level: str) -> Float[np.ndarray, " seed"]:
    """Where a flow gets cheaper than the optimizer, at its own error or at `WANTED`."""
    excess = np.log(_by_seed(one[f"evaluations_{level}"] / (one.attrs["warm"] + one.steps)))
    if level == "wanted":
        # Where it is not good enough it is not cheaper either, however few its evaluations.
        excess = np.fmax(excess, np.log(_by_seed(one.own) / WANTED))
    return np.array([crossing(one.learning_rate.values, row) for row in excess])


def of_problem(table: "xarray.Dataset") -> dict[str, Any]:
    """By limit and flow: the η below which it is cheaper, exponents, work a step."""
    first, last = (
        float(table.loss.sel(end=end).isel(eta=-1, scaling=0).mean()) for end in table.end
    )
    return {
        "problem": {"η·steps": table.horizon, "loss from": first, "to": last},
        **{
            f"{WORDS[scaling]}, {flow}": _row(table.sel(scaling=scaling, flow=flow))
            for scaling in table.scaling.values
            for flow in table.flow.values
            if scaling in FLOWS[str(flow)].scalings
        },
    }


def of_best(table: "xarray.Dataset") -> dict[str, str]:
    """By limit the flow that is the first to be worth its while."""
    found = {}
    for scaling in table.scaling.values:
        ways = {
            flow: _crossings(table.sel(scaling=scaling, flow=flow), "wanted")
            for flow in _judged(table)
        }
        # In a mean of logarithms a seed without a crossing, NaN, counts as 0.
        first = max(ways, key=lambda flow: np.log(np.fmax(ways[flow], 1e-300)).mean())
        words = crossing_words(table.learning_rate.values, ways[first])
        found[WORDS[str(scaling)]] = f"{first}: {words}"
    return found


def _judged(table: "xarray.Dataset") -> list[str]:
    return [str(flow) for flow in table.flow.values if flow in ORDERS]


def _row(one: "xarray.Dataset") -> dict[str, Any]:
    rates, steps, smallest = one.learning_rate.values, one.steps.values, one.isel(eta=-1)
    implicit = bool(one.evaluations.isnull().all())
    key = "solver_steps" if implicit else "evaluations"
    row: dict[str, Any] = {"of": key}
    for level, words in (("wanted", f"at {WANTED:g}"), ("own", "at its own error")):
        work = _by_seed(one[f"{key}_{level}"])
        row[f"exponent {words}"] = interval(exponents(steps, work)).words
        if not implicit:
            row[f"cheaper below, {words}"] = crossing_words(rates, _crossings(one, level))
    row["at the smallest η"] = float(smallest[f"{key}_own"].mean())
    row["a step"] = float(((smallest[f"{key}_own"] - one.attrs["warm"]) / smallest.steps).mean())
    if str(one.scaling.values) == "fixed" and np.isfinite(one.limit):
        row["derived"] = float(one.limit)
    row["own error there, largest of the seeds"] = float(smallest.own.max())
    return row


def check_problem(name: str, table: "xarray.Dataset") -> list[str]:
    missing, judged = [], _judged(table)
    for flow in judged:
        one = table.sel(flow=flow)
        missing += _check_flat(f"{name}, {flow}", flow, one.sel(scaling="scaled"))
        missing += _check_memory(f"{name}, {flow}", one)
    for scaling in SCALINGS:
        ways = [_crossings(table.sel(flow=flow, scaling=scaling), "wanted") for flow in judged]
        if not any(np.all(way > 0) for way in ways):  # NaN: none
            missing.append(
                f"{name}, {WORDS[scaling]}: no flow is cheaper and within {WANTED:g} down to "
                f"η = {float(table.learning_rate.min()):.2g} for every seed."
            )
    return missing


def _check_flat(where: str, flow: str, one: "xarray.Dataset") -> list[str]:
    missing = []
    for level, most in (("wanted", FLAT), ("own", ORDERS[flow] / 5 + BEND)):
        work = _by_seed(one[f"evaluations_{level}"])
        found = interval(exponents(one.steps.values, work))
        if not found.mean < most:
            missing.append(
                f"{where}, 1-b ∝ η: the exponent at {LEVEL_WORDS[level]} is {found.words}: claimed "
                f"was below {most:g}."
            )
    return missing


def _check_memory(where: str, one: "xarray.Dataset") -> list[str]:
    """The bound, and the exponent where the memory rules."""
    missing, limit, steps = [], float(one.limit), one.steps.values
    ours = _by_seed(one.evaluations_own.sel(scaling="fixed"))
    path = _by_seed(one.evaluations_own.sel(scaling="scaled"))
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
