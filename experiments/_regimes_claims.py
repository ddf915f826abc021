"""What `regimes` says of its maps, and of theory beside them."""

from typing import TYPE_CHECKING, Any

import numpy as np

from ct_adam.theory import REGIME, degenerate_radius

from ._paths import each
from ._regimes import DEGREE
from ._signals import false_alarms, misses

if TYPE_CHECKING:
    import xarray

DECADES = 60.0
"""Away from the boundary: a disturbance grows or shrinks by a factor e^60 and more over the run."""
AGREEMENT = 0.99
WRONG = 0.01


def name_of(row: "xarray.Dataset") -> str:
    decay = f", weight decay {float(row.weight_decay):g}" if "weight_decay" in row.coords else ""
    return f"learning rate {float(row.learning_rate):g}, eps {float(row.eps):g}{decay}"


def of_shares(node: "xarray.Dataset") -> dict[str, dict[str, float]]:
    found = {}
    for row in each(node, "setting"):
        shares = {k.name: float((row.regime == k).mean()) for k in REGIME}
        found[name_of(row)] = {name: share for name, share in shares.items() if share > 0}
        found[name_of(row)]["renamed with a threshold halved or doubled, most"] = float(
            row.moved.max()
        )
        if "edge_ratio" in row:
            oscillating = row.regime.isin([REGIME.limit_cycle, REGIME.sign_like])
            ratios = row.edge_ratio.values[oscillating.values]
            # At the last step alone, which an oscillation may leave on either side.
            found[name_of(row)]["sharpness over the edge, oscillating (median)"] = (
                float(np.median(ratios)) if ratios.size else float("nan")
            )
    return found


def of_flat(row: "xarray.Dataset") -> dict[str, float]:
    """Rest against the radius of the flat minimum, but for pairs on its boundary (b1 = b2)."""
    b1, b2 = np.meshgrid(row.b1.values, row.b2.values, indexing="ij")
    radius = degenerate_radius(b1, b2, DEGREE)
    rested = row.regime.values == REGIME.converged
    # Cells on the diagonal lie on the boundary itself.
    off = np.abs(radius - 1) > 1e-6
    return {"agreement": float((rested == (radius < 1))[off].mean()), "pairs": int(off.sum())}


def of_local(row: "xarray.Dataset", node: Any) -> dict[str, float]:
    stable = row.radius.values < 1
    away = np.abs(np.log(row.radius.values)) * node.attrs["steps"] > DECADES
    near, far = row.near.values, row.far.values
    return {
        "stable": float(stable.mean()),
        "away from the boundary": float(away.mean()),
        "agreement, disturbed": float((near == stable)[away].mean()),
        "agreement, from far": float((far == stable)[away].mean()),
        "of the stable ones at rest from far": float(far[away & stable].mean())
        if np.any(away & stable)
        else float("nan"),
    }


def of_signals(row: "xarray.Dataset") -> dict[str, Any]:
    table = row["count"].values
    names = row.called.values
    return {
        "false alarms": dict(zip(names, map(float, false_alarms(table)), strict=True)),
        "misses": dict(zip(names, map(float, misses(table)), strict=True)),
        "worst confusion": _worst_confusion(row),
    }


def _worst_confusion(row: "xarray.Dataset") -> str:
    shares = row["count"].values / row["count"].values.sum(axis=1, keepdims=True)
    np.fill_diagonal(shares, 0)
    true, called = np.unravel_index(shares.argmax(), shares.shape)
    names = row.called.values
    return f"{shares.max():.1%} of {names[true]} called {names[called]}"


def check_signals(rough: float, rates: dict[str, Any]) -> list[str]:
    missing = []
    for kind, words in (("false alarms", "of the others are called"), ("misses", "are not")):
        missing += [
            f"Signals of roughness {rough:g}: {share:.1%} {words} {name}."
            for name, share in rates[kind].items()
            if not share <= WRONG
        ]
    return missing
