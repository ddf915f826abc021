"""`ct.advise` and `ct-adam advise` against sums and recursions in NumPy, SciPy and optax.

Rounding: everything is a few logarithms and exponentials, so that ln of a result is good to some
ulp of the largest logarithm in it, at most n |ln b|: 1e-12 for the thousands of steps here.
"""

import json
import math
import re
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize

import ct_adam as ct
from ct_adam.cli import main

from .reference import adam_updates

STABLE = [(0.9, 0.999), (0.9, 0.95), (0.9, 0.815), (0.5, 0.9), (0.0, 0.99)]
UNSTABLE = [(0.98, 0.96), (0.99, 0.9), (0.95, 0.85), (0.7, 0.4), (0.9773, 0.9531)]
DEFAULT = (0.9, 0.999)


def weights(b, n):
    """Shares of the last n gradients in a bias-corrected moment, newest first."""
    w = (1 - b) * float(b) ** np.arange(n)
    return w / w.sum()


def brute_bound(b1, b2, n):
    """√(Σ w²/z), Cauchy-Schwarz on the two averages."""
    return math.sqrt(np.sum(weights(b1, n) ** 2 / weights(b2, n)))


def lines(advice):
    place, size, change = str(advice).split("\n")
    return place, size, change


# ---------------------------------------------------------------- where the pair lies


def test_the_usual_pair():
    advice = ct.advise(*DEFAULT, steps=100_000)
    # EQUATIONS §2, digits as printed there.
    assert advice.stability_coefficient == pytest.approx(0.2212212212, abs=5e-11)
    assert advice.continuous_limit == pytest.approx(7.4666680, abs=5e-8)
    assert advice.limit == pytest.approx(7.2702918, abs=5e-8)
    # 1e5 steps: the bias factors are e^{−100} from their limits.
    assert advice.bound == pytest.approx(advice.limit, rel=1e-12)
    assert advice.continuous_bound == pytest.approx(advice.continuous_limit, rel=1e-12)
    assert advice.log_coefficient == pytest.approx(math.log(0.999 / 0.81), rel=1e-12)
    assert advice.growth_rate == pytest.approx(math.log(0.81 / 0.999) / 2, rel=1e-12)
    assert advice.continuous_growth_rate == pytest.approx(-(2 / 9 - 1 / 999) / 2, rel=1e-12)
    assert advice.distance_b2 == pytest.approx(0.189, rel=1e-12)
    assert advice.distance_b1 == pytest.approx(math.sqrt(0.999) - 0.9, rel=1e-12)
    assert advice.continuous_boundary_b2 == pytest.approx(0.9 / 1.1, rel=1e-12)
    assert advice.doubling_steps == math.inf


@given(i=st.integers(1, 999), away=st.integers(-20, 20), j=st.integers(1, 999_999))
@settings(deadline=None, max_examples=60)
def test_the_verdict_is_the_sign_of_integers(i, away, j):
    """b1 = i/1000 and b2 = j/10⁶: b2 − b1² is (j − i²)/10⁶, exactly; near the boundary too."""
    for num in (j, min(max(i * i + away, 1), 999_999)):
        advice = ct.advise(i / 1000, num / 1_000_000)
        sign = (num > i * i) - (num < i * i)
        assert advice.verdict == {1: "stable", 0: "boundary", -1: "unstable"}[sign]
        assert math.isfinite(advice.limit) == (sign > 0)
        assert math.isfinite(advice.doubling_steps) == (sign < 0)
        # The decimals are an ulp off, b1² two.
        assert abs(advice.distance_b2 - (num - i * i) / 1e6) < 5e-16
        assert np.sign(advice.distance_b1) == np.sign(advice.distance_b2)
        first = lines(advice)[0]
        assert first.startswith({1: "Stable", 0: "On the boundary", -1: "Unstable"}[sign])


