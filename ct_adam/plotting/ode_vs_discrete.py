"""Parameters of a network: the optimizer's dots on the ODE's line, and how far all are apart."""

import json
from typing import TYPE_CHECKING

from .style import OKABE_ITO, PAGE, style

if TYPE_CHECKING:
    import xarray
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def paths_figure(dataset: "xarray.Dataset") -> "Figure":
    """Above the parameters' changes, dots on the line; below every flow's error.

    Of a dataset made by `experiments.ode_vs_discrete`.
    """
    import matplotlib.pyplot as plt
    from matplotlib.lines import Line2D

    with style():
        figure, axes = plt.subplots(
            2, 2, figsize=(PAGE, 4.4), sharex=True, sharey="row", height_ratios=(1.25, 1)
        )
        for column, name in zip(axes.T, dataset.optimizer.values, strict=True):
            _draw_paths(column[0], dataset.sel(optimizer=name))
            _draw_errors(column[1], dataset.sel(optimizer=name))
            column[0].set_title(str(name))
            column[1].set_xlabel("optimizer step after the hand-over")
        shown = dataset.sizes["parameter"]
        axes[0, 0].set_ylabel(rf"change of {shown} parameters, in $\eta$")
        axes[1, 0].set_ylabel("|ODE − optimizer| of all\nparameters, in $\\eta$")
        axes[0, 0].legend(loc="upper left")
        axes[1, 1].legend(loc="center left", bbox_to_anchor=(1.02, 0.5), title="ODE")
        parts = [Line2D([], [], color="0.3", ls=ls) for ls in ("-", ":")]
        axes[1, 0].legend(parts, ["largest", "median"], loc="lower right", ncols=2)
    return figure


def _eta(dataset: "xarray.Dataset") -> float:
    return json.loads(dataset.attrs["config"])["learning_rate"]


def _draw_paths(axis: "Axes", side: "xarray.Dataset") -> None:
    change = (side.path - side.path.isel(step=0)) / _eta(side)
    line = side.flow.values[0]
    for i in range(change.sizes["parameter"]):
        first = i == 0
        axis.plot(
            side.step,
            change.sel(side=line).isel(parameter=i),
            color=OKABE_ITO["sky"],
            lw=1,
            label=f"ODE, {line}" if first else None,
        )
        axis.plot(
            side.step,
            change.sel(side="optimizer").isel(parameter=i),
            "o",
            color="k",
            ms=1.6,
            mew=0,
            label="optimizer" if first else None,
        )


def _draw_errors(axis: "Axes", side: "xarray.Dataset") -> None:
    """From the second saved step on: at the hand-over the error is 0 or rounding."""
    eta, later = _eta(side), side.isel(step=slice(1, None))
    for i, flow in enumerate(side.flow.values):
        row = later.sel(flow=flow)
        axis.plot(row.step, row.error / eta, color=f"C{i}", label=flow)
        axis.plot(row.step, row.median_error / eta, ls=":", color=f"C{i}")
    axis.set_yscale("log")
