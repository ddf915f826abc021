"""AdamW's box: residuals, barrier, fixed points, Frank–Wolfe and both rates (EQUATIONS §5)."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, optimize

import ct_adam as ct
from ct_adam import theory
from ct_adam.norms import Norm
from ct_adam.optimizers import frank_wolfe_rate, steepest_direction

from .jax_reference import rk4_step
from .reference import adam_updates

# Compiled whole: op by op each test would compile a dozen kernels.
kkt = jax.jit(theory.kkt_residual, static_argnames="norm")
frank_wolfe_gap = jax.jit(theory.frank_wolfe_gap, static_argnames="norm")
residuals = jax.jit(theory.residuals, static_argnames="norm")
direction = jax.jit(steepest_direction, static_argnames="norm")
barrier = jax.jit(theory.adamw_barrier)
barrier_slope = jax.jit(jax.grad(theory.adamw_barrier))


def box_problem(seed, d=6):
    """½‖Ax − b‖², its minimum over |x_i| ≤ 1/λ by SciPy's bounded least squares, and λ."""
    rng = np.random.default_rng(seed)
    a, b = rng.standard_normal((d + 2, d)), 3 * rng.standard_normal(d + 2)
    decay = float(rng.uniform(0.5, 3))
    found = optimize.lsq_linear(a, b, (-1 / decay, 1 / decay), method="bvls", tol=1e-14)
    return a, b, decay, found.x


@pytest.mark.parametrize("seed", range(4))
def test_residuals_are_0_at_the_minimum_over_the_box_alone(seed):
    a, b, decay, x = box_problem(seed)

    def at(x: np.ndarray) -> tuple[Any, Any]:
        g = a.T @ (a @ x - b)
        return {"w": x[:2], "b": x[2:]}, {"w": g[:2], "b": g[2:]}

    stationarity, feasibility = kkt(*at(x), decay)
    # bvls ends with gradients of 1e-14 of ‖Aᵀb‖ ≈ 50 in its free coordinates
    assert abs(float(stationarity)) < 1e-11
    assert float(feasibility) < 1e-15
    assert (np.abs(x) == 1 / decay).any()  # the box matters
    inside = 0.9 * x
    loss = [np.sum((a @ y - b) ** 2) / 2 for y in (inside, x)]
    assert float(kkt(*at(inside), decay)[0]) > 1e-3
    # Jaggi: the gap is above the distance to the minimum, and λ times it is the residual.
    gap = float(frank_wolfe_gap(*at(inside), decay))
    assert gap >= loss[0] - loss[1]
    assert gap * decay == pytest.approx(float(kkt(*at(inside), decay)[0]), rel=1e-13)
    assert float(kkt(*at(1.1 * x), decay)[1]) == pytest.approx(0.1 / decay)


@pytest.mark.parametrize("norm", ["linf", "l2", "spectral"])
def test_dual_norms_are_largest_inner_products(norm: Norm):
    rng = np.random.default_rng(0)
    g: Any = [rng.standard_normal((3, 2)), rng.standard_normal((2, 4))]
    flat = np.concatenate([leaf.ravel() for leaf in g])
    singular = np.concatenate([np.linalg.svd(leaf, compute_uv=False) for leaf in g])
    expected = {
        "linf": np.abs(flat).sum(),
        "l2": np.sqrt(flat @ flat),
        "spectral": singular.sum(),
    }[norm]
    u: Any = direction([jnp.asarray(leaf) for leaf in g], norm)
    attained = sum(float(np.sum(x * y)) for x, y in zip(g, u, strict=True))
    assert attained == pytest.approx(expected, rel=1e-14)
    found = residuals(u, g, 0.5, norm)
    assert float(found.norm) == pytest.approx(1, rel=1e-14)
    assert float(found.gradient) == pytest.approx(expected, rel=1e-14)
    assert float(found.stationarity) == pytest.approx(1.5 * expected, rel=1e-14)


