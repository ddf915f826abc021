"""Maps over the square of decays: cells, an outline, theory's boundaries."""

from typing import TYPE_CHECKING, Any

import numpy as np

from ..theory import stability_boundary
from .style import OKABE_ITO

if TYPE_CHECKING:
    import xarray
    from matplotlib.axes import Axes

DEFAULT_PAIR = (0.9, 0.999)
LARGEST = 100.0
"""The colour scale's end: all that is larger is drawn alike."""
UPDATE_LABEL = "largest update  max ‖u‖$_\\infty$"
NO_ANSWER = "0.8"


def update_norm() -> Any:
    """The colour scale of the largest update: none is below 1, the first."""
    from matplotlib.colors import LogNorm

    return LogNorm(1, LARGEST)


def draw_map(
    axis: "Axes",
    cells: "xarray.Dataset",
    norm: Any,
    outlined: str = "unstable",
    colour: str = OKABE_ITO["vermilion"],
    width: float = 1.6,
) -> Any:
    """Draws largest updates, the outline of the cells of a mask, and theory's boundaries.

    **Arguments:**

    - `cells`: over (b1, b2), with `max_update`, `answered` and the mask `outlined`.
    - `norm`: of `update_norm`. `colour`, `width` (points): of the outline.

    **Returns:** the coloured cells, for a colour bar.
    """
    x, y = edges(cells.b1.values), edges(cells.b2.values)
    mesh = _draw_cells(axis, x, y, cells, norm)
    _outline(axis, x, y, cells[outlined].values, colour, width)
    _draw_boundaries(axis, x[0])
    return mesh


def _draw_cells(
    axis: "Axes", x: np.ndarray, y: np.ndarray, cells: "xarray.Dataset", norm: Any
) -> Any:
    """The largest update by cell, and the default pair; grey shows where no cell has an answer."""
    from cmcrameri import cm

    answered = cells.answered.values
    size = np.where(answered, np.clip(cells.max_update.values, None, 10 * LARGEST), np.nan)
    axis.set_facecolor(NO_ANSWER)
    colours = cm.lapaz_r  # pyright: ignore[reportAttributeAccessIssue]
    mesh = axis.pcolormesh(x, y, size.T, norm=norm, cmap=colours, rasterized=True)
    axis.plot(*DEFAULT_PAIR, **star(), clip_on=False)
    # No tick at b1 = 1: it would touch the next panel's first.
    choices = (0, 0.25, 0.5, 0.75) if x[0] < 0.4 else (0.5, 0.7, 0.9)
    axis.set_xticks([tick for tick in choices if tick >= x[0] - 1e-9])
    axis.set(xlim=(x[0], x[-1]), ylim=(y[0], y[-1]), aspect="equal")
    return mesh


def star() -> dict[str, Any]:
    """How the default pair is drawn."""
    return {
        "marker": "*", "color": "none", "mfc": OKABE_ITO["orange"], "mec": "k", "mew": 0.5, "ms": 8
    }  # fmt: skip


def _outline(
    axis: "Axes", x: np.ndarray, y: np.ndarray, mask: np.ndarray, colour: str, width: float
) -> None:
    """A line along the edges of the cells in `mask`."""
    from matplotlib.collections import LineCollection

    padded = np.pad(mask, 1)
    segments = []
    for i, j in np.argwhere(padded[1:, 1:-1] != padded[:-1, 1:-1]):
        segments.append([(x[i], y[j]), (x[i], y[j + 1])])
    for i, j in np.argwhere(padded[1:-1, 1:] != padded[1:-1, :-1]):
        segments.append([(x[i], y[j]), (x[i + 1], y[j])])
    axis.add_collection(LineCollection(segments, colors=colour, linewidths=width, capstyle="round"))


def _draw_boundaries(axis: "Axes", low: float) -> None:
    """Theory's two, from b1 = `low`: dashed b2 = b1², dotted b2 = b1/(2 − b1)."""
    b1 = np.linspace(low, 1, 200, endpoint=False)
    axis.plot(b1, np.asarray(stability_boundary(b1, "discrete")), "k--", lw=1)
    axis.plot(b1, np.asarray(stability_boundary(b1, "continuous")), "k:", lw=1.2)


def square_legend() -> list[Any]:
    """Theory's boundaries and the default pair."""
    from matplotlib.lines import Line2D

    return [
        Line2D([], [], color="k", ls="--", lw=1, label="theory: b2 = b1² (discrete, log rates)"),
        Line2D([], [], color="k", ls=":", lw=1.2, label="theory: b2 = b1/(2 − b1) (lag rates)"),
        Line2D([], [], label="default pair (0.9, 0.999)", **star()),
    ]


def edges(centres: np.ndarray) -> np.ndarray:
    """Edges of equal cells around `centres`; a single cell is as wide as its distance to 1."""
    half = (centres[1] - centres[0]) / 2 if len(centres) > 1 else 1 - centres[0]
    # By rounding the first may come out below 0, which is no decay.
    return np.append(np.maximum(centres - half, 0), centres[-1] + half)
