"""Decoupled weight decay: its half-life, and what it is as ridge.

Source: EQUATIONS §8; Loshchilov & Hutter (arXiv 1711.05101), with α, λ and λ_LH as in
`convert_decay`.
"""

from typing import Literal, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from ..conventions import CONVENTIONS as CONVENTIONS
from ..conventions import Convention as Convention
from ..conventions import convert_decay as convert_decay
from ..conventions import not_negative, positive, within
from ..decays import check_hyperparameters, choice


def normalised_decay(
    decay: ArrayLike, batch: ArrayLike, points: ArrayLike, epochs: ArrayLike
) -> Float[Array, "..."]:
    """λ_LH = λ_norm √(b/(BT)): that is λ_norm over the root of the number of steps.

    **Arguments:** `decay`: λ_norm. `batch`: b. `points`: B, of the training set. `epochs`: T, of
    the run, or with warm restarts of the cycle.

    !!! example
        >>> print(f"{float(normalised_decay(0.05, 128, 50_000, 100)):.3g}")
        0.000253
    """
    steps = positive("points", points) * positive("epochs", epochs) / positive("batch", batch)
    return convert_decay(decay, "normalised", "loshchilov_hutter", steps=steps)


def half_life(learning_rate: ArrayLike, weight_decay: ArrayLike) -> Float[Array, "..."]:
    """Steps in which a weight without gradient halves: ln 2/−ln(1 − ηλ), at a constant η.

    **Returns:** steps; infinite where ηλ = 0, 0 where ηλ = 1, NaN above.

    **Raises:** `ValueError` for a negative η or λ.

    !!! example
        >>> print(f"{float(half_life(1e-3, 0.1)):.1f}")
        6931.1
    """
    share = not_negative("learning_rate", learning_rate) * not_negative(
        "weight_decay", weight_decay
    )
    return jnp.log(2.0) / jnp.abs(jnp.log1p(-share))


def ridge(weight_decay: ArrayLike, momentum: ArrayLike = 0.0) -> Float[Array, "..."]:
    """λ' of the ridge (λ'/2)‖θ‖² at whose minimum SGD with decoupled decay comes to rest.

    λ without momentum, where the two are one algorithm (Prop. 1); (1−β)λ with undamped momentum
    m ← βm + g, which is 1/(1−β) gradients long at rest while the decay is not. Source: EQUATIONS
    §8.

    **Arguments:** `weight_decay`: λ, as in optax and `sgdw`. `momentum`: β.

    **Raises:** `ValueError` for a negative λ, or a β outside [0, 1).

    !!! example
        >>> print(f"{float(ridge(0.2, momentum=0.9)):.3f}")
        0.020
    """
    beta = within("momentum", momentum, lambda x: (x >= 0) & (x < 1), "in [0, 1)")
    return not_negative("weight_decay", weight_decay) * (1 - beta)


class NearestRidge(NamedTuple):
    """λ' of the best ridge, and what it misses of the decay in the worst coordinate."""

    coefficient: Array
    residual: Array


def nearest_ridge(
    scales: Float[Array, " n"], decay: ArrayLike, learning_rate: ArrayLike
) -> NearestRidge:
    """Prop. 2: how near a ridge comes to the decay of a step −αg/s, s not all equal.

    At |θ_i| = 1 the decay moves coordinate i by λ_LH, the ridge by αλ'/s_i. The λ' that makes the
    largest difference least leaves λ_LH (s_max − s_min)/(s_max + s_min). Source: EQUATIONS §8.

    **Arguments:** `scales`: s > 0, for Adam √v̂ + eps. `decay`: λ_LH. `learning_rate`: α.

    **Raises:** `ValueError` for a scale or an α that is not positive, or a negative decay.

    !!! example
        >>> print(f"{float(nearest_ridge(jnp.array([1.0, 3.0]), 0.01, 0.1).residual):.4f}")
        0.0050
    """
    scales = positive("scales", scales)
    most, least = jnp.max(scales), jnp.min(scales)
    decay, total = not_negative("decay", decay), most + least
    coefficient = 2 * decay * most * (least / total) / positive("learning_rate", learning_rate)
    return NearestRidge(coefficient, decay * (most - least) / total)


def scale_adjusted_ridge(
    params: Float[Array, " n"],
    scales: Float[Array, " n"],
    decay: ArrayLike,
    learning_rate: ArrayLike,
    form: Literal["derived", "printed"] = "derived",
) -> Float[Array, ""]:
    """Prop. 3: the penalty whose step −α∇/s is the decay, (λ'/2)‖θ⊙√s‖² with λ' = λ_LH/α.

    `"printed"` is the paper's λ'/(2α), which decays 1/α times as fast. Source: EQUATIONS §8.

    **Arguments:** as `nearest_ridge`; `params`: θ.

    !!! example
        >>> import jax
        >>> theta, s = jnp.array([1.0, -2.0]), jnp.array([0.5, 4.0])
        >>> gradient = jax.grad(scale_adjusted_ridge)(theta, s, 0.01, 0.1)
        >>> print(-0.1 * gradient / s)  # -0.01 θ
        [-0.01  0.02]
    """
    choice("form", form, ("derived", "printed"))
    alpha = positive("learning_rate", learning_rate)
    coefficient = jnp.asarray(decay, float) / alpha / 2
    if form == "printed":
        coefficient = coefficient / alpha
    return coefficient * jnp.sum(scales * jnp.square(params))


class Zhou(NamedTuple):
    """Hyperparameters of `ct.adamw` for one of Zhou et al."""

    b1: float
    b2: float
    eps: float
    eps_root: float
    weight_decay: float


def from_zhou(beta1: float, beta2: float, delta: float, weight_decay: float) -> Zhou:
    """Zhou et al. weight the *new* gradient by β, and put δ inside the root.

    They start at m = g, v = g² and correct no bias: give `uncorrected(state, gradient)` as the
    first state. Their λ_k = λ(1−μ)^k is a schedule of `decoupled`. Source: EQUATIONS §0 and §6.

    **Raises:** `ValueError` for a β outside (0, 1], or a negative δ or λ.

    !!! example
        >>> print(from_zhou(0.1, 0.01, 1e-3, 0.1))
        Zhou(b1=0.9, b2=0.99, eps=0.0, eps_root=0.001, weight_decay=0.1)
    """
    for name, beta in {"beta1": beta1, "beta2": beta2}.items():
        if not 0 < beta <= 1:
            raise ValueError(f"{name} = {beta} must be in (0, 1]: it weights the new gradient.")
    check_hyperparameters({"delta": delta, "weight_decay": weight_decay})
    return Zhou(1 - beta1, 1 - beta2, 0.0, delta, weight_decay)
