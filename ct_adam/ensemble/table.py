"""The lanes' numbers as a labelled dataset."""

from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from jaxtyping import PyTree

from ..simulate.trajectory import outcome_names
from .reference import LaneResult

if TYPE_CHECKING:
    import xarray

METRICS = (
    "max_update",
    "update_slope",
    "final_loss",
    "min_loss",
    "final_params",
    "outcome",
    "evaluations",
)
"""What `ensemble` can compute of a lane."""

_LABELS = {
    "max_update": ("largest update max ‖u‖_∞", "1"),
    "update_slope": ("slope of ln ‖u‖_∞ over the last half", "1/step"),
    "final_loss": ("loss at the last step", "1"),
    "min_loss": ("smallest loss", "1"),
    "evaluations": ("gradient evaluations", "1"),
}

LANE_LABELS = {
    "b1": ("first-moment decay b1", "1"),
    "b2": ("second-moment decay b2", "1"),
    "learning_rate": ("learning rate", "1"),
    "weight_decay": ("weight decay", "1"),
}


def to_dataset(
    result: LaneResult,
    columns: dict[str, np.ndarray],
    metrics: tuple[str, ...],
    attrs: dict[str, Any],
) -> "xarray.Dataset":
    """A dataset over `lane`, with the lanes' values as coordinates.

    Made in one go: variables put in one by one cost xarray half a millisecond each.
    """
    import xarray  # 0.4 s: only where a table is made

    values = {
        "max_update": result.reductions.max_update,
        "update_slope": result.update_slope,
        "final_loss": result.final_loss,
        "min_loss": result.reductions.min_loss,
        "evaluations": result.evaluations,
    }
    coords: dict[str, Any] = {
        name: ("lane", column, _attrs(LANE_LABELS.get(name, (name, "1"))))
        for name, column in columns.items()
    }
    variables: dict[str, Any] = {}
    for name in metrics:
        if name == "final_params":
            coords["parameter"], flat = _flat(result.params)
            variables[name] = (("lane", "parameter"), flat, {"long_name": "parameters at the end"})
        elif name == "outcome":
            ended = np.asarray(result.outcome._value, dtype=np.int32)  # pyright: ignore[reportAttributeAccessIssue]
            variables[name] = ("lane", ended, _outcome_attrs())
        else:
            variables[name] = ("lane", np.asarray(values[name]), _attrs(_LABELS[name]))
    for path, leaf in jax.tree_util.tree_leaves_with_path(result.saved):
        name = "_".join(["saved", *(jax.tree_util.keystr((k,), simple=True) for k in path)])
        dims = ["lane", *(f"{name}_{axis}" for axis in range(leaf.ndim - 1))]
        variables[name] = (dims, np.asarray(leaf))
    return xarray.Dataset(variables, coords, attrs)


def _outcome_attrs() -> dict[str, Any]:
    names = outcome_names()
    return {
        "long_name": "how the lane ended",
        "flag_values": np.arange(len(names), dtype=np.int32),
        "flag_meanings": " ".join(names),
    }


def _attrs(label: tuple[str, str]) -> dict[str, str]:
    return {"long_name": label[0], "units": label[1]}


def _flat(params: PyTree) -> tuple[list[str], np.ndarray]:
    """Key path and index of every parameter, and the lanes' values in that order."""
    labels, blocks = [], []
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        key = jax.tree_util.keystr(path)
        labels += [f"{key}[{', '.join(map(str, index))}]" for index in np.ndindex(leaf.shape[1:])]
        blocks.append(np.asarray(leaf).reshape(len(leaf), -1))
    return labels, np.concatenate(blocks, axis=1)
