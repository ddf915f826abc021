"""Clocks, and the machine that they ran on."""

import math
import platform
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ct_adam.ensemble.cores import cpus

SLOT = 0.1
"""Seconds that a contender gets in a round, at least: calls of a few ms are repeated and averaged,
for a single one of them would measure the caches that its predecessor left."""
PATIENCE = 20.0
"""Seconds that a contender gets in all rounds together; it runs three rounds whatever it takes."""
FEWEST_ROUNDS = 3


def seconds(run: Callable[[], Any], repeats: int = 1) -> float:
    """Mean time of a call. What is run returns NumPy arrays, so that nothing is still under way."""
    start = time.perf_counter()
    for _ in range(repeats):
        run()
    return (time.perf_counter() - start) / repeats


def compile_seconds(first: Callable[[], Any], again: Callable[[], Any]) -> float:
    """The first call's time beyond the median of three more, or of one where it takes seconds; NaN
    where that is lost in noise."""
    begun, later = seconds(first), [seconds(again)]
    if later[0] < 1:
        later += [seconds(again) for _ in range(2)]
    beyond = begun - float(np.median(later))
    return beyond if beyond > max(later) - min(later) else math.nan


def interleave(runs: Sequence[Callable[[], Any]], rounds: int) -> list[list[float]]:
    """Times everybody in every round, so that a disturbance hits neighbours, not one contender.

    Who is slow ends after fewer rounds. **Returns** seconds of a call, for each run and round.
    """
    once = [seconds(run) for run in runs]
    repeats = [min(20, math.ceil(SLOT / time)) for time in once]
    lasts = [min(rounds, max(FEWEST_ROUNDS, int(PATIENCE / time))) for time in once]
    times: list[list[float]] = [[] for _ in runs]
    for n in range(rounds):
        for run, count, last, found in zip(runs, repeats, lasts, times, strict=True):
            if n < last:
                found.append(seconds(run, count))
    return times


def hardware() -> dict[str, str | int]:
    """What the times depend on, without the machine's name."""
    import jax

    found: dict[str, str | int] = {"CPU": cpu_model(), "cores": cpus()}
    if jax.default_backend() == "gpu":
        found["GPU"] = jax.devices()[0].device_kind
    return found | {"Python": platform.python_version(), "JAX": jax.__version__}


def cpu_model() -> str:
    """The processor's name as the system gives it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.machine()
