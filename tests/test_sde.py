"""Stochastic flows: noise, equations, paths, moments, weak order.

Oracles: closed Ornstein–Uhlenbeck forms, van Loan's matrix exponential, NumPy on drawn gradients,
EQUATIONS §6 and §9. `FAR`: a |z| beyond which one of a hundred fair comparisons falls with
probability 1e-3 (Bonferroni): seeds are fixed, a wrong formula lies much further out.
"""

from typing import Any

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats
from scipy.linalg import expm

import ct_adam as ct
from ct_adam.flows import AdamState, MomentumState
from ct_adam.problems import GaussianNoise, estimate_noise
from ct_adam.simulate.stochastic import FINEST
from ct_adam.theory import sde_moments
from experiments import _weak
from experiments._sde_paths import moment_check, stationary_check

FAR = stats.norm.isf(0.5e-3 / 100)
H, SIGMA = np.array([0.5, 2.0]), np.array([0.3, 4.0])
START = jnp.array([1.0, -2.0])


def bowl(x):
    return jnp.sum(jnp.asarray(H, x.dtype) * x**2) / 2


def noisy(seed=0, path_seed=None):
    return GaussianNoise(bowl, jnp.asarray(SIGMA), seed, path_seed)


# ---- noise ---------------------------------------------------------------------------------------


def test_noise_has_the_given_law():
    problem = GaussianNoise(lambda p: jnp.sum(p["a"] ** 2) + p["b"], {"a": 4.0, "b": 0.25}, seed=3)
    params = {"a": jnp.ones(3), "b": jnp.zeros(())}
    draw = eqx.filter_jit(lambda p: jax.vmap(lambda n: p.gradient(n, params))(jnp.arange(4000)))
    drawn = draw(problem)
    noise = np.concatenate([drawn["a"] - 2, drawn["b"][:, None] - 1], axis=1) / [2, 2, 2, 0.5]
    n = noise.size
    assert abs(noise.mean()) * np.sqrt(n) < FAR
    assert abs((noise**2).mean() - 1) * np.sqrt(n / 2) < FAR
    # Independent from coordinate to coordinate and from step to step.
    correlations = np.corrcoef(np.concatenate([noise[1:], noise[:-1]], axis=1).T)
    assert np.max(np.abs(correlations - np.eye(8))) * np.sqrt(4000) < FAR
    again = problem.gradient(7, params)["a"]
    # One program and another may fuse 2 + 2ξ differently: an ulp or two of |2| + |2ξ| < 16.
    np.testing.assert_allclose(again, drawn["a"][7], rtol=0, atol=4e-15)
    other = GaussianNoise(problem.mean, problem.variance, seed=4)
    assert not np.any(draw(other)["a"] == drawn["a"])
    assert problem.value(params) == 3


def test_noise_of_minibatches():
    """∇ of the mean of (p - x)²/2 over a batch of 5 is p - x̄: variance var(x)/5, signal (p - E x)².

    The standard error by its formula, on gradients drawn one by one.
    """
    data = jnp.asarray(np.random.default_rng(0).exponential(size=(400, 1)))
    problem = ct.problems.Minibatches(
        lambda p, x: jnp.mean(jnp.sum((p - x) ** 2, -1)) / 2, data, 5, sampling="independent"
    )
    at = jnp.array([3.0])
    found = estimate_noise(problem, at, batches=2000, first=10)
    exact = float(jnp.var(data)) / 5
    assert abs(found.variance[0] - exact) < FAR * found.standard_error[0]
    every = jax.jit(jax.vmap(lambda n: problem.gradient(n, at)))(jnp.arange(2010))
    of, gradients = np.split(np.array(every)[:, 0], [10])
    np.testing.assert_allclose(found.variance[0], gradients.var(ddof=1), rtol=1e-10)
    n, fourth = 2000, np.mean((gradients - gradients.mean()) ** 4)
    error = np.sqrt((fourth - gradients.var(ddof=1) ** 2 * (n - 3) / (n - 1)) / n)
    np.testing.assert_allclose(found.standard_error[0], error, rtol=1e-10)
    signal = float((3 - data.mean()) ** 2)
    assert abs(found.signal - signal) < FAR * 2 * np.sqrt(signal * exact / n)
    assert found.noise == found.variance[0]
    few = estimate_noise(problem, at, batches=8)  # of which noise/n is a part to be seen
    of = of[:8]
    np.testing.assert_allclose(few.signal, of.mean() ** 2 - of.var(ddof=1) / 8, rtol=1e-10)


