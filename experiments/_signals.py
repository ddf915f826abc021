"""Synthetic ends of runs whose regime is known, to find how often the criterion is wrong."""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float, Int

from ct_adam.theory import REGIME, regime

Signal = tuple[np.ndarray, np.ndarray, float]
"""Losses, moves, and the loss at the start."""


class Draw:
    """Random numbers, and noise that is `rough` times the usual."""

    def __init__(self, seed: int, rough: float):
        self.rng, self.rough = np.random.default_rng(seed), rough

    def uniform(self, low: float, high: float) -> float:
        return float(self.rng.uniform(low, high))

    def level(self, low: float, high: float) -> float:
        """Uniform in the logarithm."""
        return float(np.exp(self.rng.uniform(np.log(low), np.log(high))))

    def scatter(self, n: int, most: float) -> np.ndarray:
        """A factor e^x, x autoregressive: correlated over up to n/20 steps, of random size."""
        from scipy.signal import lfilter

        kept = np.exp(-1 / self.uniform(0.2, n / 20))
        # The first steps of an autoregression are not yet those of all others.
        white = self.rng.standard_normal(2 * n) * np.sqrt(1 - kept**2)
        size = self.uniform(0, most * self.rough)
        return np.exp(size * np.asarray(lfilter([1], [1, -kept], white))[n:])


def _converged(draw: Draw, n: int) -> Signal:
    steps = np.arange(n)
    if draw.uniform(0, 1) < 0.5:
        fall = np.exp(-draw.level(3, 300) * steps / n)
    else:
        fall = (1 + steps / draw.level(n / 10, n)) ** -draw.uniform(1, 3)
    losses = draw.level(1e-16, 1e-6) * fall * draw.scatter(n, 0.3)
    return losses, draw.level(1e-12, 3e-4) * np.sqrt(fall) * draw.scatter(n, 0.3), 1.0


def _under_way(draw: Draw, n: int) -> Signal:
    fall = np.exp(-np.log(draw.level(2.5, 1e4)) * np.arange(n) / n)
    losses = draw.level(1e-6, 1e-1) * fall * draw.scatter(n, 0.1)
    return losses, draw.level(1e-2, 1) * draw.scatter(n, 0.1), 1.0


def _oscillating(draw: Draw, n: int) -> np.ndarray:
    """A periodic loss: a sine about a level, or the square of one, which passes through 0."""
    phase = 2 * np.pi * (np.arange(n) / draw.level(2, n / 16) + draw.uniform(0, 1))
    if draw.uniform(0, 1) < 0.5:
        return 1 + draw.uniform(0, 0.9) * np.sin(phase)
    return np.sin(phase) ** 2 + 1e-6


def _limit_cycle(draw: Draw, n: int) -> Signal:
    losses = draw.level(1e-12, 1e-1) * _oscillating(draw, n) * draw.scatter(n, 0.5)
    return losses, draw.level(5e-3, 0.3) * draw.scatter(n, 0.2), 1.0


def _sign_like(draw: Draw, n: int) -> Signal:
    losses = draw.level(1e-8, 1e-1) * _oscillating(draw, n) * draw.scatter(n, 0.3)
    return losses, draw.uniform(0.7, 1.5) * draw.scatter(n, 0.1), 1.0


def _spikes(draw: Draw, n: int) -> Signal:
    """One to six bursts, that rise and fall exponentially, on a quiet floor."""
    steps, burst = np.arange(n), np.zeros(n)
    for _ in range(draw.rng.integers(1, 7)):
        past = steps - draw.uniform(0.1, 0.95) * n
        length = np.where(past < 0, draw.uniform(5, n / 60), draw.uniform(5, n / 60))
        burst = np.maximum(burst, np.log(draw.level(1e3, 1e8)) * (1 - np.abs(past) / length))
    floor = draw.scatter(n, 0.4)
    losses = draw.level(1e-16, 1e-9) * floor * np.exp(burst)
    return losses, draw.level(5e-3, 5e-2) * np.sqrt(floor) * np.exp(burst / 4), 1.0


def _slow_growth(draw: Draw, n: int) -> Signal:
    rise = np.exp(np.log(draw.level(2.5, 1e4)) * np.arange(n) / n)
    losses = draw.level(1e-12, 1e-6) * rise * draw.scatter(n, 0.1)
    return losses, draw.level(5e-3, 5e-2) * np.sqrt(rise) * draw.scatter(n, 0.1), 1.0


def _divergence(draw: Draw, n: int) -> Signal:
    losses = draw.level(2, 1e6) * _oscillating(draw, n) * draw.scatter(n, 0.3)
    moves = draw.level(1e-2, 10) * draw.scatter(n, 0.3)
    if draw.uniform(0, 1) < 0.5:
        return losses, moves, 0.1
    losses[draw.rng.integers(n) :] = draw.rng.choice([np.nan, np.inf])
    return losses, moves, 1e9


SIGNALS: dict[REGIME, Callable[[Draw, int], Signal]] = {
    REGIME.converged: _converged,
    REGIME.under_way: _under_way,
    REGIME.limit_cycle: _limit_cycle,
    REGIME.sign_like: _sign_like,
    REGIME.spikes: _spikes,
    REGIME.slow_growth: _slow_growth,
    REGIME.divergence: _divergence,
}


def confusion(count: int, length: int, rough: float, seed: int) -> Int[np.ndarray, "true called"]:
    """How many of `count` signals of each regime are called what."""
    drawn = Draw(seed, rough)
    table = np.zeros((len(REGIME), len(REGIME)), int)
    for kind, signal in SIGNALS.items():
        losses, moves, starts = zip(*(signal(drawn, length) for _ in range(count)), strict=True)
        called = regime(np.array(losses), np.array(moves), np.array(starts))
        table[kind] = np.bincount(called, minlength=len(REGIME))
    return table


def false_alarms(table: Int[np.ndarray, "true called"]) -> Float[np.ndarray, " called"]:
    """By regime the part of the signals of all others that are called it."""
    others = table.sum() - table.sum(axis=1)
    return (table.sum(axis=0) - np.diag(table)) / others


def misses(table: Int[np.ndarray, "true called"]) -> Float[np.ndarray, " true"]:
    """By regime the part of its own signals that are called something else."""
    return 1 - np.diag(table) / table.sum(axis=1)
