"""AdamW's box: a language model, rates and their bounds, methods, a cycle, fixed points."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from .style import OKABE_ITO, PAGE, style

if TYPE_CHECKING:
    import xarray
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = ("blue", "green", "sky", "orange", "black")
BAD, ADAM = (OKABE_ITO["purple"], OKABE_ITO["vermilion"]), "0.6"
"""b1 > b2, and Adam without decay."""
DASHES = (0, (4, 1.2))
METHODS: Mapping[str, tuple[str, str]] = {
    "AdamW": ("blue", "-"),
    "AdamProx": ("sky", "--"),
    "sign descent": ("green", "-"),
    "Frank–Wolfe": ("orange", "-"),
    "Adam-ℓ2": ("vermilion", "-"),
}
NORMS = {"linf": "ℓ$_\\infty$", "l2": "ℓ$_2$"}


def constraint_figure(tree: "xarray.DataTree", numbers: Mapping[str, Any]) -> "Figure":
    """‖x‖_∞ of a language model above its residuals; rates; methods; cycle and basins; eps."""
    import matplotlib.pyplot as plt

    nodes = {name: node.to_dataset() for name, node in tree.children.items()}
    with style():
        figure = plt.figure(figsize=(PAGE, 8.6), layout="constrained")
        grid = figure.add_gridspec(4, 6, height_ratios=[1.1, 0.8, 1, 1])
        decays = sorted({d for d in nodes["network"].weight_decay.values.tolist() if d})
        for i, decay in enumerate(decays):
            top = figure.add_subplot(grid[0, 3 * i : 3 * i + 3])
            _norms(top, nodes["network"], decay, "ab"[i])
            below = figure.add_subplot(grid[1, 3 * i : 3 * i + 3], sharex=top)
            _residuals(below, nodes["network"], decay, "cd"[i])
        lower = [
            figure.add_subplot(grid[2 + i // 3, 2 * (i % 3) : 2 * (i % 3) + 2]) for i in range(6)
        ]
        for axis, norm, letter in zip(lower, NORMS, "ef", strict=False):
            _rates(axis, nodes["rates"].isel(instance=0).sel(norm=norm), norm, letter)
        _methods(lower[2], nodes["methods"])
        _cycle(lower[3], nodes["cycles"], numbers["cycle"])
        _basins(lower[4], nodes["cycles"])
        _fixed(lower[5], nodes["fixed"])
    return figure


def _runs(network: "xarray.Dataset", decay: float) -> Any:
    """Runs with that λ and Adam's, with their looks."""
    pairs: list[tuple[float, float]] = []
    for i in range(network.sizes["run"]):
        row = network.isel(run=i)
        if float(row.weight_decay) not in (decay, 0.0):
            continue
        pair = (float(row.b1), float(row.b2))
        name = f"({pair[0]:g}, {pair[1]:g})"
        if not float(row.weight_decay):
            # It has no λ: drawn is ‖x‖ over this ball's radius.
            scale = "" if decay == 1 else f"{decay:g}"
            yield row, {"color": ADAM, "label": f"{scale}‖x‖$_\\infty$, Adam {name}"}
            continue
        if pair not in pairs:
            pairs.append(pair)
        good = [p for p in pairs if p[0] <= p[1]]
        colours = [OKABE_ITO[name] for name in COLOURS]
        colour = BAD[len(pairs) - len(good) - 1] if pair not in good else colours[good.index(pair)]
        scaled = float(row.scale) != 1
        more = f", start × {float(row.scale):g}" if scaled else ""
        yield row, {"color": colour, "label": name + more, "ls": DASHES if scaled else "-"}


