"""The searches that `hyperparameters` compares, each within the same cost and from the same first
draws.

Whatever proposes a point, the discrete optimizer is run there, and its validation loss is the
number that counts.
"""

import time
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Float

from ._hyperparameters import HIGH, LOW, NAMES, RTOL, Task, draws, flow_slope, losses_at, run_slope

RATE, CLIP = 0.2, 1.0
"""Of descent: Adam's step in z, and the norm above which a hypergradient is cut off. Else one
exploding derivative would fill Adam's second moment for good. Tried on seeds 100 to 102, with no
clear difference between rates of 0.1, 0.2 and 0.4."""
B2 = 0.9
"""Adam's there; with 0.999 the first hypergradients would count as much as the last."""


class Search(NamedTuple):
    """What every search is given. Costs are in discrete runs, that is `steps` gradients."""

    task: Task
    steps: int
    budget: int
    first: Float[np.ndarray, "draw 4"]
    """the draws that all begin with"""
    forward: float
    """the cost of a gradient with four tangents, in gradients"""
    seed: int


Found = dict[str, np.ndarray]
"""Candidates in their order: `point`, `losses` (validation, test), the `cost` after each, and, NaN
where there is none, the hypergradient `slope` and the `flow`'s own validation loss."""


def random_search(search: Search) -> Found:
    points = draws(search.budget, search.seed)
    losses = np.asarray(losses_at(search.task, search.steps, jnp.asarray(points)))
    cost = np.arange(1.0, search.budget + 1)
    return _found(points, losses, cost)


def tpe_search(search: Search) -> Found:
    """optuna's tree-structured Parzen estimator, at its own settings."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)  # else a line a trial
    sampler = optuna.samplers.TPESampler(seed=search.seed)
    study = optuna.create_study(sampler=sampler)
    axes: dict[str, optuna.distributions.BaseDistribution] = {
        name: optuna.distributions.FloatDistribution(low, high)
        for name, low, high in zip(NAMES, LOW.tolist(), HIGH.tolist(), strict=True)
    }
    for point in search.first.tolist():
        study.enqueue_trial(dict(zip(NAMES, point, strict=True)))
    points, losses = [], []
    for _ in range(search.budget):
        trial = study.ask(axes)
        points.append([trial.params[name] for name in NAMES])
        losses.append(_losses(search, np.array(points[-1])))
        # ln as for the others, finite: a trial that failed would tell the sampler nothing.
        study.tell(trial, float(np.log(min(losses[-1][0], 1e3))))
    cost = np.arange(1.0, search.budget + 1)
    return _found(np.array(points), np.array(losses), cost)


def _losses(search: Search, point: np.ndarray) -> np.ndarray:
    return np.asarray(losses_at(search.task, search.steps, jnp.asarray(point)[None])[0])


def _found(points: np.ndarray, losses: np.ndarray, cost: np.ndarray) -> Found:
    # A run that diverged is the worst of all.
    losses = np.where(np.isfinite(losses), losses, np.inf)
    unknown = {"slope": np.full_like(points, np.nan), "flow": np.full(len(points), np.nan)}
    return {"point": points, "losses": losses, "cost": cost, **unknown}


class Probe(NamedTuple):
    """A hypergradient, the losses of the discrete run there, what both cost, and the flow's own
    loss."""

    slope: np.ndarray
    losses: np.ndarray
    cost: float
    flow: float = np.nan


def by_flow(search: Search, point: np.ndarray) -> Probe:
    slope, (value, spent) = flow_slope(
        search.task, search.steps, jnp.asarray(point), jnp.asarray(RTOL)
    )
    cost = 1 + search.forward * float(spent) / search.steps
    return Probe(np.asarray(slope), _losses(search, point), cost, float(np.exp(value)))


def by_run(search: Search, point: np.ndarray) -> Probe:
    slope, losses = run_slope(search.task, search.steps, jnp.asarray(point))
    return Probe(np.asarray(slope), np.asarray(losses), search.forward)


def descent(search: Search, probe: Callable[[Search, np.ndarray], Probe]) -> Found:
    """Gradient descent in z, from the best of the first draws.

    A hypergradient that is not finite counts as 0: Adam goes on as before.
    """
    drawn = random_search(search._replace(budget=len(search.first)))
    z = jnp.asarray(drawn["point"][np.argmin(drawn["losses"][:, 0])])
    outer = optax.chain(optax.clip_by_global_norm(CLIP), optax.adam(RATE, b2=B2))
    state = outer.init(z)
    points, seen, spent = [], [], float(drawn["cost"][-1])
    while (found := probe(search, np.asarray(z))).cost + spent <= search.budget:
        spent += found.cost
        points.append(np.asarray(z))
        seen.append(found)
        usable = jnp.asarray(found.slope if np.all(np.isfinite(found.slope)) else np.zeros(4))
        change, state = outer.update(usable, state)
        z = jnp.clip(z + jnp.asarray(change), LOW, HIGH)
    if not seen:
        return drawn
    path = {name: np.array([getattr(one, name) for one in seen]) for name in Probe._fields}
    path["cost"] = drawn["cost"][-1] + np.cumsum(path["cost"])
    path["losses"] = np.where(np.isfinite(path["losses"]), path["losses"], np.inf)
    path["point"] = np.array(points)
    return {name: np.concatenate([drawn[name], path[name]]) for name in drawn}


SEARCHES: dict[str, Callable[[Search], Found]] = {
    "flow": partial(descent, probe=by_flow),
    "unrolled": partial(descent, probe=by_run),
    "random": random_search,
    "TPE": tpe_search,
}


def at_hand() -> list[str]:
    """The searches that can be made: TPE wants optuna."""
    return [name for name in SEARCHES if name != "TPE" or find_spec("optuna")]


def timed(search: Search, name: str) -> Found:
    """With its `seconds`, compiled beforehand."""
    first = search.first[0]
    by_flow(search, first)
    by_run(search, first)
    losses_at(search.task, search.steps, jnp.asarray(draws(search.budget, search.seed)))
    begun = time.perf_counter()
    found = SEARCHES[name](search)
    return found | {"seconds": np.array(time.perf_counter() - begun)}


def best_within(
    cost: np.ndarray, losses: np.ndarray, budgets: np.ndarray
) -> Float[np.ndarray, "budget 2"]:
    """Validation and test loss of the candidate with the least validation loss of those that were
    had within each budget; NaN before the first."""
    found = np.full((len(budgets), 2), np.nan)
    for i, budget in enumerate(budgets):
        had = losses[cost <= budget]  # NaN: padding
        if len(had):
            found[i] = had[np.argmin(had[:, 0])]
    return found
