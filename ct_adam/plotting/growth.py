"""Updates along the normal curve: their growth by step, and its slope against theory's."""

from typing import TYPE_CHECKING

import numpy as np

from .style import OKABE_ITO, PAGE, style

if TYPE_CHECKING:
    import xarray
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SHOWN = 4
"""Points whose growth is drawn."""
_OTHERS = ("green", "orange", "vermilion")


def growth_figure(dataset: "xarray.Dataset") -> "Figure":
    """‖u_n‖ and its bounds; slopes along the curve; what takes the growth away; annealing."""
    import matplotlib.pyplot as plt

    with style():
        figure, axes = plt.subplots(2, 2, figsize=(PAGE, 5.0), layout="constrained")
        _paths(axes[0, 0], dataset)
        _slopes(axes[0, 1], dataset)
        _cases(axes[1, 0], dataset)
        _annealed(axes[1, 1], dataset)
    return figure


def _paths(axis: "Axes", dataset: "xarray.Dataset") -> None:
    """Points from the section's stable end to the other, all seeds."""
    chosen = np.unique(np.linspace(0, dataset.sizes["point"] - 1, SHOWN).round().astype(int))
    colours = [OKABE_ITO[name] for name in ("sky", "green", "orange", "vermilion")]
    for colour, p in zip(colours, chosen, strict=False):
        row = dataset.isel(point=p)
        largest = row.largest.sel(case="minibatches")
        for s in range(row.sizes["seed"]):
            axis.plot(row.step, largest.isel(seed=s), color=colour, lw=0.7)
        axis.plot(row.step, np.exp(np.minimum(row.log_bound, 30)), color=colour, ls=":", lw=1.3)
        axis.plot([], [], color=colour, label=f"({float(row.b1):.3f}, {float(row.b2):.3f})")
    axis.axvspan(*_window(dataset), color="0.92", lw=0)
    axis.set(yscale="log", xlabel="optimizer step n", ylabel="largest update ‖u$_n$‖$_\\infty$")
    axis.set_ylim(0.3, 300 * float(dataset.largest.sel(case="minibatches").max()))
    axis.legend(title="(b1, b2); dotted: exact bound", fontsize=6, title_fontsize=6)
    batch = dataset.attrs["batch"]
    points = dataset.sizes["point"]
    axis.set_title(f"(a) small transformer, batches of {batch}; {points} points", fontsize=8)


def _window(dataset: "xarray.Dataset") -> tuple[int, int]:
    middle, half = dataset.attrs["middle"], dataset.attrs["half"]
    return middle - half, middle + half


def _slopes(axis: "Axes", dataset: "xarray.Dataset") -> None:
    b1, grows = dataset.b1.values, dataset.rate.values > 0
    axis.axhline(0, color="0.7", lw=0.6)
    axis.plot(b1, np.maximum(-dataset.coefficient / 2, 0), "k:", lw=1.2, label="theory: |C|/2")
    axis.plot(b1, np.maximum(dataset.rate, 0), "k--", lw=0.9, label="theory: ½ ln(b1²/b2)")
    axis.plot(b1[grows], dataset.vanished[grows], "k-", lw=0.9, label="the same with bias factor")
    first = dataset.sel(case="minibatches")
    silent = first.reason.values == ""
    colour = OKABE_ITO["blue"]
    for mask, face, words in (
        (silent, colour, "minibatches, no gradient"),
        (~silent, "none", "minibatches, with gradient"),
    ):
        x = np.broadcast_to(b1[:, None], mask.shape)[mask]
        y = first.slope.values[mask]
        axis.plot(x, y, "o", ms=3.5, mfc=face, mec=colour, mew=0.7, label=words)
    one = dataset.slope.sel(case="one batch").isel(seed=0)
    axis.plot(b1, one, "x", ms=4, color=OKABE_ITO["green"], label="one batch for ever")
    middle, half = dataset.attrs["middle"], dataset.attrs["half"]
    axis.set(xlabel="first-moment decay b1 (b2 on the normal curve)")
    axis.set_ylabel(f"slope of ln‖u$_n$‖$_\\infty$, n = {middle} ± {half}")
    axis.legend(fontsize=6)
    axis.set_title("(b) slopes, per step", fontsize=8)


def _cases(axis: "Axes", dataset: "xarray.Dataset") -> None:
    """The largest update of each case at the window's end: seed 0, the band of all seeds."""
    last = dataset.largest.isel(step=-1)
    first = last.sel(case="minibatches")
    colour = OKABE_ITO["blue"]
    axis.fill_between(dataset.b1, first.min("seed"), first.max("seed"), color=colour, alpha=0.2)
    axis.plot(dataset.b1, first.isel(seed=0), "o", ms=3, color=colour, label="minibatches")
    for case, name, marker in zip(dataset.case.values[1:-1], _OTHERS, "xs^", strict=True):
        one = last.sel(case=case).isel(seed=0)
        look = {"mfc": "none", "mew": 0.9} if marker != "x" else {}
        axis.plot(dataset.b1, one, marker, ms=4.5, color=OKABE_ITO[name], label=str(case), **look)
    axis.plot(dataset.b1, np.exp(dataset.log_bound.isel(step=-1)), "k:", lw=1.2, label="bound")
    end = int(dataset.step[-1])
    axis.set(yscale="log", xlabel="first-moment decay b1 (b2 on the normal curve)")
    axis.set_ylabel(f"‖u$_n$‖$_\\infty$ at n = {end}")
    axis.legend(fontsize=6)
    axis.set_title("(c) seed 0 otherwise; band: all seeds", fontsize=8)


def _annealed(axis: "Axes", dataset: "xarray.Dataset") -> None:
    """‖Δθ‖/η₀ at one point, with a constant and with a falling learning rate."""
    run = dataset.largest.sel(case="annealed").isel(seed=0).notnull().all("step")
    row = dataset.isel(point=int(run.values.argmax()), seed=0)
    plain, update = (row.largest.sel(case=case) for case in ("minibatches", "annealed"))
    falling = update * np.exp(-max(0.0, float(row.rate)) * row.step)
    red = OKABE_ITO["vermilion"]
    axis.plot(row.step, plain, color=OKABE_ITO["blue"], lw=0.9, label="‖u$_n$‖, η constant")
    axis.plot(row.step, update, color=red, lw=0.8, ls="--", label="‖u$_n$‖, η annealed")
    axis.plot(row.step, falling, color=red, lw=0.9, label="‖Δθ$_n$‖/η$_0$, η annealed")
    axis.set(yscale="log", xlabel="optimizer step n", ylabel="largest coordinate")
    axis.legend(fontsize=6)
    pair = f"({float(row.b1):.3f}, {float(row.b2):.3f})"
    axis.set_title(f"(d) η$_n$ = η$_0$(√b2/b1)ⁿ at {pair}", fontsize=8)
