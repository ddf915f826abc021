"""Powers and whole numbers for kernels, with every rounding as written.

x^y is e^(y ln x) with the logarithm in two parts. Those two are what a kernel keeps of a decay b to
take b^n at each step; where n grows by one a step, `next_power` multiplies instead.
"""
# pyright: reportCallIssue=false, reportGeneralTypeIssues=false
# numba's intrinsics take a typing context that a caller does not give.

import math
from typing import Any

import numpy as np
from numba import njit
from numba.extending import intrinsic

from .elementary import (
    LN2_HIGH,
    LN2_LOW,
    TINY,
    atanh_tail,
    exp_of_sum,
    inlined,
    is_negative,
    select,
    split_float,
    with_sign,
)


@intrinsic
def _fused(typing: Any, a: Any, b: Any, c: Any):
    """a·b + c with one rounding."""
    del typing

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        del context, signature
        return builder.fma(*args)

    return a(a, b, c), generate


# Without fused multiply-adds, which would take away what an error-free product brings in.
_exact = njit(nogil=True, error_model="numpy", forceinline=True)


@_exact
def _product_error(a, b, product):
    """a·b - product, exactly."""
    return _fused(a, b, -product)


@inlined
def log_high(x):
    """ln|x| and what `log_low` adds to it: together 57 bits, for powers."""
    return _log_parts(x)[0]


@inlined
def log_low(x):
    return _log_parts(x)[1]


@_exact
def _log_parts(x):
    m, e = split_float(abs(x))
    f = m - 1.0
    t = 2.0 + f
    t_low = f - (t - 2.0)
    s = f / t
    product = s * t
    s_low = (((f - product) - _product_error(s, t, product)) - s * t_low) / t
    z = s * s
    low = 2.0 * s_low + s * z * atanh_tail(z)
    first, second = e * LN2_HIGH, 2.0 * s  # |first| > |second| unless e = 0
    total = first + second
    low += select(e == 0.0, 0.0, second - (total - first)) + e * LN2_LOW
    high = total + low
    # At 0 and infinity their own logarithm, whose multiples' exponentials are right again.
    finite = (abs(x) > 0.0) & (abs(x) < math.inf)
    special = select(x == 0.0, -math.inf, abs(x))
    return select(finite, high, special), select(finite, low - (high - total), 0.0)


@_exact
def power_of_log(x, high, low, y):
    """x^y from the logarithm of |x| in two parts, which a kernel may keep where x stays."""
    product = y * high
    value = exp_of_sum(product, _product_error(y, high, product) + y * low)
    size = abs(x)
    grows = (size > 1.0) == (y > 0.0)
    edge = select(grows, math.inf, 0.0)
    value = select((size == 0.0) | (size == math.inf) | (abs(y) == math.inf), edge, value)
    whole = np.floor(y) == y
    odd = whole & (np.floor(y * 0.5) != y * 0.5)
    value = select(is_negative(x) & odd, -value, value)
    value = select((x < 0.0) & (size < math.inf) & ~whole, math.nan, value)
    value = select((size == 1.0) & (abs(y) == math.inf), 1.0, value)
    value = select((x == x) & (y == y), value, math.nan)
    return select((y == 0.0) | (x == 1.0), 1.0, value)


@_exact
def whole_power_of_log(x, high, low, y):
    """The same of a whole y: what a lane's decay to the power of a count costs every step."""
    product = y * high
    value = exp_of_sum(product, _product_error(y, high, product) + y * low)
    half = y * 0.5
    odd = np.floor(half) != half
    value = select((x < 0.0) & odd, -value, value)
    return select(y == 0.0, 1.0, value)


@_exact
def whole_quotient(a, b):
    """Of whole numbers, towards 0; -1 where b = 0, as XLA has it on a CPU.

    Corrected by the remainder: where LLVM divides by the reciprocal of b, 49 / 49 is less than 1.
    """
    size, divisor = abs(a), select(b == 0.0, 1.0, abs(b))
    quotient = np.trunc(size / divisor)
    rest = size - quotient * divisor
    quotient += select(rest >= divisor, 1.0, select(rest < 0.0, -1.0, 0.0))
    signed = select((a < 0.0) != (b < 0.0), -quotient, quotient)
    return select(b == 0.0, -1.0, signed)


@_exact
def whole_remainder(a, b):
    """What is left of a after `whole_quotient`; a itself where b = 0."""
    return a - select(b == 0.0, 0.0, b * whole_quotient(a, b))


@_exact
def next_power(high, low, x):
    """(high + low)·x in two parts: a power with one more factor, correct to 100 bits."""
    product = high * x
    rest = _product_error(high, x, product) + low * x
    total = product + rest
    finite = abs(product) < math.inf  # beyond, the parts of nothing are NaN
    return select(finite, total, product), select(finite, rest - (total - product), 0.0)


@inlined
def power(x, y):
    high, low = _log_parts(x)
    return power_of_log(x, high, low, y)


@inlined
def cbrt(x):
    denormal = abs(x) < TINY
    size = select(denormal, abs(x) * 2.0**54, abs(x))
    y = power(size, 1.0 / 3.0)
    y = select((size > 0.0) & (size < math.inf), y - (y * y * y - size) / (3.0 * y * y), y)
    return with_sign(select(denormal, y * 2.0**-18, y), x)
