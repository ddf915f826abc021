"""Where long runs end up over both decays, beside what theory says of them."""

from typing import TYPE_CHECKING, Any

import numpy as np

from ..theory import REGIME, degenerate_boundary, stability_edge
from .style import OKABE_ITO, PAGE, style

if TYPE_CHECKING:
    import xarray
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = {
    REGIME.converged: OKABE_ITO["sky"],
    REGIME.under_way: OKABE_ITO["yellow"],
    REGIME.limit_cycle: OKABE_ITO["green"],
    REGIME.sign_like: OKABE_ITO["orange"],
    REGIME.spikes: OKABE_ITO["purple"],
    REGIME.slow_growth: OKABE_ITO["blue"],
    REGIME.divergence: OKABE_ITO["vermilion"],
}
WORDS = {
    REGIME.converged: "comes to rest",
    REGIME.under_way: "loss still falls",
    REGIME.limit_cycle: "limit cycle",
    REGIME.sign_like: "sign-like oscillation",
    REGIME.spikes: "spikes",
    REGIME.slow_growth: "slow growth",
    REGIME.divergence: "divergence",
}
ROWS = {"quadratic": "(a) quadratic", "flat": "(b) flat minimum", "network": "(c) digits MLP"}
SHOWN = 250
"""Steps of the examples."""


def regimes_figure(tree: "xarray.DataTree") -> "Figure":
    """Maps of the regimes, a row a problem, then examples and linear stability."""
    import matplotlib.pyplot as plt
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    layout: Any = ConstrainedLayoutEngine(w_pad=0.02, h_pad=0.02, wspace=0, hspace=0)
    with style():
        figure, axes = plt.subplots(4, 4, figsize=(PAGE, 8.2), layout=layout)
        for name, row in zip(ROWS, axes[:3], strict=True):
            _row(row, name, tree[name].to_dataset())
        local = tree["local"].to_dataset()
        for axis, case in zip(axes[3, :2], (1, 3), strict=True):
            _local(axis, local.isel(case=case))
        axes[3, 1].set(ylabel="", yticklabels=[])
        _by_eps(axes[3, 2], tree["by_eps"].to_dataset())
        _examples(axes[3, 3], tree)
        figure.legend(handles=_legend(tree), loc="outside lower center", ncols=4, fontsize=6.5)
    return figure


def _row(axes: Any, name: str, node: "xarray.Dataset") -> None:
    for column, axis in enumerate(axes):
        if column >= node.sizes["setting"]:
            axis.set_axis_off()
            continue
        one = node.isel(setting=column)
        _map(axis, one.regime.values, [COLOURS[k] for k in REGIME])
        eta, eps = float(one.learning_rate), float(one.eps)
        axis.set_title(f"η = {eta:g}, eps = {eps:g}", fontsize=7)
        _lines(axis, name, eta, eps, one.attrs)
        if "edge_ratio" in one:
            _edge(axis, one)
        axis.tick_params(labelleft=column == 0)
    axes[0].set_ylabel(f"{ROWS[name]}\nsecond-moment decay b2", fontsize=7)
    for axis in axes:
        axis.set_xlabel("first-moment decay b1", fontsize=6.5)


def _map(axis: "Axes", values: np.ndarray, colours: list[str]) -> None:
    from matplotlib.colors import BoundaryNorm, ListedColormap

    edges = np.linspace(0, 1, len(values) + 1)
    norm = BoundaryNorm(np.arange(len(colours) + 1) - 0.5, len(colours))
    shown = ListedColormap(colours)
    axis.pcolormesh(edges, edges, values.T, cmap=shown, norm=norm, rasterized=True)
    axis.set(xlim=(0, 1), ylim=(0, 1), aspect="equal", xticks=(0, 0.5, 1), yticks=(0, 0.5, 1))


def _lines(axis: "Axes", name: str, eta: float, eps: float, about: dict[str, Any]) -> None:
    b1 = np.linspace(0, 1, 201)[:-1]
    axis.plot(b1, b1**2, "k--", lw=0.9)
    if name == "flat" and eps == 0:  # it is theory for no other
        axis.plot(b1, degenerate_boundary(b1, about["degree"]), "k-", lw=0.9)
    if name == "quadratic":
        excess = [stability_edge(eta, float(b)) - about["curvature"] / max(eps, 1e-300) for b in b1]
        if excess[0] < 0 < excess[-1]:
            axis.axvline(float(np.interp(0, excess, b1)), color="k", ls=":", lw=1.2)


def _edge(axis: "Axes", one: "xarray.Dataset") -> None:
    """Where the preconditioned sharpness of the run's end is that of the edge of stability."""
    ratio = one.edge_ratio.values.T
    if np.nanmin(ratio) < 1 < np.nanmax(ratio) and min(ratio.shape) > 2:
        for colour, width in (("k", 2.2), ("w", 1.1)):  # white, seen on yellow too
            axis.contour(
                one.b1.values, one.b2.values, ratio, levels=[1.0], colors=colour, linewidths=width
            )


