"""What `hyperparameters` measures, against differences, optax and counts by hand; whether its
claims can fail."""

import re
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax
import pytest
import xarray

from ct_adam.plotting import save_figure
from experiments import _hyperparameters as measured
from experiments import _searches
from experiments import hyperparameters as experiment
from experiments._hyperparameters import HIGH, LOW
from experiments._searches import Probe, Search

STEPS = 12
Z = np.log([0.02, 0.2, 0.05, 0.3])


@pytest.fixture(scope="module")
def task():
    return measured.digits_task(3, 24, 40, seed=5)


def test_hypergradient_of_the_flow(task):
    """Against central differences of the flow's own loss. At rtol = 1e-8 the solver leaves 1e-7 of
    ln loss at most, a smooth function but for its choice of steps: noise 1e-7/h = 1e-5 at
    h = 1e-2; h²/6 times a third derivative of order 1 is 2e-5."""
    rtol, h = jnp.asarray(1e-8), 1e-2

    def value(z):
        return float(measured.flow_slope(task, STEPS, jnp.asarray(z), rtol)[1][0])

    differences = [(value(Z + h * e) - value(Z - h * e)) / (2 * h) for e in np.eye(4)]
    slope, (_, spent) = measured.flow_slope(task, STEPS, jnp.asarray(Z), rtol)
    np.testing.assert_allclose(slope, differences, rtol=0, atol=5e-5)
    assert np.abs(slope).min() > 10 * 5e-5  # so that each of the four is tested
    loose, (_, fewer) = measured.flow_slope(task, STEPS, jnp.asarray(Z), jnp.asarray(1e-3))
    assert fewer < spent
    np.testing.assert_allclose(loose, slope, rtol=0, atol=1e-2)  # rtol, times sensitivities of 10


def test_runs_are_those_of_optax(task):
    rate, first, second, decay = np.exp(Z)
    optimizer = optax.adamw(rate, 1 - first, 1 - second, measured.EPS, weight_decay=decay)

    @jax.jit
    def step(params, state):
        change, state = optimizer.update(jax.grad(task.train.value)(params), state, params)
        return optax.apply_updates(params, change), state

    params, state = task.params, optimizer.init(task.params)
    for _ in range(STEPS):
        params, state = step(params, state)
    wanted = [task.validation.value(params), task.test.value(params)]
    (found,) = measured.losses_at(task, STEPS, jnp.asarray(Z)[None])
    # Rounding of 12 steps; eps = 1e-8 tells gradients of 1e-4 from others by 1e-4 at most.
    np.testing.assert_allclose(found, wanted, rtol=1e-9)


def test_the_three_sets_share_no_image(task):
    parts = [task.train.loss.inputs, task.validation.loss.inputs, task.test.loss.inputs]
    assert [len(part) for part in parts] == [24, 40, 1797 - 64]
    together = np.vstack(parts)
    everything, _ = measured.digits_data()
    assert np.array_equal(*(np.sort(x.view("V512"), axis=0) for x in (together, everything)))


def test_cost_of_four_tangents():
    """Multiplications of the network 64-h-10: with A = 64h and B = 10h an image, a gradient takes
    2A + 3B (three products a layer, but none for the images), a tangent of it 2A + 6B. What is left
    is element by element, 1 in 8 multiplications an output at h = 8: some per cent."""
    factors = measured.cost_factors(measured.digits_task(8, 128, 40, seed=0))
    a, b = 64, 10
    wanted = 1 + 4 * (2 * a + 6 * b) / (2 * a + 3 * b)
    assert factors["four tangents"] == pytest.approx(wanted, rel=0.05)


def test_draws_are_uniform_in_the_box_and_nested():
    points = measured.draws(2000, 3)
    assert np.all((points >= LOW) & (points <= HIGH))
    np.testing.assert_array_equal(points[:7], measured.draws(7, 3))
    # the mean of 2000, σ = width/√12: five of its errors
    error = 5 * (HIGH - LOW) / np.sqrt(12 * 2000)
    assert np.all(np.abs(points.mean(0) - (LOW + HIGH) / 2) < error)


BOTTOM = (LOW + HIGH) / 2 + np.array([0.5, -0.5, 0.5, 10.0])
"""A minimum that lies outside of the box by its last coordinate."""


def bowl(points):
    losses = np.exp(np.sum((np.asarray(points) - BOTTOM) ** 2, axis=-1) / 20)
    return np.stack([losses, 2 * losses], axis=-1)


