"""What `k_adam` trains and decides, and whether its claims can fail."""

import json
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.stats

import ct_adam as ct
from experiments import _k_adam as measured
from experiments import _statistics as statistics
from experiments import k_adam as experiment
from experiments.__main__ import _plain
from experiments._generalisation import Network
from experiments._k_adam import Cell, Run, Training
from experiments._k_adam_claims import Found

from .reference import Hyper, adam_run

TRAINING = Training(
    steps=6, every=3, validation=10, sample=5, l2=0.3, decoupled=0.2, lanes=4
)  # fmt: skip
ONE = Cell("k_adam", 1, "", "decoupled")


def test_one_stage_is_one_cell_a_coupling():
    found = measured.cells((1, 2, 5), ("exp", "naive"), ("adan",))
    assert len(found) == len(set(found)) == 2 + 2 * 2 * 2 + 1
    assert [cell.coupling for cell in found if cell.k == 1] == ["decoupled", "coupled"]
    assert len({cell.name for cell in found}) == len(found)


def test_lanes_hold_what_the_cells_say():
    runs = [
        Run(Cell("k_adam", 2, "inverse_exp", "decoupled"), 0.1, 3),
        Run(Cell("k_adam", 10, "scaled", "coupled"), 0.2, 4),
        Run(Cell("k_adam", 1, "", "coupled"), 0.3, 5),
    ]
    lanes = measured.lanes_of(runs, TRAINING)
    # EQUATIONS §4's numbers, to their six digits; λ is l2's where it is coupled.
    np.testing.assert_allclose(lanes.b1, [0.683772, 0.09, 0.9], atol=6e-7)
    np.testing.assert_allclose(lanes.b2, [0.968377, 0.0999, 0.999], atol=6e-7)
    np.testing.assert_allclose(lanes.l2, np.float32([0, 0.3, 0.3]), rtol=0)
    np.testing.assert_allclose(lanes.decoupled, np.float32([0.2, 0, 0]), rtol=0)
    np.testing.assert_allclose(lanes.rate, np.float32([0.1, 0.2, 0.3]), rtol=0)
    assert list(lanes.seed) == [3, 4, 5]


def _regression(seed):
    """A least-squares line of two weights; another start and other batches by seed."""
    draw = np.random.default_rng(0)
    data = draw.standard_normal((60, 2))
    problem = ct.problems.Minibatches(
        lambda p, x: jnp.mean((x @ p - x[:, 0] ** 2) ** 2), data[:30], 4, seed, "independent",
        evaluation=data[30:],
    )  # fmt: skip
    return problem, jnp.asarray(np.random.default_rng(seed).standard_normal(2))


LINE = Network("line", "a line", _regression)


def _by_hand(run, gradient, start):
    """k-Adam of EQUATIONS §4 with a cosine, in NumPy."""
    b1, b2 = ct.k_adam_decays(run.cell.k, strategy=run.cell.strategy or "naive")
    decay = (TRAINING.decoupled, "decoupled")
    if run.cell.coupling == "coupled":
        decay = (TRAINING.l2, "l2")

    def rate(n):
        return run.learning_rate * (1 + np.cos(np.pi * n / TRAINING.steps)) / 2

    return adam_run(gradient, start, TRAINING.steps, Hyper(rate, b1, b2, 1e-8, *decay))[0]


def _paths(runs):
    """(run, save, weight), as `trained` has them before it scores."""
    problem, _ = measured.problem_of(LINE, TRAINING)
    params = np.stack([measured._start(LINE, run.seed) for run in runs])
    cell = runs[0].cell
    return np.asarray(
        measured._trained(
            cell.method, cell.k, problem, params, measured.lanes_of(runs, TRAINING), 6, 3
        )
    )


def test_lanes_are_trained_as_the_equations_say():
    runs = [
        Run(Cell("k_adam", 2, strategy, coupling), rate, seed)
        for strategy, coupling, rate, seed in (
            ("inverse_exp", "decoupled", 0.1, 7), ("naive", "coupled", 0.05, 8),
            ("scaled", "coupled", 0.1, 7),
        )
    ]  # fmt: skip
    found = _paths(runs)
    assert found.shape == (3, 3, 2)
    for row, run in zip(found, runs, strict=True):
        problem, start = _regression(run.seed)
        np.testing.assert_array_equal(row[0], np.float32(start))
        last = _by_hand(run, lambda n, p, o=problem: np.asarray(o.gradient(n, p)), start)
        # float32 against float64: six steps of some 1e-7 relative each, which the second stage
        # enlarges no more than tenfold; moves are of 0.3.
        np.testing.assert_allclose(row[-1], last, atol=2e-5)


