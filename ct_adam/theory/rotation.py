"""How fast the direction of a scale-invariant weight turns, and what a practitioner sets by it.

Only Ŵ = W/‖W‖ is seen by the loss: Ŵ' = −(η/‖W‖)(I − ŴŴᵀ)u. In balance (`stationary_norm`) the
angle of a step depends on ηλ alone: η and λ are one hyperparameter once ‖W‖ has forgotten its
start, after a few 1/(2ηλ) steps. Source: EQUATIONS §3; with b1 it is the angle of Kosson, Messmer
& Jaggi (arXiv 2305.17212) for AdamW.
"""

import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, ArrayLike, Float

from ..decays import choice
from ._arguments import arrays, check, check_shrink
from .scale_invariance import STATIONARY, Stationary


def effective_learning_rate(learning_rate: ArrayLike, norm: ArrayLike) -> Float[Array, "..."]:
    """η/‖W‖, the step size of the direction.

    !!! example
        >>> print(effective_learning_rate(0.5, 4.0))
        0.125
    """
    check(learning_rate=learning_rate)
    eta, norm = arrays(learning_rate, norm)
    return eta / norm


def angular_update(
    norm: ArrayLike,
    update_norm: ArrayLike,
    inner: ArrayLike,
    learning_rate: ArrayLike,
    weight_decay: ArrayLike = 0.0,
) -> Float[Array, "..."]:
    """The angle in radians by which one step W⁺ = (1−ηλ)W − ηu turns W. Exact for any W.

    **Arguments:** as `weight_norm_step`; arrays broadcast.

    !!! example
        >>> print(angular_update(1.0, 1.0, 0.0, 1.0).round(4))  # 45 degrees
        0.7854
    """
    check(learning_rate=learning_rate, weight_decay=weight_decay)
    norm, update_norm, inner, eta, decay = arrays(
        norm, update_norm, inner, learning_rate, weight_decay
    )
    outwards = inner / norm
    sideways = jnp.sqrt(jnp.maximum(update_norm**2 - outwards**2, 0))
    return jnp.arctan2(eta * sideways, (1 - eta * decay) * norm - eta * outwards)


def equilibrium_angle(
    learning_rate: ArrayLike,
    weight_decay: ArrayLike,
    b1: ArrayLike = 0.9,
    kind: Stationary = "corrected",
) -> Float[Array, "..."]:
    """The angle of a step in radians where the norm is stationary: whatever the gradients' scale.

        "uncorrected"  √(2ηλ)        "corrected"  √(2ηλ (1−b1)/(1+b1))

    `"exact"`: of the discrete recursion, ηλ not small. Source: EQUATIONS §3; Kosson et al.
    (arXiv 2305.17212). Steps are correlated over 1/(1−b1) of them, so that over many the direction
    wanders by √(2ηλ) a step whatever b1 is.

    **Arguments:** η, λ with ηλ in (0, 1], b1 in [0, 1).

    **Raises:** `ValueError` for values outside their range.

    !!! example
        >>> print(f"{equilibrium_angle(1e-3, 0.1, 0.9):.6f}")
        0.003244
    """
    choice("kind", kind, STATIONARY)
    check(learning_rate=learning_rate, weight_decay=weight_decay, b1=b1)
    check_shrink(learning_rate, weight_decay)
    eta, decay, b1 = arrays(learning_rate, weight_decay, b1)
    shrink = eta * decay
    if kind == "uncorrected":
        return jnp.sqrt(2 * shrink)
    if kind == "corrected":
        return jnp.sqrt(2 * shrink * (1 - b1) / (1 + b1))
    # In units of ‖W‖: η²‖u‖² from the stationary norm, η⟨W, u⟩ from the recursion of ⟨W, m⟩.
    q = b1 * (1 - shrink)
    square = shrink * (2 - shrink) * (1 - q) / (1 + q)
    inner = -square * b1 / (1 - q)
    return angular_update(1.0, jnp.sqrt(square), inner, 1.0, shrink)


def warm_up_steps(learning_rate: ArrayLike, weight_decay: ArrayLike) -> Float[Array, "..."]:
    """1/(2ηλ): the steps in which ‖W‖² comes e times closer to its balance.

    !!! example
        >>> print(f"{warm_up_steps(1e-3, 0.1):.0f}")
        5000
    """
    check(learning_rate=learning_rate, weight_decay=weight_decay)
    check_shrink(learning_rate, weight_decay)
    eta, decay = arrays(learning_rate, weight_decay)
    return 1 / (2 * eta * decay)


def rescaled(
    norm: ArrayLike, learning_rate: ArrayLike, weight_decay: ArrayLike, factor: ArrayLike
) -> tuple[Array, Array, Array]:
    """(‖W₀‖, η, λ) → (α‖W₀‖, αη, λ/α): the same directions at every step, for eps = 0.

    u does not change with the scale of W then, so W moves as αW. Of the three, ηλ and η/‖W₀‖
    matter; and once the start is forgotten, ηλ alone. Source: EQUATIONS §3.

    **Returns:** the new ‖W₀‖, η and λ.

    **Raises:** `ValueError` for a factor that is not positive.

    !!! example
        >>> print(*rescaled(1.0, 0.25, 0.5, 2.0))
        2.0 0.5 0.25
    """
    check(learning_rate=learning_rate, weight_decay=weight_decay)
    if not isinstance(factor, Tracer) and not np.all(np.asarray(factor, float) > 0):
        raise ValueError(f"factor = {factor} must be positive.")
    norm, eta, decay, factor = arrays(norm, learning_rate, weight_decay, factor)
    return factor * norm, factor * eta, decay / factor
