"""The flow through the iterates of any optimizer (EQUATIONS §1, Interpolating flow)."""

import itertools

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import ct_adam as ct
from ct_adam import theory
from ct_adam.problems import GradientStream

from .jax_reference import ripple
from .reference import BEGIN, CURVATURE

START = jnp.asarray(BEGIN)


def quadratic(x):
    return jnp.sum(CURVATURE * x**2) / 2


def follow(optimizer, order, steps, loss=ripple, start=START, saved=None, stride=1, **options):
    flow = ct.InterpolatingFlow(optimizer, order, stride)
    warm = options.pop("warm_steps", 1)
    path = ct.solve(flow, loss, start, steps, warm_steps=warm, save_steps=saved, **options)
    return path, ct.run(flow, loss, start, steps, warm_steps=warm, save_steps=saved)


@pytest.mark.parametrize(
    ("order", "error"),
    [(1, 1.4e-2), (2, 2.9e-3), (3, 2.2e-4), (4, 8.0e-5), (5, 1.3e-5), (6, 4.0e-6)],
)
def test_accuracy_table(order, error):
    optimizer = optax.adam(0.03, b1=0.9, b2=0.999)
    # The solver's own error is a hundredth of the smallest entry.
    saved = np.arange(0, 301, 10)
    path, discrete = follow(optimizer, order, 300, saved=saved, rtol=1e-8, atol=1e-10)
    found = ct.compare(path, discrete).max_error
    print(f"order {order}: {found:.3g}, table {error:.3g}")
    assert error / 2 < found < error * 2


def test_stability_table():
    found = [theory.stability_radius(order) for order in range(1, 7)]
    assert found == pytest.approx([1, 1, 0.9564, 0.8396, 0.7251, 0.6309], abs=5e-5)


@pytest.mark.parametrize("order", [3, 4, 5, 6])
def test_stability_radius_is_where_a_mode_turns(order):
    """From outside: at the radius some phase is neutral, a percent below all are damped."""
    radius = theory.stability_radius(order)
    circle = np.exp(1j * np.linspace(0, 2 * np.pi, 10_001))
    for scale, grows in ((0.99, False), (1.01, True)):
        rates = [
            -sum((1 - mu) ** j / j for j in range(1, order + 1)) for mu in scale * radius * circle
        ]
        assert (max(rate.real for rate in rates) > 0) == grows


@pytest.mark.parametrize(("order", "b1"), [(6, 0.9), (4, 0.9), (3, 0.95), (6, 0.99)])
def test_smallest_stride(order, b1):
    stride = theory.smallest_stride(order, b1**0.5)
    radius = theory.stability_radius(order)
    assert stride == max(1, np.ceil(2 * np.log(radius) / np.log(b1)))
    assert (b1**0.5) ** stride <= radius < (b1**0.5) ** (stride - 1)


@pytest.mark.parametrize(("order", "stride"), list(itertools.product([1, 2, 3, 6], [1, 2, 3])))
def test_field_of_a_linear_map_is_its_rate(order, stride):
    """Gradient descent on a quadratic has the multipliers 1 - ηh, one a coordinate."""
    flow = ct.InterpolatingFlow(optax.sgd(0.05), order, stride)
    field = flow.vector_field(0.0, flow.init(quadratic, START), quadratic).params
    mu = 1 - 0.05 * CURVATURE
    away = 1 - mu**stride
    rates = -sum(away**j / j for j in range(1, order + 1)) / stride
    # Every difference term is a sum of order numbers of order one.
    np.testing.assert_allclose(field, rates * np.asarray(START), rtol=1e-13, atol=1e-13)
    np.testing.assert_allclose(theory.interpolated_rate(mu, order, stride).real, rates, rtol=1e-13)


@pytest.mark.parametrize(
    "order",
    [1, 4, *(pytest.param(order, marks=pytest.mark.slow) for order in (2, 3, 5, 6))],
)
def test_slope(order):
    """In the scaled limit 1 - b ∝ η with eps of order one, an order is an order."""
    rates = [0.05, 0.025, 0.0125]
    errors = [_scaled_error(rate, order) for rate in rates]
    fit = ct.fit_order(rates, errors)
    print(f"order {order}: slope {fit.order:.3f}, errors {errors}")
    assert min(errors) > 1e-11
    assert order - 0.3 <= fit.order <= (1.1 if order == 1 else np.inf)


def test_slope_of_the_log_flow():
    rates = [0.025, 0.0125, 0.00625]
    fit = ct.fit_order(rates, [_scaled_error(rate, "log") for rate in rates])
    print(f"log: slope {fit.order:.3f}")
    assert abs(fit.order - 1) < 0.1


