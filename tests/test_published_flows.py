"""Published models: the modified equation, heavy ball and gradient flow, and the table of names.

Oracles: closed forms written out in NumPy, the matrix exponential, and DOP853.
"""

import itertools

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy import integrate, linalg

import ct_adam as ct
from ct_adam import sweep
from ct_adam.flows.registry import FLOWS, describe_flows, flow_named, published
from ct_adam.optimizers.registry import OPTIMIZERS, optimizer_named

from .jax_reference import ripple
from .reference import BEGIN, CURVATURE, rate_of, ripple_gradient

SHARP = {"rtol": 1e-12, "atol": 1e-13, "solver": diffrax.Dopri8()}
RATES = ("log", "lag", "euler")

ROTATION = np.linalg.qr(np.random.default_rng(3).standard_normal((4, 4)))[0]
HESSIAN = ROTATION * CURVATURE @ ROTATION.T  # full: the correction mixes coordinates


def bowl(x):
    return x @ jnp.asarray(HESSIAN) @ x / 2


# ---- the modified equation -----------------------------------------------------------------------


def modified_update(theta, eta, b1, b2, eps):
    """EQUATIONS §1 as printed, for E = ½θᵀHθ; ∂_j‖∇E‖_{1,eps} = Σ_i g_i H_ij/√(g_i² + eps)."""
    g = HESSIAN @ theta
    of_norm = [
        sum(g[i] * HESSIAN[i, j] / np.sqrt(g[i] ** 2 + eps) for i in range(4)) for j in range(4)
    ]
    second = (1 + b2) / (1 - b2)
    bracket = (1 + b1) / (1 - b1) - second + second * eps / (g**2 + eps)
    return (g + eta / 2 * bracket * np.array(of_norm)) / np.sqrt(g**2 + eps)


@pytest.mark.parametrize("numbers", [(0.9, 0.999, 1e-8), (0.5, 0.8, 1.0), (0, 0, 1e-2)], ids=str)
def test_modified_equation_on_a_quadratic(numbers):
    b1, b2, eps = numbers
    for eta, theta in itertools.product((1e-3, 0.1), (BEGIN, np.array([1e-4, 0.0, -3.0, 1e-6]))):
        flow = ct.ModifiedFlow(eta, b1, b2, eps)
        u = modified_update(theta, eta, b1, b2, eps)
        state = flow.init(bowl, jnp.asarray(theta))
        np.testing.assert_allclose(flow.update(0, state, bowl), u, rtol=1e-10, atol=1e-12)
        field = flow.vector_field(2.5, state, bowl)
        np.testing.assert_allclose(field, -eta * u, rtol=1e-10, atol=1e-12)
        bare = ct.ModifiedFlow(eta, b1, b2, eps, corrected=False)
        g = HESSIAN @ theta
        np.testing.assert_allclose(bare.update(0, state, bowl), g / np.sqrt(g**2 + eps), rtol=1e-12)
    assert (flow.evaluations, bare.evaluations, flow.lag) == (2, 1, 1)


def test_modified_flow_reads_its_schedule_at_the_step():
    flow = ct.ModifiedFlow(lambda s: 0.1 / (1 + s), 0.5, 0.8, 1.0)
    u = modified_update(BEGIN, 0.1 / 4, 0.5, 0.8, 1.0)
    np.testing.assert_allclose(flow.update(3, jnp.asarray(BEGIN), bowl), u, rtol=1e-12)


def test_modified_flow_where_a_gradient_dies():
    # eps = 0 and g = 0: u = 0 there, no NaN (EQUATIONS §0, Zero).
    flow = ct.ModifiedFlow(0.1, eps=0.0)
    update = flow.update(0, jnp.array([0.0, 2.0]), lambda x: jnp.sum(x**2))
    assert update[0] == 0
    assert np.all(np.isfinite(update))


