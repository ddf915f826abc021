"""The stability map: largest update and unstable cells, theory's boundaries on top."""

import json
from typing import TYPE_CHECKING, Any

import numpy as np

from .square import NO_ANSWER, UPDATE_LABEL, draw_map, square_legend, update_norm
from .style import COLUMN, OKABE_ITO, PAGE, style

if TYPE_CHECKING:
    import xarray
    from matplotlib.figure import Figure

_SIDES = ("optimizer", "flow")


def region_figure(tree: "xarray.DataTree") -> "Figure":
    """The stability map: two rows (optimizer above flow), a column a panel.

    **Arguments:**

    - `tree`: of `ct_adam.sweep.region` or a store of `ct-adam region`: nodes over (side, b1, b2).

    **Returns:** a figure a page wide, for four panels; `save_figure` keeps it.

    !!! example
        >>> from ct_adam import sweep
        >>> config = sweep.RegionConfig(panels=("constant",), cells=4, stream_steps=20)
        >>> figure = region_figure(sweep.region(config))
        >>> figure.axes[1].get_xlabel()
        'first-moment decay b1'
    """
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
        for column, node in enumerate(tree.children.values()):
            panel = node.to_dataset()
            for axis, side in zip(axes[:, column], _SIDES, strict=True):
                mesh = draw_map(axis, panel.sel(side=side), norm)
            axes[0, column].set_title(_title(panel), fontsize=7)
        _label(axes, tree)
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


def _label(axes: Any, tree: "xarray.DataTree") -> None:
    optimizer = next(iter(tree.children.values())).attrs.get("optimizer", "Adam")
    rates = json.loads(tree.attrs["config"])["rates"]
    sides = (f"discrete {optimizer}", f"Adam as an ODE, {rates} rates")
    for axis, side in zip(axes[:, 0], sides, strict=True):
        axis.set_ylabel(f"{side}\nsecond-moment decay b2", fontsize=7)
    for axis in axes[1]:
        axis.set_xlabel("first-moment decay b1", fontsize=7)


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
