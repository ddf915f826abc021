"""What `decoupled_decay` measures, and whether its check can fail."""

from dataclasses import replace

import jax.numpy as jnp
import numpy as np
import pytest
import xarray
from scipy import stats

from ct_adam.optimizers import restart_steps
from experiments import _decoupled as measured
from experiments import _decoupled_claims as claims
from experiments import _decoupled_valley as valleys
from experiments import _decoupled_values as exact
from experiments import _jackknife
from experiments import decoupled_decay as experiment

RATES, DECAYS = np.geomspace(1e-3, 1e-1, 5), np.geomspace(1e-4, 1, 25)


def parabolas(slope, seeds=3, decays=DECAYS):
    """Losses (seed, rate, decay), lowest at ln λ* = c + slope · ln lr, c another for each seed."""
    centre = np.log(1e-2) + 0.1 * np.arange(seeds)[:, None] + slope * np.log(RATES / 1e-2)
    return 1 + (np.log(decays) - centre[..., None]) ** 2


def test_lowest_of_a_parabola_is_its_vertex():
    x = np.linspace(-1, 2, 13)
    # a quotient of second differences of numbers of order 1, themselves of order h² = 1/16
    assert valleys.lowest(x, 3 * (x - 0.317) ** 2) == pytest.approx(0.317, abs=1e-13)
    assert np.isnan(valleys.lowest(x, x))
    assert np.isnan(valleys.lowest(x, -x))
    diverged = np.where(x > 0.4, np.inf, (x - 0.3) ** 2)
    assert np.isnan(valleys.lowest(x, diverged))
    assert valleys.lowest(x, np.where(x == x[4], 0, 1)) == pytest.approx(x[4])


@pytest.mark.parametrize("slope", [-1.0, 0.0, 0.7])
def test_slope_of_a_valley(slope):
    found = valleys.valley(parabolas(slope), RATES, DECAYS)
    assert found.counts.sum() == 5
    assert found.residual == pytest.approx(0, abs=1e-12)
    assert found.slope.mean == pytest.approx(slope, abs=1e-12)
    assert found.slope.half_width == pytest.approx(0, abs=1e-12)
    # λ_LH/lr is the decay of the other parametrisation: the same map, looked at aslant
    aslant = valleys.sheared(found, RATES)
    assert aslant.slope.mean == pytest.approx(slope - 1, abs=1e-12)
    np.testing.assert_allclose(aslant.log_best + np.log(RATES), found.log_best)


def test_rates_whose_best_decay_is_at_an_end_of_the_grid_do_not_count():
    losses = parabolas(0.5)
    losses[:, 0] = 1 + np.arange(25)
    found = valleys.valley(losses, RATES, DECAYS)
    assert found.counts.tolist() == [False, True, True, True, True]
    assert np.isnan(found.log_best[0])
    assert found.slope.mean == pytest.approx(0.5, abs=1e-12)
    losses[:, 1:3] = 1 + np.arange(25)
    assert np.isnan(valleys.valley(losses, RATES, DECAYS).slope.mean)


def test_rates_far_above_the_least_or_of_wide_intervals_do_not_count():
    losses = parabolas(0.0)
    losses[:, 0] = 1.4 * parabolas(1.5)[:, 0]  # 40 % above: its λ* would tilt the line
    found = valleys.valley(losses, RATES, DECAYS)
    assert found.counts.tolist() == [False, True, True, True, True]
    assert found.slope.mean == pytest.approx(0, abs=1e-12)
    losses[:, 0] = 1.2 * parabolas(1.5)[:, 0]
    assert valleys.valley(losses, RATES, DECAYS).counts.all()
    # Three seeds' ln λ* of mean m, ±a: Student's 4.30·a/√3, the interval twice that; a decade at
    # a = 0.46. Their mean's parabola has its vertex at m, whatever a is.
    for aside, counts in ((0.44, True), (0.48, False)):
        centre = np.log(1e-2) + aside * np.array([[[-1.0]], [[0.0]], [[1.0]]])
        losses[:, :1] = 1 + (np.log(DECAYS) - centre) ** 2
        assert valleys.valley(losses, RATES, DECAYS).counts[0] == counts


@pytest.mark.parametrize(("jump", "line"), [(2.0, True), (3.0, False)])
def test_a_jump_is_not_a_line(jump, line):
    # Of y = jump · (0, 0, 0, 1, 1) over 0 … 4 the line leaves √(Syy − Sxy²/Sxx)/√5 =
    # Syy = 1.2, Sxy = 3, Sxx = 10 give 1.2 − 0.9 = 0.3 over 5 rates, √0.06. ln 2 at jump = 2.83.
    losses = np.concatenate(
        [
            parabolas(0.0)[:, :3],
            1 + (np.log(DECAYS) - np.log(1e-2) - jump * np.ones((3, 2, 1))) ** 2,
        ],
        axis=1,
    )
    losses[:, :3] = 1 + (np.log(DECAYS) - np.log(1e-2)) ** 2
    found = valleys.valley(losses, RATES, DECAYS)
    assert found.residual == pytest.approx(jump * np.sqrt(0.06), rel=1e-9)
    assert found.line == line == bool(np.isfinite(found.slope.mean))
    row = claims.of_slope("forget", "AdamW-LH", found)
    assert (row["found"] == "not a line") == (not line)


