"""The atlas of stability maps: streams and quadratics over the whole square, and what they say."""

from typing import TYPE_CHECKING, Any

import numpy as np

from .square import NO_ANSWER, UPDATE_LABEL, draw_map, square_legend, update_norm
from .style import OKABE_ITO, PAGE, style

if TYPE_CHECKING:
    import xarray
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_STREAMS = {
    "worst_case": "worst case",
    "vanishing": "vanishing",
    "random": "random",
    "constant": "constant",
}
_ROWS = {"optimizer": "discrete", "flow": "ODE, log rates"}
_UNSTABLE, _LOW = OKABE_ITO["vermilion"], OKABE_ITO["blue"]
_WIDTH = 1.1
"""Of the outlines, in points."""
_VERDICTS = {
    "predicts": OKABE_ITO["green"],
    "only bounds": OKABE_ITO["sky"],
    "is exceeded": OKABE_ITO["vermilion"],
    "has no answer": NO_ANSWER,
}
_WORDS = (
    "theory predicts what is seen",
    "theory only bounds what is seen",
    "an update exceeds its bound",
    "no answer (maps too)",
)
_COLOURS = {
    "optimizer": OKABE_ITO["blue"],
    "log": OKABE_ITO["orange"],
    "lag": OKABE_ITO["purple"],
    "flow": OKABE_ITO["orange"],
}
_NAMES = {"optimizer": "discrete", "log": "ODE, log rates", "lag": "ODE, lag rates"}
_MARKERS = {"worst_case": "o", "vanishing": "s"}
_DASHES = {"worst_case": "--", "vanishing": ":"}


def atlas_figure(tree: "xarray.DataTree") -> "Figure":
    """Maps of streams and of quadratics (optimizer above flow), then four panels of what they say,
    of a tree made by `experiments.region_atlas`."""
    import matplotlib.pyplot as plt

    with style():
        figure = plt.figure(figsize=(PAGE, 9.0))
        maps, below = np.ravel(figure.subfigures(2, 1, height_ratios=[6.9, 2.1]))
        _maps(maps, tree)
        axes = below.subplots(1, 4, width_ratios=[1, 1, 1, 0.85])
        _lag(axes[0], tree["lag"].to_dataset().sel(side="flow"))
        _refined(axes[1], tree["refined"].to_dataset())
        _shares(axes[2], tree)
        _areas(axes[3], tree["quadratic"].to_dataset())
        titles = ("ODE, lag rates,\nits worst case", "refined boundary\nbelow C = 0",
                  "what theory does:\nshare of the square", "region of\nthe quadratic")  # fmt: skip
        for letter, axis, title in zip("cdef", axes, titles, strict=True):
            axis.set_title(f"({letter}) {title}", fontsize=7)
        figure.legend(
            handles=_legend(), loc="outside lower center", ncols=3, columnspacing=1.0, fontsize=6
        )
    return figure


def _maps(figure: Any, tree: "xarray.DataTree") -> None:
    streams = {name: tree[name].to_dataset() for name in _STREAMS if name in tree}
    quadratic = tree["quadratic"].to_dataset()
    rates = quadratic.learning_rate.values
    columns = max(len(streams), len(rates))
    axes = figure.subplots(4, columns, sharex=True, sharey=True, squeeze=False)
    norm, mesh = update_norm(), None
    for column, (name, panel) in enumerate(streams.items()):
        for row, side in enumerate(_ROWS):
            mesh = draw_map(axes[row, column], panel.sel(side=side), norm, width=_WIDTH)
        about = f"{_STREAMS[name]}, {panel.sizes['b1']}² pairs"
        axes[0, column].set_title("\n".join(["" if column else "(a) streams", about]), fontsize=7)
    for column, rate in enumerate(rates):
        panel = quadratic.sel(learning_rate=rate)
        for row, side in enumerate(_ROWS, 2):
            axis = axes[row, column]
            mesh = draw_map(axis, panel.sel(side=side), norm, "low_loss", _LOW, _WIDTH)
        about = f"η = {rate:g}, {int(panel.steps)} steps"
        title = "" if column else f"(b) quadratic, {panel.sizes['b1']}² pairs"
        axes[2, column].set_title("\n".join([title, about]), fontsize=7)
    for axis in axes.flat:
        axis.set_visible(bool(axis.collections))
        axis.set_yticks([0, 0.25, 0.5, 0.75, 1])
    for row, label in enumerate(list(_ROWS.values()) * 2):
        axes[row, 0].set_ylabel(f"{label}\nsecond-moment decay b2", fontsize=6.5)
    for axis in axes[-1]:
        axis.set_xlabel("first-moment decay b1", fontsize=7)
    figure.colorbar(mesh, ax=axes, extend="max", aspect=50, pad=0.01, label=UPDATE_LABEL)