def _examples(axis: "Axes", tree: "xarray.DataTree") -> None:
    """One run of each regime that was met, one above the other, about its largest loss."""
    met: dict[str, np.ndarray] = {}
    for name in ("network", "quadratic", "flat"):  # the smoothest first
        node = tree[name]
        for kind in node.kind.values:
            loss = node.example.sel(kind=kind).values
            loss = loss[np.isfinite(loss) & (loss > 0)]
            middle = int(np.argmax(loss)) if len(loss) else 0
            first = max(0, min(middle - SHOWN // 2, len(loss) - SHOWN))
            if len(loss) > 1:
                met.setdefault(str(kind), loss[first : first + SHOWN])
    for place, kind in enumerate(kind for kind in REGIME if kind.name in met):
        line = np.log10(met[kind.name] / met[kind.name].min())
        axis.plot(0.8 * line / max(line.max(), 1e-6) + place, color=COLOURS[kind], lw=0.7)
        axis.text(1.3 * SHOWN, place + 0.3, f"{line.max():.2g}", fontsize=6, ha="right")
    axis.set(xlim=(0, 1.32 * SHOWN), xticks=(0, SHOWN), yticks=())
    axis.set_box_aspect(1)
    axis.set_xlabel("steps", fontsize=6.5)
    axis.set_ylabel("log₁₀ loss, each by its range", fontsize=7)
    axis.set_title("(f) a run of each, its decades", fontsize=7)


def _local(axis: "Axes", one: "xarray.Dataset") -> None:
    """Theory's sign by the line, both kinds of runs by colours."""
    near, far = one.near.values.astype(bool), one.far.values.astype(bool)
    # 0 grows even from near, 1 comes to rest from near alone, 2 from far too.
    _map(axis, near.astype(int) + (near & far), ["0.8", OKABE_ITO["yellow"], OKABE_ITO["sky"]])
    inside = np.clip(np.log(one.radius.values.T), -1, 1)
    axis.contour(one.b1.values, one.b2.values, inside, levels=[0], colors="k", linewidths=1.2)
    decay, eta, eps = (float(one[k]) for k in ("weight_decay", "learning_rate", "eps"))
    which = f"AdamW, λ = {decay:g}, η = {eta:g}" if decay else f"Adam, η = {eta:g}, eps = {eps:g}"
    axis.set_title(which, fontsize=7)
    axis.set_xlabel("first-moment decay b1", fontsize=6.5)
    axis.set_ylabel("(d) fixed points\nsecond-moment decay b2", fontsize=7)


def _by_eps(axis: "Axes", node: "xarray.Dataset") -> None:
    axis.plot(node.eps, node.stable, "k-", lw=1, label="stable (theory)")
    axis.plot(node.eps, node.rested, "o", ms=2.5, color=OKABE_ITO["blue"], label="comes to rest")
    axis.plot(
        node.eps, node.low, "^", ms=2.5, color=OKABE_ITO["vermilion"],
        label="loss < 10⁻³",
    )  # fmt: skip
    axis.axvline(1e-8, color="0.6", ls=":", lw=1)
    axis.set(xscale="log", ylim=(-0.03, 1.06), yticks=(0, 0.5, 1), xticks=(1e-8, 1e-4, 1))
    axis.set_xlabel("eps", fontsize=6.5)
    axis.set_ylabel("part of the square", fontsize=7)
    axis.set_box_aspect(1)
    axis.legend(fontsize=5.5, loc="center left", bbox_to_anchor=(0, 0.5), handlelength=1.2)
    axis.set_title(f"(e) quadratic, η = {node.attrs['learning_rate']:g}", fontsize=7)


def _legend(tree: "xarray.DataTree") -> list[Any]:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    met = np.unique(np.concatenate([tree[name].regime.values.ravel() for name in ROWS]))
    patches = [Patch(facecolor=COLOURS[REGIME(k)], label=WORDS[REGIME(k)]) for k in met]
    return [
        *patches,
        Line2D([], [], color="k", ls="--", lw=0.9, label="theory: updates bounded above b2 = b1²"),
        Line2D([], [], color="k", lw=0.9, label="theory: |x|⁴ rests above b2 = b1; (d): radius 1"),
        Line2D([], [], color="k", ls=":", lw=1.2, label="theory: edge of stability at a minimum"),
        Line2D([], [], color="0.7", lw=1.2, label="white: measured sharpness at its edge"),
        Patch(facecolor="0.8", label="(d): disturbance grows"),
        Patch(facecolor=OKABE_ITO["yellow"], label="(d): rests only from near"),
    ]
