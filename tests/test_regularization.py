"""AdamW as descent on F_k: the inequality, its regime and its rates (EQUATIONS §6).

Oracles: Zhou et al.'s printed update in a NumPy loop, the exact expansion of a quadratic, streams
that attain the bounds, and the three terms that each are a third of ε².
"""

import math
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ct_adam import theory
from ct_adam.diagnostics import ZhouState, descent_along, descent_path, descent_terms
from ct_adam.optimizers import stage_states, uncorrected, zhou_adamw
from ct_adam.theory import (
    ComplexityConditions,
    complexity_choice,
    dynamic_loss,
    gradient_bound,
    pl_stages,
    zhou_decay,
    zhou_hypotheses,
)
from experiments import _complexity, _descent

STEPS, SIZE = 60, 4
BETA1, BETA2, DELTA, DECAY, ETA = 0.2, 0.05, 0.3, 0.5, 0.05
BOUND = 2.0
MATRIX = np.random.default_rng(0).standard_normal((6, SIZE))
NOISE = np.random.default_rng(1).uniform(-0.5, 0.5, (STEPS, SIZE))
START = np.array([2.0, -1.0, 0.5, 3.0])
FALL = 0.02


def value(x, of=np):
    """Σ log cosh(Ax)/2."""
    return of.sum(of.log(of.cosh(MATRIX @ x))) / 2


def slope(x):
    return MATRIX.T @ np.tanh(MATRIX @ x) / 2


@pytest.fixture(scope="module")
def printed():
    """x_k, m_k, n_k and λ_k by Zhou et al.'s update, k = 0 …"""
    x, rows = START, []
    m = n = None
    for k in range(STEPS):
        g = slope(x) + NOISE[k]
        m = g if m is None else (1 - BETA1) * m + BETA1 * g
        n = g**2 if n is None else (1 - BETA2) * n + BETA2 * g**2
        decay = DECAY * (1 - FALL) ** k
        rows.append((x, m, n, decay))
        x = (1 - decay * ETA) * x - ETA * m / np.sqrt(n + DELTA)
    return ZhouState(*(np.array(column) for column in zip(*rows, strict=True)))


@pytest.fixture(scope="module")
def ours():
    method = theory.from_zhou(BETA1, BETA2, DELTA, DECAY)

    @jax.jit
    def run():
        optimizer = zhou_adamw(method, ETA, lambda k: method.weight_decay * (1 - FALL) ** k)

        def step(carry, k):
            x, state = carry
            g = jax.grad(value)(x, jnp) + jnp.asarray(NOISE)[k]
            delta, state = optimizer.update(g, state, x)
            (stage,) = stage_states(state, 1)
            return (x + delta, state), ZhouState(x, stage.m, stage.v, DECAY * (1 - FALL) ** k)

        x = jnp.asarray(START)
        state = uncorrected(optimizer.init(x), jax.grad(value)(x, jnp) + NOISE[0])
        visits = jax.lax.scan(step, (x, state), jnp.arange(STEPS))[1]
        return visits, descent_path(lambda x: value(x, jnp), visits, ETA, DELTA, BOUND)

    return run()


def test_the_variant_is_the_printed_update(printed, ours):
    # Rounding: an ulp of |x| ≤ 3 a step, two orders of sums; FALL ** k by another power: 1e-12.
    for found, wanted in zip(ours[0], printed, strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-12, atol=1e-12)