def test_no_decay_is_no_constraint():
    x, g = jnp.array([5.0, -2.0]), jnp.array([1.0, -3.0])
    np.testing.assert_array_equal(kkt(x, g, 0.0), (4, 0))
    assert frank_wolfe_gap(x, g, 0.0) == np.inf
    assert frank_wolfe_gap(x, 0 * g, 0.0) == 0
    assert barrier(x, 0.0, 0.1, 0.1) == 0


PAIRS = [(0.1, 0.0), (0.0, 0.01), (0.1, 0.01), (0.01, 0.1), (0.1, 0.001)]


@pytest.mark.parametrize(("eps", "delta"), PAIRS)
def test_barrier_is_the_integral_of_the_force(eps, delta):
    """Its derivative is the g with g/(√(g² + δ) + eps) = λx, here found by bisection."""
    decay = 0.8

    def force(x: float) -> float:
        def excess(g: float) -> float:
            return g / (np.sqrt(g * g + delta) + eps) - decay * x

        return float(optimize.brentq(excess, 0, 1e3, xtol=1e-15, rtol=1e-15)) if x else 0.0  # pyright: ignore[reportArgumentType]

    ends = (0.3, -1.1)
    area = sum(float(integrate.quad(force, 0, abs(x), epsabs=1e-12)[0]) for x in ends)
    tree = {"a": jnp.array([ends[0], 0.0]), "b": jnp.array(ends[1])}
    assert float(barrier(tree, decay, eps, delta)) == pytest.approx(area, abs=1e-11)
    slope: Any = barrier_slope(tree, decay, eps, delta)
    np.testing.assert_allclose(slope["a"], [force(0.3), 0], atol=1e-12)
    np.testing.assert_allclose(slope["b"], -force(1.1), rtol=1e-12)


def test_barrier_at_the_edge_and_outside():
    def at(x: float, eps: float, delta: float) -> float:
        return float(barrier(jnp.array([x, 0.0]), 0.5, eps, delta))

    assert at(2.0, 0.1, 0.0) == at(2.1, 0.0, 0.0) == at(-2.1, 0.1, 0.2) == np.inf
    assert at(2.0, 0.0, 0.0) == at(1.9, 0.0, 0.0) == 0
    assert at(2.0, 0.0, 0.04) == pytest.approx(0.2 / 0.5, rel=1e-15)
    assert np.isnan(at(np.nan, 0.1, 0.0))


# EQUATIONS §5: h, a, λ, eps, eps_root, and the limit.
CASES = np.array([
    (1, 2, 1, 0.1, 0, 0.9155711229775239), (1, 2, 1, 0.01, 0, 0.9901942113767562),
    (1, 0.5, 1, 0.1, 0, 0.425834261322605), (3, -4, 0.5, 0.2, 0, -1.937381185148427),
    (1, 2, 1, 0, 0.01, 0.995085258378865), (1, 2, 0.25, 0.1, 0, 1.9087287789486673),
])  # fmt: skip
RIDGE = 1.6


def ends(make, steps):
    """The last iterate for every case, in one scan of all of them."""

    def lane(h, a, decay, eps, eps_root):
        optimizer = make(eps=eps, weight_decay=decay, eps_root=eps_root)

        def step(_, carry):
            x, state = carry
            delta, state = optimizer.update(h * (x - a), state, x)
            return x + delta, state

        return jax.lax.fori_loop(0, steps, step, (0.0 * a, optimizer.init(0.0 * a)))[0]

    return jax.jit(jax.vmap(lane))(*jnp.asarray(CASES[:, :5].T))


def test_optimizers_end_at_the_closed_forms():
    # §5: 40 000 steps leave 1e-11 of (1, 2, 1, .1).
    def of(make):
        return ends(lambda **more: make(1e-2, 0.9, 0.999, **more), 40_000)

    for make in (ct.adamw, ct.adam_prox):
        np.testing.assert_allclose(of(make), CASES[:, 5], atol=1e-9)
    ridge = CASES[:, 0] * CASES[:, 1] / (CASES[:, 0] + CASES[:, 2])
    assert ridge[-1] == RIDGE
    coupled = of(ct.adam_l2)
    # eps = 0 (the fifth case) ends on a cycle of size η, as Adam does at any minimum.
    smooth = CASES[:, 3] > 0
    np.testing.assert_allclose(coupled[smooth], ridge[smooth], atol=1e-9)


