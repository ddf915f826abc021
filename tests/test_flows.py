"""Flows and `solve` against SciPy and NumPy integrations of EQUATIONS §1, §4 and §5.

How tight: `SHARP` asks the solver for 1e-11 a step. The loss has slopes of at most 34 (h + 4) and
runs last 40 steps at η = 0.03, so errors of single steps are carried along, not multiplied
(negative curvature, -3 at worst, gains e^{0.03·40·3/√v̂} < 40 at the very worst): parameters agree
to 1e-8. An update is a function of θ, m and v whose slope in each is of order one where eps does
not vanish, so updates agree to 1e-8 too. The references are good to 1e-11.
"""

import itertools

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import optimistix as optx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize

import ct_adam as ct
from ct_adam.simulate.trajectory import outcome_name

from . import reference
from .jax_reference import ripple
from .reference import BEGIN, Hyper, ripple_gradient

ULP = np.finfo(float).eps
SHARP = {"rtol": 1e-11, "atol": 1e-12, "solver": diffrax.Dopri8()}
TOLERANCE = 1e-8

RATES = ("log", "lag", "euler")
STARTS = ("first_step", "zero", "paper")
DECAYS = ("decoupled", "l2")
ORDERS = (1, 2)
# Large enough that a misplaced eps, eps_root or weight decay shows at 1e-3.
NUMBERS = {"eps": 1e-2, "weight_decay": 0.1, "eps_root": 1e-3}


def implicit(solver=diffrax.Kvaerno5):
    # diffrax's own root finder (VeryChord) gives up early at tight tolerances: 461 steps for 58.
    return solver(root_finder=optx.Chord(rtol=1e-9, atol=1e-12))


def assert_same_path(trajectory, path, tolerance=TOLERANCE, update_tolerance=None):
    np.testing.assert_allclose(trajectory.params, path.params, rtol=0, atol=tolerance)
    np.testing.assert_allclose(
        trajectory.update, path.update, rtol=0, atol=update_tolerance or tolerance
    )


# ---- every option --------------------------------------------------------------------------------

COMBINATIONS = list(itertools.product(RATES, ORDERS, STARTS, DECAYS))
# Nine combinations in which every two values of two options meet: the orthogonal array of three
# letters, its last two columns folded onto two.
COVERING = [
    (RATES[i], ORDERS[(i + j) % 3 % 2], STARTS[j], DECAYS[(i + 2 * j) % 3 % 2])
    for i in range(3)
    for j in range(3)
]


def test_covering_subset_covers():
    for a, b in itertools.combinations(range(4), 2):
        assert {(c[a], c[b]) for c in COVERING} == {(c[a], c[b]) for c in COMBINATIONS}


def test_references_tell_all_options_apart():
    # Otherwise agreement with one of them would prove little.
    paths = [
        reference.adam_flow(
            ripple_gradient,
            BEGIN,
            10,
            Hyper(0.03, decay=decay, **NUMBERS),
            rates=rates,
            order=order,
            start=start,
        ).params
        for rates, order, start, decay in COMBINATIONS
    ]
    nearest = min(np.max(np.abs(a - b)) for a, b in itertools.combinations(paths, 2))
    assert nearest > 1e3 * TOLERANCE


@pytest.mark.parametrize(
    ("rates", "order", "start", "decay"),
    [
        pytest.param(*c, marks=[] if c in COVERING else pytest.mark.slow, id="-".join(map(str, c)))
        for c in COMBINATIONS
    ],
)
def test_adam_flow_is_the_ode(rates, order, start, decay):
    flow = ct.AdamFlow(0.03, decay=decay, rates=rates, order=order, start=start, **NUMBERS)
    path = reference.adam_flow(
        ripple_gradient,
        BEGIN,
        40,
        Hyper(0.03, decay=decay, **NUMBERS),
        rates=rates,
        order=order,
        start=start,
    )
    assert_same_path(ct.solve(flow, ripple, BEGIN, 40, **SHARP), path)