def _scaled_error(rate, order):
    steps, b1, b2 = round(2 / rate), 1 - rate, 1 - rate / 2
    optimizer = optax.adam(rate, b1=b1, b2=b2, eps=1.0)
    flow = ct.AdamFlow(rate, b1, b2, eps=1.0)
    if order != "log":
        flow = ct.InterpolatingFlow(optimizer, order)
    where = {"save_steps": np.linspace(0, steps, 11).round(), "warm_steps": 1}
    solver = {"rtol": 1e-12, "atol": 1e-13, "solver": diffrax.Dopri8()}
    path = ct.solve(flow, ripple, START, steps, **where, **solver)
    return ct.compare(path, ct.run(optimizer, ripple, START, steps, **where)).max_error


def test_steps_between_strides_are_the_optimizers_own():
    # One Φ from each base and the next: a run of plain Adam cannot be restarted here without its
    # state, but sgd has none.
    path, _ = follow(optax.sgd(0.02), 2, 11, stride=3)
    for base, n in ((0, 1), (0, 2), (3, 4), (6, 8), (9, 11)):
        x = np.asarray(path.params[base])
        for _ in range(n - base):
            x = x - 0.02 * np.asarray(jax.grad(ripple)(jnp.asarray(x)))
        np.testing.assert_allclose(path.params[n], x, rtol=1e-14)
    assert path.steps.tolist() == list(range(12))
    assert ct.InterpolatingFlow(optax.sgd(0.02), 2, 3).evaluations == 6


def test_sparse_saves_are_the_dense_ones():
    dense, _ = follow(optax.adam(0.02), 3, 20, stride=2)
    some = np.array([1, 2, 7, 20])
    sparse, _ = follow(optax.adam(0.02), 3, 20, stride=2, saved=some)
    # Another set of saved steps is another program of the same numbers.
    np.testing.assert_allclose(sparse.params, dense.params[some], rtol=1e-12)
    np.testing.assert_allclose(sparse.update, dense.update[some], rtol=1e-11)


def test_update_is_minus_one_step():
    path, discrete = follow(optax.adam(0.02), 3, 10)
    assert path.update_kind == discrete.update_kind == "step"
    np.testing.assert_allclose(path.update[0], discrete.update[0], rtol=1e-14)
    np.testing.assert_allclose(path.update[0], path.params[0] - discrete.params[1], rtol=1e-12)


def test_rod_of_period_two():
    """ηh = 2: gradient descent jumps from θ to -θ for ever, Φ² stands still."""
    flow = ct.InterpolatingFlow(optax.sgd(2.0), 2, 2)

    def loss(x):
        return jnp.sum(x**2) / 2

    state = flow.init(loss, START)
    centre, extent = flow.rod(0.0, state, loss)
    np.testing.assert_array_equal(centre, 0 * START)
    np.testing.assert_array_equal(extent, START)
    path = ct.solve(flow, loss, START, 9)
    np.testing.assert_allclose(
        path.params, START * (-1.0) ** np.arange(10)[:, None], rtol=1e-13, atol=1e-13
    )


@pytest.mark.parametrize(("order", "stride"), [(1, 1), (4, 1), (2, 2), (3, 5)])
def test_stream_is_frozen_over_a_stride(order, stride):
    """Plain descent on a stream adds up its gradients: so does its flow, whatever the order."""
    gradients = np.random.default_rng(0).standard_normal((20, 3))
    flow = ct.InterpolatingFlow(optax.sgd(0.1), order, stride)
    path = ct.solve(flow, GradientStream(gradients), jnp.zeros(3), 20)
    sums = -0.1 * np.concatenate([np.zeros((1, 3)), np.cumsum(gradients, axis=0)])
    # The field is constant over a stride: the solver makes rounding errors only, a few a step.
    np.testing.assert_allclose(path.params, sums, rtol=1e-12, atol=1e-12)


@pytest.mark.slow
def test_stream_with_memory_follows_to_the_order():
    """Adam on a stream: at whole steps the flow's own error, which falls with the order."""
    gradients = 1 + 0.3 * np.random.default_rng(1).standard_normal((60, 2))
    errors = []
    for order in (1, 2, 4):
        path, discrete = follow(
            optax.adam(0.1, b1=0.5, b2=0.9, eps=1.0),
            order,
            50,
            GradientStream(gradients),
            jnp.zeros(2),
            warm_steps=5,
        )
        errors.append(ct.compare(path, discrete).max_error)
    assert errors[0] > 2 * errors[1] > 4 * errors[2]


def test_schedule_counts_on():
    """The optimizer's own count is part of the state: a schedule goes on where it was."""
    schedule = optax.cosine_decay_schedule(0.03, 60)
    path, discrete = follow(optax.adam(schedule), 4, 40, warm_steps=10, saved=[0, 20, 40])
    assert ct.compare(path, discrete).relative_error < 1e-3


def test_evaluations_are_counted():
    path, _ = follow(optax.adam(0.02), 3, 10, stride=2, saved=[0, 10])
    solver_steps = int(path.stats["num_steps"])
    # Tsit5: six calls a step and one to begin with, p·q gradients a call; one warm step.
    assert int(path.stats["evaluations"]) == 1 + 6 * (6 * solver_steps + 1)


