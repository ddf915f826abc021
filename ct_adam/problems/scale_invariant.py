"""Losses of a direction: multiplying the weight by a positive number changes nothing.

⟨W, g⟩ = 0 and g(αW) = g(W)/α. Source: EQUATIONS §3. Networks of that kind: `text_network` with
`qk_norm`, `image_network` with a `norm`, and `weight_norm_mlp` below.
"""

from collections.abc import Sequence
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Int, PyTree

from ..decays import check_hyperparameters, numbers
from .base import AbstractProblem, LossProblem
from .batches import Minibatches
from .digits import digits_data
from .models import MLP
from .networks import ImageLoss
from .trainable import trainable


def rayleigh_quotient(matrix: ArrayLike) -> LossProblem:
    """WᵀAW/WᵀW, A symmetric: from the smallest to the largest eigenvalue, whatever ‖W‖ is.

    **Arguments:**

    - `matrix`: A, shape (d, d), symmetric.

    **Raises:** `ValueError` for a matrix that is not square, symmetric and finite.

    !!! example
        >>> loss = rayleigh_quotient([[1.0, 0.0], [0.0, 3.0]])
        >>> print(loss.value(jnp.array([0.0, 5.0])), loss.gradient(0, jnp.array([1.0, 1.0])))
        3.0 [-1.  1.]
    """
    array = numbers("matrix", matrix)
    if array.ndim != 2 or array.shape[0] != array.shape[1] or not np.all(np.isfinite(array)):
        raise ValueError(f"matrix of shape {array.shape} must be square, with finite entries.")
    if not np.allclose(array, array.T, rtol=1e-12, atol=0):
        raise ValueError("matrix must be symmetric: give (A + Aᵀ)/2, which has the same quotient.")
    return LossProblem(_RayleighQuotient(jnp.asarray(array)))


class _RayleighQuotient(eqx.Module):
    matrix: Float[Array, "d d"]

    def __call__(self, params: Float[Array, " d"]) -> Float[Array, ""]:
        direction = params / jnp.linalg.norm(params)
        return direction @ self.matrix @ direction


class NormalizedWeight(AbstractProblem):
    """⟨signal·c + noise·z_n, Ŵ⟩, a loss of Ŵ = W/‖W‖ with new normal numbers z_n at every step.

        g_n = (I − ŴŴᵀ)(signal·c + noise·z_n)/‖W‖

    its gradient, orthogonal to W. Without signal: pure projected noise, where the theory of the
    norm is exact. With it Ŵ goes to −c. z_n is a function of the seed and n alone (JAX's
    generator); flows see z_{n+1} over (n, n + 1]. `value` is the mean loss, signal·⟨c, Ŵ⟩.
    Source: EQUATIONS §3.

    Where c rests on few coordinates, Ŵ does in the end, and the projection takes their noise away:
    an elementwise v divides by what is left, and ‖W‖ grows far beyond theory.

    **Arguments:**

    - `direction`: c, of the shape of W; it is divided by its norm.
    - `signal`: the norm of the mean gradient before projection, for ‖W‖ = 1.
    - `noise`: standard deviation of each coordinate. `seed`: of the noise.

    **Raises:** `ValueError` for a direction that is 0 or not finite, and for negative noise.

    !!! example
        >>> problem = NormalizedWeight([0.0, 1.0], signal=3.0, noise=0.0)
        >>> print(problem.gradient(0, jnp.array([2.0, 0.0])))
        [0.  1.5]
    """

    direction: Float[Array, "..."]
    signal: Float[Array, ""]
    noise: Float[Array, ""]
    seed: Int[Array, ""]
    held: ClassVar[bool] = True
    has_value: ClassVar[bool] = True

    def __init__(self, direction: ArrayLike, signal: Any = 0.0, noise: Any = 1.0, seed: Any = 0):
        given = numbers("direction", direction)
        norm = np.linalg.norm(given)
        if not 0 < norm < np.inf:
            raise ValueError("direction must be finite and not 0.")
        check_hyperparameters({"noise": noise})
        self.direction = jnp.asarray(given / norm)
        self.signal, self.noise = jnp.asarray(signal, float), jnp.asarray(noise, float)
        self.seed = jnp.asarray(seed)

    def value(self, params: Float[Array, "..."]) -> Float[Array, ""]:
        return self.signal * jnp.sum(self.direction * params) / jnp.sqrt(jnp.sum(params**2))

    def gradient(self, step: Any, params: Float[Array, "..."]) -> Float[Array, "..."]:
        if params.shape != self.direction.shape:
            raise ValueError(
                f"params of shape {params.shape} must have the direction's, {self.direction.shape}."
            )
        norm = jnp.sqrt(jnp.sum(params**2))
        unit = params / norm
        key = jax.random.fold_in(jax.random.key(self.seed), jnp.asarray(step).astype(int))
        normal = jax.random.normal(key, unit.shape, unit.dtype)
        pull = self.signal * self.direction + self.noise * normal
        return (pull - unit * jnp.sum(unit * pull)) / norm

    @property
    def steps_available(self) -> int | None:
        return None


def normalized_weight(
    dimension: int = 400, signal: float = 0.0, noise: float = 1.0, seed: int = 0
) -> tuple[NormalizedWeight, Float[Array, " d"]]:
    """A `NormalizedWeight` with a random direction spread over all coordinates, and a start.

    **Arguments:** `dimension` d ≥ 2; the others as in `NormalizedWeight`. The seed also draws the
    direction and the start (NumPy's default generator).

    **Returns:** `(problem, params)`, ‖params‖ = 1.

    !!! example
        >>> problem, params = normalized_weight(10, signal=2.0)
        >>> print(abs(params @ problem.gradient(0, params)) < 1e-15)
        True
    """
    if dimension < 2:
        raise ValueError(f"dimension = {dimension} must be 2 or more: in one nothing can turn.")
    direction, start = np.random.default_rng(seed).standard_normal((2, dimension))
    problem = NormalizedWeight(direction, signal, noise, seed)
    return problem, jnp.asarray(start / np.linalg.norm(start))


def weight_norm_mlp(
    hidden: Sequence[int] = (32,), batch: int = 32, seed: int = 0, dtype: Any = None
) -> tuple[Minibatches, PyTree]:
    """A fully connected network on digits whose weights are normalised unit by unit.

    `MLP(weight_norm=True)`: every layer's `direction` is scale-invariant, exactly and column by
    column (Salimans & Kingma, arXiv 1602.07868); `gain` and `bias` are not.

    **Arguments:** `hidden`: units of the hidden layers; `batch`: images a step; `seed`, `dtype`: as
    in `image_network`.

    **Returns:** `(problem, params)`; the problem's `value` is the loss over all 1797 images.

    !!! example
        >>> problem, params = weight_norm_mlp((16,), batch=8)
        >>> [layer.direction.shape for layer in params.layers]
        [(64, 16), (16, 10)]
    """
    inputs, labels = digits_data()
    model = MLP((64, *hidden, 10), seed=seed, weight_norm=True, dtype=dtype)
    params, rebuild = trainable(model)
    return Minibatches(ImageLoss(rebuild), (inputs, labels), batch, seed), params
