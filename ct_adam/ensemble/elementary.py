"""Elementary functions as straight lines, for loops over lanes that LLVM turns into SIMD.

A call into the C library would keep a loop from being vectorised; a polynomial does not. Each
function takes and returns float64, has no branch, and is within `ULP` units in the last place of
the exact value, NaN and infinity included. They inline into generated kernels and are not meant
to be called from Python one number at a time.
"""
# pyright: reportCallIssue=false, reportGeneralTypeIssues=false
# numba's intrinsics take a typing context that a caller does not give.

import math
from typing import Any

import numpy as np
from numba import njit, types
from numba.extending import intrinsic

ULP = 4
"""Largest error: a rounding or two of the reduced argument's series and of its assembly."""

_LOG2E = 1.4426950408889634
# ln 2 in two parts; the first has 32 bits, so that its product with an exponent is exact.
LN2_HIGH, LN2_LOW = 0.6931471803691238, 1.9082149292705877e-10
_ROUND = 1.5 * 2.0**52  # adding it leaves the nearest whole number in a float's low bits
TINY = float(np.finfo(float).tiny)
_HUGE = float(np.finfo(float).max)
_SQRT2 = math.sqrt(2)
_ONE_BITS = 0x3FF0000000000000
_MANTISSA = 0x000FFFFFFFFFFFFF


@intrinsic
def select(typing: Any, condition: Any, a: Any, b: Any):
    """`a if condition else b` of two computed values: no branch."""
    del typing
    a, b = types.unliteral(a), types.unliteral(b)
    if a != b:
        return None

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        del context, signature
        return builder.select(*args)

    return a(types.boolean, a, b), generate


def _reinterpret(context: Any, builder: Any, signature: Any, args: Any) -> Any:
    return builder.bitcast(args[0], context.get_value_type(signature.return_type))


@intrinsic
def _bits(typing: Any, x: Any):
    del typing, x
    return types.uint64(types.float64), _reinterpret


@intrinsic
def _float(typing: Any, x: Any):
    del typing, x
    return types.float64(types.uint64), _reinterpret


inlined = njit(nogil=True, error_model="numpy", fastmath={"contract"}, forceinline=True)


@inlined
def _power_of_two(k):
    """2^k of a whole k in [-1022, 1023]."""
    return _float((_bits(k + _ROUND) << np.uint64(52)) + np.uint64(_ONE_BITS))


@inlined
def _expm1_reduced(r):
    """e^r - 1 for |r| ≤ ln 2 / 2: the series to r^13, whose next term is below 1e-17 r."""
    z = r * r
    even = 1 / 2 + z * (
        1 / 24 + z * (1 / 720 + z * (1 / 40320 + z * (1 / 3628800 + z * (1 / 479001600))))
    )
    odd = 1 / 6 + z * (
        1 / 120 + z * (1 / 5040 + z * (1 / 362880 + z * (1 / 39916800 + z * (1 / 6227020800))))
    )
    return r + z * (even + r * odd)


@inlined
def exp_of_sum(high, low):
    """e^(high + low), |low| ≪ 1."""
    inside = select(high > -800.0, high, -800.0)
    inside = select(inside < 800.0, inside, 800.0)
    low = select(abs(high) < 800.0, low, 0.0)  # beyond, it may be NaN
    k = (inside * _LOG2E + _ROUND) - _ROUND
    r = (inside - k * LN2_HIGH) - (k * LN2_LOW - low)
    # In two factors: the power itself may lie beyond the largest, or below the smallest number.
    half = (k * 0.5 + _ROUND) - _ROUND
    scaled = (1.0 + _expm1_reduced(r)) * _power_of_two(half) * _power_of_two(k - half)
    return select(high == high, scaled, high)


@inlined
def exp(x):
    return exp_of_sum(x, 0.0)


@inlined
def expm1(x):
    inside = select(x > -50.0, x, -50.0)
    inside = select(inside < 710.0, inside, 710.0)
    k = (inside * _LOG2E + _ROUND) - _ROUND
    p = _expm1_reduced((inside - k * LN2_HIGH) - k * LN2_LOW)
    half = _power_of_two(k - 1.0)
    small = 2.0 * (p * half + (half - 0.5))
    result = select(abs(x) < 1e-300, x, small)  # half of a denormal number would be rounded
    return select(x == x, result, x)


