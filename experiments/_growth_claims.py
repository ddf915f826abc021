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


def annealed(dataset: "xarray.Dataset") -> dict[str, Any]:
    """The largest step ‖Δθ‖_∞ over the first learning rate, with and without annealing."""
    case = dataset.largest.sel(case="annealed").isel(seed=0).dropna("point")
    # Not the first steps, which are 1 whatever the decays.
    late = {"step": slice(dataset.sizes["step"] // 2, None)}
    (p,) = np.flatnonzero(np.isin(dataset.b1, case.b1))
    row = dataset.isel(point=p, seed=0).isel(late)
    update = row.largest.sel(case="annealed")
    fall = np.exp(-max(0.0, float(row.rate)) * row.step)
    return {
        "pair": pair_of(row),
        "largest step in the second half, constant": float(
            row.largest.sel(case="minibatches").max()
        ),
        "annealed": float((update * fall).max()),
        "its update": float(update.max()),
    }


def claims(dataset: "xarray.Dataset") -> dict[str, Any]:
    """What is expected of slopes where the update can grow, found, and the verdict.

    Of growth the verdict is on trainings whose carrier had no gradient; others have their reason.
    """
    rows = dataset.isel(point=np.flatnonzero((dataset.rate > 0) & (dataset.coefficient < 0)))
    slope = rows.slope.sel(case="minibatches")
    silent = rows.reason.sel(case="minibatches").values == ""
    found: dict[str, Any] = {}
    for name, theory in (("|C|/2", -rows.coefficient / 2), ("discrete, bias", rows.vanished)):
        error = np.abs(slope / theory - 1).values
        found[f"growth at {name}"] = {
            "expected": f"slope of ln ‖u_n‖_∞ within {ALLOWED:.0%}",
            "relative error, all": _median(error),
            "without gradient": _median(error[silent]),
            "verdict": _verdict(_median(error[silent]) <= ALLOWED) if silent.any() else "undecided",
        }
    one = dataset.slope.sel(case="one batch").isel(seed=0).dropna("point")
    found["one batch"] = {
        "expected": f"slope 0 ± {STILL}",
        "most": float(np.abs(one).max()),
        "verdict": _verdict(bool((np.abs(one) <= STILL).all())),
    }
    found["without gradient"] = {"of trainings that can grow": float(silent.mean())}
    return found


def _median(errors: np.ndarray) -> float:
    return float(np.median(errors)) if errors.size else float("nan")


def _verdict(holds: bool) -> str:
    return "holds" if holds else "does not hold"
