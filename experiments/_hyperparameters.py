"""What `hyperparameters` measures: four searches over (η, b1, b2, λ) of AdamW, each within the same
cost and from the same first draws.

A point is z = ln(η, 1 − b1, 1 − b2, λ), kept in a box by projection. Whatever proposes a point, the
discrete optimizer is run there, and its validation loss is the number that counts.
"""

import time
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from typing import Any, NamedTuple

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, PyTree

import ct_adam as ct
from ct_adam.problems.base import LossProblem
from ct_adam.problems.digits import DigitsLoss, digits_data

NAMES = ("learning rate", "b1", "b2", "weight decay")
LOW = np.log([1e-3, 1e-2, 1e-3, 1e-3])
HIGH = np.log([0.3, 0.5, 0.5, 3.0])
"""The box: η, 1 − b1, 1 − b2, λ."""
EPS = 1e-8
RTOL = 1e-3
"""Of the flow. At 1e-2 derivatives are now and then a hundred times too large."""
BUDGET = 4096
"""Solver steps of a flow: a few times what is needed in the box."""
RATE, CLIP = 0.2, 1.0
"""Of descent: Adam's step in z, and the norm above which a hypergradient is cut off. Else one
exploding derivative would fill Adam's second moment for good. Tried on seeds 100 to 102, with no
clear difference between rates of 0.1, 0.2 and 0.4."""
B2 = 0.9
"""Adam's there; with 0.999 the first hypergradients would count as much as the last."""

Point = Float[Array, " 4"]


class Task(NamedTuple):
    """A network, its start, and three disjoint sets of images."""

    train: LossProblem
    validation: LossProblem
    test: LossProblem
    params: PyTree


def digits_task(hidden: int, train: int, validation: int, seed: int) -> Task:
    """Weights and splits drawn by `seed`; the test set is what the other two leave."""
    _, params = ct.problems.digits_mlp((hidden,), 1, seed)
    inputs, labels = digits_data()
    order = np.random.default_rng([seed, 2]).permutation(len(labels))
    parts = np.split(order, [train, train + validation])

    def loss(part: np.ndarray) -> LossProblem:
        images, wanted = jnp.asarray(inputs[part]), jnp.asarray(labels[part])
        return LossProblem(DigitsLoss(images, wanted, jnp.tanh, "cross_entropy"))

    return Task(loss(parts[0]), loss(parts[1]), loss(parts[2]), params)


def draws(count: int, seed: int) -> np.ndarray:
    """Points of random search, log-uniform over the box; fewer are the first of more."""
    return np.random.default_rng([seed, 3]).uniform(LOW, HIGH, (count, 4))


def flow_at(z: Point) -> ct.AdamFlow:
    rate, first, second, decay = jnp.exp(z)
    return ct.AdamFlow(rate, 1 - first, 1 - second, EPS, decay)


def flow_loss(
    task: Task, steps: int, z: Point, rtol: Any, adjoint: Any = None
) -> tuple[Float[Array, ""], tuple[Array, Array]]:
    """ln of the validation loss at the flow's end (NaN where it does not get there); the same
    again, and its gradient evaluations."""
    solved = ct.solve(
        flow_at(z), task.train, task.params, steps, save_steps=[steps], adjoint=adjoint,
        rtol=rtol, atol=rtol, max_solver_steps=BUDGET, throw=False,
    )  # fmt: skip
    okay = jnp.where(solved.result == ct.OUTCOME.successful, 1, jnp.nan)
    value = okay * jnp.log(task.validation.value(_last(solved.params)))
    return value, (value, solved.stats["evaluations"])


def run_loss(task: Task, steps: int, z: Point) -> tuple[Array, Array]:
    """ln of the validation loss of the optimizer itself, and both losses."""
    ran = ct.run(flow_at(z), task.train, task.params, steps, save_steps=[steps])
    end = _last(ran.params)
    validation = task.validation.value(end)
    return jnp.log(validation), jnp.stack([validation, task.test.value(end)])


def _last(tree: PyTree) -> PyTree:
    return jax.tree.map(lambda leaf: leaf[-1], tree)


# Forward mode for both: four directions share one primal. In operations (`cost_factors`) reverse
# mode would take 4.2 gradients an evaluation of the flow at most, each step being taken up to three
# times, in place of 5.9; and 2.2 of the discrete run. On a network of this size it is no faster.
@eqx.filter_jit
def flow_slope(task: Task, steps: int, z: Point, rtol: Any) -> tuple[Point, tuple[Array, Array]]:
    """Hypergradient of the flow, what it is the slope of, and gradient evaluations.

    `rtol` is an array: as a number it would be part of the program.
    """
    curve = partial(flow_loss, task, steps, rtol=rtol, adjoint=diffrax.ForwardMode())
    return jax.jacfwd(curve, has_aux=True)(z)


@eqx.filter_jit
def run_slope(task: Task, steps: int, z: Point) -> tuple[Point, Array]:
    """Hypergradient of the discrete run, and its losses."""
    return jax.jacfwd(partial(run_loss, task, steps), has_aux=True)(z)


@eqx.filter_jit
def losses_at(task: Task, steps: int, points: Float[Array, "n 4"]) -> Float[Array, "n 2"]:
    """Validation and test loss of discrete runs."""
    return jax.lax.map(lambda z: run_loss(task, steps, z)[1], points, batch_size=16)


def cost_factors(task: Task) -> dict[str, float]:
    """Cost of a gradient with four tangents, and of its transpose, in gradients: floating-point
    operations of the compiled programs."""
    leaves, structure = jax.tree.flatten(task.params)
    tangents = [jnp.ones((4, *leaf.shape)) for leaf in leaves]

    def slope(leaves: list[Array]) -> list[Array]:
        return jax.tree.leaves(jax.grad(task.train.value)(jax.tree.unflatten(structure, leaves)))

    def forward(leaves: list[Array], tangents: list[Array]) -> Any:
        push = partial(jax.jvp, slope, (leaves,))
        return jax.vmap(lambda t: push((t,)), out_axes=(None, 0))(tangents)

    def transposed(leaves: list[Array]) -> Any:
        return jax.vjp(slope, leaves)[1](leaves)

    def operations(function: Callable[..., Any], *inputs: Any) -> float:
        told: Any = jax.jit(function).lower(*inputs).compile().cost_analysis()
        return told["flops"]

    one = operations(slope, leaves)
    return {
        "four tangents": operations(forward, leaves, tangents) / one,
        "transpose": operations(transposed, leaves) / one,
    }


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


def probes(task: Task, steps: int, points: np.ndarray) -> dict[str, np.ndarray]:
    """Hypergradients of flow and discrete run, and the flow's at a hundredth of the tolerance."""
    each = [jnp.asarray(point) for point in points]
    flows = [flow_slope(task, steps, z, jnp.asarray(RTOL)) for z in each]
    found = {
        "flow": [slope for slope, _ in flows],
        "evaluations": [spent for _, (_, spent) in flows],
        "fine": flow_slope(task, steps, each[0], jnp.asarray(RTOL / 100))[0],
        "discrete": [run_slope(task, steps, z)[0] for z in each],
    }
    return {name: np.asarray(values) for name, values in found.items()}