def test_one_stage_is_adamw_of_optax():
    (found,) = _paths([Run(ONE, 0.1, 7)])
    problem, params = _regression(7)
    rule = optax.adamw(optax.cosine_decay_schedule(0.1, 6), weight_decay=TRAINING.decoupled)
    state = rule.init(params)
    for n in range(6):
        update, state = rule.update(problem.gradient(n, params), state, params)
        params = optax.apply_updates(params, update)
    np.testing.assert_allclose(found[-1], params, atol=2e-5)  # as above


@pytest.mark.parametrize("name", measured.BASELINES)
def test_baselines_have_rate_and_decay_of_the_lane(name):
    one = jax.tree.map(lambda x: x[0], measured.lanes_of([Run(Cell(name), 0.1, 0)], TRAINING))
    theta, gradient = jnp.array([2.0]), jnp.array([3.0])

    def step(rule):
        return rule.update(gradient, rule.init(theta), theta)[0]

    decay = {} if name == "adam" else {"weight_decay": TRAINING.decoupled}
    expected = step(getattr(optax, name)(0.1, **decay))
    # float32's 0.1 and 0.2.
    np.testing.assert_allclose(step(measured.optimizer(name, 0, one, 6)), expected, rtol=1e-6)


class _Linear:
    """A loss whose model is its parameters."""

    def rebuild(self, params):
        return lambda x: x @ params


def test_scores_are_cross_entropy_and_accuracy():
    draw = np.random.default_rng(0)
    path, inputs = draw.standard_normal((2, 3, 4, 5)), draw.standard_normal((7, 4))
    labels = draw.integers(5, size=7)
    path[1, 2, 0, 0] = np.nan
    found = np.asarray(measured._scores(_Linear(), path, (inputs, labels)))
    logits = np.einsum("nd,lsdc->lsnc", inputs, path)
    chosen = np.take_along_axis(logits, labels[None, None, :, None], -1)[..., 0]
    losses = np.log(np.exp(logits).sum(-1)) - chosen
    np.testing.assert_allclose(found[..., 0], losses, rtol=1e-12)  # NaN where that is
    right = (logits.argmax(-1) == labels) & np.isfinite(losses)
    np.testing.assert_array_equal(found[..., 1], right)


def test_pieces_hold_one_program_and_every_run():
    ten = [Run(Cell("k_adam", k, "exp", "coupled"), 0.1, s) for k in (2, 3) for s in range(5)]
    pieces = measured.pieces_of([*ten, Run(Cell("adan"), 0.1, 0)], 2)
    assert sorted(run for piece in pieces for run in piece) == sorted(
        [*ten, Run(Cell("adan"), 0.1, 0)]
    )
    assert all(len({run.cell for run in piece}) == 1 and len(piece) <= 2 for piece in pieces)
    assert [piece[0].cell.k for piece in pieces[:3]] == [2, 3, 0]


def test_intervals_are_scipys():
    values = np.random.default_rng(0).standard_normal(9) + 0.4
    for comparisons in (1, 6):
        row = statistics.paired(values, comparisons)
        level = 1 - 0.05 / comparisons
        low, high = scipy.stats.ttest_1samp(values, 0).confidence_interval(level)
        np.testing.assert_allclose([row["low"], row["high"]], [low, high], rtol=1e-9)
    assert statistics.paired(values + 5)["verdict"] == "holds"
    assert statistics.paired(values + 5, above=False)["verdict"] == "does not hold"
    assert statistics.paired(values - 0.4)["verdict"] == "undecided"
    assert statistics.paired(np.append(values + 5, np.nan))["verdict"] == "undecided"


def test_verdicts_of_several():
    def rows(*verdicts):
        return [{"verdict": verdict} for verdict in verdicts]

    yes, no, open_ = "holds", "does not hold", "undecided"
    assert statistics.of_some(rows(no, yes, open_)) == yes
    assert statistics.of_some(rows(no, no)) == no
    assert statistics.of_some(rows(no, open_)) == open_
    assert statistics.of_every(rows(yes, yes)) == yes
    assert statistics.of_every(rows(yes, no, open_)) == no
    assert statistics.of_every(rows(yes, open_)) == open_
    # A claim on more than was measured: "some" may yet hold, "every" may yet fail.
    assert statistics.of_some(rows(no, no), False) == open_
    assert statistics.of_some(rows(no, yes), False) == yes
    assert statistics.of_every(rows(yes, yes), False) == open_
    assert statistics.of_every(rows(yes, no), False) == no


