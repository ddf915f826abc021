"""Why a contender is faster than `auto`, where one is: by race and contender."""

_BY_HAND = (
    "two thirds of our operations (66 against 98 a step of the quadratic): the gradient simplified "
    "by hand where JAX's derivative of the loss "
    "stays as it is written, no guards of a zero second moment (two comparisons and four "
    "selections a parameter), no table to make at the end (1.5 ms)."
)
REASONS: dict[str, dict[str, str]] = {
    "Adam, quadratic": {"numba loop": _BY_HAND},
    "Adam, 16-D Rosenbrock chain": {"numba loop": _BY_HAND},
    "Adam, long horizon": {"numba loop": _BY_HAND},
}
