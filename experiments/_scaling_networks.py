"""What `noise` measures on networks: training losses at several batch sizes, of rules that scale
Adam's hyperparameters, on the same samples in the same order; and the noise-to-signal ratio."""

from collections.abc import Callable
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, ArrayLike, Float, PyTree

import ct_adam as ct
from ct_adam.problems.batches import count_examples
from ct_adam.theory import scaling

from ._kept import Arrays, all_remembered
from ._scaling import ANCHOR

NETWORKS = ("digits MLP", "transformer")
B1, B2, EPS = 0.9, 0.999, 1e-8
"""At the anchor; Adam's defaults."""
Loss = Callable[[PyTree, PyTree], Array]
"""`(params, batch) -> mean loss`."""


class Training(NamedTuple):
    """What all runs share."""

    examples: int
    """that there are; the loss is the mean over all of them"""
    learning_rate: float
    """at the anchor"""
    looks: int
    batches: int
    """of the anchor's size, between two looks"""
    seeds: int


class Rule(NamedTuple):
    """A rule and what of it is scaled."""

    rule: scaling.Rule
    scale: tuple[str, ...] = scaling.SCALED


class Model(NamedTuple):
    loss: Loss
    data: PyTree


@lru_cache(maxsize=64)
def made(network: str, examples: int, seed: int) -> tuple[Model, PyTree]:
    """In float32, as networks are trained."""
    if network == "digits MLP":
        problem, params = ct.problems.digits_mlp(images=examples, seed=seed)
        base: Any = problem.loss
        model = Model(partial(_digits_loss, base), (base.inputs, base.labels))
    else:
        problem, params = ct.problems.text_network(
            "python_topics", context=16, batch=1, held_out=1, seed=seed, dtype=jnp.float32
        )
        # As many windows as wanted, from the beginning of the text to its end.
        every = count_examples(problem.data) // examples
        model = Model(problem.loss, jax.tree.map(lambda x: x[::every][:examples], problem.data))

    def single(tree: PyTree) -> PyTree:
        return jax.tree.map(
            lambda x: np.asarray(x, np.float32) if eqx.is_inexact_array(x) else np.asarray(x), tree
        )

    return Model(model.loss, single(model.data)), single(params)


def _digits_loss(base: Any, params: PyTree, batch: PyTree) -> Array:
    return type(base)(*batch, base.activation, base.criterion)(params)


class Lane(NamedTuple):
    learning_rate: ArrayLike
    b1: ArrayLike
    b2: ArrayLike
    eps: ArrayLike


def trained(network: str, rules: tuple[Rule, ...], batch: int, training: Training) -> Arrays:
    """`loss` (rule, seed, look), the mean over all examples, the start being the first look; at the
    anchor, where all rules are one, of that one, and `noise` (seed, look), √(tr Σ/B)/‖∇f‖."""
    starts = [made(network, training.examples, seed)[1] for seed in range(training.seeds)]
    model, _ = made(network, training.examples, 0)
    params = jax.tree.map(lambda *leaves: np.stack(leaves), *starts)
    losses = []
    for rule in rules[:1] if batch == ANCHOR else rules:  # one program
        new = scaling.scaled_hyperparameters(
            batch / ANCHOR, training.learning_rate, B1, B2, EPS, rule=rule.rule, scale=rule.scale
        )
        lane = Lane(*map(np.float32, new[:4]))
        path = _path(*model, params, lane, np.arange(training.seeds), batch, training)
        losses.append(np.asarray(_whole(*model, path)))
    found = {"loss": np.stack(losses)}
    if batch == ANCHOR:
        found["noise"] = np.asarray(_noise_to_signal(*model, path))
    return found


@eqx.filter_jit
def _path(
    loss: Loss, data: PyTree, params: PyTree, lane: Lane, seeds: ArrayLike, batch: int,
    training: Training,
) -> PyTree:  # fmt: skip
    """Parameters (seed, look, …)."""
    optimizer = ct.adamw(*lane)

    def one(start: PyTree, seed: ArrayLike) -> PyTree:
        def step(carry: Any, chosen: Array) -> tuple[Any, None]:
            params, state = carry
            gradient = jax.grad(loss)(params, jax.tree.map(lambda x: x[chosen], data))
            delta, state = optimizer.update(gradient, state, params)
            return (optax.apply_updates(params, delta), state), None

        def to_look(carry: Any, look: Array) -> tuple[Any, PyTree]:
            # The key is the look's, not the batch's: samples are those of any batch size.
            key = jax.random.fold_in(jax.random.key(seed), look)
            many = training.batches * ANCHOR // batch, batch
            chosen = jax.random.randint(key, many, 0, training.examples)
            carry, _ = jax.lax.scan(step, carry, chosen)
            return carry, carry[0]

        carry = start, optimizer.init(start)
        _, path = jax.lax.scan(to_look, carry, jnp.arange(training.looks))
        return jax.tree.map(lambda x, y: jnp.concatenate([x[None], y]), start, path)

    return jax.vmap(one)(params, seeds)


@eqx.filter_jit
def _whole(loss: Loss, data: PyTree, path: PyTree) -> Float[Array, "seed look"]:
    # One look after the other: activations of all at once would be gigabytes.
    return jax.lax.map(lambda saves: jax.lax.map(lambda p: loss(p, data), saves), path)


@eqx.filter_jit
def _noise_to_signal(loss: Loss, data: PyTree, path: PyTree) -> Float[Array, "seed look"]:
    """Batches draw with replacement from all examples: tr Σ is the mean squared distance of an
    example's gradient from their mean, without a correction."""

    def one(params: PyTree) -> Array:
        def sample(i: Array) -> tuple[PyTree, Array]:
            gradient = jax.grad(loss)(params, jax.tree.map(lambda x: x[i][None], data))
            return gradient, _squared(gradient)

        each = jax.lax.map(sample, jnp.arange(count_examples(data)), batch_size=64)
        mean, squares = jax.tree.map(lambda x: jnp.mean(x, 0), each)
        signal = _squared(mean)
        return jnp.sqrt((squares - signal) / ANCHOR / signal)

    return jax.lax.map(lambda saves: jax.lax.map(one, saves), path)


def _squared(tree: PyTree) -> Array:
    return jnp.sum(jnp.stack([jnp.sum(leaf**2) for leaf in jax.tree.leaves(tree)]))


def results(
    network: str, rules: tuple[Rule, ...], batches: tuple[int, ...], training: Training,
    told: Callable[[], None], path: Path,
) -> Arrays:  # fmt: skip
    """`loss` (rule, batch, seed, look) and `noise` (seed, look), kept in files that begin with
    `path`; a thread a core. The last batch size is the anchor."""
    work = [
        (path.with_name(f"{path.name}-{batch}.npz"),
         partial(trained, network, rules, batch, training))
        for batch in batches
    ]  # fmt: skip
    kept = all_remembered(work, lambda *_: told())
    whole = [np.broadcast_to(one["loss"], (len(rules), *one["loss"].shape[1:])) for one in kept]
    return {"loss": np.stack(whole, 1), "noise": kept[-1]["noise"]}
