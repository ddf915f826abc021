"""From one example to a batch, and from logits to a loss."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int


def apply(model: Callable[[Array], Array], inputs: Array) -> Array:
    """The model over a batch: `jax.vmap` with the axis named `"batch"`.

    The name is for batch normalisation, which takes its mean over it; other models ignore it.

    **Arguments:**

    - `model`: a function of one example, e.g. a model of `ct_adam.problems.models`.
    - `inputs`: shape (batch, ...).

    **Returns:** outputs of shape (batch, ...).

    !!! example
        >>> import jax.numpy as jnp
        >>> from ct_adam.problems.models import MLP, apply, cross_entropy
        >>> inputs, labels = jnp.ones((5, 4)), jnp.array([0, 1, 2, 0, 1])
        >>> def loss(model):
        ...     return cross_entropy(apply(model, inputs), labels)
        >>> loss(MLP((4, 8, 3))).shape
        ()
    """
    return jax.vmap(model, axis_name="batch")(inputs)


def cross_entropy(logits: Float[Array, "*n classes"], labels: Int[Array, "*n"]) -> Float[Array, ""]:
    """Mean of -log softmax(logits)[label], in nats, over all leading axes.

    So one function serves classes (n, classes) and characters (batch, context, vocabulary). A
    label outside 0 … classes - 1 gives NaN, not some other class's loss.

    !!! example
        >>> import jax.numpy as jnp
        >>> print(f"{jnp.exp(cross_entropy(jnp.zeros((6, 4)), jnp.arange(6) % 4)):.6f}")
        4.000000
    """
    labels = jnp.asarray(labels)
    chosen = jnp.take_along_axis(logits, labels[..., None], -1, mode="fill")[..., 0]
    chosen = jnp.where(labels < 0, jnp.nan, chosen)  # NumPy's meaning of -1 is not wanted here
    return jnp.mean(jax.nn.logsumexp(logits, axis=-1) - chosen)
