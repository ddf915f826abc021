"""How well, and how stably, a polynomial in a map stands for its logarithm.

The flow f(z) = Σ_{j ≤ p} (-1)^{j+1}/j Δ^j z of a map Φ (EQUATIONS §1, Interpolating flow) gives a
mode of Φ with multiplier μ the rate ℓ_p(μ) = -Σ_{j ≤ p} (1 - μ)^j / j instead of ln μ. A degree
s > p adds (1 - μ)^{p+1} Σ_{k < s-p} x_k μ^k: the same order, with modes that are damped farther out
and shorter rates (`coefficients.py`).
"""

import math

import numpy as np
from jaxtyping import ArrayLike, Complex

from .coefficients import EXTRA

ORDERS = (1, 2, 3, 4, 5, 6)


def extra_terms(order: int, degree: int | None = None) -> tuple[float, ...]:
    """x of a flow with that degree, empty for the plain logarithm (degree None, or the order).

    **Raises:** `ValueError` that lists the degrees there are.
    """
    whole = isinstance(degree, int) and not isinstance(degree, bool)
    if degree is None or (whole and degree == order):
        return ()
    if not whole or (order, degree) not in EXTRA:
        there = ", ".join(f"({p}, {s})" for p, s in EXTRA)
        raise ValueError(
            f"There are no coefficients of order {order!r} with degree {degree!r}: leave degree "
            f"out, or choose (order, degree) among {there}."
        )
    return EXTRA[order, degree]


def difference_weights(order: int, degree: int | None = None) -> np.ndarray:
    """w_k of f(z) = Σ_k w_k (Φ^{k+1}z - Φ^k z), as many as the degree.

    !!! example
        >>> difference_weights(2)  # Δz - Δ²z/2
        array([ 1.5, -0.5])
    """
    added = extra_terms(order, degree)
    plain = [
        (-1) ** k * sum(math.comb(j - 1, k) / j for j in range(k + 1, order + 1))
        for k in range(order)
    ]
    weights = np.append(np.array(plain), np.zeros(len(added)))
    power = np.array([(-1) ** j * math.comb(order, j) for j in range(order + 1)])  # (1 - μ)^p
    for k, x in enumerate(added):
        weights[k : k + order + 1] -= x * power
    return weights


def interpolated_rate(
    multiplier: ArrayLike, order: int, stride: int = 1, degree: int | None = None
) -> Complex[np.ndarray, "..."]:
    """P(μ^q)/q, the rate per step of a mode with multiplier μ in a flow of order p, stride q.

    **Arguments:** `multiplier`: μ, complex, any shape. `degree`: s ≥ p, of P; None: p.

    **Returns:** complex rates per optimizer step; ln μ is what they stand for.

    !!! example
        >>> print(f"{interpolated_rate(0.9, 3):.5f}, {np.log(0.9):.5f}")
        -0.10533+0.00000j, -0.10536
    """
    power = np.asarray(multiplier, complex) ** stride
    away = 1 - power
    terms = np.array([away**j / j for j in range(1, order + 1)])
    added = sum(x * power**k for k, x in enumerate(extra_terms(order, degree)))
    return (away ** (order + 1) * added - terms.sum(axis=0)) / stride


def error_constant(order: int, degree: int | None = None) -> float:
    """K with P(μ) - ln μ ≈ K (1-μ)^{p+1}/(p+1) for μ near 1; 1 for the plain logarithm.

    !!! example
        >>> error_constant(3)
        1.0
    """
    return 1.0 + (order + 1) * sum(extra_terms(order, degree))


def stability_radius(order: int, degree: int | None = None) -> float:
    """r: the flow damps every mode of Φ with |μ| below it, whatever its phase.

    Orders 1 and 2 damp all that Φ damps: 1. Source: EQUATIONS §1 (ℓ_p is the polynomial of the
    backward differentiation formula, mirrored).

    **Raises:** `ValueError` for another order, or a degree that it does not have.

    !!! example
        >>> [round(stability_radius(order), 4) for order in (2, 3, 4)]
        [1.0, 0.9564, 0.8396]
    """
    if order not in ORDERS:
        raise ValueError(f"order = {order!r} must be one of {', '.join(map(str, ORDERS))}.")
    plain = not extra_terms(order, degree)
    if plain and order <= 2:
        return 1.0  # A-stable, as their backward differentiation formulas are
    circle = np.exp(1j * np.linspace(0, np.pi, 20_001))  # conjugate modes have conjugate rates

    def fastest(radius: float) -> float:
        return float(np.max(np.real(interpolated_rate(radius * circle, order, 1, degree))))

    if fastest(1.0) < 1e-12:  # rounding of 0, the rate of μ = 1
        return 1.0

    from scipy.optimize import brentq

    # Re P is harmonic: its largest value on a circle grows with the radius, and here it turns
    # positive. At |μ| = ½ every order up to 6 damps.
    return float(brentq(fastest, 0.5, 1.0, xtol=1e-12))  # pyright: ignore[reportArgumentType]


def smallest_stride(order: int, modulus: float, degree: int | None = None) -> int:
    """The smallest stride q with |μ|^q ≤ r, so that a flow of that order damps the mode.

    For a curved direction of Adam |μ| = √b1: q ≥ 2 ln r / ln b1 (EQUATIONS §1).

    !!! example
        >>> smallest_stride(6, 0.9**0.5), smallest_stride(3, 0.9**0.5)
        (9, 1)
    """
    if not 0 < modulus < 1:
        raise ValueError(f"modulus = {modulus} must be in (0, 1): other modes are not damped.")
    radius = stability_radius(order, degree)
    return max(1, math.ceil(math.log(radius) / math.log(modulus) - 1e-12))
