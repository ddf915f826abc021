"""What `decoupled_decay` measures: test losses of many learning rates and decays at once."""

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, PyTree

import ct_adam as ct
from ct_adam.optimizers import restart_decay, restart_steps
from ct_adam.problems import Minibatches
from ct_adam.problems.data import images
from ct_adam.problems.digits import DigitsLoss

POINTS, FEATURES, BATCH = 200, 1000, 20
"""Of the ridge problem: training points, parameters, points a step."""


class Task(NamedTuple):
    """A problem by its seed: minibatches, a start, and a test loss of parameters."""

    name: str
    title: str
    make: Callable[[int], tuple[Minibatches, PyTree, Callable[[PyTree], Array]]]
    epoch: int
    """steps of one"""
    cosine: bool
    """learning rate and decay fall to 0; else they stay"""
    momentum: float
    """of SGD"""


class Distance(eqx.Module):
    """Test loss without noise of inputs ~ N(0, 1): ½‖θ − θ*‖²."""

    truth: Array

    def __call__(self, params: Array) -> Array:
        return jnp.sum(jnp.square(params - self.truth)) / 2


def _squares(params: Array, batch: tuple[Array, Array]) -> Array:
    inputs, labels = batch
    return jnp.mean(jnp.square(inputs @ params - labels)) / 2


def ridge_task(name: str, title: str, noise: float, start: float, cosine: bool) -> Task:
    """Linear regression with 5 unknowns a point (EQUATIONS §8), θ₀ ~ N(0, start²/d)."""

    def make(seed: int) -> tuple[Minibatches, Array, Distance]:
        rng = np.random.default_rng(seed)
        inputs = rng.standard_normal((POINTS, FEATURES))
        truth = rng.standard_normal(FEATURES) / np.sqrt(FEATURES)
        labels = inputs @ truth + noise * rng.standard_normal(POINTS)
        first = start * rng.standard_normal(FEATURES) / np.sqrt(FEATURES)
        data, params = _single((inputs, labels)), _single(first)
        return Minibatches(_squares, data, BATCH, seed), params, Distance(_single(truth))

    return Task(name, title, make, POINTS // BATCH, cosine, 0.0)


def _single(tree: PyTree) -> PyTree:
    return jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), tree)


def _digits(params: PyTree, batch: tuple[Array, Array]) -> Array:
    return DigitsLoss(*batch, jnp.tanh, "cross_entropy")(params)


class Held(eqx.Module):
    """The mean loss over data that are not trained on."""

    loss: Any
    data: PyTree

    def __call__(self, params: PyTree) -> Array:
        return self.loss(params, self.data)