CONFIG = replace(
    experiment.SIZES["smoke"], ks=tuple(range(1, 11)), strategies=experiment.PAPER, tuning_seeds=2,
    seeds=5, seeds_two=8, lanes=4, baselines=("adam", "adan"),
    learning_rates=(3e-3, 1e-2, 3e-2, 1e-1),
)  # fmt: skip
GAIN = {"inverse_exp": 0.05, "exp": 0.02, "scaled": 0.0, "naive": -0.1}


def _invented(gain, noise=1e-3):
    """Runs whose accuracy is 0.8 plus the seed's, plus the strategy's gain; at the rate that
    validation finds best. On the tuning seeds it is 0: they must not be reported."""

    def trained(network, runs, training):
        del network
        rows = []
        for cell, rate, seed in runs:
            best = 3e-2 if cell.k == 2 else 1e-2
            draw = np.random.default_rng([seed, cell.k, len(cell.strategy), len(cell.coupling)])
            accuracy = 0.8 + 0.01 * seed + gain.get(cell.strategy, 0) + noise * draw.normal()
            loss = 1 - accuracy + (rate != best)
            test = (0.0, 9.0) if seed < 2 else (loss, accuracy)
            rows.append(((2.3, 0.1), (loss, accuracy), test))
        start, end, test = (np.array(x) for x in zip(*rows, strict=True))
        curve = np.stack([start, end], 1)
        return {"train": curve, "validation": curve, "test": test}

    return trained


def _seconds(network, ks, training):
    del network, training
    times = {name: np.full(len(ks), 1e-3) for name in ("median", "least", "largest")}
    return {**times, "ratio": np.ones((3, len(ks)))}


@pytest.fixture
def made(monkeypatch, tmp_path):
    """A tree of invented runs; one with networks is in test_experiments."""
    monkeypatch.setattr(measured, "seconds_per_step", _seconds)

    def make(gain=GAIN, noise=1e-3, config=CONFIG, folder="kept"):
        monkeypatch.setattr(measured, "trained", _invented(gain, noise))
        (tmp_path / folder).mkdir(exist_ok=True)
        # Not by `run`: invented scores must not be kept where a real run looks for its own.
        return experiment._run(config, lambda *told: None, tmp_path / folder)

    return make


def test_a_run_is_put_together(made):
    tree = made()
    assert experiment.check(tree) == []
    found = experiment.numbers(tree)
    json.dumps(_plain(found), allow_nan=False)
    node = tree["images"].to_dataset()
    rates = dict(zip(node.cell.values.tolist(), node.rate.values, strict=True))
    assert rates["k=2 exp coupled"] == 3e-2
    assert rates["k=1 coupled"] == rates["adan"] == 1e-2
    assert np.isfinite(node.test_accuracy.sel(cell="k=2 naive coupled")).sum() == 8
    assert np.isfinite(node.test_accuracy.sel(cell="k=3 naive coupled")).sum() == 5
    assert float(node.test_accuracy.min()) > 0.6  # no tuning seed
    assert node.seed.values.tolist() == list(range(2, 10))


def test_a_rate_at_which_a_seed_diverged_is_not_chosen(made):
    tuned = {
        run: {"validation": np.array([[2.0, 0.1], [abs(run.learning_rate - 3e-2), 0.5]])}
        for run in CONFIG.plan("images").tuning_runs()
    }
    assert set(CONFIG.plan("images").chosen_rates(tuned).values()) == {3e-2}
    tuned[Run(ONE, 3e-2, 1)]["validation"][-1] = np.nan, 0.0
    rates = CONFIG.plan("images").chosen_rates(tuned)
    assert [cell for cell, rate in rates.items() if rate == 1e-2] == [ONE]
    node = made()["images"].copy(deep=True)
    found = Found(node)
    first, second = found.cells[2:4]
    node["tuning_loss"].loc[{"cell": first.name}] = [[0.3, np.nan], *[[0.5, 0.5]] * 3]
    node["tuning_loss"].loc[{"cell": second.name}] = [[0.4, 0.4], *[[0.6, 0.6]] * 3]
    assert Found(node).likeliest([first, second]) == second