@pytest.mark.parametrize(
    "changed",
    [
        {"eps": 1e-8},
        {"eps": 1.0},
        {"eps_root": 1.0},
        {"weight_decay": 2.0},
        {"b1": 0.5, "b2": 0.9},
        {"b1": 0.99, "b2": 0.95},  # C < 0
    ],
    ids=str,
)
def test_numbers_enter_where_they_should(changed):
    # Numbers are dynamic: all of these share the program of one combination above.
    numbers = NUMBERS | changed
    flow = ct.AdamFlow(0.03, **numbers)
    decays = {name: (numbers.pop(name),) for name in ("b1", "b2") if name in numbers}
    path = reference.adam_flow(ripple_gradient, BEGIN, 40, Hyper(0.03, **decays, **numbers))
    assert_same_path(ct.solve(flow, ripple, BEGIN, 40, **SHARP), path)


def test_without_eps_and_decay():
    # Python zeros; the slope of u is 1/√v̂, of order 1 here (no gradient dies within 20 steps).
    path = reference.adam_flow(ripple_gradient, BEGIN, 20, Hyper(0.03, eps=0.0))
    assert_same_path(ct.solve(ct.AdamFlow(0.03, eps=0.0), ripple, BEGIN, 20, **SHARP), path)


@pytest.mark.parametrize(
    ("order", "start", "warm_steps"),
    [
        (2, "first_step", 7),
        pytest.param(1, "zero", 0, marks=pytest.mark.slow),
    ],
)
def test_learning_rate_schedule_runs_on_the_clock_of_steps(order, start, warm_steps):
    # Smooth, so that the reference needs no break points; it differs at every step.
    flow = ct.AdamFlow(
        optax.cosine_decay_schedule(0.05, 60, alpha=0.1), order=order, start=start, **NUMBERS
    )
    eta = lambda s: 0.05 * (0.9 * 0.5 * (1 + np.cos(np.pi * s / 60)) + 0.1)  # noqa: E731
    path = reference.adam_flow(
        ripple_gradient,
        BEGIN,
        30,
        Hyper(eta, **NUMBERS),
        order=order,
        start=start,
        warm_steps=warm_steps,
    )
    assert_same_path(
        ct.solve(flow, ripple, BEGIN, 30, warm_steps=warm_steps, **SHARP),
        path,
    )


@pytest.mark.parametrize(
    ("start", "rates", "order", "decay"),
    [
        ("first_step", "lag", 2, "l2"),
        ("zero", "euler", 1, "decoupled"),
        ("paper", "log", 2, "decoupled"),
        pytest.param("first_step", "euler", 1, "decoupled", marks=pytest.mark.slow),
        pytest.param("zero", "lag", 2, "l2", marks=pytest.mark.slow),
        pytest.param("paper", "lag", 1, "l2", marks=pytest.mark.slow),
    ],
)
def test_warm_hand_over(start, rates, order, decay):
    flow = ct.AdamFlow(0.03, decay=decay, rates=rates, order=order, start=start, **NUMBERS)
    path = reference.adam_flow(
        ripple_gradient,
        BEGIN,
        40,
        Hyper(0.03, decay=decay, **NUMBERS),
        rates=rates,
        order=order,
        start=start,
        warm_steps=7,
    )
    assert_same_path(ct.solve(flow, ripple, BEGIN, 40, warm_steps=7, **SHARP), path)


@pytest.mark.parametrize(
    ("warm_steps", "start", "rates", "order", "decay"),
    [
        (0, "first_step", "log", 1, "decoupled"),
        pytest.param(7, "first_step", "lag", 2, "l2", marks=pytest.mark.slow),
        pytest.param(0, "zero", "euler", 1, "decoupled", marks=pytest.mark.slow),
    ],
)
def test_k_adam_flow_is_the_ode(warm_steps, start, rates, order, decay):
    options = {"rates": rates, "order": order, "start": start}
    b1, b2 = (0.9, 0.6), (0.99, 0.95)
    path = reference.adam_flow(
        ripple_gradient,
        BEGIN,
        40,
        Hyper(0.03, b1, b2, decay=decay, **NUMBERS),
        warm_steps=warm_steps,
        **options,
    )
    flow = ct.KAdamFlow(0.03, b1, b2, decay=decay, **NUMBERS, **options)
    assert_same_path(ct.solve(flow, ripple, BEGIN, 40, warm_steps=warm_steps, **SHARP), path)


# ---- the hand-over, to rounding ------------------------------------------------------------------


