"""Adam to second order in the step: the modified equation's drift, and staggered moments.

Oracle of a field: f = Δ - ½ Δ'Δ of one written-out step of Adam, its Jacobian-vector product by
JAX. Oracle of a path: optax.adamw. Everything in the scaling η = ε, 1 - b1 = ε, 1 - b2 = ε/2, in
which an order is an order; eps of order one keeps the field smooth.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy import stats

import ct_adam as ct
from ct_adam.flows.registry import flow_named

from .jax_reference import ripple, rk4_step
from .reference import BEGIN, CURVATURE, ripple_gradient

ROTATION = np.linalg.qr(np.random.default_rng(3).standard_normal((4, 4)))[0]
HESSIAN = ROTATION * CURVATURE @ ROTATION.T  # full: the curvature terms mix coordinates
SHARED = {"eps": 1.0, "weight_decay": 0.3}


def turned(x):
    return x @ jnp.asarray(HESSIAN) @ x / 2 + jnp.sum(jnp.cos(2 * x))


def schedule(size):
    return lambda s: size * (1 + 0.5 * jnp.sin(size * s))


# ---- the field -----------------------------------------------------------------------------------


def step_of_adam(z, size, decay, momentum):
    """Φ of z = (s, θ, m_{s+1}, v_{s+1}), written out; without momentum m is g itself."""
    s, theta, m, v = z
    b1, b2, lam = 1 - size, 1 - size / 2, SHARED["weight_decay"]

    def gradient(x):
        return jax.grad(turned)(x) + (lam * x if decay == "l2" else 0)

    m_hat = m / (1 - b1 ** (s + 1)) if momentum else gradient(theta)
    u = m_hat / (jnp.sqrt(v / (1 - b2 ** (s + 1)) + 0.1) + SHARED["eps"])
    theta = theta - schedule(size)(s) * (u + (0 if decay == "l2" else lam * theta))
    g = gradient(theta)
    return s + 1, theta, b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g**2


def second_order_field(z, *how):
    """f = Δ - ½ Δ'Δ: no other field of this form is as close to ln Φ as O(ε³)."""

    def difference(z):
        return jax.tree.map(jnp.subtract, step_of_adam(z, *how), z)

    delta, turn = jax.jvp(difference, (z,), (difference(z),))
    return jax.tree.map(lambda d, t: d - t / 2, delta, turn)


SIZES = np.array([0.04, 0.02, 0.01, 0.005])


def field_errors(curvature, decay="decoupled", momentum=True, sizes=SIZES):
    """Largest difference in θ', m', v' over ε, at s = 1/ε."""
    rng, rows = np.random.default_rng(5), []
    m, v = jnp.asarray(rng.normal(size=4)), jnp.asarray(rng.uniform(0.5, 2, size=4))
    for size in sizes:
        flow = ct.SMEFlow(
            schedule(size),
            1 - size if momentum else 0,
            1 - size / 2,
            **SHARED,
            decay=decay,
            eps_root=0.1,
            curvature=curvature,
        )
        state = flow.init(turned, jnp.asarray(BEGIN))
        moments = (m if momentum else None,), (v,)
        state = type(state)(state.params, None, *moments, state.origin)
        field = flow.vector_field(1 / size, state, turned)
        z = (jnp.asarray(1 / size), state.params, m, v)
        _, theta, m_rate, v_rate = second_order_field(z, size, decay, momentum)
        pairs = [(field.params, theta), (field.m[0], m_rate), (field.v[0], v_rate)]
        rows.append([0 if ours is None else jnp.max(abs(ours - x)) for ours, x in pairs])
    return np.array(rows).T


@pytest.mark.parametrize("decay", ["decoupled", "l2"])
def test_field_is_the_second_order_one(decay):
    for errors in field_errors("full", decay):
        fit = ct.fit_order(SIZES, errors)
        print(f"{decay}: {fit.order:.3f} in [{fit.low:.3f}, {fit.high:.3f}]")
        assert fit.order > 2.85  # the next term bends it by ε, 0.04 at most, and a few


