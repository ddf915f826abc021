"""What `normal_curve` measures: ‖u_n‖_∞ of a language model in training, and what carries it."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PyTree

import ct_adam as ct
from ct_adam.problems import AbstractProblem, Minibatches, full_batch, text, text_network
from ct_adam.theory import growth_rate

ROWS = {".tokens": 0, ".head": 1}
"""The tensors that have a row or column a character, and which axis counts characters."""
SILENT = 1e-3
"""Of a coordinate's first moment: a smaller gradient counts as none. By the recursion of m it moves
the slope by less than (1-b1)/b1 times that."""


class Model(NamedTuple):
    """A transformer over characters, its batches, its start, and the characters."""

    batches: Minibatches
    params: PyTree
    alphabet: str


def language_model(data: str, seed: int, context: int, batch: int) -> Model:
    """The small one; its `value` is the loss of one window alone, which costs little.

    Each window is drawn anew: to shuffle an epoch of 30 000 would cost more than to train.
    """
    source = text(data)
    made, params = text_network(source, context=context, batch=batch, held_out=1, seed=seed)
    drawn = Minibatches(made.loss, made.data, batch, seed, "independent", made.evaluation)
    return Model(drawn, params, source.alphabet)


def fixed(model: Model) -> AbstractProblem:
    """The first batch at every step."""
    return full_batch(model.batches.loss, model.batches.batch(0))


class Path(NamedTuple):
    """By step n the largest coordinate of the update that n + 1 gradients made, and its place;
    the gradients, if they were wanted."""

    largest: Float[np.ndarray, " steps"]
    carrier: Int[np.ndarray, " steps"]
    gradient: Float[np.ndarray, "steps size"] | None


def _flat(tree: PyTree) -> Array:
    return jnp.concatenate([leaf.ravel() for leaf in jax.tree.leaves(tree)])


def _look(
    problem: AbstractProblem, wanted: Array, step: Any, params: PyTree, update: PyTree, loss: Array
) -> dict[str, Array]:
    del loss
    size = jnp.abs(_flat(update))
    gradient = jax.lax.cond(
        wanted, lambda: _flat(problem.gradient(step, params)), lambda: jnp.zeros_like(size)
    )
    return {"largest": jnp.max(size), "carrier": jnp.argmax(size), "gradient": gradient}


def trained(
    problem: AbstractProblem,
    params: PyTree,
    pair: tuple[float, float],
    steps: int,
    learning_rate: float,
    eps: float = 0.0,
    fall: float = 0.0,
    gradients: bool = False,
) -> Path:
    """Adam over `steps` steps with η_n = η e^{-fall·n}. Gradients nearly double the time.

    One program for all of these options.
    """
    eta = jax.tree_util.Partial(_falling, jnp.asarray(learning_rate), jnp.asarray(fall))
    look = jax.tree_util.Partial(_look, problem, jnp.asarray(gradients))
    saved: Any = ct.run(
        ct.AdamFlow(eta, *pair, eps=eps), problem, params, steps - 1, save=look
    ).saved
    kept = np.asarray(saved["gradient"]) if gradients else None
    return Path(np.asarray(saved["largest"]), np.asarray(saved["carrier"]), kept)


def _falling(learning_rate: Array, rate: Array, step: Any) -> Array:
    return learning_rate * jnp.exp(-rate * step)


class Window(NamedTuple):
    """Steps `first` … `last` of a run, both included."""

    first: int
    last: int

    @property
    def steps(self) -> Int[np.ndarray, " n"]:
        return np.arange(self.first, self.last + 1)

    def slope(self, logs: np.ndarray) -> float:
        """Least squares over the window, of values at all steps."""
        return float(np.polyfit(self.steps, logs[self.steps], 1)[0])


def vanished(pair: tuple[float, float], steps: int) -> Float[np.ndarray, " steps"]:
    """ln|u_n| of a coordinate without gradients, but for a constant: with its bias factor."""
    b1, b2 = pair
    n = np.arange(steps)
    rate = float(growth_rate(b1, b2, "discrete"))
    return rate * n + np.log1p(-(b2 ** (n + 1.0))) / 2 - np.log1p(-(b1 ** (n + 1.0)))


class Carrier(NamedTuple):
    """Who was largest in the middle of a window, and what its gradient did over the window.

    - `tensor`, `character`: its place; '' in tensors that have no row a character.
    - `returned`: the largest |g|/|m| of a step. `reason`: '' if that is below `SILENT`.
    """

    tensor: str
    character: str
    returned: float
    reason: str


def carrier(model: Model, path: Path, b1: float, window: Window) -> Carrier:
    """Why the slope over a window is, or need not be, that of a coordinate without gradients."""
    inside = path.carrier[window.steps]
    place = int(inside[len(inside) // 2])
    tensor, at = coordinate(model.params, place)
    character = model.alphabet[at[ROWS[tensor]]] if tensor in ROWS else ""
    if path.gradient is None:
        return Carrier(tensor, character, np.nan, "its gradient was not looked at")
    part = _part(path.gradient[:, place], b1)[window.steps]
    back = int(np.argmax(part))
    reason = ""
    if part[back] > SILENT:
        reason = f"its gradient came back, most at step {window.first + back}"
    elif len(np.unique(inside)) > 1:
        reason = f"{len(np.unique(inside))} coordinates in turn"
    return Carrier(tensor, character, float(part[back]), reason)


def _part(gradient: np.ndarray, b1: float) -> np.ndarray:
    """|g_n| over the moment that has seen it, 0 where both are."""
    moment, parts = 0.0, []
    for g in gradient:
        moment = b1 * moment + (1 - b1) * g
        parts.append(abs(g / moment) if moment else (np.inf if g else 0.0))
    return np.array(parts)


def coordinate(params: PyTree, place: int) -> tuple[str, tuple[int, ...]]:
    """The tensor and the index in it of a place in the flattened parameters."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        if place < leaf.size:
            return jax.tree_util.keystr(path), tuple(map(int, np.unravel_index(place, leaf.shape)))
        place -= leaf.size
    raise ValueError("There are fewer parameters than that.")