def test_what_is_there_is_found(made):
    found = experiment.numbers(made())["images"]
    for name, row in found["two"].items():
        gain = GAIN[name.split()[0]]
        # The mean of eight differences of two draws of 1e-3: 5e-4, five of these.
        assert row["found"] == pytest.approx(gain, abs=2.5e-3)
        loss = found["two, test loss"][name]
        assert loss["found"] == pytest.approx(-row["found"], abs=1e-12)
        assert loss["verdict"] == row["verdict"]
        if gain:
            assert row["verdict"] == ("holds" if gain > 0 else "does not hold")
    assert found["does k = 2 help"]["some, verdict"] == "holds"
    assert found["some"]["exp coupled"]["verdict"] == "holds"
    assert {row["verdict"] for row in found["naive"].values()} == {"holds"}
    (best,) = found["best"].values()
    # As good coupled as decoupled, and with more stages as with two: 2·9 − 1 cells.
    assert best["verdict"] == "undecided"
    assert best["worse than"] == 0
    assert best["better than"] >= best["of"] - 17


def test_nothing_is_claimed_of_what_was_not_run(made):
    few = replace(CONFIG, ks=(1, 2, 4))
    against = experiment.numbers(made({name: -gain for name, gain in GAIN.items()}, config=few))
    assert against["claims"]["some"]["does not hold"] == 0
    assert against["claims"]["naive"]["does not hold"] == 2  # one k is enough
    along = experiment.numbers(made(config=few, folder="along"))["claims"]
    assert along["naive"]["holds"] == 0
    assert along["some"]["holds"] >= 4


def test_who_loses_at_the_last_rate_tried_has_not_lost(made):
    edge = replace(CONFIG, learning_rates=(1e-2, 3e-2))  # every best rate is an end
    found = experiment.numbers(made(config=edge))["images"]
    assert {row["verdict"] for row in found["two"].values()} == {"undecided"}
    assert "the last rate tried is k=2 naive coupled's best" in found["two"]["naive coupled"]["why"]


def test_claims_can_fail(made):
    found = experiment.numbers(made({name: -gain for name, gain in GAIN.items()}))
    claims = found["claims"]
    assert found["images"]["does k = 2 help"]["some, verdict"] == "holds"  # naive does
    assert claims["naive"]["does not hold"] == 2
    assert claims["some"]["does not hold"] >= 4
    assert claims["best"]["does not hold"] == 1


def test_defects_of_the_runs_are_told(made):
    tree = made()

    def broken(cell, name, value):
        other = tree.copy(deep=True)
        row = list(other["images"].cell.values).index(cell)
        index = (row, 0, -1) if name == "train_loss" else (row, 0)
        other["images"][name].values[index] = value
        experiment.numbers(other)
        return experiment.check(other)

    assert "hardly falls" in " ".join(broken("adan", "train_loss", 9.0))
    assert "not finite" in " ".join(broken("k=1 coupled", "test_loss", np.nan))
    assert broken("k=3 naive coupled", "test_loss", np.nan) == []  # more stages may diverge


def test_a_stopped_experiment_goes_on(made, monkeypatch, tmp_path):
    called = []
    inner = _invented(GAIN)

    def trained(network, runs, training):
        if len(called) == 20 and stopping:
            raise KeyboardInterrupt
        called.append(tuple(runs))
        return inner(network, runs, training)

    expected = made(folder="whole")
    monkeypatch.setattr(measured, "trained", trained)
    stopping = True
    with pytest.raises(KeyboardInterrupt):
        experiment._run(CONFIG, lambda *told: None, tmp_path)
    stopping, told = False, []
    tree = experiment._run(CONFIG, lambda *one: told.append(one), tmp_path)
    assert len(called) == len(set(called)) == told[-1][2] - 1  # the other one is the time's
    assert told[-1][1] == told[-1][2]
    assert tree["images"].to_dataset().equals(expected["images"].to_dataset())


@pytest.mark.parametrize(
    "wrong",
    [
        {"ks": (1, 3)}, {"ks": (1, 2, 11)}, {"strategies": ("meta",)}, {"baselines": ("sgd",)},
        {"seeds_two": 1}, {"every": 7}, {"learning_rates": ()}, {"ks": (1, 2, 2)}, {"l2": -1.0},
        {"seeds": 1}, {"text_k": 1}, {"learning_rates": (np.nan,)}, {"learning_rates": (0.1, 0.1)},
        {"decoupled": np.inf}, {"learning_rates": 0.1},
    ],
)  # fmt: skip
def test_configurations_that_make_no_sense_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        replace(experiment.Config(), **wrong)