def test_modified_flow_on_a_stream():
    # A stream has no Hessian: θ_n = θ_0 - η Σ_{k<n} g_k/√(g_k² + eps), batch ⌊s⌋ held.
    stream = ct.problems.random_stream(12, size=2, seed=1)
    flow = ct.ModifiedFlow(0.1, eps=0.5)
    path = ct.solve(flow, stream, jnp.ones(2), 12, **SHARP)
    g = np.asarray(stream.gradients)
    u = g / np.sqrt(g**2 + 0.5)
    np.testing.assert_allclose(path.update[:12], u, rtol=1e-14)
    np.testing.assert_allclose(path.params[1:], 1 - 0.1 * np.cumsum(u, axis=0), rtol=0, atol=1e-12)


def memoryless_error(corrected, learning_rate, length, b1, b2, eps, warm_steps):
    """Against its own optimizer, over learning_rate · steps = length."""
    flow = ct.ModifiedFlow(learning_rate, b1, b2, eps, corrected)
    steps = round(length / learning_rate)
    saved = np.linspace(0, steps, 61).round().astype(int)
    shared = {"save_steps": saved, "warm_steps": warm_steps}
    # One budget for all, so that they share a program.
    sharp = {"rtol": 1e-9, "atol": 1e-12, "max_solver_steps": 2**20}
    path = ct.solve(flow, ripple, jnp.asarray(BEGIN), steps, **shared, **sharp)
    return ct.compare(path, ct.run(flow, ripple, jnp.asarray(BEGIN), steps, **shared)).max_error


# 200 warm steps leave 0.9^200 = 7e-10 of the start. Over [5e-5, 4e-4] the next order bends the
# slope by less than a tenth. In the second case b1 > b2: the correction has the other sign.
@pytest.mark.parametrize("decays", [(0.5, 0.7), (0.9, 0.5)], ids=str)
def test_order_of_the_modified_equation(decays):
    b1, b2 = decays
    etas = np.array([4e-4, 2e-4, 1e-4, 5e-5])
    for corrected, order in ((True, 2), (False, 1)):
        errors = [memoryless_error(corrected, eta, 1.0, b1, b2, 1.0, 200) for eta in etas]
        slope = np.polyfit(np.log(etas), np.log(errors), 1)[0]
        print(f"b1 {b1}, b2 {b2}, corrected {corrected}: slope {slope:.3f}, errors {errors}")
        assert abs(slope - order) < 0.1


def test_correction_does_harm_at_the_defaults():
    # η = 1e-3 is not ≪ 1 - b2, nor are 2000 steps ≫ 1/(1 - b2).
    errors = [memoryless_error(c, 1e-3, 2.0, 0.9, 0.999, 1e-8, 0) for c in (True, False)]
    print(f"corrected {errors[0]:.3f}, not corrected {errors[1]:.3f}")
    assert errors[0] > 2 * errors[1]


# ---- momentum ------------------------------------------------------------------------------------

ETA, BETA, DECAY = 0.02, 0.8, 0.3


@pytest.mark.parametrize("rates", RATES)
def test_momentum_flow_is_a_linear_system(rates):
    a, one = rate_of(BETA, rates), np.eye(4)
    field = np.block([[-ETA * DECAY * one, -ETA * one], [a / (1 - BETA) * HESSIAN, -a * one]])
    state = np.concatenate([BEGIN, HESSIAN @ BEGIN])
    exact = np.array([linalg.expm(field * n) @ state for n in range(41)])
    flow = ct.MomentumFlow(ETA, BETA, DECAY, rates=rates)
    path = ct.solve(flow, bowl, jnp.asarray(BEGIN), 40, **SHARP)
    np.testing.assert_allclose(path.params, exact[:, :4], rtol=0, atol=1e-9)
    np.testing.assert_allclose(path.update, exact[:, 4:], rtol=0, atol=1e-8)


