"""What the test scores of `k_adam` say of its claims, one network at a time."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from ._crossing import interval
from ._k_adam import COUPLINGS, Cell
from ._statistics import of_every, of_some, paired, tally

MOST = 10
"""The largest k of the paper's claims."""
PAPER = ("inverse_exp", "exp", "scaled", "naive")
BEST = Cell("k_adam", 2, "inverse_exp", "decoupled")


class Found:
    """Test scores of one network's cells, by seed."""

    def __init__(self, node: Any):
        self.node = node.to_dataset()
        names = ("method", "stages", "strategy", "coupling")
        columns = (self.node[name].values.tolist() for name in names)
        self.cells = [Cell(*row) for row in zip(*columns, strict=True)]

    def of(self, cell: Cell, score: str = "accuracy") -> np.ndarray:
        row = self.node.sel(cell=cell.name)
        return row[f"test_{score}"].values[: int(row.seeds)]

    def minus(
        self, one: Cell, other: Cell, score: str = "accuracy", comparisons: int = 1
    ) -> dict[str, Any]:
        """`paired` over the seeds that both have: is `one` better?

        Undecided where the worse one's rate is the first or last that was tried.
        """
        a, b = self.of(one, score), self.of(other, score)
        count, above = min(len(a), len(b)), score == "accuracy"
        row = paired(a[:count] - b[:count], comparisons, above)
        worse = {"holds": other, "does not hold": one}.get(row["verdict"])
        if worse is not None and self.at_an_end(worse):
            row |= {"verdict": "undecided", "why": f"the last rate tried is {worse.name}'s best"}
        return row

    def at_an_end(self, cell: Cell) -> bool:
        """Whether a rate beyond those that were tried might suit the cell better."""
        rates, rate = self.node.learning_rate.values, float(self.node.rate.sel(cell=cell.name))
        return rate in (rates.min(), rates.max())

    @property
    def shared(self) -> int:
        """Seeds that all cells have, the first ones."""
        return int(self.node.seeds.min())

    def has(self, ks: range) -> bool:
        """Whether all of them were run."""
        return set(ks) <= set(self.node.k.values.tolist())

    def several(self, k: int = 2) -> list[Cell]:
        """Of k stages and more."""
        return [cell for cell in self.cells if cell.k >= k]

    def likeliest(self, among: list[Cell]) -> Cell:
        """The best one, as far as the tuning seeds and the validation images tell."""
        # NaN is a rate's where one seed diverged, a cell's where all rates did.
        losses = self.node.tuning_loss.mean("tuning_seed", skipna=False).min("learning_rate")
        return min(among, key=lambda cell: np.nan_to_num(losses.sel(cell=cell.name), nan=np.inf))


def one_stage(coupling: str) -> Cell:
    return Cell("k_adam", 1, "", coupling)


def network_numbers(found: Found) -> dict[str, Any]:
    """Claims by their names, with a `verdict` a row; then what is found beside them."""
    two = [cell for cell in found.several() if cell.k == 2]
    return {
        "does k = 2 help": _sentence(found, two),
        "two": {_short(cell): _change(found, cell, len(two)) for cell in two},
        "two, test loss": {_short(cell): _change(found, cell, len(two), "loss") for cell in two},
        "some": _some(found),
        "naive": _naive(found),
        "best": _best(found),
        "best of k > 1 against optax": _against_optax(found),
        "one method twice": _twice(found),
        "cells": {cell.name: _summary(found, cell) for cell in found.cells},
        "milliseconds a step": {
            f"k={k}": float(seconds * 1e3)
            for k, seconds in zip(
                found.node.k.values, found.node.seconds.sel(quantile="median").values, strict=True
            )
        },
        "time of a step over that of k = 1": {
            f"k={k}": float(ratio)
            for k, ratio in zip(found.node.k.values, found.node.ratio.values[1], strict=True)
        },
    }


def _short(cell: Cell) -> str:
    return f"{cell.strategy} {cell.coupling}"


def _change(found: Found, cell: Cell, comparisons: int, score: str = "accuracy") -> dict[str, Any]:
    """Against one stage of the same coupling; so many intervals hold at once."""
    return found.minus(cell, one_stage(cell.coupling), score, comparisons)


