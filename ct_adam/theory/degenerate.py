"""Adam at a minimum like |x|^k, k > 2, with eps = 0: it converges as fast as v forgets, or cycles.

There g ∝ x^{k−1} falls so much faster than x that √v is all memory, ∝ b2^{n/2}, and x ∝ rⁿ with
r = b2^{1/(2(k−2))} keeps g/√v ∝ x. In y = x/rⁿ and the step ν in the same scale, an optimizer step
is a map that knows no time; its fixed point is the solution x ∝ rⁿ:

    r y⁺ = y − ν⁺        R ν⁺ = b1 ν + c (1 − b1) y^{k−1}        R = r^{k−1}

c holds the learning rate and v; y adjusts itself to it, so that nothing below depends on either.
Derived here; for a measured phase diagram see arXiv 2603.09581.
"""

import numpy as np
from jaxtyping import ArrayLike, Float


def degenerate_rate(b2: ArrayLike, degree: float) -> Float[np.ndarray, "..."]:
    """ln r = ln b2/(2(k − 2)) per step, at which Adam approaches a minimum like |x|^k, eps = 0.

    **Arguments:**

    - `b2`: second-moment decay(s) in (0, 1).
    - `degree`: k > 2.

    **Returns:** d ln|x|/dn < 0, of the shape of `b2`.

    **Raises:** `ValueError` for values outside these ranges.

    !!! example
        >>> print(degenerate_rate(0.9, 4).round(5))
        -0.02634
    """
    b2 = _checked("b2", b2, degree)
    return np.log(b2) / (2 * (degree - 2))


def degenerate_boundary(b1: ArrayLike, degree: float) -> Float[np.ndarray, "..."]:
    """b2 = b1^{2(k − 2)/k}, above which Adam converges at a minimum like |x|^k (eps = 0).

    There the determinant of the map's derivative, b1/(rR), is 1. b2 = b1 for k = 4, b2 → b1² for
    k → ∞: a flat minimum asks for more than the bounds of the update do. At the lowest b2 a second
    condition, see `degenerate_radius`.

    **Arguments:**

    - `b1`: first-moment decay(s) in [0, 1).
    - `degree`: k > 2.

    **Returns:** b2, of the shape of `b1`.

    **Raises:** `ValueError` for values outside these ranges.

    !!! example
        >>> print(degenerate_boundary(0.9, 4), degenerate_boundary(0.9, 6).round(4))
        0.9 0.8689
    """
    b1 = _checked("b1", b1, degree)
    return b1 ** (2 * (degree - 2) / degree)


def degenerate_radius(b1: ArrayLike, b2: ArrayLike, degree: float) -> Float[np.ndarray, "..."]:
    """The spectral radius of the map's derivative: below 1 the approach at rate r is stable.

    It is 1 on `degenerate_boundary`, with a pair of complex eigenvalues, and at an eigenvalue −1
    where b2 is so low that steps overshoot: at b1 = 0 that is r = (k − 2)/k, b2 = 1/16 for k = 4.

    **Arguments:**

    - `b1`, `b2`: decays in [0, 1) and (0, 1) that broadcast.
    - `degree`: k > 2.

    **Returns:** the radius; where b1 ≥ R, and m keeps more than y could bring, there is no fixed
    point: `inf`.

    **Raises:** `ValueError` for values outside these ranges.

    !!! example
        >>> degenerate_radius(0.9, [0.88, 0.9, 0.95], 4).round(3)
        array([1.011, 1.   , 0.973])
    """
    b1, b2 = np.broadcast_arrays(_checked("b1", b1, degree), _checked("b2", b2, degree))
    # In logarithms: at the lowest b2 of a degree near 2 even r underflows.
    log_r = degenerate_rate(b2, degree)
    with np.errstate(divide="ignore"):
        log_kept = np.log(b1) - (degree - 1) * log_r
    inside = log_kept < 0
    kept = np.exp(np.where(inside, log_kept, 0))
    r = np.exp(np.maximum(log_r, -200))
    fed = (degree - 1) * (1 - r) * (1 - kept)
    matrix = np.stack(
        [np.stack([(1 - fed) / r, -kept / r], axis=-1), np.stack([fed, kept], axis=-1)], axis=-2
    )
    radius = np.abs(np.linalg.eigvals(matrix)).max(axis=-1)
    return np.where(inside, radius, np.inf)


def _checked(name: str, decays: ArrayLike, degree: float) -> Float[np.ndarray, "..."]:
    array = np.asarray(decays, float)
    bad = array[~((array >= 0) & (array < 1)) | ((array == 0) & (name == "b2"))]
    if bad.size:
        allowed = "(0, 1)" if name == "b2" else "[0, 1)"
        raise ValueError(f"{name} = {bad.flat[0]:g} must lie in {allowed}.")
    if not isinstance(degree, int | float) or not 2 < degree < np.inf:
        raise ValueError(
            f"degree = {degree} must be a number above 2: a quadratic minimum is no such."
        )
    return array
