"""SGD with undamped momentum and decoupled decay."""

import optax

from ..decays import Scalar, Schedule
from .descent import descent
from .stage import Optimizer


def sgdw(
    learning_rate: Scalar | Schedule, momentum: Scalar = 0.0, weight_decay: Scalar = 0.0
) -> Optimizer:
    """m ← βm + g, θ ← θ - η(m + λθ). Source: Loshchilov & Hutter (arXiv 1711.05101), in the λ
    of EQUATIONS §0 (theirs is λ·α, α the base learning rate).

    **Arguments:** `momentum` is β in [0, 1), undamped. **Raises:** `ValueError` for a value
    outside its range.

    !!! example
        >>> import jax.numpy as jnp
        >>> optimizer = sgdw(0.1, momentum=0.9, weight_decay=0.5)
        >>> params = jnp.array([2.0])
        >>> print(optimizer.update(params, optimizer.init(params), params)[0])
        [-0.3]
    """
    trace = optax.trace(momentum)  # pyright: ignore[reportArgumentType]
    return descent(trace, learning_rate, weight_decay, momentum=momentum)
