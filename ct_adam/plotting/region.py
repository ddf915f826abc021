"""The stability map: largest update and unstable cells, theory's boundaries on top."""

import json
from typing import TYPE_CHECKING, Any

import numpy as np

from .square import (
    NO_ANSWER,
    UPDATE_LABEL,
    draw_boundaries,
    draw_square,
    edges,
    outline,
    square_legend,
    update_norm,
)
from .style import COLUMN, OKABE_ITO, PAGE, style

if TYPE_CHECKING:
    import xarray
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ROWS = ("optimizer", "flow")


def region_figure(tree: "xarray.DataTree") -> "Figure":
    """Two rows (optimizer above flow), a column a panel, of a tree made by `region`."""
    import matplotlib.pyplot as plt

    with style():
        columns = len(tree.children)
        width = PAGE * (columns + 1) / 5
        figure, axes = plt.subplots(
            2,
            columns,
            figsize=(max(width, COLUMN), 4.0),
            sharex=True,
            sharey=True,
            squeeze=False,
            layout="compressed",
        )
        norm = update_norm()
        mesh: Any = None
        rates = json.loads(tree.attrs["config"])["rates"]
        for column, node in enumerate(tree.children.values()):
            panel = node.to_dataset()
            for row, side in enumerate(ROWS):
                axis = axes[row, column]
                mesh = _panel(axis, panel.sel(side=side), norm)
                draw_boundaries(axis, edges(panel.b1.values)[0])
            axes[0, column].set_title(_title(panel), fontsize=7)
        named = next(iter(tree.children.values())).attrs.get("optimizer", "Adam")
        labels = [f"discrete {named}", "Adam as an ODE"]
        for row, label in enumerate(labels):
            note = f", {rates} rates" if row == 1 else ""
            axes[row, 0].set_ylabel(f"{label}{note}\nsecond-moment decay b2", fontsize=7)
        for axis in axes[1]:
            axis.set_xlabel("first-moment decay b1", fontsize=7)
        figure.colorbar(mesh, ax=axes, extend="max", aspect=40, pad=0.01, label=UPDATE_LABEL)
        lost = any(not np.all(node["answered"].values) for node in tree.children.values())
        figure.legend(
            handles=_legend(lost), loc="outside lower center", ncols=2 if columns > 2 else 1
        )
    return figure


def _title(panel: "xarray.Dataset") -> str:
    first, _, rest = panel.attrs["title"].partition(", ")
    cells, steps = panel.sizes["b1"], panel.attrs["steps"]
    return "\n".join([first, rest, f"{steps} steps, {cells}² pairs"])


def _panel(axis: "Axes", cells: "xarray.Dataset", norm: Any) -> Any:
    mesh = draw_square(axis, cells, norm)
    x, y = edges(cells.b1.values), edges(cells.b2.values)
    outline(axis, x, y, cells.unstable.values, OKABE_ITO["vermilion"])
    return mesh


def _legend(lost: bool) -> list[Any]:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    label = "measured: unstable cells (slope of ln ‖u‖$_\\infty$ > 1/steps)"
    handles = [
        *square_legend(),
        Line2D([], [], color=OKABE_ITO["vermilion"], lw=1.6, label=label),
    ]
    return (
        [*handles, Patch(facecolor=NO_ANSWER, label="cell without an answer")] if lost else handles
    )