@inlined
def split_float(x):
    """x = m·2^e with m in [1/√2, √2], of a positive finite x."""
    denormal = x < TINY
    bits = _bits(select(denormal, x * 2.0**54, x))
    # An exponent's bits below those of 2^52 are the number 2^52 + exponent.
    e = _float((bits >> np.uint64(52)) | np.uint64(0x4330000000000000)) - (2.0**52 + 1023)
    e = select(denormal, e - 54.0, e)
    m = _float((bits & np.uint64(_MANTISSA)) | np.uint64(_ONE_BITS))
    above = m > _SQRT2
    return select(above, m * 0.5, m), select(above, e + 1.0, e)


@inlined
def atanh_tail(z):
    """(2 atanh(s) - 2s)/s³ with z = s² ≤ 0.0295: the series to z^10, next term below 1e-17."""
    return 2 / 3 + z * (
        2 / 5
        + z
        * (
            2 / 7
            + z
            * (
                2 / 9
                + z
                * (
                    2 / 11
                    + z * (2 / 13 + z * (2 / 15 + z * (2 / 17 + z * (2 / 19 + z * (2 / 21)))))
                )
            )
        )
    )


@inlined
def _positive_or(x, finite):
    """A logarithm's special values around its value where x is positive and finite."""
    result = select(x < math.inf, finite, x)
    result = select(x == 0.0, -math.inf, result)
    return select(x < 0.0, math.nan, result)


@inlined
def log(x):
    m, e = split_float(x)
    f = m - 1.0
    s = f / (2.0 + f)
    z = s * s
    half_square = 0.5 * f * f
    # 2 atanh(s) = f - f²/2 + s (f²/2 + its tail): f is exact, the rest is small.
    rest = half_square - (s * (half_square + z * atanh_tail(z)) + e * LN2_LOW)
    return _positive_or(x, e * LN2_HIGH - (rest - f))


@inlined
def log1p(x):
    u = 1.0 + x
    corrected = log(u) + (x - (u - 1.0)) / u
    result = select(u < math.inf, corrected, u)
    result = select(u == 0.0, -math.inf, result)
    return select(abs(x) < 1e-300, x, result)


@inlined
def with_sign(size, x):
    return select(x < 0.0, -size, size)


@inlined
def tanh(x):
    e = expm1(-2.0 * abs(x))
    return with_sign(-e / (2.0 + e), x)


@inlined
def sinh(x):
    size = abs(x)
    e = expm1(select(size < 22.0, size, 22.0))
    w = exp(0.5 * size)
    far = 0.5 * w * w
    return with_sign(select(size < 22.0, 0.5 * (e + e / (e + 1.0)), far), x)


@inlined
def cosh(x):
    size = abs(x)
    e = exp(select(size < 22.0, size, 22.0))
    w = exp(0.5 * size)
    far = 0.5 * w * w
    return select(size < 22.0, 0.5 * e + 0.5 / e, far)


@inlined
def logistic(x):
    e = exp(-abs(x))
    return select(x < 0.0, e, 1.0) / (1.0 + e)


@inlined
def is_negative(x):
    """The sign bit: -0 is negative too."""
    return (_bits(x) >> np.uint64(63)) != np.uint64(0)


@inlined
def maximum(a, b):
    """NaN where one is, as in NumPy and JAX."""
    return select((a > b) | (a != a), a, b)


@inlined
def minimum(a, b):
    return select((a < b) | (a != a), a, b)


@inlined
def sign(x):
    return select(x > 0.0, 1.0, select(x < 0.0, -1.0, x))


@inlined
def next_up(x):
    """The next larger float: half a unit in the last place and a little more is rounded to one."""
    above = x + select(x == 0.0, 5e-324, abs(x) * (2.0**-53 * (1.0 + 2.0**-52)))
    return select(x == -math.inf, -_HUGE, above)


@inlined
def read_f8(table, position):
    """A table's number at a whole position that is not negative: no wrapping around."""
    return table[np.uint64(position)]


read_i = read_f8


@inlined
def read_f4(table, position):
    return np.float32(table[np.uint64(position)])


@inlined
def read_b(table, position):
    return table[np.uint64(position)] != 0.0
