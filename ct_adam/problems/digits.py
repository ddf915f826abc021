"""Losses on scikit-learn's digits: 1797 images of 8 × 8 pixels, embedded in that package."""

from collections.abc import Callable, Sequence
from functools import cache
from itertools import pairwise
from typing import Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PyTree

from ..decays import choice, whole_number
from .base import LossProblem

Criterion = Literal["cross_entropy", "squared"]


@cache
def _digits() -> tuple[np.ndarray, np.ndarray]:
    from sklearn.datasets import load_digits  # imports half of SciPy: only where it is used

    inputs, labels = load_digits(return_X_y=True)
    return np.asarray(inputs) / 16, np.asarray(labels)


def digits_data(images: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """The first `images` digits (all 1797 if None): inputs in [0, 1], shape (n, 64), and labels.

    !!! example
        >>> inputs, labels = digits_data(128)
        >>> inputs.shape, labels[:3].tolist()
        ((128, 64), [0, 1, 2])
    """
    inputs, labels = _digits()
    if images is not None and whole_number("images", images) > len(labels):
        raise ValueError(f"images = {images} must lie between 1 and {len(labels)}.")
    return inputs[:images], labels[:images]


class DigitsLoss(eqx.Module):
    """Mean loss of a fully connected network over fixed data; `params` a list of (weight, bias)."""

    inputs: Float[Array, "n features"]
    labels: Int[Array, " n"]
    activation: Callable[[Array], Array] = eqx.field(static=True)
    criterion: Criterion = eqx.field(static=True)

    def __call__(self, params: PyTree) -> Float[Array, ""]:
        hidden = self.inputs.astype(params[0][0].dtype)
        for weight, bias in params[:-1]:
            hidden = self.activation(hidden @ weight + bias)
        weight, bias = params[-1]
        outputs = hidden @ weight + bias
        if self.criterion == "squared":
            wanted = jax.nn.one_hot(self.labels, outputs.shape[-1], dtype=outputs.dtype)
            return jnp.mean(jnp.sum((outputs - wanted) ** 2, axis=-1))
        log_probabilities = jax.nn.log_softmax(outputs)
        return -jnp.mean(log_probabilities[jnp.arange(len(self.labels)), self.labels])


def digits_mlp(
    hidden: Sequence[int] = (32,),
    images: int | None = None,
    seed: int = 0,
    *,
    activation: Callable[[Array], Array] = jnp.tanh,
    criterion: Criterion = "cross_entropy",
) -> tuple[LossProblem, PyTree]:
    """A fully connected network 64-hidden-10 on digits, full batch, and its parameters.

    Weights ~ N(0, 1/fan-in), biases 0, drawn by NumPy's generator. `hidden=()` is logistic
    regression. `criterion`: mean `"cross_entropy"`, or `"squared"`: the mean over images of the
    sum of squared errors to the one-hot label.

    **Returns:** `(problem, params)`, `params` a list of (weight, bias) of the default float type.

    !!! example
        >>> problem, params = digits_mlp((32,), images=128)
        >>> [weight.shape for weight, _ in params]
        [(64, 32), (32, 10)]
    """
    choice("criterion", criterion, ("cross_entropy", "squared"))
    rng = np.random.default_rng(seed)
    sizes = (64, *hidden, 10)
    params = [
        (jnp.asarray(rng.standard_normal((n, m)) / np.sqrt(n)), jnp.zeros(m))
        for n, m in pairwise(sizes)
    ]
    inputs, labels = digits_data(images)
    loss = DigitsLoss(jnp.asarray(inputs), jnp.asarray(labels), activation, criterion)
    return LossProblem(loss), params


def digits_logistic(images: int | None = None, seed: int = 0) -> tuple[LossProblem, PyTree]:
    """Multinomial logistic regression on digits: convex. Returns as `digits_mlp`.

    !!! example
        >>> problem, params = digits_logistic(images=100)
        >>> params[0][0].shape
        (64, 10)
    """
    return digits_mlp((), images, seed)
