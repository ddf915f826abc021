"""Test losses along curves of decays, and what they say of the claims about C."""

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from .style import OKABE_ITO, PAGE, VERDICTS, style

if TYPE_CHECKING:
    import xarray
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NETWORKS = {
    "text": "language model",
    "images": "convolutional network",
    "cifar": "convolutional network\nCIFAR-10",
}
TITLES = {
    "default": "normal curve through (0.9, 0.999)",
    "second": "normal curve through (0.9, 0.95)",
    "level": "level curve through (0.9, 0.999)",
}
MARKS: Mapping[str, Any] = {
    "fixed": {"marker": "o", "ls": "-", "ms": 3, "lw": 0.9},
    "tuned": {"marker": "s", "ls": "-", "ms": 3, "lw": 0.6, "mfc": "w"},
}
CORNER: Mapping[str, Any] = {"fontsize": 6, "ha": "right", "va": "top"}
PAIRS = {"default": (0.9, 0.999), "second": (0.9, 0.95)}
HORIZONS = {"short": OKABE_ITO["blue"], "long": OKABE_ITO["orange"]}
FOREST = {
    "faster": ("larger C faster, short horizon", "rank correlation of C > 0 and speed", 0.0),
    "equal": ("C > 0 equal, long horizon", "spread at the long over the short one", 0.5),
    "rise": ("sharp rise at C < 0, long", "loss above the line of C > 0 (nats)", 0.0),
}


def generalisation_figure(
    tree: "xarray.DataTree", losses: Mapping[str, Any], claims: Mapping[str, Any]
) -> "Figure":
    """Best test losses, a row a network and a column a curve, over the claims' statistics.

    **Arguments:**

    - `tree`: nodes `network/curve` with coordinates `c` and `b1` (the experiment's).
    - `losses`: by network, curve, reading and horizon the mean over seeds.
    - `claims`: by network, curve, reading and claim `found`, `low`, `high` and `verdict`.
    """
    import matplotlib.pyplot as plt

    config = json.loads(tree.attrs["config"])
    with style():
        count = len(losses)
        figure = plt.figure(figsize=(PAGE, 1.8 * count + 2.4))
        grid = figure.add_gridspec(count + 1, 3, height_ratios=[1] * count + [0.85])
        for row, (name, by_curve) in enumerate(losses.items()):
            axis = None
            for column, curve in enumerate(TITLES):
                axis = figure.add_subplot(grid[row, column], sharey=axis)
                _curve(axis, tree[f"{name}/{curve}"].to_dataset(), by_curve[curve], config)
                axis.tick_params(labelleft=column == 0)
                axis.set_title(TITLES[curve] if row == 0 else "", fontsize=7.5)
                words = f"{NETWORKS[name]}\nbest test loss − that at ★"
                axis.set_ylabel(words if column == 0 else "", fontsize=7)
        for column, (claim, (title, label, threshold)) in enumerate(FOREST.items()):
            axis = figure.add_subplot(grid[count, column])
            _forest(axis, claims, list(losses), claim, threshold)
            axis.set_title(title, fontsize=7.5)
            axis.set_xlabel(label, fontsize=7)
            axis.tick_params(labelleft=column == 0)
            if claim == "equal":
                _log(axis)
        figure.legend(handles=_legend(config), loc="outside lower center", ncols=4, fontsize=6.3)
        figure.suptitle(_sizes(tree, losses, config), fontsize=6.3, x=0.01, ha="left")
    return figure