def test_gradient_flow_is_an_exponential():
    exact = [linalg.expm(-ETA * (HESSIAN + DECAY * np.eye(4)) * n) @ BEGIN for n in range(41)]
    path = ct.solve(ct.MomentumFlow(ETA, 0, DECAY), bowl, jnp.asarray(BEGIN), 40, **SHARP)
    np.testing.assert_allclose(path.params, exact, rtol=0, atol=1e-9)
    np.testing.assert_allclose(path.update, path.params @ HESSIAN, rtol=0, atol=1e-12)


def test_heavy_ball_is_a_mass_in_a_viscous_medium():
    """(β/η) θ'' + ((1-β)/η) θ' = -∇L, from rest but for θ'(0) = -η∇L(θ_0); L not quadratic."""

    def field(s, y):
        theta, velocity = y.reshape(2, 4)
        force = -ripple_gradient(s, theta)
        return np.concatenate([velocity, (force - (1 - BETA) / ETA * velocity) / (BETA / ETA)])

    velocity = -ETA * ripple_gradient(0, BEGIN)
    solution = integrate.solve_ivp(
        field,
        (0, 40),
        np.concatenate([BEGIN, velocity]),
        method="DOP853",
        t_eval=np.arange(41),
        rtol=1e-12,
        atol=1e-13,
    )
    flow = ct.MomentumFlow(ETA, BETA)
    path = ct.solve(flow, ripple, jnp.asarray(BEGIN), 40, **SHARP)
    np.testing.assert_allclose(path.params, solution.y[:4].T, rtol=0, atol=1e-9)


@pytest.mark.parametrize("case", [("log", -0.0088), ("lag", -0.4995), ("euler", 0.4995)], ids=str)
def test_lag_of_the_rates(case):
    """EQUATIONS §1's check that isolates the kernel's mean lag, in steps; m(1-β) is a mean."""
    rates, lag = case
    stream = ct.problems.ContinuousStream(lambda s: 1 + jnp.tanh(jnp.array([(s - 600) / 60])))
    flow, saved = ct.MomentumFlow(1e-3, 0.9, rates=rates), [0, 1200]
    ahead = ct.solve(flow, stream, jnp.zeros(1), 1200, save_steps=saved, **SHARP).params[-1]
    behind = ct.run(flow, stream, jnp.zeros(1), 1200, save_steps=saved).params[-1]
    assert float((ahead - behind)[0]) * (1 - 0.9) / (2 * 1e-3) == pytest.approx(lag, abs=1e-3)


def test_log_rates_reproduce_a_stream():
    stream = ct.problems.random_stream(40, size=3, seed=2)
    flow = ct.MomentumFlow(0.1, 0.9, 0.5, rates="log")
    path = ct.solve(flow, stream, jnp.ones(3), 39, **SHARP)
    discrete = ct.run(flow, stream, jnp.ones(3), 39)
    np.testing.assert_allclose(path.update, discrete.update, rtol=0, atol=1e-12)
    np.testing.assert_allclose(path.update[0], stream.gradients[0], rtol=1e-14)


def test_gradient_flow_on_a_stream_is_sgd():
    stream = ct.problems.random_stream(20, size=3, seed=2)
    flow = ct.MomentumFlow(0.1, 0.0)
    path = ct.solve(flow, stream, jnp.ones(3), 20, **SHARP)
    discrete = ct.run(flow, stream, jnp.ones(3), 20)
    np.testing.assert_allclose(path.params, discrete.params, rtol=0, atol=1e-12)
    np.testing.assert_allclose(path.update[:20], discrete.update[:20], rtol=0, atol=1e-13)


@pytest.mark.parametrize(("rates", "warm_steps"), [("lag", 0), ("log", 1), ("euler", 7)])
def test_hand_over(rates, warm_steps):
    flow = ct.MomentumFlow(lambda s: 0.02 / (1 + 0.1 * s), BETA, DECAY, rates=rates)
    path = ct.solve(flow, bowl, jnp.asarray(BEGIN), 1, warm_steps=warm_steps)
    discrete = ct.run(flow, bowl, jnp.asarray(BEGIN), 1, warm_steps=warm_steps)
    np.testing.assert_array_equal(path.params[0], discrete.params[0])
    # run reads u off a step of size η: a rounding of θ is one of θ/η there.
    np.testing.assert_allclose(path.update[0], discrete.update[0], rtol=1e-13, atol=1e-13)