def _norms(axis: "Axes", network: "xarray.Dataset", decay: float, letter: str) -> None:
    starts = set()
    for row, look in _runs(network, decay):
        radii = row.norm * decay
        axis.plot(row.step, radii.where(radii < 1e3), lw=1, **look)
        starts.add(float(row.norm[0]) * decay - 1)
    passed = np.concatenate([[0], np.cumsum(network.attrs["rates"])])[network.step.values]
    for i, over in enumerate(sorted(starts)):
        path = 1 + over * np.exp(-decay * passed)
        axis.plot(network.step, path, "k:", lw=1, label="_" * i + "decay alone, |u| = 1")
    axis.axhline(1, color="k", ls="--", lw=0.9, label="1/λ")
    axis.set(yscale="log", ylim=(0.7, 30), ylabel="λ‖x‖$_\\infty$")
    axis.set_xscale("symlog", linthresh=200, linscale=0.3)
    axis.set_yticks([1, 2, 5, 10, 20], ["1", "2", "5", "10", "20"])
    axis.minorticks_off()
    if letter == "b":
        own = [line for line in axis.get_lines() if _own(str(line.get_label()))]
        axis.legend(handles=own, fontsize=5.5, loc="upper right")
    else:
        axis.legend(fontsize=5.5, ncol=2, title="(b1, b2)", title_fontsize=6, loc="upper right")
    axis.set_title(f"({letter}) language model, full batch, λ = {decay:g}", fontsize=8)
    axis.tick_params(labelbottom=False)


def _own(label: str) -> bool:
    """Whether a line of (b) is not already in the legend of (a)."""
    return "start" in label or "Adam" in label


def _residuals(axis: "Axes", network: "xarray.Dataset", decay: float, letter: str) -> None:
    """Of runs with decay; where b1 > b2 the iterates are far outside, and it means little."""
    for row, look in _runs(network, decay):
        if float(row.weight_decay) and float(row.b1) <= float(row.b2):
            axis.plot(*_medians(row.step.values, row.stationarity.values), lw=1, **look)
    axis.axhline(0, color="k", ls="--", lw=0.9)
    axis.set_yscale("symlog", linthresh=1, linscale=0.5)
    axis.set(ylim=(-0.5, 200), xlabel="optimizer step n", ylabel="‖g‖$_1$ + λ⟨x, g⟩")
    axis.minorticks_off()
    axis.set_title(f"({letter}) KKT residual (medians), λ = {decay:g}", fontsize=8)


