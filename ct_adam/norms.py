"""Norms of a whole PyTree, for which descent is steepest and balls are drawn (EQUATIONS §5)."""

from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from .decays import choice

Norm = Literal["linf", "l2", "spectral"]

NORMS: tuple[Norm, ...] = ("linf", "l2", "spectral")


def ball_norm(tree: PyTree, norm: Norm = "linf") -> Float[Array, ""]:
    """‖x‖: the largest |x_i|, the Euclidean norm, or the largest singular value of any leaf.

    !!! example
        >>> print(ball_norm({"w": jnp.array([3.0, -4.0])}), ball_norm(jnp.array([3.0, 4.0]), "l2"))
        4.0 5.0
    """
    choice("norm", norm, NORMS)
    leaves = leaves_of(tree)
    if norm == "l2":
        return jnp.sqrt(jnp.sum(jnp.stack([jnp.sum(jnp.abs(leaf) ** 2) for leaf in leaves])))
    sizes = leaves if norm == "linf" else [_singular_values(leaf) for leaf in leaves]
    return jnp.max(jnp.stack([jnp.max(jnp.abs(size)) for size in sizes]))


def dual_norm(tree: PyTree, norm: Norm = "linf") -> Float[Array, ""]:
    """max ⟨g, x⟩ over ‖x‖ ≤ 1: the ℓ1, the Euclidean, or the nuclear norm (summed over leaves).

    !!! example
        >>> print(dual_norm({"w": jnp.array([3.0, -4.0])}))
        7.0
    """
    choice("norm", norm, NORMS)
    if norm == "l2":
        return ball_norm(tree, "l2")
    leaves = leaves_of(tree)
    sizes = leaves if norm == "linf" else [_singular_values(leaf) for leaf in leaves]
    return jnp.sum(jnp.stack([jnp.sum(jnp.abs(size)) for size in sizes]))


def leaves_of(tree: PyTree) -> list[Array]:
    """The leaves, or `ValueError` where there are none."""
    leaves = jax.tree.leaves(tree)
    if not leaves:
        raise ValueError("A PyTree has no leaves: give one with one array at least.")
    return leaves


def check_matrix(leaf: Array) -> None:
    """`ValueError` for a leaf that has no spectral norm."""
    if jnp.ndim(leaf) != 2:
        raise ValueError(f"A leaf has shape {jnp.shape(leaf)}: only matrices have a spectral norm.")


def _singular_values(leaf: Array) -> Array:
    check_matrix(leaf)
    return jnp.linalg.svd(leaf, compute_uv=False)
