"""The stable flow of RMSProp (Central Flows).

Oracles: its equation by DOP853, a closed form for a constant gradient, optax.rmsprop.
"""

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy import integrate

import ct_adam as ct
from ct_adam.flows.registry import flow_named

from .jax_reference import ripple
from .reference import BEGIN, ripple_gradient
from .test_second_order import path_errors, slopes

SHARP = {"rtol": 1e-11, "atol": 1e-12, "solver": diffrax.Dopri8()}


@pytest.mark.parametrize("inside", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_it_is_the_equation(inside):
    eta, b2, eps, steps = 0.03, 0.8, 0.3, 40

    def field(s, y):
        theta, nu = y.reshape(2, 4)
        g = ripple_gradient(s, theta)
        scale = np.sqrt(nu + eps) if inside else np.sqrt(nu) + eps
        return np.concatenate([-eta * g / scale, (1 - b2) / b2 * (g**2 - nu)])

    begin = np.concatenate([BEGIN, (1 - b2) * ripple_gradient(0, BEGIN) ** 2])
    looks = np.arange(steps + 1)
    exact = integrate.solve_ivp(
        field, (0, steps), begin, "DOP853", looks, rtol=1e-12, atol=1e-13
    ).y.T
    flow = ct.RMSPropFlow(eta, b2, eps, eps_in_sqrt=inside)
    path = ct.solve(flow, ripple, jnp.asarray(BEGIN), steps, **SHARP)
    # Slopes of 34/√ν̂ over 40 steps of η = 0.03: errors of single steps add up (test_flows).
    np.testing.assert_allclose(path.params, exact[:, :4], rtol=0, atol=1e-8)


def test_constant_gradient_in_closed_form():
    """ν = g²(1 - b2 e^{-as}); y = √(1 - b2 e^{-as}) has ∫ds/y = (2/a)[artanh y], a = (1-b2)/b2."""
    eta, b2, steps, slope = 0.1, 0.9, 30, np.array([2.0, -1e-3])
    a = (1 - b2) / b2
    y = np.sqrt(1 - b2 * np.exp(-a * np.arange(steps + 1)))
    travelled = 2 / a * (np.arctanh(y) - np.arctanh(y[0]))
    flow = ct.RMSPropFlow(eta, b2, eps=0.0)
    path = ct.solve(flow, lambda x: jnp.asarray(slope) @ x, jnp.ones(2), steps, **SHARP)
    exact = 1 - eta * np.sign(slope) * travelled[:, None]
    np.testing.assert_allclose(path.params, exact, rtol=0, atol=1e-8)


RATES = np.array([0.05, 0.025, 0.0125, 0.00625]) / 4
CASES = {  # bias correction, eps in the root, b2(η), η
    "no bias correction": (False, False, lambda rate: 1 - rate / 2, RATES),
    "bias correction": (True, False, lambda rate: 1 - rate / 2, RATES),
    "eps in the root": (False, True, lambda rate: 1 - rate / 2, RATES),
    # The kernels' variances differ by b2/(1-b2): the next term is larger than the first by
    # ηh b2/(1-b2), h the curvature. At RATES that is up to 3.8, and the slope 0.74 ± 0.13.
    "fixed decay": (False, False, lambda rate: 0.9, RATES / 8),
}


@pytest.mark.parametrize("case", CASES)
def test_order_one_against_optax(case):
    corrected, inside, b2, rates = CASES[case]

    def flow(rate):
        return ct.RMSPropFlow(rate, b2(rate), 1.0, bias_correction=corrected, eps_in_sqrt=inside)

    def optimizer(rate):
        # optax's own switches; its average starts at 0.
        return optax.rmsprop(rate, b2(rate), 1.0, 0.0, inside, bias_correction=corrected)

    errors = path_errors(flow, optimizer, rates=rates)
    mean, reach = slopes(errors, rates)
    print(f"{case}: {mean:.3f} ± {reach:.3f}, largest errors {errors.max(axis=0)}")
    assert errors.min() > 1e-7
    assert abs(mean - 1) < 0.1 + reach


def test_with_bias_correction_it_is_adam_without_momentum():
    theirs = ct.AdamFlow(0.1, 0, 0.9, 1e-3, rates="lag")
    ours = ct.RMSPropFlow(0.1, 0.9, 1e-3, bias_correction=True)
    start = jnp.asarray(BEGIN)
    fields = [f.vector_field(3.7, f.init(ripple, start), ripple) for f in (ours, theirs)]
    np.testing.assert_allclose(fields[0].params, fields[1].params, rtol=1e-14)
    np.testing.assert_allclose(fields[0].v[0], fields[1].v[0], rtol=1e-14)


@pytest.mark.parametrize("corrected", [False, True])
def test_hand_over(corrected):
    flow = ct.RMSPropFlow(0.1, 0.9, 1e-3, bias_correction=corrected)
    theta, nu = BEGIN, np.zeros(4)
    optimizer = optax.chain(
        optax.identity(),
        optax.rmsprop(0.1, 0.9, 1e-3, eps_in_sqrt=False, bias_correction=corrected),
    )
    params, held = jnp.asarray(BEGIN), optimizer.init(jnp.asarray(BEGIN))
    for n in range(1, 5):
        g = ripple_gradient(0, theta)
        nu = 0.9 * nu + 0.1 * g**2
        hat = nu / (1 - 0.9**n) if corrected else nu
        state = flow.from_optimizer(ripple, params, held, n - 1)
        u = g / (np.sqrt(hat) + 1e-3)
        np.testing.assert_allclose(flow.update(n - 1.0, state, ripple), u, rtol=1e-11)
        delta, held = optimizer.update(jax.grad(ripple)(params), held, params)
        params, theta = optax.apply_updates(params, delta), theta - 0.1 * u
    discrete = ct.run(flow, ripple, jnp.asarray(BEGIN), 4)
    np.testing.assert_allclose(discrete.params[-1], theta, rtol=1e-11)
    np.testing.assert_allclose(discrete.update[3], u, rtol=1e-9)


def test_other_states_are_refused():
    flow, params = ct.RMSPropFlow(0.1), jnp.ones(4)
    with pytest.raises(ValueError, match="holds 0 averages of g²"):
        flow.from_optimizer(ripple, params, optax.sgd(0.1).init(params), 1)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: ct.RMSPropFlow(0.1, b2=0), "take SignFlow"),
        (lambda: ct.RMSPropFlow(0.1, b2=1.0), r"must be in \[0, 1\)"),
        (lambda: ct.RMSPropFlow(0.1, eps=-1.0), "not negative"),
        (lambda: flow_named("rmsprop_stable", learning_rate=0.1, weight_decay=0.1), "no weight_de"),
    ],
)
def test_values_outside_their_range(make, words):
    with pytest.raises(ValueError, match=words):
        make()


