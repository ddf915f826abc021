"""Derivatives of flows beside those of the optimizer: errors over η, and long horizons."""

from typing import TYPE_CHECKING, Any

import numpy as np

from .style import OKABE_ITO, PAGE, style

if TYPE_CHECKING:
    import xarray
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_COLOURS = {
    "learning rate": OKABE_ITO["blue"],
    "b1": OKABE_ITO["vermilion"],
    "b2": OKABE_ITO["orange"],
    "weight decay": OKABE_ITO["green"],
    "start": OKABE_ITO["purple"],
}
_LABELS = {
    "learning rate": "learning rate η",
    "b1": "first-moment decay, by 1 − b1",
    "b2": "second-moment decay, by 1 − b2",
    "weight decay": "weight decay λ",
    "start": "initial parameters",
}
_PROBLEMS: dict[str, Any] = {
    "ripple": {"marker": "o", "ls": "-", "ms": 3, "lw": 0.9},
    "digits": {"marker": "s", "ls": "-", "ms": 3, "lw": 0.6, "mfc": "w"},
}
_SCALINGS = {"shrinking": "1 − b1, 1 − b2 ∝ η", "fixed": "fixed decays"}
_SIDES = {
    "discrete": (OKABE_ITO["vermilion"], "optimizer, its own derivative"),
    "flow": (OKABE_ITO["blue"], "flow"),
}
_TINY = 1e-12


def derivatives_figure(tree: "xarray.DataTree") -> "Figure":
    """Errors at shrinking and at fixed decays, and (if there) a derivative over the horizon, of a
    tree made by `experiments.derivatives`."""
    import matplotlib.pyplot as plt

    horizon = tree["horizon"].to_dataset() if "horizon" in tree else None
    panels = 2 if horizon is None else 3
    with style():
        figure, axes = plt.subplots(1, panels, figsize=(PAGE * panels / 3, 3.1))
        for letter, axis, scaling in zip("ab", axes, _SCALINGS, strict=False):
            _errors(axis, tree, scaling)
            axis.set_title(f"({letter}) {_SCALINGS[scaling]}", fontsize=7.5)
        axes[0].set_ylabel("|flow − discrete difference|\n/ largest derivative (rms)")
        if horizon is not None:
            _over_horizon(axes[2], horizon)
        figure.legend(handles=_legend(tree), loc="outside lower center", ncols=3)
    return figure


def _errors(axis: "Axes", tree: "xarray.DataTree", scaling: str) -> None:
    for problem, look in _PROBLEMS.items():
        if problem not in tree:
            continue
        node = tree[f"{problem}/{scaling}"].to_dataset()
        for kind, colour in _COLOURS.items():
            row = node.sel(kind=kind)
            axis.plot(row.eta, row.error, color=colour, **look)
        # Above the data of each problem.
        eta = node.eta.values
        top = 2 * float(node.error.max()) * eta / eta.max()
        axis.plot(eta, top, color="k", ls="--", lw=0.8)
        if scaling == "fixed":
            axis.plot(eta, top * eta / eta.max(), color="k", ls=":", lw=0.9)
    axis.set_xscale("log")
    axis.set_yscale("log")
    axis.set_xlabel("learning rate η")
    axis.minorticks_off()


def _over_horizon(axis: "Axes", node: "xarray.Dataset") -> None:
    for seed in node.seed.values:
        one = node.sel(seed=seed, kind="learning rate").isel(step=slice(1, None))
        thick = 1.2 if seed == node.seed.values[0] else 0.5
        for side, (colour, _) in _SIDES.items():
            axis.plot(one.step, np.abs(one[side]) + _TINY / 10, color=colour, lw=thick)
        dots = {"ms": 2.5 if thick > 1 else 1.5, "color": "0.25", "zorder": 3}
        axis.plot(one.step, np.abs(one.smoothed), ".", **dots)
    axis.set_yscale("log")
    axis.set_ylim(bottom=_TINY)
    axis.minorticks_off()
    axis.set_xlabel("horizon (steps)")
    axis.set_ylabel("|d final loss / d ln η|")
    axis.set_title("(c) chattering iterates", fontsize=7.5)


def _legend(tree: "xarray.DataTree") -> list[Any]:
    from matplotlib.lines import Line2D

    def line(label: str, **look: Any) -> Line2D:
        return Line2D([], [], label=label, **look)

    handles = [line(_LABELS[kind], color=colour) for kind, colour in _COLOURS.items()]
    for problem, look in _PROBLEMS.items():
        if problem in tree:
            title = tree[f"{problem}/shrinking"].attrs["title"]
            handles.append(line(title, color="0.4", **look))
    handles += [
        line("slope 1", color="k", ls="--", lw=0.8),
        line("slope 2", color="k", ls=":", lw=0.9),
    ]
    if "horizon" in tree:
        handles += [line(f"(c) {label}", color=colour) for colour, label in _SIDES.values()]
        handles.append(
            line("(c) optimizer, slope over η ± 25 %", color="0.25", marker=".", ms=4, ls="none")
        )
    return handles
