"""Regimes of long runs: the criterion, linear stability, the flat minimum, and their experiment."""

import json
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ct_adam as ct
from ct_adam import theory
from ct_adam.theory import REGIME
from experiments import regimes as experiment
from experiments._regimes import Power, Setting, fixed_point, late_runs, power, rotated_quadratic
from experiments._signals import SIGNALS, Draw

LENGTH = 400
STEPS = np.arange(LENGTH)


def _called(losses, moves, start=1.0):
    return REGIME(int(theory.regime(losses, np.broadcast_to(moves, LENGTH), start)))


@pytest.mark.parametrize(
    ("losses", "moves", "expected"),
    [
        (np.exp(-0.1 * STEPS), np.exp(-0.05 * STEPS), REGIME.converged),
        (np.exp(-0.01 * STEPS), 0.9, REGIME.under_way),
        (2 + np.cos(STEPS), 0.1, REGIME.limit_cycle),
        (2 + (-1.0) ** STEPS, 0.9, REGIME.sign_like),
        (np.where(STEPS % 90 == 50, 1.0, 1e-4), 0.1, REGIME.spikes),
        (1e-3 * np.exp(0.01 * STEPS), 0.1, REGIME.slow_growth),
        (np.full(LENGTH, 1e-3), 0.1 * np.exp(0.01 * STEPS), REGIME.slow_growth),
        (np.full(LENGTH, 11.0), 0.1, REGIME.divergence),
        (np.where(STEPS > 300, np.nan, 1e-3), 1e-5, REGIME.divergence),
        (np.full(LENGTH, 1e-3), np.where(STEPS == 7, np.inf, 0.1), REGIME.divergence),
    ],
)
def test_a_run_is_called_by_its_end(losses, moves, expected):
    assert _called(losses, moves, start=10.0) is expected


@settings(max_examples=30, deadline=None)
@given(st.sampled_from(list(SIGNALS)), st.integers(0, 10_000), st.floats(1e-8, 1e8))
def test_the_scale_of_the_loss_does_not_matter(kind, seed, scale):
    losses, moves, start = SIGNALS[kind](Draw(seed, 2.0), LENGTH)
    # ln(cL) is rounded anew: a signal within an ulp of a threshold may change its name.
    assert theory.regime(scale * losses, moves, scale * start) == theory.regime(
        losses, moves, start
    )


def test_lanes_are_judged_one_by_one():
    drawn = [SIGNALS[kind](Draw(3, 1.0), LENGTH) for kind in REGIME]
    losses, moves, starts = (np.array(x) for x in zip(*drawn, strict=True))
    alone = [int(theory.regime(*signal)) for signal in drawn]
    np.testing.assert_array_equal(theory.regime(losses, moves, starts), alone)
    pairs = theory.regime(losses.reshape(7, 1, -1), moves.reshape(7, 1, -1), starts[:, None])
    assert pairs.shape == (7, 1)


def test_short_or_unequal_windows_are_refused():
    with pytest.raises(ValueError, match="16 steps"):
        theory.regime(np.ones(15), np.ones(15), 1.0)
    with pytest.raises(ValueError, match="one shape"):
        theory.regime(np.ones((2, 20)), np.ones(20), 1.0)
    for start in (np.ones(2), np.nan):
        with pytest.raises(ValueError, match="start_loss"):
            theory.regime(np.ones(20), np.ones(20), start)
    with pytest.raises(ValueError, match="minimum"):
        theory.regime(-np.ones(20), np.ones(20), 1.0)


def _jacobian(setting, curvature, minimum, b1, b2):
    """Of one step of optax.adamw by automatic differentiation, at the fixed point, count large."""
    point = fixed_point(curvature, minimum, setting)
    optimizer = optax.adamw(
        setting.learning_rate, b1, b2, setting.eps, weight_decay=setting.weight_decay
    )

    def step(z):
        state = optimizer.init(z[:1])
        state = optax.tree_utils.tree_set(state, mu=z[1:2], nu=z[2:], count=10**6)
        gradient = curvature * (z[:1] - minimum)
        update, state = optimizer.update(gradient, state, z[:1])
        moments = [optax.tree_utils.tree_get(state, name) for name in ("mu", "nu")]
        return jnp.concatenate([z[:1] + update, *moments])

    z = jnp.array([point.theta, point.gradient, point.gradient**2])
    # The fixed point is one: to the root finder's 1e-15, times curvature and 1/|g|.
    np.testing.assert_allclose(step(z), z, rtol=1e-10)
    return jax.jacfwd(step)(z), point.gradient


