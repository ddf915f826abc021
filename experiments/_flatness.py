"""What `dynamic_regularization` measures of networks: how flat the minima are that Adam, Adam-ℓ2
and AdamW reach, and how much worse the networks do on images they were not trained on.

No minimum is meant to be more than what a run ends at. Flatness is of the training loss there:

- *sharpness*, the largest eigenvalue of its Hessian;
- *relative sharpness*, that of ‖w‖ H ‖w‖, ‖w‖ the norm of the array to which a weight belongs.
  Where the loss does not change when an array is multiplied by a number (before a normalisation),
  sharpness can be given any value, and this cannot;
- *trace*, of the Gauss–Newton matrix: mean over images of Σ_y p(y)‖∇ log p(y)‖².
"""

from collections.abc import Callable
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

import ct_adam as ct
from ct_adam.diagnostics import gauss_newton_trace, preconditioned_sharpness
from ct_adam.optimizers import optimizer_step
from ct_adam.problems import Minibatches, full_batch
from ct_adam.problems.models import MLP, ConvNet
from ct_adam.problems.networks import ImageLoss

from ._kept import Arrays, remembered_runs
from ._scale_freeness import Cell, Lane, Run, Training, lane_of, optimizer, scores

METHODS = ("Adam", "Adam-ℓ2", "AdamW")
NETS = ("MLP", "convolutional", "convolutional, group norm")
IMAGES = {"digits": 1437, "mnist": 10_000}
"""How many there are to be trained on, chosen by and tested on."""
SCORES = ("train loss", "train error", "test loss", "test error")
FLATNESS = ("sharpness", "relative sharpness", "trace")


class Net(NamedTuple):
    """One of `NETS`, and its images."""

    name: str
    images: str

    def model(self, shape: tuple[int, ...], seed: int) -> eqx.Module:
        """In float32, as networks are trained."""
        if self.name == "MLP":
            return MLP((int(np.prod(shape)), 32, 10), seed=seed, dtype=jnp.float32)
        norm = "group" if self.name.endswith("group norm") else None
        return ConvNet(shape, 10, norm, seed=seed, dtype=jnp.float32)


def cells(rates: tuple[float, ...], decays: tuple[float, ...]) -> list[Cell]:
    """What is tuned: a rate for Adam, a rate and a decay for the others."""
    return [
        Cell(method, 1.0, rate, decay)
        for method in METHODS
        for rate in rates
        for decay in ((0.0,) if method == "Adam" else decays)
    ]


class Data(NamedTuple):
    """Arrays (images, labels) each: `validation` chooses the cell, `test` nothing."""

    train: PyTree
    validation: PyTree
    test: PyTree


@lru_cache(maxsize=8)
def problem_of(net: Net, training: Training) -> tuple[Minibatches, Data]:
    """Draws anew at each step from the first `train` images; those of test are all that are left,
    `test` at most."""
    # Of MNIST the test files: 10 000 images are enough, and a small download.
    pixels, labels = ct.problems.data.images(
        net.images, "test" if net.images == "mnist" else "train"
    )
    ends = np.cumsum([0, training.train, training.validation, training.test])
    if ends[-1] > len(labels):
        raise ValueError(
            f"train + validation + test = {ends[-1]} images: {net.images} has {len(labels)}."
        )
    data = Data(*((pixels[i:j], labels[i:j]) for i, j in pairwise(ends)))
    _, rebuild = ct.problems.trainable(net.model(pixels.shape[1:], 0))
    loss = ImageLoss(rebuild)
    few = jax.tree.map(lambda leaf: leaf[:1], data.train)  # its own value is never asked for
    return Minibatches(loss, data.train, training.batch, 0, "independent", few), data


@lru_cache(maxsize=256)
def _start(net: Net, training: Training, seed: int) -> PyTree:
    shape = problem_of(net, training)[1].train[0].shape[1:]
    return jax.tree.map(np.asarray, ct.problems.trainable(net.model(shape, seed))[0])