def test_the_terms_are_those_of_the_printed_update(printed, ours):
    c1, c2 = math.sqrt(DELTA), math.sqrt(BOUND**2 + DELTA)
    f = [
        value(x) + decay / 2 * np.sum(np.sqrt(n + DELTA) * x**2)
        for x, _, n, decay in zip(*printed, strict=True)
    ]
    grads = np.array([slope(x) for x in printed.params])
    pull = printed.weight_decay[:, None] * np.sqrt(printed.second_moment + DELTA) * printed.params
    error = ETA / 2 / c1 * np.sum((grads - printed.first_moment) ** 2, 1)
    gradient = ETA / 2 / c2 * np.sum((grads + pull) ** 2, 1)
    update = ETA / 4 / c2 * np.sum((printed.first_moment + pull) ** 2, 1)
    found = ours[1]
    # It lags one step: the last visit closes the step before it.
    assert found.left.shape == (STEPS - 1,)
    for seen, wanted in (
        (found.start, f[:-1]), (found.left, f[1:]), (found.error, error[:-1]),
        (found.gradient, gradient[:-1]), (found.update, update[:-1]),
    ):  # fmt: skip
        np.testing.assert_allclose(seen, wanted, rtol=1e-11, atol=1e-13)
    right = np.array(f)[:-1] + (error - gradient - update)[:-1]
    np.testing.assert_allclose(found.slack, right - f[1:], atol=1e-12)
    np.testing.assert_allclose(found.step_slack - found.reweighting, found.slack, atol=1e-14)


def test_a_run_is_the_path_of_its_states(printed, ours):
    """`descent_along` on the same gradients, x as a tree; λ_k falls as `zhou_decay` by default."""
    method = theory.from_zhou(BETA1, BETA2, DELTA, DECAY)

    def loss(tree):
        return value(jnp.concatenate(tree), jnp)

    def gradient(k, tree):
        return jax.tree.map(jnp.add, jax.grad(loss)(tree), halves(jnp.asarray(NOISE)[k]))

    def halves(x):
        return (x[:1], x[1:])

    given = {"weight_decay": lambda k: DECAY * (1 - FALL) ** k, "gradient": gradient}
    start, steps = halves(jnp.asarray(START)), STEPS - 1
    run = descent_along(loss, start, method, ETA, BOUND, steps, **given)
    for found, wanted in zip(run.terms, ours[1], strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-11, atol=1e-12)
    np.testing.assert_allclose(np.concatenate(run.params), printed.params[-1], rtol=1e-11)
    seen = [slope(x) + noise for x, noise in zip(printed.params, NOISE, strict=True)]
    assert float(run.largest_gradient) == pytest.approx(np.abs(seen).max(), rel=1e-11)

    def half(x):
        return jnp.sum(x**2) / 2

    def first_step(x):
        return x - ETA * (x / np.sqrt(x**2 + DELTA) + DECAY * x)

    @jax.jit
    def by_decay(start):
        return [
            descent_along(half, start, method, lambda k: ETA / (1 + k), BOUND, 3, weight_decay=of)
            for of in (None, DECAY)
        ]

    alone = by_decay(START)
    # λ_k = λ(1 − μ)^k with μ = 0.05·4/0.3: F_1's share of it at x_1
    weights = [float(one.terms.left[0] - half(first_step(START))) for one in alone]
    assert weights[0] / weights[1] == pytest.approx(1 - BETA2 * BOUND**2 / DELTA, rel=1e-10)
    # u₀ = g₀ + λ₀x₀v₀ with g₀ = x₀: the rate of step 0 is ETA, that of step 1 half of it
    v = np.sqrt(START**2 + DELTA)
    wanted = (
        ETA / 4 / math.hypot(BOUND, math.sqrt(DELTA)) * np.sum((START + DECAY * START * v) ** 2)
    )
    assert float(alone[0].terms.update[0]) == pytest.approx(wanted, rel=1e-12)
    with pytest.raises(ValueError, match="steps = 0 must be a whole number"):
        descent_along(half, START, method, ETA, BOUND, 0)


# ---------------------------------------------------------------- the inequality


@jax.jit
def one_step(curvature, now, second, decay, eta, delta, bound):
    """`descent_terms` on F = ½ Σ h x², from `now` to where its own update leads."""
    root = jnp.sqrt(now.second_moment + delta)
    x = now.params - eta * (now.first_moment / root + now.weight_decay * now.params)
    after = ZhouState(x, jnp.zeros_like(x), second, decay)

    def loss(x):
        return jnp.sum(curvature * x**2) / 2

    return descent_terms(loss, now, after, eta, delta, bound), x


