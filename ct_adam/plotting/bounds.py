"""Bounds in action: the plane of decays, |u|/bound of streams and networks, the cap by eps."""

from typing import TYPE_CHECKING, Any

import numpy as np

from ..theory import level_curve, stability_boundary, update_bound, worst_case_gradients
from .square import DEFAULT_PAIR, star
from .style import OKABE_ITO, PAGE, style

if TYPE_CHECKING:
    import xarray
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_LEVELS = (-0.2, -0.1, -0.05, 0.1, 0.2, 0.4)
_WINDOW = (0.75, 1.0)  # of both decays, so that right angles are seen as such
_STREAMS = {
    "normal": OKABE_ITO["blue"],
    "mean 1": OKABE_ITO["green"],
    "Student t": OKABE_ITO["orange"],
    "sparse": OKABE_ITO["vermilion"],
}
_NETWORKS = {"digits MLP": OKABE_ITO["sky"], "transformer": OKABE_ITO["purple"]}
_WORST: dict[str, Any] = {"marker": "o", "ms": 2.8, "mfc": "none", "mew": 0.7, "ls": "none"}
_MARKERS = {"optimizer": "o", "log": "x", "lag": "+"}
_SHOWN = 60  # gradients of the nearest coordinate


def bounds_figure(tree: "xarray.DataTree") -> "Figure":
    """Two rows of three panels, of a tree made by `experiments.bounds`."""
    import matplotlib.pyplot as plt

    with style():
        figure, axes = plt.subplots(2, 3, figsize=(PAGE, 4.9))
        networks = {name: tree[name].to_dataset() for name in _NETWORKS if name in tree}
        optimizer = tree["optimizer"].to_dataset()
        _plane(axes[0, 0], tree["curves"].to_dataset())
        _along_curve(axes[0, 1], optimizer, tree["curves"].to_dataset())
        _flows(axes[0, 1], tree["flows"].to_dataset())
        _distribution(axes[0, 2], optimizer, networks)
        _training(axes[1, 0], networks)
        _nearest(axes[1, 1], list(networks.values())[-1:])
        _caps(axes[1, 2], tree["caps"].to_dataset())
        titles = (
            "level and normal curves of C",
            "|u|/bound on the normal curve",
            "distribution at the default",
            "networks in training",
            "coordinates nearest to the bound",
            "cap by eps where b1² > b2",
        )
        for letter, axis, title in zip("abcdef", axes.flat, titles, strict=True):
            axis.set_title(f"({letter}) {title}", fontsize=7.5, pad=9)
        figure.legend(
            handles=_legend(list(networks)), loc="outside lower center", ncols=6, columnspacing=1.2
        )
    return figure


def _plane(axis: "Axes", curves: "xarray.Dataset") -> None:
    b1 = np.linspace(_WINDOW[0] - 0.05, 1, 600)[:-1]
    for level in _LEVELS:
        axis.plot(b1, level_curve(level, b1), color="0.6", lw=0.6, ls="--")
        _label_level(axis, level)
    axis.plot(b1, level_curve(0, b1), color="k", lw=1.6, ls="--")
    axis.plot(b1, stability_boundary(b1, "discrete"), color="k", lw=0.9, ls=":")
    for name, colour in zip(curves.curve.values, ("blue", "green"), strict=True):
        row = curves.sel(curve=name)
        axis.plot(row.b1, row.b2, color=OKABE_ITO[colour], lw=1.1)
        axis.plot(*row.crossing.sel(boundary="C = 0"), "o", color=OKABE_ITO[colour], ms=3)
    axis.plot(0.9, 0.95, "s", color=OKABE_ITO["green"], ms=3)
    axis.plot(*DEFAULT_PAIR, **star(), clip_on=False, zorder=5)
    axis.set(xlim=_WINDOW, ylim=_WINDOW, aspect="equal")
    _note(axis, "C = 0", (0.852, 0.765), ha="right")
    _note(axis, "b2 = b1²", (0.881, 0.765), ha="left")
    axis.set_xlabel("first-moment decay b1")
    axis.set_ylabel("second-moment decay b2")


