"""How well, and how stably, forward differences of a map stand for its logarithm.

The flow f(z) = Σ_{j ≤ p} (-1)^{j+1}/j Δ^j z of a map Φ (EQUATIONS §1, Interpolating flow) gives a
mode of Φ with multiplier μ the rate ℓ_p(μ) = -Σ_{j ≤ p} (1 - μ)^j / j instead of ln μ.
"""

import math

import numpy as np
from jaxtyping import ArrayLike, Complex

ORDERS = (1, 2, 3, 4, 5, 6)


def interpolated_rate(
    multiplier: ArrayLike, order: int, stride: int = 1
) -> Complex[np.ndarray, "..."]:
    """ℓ_p(μ^q)/q, the rate per step of a mode with multiplier μ in a flow of order p, stride q.

    **Arguments:** `multiplier`: μ, complex, any shape.

    **Returns:** complex rates per optimizer step; ln μ is what they stand for.

    !!! example
        >>> print(f"{interpolated_rate(0.9, 3):.5f}, {np.log(0.9):.5f}")
        -0.10533+0.00000j, -0.10536
    """
    away = 1 - np.asarray(multiplier, complex) ** stride
    terms = np.array([away**j / j for j in range(1, order + 1)])
    return -terms.sum(axis=0) / stride


def stability_radius(order: int) -> float:
    """r_p: the flow of order p damps every mode of Φ with |μ| below it, whatever its phase.

    Orders 1 and 2 damp all that Φ damps: 1. Source: EQUATIONS §1 (ℓ_p is the polynomial of the
    backward differentiation formula, mirrored).

    !!! example
        >>> [round(stability_radius(order), 4) for order in (2, 3, 4)]
        [1.0, 0.9564, 0.8396]
    """
    if order not in ORDERS:
        raise ValueError(f"order = {order!r} must be one of {', '.join(map(str, ORDERS))}.")
    if order <= 2:
        return 1.0  # A-stable, as their backward differentiation formulas are
    circle = np.exp(1j * np.linspace(0, np.pi, 20_001))  # conjugate modes have conjugate rates

    def fastest(radius: float) -> float:
        return float(np.max(np.real(interpolated_rate(radius * circle, order))))

    from scipy.optimize import brentq

    # Where the fastest mode of a circle neither grows nor decays. At |μ| = ½ every order up to 6
    # damps, on the unit circle none above 2 does.
    return float(brentq(fastest, 0.5, 1.0, xtol=1e-12))  # pyright: ignore[reportArgumentType]


def smallest_stride(order: int, modulus: float) -> int:
    """The smallest stride q with |μ|^q ≤ r_p, so that a flow of that order damps the mode.

    For a curved direction of Adam |μ| = √b1: q ≥ 2 ln r_p / ln b1 (EQUATIONS §1).

    !!! example
        >>> smallest_stride(6, 0.9**0.5), smallest_stride(3, 0.9**0.5)
        (9, 1)
    """
    if not 0 < modulus < 1:
        raise ValueError(f"modulus = {modulus} must be in (0, 1): other modes are not damped.")
    return max(1, math.ceil(math.log(stability_radius(order)) / math.log(modulus) - 1e-12))