def test_from_minibatches_to_a_path():
    """What `estimate_noise` finds is what the SDE's m is given: (1 - b1) of its root."""
    data = jnp.asarray(np.random.default_rng(0).normal(size=(50, 2)) * [1.0, 3.0])
    batches = ct.problems.Minibatches(
        lambda p, x: jnp.mean(jnp.sum((p - x) ** 2, -1)) / 2, data, 5, sampling="independent"
    )
    found = estimate_noise(batches, START, batches=200)
    problem = GaussianNoise(bowl, found)
    flow = ct.AdamSDE(0.1, 0.8, moments="warm")
    root = 0.2 * np.sqrt(found.variance)
    np.testing.assert_allclose(
        flow.diffusion(0, flow.init(problem, START), problem), root, rtol=1e-12
    )


# ---- equations -----------------------------------------------------------------------------------


@pytest.mark.parametrize("decay", ["decoupled", "l2"])
def test_drift_is_that_of_adam_flow(decay):
    """Where g² = Σ, on a slope of √Σ, the Euler flow's field; but for v' where g holds λθ too."""
    slope = jnp.sqrt(jnp.asarray(SIGMA))
    problem = GaussianNoise(lambda x: slope @ x, jnp.asarray(SIGMA), seed=1)
    numbers = {"b1": 0.8, "b2": 0.95, "eps": 0.1, "weight_decay": 0.3, "decay": decay}
    ours = ct.AdamSDE(0.1, **numbers)
    flow = ct.AdamFlow(0.1, **numbers, rates="euler", start="zero")
    state = {}
    for name, method, loss in (("ours", ours, problem), ("flow", flow, problem.mean)):
        held = ours.optimizer.init(START)
        params, grads = START, [problem.gradient(n, START) for n in range(3)]
        for g in grads:
            held = ours.optimizer.update(g, held, params)[1]
        state[name] = method.from_optimizer(loss, params, held, 3)
    fields = (
        ours.vector_field(4.5, state["ours"], problem),
        flow.vector_field(4.5, state["flow"], problem.mean),
    )
    for part in ("params", "m") if decay == "l2" else ("params", "m", "v"):
        of = [jax.tree.leaves(getattr(field, part)) for field in fields]
        np.testing.assert_allclose(*of, rtol=1e-12)
    np.testing.assert_allclose(fields[0].v[0], 0.05 * (SIGMA - state["ours"].v[0]), rtol=1e-12)
    u = ours.update(4.5, state["ours"], problem), flow.update(4.5, state["flow"], problem.mean)
    np.testing.assert_allclose(*u, rtol=1e-12)


def test_where_the_noise_goes():
    root = np.sqrt(SIGMA)
    for flow, expected, part in (
        (ct.AdamSDE(0.1, 0.8, moments="warm"), 0.2 * root, "m"),
        (ct.AdamSDE(0.1, 0, eps=0.5, moments="warm"), -0.1 * root / (root + 0.5), "params"),
        (ct.flows.RMSPropSDE(0.1, eps=0.5, moments="warm"), -0.1 * root / (root + 0.5), "params"),
        (
            ct.AdamSDE(lambda s: 0.1 / (1 + s), 0, eps=0.5, moments="warm"),
            -0.1 / 3 * root / (root + 0.5),
            "params",
        ),
        (ct.flows.SGDSDE(0.1, 0.8), root, "m"),
        (ct.flows.SGDSDE(0.1), -0.1 * root, "params"),
        (ct.flows.SGDSDE(lambda s: 0.1 / (1 + s)), -0.1 / 3 * root, "params"),
    ):
        state = flow.init(noisy(), START)
        # float64; eps = 1e-8 of the flows without another one
        np.testing.assert_allclose(flow.diffusion(2.0, state, noisy()), expected, rtol=1e-6)
        moved = flow.noise_increment(jnp.ones(2))
        assert jax.tree.structure(moved) == jax.tree.structure(state)
        assert sum(float(jnp.sum(leaf)) for leaf in jax.tree.leaves(moved)) == 2
        assert np.all(jax.tree.leaves(getattr(moved, part))[0] == 1)


