"""Test scores against the number of stages, and the change that a second stage makes."""

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from .style import OKABE_ITO, PAGE, VERDICTS, style

if TYPE_CHECKING:
    import xarray
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

STRATEGIES: Mapping[str, Mapping[str, Any]] = {
    "": {"color": "k", "marker": "*"},
    "inverse_exp": {"color": OKABE_ITO["blue"], "marker": "o"},
    "exp": {"color": OKABE_ITO["vermilion"], "marker": "s"},
    "scaled": {"color": OKABE_ITO["green"], "marker": "^"},
    "naive": {"color": OKABE_ITO["purple"], "marker": "D"},
    "lag_split": {"color": OKABE_ITO["sky"], "marker": "v"},
    "lag_stretch": {"color": OKABE_ITO["yellow"], "marker": "P"},
}
BASELINES: Mapping[str, tuple[str, str, str]] = {
    "adam": ("Adam", "0.55", ":"),
    "adamw": ("AdamW", "0.3", "--"),
    "nadamw": ("NAdamW", "0.3", "-."),
    "adan": ("Adan", OKABE_ITO["orange"], "-."),
}
COUPLINGS = {"decoupled": "-", "coupled": ":"}
NETWORKS = {
    "images": "convolutional network",
    "cifar": "convolutional network, CIFAR-10",
    "text": "language model",
}
TICKS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 1, 1.5, 2, 2.5, 3, 3.5, 4, 5)
"""Of losses, on a logarithmic axis."""


def k_adam_figure(tree: "xarray.DataTree", found: Mapping[str, Any]) -> "Figure":
    """Two rows a network: test accuracy against k for both couplings, training loss; changes from
    k = 1 to 2 of test accuracy and loss, time of a step.

    **Arguments:**

    - `tree`: nodes by network, made by `experiments.k_adam`.
    - `found`: by network `cells`, each with `accuracy` and half its interval `accuracy ±`; `two`
        and `two, test loss`, by strategy and coupling `found`, `low`, `high` and `verdict`.
    """
    import matplotlib.pyplot as plt

    config = json.loads(tree.attrs["config"])
    with style():
        count = len(tree.children)
        figure, axes = plt.subplots(2 * count, 3, figsize=(PAGE, 4.2 * count + 1.0), squeeze=False)
        for row, (name, branch) in enumerate(tree.children.items()):
            node, one = branch.to_dataset(), found[name]
            _scores(axes[2 * row], node, one["cells"], NETWORKS[name])
            _differences(axes[2 * row + 1], node, one)
        for letter, axis in zip("abcdefghijklmnopqr", axes.flat, strict=False):
            axis.set_title(f"({letter}) {axis.get_title(loc='left')}", fontsize=7.5)
        figure.legend(handles=_legend(tree), loc="outside lower center", ncols=5, fontsize=6.3)
        said = [_answer(found[name]["does k = 2 help"]) for name in tree.children]
        figure.suptitle("\n".join([_sizes(tree, config), *said]), fontsize=6.3, x=0.01, ha="left")
    return figure


def _scores(axes: Any, node: "xarray.Dataset", cells: Mapping[str, Any], network: str) -> None:
    """Test accuracy against k for both couplings; training loss."""
    for axis, coupling in zip(axes, COUPLINGS, strict=False):
        _against_k(axis, node, coupling, cells)
        aside = " weight decay" if coupling == "decoupled" else "; optax's as in (a)"
        axis.set_title(f"{coupling}{aside}", fontsize=7.5)
    _share_heights(axes[:2])
    axes[0].set_ylabel(f"{network}\ntest accuracy", fontsize=7)
    _curves(axes[2], node, next(iter(cells.values()))["seeds"])


def _differences(axes: Any, node: "xarray.Dataset", found: Mapping[str, Any]) -> None:
    """What a second stage changes, in test accuracy and loss; time of a step."""
    for axis, claim, label, better in (
        (axes[0], "two", "test accuracy, k = 2 minus k = 1", "higher"),
        (axes[1], "two, test loss", "test loss, k = 2 minus k = 1 (nats)", "lower"),
    ):
        _changes(axis, found[claim])
        axis.set_title(f"{better} is better", fontsize=7.5)
        axis.set_xlabel(label, fontsize=7)
    axes[1].tick_params(labelleft=False)
    _time(axes[2], node)


def _cells(node: "xarray.Dataset", **where: Any) -> list["xarray.Dataset"]:
    chosen = np.all([node[name].values == value for name, value in where.items()], axis=0)
    return [node.isel(cell=i) for i in np.flatnonzero(chosen)]


def _against_k(
    axis: "Axes", node: "xarray.Dataset", coupling: str, scores: Mapping[str, Any]
) -> None:
    def accuracy(cell: "xarray.Dataset") -> tuple[float, float]:
        row = scores[str(cell.cell.values)]
        return row["accuracy"], row["accuracy ±"]

    ks = node.k.values
    for method, (_, colour, dashes) in BASELINES.items():
        for cell in _cells(node, method=method):
            mean, half = accuracy(cell)
            axis.axhspan(mean - half, mean + half, color=colour, alpha=0.12, lw=0)
            axis.axhline(mean, color=colour, ls=dashes, lw=0.9)
    (start,) = _cells(node, method="k_adam", stages=1, coupling=coupling)
    names = [name for name in STRATEGIES if name in node.strategy.values and name]
    for place, name in enumerate(names):
        cells = [start, *_cells(node, strategy=name, coupling=coupling)]
        k = np.array([int(cell.stages) for cell in cells])
        mean, half = np.array([accuracy(cell) for cell in cells]).T
        order = np.argsort(k)
        # Side by side, so that intervals can be told apart; all begin at one point.
        aside = np.where(k == 1, 0, (place - (len(names) - 1) / 2) * 0.035 * (ks.max() - 1))
        look = STRATEGIES[name]
        axis.errorbar(
            (k + aside)[order], mean[order], np.where(k == 1, 0, half)[order], ms=3, lw=0.9,
            elinewidth=0.8, **look,
        )  # fmt: skip
    axis.errorbar(1, *accuracy(start), ms=6, elinewidth=1, zorder=5, **STRATEGIES[""])
    axis.set_xticks(ks)
    axis.set_xlabel("number of stages k", fontsize=7)