def test_the_step_is_exact_on_quadratics():
    """F_k(x_{k+1}) − F_k(x_k) is (η/2)Σ(e² − ∇F_k² − u²)/v + (η²/2)Σ(h/v² + λ/v)u², with v_k; with
    v_{k−1} in the place of v_k it is not."""
    rng = np.random.default_rng(2)
    h, x, m = rng.uniform(0.1, 3, 5), rng.standard_normal(5), rng.standard_normal(5)
    n, earlier, decay, eta, delta = rng.uniform(0, 1, 5), rng.uniform(0, 1, 5), 0.4, 0.2, 0.1
    terms, _ = one_step(h, ZhouState(x, m, n, decay), n, decay, eta, delta, 2.0)
    assert terms.reweighting == 0

    def change(n):
        v = np.sqrt(n + delta)
        g, u = h * x + decay * v * x, m + decay * v * x
        error = h * x - m
        return eta / 2 * np.sum((error**2 - g**2 - u**2) / v) + eta**2 / 2 * np.sum(
            (h / v**2 + decay / v) * u**2
        )

    np.testing.assert_allclose(terms.left - terms.start, change(n), rtol=1e-13)
    assert abs(change(earlier) - change(n)) > 1e-2


@pytest.mark.parametrize(("over", "holds"), [(1.0, True), (1.01, False)])
def test_the_limit_on_the_learning_rate_is_sharp(over, holds):
    """With c_∞ ≪ √δ all of v_k, c₁ and c₂ are one, and on F = ½L‖x‖² the inequality is attained."""
    smooth, delta, decay, size = 2.0, 1.0, 0.3, 1e-7
    method = theory.from_zhou(0.1, 0.1, delta, decay)
    known = zhou_hypotheses(method, 0.0, smooth, size)
    assert known.learning_rate_printed == pytest.approx(known.learning_rate_sufficient, rel=1e-13)
    eta = over * known.learning_rate_sufficient
    x = np.array([1e-8, -3e-8])  # |g| ≤ L|x|
    now = ZhouState(x, -x, np.zeros(2), decay)
    terms, _ = one_step(np.full(2, smooth), now, np.zeros(2), decay, eta, delta, size)
    relative = float(terms.slack / terms.update)
    # (η/2)(1 − η(L + λ))u² against (η/4)u²; the slack is a difference of F of 1e-15 and relative
    # to terms of its own size, with c₁/c₂ = 1 to 1e-14
    assert relative == pytest.approx(2 * (1 - over / 2) - 1, abs=1e-9)
    assert (relative > -1e-9) is holds
    assert zhou_hypotheses(method, eta, smooth, size).holds is holds


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10_000), mu=st.floats(1e-3, 0.999), share=st.floats(0.02, 10),
    decay=st.floats(0, 3), fall=st.sampled_from(["printed", "slowest"]), attained=st.booleans(),
)  # fmt: skip
def test_no_single_step_of_the_regime_violates_it(seed, mu, share, decay, fall, attained):
    """Any x, m and n ≤ c_∞² whatever, any next gradient within the bound, η at its limit."""
    rng = np.random.default_rng(seed)
    beta2 = mu * share
    if beta2 > 1:
        beta2, share = 1.0, 1 / mu
    bound, h = 1.5, rng.uniform(-1, 2, SIZE)  # curvatures of both signs; L = 2 is above them
    delta = share * bound**2
    method = theory.from_zhou(0.1, beta2, delta, decay)
    known = zhou_hypotheses(method, 0.0, 2.0, bound)
    n = np.zeros(SIZE) if attained else rng.uniform(0, bound**2, SIZE)
    g = np.full(SIZE, bound) if attained else rng.uniform(-bound, bound, SIZE)
    now = ZhouState(rng.standard_normal(SIZE), rng.uniform(-bound, bound, SIZE), n, decay)
    after = float(zhou_decay(method, bound, fall)(1))
    terms, _ = one_step(
        h, now, (1 - beta2) * n + beta2 * g**2, after, known.learning_rate_sufficient, delta, bound
    )
    scale = abs(terms.start) + terms.error + terms.gradient + terms.update
    # a sum of some 10 numbers of that scale
    assert terms.slack >= -1e-14 * scale
    assert terms.reweighting <= 1e-14 * scale


