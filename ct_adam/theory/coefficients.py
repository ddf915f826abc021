"""Coefficients x of flows with a degree above their order: EXTRA[order, degree].

Written by `tools/derive_coefficients.py --write`, which says what they are best for.
"""

DAMPED = 0.95
"""Modes of Φ up to this modulus are damped by every entry, whatever their phase."""

EXTRA: dict[tuple[int, int], tuple[float, ...]] = {
    (2, 6): (
        0.913298,
        0.910787,
        0.648972,
        0.286558,
    ),
    (3, 7): (
        0.798516,
        0.87078,
        0.601918,
        0.230595,
    ),
}