@pytest.fixture
def search(monkeypatch):
    monkeypatch.setattr(_searches, "losses_at", lambda task, steps, points: bowl(points))
    return Search(None, STEPS, 300, measured.draws(5, 1), 6.0, 1)  # pyright: ignore


def bowl_slope(search, point):
    return Probe((point - BOTTOM) / 10, bowl(point), 6.0)


def check_common(search, found):
    np.testing.assert_array_equal(found["point"][:5], search.first)
    np.testing.assert_array_equal(found["cost"][:5], np.arange(1, 6))
    np.testing.assert_allclose(found["losses"], bowl(found["point"]))
    assert np.all((found["point"] >= LOW) & (found["point"] <= HIGH))
    assert np.all(np.diff(found["cost"]) > 0)
    assert found["cost"][-1] <= search.budget


def test_descent_finds_the_bottom_within_its_budget(search):
    found = _searches.descent(search, bowl_slope)
    check_common(search, found)
    assert len(found["cost"]) == 5 + (300 - 5) // 6
    best = np.argmin(found["losses"][:5, 0])
    np.testing.assert_array_equal(found["point"][5], search.first[best])
    # Adam with steps of 0.2: it goes to and fro within a few of them
    np.testing.assert_allclose(found["point"][-1], np.minimum(BOTTOM, HIGH), atol=0.6)


def test_descent_survives_what_is_not_a_number(search):
    calls = []

    def broken(search, point):
        calls.append(point)
        probe = bowl_slope(search, point)
        return probe._replace(slope=probe.slope * np.nan) if len(calls) == 3 else probe

    found = _searches.descent(search, broken)
    assert np.all(np.isfinite(found["point"]))
    assert np.isnan(found["slope"][7]).all()
    np.testing.assert_allclose(found["point"][-1], np.minimum(BOTTOM, HIGH), atol=0.6)


def test_an_exploding_hypergradient_costs_one_step_not_all(search):
    calls = []

    def spike(search, point):
        calls.append(point)
        probe = bowl_slope(search, point)
        return probe._replace(slope=1e30 * probe.slope) if len(calls) == 3 else probe

    found = _searches.descent(search, spike)
    np.testing.assert_allclose(found["point"][-1], np.minimum(BOTTOM, HIGH), atol=0.6)


def test_descent_that_cannot_pay_is_its_first_draws(search):
    poor = search._replace(budget=10)
    found = _searches.descent(poor, bowl_slope)
    assert len(found["cost"]) == 5


def test_the_flow_pays_for_its_gradients_and_for_the_run(search, monkeypatch):
    slope = np.ones(4), (np.log(2.0), 50)
    monkeypatch.setattr(_searches, "flow_slope", lambda *given: slope)
    probe = _searches.by_flow(search, Z)
    assert probe.cost == pytest.approx(1 + 6.0 * 50 / STEPS)
    assert probe.flow == pytest.approx(2.0)


def test_random_search_and_tpe(search):
    random = _searches.random_search(search)
    check_common(search, random)
    pytest.importorskip("optuna")
    tpe = _searches.tpe_search(search._replace(budget=60))
    check_common(search, tpe)
    # The sampler was told of the losses: what it proposes is better than what is drawn.
    assert np.median(tpe["losses"][30:, 0]) < np.median(random["losses"][:, 0])


def test_best_within():
    cost = np.array([1.0, 2.0, 5.0, np.nan])
    losses = np.array([[3.0, 1.0], [2.0, 7.0], [1.0, 4.0], [np.nan, np.nan]])
    found = _searches.best_within(cost, losses, np.array([0.5, 1.0, 4.9, 5.0, 9.0]))
    wanted = [[np.nan, np.nan], [3, 1], [2, 7], [1, 4], [1, 4]]
    np.testing.assert_array_equal(found, wanted)


CONFIG = experiment.Config(seeds=4, budget=40, first=2, probes=2)