def _label_level(axis: "Axes", level: float) -> None:
    """Where the level leaves the square: at the top for C > 0, at the right for C < 0."""
    look: dict[str, Any] = {"fontsize": 5.5, "color": "0.4", "annotation_clip": False}
    if level > 0:
        at, offset, where = (2 / (2 + level), 1), (0, 1), {"ha": "center", "va": "bottom"}
    else:
        at, offset, where = (1, 1 / (1 - level)), (2, 0), {"ha": "left", "va": "center"}
    axis.annotate(
        f"{level:g}".replace("-", "−"), at, offset, textcoords="offset points", **where, **look
    )


def _note(axis: "Axes", text: str, at: tuple[float, float], **look: Any) -> None:
    axis.annotate(text, at, fontsize=6, **look)


def _along_curve(axis: "Axes", node: "xarray.Dataset", curves: "xarray.Dataset") -> None:
    boundary = curves.crossing.sel(boundary="b2 = b1²", decay="b1")[0]
    axis.axvline(float(boundary), color="k", ls=":", lw=0.9)
    axis.axhline(1, color="k", ls="--", lw=0.8)
    axis.plot(node.b1, node.worst.sel(end="least"), color="k", zorder=4, **_WORST)
    for name, colour in _STREAMS.items():
        row = node.quantiles.sel(stream=name)
        axis.plot(node.b1, row.sel(quantile=1.0), color=colour, lw=1.2)
        axis.plot(node.b1, row.sel(quantile=0.5), color=colour, lw=0.6)
    axis.set_yscale("log")
    axis.set_xlim(0.895, 1)
    axis.set_ylim(1e-6, 3)
    axis.minorticks_off()
    _note(axis, "b2 = b1²", (float(boundary) - 0.001, 1e-4), ha="right")
    _note(axis, "thick: largest\nthin: median\nmarkers: worst case", (0.9, 2e-6), ha="left")
    axis.set_xlabel("first-moment decay b1")
    axis.set_ylabel(f"|u|/bound at {node.steps // 2} to {node.steps} steps")


def _flows(axis: "Axes", node: "xarray.Dataset") -> None:
    """The worst case of each flow over its own bound."""
    worst = node.worst.sel(kind="held", end="least")
    for name in node.flow.values:
        axis.plot(
            node.b1, worst.sel(flow=name), _MARKERS[name.split(",")[0]],
            color="k", ms=4, mew=0.7, zorder=4,
        )  # fmt: skip


def _distribution(
    axis: "Axes", node: "xarray.Dataset", networks: dict[str, "xarray.Dataset"]
) -> None:
    row = node.isel(pair=int(np.abs(node.b2.values - DEFAULT_PAIR[1]).argmin()))
    lines = {name: (row.exceedance.sel(stream=name), c) for name, c in _STREAMS.items()}
    lines |= {name: (networks[name].exceedance, _NETWORKS[name]) for name in networks}
    for part, colour in lines.values():
        axis.plot(part.threshold, np.where(part > 0, part, np.nan), color=colour)
    # All that one gradient after a long silence does, n → ∞.
    lone = np.sqrt(1 - DEFAULT_PAIR[0] ** 2 / DEFAULT_PAIR[1])
    axis.axvline(lone, color="0.5", ls=":", lw=0.9)
    axis.axvline(1, color="k", ls="--", lw=0.8)
    axis.set(xscale="log", yscale="log", xlim=(1e-2, 1.3), ylim=(1e-7, 1.5))
    axis.minorticks_off()
    _note(axis, "a lone gradient", (lone * 1.06, 0.5), color="0.3", rotation=90, va="top")
    axis.set_xlabel("x")
    axis.set_ylabel("part of |u|/bound ≥ x")


