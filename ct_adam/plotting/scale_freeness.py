"""AdamW and AdamProx, quadratics, best cells by the loss's scale, magnitudes of updates."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from .style import OKABE_ITO, PAGE, style

if TYPE_CHECKING:
    import xarray
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LOOKS = {
    "Adam-ℓ2": ("vermilion", "o"),
    "AdamW": ("blue", "s"),
    "AdamProx": ("green", "^"),
}


def scale_freeness_figure(tree: "xarray.DataTree", numbers: Mapping[str, Any]) -> "Figure":
    """Eight panels: steps and quadratics; grids by the loss's scale; magnitudes, errors."""
    import matplotlib.pyplot as plt

    nets = [node.to_dataset() for name, node in tree.children.items() if name.startswith("net")]
    with style():
        figure = plt.figure(figsize=(PAGE, 7.4), layout="constrained")
        axes = figure.subplots(3, 3)
        _orders(axes[0, 0], tree["orders"].to_dataset())
        quadratics = tree["quadratics"].to_dataset()
        _quadratics(axes[0, 1], quadratics, "diagonal", "b")
        _quadratics(axes[0, 2], quadratics, "rotated", "c")
        _moves(axes[1, 0], nets[0], "Adam-ℓ2", "d")
        _moves(axes[1, 1], nets[0], "AdamW", "e")
        _errors(axes[1, 2], numbers["networks"])
        plain = [net for net in nets if not net.attrs["normalised"]]
        normalised = [net for net in nets if net.attrs["normalised"]]
        _magnitudes(axes[2, 0], plain[0], "g")
        _magnitudes(axes[2, 1], normalised[0], "h")
        _spreads(axes[2, 2], plain[0], normalised[0])
    return figure


def _look(method: str, **more: Any) -> dict[str, Any]:
    colour, marker = LOOKS[method]
    return {"color": OKABE_ITO[colour], "marker": marker, "ms": 3.5, "lw": 1, **more}


def _orders(axis: "Axes", orders: "xarray.Dataset") -> None:
    eta = orders.eta.values
    names = {"constant": "run, constant g", "along": "run, quadratic", "local": "one step"}
    for (name, words), colour in zip(names.items(), ("blue", "sky", "purple"), strict=True):
        size = np.abs(orders[name])
        axis.loglog(eta, size, "o", ms=3.5, color=OKABE_ITO[colour], label=words)
    axis.loglog(eta, np.abs(orders.closed), "k--", lw=0.8, label="closed form")
    for power, name in ((1, "along"), (2, "local")):
        axis.loglog(eta, float(orders[name][-1]) * (eta / eta[-1]) ** power, "k:", lw=0.8)
    axis.plot([], [], "k:", lw=0.8, label="orders 1 and 2")
    axis.set(xlabel="learning rate η", ylabel="|θ$_{AdamW}$ − θ$_{AdamProx}$|")
    low, high = axis.get_ylim()
    axis.set_ylim(low, 300 * high)
    axis.legend(fontsize=5.5, loc="upper left")
    axis.set_title("(a) AdamW from AdamProx", fontsize=8)


def _quadratics(axis: "Axes", quadratics: "xarray.Dataset", axes: str, letter: str) -> None:
    conditions = quadratics.condition.values
    dashes = ("-", "--", ":", "-.")
    for method in ("AdamW", "Adam-ℓ2"):
        for i, condition in enumerate(conditions):
            one = quadratics.distance.sel(optimizer=method, axes=axes, condition=condition)
            axis.semilogy(
                one.step, one, ls=dashes[i % 4], **_look(method, marker=None),
                label=f"κ = 10$^{round(np.log10(condition))}$" if method == "AdamW" else None,
            )  # fmt: skip
    axis.set(xlabel="optimizer step n", ylabel="‖θ − θ*‖ / ‖θ$_0$ − θ*‖", ylim=(5e-4, 8))
    for handle in axis.legend(fontsize=6, loc="lower left").legend_handles:
        handle.set_color("k")  # pyright: ignore[reportOptionalMemberAccess, reportAttributeAccessIssue]
    for y, method in ((0.93, "AdamW"), (0.85, "Adam-ℓ2")):
        axis.text(0.97, y, method, color=_look(method)["color"], fontsize=6, ha="right",
                  va="center", transform=axis.transAxes)  # fmt: skip
    axis.set_title(f"({letter}) {axes} quadratics", fontsize=8)