def test_state_of_optax_sgd_can_be_handed_over():
    params, held = jnp.ones(2), jnp.array([3.0, -1.0])
    optimizer = optax.chain(optax.clip(5.0), optax.sgd(0.1, momentum=0.5))
    state = optimizer.update(held, optimizer.init(params), params)[1]
    flow = ct.MomentumFlow(0.1, 0.5)
    taken = flow.from_optimizer(lambda x: jnp.sum(x**2), params, state, 1)
    np.testing.assert_allclose(taken.m, 0.5 * held + 2 * params)
    with pytest.raises(ValueError, match="holds 0 momenta"):
        flow.from_optimizer(jnp.sum, params, optax.adam(0.1).init(params), 1)


def test_a_ball_at_rest_costs_little():
    # The minimum is not at 0: there the gradient is all rounding, which no error relative to m
    # could meet. What it costs is the explicit solver's stability, a step a radian.
    problem = ct.problems.quadratic([1.0, 30.0], minimum=1.7)
    path = ct.solve(ct.MomentumFlow(0.03, 0.9), problem, jnp.array([1.0, -1.0]), 3000)
    print(path.stats["num_steps"])
    assert path.stats["num_steps"] < 3000
    np.testing.assert_allclose(path.params[-1], 1.7, rtol=1e-6)


@pytest.mark.parametrize(
    "make",
    [
        lambda: ct.ModifiedFlow(-1.0),
        lambda: ct.ModifiedFlow(0.1, b2=1.0),
        lambda: ct.ModifiedFlow(0.1, eps=np.nan),
        lambda: ct.MomentumFlow(0.1, 1.0),
        lambda: ct.MomentumFlow(0.1, jnp.array(0.0)),
        lambda: ct.MomentumFlow(0.1, weight_decay=-1.0),
        lambda: ct.MomentumFlow(0.1, rates="fast"),
    ],
)
def test_values_outside_their_range(make):
    with pytest.raises(ValueError, match=r"must be|unknown"):
        make()


def test_zeros_of_numpy_remove_the_momentum():
    assert ct.MomentumFlow(0.1, np.float32(0)).init(bowl, jnp.ones(4)).m is None


# ---- names ---------------------------------------------------------------------------------------

PATTERNS = ("interpolating-4", "interpolating-3x2", "interpolating-auto")


def test_every_model_goes_downhill():
    """Three steps of Euler's method from (1, -2); the paper's begins with u = 0, and the modified
    equation goes uphill unless η ≪ 1 - b2."""
    loss, start = ct.problems.quadratic([1.0, 3.0]), jnp.array([1.0, -2.0])
    for name, record in FLOWS.items():
        optimizer = optax.adam(0.01) if record.order == "any" else None
        flow = flow_named(name, optimizer, learning_rate=0.01, b1=0.5, b2=0.5)
        state = flow.init(loss, start)
        for step in range(3):
            field = flow.vector_field(float(step), state, loss)
            state = jax.tree.map(lambda z, f: z + f, state, field)
        assert np.all(np.abs(flow.params(state)) < np.abs(start)), name


@pytest.mark.slow
def test_every_model_runs():
    names = list(FLOWS)
    config = sweep.FollowConfig(problem="quadratic", flow=",".join(names), steps=20)
    dataset = sweep.follow(config)
    assert dataset.flow.values.tolist() == names
    assert set(dataset.outcome.values) == {"successful"}
    assert np.all(np.isfinite(dataset.error))
    trusted = dict(zip(names, dataset.trusted.values, strict=True))
    assert {name for name in names if trusted[name] == "–"} == set(FLOWS) - {"interpolating"}
    ours = dataset.sel(flow="interpolating")
    assert (ours.trust_order, ours.trust_stride) == (2, 1)
    assert np.isnan(dataset.trust_estimate.sel(flow="log"))


