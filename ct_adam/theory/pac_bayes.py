"""The flatness term of a PAC-Bayes bound, for the stationary law of Adam, Adam-ℓ2 and AdamW.

Posterior N(θ*, C), the stationary law (`stationary`); prior N(0, ρI). With x_i = ρ/C_i,

    KL(posterior ‖ prior) = ½ [Σ (ln x_i + 1/x_i) − d + ‖θ*‖²/ρ]

and the sum is the only part that differs between methods that end at one minimum. It rises with
every x_i > 1 and falls with every x_i < 1. Source: EQUATIONS §6; Zhou et al., "Towards
Understanding Convergence and Generalization of AdamW".
"""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float

from ..conventions import not_negative, positive
from ..decays import choice
from .stationary import PRECONDITIONERS, Preconditioner, Rule, stationary_variance


def spread_ratio(
    spectrum: Float[ArrayLike, "*modes"],
    learning_rate: ArrayLike,
    batch_size: ArrayLike,
    weight_decay: ArrayLike,
    prior_variance: ArrayLike,
    rule: Rule = "adamw",
    *,
    preconditioner: Preconditioner = "frozen",
) -> Float[Array, "*modes"]:
    """x = ρ/C, how much wider the prior is than the posterior in each mode.

        frozen   AdamW 2ρb(√σ + λ)/η    Adam-ℓ2 2ρb(√σ + λ/√σ)/η    Adam 2ρb√σ/η
        adam     AdamW 2ρ(√(bσ) + λ)/η  Adam-ℓ2 2ρ√b(√σ + λ/√σ)/η   Adam 2ρ√(bσ)/η

    x is least for Adam, in every mode, and less for AdamW than for Adam-ℓ2 where σ is below
    `crossing_curvature`. Source: EQUATIONS §6; the second row is its with real Adam's √b.

    **Arguments:** `spectrum`: σ > 0, eigenvalues of the Hessian or the Gauss–Newton matrix; small
    ones are the caller's to drop. `prior_variance`: ρ. The others: as `stationary_variance`.

    !!! example
        >>> for rule in ("adamw", "adam_l2", "adam"):
        ...     print(f"{spread_ratio(0.25, 0.1, 10, 0.5, 0.01, rule):.1f}")
        2.0
        3.0
        1.0
    """
    variance = stationary_variance(
        spectrum, learning_rate, batch_size, weight_decay, rule, preconditioner=preconditioner
    )
    return positive("prior_variance", prior_variance) / variance


def flatness_term(ratio: Float[ArrayLike, "*modes"]) -> Float[Array, "*modes"]:
    """ln x + 1/x of each mode; the PAC-Bayes term is their sum. Least, 1, at x = 1.

    **Arguments:** `ratio`: x > 0, as from `spread_ratio`.

    !!! example
        >>> print(flatness_term([1.0, 2.0]).round(4))
        [1.     1.1931]
    """
    x = positive("ratio", ratio)
    return jnp.log(x) + 1 / x


def crossing_curvature(
    batch_size: ArrayLike = 1.0, *, preconditioner: Preconditioner = "frozen"
) -> Float[Array, "..."]:
    """The σ below which AdamW's x is less than Adam-ℓ2's: 1 with Zhou's Q, b with real Adam's.

    There λ < λ/√σ, and λ < √b λ/√σ. Which term is less follows for x > 1 alone.

    !!! example
        >>> print(crossing_curvature(32), crossing_curvature(32, preconditioner="adam"))
        1.0 32.0
    """
    choice("preconditioner", preconditioner, PRECONDITIONERS)
    batch = positive("batch_size", batch_size)
    return batch if preconditioner == "adam" else jnp.ones_like(batch)


def best_prior_variance(
    variance: Float[ArrayLike, " d"], center_square: ArrayLike = 0.0
) -> Float[Array, ""]:
    """The ρ with the least KL: (Σ C_i + ‖θ*‖²)/d.

    At it KL = ½ Σ ln(ρ/C_i). With ‖θ*‖² = 0 that is how unequal the C_i are, not how small: of
    AdamW never more than of Adam, for C ∝ 1/(√σ + λ) is the more equal. Where ‖θ*‖² is large beside
    Σ C_i, ρ hardly depends on the rule and it is how small they are: least of Adam, whose C_i are
    the largest. So which term is smallest depends on prior and centre. (A bound for fitted ρ holds
    on a grid of ρ, at the price of its logarithm.)

    **Arguments:** `variance`: C_i > 0 in all d modes. `center_square`: ‖θ*‖².

    **Raises:** `ValueError` for no modes, a variance that is not positive or a negative ‖θ*‖².

    !!! example
        >>> print(best_prior_variance([1.0, 3.0], 4.0))
        4.0
    """
    variance = positive("variance", variance)
    if not variance.size:
        raise ValueError("variance is empty: give that of one mode at least.")
    return jnp.mean(variance) + not_negative("center_square", center_square) / np.size(variance)
