"""Logarithms of sums and integrals of exponentials, with derivatives that are right everywhere.

Each function keeps two forms: a series about 0, where 1/(e^y − 1) − 1/y (the derivative) would
lose all its digits, and a closed form elsewhere. The argument of the form that is not taken is
replaced *before* it is used: a `where` on the results alone lets its NaN derivative through.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float

# ln(sinh(y/2)/(y/2)) = Σ B_2k y^2k / (2k (2k)!), B_2k Bernoulli's numbers; odd powers of the
# functions below are the -y/2 beside it. Five terms leave 3e-18 at |y| = 1/4.
_SERIES = (1 / 24, -1 / 2880, 1 / 181440, -1 / 9676800, 1 / 479001600)
_NEAR = 0.25
_LN2 = 0.6931471805599453


def log1mexp(y: Array) -> Float[Array, "..."]:
    """ln(1 − e^{−y}), y > 0.

    Two forms not for the value but for the derivative: JAX 0.10 takes that of expm1(−y) to be
    expm1(−y) + 1, which is 0 where e^{−y} is below an ulp of 1.
    """
    near = y < _LN2
    y_near, y_far = jnp.where(near, y, 1), jnp.where(near, 1, y)
    return jnp.where(near, jnp.log(-jnp.expm1(-y_near)), jnp.log1p(-jnp.exp(-y_far)))


def log_integral(c: Array, s: Array) -> Float[Array, "..."]:
    """ln ∫_0^s e^{−c r} dr, any sign of c; −inf at s = 0."""
    positive_s = jnp.where(s > 0, s, 1)
    x = c * positive_s
    near = jnp.abs(x) < _NEAR
    x_near, x_far = jnp.where(near, x, 0), jnp.where(near, 1, x)
    size = jnp.abs(x_far)
    far = jnp.maximum(-x_far, 0) + log1mexp(size) - jnp.log(size)
    total = jnp.log(positive_s) + jnp.where(near, _log_sinhc(x_near) - x_near / 2, far)
    return jnp.where(s > 0, total, -jnp.inf)


def log_sum(c: Array, n: Array) -> Float[Array, "..."]:
    """ln Σ_{j<n} e^{−c j}, any sign of c; −inf at n = 0.

    Not `log_integral(c, n) - log_integral(c, 1)`: for large c their derivatives should cancel and
    leave a rounding error, which dc/db1 ~ 1/b1² magnifies.
    """
    positive_n = jnp.where(n > 0, n, 1)
    near = jnp.maximum(positive_n, 1) * jnp.abs(c) < _NEAR
    c_near, c_far = jnp.where(near, c, 0), jnp.where(near, 1, c)
    even = _log_sinhc(positive_n * c_near) - _log_sinhc(c_near)
    size = jnp.abs(c_far)
    grown = (positive_n - 1) * jnp.maximum(-c_far, 0)
    far = grown + log1mexp(positive_n * size) - log1mexp(size)
    series = jnp.log(positive_n) + even - (positive_n - 1) * c_near / 2
    return jnp.where(n > 0, jnp.where(near, series, far), -jnp.inf)


def _log_sinhc(y: Array) -> Float[Array, "..."]:
    """ln(sinh(y/2)/(y/2)) for |y| ≤ 1/4."""
    total = jnp.zeros_like(y)
    for coefficient in reversed(_SERIES):
        total = (total + coefficient) * y**2
    return total
