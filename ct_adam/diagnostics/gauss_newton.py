"""The Gauss–Newton matrix of a network, by its products with vectors.

    G = Jᵀ H_c J      J = ∂outputs/∂θ      H_c = ∂²criterion/∂outputs²

The Hessian without the curvature of the network: positive semidefinite where the criterion is
convex in the outputs, and with cross-entropy the Fisher matrix (Martens, arXiv 1412.1193). Source:
EQUATIONS §6, where a spectrum must be positive.
"""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, PyTree

from .sharpness import largest_eigenvalues

Outputs = Callable[[PyTree], Array]
Criterion = Callable[[Array], Array]


def gauss_newton_product(
    outputs: Outputs, criterion: Criterion, params: PyTree, vector: PyTree
) -> PyTree:
    """G v: one pass forward, one back, whatever the number of parameters.

    **Arguments:**

    - `outputs`: params → outputs on all the data, any shape.
    - `criterion`: outputs → scalar, such as the mean cross-entropy with the labels.
    - `params`: θ, a PyTree of floating arrays. `vector`: v, alike.

    **Returns:** a PyTree like `params`.

    !!! example
        >>> x = jnp.array([[1.0, 2.0], [0.0, 1.0]])
        >>> half = lambda z: jnp.sum(z**2) / 2  # G = XᵀX
        >>> print(gauss_newton_product(lambda w: x @ w, half, jnp.ones(2), jnp.array([1.0, 0.0])))
        [1. 2.]
    """
    seen, moved = jax.jvp(outputs, (params,), (vector,))
    pushed = jax.jvp(jax.grad(criterion), (seen,), (moved,))[1]
    return jax.vjp(outputs, params)[1](pushed)[0]


def gauss_newton_spectrum(
    outputs: Outputs,
    criterion: Criterion,
    params: PyTree,
    count: int | None = None,
    *,
    rtol: float = 1e-6,
    together: int = 32,
) -> Float[np.ndarray, " count"]:
    """Eigenvalues of G, the largest first.

    The largest `count` by ARPACK's Lanczos iteration on products with G, which is never formed; or
    all of them, from the matrix, which d products make and d² numbers hold.

    **Arguments:** as `gauss_newton_product`, and

    - `count`: how many, 1 … d; None: all d. Of all, the smallest are rounding errors, about 1e-15
        of the largest in float64, of either sign.
    - `rtol`: relative error that ARPACK stops at, or below.
    - `together`: columns made at once; memory is so many times that of a pass.

    **Raises:** `ValueError` for a `count` outside its range, and for a G that is not finite.

    !!! example
        >>> x = jnp.diag(jnp.array([1.0, 2.0, 3.0]))
        >>> half = lambda z: jnp.sum(z**2) / 2
        >>> print(gauss_newton_spectrum(lambda w: x @ w, half, jnp.ones(3)).round(6))
        [9. 4. 1.]
        >>> print(gauss_newton_spectrum(lambda w: x @ w, half, jnp.ones(3), 1).round(6))
        [9.]
    """
    size = ravel_pytree(params)[0].size
    if count is not None and (not isinstance(count, int | np.integer) or not 1 <= count <= size):
        raise ValueError(f"count = {count!r} must be a whole number in 1 … {size}, or None.")
    if count is None or count == size:
        matrix = _finite(_matrix(outputs, criterion, params, together))
        return np.linalg.eigvalsh((matrix + matrix.T) / 2)[::-1]

    def product(vector: np.ndarray) -> np.ndarray:
        return _finite(_flat_product(outputs, criterion, params, jnp.asarray(np.ravel(vector))))

    return largest_eigenvalues(product, size, int(count), rtol)


@eqx.filter_jit
def gauss_newton_trace(
    logits: Callable[[PyTree, Array], Array],
    params: PyTree,
    inputs: Array,
    together: int = 32,
) -> Float[Array, ""]:
    """tr G of the mean cross-entropy of softmax: mean over examples of Σ_y p(y)‖∇ log p(y)‖².

    For C = diag p − ppᵀ, the criterion's curvature, is E (e_y − p)(e_y − p)ᵀ with y drawn from the
    network's own p; labels do not enter. Exact: a gradient for every example and class.

    **Arguments:**

    - `logits`: (params, example) → logits, of one example.
    - `params`: θ, a PyTree of floating arrays. `inputs`: examples, along the first axis.
    - `together`: examples worked on at once.

    !!! example
        >>> x = jnp.array([[1.0, 2.0]])  # p = ½, ½: tr C = ½ times ‖x‖² = 5
        >>> print(gauss_newton_trace(lambda w, one: one @ w, jnp.zeros((2, 2)), x))
        2.5
    """

    def of_example(one: Array) -> Array:
        seen, back = jax.vjp(lambda p: logits(p, one), params)
        p = jax.nn.softmax(seen)
        (gradients,) = jax.vmap(back)(jnp.eye(len(p), dtype=p.dtype) - p)
        squares = [jnp.sum(g.reshape(len(p), -1) ** 2, 1) for g in jax.tree.leaves(gradients)]
        return p @ sum(squares)

    return jnp.mean(jax.lax.map(of_example, inputs, batch_size=together))


@eqx.filter_jit
def _flat_product(
    outputs: Outputs, criterion: Criterion, params: PyTree, vector: Float[Array, " d"]
) -> Float[Array, " d"]:
    flat, unravel = ravel_pytree(params)
    along = unravel(vector.astype(flat.dtype))
    return ravel_pytree(gauss_newton_product(outputs, criterion, params, along))[0]


@eqx.filter_jit
def _matrix(
    outputs: Outputs, criterion: Criterion, params: PyTree, together: int
) -> Float[Array, "d d"]:
    flat = ravel_pytree(params)[0]

    def column(i: Array) -> Array:
        return _flat_product(outputs, criterion, params, jnp.zeros_like(flat).at[i].set(1))

    return jax.lax.map(column, jnp.arange(flat.size), batch_size=together)


def _finite(values: Any) -> np.ndarray:
    found = np.asarray(values, float)
    if not np.all(np.isfinite(found)):
        raise ValueError("The Gauss–Newton matrix is not finite at these parameters.")
    return found