def rounding(hyper, warm_steps):
    """8 ulp for the dozen operations behind u = O(1) and for reading it off Δθ, and what bias
    correction adds: b^{w+1} is good to half an ulp of 1, so 1 - b^{w+1} = B to ulp/2B, which
    enters u whole for m and by half for v (256 ulp at w = 1, b2 = 0.999, where two ways to take a
    power differ; at w = 0 both sides have b itself)."""
    powers = sum(
        0.5 / (1 - b1 ** (warm_steps + 1)) + 0.25 / (1 - b2 ** (warm_steps + 1))
        for b1, b2 in zip(hyper.b1, hyper.b2, strict=True)
    )
    return ULP * (8 + (powers if warm_steps else 0))


@pytest.mark.parametrize(
    ("stages", "warm_steps"),
    [
        pytest.param(
            k, w, marks=pytest.mark.slow if (k, w) in {(1, 10), (2, 0), (2, 1), (2, 10)} else []
        )
        for k in (1, 2)
        for w in (0, 1, 10, 100)
    ],
)
def test_first_update_after_the_hand_over_is_the_optimizers(stages, warm_steps):
    b1, b2 = ((0.9,), (0.999,)) if stages == 1 else ((0.9, 0.8), (0.999, 0.99))
    hyper = Hyper(0.03, b1, b2, weight_decay=0.1)
    flow = (
        ct.AdamFlow(0.03, weight_decay=0.1)
        if stages == 1
        else ct.KAdamFlow(0.03, b1, b2, weight_decay=0.1)
    )
    ours = ct.solve(flow, ripple, BEGIN, 1, save_steps=[0], warm_steps=warm_steps)
    theirs = ct.run(flow, ripple, BEGIN, 1, save_steps=[0], warm_steps=warm_steps)
    np.testing.assert_array_equal(ours.params, theirs.params)
    np.testing.assert_allclose(ours.update, theirs.update, rtol=0, atol=rounding(hyper, warm_steps))
    # And both are right: 100 stable steps amplify rounding by less than 1e3.
    path = reference.adam_run(ripple_gradient, BEGIN, warm_steps, hyper)[2]
    np.testing.assert_allclose(ours.update[0], path.update[-1], rtol=0, atol=1e3 * ULP)


def test_hand_over_from_optax():
    flow, optimizer = ct.AdamFlow(0.03), optax.adam(0.03)
    params, state = jnp.asarray(BEGIN), optimizer.init(jnp.asarray(BEGIN))

    @jax.jit
    def step(params, state):
        updates, state = optimizer.update(jax.grad(ripple)(params), state, params)
        return optax.apply_updates(params, updates), state, updates

    for _ in range(7):
        params, state, _ = step(params, state)
    taken_over = flow.from_optimizer(ripple, params, state, 7)
    np.testing.assert_array_equal(flow.params(taken_over), params)
    np.testing.assert_allclose(
        flow.update(7, taken_over, ripple),
        -step(params, state)[2] / 0.03,
        rtol=0,
        atol=rounding(Hyper(), 7),
    )
    with pytest.raises(ValueError, match="1 stages of moments, 2 are wanted"):
        ct.KAdamFlow(0.03).from_optimizer(ripple, params, state, 7)


# ---- solvers, controllers, events ----------------------------------------------------------------


@pytest.fixture(scope="module")
def path40():
    return reference.adam_flow(ripple_gradient, BEGIN, 40, Hyper(0.03, **NUMBERS))


@pytest.mark.parametrize(
    "solver", [diffrax.Tsit5(), implicit()], ids=lambda solver: type(solver).__name__
)
def test_solvers_agree_and_converge(solver, path40):
    # Dopri8 is tested everywhere else. Local errors of a few hundred steps at most add up to
    # 100 rtol of θ ≤ 2 and m/√v ≤ 1.
    flow, counts = ct.AdamFlow(0.03, **NUMBERS), []
    for rtol in (1e-6, 1e-8):
        ours = ct.solve(flow, ripple, BEGIN, 40, solver=solver, rtol=rtol, atol=rtol / 1e3)
        assert_same_path(ours, path40, 100 * rtol)
        counts.append(int(ours.stats["num_steps"]))
    # Order 5: 100^{1/5} = 2.5 times the steps. Far below the 461 of a stalling root finder.
    assert counts[0] < counts[1] < 120