def test_where_the_noise_is_additive():
    """Where the diffusion is a function of time alone: not where a √v that moves divides it."""
    for flow, expected in (
        (ct.AdamSDE(0.1), True),
        (ct.AdamSDE(0.1, 0), False),
        (ct.AdamSDE(0.1, 0, moments="warm"), True),
        (ct.flows.RMSPropSDE(0.1), False),
        (ct.flows.SGDSDE(0.1), True),
    ):
        assert flow.additive is expected


def test_drift_of_sgd():
    """dm = (g - (1 - β)m) ds and dθ = -η(m + λθ) ds, with β and not ln β."""
    flow = ct.flows.SGDSDE(0.1, 0.7, 0.3)
    state = MomentumState(START, jnp.array([0.5, 4.0]))
    drift = flow.vector_field(2.0, state, noisy())
    np.testing.assert_allclose(drift.m, H * START - 0.3 * np.array([0.5, 4.0]), rtol=1e-12)
    np.testing.assert_allclose(drift.params, -0.1 * (state.m + 0.3 * START), rtol=1e-12)


def test_rmsprop_corrects_no_bias():
    """dθ = -η∇f/(√ν + eps) ds, one step after ν = 0; b1 = 0 of `AdamSDE` divides by √(ν/B)."""
    v, eps = 0.1 * SIGMA, 0.05
    for flow, factor in (
        (ct.flows.RMSPropSDE(0.1, 0.9, eps), 1.0),
        (ct.AdamSDE(0.1, 0, 0.9, eps), 1 - 0.9 * np.exp(-0.1)),
    ):
        state = AdamState(START, None, (None,), (jnp.asarray(v),), jnp.asarray(1.0))
        drift = flow.vector_field(2.0, state, noisy()).params
        expected = -0.1 * H * START / (np.sqrt(v / factor) + eps)
        np.testing.assert_allclose(drift, expected, rtol=1e-12)


def test_hand_over():
    held = ct.flows.RMSPropSDE(0.1, 0.9).optimizer.init(START)
    held = ct.flows.RMSPropSDE(0.1, 0.9).optimizer.update(START, held, START)[1]
    state = ct.flows.RMSPropSDE(0.1, 0.9).from_optimizer(noisy(), START, held, 1)
    np.testing.assert_allclose(state.v[0], 0.1 * START**2, rtol=1e-12)
    assert state.m == (None,)
    momentum = ct.flows.SGDSDE(0.1, 0.5)
    held = momentum.optimizer.update(START, momentum.optimizer.init(START), START)[1]
    np.testing.assert_allclose(momentum.from_optimizer(noisy(), START, held, 1).m, START)
    adam = ct.AdamSDE(0.1, 0.5, moments="warm")
    held = adam.optimizer.update(START, adam.optimizer.init(START), START)[1]
    state = adam.from_optimizer(noisy(), START, held, 1)
    np.testing.assert_allclose(state.m[0], START)  # m/B1
    np.testing.assert_allclose(state.v[0], SIGMA)  # not the optimizer's


# ---- paths ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def strong_errors():
    """Distance of θ_20 from that of steps of 1/32, along the same Brownian paths, by length."""

    def end(flow, seed, length):
        path = ct.solve(
            flow, noisy(seed), START, 20, warm_steps=5, save_steps=[20],
            controller=diffrax.ConstantStepSize(), dt0=length,
        )  # fmt: skip
        return path.params[0]

    def errors(flow):
        fine = [end(flow, seed, 1 / 32) for seed in range(6)]
        return [
            np.sqrt(np.mean([(end(flow, seed, h) - x) ** 2 for seed, x in enumerate(fine)]))
            for h in (0.5, 0.25)
        ]

    return errors


@pytest.mark.slow
@pytest.mark.parametrize("name", ["AdamSDE", "RMSPropSDE"])
def test_strong_order(strong_errors, name):
    """3/2 (2^1.5 = 2.8 from half to half the step): order 1 would give 2.1 at most, the error of
    the fine path included, which is a 32nd to a 64th; six paths scatter by a fifth."""
    flow = {"AdamSDE": ct.AdamSDE(0.05, 0.5, 0.9), "RMSPropSDE": ct.flows.RMSPropSDE(0.05, 0.9)}
    coarse, half = strong_errors(flow[name])
    assert FINEST < 1 / 32
    assert coarse / half > 2.4
    assert coarse < 1e-2 * 0.05 * 20  # a step of ½ will do: 1 % of the way an update of 1 leads