def test_interval_of_a_mean_is_students():
    values = np.random.default_rng(0).standard_normal(6)
    found = _jackknife.left_out(values[:, None], lambda mean: mean)
    alone = stats.ttest_1samp(values, 0).confidence_interval()
    half = _jackknife.half_width(found)[0]
    np.testing.assert_allclose([found[0, 0] - half, found[0, 0] + half], alone, rtol=1e-12)


@pytest.fixture(scope="module")
def ridge():
    return measured.ridge_task("forget", "", noise=0.1, start=10.0, cosine=True)


@pytest.mark.parametrize("method", ["sgd", "adam_l2"])
def test_a_lane_is_the_run_by_numpy(ridge, method):
    rate, decay, epochs = 3e-3, 0.02, 2
    problem, params, test = ridge.make(3)
    inputs, labels = (np.asarray(x, float) for x in problem.data)
    theta, m, v = np.asarray(params, float), 0.0, 0.0
    steps = epochs * ridge.epoch
    for n in range(steps):
        chosen = np.asarray(problem.indices(n))
        x, y = inputs[chosen], labels[chosen]
        eta = rate * (0.5 + 0.5 * np.cos(np.pi * n / steps))
        g = x.T @ (x @ theta - y) / len(y)
        if method == "sgd":
            theta = theta - eta * (g + decay / rate * theta)
            continue
        g = g + decay * theta
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
        u = m / (1 - 0.9 ** (n + 1)) / (np.sqrt(v / (1 - 0.999 ** (n + 1))) + 1e-8)
        theta = theta - eta * u
    wanted = np.sum((theta - np.asarray(test.truth)) ** 2) / 2
    rates, decays = np.array([rate]), np.array([decay])
    found = measured.test_losses(ridge, method, rates, decays, 4, epochs)
    # float32: 6e-8 a product, sums of a thousand, twenty steps
    np.testing.assert_allclose(found[3, 0, 0], wanted, rtol=2e-5)


def test_both_methods_of_sgd_are_one_without_momentum(ridge):
    rates, decays = np.array([1e-3, 5e-3]), np.array([1e-3, 1e-2])
    one, other = (
        measured.test_losses(ridge, method, rates, decays, 4, 2) for method in ("sgd", "sgdw")
    )
    np.testing.assert_allclose(one, other, rtol=2e-5)  # as above


def test_each_course_of_the_restarts_is_its_own(ridge):
    found = measured.anytime(ridge, 1e-2, 0.1, 20, 2, 2)
    ends = restart_steps(20, cycles=2)
    assert list(found["ends"]) == list(ends) == [20, 60]
    by_run = dict(zip(found["run"], found["loss"], strict=True))
    at = {n: int(np.flatnonzero(found["step"] == n)[0]) for n in (0, 20, 22, 60)}
    # In its first cycle AdamWR is the cosine of that budget; then that one stands still.
    np.testing.assert_allclose(
        by_run["restarts"][:, : at[20] + 1], by_run["20"][:, : at[20] + 1], rtol=1e-6
    )
    np.testing.assert_allclose(by_run["20"][:, at[60]], by_run["20"][:, at[20]], rtol=1e-6)
    assert (np.abs(by_run["restarts"][:, at[22]] / by_run["20"][:, at[22]] - 1) > 1e-3).all()
    starts = found["loss"][:, :, 0]
    np.testing.assert_array_equal(starts, np.broadcast_to(starts[0], starts.shape))


def test_a_share_of_the_labels_is_wrong():
    labels = jnp.arange(20_000) % 10
    _, found = measured._mislabelled((labels, labels), 0)
    wrong = np.asarray(found) != np.asarray(labels)
    # standard deviation of a share of 20 000: √(0.2·0.8/20000) = 0.003
    assert abs(wrong.mean() - measured.MISLABELLED) < 0.015
    assert set(np.asarray(found).tolist()) == set(range(10))


def test_best_decays_by_budget():
    epochs, steps, x = np.array([25, 100, 400]), np.array([50, 200, 800]), np.log(DECAYS)
    best = np.log(0.1) - np.log(epochs / 25) / 2 + np.array([[0.0], [0.2]])
    node = xarray.Dataset(
        {"loss": (("epochs", "seed", "decay"), ((x - best[..., None]) ** 2).swapaxes(0, 1))},
        coords={"epochs": epochs, "steps": ("epochs", steps), "decay": DECAYS},
    )
    found = claims.of_budgets(node)
    assert found["slope"]["found"] == pytest.approx(-0.5)
    assert found["spread of λ_LH"]["found"] == pytest.approx(4)
    assert found["spread of λ_norm"]["found"] == pytest.approx(1)
    assert found["T = 25"]["λ_LH"] == pytest.approx(0.1 * np.exp(0.1))
    assert found["T = 400"]["λ_norm"] == pytest.approx(0.1 * np.exp(0.1) * np.sqrt(50))