@pytest.mark.parametrize("mu", [0.3, 0.9, 4.0])
def test_the_slowest_fall_is_the_slowest(mu):
    """From n = 0 a gradient of c_∞ makes v_{k+1} = √(1 + μ) v_k: λ_k v_k just stays."""
    bound, delta = 2.0, 8.0
    method = theory.from_zhou(0.1, mu * delta / bound**2 / 10, delta / 10, 0.7)
    x, eta = np.array([1.0, -2.0]), 1e-3
    now = ZhouState(x, 0 * x, 0 * x, 0.7)
    second = np.full(2, (1 - method.b2) * bound**2)
    falls = [float(zhou_decay(method, bound, "slowest")(1)) * part for part in (1, 1.001)]
    kept, slower = (
        one_step(np.ones(2), now, second, fall, eta, method.eps_root, bound)[0] for fall in falls
    )
    assert abs(kept.reweighting) < 1e-14
    moved = x * (1 - eta * 0.7)
    wanted = 1e-3 * 0.35 * math.sqrt(method.eps_root) * np.sum(moved**2)
    # a difference of sums of size 1
    assert float(slower.reweighting) == pytest.approx(wanted, abs=1e-14)


def half_square(tree):
    return sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(tree)) / 2


def test_trees_and_errors():
    x, n = jnp.array([1.0, -2.0, 3.0]), jnp.array([0.0, 3.0, 8.0])
    wanted = 14 / 2 + 0.25 * (1 + 2 * 4 + 3 * 9)
    trees = [{"a": v[:1], "b": v[1:]} for v in (x, n)]
    for one, moment in ((x, n), trees):
        found = dynamic_loss(half_square, one, moment, 0.5, 1.0)
        assert float(found) == pytest.approx(wanted, rel=1e-15)
    with pytest.raises(ValueError, match="Moments must be like params"):
        dynamic_loss(jnp.sum, x, n[:2], 0.5, 1.0)
    with pytest.raises(ValueError, match="eps_root = -1 must be"):
        dynamic_loss(jnp.sum, x, n, 0.5, -1.0)
    with pytest.raises(ValueError, match=r"weight_decay = -0\.5 must be"):
        dynamic_loss(jnp.sum, x, n, -0.5, 1.0)
    with pytest.raises(ValueError, match="two states at least"):
        descent_path(jnp.sum, ZhouState(x[None], x[None], n[None], jnp.ones(1)), 0.1, 1.0, 1.0)
    with pytest.raises(ValueError, match=r"weight_decay has shape \(3,\): give one λ_k a state, 2"):
        descent_path(jnp.sum, ZhouState(x[:2], x[:2], x[:2], x), 0.1, 1.0, 1.0)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"learning_rate": -0.1}, "learning_rate = -0.1 must be finite and not negative"),
        ({"learning_rate": np.array([0.1, 0.2])}, r"learning_rate has shape \(2,\): give one"),
        ({"learning_rate": abs}, "learning_rate is a schedule: give its value"),
        ({"eps_root": 0.0}, "eps_root = 0 must be positive"),
        ({"bound": np.nan}, "bound = nan must be positive"),
    ],
    ids=["negative rate", "rates", "schedule", "no delta", "nan bound"],
)
def test_what_descent_terms_are_not_of(change, words):
    x = np.ones(2)
    state = ZhouState(x, x, x, 0.1)
    given = {"learning_rate": 0.1, "eps_root": 1.0, "bound": 1.0} | change
    with pytest.raises(ValueError, match=words):
        descent_terms(jnp.sum, state, state, **given)