def test_own_pid_controller_is_taken_as_it_is(path40):
    ours = ct.solve(
        ct.AdamFlow(0.03, **NUMBERS),
        ripple,
        BEGIN,
        40,
        controller=diffrax.PIDController(rtol=1e-9, atol=1e-11),
        rtol=1e-2,  # of the default controller: not looked at
        atol=1e-2,
    )
    assert_same_path(ours, path40, 1e-7)
    assert 50 < int(ours.stats["num_steps"]) < 200


def test_constant_steps(path40):
    flow, errors = ct.AdamFlow(0.03, **NUMBERS), []
    for dt0 in (0.5, 0.25):
        ours = ct.solve(flow, ripple, BEGIN, 40, controller=diffrax.ConstantStepSize(), dt0=dt0)
        assert int(ours.stats["num_steps"]) == round(40 / dt0)
        assert int(ours.stats["num_rejected_steps"]) == 0
        errors.append(np.max(np.abs(ours.params - path40.params)))
    # Tsit5 is of order 5 and both step counts fall on every saved step: the error falls 32-fold.
    assert 16 < errors[0] / errors[1] < 64
    assert errors[1] < 1e-6


def test_event_stops_the_run(path40):
    event = diffrax.Event(lambda t, y, args, **_: y.params[3] - 1.5, optx.Newton(1e-10, 1e-10))
    ours = ct.solve(ct.AdamFlow(0.03, **NUMBERS), ripple, BEGIN, 40, event=event)
    assert outcome_name(ours.result) == "event_occurred"
    reached = path40.params[:, 3] > 1.5  # falls monotonously there
    assert 0 < reached.sum() < 40
    for ours_of, theirs in ((ours.params, path40.params), (ours.update, path40.update)):
        np.testing.assert_allclose(ours_of[reached], theirs[reached], rtol=0, atol=1e-4)
        assert np.all(np.isnan(ours_of[~reached]))
    np.testing.assert_array_equal(np.isnan(ours.loss), ~reached)
    np.testing.assert_array_equal(ours.steps, np.arange(41))


# ---- dead coordinates ----------------------------------------------------------------------------


class Quadratic(eqx.Module):
    """½Σhθ², with h dynamic: one program for all h of one length."""

    curvature: jax.Array

    def __call__(self, x):
        return jnp.sum(self.curvature * x**2) / 2


def final(params, b1, b2, loss, solver, start, adjoint):
    ours = ct.solve(
        ct.AdamFlow(0.03, b1, b2, 0.0, start=start),
        loss,
        params,
        60,
        save_steps=[0, 60],
        solver=solver,
        rtol=1e-8,
        atol=1e-11,
        adjoint=adjoint,
    )
    return jnp.sum(ours.params[-1] ** 2), ours


