"""Which tensors of a loss are scale-invariant: found numerically, at random points.

A tensor W is scale-invariant if L(αW) = L(W) for all α > 0, the other tensors at rest; then
⟨W, ∇_W L⟩ = 0, and the two together are EQUATIONS §3's conditions.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from .invariance_verdict import SCALE_FREE, Look, ScaleInvariance, judged

SCALES = (0.5, 0.8, 1.3, 3.0)


def find(
    loss: Callable[[PyTree], Any],
    params: PyTree,
    *,
    seed: int = 0,
    points: int = 3,
    spread: float = 0.5,
    scales: Sequence[float] = SCALES,
    tolerance: float = 1e-10,
    near: float = 1e-2,
    axis: int | None = None,
    block: int = 1,
) -> ScaleInvariance:
    """Which tensors of `params` the loss does not see the scale of.

    Both ⟨W, ∇_W L⟩ = 0 and L(αW) = L(W) are tested, in float64, one tensor at a time: an invariance
    that only two tensors have together is none of either. An eps inside a normalisation breaks it
    by about eps/variance; such a tensor is `"nearly"` invariant, and its defects say how nearly.

    **Arguments:**

    - `loss`: `params -> scalar`; of a problem with data its `.value`, which is one.
    - `params`: around which the points are drawn.
    - `seed`, `points`, `spread`: that many points params + spread·rms·(normal numbers), rms that of
        each tensor, 1 where it is all 0.
    - `scales`: the α.
    - `tolerance`: what counts as rounding, relative to ‖W‖‖g‖ and |L|. A sum of n numbers errs by
        up to n units of 1.1e-16, commonly by √n: 1e-10 is worst luck with 10⁶ numbers and common
        with 10¹², and far below the 1e-5 of a usual eps.
    - `near`: the defect, times √n for n entries, up to which a tensor is `"nearly"` invariant, if
        its `falloff` is above ½ too. The √n because the cosine of two random directions is about
        1/√n: in a large tensor a small one says little.
    - `axis`, `block`: test slices instead, every `block` entries of that axis on their own: -1 for
        output channels or units, -1 and 16 for attention heads of 16 features. Tensors that do not
        divide so are tested whole.

    **Returns:** a `ScaleInvariance`; print it.

    **Raises:** `ValueError` without float64, for a loss that is not finite at a point, and for
    settings that make no sense.

    !!! example
        >>> def loss(p):
        ...     return jnp.sum(p["w"]) / jnp.linalg.norm(p["w"]) + jnp.sum(p["b"] ** 2)
        >>> found = find(loss, {"b": jnp.ones(2), "w": jnp.arange(3.0)})
        >>> [tensor.verdict for tensor in found.tensors], found.mask
        (['not', 'invariant'], {'b': False, 'w': True})
    """
    if not callable(loss):
        raise ValueError("loss must be a function of params: give a problem's `value`.")
    _check_settings(points, spread, scales, tolerance, near, block)
    params = jax.tree.map(_double, params)
    leaves, structure = jax.tree.flatten(params)
    names = [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(params)]
    rng = np.random.default_rng(seed)
    looks = [
        _look(loss, structure, [_moved(leaf, spread, rng) for leaf in leaves], scales, axis, block)
        for _ in range(points)
    ]
    rows = tuple(
        judged(name or "params", leaf.shape, [look[i] for look in looks], scales, tolerance, near)
        for i, (name, leaf) in enumerate(zip(names, leaves, strict=True))
    )
    mask = structure.unflatten([row.verdict in SCALE_FREE for row in rows])
    return ScaleInvariance(rows, mask)


def blocks(x: Any, axis: int | None, block: int = 1) -> Any:
    """A tensor's slices as rows: every `block` entries of `axis`; one row of all if that is None.

    **Returns:** an array of NumPy or JAX, as `x` is, of shape (slices, entries).

    !!! example
        >>> print(blocks(np.arange(6).reshape(1, 6), -1, 3))
        [[0 1 2]
         [3 4 5]]
    """
    if axis is None:
        return x.reshape(1, -1)
    if not -x.ndim <= axis < x.ndim or x.shape[axis] % block:
        raise ValueError(f"A tensor of shape {x.shape} has no slices of {block} along axis {axis}.")
    first = axis % x.ndim
    order = (first, *(i for i in range(x.ndim) if i != first))
    return x.transpose(order).reshape(x.shape[first] // block, -1)


@eqx.filter_jit
def _value_and_gradient(loss: Any, params: PyTree) -> tuple[Array, PyTree]:
    def scalar(p: PyTree) -> Array:
        value = jnp.asarray(loss(p))
        if value.shape:
            raise ValueError(f"loss returns an array of shape {value.shape}: it must be a number.")
        return value

    return jax.value_and_grad(scalar)(params)


def _look(
    loss: Any,
    structure: Any,
    leaves: list[np.ndarray],
    scales: Sequence[float],
    axis: int | None,
    block: int,
) -> list[Look]:
    """Every tensor at the point `leaves`, scaled while the others are at rest."""

    def at(moved: list[np.ndarray]) -> tuple[float, list[np.ndarray]]:
        value, gradient = _value_and_gradient(loss, structure.unflatten(moved))
        gradients = [np.asarray(g) for g in jax.tree.leaves(gradient)]
        if not (math.isfinite(value) and all(np.all(np.isfinite(g)) for g in gradients)):
            raise ValueError(
                "The loss or its gradient is not finite at a random point: lower spread, or give a "
                "loss with values (a stream has none)."
            )
        return float(value), gradients

    value, gradients = at(leaves)
    sizes = [np.linalg.norm(w) * np.linalg.norm(g) for w, g in zip(leaves, gradients, strict=True)]
    whole = abs(value) + float(sum(sizes))
    looks = []
    for i, leaf in enumerate(leaves):
        cut = _fitting(leaf, axis, block)
        rows = blocks(leaf, cut, block)
        change, radial_scaled = np.zeros((2, len(scales), len(rows)))
        for k, j in np.ndindex(change.shape):
            scaled = _scaled(leaf, cut, block, j, scales[k])
            after, moved = at([*leaves[:i], scaled, *leaves[i + 1 :]])
            change[k, j] = abs(after - value)
            defects = _radial(blocks(scaled, cut, block), blocks(moved[i], cut, block))[1]
            radial_scaled[k, j] = defects[j]
        size, radial = _radial(rows, blocks(gradients[i], cut, block))
        looks.append(Look(size, whole, radial, radial_scaled, change, rows.shape[1]))
    return looks


def _radial(w: np.ndarray, g: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """‖W‖‖g‖ and |⟨W, g⟩| over it, of each row."""
    size = np.linalg.norm(w, axis=-1) * np.linalg.norm(g, axis=-1)
    inner = np.abs(np.sum(w * g, axis=-1))
    return size, np.divide(inner, size, out=np.zeros_like(inner), where=size > 0)


def _fitting(leaf: np.ndarray, axis: int | None, block: int) -> int | None:
    """The axis, or None where this tensor does not divide along it."""
    fits = axis is not None and -leaf.ndim <= axis < leaf.ndim and leaf.shape[axis] % block == 0
    return axis if fits else None


def _scaled(leaf: np.ndarray, axis: int | None, block: int, which: int, scale: float) -> np.ndarray:
    scaled = np.array(leaf)
    if axis is None:
        return scale * scaled
    np.moveaxis(scaled, axis, 0)[which * block : (which + 1) * block] *= scale
    return scaled


def _moved(leaf: np.ndarray, spread: float, rng: np.random.Generator) -> np.ndarray:
    rms = float(np.sqrt(np.mean(leaf**2)))
    return leaf + spread * (rms or 1.0) * rng.standard_normal(leaf.shape)


def _double(leaf: Any) -> np.ndarray:
    if jnp.result_type(float) != jnp.float64:
        raise ValueError(
            "find tells rounding from an eps and needs float64: set "
            "jax.config.update('jax_enable_x64', True)."
        )
    return np.asarray(leaf, np.float64)


def _check_settings(
    points: int, spread: float, scales: Sequence[float], tolerance: float, near: float, block: int
) -> None:
    if not (0 < tolerance < near < math.inf):
        raise ValueError(f"0 < tolerance = {tolerance} < near = {near} is needed.")
    if points < 1 or block < 1 or not 0 <= spread < math.inf:
        raise ValueError(
            f"points = {points}, block = {block} must be 1 or more, and spread = {spread} finite "
            "and not negative."
        )
    if len(scales) < 2 or len(set(scales)) < len(scales):
        raise ValueError(f"scales = {scales} must be two different numbers at least.")
    if any(not 0 < scale < math.inf or scale == 1 for scale in scales):
        raise ValueError(f"scales = {scales} must be positive numbers other than 1.")
