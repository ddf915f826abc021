"""How near the updates of networks come to their bound, and the gradients of those that do."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jax.tree_util import Partial
from jaxtyping import Array, PyTree

import ct_adam as ct
from ct_adam.problems import AbstractProblem, text_network
from ct_adam.problems.digits import DigitsLoss

from ._bounds import DEFAULT, QUANTILES, THRESHOLDS, bound

ROOM = 2.0
"""Where a bound is below, |u| = 1 of a gradient of constant sign is half of it already."""


def _digits_loss(params: PyTree, batch: PyTree) -> Array:
    inputs, labels = batch
    return DigitsLoss(inputs, labels, jnp.tanh, "cross_entropy")(params)


def digits_mlp(seed: int) -> tuple[AbstractProblem, PyTree]:
    """64-32-10 with tanh, minibatches of 32 digits by epochs."""
    _, params = ct.problems.digits_mlp((32,), seed=seed)
    return ct.problems.Minibatches(_digits_loss, ct.problems.digits_data(), 32, seed), params


Factory = Callable[[int], tuple[AbstractProblem, PyTree]]
NETWORKS: Mapping[str, Factory] = {
    "digits MLP": digits_mlp,
    "transformer": lambda seed: text_network("python_topics", seed=seed),
}


def look(most: Array, step: Any, params: PyTree, update: PyTree, loss: Array) -> dict[str, Array]:
    """One step's ratios in a few numbers; a coordinate with u = 0 is not counted."""
    del params, loss
    ratio = jnp.abs(ravel_pytree(update)[0]) / most[step]
    inorder = jnp.sort(ratio)
    dead = jnp.sum(ratio == 0)
    places = dead + (jnp.asarray(QUANTILES) * (ratio.size - 1 - dead)).astype(int)
    return {
        "quantiles": inorder[places],
        "exceeding": ratio.size - jnp.searchsorted(inorder, jnp.asarray(THRESHOLDS)),
        "live": ratio.size - dead,
        "nearest": jnp.argmax(ratio),
    }


def watch(
    problem: AbstractProblem, which: Array, step: Any, params: PyTree, update: PyTree, loss: Array
) -> Array:
    """The gradients of the coordinates `which`."""
    del update, loss
    return ravel_pytree(problem.gradient(step, params))[0][which]


def ratios(problem: AbstractProblem, params: PyTree, steps: int, eta: float) -> dict[str, Any]:
    """Ratios over `steps` steps of Adam at the default decays, eps = 0, and the gradients of the
    coordinates that come nearest to the bound: in the first half of the run, from where the bound
    leaves `ROOM`, and in the second."""
    flow = ct.AdamFlow(eta, *DEFAULT, eps=0.0)
    most = bound(*DEFAULT, steps, "discrete")
    path = ct.run(flow, problem, params, steps - 1, save=Partial(look, jnp.asarray(most)))
    seen = jax.tree.map(np.asarray, path.saved)
    largest, half = seen["quantiles"][:, -1], steps // 2
    room = int(np.argmax(most >= ROOM))
    when = np.array([room + largest[room:half].argmax(), half + largest[half:].argmax()])
    which = seen["nearest"][when]
    again = Partial(watch, problem, jnp.asarray(which))
    watched = ct.run(flow, problem, params, int(when[1]), save=again)
    gradients = np.full((steps, 2), np.nan)
    gradients[: when[1] + 1] = watched.saved
    gradients[when[0] + 1 :, 0] = np.nan
    names = names_of(params)
    return {
        "quantiles": seen["quantiles"],
        "exceedance": seen["exceeding"][half:].sum(0) / seen["live"][half:].sum(),
        "live": seen["live"] / len(names),
        "loss": np.asarray(path.loss),
        "nearest_step": when + 1,
        "nearest_ratio": largest[when],
        "nearest_name": [names[i] for i in which],
        "nearest_gradient": gradients.T,
    }


def names_of(params: PyTree) -> list[str]:
    """Of each coordinate, in the order of `ravel_pytree`: leaf and place in it."""
    return [
        jax.tree_util.keystr(path) + str(list(place))
        for path, leaf in jax.tree_util.tree_leaves_with_path(params)
        for place in np.ndindex(leaf.shape)
    ]