def _moves(axis: "Axes", network: "xarray.Dataset", method: str, letter: str) -> None:
    """Validation cross-entropy by decay, the best rate at each; a line a scale."""
    tuning = network.isel(run=np.flatnonzero(network.tuning & (network.method == method)))
    loss = tuning.validation.sel(score="cross-entropy")
    scales = np.unique(tuning.scale)
    colours = ("black", "orange", "purple", "sky")
    for i, scale in enumerate(scales):
        rows = loss.isel(run=np.flatnonzero(tuning.scale == scale))
        cube = rows.set_index(run=["rate", "decay", "seed"]).unstack("run")
        best = cube.mean("seed", skipna=False).min("rate")
        look = {"color": OKABE_ITO[colours[i % 4]], "lw": 2.4 - 0.8 * i}
        axis.semilogx(best.decay, best, "os^D"[i % 4], ls="-", ms=6 - 1.5 * i, mfc="none", **look,
                      label=f"loss × {scale:g}")  # fmt: skip
        at = int(best.argmin("decay"))
        axis.plot(best.decay[at], best[at], "*", ms=11 - 2 * i, color=look["color"], zorder=4)
    axis.set(xlabel="weight decay λ", ylabel="validation cross-entropy")
    axis.legend(fontsize=6, loc="upper left")
    axis.set_title(f"({letter}) {method}, {network.attrs['name'].rpartition(',')[0]}", fontsize=8)


def _errors(axis: "Axes", networks: Mapping[str, Any]) -> None:
    names = list(networks)
    for i, method in enumerate(("Adam-ℓ2", "AdamW", "AdamProx")):
        mean = [100 * networks[name][method]["test error"] for name in names]
        half = [100 * networks[name][method]["±"] for name in names]
        place = np.arange(len(names)) + 0.22 * (i - 1)
        axis.errorbar(place, mean, half, ls="", capsize=2, label=method, **_look(method, lw=0))
        axis.errorbar(place, mean, half, ls="", ecolor=_look(method)["color"], elinewidth=0.9)
    words = [name.replace(", depth", "\ndepth").replace(", ", "\n") for name in names]
    axis.set_xticks(range(len(names)), words, fontsize=5)
    axis.set(ylabel="test error, %", ylim=(0, None))
    axis.legend(fontsize=6)
    axis.set_title("(f) fresh seeds, 95 %", fontsize=8)


def _fresh(network: "xarray.Dataset", method: str) -> "xarray.DataArray":
    chosen = ~network.tuning & (network.method == method)
    return network.share.isel(run=np.flatnonzero(chosen))


def _magnitudes(axis: "Axes", network: "xarray.Dataset", letter: str) -> None:
    for method in ("Adam-ℓ2", "AdamW"):
        share = _fresh(network, method).mean("run")
        early, late = share.isel(look=0), share.isel(look=-1)
        look = _look(method, marker=None)
        axis.step(late.bin, late, where="mid", label=f"{method}, end", **look)
        words = f"{method}, step {int(early.look)}"
        axis.step(early.bin, early, where="mid", **{**look, "lw": 0.7, "ls": ":"}, label=words)
    axis.set(xlabel="floor(log$_2$|u|)", ylabel="share of coordinates", xlim=(-27.5, 0.5))
    axis.legend(fontsize=6, loc="upper left")
    axis.set_title(f"({letter}) {network.attrs['name']}", fontsize=8)


def _spreads(axis: "Axes", plain: "xarray.Dataset", normalised: "xarray.Dataset") -> None:
    for network, line in ((plain, "-"), (normalised, "--")):
        for method in ("Adam-ℓ2", "AdamW"):
            share = _fresh(network, method)
            mean = share @ share.bin
            spread = np.sqrt(share @ share.bin**2 - mean**2)
            words = f"{method}, {'no norm' if line == '-' else 'norm'}"
            axis.errorbar(spread.look, spread.mean("run"), spread.std("run", ddof=1), ls=line,
                          capsize=2, label=words, **_look(method))  # fmt: skip
    flat = np.sqrt((plain.sizes["bin"] ** 2 - 1) / 12)
    axis.axhline(flat, color="k", ls=":", lw=0.8, label="all bins alike")
    axis.set(
        xlabel="optimizer step n", ylabel="spread of log$_2$|u|, octaves", ylim=(0, flat * 1.5)
    )
    axis.legend(fontsize=5.5, ncol=2, loc="upper left")
    axis.set_title("(i) spread of magnitudes, ± 1 σ", fontsize=8)