def _lag(axis: "Axes", cells: "xarray.Dataset") -> None:
    draw_map(axis, cells, update_norm(), width=_WIDTH)
    axis.set_xlabel("first-moment decay b1", fontsize=7)
    axis.set_ylabel("second-moment decay b2", fontsize=7)


def _refined(axis: "Axes", found: "xarray.Dataset") -> None:
    """Distances of the measured boundary, and of theory's for a slope of 1/steps, to C = 0."""
    spread = np.linspace(0, found.sizes["b1"] - 1, min(found.sizes["b1"], 25)).round().astype(int)
    for stream in map(str, found.stream.values):
        row = found.sel(stream=stream)
        theory = row.sel(side="optimizer")
        axis.plot(row.b1, theory.theory - theory.resolvable, color="k", lw=1, ls=_DASHES[stream])
        for first, side in enumerate(_NAMES):  # every third, so that no side hides another
            at = row.sel(side=side).isel(b1=spread[first :: len(_NAMES)])
            look: Any = {"fmt": _MARKERS[stream], "ms": 2.2, "mew": 0.6, "mfc": "none", "lw": 0.6}
            distance = at.theory - at.boundary
            axis.errorbar(at.b1, distance, at.uncertainty, color=_COLOURS[side], **look)
    axis.set_ylim(0)
    axis.set_xlabel("first-moment decay b1", fontsize=7)
    axis.set_ylabel("distance in b2", fontsize=7)


def _shares(axis: "Axes", tree: "xarray.DataTree") -> None:
    """A bar a problem and side, of the shares of what theory does there."""
    streams = {**_STREAMS, "lag": "lag, (½, 1)²"}
    rows = [(label, tree[name].share.values) for name, label in streams.items() if name in tree]
    quadratic = tree["quadratic"]
    rows += [
        (f"η = {rate:g}", share.values)
        for rate, share in zip(quadratic.learning_rate.values, quadratic.share, strict=True)
    ]
    for at, (_, shares) in enumerate(rows):
        for offset, share in zip((-0.2, 0.2), shares, strict=True):
            left = np.concatenate([[0], np.cumsum(share)[:-1]])
            axis.barh(at + offset, share, 0.36, left=left, color=list(_VERDICTS.values()))
    axis.set_yticks(range(len(rows)), [label for label, _ in rows], fontsize=6)
    axis.invert_yaxis()
    axis.set(xlim=(0, 1))
    axis.set_xlabel("share (discrete above ODE)", fontsize=7)


def _areas(axis: "Axes", panel: "xarray.Dataset") -> None:
    looks = dict(zip(panel.fraction.values, ("-", "--", ":"), strict=True))
    for side in _ROWS:
        for fraction, dashes in looks.items():
            area = panel.area.sel(side=side, fraction=fraction)
            look: Any = {"color": _COLOURS[side], "ls": dashes, "marker": "o", "ms": 2.5}
            axis.plot(panel.learning_rate, area, **look)
    axis.set_xscale("log")
    axis.invert_xaxis()
    axis.minorticks_off()
    axis.set_ylim(0, 1.03)
    words = "loss below\n— 10⁻² of start\n- - 10⁻³\n··· 10⁻⁴"
    axis.text(0.97, 0.05, words, transform=axis.transAxes, fontsize=6, ha="right")
    axis.set_xlabel("learning rate η", fontsize=7)
    axis.set_ylabel("area", fontsize=7)


def _legend() -> list[Any]:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    outlined = "unstable: slope of ln ‖u‖$_\\infty$ > 1/steps"
    both = {"color": "k", "lw": 1}
    return [
        *square_legend(),
        Line2D([], [], color=_UNSTABLE, lw=_WIDTH, label=outlined),
        Line2D([], [], color=_LOW, lw=_WIDTH, label="loss ends below 10⁻³ of its start"),
        Line2D([], [], ls="--", label="(d) theory: slope = 1/steps, worst case (○)", **both),
        Line2D([], [], ls=":", label="(d) theory: the same, vanishing (□)", **both),
        *[
            Line2D([], [], color=_COLOURS[side], lw=1.2,
                   label=f"({'d' if side == 'lag' else 'd, f'}) {name}")
            for side, name in _NAMES.items()
        ],
        *[
            Patch(facecolor=colour, label=words)
            for colour, words in zip(_VERDICTS.values(), _WORDS, strict=True)
        ],
    ]  # fmt: skip