def _medians(steps: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """By bins of a tenth of a decade, each at its median step: single values flicker."""
    bins = np.floor(10 * np.log10(np.maximum(steps, 1)))
    groups = [bins == b for b in np.unique(bins)]
    return tuple(np.array([np.median(x[g]) for g in groups]) for x in (steps, values))  # pyright: ignore[reportReturnType]


def _rates(axis: "Axes", one: "xarray.Dataset", norm: str, letter: str) -> None:
    for colour, dash, schedule in zip(
        ("blue", "vermilion"), "-:", one.schedule.values, strict=True
    ):
        row, name = one.sel(schedule=schedule), f"η {schedule}"
        steps = row.step.values + 1
        axis.plot(steps, row.gap.where(row.gap > 0), color=OKABE_ITO[colour], lw=1, label=name)
        bound = row.bound.where(np.isfinite(row.bound))
        axis.plot(steps, bound, "k" + ("--" if dash == "-" else ":"), lw=1, label="its bound")
    axis.set(
        xscale="log", yscale="log", xlabel="steps taken + 1", ylabel="L(x) − min over the ball"
    )
    axis.legend(fontsize=5.5, loc="lower left")
    radii = float(one.radii)
    axis.set_title(f"({letter}) {NORMS[norm]}, from {radii:.2g} radii", fontsize=8)


def _methods(axis: "Axes", methods: "xarray.Dataset") -> None:
    shown = np.unique(np.geomspace(1, methods.sizes["step"], 300).astype(int)) - 1
    for name, (colour, dash) in METHODS.items():
        row = methods.sel(optimizer=name).isel(step=shown)
        axis.plot(row.step + 1, row.error, color=OKABE_ITO[colour], ls=dash, lw=1, label=name)
    axis.set(xscale="log", yscale="log", xlabel="steps taken + 1")
    axis.set_ylabel("‖x − x*‖$_\\infty$ (x* by SciPy)")
    axis.legend(fontsize=5.5, loc="lower left")
    held, size = methods.attrs["held"], methods.attrs["size"]
    axis.set_title(f"(g) box, {held} of {size} held", fontsize=8)


def _cycle(axis: "Axes", cycles: "xarray.Dataset", numbers: Mapping[str, Any]) -> None:
    looks = {"cycle": (BAD[1], "x₀ = 0"), "other basin": (OKABE_ITO["orange"], "x₀ = 1")}
    names = {
        "slow": (OKABE_ITO["purple"], "η = 3.5e-3"),
        "b1 < b2": (OKABE_ITO["blue"], "(0.9, 0.999)"),
    }
    last = cycles.sizes["step"]
    window = slice(max(0, last - 3000), last)
    for name, (colour, label) in {**looks, **names}.items():
        row = cycles.path.sel(run=name).isel(step=window)
        axis.plot(np.arange(row.size), row, color=colour, lw=1, label=label)
    axis.axhline(1, color="k", ls="--", lw=0.9)
    axis.set(xlabel="the last 3000 optimizer steps", ylabel="x", ylim=(0.4, 1.9))
    axis.legend(fontsize=5.5, ncol=2, loc="upper center")
    share = numbers["cycle"]["share outside"]
    axis.set_title(f"(h) b1 > b2: {share:.0%} outside", fontsize=8)


def _basins(axis: "Axes", cycles: "xarray.Dataset") -> None:
    values = cycles.late.values
    image = axis.pcolormesh(
        cycles.start, cycles.eta, np.clip(values, 1, None), cmap="cividis", shading="nearest",
        rasterized=True,
    )  # fmt: skip
    axis.set(yscale="log", xlabel="start x$_0$", ylabel="learning rate η")
    axis.axhline(3.5e-3, color="w", ls="--", lw=0.9, label="η of (h): 3.5e-3")
    axis.plot([0, 1], [5e-3] * 2, "wx", ms=4, label="x$_0$ of (h): 0, 1")
    axis.legend(fontsize=5.5, loc="lower left", labelcolor="w")
    axis.figure.colorbar(image, ax=axis, label="largest |x|, second half", pad=0.02)
    axis.set_title("(i) basins of the cycle", fontsize=8)


def _fixed(axis: "Axes", fixed: "xarray.Dataset") -> None:
    """Of L = ½(x − 2)²: λx against eps; closed forms, and where methods end."""
    grid = fixed.isel(lane=slice(fixed.attrs["cases"], None))
    decays = np.unique(grid.weight_decay)
    marks = {"AdamW": "o", "AdamProx": "x", "AdamFlow": "+", "Adam-ℓ2": "s"}
    for colour, decay in zip(COLOURS, decays, strict=False):
        row = grid.isel(lane=np.flatnonzero(grid.weight_decay.values == decay))
        axis.plot(row.eps, decay * row.limit, "k--", lw=0.9)
        axis.plot(row.eps, decay * row.ridge, "k:", lw=0.9)
        axis.annotate(
            f"λ = {decay:g}", (float(row.eps[-1]), decay * float(row.ridge[-1])), (4, -2),
            textcoords="offset points", fontsize=6, color=OKABE_ITO[colour], annotation_clip=False,
        )  # fmt: skip
        for name in fixed.optimizer.values.tolist():
            axis.plot(
                row.eps, decay * row.end.sel(optimizer=name), ls="", marker=marks[name], ms=4,
                mew=0.8, mfc="none", color=OKABE_ITO[colour],
            )  # fmt: skip
    for name in fixed.optimizer.values.tolist():
        axis.plot([], [], marks[name], color="0.4", ms=4, mfc="none", label=name)
    axis.plot([], [], "k--", lw=0.9, label="closed form")
    axis.plot([], [], "k:", lw=0.9, label="ridge")
    axis.set(
        xscale="log", xlabel="eps", ylabel="λx at the end", ylim=(0, 2.1), yticks=(0, 0.5, 1, 1.5)
    )
    axis.legend(fontsize=5.5, ncol=2, loc="upper right", handlelength=1.2, columnspacing=0.8)
    axis.set_title("(j) fixed points", fontsize=8)