def made_up(slopes):
    """A result whose valleys have these slopes, by problem for SGDW and AdamW."""
    nodes = {}
    for name, by_method in slopes.items():
        variables, coords = {}, {}
        for method in measured.MEASURED:
            dims = ("seed", f"rate_{method}", f"decay_{method}")
            variables[method] = (dims, parabolas(by_method["adam" in method]))
            coords |= {dims[1]: RATES, dims[2]: DECAYS}
        nodes[name] = xarray.Dataset(variables, coords)
    return xarray.DataTree.from_dict(nodes)


def test_what_is_not_as_expected_is_said(monkeypatch):
    as_expected = {"forget": (-0.05, 0.02), "counter": (1.2, 1.1)}
    assert experiment.check(made_up(as_expected)) == []
    said = experiment.check(made_up(as_expected | {"counter": (0.0, 1.1)}))
    assert said == [
        "counter, SGD: the slope is -1.00, not 0.38.",
        "counter, SGDW: the slope is 0.00, not 1.37.",
    ]
    kinked = made_up(as_expected)
    kinked["forget"]["adamw"][:, 3:] = 1 + (np.log(DECAYS) - np.log(1e-2) - 3) ** 2
    kinked["forget"]["adamw"][:, :3] = 1 + (np.log(DECAYS) - np.log(1e-2)) ** 2
    assert experiment.check(kinked)[0] == "forget, AdamW-LH: the valley is not a line."
    diverged = made_up(as_expected)
    diverged["forget"]["adamw"][0, 0] = np.inf
    assert "forget, adamw: a learning rate diverges" in " ".join(experiment.check(diverged))
    broken = {key: {**value} for key, value in exact.propositions().items()}
    broken["Prop. 1"]["relative difference"] = 1e-12
    broken["Prop. 2"]["residual"] *= 1.01
    broken["Prop. 3"]["printed decays times"] = 1.0
    monkeypatch.setattr(exact, "propositions", lambda: broken)
    monkeypatch.setattr(exact, "AT_REST", 2.0)
    monkeypatch.setattr(exact, "WANTED", {25: 5.08e-4})
    said = " ".join(experiment.check(made_up(as_expected)))
    for words in ("Prop. 1: off by", "Prop. 2: residual", "printed form", "at rest", "T = 25"):
        assert words in said


def test_every_restart_is_evaluated(monkeypatch):
    pairs = exact.values.__wrapped__()["restarts"]
    assert len(pairs) == 4
    for end, length in {100: 100, 300: 200, 700: 400, 1500: 800}.items():
        before, at = pairs[f"η before and at {end}"]
        # float32 in optax's quotient: 1e-7 of the angle, times its sine, less than 1e-8
        assert before == pytest.approx(0.5 - 0.5 * np.cos(np.pi / length), abs=1e-8)
        assert at == 1
    monkeypatch.setattr(exact.ct, "warm_restarts", lambda *_, **__: lambda n: 0.25)
    assert set(exact.values.__wrapped__()["restarts"].values()) == {(0.25, 0.25)}


def test_one_run_is_not_compared_with_itself():
    loss = np.arange(24.0).reshape(4, 3, 2)
    node = xarray.Dataset(
        {"loss": (("run", "seed", "step"), loss)},
        coords={"run": ["restarts", "constant", "20", "60"], "step": [20, 60]},
        attrs={"ends": [20, 60]},
    )
    found = claims.of_restarts(node)
    assert found["step 20"]["restarts − cosine of this budget"] == "the same run"
    assert found["step 60"]["restarts − cosine of this budget"] == "-18.000 ± 0.000"


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"networks": ("resnet",)}, "must name some of"),
        ({"budgets": (100, 25)}, "two or more, rising"),
        ({"budget_tasks": ("convnet",)}, "must name some of"),
        ({"restart_task": "convnet"}, "must be one of forget"),
        ({"rates": 2}, "rates = 2 must be"),
        ({"batch": 2000}, "must not exceed the training points"),
    ],
)
def test_bad_configurations(wrong, words):
    with pytest.raises(ValueError, match=words):
        replace(experiment.SIZES["quick"], **wrong)


@pytest.mark.slow
@pytest.mark.parametrize("task", ["mlp", "convnet"])
def test_networks_train(task):
    one = experiment.tasks(replace(experiment.SIZES["quick"], convnet_points=64))[task]
    problem, params, test = one.make(0)
    del problem
    found = measured.test_losses(one, "adamw", np.array([1e-2]), np.array([1e-6]), 2, 20)
    assert (found < 0.8 * float(test(params))).all()
