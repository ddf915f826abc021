"""What `k_adam` measures: networks trained by k stages of Adam and by optax's own, many at once,
and the time of a step."""

import time
from collections.abc import Callable, Iterable
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, ArrayLike, PyTree

import ct_adam as ct
from ct_adam.optimizers import optimizer_step
from ct_adam.problems import Minibatches
from ct_adam.problems.models import apply, cross_entropy

from ._generalisation import Network
from ._kept import Arrays, remembered_runs

BASELINES = ("adam", "adamw", "nadamw", "adan")
"""Of optax, with its own defaults but for learning rate and weight decay; adam has none."""
COUPLINGS = ("decoupled", "coupled")
"""How weight decay enters: beside the update, or (`decay="l2"`) into the gradient."""
EPS = 1e-8
"""optax's, so that one stage is optax.adamw."""
REPEATS = 7
"""Timed runs, of which the median counts."""


class Cell(NamedTuple):
    """An optimizer but for its learning rate."""

    method: str
    """`"k_adam"`, or one of `BASELINES`"""
    k: int = 0
    strategy: str = ""
    coupling: str = ""

    @property
    def name(self) -> str:
        if self.method != "k_adam":
            return self.method
        return " ".join(filter(None, (f"k={self.k}", self.strategy, self.coupling)))


def cells(ks: Iterable[int], strategies: Iterable[str], baselines: Iterable[str]) -> list[Cell]:
    """k = 1 once a coupling: there all strategies are one."""
    found = [Cell("k_adam", 1, "", coupling) for coupling in COUPLINGS]
    found += [
        Cell("k_adam", k, strategy, coupling)
        for k in ks if k > 1
        for strategy in strategies
        for coupling in COUPLINGS
    ]  # fmt: skip
    return found + [Cell(name) for name in baselines]


class Run(NamedTuple):
    """One training."""

    cell: Cell
    learning_rate: float
    seed: int


class Training(NamedTuple):
    """What all runs of a network share."""

    steps: int
    every: int
    """steps between two looks"""
    validation: int
    """Of what is held out the first so many choose the learning rate; the rest is for testing."""
    sample: int
    """examples that are trained on, for the training loss"""
    l2: float
    decoupled: float
    lanes: int
    """trainings at once"""


class Lane(NamedTuple):
    """The numbers by which runs of one program differ; an array each."""

    rate: ArrayLike
    b1: ArrayLike
    b2: ArrayLike
    l2: ArrayLike
    decoupled: ArrayLike
    seed: ArrayLike


def lanes_of(runs: list[Run], training: Training) -> Lane:
    rows = []
    for cell, rate, seed in runs:
        coupled = cell.coupling == "coupled"
        b1s, b2s = ct.k_adam_decays(max(cell.k, 1), strategy=cell.strategy or "naive")  # pyright: ignore[reportArgumentType]
        decays = (training.l2, 0.0) if coupled else (0.0, training.decoupled)
        rows.append((rate, b1s[0], b2s[0], *decays, seed))
    *floats, seeds = zip(*rows, strict=True)
    return Lane._make([*(np.asarray(x, np.float32) for x in floats), np.asarray(seeds)])


def optimizer(method: str, k: int, lane: Lane, steps: int) -> optax.GradientTransformation:
    """Its learning rate falls to 0 as a cosine: at a constant one k > 1 stages end on a cycle of
    size ~η (`ct.k_adam`). Decay into the gradient before k_adam is its `decay="l2"`, but a number
    of the lane: both couplings are one program."""
    rate = optax.cosine_decay_schedule(lane.rate, steps)  # pyright: ignore[reportArgumentType]
    if method == "k_adam":
        stages = ct.k_adam(rate, (lane.b1,) * k, (lane.b2,) * k, EPS, lane.decoupled)
        return optax.chain(optax.add_decayed_weights(lane.l2), stages)  # pyright: ignore[reportArgumentType]
    decay = {} if method == "adam" else {"weight_decay": lane.decoupled}
    return getattr(optax, method)(rate, **decay)


class Data(NamedTuple):
    """On what a network is scored: the sample with the images of validation, and those of test."""

    curves: PyTree
    test: PyTree


@lru_cache(maxsize=2)
def problem_of(network: Network, training: Training) -> tuple[Minibatches, Data]:
    """Scores are made from the data beside it: the problem's own value costs next to nothing."""
    problem, _ = network.make(0)

    def part(data: PyTree, *of: int | None) -> PyTree:
        return jax.tree.map(lambda leaf: np.asarray(leaf)[slice(*of)], data)

    held_out = problem.evaluation
    sample, validation = part(problem.data, training.sample), part(held_out, training.validation)
    curves = jax.tree.map(lambda *both: np.concatenate(both), sample, validation)
    data = Data(curves, part(held_out, training.validation, None))
    return eqx.tree_at(lambda p: p.evaluation, problem, part(held_out, 1)), data


@lru_cache(maxsize=256)
def _start(network: Network, seed: int) -> PyTree:
    """In float32, as networks are trained; float64 takes 1.6 times as long."""
    return jax.tree.map(lambda leaf: np.asarray(leaf, np.float32), network.make(seed)[1])


