"""Which tensors of a loss are scale-invariant: found numerically, at random points.

A tensor W is scale-invariant if L(αW) = L(W) for all α > 0, the other tensors at rest; then
⟨W, ∇_W L⟩ = 0, and the two together are EQUATIONS §3's conditions.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

Verdict = Literal["invariant", "nearly", "not", "unused"]
SCALES = (0.5, 0.8, 1.3, 3.0)


class TensorInvariance(NamedTuple):
    """What was measured of one tensor, or of the worst of its slices.

    - `verdict`: `"invariant"` (to rounding), `"nearly"` (but for an eps: both defects small, and
        gone as W grows), `"not"`, or `"unused"`: the loss does not depend on it, so that there is
        nothing to tell.
    - `radial_defect`: the largest |⟨W, g⟩|/(‖W‖‖g‖) over the points.
    - `scaling_defect`: the largest |L(αW) − L(W)|/(‖W‖‖g‖|ln α|) over points and scales.
    - `falloff`: p in radial defect ∝ α^{−p}, NaN where it is rounding: 2 of an eps beside a
        variance, 1 of an eps beside a norm; 0 or below where the defect does not die out as W
        grows, and is no eps.
    - `slices`: how many of how many slices are invariant, or nearly; (1, 1) of a whole tensor.
    """

    name: str
    shape: tuple[int, ...]
    verdict: Verdict
    radial_defect: float
    scaling_defect: float
    falloff: float
    slices: tuple[int, int]


class ScaleInvariance(NamedTuple):
    """A row a tensor, and as `mask` a PyTree like the parameters: True where (nearly) invariant."""

    tensors: tuple[TensorInvariance, ...]
    mask: PyTree

    def __str__(self) -> str:
        head = ("tensor", "shape", "verdict", "radial", "scaling", "falloff", "slices")
        rows = [head, *(_shown(tensor) for tensor in self.tensors)]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = [
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
            for row in rows
        ]
        return "\n".join(lines)


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
        _judged(name or "params", leaf.shape, [look[i] for look in looks], scales, tolerance, near)
        for i, (name, leaf) in enumerate(zip(names, leaves, strict=True))
    )
    mask = structure.unflatten([row.verdict in ("invariant", "nearly") for row in rows])
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


class _Look(NamedTuple):
    """One tensor at one point; arrays over (slices,) or (scales, slices)."""

    size: np.ndarray
    """‖W‖‖g‖"""
    whole: float
    """|L| and the sum of ‖W‖‖g‖ over all tensors: what rounding is relative to."""
    radial: np.ndarray
    radial_scaled: np.ndarray
    change: np.ndarray
    count: int
    """Entries of a slice."""


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
) -> list[_Look]:
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
        here = blocks(leaf, cut, block)
        size, radial = _radial(here, blocks(gradients[i], cut, block))
        change, radial_scaled = np.zeros((2, len(scales), len(here)))
        for k, scale in enumerate(scales):
            for j in range(len(here)):
                scaled = _scaled(leaf, cut, block, j, scale)
                after, moved = at([*leaves[:i], scaled, *leaves[i + 1 :]])
                change[k, j] = abs(after - value)
                defects = _radial(blocks(scaled, cut, block), blocks(moved[i], cut, block))[1]
                radial_scaled[k, j] = defects[j]
        looks.append(_Look(size, whole, radial, radial_scaled, change, here.shape[1]))
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


def _judged(
    name: str,
    shape: tuple[int, ...],
    looks: list[_Look],
    scales: Sequence[float],
    tolerance: float,
    near: float,
) -> TensorInvariance:
    size = np.stack([look.size for look in looks])  # (points, slices)
    whole = np.array([look.whole for look in looks])[:, None]
    radial = np.stack([look.radial for look in looks])
    change = np.stack([look.change for look in looks])  # (points, scales, slices)
    rounding = tolerance * whole
    still = np.all(change <= rounding[:, None], axis=(0, 1))
    # A loss may change without a gradient: behind a stop_gradient, or rounded.
    unused = np.all(size <= rounding, axis=0) & still
    safe = np.where(size > rounding, size, np.inf)
    logs = np.abs(np.log(np.asarray(scales)))[:, None]
    scaling = np.max(change / (safe[:, None] * logs), axis=(0, 1))
    worst_radial = np.max(np.where(size > rounding, radial, 0), axis=0)
    exact = (worst_radial <= tolerance) & still
    falloff = _falloff(looks, scales)
    chance = math.sqrt(looks[0].count)
    close = (np.maximum(worst_radial, scaling) * chance <= near) & (falloff > 0.5)
    verdicts = np.where(
        unused, "unused", np.where(exact, "invariant", np.where(close, "nearly", "not"))
    )
    scaling = np.where(np.all(size <= rounding, axis=0) & ~still, math.inf, scaling)
    worst = max(verdicts.tolist(), key=("unused", "invariant", "nearly", "not").index)
    good = int(np.sum((verdicts == "invariant") | (verdicts == "nearly")))
    radial_defect = float(np.max(worst_radial))
    return TensorInvariance(
        name,
        tuple(shape),
        worst,
        radial_defect,
        float(np.max(scaling)),
        falloff if radial_defect > tolerance else math.nan,
        (good, len(verdicts)),
    )


def _falloff(looks: list[_Look], scales: Sequence[float]) -> float:
    """−d ln(radial defect)/d ln α between the smallest and the largest scale; the median."""
    low, high = int(np.argmin(scales)), int(np.argmax(scales))
    first = np.concatenate([look.radial_scaled[low] for look in looks])
    last = np.concatenate([look.radial_scaled[high] for look in looks])
    there = (first > 0) & (last > 0)
    if not np.any(there):
        return math.nan
    slope = np.log(first[there] / last[there]) / math.log(scales[high] / scales[low])
    return float(np.median(slope))


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


def _shown(tensor: TensorInvariance) -> tuple[str, ...]:
    return (
        tensor.name,
        "×".join(map(str, tensor.shape)) or "scalar",
        tensor.verdict,
        f"{tensor.radial_defect:.1e}",
        f"{tensor.scaling_defect:.1e}",
        "" if math.isnan(tensor.falloff) else f"{tensor.falloff:.1f}",
        f"{tensor.slices[0]}/{tensor.slices[1]}",
    )
