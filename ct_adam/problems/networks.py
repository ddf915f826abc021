"""Networks on data as problems: a model, its data, and the minibatches it sees."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from ..decays import whole_number
from .batches import Minibatches
from .data import Text, images, text
from .models import ConvNet, Transformer, apply, cross_entropy
from .trainable import Rebuild, trainable


class ImageLoss(eqx.Module):
    """`(params, (images, labels)) -> mean cross-entropy` of the model that `rebuild` makes."""

    rebuild: Rebuild

    def __call__(self, params: PyTree, batch: tuple[Array, Array]) -> Float[Array, ""]:
        inputs, labels = batch
        return cross_entropy(apply(self.rebuild(params), inputs), labels)


class TextLoss(eqx.Module):
    """`(params, windows) -> mean cross-entropy` of each character given those before it."""

    rebuild: Rebuild

    def __call__(self, params: PyTree, windows: Array) -> Float[Array, ""]:
        return cross_entropy(apply(self.rebuild(params), windows[:, :-1]), windows[:, 1:])


def image_network(
    data: str = "digits",
    split: Any = "train",
    norm: Any = None,
    size: Any = "small",
    batch: int = 32,
    held_out: int = 256,
    seed: int = 0,
    dtype: Any = None,
    depth: int = 0,
) -> tuple[Minibatches, PyTree]:
    """A convolutional network on images, minibatches by epochs.

    **Arguments:**

    - `data`, `split`: as in `images`. `norm`, `size`, `dtype`, `depth`: as in
        `models.ConvNet`.
    - `batch`: images a step. `held_out`: the last so many images are not trained on; the
        problem's `value` is the loss there.
    - `seed`: of weights and batches.

    **Returns:** `(problem, params)`.

    !!! example
        >>> problem, params = image_network("digits", batch=8)
        >>> print(problem.batch(0)[0].shape)
        (8, 8, 8, 1)
    """
    inputs, labels = images(data, split)
    model = ConvNet(inputs.shape[1:], 10, norm, size, seed, dtype=dtype, depth=depth)
    params, rebuild = trainable(model)
    train, test = _split((inputs, labels), held_out)
    return Minibatches(ImageLoss(rebuild), train, batch, seed, evaluation=test), params


def text_network(
    data: str | Text = "tinyshakespeare",
    layers: int = 1,
    qk_norm: bool = False,
    size: Any = "small",
    context: int = 32,
    batch: int = 16,
    held_out: int = 64,
    seed: int = 0,
    dtype: Any = None,
) -> tuple[Minibatches, PyTree]:
    """A decoder-only character transformer on a text cut into windows, minibatches by epochs.

    **Arguments:** as `image_network`; `data` a name for `text`, or a `Text` of your own;
    `layers`, `qk_norm`, `size`, `context` as in `models.Transformer`. A window is context + 1
    characters; the last `held_out` windows are for the problem's `value`.

    **Returns:** `(problem, params)`.

    !!! example
        >>> problem, params = text_network("python_topics", context=16, batch=4)
        >>> print(problem.batch(0).shape)
        (4, 17)
    """
    source = text(data) if isinstance(data, str) else data
    count = len(source.tokens) // (context + 1)
    windows = np.asarray(source.tokens)[: count * (context + 1)].reshape(count, context + 1)
    model = Transformer(
        len(source.alphabet), context, size, layers=layers, qk_norm=qk_norm, seed=seed, dtype=dtype
    )
    params, rebuild = trainable(model)
    train, test = _split(windows, held_out)
    return Minibatches(TextLoss(rebuild), train, batch, seed, evaluation=test), params


def _split(data: PyTree, held_out: int) -> tuple[PyTree, PyTree]:
    """All examples but the last so many, and these."""
    count = len(jax.tree.leaves(data)[0])
    held_out = whole_number("held_out", held_out)
    if held_out >= count:
        raise ValueError(f"held_out = {held_out} must leave some of {count} examples.")
    train = jax.tree.map(lambda leaf: jnp.asarray(leaf[:-held_out]), data)
    return train, jax.tree.map(lambda leaf: jnp.asarray(leaf[-held_out:]), data)