def make(seed, weight_decay):
    return ct.Case(ct.AdamSDE(0.02, 0.8, 0.95, weight_decay=weight_decay), noisy(seed))


@pytest.mark.slow
def test_engines_draw_the_same_paths():
    lanes = {"seed": np.arange(6), "weight_decay": np.linspace(0, 1, 6)}
    tables = [
        ct.ensemble(make, None, START, 15, lanes, engine=engine, warm_steps=2)
        for engine in ("reference", "cohort")
    ]
    for name in ("final_params", "max_update", "update_slope", "min_loss", "evaluations"):
        np.testing.assert_allclose(*(table[name] for table in tables), rtol=1e-9, atol=1e-12)
    assert np.all(tables[0].outcome == 0)
    assert np.all(tables[0].evaluations == 2 + 2 * 30)
    ends = tables[0].final_params.values
    assert len(np.unique(ends[:, 0])) == 6
    case = make(seed=5, weight_decay=1.0)
    path = ct.solve(case.method, case.loss, START, 15, warm_steps=2)
    np.testing.assert_allclose(path.params[-1], ends[5], rtol=1e-9)
    with pytest.raises(ValueError, match="fused' cannot take this problem"):
        ct.ensemble(make, None, START, 15, lanes, engine="fused", warm_steps=2)


def test_paths_part_after_the_same_warm_steps():
    flow = ct.flows.SGDSDE(0.1, 0.5)
    a, b, c = (
        ct.solve(flow, noisy(*seeds), START, 15, warm_steps=2).params
        for seeds in ((1, 7), (1, 8), (2, 8))
    )
    np.testing.assert_array_equal(a[0], b[0])
    assert not np.any(a[1:] == b[1:])
    assert not np.any(c[0] == b[0])


def test_single_precision_and_trees():
    """Of both engines, for SGD; for Adam in the slow test above."""
    problem = GaussianNoise(lambda p: bowl(p["x"]), 0.5)
    params = {"x": START.astype(jnp.float32)}
    tables = [
        ct.ensemble(
            lambda momentum: ct.flows.SGDSDE(0.1, momentum), problem, params, 10,
            {"momentum": [0.5, 0.9]}, warm_steps=1, engine=engine,
        )
        for engine in ("reference", "cohort")
    ]  # fmt: skip
    for table in tables:
        assert table.final_params.dtype == np.float32
        assert np.all(np.isfinite(table.final_params))
        assert table.evaluations.values.tolist() == [41, 41]
    # Twenty solver steps of a few operations each, in float32, of numbers of order one.
    np.testing.assert_allclose(*(table.final_params for table in tables), rtol=0, atol=1e-4)


# ---- moments -------------------------------------------------------------------------------------


def test_moments_of_sgd():
    """Ornstein–Uhlenbeck: E θ = θ₀e^{-ks}, var = η²Σ(1 - e^{-2ks})/(2k), k = η(h + λ)."""
    steps, eta, lam = np.array([1.0, 10.0, 300.0]), 0.1, 0.4
    law = sde_moments(H, SIGMA, START, steps, eta, 0, weight_decay=lam, rule="sgd")
    k = eta * (H + lam)
    decayed = np.exp(-k * steps[:, None])
    np.testing.assert_allclose(law.mean, START * decayed, rtol=1e-7, atol=1e-11)
    variance = eta**2 * SIGMA * (1 - decayed**2) / (2 * k)
    diagonal = np.diagonal(law.covariance, axis1=1, axis2=2)
    np.testing.assert_allclose(diagonal, variance, rtol=1e-8)
    np.testing.assert_allclose(law.square, variance + (START * decayed) ** 2, rtol=1e-7)


