"""The kernels' own elementary functions against NumPy's long doubles."""

import platform
from importlib import import_module

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numba import njit

elementary = import_module("ct_adam.ensemble.elementary")
powers = import_module("ct_adam.ensemble.powers")
N = 20_000
SPECIAL = np.array([0.0, -0.0, 1, -1, np.inf, -np.inf, np.nan, 5e-324, 1e-310, 2.2e-308, 1e308,
                    709.7, 709.79, 710, -708.5, -745, -746, 800, 0.5, 2, -2, 3, 1e-20])  # fmt: skip
_compile = njit(error_model="numpy", fastmath={"contract", "arcp"})


def over(name):
    """The function in a loop, as kernels call it."""
    function = getattr(elementary, name, None) or getattr(powers, name)

    @_compile
    def one(x, out):
        for i in range(x.size):
            out[i] = function(x[i])

    def apply(x):
        x = np.asarray(x, float)
        out = np.empty_like(x)
        one(x, out)
        return out

    apply.assembly = lambda: one.inspect_asm(one.signatures[0])
    return apply


def ulps(found, exact):
    """Distance in units in the last place of the exact value; 0 for the same NaN or infinity."""
    nearest = exact.astype(float)
    same = (found == nearest) | (np.isnan(found) & np.isnan(nearest))
    unit = np.spacing(np.abs(np.where(np.isfinite(nearest), nearest, 1)))
    with np.errstate(invalid="ignore"):
        return np.where(same, 0, np.abs(found.astype(np.longdouble) - exact) / unit)


def logistic(x):
    return 1 / (1 + np.exp(-x))


def wide():
    rng = np.random.default_rng(0)
    sizes = 10 ** rng.uniform(-300, 3, N)
    return np.concatenate([sizes, -sizes, rng.normal(size=N), SPECIAL])


def positive():
    rng = np.random.default_rng(0)
    near_one = 1 + rng.normal(size=N) * 1e-6
    return np.concatenate([10 ** rng.uniform(-320, 308, N), rng.uniform(0.3, 3, N), near_one,
                           -rng.uniform(0, 1, N), SPECIAL])  # fmt: skip


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # NumPy's own, at the special values
@pytest.mark.parametrize(
    ("name", "exact", "values"),
    [
        ("exp", np.exp, wide), ("expm1", np.expm1, wide), ("tanh", np.tanh, wide),
        ("sinh", np.sinh, wide), ("cosh", np.cosh, wide), ("logistic", logistic, wide),
        ("cbrt", np.cbrt, wide), ("log", np.log, positive), ("log1p", np.log1p, positive),
    ],
)  # fmt: skip
def test_within_the_stated_ulp(name, exact, values):
    x = values()
    found = over(name)(x)
    assert np.max(ulps(found, exact(x.astype(np.longdouble)))) <= elementary.ULP


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_power():
    """The logarithm has 57 bits: a result e^±L is off by L·2⁻⁵⁷ beside a few roundings."""

    @_compile
    def loop(x, y, out):
        for i in range(x.size):
            out[i] = powers.power(x[i], y[i])

    rng = np.random.default_rng(0)
    corners = np.meshgrid(SPECIAL, SPECIAL)
    x = np.concatenate(
        [10 ** rng.uniform(-300, 300, N), rng.uniform(0.3, 1, N), corners[0].ravel()]
    )
    y = np.concatenate([rng.normal(size=N) * 0.5, rng.integers(0, 2000, N), corners[1].ravel()])
    found = np.empty_like(x)
    loop(x, y, found)
    exact = np.power(x.astype(np.longdouble), y.astype(np.longdouble))
    with np.errstate(divide="ignore"):
        size = np.abs(np.log(np.abs(np.where(np.isfinite(found), found, 1))))
    allowed = elementary.ULP + np.where(np.isfinite(size), size, 0) * 2.0**-57 / 2.0**-53
    # Below the normal numbers the unit is no longer relative.
    tiny = np.abs(exact.astype(float)) < np.finfo(float).tiny
    assert np.all((ulps(found, exact) <= allowed) | (tiny & (np.abs(found - exact) < 1e-322)))


def test_running_power_stays_correct():
    """Ten thousand factors one after the other, against the power itself in long doubles."""

    @_compile
    def last(x, count):
        high, low = 1.0, 0.0
        for _ in range(count):
            high, low = powers.next_power(high, low, x)
        return high

    for x in (0.9, 0.999, 0.99999, -0.97):
        exact = np.power(np.longdouble(x), 10_000)
        unit = max(np.spacing(float(abs(exact))), np.finfo(float).tiny)
        assert abs(last(x, 10_000) - exact) <= unit


def test_running_power_may_overflow():
    high, low = 1.0, 0.0
    for _ in range(1100):
        high, low = powers.next_power(high, low, 2.5)
    assert (high, low) == (np.inf, 0.0)


@pytest.mark.skipif(
    platform.machine() not in ("x86_64", "AMD64"), reason="instructions of x86 are looked for"
)
def test_loops_are_vectorised():
    """A scalar loop of exp has no packed multiplication."""
    exp = over("exp")
    exp(np.ones(1))
    assert "mulpd" in exp.assembly()  # or vmulpd


@given(st.floats(allow_nan=False, allow_infinity=False, min_value=-1e300, max_value=1e300))
def test_next_up_is_the_next_float(x):
    if abs(x) > np.finfo(float).tiny or x == 0:
        assert elementary.next_up(x) == np.nextafter(x, np.inf)


@given(st.floats(), st.floats())
def test_extremes_keep_nan(a, b):
    np.testing.assert_equal(elementary.maximum(a, b), np.maximum(a, b))
    np.testing.assert_equal(elementary.minimum(a, b), np.minimum(a, b))
