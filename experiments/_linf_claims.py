"""What `linf_constraint` says of its measurements, beside the closed forms."""

from typing import TYPE_CHECKING, Any

import numpy as np

from ct_adam.theory import average_update, box_steps

from . import _linf, _linf_cycle
from ._linf_network import Training
from ._paths import each

if TYPE_CHECKING:
    import xarray

CLOSED, SAME, ROUNDING = 1e-9, 1e-14, 1e-12
"""Errors of the fixed points, of a step of Frank–Wolfe, and of a gap over its scale."""
WITHIN = 0.01
"""Above 1/λ, where ‖x‖_∞ counts as inside."""
PEAK, SHARE = 1.4366, 0.58
"""Of the cycle, EQUATIONS §5."""


def of_fixed(fixed: "xarray.Dataset", lyapunov: "xarray.Dataset | None") -> dict[str, Any]:
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


def of_rates(rates: "xarray.Dataset") -> dict[str, Any]:
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


def of_methods(methods: "xarray.Dataset") -> dict[str, Any]:
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


def of_cycles(cycles: "xarray.Dataset") -> dict[str, Any]:
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


def of_network(network: "xarray.Dataset", training: Training) -> dict[str, Any]:
    """By run λ‖x‖_∞ at start and end, and the steps after which it is below 1 % over."""
    return {label(row): _training(row, training) for row in each(network, "run")}


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
    time = np.append(0, np.cumsum(training.rates()))  # after 0, 1, … steps
    wanted = float(box_steps(row.norm.values[0], 1.0, decay, WITHIN))  # in learning-rate time
    return found | {
        "inside from step": None if inside is None else int(inside),
        "predicted step": int(np.searchsorted(time, wanted)) if wanted <= time[-1] else None,
    }


def _since(good: np.ndarray) -> int:
    """From which entry on all are good; the last one is."""
    return int(len(good) - np.argmin(good[::-1])) if not good.all() else 0


def label(row: "xarray.Dataset") -> str:
    """Which run of the language model."""
    decay, scale = float(row.weight_decay), float(row.scale)
    name = f"AdamW, λ = {decay:g}" if decay else "Adam"
    more = f", start × {scale:g}" if scale != 1 else ""
    return f"{name}, ({float(row.b1):g}, {float(row.b2):g}){more}"


def check_methods(methods: "xarray.Dataset") -> list[str]:
    """Who is within some steps of the minimum over the box; Adam-ℓ2 minimises something else."""
    near = 10 * float(_linf.harmonic(methods.sizes["step"]))
    return [
        f"{name} ends {error:.2g} from the minimum over the box."
        for name in methods.optimizer.values.tolist()
        for error in [float(methods.error.sel(optimizer=name)[-1])]
        if (error <= near) == (name == "Adam-ℓ2")
    ]


def check_cycle(cycle: dict[str, Any]) -> list[str]:
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


def check_network(dataset: "xarray.DataTree", found: dict[str, Any]) -> list[str]:
    rows = {label(row): row for row in each(dataset["network"].to_dataset(), "run")}
    missing = []
    for name, one in found["language model"].items():
        row = rows[name]
        if not (float(row.weight_decay) and float(row.b1) <= float(row.b2)):
            continue
        if not one["at end"] <= 1 + WITHIN:
            missing.append(f"{name}: λ‖x‖ ends at {one['at end']:.4g}.")
    return missing
