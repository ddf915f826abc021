"""The norm and the direction of scale-invariant weights under AdamW."""

from collections.abc import Mapping
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from .style import OKABE_ITO, PAGE, style

if TYPE_CHECKING:
    import xarray
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LANES = {
    "adam": ("Adam", "vermilion"),
    "meta": ("2-Adam, elementwise", "purple"),
    "scalar": ("2-Adam, one scalar", "orange"),
    "derived": ("2-Adam, b2₂ = (1−ηλ)², c = 1", "sky"),
    "derived, corrected": ("the same, c corrected", "blue"),
    "matched": ("Adam at η/‖W‖", "green"),
    "exact": ("the same, and g/‖W‖", "black"),
}
AGAINST_ADAM = {
    "meta": "2-Adam",
    "scalar": "one scalar",
    "derived": "c = 1",
    "derived, corrected": "derived",
    "matched": "matched",
}
"""Claims that a candidate is nearer than Adam."""
MARKERS = "osD^v"
CASES = {"noise": "noise alone", "signal": "noise and signal"}
FLOOR = 1e-4
"""Distances below are drawn there."""


def meta_figure(
    tree: "xarray.DataTree", shown: Mapping[str, Any], found: Mapping[str, Any]
) -> "Figure":
    """Norms, their reduced predictions, past gradients; where they fail; the directions, angles.

    **Arguments:**

    - `tree`: the experiment's.
    - `shown`: `norm`, predicted norms by network and form; `lags`, by network measured and theory;
        `map`, ratios (kind, signal, b1) by prediction; `direction`, angles by case and name.
    - `found`: the experiment's numbers.
    """
    import matplotlib.pyplot as plt

    with style():
        figure = plt.figure(figsize=(PAGE, 6.4), layout="constrained")
        rows: Any = figure.subfigures(3, 1, height_ratios=[1, 0.9, 1.15])
        axes = rows[0].subplots(1, 3)
        _norms(axes[0], tree, shown["norm"])
        _reduced(axes[1], tree, shown["norm"])
        _lags(axes[2], tree, shown["lags"])
        _maps(rows[1], tree["map"].to_dataset(), shown["map"]["corrected"])
        axes = rows[2].subplots(1, 3, width_ratios=[1, 1.35, 1])
        _directions(axes[0], tree, shown["direction"])
        _forest(axes[1], found)
        _angles(axes[2], tree["angles"].to_dataset(), found["angle"])
    return figure


def _short(title: str) -> str:
    return title.split(",")[0]


def _colours(tree: "xarray.DataTree") -> dict[str, str]:
    return dict(
        zip(
            tree["norm"].children, (OKABE_ITO[c] for c in ("blue", "orange", "green")), strict=False
        )
    )


def _norms(axis: "Axes", tree: "xarray.DataTree", shown: Mapping[str, Any]) -> None:
    name = next(iter(shown))
    node = tree[f"norm/{name}"].to_dataset()
    measured = node["norm"].values ** 2
    keys = np.array(["key" in str(m) for m in node.matrix.values])
    names = {"query": ~keys, "key": keys} if keys.any() else {"measured": ~keys}
    for (label, which), colour in zip(names.items(), ("blue", "orange"), strict=False):
        for i, j in enumerate(np.flatnonzero(which)):
            axis.plot(measured[:, j], color=OKABE_ITO[colour], lw=1.2, label="_" * i + label)
    for j, path in enumerate(shown[name]["full"].T):
        axis.plot(path**2, "k--", lw=0.6, dashes=(3, 3), label="_" * j + "full form")
    axis.set(yscale="log", xlabel="optimizer step n", ylabel="‖W‖²")
    _plain_log(axis)
    axis.legend(fontsize=6)
    axis.set_title(f"(a) {measured.shape[1]} matrices of the {_short(name)}", fontsize=7.5)


def _plain_log(axis: "Axes") -> None:
    from matplotlib.ticker import LogLocator, NullFormatter, ScalarFormatter

    axis.yaxis.set_major_locator(LogLocator(subs=(1, 1.5, 2, 3, 5, 7)))
    axis.yaxis.set_major_formatter(ScalarFormatter())
    axis.yaxis.set_minor_formatter(NullFormatter())


