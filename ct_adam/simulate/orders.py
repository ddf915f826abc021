"""Orders of convergence: the slope of error against step size, with its confidence."""

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import ArrayLike


class OrderFit(NamedTuple):
    """error ≈ `constant` · size^`order`; the order lies in [`low`, `high`] with the confidence that
    was asked for, if the logarithms scatter normally about the line."""

    order: float
    low: float
    high: float
    constant: float


def fit_order(sizes: ArrayLike, errors: ArrayLike, confidence: float = 0.95) -> OrderFit:
    """Least squares of ln error against ln size.

    **Arguments:**

    - `sizes`: step sizes or learning rates, at least three, all positive; `errors`: one each.
    - `confidence`: of the interval, by Student's t with n - 2 degrees of freedom.

    **Returns:** an `OrderFit`.

    **Raises:** `ValueError` for fewer than three pairs, or numbers that have no logarithm.

    !!! example
        >>> fit = fit_order([0.1, 0.05, 0.025], [1e-2, 2.5e-3, 6.25e-4])
        >>> round(fit.order, 3), round(fit.constant, 3)
        (2.0, 1.0)
    """
    from scipy import stats  # 0.3 s: only where it is asked for

    x, y = np.asarray(sizes, float), np.asarray(errors, float)
    if x.ndim != 1 or x.shape != y.shape or len(x) < 3 or len(np.unique(x)) < 2:
        raise ValueError(
            f"{x.size} sizes and {y.size} errors: give one error a size, three or more."
        )
    if not (np.all(x > 0) and np.all(y > 0) and np.all(np.isfinite(x)) and np.all(np.isfinite(y))):
        raise ValueError("Sizes and errors must be positive and finite: they have no logarithm.")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence = {confidence} must be in (0, 1).")
    line: Any = stats.linregress(np.log(x), np.log(y))
    reach = stats.t.ppf((1 + confidence) / 2, len(x) - 2) * line.stderr
    return OrderFit(
        float(line.slope),
        float(line.slope - reach),
        float(line.slope + reach),
        float(np.exp(line.intercept)),
    )