def test_between_the_two_boundaries():
    """b1² = 0.81 < 0.815 < b1/(2 − b1) = 0.8182: the ODE's C < 0, and the optimizer is stable."""
    advice = ct.advise(0.9, 0.815)
    assert advice.stability_coefficient < 0 < advice.log_coefficient
    assert (advice.verdict, advice.continuous_limit) == ("stable", math.inf)
    assert "unstable below b1/(2 − b1) = 0.8182, not the optimizer's" in lines(advice)[0]
    assert "not the optimizer's" not in lines(ct.advise(0.9, 0.82))[0]
    # ½ (0.81/0.815)^3000 = 5e-9 of it is left after 3000 steps.
    assert brute_bound(0.9, 0.815, 3000) == pytest.approx(advice.limit, rel=1e-8)


# ---------------------------------------------------------------- how large updates get


@pytest.mark.parametrize("steps", [1, 7, 400])
@pytest.mark.parametrize(("b1", "b2"), STABLE + UNSTABLE + [(0.9, 0.81)])
def test_bounds(b1, b2, steps):
    advice = ct.advise(b1, b2, steps=steps)
    assert advice.bound == pytest.approx(brute_bound(b1, b2, steps), rel=1e-12)
    assert advice.log_bound == pytest.approx(math.log(advice.bound), abs=1e-12)
    if b1:  # the paper's, EQUATIONS §2
        c = 2 * (1 - b1) / b1 - (1 - b2) / b2
        memory = -math.expm1(-c * steps) / c
        bias = math.sqrt(1 - b2**steps) / (1 - b1**steps)
        paper = bias * (1 - b1) / b1 * math.sqrt(b2 / (1 - b2) * memory)
        assert advice.continuous_bound == pytest.approx(paper, rel=1e-11)


@pytest.mark.parametrize(("b1", "b2", "steps"), [(0.9, 0.999, 1000), (0.98, 0.96, 300)])
def test_optax_reaches_the_bound(b1, b2, steps):
    stream = (b2 / b1) ** np.arange(steps) / max(1, (b2 / b1) ** (steps - 1))
    # Its smallest √v is above 1e-46: an eps of 1e-100 is not seen.
    optimizer = optax.adam(1.0, b1, b2, eps=1e-100)

    def step(state, gradient):
        update, state = optimizer.update(gradient, state)
        return state, -update

    _, updates = jax.lax.scan(step, optimizer.init(jnp.zeros(())), jnp.asarray(stream))
    found = ct.advise(b1, b2, steps=steps)
    # A thousand steps of a few ulp.
    assert float(updates[-1]) == pytest.approx(found.bound, rel=1e-11)
    assert np.max(updates) <= found.bound * (1 + 1e-11)
    assert f"After {steps} steps |u| ≤ {found.bound:.4g} " in lines(found)[1]


@pytest.mark.parametrize("eps", [1e-8, 1e-2, 3.0])
@pytest.mark.parametrize(("b1", "b2"), [*STABLE, *UNSTABLE, (0.9, 0.81), (0.9, 0.9), (0.9, 0.0)])
def test_largest_update_is_the_maximum_over_a_box(b1, b2, eps):
    """SciPy climbs ln u over all streams of 10 gradients in [−σ, σ]; no other peak is there."""
    n, sigma = 10, 2.5
    w, z = weights(b1, n), weights(b2, n)
    if b2 == 0:  # the peak is on the edge g_0 = 0
        assert ct.advise(b1, b2, eps=eps, steps=n, gradient_scale=sigma).largest_update == (
            pytest.approx(max((1 - w[0]) * sigma / eps, sigma / (sigma + eps)), rel=1e-9)
        )
        return

    def fall(logs):
        g = sigma * np.exp(logs)
        m, root = w @ g, math.sqrt(z @ g**2)
        slope = w / m - z * g / (root * (root + eps))
        return math.log(root + eps) - math.log(m), -slope * g

    low = np.log(1e-9)  # smaller gradients change u by 1e-9 at most where eps is 1e-8
    tried = [
        optimize.minimize(
            fall, start, jac=True, bounds=[(low, 0)] * n, options={"ftol": 1e-15, "gtol": 1e-10}
        ).fun
        for start in (np.full(n, -1.0), np.maximum(np.log((w + 1e-9) / z), -20) - 3.0)
    ]
    found = ct.advise(b1, b2, eps=eps, steps=n, gradient_scale=sigma).largest_update
    # SciPy stops where ln u is flat to 1e-10 or so; it can only fall short.
    assert found == pytest.approx(math.exp(-min(tried)), rel=1e-7)
    assert found >= math.exp(-min(tried)) * (1 - 1e-12)