@pytest.mark.parametrize("rule", ["adam", "sgd"])
def test_moments_by_van_loan(rule):
    """exp of [[-A, N], [0, Aᵀ]] holds e^{As} and the covariance; H rotated, so that Q and H do not
    commute."""
    c, s = np.cos(0.4), np.sin(0.4)
    turned = np.array([[c, -s], [s, c]]) @ np.diag(H) @ np.array([[c, s], [-s, c]])
    eta, b1, lam, time = 0.1, 0.7, 0.2, 12.0
    law = sde_moments(
        turned, SIGMA, [1.0, -2.0, 0.3, 0.1], [time], eta, b1, eps=0.1, weight_decay=lam, rule=rule
    )
    q = np.eye(2) if rule == "sgd" else np.diag(1 / (np.sqrt(SIGMA) + 0.1))
    gain = 1.0 if rule == "sgd" else 1 - b1
    a = np.block([[-eta * lam * np.eye(2), -eta * q], [gain * turned, -(1 - b1) * np.eye(2)]])
    noise = np.zeros((4, 4))
    noise[2:, 2:] = gain**2 * np.diag(SIGMA)
    big = expm(time * np.block([[-a, noise], [np.zeros((4, 4)), a.T]]))
    flow = big[4:, 4:].T
    np.testing.assert_allclose(law.mean[0], flow @ [1.0, -2.0, 0.3, 0.1], rtol=1e-8)
    np.testing.assert_allclose(law.covariance[0], flow @ big[:4, 4:], rtol=1e-8)


def test_moments_in_their_limit():
    """The contract's E θ² = 0.5525138866, at η² = 1e-8."""
    of = _weak.scaled(_weak.Setting(), 1e-8)
    # The distance is O(η²), with a constant of order one.
    assert abs(_weak.sde_square(_weak.Setting(), of) - 0.5525138866) < 2e-9


def test_decay_l2_of_the_moments():
    """λ within the gradient is H + λ, which m and the noise see; decoupled it is beside u."""
    with_l2 = sde_moments(H, SIGMA, START, [5.0], 0.1, weight_decay=0.3, decay="l2")
    more = sde_moments(H + 0.3, SIGMA, START, [5.0], 0.1)
    np.testing.assert_allclose(with_l2.mean, more.mean, rtol=1e-12)
    np.testing.assert_allclose(with_l2.covariance, more.covariance, rtol=1e-12)


def test_second_moment_of_the_moments():
    """v relaxes to Σ at 1 - b2, B = 1 - b2^w e^{-(1-b2)s}."""
    numbers = {"b1": 0.8, "b2": 0.9, "warm_steps": 3, "second_moment": 2 * SIGMA}
    law = sde_moments(H, SIGMA, START, [4.0], 0.1, **numbers)
    left = np.exp(-0.1 * 4)
    b1, b2 = (1 - b**3 * np.exp(-(1 - b) * 4) for b in (0.8, 0.9))
    expected = 1 / (b1 * np.sqrt(SIGMA * (1 + left) / b2))
    np.testing.assert_allclose(law.scale[0], expected, rtol=1e-12)


def test_schedule_of_the_moments():
    """SGD under η = 0.1/s from step 3 on: the mean falls by exp(-h ∫ η) = ((3 + s)/3)^{-0.1h}."""
    law = sde_moments(H, SIGMA, START, [4.0, 8.0], lambda s: 0.1 / s, 0, rule="sgd", warm_steps=3)
    passed = (3 + np.array([[4.0], [8.0]])) / 3
    np.testing.assert_allclose(law.mean, START * passed ** (-0.1 * H), rtol=1e-8)


def test_moments_where_a_coordinate_has_no_noise():
    """v = 0 and eps = 0 is u = 0 (§0): θ stays. It used to look for a step for ever."""
    law = sde_moments(H, [0.0, 4.0], START, [5.0], 0.1, eps=0.0)
    alone = sde_moments(H[1:], 4.0, START[1:], [5.0], 0.1, eps=0.0)
    assert law.scale[0, 0] == 0
    assert law.mean[0, 0] == START[0]
    assert law.covariance[0, 0, 0] == 0
    np.testing.assert_allclose(law.mean[0, [1, 3]], alone.mean[0], rtol=1e-8)


@pytest.fixture(scope="module")
def found():
    return moment_check(1500, steps=(25, 100))


def test_paths_have_the_moments(found):
    assert np.max(np.abs(found.z)) < FAR
    assert np.mean(found.z**2) < 2  # 30 of them, in groups of five: twice the mean is 4 deviations


