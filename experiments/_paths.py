"""What several experiments do with trajectories."""

import jax
import numpy as np
from jaxtyping import Float, PyTree

Rows = Float[np.ndarray, "n parameters"]


def rows(params: PyTree) -> Rows:
    """All parameters of a trajectory side by side."""
    leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(params)]
    return np.concatenate([leaf.reshape(len(leaf), -1) for leaf in leaves], axis=1)