def test_largest_update_over_a_long_run():
    """(0.98, 0.96) for 10⁴ steps: a stream attains 3.182, far below the bound of 39.02."""
    b1, b2, eps, steps = 0.98, 0.96, 1e-8, 10_000
    advice = ct.advise(b1, b2, eps=eps, steps=steps)
    lags = np.arange(steps)
    best = max(
        adam_updates(np.minimum(1, (b1 / b2) ** np.minimum(lags - edge, 0))[::-1], b1, b2, eps)[-1]
        for edge in np.arange(600, 1001, 20)
    )
    # From above: gradients older than J lags give m at most b1^J, the others at most
    # √(Σ_{j<J} w²/z) √v. The quotient with √v + eps is below the larger of that and b1^J/eps.
    w, z = weights(b1, steps), weights(b2, steps)
    recent, old = np.sqrt(np.cumsum(w**2 / np.maximum(z, 1e-300))), b1 ** (lags + 1) / eps
    assert best <= advice.largest_update <= np.min(np.maximum(recent, old))
    # The grid of edges is within 10 lags of the best; u is flat there to second order.
    assert best == pytest.approx(advice.largest_update, rel=1e-3)
    assert f"{advice.bound:.4g}, {advice.largest_update:.4g}" == "39.02, 3.182"
    assert "|u| stays below the 7.27 of the usual" in lines(advice)[2]
    assert "usual" not in lines(ct.advise(0.99, 0.9))[2]


@given(
    b1=st.floats(0, 0.999),
    b2=st.floats(0.001, 0.9999),
    eps=st.floats(1e-12, 1.0),
    steps=st.integers(1, 10_000),
)
@settings(deadline=None, max_examples=60)
def test_eps_only_lowers(b1, b2, eps, steps):
    advice = ct.advise(b1, b2, eps=eps, steps=steps)
    free, scaled = (
        ct.advise(b1, b2, eps=0.0, steps=steps),
        ct.advise(b1, b2, eps=4 * eps, steps=steps, gradient_scale=4.0),
    )
    slack = 1 + 1e-11
    assert free.largest_update == pytest.approx(free.bound, rel=1e-10)  # eps = 0: two ways to it
    assert advice.largest_update <= min(free.bound, 1 / eps) * slack
    assert advice.largest_update >= 1 / (1 + eps) / slack  # a constant gradient
    # eps/σ alone counts.
    assert scaled.largest_update == pytest.approx(advice.largest_update, rel=1e-12)
    assert scaled.vanishing_update == pytest.approx(advice.vanishing_update, rel=1e-12)
    later = ct.advise(b1, b2, eps=eps, steps=2 * steps)
    assert later.bound >= advice.bound / slack
    assert later.largest_update >= advice.largest_update / slack


CASES = {
    "the peak": (0.95, 0.85, 1e-8, 1.0, 1000),
    "the horizon": (0.95, 0.85, 1e-8, 1.0, 100),
    "a scale": (0.98, 0.9, 1e-6, 50.0, 2000),
    "eps dominates": (0.95, 0.85, 1.0, 1.0, 100),
    "eps at the edge": (0.95, 0.85, 0.5, 1.0, 100),
    "stable": (0.9, 0.999, 1e-8, 1.0, 100),
    "no eps": (0.95, 0.85, 0.0, 1.0, 200),
    "boundary": (0.9, 0.81, 1e-8, 1.0, 200),
    "no second moment": (0.9, 0.0, 1e-8, 1.0, 100),
    "no second moment, no eps": (0.9, 0.0, 0.0, 1.0, 100),
    "no first moment": (0.0, 0.9, 1e-8, 1.0, 100),
}