def test_closed_form_of_quadratics():
    h, a, decay, eps, _, limit = CASES[CASES[:, 4] == 0].T
    np.testing.assert_allclose(theory.quadratic_fixed_point(h, a, decay, eps), limit, rtol=1e-14)
    assert theory.quadratic_fixed_point(1.0, 2.0, 1.0, 0.0) == 1
    assert theory.quadratic_fixed_point(1.0, -2.0, 0.0, 0.3) == -2


def integrated(flow, problem, start, steps):
    """The flow's states at whole steps, by the classical Runge–Kutta method with steps of 1: its
    rates are below 0.2 here, and where a flow rests does not depend on who integrates it."""

    def step(y, n):
        def field(t, state):
            return flow.vector_field(t, state, problem)

        return rk4_step(field, n, y, 1.0), flow.params(y)

    last, path = jax.lax.scan(step, flow.init(problem, start), jnp.arange(float(steps)))
    return flow.params(last), path


def test_the_flow_ends_there_too():
    @jax.jit
    @jax.vmap
    def end(h, a, decay, eps, eps_root):
        # b2 = 0.99 forgets ten times faster than the default, and ends at the same points.
        flow = ct.AdamFlow(1e-2, 0.9, 0.99, eps, decay, eps_root=eps_root)
        return integrated(flow, lambda x: h * (x - a) ** 2 / 2, 0.0 * a, 8000)[0]

    np.testing.assert_allclose(end(*jnp.asarray(CASES[:, :5].T)), CASES[:, 5], atol=1e-9)


def test_lyapunov_falls_along_the_sign_flow():
    rng = np.random.default_rng(0)
    problem = ct.problems.quadratic([0.3, 1.0, 4.0], 2.0, rotation_seed=1)
    flow = ct.SignFlow(0.01, eps=0.1, weight_decay=1.0)
    starts = jnp.asarray(rng.uniform(-1, 1, (20, 3)))

    @jax.jit
    @jax.vmap
    def along(start):
        last, path = integrated(flow, problem, start, 3000)
        value = jax.vmap(lambda x: flow.lyapunov(x, problem))(path)
        return value, last, jax.grad(lambda x: flow.lyapunov(x, problem))(last)

    value, last, slope = along(starts)
    own = np.sum(-np.abs(starts) - np.log1p(-np.abs(starts)), axis=1) / 10
    first = jax.vmap(problem.value)(starts) + own
    np.testing.assert_allclose(value[:, 0], first, rtol=1e-13)
    fall = np.diff(value, axis=1)
    assert fall[:, 0].max() < -1e-4
    assert fall.max() < 1e-13 * float(np.max(np.asarray(first)))  # rounding
    # All end at the one stationary point of a convex function.
    np.testing.assert_allclose(last, jnp.broadcast_to(last[0], last.shape), atol=1e-9)
    np.testing.assert_allclose(slope, 0, atol=1e-8)


def corner(g: list[np.ndarray], norm: Norm, radius: float) -> list[np.ndarray]:
    """The point of the ball with the least ⟨g, s⟩, in NumPy."""
    if norm == "l2":
        length = np.sqrt(sum(np.sum(leaf**2) for leaf in g))
        return [-radius * leaf / length for leaf in g]
    if norm == "linf":
        return [-radius * np.sign(leaf) for leaf in g]
    parts = [np.linalg.svd(leaf, full_matrices=False) for leaf in g]
    return [-radius * (u @ v) for u, _, v in parts]


