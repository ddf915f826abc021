"""How far two trajectories are apart."""

import math
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Float, Int

from ..decays import Schedule, learning_rate_at
from .outcome import OUTCOME
from .trajectory import Trajectory


class Comparison(NamedTuple):
    """Distances between the parameters of two trajectories at the steps that both saved.

    - `max_error`: largest |difference| over steps and coordinates. `rms_error`: root mean square.
        Both infinite where one trajectory is finite at a step that the other did not get to, NaN
        where neither got beyond the start: what is missing is no agreement.
    - `relative_error`: `max_error` over the distance travelled, the largest |θ_n - θ_0| of the
        second trajectory over n and coordinates.
    - `per_step`: (n,) largest |difference| at each of `steps`, those that both got to.
    - `distance`: that distance travelled; `per_step / distance` is the relative error by step.
    - `learning_rate`: η, the largest over the compared steps of a schedule; NaN where not given.
    """

    max_error: float
    rms_error: float
    relative_error: float
    per_step: Float[np.ndarray, " n"]
    steps: Int[np.ndarray, " n"]
    distance: float
    learning_rate: float = math.nan

    def __repr__(self) -> str:
        """Without the rows, of which there may be thousands."""
        shown = ", ".join(
            f"{name}={value:.4g}"
            for name, value in self._asdict().items()
            if name not in ("per_step", "steps")
        )
        return f"Comparison({shown}, {len(self.steps)} steps)"

    @property
    def per_step_in_learning_rates(self) -> Float[np.ndarray, " n"]:
        """`per_step` in units of η, the length of a step of sign descent: what an ODE of Adam
        misses is a few of them (EQUATIONS §1)."""
        return self.per_step / self.learning_rate

    @property
    def max_error_in_learning_rates(self) -> float:
        """`max_error` in units of η; NaN unless `compare` was given one."""
        return self.max_error / self.learning_rate


def compare(
    a: Trajectory, b: Trajectory, learning_rate: float | Schedule | None = None
) -> Comparison:
    """Compares `a` with `b`, the reference (its distance travelled is the unit).

    With a `learning_rate`, a number or a schedule of the steps that both saved, errors are told in
    units of it too. Steps that only one of them saved are left out; nothing is interpolated.

    A run that stalled, spent its budget or became NaN on its way does not follow the other one:
    the errors are infinite, and `per_step` tells how far it went and how well. What lies behind an
    event that ended a run is left out.

    **Raises:** `ValueError` where parameters are missing, differ in shape, or no step is common.

    !!! example
        >>> import ct_adam as ct, jax.numpy as jnp
        >>> flow, start = ct.AdamFlow(1e-3), jnp.array([1.0])
        >>> loss = lambda x: jnp.sum(x**2) / 2
        >>> paths = ct.solve(flow, loss, start, 20), ct.run(flow, loss, start, 20)
        >>> error = ct.compare(*paths, learning_rate=1e-3)
        >>> error.relative_error < 0.05, error.max_error_in_learning_rates < 1
        (True, True)
    """
    steps, ours, theirs = _at_common_steps(a, b)
    ours_there, theirs_there = (np.all(np.isfinite(rows), axis=1) for rows in (ours, theirs))
    reached = ours_there & theirs_there
    if not reached[0]:
        raise ValueError("The trajectories are not finite at step 0: nothing can be compared.")
    lost = _is_lost(a, ours_there, theirs_there) or _is_lost(b, theirs_there, ours_there)
    travelled = np.max(np.abs(theirs[theirs_there if lost else reached] - theirs[0]))
    with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
        difference = np.abs(ours[reached] - theirs[reached])
        rms = np.sqrt(np.mean(difference**2))
        if lost:
            worst = rms = np.inf
        elif len(steps) > 1 and not np.any(reached[1:]):
            worst = rms = np.nan
        else:
            worst = np.max(difference)
        relative = np.divide(worst, travelled) if worst else 0.0
    return Comparison(
        max_error=float(worst),
        rms_error=float(rms),
        relative_error=float(relative),
        per_step=difference.max(axis=1),
        steps=steps[reached],
        distance=float(travelled),
        learning_rate=_largest(learning_rate, steps[reached]),
    )


def _at_common_steps(a: Trajectory, b: Trajectory) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The steps that both saved, and there the parameters of each, a row a step."""
    for path in (a, b):
        if not isinstance(path, Trajectory):
            raise ValueError(f"compare takes what solve and run return, not {type(path).__name__}.")
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
    return steps, ours, theirs


def _is_lost(path: Trajectory, there: np.ndarray, other: np.ndarray) -> bool:
    """Whether a run ended before the other one, and not by an event as it should."""
    return bool(np.any(other & ~there)) and not bool(path.result == OUTCOME.event_occurred)


def _largest(learning_rate: float | Schedule | None, steps: np.ndarray) -> float:
    if learning_rate is None:
        return math.nan
    largest = float(np.max([learning_rate_at(learning_rate, n) for n in steps]))
    if not largest > 0:
        raise ValueError(f"learning_rate = {largest:g} must be positive to be a unit of error.")
    return largest


def _rows(leaf: object) -> np.ndarray:
    array = np.asarray(leaf, dtype=float)
    return array.reshape(len(array), -1)
