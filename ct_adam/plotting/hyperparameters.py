"""Searches over hyperparameters by cost, the paths of descent, and its hypergradients."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from .style import OKABE_ITO, PAGE, style

if TYPE_CHECKING:
    import xarray
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_SEARCHES = {
    "flow": ("blue", "-", "descent, flow"),
    "unrolled": ("vermilion", "--", "descent, discrete run"),
    "random": ("black", ":", "random search"),
    "TPE": ("green", "-.", "TPE (optuna)"),
}
_KINDS = {
    "η": ("blue", "o", "learning rate η"),
    "1 − b1": ("vermilion", "s", "1 − b1, first moment"),
    "1 − b2": ("orange", "^", "1 − b2, second moment"),
    "λ": ("green", "D", "weight decay λ"),
}


def hyperparameters_figure(tree: "xarray.DataTree", numbers: Mapping[str, Any]) -> "Figure":
    """Losses by cost, comparisons, hypergradients; below, the four paths of descent."""
    import matplotlib.pyplot as plt

    with style():
        figure = plt.figure(figsize=(PAGE, 5.0), layout="constrained")
        halves: Any = figure.subfigures(2, 1, height_ratios=(1.2, 1))
        top, bottom = halves
        axes = top.subplots(1, 3, width_ratios=(1.15, 0.9, 1.15))
        _losses(axes[0], tree["best"].to_dataset())
        _comparisons(axes[1], next(v for k, v in numbers.items() if k.startswith("ln(")))
        _slopes(axes[2], tree["probes"].to_dataset())
        _paths(bottom, tree)
    return figure


def _losses(axis: "Axes", best: "xarray.Dataset") -> None:
    """Seed by seed over the best that any search found: seeds differ more than searches do."""
    loss = best.loss.sel(images="validation")
    excess = loss / loss.isel(budget=-1).min("search")
    for name in best.search.values:
        colour, line, label = _SEARCHES[name]
        low, middle, high = excess.sel(search=name).quantile([0.25, 0.5, 0.75], dim="seed")
        look: dict[str, Any] = {"color": OKABE_ITO[colour], "ls": line, "lw": 1.3}
        axis.step(best.budget, middle, where="post", label=label, **look)
        shade = {"color": OKABE_ITO[colour], "alpha": 0.13, "lw": 0, "step": "post"}
        axis.fill_between(best.budget.values, low.values, high.values, **shade)
    axis.set_xscale("log")
    axis.set_xlabel("cost (discrete runs)")
    axis.set_ylabel("validation loss of the discrete run,\nbest so far / best of all")
    axis.legend(fontsize=6)
    axis.set_title("(a) median and quartiles of seeds", fontsize=7.5)


def _comparisons(axis: "Axes", compared: Mapping[str, Mapping[str, Any]]) -> None:
    for i, (name, row) in enumerate(compared.items()):
        colour = OKABE_ITO[_SEARCHES[name.split(",")[0]][0]]
        test = ", test," in name
        axis.plot([row["low"], row["high"]], [-i, -i], color=colour, lw=1.2)
        axis.plot(row["found"], -i, "D" if test else "o", ms=4, color=colour,
                  mfc="w" if test else colour)  # fmt: skip
    axis.axvline(0, color="0.4", lw=0.8)
    words = [name.partition(", ")[2].replace("validation, ", "") for name in compared]
    axis.set_yticks(-np.arange(len(words)), words, fontsize=6)
    axis.set_xlabel("ln(loss by flow / loss by the other);\nleft of 0 the flow's is lower")
    axis.set_title("(b) flow against each, 95 %", fontsize=7.5)


def _slopes(axis: "Axes", probes: "xarray.Dataset") -> None:
    low, high = 1e-4, 1e3
    for kind, (colour, marker, _) in _KINDS.items():
        one = probes.sel(hyperparameter=kind)
        flow, discrete = (one[name].values.ravel() for name in ("flow", "discrete"))
        at = [np.clip(np.abs(x), low, high) for x in (discrete, flow)]
        for same in (True, False):
            some = (np.sign(flow) == np.sign(discrete)) == same
            face = OKABE_ITO[colour] if same else "none"
            axis.plot(at[0][some], at[1][some], marker, ms=2.8, mew=0.6, ls="none", mfc=face,
                      color=OKABE_ITO[colour],
                      label=f"x = {kind}" if same else None)  # fmt: skip
    edges = low / 1.6, high * 1.6  # room for half a marker
    axis.set(xscale="log", yscale="log", xlim=edges, ylim=edges)
    axis.plot([low, high], [low, high], color="0.4", lw=0.8, zorder=0)
    axis.minorticks_off()
    axis.set_xlabel("|d ln loss / d ln x|, discrete run;\nbeyond an edge: drawn on it")
    axis.set_ylabel("the same, flow")
    axis.legend(fontsize=5.5, title="hollow: signs differ", title_fontsize=5.5, loc="upper left")
    axis.set_title("(c) hypergradients", fontsize=7.5)


def _paths(figure: Any, tree: "xarray.DataTree") -> None:
    from matplotlib.ticker import NullFormatter

    axes = figure.subplots(1, len(_KINDS), sharex=True)
    flow = tree["flow"].to_dataset()
    best = tree["best"].to_dataset()
    most = float(best.budget[-1])
    for letter, axis, (kind, (_, _, label)) in zip("defg", axes, _KINDS.items(), strict=True):
        for seed in range(flow.sizes["seed"]):
            row = flow.isel(seed=seed)
            on_path = np.isfinite(row.flow.values)
            value = row.value.sel(hyperparameter=kind).values[on_path]
            axis.plot(row.cost.values[on_path], value, lw=0.7, color=OKABE_ITO["blue"])
        for i, name in enumerate(best.search.values):
            found = _winners(tree[name].to_dataset(), kind)
            place = np.full(len(found), most * (1.12 + 0.1 * i))
            axis.plot(place, found, "_", ms=5, color=OKABE_ITO[_SEARCHES[name][0]])
        low, high = (float(flow[name].sel(hyperparameter=kind)) for name in ("low", "high"))
        axis.set(yscale="log", xlim=(0, most * 1.5), ylim=(low / 1.1, high * 1.1))
        axis.yaxis.set_minor_formatter(NullFormatter())
        axis.set_xticks([0, most / 2, most])
        axis.set_title(f"({letter}) {label}", fontsize=7.5)
    axes[0].set_ylabel("descent through the flow;\nright: where each search was best")
    figure.supxlabel("cost (discrete runs)", fontsize=8)


def _winners(node: "xarray.Dataset", kind: str) -> np.ndarray:
    """By seed, where the search found its lowest validation loss."""
    at = node.loss.sel(images="validation").fillna(np.inf).argmin("candidate")
    return node.value.sel(hyperparameter=kind).isel(candidate=at).values
