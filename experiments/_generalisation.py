"""What `generalisation` measures: held-out losses of networks along curves of decays."""

import sys
import time
from collections import Counter
from collections.abc import Callable
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

import ct_adam as ct
from ct_adam.problems import Minibatches
from ct_adam.theory import level_curve, normal_curve, stability_coefficient

from . import Progress
from ._bounds import DEFAULT
from ._kept import Arrays, all_remembered, workers

Pairs = tuple[np.ndarray, np.ndarray]

SECOND = (0.9, 0.95)
LARGEST_B2 = 0.999
"""Where the curves end: for the one through the default, at the default, as in the paper."""
LEVEL_B1 = 0.5
"""The lowest b1 of the level curve; at the default's C its b2 is 0.36."""
FINER = 20


def normal_pairs(through: tuple[float, float], points: int) -> Pairs:
    """`points` pairs uniform in b1 (to 1/`FINER` of a spacing) on the normal curve from
    b2 = `LARGEST_B2` to b1 = 1, which is left out; the nearest one is `through` itself."""
    b1, b2 = (np.array(x) for x in normal_curve(*through, FINER * points + 1))
    kept = b2 <= LARGEST_B2 + 1e-9
    chosen = np.linspace(0, kept.sum(), points, endpoint=False).round().astype(int)
    b1, b2 = b1[kept][chosen], b2[kept][chosen]
    nearest = np.argmin(np.abs(b1 - through[0]))
    b1[nearest], b2[nearest] = through
    return b1, b2


def level_pairs(points: int) -> Pairs:
    """`points` pairs of the default's C, uniform in b1 from `LEVEL_B1` to the default's."""
    b1 = np.linspace(LEVEL_B1, DEFAULT[0], points)
    return b1, np.array(level_curve(stability_coefficient(*DEFAULT), b1))


class Network(NamedTuple):
    """A model by its seed; a name for it, and in words what it is."""

    name: str
    title: str
    make: Callable[[int], tuple[Minibatches, PyTree]]


def text_model(
    name: str, size: str, layers: int, context: int, batch: int, held_out: int
) -> Network:
    def make(seed: int) -> tuple[Minibatches, PyTree]:
        problem, params = ct.problems.text_network(
            name, layers, size=size, context=context, batch=batch, held_out=held_out, seed=seed
        )
        return independent(problem, seed), params

    depth = "1 layer" if layers == 1 else f"{layers} layers"
    title = f"transformer ({size}, {depth}, {batch} windows of {context} characters), {name}"
    return Network("text", title, make)


def image_model(node: str, name: str, size: str, batch: int, held_out: int) -> Network:
    def make(seed: int) -> tuple[Minibatches, PyTree]:
        # The 10 000 of the test files: enough for so few steps, a small download.
        problem, params = ct.problems.image_network(
            name, "test", norm="group", size=size, batch=batch, held_out=held_out, seed=seed
        )
        return independent(problem, seed), params

    return Network(
        node,
        f"convolutional network ({size}, group norm, {batch} images), {name}'s test files",
        make,
    )


def at_hand(images: str) -> bool:
    """Whether these images are in the data folder or the cache, or can be downloaded."""
    try:
        ct.problems.data.images(images, "test", count=1)
    except ct.problems.data.MissingData:
        return False
    return True


def independent(problem: Minibatches, seed: int) -> Minibatches:
    """Draws anew at each step: an epoch's order of 30 000 windows costs more than the step."""
    return Minibatches(
        problem.loss, problem.data, problem.size, seed, "independent", problem.evaluation
    )


def held_out_losses(
    network: Network, seed: int, learning_rate: float, pairs: Pairs, steps: int, every: int
) -> Float[np.ndarray, "pair save"]:
    """Of Adam with eps = 0 at every pair, before step 0, `every`, … and after `steps`."""
    problem, params = _made(network, seed)
    rate, b1, b2 = (jnp.asarray(x, float) for x in (learning_rate, *pairs))
    saves = jnp.arange(0, steps + 1, every)
    return np.asarray(_lanes(problem, params, rate, b1, b2, saves.size, every))


@lru_cache(maxsize=2)
def _made(network: Network, seed: int) -> tuple[Minibatches, PyTree]:
    return network.make(seed)


@eqx.filter_jit
def _lanes(
    problem: Minibatches, params: PyTree, rate: Array, b1: Array, b2: Array, saves: int, every: int
) -> Array:
    """A lane a pair; the paper's eps is 1e-30, that is 0."""
    save_steps = np.arange(saves) * every

    def lane(b1: Array, b2: Array) -> Array:
        flow = ct.AdamFlow(rate, b1, b2, eps=0.0)
        last = int(save_steps[-1])
        return ct.run(flow, problem, params, last, save_steps=save_steps, save=_nothing).loss

    return jax.vmap(lane)(b1, b2)


def _nothing(step: Any, params: PyTree, update: PyTree, loss: Array) -> None:
    del step, params, update, loss


class Piece(NamedTuple):
    """All points of a curve at one seed and learning rate."""

    network: Network
    curve: str
    pairs: Pairs
    seed: int
    learning_rate: float


def losses_of(
    pieces: list[Piece], steps: int, every: int, progress: Progress, folder: Path
) -> list[np.ndarray]:
    """Of every piece, kept in the folder; before the runs their budget, an estimate as soon as one
    is timed."""
    runs = Counter[str]()
    for piece in pieces:
        runs[piece.network.name] += len(piece.pairs[0])
    for network in {piece.network.name: piece.network for piece in pieces}.values():
        many = runs[network.name]
        _tell(f"{network.title}: {many} runs × {steps} = {many * steps:,} steps")
    counted = Counter[str]()

    def told(i: int, kept: Arrays) -> None:
        piece = pieces[i]
        name = piece.network.name
        progress(f"{name}, {piece.curve}", i + 1, len(pieces))
        counted[name] += 1
        if counted[name] == 2:  # the first that need not have compiled
            share = runs[name] / len(piece.pairs[0]) / workers()
            _tell(f"{name}: about {float(kept['seconds']) * share / 60:.1f} min in all")

    work = [
        (folder / f"{number}.npz", partial(_measure, piece, steps, every))
        for number, piece in enumerate(pieces)
    ]
    return [kept["loss"] for kept in all_remembered(work, told)]


def _measure(piece: Piece, steps: int, every: int) -> Arrays:
    begun = time.perf_counter()
    loss = held_out_losses(
        piece.network, piece.seed, piece.learning_rate, piece.pairs, steps, every
    )
    return {"loss": loss, "seconds": time.perf_counter() - begun}


def _tell(sentence: str) -> None:
    from tqdm import tqdm

    tqdm.write(f"generalisation: {sentence}", file=sys.stderr)