@pytest.mark.parametrize("norm", ["linf", "l2", "spectral"])
def test_steepest_descent_with_decay_is_frank_wolfe(norm: Norm):
    eta, decay = 0.1, 0.7
    rng = np.random.default_rng(1)
    goal = [rng.standard_normal((3, 2)), rng.standard_normal((2, 4))]
    x = [3 * rng.standard_normal(leaf.shape) for leaf in goal]  # outside the ball
    descent = ct.steepest_descent(eta, decay, norm)
    ours = ct.frank_wolfe(eta * decay, 1 / decay, norm)
    state, other = descent.init(x), ours.init(x)
    update, step = jax.jit(descent.update), jax.jit(ours.update)
    for _ in range(40):
        g = [a - b for a, b in zip(x, goal, strict=True)]
        gamma = eta * decay
        wanted = [p + gamma * (s - p) for s, p in zip(corner(g, norm, 1 / decay), x, strict=True)]
        delta, state = update(g, state, x)
        same, other = step(g, other, x)
        for p, d, e, w in zip(x, delta, same, wanted, strict=True):
            np.testing.assert_allclose(p + d, w, atol=1e-14)
            np.testing.assert_allclose(p + e, w, atol=1e-14)
        x = [np.asarray(w) for w in wanted]


def test_the_box_has_one_definition():
    ours, plain = ct.steepest_descent(0.1, 0.3), ct.sign_descent(0.1, 0.0, 0.3)
    g = jnp.array([2.0, -1e-200, 0.0])
    np.testing.assert_array_equal(
        ours.update(g, ours.init(g), g)[0], plain.update(g, plain.init(g), g)[0]
    )
    assert ours.hyperparameters == plain.hyperparameters


def test_frank_wolfes_own_step_and_what_run_tells_of_it():
    goal = jnp.array([2.0, 0.2971])
    path: Any = ct.run(ct.frank_wolfe(), lambda x: jnp.sum((x - goal) ** 2) / 2, jnp.zeros(2), 200)
    x = np.zeros(2)
    for n in range(3):
        np.testing.assert_allclose(path.params[n], x, atol=1e-15)
        x = x + 2 / (n + 2) * (np.sign(np.asarray(goal) - x) - x)
    np.testing.assert_allclose(np.abs(path.update[:100]), 1, atol=1e-13)  # u, not the step
    schedule = ct.steepest_descent(frank_wolfe_rate(1.0), 1.0)
    same: Any = ct.run(schedule, lambda x: jnp.sum((x - goal) ** 2) / 2, jnp.zeros(2), 200)
    np.testing.assert_allclose(same.params, path.params, atol=1e-13)


def test_directions_where_norms_are_0_or_tiny():
    zero = jnp.zeros((2, 2))
    for norm in ("linf", "l2", "spectral"):
        np.testing.assert_array_equal(direction(zero, norm), 0)
    # 1e-200² underflows
    np.testing.assert_allclose(direction(1e-200 * jnp.eye(2), "l2"), np.eye(2) / 2**0.5)
    low_rank = direction(jnp.outer(jnp.array([3.0, 4.0]), jnp.array([0.0, 2.0])), "spectral")
    np.testing.assert_allclose(low_rank, [[0, 0.6], [0, 0.8]], atol=1e-15)


D, STEPS = 5, 80


@jax.jit
def gaps(hessian, a, start, eta, decay, lowest):
    """L(x_t) − min over the ball, (t, norm): constant η and Frank–Wolfe's own."""

    def descent(norm, rate):
        optimizer = ct.steepest_descent(rate, decay, norm)

        def step(carry, _):
            x, state = carry
            delta, state = optimizer.update(hessian @ (x - a), state, x)
            return (x + delta, state), (x - a) @ hessian @ (x - a) / 2

        return jax.lax.scan(step, (start, optimizer.init(start)), None, STEPS)[1]

    constant = jnp.stack([descent("linf", eta), descent("l2", eta)])
    falling = jnp.stack([descent(n, lambda k: 2 / (decay * (k + 2.0))) for n in ("linf", "l2")])
    return constant - lowest[:, None], falling - lowest[:, None]


