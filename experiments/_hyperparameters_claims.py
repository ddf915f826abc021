"""What `hyperparameters` says of its searches, and of hypergradients, which may not be as due."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ._hyperparameters import NAMES
from ._statistics import paired

if TYPE_CHECKING:
    import xarray

NEAR, SOLVER = 0.1, 0.01
"""At the tame point the flow's hypergradient may differ by so much from the discrete run's, and at
the tolerance in use from that at a hundredth of it, both relative to its length. The flow weighs
its first gradient half a step more (EQUATIONS §1): 2.5 % of smoke's 20 steps."""
SHARES = (0.25, 1.0)
"""of the budget, at which searches are compared"""
EXPLODED = 100.0
"""A hypergradient of this length is of no use: 1 % of a number would change the loss e-fold."""


def of_search(node: "xarray.Dataset", best: "xarray.Dataset") -> dict[str, float]:
    """Medians over the seeds."""
    tried = np.isfinite(node.cost.values).sum(1)
    last = best.loss.isel(budget=-1)
    return {
        "candidates": float(np.median(tried)),
        "spent": float(np.median(np.nanmax(node.cost.values, 1))),
        "seconds": float(node.seconds.median()),
        "validation": float(last.sel(images="validation").median()),
        "test": float(last.sel(images="test").median()),
    }


def of_comparisons(dataset: "xarray.DataTree") -> dict[str, Any]:
    """Seed by seed the flow's search against every other one."""
    best = dataset["best"].to_dataset()
    logs = np.log(best.loss)
    budgets = best.budget.values[-1] * np.array(SHARES)
    differences = {
        f"{other}, {images}, {budget:g} runs": _apart(logs, other, images, budget)
        for other in best.search.values.tolist()
        if other != "flow"
        for images, some in (("validation", budgets), ("test", budgets[-1:]))
        for budget in some
    }
    differences["unrolled, validation, as many steps"] = _as_many_steps(dataset)
    count = len(differences)
    return {name: paired(each, count, above=False) for name, each in differences.items()}


def _apart(logs: "xarray.DataArray", other: str, images: str, budget: float) -> np.ndarray:
    at = logs.sel(images=images, budget=budget)
    return (at.sel(search="flow") - at.sel(search=other)).values


def _as_many_steps(dataset: "xarray.DataTree") -> np.ndarray:
    """Both descents after the number of candidates that the shorter one had: what is left when
    the price of a hypergradient is not looked at."""
    flow, unrolled = (dataset[n].loss.sel(images="validation").values for n in ("flow", "unrolled"))
    most = [
        min(np.isfinite(x).sum(), np.isfinite(y).sum()) for x, y in zip(flow, unrolled, strict=True)
    ]
    return np.array(
        [np.log(f[:n].min() / u[:n].min()) for f, u, n in zip(flow, unrolled, most, strict=True)]
    )


def of_model_gap(flow: "xarray.Dataset") -> dict[str, Any]:
    """Below 0 where descent has used what only the flow promises."""
    own, discrete = flow.flow.values, flow.loss.sel(images="validation").values
    each = [
        np.log(o / d)[np.nanargmin(o)] if np.isfinite(o).any() else np.nan
        for o, d in zip(own, discrete, strict=True)
    ]
    return paired(np.array(each), above=False)


def of_slopes(probes: "xarray.Dataset") -> dict[str, Any]:
    """How far apart both are at the tame point, and in the box where they are of use."""
    flow, discrete, fine = (probes[name].values for name in ("flow", "discrete", "fine"))
    box = [x[:, 1:].reshape(-1, len(NAMES)) for x in (flow, discrete)]
    lengths = [np.linalg.norm(x, axis=1) for x in box]
    exploded = [~(length < EXPLODED) for length in lengths]  # also where there is none
    calm = ~(exploded[0] | exploded[1])
    cosine = np.sum(box[0] * box[1], axis=1)[calm] / (lengths[0] * lengths[1])[calm]
    return {
        "tame: apart, most": _relative(flow[:, 0], discrete[:, 0]),
        "tame: solver, most": _relative(flow[:, 0], fine),
        "box: points": len(calm),
        "box: flow exploded": int(exploded[0].sum()),
        "box: discrete exploded": int(exploded[1].sum()),
        "box: largest, flow": float(lengths[0].max()),
        "box: largest, discrete": float(lengths[1].max()),
        "box: cosine where neither exploded, median": float(np.median(cosine)),
        "box: its lower quartile": float(np.quantile(cosine, 0.25)),
    }


def _relative(some: np.ndarray, others: np.ndarray) -> float:
    """Largest over the seeds, of the length."""
    return float((np.linalg.norm(some - others, axis=1) / np.linalg.norm(others, axis=1)).max())


def check_slopes(found: Mapping[str, Any]) -> list[str]:
    """Of `of_slopes`."""
    missing = []
    for name, most, words in (
        ("tame: apart, most", NEAR, "from the discrete run's"),
        ("tame: solver, most", SOLVER, "from that of a hundredth of the tolerance"),
    ):
        if not found[name] <= most:
            missing.append(f"The flow's hypergradient is {found[name]:.2g} {words}, not {most:g}.")
    return missing
