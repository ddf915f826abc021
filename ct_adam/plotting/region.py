"""The stability map: largest update and unstable cells, theory's boundaries on top."""

import json
from typing import TYPE_CHECKING, Any

import numpy as np

from ..theory import stability_boundary
from .style import COLUMN, OKABE_ITO, PAGE, style

if TYPE_CHECKING:
    import xarray
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ROWS = ("optimizer", "flow")
DEFAULT_PAIR = (0.9, 0.999)
_LARGEST = 100.0  # the colour scale's end: all that is larger is drawn alike


def region_figure(tree: "xarray.DataTree") -> "Figure":
    """Two rows (optimizer above flow), a column a panel, of a tree made by `region`."""
    import matplotlib.pyplot as plt
    from matplotlib.colors import LogNorm

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
        norm = LogNorm(1, _LARGEST)
        mesh: Any = None
        rates = json.loads(tree.attrs["config"])["rates"]
        for column, node in enumerate(tree.children.values()):
            panel = node.to_dataset()
            for row, side in enumerate(ROWS):
                axis = axes[row, column]
                mesh = _panel(axis, panel.sel(side=side), norm)
                _theory(axis, panel)
            axes[0, column].set_title(_title(panel), fontsize=7)
        named = next(iter(tree.children.values())).attrs.get("optimizer", "Adam")
        labels = [f"discrete {named}", "Adam as an ODE"]
        for row, label in enumerate(labels):
            note = f", {rates} rates" if row == 1 else ""
            axes[row, 0].set_ylabel(f"{label}{note}\nsecond-moment decay b2", fontsize=7)
        for axis in axes[1]:
            axis.set_xlabel("first-moment decay b1", fontsize=7)
        label = "largest update  max ‖u‖$_\\infty$"
        figure.colorbar(mesh, ax=axes, extend="max", aspect=40, pad=0.01, label=label)
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
    from cmcrameri import cm

    x, y = _edges(cells.b1.values), _edges(cells.b2.values)
    answered = cells.answered.values
    size = np.where(answered, np.clip(cells.max_update.values, None, 10 * _LARGEST), np.nan)
    axis.set_facecolor("0.8")  # what shows through where no cell has an answer
    colours = cm.lapaz_r  # pyright: ignore[reportAttributeAccessIssue]
    mesh = axis.pcolormesh(x, y, size.T, norm=norm, cmap=colours, rasterized=True)
    _outline(axis, x, y, cells.unstable.values)
    axis.plot(*DEFAULT_PAIR, "*", color=OKABE_ITO["orange"], mec="k", mew=0.5, ms=8, clip_on=False)
    # No tick at b1 = 1: it would touch the next panel's first.
    choices = (0, 0.25, 0.5, 0.75) if x[0] < 0.4 else (0.5, 0.7, 0.9)
    axis.set_xticks([tick for tick in choices if tick >= x[0]])
    axis.set(xlim=(x[0], x[-1]), ylim=(y[0], y[-1]), aspect="equal")
    return mesh


def _outline(axis: "Axes", x: np.ndarray, y: np.ndarray, mask: np.ndarray) -> None:
    """A line along the edges of the cells in `mask`."""
    padded = np.pad(mask, 1)
    segments = []
    for i, j in np.argwhere(padded[1:, 1:-1] != padded[:-1, 1:-1]):
        segments.append([(x[i], y[j]), (x[i], y[j + 1])])
    for i, j in np.argwhere(padded[1:-1, 1:] != padded[1:-1, :-1]):
        segments.append([(x[i], y[j]), (x[i + 1], y[j])])
    from matplotlib.collections import LineCollection

    axis.add_collection(
        LineCollection(segments, colors=OKABE_ITO["vermilion"], linewidths=1.6, capstyle="round")
    )


def _theory(axis: "Axes", panel: "xarray.Dataset") -> None:
    b1 = np.linspace(_edges(panel.b1.values)[0], 1, 200, endpoint=False)
    axis.plot(b1, np.asarray(stability_boundary(b1, "discrete")), "k--", lw=1)
    axis.plot(b1, np.asarray(stability_boundary(b1, "continuous")), "k:", lw=1.2)


def _legend(lost: bool) -> list[Any]:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    handles = [
        Line2D([], [], color="k", ls="--", lw=1, label="theory: b2 = b1² (discrete, log rates)"),
        Line2D([], [], color="k", ls=":", lw=1.2, label="theory: b2 = b1/(2 − b1) (lag rates)"),
        Line2D([], [], color="none", marker="*", mfc=OKABE_ITO["orange"], mec="k", mew=0.5, ms=8,
               label="default pair (0.9, 0.999)"),
        Line2D([], [], color=OKABE_ITO["vermilion"], lw=1.6,
               label="measured: unstable cells (slope of ln ‖u‖$_\\infty$ > 1/steps)"),
    ]  # fmt: skip
    return [*handles, Patch(facecolor="0.8", label="cell without an answer")] if lost else handles


def _edges(centres: np.ndarray) -> np.ndarray:
    """Edges of equal cells around `centres`; a single cell is as wide as its distance to 1."""
    half = (centres[1] - centres[0]) / 2 if len(centres) > 1 else 1 - centres[0]
    return np.append(centres - half, centres[-1] + half)