def test_the_moment_check_can_fail(found):
    """Moments without bias correction, and Σ a tenth larger, lie far out."""
    square = found.estimate.sel(moment="u²"), found.standard_error.sel(moment="u²")
    wrong = 1.21 * found.exact.sel(moment="u²")
    assert np.max(np.abs((square[0] - wrong) / square[1])) > 4
    law = sde_moments(
        found.curvature.values, found.curvature.values / 10, [1.0, -1.0, 0.5], [45], 0.02, 0.9,
        0.98, 0.05, 0.3,
    )  # fmt: skip
    apart = (found.estimate.sel(moment="θ", step=25) - law.mean[0, :3]).values
    assert np.max(np.abs(apart / found.standard_error.sel(moment="θ", step=25).values)) > 10


def test_stationary_variances():
    """EQUATIONS §6; what leaves out the momentum or the √b of real Adam is rejected."""
    law = stationary_check(800)
    np.testing.assert_allclose(law.moments, law.theory, rtol=1e-5)  # e⁻¹⁷ of the start is left
    assert np.max(np.abs(law.z)) < FAR
    without = ((law.estimate - law.memoryless) / law.standard_error).sel(decay=1.0)
    assert np.all(np.abs(without) > 3)
    theirs = (law.estimate - law.published) / law.standard_error
    assert np.all(np.abs(theirs) > 8)


# ---- weak order ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def weak():
    return _weak.weak_order((0.2, 0.1, 0.05, 0.025), 20_000)


def test_weak_order(weak):
    assert 0.8 < weak.attrs["order"] < 1.2
    assert np.all(weak.z > 5)
    assert np.all(weak.standard_error < 0.3 * weak.plain_standard_error)


def test_the_weak_order_can_fail(weak):
    """Against an SDE without m the error stays."""
    others = []
    for size in weak.size.values:
        of = _weak.scaled(_weak.Setting(), size)
        law = sde_moments([1.0], of.variance, [1.0], [of.steps], of.learning_rate, 0, of.b2)
        others.append(law.square[0, 0])
    off = np.abs(weak.estimate.values - others)
    assert abs(_weak.slope(weak.size.values, off, weak.standard_error.values)[0]) < 0.5


def test_the_twin_is_known_exactly():
    setting = _weak.Setting()
    of = _weak.scaled(setting, 0.1)
    squares = _weak.ends(setting, of, 8192, seed=5)[1] ** 2
    off = squares.mean() - _weak.twin_square(setting, of)
    assert abs(off) < FAR * squares.std() / np.sqrt(8192)


# ---- errors --------------------------------------------------------------------------------------

