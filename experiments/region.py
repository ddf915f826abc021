"""The stability map over (b1, b2), of the optimizer and of the flow (EQUATIONS §2)."""

from typing import TYPE_CHECKING, Any

from ct_adam import plotting, sweep
from ct_adam.sweep import RegionConfig

from . import Progress
from ._atlas import PREDICTED

if TYPE_CHECKING:
    import xarray
    from matplotlib.figure import Figure

EXPECTED = (
    "A stream of gradients makes Adam's update grow exactly where theory says, within one cell of "
    "b2 = b1² and the 2/steps that a run resolves, and no update exceeds its bound; optimizer and "
    "ODE say the same."
)
Config = RegionConfig
SIZES = sweep.SIZES


def run(config: Config, progress: Progress) -> "xarray.DataTree":
    return sweep.region(config, progress)


def plot(dataset: "xarray.DataTree") -> "Figure":
    return plotting.region_figure(dataset)


def numbers(dataset: "xarray.DataTree") -> dict[str, Any]:
    """Per panel the summary of both sides, and the fraction of cells on which they agree."""
    found: dict[str, Any] = {}
    for name, node in dataset.children.items():
        panel = node.to_dataset()
        sides = sweep.panel_summary(panel)
        if name not in PREDICTED:
            # Theory bounds a loss's updates, it does not predict them: nothing to agree with.
            sides = {side: _without(row, "agreement", "farthest") for side, row in sides.items()}
        found[name] = {**sides, "sides agree": sweep.sides_agreement(panel)}
    return found


def _without(row: dict[str, float], *keys: str) -> dict[str, float]:
    return {key: value for key, value in row.items() if key not in keys}


def check(dataset: "xarray.DataTree") -> list[str]:
    found = numbers(dataset)
    missing = []
    for name in PREDICTED:
        # Unstable is a slope of ln b1 - ln(b2)/2 above 1/steps: below b2 = b1² by 2 b2/steps.
        cell = float(dataset[name].b2[1] - dataset[name].b2[0]) + 2 / dataset[name].attrs["steps"]
        for side in sweep.SIDES:
            missing += _check_side(f"{name}, {side}", found[name][side], cell)
        if found[name]["sides agree"] < 0.98:
            missing.append(f"{name}: the sides agree on {found[name]['sides agree']:.1%} of cells.")
    return missing


def _check_side(where: str, row: dict[str, float], cell: float) -> list[str]:
    if row["answered"] < 1:
        return [f"{where}: only {row['answered']:.1%} of the cells have an answer."]
    missing = []
    if row["farthest"] > cell:
        missing.append(f"{where}: a cell disagrees with theory at {row['farthest']:.3g} in b2.")
    if row["bound_ratio"] > 1.001:  # the solver's own error on top
        missing.append(f"{where}: an update is {row['bound_ratio']:.4g} times its bound.")
    return missing
