"""When flows leave their optimizer, and when their diagnostics say so: a timeline."""

from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from .style import OKABE_ITO, PAGE, style

if TYPE_CHECKING:
    import xarray
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BARS = 96
"""Cells of a bar, each with the largest error of its part of the run."""
DECADES = (-8.0, 0.0)
ENDED = "0.6"
"""Where the flow's solver gave up."""
COLUMNS = ("hit", "missed", "false", "quiet")
LEAVES: dict[str, Any] = {
    "marker": "|", "ms": 8, "mew": 1.8, "color": "k", "ls": "none"
}  # fmt: skip
ALARMS: dict[str, Any] = {
    "marker": "<", "ms": 5.5, "color": OKABE_ITO["yellow"], "mec": "k", "mew": 0.6, "ls": "none",
    "clip_on": False,
}  # fmt: skip


def ends_figure(dataset: "xarray.Dataset") -> "Figure":
    """A row a case, of a dataset made by `experiments.where_flows_end`.

    Left the first seed: error over the run, where it leaves and where it alarms. Right, over all
    seeds, how many left with and without an alarm, and stayed with and without one.
    """
    import matplotlib.pyplot as plt

    with style():
        count = dataset.sizes["case"]
        figure, (bars, counts) = plt.subplots(
            1, 2, figsize=(PAGE, 1.3 + 0.165 * count), width_ratios=[2.9, 1], sharey=True
        )
        image = _bars(bars, dataset)
        _marks(bars, dataset)
        _labels(bars, dataset)
        _counts(counts, dataset)
        bar = figure.colorbar(image, ax=[bars, counts], location="bottom", aspect=50, pad=0.02)
        bar.set_ticks([*range(int(DECADES[0]), -2, 2), -2, -1, 0])
        bar.set_label("log₁₀ of max |flow − optimizer| / distance travelled", fontsize=7)
        figure.legend(handles=_legend(), loc="outside upper center", ncols=4, fontsize=7)
    return figure


def _bars(axis: "Axes", dataset: "xarray.Dataset") -> Any:
    from matplotlib import colormaps
    from matplotlib.colors import TwoSlopeNorm

    rows = np.full((dataset.sizes["case"], BARS), np.nan)
    for row, name in zip(rows, dataset.case.values, strict=True):
        one = dataset.sel(case=name).isel(seed=0)
        error = one.error.values[: int(one.steps) + 1]
        edges = np.linspace(0, len(error), BARS + 1).astype(int)
        row[:] = [error[a : max(b, a + 1)].max() for a, b in pairwise(edges)]
    with np.errstate(divide="ignore"):
        logs = np.where(np.isfinite(rows), np.clip(np.log10(rows), *DECADES), DECADES[1] + 1)
    norm = TwoSlopeNorm(float(np.log10(dataset.attrs["left"])), *DECADES)
    colours = colormaps["RdBu_r"].with_extremes(over=ENDED)
    extent = (0, 100, len(rows) - 0.5, -0.5)
    image = axis.imshow(
        logs, cmap=colours, norm=norm, aspect="auto", extent=extent, interpolation="nearest"
    )
    for y in np.arange(1, len(rows)) - 0.5:
        axis.axhline(y, color="w", lw=1.2)
    axis.set_xlim(-2, 106)
    axis.set_xlabel("part of the run's steps / %")
    axis.set_title("(a) first problem of each")
    return image


def _marks(axis: "Axes", dataset: "xarray.Dataset") -> None:
    for y, name in enumerate(dataset.case.values):
        one = dataset.sel(case=name).isel(seed=0)
        steps = float(one.steps)
        left, alarm = (100 * float(one[key]) / steps for key in ("left", "alarm"))
        if np.isfinite(left):
            axis.plot(left, y, **LEAVES)
        if np.isfinite(alarm):
            axis.plot(min(alarm, 100), y, **ALARMS)


def _labels(axis: "Axes", dataset: "xarray.Dataset") -> None:
    names = [
        f"{one.group.item()}: {one.title.item()}, {one.problem.item()}"
        for one in (dataset.isel(case=i) for i in range(dataset.sizes["case"]))
    ]
    axis.set_yticks(range(len(names)), names, fontsize=6.2)
    axis.tick_params(axis="y", length=0)
    axis.spines["left"].set_visible(False)


def _counts(axis: "Axes", dataset: "xarray.Dataset") -> None:
    left, alarm = (np.isfinite(dataset[key].values) for key in ("left", "alarm"))
    cells = (left & alarm, left & ~alarm, ~left & alarm, ~left & ~alarm)
    colours = (OKABE_ITO["blue"], OKABE_ITO["vermilion"], OKABE_ITO["orange"], "0.45")
    for x, (cell, colour) in enumerate(zip(cells, colours, strict=True)):
        for y, number in enumerate(cell.sum(axis=1)):
            if number:
                axis.text(x, y, str(number), color=colour, ha="center", va="center", fontsize=7)
    axis.set_xlim(-0.6, 3.6)
    axis.set_xticks(range(4), COLUMNS, fontsize=6.5)
    axis.tick_params(length=0, labelleft=False)
    axis.spines[["left", "bottom"]].set_visible(False)
    axis.set_xlabel("number of problems")
    axis.set_title("(b) all problems")


def _legend() -> list[Any]:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    return [
        Line2D([], [], **LEAVES, label="error leaves 10⁻²"),
        Line2D([], [], **ALARMS, label="diagnostics alarm"),
        Patch(facecolor=ENDED, label="flow ended"),
        Line2D([], [], ls="none", label="hit, missed: left with, without alarm;\n"
               "false, quiet: stayed with, without"),
    ]  # fmt: skip
