"""How flat the minima are in which networks end, and what they make of images that are new."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from .axes import head_room, plain_ticks
from .style import OKABE_ITO

if TYPE_CHECKING:
    import xarray
    from matplotlib.axes import Axes

TITLE, SMALL = 8, 6.5
"""Points: of titles; of legends, and of labels that are words."""
LOOKS = {
    "Adam": ("orange", "D"),
    "Adam-ℓ2": ("vermilion", "o"),
    "AdamW": ("blue", "s"),
}
SHORT = {"convolutional": "conv", "convolutional, group norm": "conv,\ngroup norm"}
WORDS = {
    "sharpness": "sharpness", "relative sharpness": "relative to ‖w‖", "trace": "trace",
    "test error": "test error", "gap in error": "its gap to training",
}  # fmt: skip


def look_of(method: str, **more: Any) -> dict[str, Any]:
    colour, marker = LOOKS[method]
    return {"color": OKABE_ITO[colour], "marker": marker, "ms": 3.5, "lw": 1, **more}


def against(
    axis: "Axes", networks: Mapping[str, Any], quantities: tuple[str, ...], letter: str
) -> None:
    """AdamW against the others with simultaneous intervals: ratios of flatness, differences of
    errors in percentage points; a place a network, a marker a quantity, a colour who it is
    compared with."""
    ratio = "sharpness" in quantities
    unit = 1 if ratio else 100
    pairs = [(q, other) for other in ("Adam-ℓ2", "Adam") for q in quantities]
    for i, (quantity, other) in enumerate(pairs):
        rows = [network[f"AdamW against {other}"][quantity] for network in networks.values()]
        mean, low, high = (unit * np.array([r[k] for r in rows]) for k in ("found", "low", "high"))
        place = np.arange(len(rows)) + (i - (len(pairs) - 1) / 2) * 0.8 / len(pairs)
        look = look_of(other, marker="os^"[quantities.index(quantity)], lw=0, elinewidth=0.9)
        axis.errorbar(place, mean, [mean - low, high - mean], capsize=1.5, **look)
    axis.axhline(1.0 if ratio else 0.0, color="k", lw=0.6, ls=":")
    axis.set_xticks(range(len(networks)), [SHORT.get(n, n) for n in networks], fontsize=SMALL)
    if ratio:
        axis.set_yscale("log")
        plain_ticks(axis.yaxis, (0.1, 0.2, 0.5, 1, 2))
    words = "curvature: AdamW / other" if ratio else "AdamW − other, % points"
    axis.set(ylabel=words, xlim=(-0.6, len(networks) - 0.4))
    _two_legends(axis, quantities)
    title = "above 1: AdamW sharper" if ratio else "below 0: AdamW better"
    axis.set_title(f"({letter}) {title}", fontsize=TITLE)


def _two_legends(axis: "Axes", quantities: tuple[str, ...]) -> None:
    """Markers by quantity above, colours by whom AdamW is compared with below."""
    from matplotlib.lines import Line2D

    grey = {"color": "0.4", "lw": 0, "ms": 3.5}
    shapes = [
        Line2D([], [], marker="os^"[i], label=WORDS[q], **grey) for i, q in enumerate(quantities)
    ]
    dash = {"marker": "_", "mew": 2, "ms": 7, "lw": 0}
    colours = [
        Line2D([], [], color=look_of(other)["color"], label=f"than {other}", **dash)
        for other in ("Adam-ℓ2", "Adam")
    ]
    head_room(axis, 0.55)
    axis.legend(
        handles=shapes + colours, fontsize=SMALL, ncol=2, loc="upper left", columnspacing=0.8
    )


def scatter(axis: "Axes", nets: list["xarray.Dataset"], letter: str) -> None:
    """Every fresh run: sharpness against the gap; a colour an optimizer, a filling a network."""
    for i, net in enumerate(nets):
        for method in LOOKS:
            row = net.sel(optimizer=method)
            look = look_of(method, lw=0, mew=0.7, ms=3)
            look["mfc"] = "none" if i else look["color"]
            look["marker"] = "osD"[i]
            axis.semilogx(row["sharpness"], row["gap in loss"], **look)
        name = str(net.attrs["name"])
        words = SHORT.get(name, name).replace("\n", " ")
        grey = {"color": "0.4", "lw": 0, "ms": 3, "mew": 0.7, "mfc": "none" if i else "0.4"}
        axis.plot([], [], marker="osD"[i], label=words, **grey)
    for method in LOOKS:
        look = {"color": look_of(method)["color"], "lw": 0, "marker": "_", "mew": 2, "ms": 7}
        axis.plot([], [], label=method, **look)
    plain_ticks(axis.xaxis, (0.5, 1, 2, 5, 10))
    head_room(axis, 0.6)
    axis.legend(fontsize=SMALL, loc="upper left", ncol=2, columnspacing=0.8)
    axis.set(xlabel="sharpness", ylabel="gap, test − train loss, nats")
    axis.set_title(f"({letter}) each run", fontsize=TITLE)
