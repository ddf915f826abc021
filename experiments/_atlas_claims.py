"""What `region_atlas` says of its maps, beside theory."""

from typing import TYPE_CHECKING, Any

import numpy as np

from ct_adam import sweep

from . import _atlas
from ._atlas import EXCESS, PREDICTED, VERDICTS

if TYPE_CHECKING:
    import xarray

BY_SIGN = 0.999
"""Cells whose growth is as the sign of C says, under the `lag` flow's own worst case."""
BY_CHANCE = 0.02
"""Cells of a random stream whose slope is above 1/steps: as b1 → 1 half a run is a few independent
values of u."""
SOLVER = 1e-5
"""In b2: rtol 1e-6 of u, over half a run a slope of some 1e-6/steps."""


def _verdicts(shares: "xarray.DataArray") -> dict[str, float]:
    return dict(zip(VERDICTS, map(float, shares.values), strict=True))


def of_stream(name: str, panel: "xarray.Dataset") -> dict[str, Any]:
    summary = sweep.panel_summary(panel)
    # Of other streams theory does not predict the growth: nothing to agree with.
    keys = ("agreement", "farthest") if name in (*PREDICTED, "lag") else ()
    keys = ("answered", "unstable", *keys, "bound_ratio")
    return {
        side: {**_verdicts(panel.share.sel(side=side)), **{k: row[k] for k in keys if k in row}}
        for side, row in summary.items()
    }


def of_quadratic(panel: "xarray.Dataset") -> dict[str, Any]:
    found = {}
    for side in map(str, panel.side.values):
        for eta in panel.learning_rate.values:
            at = panel.sel(side=side, learning_rate=eta)
            falls = zip(at.fraction.values, at.area.values, strict=True)
            found[f"{side}, learning rate {eta:g}"] = {
                "steps": int(at.steps),
                **{f"area of loss below {f:g} of its start": float(area) for f, area in falls},
                "area of max |u| up to 5": float(at.area_of_updates),
                **_verdicts(at.share),
                "bound_ratio": _largest_ratio(at),
            }
    return found


def _largest_ratio(at: "xarray.Dataset") -> float:
    ratio = np.exp(np.log(at.max_update) - at.log_bound).where(at.answered)
    return float(ratio.max())


def of_refined(row: "xarray.Dataset") -> dict[str, float]:
    return {
        "off theory's slope of 1/steps": float(np.abs(row.boundary - row.resolvable).max()),
        "uncertainty": float(row.uncertainty.max()),
        "below C = 0, at most": float((row.theory - row.boundary).max()),
        "theory's, at most": float((row.theory - row.resolvable).max()),
    }


def check_stream(name: str, panel: "xarray.Dataset") -> list[str]:
    missing, cell = [], float(panel.b2[1] - panel.b2[0])
    for side, row in sweep.panel_summary(panel).items():
        where = f"{name}, {side}"
        if row["answered"] < 1:
            missing.append(f"{where}: only {row['answered']:.1%} of the cells have an answer.")
            continue
        if row["bound_ratio"] > 1 + EXCESS["streams"]:
            missing.append(f"{where}: an update is {row['bound_ratio']:.4g} times its bound.")
        if name in (*PREDICTED, "lag") and _strays(panel.sel(side=side), cell):
            missing.append(f"{where}: a cell disagrees with theory at {row['farthest']:.3g} in b2.")
        if (name, side) == ("lag", "flow") and row["agreement"] < BY_SIGN:
            missing.append(f"{where}: {row['agreement']:.2%} of the cells are as the sign of C.")
        if name not in (*PREDICTED, "lag") and row["unstable"] > BY_CHANCE:
            missing.append(f"{where}: it grows on {row['unstable']:.1%} of the square.")
    return missing


def _strays(one: "xarray.Dataset", cell: float) -> bool:
    """Whether a cell is on the wrong side of the boundary, and more than a cell away from it.

    Where a short run tells slopes apart to 1/steps, which is 2 b2/steps, and that is more: by that.
    """
    away = one.boundary - one.b2
    wrong = one.answered & (one.unstable != (away > 0))
    return bool((wrong & (abs(away) > np.maximum(cell, 2 * one.b2 / one.horizon))).any())


def check_areas(panel: "xarray.Dataset") -> list[str]:
    missing = []
    for side in map(str, panel.side.values):
        areas = panel.area.sel(side=side, fraction=_atlas.CRITERION).values
        if not (np.all(np.diff(areas) >= 0) and areas[-1] > areas[0]):
            shown = ", ".join(f"{area:.3f}" for area in areas)
            missing.append(f"quadratic, {side}: the region does not grow: {shown}.")
        for eta in panel.learning_rate.values:
            ratio = _largest_ratio(panel.sel(side=side, learning_rate=eta))
            if not ratio <= 1 + EXCESS["losses"]:
                where = f"quadratic, {side}, learning rate {eta:g}"
                missing.append(f"{where}: an update is {ratio:.4g} times its bound.")
    return missing


def check_refined(found: "xarray.Dataset") -> list[str]:
    missing = []
    off = np.abs(found.boundary - found.resolvable)
    for stream in map(str, found.stream.values):
        for side in map(str, found.side.values):
            row = found.sel(stream=stream, side=side)
            beyond = off.sel(stream=stream, side=side) - row.uncertainty
            if not np.all(beyond <= SOLVER):  # so written a boundary not found fails too
                missing.append(
                    f"{stream}, {side}: the refined boundary is not everywhere where theory's "
                    f"slope is 1/steps: {float(beyond.max()):.3g} beyond its uncertainty."
                )
    return missing
