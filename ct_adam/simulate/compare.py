"""How far two trajectories are apart."""

from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Float

from .trajectory import Trajectory


class Comparison(NamedTuple):
    """Distances between the parameters of two trajectories at the steps that both saved.

    - `max_error`: largest |difference| over steps and coordinates. `rms_error`: root mean square.
    - `relative_error`: `max_error` over the distance travelled, the largest |θ_n - θ_0| of the
        second trajectory over n and coordinates.
    - `per_step`: (n,) largest |difference| at each of `steps`.
    """

    max_error: float
    rms_error: float
    relative_error: float
    per_step: Float[np.ndarray, " n"]
    steps: np.ndarray


def compare(a: Trajectory, b: Trajectory) -> Comparison:
    """Compares `a` with `b`, the reference (its distance travelled is the unit).

    Steps that only one of them saved, or that one of them did not reach, are left out; nothing is
    interpolated.

    **Raises:** `ValueError` where parameters are missing, differ in shape, or no step is common.

    !!! example
        >>> import ct_adam as ct, jax.numpy as jnp
        >>> flow, start = ct.AdamFlow(1e-3), jnp.array([1.0])
        >>> loss = lambda x: jnp.sum(x**2) / 2
        >>> error = ct.compare(ct.solve(flow, loss, start, 20), ct.run(flow, loss, start, 20))
        >>> bool(error.relative_error < 0.05)
        True
    """
    if a.params is None or b.params is None:
        raise ValueError("compare needs parameters: run both without save=.")
    if jax.tree.structure(a.params) != jax.tree.structure(b.params):
        raise ValueError("The two trajectories have parameters of different structure.")
    steps, in_a, in_b = np.intersect1d(a.steps, b.steps, return_indices=True)
    if not steps.size:
        raise ValueError("The two trajectories have no saved step in common.")
    if 0 not in steps:
        raise ValueError("Both trajectories must hold step 0, where the distance travelled begins.")
    pairs = zip(jax.tree.leaves(a.params), jax.tree.leaves(b.params), strict=True)
    flat = [(_rows(x)[in_a], _rows(y)[in_b]) for x, y in pairs]
    if any(x.shape != y.shape for x, y in flat):
        raise ValueError("The two trajectories have parameters of different shape.")
    ours, theirs = (np.concatenate(side, axis=1) for side in zip(*flat, strict=True))
    reached = np.all(np.isfinite(ours) & np.isfinite(theirs), axis=1)
    if not reached[0]:
        raise ValueError("The trajectories are not finite at step 0: nothing can be compared.")
    ours, theirs, steps = ours[reached], theirs[reached], steps[reached]
    difference = np.abs(ours - theirs)
    travelled = np.max(np.abs(theirs - theirs[0]))
    worst = float(np.max(difference))
    with np.errstate(divide="ignore", invalid="ignore"):
        relative = float(np.divide(worst, travelled)) if worst else 0.0
    return Comparison(
        worst, float(np.sqrt(np.mean(difference**2))), relative, difference.max(axis=1), steps
    )


def _rows(leaf: object) -> np.ndarray:
    array = np.asarray(leaf, dtype=float)
    return array.reshape(len(array), -1)
