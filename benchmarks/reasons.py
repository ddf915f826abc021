"""Why a contender is faster than `auto`, where one is: by race and contender."""

_BY_HAND = (
    "two thirds of our operations (66 against 98 a step of the quadratic): the gradient simplified "
    "by hand where JAX's derivative of the loss "
    "stays as it is written, no guards of a zero second moment (two comparisons and four "
    "selections a parameter), no table to make at the end (2 to 3 ms)."
)
_FEW_LANES = (
    "with fewer than 512 lanes auto does not compile a kernel, which takes 5 to 20 s; the fused "
    "engine takes 31 ms here"
)
_LOW_ORDER = (
    "an order of 3 or 4 is enough for this error, and a Taylor step of that order, one exponential "
    "and one division a coordinate, costs less than six gradients of Tsit5, each with a root and "
    "two divisions. Its order, and its error, move in whole steps: see the other errors."
)
REASONS: dict[str, dict[str, str]] = {
    "Adam, quadratic": {"numba loop": _BY_HAND},
    "Adam, 16-D Rosenbrock chain": {"numba loop": _BY_HAND},
    "Adam, long horizon": {"numba loop": _BY_HAND},
    "flow, quadratic to 0.001": {"heyoka": _LOW_ORDER},
    "flow, quadratic to 0.0001": {"heyoka": _LOW_ORDER},
    "flow, quadratic to 1e-07": {
        "gradsolve": "it missed the error by nine times: at tighter tolerances lanes end at its "
        "limit of 4096 steps.",
    },
    "flow, long horizon": {
        "heyoka": "the path is smooth, and a Taylor series of high order takes long steps on it, "
        "where those of Tsit5 end at the stability of the moments' relaxation (2000 attempts in "
        f"10 000 steps). And {_FEW_LANES}.",
        "gradsolve": f"{_FEW_LANES}.",
    },
}