@pytest.mark.parametrize("case", CASES)
def test_a_gradient_that_vanishes(case):
    """Adam's recursion: a constant gradient until bias is below an ulp, then none."""
    b1, b2, eps, sigma, steps = CASES[case]
    long = math.ceil(45 / -math.log(max(b1, b2)))  # e^{−45}
    updates = adam_updates([sigma] * long + [0.0] * steps, b1, b2, eps)[long - 1 :]
    advice = ct.advise(b1, b2, eps=eps, steps=steps, gradient_scale=sigma)
    assert advice.vanishing_update == pytest.approx(updates.max(), rel=1e-11)
    assert updates[advice.vanishing_step] == pytest.approx(updates.max(), rel=1e-11)
    if case == "the horizon":
        assert advice.vanishing_step == steps
    if case == "the peak":
        assert 0 < advice.vanishing_step < steps
        r = 2 * math.log(b1) / math.log(b2)
        cap = r**r * (1 - r) ** (1 - r) * (sigma / eps) ** (1 - r)
        # At a whole step, half of one from the peak: ln u has the curvature r(1−r)(ln b2)²/4 there.
        flat = r * (1 - r) * (math.log(b2) / 2) ** 2 / 8
        assert cap * (1 - 1.1 * flat) <= advice.vanishing_cap <= cap
        assert advice.vanishing_cap == advice.vanishing_update
    if case == "no eps":
        assert advice.vanishing_cap == math.inf
    if case == "stable":
        ratio = (updates[60] / updates[50]) ** 0.1
        # eps = 1e-8 beside √v ≈ 0.97.
        assert advice.growth_rate == pytest.approx(math.log(ratio), rel=1e-6)
        assert f"fades as e^({advice.growth_rate:.4g} n)" in lines(advice)[1]


# ---------------------------------------------------------------- what to change


@pytest.mark.parametrize(("b1", "b2"), UNSTABLE)
def test_growth_and_its_cures(b1, b2):
    advice = ct.advise(b1, b2)
    n = np.arange(int(3 * advice.doubling_steps) + 2)
    updates = adam_updates([1.0] * 2000 + [0.0] * len(n), b1, b2)[2000 - 1 :]
    twice = np.interp(advice.doubling_steps, n, np.log(updates[: len(n)]))  # ln u is linear
    assert twice == pytest.approx(math.log(2), rel=1e-9)
    place, _, change = lines(advice)
    assert place.startswith("Unstable")
    least, most = map(float, re.findall(r"(?:above|below) ([\d.]+)(?: |,)", change)[:2])
    # Rounded to the safe side: just beyond the printed numbers b2 > b1² holds, and 1 % before not.
    assert least * (1 + 1e-12) > b1**2 > 0.99 * least
    assert most * (1 - 1e-12) < math.sqrt(b2) < 1.01 * most
    fall = float(re.findall(r"e\^\((-[\d.e-]+) n\)", change)[0])
    annealed = np.exp(fall * n) * updates[: len(n)]
    # Four digits of the rate, over so many steps.
    np.testing.assert_allclose(annealed, 1, rtol=6e-4 * -fall * n[-1])


@given(b1=st.floats(0, 0.99), b2=st.floats(0.001, 0.9999))
@settings(deadline=None, max_examples=60)
def test_the_halved_limit(b1, b2):
    advice = ct.advise(b1, b2)
    if advice.verdict != "stable":
        return

    def limit(b2):
        return (1 - b1) / math.sqrt((1 - b2) * (1 - (b1 * b1 / b2 if b1 else 0)))

    change = lines(advice)[2]
    if advice.limit <= 2:
        assert "the least bound of any b2 is 1" in change
        return
    verb, printed = re.findall(r"(lower|raise) b2 to ([\d.e-]+)\.$", change)[0]
    assert verb == ("lower" if b2 > b1 else "raise")
    half = advice.limit / 2
    root = optimize.brentq(lambda b2: limit(b2) - half, *sorted((b1, b2)), xtol=1e-15, rtol=1e-15)
    # Two digits of the small factor of the limit, to the safe side but for a millionth of the last.
    small = 1 - root if verb == "lower" else root - b1 * b1
    digit = 10.0 ** (math.floor(math.log10(small)) - 1)
    beyond = (root - float(printed)) * (1 if verb == "lower" else -1)
    assert -1e-5 * digit <= beyond <= 1.00001 * digit
    assert limit(float(printed)) <= half * (1 + 1e-6)