@pytest.mark.parametrize(
    ("solver", "start", "mode"),
    [
        (implicit(), "first_step", "forward"),
        pytest.param(diffrax.Tsit5(), "first_step", "reverse", marks=pytest.mark.slow),
        pytest.param(implicit(), "first_step", "reverse", marks=pytest.mark.slow),
        pytest.param(diffrax.Tsit5(), "zero", "reverse", marks=pytest.mark.slow),
        pytest.param(implicit(), "zero", "forward", marks=pytest.mark.slow),
        pytest.param(diffrax.Tsit5(), "paper", "reverse", marks=pytest.mark.slow),
    ],
    ids=lambda x: x if isinstance(x, str) else type(x).__name__,
)
def test_dead_coordinate_changes_nothing(solver, start, mode):
    # Its v stays 0: u = 0, and no error scale may vanish with v (20 000 rejected steps).
    loss, begin = Quadratic(jnp.array([3.0, 0.0])), jnp.array([1.0, 0.7])
    # The implicit solver forwards: half the compilation, the same derivatives of its root finder.
    forward = mode == "forward"
    transform = jax.jacfwd if forward else jax.grad
    gradient, ours = transform(final, argnums=(0, 1, 2), has_aux=True)(
        begin, 0.9, 0.99, loss, solver, start, diffrax.ForwardMode() if forward else None
    )
    # Interpolation to a saved step adds up weights whose sum is 1 to rounding.
    np.testing.assert_allclose(ours.params[:, 1], 0.7, rtol=4 * ULP)
    np.testing.assert_array_equal(ours.update[:, 1], 0.0)
    assert int(ours.stats["num_steps"]) < 150
    # The rest is the run without it; 60 steps at 1e-8 a step, with slopes of order 1.
    hyper = Hyper(0.03, b2=(0.99,), eps=0.0)

    def alone(theta=1.0, b1=0.9, b2=0.99):
        return reference.adam_flow(
            lambda s, x: 3 * x, [theta], 60, hyper._replace(b1=(b1,), b2=(b2,)), start=start
        ).params[-1, 0]

    np.testing.assert_allclose(ours.params[-1, 0], alone(), rtol=0, atol=1e-6)
    # Central differences: h² third derivatives (b2: of order (1 - b2)^-3) and 1e-11/h.
    for ours_of, name, at, h in (
        (gradient[0][0], "theta", 1.0, 1e-4),
        (gradient[1], "b1", 0.9, 1e-4),
        (gradient[2], "b2", 0.99, 1e-5),
    ):
        difference = alone(**{name: at + h}) ** 2 - alone(**{name: at - h}) ** 2
        np.testing.assert_allclose(ours_of, difference / (2 * h), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(gradient[0][1], 2 * 0.7, rtol=8 * ULP)


@pytest.mark.parametrize("dtype", [np.float32, pytest.param(np.float64, marks=pytest.mark.slow)])
def test_gradient_whose_square_underflows(dtype):
    # m = g is a number, v = g² is 0: u = 0 with eps = 0, and every derivative is finite.
    small = dtype(1e-30 if dtype is np.float32 else 1e-200)
    loss = lambda x: x[0] ** 2 + small * x[1]  # noqa: E731

    def end(params, b1, b2):
        ours = ct.solve(ct.AdamFlow(0.03, b1, b2, 0.0), loss, params, 10)
        return jnp.sum(ours.params[-1]), ours

    begin = jnp.array([1.0, 0.7], dtype)
    (_, ours), gradient = jax.value_and_grad(end, argnums=(0, 1, 2), has_aux=True)(
        begin, dtype(0.9), dtype(0.99)
    )
    for trajectory in (ours, ct.run(ct.AdamFlow(0.03, eps=0.0), loss, begin, 10)):
        np.testing.assert_array_equal(trajectory.update[:, 1], 0)
        np.testing.assert_array_equal(trajectory.params[:, 1], begin[1])
        assert np.all(np.isfinite(trajectory.params))
    assert all(np.all(np.isfinite(g)) for g in gradient)
    assert int(ours.stats["num_steps"]) < 100


def test_zero_rule_has_derivative_zero():
    flow = ct.AdamFlow(0.03, eps=0.0)
    loss = lambda x: jnp.sum(x**4)  # noqa: E731  v = g² = 16 x⁶ is 0 at 0, and so is g

    def first_update(x):
        return flow.update(0, flow.init(loss, x), loss)

    np.testing.assert_array_equal(first_update(jnp.zeros(2)), 0)
    np.testing.assert_array_equal(jax.jacfwd(first_update)(jnp.zeros(2)), 0)
    np.testing.assert_array_equal(jax.jacrev(first_update)(jnp.zeros(2)), 0)


# ---- removed moments -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("b1", "b2", "start", "order"),
    [
        (0, 0.99, "first_step", 1),
        (0.9, 0.0, "zero", 2),
        pytest.param(0.0, 0, "first_step", 1, marks=pytest.mark.slow),
        pytest.param(0, 0.99, "zero", 2, marks=pytest.mark.slow),
        pytest.param(0.9, 0, "paper", 1, marks=pytest.mark.slow),
    ],
)
def test_decay_of_zero_removes_the_moment(b1, b2, start, order):
    options = {"order": order, "start": start}
    flow = ct.AdamFlow(0.03, b1, b2, 1.0, 0.1, **options)
    state = flow.init(ripple, jnp.asarray(BEGIN))
    assert (state.m == (None,)) == (b1 == 0)
    assert (state.v == (None,)) == (b2 == 0)
    path = reference.adam_flow(
        ripple_gradient, BEGIN, 30, Hyper(0.03, (b1,), (b2,), 1.0, 0.1), **options
    )
    ours = ct.solve(flow, ripple, BEGIN, 30, **SHARP)
    # u now depends on g at once, with slope 1/eps = 1, and dg/dθ ≤ 34.
    assert_same_path(ours, path, update_tolerance=34 * TOLERANCE)
    if start == "first_step":
        theirs = ct.run(flow, ripple, BEGIN, 1)
        np.testing.assert_allclose(ours.update[0], theirs.update[0], rtol=0, atol=8 * ULP)