def least(factor, a, decay):
    """min ½‖F(x − a)‖² over the box, by SciPy, and over the ℓ2 ball, by its multiplier μ."""
    box = optimize.lsq_linear(factor, factor @ a, (-1 / decay, 1 / decay), method="bvls", tol=1e-15)
    values, vectors = np.linalg.eigh(factor.T @ factor)
    b = values * (vectors.T @ a)

    def excess(mu: float) -> float:
        return float(np.linalg.norm(b / (values + mu))) - 1 / decay

    mu = 0.0 if np.linalg.norm(a) <= 1 / decay else optimize.brentq(excess, 0, 1e9, xtol=1e-13)
    ball = vectors @ (b / (values + mu))
    return np.array([np.sum((factor @ (x - a)) ** 2) / 2 for x in (box.x, ball)])


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0.001, 1), st.floats(0.1, 4), st.booleans())
def test_both_rates_bound_the_gap(seed, shrink, decay, outside):
    rng = np.random.default_rng(seed)
    factor = rng.standard_normal((D, D)) * np.exp(rng.uniform(-2, 2))
    hessian, a = factor.T @ factor, rng.standard_normal(D) * np.exp(rng.uniform(-2, 2)) / decay
    start = rng.standard_normal(D)
    start *= rng.uniform(*((1, 20) if outside else (0, 1))) / np.abs(start).max() / decay
    eta, lowest = shrink / decay, least(factor, a, decay)
    constant, falling = gaps(hessian, a, start, eta, decay, lowest)
    smoothness = np.array([np.abs(hessian).sum(), np.linalg.eigvalsh(hessian)[-1]])
    size = np.array([np.abs(start).max(), np.linalg.norm(start)])
    t = np.arange(STEPS)
    # Rounding of a loss whose largest value on the way is L(x₀) or that of a corner.
    room = 1e-12 * (smoothness * (size + 1 / decay + np.linalg.norm(a)) ** 2)
    for i in range(2):
        first = float(constant[i, 0])
        bound = theory.constant_rate_bound(t, first, smoothness[i], size[i], eta, decay)
        assert np.all(constant[i] <= bound + room[i])
        bound = theory.falling_rate_bound(t[1:], smoothness[i], size[i], decay)
        assert np.all(falling[i, 1:] <= bound + room[i])


def test_smaller_bounds_would_be_violated():
    """From just above the minimum at the edge of the box, η = 1/λ jumps to the opposite edge: all
    of the constant rate's bound, more than two thirds of the falling one's."""
    descent = ct.steepest_descent(frank_wolfe_rate(1.0), 1.0)  # its first rate is 1 too
    path = ct.run(descent, lambda x: jnp.sum((x - 0.999) ** 2) / 2, jnp.ones(1), 1)
    first, gap = float(path.loss[0]), float(path.loss[1])
    constant = float(theory.constant_rate_bound(1, first, 1.0, 1.0, 1.0, 1.0))
    assert 0.99 * constant < gap < constant
    falling = float(theory.falling_rate_bound(1, 1.0, 1.0, 1.0))
    assert falling * 2 / 3 < gap < falling


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0, 0.99), st.floats(0, 1), st.booleans())
def test_average_update_keeps_its_bound(seed, b1, upwards, falls):
    b2 = b1 + (0.999 - b1) * upwards
    rng = np.random.default_rng(seed)
    steps = 200
    # Signs that persist, sizes that grow: the hard case, for v lags behind.
    g = np.exp(rng.uniform(-0.05, 0.1) * np.arange(steps)) * (1 + 0.3 * rng.standard_normal(steps))
    eta = 1 / np.sqrt(1 + np.arange(steps)) if falls else np.ones(steps)
    u, v = adam_updates(g, b1, b2), 0.0
    second = np.array([v := b2 * v + (1 - b2) * one**2 for one in g])
    average = np.abs(np.asarray(theory.average_update(u, eta)))
    np.testing.assert_allclose(average, np.abs(np.cumsum(eta * u) / np.cumsum(eta)), rtol=1e-13)
    spread = np.log(np.maximum.accumulate(second) / np.minimum.accumulate(second))
    bound = theory.average_update_bound(b1, b2, np.cumsum(eta), 1.0, spread)
    assert np.all(average <= np.asarray(bound) * (1 + 1e-12))