# ---------------------------------------------------------------- the regime


def test_hypotheses_and_their_sentences():
    delta, bound, smooth, decay = 0.5, 2.0, 3.0, 0.2
    good = theory.from_zhou(0.1, 0.1, delta, decay)
    found = zhou_hypotheses(good, 0.01, smooth, bound, largest_gradient=2.0)
    c1, c2 = math.sqrt(0.5), math.sqrt(4.5)
    assert found.holds
    assert str(found).startswith("The regime holds: μ = 0.8")
    wanted = (
        0.8,
        c1**2 / (2 * c2 * (smooth + decay * c1)),
        c1 / (2 * (smooth + decay * c1)),
        c1,
        c2,
    )
    np.testing.assert_allclose(found[:5], wanted, rtol=1e-14)
    for method, eta, seen, words in (
        (good._replace(b2=0.5), 0.01, 0.0, "μ = 4 is not below 1: raise δ above"),
        (good, 0.2, 0.0, "learning_rate = 0.2 is above"),
        (good._replace(eps=1e-8), 0.01, 0.0, "stands outside the root"),
        (good, 0.01, 2.5, "A gradient of 2.5 was seen"),
        (good._replace(eps_root=0.0), 0.0, 0.0, "δ = 0 leaves v_k without"),
    ):
        violated = zhou_hypotheses(method, eta, smooth, bound, seen).violated
        assert len(violated) == 1
        assert words in violated[0]
    pytorch = zhou_hypotheses(theory.from_zhou(0.1, 1e-3, 1e-8, 0.01), 1e-3, 1.0, 1.0)
    assert pytorch.mu == pytest.approx(1e5)
    assert len(pytorch.violated) == 2
    # μ = 1 exactly: λ_k would be 0 from step 1 on, and `zhou_decay` refuses it too.
    edge = theory.from_zhou(0.1, 0.5, 0.5, 0.2)
    assert "μ = 1 is not below 1" in str(zhou_hypotheses(edge, 0.01, 1.0, 1.0))
    with pytest.raises(ValueError, match="μ = 1 gives no schedule"):
        zhou_decay(edge, 1.0)
    with pytest.raises(ValueError, match="bound = 0 must be positive"):
        zhou_hypotheses(good, 0.1, 1.0, 0.0)
    with pytest.raises(ValueError, match="largest_gradient = nan must be"):
        zhou_hypotheses(good, 0.1, 1.0, 1.0, math.nan)


def test_a_constant_decay_is_outside():
    """μ = 0.5: what is needed is a fall by 1.5^{−½} = 0.816, or no decay."""
    method = theory.from_zhou(0.1, 0.5, 1.0, 0.2)
    told = {ratio: zhou_hypotheses(method, 0.01, 1.0, 1.0, decay_ratio=ratio) for ratio in
            (0.0, 0.5, 1.5**-0.5, 0.82, 1.0, -0.5)}  # fmt: skip
    assert [one.holds for one in told.values()] == [True, True, True, False, False, False]
    assert str(told[1.0]).startswith("λ_k changes by 1 a step, not by 0 … (1 + μ)^(−1/2) = 0.816")
    assert str(zhou_hypotheses(method, 0.01, 1.0, 1.0)).endswith("a constant λ is outside.")
    none = method._replace(weight_decay=0.0)
    assert zhou_hypotheses(none, 0.01, 1.0, 1.0, decay_ratio=1.0).holds


def test_known_numbers_are_known_inside_jit():
    method = theory.from_zhou(0.1, 0.1, 0.5, 0.2)

    @jax.jit
    def scaled(x):
        assert zhou_hypotheses(method, 0.01, 3.0, 2.0, 1.0, 0.2).holds
        return x * zhou_decay(method, 2.0)(1)

    assert float(scaled(2.0)) == pytest.approx(0.08)  # 2 · 0.2 · (1 − 0.8)


