"""What `linf_constraint` measures, against closed forms and NumPy; whether its claims can fail."""

import json
import re
from dataclasses import asdict
from functools import partial

import jax.numpy as jnp
import numpy as np
import pytest
import xarray

import ct_adam as ct
from experiments import _linf, _linf_claims, _linf_cycle, _linf_network
from experiments import linf_constraint as experiment

from .reference import Hyper, adam_run


def adamw(gradient, start, b1, b2, learning_rate, decay, steps):
    """The iterates of EQUATIONS §1 with eps = 0, in NumPy."""
    hyper = Hyper(learning_rate, (b1,), (b2,), 0.0, decay)
    return adam_run(lambda _, x: gradient(x), start, steps, hyper)[2].params


def test_paths_and_shares_of_the_cycle_are_numpys():
    steps = 3300
    found = _linf_cycle.cycles(2, steps)
    bad = _linf_cycle.PAIRS["b1 > b2"]
    path = adamw(lambda x: x - 1.3, 0.0, *bad, 5e-3, 1.0, steps)[:-1]
    # A stable cycle: rounding does not grow.
    np.testing.assert_allclose(found.path.sel(run="cycle"), path, atol=1e-10)
    late = path[steps // 2 :]
    assert float(found.largest.sel(run="cycle")) == pytest.approx(late.max(), abs=1e-10)
    assert float(found.outside.sel(run="cycle")) == pytest.approx(np.mean(late > 1 + 1e-6))
    assert np.all(found.path.sel(run="other basin") == 1)
    # One that rests at 1 has u = −1 at every step.
    assert _linf_claims._average(np.ones(9), 0.1) == pytest.approx(1, rel=1e-15)
    assert _linf_claims._average(np.array([1.0, 0.8, 0.9]), 0.1) == pytest.approx(0.4, rel=1e-13)
    assert found.late.shape == (2, 2)
    assert float(found.late.sel(eta=1e-2).min()) > 1.4


def toy(params):
    """½Σ h (x − 2)² in float32, in place of a language model."""
    return jnp.sum(jnp.array([1.0, 3.0], jnp.float32) * (params["x"] - 2) ** 2) / 2


def test_a_training_is_adamw_by_numpy():
    training = _linf_network.Training("", 1, 1, 0.01, 20, 60, 5)
    run = _linf_network.Run(0.9, 0.95, 0.5, 3.0)
    start = {"x": jnp.array([1.5, -1.0], jnp.float32)}
    found = _linf_network._train(ct.problems.LossProblem(toy), start, run, training)
    h = np.array([1.0, 3.0])
    x0 = np.array([4.5, -3.0])
    rates = np.append(training.rates(), 0.0)  # one is looked up behind the last step
    path = adamw(lambda x: h * (x - 2), x0, 0.9, 0.95, lambda n: rates[n], 0.5, 60)[::5]
    g = h * (path - 2)
    # 60 steps in float32, of numbers below 20
    near = partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-4)
    near(found["norm"], np.abs(path).max(1))
    residual = np.abs(g).sum(1) + 0.5 * (path * g).sum(1)
    near(found["stationarity"], residual)
    near(found["loss"], (h * (path - 2) ** 2).sum(1) / 2)
    assert found["norm"].shape == (13,)


def test_steps_until_inside_for_good():
    assert _linf_claims._since(np.array([True, False, True, True])) == 2
    assert _linf_claims._since(np.array([True, True])) == 0
    assert _linf_claims._since(np.array([False, True])) == 1


def test_minima_of_balls():
    hessian, a = np.array([[2.0, 0.5], [0.5, 1.0]]), np.array([3.0, -0.2])
    x = _linf.box_minimum(hessian, a, 1.0)
    # At x₀ = 1 the free coordinate solves ½·(1 − 3) + (x₁ + 0.2) = 0.
    np.testing.assert_allclose(x, [1, 0.8], rtol=1e-12)
    ball = _linf._least(np.eye(2), np.array([3.0, 4.0]), 1.0)[1]
    assert ball == pytest.approx(8.0, rel=1e-12)  # the ball's point is a/5, four away
    assert _linf._least(np.eye(2), np.array([0.3, 0.4]), 1.0)[1] == pytest.approx(0, abs=1e-20)


CONFIG = experiment.SIZES["smoke"]


def _network(end):
    step = np.arange(0, CONFIG.steps + 1, CONFIG.every)
    norm = np.linspace(3, end, len(step))[None]
    ones = np.ones_like(norm)
    one = {"stationarity": ones, "feasibility": ones, "gradient": ones, "loss": ones}
    coords = {"b1": 0.9, "b2": 0.95, "weight_decay": 1.0, "scale": 1.0}
    return xarray.Dataset(
        {name: (("run", "step"), values) for name, values in ({"norm": norm} | one).items()},
        coords={"step": step} | {name: ("run", [value]) for name, value in coords.items()},
        attrs={"rates": CONFIG.training.rates()},
    )


