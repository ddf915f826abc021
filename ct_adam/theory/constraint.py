"""AdamW as descent under a constraint: min L over the ball ‖x‖ ≤ 1/λ, ℓ∞ for AdamW.

Source: EQUATIONS §5; Xie & Li (arXiv 2404.04454). Decoupled decay with normalised steepest descent
is the Frank–Wolfe method on that ball, and AdamW with eps = 0, where it converges, ends at a KKT
point of the box: ‖x‖_∞ ≤ 1/λ and ‖∇L‖₁ + λ⟨x, ∇L⟩ = 0. With eps > 0 it ends inside, at a
stationary point of L plus a barrier. Sums and norms are over all leaves of a PyTree; λ = 0 is no
constraint. Of whole trajectories: `constraint_path`. How fast: `constraint_rates`.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, PyTree

from ..decays import check_hyperparameters
from ..norms import Norm, ball_norm, dual_norm, leaves_of

Number = Float[Array, ""]


def kkt_residual(
    params: PyTree, grads: PyTree, weight_decay: ArrayLike, norm: Norm = "linf"
) -> tuple[Number, Number]:
    """How far x is from a KKT point of min L over ‖x‖ ≤ 1/λ: both are 0 there and only there.

        stationarity ‖g‖_* + λ⟨x, g⟩        feasibility max(0, ‖x‖ − 1/λ)

    ‖·‖_* is the dual norm, ℓ1 for the box. Stationarity can be negative outside the ball; inside
    it is λ times `frank_wolfe_gap`. Source: EQUATIONS §5.

    **Arguments:**

    - `params`, `grads`: x and ∇L(x), PyTrees alike of real arrays.
    - `weight_decay`: λ. At λ = 0 nothing is forbidden: stationarity ‖g‖_*, feasibility 0.
    - `norm`: `"linf"` (AdamW, sign descent), `"l2"`, or `"spectral"` (leaves are matrices).

    **Returns:** stationarity and feasibility, two scalars.

    **Raises:** `ValueError` for an unknown norm, a negative λ, PyTrees that are not alike or have
    no leaves, and complex leaves.

    !!! example
        >>> residual = kkt_residual(jnp.array([1.0, 2.0]), jnp.array([-0.5, 0.0]), 1.0)
        >>> print(*residual)  # x₁ is held by the box, x₂ outside
        0.0 1.0
    """
    check_hyperparameters({"weight_decay": weight_decay})
    _check_alike(params, grads)
    stationarity = dual_norm(grads, norm) + weight_decay * _inner(params, grads)
    outside = jnp.maximum(ball_norm(params, norm) - _radius(weight_decay), 0)
    return stationarity, outside


def frank_wolfe_gap(
    params: PyTree, grads: PyTree, weight_decay: ArrayLike, norm: Norm = "linf"
) -> Number:
    """⟨x, g⟩ + ‖g‖_*/λ, the largest ⟨x − s, g⟩ over the ball ‖s‖ ≤ 1/λ: the duality gap.

    For convex L it is above L(x) minus the minimum over the ball, whether x is inside or not.
    Without a ball (λ = 0) it is infinite, or 0 where g = 0. Arguments as `kkt_residual`.

    !!! example
        >>> print(frank_wolfe_gap(jnp.array([0.0]), jnp.array([-2.0]), 0.5))
        4.0
    """
    check_hyperparameters({"weight_decay": weight_decay})
    _check_alike(params, grads)
    size = dual_norm(grads, norm)
    away = jnp.where(size == 0, 0.0, size * _radius(weight_decay))
    return _inner(params, grads) + away


class Residuals(NamedTuple):
    """‖x‖, the two KKT residuals and ‖g‖_*, to which stationarity compares."""

    norm: Array
    stationarity: Array
    feasibility: Array
    gradient: Array


def residuals(
    params: PyTree, grads: PyTree, weight_decay: ArrayLike, norm: Norm = "linf"
) -> Residuals:
    """`kkt_residual` with ‖x‖ and ‖g‖_*. Arguments as there.

    !!! example
        >>> print(residuals(jnp.array([2.0]), jnp.array([-1.0]), 1.0).stationarity)
        -1.0
    """
    kkt = kkt_residual(params, grads, weight_decay, norm)
    return Residuals(ball_norm(params, norm), *kkt, dual_norm(grads, norm))


def constraint_path(
    params: PyTree, gradient: Callable[[PyTree], PyTree], weight_decay: ArrayLike,
    norm: Norm = "linf",
) -> Residuals:  # fmt: skip
    """`residuals` along a trajectory of any optimizer or flow.

    **Arguments:**

    - `params`: a PyTree whose leaves have a leading axis of points, as `Trajectory.params`.
    - `gradient`: x → ∇L(x), such as `jax.grad(loss)`. `weight_decay`, `norm`: as `kkt_residual`.

    **Returns:** `Residuals` of shape (n,).

    !!! example
        >>> import ct_adam as ct
        >>> loss = lambda x: jnp.sum((x - 2) ** 2) / 2
        >>> path = ct.run(ct.sign_descent(0.5, weight_decay=1.0), loss, jnp.array([0.0]), 2)
        >>> print(constraint_path(path.params, jax.grad(loss), 1.0).stationarity)
        [2.    0.75  0.3125]
    """
    leaves_of(params)
    return jax.lax.map(lambda x: residuals(x, gradient(x), weight_decay, norm), params)


def adamw_barrier(
    params: PyTree, weight_decay: ArrayLike, eps: ArrayLike = 1e-8, eps_root: ArrayLike = 0.0
) -> Number:
    """(1/λ) ΣΨ(λ|x_i|), which eps and eps_root add to the loss: AdamW's fixed points are stationary
    points of L plus this. Source: EQUATIONS §5.

        Ψ(y) = √δ − s + eps ln[(eps + s)/((eps + √δ)(1 − y²))]        s = √(δ + (eps² − δ) y²)

    δ is eps_root. AdamW rests where m̂/(√(v̂ + δ) + eps) = −λx, of a gradient that is minus the
    barrier's derivative. For δ = 0 the barrier is eps Σ[−|x| − ln(1 − λ|x|)/λ], for eps = 0 it is
    (√δ/λ) Σ[1 − √(1 − λ²x²)].

    **Arguments:** `params`: x, any PyTree. `weight_decay`: λ. `eps`, `eps_root`: as in `ct.adamw`.

    **Returns:** the barrier without L: `inf` outside the box |x_i| ≤ 1/λ, on its edge too if
    eps > 0; 0 for λ = 0, and inside for eps = eps_root = 0.

    **Raises:** `ValueError` for a negative λ, eps or eps_root.

    !!! example
        >>> print(adamw_barrier(jnp.array([0.5]), 1.0, 0.1).round(6))  # 0.1 (ln 2 − ½)
        0.019315
        >>> print(adamw_barrier(jnp.array([1.5]), 1.0))
        inf
    """
    check_hyperparameters({"weight_decay": weight_decay, "eps": eps, "eps_root": eps_root})
    total = _total(
        jnp.sum(_barrier(jnp.abs(weight_decay * x), eps, eps_root)) for x in leaves_of(params)
    )
    decays = jnp.asarray(weight_decay) > 0
    return jnp.where(decays, total / jnp.where(decays, weight_decay, 1), 0)


def _barrier(y: Array, eps: Any, delta: Any) -> Array:
    """Ψ(y). Both branches of every `where` have finite derivatives, so that a gradient of L plus
    the barrier has no NaN at 0, at the edge or outside."""
    smooth = jnp.asarray(eps) > 0
    outside = jnp.where(smooth, y >= 1, y > 1)  # NaN stays NaN
    y = jnp.where(outside, 0, y)
    square = delta + (eps**2 - delta) * y**2
    positive = square > 0
    s = jnp.where(positive, jnp.sqrt(jnp.where(positive, square, 1)), 0)
    start = jnp.sqrt(jnp.asarray(delta))
    whole = jnp.where(smooth, eps + start, 1)
    y_log = jnp.where(smooth, y, 0)  # at eps = 0 the edge, y = 1, is inside
    log = jnp.log(jnp.where(smooth, eps + s, 1) / whole) - jnp.log1p(-y_log) - jnp.log1p(y_log)
    return jnp.where(outside, jnp.inf, start - s + eps * log)


def quadratic_fixed_point(
    curvature: ArrayLike, minimum: ArrayLike, weight_decay: ArrayLike, eps: ArrayLike
) -> Float[Array, "..."]:
    """Where AdamW, AdamProx and their flows end on L = ½h(x − a)², coordinate by coordinate.

    λ|x| = |g|/(|g| + eps) makes x the smaller root of hλx² − (h + hλ|a| + λeps)x + h|a| = 0, with
    the sign of a; for eps = 0 it is a, clipped to 1/λ. Source: EQUATIONS §5. Adam-ℓ2 goes to the
    ridge solution ha/(h + λ), whatever eps is.

    **Arguments:** h > 0, a, λ ≥ 0 and eps ≥ 0, of shapes that broadcast. **Returns:** x.

    **Raises:** `ValueError` for values outside these ranges.

    !!! example
        >>> print(quadratic_fixed_point(1.0, 2.0, 1.0, [0.0, 0.1]))
        [1.         0.91557112]
    """
    h, a, decay, eps = (np.asarray(x, float) for x in (curvature, minimum, weight_decay, eps))
    if not (np.all(h > 0) and np.all(decay >= 0) and np.all(eps >= 0)):
        raise ValueError("curvature must be positive, weight_decay and eps not negative.")
    middle = h + h * decay * np.abs(a) + decay * eps
    # As 2c/(−b + √…): the difference −b − √… would lose the digits of a small root. (b² − 4c in a
    # form that rounding cannot make negative.)
    root = np.sqrt(
        (h - h * decay * np.abs(a)) ** 2 + decay * eps * (middle + h + h * decay * np.abs(a))
    )
    return jnp.asarray(2 * h * a / (middle + root))


def _radius(weight_decay: ArrayLike) -> Array:
    """1/λ, the radius of the ball; infinite for λ = 0."""
    decay = jnp.asarray(weight_decay, float)
    return jnp.where(decay > 0, 1 / jnp.where(decay > 0, decay, 1), jnp.inf)


def _check_alike(params: PyTree, grads: PyTree) -> None:
    ours, theirs = leaves_of(params), jax.tree.leaves(grads)
    shapes = [[jnp.shape(leaf) for leaf in leaves] for leaves in (ours, theirs)]
    if jax.tree.structure(params) != jax.tree.structure(grads) or shapes[0] != shapes[1]:
        raise ValueError(
            f"params and grads must be alike: their leaves have shapes {shapes[0]} and {shapes[1]}."
        )
    if any(jnp.iscomplexobj(leaf) for leaf in (*ours, *theirs)):
        raise ValueError("A leaf is complex: give real and imaginary parts as two leaves.")


def _inner(params: PyTree, grads: PyTree) -> Number:
    return _total(jax.tree.leaves(jax.tree.map(lambda x, g: jnp.sum(x * g), params, grads)))


def _total(parts: Any) -> Number:
    return jnp.sum(jnp.stack(list(parts)))
