"""What `normal_curve` measures against closed forms and NumPy, and whether its claims can fail."""

import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

import ct_adam as ct
from experiments import _growth
from experiments import normal_curve as experiment

from .reference import adam_updates

PAIR = (0.99, 0.95)
STEPS = 120


def _gradients(dies_at):
    """Two coordinates: one of noise, one of noise that ends."""
    found = np.random.default_rng(0).standard_normal((STEPS, 2))
    found[dies_at:, 1] = 0.0
    return found


def _trained(rows, **options):
    stream = ct.problems.GradientStream(jnp.asarray(rows))
    # A stream of N gradients defines the update up to N - 1.
    return _growth.trained(stream, jnp.zeros(2), PAIR, len(rows), 0.01, **options)


@pytest.mark.parametrize("eps", [0.0, 1e-3])
def test_a_path_is_the_largest_update_and_its_gradients(eps):
    gradients = _gradients(60)
    path = _trained(gradients, eps=eps, gradients=True)
    updates = np.abs(adam_updates(gradients, *PAIR, eps))
    # Rounding of a recursion of 120 steps.
    np.testing.assert_allclose(path.largest, updates.max(axis=1), rtol=1e-12)
    np.testing.assert_array_equal(path.carrier, updates.argmax(axis=1))
    np.testing.assert_array_equal(path.gradient, gradients)


def test_gradients_that_are_not_wanted_are_not_kept():
    assert _trained(_gradients(60)).gradient is None


def test_a_vanished_coordinate_grows_by_the_closed_form():
    gradients = _gradients(1)
    logs = np.log(np.abs(adam_updates(gradients, *PAIR)[:, 1]))
    # Exact but for rounding: |u_n| is m_1, v_1 times powers, over the bias factors.
    closed = _growth.vanished(PAIR, STEPS)
    np.testing.assert_allclose(logs - logs[0], closed - closed[0], atol=1e-12)
    window = _growth.Window(60, 100)
    path = _trained(gradients, gradients=True)
    slope = window.slope(np.log(path.largest))
    assert slope == pytest.approx(window.slope(closed), rel=1e-10)
    # The bias factor of b1 = 0.99 still counts at n = 80: 30 % of the slope.
    assert slope < 0.8 * np.log(PAIR[0] ** 2 / PAIR[1]) / 2


def test_slope_of_a_line():
    assert _growth.Window(3, 9).slope(np.arange(20) * 0.25 + 7) == pytest.approx(0.25, rel=1e-12)


def test_annealing_holds_the_step_where_the_update_grows():
    rate = np.log(PAIR[0] ** 2 / PAIR[1]) / 2
    gradients = _gradients(1)
    plain, falling = _trained(gradients), _trained(gradients, fall=rate)
    # A stream's gradients know nothing of θ: the update is the same, whatever the learning rate.
    np.testing.assert_allclose(falling.largest, plain.largest, rtol=1e-12)
    problem = ct.problems.quadratic([1.0])
    flow_steps = [
        _growth.trained(problem, jnp.ones(1), PAIR, 40, 0.01, fall=fall) for fall in (0.0, 0.1)
    ]
    x, m, v = 1.0, 0.0, 0.0
    for n in range(40):
        m, v = PAIR[0] * m + (1 - PAIR[0]) * x, PAIR[1] * v + (1 - PAIR[1]) * x**2
        u = m / (1 - PAIR[0] ** (n + 1)) / np.sqrt(v / (1 - PAIR[1] ** (n + 1)))
        assert flow_steps[1].largest[n] == pytest.approx(abs(u), rel=1e-10)
        x -= 0.01 * np.exp(-0.1 * n) * u
    assert abs(flow_steps[0].largest[-1] - flow_steps[1].largest[-1]) > 1e-3


MODEL = _growth.Model(None, {"tokens": jnp.zeros((3, 2)), "z": jnp.zeros(4)}, "abc")  # pyright: ignore[reportArgumentType]


@pytest.fixture
def known(monkeypatch):
    monkeypatch.setattr(_growth, "ROWS", {"['tokens']": 0})


def _path(place, gradient, carrier=None):
    gradients = np.zeros((40, 10))
    gradients[:, place] = gradient
    where = np.full(40, place) if carrier is None else carrier
    return _growth.Path(np.ones(40), where, gradients)


WINDOW = _growth.Window(20, 30)


def test_a_carrier_without_gradient(known):
    gradient = np.append(1.0, np.zeros(39))
    assert _growth.carrier(MODEL, _path(3, gradient), 0.9, WINDOW) == ("['tokens']", "b", 0.0, "")
    assert _growth.carrier(MODEL, _path(7, gradient), 0.9, WINDOW)[:2] == ("['z']", "")


def test_a_carrier_whose_gradient_comes_back(known):
    gradient = np.append(1.0, np.zeros(39))
    gradient[24] = 0.05
    found = _growth.carrier(MODEL, _path(0, gradient), 0.9, WINDOW)
    # m after it: 0.1·0.9²⁴ + 0.1·0.05.
    assert found.returned == pytest.approx(0.05 / (0.1 * 0.9**24 + 0.005), rel=1e-12)
    assert found.reason == "its gradient came back, most at step 24"