def test_steps_into_the_box():
    eta, decay, size = 1e-3, 2.0, 3.0
    predicted = float(theory.box_steps(size, eta, decay))
    n = 0
    while size * decay > 1.01:
        size -= eta * (decay * size - 1)
        n += 1
    assert abs(n - predicted) < 1e-3 * predicted + 1  # the discrete decay is faster by ηλ/2
    assert theory.box_steps(0.4, eta, decay) == 0


BAD = {
    "norm": (lambda: ct.steepest_descent(0.1, norm="l1"), "norm = 'l1'"),  # pyright: ignore[reportArgumentType]
    "decay": (lambda: ct.steepest_descent(0.1, -1.0, "l2"), "weight_decay"),
    "step": (lambda: ct.frank_wolfe(1.5), r"step_size = 1.5 must be in \[0, 1\]"),
    "step NaN": (lambda: ct.frank_wolfe(np.nan), "step_size = nan must be"),
    "step of a letter": (lambda: ct.frank_wolfe("a"), "step_size = 'a' is not a number"),  # pyright: ignore[reportArgumentType]
    "step as an array": (lambda: ct.frank_wolfe(jnp.array(2.0)), r"step_size = 2.0 must be in"),
    "radius": (lambda: ct.frank_wolfe(radius=0.0), "radius = 0"),
    "rate": (lambda: ct.optimizers.frank_wolfe_rate(0.0), "weight_decay = 0 must be positive"),
    "radius as an array": (lambda: ct.frank_wolfe(radius=jnp.array(0.0)), "radius = 0"),
    "vector": (lambda: steepest_direction(jnp.ones(3), "spectral"), "only matrices"),
    "kkt": (lambda: theory.kkt_residual(jnp.ones(1), jnp.ones(1), -0.1), "weight_decay"),
    "shapes": (
        lambda: theory.kkt_residual(jnp.ones(3), jnp.ones(1), 1.0),
        r"must be alike: their leaves have shapes \[\(3,\)\] and \[\(1,\)\]",
    ),
    "trees": (lambda: theory.frank_wolfe_gap({"x": jnp.ones(1)}, jnp.ones(1), 1.0), "alike"),
    "complex": (lambda: theory.kkt_residual(jnp.ones(1), 1j * jnp.ones(1), 1.0), "complex"),
    "nothing": (lambda: theory.kkt_residual({}, {}, 1.0), "no leaves"),
    "no path": (lambda: theory.constraint_path({}, lambda x: x, 1.0), "no leaves"),
    "nothing held": (lambda: theory.adamw_barrier({}, 1.0), "no leaves"),
    "barrier": (lambda: theory.adamw_barrier(jnp.ones(1), 1.0, -0.1), "eps"),
    "average": (lambda: theory.average_update_bound(0.99, 0.9, 1.0, 1.0), "take b1 ≤ b2"),
    "rates": (lambda: theory.average_update(jnp.ones(3), [1.0]), "one for each of 3 steps"),
    "fast": (lambda: theory.constant_rate_bound(1, 1.0, 1.0, 1.0, 2.0, 1.0), "weight_decay > 0"),
    "no ball": (lambda: theory.falling_rate_bound(1, 1.0, 1.0, 0.0), "weight_decay > 0"),
    "box": (lambda: theory.box_steps(3.0, 0.1, 0.0), "must be positive"),
    "curvature": (lambda: theory.quadratic_fixed_point(0.0, 1.0, 1.0, 0.1), "must be positive"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_sentence(name):
    call, words = BAD[name]
    with pytest.raises(ValueError, match=words):
        call()