def _training(axis: "Axes", networks: dict[str, "xarray.Dataset"]) -> None:
    axis.axhline(1, color="k", ls="--", lw=0.8)
    for name, node in networks.items():
        for quantile, width in ((1.0, 0.9), (0.5, 0.5)):
            line = node.quantiles.sel(quantile=quantile)
            axis.plot(node.step, line, color=_NETWORKS[name], lw=width)
        axis.plot(
            node.nearest_step, node.nearest_ratio, "D", color=_NETWORKS[name], mec="k", mew=0.5,
            ms=3.5, zorder=5,
        )  # fmt: skip
    if networks:
        steps = next(iter(networks.values())).step.values
        most = np.asarray(update_bound(*DEFAULT_PAIR, steps, "discrete"))
        axis.plot(steps, 1 / most, color="k", ls=":", lw=0.9, zorder=3)
        _note(axis, "|u| = 1", (80, 0.21), ha="left")
    _note(axis, "thick: largest\nthin: median", (1.2, 1.2e-2), ha="left")
    axis.set(xscale="log", yscale="log", ylim=(1e-2, 1.3))
    axis.set_xlabel("optimizer step n")
    axis.set_ylabel("|u|/bound over coordinates")


def _nearest(axis: "Axes", networks: "list[xarray.Dataset]") -> None:
    """Gradients up to the step at which the coordinate comes nearest, over the last of them."""
    back = np.arange(-_SHOWN + 1, 1)
    worst = np.asarray(worst_case_gradients(*DEFAULT_PAIR, _SHOWN))
    axis.plot(back, worst, color="k", ls="--", lw=0.9, label="worst case")
    colours = (OKABE_ITO["blue"], OKABE_ITO["vermilion"])
    halves = [node.sel(half=half) for node in networks for half in node.half.values]
    for row, colour in zip(halves, colours, strict=False):
        last = int(row.nearest_step)
        gradient = row.nearest_gradient.values[max(last - _SHOWN, 0) : last]
        scaled = gradient / (np.sign(gradient[-1]) * np.abs(gradient).max())
        label = f"step {last}: |u| = {float(row.nearest_ratio):.2f} bound"
        axis.plot(back[-len(scaled) :], scaled, ".-", color=colour, lw=0.5, ms=2.5, label=label)
    axis.set_xlim(-_SHOWN, 1)
    axis.set_xlabel("steps before the nearest")
    axis.set_ylabel("gradient / largest shown")
    axis.legend(loc="upper left", fontsize=6)


def _caps(axis: "Axes", node: "xarray.Dataset") -> None:
    colours = [OKABE_ITO[name] for name in ("blue", "green", "vermilion")]
    for i, colour in zip(range(node.sizes["pair"]), colours, strict=False):
        row = node.isel(pair=i)
        for side, marker in _MARKERS.items():
            one = row.sel(side=side)
            axis.plot(one.scale, one.closed_form, color="k", ls="--", lw=0.6, zorder=1)
            axis.plot(one.scale, one.largest, marker, color=colour, ms=3.2, mew=0.7, mfc="none")
        slope = float(row.exponent.sel(side="optimizer"))
        name = f"({float(row.b1):.4g}, {float(row.b2):.4g}): 1 − r = {slope:.3f}"
        axis.plot([], [], color=colour, label=name)
    axis.set(xscale="log", yscale="log", ylim=(1, 1e8))
    axis.minorticks_off()
    axis.legend(loc="upper left", fontsize=6, handlelength=1, borderaxespad=0.1)
    axis.set_xlabel("σ/eps, σ the gradient")
    axis.set_ylabel("largest |u| after it vanished")


def _legend(networks: list[str]) -> list[Any]:
    from matplotlib.lines import Line2D

    def line(colour: str, label: str, **look: Any) -> Line2D:
        return Line2D([], [], color=colour, label=label, **{"lw": 1.2, **look})

    return [
        *(line(colour, name) for name, colour in _STREAMS.items()),
        *(line(_NETWORKS[name], name) for name in networks),
        line("k", "theory", ls="--", lw=0.9),
        line("k", "optimizer", **_WORST),
        *(
            line("k", f"{rates} flow", marker=_MARKERS[rates], ls="none", ms=4, mew=0.7)
            for rates in ("log", "lag")
        ),
    ]