def test_field_without_momentum():
    # Here θ' itself feels the curvature, 34 at most: smaller steps for the same asymptotics.
    of_theta, _, of_v = field_errors("full", momentum=False, sizes=SIZES / 16)
    assert ct.fit_order(SIZES, of_theta).order > 2.85
    assert ct.fit_order(SIZES, of_v).order > 2.85


def test_curvature_terms_are_of_second_order():
    """ "none" has them wrong in m' and v', the released program in v' only; θ' follows u."""
    for curvature, orders in (("none", (3, 2, 2)), ("released", (3, 3, 2))):
        errors = field_errors(curvature, sizes=SIZES / 64)
        found = [ct.fit_order(SIZES, e).order for e in errors]
        print(curvature, np.round(found, 3))
        np.testing.assert_allclose(found, orders, atol=0.15)


@pytest.mark.parametrize("kind", [ct.SMEFlow, ct.StaggeredFlow])
def test_agrees_with_the_interpolating_flow_of_order_two(kind):
    """θ' of both after 1/ε steps of optax.adamw: O(ε³) apart. (The moments are other ones.)"""
    errors = []
    for size in SIZES:
        b1, b2 = 1 - size, 1 - size / 2
        optimizer, w = optax.adamw(size, b1, b2, **SHARED), round(1 / size)
        params, state = warm(optimizer, turned, jnp.asarray(BEGIN), w)
        fields = []
        for flow in (kind(size, b1, b2, **SHARED), ct.InterpolatingFlow(optimizer, 2)):
            begun = flow.from_optimizer(turned, params, state, w)
            fields.append(flow.params(flow.vector_field(float(w), begun, turned)))
        errors.append(float(jnp.max(abs(fields[0] - fields[1]))))
    fit = ct.fit_order(SIZES, errors)
    print(f"{kind.__name__}: {fit.order:.3f}, {errors}")
    assert fit.order > 2.75


def warm(optimizer, loss, params, steps):
    def move(_, carry):
        params, state = carry
        delta, state = optimizer.update(jax.grad(loss)(params), state, params)
        return optax.apply_updates(params, delta), state

    return jax.lax.fori_loop(0, steps, move, (params, optimizer.init(params)))


# ---- the path ------------------------------------------------------------------------------------

LENGTH, FORGOTTEN, LOOKS, STEPS_OF_RK4 = 2.0, 0.5, 4, 800
RATES = np.array([0.05, 0.025, 0.0125, 0.00625])
SEEDS = 8
START_POINTS = BEGIN + np.random.default_rng(7).normal(size=(SEEDS, 4)) / 2


