"""Figure of `noise`: losses by batch size, where the rules hold, and the stochastic equation."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from .axes import head_room
from .style import OKABE_ITO, PAGE, style

if TYPE_CHECKING:
    import xarray
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ROOT, LINEAR, PARTLY = "square root", "linear", "square root, decays unscaled"
LOOKS = {ROOT: ("blue", "o"), LINEAR: ("vermilion", "s"), PARTLY: ("green", "^")}
NETWORKS = {"digits MLP": ("purple", "D"), "transformer": ("orange", "v")}
SHOWN = (1, 4, 16, 64)
"""Batch sizes that have a curve."""
FLOOR = 1e-3
"""Collapse numbers below it are drawn at it."""


def noise_figure(tree: "xarray.DataTree", numbers: Mapping[str, Any]) -> "Figure":
    """Nine panels: the quadratic, what is scaled and networks, the stochastic equation."""
    import matplotlib.pyplot as plt

    quadratic = tree["quadratic"].to_dataset()
    nets = [node.to_dataset() for name, node in tree.children.items() if name[:7] == "network"]
    with style():
        figure = plt.figure(figsize=(PAGE, 7.2), layout="constrained")
        axes = figure.subplots(3, 3)
        _curves(axes[0, 0], quadratic, 0, "(a) quadratic, noise dominates")
        axes[0, 0].set_ylim(0, 1.35 * axes[0, 0].get_ylim()[1])
        _legend(axes[0, 0], quadratic.batch.values, loc="lower left")
        _curves(axes[0, 1], quadratic, 1, "(b) quadratic, the gradient does")
        _map(axes[0, 2], numbers)
        _parts(axes[1, 0], numbers["collapse, scaled or not"])
        for axis, letter, net in zip(axes[1, 1:], "ef", nets, strict=False):
            _network(axis, net, letter)
        for axis in axes[1, 1 + len(nets) :]:
            axis.set_axis_off()
        axes[0, 1].set_yscale("log")
        limit = numbers["SDE against the moment ODE"]["limit"]
        _moments(axes[2, 0], tree["moments"].to_dataset(), limit)
        _stationary(axes[2, 1], tree["stationary"].to_dataset())
        _weak(axes[2, 2], tree["weak"].to_dataset())
    return figure


def _shade(i: int, of: int) -> float:
    """Opacity of the i-th batch size, the largest one full."""
    return 0.35 + 0.65 * i / max(of - 1, 1)


def _batches(axis: "Axes", losses: "xarray.DataArray", x: np.ndarray, rule: str) -> None:
    """A curve a batch size; the largest, where all rules are one, in black."""
    *smaller, anchor = shown(losses.batch.values)
    for i, batch in enumerate(smaller):
        colour = OKABE_ITO[LOOKS[rule][0]]
        axis.plot(x, losses.sel(batch=batch), color=colour, alpha=_shade(i, len(smaller)), lw=1.1)
    axis.plot(x, losses.sel(batch=anchor), "k--", lw=1, zorder=4)


def shown(batches: np.ndarray) -> list[int]:
    """Those with a curve: some four, and the last one always."""
    return [int(b) for b in batches if b in SHOWN or b == batches[-1] or len(batches) < 4]


def _legend(axis: "Axes", batches: Any, **more: Any) -> None:
    *smaller, anchor = shown(batches)
    words = ", ".join(map(str, smaller)) + (" (pale to full)" if len(smaller) > 1 else "")
    for rule in (LINEAR, ROOT):
        axis.plot([], [], color=OKABE_ITO[LOOKS[rule][0]], label=f"{rule}, B = {words}")
    axis.plot([], [], "k--", lw=1, label=f"B = {anchor}")
    axis.legend(**{"fontsize": 6, **more})


def _curves(axis: "Axes", quadratic: "xarray.Dataset", which: int, title: str) -> None:
    """Of the first or second noise that is shown."""
    mean = quadratic.loss.mean("group")
    samples, rate = quadratic.save.values, quadratic.attrs["learning_rate"]
    noise, ratio = (quadratic.attrs[name][which] for name in ("shown", "ratios"))
    for rule in (LINEAR, ROOT):
        name = f"{rule.replace(' ', '_')}, η {rate:g}, σ {noise:g}, b1 0.9, eps 0, λ 0"
        _batches(axis, mean.sel(case=name), samples, rule)
    axis.set(xlabel="samples seen", ylabel="expected loss E f")
    words = f"η = {rate:g}, noise-to-signal\nat B = 64 and the start: {ratio:.2g}"
    axis.text(0.97, 0.97, words, fontsize=6, ha="right", va="top", transform=axis.transAxes)
    axis.set_title(title, fontsize=8)


def _bars(rows: list[Mapping[str, Any]]) -> tuple[np.ndarray, np.ndarray]:
    """Collapse numbers, and how far their intervals reach below and above."""
    value, low, high = (np.array([row[name] for row in rows]) for name in ("value", "low", "high"))
    drawn = np.maximum(value, FLOOR)
    return drawn, np.array([drawn - np.maximum(low, FLOOR), np.maximum(high, FLOOR) - drawn])


def _map(axis: "Axes", numbers: Mapping[str, Any]) -> None:
    found = numbers["regime map"]
    ratio = np.array([float(name) for name in found])
    for rule, (colour, marker) in LOOKS.items():
        value, bars = _bars([row[rule] for row in found.values()])
        axis.errorbar(ratio, value, bars, color=OKABE_ITO[colour], marker=marker, ms=3, lw=1,
                      capsize=1.5, label=rule.replace("square root, ", ""))  # fmt: skip
    for name, net in numbers["networks"].items():
        colour, marker = NETWORKS[name]
        for rule, fill in ((ROOT, OKABE_ITO[colour]), (LINEAR, "none")):
            rows = list(net[rule].values())
            x = [row["median noise-to-signal"] for row in rows]
            axis.errorbar(x, *_bars(rows), fmt=marker, ms=4, mfc=fill, zorder=5, lw=0.7,
                          mec=OKABE_ITO[colour], ecolor=OKABE_ITO[colour],
                          label=name if rule == ROOT else None)  # fmt: skip
    axis.axhline(0.1, color="k", ls=":", lw=0.8)
    where = "lines: quadratic, at the start\npoints: networks, medians"
    axis.set(ylabel="collapse number", xscale="log", yscale="log", ylim=(FLOOR / 10, 1e5))
    axis.set_xlabel("noise-to-signal at the largest B")
    axis.text(0.03, 0.02, where, fontsize=6, transform=axis.transAxes)
    axis.plot([], [], "kD", ms=4, mfc="none", label="open: linear")
    axis.legend(fontsize=6, loc="upper right", ncol=2, columnspacing=0.6, handlelength=1.0,
                handletextpad=0.3, borderaxespad=0.1)  # fmt: skip
    axis.set_title("(c) where the rules hold", fontsize=8)


def _parts(axis: "Axes", parts: Mapping[str, Any]) -> None:
    for i, row in enumerate(parts.values()):
        for word, colour, marker in (("scaled", "blue", "o"), ("unscaled", "vermilion", "s")):
            one = row[word]
            value, bars = _bars([one])
            axis.errorbar([i], value, bars, color=OKABE_ITO[colour], marker=marker, ms=4,
                          ls="", capsize=2, label=word if not i else None)  # fmt: skip
            if one["§9"]:
                axis.plot(i + 0.25, one["§9"], "kx", ms=4,
                          label="EQUATIONS §9" if word == "unscaled" else None)  # fmt: skip
    axis.axhline(0.1, color="k", ls=":", lw=0.8)
    ticks = [name.replace("decays, ", "decays\n").replace(" = ", "=") for name in parts]
    axis.set_xticks(range(len(parts)), ticks, fontsize=6)
    axis.set(ylabel="collapse number", yscale="log", xlim=(-0.5, len(parts) - 0.5))
    rows = [row[word] for row in parts.values() for word in ("scaled", "unscaled")]
    ends = [row["low"] for row in rows if row["low"] > FLOOR], [row["high"] for row in rows]
    axis.set_ylim(0.6 * min(*ends[0], 0.05), 12 * max(ends[1]))
    axis.legend(fontsize=6, loc="upper left")
    axis.set_title("(d) square root, scaled or not", fontsize=8)


def _network(axis: "Axes", net: "xarray.Dataset", letter: str) -> None:
    mean = net.loss.mean("seed")
    for rule in (LINEAR, ROOT):
        _batches(axis, mean.sel(rule=rule), net.look.values, rule)
    noise = net.noise.mean("seed")
    axis.set(xlabel="samples seen", ylabel="training loss")
    ends = f"{float(noise[0]):.2g} at the start, {float(noise[-1]):.2g} at the end"
    words = f"noise-to-signal at B = 64:\n{ends}"
    head_room(axis, 0.15)
    axis.text(0.97, 0.98, words, fontsize=6, ha="right", va="top", transform=axis.transAxes)
    axis.set_title(f"({letter}) {net.attrs['name']}", fontsize=8)


def _moments(axis: "Axes", moments: "xarray.Dataset", limit: float) -> None:
    """z of every comparison; dark to 3, shaded to what so many allow."""
    for i, moment in enumerate(moments.moment.values):
        z = moments.z.sel(moment=moment).values.ravel()
        axis.plot(np.full(z.size, i) + np.linspace(-0.2, 0.2, z.size), z, "o", ms=2.5,
                  color=OKABE_ITO["blue"])  # fmt: skip
    for reach in (3, limit):
        axis.axhspan(-reach, reach, color="k", alpha=0.06, lw=0)
    words = f"±3; ±{limit:.2f}: 95 % for all {moments.z.size}"
    axis.text(0.5, 0.02, words, fontsize=6, ha="center", transform=axis.transAxes)
    axis.axhline(0, color="k", lw=0.6)
    axis.set_xticks(range(moments.sizes["moment"]), [f"E {m}" for m in moments.moment.values])
    axis.set(ylabel="(paths − moment ODE) / s.e.", ylim=(-4.5, 4.5))
    axis.set_title("(g) SDE: moments", fontsize=8)


def _stationary(axis: "Axes", stationary: "xarray.Dataset") -> None:
    decay = stationary.decay.values
    places = np.arange(decay.size)
    colours = ("blue", "vermilion", "green", "purple")
    for i, h in enumerate(stationary.curvature.values):
        one, colour = stationary.sel(curvature=h), OKABE_ITO[colours[i % 4]]
        axis.errorbar(places, one.estimate, 3 * one.standard_error, color=colour, marker="o",
                      ms=3, ls="", capsize=2, label=f"SDE, h = {h:g}")  # fmt: skip
        axis.plot(places, one.theory, "_", ms=14, color=colour, mew=0.9)
        axis.plot(places + 0.22, one.published, "x", ms=3.5, color=colour, mew=0.9, zorder=4)
    axis.plot([], [], "k_", ms=10, label="Q = √b diag(H)$^{-1/2}$")
    axis.plot([], [], "kx", ms=3.5, label="published, diag(H)$^{-1/2}$")
    axis.set_xticks(places, [f"{x:g}" for x in decay])
    axis.set(xlabel="weight decay λ", ylabel="stationary variance of θ", yscale="log",
             xlim=(-0.5, decay.size - 0.5))  # fmt: skip
    low, high = axis.get_ylim()
    axis.set_ylim(low * (low / high) ** 0.5, high)  # room for the legend
    axis.legend(fontsize=6, loc="lower left")
    axis.set_title("(h) SDE: stationary law", fontsize=8)


def _weak(axis: "Axes", weak: "xarray.Dataset") -> None:
    size = weak["size"].values
    axis.errorbar(size, weak.error, 2 * weak.standard_error, color=OKABE_ITO["blue"], marker="o",
                  ms=3, ls="", capsize=2, label="Adam − SDE, ± 2 s.e.")  # fmt: skip
    middle = float(np.exp(np.mean(np.log(weak.error / size))))
    axis.plot(size, middle * size, "k--", lw=0.8, label="order 1")
    plain = 5 * weak.plain_standard_error
    axis.plot(size, plain, ":", color=OKABE_ITO["vermilion"], lw=1, label="5 s.e. without control")
    axis.set(xlabel="η²", ylabel="|error of E θ²|", xscale="log", yscale="log")
    low, high = axis.get_ylim()
    head_room(axis, 0.35)
    axis.set_xticks(size, [f"{x:g}" for x in size], fontsize=6)
    inside = [y for y in (1e-3, 2e-3, 5e-3, 1e-2, 2e-2, 5e-2) if low < y < 2 * high]
    axis.set_yticks(inside, [f"{y:g}" for y in inside])
    axis.minorticks_off()
    attrs = weak.attrs
    words = f"slope {attrs['order']:.2f} [{attrs['order_low']:.2f}, {attrs['order_high']:.2f}]"
    axis.text(0.97, 0.04, words, fontsize=6, ha="right", transform=axis.transAxes)
    axis.legend(fontsize=6, loc="upper left")
    axis.set_title("(i) weak order", fontsize=8)
