"""What eps leaves of Adam's largest updates: a denominator √v̂ + eps does not fall below eps.

Notation of `update_bounds.py`: m̂ = Σ w_j g_j, v̂ = Σ z_j g_j² over lags j < n, w_j ∝ b1^j and
z_j ∝ b2^j of sum 1. Gradients are in units of their scale σ, so that eps is eps/σ. Everything is
in log space and in Python's floats: single numbers, which no derivative is asked of.
"""

import math

import numpy as np

_LOG_ZERO = -4000.0
"""ln of a decay of 0: b^j is 1 at j = 0, and after that even its root is 0 beside any float."""


def log_largest(b1: float, b2: float, log_eps: float, steps: int) -> float:
    """ln of the largest m̂/(√v̂ + eps) after `steps` gradients, over all with |g| ≤ 1.

    On the box |g_j| ≤ 1, where m̂ > 0, a linear over a convex function is pseudo-concave, so that
    its stationary point is the maximum: g_j = min(1, λ w_j/z_j) = min(1, λ (b1/b2)^j) with

        (√v̂ + eps) √v̂ w_0/z_0 = λ m̂

    where some lag is free. The left side less the right changes its sign once from + to −: the
    largest m̂ for a given √v̂ is concave in it, and √v̂ grows with λ. For eps = 0 this is the
    worst-case stream and the bound of EQUATIONS §2.

    It never falls with `steps`: the tests j ≥ t tell w from z better over n + 1 lags than over n
    (as (1−b^i)/(1−b^n), i ≤ n, falls in b), so that by Blackwell's theorem a Markov kernel takes
    both weights over n + 1 lags to those over n. A stream averaged by it keeps m̂ and lowers v̂.
    """
    log_b1, log_b2 = _log(b1), _log(b2)
    tilt, product = log_b1 - log_b2, 2 * log_b1 - log_b2  # of w/z and of w²/z, a lag
    if tilt == 0:
        return -float(np.logaddexp(0, log_eps))  # w = z: a constant gradient
    log_w, log_z = (math.log1p(-b) - math.log(-math.expm1(_log(b) * steps)) for b in (b1, b2))

    def moments(level: float) -> tuple[float, float]:
        """ln m̂ and ln √v̂ for ln λ = `level`."""
        edge = -level / tilt  # the lag where λ (b1/b2)^j is 1
        if tilt > 0:
            first = min(math.ceil(edge), steps)
            free, full = (0, first), (first, steps)
        else:
            first = min(math.floor(edge) + 1, steps)
            free, full = (first, steps), (0, first)
        inside = _log_powers(product, *free)
        m = np.logaddexp(_log_powers(log_b1, *full), level + inside)
        v = np.logaddexp(_log_powers(log_b2, *full), 2 * level + inside)
        return float(log_w + m), float(log_z + v) / 2

    low, high = sorted((0.0, -tilt * (steps - 1)))  # one lag at 1; all of them
    for _ in range(200):  # halves any interval of floats to neighbours
        level = (low + high) / 2
        m, s = moments(level)
        if np.logaddexp(s, log_eps) + s + log_w - log_z > level + m:
            low = level
        else:
            high = level
    m, s = moments(low)
    return m - float(np.logaddexp(s, log_eps))


def vanishing(b1: float, b2: float, log_eps: float, steps: float) -> tuple[float, int | float]:
    """ln of the largest update, and when, of a coordinate whose gradient 1 of long has vanished.

    After n steps without it u_n = b1ⁿ/(b2^{n/2} + eps), whose logarithm is concave in n. With
    y = b2^{n/2} and r = 2 ln b1/ln b2 it is y^r/(y + eps), largest at y = r eps/(1 − r), where it
    is r^r (1−r)^{1−r} eps^{r−1}; for r ≥ 1 or y ≥ 1 it falls from the first step.

    **Arguments:** `steps`: where to stop; `inf` for the peak itself, wherever it is.

    **Returns:** (ln u, n); (`inf`, `inf`) where nothing ends the growth.
    """
    log_b1, log_b2 = _log(b1), _log(b2)

    def log_update(n: int) -> float:
        return n * log_b1 - float(np.logaddexp(n * log_b2 / 2, log_eps))

    r = 2 * log_b1 / log_b2
    # A memoryless v without eps is 0 once the gradient is, and the update with it (EQUATIONS §0).
    if r >= 1 or (b2 == 0 and log_eps == -math.inf):
        return log_update(0), 0
    log_y = math.log(r) + log_eps - math.log1p(-r)
    peak = max(0.0, 2 * log_y / log_b2)
    if peak >= steps:
        return (log_update(int(steps)), int(steps)) if steps < math.inf else (math.inf, math.inf)
    n = max(math.floor(peak), math.ceil(peak), key=log_update)
    return log_update(n), n


def _log(b: float) -> float:
    return math.log(b) if b else _LOG_ZERO


def _log_powers(c: float, first: int, last: int) -> float:
    """ln Σ_{first ≤ j < last} e^{c j}, −inf for none."""
    if first >= last:
        return -math.inf
    if c == 0:
        return math.log(last - first)
    largest = c * (last - 1 if c > 0 else first)
    return largest + math.log(math.expm1(-abs(c) * (last - first)) / math.expm1(-abs(c)))