def test_carriers_that_take_turns(known):
    where = np.full(40, 3)
    where[29:] = 4
    gradient = np.append(1.0, np.zeros(39))
    found = _growth.carrier(MODEL, _path(3, gradient, where), 0.9, WINDOW)
    assert found.reason == "2 coordinates in turn"


def test_a_dead_coordinate_has_no_gradient_and_one_that_wakes_has():
    assert _growth._part(np.array([0.0, 0.0, 2.0]), 0.9)[:2].tolist() == [0.0, 0.0]
    assert _growth._part(np.array([0.0, 2.0]), 0.9)[1] == pytest.approx(10)


def test_coordinates_are_counted_as_jax_flattens():
    tree = {"b": jnp.arange(6.0).reshape(2, 3), "a": jnp.arange(6.0, 10.0)}
    flat = ravel_pytree(tree)[0]
    for place in range(10):
        name, at = _growth.coordinate(tree, place)
        assert tree[name[2]][at] == flat[place]
    with pytest.raises(ValueError, match="fewer parameters"):
        _growth.coordinate(tree, 10)


CONFIG = experiment.Config(points=2, others=1, seeds=2, middle=60, half=20)
PAIRS = [(0.95, 0.98), PAIR]


def _dataset(slopes=(0.0, None), one_batch=0.0, factor=0.5, reason=""):
    """What would be found if the second point grew as a vanished coordinate does."""
    slopes = [s if s is not None else _theory() for s in slopes]
    found = {}
    for case, p, s in experiment._places(CONFIG, PAIRS):
        bound = np.asarray(ct.theory.update_bound(*PAIRS[p], np.arange(1, 82), "discrete"))
        slope = one_batch if case == 1 else slopes[p]
        found[case, p, s] = {
            "largest": factor * bound * (0.1 if experiment.CASES[case] == "eps = 1e-5" else 1),
            "slope": np.array(slope),
            **{"tensor": np.array(".head"), "character": np.array("x")},
            **{"returned": np.array(0.0), "reason": np.array(reason)},
        }
    return experiment._labelled(found, PAIRS, CONFIG)


def _theory():
    return CONFIG.window.slope(_growth.vanished(PAIR, CONFIG.steps))


def test_as_expected():
    dataset = _dataset()
    assert experiment.check(dataset) == []
    claims = experiment.claims(dataset)
    assert claims["growth at discrete, bias"]["verdict"] == "holds"
    assert claims["one batch"]["verdict"] == "holds"
    # With its bias factor the slope is well below |C|/2 = 0.0162 at n = 60.
    assert claims["growth at |C|/2"]["verdict"] == "does not hold"
    assert claims["growth at |C|/2"]["trainings"] == "2 of 2, the lowest b1 0.9900"
    assert claims["eps = 1e-5"]["verdict"] == "holds"
    assert claims["eps = 1e-8"]["verdict"] == "does not hold"
    assert claims["annealing"]["verdict"] == "undecided"  # here u stays below 1


@pytest.mark.parametrize(
    ("grown", "verdict"), [(40, "does not hold"), (70, "holds"), (1000, "undecided")]
)
def test_annealed_steps_are_judged_once_the_update_has_doubled(grown, verdict):
    """An update of 2.5 from step `grown` on; by 40 the learning rate has fallen to 0.54 of itself,
    by 70 to 0.34."""
    dataset = _dataset()
    n = np.arange(CONFIG.steps)
    at = dataset.get_index("case").get_loc("annealed")
    dataset.largest.values[at, 1, 0] = np.where(n < grown, 1.0, 2.5)
    found = experiment.claims(dataset)["annealing"]
    assert found["verdict"] == verdict
    if grown < len(n):
        rate = np.log(PAIR[0] ** 2 / PAIR[1]) / 2
        assert found["largest step since"] == pytest.approx(2.5 * np.exp(-rate * grown), rel=1e-12)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"slopes": (0.003, None)}, "on the stable branch"),
        ({"slopes": (0.0, 0.9 * 0.99 * _theory())}, "without gradient"),
        ({"factor": 1 + 1e-8}, "times its bound"),
    ],
)
def test_what_is_not_expected_is_said(changed, words):
    missing = experiment.check(_dataset(**changed))
    assert missing
    assert all(words in sentence for sentence in missing)


def test_a_slope_with_gradient_is_not_held_against_theory():
    assert experiment.check(_dataset(slopes=(0.0, -0.02), reason="its gradient came back")) == []


def test_growth_with_one_batch_is_a_verdict():
    assert experiment.claims(_dataset(one_batch=0.01))["one batch"]["verdict"] == "does not hold"


@pytest.mark.parametrize(
    "options",
    [{"points": 1}, {"others": 65}, {"half": 501}, {"learning_rate": 0.0}, {"seeds": True}],
)
def test_configurations_that_make_no_sense(options):
    with pytest.raises(ValueError, match="must"):
        experiment.Config(**options)