def test_without_memory_the_update_is_the_sign():
    flow = ct.AdamFlow(0.03, 0, 0, 0.0)
    begin = jnp.array([1.0, -1.0, 0.0, 2.0])
    np.testing.assert_array_equal(
        flow.update(0, flow.init(ripple, begin), ripple), np.sign(ripple_gradient(0, begin))
    )
    np.testing.assert_allclose(
        ct.run(flow, ripple, begin, 1).update[0],
        np.sign(ripple_gradient(0, begin)),
        rtol=0,
        atol=8 * ULP,
    )


@pytest.mark.parametrize(
    "zero", [np.float32(0), np.float64(0), np.int64(0), np.array(0.0)], ids=lambda z: repr(z)
)
def test_zeros_of_numpy_remove_the_moment(zero):
    # Never an infinite rate, which makes NaNs of everything.
    flow = ct.AdamFlow(0.03, zero, 0.99)
    state = flow.init(ripple, jnp.asarray(BEGIN))
    assert state.m == (None,)
    rates = flow.vector_field(0.0, state, ripple)
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(rates))
    with pytest.raises(ValueError, match="only a Python 0 removes a moment, no array does"):
        ct.AdamFlow(
            0.03, jnp.asarray(zero), 0.99
        )  # it may be traced, and then its value is unknown


# ---- types and structures ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "flow",
    [
        ct.AdamFlow(optax.cosine_decay_schedule(0.03, 10), weight_decay=0.1, order=2, start="zero"),
        pytest.param(ct.KAdamFlow(0.03), marks=pytest.mark.slow),
    ],
    ids=["adam", "k_adam"],
)
def test_float32_trees_stay_float32_trees(flow):
    # x64 is on, so an unnoticed promotion would show.
    params = {"w": np.ones((2, 3), np.float32), "rest": [np.float32(0.5), np.zeros(0, np.float32)]}
    loss = lambda p: jnp.sum(p["w"] ** 2) + 3 * p["rest"][0] ** 2  # noqa: E731
    for simulate in (ct.solve, ct.run):
        ours = simulate(flow, loss, params, 5, warm_steps=3)
        assert ours.loss.dtype == np.float32
        for tree in (ours.params, ours.update):
            assert jax.tree.structure(tree) == jax.tree.structure(params)
            for leaf, like in zip(jax.tree.leaves(tree), jax.tree.leaves(params), strict=True):
                assert leaf.dtype == np.float32
                assert leaf.shape == (6, *np.shape(like))
                assert np.all(np.isfinite(leaf))


def test_sign_flow_keeps_the_type_of_its_parameters():
    stream = ct.problems.GradientStream(np.ones((8, 2)))  # float64
    path = ct.solve(ct.SignFlow(0.03, weight_decay=0.1), stream, np.ones(2, np.float32), 5)
    assert path.params.dtype == path.update.dtype == np.float32


def test_tree_is_its_concatenation(path40):
    tree = {"b": BEGIN[:1], "a": [BEGIN[1:3].reshape(2, 1), BEGIN[3]]}

    def joined(p):
        return jnp.concatenate([p["b"], p["a"][0][:, 0], p["a"][1][None]])

    ours = ct.solve(ct.AdamFlow(0.03, **NUMBERS), lambda p: ripple(joined(p)), tree, 40, **SHARP)
    np.testing.assert_allclose(jax.vmap(joined)(ours.params), path40.params, rtol=0, atol=TOLERANCE)
    np.testing.assert_allclose(jax.vmap(joined)(ours.update), path40.update, rtol=0, atol=TOLERANCE)


# ---- sign flow -----------------------------------------------------------------------------------