# ---------------------------------------------------------------- k-Adam

FIRST, LAST = (0.5, 0.9), (0.95, 0.85)
UNSTABLE_LAST = ((FIRST[0], LAST[0]), (FIRST[1], LAST[1]))
UNSTABLE_FIRST = ((LAST[0], 0.9), (LAST[1], 0.999))


@pytest.mark.parametrize("stages", [UNSTABLE_LAST, UNSTABLE_FIRST])
def test_the_last_stage_decides(stages):
    """A gradient that vanishes: u² grows iff the last stage is unstable."""
    (first1, last1), (first2, last2) = stages
    u1 = adam_updates([1.0] * 200 + [0.0] * 800, first1, first2)
    u2 = adam_updates(u1, last1, last2)
    advice = ct.advise(*stages, eps=0.0)
    slope = np.polyfit(np.arange(400), np.log(np.abs(u2[600:])), 1)[0]
    if stages is UNSTABLE_LAST:
        # u1 falls by 0.53 a step, b1 of the last stage by 0.95: after 400 steps it is forgotten.
        assert slope == pytest.approx(advice.growth_rate, rel=1e-6)
        assert advice.verdict == "unstable"
        assert lines(advice)[0].startswith("Stage 2 of 2 decides. Unstable")
        assert "Stage 1" not in lines(advice)[2]
    else:
        assert np.log(u1[-1] / u1[-401]) / 400 == pytest.approx(advice.earlier[0].growth_rate, 1e-9)
        assert u2.max() <= advice.bound
        assert (advice.verdict, advice.b1, advice.b2) == ("stable", 0.9, 0.999)
        assert "Stage 1 grows, to at most" in lines(advice)[2]
    same = ct.advise(advice.b1, advice.b2, eps=0.0)
    assert (same.bound, same.limit, same.growth_rate) == (
        advice.bound,
        advice.limit,
        advice.growth_rate,
    )


@pytest.mark.parametrize("stages", [UNSTABLE_LAST, UNSTABLE_FIRST, ((0.9, 0.9), (0.999, 0.999))])
def test_no_stream_exceeds_what_stages_put_out(stages):
    (first1, last1), (first2, last2) = stages
    eps, sigma, steps = 1e-3, 3.0, 300
    advice = ct.advise(*stages, eps=eps, steps=steps, gradient_scale=sigma)
    rng = np.random.default_rng(0)
    streams = sigma * rng.choice([-1, 0, 1e-3, 1], (steps, 300), p=[0.1, 0.5, 0.2, 0.2])
    streams[rng.integers(0, steps, 300), np.arange(300)] = sigma
    # Constant for long, then ∝ (b2/b1)^k: the first stage's worst case, but for where it bends.
    bends = np.minimum(np.arange(steps)[:, None] - np.arange(0, steps, 10), 0)
    worst = (first1 / first2) ** np.where(first1 > first2, bends[::-1], -bends)
    streams = np.concatenate([streams, sigma * worst], axis=1)
    u1 = adam_updates(streams, first1, first2, eps)
    u2 = adam_updates(u1, last1, last2, eps)
    assert advice.input_scale == advice.earlier[0].largest_update
    assert np.abs(u1).max() <= advice.input_scale
    assert np.abs(u2).max() <= advice.largest_update
    # Bends every ten steps: 5 from the best, where ln u is flat.
    assert np.abs(u1).max() == pytest.approx(advice.input_scale, rel=0.05)