def _reduced(axis: "Axes", tree: "xarray.DataTree", shown: Mapping[str, Any]) -> None:
    for (name, paths), colour in zip(shown.items(), _colours(tree).values(), strict=True):
        measured = tree[f"norm/{name}"]["norm"].values
        for form, look in (("corrected", "-"), ("uncorrected", "-.")):
            ratio = paths[form] / measured
            n = np.arange(len(ratio))
            axis.plot(n, ratio.mean(1), look, color=colour, lw=1.2, label=f"{name}, {form}")
            axis.fill_between(n, ratio.min(1), ratio.max(1), color=colour, alpha=0.2, lw=0)
    axis.axhline(1, color="k", ls="--", lw=0.8)
    axis.set(xlabel="optimizer step n", ylabel="predicted ‖W‖ / measured")
    low, _ = axis.get_ylim()
    axis.set_ylim(low - 0.25, None)
    axis.legend(fontsize=5.5, loc="lower left")
    axis.set_title("(b) from ‖u‖ alone; bands: matrices", fontsize=7.5)


def _lags(axis: "Axes", tree: "xarray.DataTree", shown: Mapping[str, Any]) -> None:
    for name, (measured, theory) in shown.items():
        colour = _colours(tree)[name]
        axis.plot(measured, "o", ms=2.2, color=colour, label=name)
        axis.plot(theory, "--", color=colour, lw=1.1, label=f"{name}, theory of noise")
    axis.axhline(0, color="k", ls=":", lw=0.9, label="assumption 1")
    axis.set(xlabel="age τ of the gradient (steps)", ylabel="cos(W$_n$, g$_{n-τ}$)")
    low, _ = axis.get_ylim()
    axis.set_ylim(low, -0.75 * low)
    axis.legend(fontsize=5.5, loc="upper right")
    axis.set_title("(c) past gradients against W", fontsize=7.5)


def _maps(figure: Any, node: "xarray.Dataset", ratio: np.ndarray) -> None:
    from matplotlib.colors import TwoSlopeNorm

    axes = figure.subplots(1, len(ratio), sharey=True)
    top = max(1.2, float(ratio.max()))
    image = None
    for axis, letter, kind, values in zip(axes, "def", node.kind.values, ratio, strict=True):
        scale = TwoSlopeNorm(1.0, min(0.9, float(ratio.min())), top)
        image = axis.imshow(values, norm=scale, cmap="PuOr_r", aspect="auto", origin="lower")
        for i, row in enumerate(values):
            for j, value in enumerate(row):
                dark = value > 1 + 0.6 * (top - 1)
                axis.text(
                    j, i, f"{value:.2f}", ha="center", va="center", fontsize=5.5,
                    color="w" if dark else "k",
                )  # fmt: skip
        axis.set_xticks(range(len(node.b1)), [f"{b:g}" for b in node.b1.values])
        axis.set_yticks(range(len(node.signal)), [f"{s:g}" for s in node.signal.values])
        axis.set_xlabel("first-moment decay b1")
        axis.spines[:].set_visible(False)
        axis.set_title(f"({letter}) {kind}", fontsize=7.5)
    axes[0].set_ylabel("signal-to-noise ratio")
    bar = figure.colorbar(image, ax=list(axes), pad=0.01, fraction=0.03)
    bar.ax.set_ylim(min(1.0, float(ratio.min())), top)
    bar.set_label("‖W‖ measured / corrected", fontsize=7)


def _directions(axis: "Axes", tree: "xarray.DataTree", shown: Mapping[str, Any]) -> None:
    """Of the first network, the mean over seeds and its 95 % band."""
    from scipy import stats

    case = next(name for name in shown if name not in CASES)
    node = tree[f"direction/{case}"].to_dataset()
    moved = node.moved.mean(("seed", "tensor"))
    axis.plot(node.step, np.degrees(moved), "k-", lw=0.8, label="moved from the start")
    for name, (_, colour) in LANES.items():
        angle = np.degrees(shown[case][name])
        reach = stats.t.ppf(0.975, len(angle) - 1) / len(angle) ** 0.5 * angle.std(0, ddof=1)
        mean, colour = angle.mean(0), OKABE_ITO[colour]
        axis.plot(node.step, mean, "--" if name == "exact" else "-", lw=1.1, color=colour)
        low = np.maximum(mean - reach, 1e-9)
        axis.fill_between(node.step, low, mean + reach, color=colour, alpha=0.2, lw=0)
    floor = np.degrees(shown[case]["floor"]).mean(0)
    axis.plot(node.step, floor, "k:", lw=0.9, label="start moved by 10$^{-6}$")
    axis.set(yscale="log", ylim=(2e-7, 400), xlabel="optimizer step n")
    axis.set_ylabel("angle to the free run (degrees)")
    axis.legend(fontsize=5.5, loc="lower right")
    axis.set_title(f"(g) {case}; colours of (h)", fontsize=7.5)


