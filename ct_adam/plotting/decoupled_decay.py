"""Heat maps of test loss over learning rate and decay with their valleys; restarts; budgets."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from .axes import head_room
from .style import OKABE_ITO, PAGE, style

if TYPE_CHECKING:
    import xarray
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LABELS = {
    "SGD": "SGD, ℓ$_2$:  λ'",
    "SGDW": "SGDW:  λ$_{LH}$",
    "Adam-ℓ2": "Adam, ℓ$_2$:  λ'",
    "AdamW-LH": "AdamW:  λ$_{LH}$",
    "AdamW-PyTorch": "AdamW:  λ (PyTorch)",
}
LEGEND = {
    "restarts": "warm restarts",
    "constant": "constant rate",
}
CAPTION = (
    "Above each map the slope d ln λ*/d ln lr of its valley. Circles: the best decay λ* of each "
    "learning rate, where it is inside\nthe grid (95 %, jackknife over seeds), grey where it does "
    "not count: least loss > 30 % above the map's, or interval over a\ndecade. Dashed: predicted "
    "slope (EQUATIONS §8) through the measured mean; its height is no prediction."
)
SHOWN = (0.01, 1.0)
"""Excess of the test loss over the map's least, as a share of it."""
TASKS: Mapping[str, tuple[str, str, str]] = {
    "forget": ("far start", "blue", "o"),
    "counter": ("counter-example", "vermilion", "s"),
    "mlp": ("MLP", "green", "^"),
}


def decay_figure(
    tree: "xarray.DataTree",
    panels: Mapping[str, tuple[str, bool]],
    valleys: Mapping[str, Mapping[str, Any]],
    numbers: Mapping[str, Any],
) -> "Figure":
    """A row of maps a problem, a column a method; below: restarts, best decays, their spread.

    **Arguments:**

    - `tree`: made by `experiments.decoupled_decay`.
    - `panels`: by column the method, and whether its axis is λ_LH over the learning rate.
    - `valleys`: by problem and column `log_best`, `half_width` and `counts` by learning rate,
        `slope`, and whether it is a `line`.
    - `numbers`: `slopes` by problem and column, some with `expected`; `budgets`, `restarts`.
    """
    import matplotlib.pyplot as plt

    with style():
        rows = len(valleys)
        figure = plt.figure(figsize=(PAGE, 1.55 * rows + 2.6), layout="constrained")
        parts: Any = figure.subfigures(2, 1, height_ratios=[1.55 * rows + 0.3, 2.3])
        above, below = parts
        _maps(above, tree, panels, valleys, numbers["slopes"])
        bottom = below.subplots(1, 3, width_ratios=[1.25, 1, 0.9])
        _restarts(bottom[0], tree["restarts"].to_dataset())
        _budgets(bottom[1], numbers["budgets"])
        _spreads(bottom[2], numbers["budgets"])
    return figure


def _maps(
    figure: Any,
    tree: "xarray.DataTree",
    panels: Mapping[str, tuple[str, bool]],
    valleys: Mapping[str, Mapping[str, Any]],
    slopes: Mapping[str, Any],
) -> None:
    axes = figure.subplots(len(valleys), len(panels), squeeze=False)
    image = None
    for i, (name, found) in enumerate(valleys.items()):
        node = tree[name].to_dataset()
        for axis, (panel, (method, sheared)) in zip(axes[i], panels.items(), strict=True):
            image = _map(axis, node, method, sheared)
            rates = node[f"rate_{method}"].values
            _valley(axis, rates, found[panel])
            _expected(axis, rates, found[panel], slopes[name][panel])
            heading = "" if i else f"{LABELS[panel]}\n"
            axis.set_title(heading + _slope(found[panel]), fontsize=7, loc="center")
        axes[i, 0].set_ylabel(f"{_title(node)}\nweight decay", fontsize=6.5)
    for axis in axes[-1]:
        axis.set_xlabel("learning rate", fontsize=7)
    figure.suptitle(CAPTION, fontsize=6.3, x=0.01, ha="left")
    bar = figure.colorbar(image, ax=list(axes.flat), fraction=0.02, pad=0.01)
    bar.ax.set_yticks([0.01, 0.03, 0.1, 0.3, 1], ["≤ 1 %", "3 %", "10 %", "30 %", "≥ 100 %"])
    bar.ax.minorticks_off()
    bar.set_label("test loss above the map's least", fontsize=7)


def _title(node: "xarray.Dataset") -> str:
    words = node.attrs["title"].split(", ", 1) if len(node.attrs["title"]) > 30 else []
    return "\n".join(words) if words else node.attrs["title"].replace(": ", ":\n")


def _slope(valley: Any) -> str:
    slope = valley.slope
    if not valley.line:
        return "not a line"
    if not np.isfinite(slope.mean):
        return "slope not known"
    return f"{slope.mean:.2f} ± {slope.half_width:.2f}".replace("-", "−")


def _edges(values: np.ndarray) -> np.ndarray:
    logs = np.log(values)
    half = np.diff(logs)[0] / 2
    return np.exp(np.append(logs - half, logs[-1] + half))


def _map(axis: "Axes", node: "xarray.Dataset", method: str, sheared: bool) -> Any:
    from cmcrameri import cm
    from matplotlib.colors import LogNorm

    mean = node[method].mean("seed").values
    excess = np.clip(mean / mean.min() - 1, *SHOWN)
    x, y = np.meshgrid(
        _edges(node[f"rate_{method}"].values), _edges(node[f"decay_{method}"].values),
        indexing="ij",
    )  # fmt: skip
    image = axis.pcolormesh(
        x, y / x if sheared else y, excess, cmap=cm.cmaps["batlow_r"],
        norm=LogNorm(*SHOWN), rasterized=True,
    )  # fmt: skip
    axis.set(xscale="log", yscale="log")
    axis.tick_params(labelsize=6, pad=1.5)
    axis.minorticks_off()
    return image


