"""Flows beside the optimizer that they model: losses above, distances below."""

import json
from typing import TYPE_CHECKING

import numpy as np

from .style import COLUMN, style

if TYPE_CHECKING:
    import xarray
    from matplotlib.figure import Figure

_DASHES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1)))


def following_figure(dataset: "xarray.Dataset") -> "Figure":
    """Loss against step (optimizer as dots), and each flow's relative error below it.

    **Arguments:**

    - `dataset`: of `ct_adam.sweep.follow` or a store of `ct-adam compare`: over (flow, step).

    **Returns:** a figure a column wide; `save_figure` keeps it.

    !!! example
        >>> from ct_adam import sweep
        >>> config = sweep.FollowConfig(problem="quadratic", flow="log", steps=5)
        >>> figure = following_figure(sweep.follow(config))
        >>> figure.axes[1].get_xlabel()
        'optimizer step'
    """
    import matplotlib.pyplot as plt

    config = json.loads(dataset.attrs["config"])
    with style():
        figure, (above, below) = plt.subplots(2, 1, figsize=(COLUMN, 3.9), sharex=True)
        steps = dataset.step.values
        for i, name in enumerate(dataset.flow.values):
            row = dataset.sel(flow=name)
            line = {"color": f"C{i}", "ls": _DASHES[i % len(_DASHES)], "label": f"ODE, {name}"}
            above.plot(steps, row.loss, **line)
            error = row.error.values / _travelled(row)
            below.plot(steps, np.where(error > 0, error, np.nan), **line)
        every = max(1, len(steps) // 40)
        dots = {"marker": "o", "ms": 2.2, "ls": "none", "color": "k", "zorder": 3}
        label = f"optimizer, {config['optimizer'].rpartition(':')[2]}"
        above.plot(steps[::every], dataset.optimizer_loss[::every], label=label, **dots)
        _log_if_wide(above, dataset.optimizer_loss.values)
        above.set_ylabel("loss")
        problem = config["problem"].rpartition(":")[2]
        above.set_title(f"{problem}, {dataset.attrs['parameters']} parameters")
        above.legend()
        below.set_yscale("log")
        below.set_ylabel("max |ODE − optimizer|\nover distance travelled")
        below.set_xlabel("optimizer step")
    return figure


def _travelled(row: "xarray.Dataset") -> float:
    """By the optimizer; NaN where it stood still, as nothing is relative to that."""
    if "distance" in row:
        return float(row.distance) or np.nan
    # A store of an earlier version tells it by two errors.
    error, relative = float(row.max_error), float(row.relative_error)
    return error / relative if relative else np.nan


def _log_if_wide(axis: object, values: np.ndarray) -> None:
    """A logarithmic axis where a positive loss falls by more than a factor of ten."""
    finite = values[np.isfinite(values)]
    if finite.size and finite.min() > 0 and finite.max() > 10 * finite.min():
        axis.set_yscale("log")  # pyright: ignore[reportAttributeAccessIssue]