def test_schedules_of_the_decay():
    method = theory.from_zhou(0.1, 0.1, 0.5, 0.2)  # μ = 0.8 for c_∞ = 2
    steps = np.arange(6)
    ratios: dict[Any, float] = {"printed": 0.2, "slowest": 1 / math.sqrt(1.8)}
    for fall, ratio in ratios.items():
        schedule = zhou_decay(method, 2.0, fall)
        np.testing.assert_allclose(
            jax.vmap(schedule)(jnp.asarray(steps)), 0.2 * ratio**steps, rtol=1e-13
        )
    with pytest.raises(ValueError, match=r"μ = 3\.2 gives no schedule"):
        zhou_decay(method, 4.0)
    assert zhou_decay(method, 4.0, "slowest")(2) == pytest.approx(0.2 / 4.2)
    with pytest.raises(ValueError, match="μ = inf gives no schedule"):
        zhou_decay(method._replace(eps_root=0.0), 4.0, "slowest")
    with pytest.raises(ValueError, match="fall = 'fast' is unknown"):
        zhou_decay(method, 2.0, cast("Any", "fast"))


# ---------------------------------------------------------------- rates

KNOWN = ComplexityConditions(
    smoothness=3.0, variance=0.4, bound=1.5, eps_root=0.8, weight_decay=0.1
)


@pytest.mark.parametrize(("target", "gap"), [(0.02, 1.3), (0.1, 1.3), (0.3, 1.3), (0.1, 0.005)])
def test_the_choice_is_printed_and_no_longer_than_it_must_be(target, gap):
    """At the last gap it is m₀'s error that takes the steps."""
    square = target**2
    choice = complexity_choice(target, gap, KNOWN)
    c1, c2 = math.sqrt(0.8), math.sqrt(1.5**2 + 0.8)
    beta1 = square * c1 / (3 * c2 * 0.4)
    eta = beta1 * c1**1.5 / (3.0 * math.sqrt(2 * c2))
    assert choice[:2] == pytest.approx((beta1, eta), rel=1e-13)
    steps = max(18 * math.sqrt(2) * (c2 / c1) ** 2.5 * gap * 3.0 * 0.4, 9 * (c2 / c1) ** 2 * 0.4**2)
    assert choice.steps == math.ceil(steps / square**2 * (1 - 1e-13))
    # Each of the three parts is a third of ε² at most, and one step less is too few for one.
    parts = np.array([2 * c2 * gap / eta, c2 / c1 * 0.4 / beta1]) / choice.steps
    assert max(*parts, c2 / c1 * 0.4 * beta1) <= square / 3 * (1 + 1e-12)
    assert max(parts) * choice.steps / (choice.steps - 1) > square / 3
    bound = gradient_bound(choice, gap, KNOWN)
    assert bound == pytest.approx(sum(parts) + square / 3, rel=1e-12)
    assert bound <= square


def test_large_targets_and_no_noise_keep_inside():
    large = complexity_choice(30.0, 1.3, KNOWN)
    limit = zhou_hypotheses(
        theory.from_zhou(0.1, 0.1, 0.8, 0.1), 0.0, 3.0, 1.5
    ).learning_rate_sufficient
    assert large.beta1 == 1
    assert large.learning_rate <= limit
    still = complexity_choice(0.1, 1.3, KNOWN._replace(variance=0.0))
    assert still.beta1 == 1
    assert gradient_bound(still, 1.3, KNOWN._replace(variance=0.0)) <= 0.01


