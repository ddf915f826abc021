"""The stages of k-Adam: sizes of |u^i|, nearness to sign descent, bounds, an overflow."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from .style import OKABE_ITO, PAGE, style

if TYPE_CHECKING:
    import xarray
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = ("blue", "vermilion", "green", "orange", "purple", "sky")
MARKERS = "os^Dvx"


def stages_figure(tree: "xarray.DataTree", numbers: Mapping[str, Any]) -> "Figure":
    """Histograms of the first strategy; each strategy by stage; over the bound; the overflow."""
    import matplotlib.pyplot as plt

    network, overflow = tree["network"].to_dataset(), tree["overflow"].to_dataset()
    with style():
        figure, axes = plt.subplots(2, 2, figsize=(PAGE, 5.0), layout="constrained")
        _histograms(axes[0, 0], network)
        _near_sign(axes[0, 1], network)
        _bounds(axes[1, 0], network)
        _overflow(axes[1, 1], overflow, numbers["overflow"]["step predicted"])
    return figure


def _histograms(axis: "Axes", network: "xarray.Dataset") -> None:
    one = network.isel(strategy=0)
    stages = one.stage.values
    chosen = np.unique(np.linspace(0, len(stages) - 1, 4).round().astype(int))
    for colour, i in zip(COLOURS, chosen, strict=False):
        share = one.share.isel(stage=i).mean("seed")
        width = float(one.bin[1] - one.bin[0])
        axis.step(
            one.bin, share / width, where="mid", color=OKABE_ITO[colour], lw=1,
            label=f"stage {stages[i]}",
        )  # fmt: skip
    axis.axvline(0, color="k", ls="--", lw=0.8, label="sign descent")
    axis.set(xlim=(-10, 2), xlabel="log$_2$|u$^i$|", ylabel="share of coordinates per octave")
    axis.legend(fontsize=6, loc="upper left")
    name = str(one.strategy.values).replace("_", " ")
    images = network.attrs["images"]
    axis.set_title(f"(a) {name}, k = {len(stages)}; convnet on {images}", fontsize=8)


def _each(network: "xarray.Dataset") -> Any:
    for j, name in enumerate(network.strategy.values):
        look = {"color": OKABE_ITO[COLOURS[j % len(COLOURS)]], "marker": MARKERS[j % len(MARKERS)]}
        yield str(name).replace("_", " "), network.isel(strategy=j), {**look, "ms": 3.5, "lw": 0.9}


def _near_sign(axis: "Axes", network: "xarray.Dataset") -> None:
    for name, one, look in _each(network):
        mean, spread = one.near_sign.mean("seed"), one.near_sign.std("seed", ddof=1)
        axis.errorbar(one.stage, mean, spread, label=name, capsize=2, **look)
    axis.axhline(1, color="k", ls="--", lw=0.8, label="sign descent")
    axis.axhline(np.sqrt(2 / np.pi), color="k", ls=":", lw=0.8, label="Gaussian u")
    axis.set(xlabel="stage i", ylabel="cos(u$^i$, sign u$^i$)", xticks=network.stage.values)
    axis.legend(fontsize=6, ncol=2, loc="lower right")
    low, _ = axis.get_ylim()
    axis.set_ylim(low - 0.06, 1.01)
    seeds = network.sizes["seed"]
    axis.set_title(f"(b) nearness to sign descent; {seeds} seeds, ± 1 σ", fontsize=8)


def _bounds(axis: "Axes", network: "xarray.Dataset") -> None:
    for name, one, look in _each(network):
        axis.plot(one.stage, one.largest.max(("seed", "step")), label=name, **look)
        bound = float(one.bound.isel(step=-1))
        axis.axhline(bound, color=look["color"], ls=":", lw=0.9)
    axis.plot([], [], "k:", lw=0.9, label="bound (last step)")
    axis.set(xlabel="stage i", ylabel="largest |u$^i$| of any step", xticks=network.stage.values)
    axis.legend(fontsize=6, ncol=2, loc="upper right")
    axis.set_ylim(0, 1.55 * float(network.bound.isel(step=-1).max()))
    axis.set_title("(c) every stage keeps its own bound", fontsize=8)


def _overflow(axis: "Axes", overflow: "xarray.Dataset", predicted: int) -> None:
    """|u¹| of each case; u² of the first, which dies."""
    for colour, case in zip(("vermilion", "blue", "green"), overflow.case.values, strict=True):
        one = overflow.sel(case=case)
        axis.plot(one.step, np.abs(one.u1), color=OKABE_ITO[colour], lw=1, label=f"|u¹|, {case}")
    bad = overflow.isel(case=0)
    second = np.where(bad.u2 != 0, np.abs(bad.u2), np.nan)
    axis.plot(bad.step, second, color=OKABE_ITO["vermilion"], ls="--", lw=1.2)
    axis.plot([], [], color=OKABE_ITO["vermilion"], ls="--", label="|u²| of the first, then 0")
    axis.axvline(predicted, color="k", ls="--", lw=0.8, label="theory: (u¹)² overflows")
    axis.axhline(np.sqrt(float(np.finfo(np.float32).max)), color="k", ls=":", lw=0.8)
    axis.set(yscale="log", ylim=(1e-4, 1e32), xlabel="optimizer step n", ylabel="size of update")
    axis.legend(fontsize=5.5, loc="upper left")
    axis.set_title("(d) float32: 20 steps of g = 1000, 180 of 0, then 1", fontsize=8)
