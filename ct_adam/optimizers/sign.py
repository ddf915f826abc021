"""Sign descent with decoupled decay: Adam without memory."""

import jax
import jax.numpy as jnp
import optax
from jaxtyping import PyTree

from ..decays import Scalar, Schedule
from .descent import descent
from .stage import Optimizer, normalized


def sign_descent(
    learning_rate: Scalar | Schedule, eps: Scalar = 0.0, weight_decay: Scalar = 0.0
) -> Optimizer:
    """θ ← θ - η(g/(|g| + eps) + λθ): the stage with b1 = b2 = 0. Source: EQUATIONS §5.

    **Arguments:** `learning_rate` a number or a schedule; `eps` smooths the sign; `weight_decay`
    is λ. **Raises:** `ValueError` for a value outside its range.

    !!! example
        >>> import jax.numpy as jnp
        >>> optimizer = sign_descent(0.1)
        >>> grads = jnp.array([3.0, -0.5, 0.0])
        >>> print(optimizer.update(grads, optimizer.init(grads), grads)[0])
        [-0.1  0.1 -0. ]
    """

    def signs(updates: PyTree, params: PyTree | None = None) -> PyTree:
        del params
        return jax.tree.map(lambda g: normalized(g, jnp.square(g), eps), updates)

    return descent(optax.stateless(signs), learning_rate, weight_decay, eps=eps)
