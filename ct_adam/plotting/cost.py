"""Evaluations of flows against steps of their optimizer, η → 0 at fixed η·steps."""

from typing import TYPE_CHECKING, Any

import numpy as np

from .style import OKABE_ITO, PAGE, style

if TYPE_CHECKING:
    import xarray
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_LOOKS: dict[str, dict[str, Any]] = {
    "log": {"color": OKABE_ITO["blue"], "marker": "o", "ms": 5.4},
    "staggered": {"color": OKABE_ITO["orange"], "marker": "D", "ms": 2.9},
    "interpolating-2": {"color": OKABE_ITO["green"], "marker": "s", "ms": 3.6},
    "modified": {"color": OKABE_ITO["purple"], "marker": "^", "ms": 3.8},
}
_NAMES = {"interpolating-2": "interpolating, order 2", "modified": "modified, without memory"}
_ROWS = {"fixed": "fixed decays", "scaled": "1 − b ∝ η"}


def cost_figure(tree: "xarray.DataTree", wanted: float) -> "Figure":
    """A column a problem, of a tree made by `experiments.cost`.

    Evaluations with fixed decays and with 1 − b ∝ η, and the flows' own errors. Medians over seeds,
    bars from least to largest; filled where the error is `wanted` or less.
    """
    import matplotlib.pyplot as plt

    columns = len(tree.children)
    with style():
        figure, axes = plt.subplots(
            3, columns, figsize=(PAGE * max(columns, 2) / 3, 6.6), squeeze=False, sharex="col",
            sharey="row",
        )  # fmt: skip
        for column, node in enumerate(tree.children.values()):
            table = node.to_dataset()
            for scaling, axis in zip(_ROWS, axes[:2, column], strict=True):
                _work(axis, table.sel(scaling=scaling), wanted, scaling == "fixed")
            _error(axes[2, column], table, wanted)
            axes[2, column].set_xlabel("optimizer steps")
            _rates_above(axes[0, column], table, f"({'abcdefgh'[column]}) {table.title}")
        for words, axis in zip(_ROWS.values(), axes[:2, 0], strict=True):
            axis.set_ylabel(f"{words}\ngradient evaluations")
        axes[2, 0].set_ylabel("max |flow − optimizer|\n/ distance travelled")
        figure.legend(handles=_legend(tree, wanted), loc="outside lower center", ncols=3)
    return figure


def _flows(table: "xarray.Dataset") -> list[str]:
    return [str(flow) for flow in table.flow.values if flow in _LOOKS]


def _work(axis: "Axes", table: "xarray.Dataset", wanted: float, bound: bool) -> None:
    steps = table.steps.values
    ends = table.warm + np.array([steps[0] / 2, steps[-1] * 2])
    axis.plot(ends, ends, "k--", lw=0.9, zorder=1)
    for flow in _flows(table):
        one = table.sel(flow=flow)
        _line(axis, one, one.evaluations_own, wanted, ls="-")
        if bound and np.isfinite(one.limit) and flow != "staggered":
            axis.plot(ends, table.warm + float(one.limit) * (ends - table.warm), "k:", lw=0.9)
    axis.set(xscale="log", yscale="log")


def _error(axis: "Axes", table: "xarray.Dataset", wanted: float) -> None:
    for flow in _flows(table):
        for scaling, line in (("fixed", "-"), ("scaled", "--")):
            one = table.sel(flow=flow, scaling=scaling)
            _line(axis, one, one.own, wanted, ls=line)
    axis.axhline(wanted, color="0.6", lw=0.7, zorder=1)
    axis.set(xscale="log", yscale="log")


def _line(
    axis: "Axes", one: "xarray.Dataset", values: "xarray.DataArray", wanted: float, ls: str
) -> None:
    values = values.where(np.isfinite(values))
    if bool(values.isnull().all()):
        return
    look = _LOOKS[str(one.flow.values)]
    at = one.warm + one.steps.values
    middle, low, high = (
        f("seed").values for f in (values.median, values.min, values.max)
    )  # the three in one order of axes
    axis.errorbar(
        at, middle, [middle - low, high - middle], color=look["color"], ls=ls, lw=0.9,
        elinewidth=0.7, zorder=3,
    )  # fmt: skip
    good = one.own.max("seed").values <= wanted
    for chosen, face in ((good, look["color"]), (~good, "white")):
        axis.plot(at[chosen], middle[chosen], ls="none", mew=0.8, mfc=face, zorder=4, **look)


def _rates_above(axis: "Axes", table: "xarray.Dataset", title: str) -> None:
    """The learning rates that belong to the steps, on the panel's upper edge."""
    horizon, warm = table.horizon, table.warm
    above = axis.secondary_xaxis(
        "top",
        functions=(
            lambda x: horizon / np.maximum(x - warm, 1e-9),
            lambda eta: warm + horizon / np.maximum(eta, 1e-30),
        ),
    )
    above.set_xlabel("learning rate η", fontsize=7)
    above.tick_params(labelsize=6.5)
    axis.set_title(title, fontsize=8)


def _legend(tree: "xarray.DataTree", wanted: float) -> list[Any]:
    from matplotlib.lines import Line2D

    tables = [node.to_dataset() for node in tree.children.values()]
    met = [flow for flow in _LOOKS if any(flow in table.flow.values for table in tables)]

    def mark(label: str, **look: Any) -> Line2D:
        return Line2D([], [], label=label, **{"color": "0.3", "lw": 0.9, "ms": 3.6, **look})

    return [
        *(mark(_NAMES.get(flow, flow), **_LOOKS[flow]) for flow in met),
        mark("the optimizer itself", color="k", ls="--"),
        mark("theory: the least that the memory costs", color="k", ls=":"),
        mark(f"error above {wanted:g}", marker="o", mfc="white", ls="none"),
        mark("errors: fixed decays"),
        mark("errors: 1 − b ∝ η", ls="--"),
    ]
