"""`theory.stability` against recursions, closed forms and quadrature (EQUATIONS §2).

The rounding budget used throughout: a rate is good to eps, so ln of a bound after n steps is good
to eps · n (2a + b)/2 (the error of n C/2) plus a few eps of its own size, eps = 2.2e-16.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, optimize

from ct_adam.theory import (
    growth_rate,
    level_curve,
    normal_curve,
    stability_boundary,
    stability_coefficient,
    update_bound,
    worst_case_gradients,
)

from .reference import rate_of

RATES = ("lag", "log", "euler")
STARTS = ("first_step", "zero")
FLOWS = [(rates, start) for rates in RATES for start in STARTS]
COMBOS = [
    ("continuous", "lag", "zero"),
    ("discrete", "lag", "zero"),
    *[(kind, *flow) for kind in ("flow", "held") for flow in FLOWS],
]
EPS = np.finfo(float).eps
WIDE = np.longdouble  # for oracles: their own rounding over 2000 steps is then nothing


def pairs(low, high, num, seed=0):
    b1, b2 = np.random.default_rng(seed).uniform(low, high, (2, num))
    return b1, b2


# 2a + b ≤ 2 for all three rates where both decays are ≥ 0.6: the budget at n = 2000 is
# 2.2e-16 · 2000 = 4.4e-13 in ln, and |ln bound| ≤ 667 adds 1.5e-13 to the relative error: < 1e-12.
B1, B2 = (
    np.concatenate([fixed, drawn])
    for fixed, drawn in zip(
        ([0.9, 0.9, 0.9, 0.999, 0.6, 0.99, 0.99], [0.999, 0.81, 9 / 11, 0.6, 0.999, 0.9, 0.985]),
        pairs(0.6, 0.999, 13),
        strict=True,
    )
)


def log_updates(log_g, decay, gain, first_gain):
    """ln|u| but for the bias factor, of positive streams, after each gradient: (n, ...).

    The recursions x ← decay x + gain g (first gradient: first_gain) of m and v, with g² for v.
    Plain ones end where floats do: for C < 0 the stream spans hundreds of decades. Here m is
    carried as 1 in units of e^unit (v in e^{2 unit}), and only g/m enters, as exp of a difference.
    """
    unit = log_g[0] + np.log(first_gain[0])
    v = first_gain[1] / first_gain[0] ** 2
    out = [-np.log(v) / 2]
    for log_gradient in log_g[1:]:
        g = np.exp(log_gradient - unit)
        m = decay[0] + gain[0] * g
        v = (decay[1] * v + gain[1] * g**2) / m**2
        unit = unit + np.log(m)
        out.append(-np.log(v) / 2)
    return np.stack(out)


def held_rule(b1, b2, rates, start):
    """Decay, gain and first gain of (m, v) under gradients held over each step, exactly."""
    b = np.stack([b1, b2]).astype(WIDE)
    decay = np.exp(-rate_of(b, rates))
    gain = 1 - decay
    return decay, gain, gain if start == "zero" else 1 - b


def log_bias(b1, b2, s, rates, start):
    """ln(√B2/B1), B the response to a unit gradient; s as a leading axis."""
    b = np.stack([b1, b2]).astype(WIDE)[:, None]
    factor = b if start == "first_step" else 1
    f1, f2 = 1 - factor * np.exp(-rate_of(b, rates) * np.asarray(s, WIDE)[:, None])
    return np.log(f2) / 2 - np.log(f1)


def log_worst_stream(b1, b2, num, kind, rates, start):
    """ln g of the worst case, from the Cauchy-Schwarz weights w_k/z_k themselves."""
    rates = "log" if kind == "discrete" else rates
    decay, gain, first = held_rule(b1, b2, rates, "zero" if kind == "discrete" else start)
    k = np.arange(num)[:, None]
    # w_k = gain · decay^(n−1−k): the ratio to z_k up to a factor that does not depend on k.
    logs = np.log(gain[0] / gain[1]) + k * (np.log(decay[1]) - np.log(decay[0]))
    logs[0] = np.log(first[0] / first[1])
    return logs


# ---------------------------------------------------------------- values of EQUATIONS


def test_default_pair():
    # Closed forms at b1 = 9/10, b2 = 999/1000: C = 2/9 − 1/999.
    c = 2 / 9 - 1 / 999
    assert float(stability_coefficient(0.9, 0.999)) == pytest.approx(c, abs=1e-9)
    assert c == pytest.approx(0.2212212212, abs=5e-11)
    continuous = (1 / 9) * math.sqrt(999 / c)
    discrete = 0.1 / math.sqrt(0.001 * (1 - 0.81 / 0.999))
    assert continuous == pytest.approx(7.4666680, abs=5e-8)
    assert discrete == pytest.approx(7.2702918, abs=5e-8)
    # 1e5 steps: the bias factor is e^{−100} away from its limit.
    assert float(update_bound(0.9, 0.999, 1e5)) == pytest.approx(continuous, abs=1e-9)
    assert float(update_bound(0.9, 0.999, 1e5, "discrete")) == pytest.approx(discrete, abs=1e-9)


@pytest.mark.parametrize("rates", RATES)
def test_coefficient_and_rates(rates):
    forms = {
        "lag": 2 * (1 - B1) / B1 - (1 - B2) / B2,
        "log": np.log(B2 / B1**2),
        "euler": 2 * (1 - B1) - (1 - B2),
    }
    # Each C is a difference of numbers below 2, rounded a few times: 1e-15 is five eps.
    close = {"rtol": 0, "atol": 1e-15}
    np.testing.assert_allclose(stability_coefficient(B1, B2, rates), forms[rates], **close)
    for kind in ("flow", "held"):
        np.testing.assert_allclose(growth_rate(B1, B2, kind, rates), -forms[rates] / 2, **close)
    np.testing.assert_allclose(growth_rate(B1, B2, "continuous", rates), -forms["lag"] / 2, **close)
    np.testing.assert_allclose(growth_rate(B1, B2, "discrete", rates), -forms["log"] / 2, **close)


def test_boundaries():
    b1 = np.linspace(0.51, 0.99, 40)
    closed = {"lag": b1 / (2 - b1), "log": b1**2, "euler": 2 * b1 - 1}
    for rates, b2 in closed.items():
        for kind in ("flow", "held"):
            np.testing.assert_allclose(stability_boundary(b1, kind, rates), b2, rtol=1e-15)
        # It is where C changes sign: db2 = 1e-9 moves C by at least 1e-9 (|dC/db2| ≥ 1).
        assert np.all(stability_coefficient(b1, b2 + 1e-9, rates) > 0)
        assert np.all(stability_coefficient(b1, b2 - 1e-9, rates) < 0)
    np.testing.assert_allclose(stability_boundary(b1), closed["lag"], rtol=1e-15)
    np.testing.assert_allclose(stability_boundary(b1, "discrete"), closed["log"], rtol=1e-15)


def test_level_curve():
    b1 = np.linspace(0.0, 0.98, 50)
    for c in (-0.5, 0.0, 0.02):
        b2 = np.asarray(level_curve(c, b1))
        with np.errstate(divide="ignore"):
            closed = 1 / (1 + 2 * (1 - b1) / b1 - c)
        np.testing.assert_allclose(b2, closed, rtol=1e-13)  # 1/b1 ≤ 50 costs 50 eps
        np.testing.assert_allclose(stability_coefficient(b1, b2)[1:], c, atol=50 * 4 * EPS)
    assert level_curve(np.array([0.0, 0.1]), 0.9).shape == (2,)


def test_normal_curve():
    k = 0.9**3 + 2 * 0.999**3
    assert k == pytest.approx(2.723005998, abs=5e-10)
    b1, b2 = (np.asarray(b) for b in normal_curve(0.9, 0.999, 4001))
    np.testing.assert_allclose(b1**3 + 2 * b2**3, k, rtol=1e-14)
    np.testing.assert_allclose(np.diff(b1, 2), 0, atol=4 * EPS)  # uniform
    assert np.all((b1 > 0) & (b1 < 1) & (b2 > 0) & (b2 < 1))
    # Ends, excluded: less than 1.01 spacings away from a point (linspace leaves one spacing).
    spacing = 1.01 * (b1[1] - b1[0])
    low, end = np.cbrt(k - 2), np.cbrt((k - 1) / 2)
    assert low == pytest.approx(0.897527, abs=5e-7)
    assert end == pytest.approx(0.951522, abs=5e-7)
    assert low < b1[0] < low + spacing
    assert 1 - spacing < b1[-1] < 1
    assert end < b2[-1] < end + spacing

    def crossing(coefficient):
        x = optimize.brentq(lambda x: coefficient(x, np.cbrt((k - x**3) / 2)), 0.95, 0.999)
        return x, np.cbrt((k - x**3) / 2)

    assert crossing(stability_coefficient) == pytest.approx((0.980591, 0.961920), abs=5e-7)
    log = crossing(lambda x, y: stability_coefficient(x, y, "log"))
    assert log == pytest.approx((0.980737, 0.961844), abs=5e-7)
    c = np.asarray(stability_coefficient(b1, b2))
    assert np.all(-c[c < 0] / 2 <= 0.0254738)
    # The last point is a spacing of 2.6e-5 from the end, where |dC/db1|/2 = 1.3 along the curve.
    assert -c.min() / 2 == pytest.approx((1 / end - 1) / 2, abs=4e-5)


@pytest.mark.parametrize("pair", [(0.0, 0.5), (0.3, 0.0), (0.2, 0.1), (0.99, 0.3), (0.1, 0.999)])
def test_normal_curve_elsewhere(pair):
    b1, b2 = (np.asarray(b) for b in normal_curve(*pair, 7))
    assert b1.shape == b2.shape == (7,)
    assert np.all((b1 > 0) & (b1 < 1) & (b2 > 0) & (b2 < 1))
    np.testing.assert_allclose(b1**3 + 2 * b2**3, pair[0] ** 3 + 2 * pair[1] ** 3, rtol=1e-14)
    # At right angles to the level curves: the tangent is along grad C = (−2/b1², 1/b2²).
    slope = -(b1**2) / (2 * b2**2)
    np.testing.assert_allclose(slope, (1 / b2**2) / (-2 / b1**2), rtol=1e-14)


# ---------------------------------------------------------------- discrete and held: attained


def cases(kind):
    return [("log", "zero")] if kind == "discrete" else FLOWS


@pytest.mark.parametrize("kind", ["discrete", "held"])
def test_bound_is_attained_after_every_step(kind):
    n = np.arange(1, 2001)
    for rates, start in cases(kind):
        bound = np.asarray(update_bound(B1, B2, n[:, None], kind, rates, start))
        stream = log_worst_stream(B1, B2, 2000, kind, rates, start)
        rule = held_rule(B1, B2, rates, start)
        s = n - 1 if start == "first_step" else n
        worst = log_updates(stream, *rule) + log_bias(B1, B2, s, rates, start)
        assert np.isfinite(bound).all()
        np.testing.assert_allclose(bound / np.exp(worst), 1, rtol=0, atol=1e-12)
    # Both signs of C are among the pairs.
    assert 5 <= np.sum(stability_coefficient(B1, B2, "log") < 0) <= 15


@pytest.mark.parametrize("kind", ["discrete", "held"])
def test_bound_is_attained_at_small_decays(kind):
    b1, b2 = pairs(0.02, 0.6, 20, seed=1)
    n = np.arange(1, 21)  # 2a + b ≤ 150, so the budget is 2.2e-16 · 20 · 75 = 3.3e-13 in ln
    for rates, start in cases(kind):
        bound = np.asarray(update_bound(b1, b2, n[:, None], kind, rates, start, log=True))
        stream = log_worst_stream(b1, b2, 20, kind, rates, start)
        rule = held_rule(b1, b2, rates, start)
        s = n - 1 if start == "first_step" else n
        worst = log_updates(stream, *rule) + log_bias(b1, b2, s, rates, start)
        np.testing.assert_allclose(np.asarray(bound - worst, float), 0, atol=1e-12)


@pytest.mark.parametrize("kind", ["discrete", "held"])
def test_worst_case_gradients_are_the_worst_case(kind):
    for rates, start in cases(kind):
        g = np.asarray(worst_case_gradients(B1, B2, 2000, kind, rates, start))
        assert g.shape == (len(B1), 2000)
        np.testing.assert_array_equal(g.max(axis=1), 1)
        logs = log_worst_stream(B1, B2, 2000, kind, rates, start)
        want = np.asarray(np.exp(logs - logs.max(axis=0)).T, float)
        # exp of a number x ≤ 708 that is good to a few eps · |x|: 708 · 3 · 1.1e-16 = 2.3e-13;
        # below the smallest normal number it may be flushed to zero.
        np.testing.assert_allclose(g, want, rtol=1e-12, atol=1e-300)


def test_worst_case_gradients_by_a_plain_recursion():
    # The recursion of Adam as everybody writes it. 200 steps of ratios ≥ 0.6 keep g² ≥ 1e-89.
    n = 200
    for b1, b2 in zip(B1, B2, strict=True):
        g = np.asarray(worst_case_gradients(float(b1), float(b2), n))
        assert g.shape == (n,)
        m = v = 0.0
        updates = []
        for k in range(n):
            m, v = b1 * m + (1 - b1) * g[k], b2 * v + (1 - b2) * g[k] ** 2
            updates.append(m / (1 - b1 ** (k + 1)) / np.sqrt(v / (1 - b2 ** (k + 1))))
        bound = update_bound(b1, b2, np.arange(1, n + 1), "discrete")
        # Each of 200 steps rounds m and v about three times: 200 · 3 · 1.1e-16 = 7e-14.
        # 1 − b^n at n = 1, b = 0.999 is good to eps/0.001 = 2.2e-13.
        np.testing.assert_allclose(updates, bound, rtol=1e-12)


@pytest.mark.parametrize("kind", ["discrete", "held"])
def test_bound_is_never_exceeded_by_other_streams(kind):
    rng = np.random.default_rng(2)
    n = 50
    b1, b2 = (np.concatenate(both) for both in zip((B1, B2), pairs(0.05, 0.99, 20, 3), strict=True))
    for rates, start in cases(kind):
        decay, gain, first = held_rule(b1, b2, rates, start)
        steps = np.arange(1, n + 1)
        bound = np.asarray(update_bound(b1, b2, steps[:, None], kind, rates, start, log=True))
        s = steps - 1 if start == "first_step" else steps
        ratio = log_bias(b1, b2, s, rates, start) - bound
        worst = log_worst_stream(b1, b2, n, kind, rates, start)
        worst = np.exp(worst - worst.max(axis=0))
        size = rng.choice([0, 1e-3, 0.1, 10], (200, 1))  # from the worst case to pure noise
        m = v = 0
        for k in range(n):
            g = worst[k] * (1 + size * rng.normal(size=(200, 1)))
            if k == 0:
                m, v = first[0] * g, first[1] * g**2
            else:
                m, v = decay[0] * m + gain[0] * g, decay[1] * v + gain[1] * g**2
            # 1e-12: the bound's own rounding, as above (2a + b ≤ 60, 50 steps: 3.3e-13).
            assert np.all(np.log(np.abs(m)) - np.log(v) / 2 + ratio[k] <= 1e-12)


def test_discrete_is_held_with_log_rates():
    n = np.arange(1, 300)[:, None]
    discrete = update_bound(B1, B2, n, "discrete")
    for start in STARTS:
        np.testing.assert_allclose(update_bound(B1, B2, n, "held", "log", start), discrete, 1e-12)


# ---------------------------------------------------------------- flows


def flow_update(coefficients, exponents, b1, b2, rates, start, s):
    """u(s) of a flow under g(r) = Re Σ c e^{λ r}, by the exact integrals of its moments.

    `coefficients`: (..., modes), complex conjugate pairs or real, so that g = Σ c e^{λ r} is real.
    """
    a, b = rate_of(b1, rates), rate_of(b2, rates)
    c2 = coefficients[..., :, None] * coefficients[..., None, :]
    l2 = exponents[..., :, None] + exponents[..., None, :]

    def moment(rate, c, exponent):
        return np.sum(c * rate * (np.exp(exponent * s) - np.exp(-rate * s)) / (rate + exponent), -1)

    m = moment(a, coefficients, exponents).real
    v = np.sum(moment(b, c2, l2), -1).real
    factors = 1, 1
    if start == "first_step":
        g0 = np.sum(coefficients, -1).real
        m, v = m + (1 - b1) * g0 * np.exp(-a * s), v + (1 - b2) * g0**2 * np.exp(-b * s)
        factors = b1, b2
    bias1, bias2 = 1 - factors[0] * np.exp(-a * s), 1 - factors[1] * np.exp(-b * s)
    return m / bias1 / np.sqrt(v / bias2)


FLOW_PAIRS = [(0.9, 0.999), (0.9, 0.5), (0.5, 0.3), (0.3, 0.7), (0.97, 0.95), (0.8, 0.65)]


def test_flow_oracle():
    # The integrals of `flow_update` against SciPy's integration of the differential equations.
    a, b = rate_of(0.9, "lag"), rate_of(0.7, "lag")
    c, exponents = np.array([0.3, 0.5 - 1j, 0.5 + 1j]), np.array([0.1, 2j, -2j])

    def field(r, y):
        g = np.sum(c * np.exp(exponents * r)).real
        return [a * (g - y[0]), b * (g**2 - y[1])]

    start = [0.1 * 1.3, 0.3 * 1.3**2]
    m, v = integrate.solve_ivp(field, (0, 9), start, "DOP853", rtol=1e-10, atol=1e-12).y[:, -1]
    want = m / (1 - 0.9 * np.exp(-9 * a)) / np.sqrt(v / (1 - 0.7 * np.exp(-9 * b)))
    assert flow_update(c, exponents, 0.9, 0.7, "lag", "first_step", 9) == pytest.approx(want, 1e-8)


@pytest.mark.parametrize(("rates", "start"), FLOWS)
def test_flow_bound_is_never_exceeded(rates, start):
    # Sinusoids of many frequencies on the worst case, from none to noise alone. Rounding of v,
    # a sum of 81 terms that cancel to no less than 1e-4 of their size: 81 · 1e-16/1e-4 < 1e-9.
    rng = np.random.default_rng(4)
    for b1, b2 in FLOW_PAIRS:
        worst = rate_of(b1, rates) - rate_of(b2, rates)
        for steps in (1, 2, 5, 40):
            s = steps - 1 if start == "first_step" else steps
            c = rng.normal(size=(500, 4)) + 1j * rng.normal(size=(500, 4))
            c *= 10.0 ** rng.uniform(-5, 0, (500, 1))
            # The worst case with largest value 1, beside noise of size 1e-5 to 1.
            scale = np.full((500, 1), np.exp(-max(worst * s, 0)))
            c = np.concatenate([scale, c, c.conj()], axis=1)
            omega = 1j * 10.0 ** rng.uniform(-2, 2, (500, 4))
            exponents = np.concatenate([np.full((500, 1), worst), omega, -omega], axis=1)
            u = flow_update(c, exponents, b1, b2, rates, start, s)
            bound = float(update_bound(b1, b2, steps, "flow", rates, start))
            assert np.all(np.abs(u) <= bound * (1 + 1e-9))


@pytest.mark.parametrize("rates", RATES)
def test_flow_bound_is_attained_from_zero(rates):
    # SciPy's quadrature of the two moments under g = e^{(a−b) r}; it promises 1e-8 or says so.
    for b1, b2 in FLOW_PAIRS:
        a, b = rate_of(b1, rates), rate_of(b2, rates)
        for steps in (1, 3, 17.5):

            def g(r, s, a=a, b=b):
                return np.exp((a - b) * (r - s))

            def moment(rate, power, s, g=g):
                def weighted(r):
                    return rate * np.exp(-rate * (s - r)) * g(r, s) ** power

                return integrate.quad(weighted, 0, s, epsabs=0, epsrel=1e-10)[0]

            bias = np.sqrt(1 - np.exp(-b * steps)) / (1 - np.exp(-a * steps))
            u = bias * moment(a, 1, steps) / np.sqrt(moment(b, 2, steps))
            bound = update_bound(b1, b2, steps, "flow", rates, "zero")
            assert u == pytest.approx(float(bound), rel=1e-6)


@pytest.mark.parametrize("rates", RATES)
def test_flow_bound_is_approached_from_the_first_step(rates):
    # The moments start from g(0) with weights 1 − b, not with those of the integral: the worst g
    # has a value of its own at 0, and leaves it within a layer of width δ. What g does inside the
    # layer changes the integrals by O(δ) = 1e-9, relative, times rates and ratios below 100.
    width = 1e-9
    short = []
    for b1, b2 in FLOW_PAIRS:
        a, b = rate_of(b1, rates), rate_of(b2, rates)
        first = (1 - b1) / a * b / (1 - b2)
        for steps in (1, 2, 4, 18.5):
            s = steps - 1
            bound = float(update_bound(b1, b2, steps, "flow", rates))
            exponents = np.array([a - b, a - b - 1 / width])
            u = flow_update(np.array([1, first - 1]), exponents, b1, b2, rates, "first_step", s)
            assert u == pytest.approx(bound, rel=1e-6)
            plain = flow_update(np.ones(1), exponents[:1], b1, b2, rates, "first_step", s)
            assert plain <= bound * (1 + 1e-12)
            short.append(1 - plain / bound)
    # With `euler` the factor is 1 and plain e^{(a−b) s} attains the bound; with the others not.
    if rates == "euler":
        assert max(short) < 1e-12
    else:
        assert max(short) > 1e-3


@pytest.mark.parametrize(("rates", "start"), FLOWS)
def test_flow_bound_by_quadrature_of_its_weights(rates, start):
    # √(Σ w²/z) itself, no stream: the integral by SciPy and the atom at 0, at whole and half steps.
    for b1, b2 in FLOW_PAIRS:
        a, b = rate_of(b1, rates), rate_of(b2, rates)
        for steps in (1, 1.5, 6, 30):
            s = steps - 1 if start == "first_step" else steps
            c = 2 * a - b
            total = integrate.quad(lambda r, c=c: np.exp(-c * r), 0, s, epsrel=1e-12)[0] * a * a / b
            f1 = f2 = 1.0
            if start == "first_step":
                total += (1 - b1) ** 2 / (1 - b2) * np.exp(-c * s)
                f1, f2 = b1, b2
            bias = np.sqrt(1 - f2 * np.exp(-b * s)) / (1 - f1 * np.exp(-a * s))
            bound = update_bound(b1, b2, steps, "flow", rates, start)
            assert float(bound) == pytest.approx(bias * np.sqrt(total), rel=1e-9)


def test_start_of_a_flow():
    # u(0) = sign g(0): 1 at s = 0 with the first step, and in the limit s → 0 from zero.
    for rates in RATES:
        np.testing.assert_allclose(update_bound(B1, B2, 1, "flow", rates), 1, rtol=1e-14)
        np.testing.assert_allclose(update_bound(B1, B2, 1, "held", rates), 1, rtol=1e-14)
    np.testing.assert_allclose(update_bound(B1, B2, 1, "discrete"), 1, rtol=1e-14)
    # With x = a s and y = b s small, ln of the bound is (x − y)²/24 + …: 4e-14 here. The bias
    # factors are 1 − (1 − 1e-6), which is good to 1e-16/1e-6 = 1e-10.
    slow = update_bound(1 - 1e-6, 1 - 2e-6, 1, "flow", "lag", "zero")
    assert float(slow) == pytest.approx(1, abs=1e-9)


def test_paper_bound_is_exceeded_by_a_flow_from_zero():
    # Attained by a flow (tested above), beside the paper's number: √((1−e^{−b})(1+1/b)) as b1 → 1,
    # after one step, largest 1.1395 at b = 1.79.
    b = optimize.minimize_scalar(lambda b: -(1 - np.exp(-b)) * (1 + 1 / b), (1, 3)).x
    excess = np.sqrt((1 - np.exp(-b)) * (1 + 1 / b))
    assert excess == pytest.approx(1.1395, abs=5e-5)
    b1, b2 = 0.9999, 1 / (1 + b)
    a = rate_of(b1, "lag")
    u = flow_update(np.ones(1), np.array([a - b]), b1, b2, "lag", "zero", 1.0)
    paper = float(update_bound(b1, b2, 1))
    assert u / paper == pytest.approx(excess, rel=1e-4)  # 1 − b1
    # Nowhere else more, on a grid of pairs and steps.
    b1, b2 = np.meshgrid(np.linspace(0.01, 0.999, 60), np.linspace(0.01, 0.999, 61))
    steps = np.array([1, 2, 3, 10, 100])[:, None, None]
    flow = update_bound(b1, b2, steps, "flow", "lag", "zero", log=True)
    ratio = np.exp(flow - update_bound(b1, b2, steps, log=True))
    assert 1.135 < ratio.max() < excess


def test_paper_bound_is_exceeded_by_a_flow_from_the_first_step():
    # At the same time s of the flow, without limit as b2 → 0: the first gradient enters v with
    # weight 1 − b2 ≈ 1 but the paper's memory with b ≈ 1/b2. The ratio tends to b1² b ∝ 1/b2.
    # Counted in gradients seen (s = steps − 1) it stays within 1.11 on this grid.
    b1, b2 = 0.99, np.array([0.02, 0.01, 0.005])
    flow = np.asarray(update_bound(b1, b2, 3, "flow", "lag", "first_step", log=True))
    paper = np.asarray(update_bound(b1, b2, 2, log=True))
    # ½ ln of the square; the rest is O(b2) and bias factors (1 − b1^s)/(1 − b1 e^{−as}), b1 = 0.99.
    np.testing.assert_allclose(np.diff(flow - paper), np.log(2), atol=0.02)
    assert flow[-1] - paper[-1] > np.log(50)
    # A stream shows it: e^{(a−b) s} with the worst g(0), left within a millionth of a step.
    a, b = rate_of(b1, "lag"), rate_of(0.02, "lag")
    exponents = np.array([a - b, a - b - 1e6])
    c = np.array([1, (1 - b1) / a * b / 0.98 - 1])
    u = flow_update(c, exponents, b1, 0.02, "lag", "first_step", 2.0)
    assert u > 10 * np.exp(paper[0])
    grid1, grid2 = np.meshgrid(np.linspace(0.01, 0.999, 60), np.linspace(0.01, 0.999, 61))
    steps = np.array([1, 2, 3, 10, 100])[:, None, None]
    flow = update_bound(grid1, grid2, steps, "flow", "lag", "first_step", log=True)
    ratio = np.exp(flow - update_bound(grid1, grid2, steps, log=True))
    assert 1.09 < ratio.max() < 1.11


def test_vanishing_gradient_grows_at_the_discrete_rate():
    # Gradients for ten steps, then none: m and v only decay, and u, its bias factor taken out,
    # grows at exactly ½ ln(b1²/b2). 500 roundings of 1e-16 over 250 steps: 1e-15 a step.
    for b1, b2 in [(0.9976, 0.95272), (0.9953, 0.954), (0.9, 0.5), (0.9, 0.999)]:
        m = v = 0.0
        logs = []
        for k in range(500):
            g = 1.0 if k < 10 else 0.0
            m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g * g
            logs.append(np.log(m / np.sqrt(v)))
        slope = np.polyfit(np.arange(250, 500), logs[250:], 1)[0]
        assert slope == pytest.approx(float(growth_rate(b1, b2, "discrete")), abs=1e-6)


@pytest.mark.parametrize(("kind", "rates"), [("continuous", "lag"), ("discrete", "log")])
def test_bounds_grow_at_the_growth_rate(kind, rates):
    unstable = np.asarray(stability_coefficient(B1, B2, rates)) < -0.05
    b1, b2 = B1[unstable], B2[unstable]
    ends = np.asarray(update_bound(b1, b2, np.array([[2e5], [3e5]]), kind, log=True))
    want = np.asarray(growth_rate(b1, b2, kind, rates))
    # e^{C n} and the bias factors are e^{−200} away from their limits; rounding of 1.5e5 / 1e5.
    np.testing.assert_allclose((ends[1] - ends[0]) / 1e5, want, rtol=1e-14, atol=1e-15)


# ---------------------------------------------------------------- numerics


def every_bound(b1, b2, steps, log=True):
    """All kinds of bound at once, stacked: one compilation for all tests below."""
    bounds = [update_bound(b1, b2, steps, *combo, log=log) for combo in COMBOS]
    return jnp.stack(jnp.broadcast_arrays(*bounds))


fast_bounds = jax.jit(every_bound, static_argnames="log")
fast_gradients = jax.jit(jax.vmap(jax.jacrev(every_bound, (0, 1)), out_axes=1))

HARD = [  # zeros, C = 0 for each rate, nearly so, tiny decays, decays near 1
    (0.0, 0.0, 3.0),
    (0.0, 0.9, 1.0),
    (0.0, 0.9, 1e6),
    (0.5, 0.0, 1.0),
    (0.5, 0.0, 10.0),
    (0.9, 0.9 * 0.9, 100.0),
    (0.5, 0.25, 1.0),
    (0.5, 0.25, 1e6),
    (0.5, 1 / 3, 50.0),
    (0.75, 0.5, 50.0),
    (0.75, 0.5 + 1e-14, 50.0),
    (0.75, 0.6, 1e6),
    (1e-30, 0.9, 10.0),
    (1e-200, 0.9, 10.0),
    (1e-320, 1e-320, 10.0),
    (0.999, 1e-200, 1e6),
    (1e-200, 0.999, 1e6),
    (1 - 1e-12, 0.5, 1e6),
    (0.5, 1 - 1e-12, 1e6),
    (1 - 1e-15, 1 - 1e-15, 1e6),
]


def test_no_nan_at_the_edges():
    b1, b2, steps = np.array(HARD).T
    assert not np.isnan(fast_bounds(b1, b2, steps)).any()
    assert not np.isnan(fast_bounds(b1, b2, steps, log=False)).any()
    assert not np.isnan(stability_coefficient(b1, b2)).any()
    single = [np.asarray(x, np.float32) for x in (np.minimum(b1, 0.9999), np.minimum(b2, 0.9999))]
    bounds = fast_bounds(*single, jnp.asarray(steps, jnp.float32))
    assert bounds.dtype == jnp.float32
    assert not np.isnan(bounds).any()


def test_gradients_are_finite_at_the_edges():
    for gradient in fast_gradients(*np.array(HARD).T):
        assert np.isfinite(gradient).all()


def test_values_at_a_decay_of_zero():
    n = np.array([1, 2, 1000])
    assert np.all(np.isinf(update_bound(0.0, 0.9, n)))
    assert np.all(np.isinf(update_bound(0.0, 0.9, n, "flow", "lag", "zero")))
    np.testing.assert_array_equal(update_bound(0, 0.9, n, "flow"), [1, np.inf, np.inf])
    # Discrete: m = g, so the largest u is one late gradient: √((1 − b2ⁿ)/(1 − b2)).
    last = np.sqrt((1 - 0.9**n) / (1 - 0.9))
    np.testing.assert_allclose(update_bound(0.0, 0.9, n, "discrete"), last, rtol=1e-14)
    # v = g² has no memory: nothing bounds u from the second gradient on, unless m = g.
    np.testing.assert_array_equal(update_bound(0.5, 0.0, n, "discrete"), [1, np.inf, np.inf])
    np.testing.assert_array_equal(update_bound(0.0, 0.0, n, "discrete"), [1, 1, 1])
    assert stability_coefficient(0.0, 0.9) == np.inf
    assert stability_coefficient(0.5, 0.0) == -np.inf
    assert growth_rate(0.5, 0.0, "discrete") == np.inf
    # A decay of 0 counts as 1e-123 in ratios, which is 0 beside 1.
    np.testing.assert_allclose(worst_case_gradients(0.0, 0.9, 3), [0, 0, 1], atol=1e-100)
    np.testing.assert_allclose(worst_case_gradients(0.9, 0.0, 3), [1, 0, 0], atol=1e-100)
    np.testing.assert_array_equal(worst_case_gradients(0.0, 0.0, 3), [1, 1, 1])


def test_log_space():
    b1, b2 = pairs(0.01, 0.9999, 15 * len(HARD), seed=5)
    steps = np.random.default_rng(6).integers(1, 5000, b1.size).astype(float)
    rows = np.stack([b1, b2, steps]).reshape(3, 15, -1)  # all of one shape: one compilation
    plain, logs = (
        np.stack([fast_bounds(*rows[:, i], log=log) for i in range(15)]) for log in (False, True)
    )
    assert np.isfinite(logs).all()
    assert np.isinf(plain).any()
    finite = np.isfinite(plain)
    # exp of x ≤ 710 is good to eps · |x| = 1.6e-13 relative, so its logarithm absolutely.
    np.testing.assert_allclose(np.log(plain[finite]), logs[finite], rtol=0, atol=1e-12)
    # Far out the bound is e^{|C| n/2} times what n does not change; C as an exact fraction:
    # (0.75, 0.001): lag 2/3 − 999, so ln of the bound at 1e6 steps is about 4.99e8.
    far = float(update_bound(0.75, 0.001, 10**6, log=True))
    assert far == pytest.approx((999 - 2 / 3) / 2 * 1e6, rel=1e-7)  # the rest is ln of O(1000)


@pytest.mark.parametrize("rates", ["lag", "log"])
def test_gradient_where_c_vanishes(rates):
    # ∂C of ½ ln((a²/b) n) + bias, at C = 0, by hand: ½ d(n e^{...}) = −n/4 · dC (flow, zero).
    b1 = 0.5
    b2 = float(stability_boundary(b1, "flow", rates))
    n = 7.0
    a, b = rate_of(b1, rates), rate_of(b2, rates)
    da, db = (-1 / b1**2, -1 / b2**2) if rates == "lag" else (-1 / b1, -1 / b2)
    d1 = da * (1 / a - n / 2 - n * np.exp(-a * n) / (1 - np.exp(-a * n)))
    d2 = db * (-1 / (2 * b) + n / 4 + n * np.exp(-b * n) / (1 - np.exp(-b * n)) / 2)
    got = jax.grad(lambda x, y: update_bound(x, y, n, "flow", rates, "zero", True), (0, 1))(b1, b2)
    assert [float(g) for g in got] == pytest.approx([d1, d2], rel=1e-12)


def test_gradients_against_finite_differences():
    # In units of x = min(b, 1 − b), with five-point differences of step h = 1e-4 x. Rounding:
    # the budget with n = 30, 2a + b ≤ 60 is 2e-13, over h/x 2e-9. Truncation: h⁴ f⁽⁵⁾/30, the
    # fifth derivative below (n (2a + b) x/b)⁵ ≤ 1e10 where n C < 1: 1e-16 · 1e10/30 = 3e-8.
    b1, b2 = pairs(0.05, 0.98, len(HARD), seed=7)
    steps = np.random.default_rng(8).integers(1, 30, len(HARD)).astype(float)
    for which, gradient in enumerate(fast_gradients(b1, b2, steps)):
        b = (b1, b2)[which]
        unit = np.minimum(b, 1 - b)

        def moved(h, which=which, unit=unit):
            decays = [b1, b2]
            decays[which] = decays[which] + h * unit
            return np.asarray(fast_bounds(*decays, steps))

        h = 1e-4
        slope = (8 * (moved(h) - moved(-h)) - (moved(2 * h) - moved(-2 * h))) / (12 * h)
        np.testing.assert_allclose(gradient * unit, slope, rtol=1e-6, atol=1e-6)


def test_gradients_as_b1_vanishes():
    # Discrete, n ≥ 2: ln bound = const + ln(1 − b1) + O(b1²), slope −1. The paper's: a²/(b C) →
    # a/(2 b), so ln bound = −½ ln b1 + const, slope −1/(2 b1). Both with O(b1) beside them.
    for b1 in (1e-8, 1e-30, 1e-100):
        one = jax.grad(lambda x: update_bound(x, 0.9, 10.0, "discrete", log=True))(b1)
        assert float(one) == pytest.approx(-1, abs=1e-6)
        paper = jax.grad(lambda x: update_bound(x, 0.9, 10.0, log=True))(b1)
        assert float(paper) * b1 == pytest.approx(-0.5, abs=1e-6)
    zero = jax.grad(lambda x: update_bound(x, 0.9, 10.0, "discrete", log=True))(0.0)
    assert float(zero) == pytest.approx(-1, abs=1e-12)


decays = st.floats(0, 1, exclude_min=True, exclude_max=True)
step_counts = st.integers(1, 10**6)
# Proofs of "grows with steps". With h(y) = ln(sinh(y/2)/(y/2)), discrete: ln bound is
# ½(h(bn) + h(Cn)) − h(an) but for a constant, b + C = 2a, and y h'(y) is convex. The same for a
# flow and a held one from zero. ≥ 1: a constant gradient has u = 1 (discrete, flow, held).
GROWING = [i for i, combo in enumerate(COMBOS) if combo[0] != "continuous" and combo[2] == "zero"]


@settings(deadline=None, max_examples=300, derandomize=True)
@given(decays, decays, step_counts)
def test_properties(b1, b2, steps):
    logs = np.asarray(fast_bounds(b1, b2, float(steps)))
    assert not np.isnan(logs).any()
    assert not np.isnan(fast_bounds(b1, b2, float(steps), log=False)).any()
    # Its summands are logarithms below 710, each good to eps · 710 = 1.6e-13.
    rounding = 1e-12 * (1 + np.abs(np.nan_to_num(logs)))  # XLA takes subnormal decays for 0: inf
    assert np.all(logs[1:] >= -rounding[1:])
    later = np.asarray(fast_bounds(b1, b2, float(steps + 1)))
    assert np.all((later + rounding >= logs)[GROWING])


def test_equal_decays_leave_no_room():
    # b1 = b2: m̂ and v̂ are averages with the same weights, m̂² ≤ v̂ by Jensen, equal if constant.
    b = np.random.default_rng(9).uniform(0.01, 0.9999, 100)
    for steps in (1, 7, 1e6):
        np.testing.assert_allclose(update_bound(b, b, steps, "discrete"), 1, rtol=1e-13)


def test_broadcasting_and_jit():
    shape = update_bound(B1[:, None, None], B2[:4, None], np.arange(1, 4), "held").shape
    assert shape == (len(B1), 4, 3)
    traced = jax.jit(lambda x, y, n: update_bound(x, y, n, "flow"))(0.9, 0.999, 10)
    assert float(traced) == pytest.approx(float(update_bound(0.9, 0.999, 10, "flow")), rel=1e-14)
    jitted = jax.jit(worst_case_gradients, static_argnums=2)(0.9, 0.999, 5)
    np.testing.assert_allclose(jitted, worst_case_gradients(0.9, 0.999, 5), rtol=1e-14)
    b1s, b2s = jax.jit(normal_curve, static_argnums=2)(0.9, 0.999, 5)
    assert b1s.shape == b2s.shape == (5,)


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda: update_bound(0.9, 0.999, 5, kind="paper"), "kind = 'paper'"),
        (lambda: update_bound(0.9, 0.999, 5, rates="linear"), "rates = 'linear'"),
        (lambda: update_bound(0.9, 0.999, 5, start="paper"), "start = 'paper'"),
        (lambda: update_bound(1.0, 0.999, 5), "b1 = 1"),
        (lambda: update_bound(0.9, -0.1, 5), "b2 = -0.1"),
        (lambda: update_bound(0.9, np.array([0.5, np.nan]), 5), "b2 = nan"),
        (lambda: update_bound(0.9, 0.999, 0), "steps = 0"),
        (lambda: update_bound(0.9, 0.999, np.array([1, 0.5])), "steps = 0.5"),
        (lambda: stability_coefficient(0.9, 1.5), "b2 = 1.5"),
        (lambda: stability_coefficient(0.9, 0.9, "x"), "rates = 'x'"),
        (lambda: growth_rate(2, 0.9), "b1 = 2"),
        (lambda: growth_rate(0.9, 0.9, "x"), "kind = 'x'"),
        (lambda: stability_boundary(1.0), "b1 = 1"),
        (lambda: stability_boundary(0.5, "x"), "kind = 'x'"),
        (lambda: level_curve(0.0, 1.0), "b1 = 1"),
        (lambda: normal_curve(0.0, 0.0, 5), "positive decay"),
        (lambda: normal_curve(0.9, 0.999, 0), "num = 0"),
        (lambda: worst_case_gradients(0.9, 0.999, 5, kind="flow"), "kind = 'flow'"),
        (lambda: worst_case_gradients(0.9, 0.999, 0), "steps = 0"),
        (lambda: worst_case_gradients(0.9, 0.999, 2.5), "steps = 2.5"),  # pyright: ignore[reportArgumentType]
        (lambda: update_bound("high", 0.9, 5), "b1 = 'high' is not a number"),
        (lambda: worst_case_gradients(0.9, 1.0, 5), "b2 = 1"),
    ],
)
def test_bad_inputs(call, named):
    with pytest.raises(ValueError, match=named):
        call()
