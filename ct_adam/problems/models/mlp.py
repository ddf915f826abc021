"""Fully connected networks."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from ...decays import choice
from .layers import (
    ACTIVATIONS,
    Activation,
    Initializer,
    Linear,
    WeightNormLinear,
    check_sizes,
)


class MLP(eqx.Module):
    """Linear maps with an activation between them.

    Weights ~ N(0, gain²/fan-in), gain 1 for tanh and √2 for gelu and relu; biases 0. With
    `(64, 32, 10)` and tanh these are the weights of `digits_mlp((32,))` for the same seed.

    **Arguments:**

    - `sizes`: numbers of units, inputs first, classes last; two at least.
    - `activation`: `"tanh"`, `"gelu"` or `"relu"`. The first two are smooth, which an adaptive ODE
        solver needs: at each kink of a relu the flow's order of accuracy drops.
    - `seed`: of NumPy's default generator.
    - `weight_norm`: every layer's weight as gain · V/‖V‖, column by column (Salimans & Kingma
        2016): the same network at its start, with the scale-invariant `direction` V.
    - `dtype`: of the parameters, JAX's default float type if None.

    **Raises:** `ValueError` for sizes that are not positive or fewer than two, for an unknown
    activation, and for a type that is not floating.

    !!! example
        >>> import jax.numpy as jnp
        >>> MLP((64, 32, 10))(jnp.ones((8, 8, 1))).shape
        (10,)
    """

    layers: tuple[Linear | WeightNormLinear, ...]
    sizes: tuple[int, ...] = eqx.field(static=True)
    activation: Activation = eqx.field(static=True)

    def __init__(
        self,
        sizes: Sequence[int],
        activation: Activation = "tanh",
        seed: int = 0,
        *,
        weight_norm: bool = False,
        dtype: Any = None,
    ):
        choice("activation", activation, tuple(ACTIVATIONS))
        self.sizes = check_sizes("sizes", sizes, 2)
        self.activation = activation
        gain, draw = ACTIVATIONS[activation][1], Initializer(seed, dtype)
        layer = WeightNormLinear if weight_norm else Linear
        self.layers = tuple(layer(draw, n, m, gain) for n, m in pairwise(self.sizes))

    def __call__(self, inputs: Float[Array, "..."]) -> Float[Array, " classes"]:
        """One example of any shape, read as a vector, to logits."""
        activate = ACTIVATIONS[self.activation][0]
        hidden = jnp.ravel(inputs).astype(self.layers[0].bias.dtype)
        for layer in self.layers[:-1]:
            hidden = activate(layer(hidden))
        return self.layers[-1](hidden)