@eqx.filter_jit
def _scores(loss: Any, path: PyTree, data: PyTree) -> Array:
    """(lane, save, example, score) of parameters (lane, save, …): cross-entropy, and whether the
    largest logit is right; of a window the means."""
    inputs, targets = data if isinstance(data, tuple) else (data[:, :-1], data[:, 1:])

    def one(params: PyTree) -> Array:
        logits = apply(loss.rebuild(params), inputs)
        right = (jnp.argmax(logits, -1) == targets).astype(logits.dtype)
        each = jnp.stack([jax.vmap(cross_entropy)(logits, targets), _mean(right)], -1)
        # No class is right where there is no number.
        return jnp.where(jnp.isnan(each[:, :1]), jnp.array([jnp.nan, 0.0], each.dtype), each)

    def _mean(right: Array) -> Array:
        return right.reshape(len(right), -1).mean(-1)

    # One after the other: the activations of all at once would be gigabytes.
    return jax.lax.map(lambda saves: jax.lax.map(one, saves), path)


def trained(network: Network, runs: list[Run], training: Training) -> Arrays:
    """`train` and `validation` (run, save, score) at step 0, `every`, …; `test` (run, score) at the
    end. All runs are of one method and k, and no more than `lanes`: the last one fills up."""
    full = runs + [runs[-1]] * (training.lanes - len(runs))
    problem, data = problem_of(network, training)
    params = jax.tree.map(lambda *one: np.stack(one), *(_start(network, r.seed) for r in full))
    cell = runs[0].cell
    path = _trained(
        cell.method, cell.k, problem, params, lanes_of(full, training),
        training.steps, training.every,
    )  # fmt: skip
    curves = np.asarray(_scores(problem.loss, path, data.curves))
    last = jax.tree.map(lambda leaf: np.asarray(leaf)[:, -1:], path)
    found = {
        "train": curves[:, :, : training.sample].mean(2),
        "validation": curves[:, :, training.sample :].mean(2),
        "test": np.asarray(_scores(problem.loss, last, data.test)).mean((1, 2)),
    }
    return {name: values[: len(runs)] for name, values in found.items()}


@eqx.filter_jit
def _trained(
    method: str, k: int, problem: Minibatches, params: PyTree, lanes: Lane, steps: int, every: int
) -> PyTree:
    """Parameters (lane, save, …). A loop of its own: that of `ct.run` takes twice as long to
    compile, and every number of stages is a program."""

    def one(start: PyTree, lane: Lane) -> PyTree:
        own = eqx.tree_at(lambda p: p.seed, problem, lane.seed)
        rule = optimizer(method, k, lane, steps)

        def step(n: Any, carry: tuple[PyTree, PyTree]) -> tuple[PyTree, PyTree]:
            return optimizer_step(rule, own, n, *carry)[:2]

        def to_save(carry: tuple[PyTree, PyTree], begin: Any) -> tuple[Any, PyTree]:
            carry = jax.lax.fori_loop(begin, begin + every, step, carry)
            return carry, carry[0]

        _, path = jax.lax.scan(to_save, (start, rule.init(start)), jnp.arange(0, steps, every))
        return jax.tree.map(lambda x, y: jnp.concatenate([x[None], y]), start, path)

    return jax.vmap(one)(params, lanes)


def pieces_of(runs: list[Run], lanes: int) -> list[list[Run]]:
    """Runs of one program, `lanes` at a time; programs turn by turn, so that what runs at once at
    the beginning compiles different ones."""
    groups: dict[tuple[str, int], list[Run]] = {}
    for run in runs:
        groups.setdefault((run.cell.method, run.cell.k), []).append(run)
    cut = [[group[i : i + lanes] for i in range(0, len(group), lanes)] for group in groups.values()]
    longest = max(map(len, cut))
    return [pieces[i] for i in range(longest) for pieces in cut if i < len(pieces)]


def results(
    network: Network, runs: list[Run], training: Training, told: Callable[[], None], path: Path
) -> dict[Run, Arrays]:
    """Of every run, kept in files that begin with `path`; a thread a core."""
    pieces = pieces_of(runs, training.lanes)
    return remembered_runs(
        pieces, lambda piece: trained(network, piece, training), lambda _: told(), path
    )


def seconds_per_step(network: Network, ks: Iterable[int], training: Training) -> Arrays:
    """Of one training alone, compiled: median, least and largest of `REPEATS`, for each k; and the
    quartiles of its ratio to k = 1 of the same turn.

    The k take turns, so that what else the machine does meets all of them.
    """
    problem, _ = problem_of(network, training)
    params = jax.tree.map(lambda leaf: leaf[None], _start(network, 0))
    steps = training.every
    cells = [Cell("k_adam", k, "inverse_exp" if k > 1 else "", "decoupled") for k in ks]
    lanes = [lanes_of([Run(cell, 1e-3, 0)], training) for cell in cells]
    taken = np.empty((REPEATS + 1, len(cells)))
    for turn in taken:
        for i, (cell, lane) in enumerate(zip(cells, lanes, strict=True)):
            begun = time.perf_counter()
            path = _trained(cell.method, cell.k, problem, params, lane, steps, steps)
            jax.block_until_ready(path)
            turn[i] = (time.perf_counter() - begun) / steps
    taken = taken[1:]  # the first compiles
    ratio = np.quantile(taken / taken[:, :1], [0.25, 0.5, 0.75], axis=0)
    return {
        "median": np.median(taken, 0),
        "least": taken.min(0),
        "largest": taken.max(0),
        "ratio": ratio,
    }