def mlp_task(points: int, batch: int, hidden: int = 64) -> Task:
    """A fully connected network on so few of the digits that it learns them by heart."""

    def make(seed: int) -> tuple[Minibatches, PyTree, Held]:
        train, test = (_flat(*images("digits", split)) for split in ("train", "test"))
        data = _mislabelled(jax.tree.map(lambda x: x[:points], train), seed)
        _, params = ct.problems.digits_mlp((hidden,), seed=seed)
        return Minibatches(_digits, data, batch, seed), _single(params), Held(_digits, test)

    title = f"MLP 64-{hidden}-10, {points} digits"
    return Task("mlp", title, make, points // batch, True, 0.9)


MISLABELLED = 0.2
"""Of the training data of networks: what a decay helps not to learn by heart."""


def _mislabelled(data: tuple[Array, Array], seed: int) -> tuple[Array, Array]:
    inputs, labels = data
    rng = np.random.default_rng(seed)
    wrong = rng.random(len(labels)) < MISLABELLED
    moved = (np.asarray(labels) + rng.integers(1, 10, len(labels))) % 10
    return inputs, jnp.asarray(np.where(wrong, moved, labels).astype(np.int32))


def _flat(inputs: np.ndarray, labels: np.ndarray) -> tuple[Array, Array]:
    return jnp.asarray(inputs.reshape(len(inputs), -1)), jnp.asarray(labels)


def convnet_task(name: str, points: int, batch: int, held_out: int) -> Task:
    """A convolutional network on a few of the images."""

    def make(seed: int) -> tuple[Minibatches, PyTree, Held]:
        # MNIST's 10 000 of the test files are enough, a small download; digits has fewer there.
        split = "train" if name == "digits" else "test"
        problem, params = ct.problems.image_network(
            name, split, norm="group", batch=batch, held_out=held_out, seed=seed
        )
        data = _mislabelled(jax.tree.map(lambda x: x[:points], problem.data), seed)
        few = Minibatches(problem.loss, data, batch, seed)
        return few, _single(params), Held(problem.loss, problem.evaluation)

    title = f"small convolutional network, {points} images of {name}"
    return Task("convnet", title, make, points // batch, True, 0.9)


MEASURED = ("sgd", "sgdw", "adam_l2", "adamw")


def optimizer(
    method: str, rate: Array, amount: Array, course: Array, momentum: float
) -> optax.GradientTransformation:
    """By learning rate α and decay: λ' for `"adam_l2"`, λ_LH for the others (`"sgd"`: its ℓ2 is
    λ_LH/α). `course` is η/α by step."""

    def eta(step: Any) -> Any:
        return rate * course[step]

    if method == "sgd":
        return optax.chain(
            optax.add_decayed_weights(amount / rate),  # pyright: ignore[reportArgumentType]
            optax.trace(momentum),
            optax.scale_by_learning_rate(eta),
        )
    if method == "sgdw":
        return ct.sgdw(eta, momentum, amount / rate)
    if method == "adam_l2":
        return ct.adam_l2(eta, weight_decay=amount)
    return ct.adamw(eta, weight_decay=amount / rate)


def course(steps: int, cosine: bool) -> Float[np.ndarray, " step"]:
    """η/α by step."""
    n = np.arange(steps)
    return (0.5 + np.cos(np.pi * n / steps) / 2 if cosine else np.ones(steps)).astype(np.float32)


def test_losses(
    task: Task, method: str, rates: np.ndarray, decays: np.ndarray, seeds: int, epochs: int
) -> Float[np.ndarray, "seed rate decay"]:
    """At the end of the run, of every pair; infinite where it diverged."""
    rate, decay = (x.ravel() for x in np.meshgrid(rates, decays, indexing="ij"))
    lanes = [jnp.asarray(x, jnp.float32) for x in (rate, decay)]
    eta = jnp.asarray(course(epochs * task.epoch, task.cosine))
    found = []
    for seed in range(seeds):
        problem, params, test = task.make(seed)
        found.append(_trained(method, task.momentum, problem, params, test, eta, *lanes))
    losses = np.array(found, dtype=float).reshape(seeds, len(rates), len(decays))
    return np.where(np.isfinite(losses), losses, np.inf)


test_losses.__test__ = False  # pyright: ignore[reportFunctionMemberAccess] - pytest looks at names


@eqx.filter_jit
def _trained(
    method: str,
    momentum: float,
    problem: Minibatches,
    params: PyTree,
    test: Callable[[PyTree], Array],
    eta: Array,
    rates: Array,
    decays: Array,
) -> Array:
    def lane(rate: Array, decay: Array) -> Array:
        made = optimizer(method, rate, decay, eta, momentum)
        return _tested(made, problem, params, test, np.array([len(eta)]))[0]

    return jax.vmap(lane)(rates, decays)


def _tested(
    made: optax.GradientTransformation,
    problem: Minibatches,
    params: PyTree,
    test: Callable[[PyTree], Array],
    saves: np.ndarray,
) -> Array:
    def save(step: Any, params: PyTree, update: PyTree, loss: Any) -> Array:
        del step, update, loss
        return test(params)

    run = ct.run(made, problem, params, int(saves[-1]), save_steps=saves, save=save)
    return jnp.asarray(run.saved)


def anytime(
    task: Task, rate: float, decay: float, first: int, cycles: int, seeds: int
) -> dict[str, Any]:
    """Test losses (run, seed, step) of AdamWR, AdamW with a constant rate, and with a cosine to 0
    for the budget that each cycle ends.

    `decay` is normalised by each cycle's or run's steps; `first` is the first cycle's length. A
    cosine that is over stays where it is.
    """
    ends = restart_steps(first, cycles=cycles)
    last = ends[-1]
    courses: dict[str, tuple[Any, Any]] = {
        "restarts": (
            ct.warm_restarts(rate, first, cycles=cycles),
            restart_decay(decay, first, cycles=cycles),
        ),
        "constant": (optax.constant_schedule(rate), optax.constant_schedule(decay / last**0.5)),
    }
    for end in ends:
        share = optax.constant_schedule(decay / end**0.5)
        courses[str(end)] = (optax.cosine_decay_schedule(rate, end), share)
    # One program for all: each as its values by step.
    n = jnp.arange(last)
    etas, shares = _by_step(list(courses.values()), n)
    saves = np.unique([*range(0, last + 1, max(1, first // 10)), *ends])
    found = [
        _courses(*task.make(seed), rate, etas, shares, tuple(saves.tolist()))
        for seed in range(seeds)
    ]
    loss = np.array(found, dtype=float).swapaxes(0, 1)
    return {"loss": loss, "run": np.array(list(courses)), "step": saves, "ends": np.array(ends)}


@eqx.filter_jit
def _by_step(courses: list[tuple[Any, Any]], n: Array) -> tuple[Array, Array]:
    etas, shares = (
        jnp.array([jnp.broadcast_to(jax.vmap(pair[i])(n), n.shape) for pair in courses])
        for i in (0, 1)
    )
    return _single(etas), _single(shares)


@eqx.filter_jit
def _courses(
    problem: Minibatches,
    params: PyTree,
    test: Callable[[PyTree], Array],
    rate: float,
    etas: Array,
    shares: Array,
    saves: tuple[int, ...],
) -> Array:
    def one(eta: Array, share: Array) -> Array:
        made = ct.decoupled(
            optax.scale_by_adam(), lambda n: eta[n], lambda n: share[n],
            convention="loshchilov_hutter", base_rate=rate,
        )  # fmt: skip
        return _tested(made, problem, params, test, np.array(saves))

    return jax.vmap(one)(etas, shares)
