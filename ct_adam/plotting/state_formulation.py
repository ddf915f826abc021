"""Which state an Adam flow should carry: error against evaluations, and who got to the end."""

from typing import TYPE_CHECKING, Any

import numpy as np

from .style import OKABE_ITO, PAGE, style

if TYPE_CHECKING:
    import xarray
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_LABELS = {
    "v": "v", "sqrt_v": "√v", "ln_v": "ln v", "exponential": "v, exponential memories",
    "floor": "v, solver steps ≥ 1/{:.0f}",
}  # fmt: skip
"""The last one is to be told its floor."""
_LOOKS = {
    "v": ("blue", "o"), "sqrt_v": ("vermilion", "^"), "ln_v": ("green", "s"),
    "exponential": ("purple", "D"), "floor": ("orange", "v"),
}  # fmt: skip
_ROWS = {
    "update": "error of update u\nmax |Δu| / max(1, |u|)",
    "params": "error of parameters θ\nmax |Δθ| / distance travelled",
}


def states_figure(
    dataset: "xarray.Dataset", found: dict[str, Any], *, target: float, b1: float, floor: float
) -> "Figure":
    """A column a problem; above the error of u, below that of θ; endings in the legend.

    Of a dataset and numbers made by `experiments.state_formulation`: `target` is the error at which
    evaluations are compared, `floor` the shortest solver step of the last state.
    """
    import matplotlib.pyplot as plt

    with style():
        count = dataset.sizes["problem"]
        figure, axes = plt.subplots(
            2, count, figsize=(PAGE, 4.1), sharex="col", sharey="row", squeeze=False
        )
        for column, name in enumerate(dataset.problem.values):
            row = dataset.sel(problem=name)
            for axis, what in zip(axes[:, column], _ROWS, strict=True):
                _work_precision(axis, row, what, target)
                table = found[f"evaluations to an error of {target:g} in {what}"][str(name)]
                _ratio(axis, table["v over better of sqrt_v, ln_v"])
            title = f"({'abcdefgh'[column]}) {row.title.item()}\nb1 = {b1}, b2 = {row.b2.item()}"
            axes[0, column].set_title(title, fontsize=7)
            axes[1, column].set_xlabel("gradient evaluations", fontsize=7)
        for axis, label in zip(axes[:, 0], _ROWS.values(), strict=True):
            axis.set_ylabel(label, fontsize=7)
            axis.set_ylim(top=3)  # room for the words above the lines
        _endings(figure, dataset, found["reached the last step"], floor)
    return figure


def _work_precision(axis: "Axes", row: "xarray.Dataset", what: str, target: float) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axis.set(xscale="log", yscale="log")
    # Powers of ten alone would leave some panels with a single label.
    axis.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axis.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:.0f}"))
    axis.xaxis.set_minor_formatter(NullFormatter())
    axis.yaxis.set_major_locator(LogLocator(base=100, numticks=12))  # the target is among them
    axis.axhline(target, color="0.7", lw=0.6, zorder=0)
    for state in row.state.values:
        line = row.sel(state=state)
        colour, marker = OKABE_ITO[_LOOKS[state][0]], _LOOKS[state][1]
        work, left = line.evaluations.values, line[f"{what}_error"].values
        axis.plot(work, left, color=colour, lw=0.9)
        # Open where the run did not reach its end: the error is that of the part it did.
        for mask, face in ((line.successful.values, colour), (~line.successful.values, "white")):
            axis.plot(work[mask], left[mask], marker, ms=3, mfc=face, mec=colour, mew=0.7)


def _ratio(axis: "Axes", ratio: float) -> None:
    text = f"evaluations at $10^{{-6}}$:\nv / better of √v, ln v = {ratio:.2f}"
    axis.text(0.98, 0.98, text, transform=axis.transAxes, ha="right", va="top", fontsize=6.5)


def _endings(
    figure: "Figure", dataset: "xarray.Dataset", reached: dict[str, dict[str, str]], floor: float
) -> None:
    """The legend as a table: a row a state, and how each trial ended."""
    from matplotlib.lines import Line2D

    def blank(label: str) -> Line2D:
        return Line2D([], [], color="none", label=label)

    first, last = np.log10(dataset.rtol.values[[0, -1]])
    handles = [blank(f"state (rtol $10^{{{first:.0f}}}$ … $10^{{{last:.0f}}}$)")]
    for state in dataset.state.values:
        colour, marker = _LOOKS[state]
        look = {"color": OKABE_ITO[colour], "marker": marker, "ms": 4, "lw": 0.9}
        handles.append(Line2D([], [], label=_LABELS[state].format(1 / floor), **look))
    for trial in dataset.trial.values:
        handles.append(blank(dataset.trial_title.sel(trial=trial).item()))
        handles += [blank(reached[str(trial)][str(state)]) for state in dataset.state.values]
    columns = 1 + dataset.sizes["trial"]
    figure.legend(handles=handles, loc="outside lower center", ncols=columns, columnspacing=1)