def test_a_growing_stage_can_overflow():
    """In float32, eps = 0: the square of what (0.99, 0.5) puts out is infinite."""
    stages = ((0.99, 0.9), (0.5, 0.999))
    with np.errstate(under="ignore", over="ignore"):
        b1, b2, m, v = np.float32(0.99), np.float32(0.5), np.float32(1), np.float32(1)
        squares = []
        for _ in range(149):
            m, v = b1 * m, b2 * v
            squares.append((m / np.sqrt(v)) ** 2)
    assert np.isinf(squares[-1])
    assert np.isfinite(squares[0])
    free, capped = (lines(ct.advise(*stages, eps=eps))[2] for eps in (0.0, 1e-8))
    assert free.endswith("whose square can overflow float32.")
    assert "Stage 1 grows, to at most " in capped
    assert capped.endswith(", which float32 can square.")


# ---------------------------------------------------------------- numbers given and printed


def test_decays_of_zero():
    sign = ct.advise(0.0, 0.0)  # u = g/(|g| + eps)
    assert (sign.verdict, sign.bound, sign.limit) == ("stable", 1.0, 1.0)
    assert sign.largest_update == pytest.approx(1 / (1 + 1e-8), rel=1e-15)
    assert lines(sign)[0].startswith("Stable at any b2: b1 = 0")
    spike = ct.advise(0.0, 0.99)
    assert spike.limit == pytest.approx(1 / math.sqrt(0.01), rel=1e-12)
    none = ct.advise(0.9, 0.0)
    assert (none.verdict, none.bound, none.doubling_steps) == ("unstable", math.inf, 0.0)
    assert lines(none)[1].startswith("|u| has no bound after the first step")


@pytest.mark.parametrize("b2", [1 - 2**-53, 0.81000000000001])
def test_near_the_edges(b2):
    """No digit is lost: distances by integers, the limit by EQUATIONS with exact differences."""
    advice = ct.advise(0.9, b2)
    one = 2**106  # b1² and b2 are whole multiples of 2⁻¹⁰⁶
    exact = int(b2 * 2**53) * 2**53 - int(0.9 * 2**53) ** 2
    assert advice.distance_b2 == exact / one
    limit = (1 - 0.9) * math.sqrt(b2 / ((1 - b2) * (exact / one)))
    assert advice.limit == pytest.approx(limit, rel=1e-14)


def test_float64_whatever_jax_is_set_to():
    wide = ct.advise((0.9, 0.98), (0.999, 0.96))
    with jax.enable_x64(False):
        assert ct.advise((0.9, 0.98), (0.999, 0.96)) == wide


@given(
    pairs=st.lists(st.tuples(*[st.floats(0, 1, exclude_max=True)] * 2), min_size=1, max_size=3),
    eps=st.floats(0, 1e300),
    steps=st.integers(1, 10**15),
    scale=st.floats(1e-300, 1e300),
)
@settings(deadline=None, max_examples=60)
def test_whatever_is_allowed_has_three_lines(pairs, eps, steps, scale):
    b1, b2 = zip(*pairs, strict=True)
    advice = ct.advise(b1, b2, eps=eps, steps=steps, gradient_scale=scale)
    assert len(lines(advice)) == 3
    assert "nan" not in str(advice)
    numbers = [v for v in vars(advice).values() if isinstance(v, float)]
    assert not any(map(math.isnan, numbers))
    assert json.dumps(advice.as_dict(), allow_nan=False)


def test_values_that_overflow():
    advice = ct.advise(0.99, 0.5, steps=10**15, eps=0.0)
    assert advice.bound == math.inf
    # ½ ln(b1²/b2) a step, beside which the rest is 1e-14.
    assert advice.log_bound == pytest.approx(math.log(0.99**2 / 0.5) / 2 * 1e15, rel=1e-12)
    assert json.dumps(advice.as_dict(), allow_nan=False)


