"""What `decoupled_decay` says of its valleys, budgets and restarts, and which valleys are not as
theory says."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ._crossing import interval
from ._decoupled import MEASURED
from ._decoupled_valley import Valley, lowest, sheared, valley
from ._jackknife import half_width, left_out

if TYPE_CHECKING:
    import xarray

VALLEYS = {
    "SGD": ("sgd", True),
    "SGDW": ("sgdw", False),
    "Adam-ℓ2": ("adam_l2", False),
    "AdamW-LH": ("adamw", False),
    "AdamW-PyTorch": ("adamw", True),
}
"""Which runs, and whether the axis is what was varied over the learning rate: one algorithm in two
parametrisations is one map, sheared by −1."""
SLOPES = {
    "forget": {"SGD": -1.05, "SGDW": -0.05, "AdamW-LH": 0.02, "AdamW-PyTorch": -0.96},
    "counter": {"SGD": 0.38, "SGDW": 1.37, "AdamW-LH": 1.21, "AdamW-PyTorch": 0.02},
}
"""d ln λ*/d ln lr of EQUATIONS §8."""
ALLOWED = 0.25
NOT_A_LINE = "not a line"


def _maps(dataset: "xarray.DataTree") -> Iterator[tuple[str, "xarray.Dataset"]]:
    """By problem."""
    for name, node in dataset.children.items():
        if name not in ("budgets", "restarts"):
            yield str(name), node.to_dataset()


def valleys(dataset: "xarray.DataTree") -> dict[str, dict[str, Valley]]:
    """By problem and panel; the decay in the panel's parametrisation."""
    found: dict[str, dict[str, Valley]] = {}
    for name, node in _maps(dataset):
        found[name] = {}
        for panel, (method, aslant) in VALLEYS.items():
            rates = node[f"rate_{method}"].values
            one = valley(node[method].values, rates, node[f"decay_{method}"].values)
            found[name][panel] = sheared(one, rates) if aslant else one
    return found


def of_slope(name: str, panel: str, one: Valley) -> dict[str, Any]:
    """Of one problem and panel, beside what is expected."""
    mean, half = one.slope
    ends = {"found": mean, "low": mean - half, "high": mean + half}
    expected = SLOPES.get(name, {}).get(panel)
    return {
        **(ends if one.line else {"found": NOT_A_LINE}),
        "learning rates": int(one.counts.sum()),
        "rms residual of ln λ*": one.residual,
        **({} if expected is None else {"expected": expected}),
    }


def of_budgets(node: "xarray.Dataset") -> dict[str, Any]:
    """Best λ_LH and λ_norm by epochs, how far each is spread over them, and d ln λ_LH/d ln T."""
    x, epochs = np.log(node.decay.values), node.epochs.values
    best = left_out(
        node.loss.transpose("seed", "epochs", "decay").values,
        lambda mean: np.array([lowest(x, row) for row in mean]),
    )
    normed = best + np.log(node.steps.values) / 2
    found: dict[str, Any] = {
        f"T = {t}": {"λ_LH": float(np.exp(best[0, i])), "λ_norm": float(np.exp(normed[0, i]))}
        for i, t in enumerate(epochs)
    }
    found["slope"] = _with_ends(np.polyfit(np.log(epochs), best.T, 1)[0])
    raw, other = np.ptp(best, axis=1), np.ptp(normed, axis=1)
    for name, spread in (("spread of λ_LH", raw), ("spread of λ_norm", other)):
        found[name] = {end: float(np.exp(value)) for end, value in _with_ends(spread).items()}
    return found


def _with_ends(found: np.ndarray) -> dict[str, float]:
    half = float(half_width(found))
    return {"found": float(found[0]), "low": float(found[0] - half), "high": float(found[0] + half)}


def of_restarts(node: "xarray.Dataset") -> dict[str, Any]:
    """At the end of each cycle: restarts, a cosine of that budget, the cosine over all steps."""
    last = str(max(int(name) for name in node.run.values if name.isdigit()))
    found: dict[str, Any] = {}
    for end in node.attrs["ends"]:
        at = node.loss.sel(step=end)
        own = at.sel(run="restarts").values - at.sel(run=str(end)).values
        found[f"step {end}"] = {
            "restarts": float(at.sel(run="restarts").mean()),
            "cosine of this budget": float(at.sel(run=str(end)).mean()),
            "cosine over all": float(at.sel(run=last).mean()),
            "constant": float(at.sel(run="constant").mean()),
            # Until its first cycle is over AdamWR is the cosine of that budget.
            "restarts − cosine of this budget": (
                "the same run" if end == node.attrs["ends"][0] else interval(own).words
            ),
        }
    return found


def check_slopes(found: Mapping[str, Mapping[str, Valley]]) -> list[str]:
    """Of `valleys`."""
    missing = []
    for name, expected in SLOPES.items():
        for panel, wanted in expected.items():
            one = found[name][panel]
            if not one.line:
                missing.append(f"{name}, {panel}: the valley is {NOT_A_LINE}.")
            elif not abs(one.slope.mean - wanted) <= ALLOWED:
                slope = f"{one.slope.mean:.2f}"
                missing.append(f"{name}, {panel}: the slope is {slope}, not {wanted:g}.")
    return missing


def check_maps(dataset: "xarray.DataTree") -> list[str]:
    return [
        f"{name}, {method}: a learning rate diverges at every decay."
        for name, node in _maps(dataset)
        for method in MEASURED
        if not np.isfinite(node[method].values).any(axis=-1).all()
    ]
