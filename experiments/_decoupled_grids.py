"""Learning rates and decays that `decoupled_decay` tries."""

from typing import NamedTuple

import numpy as np


class Grid(NamedTuple):
    """Learning rates and decays of the map of one method."""

    rates: np.ndarray
    decays: np.ndarray


GRIDS = {
    "ridge": {
        "sgd": ((3e-5, 1e-2), (1e-5, 1)),
        "sgdw": ((3e-5, 1e-2), (1e-5, 1)),
        "adam_l2": ((3e-4, 1e-1), (1e-6, 1e4)),
        "adamw": ((3e-4, 1e-1), (1e-5, 1)),
    },
    "mlp": {
        "sgd": ((1e-2, 0.5), (1e-5, 1e-1)),
        "sgdw": ((1e-2, 0.5), (1e-5, 1e-1)),
        "adam_l2": ((1e-3, 5e-2), (1e-4, 1)),
        "adamw": ((1e-3, 5e-2), (1e-4, 1e-1)),
    },
    "convnet": {
        "sgd": ((0.1, 0.7), (1e-4, 1e-1)),
        "sgdw": ((0.1, 0.7), (1e-4, 1e-1)),
        "adam_l2": ((1.2e-2, 8e-2), (1e-4, 1e-1)),
        "adamw": ((1.2e-2, 8e-2), (1e-4, 1e-1)),
    },
}
"""From, to: learning rates; then λ_LH (of `"adam_l2"` λ')."""
BUDGET_GRIDS = {"forget": (1e-3, (1e-4, 1)), "counter": (3e-3, (1e-4, 1)), "mlp": (3e-2, (1e-4, 1))}
"""AdamW's learning rate, λ_LH from, to."""


def grids(problem: str, rates: int, per_decade: int) -> dict[str, Grid]:
    """By method, of one of `GRIDS`: so many learning rates, and so many decays a decade."""
    return {
        method: Grid(np.geomspace(slowest, fastest, rates), _decays(low, high, per_decade))
        for method, ((slowest, fastest), (low, high)) in GRIDS[problem].items()
    }


def budget_grid(name: str, per_decade: int) -> Grid:
    rate, (low, high) = BUDGET_GRIDS[name]
    return Grid(np.array([rate]), _decays(low, high, per_decade))


def _decays(low: float, high: float, per_decade: int) -> np.ndarray:
    return np.geomspace(low, high, round(np.log10(high / low) * per_decade) + 1)