def test_stages_halve_the_gap_and_carry_the_error():
    """The recursion of gap and moment error, run forward, keeps its promise in every stage."""
    tau, gap, target = 0.5, 4.0, 4.0 / 2**9
    stages = pl_stages(target, gap, tau, KNOWN)
    assert len(stages) == 9
    c1, c2, error = KNOWN.c1, KNOWN.c2, KNOWN.variance
    for stage in stages:
        beta1, eta, steps = stage
        noise = error / (beta1 * steps) + beta1 * KNOWN.variance
        gap_after = (2 * c2 * gap / (eta * steps) + c2 / c1 * noise) / (2 * tau)
        growth = KNOWN.smoothness * eta / (beta1 * c1)
        # Σ‖u‖² ≤ 4c₂Δ/η + (2c₂/c₁)Σ‖e‖² in the recursion of ‖e‖²
        q = growth**2
        assert q * 2 * c2 / c1 <= 0.25 * (1 + 1e-12)
        error = (noise + q * 4 * c2 * gap / (eta * steps)) / (1 - q * 2 * c2 / c1)
        assert gap_after <= gap / 2 * (1 + 1e-12)
        gap /= 2
    # Twice the steps for half the gap, once the start is forgotten.
    later = [stage.steps for stage in stages[2:]]
    np.testing.assert_allclose(np.divide(later[1:], later[:-1]), 2, rtol=2 / min(later))
    assert pl_stages(5.0, 4.0, tau, KNOWN) == []
    with pytest.raises(ValueError, match="pl_constant = 0 must be positive"):
        pl_stages(0.1, 1.0, 0.0, KNOWN)
    with pytest.raises(ValueError, match="pl_constant = 4 is above smoothness = 3"):
        pl_stages(0.1, 1.0, 4.0, KNOWN)
    with pytest.raises(ValueError, match="variance = -1 must be"):
        complexity_choice(0.1, 1.0, KNOWN._replace(variance=-1.0))


def test_targets_that_no_run_can_reach():
    with pytest.raises(ValueError, match="more steps than can be counted"):
        complexity_choice(1e-200, 1.0, KNOWN)
    with pytest.raises(ValueError, match="more steps than can be counted"):
        pl_stages(1e-300, 1.0, 0.5, KNOWN)
    choice = complexity_choice(0.1, 1.0, KNOWN)
    with pytest.raises(ValueError, match="gap = -1 must be positive"):
        gradient_bound(choice, -1.0, KNOWN)
    with pytest.raises(ValueError, match="beta1 = 0 must be positive"):
        gradient_bound(choice._replace(beta1=0.0), 1.0, KNOWN)


# ---------------------------------------------------------------- as measured


def test_runs_violate_it_outside_the_regime_alone():
    found = _descent.inequality(1500, 2)
    count = {str(name): int(found.violations.sel(case=name).sum()) for name in found.case.values}
    for name in (*_descent.INSIDE, _descent.SLOWEST, _descent.PYTORCH):
        assert count[name] == 0
        assert float(found.smallest_slack.sel(case=name).min()) > 0
        assert int(found.last_violation.sel(case=name).max()) == -1
    for names, part in (
        (_descent.BROKEN_WEIGHTS, "by_reweighting"),
        (_descent.BROKEN_RATE, "by_step"),
    ):
        for name in names:
            assert count[name] == int(found[part].sel(case=name).sum()) > 0
            assert int(found.last_violation.sel(case=name).max()) >= 0
    assert {str(x) for x in found.case.values[found.missing.values == ""]} == set(_descent.INSIDE)
    assert float(found.largest_gradient.max()) <= float(found.true_bound)
    # λ_k: alive to the end at (1 − 1e-4)^1500, of F_k's 1e-12 gone after ln 1e11/ln 2 at μ = ½.
    assert (found.live_steps.sel(case=_descent.SHOWN) == 1500).all()
    assert int(found.live_steps.sel(case="μ = 0.5").max()) < 60
    # A λ that stays is all that is missing there, and a false c_∞ all that is missing here.
    missing = found.missing.to_series()
    assert missing["μ = 0.5, constant λ"].startswith("λ_k changes by 1 a step")
    assert missing["c_∞ believed ten times too small"] == "c_∞ was believed to be 0.1 of itself."