WARM: dict[str, Any] = {"steps": 5, "warm_steps": 1}
BAD = {
    "no warm steps": (lambda: ct.solve(ct.AdamSDE(0.1), noisy(), START, 5), "warm_steps of at"),
    "no noise": (lambda: ct.solve(ct.AdamSDE(0.1), bowl, START, **WARM), "GaussianNoise"),
    "no noise in an ensemble": (
        lambda: ct.ensemble(
            lambda b1: ct.AdamSDE(0.1, b1), bowl, START, 5, {"b1": [0.9]}, warm_steps=1
        ),
        "GaussianNoise",
    ),
    "solver": (
        lambda: ct.solve(ct.AdamSDE(0.1), noisy(), START, **WARM, solver=diffrax.Tsit5()),
        "Tsit5 is no solver for stochastic",
    ),
    "b2": (lambda: ct.AdamSDE(0.1, b2=0), "take SGDSDE"),
    "moments": (lambda: ct.AdamSDE(0.1, moments="cold"), "moments = 'cold' is unknown"),
    "range": (lambda: ct.flows.SGDSDE(0.1, 1.0), "momentum = 1 must be"),
    "negative variance": (lambda: GaussianNoise(bowl, -1.0), "finite and not negative"),
    "noise on noise": (lambda: GaussianNoise(noisy(), 1.0), "noise of its own"),
    "stream": (lambda: GaussianNoise(ct.problems.constant_stream(3), 1.0), "has no value"),
    "batches": (lambda: estimate_noise(noisy(), START, batches=2), "batches = 2"),
    "estimate without noise": (lambda: estimate_noise(bowl, START), "the same gradient"),
    "shapes": (lambda: sde_moments(H, SIGMA, [1.0], [1], 0.1), "mean of shape"),
    "variance": (lambda: sde_moments(H, [1.0], START, [1], 0.1), "variance of shape"),
    "steps": (lambda: sde_moments(H, SIGMA, START, [2, 1], 0.1), "increase"),
    "step": (lambda: sde_moments(H, SIGMA, START, [np.nan], 0.1), "finite numbers that increase"),
    "warm": (lambda: sde_moments(H, SIGMA, START, [1], 0.1, warm_steps=0), "at least 1"),
    "half": (lambda: sde_moments(H, SIGMA, START, [1], 0.1, warm_steps=1.5), "warm_steps = 1.5"),
    "variance NaN": (lambda: sde_moments(H, np.nan, START, [1], 0.1), "variance must be finite"),
    "second moment": (
        lambda: sde_moments(H, SIGMA, START, [1], 0.1, warm_steps=1, second_moment=-1.0),
        "second_moment must be finite",
    ),
    "second moment, no warm steps": (
        lambda: sde_moments(H, SIGMA, START, [1], 0.1, second_moment=1.0), "warm_steps too",
    ),
    "mean": (lambda: sde_moments(H, SIGMA, [np.nan, 1], [1], 0.1), "mean and covariance"),
    "b2 of moments": (lambda: sde_moments(H, SIGMA, START, [1], 0.1, b2=0), "rule='sgd'"),
    "hessian": (lambda: sde_moments([[1, 1], [0, 1]], 1, START, [1], 0.1), "symmetric"),
    "divergence": (lambda: sde_moments([-1.0], 1.0, [1e300], [1e6], 1.0), "not finite at step"),
    "schedule": (
        lambda: sde_moments(H, SIGMA, START, [1], lambda s: float("nan")), "not finite at step",
    ),
    "stages": (lambda: ct.AdamSDE(0.1, (0.9, 0.8)), "AdamSDE has one stage"),  # pyright: ignore[reportArgumentType]
    "rms stages": (lambda: ct.flows.RMSPropSDE(0.1, (0.9, 0.8)), "SDE has one stage"),  # pyright: ignore[reportArgumentType]
    "dt0": (lambda: ct.solve(ct.AdamSDE(0.1), noisy(), START, **WARM, dt0=0.0), "dt0 = 0"),
    "sde solver": (
        lambda: ct.solve(ct.AdamFlow(0.1), bowl, START, 5, solver=diffrax.ShARK()),
        "ShARK is a solver for stochastic equations",
    ),
    "backward": (
        lambda: ct.solve(
            ct.AdamSDE(0.1), noisy(), START, **WARM, adjoint=diffrax.RecursiveCheckpointAdjoint()
        ),
        "give solve controller=diffrax.ConstantStepSize",
    ),
    "shape of variance": (
        lambda: GaussianNoise(bowl, jnp.ones(3)).gradient(0, START), r"shape \(3,\) does not fit",
    ),
    "matrix": (
        lambda: GaussianNoise(bowl, jnp.eye(2)).gradient(0, START), r"shape \(2, 2\) does not fit",
    ),
    "tree": (lambda: GaussianNoise(bowl, {"a": 1.0}).gradient(0, START), "variance is a PyTree"),
    "nothing": (lambda: GaussianNoise(bowl, None), "variance has no number"),
    "word": (lambda: GaussianNoise(bowl, "x"), "no real number"),
    "complex": (lambda: GaussianNoise(bowl, 1j), "no real number"),
    "seed": (lambda: GaussianNoise(bowl, 1.0, 1.5), "seed = 1.5 must be a whole"),
    "seeds": (lambda: GaussianNoise(bowl, 1.0, np.arange(3)), "must be a whole number"),
    "first": (lambda: estimate_noise(noisy(), START, 8, first=-3), "first = -3"),
    "size": (lambda: _weak.weak_order((0.3,)), "must divide"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_errors(case):
    call, words = BAD[case]
    with pytest.raises(ValueError, match=words):
        call()


def test_reverse_mode_says_what_to_do():
    def end(start):
        path = ct.solve(ct.flows.SGDSDE(0.1, 0.5), noisy(), start, 15, warm_steps=2)
        return jnp.sum(path.params[-1])

    with pytest.raises(RuntimeError, match=r"give solve controller=diffrax\.Const"):
        jax.grad(end)(START)