def test_errors_of_our_moments_are_judged_as_those_of_optax():
    """m relative to max(|m|, √v), whatever the fields of the state are called (EQUATIONS §1)."""
    stream = ct.problems.GradientStream(jnp.array([[1.0, 2.0], [-1.0, 2.0]]))
    m = 0.9 * 0.1 * np.array([1.0, 2.0]) + 0.1 * np.array([-1.0, 2.0])
    v = (0.999 + 1) * 0.001 * np.array([1.0, 4.0])
    assert abs(m[0]) < np.sqrt(v[0])  # here the two measures differ
    assert abs(m[1]) > np.sqrt(v[1])
    for optimizer in (ct.adamw(0.1), optax.adam(0.1)):
        flow = ct.InterpolatingFlow(optimizer)
        state = flow.init(stream, jnp.zeros(2))
        for n in range(2):
            state = flow.next(n, state, stream)
        scale = flow.error_scale(state, 1e-6, 1e-9).optimizer
        first, second = (np.asarray(leaf) for leaf in jax.tree.leaves(scale) if np.ndim(leaf))
        np.testing.assert_allclose(first, 1e-6 * np.maximum(abs(m), np.sqrt(v)), rtol=1e-12)
        np.testing.assert_allclose(second, 1e-6 * v, rtol=1e-12)


def test_gradient_through_a_flow():
    flow = ct.InterpolatingFlow(optax.adam(0.02, eps=1e-3), 2)

    def end(start):
        path = ct.solve(flow, ripple, start, 10, save_steps=[10], rtol=1e-9, atol=1e-12)
        return jnp.sum(path.params[-1] ** 2)

    direction, h = jnp.array([0.3, -0.5, 0.2, 0.1]), 1e-4
    slope = jnp.vdot(jax.grad(end)(START), direction)
    difference = (end(START + h * direction) - end(START - h * direction)) / (2 * h)
    assert slope == pytest.approx(float(difference), rel=1e-5)


def test_float32():
    start = START.astype(jnp.float32)
    path, discrete = follow(
        optax.adam(0.02), 2, 50, start=start, rtol=1e-4, atol=1e-5, saved=[0, 50]
    )
    assert path.params.dtype == jnp.float32
    assert ct.compare(path, discrete).relative_error < 0.02


@pytest.mark.parametrize(
    ("optimizer", "named"),
    [
        (optax.MultiSteps(optax.adam(0.1), 4).gradient_transformation(), "state.gradient_step"),
        (optax.chain(optax.add_noise(0.1, 0.5, 0), optax.sgd(0.1)), "state[0].rng_key"),
        (optax.apply_if_finite(optax.adam(0.1), 3), "state.notfinite_count"),
        (optax.optimistic_gradient_descent(0.1), "state[0].is_initial_step"),
        (optax.contrib.sam(optax.sgd(0.1), optax.sgd(0.1)), "state.steps_since_sync"),
        (optax.lbfgs(0.1), "value_fn"),
        (optax.polyak_sgd(), "value"),
    ],
)
@pytest.mark.parametrize("warm_steps", [0, 3])
def test_refused_by_name(optimizer, named, warm_steps):
    with pytest.raises(ValueError, match="optimizer") as refusal:
        ct.solve(ct.InterpolatingFlow(optimizer), ripple, START, 10, warm_steps=warm_steps)
    assert named in str(refusal.value)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ((optax.adam,), "optax transformation"),
        ((optax.adam(0.1), 0), "order = 0"),
        ((optax.adam(0.1), 2.5), "order = 2.5"),
        ((optax.adam(0.1), "high"), "order = 'high'"),
        ((optax.adam(0.1), 2, 0), "stride = 0"),
    ],
)
def test_bad_arguments(arguments, complaint):
    with pytest.raises(ValueError, match=complaint):
        ct.InterpolatingFlow(*arguments)


def test_orders_of_numpy():
    orders = [ct.InterpolatingFlow(optax.adam(0.1), p, q) for p, q in np.array([[1, 2], [3, 1]])]
    assert [(flow.order, flow.stride) for flow in orders] == [(1, 2), (3, 1)]


def test_auto_needs_solve():
    flow = ct.InterpolatingFlow(optax.adam(0.1), "auto")
    with pytest.raises(ValueError, match=r"chosen by ct\.solve"):
        flow.vector_field(0.0, flow.init(ripple, START), ripple)
    with pytest.raises(ValueError, match="under jit or grad"):
        jax.jit(lambda x: ct.solve(flow, ripple, x, 10).params)(START)


def test_fewer_steps_than_a_stride():
    with pytest.raises(ValueError, match="steps = 3 must be at least the flow's stride, 4"):
        ct.solve(ct.InterpolatingFlow(optax.adam(0.1), 2, 4), ripple, START, 3)
