"""What `scale_freeness` measures of networks: Adam-ℓ2, AdamW and AdamProx over learning rate,
decay and the loss's scale, and the sizes of their updates."""

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, ArrayLike, Float, PyTree

import ct_adam as ct
from ct_adam.optimizers import normalized, stage_states
from ct_adam.problems import Minibatches
from ct_adam.problems.models import apply, cross_entropy

from ._kept import Arrays, remembered_runs

METHODS = ("Adam-ℓ2", "AdamW", "AdamProx")
B1, B2, EPS = 0.9, 0.999, 1e-8
"""Adam's defaults, the paper's."""
LOWEST = -27
"""floor(log₂ 1e-8): |u| is clipped to [1e-8, 1], the bins are octaves."""
BINS = np.arange(LOWEST, 1)


class Net(NamedTuple):
    """A convolutional network: its images and size, its normalisation ("" is none), and residual
    blocks after each convolution of stride 2."""

    images: str
    size: str
    norm: str
    depth: int

    @property
    def name(self) -> str:
        normalised = f"{self.norm} norm" if self.norm else "no norm"
        return f"{self.images}, {normalised}, depth {self.depth}"


class Cell(NamedTuple):
    """An optimizer with its numbers, and that by which the loss is multiplied."""

    method: str
    scale: float
    rate: float
    decay: float


class Run(NamedTuple):
    """One training."""

    cell: Cell
    seed: int


class Training(NamedTuple):
    """What all runs of a network share."""

    batch: int
    train: int
    """images that are trained on"""
    validation: int
    """the first so many of those held out choose the cell"""
    test: int
    steps: int
    looks: int
    """how often in a run its updates are looked at"""
    lanes: int
    """trainings at once"""


class Lane(NamedTuple):
    """The numbers by which runs differ; an array each."""

    rate: ArrayLike
    l2: ArrayLike
    decoupled: ArrayLike
    prox: ArrayLike
    scale: ArrayLike
    seed: ArrayLike


def lane_of(run: Run) -> Lane:
    method, scale, rate, decay = run.cell
    l2, decoupled = (decay, 0.0) if method == "Adam-ℓ2" else (0.0, decay)
    floats = (rate, l2, decoupled, float(method == "AdamProx"), scale)
    return Lane._make([*(np.float32(x) for x in floats), np.int64(run.seed)])


def optimizer(lane: Lane, steps: int) -> optax.GradientTransformation:
    """All three methods as one program: decay into the gradient is a number, and AdamProx is AdamW
    with η/(1 + ηλ) for η. The learning rate falls to 0 as a cosine, as the paper's."""
    cosine = optax.cosine_decay_schedule(1.0, steps)

    def rate(step: Any) -> Array:
        eta = jnp.asarray(lane.rate * cosine(step))
        return eta / (1 + lane.prox * eta * lane.decoupled)

    adamw = ct.adamw(rate, B1, B2, EPS, lane.decoupled)
    return optax.chain(optax.add_decayed_weights(lane.l2), adamw)  # pyright: ignore[reportArgumentType]


def shares(updates: PyTree) -> Float[Array, " bin"]:
    """Which share of the coordinates has floor(log₂|u|) in each of `BINS`."""
    leaves = [jnp.ravel(leaf) for leaf in jax.tree.leaves(updates)]
    size = jnp.clip(jnp.abs(jnp.concatenate(leaves)), 1e-8, 1.0)
    # frexp, exact where log₂ rounds: size = mantissa · 2^exponent, mantissa in [½, 1)
    octave = jnp.frexp(size)[1] - 1
    return jnp.mean(octave[:, None] == BINS, axis=0)


def spread(share: Float[np.ndarray, "... bin"]) -> Float[np.ndarray, "..."]:
    """Standard deviation of floor(log₂|u|), in octaves; of equally many in all bins 8.08."""
    mean = share @ BINS
    return np.sqrt(np.maximum(share @ BINS**2 - mean**2, 0))


class Data(NamedTuple):
    """On what a network is scored; arrays (images, labels)."""

    validation: PyTree
    test: PyTree


@lru_cache(maxsize=8)
def problem_of(net: Net, training: Training) -> tuple[Minibatches, Data]:
    """Draws anew at each step from the first `train` images."""
    problem, _ = _made(net, training, 0)

    def part(data: PyTree, *of: int | None) -> PyTree:
        return jax.tree.map(lambda leaf: np.asarray(leaf)[slice(*of)], data)

    held_out = problem.evaluation
    data = Data(part(held_out, training.validation), part(held_out, training.validation, None))
    used = part(problem.data, training.train)
    few = part(held_out, 1)  # its own value is never asked for
    return Minibatches(problem.loss, used, training.batch, 0, "independent", few), data


