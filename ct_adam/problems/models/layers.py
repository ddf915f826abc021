"""What the networks are made of: draws, linear maps, normalisation, and a count of it all."""

from collections.abc import Callable, Sequence
from dataclasses import fields
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, PyTree

Activation = Literal["tanh", "gelu", "relu"]
Size = Literal["small", "medium"]

# The function, and the gain that keeps the variance of a layer's outputs about that of its inputs.
ACTIVATIONS: dict[str, tuple[Callable[[Array], Array], float]] = {
    "tanh": (jnp.tanh, 1.0),
    "gelu": (jax.nn.gelu, 2.0**0.5),
    "relu": (jax.nn.relu, 2.0**0.5),
}


class Initializer:
    """Normal weights by NumPy's default generator, in the order in which a model asks for them.

    NumPy's generator and not JAX's: a seed gives the same weights in float32 and float64 (up to
    rounding) and on every device, and a reader without JAX can draw them.
    """

    def __init__(self, seed: int, dtype: Any = None):
        if dtype is not None and not jnp.issubdtype(dtype, jnp.floating):
            raise ValueError(f"dtype = {dtype!r} must be a floating type, or None for the default.")
        self.dtype = jnp.result_type(float) if dtype is None else dtype
        self.rng = np.random.default_rng(seed)

    def normal(self, shape: Sequence[int], fan_in: float, gain: float = 1.0) -> Array:
        weight = self.rng.standard_normal(tuple(shape)) * (gain / np.sqrt(fan_in))
        return jnp.asarray(weight, self.dtype)

    def zeros(self, *shape: int) -> Array:
        return jnp.zeros(shape, self.dtype)

    def ones(self, *shape: int) -> Array:
        return jnp.ones(shape, self.dtype)


class Linear(eqx.Module):
    """x W + b, weights ~ N(0, gain²/fan-in), bias 0."""

    weight: Float[Array, "inputs outputs"]
    bias: Float[Array, " outputs"]

    def __init__(self, draw: Initializer, inputs: int, outputs: int, gain: float = 1.0):
        self.weight = draw.normal((inputs, outputs), inputs, gain)
        self.bias = draw.zeros(outputs)

    def __call__(self, x: Float[Array, "*n inputs"]) -> Float[Array, "*n outputs"]:
        return x @ self.weight + self.bias


class WeightNormLinear(eqx.Module):
    """x (gain · V/‖V‖) + b, ‖·‖ of each column: each column of V is scale-invariant, exactly.

    Source: Salimans & Kingma (arXiv 1602.07868). V is drawn as the weight of `Linear` and the gain
    is its columns' norms, so that both begin as the same map. No eps: a column of 0 gives NaN.
    """

    direction: Float[Array, "inputs outputs"]
    gain: Float[Array, " outputs"]
    bias: Float[Array, " outputs"]

    def __init__(self, draw: Initializer, inputs: int, outputs: int, gain: float = 1.0):
        self.direction = draw.normal((inputs, outputs), inputs, gain)
        self.gain = jnp.linalg.norm(self.direction, axis=0)
        self.bias = draw.zeros(outputs)

    @property
    def weight(self) -> Float[Array, "inputs outputs"]:
        return self.direction * (self.gain / jnp.linalg.norm(self.direction, axis=0))

    def __call__(self, x: Float[Array, "*n inputs"]) -> Float[Array, "*n outputs"]:
        return x @ self.weight + self.bias


class LayerNorm(eqx.Module):
    """The last axis with mean 0 and variance 1, times `scale`, plus `shift`."""

    scale: Float[Array, " features"]
    shift: Float[Array, " features"]
    eps: float = eqx.field(static=True)

    def __init__(self, draw: Initializer, features: int, eps: float):
        self.scale, self.shift, self.eps = draw.ones(features), draw.zeros(features), eps

    def __call__(self, x: Float[Array, "*n features"]) -> Float[Array, "*n features"]:
        return standardize(x, (-1,), self.eps) * self.scale + self.shift


def standardize(
    x: Float[Array, "..."], axes: tuple[int, ...], eps: float, axis_name: str | None = None
) -> Float[Array, "..."]:
    """(x - mean) / √(variance + eps) over `axes`, and over the mapped axis `axis_name` if given.

    The variance by a second pass: E[x²] - E[x]² loses all digits in float32 where |mean| is large.
    """

    def mean(y: Array) -> Array:
        y = jnp.mean(y, axes, keepdims=True)
        return y if axis_name is None else lax.pmean(y, axis_name)

    centred = x - mean(x)
    return centred * lax.rsqrt(mean(centred**2) + eps)


def check_sizes(name: str, sizes: Sequence[int], length: int) -> tuple[int, ...]:
    """`sizes` as a tuple of ints; `ValueError` unless they are `length` or more, all positive."""
    sizes = tuple(sizes)
    if len(sizes) < length or any(int(n) != n or n < 1 for n in sizes):
        raise ValueError(f"{name} = {sizes} must be {length} positive whole numbers at least.")
    return tuple(map(int, sizes))


def count_parameters(params: PyTree) -> int:
    """How many numbers an optimizer moves: the elements of all floating arrays of a PyTree.

    !!! example
        >>> import numpy as np
        >>> count_parameters({"weight": np.ones((3, 4)), "bias": np.ones(4), "name": "first"})
        16
    """
    return sum(leaf.size for leaf in jax.tree.leaves(eqx.filter(params, eqx.is_inexact_array)))


def describe(model: eqx.Module) -> str:
    """One line: the model's name, its options, the number and type of its parameters.

    !!! example
        >>> import jax.numpy as jnp
        >>> from ct_adam.problems.models import MLP
        >>> print(describe(MLP((64, 32, 10), dtype=jnp.float32)))
        MLP(sizes=(64, 32, 10), activation='tanh'): 2410 parameters, float32
    """
    static = [field.name for field in fields(model) if field.metadata.get("static", False)]
    options = ", ".join(f"{name}={getattr(model, name)!r}" for name in static)
    dtype = jnp.result_type(*jax.tree.leaves(eqx.filter(model, eqx.is_inexact_array)))
    return f"{type(model).__name__}({options}): {count_parameters(model)} parameters, {dtype}"