def _sentence(found: Found, two: list[Cell]) -> dict[str, Any]:
    """Of all strategies and couplings, whose intervals hold at once with 95 %; `verdict` is of one
    of them helping."""
    rows = {
        score: [_change(found, cell, len(two), score) for cell in two]
        for score in ("accuracy", "loss")
    }
    words = {}
    for score, changes in rows.items():
        n = tally([row["verdict"] for row in changes])
        words[f"test {score}"] = (
            f"better in {n['holds']} of {len(two)}, worse in {n['does not hold']}, undecided in "
            f"{n['undecided']}"
        )
    best = max(zip(rows["accuracy"], two, strict=True), key=lambda row: row[0]["found"])
    words["largest gain in test accuracy"] = f"{_short(best[1])} {_words(best[0])}"
    return {**words, "some, verdict": of_some(rows["accuracy"])}


def _some(found: Found) -> dict[str, dict[str, Any]]:
    claimed = set(PAPER) - {"naive"}
    several = [cell for cell in found.several() if cell.strategy in claimed]
    rows: dict[str, dict[str, Any]] = {}
    for name in dict.fromkeys(map(_short, several)):
        group = [cell for cell in several if _short(cell) == name]
        changes = {cell.k: _change(found, cell, len(group)) for cell in group}
        rows[name] = {
            "verdict": of_some(list(changes.values()), found.has(range(2, MOST + 1))),
            "best k > 1": max(group, key=lambda cell: found.of(cell).mean()).k,
            "best k > 1 by validation": found.likeliest(group).k,
            **{f"k={k}": _words(row) for k, row in changes.items()},
        }
    return rows


def _naive(found: Found) -> dict[str, dict[str, Any]]:
    rows: dict[str, dict[str, Any]] = {}
    for coupling in COUPLINGS:
        group = [c for c in found.several(3) if (c.strategy, c.coupling) == ("naive", coupling)]
        if not group:
            continue
        # Of one stage less them: above 0 is what is claimed.
        one = one_stage(coupling)
        changes = {cell.k: found.minus(one, cell, comparisons=len(group)) for cell in group}
        rows[coupling] = {
            "verdict": of_every(list(changes.values()), found.has(range(3, MOST + 1))),
            **{f"k=1 minus k={k}": _words(row) for k, row in changes.items()},
        }
    return rows


def _best(found: Found) -> dict[str, dict[str, Any]]:
    if BEST not in found.cells:
        return {}
    others = [c for c in found.cells if c.method == "k_adam" and c != BEST]
    rows = {cell: found.minus(BEST, cell, comparisons=len(others)) for cell in others}
    closest = min(rows, key=lambda cell: rows[cell]["found"])
    return {
        BEST.name: {
            "verdict": of_every(list(rows.values()), found.has(range(1, MOST + 1))),
            "better than": sum(row["verdict"] == "holds" for row in rows.values()),
            "worse than": sum(row["verdict"] == "does not hold" for row in rows.values()),
            "of": len(others),
            f"minus {closest.name}": _words(rows[closest]),
        }
    }


def _against_optax(found: Found) -> dict[str, Any]:
    """Both chosen by the validation images, compared on the test images."""
    baselines = [cell for cell in found.cells if cell.method != "k_adam"]
    if not baselines:
        return {}
    ours, theirs = found.likeliest(found.several()), found.likeliest(baselines)
    row = found.minus(ours, theirs)
    return {"cell": ours.name, "optax": theirs.name, "test accuracy": _words(row)}


def _twice(found: Found) -> dict[str, Any]:
    """What rounding alone makes of a training: optax.adamw is one stage, decoupled."""
    adamw = Cell("adamw")
    if adamw not in found.cells:
        return {}
    return {"k=1 decoupled minus adamw": _words(found.minus(one_stage("decoupled"), adamw))}


def _words(row: Mapping[str, Any]) -> str:
    why = f", {row['why']}" if "why" in row else ""
    return (
        f"{row['found']:+.4f} [{row['low']:+.4f}, {row['high']:+.4f}] ({row['seeds']} seeds{why})"
    )


def _summary(found: Found, cell: Cell) -> dict[str, Any]:
    """Of the test images but where another word is said, over the seeds that all cells have."""
    row = found.node.sel(cell=cell.name).isel(seed=slice(found.shared))
    accuracy, loss = (interval(row[f"test_{score}"].values) for score in ("accuracy", "loss"))
    return {
        "learning rate": f"{float(row.rate):g}{', the last tried' * found.at_an_end(cell)}",
        "accuracy": accuracy.mean,
        "accuracy ±": accuracy.half_width,
        "loss": loss.mean,
        "loss ±": loss.half_width,
        "train accuracy": float(row.train_accuracy.isel(step=-1).mean()),
        "train loss": float(row.train_loss.isel(step=-1).mean()),
        "seeds": found.shared,
    }
