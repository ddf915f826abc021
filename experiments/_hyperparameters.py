"""What `hyperparameters` searches: validation losses by (η, b1, b2, λ), of AdamW and of its flow,
and hypergradients of both.

A point is z = ln(η, 1 − b1, 1 − b2, λ), kept in a box by projection.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
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