def trained(net: Net, runs: list[Run], training: Training, flat: bool) -> Arrays:
    """Of every run `validation` (mean cross-entropy), the `SCORES` and, if wanted, `FLATNESS` at
    the end. No more runs than `lanes`: the last one fills up."""
    full = runs + [runs[-1]] * (training.lanes - len(runs))
    problem, data = problem_of(net, training)
    starts = [_start(net, training, run.seed) for run in full]
    params = jax.tree.map(lambda *one: np.stack(one), *starts)
    lanes = Lane(*map(np.stack, zip(*map(lane_of, full), strict=True)))
    ends = jax.tree.map(np.asarray, _trained(problem, params, lanes, training.steps))
    train, validation, test = (np.asarray(scores(problem.loss, ends, part)) for part in data)
    found = {"validation": validation[:, 0]}
    found |= dict(zip(SCORES, np.concatenate([train, test], 1).T, strict=True))
    if flat:
        each = [jax.tree.map(lambda leaf, i=i: leaf[i], ends) for i in range(len(runs))]
        values = np.array([flatness(problem.loss, one, data.train) for one in each])
        found |= dict(zip(FLATNESS, values.T, strict=True))
    return {name: values[: len(runs)] for name, values in found.items()}


@eqx.filter_jit
def _trained(problem: Minibatches, params: PyTree, lanes: Lane, steps: int) -> PyTree:
    """Parameters at the end, by lane."""

    def one(start: PyTree, lane: Lane) -> PyTree:
        own = eqx.tree_at(lambda p: p.seed, problem, lane.seed)
        rule = optimizer(lane, steps)

        def step(n: Any, carry: tuple[PyTree, PyTree]) -> tuple[PyTree, PyTree]:
            return optimizer_step(rule, own, n, *carry)[:2]

        return jax.lax.fori_loop(0, steps, step, (start, rule.init(start)))[0]

    return jax.vmap(one)(params, lanes)


class ImageLogits(eqx.Module):
    """(params, image) → logits, equal for equal networks, so that it is compiled once."""

    rebuild: Callable[[PyTree], Any]

    def __call__(self, params: PyTree, image: Array) -> Array:
        return self.rebuild(params)(image)


def flatness(loss: Any, params: PyTree, data: PyTree) -> tuple[float, float, float]:
    """`FLATNESS` of the mean loss over the data, in float64; NaN of a run that diverged."""
    if not all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(params)):
        return np.nan, np.nan, np.nan
    params = jax.tree.map(lambda leaf: np.asarray(leaf, float), params)
    problem = full_batch(loss, data)
    # An array that is 0 has no size to compare with: no direction of it counts.
    squares = jax.tree.map(lambda leaf: max(float(np.sum(leaf**2)), 1e-30), params)
    relative = jax.tree.map(lambda leaf, s: np.full_like(leaf, 1 / s), params, squares)
    return (
        preconditioned_sharpness(problem, params),
        preconditioned_sharpness(problem, params, relative),
        float(gauss_newton_trace(ImageLogits(loss.rebuild), params, data[0])),
    )


def results(
    net: Net, runs: list[Run], training: Training, flat: bool,
    told: Callable[[int], None], path: Path,
) -> dict[Run, Arrays]:  # fmt: skip
    """Of every run, kept in files that begin with `path`; a thread a core."""
    pieces = [runs[i : i + training.lanes] for i in range(0, len(runs), training.lanes)]
    return remembered_runs(pieces, lambda piece: trained(net, piece, training, flat), told, path)


def best_cells(found: dict[Run, Arrays]) -> dict[str, Cell]:
    """By method the cell of the least mean validation loss; one in which a run diverged is no
    candidate.

    **Raises:** `ValueError` for a method all of whose cells have such a run.
    """
    losses: dict[Cell, list[float]] = {}
    for run, one in found.items():
        losses.setdefault(run.cell, []).append(float(one["validation"]))
    best = {}
    for method in METHODS:
        means = {cell: np.mean(x) for cell, x in losses.items() if cell.method == method}
        finite = {cell: mean for cell, mean in means.items() if np.isfinite(mean)}
        if not finite:
            raise ValueError(f"{method} diverges in every cell: give smaller learning rates.")
        best[method] = min(finite, key=lambda cell: finite[cell])
    return best