def _tree(**level: float) -> xarray.DataTree:
    """What `run` would return where each search ends with so much of ln loss."""
    rng = np.random.default_rng(0)
    nodes = {}
    for name, height in level.items():
        costs = np.arange(1.0, 41) if name in ("random", "TPE") else np.arange(1.0, 41, 4)
        rows = []
        for seed in range(4):
            fall = np.linspace(1, height + 0.01 * rng.standard_normal() + seed, len(costs))
            losses = np.exp(np.stack([fall, fall], axis=-1))
            row = _searches._found(np.tile(Z, (len(costs), 1)), losses, costs)
            if name == "flow":
                row["flow"] = losses[:, 0] / 2
            rows.append(row | {"seconds": np.array(1.0)})
        nodes[name] = experiment._candidates(rows)
    nodes["best"] = experiment._best(CONFIG, nodes)
    slopes = np.full((3, 4), 0.1)
    probes = {"flow": slopes, "discrete": 1.01 * slopes, "fine": slopes[0], "evaluations": [9] * 3}
    nodes["probes"] = experiment._probes([{k: np.array(v) for k, v in probes.items()}] * 4)
    tree = xarray.DataTree.from_dict(nodes)
    tree.attrs = {"factors": "{}"}
    return tree


CLAIM = "descent through the flow is below random search, at every budget"


@pytest.mark.parametrize(
    ("flow", "verdict"), [(-9.0, "holds"), (9.0, "does not hold"), (-5.0, "undecided")]
)
def test_verdicts(flow, verdict):
    found = experiment.numbers(_tree(flow=flow, unrolled=-5.0, random=-5.0))
    compared = found["ln(loss by flow / loss by the other), intervals simultaneous"]
    at_end = compared["random, validation, 40 runs"]
    if flow != 9.0:  # else the best is the first
        assert at_end["found"] == pytest.approx(flow + 5, abs=0.1)
    if flow == -5.0:  # the other one is not slower
        assert at_end["verdict"] == verdict
    else:
        assert found[CLAIM] == verdict
    gap = found["ln(flow's own loss / discrete loss) where its own is lowest"]
    assert gap["found"] == pytest.approx(-np.log(2))
    assert "left out" in found


def test_without_optuna_tpe_is_left_out(monkeypatch):
    monkeypatch.setattr(_searches, "find_spec", lambda name: None)
    assert _searches.at_hand() == ["flow", "unrolled", "random"]


def test_figure_without_tpe(tmp_path):
    """The layout holds (it would warn), and the three searches are named."""
    figure = experiment.plot(_tree(flow=-1.0, unrolled=-1.0, random=-1.0))
    save_figure(figure, tmp_path / "it", {})
    legend = figure.axes[0].get_legend()
    assert len(legend.get_texts()) == 3
    plt.close(figure)


@pytest.mark.parametrize(
    ("name", "factor", "words"), [("discrete", 1.2, "from the discrete"), ("fine", 1.02, "hundred")]
)
def test_claim_can_fail(name, factor, words):
    tree = _tree(flow=-1.0, unrolled=-1.0, random=-1.0)
    assert experiment.check(tree) == []
    tree["probes"][name] = tree["probes"][name] * factor
    (sentence,) = experiment.check(tree)
    assert words in sentence


def test_explosions_are_counted():
    tree = _tree(flow=-1.0, unrolled=-1.0, random=-1.0)
    slopes = tree["probes"].discrete.copy()
    slopes[0, 1], slopes[1, 2] = 1e9, np.nan
    tree["probes"]["discrete"] = slopes
    found = experiment.numbers(tree)["hypergradients"]
    assert (found["box: flow exploded"], found["box: discrete exploded"]) == (0, 2)
    assert found["box: cosine where neither exploded, median"] == pytest.approx(1)


@pytest.mark.parametrize(
    "wrong", [{"seeds": 1}, {"budget": 19}, {"first": 0}, {"train": 1797}, {"steps": 1}]
)
def test_bad_configurations_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        experiment.Config(**wrong)


@pytest.mark.slow
def test_page(capsys):
    """Its Python runs, and prints what it says."""
    text = (Path(__file__).parents[1] / "docs" / "hyperparameters.md").read_text()
    (block,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    exec(compile(block, "hyperparameters.md", "exec"), {})
    (said,) = re.findall(r"```text\n(.*?)```", text, re.DOTALL)
    pattern = r"-?\d+\.\d+"
    printed = capsys.readouterr().out
    assert re.sub(pattern, "#", printed) == re.sub(pattern, "#", said)
    found, wanted = (list(map(float, re.findall(pattern, some))) for some in (printed, said))
    # Three decimals are shown; twenty steps of Adam carry rounding on, and nothing chatters here.
    assert found == pytest.approx(wanted, abs=0.002)
