"""What becomes of a long run: a criterion on the end of its loss and of its moves.

The words are those of the literature on Adam's late dynamics (Ma, Wu & E, MSML 2022; phase diagram
of arXiv 2603.09581). A run is judged by a window at its end, cut into quarters; a loss enters by
its logarithm, so that nothing depends on its scale.
"""

from enum import IntEnum

import numpy as np
from jaxtyping import ArrayLike, Float, Int

SPIKE = 100.0
"""A spike is a loss so many times its trend, after one near it."""
STILL = 1e-3
"""Of a learning rate: what moves by less a step has come to rest."""
SIGN = 0.5
"""Of a learning rate: what moves by more a step is like a sign method."""
DOUBLING = float(np.log(2))


class REGIME(IntEnum):
    """Where a long run ends up."""

    converged = 0
    under_way = 1
    """the loss still falls: a longer run would tell"""
    limit_cycle = 2
    """it moves on within bounds, regularly or not"""
    sign_like = 3
    """the same, by nearly whole learning rates"""
    spikes = 4
    """rare bursts of the loss far above its trend"""
    slow_growth = 5
    divergence = 6
    """not finite, or above its start, bounded or not"""


def regime(
    losses: ArrayLike,
    moves: ArrayLike,
    start_loss: ArrayLike,
    *,
    still: float = STILL,
    sign: float = SIGN,
    spike: float = SPIKE,
) -> Int[np.ndarray, "..."]:
    """The regime of each run, by the first of these that holds at its end:

    1. `divergence`: a number is not finite, or the last quarter's median loss is above the start.
    2. `converged`: in the last quarter every move is at most 1e-3 (`still`).
    3. `spikes`: a loss 100 times its trend (`spike`), after one within a factor e of it, while at
       most a quarter of the window is more than 10 times above it. The trend is the line through
       the medians of ln L in the outer quarters. A loss that scatters over as many decades as a
       burst rises is called so too.
    4. `slow_growth`, `under_way`: L or the moves grow, L falls from quarter to quarter, in all by
       more than the logarithm scatters about its trend, or by half of that and a factor of 2.
    5. `sign_like`: the median move is at least ½ (`sign`).
    6. `limit_cycle`: all that is left.

    **Arguments:**

    - `losses`: L − min L, or L where it is not negative, at the last n ≥ 16 steps, `(..., n)`.
    - `moves`: ‖θ_{n+1} − θ_n‖_∞/η at the same steps, ‖u‖_∞ where there is no decay, `(..., n)`.
    - `start_loss`: of the run, `(...)`, or one number for all; `inf` where it does not matter.
    - `still`, `sign`, `spike`: thresholds, to see how much hangs on them.

    **Returns:** values of `REGIME`, `(...)`.

    **Raises:** `ValueError` for a window that is too short, for shapes that do not match, for a
    negative loss, and for a start that is NaN.

    !!! example
        >>> steps = np.arange(400)
        >>> falling, spiky = np.exp(-0.1 * steps), 1e-6 + (steps % 100 == 50)
        >>> [REGIME(k).name for k in regime([falling, spiky], [falling, 0 * steps + 0.1], [1, 2])]
        ['converged', 'spikes']
    """
    losses, moves = np.asarray(losses, float), np.asarray(moves, float)
    if losses.ndim < 1 or losses.shape != moves.shape or losses.shape[-1] < 16:
        raise ValueError(
            f"losses {losses.shape} and moves {moves.shape} must have one shape, (..., n) with "
            "n of at least 16 steps."
        )
    starts = np.asarray(start_loss, float)
    if starts.shape not in ((), losses.shape[:-1]) or np.any(np.isnan(starts)):
        raise ValueError(
            f"start_loss {starts.shape} must be numbers, one for each of the runs "
            f"{losses.shape[:-1]}."
        )
    if np.any(losses < 0):
        raise ValueError("A loss is negative: subtract its minimum.")
    finite = np.all(np.isfinite(losses) & np.isfinite(moves), axis=-1)
    logs = _logs(np.where(finite[..., None], losses, 1))
    late = moves.shape[-1] * 3 // 4
    growth = _drift(_logs(np.where(finite[..., None], moves, 1)))
    drift = _drift(logs)
    answers = {
        REGIME.divergence: ~finite | ~(np.median(losses[..., late:], axis=-1) <= starts),
        REGIME.converged: np.max(moves[..., late:], axis=-1) <= still,
        REGIME.spikes: _spikes(logs, spike),
        REGIME.slow_growth: (drift > 0) | (growth > 0),
        REGIME.under_way: drift < 0,
        REGIME.sign_like: np.median(moves, axis=-1) >= sign,
    }
    return np.select(list(answers.values()), [int(k) for k in answers], int(REGIME.limit_cycle))


def _logs(values: np.ndarray) -> Float[np.ndarray, "... n"]:
    return np.log(np.maximum(values, np.finfo(float).tiny))


def _medians(logs: np.ndarray) -> list[np.ndarray]:
    return [np.median(part, axis=-1) for part in np.array_split(logs, 4, axis=-1)]


def _about_trend(logs: np.ndarray) -> Float[np.ndarray, "... n"]:
    """ln L without the line through the medians of the outer quarters, which a burst in one of
    them does not move."""
    first, *_, last = _medians(logs)
    at = np.linspace(-1 / 6, 7 / 6, logs.shape[-1])  # 0 and 1 in the middle of these quarters
    return logs - first[..., None] - (last - first)[..., None] * at


def _spikes(logs: np.ndarray, spike: float) -> np.ndarray:
    above = _about_trend(logs)
    above -= np.median(above, axis=-1, keepdims=True)
    near_before = np.minimum.accumulate(above, axis=-1) < 1
    high = (above > np.log(spike)) & near_before
    rare = np.mean(above > np.log(10), axis=-1) <= 1 / 4
    return np.any(high, axis=-1) & rare


def _drift(logs: np.ndarray) -> np.ndarray:
    """The sign of a movement from quarter to quarter, 0 where there is none."""
    medians = np.stack(_medians(logs))
    steps = np.diff(medians, axis=0)
    whole = medians[-1] - medians[0]
    same = np.all(steps * np.sign(whole) > np.abs(whole) / 12, axis=0)
    low, high = np.quantile(_about_trend(logs), [0.05, 0.95], axis=-1)
    scatter = high - low
    clear = (np.abs(whole) > scatter) | (
        (np.abs(whole) >= DOUBLING) & (np.abs(whole) > scatter / 2)
    )
    return np.where(same & clear & (np.abs(whole) > 1e-6), np.sign(whole), 0)
