"""The runs that `k_adam` makes of one network, and their scores side by side."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from jaxtyping import Float

from ._k_adam import Cell, Run, Training, pieces_of
from ._kept import Arrays

if TYPE_CHECKING:
    import xarray

Results = Mapping[Run, Arrays]
SCORES = {"loss": "nats", "accuracy": "1"}
"""As `_k_adam.trained` has them, with their units."""
QUANTILES = ("least", "median", "largest")


class Plan(NamedTuple):
    """What is run of one network: every cell at every rate on the tuning seeds; then, at the rate
    that these chose, on others."""

    cells: list[Cell]
    ks: list[int]
    learning_rates: tuple[float, ...]
    tuning_seeds: int
    seeds: int
    seeds_two: int
    """of k = 1 and 2"""

    @property
    def fresh(self) -> range:
        """All seeds that are reported: none that chose the rate."""
        return range(self.tuning_seeds, self.tuning_seeds + self.seeds_two)

    def fresh_of(self, cell: Cell) -> range:
        return self.fresh if cell.k in (1, 2) else self.fresh[: self.seeds]

    def tuning_runs(self) -> list[Run]:
        return [
            Run(cell, rate, seed)
            for cell in self.cells
            for rate in self.learning_rates
            for seed in range(self.tuning_seeds)
        ]

    def fresh_runs(self, rates: Mapping[Cell, float]) -> list[Run]:
        return [Run(cell, rates[cell], seed) for cell in self.cells for seed in self.fresh_of(cell)]

    def pieces(self, lanes: int) -> list[list[Run]]:
        """Of both parts; which rates will be chosen is not known."""
        unknown = dict.fromkeys(self.cells, 0.0)
        parts = self.tuning_runs(), self.fresh_runs(unknown)
        return [piece for runs in parts for piece in pieces_of(runs, lanes)]

    def chosen_rates(self, tuned: Results) -> dict[Cell, float]:
        """Of the least mean validation loss at the end, NaN being the largest."""
        means = _tuning_scores(self, tuned, 0).mean(axis=-1)
        best = np.argmin(np.nan_to_num(means, nan=np.inf), axis=-1)
        return {cell: self.learning_rates[i] for cell, i in zip(self.cells, best, strict=True)}


def _tuning_scores(plan: Plan, tuned: Results, score: int) -> Float[np.ndarray, "cell rate seed"]:
    def last(*run: Any) -> Any:
        return tuned[Run(*run)]["validation"][-1, score]

    rates, seeds = plan.learning_rates, range(plan.tuning_seeds)
    return np.array([[[last(c, r, s) for s in seeds] for r in rates] for c in plan.cells])


def _fresh_scores(
    plan: Plan, rates: Mapping[Cell, float], found: Results, part: str, score: int
) -> Float[np.ndarray, "cell seed ..."]:
    """NaN where a cell has fewer seeds."""
    some = next(iter(found.values()))[part][..., score]
    values = np.full((len(plan.cells), plan.seeds_two, *np.shape(some)), np.nan)
    for row, cell in enumerate(plan.cells):
        for seed in plan.fresh_of(cell):
            one = found[Run(cell, rates[cell], seed)]
            values[row, seed - plan.tuning_seeds] = one[part][..., score]
    return values


def labelled(
    title: str,
    plan: Plan,
    training: Training,
    tuned: Results,
    rates: Mapping[Cell, float],
    found: Results,
    seconds: Arrays,
) -> "xarray.Dataset":
    """Over (cell, learning_rate, tuning_seed), (cell, seed, step) and (k)."""
    import xarray

    variables = _times(seconds)
    for i, (score, unit) in enumerate(SCORES.items()):
        about = {"long_name": f"validation {score} at the end", "units": unit}
        tuning = _tuning_scores(plan, tuned, i)
        variables[f"tuning_{score}"] = (("cell", "learning_rate", "tuning_seed"), tuning, about)
        for part in ("train", "validation", "test"):
            dims = ("cell", "seed") if part == "test" else ("cell", "seed", "step")
            about = {"long_name": f"{part} {score}", "units": unit}
            variables[f"{part}_{score}"] = (dims, _fresh_scores(plan, rates, found, part, i), about)
    steps = np.arange(0, training.steps + 1, training.every)
    return xarray.Dataset(
        variables,
        coords={
            "cell": [cell.name for cell in plan.cells],
            "method": ("cell", [cell.method for cell in plan.cells]),
            "stages": ("cell", [cell.k for cell in plan.cells]),
            "strategy": ("cell", [cell.strategy for cell in plan.cells]),
            "coupling": ("cell", [cell.coupling for cell in plan.cells]),
            "seeds": ("cell", [len(plan.fresh_of(cell)) for cell in plan.cells]),
            "rate": (
                "cell", [rates[cell] for cell in plan.cells], {"long_name": "tuned learning rate"}
            ),
            "learning_rate": list(plan.learning_rates),
            "tuning_seed": np.arange(plan.tuning_seeds),
            "seed": np.array(plan.fresh),
            "step": ("step", steps, {"long_name": "steps", "units": "steps"}),
            "k": plan.ks,
            "quantile": list(QUANTILES),
        },
        attrs={"network": title},
    )  # fmt: skip


def _times(seconds: Arrays) -> dict[str, Any]:
    return {
        "seconds": (
            ("quantile", "k"), np.stack([seconds[q] for q in QUANTILES]),
            {"long_name": "time of a step", "units": "s"},
        ),
        "ratio": (
            ("quartile", "k"), seconds["ratio"],
            {"long_name": "time of a step over that of k = 1", "units": "1"},
        ),
    }  # fmt: skip
