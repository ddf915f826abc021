"""Adam's step linearised at a fixed point: does a small disturbance grow or die out?

Source: EQUATIONS §2 (local stability) and §5 (fixed points of AdamW).
"""

import numpy as np
from jaxtyping import ArrayLike, Float

from ..decays import numbers

_NAMES = ("curvature", "gradient", "learning_rate", "b1", "b2", "eps", "weight_decay")


def step_matrix(
    curvature: ArrayLike,
    gradient: ArrayLike,
    learning_rate: ArrayLike,
    b1: ArrayLike,
    b2: ArrayLike,
    eps: ArrayLike = 1e-8,
    weight_decay: ArrayLike = 0.0,
) -> Float[np.ndarray, "... 3 3"]:
    """The derivative of one step (θ, m, v) → (θ⁺, m⁺, v⁺) of AdamW at a fixed point.

    There m = g and v = g², and the bias factors are 1. One coordinate: of several, each has its own
    matrix where the Hessian is diagonal, and each eigenvalue of any Hessian where g = 0. At g = 0
    √v is of first order in the disturbance and its product with m of second: v drops out of the
    first row, for eps > 0. Source: EQUATIONS §2.

    **Arguments:** of shapes that broadcast

    - `curvature`: h = dg/dθ.
    - `gradient`: g at the fixed point: 0 at a minimum, otherwise −λθ = g/(|g| + eps).
    - `learning_rate`, `b1`, `b2`, `eps`, `weight_decay`: η, decays, eps and λ (decoupled).

    **Returns:** `(..., 3, 3)`, rows and columns in the order θ, m, v.

    **Raises:** `ValueError` for eps = 0 where g = 0, where that step has no derivative, for decays
    outside [0, 1), a negative eps, and numbers that are not finite.

    !!! example
        >>> print(step_matrix(2.0, 0.0, 0.1, b1=0.5, b2=0.9, eps=1.0))
        [[ 0.9  -0.05  0.  ]
         [ 1.    0.5   0.  ]
         [ 0.    0.    0.9 ]]
    """
    given = (curvature, gradient, learning_rate, b1, b2, eps, weight_decay)
    h, g, eta, b1, b2, eps, decay = _checked(*given)
    scale = np.abs(g) + eps
    if np.any(scale == 0):
        raise ValueError("At g = 0 the step has no derivative with eps = 0: give a positive eps.")
    # u = m⁺/(√v⁺ + eps): its derivatives in m⁺ and v⁺, and theirs in θ.
    by_m, by_v = 1 / scale, -np.sign(g) / (2 * scale**2)
    m_by_theta, v_by_theta = (1 - b1) * h, (1 - b2) * 2 * g * h
    by_theta = 1 - eta * decay - eta * (by_m * m_by_theta + by_v * v_by_theta)
    zero = np.zeros_like(h)
    rows = [
        [by_theta, -eta * by_m * b1, -eta * by_v * b2],
        [m_by_theta, b1, zero],
        [v_by_theta, zero, b2],
    ]
    return np.stack([np.stack(row, axis=-1) for row in rows], axis=-2)


def _checked(*given: ArrayLike) -> tuple[np.ndarray, ...]:
    """The arguments of a step as arrays of one shape."""
    arrays = np.broadcast_arrays(*map(numbers, _NAMES, given))
    for name, values in zip(_NAMES, arrays, strict=True):
        if not np.all(np.isfinite(values)):
            raise ValueError(f"{name} holds a number that is not finite.")
        if name in ("b1", "b2") and np.any((values < 0) | (values >= 1)):
            raise ValueError(f"{name} must lie in [0, 1).")
        if name == "eps" and np.any(values < 0):
            raise ValueError("eps must not be negative.")
    return tuple(arrays)


def spectral_radius(
    curvature: ArrayLike,
    gradient: ArrayLike,
    learning_rate: ArrayLike,
    b1: ArrayLike,
    b2: ArrayLike,
    eps: ArrayLike = 1e-8,
    weight_decay: ArrayLike = 0.0,
) -> Float[np.ndarray, "..."]:
    """The largest modulus of an eigenvalue of `step_matrix`: above 1 the fixed point is unstable.

    At a minimum (g = 0) it is 1 at the edge h/eps = (1 + b1)(2 − ηλ)/((1 − b1)η), whatever b2 is,
    so that with eps = 1e-8 no minimum is stable at ordinary learning rates. At a fixed point of
    AdamW with g ≠ 0 both decays matter. Source: EQUATIONS §2.

    **Arguments:** as in `step_matrix`. **Returns:** `(...)`.

    **Raises:** as `step_matrix`.

    !!! example
        >>> edge = 0.1 * (1 + 0.9) * 2 / ((1 - 0.9) * 1e-2)  # eps = 0.1, learning rate 0.01
        >>> curvatures = edge * np.array([0.9, 1.1])
        >>> print(spectral_radius(curvatures, 0.0, 1e-2, 0.9, 0.9, 0.1).round(3))
        [0.949 1.772]
    """
    given = (curvature, gradient, learning_rate, b1, b2, eps, weight_decay)
    return np.abs(np.linalg.eigvals(step_matrix(*given))).max(axis=-1)


def stability_edge(learning_rate: float, b1: float = 0.0, weight_decay: float = 0.0) -> float:
    """The preconditioned sharpness above which a step of period two grows at a minimum.

        (1 + b1)(2 − ηλ)/((1 − b1) η)

    with m ← b1 m + (1 − b1) g, decoupled decay λ and the preconditioner frozen: 2/η of gradient
    descent and RMSProp, 38/η of Adam with b1 = 0.9. Source: EQUATIONS §2.

    **Arguments:**

    - `learning_rate`: η > 0.
    - `b1`: first-moment decay in [0, 1), 0 for none.
    - `weight_decay`: λ ≥ 0 with ηλ < 2.

    **Raises:** `ValueError` for values outside these ranges.

    !!! example
        >>> print(f"{stability_edge(0.1):.1f} {0.1 * stability_edge(0.1, b1=0.9):.1f}")
        20.0 38.0
    """
    if not learning_rate > 0:
        raise ValueError(f"learning_rate = {learning_rate} must be positive.")
    if not 0 <= b1 < 1:
        raise ValueError(f"b1 = {b1} must lie in [0, 1).")
    if not 0 <= learning_rate * weight_decay < 2:
        raise ValueError(f"weight_decay = {weight_decay} must lie in [0, 2/learning_rate).")
    return (1 + b1) * (2 - learning_rate * weight_decay) / ((1 - b1) * learning_rate)