def _forest(axis: "Axes", found: Mapping[str, Any]) -> None:
    """Distances by candidate and case, with the verdict of those that claim to be nearer."""
    cases = found["direction"]
    for row, (name, (_, colour)) in enumerate(LANES.items()):
        for k, case in enumerate(cases):
            one = cases[case]["distance"][name]
            y = row + 0.17 * (k - (len(cases) - 1) / 2)
            ends = [max(one["mean"] + sign * one["±"], FLOOR) for sign in (-1, 0, 1)]
            axis.plot(ends[::2], [y, y], "-", color=OKABE_ITO[colour])
            axis.plot(ends[1], y, MARKERS[k], ms=3, color=OKABE_ITO[colour])
        verdicts = found["claims"].get(AGAINST_ADAM.get(name, ""))
        if verdicts:
            nearer = sum(verdicts[case] == "holds" for case in cases)
            axis.text(1.3, row, f"{nearer} of {len(cases)}", fontsize=6, va="center")
    axis.text(1.3, -0.1, "nearer\nthan Adam:", fontsize=5.5, va="center")
    for k, case in enumerate(cases):
        axis.plot([], [], MARKERS[k], ms=3, color="0.3", label=CASES.get(case, case))
    axis.set_yticks(range(len(LANES)), [label for label, _ in LANES.values()], fontsize=6)
    for tick, (_, colour) in zip(axis.get_yticklabels(), LANES.values(), strict=True):
        tick.set_color(OKABE_ITO[colour])
    axis.set(xscale="log", xlim=(FLOOR * 0.8, 20), ylim=(len(LANES) - 0.4, -2.1))
    axis.set_xticks(
        [1e-4, 1e-3, 1e-2, 1e-1, 1], ["≤10$^{-4}$", *(f"10$^{{{k}}}$" for k in (-3, -2, -1)), "1"]
    )
    axis.set_xlabel("mean angle to the free run / moved")
    axis.legend(fontsize=5.5, ncol=2, loc="upper left", handletextpad=0.1, columnspacing=0.6)
    axis.set_title("(h) which it follows; 95 % intervals", fontsize=7.5)


def _angles(axis: "Axes", node: "xarray.Dataset", found: Mapping[str, Any]) -> None:
    steps = node.sizes["step"]
    edges = np.unique(np.geomspace(1, steps, 60).astype(int))
    colours = ("blue", "sky", "vermilion", "green", "purple", "orange")
    for i, ((pair, row), colour) in enumerate(zip(found.items(), colours, strict=False)):
        square = (node.angle.isel(pair=i).values ** 2).mean(-1)
        rms = [square[a:b].mean() ** 0.5 for a, b in pairwise(edges)]
        middle = np.sqrt(edges[:-1] * edges[1:])
        axis.plot(middle, np.degrees(rms), color=OKABE_ITO[colour], lw=1.1, label=pair)
        level = np.degrees(row["corrected"])
        axis.axhline(level, color="k", ls="--", lw=0.8, label="_" * i + "equilibrium")
        axis.plot(row["warm-up"], level, "k|", ms=7, label="_" * i + "warm-up 1/(2ηλ)")
    axis.set(xscale="log", yscale="log", xlabel="optimizer step n")
    axis.set_ylabel("angle of a step (degrees)")
    low, high = axis.get_ylim()
    axis.set_ylim(low * (low / high) ** 0.55, high)
    handles = [line for line in axis.get_lines() if not str(line.get_label()).startswith("_")]
    handles.sort(key=lambda line: not str(line.get_label()).startswith("η"))
    axis.legend(handles=handles, fontsize=5.5, loc="lower left")
    axis.set_title(f"(i) {_short(node.attrs['network'])}", fontsize=7.5)