def test_name():
    flow = flow_named("rmsprop_stable", learning_rate=0.1, b1=0.5, b2=0.8, eps=1e-3)
    assert type(flow) is ct.RMSPropFlow
    assert (flow.hyperparameters.b2, flow.hyperparameters.eps) == ((0.8,), 1e-3)
    assert not flow.bias_correction
    assert flow.evaluations == 1


@pytest.mark.slow
def test_past_the_edge_it_departs():
    """EQUATIONS §1's RMSProp on digits: stride 2, order 6 stays below 6.8e-2 at every seed."""
    problem, params = ct.problems.digits_mlp((16,), 300, criterion="squared")
    flow = ct.RMSPropFlow(3e-3, 0.99, bias_correction=True, eps_in_sqrt=True)
    over = {"warm_steps": 100, "save_steps": [0, 50, 100, 200, 300]}
    discrete = ct.run(flow, problem, params, 300, **over)
    followed = ct.InterpolatingFlow(flow.optimizer, 6, 2)
    apart = [
        ct.compare(ct.solve(f, problem, params, 300, **over), discrete).relative_error
        for f in (flow, followed)
    ]
    print(f"stable flow {apart[0]:.3g}, stride 2 {apart[1]:.3g} of the distance travelled")
    assert apart[1] < 7e-2
    assert apart[0] > 2 * apart[1]
