"""What matplotlib's axes lack: plain numbers as ticks, room for a legend."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def plain_ticks(axis: Any, values: Sequence[float]) -> None:
    """These, in plain numbers, on an axis whose scale is not linear."""
    axis.set_ticks(values, [f"{value:g}" for value in values])
    axis.set_ticks([], minor=True)


def head_room(axis: "Axes", share: float) -> None:
    """Room for a legend above what is drawn."""
    low, high = axis.get_ylim()
    if axis.get_yscale() == "log":
        axis.set_ylim(low, high * (high / low) ** share)
    else:
        axis.set_ylim(low, high + share * (high - low))