def path_errors(flow_of, optimizer_of, loss=ripple, rates=RATES):
    """Distance of flow and optimizer over η·steps ≤ LENGTH after η·w = FORGOTTEN, (seed, rate).

    Classical Runge-Kutta with 800 steps for all η: hλ ≤ 34·2/800 = 0.085, relative error of its
    amplification (hλ)⁵/120 a step, 3e-5·(the share of the fastest mode, gone by then): below 1e-8.
    """
    longest = round((LENGTH + FORGOTTEN) / min(rates))

    @jax.jit
    @jax.vmap
    def both(rate, start):
        optimizer, flow = optimizer_of(rate), flow_of(rate)

        def move(carry, _):
            params, state = carry
            delta, state = optimizer.update(jax.grad(loss)(params), state, params)
            return (optax.apply_updates(params, delta), state), carry

        begun = (start, optimizer.init(start))
        params, states = jax.lax.scan(move, begun, length=longest + 1)[1]
        w = jnp.round(FORGOTTEN / rate).astype(int)
        at_w = jax.tree.map(lambda x: x[w], states)
        state = flow.from_optimizer(loss, params[w], at_w, w.astype(float))
        h = LENGTH / rate / STEPS_OF_RK4

        def classical(y, k):
            y = rk4_step(lambda s, z: flow.vector_field(s, z, loss), w + k * h, y, h)
            return y, flow.params(y)

        path = jax.lax.scan(classical, state, jnp.arange(STEPS_OF_RK4))[1]
        looks = jnp.arange(1, LOOKS + 1)
        theirs = params[w + jnp.round(looks * LENGTH / LOOKS / rate).astype(int)]
        return jnp.max(abs(path[looks * (STEPS_OF_RK4 // LOOKS) - 1] - theirs))

    grid = np.meshgrid(rates, np.arange(SEEDS))
    errors = both(jnp.asarray(grid[0].ravel()), jnp.asarray(START_POINTS[grid[1].ravel()]))
    return np.asarray(errors).reshape(SEEDS, len(rates))


def slopes(errors, rates=RATES):
    """Mean over seeds of the slope, and half its 95 % interval."""
    found = [ct.fit_order(rates, row).order for row in errors]
    reach = stats.t.ppf(0.975, len(found) - 1) * np.std(found, ddof=1) / np.sqrt(len(found))
    return np.mean(found), reach


def optax_adamw(rate):
    return optax.adamw(rate, 1 - rate, 1 - rate / 2, **SHARED)


def of(kind, **options):
    return lambda rate: kind(rate, 1 - rate, 1 - rate / 2, **SHARED, **options)


MODELS = {
    "sme": (of(ct.SMEFlow), 2),
    "staggered": (of(ct.StaggeredFlow), 2),
    "released": (of(ct.SMEFlow, curvature="released"), 1),
    "none": (of(ct.SMEFlow, curvature="none"), 1),
    "log": (of(ct.AdamFlow), 1),
}


SLOW = ("none", "log")


@pytest.mark.parametrize(
    "name", [pytest.param(x, marks=pytest.mark.slow if x in SLOW else ()) for x in MODELS]
)
def test_order_against_optax(name):
    flow, order = MODELS[name]
    errors = path_errors(flow, optax_adamw)
    mean, reach = slopes(errors)
    print(f"{name}: {mean:.3f} ± {reach:.3f}, largest errors {errors.max(axis=0)}")
    assert errors.min() > 1e-7  # ten times what Runge-Kutta leaves
    assert abs(mean - order) < 0.15 + reach


@pytest.mark.parametrize(
    "kind", [pytest.param(ct.SMEFlow, marks=pytest.mark.slow), ct.StaggeredFlow]
)
def test_better_than_the_interpolating_flow_of_order_two(kind):
    """EQUATIONS §1's table of accuracy: order 2 has 2.9e-3 there."""
    saved = {"save_steps": np.arange(0, 301, 10), "warm_steps": 1}
    flow, start = kind(0.03, 0.9, 0.999), jnp.asarray(BEGIN)
    path = ct.solve(flow, ripple, start, 300, rtol=1e-8, atol=1e-10, **saved)
    error = ct.compare(path, ct.run(optax.adam(0.03), ripple, start, 300, **saved)).max_error
    print(f"{kind.__name__}: {error:.3g}, {int(path.stats['evaluations'])} evaluations")
    assert error < 2.9e-3 / 5


# ---- what every flow does ------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [ct.SMEFlow, ct.StaggeredFlow])
@pytest.mark.parametrize("w", [0, 3])
def test_hand_over(kind, w):
    """update[0] is u_{w+1} of Adam as written in EQUATIONS §1."""
    flow, theta = kind(0.1, 0.8, 0.9, 1e-3, 0.2), BEGIN
    m = v = np.zeros(4)
    for n in range(1, w + 2):
        g = ripple_gradient(n - 1, theta)
        m, v = 0.8 * m + 0.2 * g, 0.9 * v + 0.1 * g**2
        u = m / (1 - 0.8**n) / (np.sqrt(v / (1 - 0.9**n)) + 1e-3)
        if n <= w:
            theta = theta - 0.1 * (u + 0.2 * theta)
    params, held = warm(
        optax.adamw(0.1, 0.8, 0.9, 1e-3, weight_decay=0.2), ripple, jnp.asarray(BEGIN), w
    )
    state = flow.from_optimizer(ripple, params, held, w)
    np.testing.assert_allclose(params, theta, rtol=1e-12)
    np.testing.assert_allclose(flow.update(w, state, ripple), u, rtol=1e-11)


@pytest.mark.parametrize("kind", [ct.SMEFlow, ct.StaggeredFlow])
def test_constant_gradient_is_followed_exactly(kind):
    """m/B and v/B stand still at g and g², so θ' = -ηg/(|g| + eps) at all times."""
    slope, ahead = np.array([3.0, -0.1]), 1.0 if kind is ct.SMEFlow else 0.5
    flow, loss = kind(0.1, 0.7, 0.8, 0.5), lambda x: jnp.asarray(slope) @ x
    state = flow.init(loss, jnp.ones(2))
    np.testing.assert_allclose(state.m[0], (1 - 0.7**ahead) * slope, rtol=1e-14)
    for s in (0.0, 0.3, 20.0):
        m, v = (1 - 0.7 ** (s + ahead)) * slope, (1 - 0.8 ** (s + ahead)) * slope**2
        later = type(state)(state.params, None, (jnp.asarray(m),), (jnp.asarray(v),), state.origin)
        field = flow.vector_field(s, later, loss)
        np.testing.assert_allclose(field.params, -0.1 * slope / (abs(slope) + 0.5), rtol=1e-12)
        np.testing.assert_allclose(field.m[0], -np.log(0.7) * (slope - m), rtol=1e-12)


def test_dead_coordinate_and_short_floats():
    loss, start = lambda x: x[0] ** 2, jnp.ones(2, jnp.float32)
    for flow in (ct.SMEFlow(0.1, eps=0.0), ct.StaggeredFlow(0.1, eps=0.0)):
        state = flow.init(loss, start)
        field = flow.vector_field(jnp.float32(0), state, loss)
        for leaf in jax.tree.leaves(field):
            assert leaf.dtype == jnp.float32
            assert np.all(np.isfinite(leaf))
        assert field.params[1] == 0


def test_evaluations_and_names():
    numbers = {"learning_rate": 1e-2, "b1": 0.8, "b2": 0.9, "eps": 1e-4, "weight_decay": 0.1}
    for name, kind, evaluations in (("sme", ct.SMEFlow, 2), ("staggered", ct.StaggeredFlow, 1)):
        flow = flow_named(name, **numbers, decay="l2")
        assert type(flow) is kind
        assert flow.evaluations == evaluations
        assert flow.hyperparameters.decay == "l2"
        assert (flow.hyperparameters.b1, flow.hyperparameters.b2) == ((0.8,), (0.9,))
    assert [ct.SMEFlow(0.1, curvature=c).evaluations for c in ("none", "released")] == [1, 3]


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: ct.SMEFlow(0.1, curvature="half"), "choose one of 'full', 'released', 'none'"),
        (lambda: ct.SMEFlow(-0.1), "not negative"),
        (lambda: ct.SMEFlow(0.1, decay="inner"), "unknown"),
        (lambda: ct.StaggeredFlow(0.1, b1=0), "b1 = 0 leaves no moment to stagger"),
        (lambda: ct.StaggeredFlow(0.1, b2=np.float64(0)), "b2 = 0 leaves"),
        (lambda: ct.StaggeredFlow(0.1, b2=1.0), r"must be in \[0, 1\)"),
    ],
)
def test_values_outside_their_range(make, words):
    with pytest.raises(ValueError, match=words):
        make()
