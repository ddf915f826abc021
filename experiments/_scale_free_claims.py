"""What `scale_freeness` says of its measurements: orders, best cells, test errors and their gap."""

from typing import TYPE_CHECKING, Any

import numpy as np

from . import _scale_free_steps
from . import _scale_freeness as measured
from ._scale_freeness import METHODS, Cell
from ._statistics import paired, simultaneous

if TYPE_CHECKING:
    import xarray

CLOSED, ROUNDING, ORDER = 1e-12, 1e-12, 0.05
"""Of the closed form, of what is equal but for rounding (600 steps of size 1), and of an order, the
next term being ηλ of the first."""
PUBLISHED = {"Adam-ℓ2": 0.1458, "AdamW": 0.1147}
"""Best test errors of a ResNet of depth 110 without batch normalisation on CIFAR-10."""
GAP = PUBLISHED["Adam-ℓ2"] - PUBLISHED["AdamW"]


def _rows(network: "xarray.Dataset", tuning: bool, **fixed: Any) -> "xarray.Dataset":
    chosen = network.tuning.values == tuning
    for name, value in fixed.items():
        chosen = chosen & (network[name].values == value)
    return network.isel(run=np.flatnonzero(chosen))


def tuned_losses(network: "xarray.Dataset", method: str, scale: float) -> "xarray.DataArray":
    """Mean validation cross-entropy over tuning seeds, by (rate, decay)."""
    rows = _rows(network, True, method=method, scale=scale)
    loss = rows.validation.sel(score="cross-entropy")
    indexed = loss.set_index(run=["rate", "decay", "seed"]).unstack("run")
    return indexed.mean("seed", skipna=False).transpose("rate", "decay")


def best_cell(network: "xarray.Dataset", method: str, scale: float) -> Cell:
    """Its cell; a run that diverged is no candidate."""
    loss = tuned_losses(network, method, scale)
    if not np.isfinite(loss).any():
        raise ValueError(f"{method} diverges in every cell: give smaller learning rates.")
    i, j = np.unravel_index(np.nanargmin(loss), loss.shape)
    return Cell(method, scale, float(loss.rate[i]), float(loss.decay[j]))


def order_of(difference: "xarray.DataArray") -> float:
    """Slope in log-log of the two smallest η."""
    slope = np.diff(np.log(difference.values)) / np.diff(np.log(difference.eta.values))
    return float(slope[-1])


def best_cells(network: "xarray.Dataset") -> dict[str, Any]:
    scales = np.unique(_rows(network, True).scale.values)
    return {
        method: {
            f"loss × {scale:g}": f"η = {cell.rate:g}, λ = {cell.decay:g}"
            for scale in scales
            for cell in [best_cell(network, method, scale)]
        }
        for method in METHODS
    }


def of_network(network: "xarray.Dataset") -> dict[str, Any]:
    """By method its best cell, test errors of fresh seeds, and spreads; the gap, with 95 %
    intervals of seed-by-seed differences."""
    found: dict[str, Any] = {}
    errors = {}
    for method in METHODS:
        rows = _rows(network, False, method=method).sortby("seed")
        cell = best_cell(network, method, 1.0)
        errors[method] = rows.test.sel(score="error").values
        spread = measured.spread(rows.share.values)
        mean, half = simultaneous(errors[method], 1)
        found[method] = {
            "rate": cell.rate,
            "decay": cell.decay,
            "test error": mean,
            "±": half,
            "spread, first look": float(spread[:, 0].mean()),
            "spread, last look": float(spread[:, -1].mean()),
            "± over seeds": float(spread[:, -1].std(ddof=1)),
            "centre, last look": float((rows.share[:, -1] @ rows.bin).mean()),
        }
    gap = paired(errors["Adam-ℓ2"] - errors["AdamW"])
    share = {f"of the published, {key}": gap[key] / GAP for key in ("found", "low", "high")}
    found["gap Adam-ℓ2 − AdamW"] = {**gap, **share}
    found["Adam-ℓ2 − AdamW: spread, last look"] = paired(_spreads(network))
    return found


def _spreads(network: "xarray.Dataset") -> np.ndarray:
    """Of the last look, Adam-ℓ2's less AdamW's, seed by seed."""
    last = [
        measured.spread(_rows(network, False, method=method).sortby("seed").share.values[:, -1])
        for method in ("Adam-ℓ2", "AdamW")
    ]
    return last[0] - last[1]


def check_steps(found: dict[str, Any]) -> list[str]:
    missing = []
    against = found["AdamW from AdamProx"]
    for eta, row in against.items():
        if isinstance(row, dict):
            error = abs(row["constant gradient"] - row["closed form"])
            if not error <= CLOSED:
                missing.append(f"η = {eta}: AdamW is {error:.2g} from the closed form.")
    for kind, order in (("local", 2), ("global", 1)):
        slope = against[f"order, {kind}"]
        if not abs(slope - order) <= ORDER + order * _largest_term(against):
            missing.append(f"AdamW from AdamProx: {kind} order {slope:.3f}, not {order}.")
    missing += [
        f"{method}: loss × c and eps / c differ by {difference:.2g} ({c})."
        for c, row in found["loss × c against eps / c"].items()
        for method, difference in row.items()
        if not difference <= ROUNDING
    ]
    return missing


def _largest_term(against: dict[str, Any]) -> float:
    """ηλ of the last but smallest η: how far a measured slope may be from its limit."""
    etas = sorted(float(eta) for eta, row in against.items() if isinstance(row, dict))
    return etas[1] * _scale_free_steps.DECAY
