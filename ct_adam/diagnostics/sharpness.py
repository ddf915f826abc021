"""How curved a loss is where an optimizer stands; how curved it may be: `ct.theory.stability_edge`.

Source: EQUATIONS §2 (local stability with the preconditioner frozen); Cohen et al. (ICLR 2021,
arXiv 2103.00065; Adam: arXiv 2207.14484).
"""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, PyTree

from ..problems import AbstractProblem, as_problem
from ..problems.base import Loss


def preconditioned_sharpness(
    loss: Loss | AbstractProblem,
    params: PyTree,
    preconditioner: PyTree | None = None,
    *,
    rtol: float = 1e-3,
) -> float:
    """The largest eigenvalue of P^{-1/2} H P^{-1/2}, H the Hessian of `loss` at `params`.

    By ARPACK's Lanczos iteration on Hessian-vector products: H is never formed. Source:
    EQUATIONS §2.

    **Arguments:**

    - `loss`, `params`: as in `ct.solve`; a problem with data is taken at step 0.
    - `preconditioner`: the diagonal P like `params`, all positive: what an optimizer divides its
        direction by, √v̂ + eps of Adam. None: the identity.
    - `rtol`: relative error of the eigenvalue that ARPACK stops at, or below.

    **Raises:** `ValueError` for a preconditioner that is not positive or not like `params`, and
    for a Hessian that is not finite.

    !!! example
        >>> import jax.numpy as jnp
        >>> loss = lambda x: jnp.sum(jnp.array([1.0, 3.0, 10.0]) * x**2) / 2
        >>> round(preconditioned_sharpness(loss, jnp.ones(3), jnp.array([1.0, 0.1, 1.0])), 3)
        30.0
    """
    size = ravel_pytree(params)[0].size
    root = np.ones(size) if preconditioner is None else _root(preconditioner, params)
    problem = as_problem(loss)

    def product(vector: np.ndarray) -> np.ndarray:
        right = jnp.asarray(np.ravel(vector) / root)
        product = np.asarray(_hessian_product(problem, params, right), float) / root
        if not np.all(np.isfinite(product)):
            raise ValueError("The loss has no finite second derivative at these parameters.")
        return product

    return float(largest_eigenvalues(product, size, 1, rtol)[0])


def largest_eigenvalues(
    product: Callable[[np.ndarray], np.ndarray], size: int, count: int, rtol: float
) -> Float[np.ndarray, " count"]:
    """Those of a symmetric matrix of which only products are known, by ARPACK; the largest first,
    `count` below `size` (or 1 of 1)."""
    from scipy.sparse.linalg import LinearOperator, eigsh

    if size == 1:
        return product(np.ones(1))  # Lanczos wants two dimensions at least
    # A start of its own, so that equal arguments give equal numbers.
    start = np.random.default_rng(0).standard_normal(size)
    operator = LinearOperator((size, size), matvec=product, dtype=float)  # pyright: ignore[reportCallIssue]
    options: dict[str, Any] = {"which": "LA", "v0": start, "tol": rtol}
    return np.sort(eigsh(operator, k=count, return_eigenvectors=False, **options))[::-1]


@eqx.filter_jit
def _hessian_product(
    problem: AbstractProblem, params: PyTree, vector: Float[Array, " n"]
) -> Float[Array, " n"]:
    unravel = ravel_pytree(params)[1]
    along = unravel(vector.astype(ravel_pytree(params)[0].dtype))
    product = jax.jvp(lambda p: problem.gradient(0, p), (params,), (along,))[1]
    return ravel_pytree(product)[0]


def _root(preconditioner: PyTree, params: PyTree) -> np.ndarray:
    """√P as one vector."""
    shapes = [jax.tree.map(jnp.shape, tree) for tree in (preconditioner, params)]
    if shapes[0] != shapes[1]:
        raise ValueError(f"The preconditioner has shapes {shapes[0]}, the parameters {shapes[1]}.")
    diagonal = np.asarray(ravel_pytree(preconditioner)[0], float)
    if not np.all(diagonal > 0):
        raise ValueError("The preconditioner must be positive: add the optimizer's eps.")
    return np.sqrt(diagonal)
