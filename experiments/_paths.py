"""What several experiments do with trajectories and with labelled data."""

from typing import TYPE_CHECKING

import jax
import numpy as np
from jaxtyping import Float, PyTree

if TYPE_CHECKING:
    import xarray

Rows = Float[np.ndarray, "n parameters"]


def rows(params: PyTree) -> Rows:
    """All parameters of a trajectory side by side."""
    leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(params)]
    return np.concatenate([leaf.reshape(len(leaf), -1) for leaf in leaves], axis=1)


def each(dataset: "xarray.Dataset", dim: str) -> "list[xarray.Dataset]":
    """Its parts along a dimension, one by one."""
    return [dataset.isel({dim: i}) for i in range(dataset.sizes[dim])]