def _curve(
    axis: "Axes", node: "xarray.Dataset", readings: Mapping[str, Any], config: Mapping[str, Any]
) -> None:
    """Losses less those at the curve's reference point, seed by seed: seeds share their batches."""
    level = "level" in node.attrs["curve"]
    x = node.b1.values if level else node.c.values
    at = int(x.argmax())
    fixed = node.loss.sel(learning_rate=config["learning_rate"])
    for row, (horizon, colour) in enumerate(HORIZONS.items()):
        within = fixed.isel(step=node.step.values <= config[horizon]).min("step").values
        axis.plot(x, (within - within[:, [at]]).T, ".", ms=2, color=colour, alpha=0.45)
        for column, (reading, mark) in enumerate(MARKS.items()):
            mean = np.asarray(readings[reading][horizon])
            axis.plot(x, mean - mean[at], color=colour, **mark)
            place = (0.8 + 0.2 * column, 0.93 - 0.1 * row)
            axis.text(*place, f"{mean[at]:.2f}", color=colour, **CORNER, transform=axis.transAxes)
            axis.plot(
                place[0] - 0.14, place[1] - 0.035, color=colour, **mark, transform=axis.transAxes
            )
    axis.text(0.63, 0.93, "at ★", **CORNER, transform=axis.transAxes)
    axis.plot(x[at], 0, "*", color="k", ms=6, zorder=5)
    if not level:
        axis.axvline(0, color="k", ls=":", lw=1)
    axis.set_xlabel(
        "first-moment decay b1" if level else "stability coefficient C per step", fontsize=7
    )


def _log(axis: "Axes") -> None:
    from matplotlib.ticker import NullFormatter

    axis.set_xscale("log")
    low, high = axis.get_xlim()
    ticks = [tick for tick in (0.1, 0.2, 0.5, 1, 2, 5, 10, 20) if low < tick < high]
    axis.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axis.xaxis.set_minor_formatter(NullFormatter())


def _forest(
    axis: "Axes", claims: Mapping[str, Any], networks: list[str], claim: str, threshold: float
) -> None:
    labels, place = [], 0
    for name in networks:
        for curve, pair in PAIRS.items():
            for reading, mark in (("fixed", "o"), ("tuned", "s")):
                row = claims[name][curve][reading][claim]
                colour = VERDICTS[row["verdict"]]
                axis.plot([row["low"], row["high"]], [place] * 2, "-", color=colour, lw=1.2)
                face = colour if mark == "o" else "w"
                axis.plot([row["found"]], [place], mark, ms=4, color=colour, mfc=face)
                place += 1
            labels.append(f"{NETWORKS[name].split()[0]}, b2 {pair[1]:g}")
    axis.axvline(threshold, color="k", ls=":", lw=1)
    axis.set_yticks(np.arange(len(labels)) * 2 + 0.5, labels, fontsize=6.5)
    axis.set_ylim(place - 0.4, -0.6)


def _sizes(tree: "xarray.DataTree", losses: Mapping[str, Any], config: Mapping[str, Any]) -> str:
    networks = "; ".join(tree[f"{name}/default"].attrs["network"] for name in losses)
    points = f"{config['points']} points a normal curve, {config['level_points']} the level curve"
    return (
        f"{networks}\n{points}, {config['seeds']} seeds, eps = 0. ★: right-most point. "
        "Losses in nats. Bottom: 95 % intervals over seeds and points"
    )


def _legend(config: Mapping[str, Any]) -> list[Any]:
    from matplotlib.lines import Line2D

    rates = ", ".join(f"{rate:g}" for rate in config["learning_rates"])
    horizons = [
        Line2D([], [], color=colour, lw=1.5, label=f"best within {config[horizon]} steps")
        for horizon, colour in HORIZONS.items()
    ]
    verdicts = [
        Line2D([], [], color=colour, lw=1.5, label=f"bottom: {verdict}")
        for verdict, colour in VERDICTS.items()
    ]
    return [
        *horizons,
        Line2D([], [], color="0.3", **MARKS["fixed"],
               label=f"learning rate {config['learning_rate']:g} (dots: seeds)"),
        Line2D([], [], color="0.3", **MARKS["tuned"],
               label=f"each point's best of {rates}"),
        Line2D([], [], color="k", ls=":", lw=1, label="C = 0; bottom: threshold of the claim"),
        *verdicts,
    ]  # fmt: skip