@lru_cache(maxsize=256)
def _start(net: Net, training: Training, seed: int) -> PyTree:
    return jax.tree.map(np.asarray, _made(net, training, seed)[1])


def _made(net: Net, training: Training, seed: int) -> tuple[Minibatches, PyTree]:
    """In float32, as networks are trained. MNIST's test files are enough, and a small download."""
    return ct.problems.image_network(
        net.images, "test" if net.images == "mnist" else "train", net.norm or None,
        net.size, training.batch, training.validation + training.test, seed, jnp.float32,
        net.depth,
    )  # fmt: skip


def trained(net: Net, runs: list[Run], training: Training) -> Arrays:
    """Of every run `validation` and `test` (run, score), mean cross-entropy and error at the end,
    and `share` (run, look, bin). No more runs than `lanes`: the last one fills up."""
    full = runs + [runs[-1]] * (training.lanes - len(runs))
    problem, data = problem_of(net, training)
    params = jax.tree.map(
        lambda *one: np.stack(one), *(_start(net, training, run.seed) for run in full)
    )
    lanes = Lane(*map(np.stack, zip(*map(lane_of, full), strict=True)))
    end, share = _trained(problem, params, lanes, training.steps, training.looks)
    found = {
        "validation": scores(problem.loss, end, data.validation),
        "test": scores(problem.loss, end, data.test),
        "share": share,
    }
    return {name: np.asarray(values)[: len(runs)] for name, values in found.items()}


@eqx.filter_jit
def _trained(
    problem: Minibatches, params: PyTree, lanes: Lane, steps: int, looks: int
) -> tuple[PyTree, Array]:
    """Parameters at the end, and shares of u at `looks` steps, the last one among them."""

    def one(start: PyTree, lane: Lane) -> tuple[PyTree, Array]:
        own = eqx.tree_at(lambda p: p.seed, problem, lane.seed)
        rule = optimizer(lane, steps)

        def step(n: Any, carry: tuple[PyTree, PyTree]) -> tuple[PyTree, PyTree]:
            params, state = carry
            gradient = jax.tree.map(lambda g: lane.scale * g, own.gradient(n, params))
            delta, state = rule.update(gradient, state, params)
            return optax.apply_updates(params, delta), state

        def to_look(carry: tuple[PyTree, PyTree], begin: Any) -> tuple[Any, Array]:
            carry = jax.lax.fori_loop(begin, begin + steps // looks, step, carry)
            return carry, shares(updates(carry[1]))

        carry = start, rule.init(start)
        (end, _), share = jax.lax.scan(to_look, carry, jnp.arange(0, steps, steps // looks))
        return end, share

    return jax.vmap(one)(params, lanes)


def updates(state: PyTree) -> PyTree:
    """u of the last step (of Adam-ℓ2 with its decay inside), from the moments."""
    (stage,) = stage_states(state, 1)
    m_hat = optax.tree.bias_correction(stage.m, B1, stage.count)
    v_hat = optax.tree.bias_correction(stage.v, B2, stage.count)
    return jax.tree.map(lambda m, v: normalized(m, v, EPS), m_hat, v_hat)


@eqx.filter_jit
def scores(loss: Any, params: PyTree, data: PyTree) -> Array:
    """(lane, score): mean cross-entropy, share of wrong answers."""
    inputs, labels = data

    def one(params: PyTree) -> Array:
        logits = apply(loss.rebuild(params), inputs)
        wrong = jnp.mean(jnp.argmax(logits, -1) != labels)
        entropy = cross_entropy(logits, labels)
        # No class is right where there is no number.
        return jnp.stack([entropy, jnp.where(jnp.isnan(entropy), 1.0, wrong)])

    # One after the other: the activations of all at once would be gigabytes.
    return jax.lax.map(one, params)


def results(
    net: Net, runs: list[Run], training: Training, told: Callable[[int], None], path: Path
) -> dict[Run, Arrays]:
    """Of every run, kept in files that begin with `path`; a thread a core."""
    pieces = [runs[i : i + training.lanes] for i in range(0, len(runs), training.lanes)]
    return remembered_runs(pieces, lambda piece: trained(net, piece, training), told, path)
