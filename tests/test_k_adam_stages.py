"""Updates of every stage, and the experiment that looks at them."""

from typing import Any, Literal

import jax.numpy as jnp
import numpy as np
import optax
import pytest
import xarray

import ct_adam as ct
from ct_adam.problems import quadratic
from experiments import _k_adam_stages as measured
from experiments import k_adam_stages as experiment

from .reference import adam_updates, stage_updates

B1, B2, EPS, DECAY = (0.9, 0.5, 0.7), (0.999, 0.9, 0.8), 1e-3, 0.1


@pytest.mark.parametrize("decay", ["decoupled", "l2"])
def test_stages_of_steps_are_numpys(decay: Literal["decoupled", "l2"]):
    shared = ct.KAdamFlow(0.01, B1, B2, EPS, weight_decay=DECAY, decay=decay).hyperparameters
    mask = {"w": True, "b": False}
    optimizer = ct.k_adam(0.01, B1, B2, EPS, DECAY, decay=decay, mask=mask)
    params: Any = {"w": jnp.array([1.0, -2.0]), "b": jnp.array([0.5])}
    start, state = params, optimizer.init(params)
    gradients = np.random.default_rng(0).standard_normal((20, 3))
    found, seen = [], []
    for g in gradients:
        tree = {"w": jnp.asarray(g[:2]), "b": jnp.asarray(g[2:])}
        us: Any = ct.stage_updates(shared, tree, state, params, mask)
        found.append([np.concatenate([u["w"], u["b"]]) for u in us])
        seen.append(np.concatenate([g[:2] + DECAY * params["w"] * (decay == "l2"), g[2:]]))
        delta, state = optimizer.update(tree, state, params)
        params = optax.apply_updates(params, delta)
    # 20 steps of a recursion whose numbers are near 1
    np.testing.assert_allclose(found, stage_updates(seen, B1, B2, EPS), rtol=1e-12, atol=1e-12)
    assert not np.allclose(params["w"], start["w"])


def test_a_flow_begins_with_the_stages_of_the_first_step():
    flow = ct.KAdamFlow(0.01, B1, B2, EPS)
    problem, start = quadratic([1.0, 5.0]), jnp.array([1.0, -1.0])
    stages: Any = flow.stage_updates(0.0, flow.init(problem, start), problem)
    gradient = np.array([1.0, -5.0])
    np.testing.assert_allclose(stages, stage_updates([gradient], B1, B2, EPS)[0], rtol=1e-14)
    np.testing.assert_array_equal(stages[-1], flow.update(0.0, flow.init(problem, start), problem))


def test_a_state_of_other_stages_is_refused():
    two = ct.KAdamFlow(0.01, B1[:2], B2[:2])
    params = jnp.ones(2)
    with pytest.raises(ValueError, match="holds 1 stages of moments, 2 are wanted"):
        ct.stage_updates(two.hyperparameters, params, ct.adamw(0.01).init(params), params)


def test_the_step_of_the_overflow_in_float64():
    quiet = np.repeat([1000.0, 0.0], [measured.LOUD, measured.QUIET])
    u1 = adam_updates(quiet, *measured.BAD)
    over = u1**2 > np.finfo(np.float32).max
    assert int(np.argmax(over)) == measured.overflow_step()


@pytest.fixture(scope="module")
def overflow():
    return measured.overflow()


def test_a_first_stage_that_overflows_kills_the_coordinate(overflow):
    dead, saved, good = (overflow.sel(case=case) for case in measured.CASES)
    back = measured.LOUD + measured.QUIET
    assert (dead.u2[measured.overflow_step() :] == 0).all()
    assert (dead.u1[back:] != 0).all()  # the first stage lives again, the second does not
    assert (good.u2 != 0).all()
    # The second stage's m forgets 1e10 by 0.9^100, its v by 0.999^200 alone: |u²| is below
    # 1e10·0.9^100/√(0.001·0.999^200·1e9²).
    assert 0 < abs(saved.u2[-1]) < 1e-2


def test_what_is_not_as_expected_is_said(overflow):
    largest = np.ones((1, 2, 2, 8))
    network = xarray.Dataset(
        {
            "largest": (("strategy", "seed", "stage", "step"), largest),
            "bound": (("strategy", "step"), np.ones((1, 8))),
            **dict.fromkeys(("rms", "near_sign"), (("strategy", "seed", "stage"), largest[..., 0])),
        },
        coords={
            "strategy": ["exp"],
            "stage": [1, 2],
            "b1": ("strategy", [0.8]),
            "b2": ("strategy", [0.9]),
        },
    )
    made = xarray.DataTree.from_dict({"network": network, "overflow": overflow})
    assert experiment.check(made) == []
    network["largest"][0, 1, 1, 3] = 1.01
    bad = overflow.copy(deep=True)
    bad["u2"][0] = 1.0
    bad["u2"][2] = 0.0
    bad["u2"][2, 0] = 1.0
    bad["u2"][2, -1] = 0.0
    made = xarray.DataTree.from_dict({"network": network, "overflow": bad})
    said = experiment.check(made)
    assert len(said) == 4
    assert "1.01 times" in said[0]
    assert "die at step" in said[1]
    assert "should live; it is 0 from step 1" in said[2]
    assert "not far below 0 of no spike" in said[3]


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"strategies": ("meta",)}, "must name some of"),
        ({"stages": 1}, "stages = 1 must be"),
        ({"learning_rate": 0.0}, "must be positive"),
    ],
)
def test_bad_configurations(wrong, words):
    with pytest.raises(ValueError, match=words):
        experiment.Config(**wrong)
