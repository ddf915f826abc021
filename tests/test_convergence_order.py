"""Errors of flows against NumPy and SciPy, and whether the experiment's claim can fail."""

import re

import jax.numpy as jnp
import numpy as np
import pytest
import xarray

from ct_adam.flows.registry import FLOWS, is_flow
from experiments import _orders
from experiments import convergence_order as experiment
from experiments.convergence_order import THEORY, Config, check, numbers, verdict

from .reference import Hyper, adam_flow, adam_run


def test_error_of_the_log_flow():
    """Against Adam in NumPy and the flow in SciPy, in both limits and from the first step."""
    draw = _orders.drawn(2)
    for limit in ("fixed", "scaled", "first"):
        setting = experiment.LIMITS[limit](np.array([40, 80]))
        found = _orders.errors("log", setting, draw)
        for i, j in ((0, 0), (1, 1)):
            hessian, start = np.asarray(draw.hessian[j]), np.asarray(draw.start[j])

            def gradient(_, x, hessian=hessian):
                return hessian @ x - 2 * np.sin(2 * x)

            eta, b1, b2 = (float(x[i]) for x in (setting.learning_rate, setting.b1, setting.b2))
            hyper = Hyper(eta, (b1,), (b2,), _orders.EPS)
            steps, warm = int(setting.steps[i]), int(setting.warm_steps[i])
            times = np.arange(0, steps + 1, steps // 10)
            theirs = adam_run(gradient, start, warm + steps, hyper)[2].params[warm + times]
            ours = adam_flow(gradient, start, steps, hyper, warm_steps=warm).params[times]
            error = np.abs(ours - theirs).max() / np.abs(theirs - theirs[0]).max()
            # Either solver is within 1e-11 of the flow, which is 1e-3 off.
            assert float(found[i, j]) == pytest.approx(error, rel=1e-6)


def test_horizons_and_decays():
    lengths = np.array([40, 80, 320])
    fixed, scaled, first = (experiment.LIMITS[k](lengths) for k in ("fixed", "scaled", "first"))
    np.testing.assert_allclose(fixed.learning_rate * fixed.steps, 1)
    np.testing.assert_allclose(scaled.learning_rate * scaled.steps, 2)
    np.testing.assert_allclose((1 - scaled.b1) / scaled.learning_rate, 1)
    np.testing.assert_allclose((1 - scaled.b2) / scaled.learning_rate, 0.5)
    np.testing.assert_allclose(scaled.learning_rate * scaled.warm_steps, 0.2)
    assert set(np.asarray(first.warm_steps)) == {1}
    np.testing.assert_array_equal(first.b1, scaled.b1)


def test_problems_are_rotated_and_do_not_change_with_their_number():
    few, many = _orders.drawn(2), _orders.drawn(5)
    np.testing.assert_array_equal(few.hessian, many.hessian[:2])
    np.testing.assert_array_equal(few.start, many.start[:2])
    for hessian in many.hessian:
        np.testing.assert_allclose(np.linalg.eigvalsh(hessian), _orders.CURVATURES, rtol=1e-12)


@pytest.mark.parametrize("name", THEORY)
def test_every_name_is_a_model(name):
    assert is_flow(name)


def test_saved_times_are_whole_strides():
    # Strides of 2, and a tenth and a half of the steps before.
    np.testing.assert_array_equal(experiment.LENGTHS % (2 * _orders.SAVES), 0)


def test_all_models_are_judged():
    assert set(Config().models) >= set(FLOWS) & set(THEORY)
    assert Config().models == tuple(name for name in THEORY if name in Config().models)


def test_slopes_are_those_above_the_floor():
    rates = np.array([0.1, 0.05, 0.025, 0.0125])
    powers = np.stack([rates**2, 3 * rates, 1e-8 * rates**3], axis=1)
    slopes = experiment.slopes_of(rates, powers, 5e-12)
    # The third: 1e-11, 1.2e-12, … has but one number above the floor.
    np.testing.assert_allclose(slopes[:2], [2, 1], rtol=1e-12)
    assert np.isnan(slopes[2])
    assert np.isnan(experiment.slopes_of(rates, np.full((4, 1), np.nan), 0)[0])


def test_slopes_are_those_of_the_smallest_rates():
    rates = 10.0 ** -np.arange(1, 9)
    errors = np.where(rates > 1e-3, rates, 1e3 * rates**2)[:, None]  # bends at the third
    errors[-1] = 1e-20
    assert experiment.slopes_of(rates, errors, 1e-16)[0] == pytest.approx(2)


def test_interval_is_students():
    mean, half = experiment.interval(np.array([1.0, 2.0, 3.0, 4.0, 5.0]))
    # t(0.975, 4) = 2.7764451 (tables), standard deviation √2.5
    assert (mean, half) == pytest.approx((3, 2.7764451 * np.sqrt(2.5 / 5)), rel=1e-7)
    assert np.isnan(experiment.interval(np.array([1.0, np.nan]))[1])


@pytest.mark.parametrize(
    ("mean", "half", "derived", "word"),
    [
        (1.0, 0.01, 1, "as derived"),
        (1.105, 0.01, 1, "as derived"),
        (1.12, 0.01, 1, "higher"),
        (0.88, 0.01, 1, "lower"),
        (5.5, 0.0, 6, "as derived"),
        (5.3, 0.05, 6, "lower"),
        (0.05, 0.0, 0, "as derived"),
        (0.2, 0.0, 0, "higher"),
        (1.0, 0.6, 1, "undecided"),
        (np.nan, np.nan, 1, "undecided"),
    ],
)
def test_verdict(mean, half, derived, word):
    assert verdict(mean, half, derived) == word


@pytest.mark.parametrize(
    "wrong", [{"seeds": 1}, {"seeds": 2.0}, {"models": ()}, {"models": ("log", "adam")}]
)
def test_configuration_that_makes_no_sense(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Config(**wrong)


def _found(**means: float) -> xarray.DataTree:
    """A result of `log` and `paper` as it is expected, but for the means."""
    models = ("log", "paper")
    nodes = {}
    for limit in experiment.LIMITS:
        derived = [getattr(THEORY[name], experiment.judged(limit)) for name in models]
        mean = [means.get(f"{name}_{limit}", d) for name, d in zip(models, derived, strict=True)]
        nodes[limit] = xarray.Dataset(
            {
                "error": (("model", "eta", "seed"), np.full((2, 1, 1), 1e-3)),
                "mean": ("model", np.array(mean, float)),
                "half_width": ("model", np.full(2, 0.01)),
            },
            coords={
                "model": list(models),
                "derived": ("model", derived),
                "learning_rate": (("model", "eta"), np.full((2, 1), 0.1)),
            },
        )
    return xarray.DataTree.from_dict(nodes)


def test_claim_holds_where_all_is_as_expected():
    assert check(_found()) == []
    assert numbers(_found())["fixed decays"]["paper"]["verdict"] == "as derived"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"log_fixed": 0.5}, "fixed decays, log: the slope is 0.500 .* derived 1: lower"),
        ({"paper_scaled": 2.0}, "in proportion to η, paper: .* derived 1: higher"),
        ({"paper_fixed": np.nan}, "paper: .*undecided"),
    ],
)
def test_claim_fails_in_a_sentence(change, words):
    (sentence,) = check(_found(**change))
    assert re.search(words, sentence)


def test_start_from_the_first_step_is_not_judged():
    assert check(_found(log_first=0.3)) == []


def test_wavy_is_the_problem_of_the_equations():
    """½ Σ h_i x_i² + Σ cos 2x_i where the Hessian is diagonal."""
    x, h = np.array([1.0, -1.0, 0.5, 2.0]), np.array(_orders.CURVATURES)
    found = float(_orders.Wavy(jnp.diag(jnp.asarray(h)))(jnp.asarray(x)))
    assert found == pytest.approx(np.sum(h * x**2) / 2 + np.sum(np.cos(2 * x)), rel=1e-14)