@pytest.mark.parametrize("pair", [(0.9, 0.999), (0.5, 0.2), (0.99, 0.9), (0.0, 0.5)])
@pytest.mark.parametrize("minimum", [1.05, 3.0])
def test_the_step_matrix_is_the_jacobian_of_optax(pair, minimum):
    setting = Setting(0.1, 1e-8, 1.0)
    b1, b2 = pair
    jacobian, gradient = _jacobian(setting, 3.0, minimum, b1, b2)
    ours = theory.step_matrix(3.0, gradient, 0.1, b1, b2, 1e-8, 1.0)
    # Entries up to 1/g² = 40 times those of rounding in θ*.
    np.testing.assert_allclose(ours, jacobian, rtol=1e-9, atol=1e-12)


@settings(max_examples=50, deadline=None)
@given(st.floats(0, 0.99), st.floats(0, 0.99), st.floats(1e-3, 1), st.floats(0, 1))
def test_at_a_minimum_the_radius_is_one_at_the_edge(b1, b2, learning_rate, weight_decay):
    eps = 0.1
    edge = eps * theory.stability_edge(learning_rate, b1, weight_decay)

    def radius(curvature):
        return theory.spectral_radius(curvature, 0.0, learning_rate, b1, b2, eps, weight_decay)

    # Beyond it an eigenvalue passes −1 at a speed of at least (1 − b1)/(1 + b1) per unit of h/edge.
    assert radius(1.001 * edge) > 1 + 1e-7
    assert radius(0.999 * edge) < 1


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ((1.0, 0.0, 0.1, 0.9, 0.99, 0.0), "positive eps"),
        ((1.0, 0.0, 0.1, 2.0, 0.99, 0.1), "b1 must"),
        ((1.0, 0.0, 0.1, 0.9, 1.0, 0.1), "b2 must"),
        ((1.0, 1.0, 0.1, 0.9, 0.9, -1.0), "eps must"),
        ((np.nan, 1.0, 0.1, 0.9, 0.9, 0.1), "curvature holds"),
    ],
)
def test_steps_that_have_no_matrix_are_refused(arguments, sentence):
    with pytest.raises(ValueError, match=sentence):
        theory.spectral_radius(*arguments)


def _flat_run(degree, b1, b2, steps, learning_rate=0.1):
    """|x| of Adam on x^k/k with eps = 0, a few lines of NumPy."""
    x, m, v, path = 1.0, 0.0, 0.0, []
    for n in range(1, steps + 1):
        g = x ** (degree - 1)
        m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g * g
        x -= learning_rate * (m / (1 - b1**n)) / np.sqrt(v / (1 - b2**n))
        path.append(abs(x))
    return np.array(path)


@pytest.mark.parametrize(("degree", "b1", "b2"), [(4, 0.8, 0.9), (6, 0.8, 0.9), (10, 0.5, 0.8)])
def test_a_flat_minimum_is_approached_at_the_rate_of_the_memory(degree, b1, b2):
    rate = float(theory.degenerate_rate(b2, degree))
    path = np.log(_flat_run(degree, b1, b2, 700))
    # The approach to the solution x ∝ rⁿ is linear with the radius of the map: forgotten to
    # radius^400 < 1e-4 of the log by the middle.
    assert theory.degenerate_radius(b1, b2, degree) ** 400 < 1e-4
    slope = (path[600] - path[450]) / 150
    assert slope == pytest.approx(rate, rel=1e-3)


@pytest.mark.parametrize("degree", [4, 6, 10])
@pytest.mark.parametrize("b1", [0.4, 0.7, 0.9])
def test_a_flat_minimum_holds_above_its_boundary_only(degree, b1):
    edge = float(theory.degenerate_boundary(b1, degree))
    assert theory.degenerate_radius(b1, edge, degree) == pytest.approx(1, abs=1e-9)
    above, below = edge + 0.3 * (1 - edge), 0.7 * edge
    # x⁴'s v = b2ⁿ underflows after 700/|ln b2| steps, further than these go.
    assert _flat_run(degree, b1, above, 600)[-1] < 1e-2
    # Below it the run cycles about the learning rate: sqrt(0.7) a period is no decay of 1e-2 more.
    assert _flat_run(degree, b1, below, 600)[-300:].max() > 1e-3


