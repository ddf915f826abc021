"""Error of flows against the learning rate, and their orders with confidence."""

from typing import TYPE_CHECKING, Any

import numpy as np

from .style import OKABE_ITO, PAGE, style

if TYPE_CHECKING:
    import xarray
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TITLES = {"fixed": "fixed decays b1 = 0.5, b2 = 0.7", "scaled": "1 − b1 = η, 1 − b2 = η/2"}
RATES = (5e-4, 3e-2)
_COLOURS = [OKABE_ITO[k] for k in ("blue", "vermilion", "green", "purple", "orange", "sky")]
_MARKERS = "os^Dv*PXp<>"
_FIRST: dict[str, Any] = {
    "marker": "o", "ms": 5, "mfc": "none", "mew": 0.7, "color": OKABE_ITO["vermilion"], "ls": "none"
}  # fmt: skip


def convergence_figure(tree: "xarray.DataTree") -> "Figure":
    """Two columns, of a tree made by `experiments.convergence_order`.

    Above: errors of published models; in the middle: of interpolating flows; below: slopes.
    """
    import matplotlib.pyplot as plt

    with style():
        count = tree["fixed"].sizes["model"]
        figure, axes = plt.subplots(
            3, 2, figsize=(PAGE, 5.2 + 0.14 * count), height_ratios=[2.5, 2.5, 0.3 + 0.14 * count]
        )
        for column, limit in enumerate(TITLES):
            _column(axes[:, column], tree, limit, ("ace", "bdf")[column])
        for axis in axes[:2, 0]:
            axis.set_ylabel("max |flow − optimizer|\n/ distance travelled")
        titles = ("published models", "interpolating\norder × stride")
        for axis, title in zip(axes[:2, 1], titles, strict=True):
            axis.legend(
                loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=6.5,
                title=title, title_fontsize=7,
            )  # fmt: skip
        axes[2, 1].tick_params(labelleft=False)
        _theory_legend(axes[2, 1])
    return figure


def _column(axes: Any, tree: "xarray.DataTree", limit: str, letters: str) -> None:
    node = tree[limit].to_dataset()
    names = [str(name) for name in node.model.values]
    groups = [[n for n in names if "-" not in n], [n for n in names if "-" in n]]
    for axis, group, letter in zip(axes[:2], groups, letters[:2], strict=True):
        _errors(axis, node, group)
        axis.set_title(f"({letter}) {TITLES[limit]}", fontsize=8)
    _slopes(axes[2], node, names)
    if limit == "scaled":
        _from_first(axes[2], tree["first"].to_dataset(), names)
    axes[2].set_title(f"({letters[2]}) order over {node.sizes['seed']} problems")


def _errors(axis: "Axes", node: "xarray.Dataset", names: list[str]) -> None:
    """Geometric means over seeds; the derived slope through the smallest η, dashed."""
    for i, name in enumerate(names):
        one = node.sel(model=name)
        error = np.exp(np.log(one.error.values).mean(axis=1))
        clear = error > node.attrs["floor"]
        rates, error = one.learning_rate.values[clear], error[clear]
        axis.plot(
            rates, error, marker=_MARKERS[i % len(_MARKERS)], ms=3, mew=0, lw=0.8,
            color=_COLOURS[i % len(_COLOURS)],
            label=name.removeprefix("interpolating-").replace("x", " × "),
        )  # fmt: skip
        line = error[-1] * (rates / rates[-1]) ** float(one.derived)
        axis.plot(rates, line, color="k", ls="--", lw=0.6, zorder=0.5)
    axis.set(xscale="log", yscale="log", xlim=RATES)
    axis.set_xticks([1e-3, 1e-2])
    axis.set_xlabel("learning rate η", labelpad=1)


def _slopes(axis: "Axes", node: "xarray.Dataset", names: list[str]) -> None:
    from matplotlib.ticker import MultipleLocator

    at = np.arange(len(names))[::-1]
    for y, name in zip(at, names, strict=True):
        one = node.sel(model=name)
        axis.plot([float(one.derived)] * 2, [y - 0.42, y + 0.42], color="k", ls="-", lw=1.1)
        axis.errorbar(
            float(one["mean"]), y, xerr=float(one.half_width), fmt="o", ms=3, mew=0, lw=1,
            color=OKABE_ITO["blue"],
        )  # fmt: skip
    axis.set_yticks(at, names, fontsize=6.5)
    axis.set_ylim(-0.8, len(names) - 0.2)
    axis.set_xlim(-0.3, max(2.3, float((node["mean"] + node.half_width).max()) + 0.2))
    axis.xaxis.set_major_locator(MultipleLocator(1))
    axis.grid(axis="y", lw=0.3, color="0.9")
    axis.set_axisbelow(True)
    axis.set_xlabel("slope of ln error against ln η")


def _from_first(axis: "Axes", node: "xarray.Dataset", names: list[str]) -> None:
    at = np.arange(len(names))[::-1]
    slopes = [float(node["mean"].sel(model=name)) for name in names]
    axis.plot(slopes, at, **_FIRST)


def _theory_legend(axis: "Axes") -> None:
    from matplotlib.lines import Line2D

    handles = [
        Line2D([], [], color=OKABE_ITO["blue"], marker="o", ms=3, lw=1, label="measured, 95 %"),
        Line2D([], [], **_FIRST, label="(f) from the first step"),
        Line2D([], [], color="k", marker="|", ms=7, mew=1.1, ls="none", label="derived"),
        Line2D([], [], color="k", ls="--", lw=0.6, label="derived slope\n(panels above)"),
    ]
    axis.legend(handles=handles, loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=6.5)
