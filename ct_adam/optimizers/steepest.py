"""Normalised steepest descent with decoupled decay, and the Frank–Wolfe method that it is.

Source: EQUATIONS §5; Xie & Li (arXiv 2404.04454); Jaggi (ICML 2013) for Frank–Wolfe.
"""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.core import Tracer
from jaxtyping import Array, PyTree

from ..conventions import positive
from ..decays import Scalar, Schedule, check_hyperparameters, choice, learning_rate_at
from ..norms import NORMS, Norm, ball_norm, check_matrix
from .descent import counted_step, descent
from .sign import sign_descent
from .stage import Optimizer, UpdateRule, normalized


def steepest_descent(
    learning_rate: Scalar | Schedule, weight_decay: Scalar = 0.0, norm: Norm = "linf"
) -> Optimizer:
    """θ ← θ - η(u + λθ), u the direction of norm 1 with the largest ⟨g, u⟩.

        linf      u = sign g                  that is `sign_descent`
        l2        u = g/‖g‖₂                  over all leaves together
        spectral  u = UVᵀ of g = U diag(σ) Vᵀ, of every leaf, which must be matrices

    With λ > 0 it is `frank_wolfe` of step ηλ on the ball ‖θ‖ ≤ 1/λ. Source: EQUATIONS §5.

    **Arguments:** `learning_rate` a number or a schedule; `weight_decay` is λ; `norm` as above.
    Where g = 0 (spectral: where a singular value is 0, but for rounding) so is u.

    **Raises:** `ValueError` for a value outside its range or an unknown norm; at the first step,
    for leaves that have no spectral norm.

    !!! example
        >>> optimizer = steepest_descent(0.1, norm="l2")
        >>> grads = jnp.array([3.0, -4.0])
        >>> print(optimizer.update(grads, optimizer.init(grads), grads)[0])
        [-0.06  0.08]
    """
    choice("norm", norm, NORMS)
    if norm == "linf":
        return sign_descent(learning_rate, 0.0, weight_decay)

    def steepest(updates: PyTree, params: PyTree | None = None) -> PyTree:
        del params
        return steepest_direction(updates, norm)

    return descent(optax.stateless(steepest), learning_rate, weight_decay)


def frank_wolfe(
    step_size: Scalar | Schedule | None = None, radius: Scalar = 1.0, norm: Norm = "linf"
) -> Optimizer:
    """θ ← θ + γ(s - θ), s the point of the ball ‖s‖ ≤ radius with the least ⟨g, s⟩.

    It needs no projection: once inside the ball it stays there. Source: Jaggi (ICML 2013).

    **Arguments:**

    - `step_size`: γ in [0, 1], a number or a schedule of the step count; None for 2/(n + 2).
    - `radius`: of the ball, positive: 1/λ of `steepest_descent`. `norm`: as there.

    **Returns:** an optax transformation, whose learning rate is γ·radius and whose decay 1/radius.

    **Raises:** `ValueError` for a value outside its range or an unknown norm.

    !!! example
        >>> optimizer = frank_wolfe(0.5, radius=2.0)
        >>> params, grads = jnp.array([1.0, 0.0]), jnp.array([3.0, -0.1])
        >>> print(params + optimizer.update(grads, optimizer.init(params), params)[0])
        [-0.5  1. ]
    """
    choice("norm", norm, NORMS)
    gamma = _falling if step_size is None else step_size
    named = {"step_size": gamma, "radius": radius}
    _check(gamma, radius)

    def eta(step: Any) -> Any:
        return learning_rate_at(gamma, step) * radius

    def move(count: Array, gradient: PyTree, params: PyTree) -> PyTree:
        size = learning_rate_at(gamma, count)
        corner = jax.tree.map(lambda u: -(u * radius), steepest_direction(gradient, norm))
        return jax.tree.map(lambda s, p: (size * (s - p)).astype(p.dtype), corner, params)

    rule = UpdateRule(eta if callable(gamma) else gamma * radius, 1 / radius)
    return Optimizer.make(counted_step("frank_wolfe", move), rule, named)


def frank_wolfe_rate(weight_decay: Scalar) -> Schedule:
    """η of step n = 0, 1, …: 2/(λ(n + 2)), with which steepest descent is Frank–Wolfe's 2/(n + 2).

    **Raises:** `ValueError` for a λ that is not positive.

    !!! example
        >>> print(frank_wolfe_rate(0.5)(0))
        2.0
    """
    positive("weight_decay", weight_decay)
    return lambda step: _falling(step) / weight_decay


def steepest_direction(gradient: PyTree, norm: Norm = "linf") -> PyTree:
    """u with ‖u‖ ≤ 1 and ⟨g, u⟩ = ‖g‖_*, the dual norm: where g is 0, 0.

    **Arguments:** `gradient`: any PyTree (of matrices for `"spectral"`). `norm`: of u.

    !!! example
        >>> print(steepest_direction(jnp.array([[3.0, 0.0], [0.0, -0.5]]), "spectral"))
        [[ 1.  0.]
         [ 0. -1.]]
    """
    choice("norm", norm, NORMS)
    if norm == "linf":
        return jax.tree.map(lambda g: normalized(g, jnp.square(g), 0.0), gradient)
    if norm == "spectral":
        return jax.tree.map(_polar, gradient)
    largest = ball_norm(gradient)  # first, for squares of small gradients underflow
    scaled = jax.tree.map(lambda g: g / jnp.where(largest > 0, largest, 1), gradient)
    length = ball_norm(scaled, "l2")
    return jax.tree.map(lambda g: g / jnp.where(length > 0, length, 1), scaled)


def _polar(g: Array) -> Array:
    """UVᵀ over the singular values that are not rounding of 0: there any U and V would do."""
    check_matrix(g)
    u, s, v = jnp.linalg.svd(g, full_matrices=False)
    kept = s > max(g.shape) * jnp.finfo(g.dtype).eps * s[0]
    return (u * kept.astype(g.dtype)) @ v


def _falling(step: Any) -> Any:
    # The count is an int32, by which JAX would divide in float32.
    return 2 / (jnp.asarray(step, float) + 2)


def _check(gamma: Any, radius: Any) -> None:
    numbers = {"radius": radius} if callable(gamma) else {"step_size": gamma, "radius": radius}
    check_hyperparameters(numbers)
    known = {name: x for name, x in numbers.items() if not isinstance(x, Tracer)}
    if known.get("radius", 1) == 0:
        raise ValueError("radius = 0 must be positive.")
    if known.get("step_size", 0) > 1:
        raise ValueError(f"step_size = {gamma} must be in [0, 1].")