def _tree(
    end=1.0, fall=-1.0, difference=1e-16, over=-1.0, error=0.0, peak=1.4366, settled=1.0, away=0.0
):
    lanes = np.array([0.1, 0.0])
    fixed = xarray.Dataset(
        {
            "end": (("optimizer", "lane"), np.array([[1.0 + error, 1], [2, 9]])),
            "limit": ("lane", [1.0, 1]),
            "ridge": ("lane", [2.0, 2]),
        },
        coords={"optimizer": ["AdamW", "Adam-ℓ2"], "eps": ("lane", lanes)},
    )
    dims, shape = ("instance", "norm", "schedule", "step"), (1, 2, 2, 4)
    rates = xarray.Dataset(
        {
            "gap": (dims, np.full(shape, 5 + over)),
            "bound": (dims, np.full(shape, 5.0)),
            "scale": (dims[:2], np.ones((1, 2))),
        },
        coords={
            "norm": list(_linf.BALLS),
            "schedule": list(_linf.SCHEDULES),
            "radii": (dims[:2], np.ones((1, 2))),
        },
    )
    one = (("optimizer", "step"), np.ones((2, 2000)))
    far = np.broadcast_to([[away], [1.0 - away]], (2, 2000))
    methods = xarray.Dataset(
        dict.fromkeys(("stationarity", "gradient", "feasibility"), one)
        | {"error": (("optimizer", "step"), far)},
        coords={"optimizer": ["AdamW", "Adam-ℓ2"]},
        attrs={"held": 1, "size": 2},
    )
    cycles = xarray.Dataset(
        {
            "largest": ("run", [peak, 1, 1, 1]),
            "outside": ("run", [0.58, 0, 0, 0]),
            "rate": ("run", [0.1] * 4),
            "path": (("run", "step"), [[0.8], [1], [settled], [1]]),
            "late": (("eta", "start"), [[1.0], [1.4]]),
        },
        coords={"run": ["cycle", "other basin", "slow", "b1 < b2"], "eta": [2e-3, 4e-3]},
    )
    lyapunov = xarray.Dataset({"value": ("step", [3.0, 3.0 + fall])})
    nodes = {"fixed": fixed, "rates": rates, "methods": methods, "cycles": cycles}
    tree = xarray.DataTree.from_dict({**nodes, "network": _network(end), "lyapunov": lyapunov})
    tree.attrs = {
        "frank_wolfe": json.dumps({"linf": difference}),
        "config": json.dumps(asdict(CONFIG)),
    }
    return tree


def test_as_expected():
    assert experiment.check(_tree()) == []
    found = experiment.numbers(_tree())["language model"]["AdamW, λ = 1, (0.9, 0.95)"]
    # From 3 to 1 on a line: 1.01 after 199/200 of it.
    assert found["inside from step"] == pytest.approx(0.995 * CONFIG.steps, abs=CONFIG.every)
    # Σ η = 0.02 n until step 200: ln 200 after 265 of them, and 1/n from there on.
    wanted = 200 * np.exp(np.log(200) / 0.02 / 200 - 1)
    assert found["predicted step"] == pytest.approx(wanted, rel=0.01)
    taken = np.cumsum(CONFIG.training.rates())  # [n]: after n + 1 steps
    first = found["predicted step"]
    assert taken[first - 2] < np.log(200) <= taken[first - 1]


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"end": 1.02}, r"λ‖x‖ ends at 1.02"),
        ({"fall": 1e-9}, "L \\+ barrier rises by 1e-09"),
        ({"difference": 1e-13}, "differs from Frank–Wolfe's by 1e-13"),
        ({"over": 1e-9}, "exceeds its bound by 1e-09"),
        ({"error": 1e-8}, "AdamW ends 1e-08 from"),
        ({"away": 1.0}, "(AdamW ends 1|Adam-ℓ2 ends 0) from the minimum"),
        ({"peak": 1.44}, "cycle reaches 1.44"),
        ({"settled": 0.9}, "slow: AdamW ends at 0.9"),
    ],
)
def test_what_is_not_expected_is_said(changed, words):
    said = experiment.check(_tree(**changed))
    assert said
    assert all(re.search(words, sentence) for sentence in said)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"levels": 1}, "levels = 1 must be"),
        ({"data": "mine"}, "must be one of tinyshakespeare"),
        ({"steps": 101}, "a multiple of every"),
        ({"pairs": 9}, "there are 6"),
        ({"learning_rate": 0.0}, "must be positive"),
    ],
)
def test_bad_configurations(wrong, words):
    with pytest.raises(ValueError, match=words):
        experiment.Config(**wrong)