BAD = {
    "b1": ({"b1": 1.0, "b2": 0.9}, "b1 = 1 must be in [0, 1)."),
    "b2": ({"b1": 0.9, "b2": -0.1}, "b2 = -0.1 must be in [0, 1)."),
    "nan": ({"b1": 0.9, "b2": math.nan}, "b2 = nan must be in [0, 1)."),
    "stage": ({"b1": (0.9, 1.5), "b2": (0.9, 0.9)}, "b1[1] = 1.5 must be in [0, 1)."),
    "lengths": ({"b1": (0.9, 0.9), "b2": (0.9,)}, "b1 has 2 and b2 1 decays"),
    "none": ({"b1": (), "b2": ()}, "b1 has 0 and b2 0 decays"),
    "eps": ({"b1": 0.9, "b2": 0.9, "eps": -1e-8}, "eps = -1e-08 must be finite and not negative."),
    "steps": ({"b1": 0.9, "b2": 0.9, "steps": 0}, "steps = 0 must be a whole number"),
    "scale": ({"b1": 0.9, "b2": 0.9, "gradient_scale": 0.0}, "gradient_scale = 0 must be positive"),
    "negative": (
        {"b1": 0.9, "b2": 0.9, "gradient_scale": -1.0},
        "scale = -1 must be finite",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input(case, capsys):
    options, words = BAD[case]
    with pytest.raises(ValueError, match=re.escape(words)):
        ct.advise(**options)
    args = ["advise"]
    for name, value in options.items():
        values = value if isinstance(value, tuple) else (value,)
        args += [f"--{name.replace('_', '-')}", *map(str, values)]
    assert main(args) == 2
    error = capsys.readouterr().err
    assert error.startswith("ct-adam advise: ")
    assert words in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("steps", [10.0, 1.5, True, "10", 10**16])
def test_steps_are_whole(steps):
    with pytest.raises(ValueError, match="must be a whole number"):
        ct.advise(0.9, 0.999, steps=steps)


@pytest.mark.parametrize("word", ["much", "1.5"])
def test_what_is_no_number_exits_with_2(word):
    assert main(["advise", "--steps", word]) == 2


# ---------------------------------------------------------------- the command

FLAGS = {
    "default": [],
    "unstable": ["--b1", "0.98", "--b2", "0.96", "--steps", "10000"],
    "boundary": ["--b1", "0.9", "--b2", "0.81", "--eps", "0"],
    "zero": ["--b1", "0", "--b2", "0"],
    "no second moment": ["--b2", "0", "--eps", "0"],
    "stages": ["--b1", "0.95", "0.5", "0.9", "--b2", "0.85", "0.9", "0.999"],
}


def no_constant(name):
    raise AssertionError(f"{name} is no JSON")


@pytest.mark.parametrize("case", FLAGS)
def test_text_and_json(case, capsys):
    assert main(["advise", *FLAGS[case]]) == 0
    text = capsys.readouterr().out
    assert text.count("\n") == 3
    assert all(line.endswith(".") for line in text.splitlines())
    assert "nan" not in text
    assert main(["advise", *FLAGS[case], "--json"]) == 0
    printed = capsys.readouterr().out
    found = json.loads(printed, parse_constant=no_constant)
    assert printed.count("\n") == 1
    assert all(isinstance(v, int | float | str | None) for v in found.values())
    assert found["change"] == text.splitlines()[2]
    wanted = {"b1", "b2", "stability_coefficient", "bound", "limit", "growth_rate", "verdict"}
    assert wanted < set(found)
    assert found["deciding_stage"] == (3 if case == "stages" else 1)
    if case == "stages":
        assert (found["stage_1_b2"], found["stage_2_b1"], found["b2"]) == (0.85, 0.5, 0.999)
    if case == "unstable":
        assert (found["steps"], found["limit"]) == (10_000, None)


def test_the_readme_prints_what_the_command_prints(capsys):
    readme = (Path(__file__).parents[1] / "README.md").read_text()
    words, shown = re.findall(r"ct-adam (advise .*?)  #.*?```text\n(.*?)```", readme, re.DOTALL)[0]
    assert main(words.split()) == 0
    assert capsys.readouterr().out == shown


def test_it_starts_without_what_is_slow():
    code = (
        "import sys; from ct_adam.cli import main; main(['advise']); "
        "print([m for m in ('xarray', 'zarr', 'numba', 'matplotlib.pyplot', 'scipy.optimize') "
        "if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.splitlines()[-1] == "[]"
