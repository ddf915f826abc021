"""How fast descent with decoupled decay gets into its ball ‖x‖ ≤ 1/λ, and to the minimum there.

Source: EQUATIONS §5; Xie & Li (arXiv 2404.04454). Of the Frank–Wolfe method on that ball, which
normalised steepest descent with decay is; and of Adam's update, which on average is no longer than
that of sign descent where b1 ≤ b2.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, PyTree

from ..decays import check_hyperparameters


def average_update(
    updates: PyTree, learning_rates: ArrayLike | Sequence[float] | None = None
) -> PyTree:
    """Δ̄_T = Σ η_n u_{n+1} / Σ η_n over n < T, for every T: what drives x when decay forgets slowly.

    **Arguments:** `updates`: u, a PyTree with a leading axis of steps, as `Trajectory.update`;
    `learning_rates`: η_n (steps,), or None for a constant one. **Returns:** as `updates`; entry
    T − 1 averages the first T. Source: EQUATIONS §5; Xie & Li (arXiv 2404.04454).

    !!! example
        >>> print(average_update(jnp.array([1.0, 0.0, -1.0]), [1.0, 1.0, 2.0]))
        [ 1.    0.5  -0.25]
    """
    steps = len(jax.tree.leaves(updates)[0])
    eta = jnp.ones(steps) if learning_rates is None else jnp.asarray(learning_rates, float)
    if eta.shape != (steps,):
        raise ValueError(
            f"learning_rates has shape {eta.shape}: give one for each of {steps} steps."
        )
    time = jnp.cumsum(eta)

    def leaf(u: Array) -> Array:
        shape = (steps,) + (1,) * (u.ndim - 1)
        return jnp.cumsum(eta.reshape(shape) * u, axis=0) / time.reshape(shape)

    return jax.tree.map(leaf, updates)


def average_update_bound(
    b1: float, b2: float, time: ArrayLike, largest_rate: ArrayLike, spread: ArrayLike = 0.0
) -> Float[Array, "..."]:
    """√(1 + (η₀/Ση) K (1 + R)), K = (b2−b1)/((1−b1)(1−b2)): above |Δ̄_T| of Adam, b1 ≤ b2, eps = 0.

    u² is at most the average of g²/v̂ over the first moment's memory (Jensen); what b2 remembers of
    v telescopes but for R. So K steps pass before the average is one of a sign. The form is
    Xie & Li's (their lemma on the average update); the constant is derived here, with the bias
    factors of EQUATIONS §1, for a learning rate that does not increase.

    **Arguments:** `time`: Σ η_n of the steps that were averaged, `largest_rate` η₀; `spread`: R =
    ln(max v/min v) of that coordinate over those steps, v > 0 without bias correction.

    **Raises:** `ValueError` for b1 > b2: then nothing bounds the average by 1.

    !!! example
        >>> print(f"{average_update_bound(0.9, 0.999, 990.0, 1.0):.4f}")
        1.4142
    """
    check_hyperparameters({"b1": b1, "b2": b2})
    if b1 > b2:
        raise ValueError(f"b1 = {b1:g} is above b2 = {b2:g}: there is no such bound; take b1 ≤ b2.")
    memory = (b2 - b1) / ((1 - b1) * (1 - b2))
    return jnp.sqrt(
        1 + jnp.asarray(largest_rate) / jnp.asarray(time) * memory * (1 + jnp.asarray(spread))
    )


def constant_rate_bound(
    steps: ArrayLike,
    initial_gap: ArrayLike,
    smoothness: ArrayLike,
    start_norm: ArrayLike,
    learning_rate: ArrayLike,
    weight_decay: ArrayLike,
) -> Float[Array, "..."]:
    """(1−λη)^t gap₀ + (Hη/2λ)(1 + λB)²: above L(x_t) − min L over the ball, at a constant η.

    Of normalised steepest descent with decay, convex L, λη ≤ 1; B = max(1/λ, ‖x₀‖). Source:
    EQUATIONS §5; Xie & Li (arXiv 2404.04454).

    **Arguments:** of shapes that broadcast

    - `steps`: t, steps taken. `initial_gap`: gap₀ = L(x₀) − min, which may be negative outside.
    - `smoothness`: H, the smoothness of L in the method's own norm: for a quadratic at most the
        sum of |entries| of the Hessian (ℓ∞), its largest eigenvalue (ℓ2).
    - `start_norm`: ‖x₀‖. `learning_rate`, `weight_decay`: η and λ > 0, λη ≤ 1.

    **Raises:** `ValueError` for λ = 0 or λη > 1.

    !!! example
        >>> print(constant_rate_bound([0, 10, 1000], 2.0, 1.0, 0.0, 0.01, 1.0).round(4))
        [2.02   1.8288 0.0201]
    """
    steps, gap, smoothness, norm, eta, decay = _numbers(
        steps, initial_gap, smoothness, start_norm, learning_rate, weight_decay
    )
    if not np.all((decay > 0) & (eta * decay <= 1) & (eta >= 0)):
        raise ValueError("The rate needs weight_decay > 0 and learning_rate·weight_decay ≤ 1.")
    size = 1 + decay * np.maximum(1 / decay, norm)
    return jnp.asarray((1 - decay * eta) ** steps * gap + smoothness * eta / (2 * decay) * size**2)


def falling_rate_bound(
    steps: ArrayLike, smoothness: ArrayLike, start_norm: ArrayLike, weight_decay: ArrayLike
) -> Float[Array, "..."]:
    """2H(1 + λB)²/(λ²(t + 2)): the same gap after t ≥ 1 steps with η = 2/(λ(t + 1)), t = 1, 2, …

    That is `optimizers.frank_wolfe_rate`. Arguments and errors as `constant_rate_bound`.

    !!! example
        >>> print(falling_rate_bound([2, 998], 1.0, 0.0, 1.0))
        [2.    0.008]
    """
    steps, smoothness, norm, decay = _numbers(steps, smoothness, start_norm, weight_decay)
    if not np.all(decay > 0):
        raise ValueError("The rate needs weight_decay > 0.")
    size = 1 + decay * np.maximum(1 / decay, norm)
    return jnp.asarray(2 * smoothness * size**2 / (decay**2 * (steps + 2)))


def box_steps(
    start_norm: ArrayLike,
    learning_rate: ArrayLike,
    weight_decay: ArrayLike,
    tolerance: float = 0.01,
) -> Float[Array, "..."]:
    """ln((λ‖x₀‖_∞ − 1)/tolerance)/(ηλ): the steps in which decay brings ‖x‖_∞ to (1+tolerance)/λ.

    While |u| ≤ 1 the excess λ‖x‖ − 1 falls at least as e^{−ηλn}; 0 for a start within the
    tolerance. With η = 1 it is learning-rate time Σ η, for schedules. Source: EQUATIONS §5.

    **Raises:** `ValueError` unless λη and the tolerance are positive.

    !!! example
        >>> print(box_steps(2.5, 1e-3, 1.0).round())
        5011.0
    """
    norm, eta, decay = _numbers(start_norm, learning_rate, weight_decay)
    shrink = eta * decay
    if not (np.all(shrink > 0) and tolerance > 0):
        raise ValueError("learning_rate, weight_decay and tolerance must be positive.")
    excess = np.maximum((decay * norm - 1) / tolerance, 1)
    return jnp.asarray(np.log(excess) / shrink)


def _numbers(*values: ArrayLike) -> tuple[np.ndarray, ...]:
    return tuple(np.asarray(value, float) for value in values)