def test_constants_of_the_robust_regression():
    """L and c_∞ against the steepest and most curved points found by looking, from both sides:
    points lie around the coefficients behind the targets, at distances from 1e-3 to 3."""
    problem = _descent.robust()
    draws = np.random.default_rng(0).standard_normal((3000, problem.size))
    x = problem.truth + draws * np.geomspace(1e-3, 3, len(draws))[:, None]
    grads = jax.jit(jax.vmap(jax.grad(problem.loss)))(x)
    curved = jax.jit(jax.vmap(jax.hessian(problem.loss)))(x)
    # Looking finds less than there is: 0.8 and 0.94 of them, and twice a bound would show.
    steepest = float(jnp.max(jnp.abs(grads)))
    assert 0.7 * (problem.bound - problem.noise) < steepest <= problem.bound - problem.noise
    eigenvalues = np.linalg.eigvalsh(curved)
    assert 0.9 * problem.smoothness < np.abs(eigenvalues).max() <= problem.smoothness
    assert eigenvalues.min() < -0.05  # it is not convex


def test_a_walk_sums_the_gradients_of_what_is_regularised():
    """On the toy, Zhou et al.'s loop in NumPy with the same noise, λ large enough to be seen."""
    problem, key = _complexity.toy(), jax.random.key(3)
    beta1, beta2, delta, decay, eta, mu, steps = 0.3, 0.2, 0.5, 0.4, 0.1, 0.05, 25
    setting = _complexity.Setting(theory.from_zhou(beta1, beta2, delta, decay), eta, mu)
    keys = jnp.broadcast_to(key, (TOY_SIZE,))
    walks = _complexity._begin("toy", setting, keys, jnp.full(1, 3.0))
    walks = _complexity._walk("toy", setting, keys, walks, jnp.full(TOY_SIZE, steps))
    x, total, m, n = 3.0, 0.0, None, 0.0
    for k in range(steps):
        g = float(problem.gradient(key, k, jnp.full(1, x))[0])
        m, n = (g, g**2) if m is None else (m + beta1 * (g - m), n + beta2 * (g**2 - n))
        v, now = math.sqrt(n + delta), decay * (1 - mu) ** k
        total += (x - 1 + now * v * x) ** 2
        x -= eta * (m / v + now * x)
    np.testing.assert_allclose(walks.squares, total, rtol=1e-12)
    np.testing.assert_allclose(walks.params, x, rtol=1e-12)


TOY_SIZE = 128
"""Of groups and replicas: one program for all."""


def test_exponents_are_those_of_powers():
    steps = np.array([10, 40, 200])
    values = np.stack([5.0 * steps**-0.7, steps**-1.0], axis=1)
    np.testing.assert_allclose(_complexity._slopes(steps, values), [-0.7, -1.0], rtol=1e-13)


def test_the_toy_as_measured():
    toy = _complexity.toy_rates(4, TOY_SIZE // 4, (100, 1000))
    # δ = c_∞² = 9 and the noise's variance is 1: η/(2√10)
    np.testing.assert_allclose(toy.predicted, toy.learning_rate / 2 / math.sqrt(10), rtol=1e-14)
    np.testing.assert_allclose(
        toy.learning_rate, [[0.3, 3 / math.sqrt(1000)], [0.3, 0.03]], rtol=1e-14
    )
    ratio = toy.square.mean("group") / toy.predicted
    # 128 squares of a normal each: 12.5 % a standard error; four of them, and a share of order η
    assert float((np.abs(ratio - 1) - toy.learning_rate).max()) < 0.5
    staged = _complexity.toy_stages(4, TOY_SIZE // 4, 0.05)
    assert (staged.gap.mean("group") < staged.promised).all()


@pytest.mark.slow
def test_rates_as_measured():
    general = _complexity.general(2, (0.1, 0.05))
    assert (general.average < general.bound).all()
    assert (general.bound <= general.target).all()
