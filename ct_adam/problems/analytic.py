"""Losses with a formula."""

from collections.abc import Sequence

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float

from ..decays import numbers
from .base import LossProblem


def quadratic(
    spectrum: ArrayLike | Sequence[float],
    minimum: ArrayLike = 0.0,
    rotation_seed: int | None = None,
) -> LossProblem:
    """½ (x - minimum)ᵀ H (x - minimum), H with the eigenvalues `spectrum`.

    **Arguments:**

    - `spectrum`: eigenvalues, shape (d,).
    - `minimum`: where the minimum is, broadcast to (d,).
    - `rotation_seed`: None for a diagonal H; otherwise H is rotated by a random orthogonal matrix
        (Haar, NumPy's default generator with this seed).

    !!! example
        >>> import jax.numpy as jnp
        >>> print(quadratic([1.0, 4.0]).value(jnp.array([1.0, 1.0])))
        2.5
    """
    eigenvalues = numbers("spectrum", spectrum)
    if eigenvalues.ndim != 1 or not np.all(np.isfinite(eigenvalues)):
        raise ValueError(f"spectrum = {spectrum!r} must be a list of finite eigenvalues.")
    hessian = jnp.asarray(eigenvalues)
    if rotation_seed is None:
        return LossProblem(_DiagonalQuadratic(hessian, jnp.asarray(minimum)))
    normal = np.random.default_rng(rotation_seed).standard_normal((eigenvalues.size,) * 2)
    q, r = np.linalg.qr(normal)
    q = q * np.sign(np.diag(r))  # makes the distribution Haar's
    return LossProblem(_DenseQuadratic(jnp.asarray(q * eigenvalues @ q.T), jnp.asarray(minimum)))


class _DiagonalQuadratic(eqx.Module):
    curvatures: Float[Array, " d"]
    minimum: Float[Array, "..."]

    def __call__(self, params: Float[Array, " d"]) -> Float[Array, ""]:
        return jnp.sum(self.curvatures * (params - self.minimum) ** 2) / 2


class _DenseQuadratic(eqx.Module):
    hessian: Float[Array, "d d"]
    minimum: Float[Array, "..."]

    def __call__(self, params: Float[Array, " d"]) -> Float[Array, ""]:
        shift = params - self.minimum
        return shift @ self.hessian @ shift / 2


def rosenbrock(a: float = 1.0, b: float = 100.0) -> LossProblem:
    """Σ b (x_{i+1} - x_i²)² + (a - x_i)²; the minimum for a = 1 is at (1, …, 1).

    !!! example
        >>> import jax.numpy as jnp
        >>> print(rosenbrock().value(jnp.zeros(2)))
        1.0
    """

    def loss(x: Float[Array, " d"]) -> Float[Array, ""]:
        return jnp.sum(b * (x[1:] - x[:-1] ** 2) ** 2 + (a - x[:-1]) ** 2)

    return LossProblem(loss)