def _valley(axis: "Axes", rates: np.ndarray, valley: Any) -> None:
    best, half = valley.log_best, valley.half_width
    bars = np.exp(best) - np.exp(best - half), np.exp(best + half) - np.exp(best)
    axis.set_ylim(*axis.get_ylim())
    for shown, colour in ((valley.counts, "k"), (~valley.counts, "0.6")):
        axis.errorbar(
            rates[shown], np.exp(best[shown]), [bar[shown] for bar in bars], fmt="o", ms=2.4,
            lw=0.7, color=colour, mfc="w", mew=0.7,
        )  # fmt: skip


def _expected(axis: "Axes", rates: np.ndarray, valley: Any, row: Mapping[str, Any]) -> None:
    counts = valley.counts
    if "expected" not in row or not counts.any():
        return
    x = np.log(rates[counts])
    y = valley.log_best[counts].mean() + row["expected"] * (x - x.mean())
    axis.plot(np.exp(x), np.exp(y), "k--", lw=1)


def _restarts(axis: "Axes", node: "xarray.Dataset") -> None:
    looks = {"restarts": ("vermilion", "-"), "constant": ("orange", ":")}
    for name, (colour, dashes) in looks.items():
        mean = node.loss.sel(run=name).mean("seed")
        axis.plot(node.step, mean, dashes, color=OKABE_ITO[colour], label=LEGEND[name], lw=1.1)
    ends = list(node.attrs["ends"])
    whole = node.loss.sel(run=str(ends[-1])).mean("seed")
    axis.plot(node.step, whole, color=OKABE_ITO["blue"], lw=1.1, label="cosine over all steps")
    for i, end in enumerate(ends):
        own = node.loss.sel(run=str(end), step=end)
        axis.errorbar(
            end, float(own.mean()), float(own.std(ddof=1)), fmt="s", color=OKABE_ITO["blue"],
            ms=4, mfc="w", label="a cosine for that budget (± 1 s.d.)" if i == 0 else None,
        )  # fmt: skip
        axis.axvline(end, color="0.75", lw=0.6, zorder=0)
    axis.set_xscale("log")
    # The fall from the start is not what restarts are about.
    late = node.loss.where(node.step >= ends[0] / 4, drop=True).mean("seed")
    axis.set_xlim(ends[0] / 4, 1.1 * ends[-1])
    axis.set_ylim(0.95 * float(late.min()), float(late.max()) * 1.25)
    axis.set_xticks(ends, [str(end) for end in ends])
    axis.minorticks_off()
    axis.set_xlabel("steps; cycles end at the grey lines", fontsize=7)
    axis.set_ylabel("test loss", fontsize=7)
    axis.set_title(f"AdamW, {node.attrs['title']}", fontsize=7.5)
    axis.legend(fontsize=5.8, frameon=True, edgecolor="none", framealpha=0.8)


def _each(budgets: Mapping[str, Any]) -> Any:
    for name, row in budgets.items():
        _, colour, marker = TASKS[name]
        yield row, OKABE_ITO[colour], marker


def _budgets(axis: "Axes", budgets: Mapping[str, Any]) -> None:
    for row, colour, marker in _each(budgets):
        named = {int(key[4:]): one for key, one in row.items() if key.startswith("T = ")}
        for which, fill, dashes in (("λ_LH", colour, "-"), ("λ_norm", "w", ":")):
            values = [one[which] for one in named.values()]
            axis.plot(
                list(named), values, dashes, marker=marker, color=colour, mfc=fill, ms=4, lw=0.9,
            )  # fmt: skip
    axis.set(xscale="log", yscale="log")
    axis.set_xticks(list(named), [str(t) for t in named])
    axis.minorticks_off()
    axis.set_xlabel("epochs T of the run", fontsize=7)
    axis.set_ylabel("best decay of AdamW", fontsize=7)
    axis.set_title("full: λ$_{LH}$, open: normalised", fontsize=7.5)
    for name in budgets:
        label, colour, marker = TASKS[name]
        axis.plot([], [], marker, color=OKABE_ITO[colour], ms=4, label=label)
    head_room(axis, 0.3)
    axis.legend(fontsize=5.8, frameon=True, edgecolor="none", framealpha=0.8, loc="upper left")


def _spreads(axis: "Axes", budgets: Mapping[str, Any]) -> None:
    from matplotlib.ticker import FixedLocator, FuncFormatter

    for place, (row, colour, marker) in enumerate(_each(budgets)):
        for which, fill, aside in (("λ_LH", colour, -0.14), ("λ_norm", "w", 0.14)):
            one = row[f"spread of {which}"]
            axis.plot([one["low"], one["high"]], [place + aside] * 2, color=colour, lw=1)
            axis.plot([one["found"]], [place + aside], marker, color=colour, mfc=fill, ms=4)
    axis.axvline(1, color="k", ls="--", lw=0.8)
    axis.set_xscale("log")
    axis.xaxis.set_major_locator(FixedLocator([1, 2, 4, 8, 16, 32]))
    axis.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
    axis.minorticks_off()
    axis.set_yticks(range(len(budgets)), [TASKS[name][0] for name in budgets], fontsize=6.3)
    axis.set_ylim(len(budgets) - 0.5, -0.5)
    axis.set_xlabel("largest over least best decay", fontsize=7)
    axis.set_title("spread over T (1: none)", fontsize=7.5)
