"""The stages of k-Adam: sizes of |u^i|, nearness to sign descent, bounds, an overflow."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from .k_adam import STRATEGIES
from .style import OKABE_ITO, PAGE, style

if TYPE_CHECKING:
    import xarray
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

STAGES = ("black", "vermilion", "green", "orange")


def stages_figure(tree: "xarray.DataTree", numbers: Mapping[str, Any]) -> "Figure":
    """Histograms of the first strategy; each strategy by stage: step, nearness to sign descent,
    largest update beside its bound; the overflow."""
    import matplotlib.pyplot as plt

    network, overflow = tree["network"].to_dataset(), tree["overflow"].to_dataset()
    with style():
        figure, axes = plt.subplot_mosaic(
            [["sizes", "steps"], ["signs", "bounds"], ["overflow", "overflow"]],
            figsize=(PAGE, 7.0), layout="constrained",
        )  # fmt: skip
        _histograms(axes["sizes"], network)
        _steps(axes["steps"], network)
        _near_sign(axes["signs"], network)
        _bounds(axes["bounds"], network)
        _overflow(axes["overflow"], overflow, numbers["overflow"]["step predicted"])
    return figure


def _histograms(axis: "Axes", network: "xarray.Dataset") -> None:
    one = network.isel(strategy=0)
    stages = one.stage.values
    chosen = np.unique(np.linspace(0, len(stages) - 1, 4).round().astype(int))
    shown = -8
    for colour, i in zip(STAGES, chosen, strict=False):
        share = one.share.isel(stage=i).mean("seed")
        below = float(share.where(one.bin < shown).sum())
        width = float(one.bin[1] - one.bin[0])
        axis.step(
            one.bin, share / width, where="mid", color=OKABE_ITO[colour], lw=1,
            label=f"stage {stages[i]} ({below:.1%} smaller)",
        )  # fmt: skip
    axis.axvline(0, color="k", ls="--", lw=0.8, label="sign descent")
    axis.set(xlim=(shown, 2), xlabel="log$_2$|u$^{(i)}$|")
    axis.set_ylabel("share of coordinates per octave")
    axis.legend(fontsize=6, loc="upper left")
    name = str(one.strategy.values)
    images = network.attrs["images"]
    axis.set_title(f"(a) {name}, k = {len(stages)}; convnet on {images}", fontsize=8)


def _each(network: "xarray.Dataset") -> Iterator[tuple[str, "xarray.Dataset", dict[str, Any]]]:
    for j, name in enumerate(network.strategy.values):
        yield str(name), network.isel(strategy=j), {**STRATEGIES[str(name)], "ms": 3.5, "lw": 0.9}


def _by_stage(axis: "Axes", network: "xarray.Dataset", what: str) -> None:
    for name, one, look in _each(network):
        mean, spread = one[what].mean("seed"), one[what].std("seed", ddof=1)
        axis.errorbar(one.stage, mean, spread, label=name, capsize=2, **look)
    axis.axhline(1, color="k", ls="--", lw=0.8, label="sign descent")
    axis.set(xlabel="stage i", xticks=network.stage.values)


def _steps(axis: "Axes", network: "xarray.Dataset") -> None:
    _by_stage(axis, network, "rms")
    axis.set_ylabel("root mean square of u$^{(i)}$")
    axis.legend(fontsize=6, ncol=2, loc="lower right")
    low, high = axis.get_ylim()
    axis.set_ylim(low - 0.4 * (high - low), high)
    seeds = network.sizes["seed"]
    axis.set_title(f"(b) effective step, in η; {seeds} seeds, ± 1 σ", fontsize=8)


def _near_sign(axis: "Axes", network: "xarray.Dataset") -> None:
    _by_stage(axis, network, "near_sign")
    axis.axhline(np.sqrt(2 / np.pi), color="k", ls=":", lw=0.8)
    # a label beside the line: a legend of its own would hide points
    axis.text(network.stage.values[-1], np.sqrt(2 / np.pi), "Gaussian u", fontsize=6, ha="right",
              va="bottom")  # fmt: skip
    axis.set_ylabel("cos(u$^{(i)}$, sign u$^{(i)}$)")
    axis.set_title("(c) nearness to sign descent", fontsize=8)


def _bounds(axis: "Axes", network: "xarray.Dataset") -> None:
    for _, one, look in _each(network):
        axis.plot(one.stage, one.largest.max(("seed", "step")), **look)
        axis.axhline(float(one.bound.isel(step=-1)), color=look["color"], ls=":", lw=0.9)
    axis.plot([], [], "k:", lw=0.9, label="bound of the last step")
    axis.set(xlabel="stage i", xticks=network.stage.values)
    axis.set_ylabel("largest |u$^{(i)}$| of any step")
    axis.legend(fontsize=6, loc="upper right")
    axis.set_ylim(0, 1.25 * float(network.bound.isel(step=-1).max()))
    axis.set_title("(d) every stage keeps its own bound", fontsize=8)


def _overflow(axis: "Axes", overflow: "xarray.Dataset", predicted: int) -> None:
    """Stage 1 of each case; stage 2 of the two whose first stage grows."""
    for colour, case in zip(("vermilion", "blue", "green"), overflow.case.values, strict=True):
        one = overflow.sel(case=case)
        first, second = (np.where(u != 0, np.abs(u), np.nan) for u in (one.u1, one.u2))
        axis.plot(one.step, first, color=OKABE_ITO[colour], lw=1, label=str(case))
        if colour != "green":
            axis.plot(one.step, second, color=OKABE_ITO[colour], ls="-.", lw=1.2)
    axis.plot([], [], "0.4", lw=1, label="solid: stage 1")
    axis.plot([], [], "0.4", ls="-.", label="dash-dotted: stage 2; none: 0")
    axis.axvline(predicted, color="k", ls="--", lw=0.8, label="theory: stage 1 squared overflows")
    largest = np.sqrt(float(np.finfo(np.float32).max))
    axis.axhline(largest, color="k", ls=":", lw=0.8)
    last = float(overflow.step.values[-1])
    axis.text(last, largest, "√(largest float32)", fontsize=6, va="bottom", ha="right")
    axis.set(yscale="log", ylim=(1e-6, 1e30), xlabel="optimizer step n", ylabel="size of update")
    axis.legend(fontsize=6, ncol=2, loc="upper left")
    axis.set_title("(e) float32: 20 steps of g = 1000, 180 of 0, then g = 1", fontsize=8)