def test_sign_flow_is_the_ode():
    ours = ct.solve(ct.SignFlow(0.03, 0.05, 0.1), ripple, BEGIN, 100, **SHARP)
    path = reference.sign_flow(ripple_gradient, BEGIN, 100, Hyper(0.03, eps=0.05, weight_decay=0.1))
    # Here u has the slope 34/eps in θ.
    assert_same_path(ours, path, update_tolerance=34 / 0.05 * TOLERANCE)


def test_gap_bound_of_the_sign_flow():
    # EQUATIONS §5, convex L, any start, the gap to the least value inside the box |x| ≤ 1/λ:
    # gap(t) ≤ e^{-λt} gap(0) + (d·eps/λ)(1 - e^{-λt}), t = Ση.
    rng = np.random.default_rng(0)
    eta, steps = 0.02, 300

    @eqx.filter_jit
    def loss_at(half, target, x):
        return jnp.sum((half @ (x - target)) ** 2) / 2

    for size, eps, decay, reach in (
        (4, 0.1, 1.0, 1.0),  # starts in the box |θ| ≤ reach/λ
        (4, 0.01, 0.5, 1.0),
        (4, 0.3, 3.0, 4.0),  # from outside the gap may be negative, and the bound holds too
    ):
        half, target = rng.standard_normal((size, size)), 2 * rng.standard_normal(size)
        least = optimize.lsq_linear(half, half @ target, (-1 / decay, 1 / decay), tol=1e-14).cost
        ours = ct.solve(
            ct.SignFlow(eta, eps, decay),
            jax.tree_util.Partial(loss_at, jnp.asarray(half), jnp.asarray(target)),
            rng.uniform(-reach, reach, size) / decay,
            steps,
        )
        left = np.exp(-decay * eta * np.arange(steps + 1))
        gap = np.asarray(ours.loss) - least
        bound = left * gap[0] + size * eps / decay * (1 - left)
        # Solver error: 1e-5 of the largest loss.
        assert np.all(gap <= bound + 1e-5 * np.max(ours.loss))
        if reach == 1:
            assert np.all(gap >= -1e-5 * np.max(ours.loss))  # never leaves the box


# ---- scale-freeness ------------------------------------------------------------------------------


@settings(max_examples=20, deadline=None)
@given(
    exponents=st.lists(st.integers(-200, 200), min_size=3, max_size=3),
    b1=st.floats(0.1, 0.99),
    b2=st.floats(0.1, 0.999),
    weight_decay=st.floats(0.01, 1.0),
)
def test_scale_free_without_eps(exponents, b1, b2, weight_decay):
    # g → Λg with powers of two: m scales by Λ, v by Λ², exactly, in sums, products, roots and
    # quotients; u and θ not at all. So the optimizer gives the same bits. So does the flow, whose
    # error scale is as scale-free (EQUATIONS §1): the solver takes the same steps.
    flow = ct.AdamFlow(0.03, b1, b2, 0.0, weight_decay)
    begin, curvature = jnp.array([1.0, -1.0, 0.5]), jnp.array([1.0, 3.0, 10.0])
    scaled = curvature * 2.0 ** np.array(exponents, dtype=float)
    for simulate in (ct.run, ct.solve):
        ours, plain = (simulate(flow, Quadratic(h), begin, 25) for h in (scaled, curvature))
        np.testing.assert_array_equal(ours.params, plain.params)
        np.testing.assert_array_equal(ours.update, plain.update)


@settings(max_examples=20, deadline=None)
@given(eps=st.sampled_from([1e-8, 1e-2, 1.0]), exponent=st.integers(-20, 20))
def test_scaling_the_loss_is_scaling_eps(eps, exponent):
    # §7: loss × c ≡ eps/c, exactly for a power of two.
    begin, curvature = jnp.array([1.0, -1.0, 0.5]), jnp.array([1.0, 3.0, 10.0])
    c = 2.0**exponent
    ours = ct.solve(ct.AdamFlow(0.03, eps=eps), Quadratic(c * curvature), begin, 25)
    theirs = ct.solve(ct.AdamFlow(0.03, eps=eps / c), Quadratic(curvature), begin, 25)
    np.testing.assert_array_equal(ours.params, theirs.params)
    np.testing.assert_array_equal(ours.update, theirs.update)