def test_names_kept_their_meaning():
    numbers = {"learning_rate": 1e-2, "b1": 0.8, "b2": 0.9, "eps": 1e-4, "weight_decay": 0.1}
    for rates in RATES:
        flow = flow_named(rates, **numbers, decay="l2")
        assert (flow.rates, flow.order, flow.start) == (rates, 1, "first_step")
        assert flow.hyperparameters.decay == "l2"
    paper = flow_named("paper", **numbers)
    assert (paper.rates, paper.order, paper.start) == ("lag", 2, "paper")
    assert flow_named("sign", **numbers).eps == 1e-3
    ball = flow_named("heavy_ball", **numbers)
    assert (ball.momentum, ball.weight_decay, ball.rates) == (0.8, 0.1, "lag")
    assert flow_named("gradient", **numbers).momentum == 0
    numbers["weight_decay"] = 0
    assert flow_named("modified", **numbers).corrected
    assert not flow_named("memoryless", **numbers).corrected
    for name, order, stride in (
        ("interpolating", 2, 1),
        ("interpolating-5", 5, 1),
        ("interpolating-12x3", 12, 3),
        ("interpolating-auto", "auto", 1),
        ("interpolating-autox2", "auto", 2),
    ):
        flow = flow_named(name, optax.sgd(0.1), **numbers)
        assert (flow.order, flow.stride) == (order, stride)


@pytest.mark.parametrize("name", [*FLOWS, *PATTERNS])
def test_records_are_complete(name):
    record = published(name)
    assert all([record.order, record.state, record.source, record.note])
    assert set(record.takes_over or ()) <= set(OPTIMIZERS)


def test_the_table_lists_every_name():
    rows = describe_flows().splitlines()[2:]
    assert [row.split()[0] for row in rows] == list(FLOWS)
    assert "Gould & Tanaka (arXiv 2411.05746)" in rows[list(FLOWS).index("paper")]


BAD = {
    "unknown": (("fast", {}), "choose one of 'log', 'lag'.*interpolating-PxQ"),
    "order 0": (("interpolating-0", {}), "unknown"),
    "no stride": (("interpolating-3x", {}), "unknown"),
    "no optimizer": (("interpolating-3", {}), "needs an optimizer"),
    "no rate": (("log", {"learning_rate": None}), "log: give a learning_rate"),
    "not its own": (("log", {"momentum": 0.9}), "momentum is no hyperparameter"),
    "decay": (("modified", {"weight_decay": 0.1}), "modified: .* no weight_decay"),
    "inside": (("heavy_ball", {"decay": "l2"}), "heavy_ball: .* decoupled"),
    "range": (("heavy_ball", {"b1": 1.5}), r"heavy_ball: momentum = 1\.5"),
}


@pytest.mark.parametrize("case", BAD)
def test_errors_of_the_registry(case):
    (name, numbers), words = BAD[case]
    with pytest.raises(ValueError, match=words):
        flow_named(name, **({"learning_rate": 1e-3} | numbers))


def test_optimizers_of_optax_by_name():
    given = {"learning_rate": 0.5, "b1": 0.9, "b2": 0.99, "eps": 1e-8, "weight_decay": 0.0}
    params, grads = jnp.ones(2), jnp.array([1.0, -2.0])
    for name, ours in (
        ("optax:adan", optax.adan(0.5, 0.9, 0.99)),
        ("optax:sgd", optax.sgd(0.5)),
        ("optax:rmsprop", optax.rmsprop(0.5)),
        ("sgdw", ct.sgdw(0.5, 0.9)),
    ):
        made = optimizer_named(name, **given)
        step = made.update(grads, made.init(params), params)[0]
        np.testing.assert_array_equal(step, ours.update(grads, ours.init(params), params)[0])
    with pytest.raises(ValueError, match="no 'adamm'"):
        optimizer_named("optax:adamm", **given)
