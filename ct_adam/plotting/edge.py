"""Flows past the edge of stability: sharpness, oscillation and error, by optimizer."""

from typing import TYPE_CHECKING, Any

import numpy as np

from .style import OKABE_ITO, PAGE, style

if TYPE_CHECKING:
    import xarray
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_COLOURS = {
    "stride 1": OKABE_ITO["vermilion"],
    "stride 2": OKABE_ITO["blue"],
    "centre": OKABE_ITO["green"],
}
_DOTS: dict[str, Any] = {"marker": "o", "ms": 2, "ls": "none", "color": "0.25", "mew": 0}
_DOT_COUNT = 40
_FLOOR = 1e-7  # errors below are not shown: the first is 0
_ROWS = (
    "preconditioned\nsharpness × η",
    "loss",
    "half extent of\noscillation in θ",
    "max |flow − optimizer|\n/ distance travelled",
)


def edge_figure(tree: "xarray.DataTree") -> "Figure":
    """Four rows, a column an optimizer, of a tree made by `experiments.edge_of_stability`.

    The first three rows are of the first seed; the errors are of all, thick that of the first.
    """
    import matplotlib.pyplot as plt

    with style():
        columns = len(tree.children)
        figure, axes = plt.subplots(
            4,
            columns,
            figsize=(PAGE * max(columns, 2) / 4, 4.9),
            sharex="col",
            squeeze=False,
        )
        for column, node in enumerate(tree.children.values()):
            panel = node.to_dataset()
            one = panel.isel(seed=0)
            for axis, draw in zip(axes[:, column], (_sharpness, _loss, _oscillation), strict=False):
                draw(axis, one)
            _errors(axes[3, column], panel)
            axes[0, column].set_title(f"({'abcdefgh'[column]}) {panel.title}", fontsize=7)
            axes[3, column].set_xlabel("optimizer step")
            axes[3, column].set_xlim(0, panel.step.values[-1])
        for axis, label in zip(axes[:, 0], _ROWS, strict=True):
            axis.set_ylabel(label, fontsize=7)
        for axis in axes[3, 1:]:
            axis.tick_params(labelleft=False)  # the scale of the first
        figure.align_ylabels(axes[:, 0])
        figure.legend(handles=_legend(), loc="outside lower center", ncols=2 if columns < 3 else 3)
    return figure


def _sharpness(axis: "Axes", one: "xarray.Dataset") -> None:
    axis.axhline(one.threshold, color="k", ls="--", lw=0.8)
    line = one.sharpness.sel(where="flow's centre").values
    axis.plot(one.point, line, color=_COLOURS["centre"], lw=0.9)
    axis.plot(one.point, one.sharpness.sel(where="optimizer's centre"), **_DOTS)


def _loss(axis: "Axes", one: "xarray.Dataset") -> None:
    steps, loss = one.step.values, one.loss.values
    axis.plot(steps, one.flow_loss.sel(flow="stride 1"), color=_COLOURS["stride 1"], lw=0.9)
    axis.plot(steps, one.flow_loss.sel(flow="stride 2"), color=_COLOURS["stride 2"], lw=0.9)
    axis.plot(one.pair, one.centre_loss, color=_COLOURS["centre"], lw=0.9)
    every = max(1, len(steps) // _DOT_COUNT) | 1  # odd, so that dots fall on both phases
    axis.plot(steps[::every], loss[::every], zorder=3, **_DOTS)
    # A flow that breaks down must not squeeze the optimizer into a line.
    margin = 0.06 * np.ptp(loss)
    axis.set_ylim(min(loss.min(), one.centre_loss.min()) - margin, loss.max() + margin)


def _oscillation(axis: "Axes", one: "xarray.Dataset") -> None:
    pairs = one.pair.values
    every = max(1, len(pairs) // _DOT_COUNT)
    seen = one.oscillation
    axis.plot(pairs, seen.sel(side="flow"), color=_COLOURS["stride 2"], lw=0.9)
    axis.plot(pairs[::every], seen.sel(side="optimizer")[::every], **_DOTS)
    axis.set_yscale("log")
    # Whole decades: a panel of less than one would have no two labels.
    low, high = (float(f(seen.sel(side="optimizer"))) for f in (np.min, np.max))
    if low > 0:
        axis.set_ylim(10 ** np.floor(np.log10(low)), 10 ** np.ceil(np.log10(high)))
    axis.minorticks_off()


def _errors(axis: "Axes", panel: "xarray.Dataset") -> None:
    axis.axhline(panel.limit, color="0.6", lw=0.6, zorder=0)
    every = max(1, panel.sizes["step"] // 100)
    for flow in panel.flow.values:
        for seed in panel.seed.values:
            row = panel.sel(flow=flow, seed=seed)
            error = np.where(row.error > _FLOOR, row.error, np.nan)[::every]
            first = seed == panel.seed.values[0]
            look: dict[str, Any] = (
                {"lw": 1.2} if first else {"lw": 0.4, "antialiased": False}
            )  # half the file
            axis.plot(panel.step[::every], error, color=_COLOURS[str(flow)], **look)
            if np.isfinite(row.end_step):
                axis.plot(row.end_step, panel.limit, "x", color="k", ms=4, mew=0.9, zorder=4)
    axis.set_yscale("log")
    axis.set_ylim(_FLOOR, 5)
    axis.minorticks_off()


def _legend() -> list[Any]:
    from matplotlib.lines import Line2D

    def line(colour: str, label: str, **look: Any) -> Line2D:
        return Line2D([], [], color=colour, label=label, **{"lw": 1.2, **look})

    return [
        Line2D([], [], label="optimizer (first row: at its centre)", **{**_DOTS, "ms": 3.5}),
        line(_COLOURS["stride 2"], "flow, stride 2"),
        line(_COLOURS["centre"], "centre of flow, stride 2"),
        line(_COLOURS["stride 1"], "flow, stride 1"),
        line("k", "theory: edge of stability", ls="--", lw=0.8),
        line("k", "flow ends: error above 0.1", ls="none", marker="x", ms=4),
    ]