def _share_heights(axes: Any) -> None:
    low = min(axis.get_ylim()[0] for axis in axes)
    high = max(axis.get_ylim()[1] for axis in axes)
    for axis in axes:
        axis.set_ylim(low, high)
    axes[1].tick_params(labelleft=False)


def _curves(axis: "Axes", node: "xarray.Dataset", seeds: int) -> None:
    """Decoupled: one stage, two stages, the most of two strategies; two of optax."""
    node = node.isel(seed=slice(seeds))
    most = int(node.k.max())
    ours = _cells(node, method="k_adam", coupling="decoupled")
    for cell in ours:
        stages, strategy = int(cell.stages), str(cell.strategy.values)
        colour, front = STRATEGIES[strategy]["color"], 4 - stages / most
        if stages <= 2:
            _curve(axis, cell, color=colour, lw=1.1, zorder=front)
        elif stages == most and strategy in ("inverse_exp", "naive"):
            _curve(axis, cell, color=colour, lw=1.1, ls=":", zorder=front)
    for method in ("nadamw", "adan"):
        _, colour, dashes = BASELINES[method]
        for cell in _cells(node, method=method):
            _curve(axis, cell, color=colour, ls=dashes, lw=0.8)
    axis.set_yscale("log")
    low, high = axis.get_ylim()
    ticks = [t for t in TICKS if low < t < high]
    axis.set_yticks(ticks, [f"{t:g}" for t in ticks])
    axis.minorticks_off()
    axis.set_title("decoupled" if most == 2 else f"decoupled; dotted: k = {most}", fontsize=7.5)
    axis.set_ylabel("training loss (nats)", fontsize=7)
    axis.set_xlabel("steps", fontsize=7)


def _curve(axis: "Axes", cell: "xarray.Dataset", **look: Any) -> None:
    axis.plot(cell.step, cell.train_loss.mean("seed"), **look)


def _changes(axis: "Axes", rows: Mapping[str, Any]) -> None:
    for place, (name, row) in enumerate(rows.items()):
        colour = VERDICTS[row["verdict"]]
        marker = STRATEGIES[name.split()[0]]["marker"]
        axis.plot([row["low"], row["high"]], [place] * 2, "-", color=colour, lw=1.3)
        axis.plot([row["found"]], [place], marker, color=colour, ms=4)
    axis.axvline(0, color="k", ls="--", lw=0.8)
    axis.set_yticks(range(len(rows)), [name.replace(" ", ", ") for name in rows], fontsize=6.3)
    axis.set_ylim(len(rows) - 0.5, -0.5)


def _time(axis: "Axes", node: "xarray.Dataset") -> None:
    low, middle, high = node.ratio.values
    axis.axhline(1, color="k", ls="--", lw=0.8)
    axis.errorbar(node.k, middle, [middle - low, high - middle], fmt="ko", ms=3, lw=0.9)
    axis.set_ylim(0, 1.25 * max(high.max(), 1.2))
    axis.set_xticks(node.k.values)
    axis.set_xlabel("number of stages k", fontsize=7)
    axis.set_ylabel("time of a step over k = 1's", fontsize=7)
    axis.set_title("in turns: median, quartiles", fontsize=7.5)


def _answer(found: Mapping[str, str]) -> str:
    return (
        f"Does k = 2 help? In test accuracy {found['test accuracy']} settings; the largest gain is "
        f"{found['largest gain in test accuracy']}."
    )


def _sizes(tree: "xarray.DataTree", config: Mapping[str, Any]) -> str:
    networks = ";\n".join(branch.attrs["network"] for branch in tree.children.values())
    rates = ", ".join(f"{rate:g}" for rate in config["learning_rates"])
    ks = ", ".join(map(str, sorted(config["ks"])))
    fewer = ""
    if len(config["ks"]) < 10:
        fewer = f" Fewer k ({ks} of 1 … 10), seeds and rates than --full."
    return (
        f"{networks}; float32, {config['steps']} steps, η falls as a cosine, λ = "
        f"{config['decoupled']:g} decoupled, {config['l2']:g} coupled.\n"
        f"η by the validation loss of {config['tuning_seeds']} other seeds, from {rates}; (a) to "
        f"(c): {config['seeds']} seeds, {config['test']} held-out examples,\n95 % t intervals; (d) "
        f"and (e): {config['seeds_two']} seeds, differences seed by seed, all intervals at once "
        f"with 95 %.{fewer}"
    )


def _legend(tree: "xarray.DataTree") -> list[Any]:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    nodes = [branch.to_dataset() for branch in tree.children.values()]
    present = {name for node in nodes for name in node.strategy.values}
    methods = {name for node in nodes for name in node.method.values}
    return [
        *(Line2D([], [], ms=4, lw=1, label=name or "k = 1", **look)
          for name, look in STRATEGIES.items() if name in present),
        *(Line2D([], [], color=colour, ls=dashes, lw=1, label=f"{label} (optax)")
          for name, (label, colour, dashes) in BASELINES.items() if name in methods),
        *(Patch(color=colour, label=f"k = 2 helps: {verdict}")
          for verdict, colour in VERDICTS.items()),
    ]  # fmt: skip
