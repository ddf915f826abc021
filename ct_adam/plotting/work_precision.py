"""Error against cost of flows, beside the optimizer's own run."""

from typing import TYPE_CHECKING, Any

import numpy as np

from .style import OKABE_ITO, PAGE, style

if TYPE_CHECKING:
    import xarray
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_COLOURS = {
    1: OKABE_ITO["sky"],
    2: OKABE_ITO["blue"],
    3: OKABE_ITO["vermilion"],
    4: OKABE_ITO["green"],
    6: OKABE_ITO["purple"],
}
_ROWS = {
    "evaluations": "gradient evaluations\n/ optimizer's",
    "solver_steps": "solver steps\n/ optimizer steps",
}
_SIZE = 3.4
_SOLVERS = ("Tsit5", "Bosh3")
"""Those shown; steps of the second cost less, so that their number is not shown."""


def work_figure(tree: "xarray.DataTree") -> "Figure":
    """Two rows, a column a case, of a tree made by `experiments.work_precision`.

    Filled markers joined over tolerances are Tsit5, hollow ones Bosh3 (in the first row).
    """
    import matplotlib.pyplot as plt

    columns = len(tree.children)
    with style():
        figure, axes = plt.subplots(
            2, columns, figsize=(PAGE * max(columns, 2) / 4, 4.2), squeeze=False, sharey="col"
        )
        for column, node in enumerate(tree.children.values()):
            table = node.to_dataset()
            for (key, label), axis in zip(_ROWS.items(), axes[:, column], strict=True):
                _panel(axis, table, key)
                axis.set_xlabel(label, fontsize=7)
            axes[0, column].set_title(f"({'abcdefgh'[column]}) {table.title}", fontsize=7)
        for axis in axes[:, 0]:
            axis.set_ylabel("max |flow − optimizer|\n/ distance travelled", fontsize=7)
        handles = _legend(tree)
        figure.legend(
            handles=handles, loc="outside lower center", ncols=4 if columns > 2 else 2, fontsize=6.5
        )
    return figure


def _panel(axis: "Axes", table: "xarray.Dataset", key: str) -> None:
    unit = table.cost if key == "evaluations" else table.steps
    for solver in _SOLVERS if key == "evaluations" else _SOLVERS[:1]:
        if solver not in table.solver.values:
            continue
        first = solver == _SOLVERS[0]
        for flow in range(table.sizes["flow"]):
            row = table.sel(solver=solver).isel(flow=flow)
            error = np.where(np.isfinite(row.error), row.error, np.nan)
            colour, marker = _COLOURS[int(row.order)], _marker(row)
            look: dict[str, Any] = (
                {"lw": 0.7, "mew": 0, "zorder": 3}
                if first
                else {"ls": "none", "mfc": "none", "mew": 0.6, "alpha": 0.75}
            )
            axis.plot(row[key] / unit, error, marker=marker, ms=_SIZE, color=colour, **look)
    if key == "evaluations":
        axis.axvline(1, color="k", ls="--", lw=0.8, zorder=1)
    axis.set(xscale="log", yscale="log")
    axis.margins(0.12)
    _readable(axis)
    axis.minorticks_off()


def _readable(axis: "Axes") -> None:
    """Wide enough for two labels at least, and for small differences to look small."""
    low, high = axis.get_ylim()
    if high < 100 * low:  # whole decades: less than two would have no two labels
        axis.set_ylim(10 ** np.floor(np.log10(low)), 10 ** np.ceil(np.log10(high)))
    left, right = axis.get_xlim()
    if right < 6 * left:  # no difference that matters shall look like one
        middle = np.sqrt(left * right)
        left, right = axis.set_xlim(middle / 3, middle * 3)
    if right < 30 * left:
        ticks = [t * 10.0**k for k in range(-3, 3) for t in (1, 2, 5)]
        axis.set_xticks([t for t in ticks if left < t < right])
        axis.xaxis.set_major_formatter(lambda x, _: f"{x:g}")


def _marker(row: "xarray.Dataset") -> str:
    if str(row.model.values):
        return "^"
    extra = int(row.degree) - int(row.order)
    if int(row.stride) > 1:
        return "X" if extra else "s"
    return "D" if extra else "o"


def _legend(tree: "xarray.DataTree") -> list[Any]:
    from matplotlib.lines import Line2D

    tables = [node.to_dataset() for node in tree.children.values()]
    orders = sorted({int(order) for table in tables for order in table.order.values})

    def mark(label: str, **look: Any) -> Line2D:
        return Line2D([], [], label=label, **{"ls": "none", "ms": 4, "color": "0.3", **look})

    return [
        *(mark(f"order {p}", ls="-", lw=1.4, color=_COLOURS[p]) for p in orders),
        mark("degree = order", marker="o"),
        mark("degree 6, 7 (orders 2, 3)", marker="D"),
        mark("stride 2", marker="s"),
        mark("stride 2, degree 7", marker="X"),
        mark("log (order 1), staggered (2)", marker="^"),
        mark("Tsit5, by tolerance", marker="o", ls="-", lw=0.7),
        mark("Bosh3", marker="o", mfc="none"),
        mark("the optimizer", color="k", ls="--", lw=0.8),
    ]
