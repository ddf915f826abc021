"""Flows of k-Adam: their order against the optimizer, and their mean lag (EQUATIONS §1, §4)."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy import stats

import ct_adam as ct

from . import reference
from .jax_reference import ripple, rk4_step
from .reference import Hyper

SEEDS = np.random.default_rng(3).uniform(-2, 2, (5, 4))


def one_step(flow, problem, s, state, pieces):
    """The flow's state one optimizer step later."""

    def piece(i, z):
        begin = s + i / pieces
        return rk4_step(lambda t, y: flow.vector_field(t, y, problem), begin, z, 1 / pieces)

    return jax.lax.fori_loop(0, pieces, piece, state)


def errors_of(k, interpolating=None):
    """Largest error of each start over ηN = 2, in the limit 1 - b ∝ η with eps = 1."""
    pieces = 2 if interpolating is None else 8

    @jax.jit
    def of(rate, steps):
        flow = ct.KAdamFlow(rate, (1 - rate,) * k, (1 - rate / 2,) * k, eps=1.0)
        if interpolating is not None:
            flow = ct.InterpolatingFlow(flow.optimizer, interpolating)

        def discrete(params, state):
            updates, state = flow.optimizer.update(jax.grad(ripple)(params), state, params)
            return optax.apply_updates(params, updates), state

        params = jnp.asarray(SEEDS)
        params, held = discrete(params, flow.optimizer.init(params))
        # From one step on: an opaque optimizer's bias factors have no logarithm at count 0.
        start = flow.from_optimizer(ripple, params, held, 1)

        def body(n, carried):
            state, params, held, error = carried
            state = one_step(flow, ripple, n + 1.0, state, pieces)
            params, held = discrete(params, held)
            away = jnp.max(jnp.abs(flow.params(state) - params), axis=1)
            return state, params, held, jnp.maximum(error, away)

        return jax.lax.fori_loop(0, steps, body, (start, params, held, jnp.zeros(5)))[3]

    return of


def order_over_seeds(k, rates, interpolating=None):
    """Mean slope over the starts and half of its 95 % interval (Student, four degrees)."""
    errors = errors_of(k, interpolating)
    found = np.stack([errors(rate, round(2 / rate)) for rate in rates])
    # No mode turns by more than 34 η/pieces = 0.085 in a piece of the largest η: there Runge-Kutta
    # errs by 0.085⁵/120 = 4e-8, and by 32 times less at half the rate.
    assert found.min() > 1e-7
    slopes = [ct.fit_order(rates, found[:, i]).order for i in range(len(SEEDS))]
    half = stats.t.ppf(0.975, len(slopes) - 1) * stats.sem(slopes)
    print(f"k = {k}, {interpolating}: slope {np.mean(slopes):.3f} ± {half:.3f}")
    return np.mean(slopes), half


@pytest.mark.parametrize(
    ("k", "largest"),
    [
        (2, 0.005),
        *(pytest.param(k, 0.005, marks=pytest.mark.slow) for k in (1, 3)),
        # At four times these rates the slopes are 0.94 ± 0.04 and 0.89 ± 0.05: later than the rest.
        *(pytest.param(k, 0.00125, marks=pytest.mark.slow) for k in (4, 5)),
    ],
)
def test_flow_converges_to_the_optimizer(k, largest):
    # At least like η; a tenth for terms of the next order.
    mean, half = order_over_seeds(k, (largest, largest / 2, largest / 4))
    assert mean - half > 0.9


@pytest.mark.parametrize(
    ("k", "order"),
    [
        (2, 2),
        *(pytest.param(k, p, marks=pytest.mark.slow) for k, p in ((2, 1), (3, 2), (5, 2))),
    ],
)
def test_interpolating_flow_has_its_order(k, order):
    mean, half = order_over_seeds(k, (0.02, 0.01, 0.005), order)
    assert mean - half > order - 0.3


def expected_lag(k, order, rates, b1):
    """Mean lag of k averages in the flow minus the optimizer's, whose k lags are k b1/(1-b1).

    A step θ_{n+1} - θ_n stands at n + ½, θ' of order 1 at s, and θ'' delays by ½. EQUATIONS §4
    drops the twelfth of `log`.
    """
    one = {"log": -1 / np.log(b1), "lag": b1 / (1 - b1), "euler": 1 / (1 - b1)}[rates]
    return k * (one - b1 / (1 - b1)) - (0.5 if order == 1 else 0.0)


LAGS = [(k, order, rates) for k in (1, 2, 3, 5) for order in (1, 2) for rates in ("log", "lag")]


@pytest.mark.parametrize(
    ("k", "order", "rates"),
    [
        pytest.param(*c, marks=[] if c == (2, 1, "log") else pytest.mark.slow)
        for c in [*LAGS, (3, 1, "euler")]
    ],
)
def test_mean_lag_of_the_stages(k, order, rates):
    # EQUATIONS §1: gradient tanh((s-600)/60), eps so large that u^k is m̂_k/eps^k.
    eps, steps, b1 = 1e3, 1200, 0.9
    eta = eps**k  # θ moves by about 1 a step
    hyper = Hyper(eta, (b1,) * k, (0.999,) * k, eps)
    discrete = reference.adam_run(
        lambda n, params: np.tanh((n - 600) / 60) * np.ones(1), [0.0], steps, hyper
    )[0]
    stream = ct.problems.ContinuousStream(lambda step: jnp.tanh((step - 600) / 60)[None])
    flow = ct.KAdamFlow(eta, hyper.b1, hyper.b2, eps, order=order, rates=rates)

    @jax.jit
    def ended(state):
        # A quarter of a step beside the fastest rate, the 2 of order 2.
        body = lambda n, z: one_step(flow, stream, n * 1.0, z, 4)  # noqa: E731
        return flow.params(jax.lax.fori_loop(0, steps, body, state))

    ours = ended(flow.init(stream, jnp.zeros(1)))
    # θ runs ahead by the ramp's height, 2, times the lag.
    lag = float(ours[0] - discrete[0]) / 2
    print(f"k = {k}, order {order}, {rates}: {lag:.4f}, {expected_lag(k, order, rates, b1):.4f}")
    # v̂ = 1 beside eps makes u smaller by 1e-3; its dip at the ramp changes a tenth of that.
    expected = expected_lag(k, order, rates, b1) / (1 + 1 / eps)
    assert abs(lag - expected) < 2e-4 * k