def test_decays_near_0_have_a_radius():
    assert theory.degenerate_radius(0.9, 1e-300, 2.001) == np.inf
    assert np.isfinite(theory.degenerate_radius(0.0, 0.5, 3))


def test_the_overshoot_of_the_lowest_b2():
    # At b1 = 0 the eigenvalue is −1 at r = (k − 2)/k, which is b2 = (1/2)⁴ for k = 4.
    assert theory.degenerate_radius(0.0, 1 / 16, 4) == pytest.approx(1, abs=1e-12)
    assert theory.degenerate_radius(0.0, 0.06, 4) > 1 > theory.degenerate_radius(0.0, 0.065, 4)


@pytest.mark.parametrize(
    "call",
    [
        lambda: theory.degenerate_boundary(1.0, 4),
        lambda: theory.degenerate_rate(0.0, 4),
        lambda: theory.degenerate_radius(0.9, float("nan"), 4),
        lambda: theory.degenerate_boundary(0.9, 2),
        lambda: theory.degenerate_boundary(0.9, "4"),
    ],
)
def test_values_outside_their_range_are_refused(call):
    with pytest.raises(ValueError, match="must"):
        call()


def test_late_runs_are_those_of_run():
    setting, problem = Setting(1e-2, 1e-8, 0.1), rotated_quadratic()
    ends = late_runs(setting, problem, cells=2, steps=60, window=20)
    for lane, (b1, b2) in enumerate([(0.25, 0.25), (0.25, 0.75), (0.75, 0.25), (0.75, 0.75)]):
        path = ct.run(optax.adamw(1e-2, b1, b2, 1e-8, weight_decay=0.1), problem.loss,
                      problem.params, 60)  # fmt: skip
        moves = np.abs(np.diff(path.params, axis=0)).max(axis=1)[-20:] / 1e-2
        # Two programs of one formula; quadratics of curvature 30 at η = 1e-2 do not amplify.
        np.testing.assert_allclose(ends.params[lane], path.params[-1], rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(ends.losses[lane], path.loss[-21:-1], rtol=1e-8)
        np.testing.assert_allclose(ends.moves[lane], moves, rtol=1e-6, atol=1e-9)


def test_a_settled_optimizer_stays_at_a_fixed_point():
    """Bias factors of 1 and moments g, g²: what moves is the disturbance alone."""
    setting = Setting(0.1, 1e-8, 1.0)
    point = fixed_point(1.0, 3.0, setting)
    problem = power(2)._replace(
        loss=ct.problems.quadratic([1.0], 3.0), params=jnp.array([point.theta])
    )
    ends = late_runs(setting, problem, cells=2, steps=40, window=40, settled=True)
    # The root finder's 1e-15 over η.
    assert ends.moves.max() < 1e-12


def test_the_power_is_a_power():
    assert float(Power(4)(jnp.array([2.0, 1.0]))) == 17 / 4


@pytest.fixture(scope="module")
def tree():
    return experiment.run(experiment.SIZES["smoke"], lambda what, done, total: None)


def test_the_smoke_run_finds_what_is_expected(tree):
    assert experiment.check(tree) == []
    assert json.loads(tree.attrs["config"])["cells"] == experiment.SIZES["smoke"].cells
    assert set(tree["flat"].regime.attrs["flag_meanings"].split()) == {k.name for k in REGIME}
    assert experiment.numbers(tree)
    assert experiment.plot(tree).axes


def test_every_claim_can_fail(tree):
    def broken(node, name, values):
        other = tree.copy(deep=True)
        other[node][name].values[...] = values
        return experiment.check(other)

    assert len(broken("local", "near", ~tree["local"].near.values)) >= 3
    assert len(broken("local", "radius_empty", 0.5)) == 1
    assert len(broken("flat", "regime", REGIME.limit_cycle)) == 1
    shifted = np.roll(tree["signals"]["count"].values, 1, axis=-1)
    assert len(broken("signals", "count", shifted)) == 2 * 2 * len(REGIME)


@pytest.mark.parametrize(
    "wrong", [{"cells": 1}, {"steps": 10}, {"maps": 5}, {"eps": 0}, {"hidden": 2.5}]
)
def test_configurations_that_make_no_sense_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        replace(experiment.Config(), **wrong)
