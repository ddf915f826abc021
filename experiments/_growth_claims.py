"""What `normal_curve` concludes from its slopes."""

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import xarray

ALLOWED = 0.1
"""Of theory's slope, where the coordinate that carries the maximum had no gradient."""
STILL = 2e-3
"""Per step: what counts as no growth."""


def pair_of(row: "xarray.Dataset") -> str:
    return f"({float(row.b1):.4f}, {float(row.b2):.4f})"


def claims(dataset: "xarray.Dataset") -> dict[str, Any]:
    """What is expected where the update can grow, found, and the verdict."""
    one = dataset.slope.sel(case="one batch").isel(seed=0).dropna("point")
    return {
        **_growth(dataset),
        "one batch": {
            "expected": f"slope 0 ± {STILL}",
            "most": float(np.abs(one).max()),
            "verdict": _verdict(bool((np.abs(one) <= STILL).all())),
        },
        "annealing": _annealing(dataset),
        **_hidden(dataset),
    }


def _growth(dataset: "xarray.Dataset") -> dict[str, Any]:
    """By trainings whose carrier had no gradient; others have their reason (`Carrier.reason`)."""
    rows = dataset.isel(point=np.flatnonzero((dataset.rate > 0) & (dataset.coefficient < 0)))
    first = rows.sel(case="minibatches")
    silent = first.reason.values == ""
    b1s = np.broadcast_to(rows.b1.values[:, None], silent.shape)[silent]
    found = {}
    for name, theory in (("|C|/2", -rows.coefficient / 2), ("discrete, bias", rows.vanished)):
        error = np.abs(first.slope / theory - 1).values
        found[f"growth at {name}"] = {
            "expected": f"slope of ln ‖u_n‖_∞ within {ALLOWED:.0%} where there is no gradient",
            "median relative error": _median(error[silent]),
            "trainings": f"{silent.sum()} of {silent.size}, the lowest b1 {b1s.min(initial=1):.4f}",
            "all of them": _median(error),
            "verdict": _verdict(_median(error[silent]) <= ALLOWED) if silent.any() else "undecided",
        }
    return found


def _annealing(dataset: "xarray.Dataset") -> dict[str, Any]:
    """‖Δθ‖_∞ over the first learning rate, from the step on at which the update has doubled."""
    case = dataset.largest.sel(case="annealed").isel(seed=0)
    row = dataset.isel(point=int(np.isfinite(case.values).all(axis=-1).argmax()), seed=0)
    update = row.largest.sel(case="annealed").values
    moved = update * np.exp(-max(0.0, float(row.rate)) * row.step.values)
    grown = np.flatnonzero(update >= 2)
    found = {
        "expected": "no step above the first learning rate, though the update grows twofold",
        "pair": pair_of(row),
        "largest update": float(update.max()),
        "without annealing": float(row.largest.sel(case="minibatches").max()),
    }
    if not len(grown):
        return found | {"verdict": "undecided"}
    largest = float(moved[grown[0] :].max())
    return found | {"largest step since": largest, "verdict": _verdict(largest <= 1)}


def _hidden(dataset: "xarray.Dataset") -> dict[str, Any]:
    """The largest update over that with eps = 0, same seed, at the window's end."""
    last = dataset.largest.isel(step=-1, seed=0)
    found = {}
    for case in (str(name) for name in dataset.case.values if str(name).startswith("eps")):
        ratio = (last.sel(case=case) / last.sel(case="minibatches")).dropna("point")
        found[case] = {
            "expected": "hides the growth: half the update or less at some point",
            "of the update with eps = 0, least": float(ratio.min()),
            "at the last point": float(ratio[-1]),
            "verdict": _verdict(float(ratio.min()) <= 0.5),
        }
    return found


def _median(errors: np.ndarray) -> float:
    return float(np.median(errors)) if errors.size else float("nan")


def _verdict(holds: bool) -> str:
    return "holds" if holds else "does not hold"
