"""What `generalisation` measures and decides, and whether its claims can fail."""

import itertools
import json
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.stats

import ct_adam as ct
from experiments import _generalisation as measured
from experiments import _generalisation_claims as claims
from experiments import generalisation as experiment
from experiments.__main__ import _plain
from experiments._statistics import verdict_of_interval


@pytest.mark.parametrize("through", [measured.DEFAULT, measured.SECOND])
def test_pairs_lie_on_the_normal_curve_and_end_where_the_paper_ends(through):
    b1, b2 = measured.normal_pairs(through, 12)
    # b1³ + 2 b2³ = K: cube root and cube, rounding.
    np.testing.assert_allclose(b1**3 + 2 * b2**3, through[0] ** 3 + 2 * through[1] ** 3, rtol=1e-12)
    assert through in zip(b1, b2, strict=True)
    assert np.all(b2 <= 0.999 + 1e-9)
    c = 2 * (1 - b1) / b1 - (1 - b2) / b2
    assert c[0] == c.max()
    assert (c < 0).sum() >= 2
    # Chosen among points 20 times finer; one is moved to the pair itself.
    spacing = (1 - b1[0]) / 12
    np.testing.assert_allclose(np.diff(b1), spacing, atol=spacing * 2.1 / 20 + spacing / 2)


def test_the_default_is_the_right_most_point():
    b1, b2 = measured.normal_pairs(measured.DEFAULT, 128)
    assert (b1[0], b2[0]) == measured.DEFAULT


def test_a_level_curve_has_one_c():
    b1, b2 = measured.level_pairs(5)
    c = 2 * (1 - b1) / b1 - (1 - b2) / b2
    np.testing.assert_allclose(c, 2 / 9 - 1 / 999, atol=1e-14)


def _line(seed):
    """A least-squares line: three weights, one of which no gradient reaches."""
    draw = np.random.default_rng(seed)
    data = np.append(draw.standard_normal((40, 2)), np.zeros((40, 1)), axis=1)
    problem = ct.problems.Minibatches(
        lambda p, x: jnp.mean((x @ p - x[:, 0] ** 2) ** 2), data[:30], 4, seed, "independent",
        evaluation=data[30:],
    )  # fmt: skip
    return problem, jnp.asarray(draw.standard_normal(3))


LINE = measured.Network("line", "a line", _line)
PAIRS = (np.array([0.9, 0.99]), np.array([0.999, 0.9]))


def test_a_piece_is_adam_of_optax_on_held_out_data():
    found = measured.held_out_losses(LINE, 1, 0.01, PAIRS, steps=6, every=2)
    problem, start = _line(1)
    for row, b1, b2 in zip(found, *PAIRS, strict=True):
        optimizer = optax.adam(0.01, b1, b2, eps=1e-30)  # the paper's
        params, state, losses = start, optimizer.init(start), []
        for n in range(7):
            losses.append(float(problem.value(params)))
            update, state = optimizer.update(problem.gradient(n, params), state)
            params = optax.apply_updates(params, update)
        # Two programs of one formula, six steps.
        np.testing.assert_allclose(row, losses[::2], rtol=1e-10)


def test_networks_draw_their_batches_by_the_seed():
    make = measured.image_model("images", "digits", "small", 8, 32).make
    (one, first), (two, second) = make(0), make(1)
    assert one.batch(0)[0].shape == (8, 8, 8, 1)
    assert not np.array_equal(one.indices(0), two.indices(0))
    leaves = zip(*map(jax.tree.leaves, (first, second)), strict=True)
    assert any(not np.array_equal(a, b) for a, b in leaves)


def test_best_within_is_the_running_minimum():
    losses = np.random.default_rng(0).standard_normal((2, 3, 11))
    steps = 50 * np.arange(11)
    running = np.minimum.accumulate(losses, axis=-1)
    np.testing.assert_array_equal(claims.best_within(losses, steps, 300), running[..., 6])
    np.testing.assert_array_equal(claims.best_within(losses, steps, 349), running[..., 6])
    losses[0, 0, 4:] = np.nan  # diverged: what it had reached counts
    assert claims.best_within(losses, steps, 500)[0, 0] == losses[0, 0, :4].min()


def test_a_stopped_experiment_goes_on(tmp_path, monkeypatch):
    called = []

    def losses(network, seed, rate, pairs, steps, every):
        del network, pairs, steps, every
        if len(called) == 3 and stopping:
            raise KeyboardInterrupt
        called.append((seed, rate))
        return np.full(2, seed + rate)

    monkeypatch.setattr(measured, "held_out_losses", losses)
    pieces = [
        measured.Piece(LINE, "default", PAIRS, seed, rate)
        for seed in range(4)
        for rate in (0.1, 0.2)
    ]
    stopping = True
    with pytest.raises(KeyboardInterrupt):
        measured.losses_of(pieces, 10, 5, lambda *told: None, tmp_path)
    stopping = False
    told = []
    found = measured.losses_of(pieces, 10, 5, lambda *one: told.append(one), tmp_path)
    assert sorted(called) == [(piece.seed, piece.learning_rate) for piece in pieces]
    np.testing.assert_array_equal(np.array(found)[:, 0], [p.seed + p.learning_rate for p in pieces])
    assert told[-1][1:] == (8, 8)


def test_readings():
    best = np.random.default_rng(0).random((3, 4, 5))
    tuned = [min(best[r, :, p].mean() for r in range(3)) for p in range(5)]
    np.testing.assert_allclose(claims.Reading(None)(best), tuned, rtol=1e-14)
    np.testing.assert_array_equal(claims.Reading(1)(best), best[1].mean(axis=0))


def test_the_correlation_is_scipys():
    draw = np.random.default_rng(0)
    c, loss = draw.integers(0, 6, (2, 20, 9)).astype(float)  # with ties
    found = claims.spearman(c, loss)
    expected = [scipy.stats.spearmanr(x, -y).statistic for x, y in zip(c, loss, strict=True)]
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_the_p_value_counts_permutations():
    draw = np.random.default_rng(1)
    c, loss = draw.random((2, 6))
    rho = scipy.stats.spearmanr(c, -loss).statistic
    every = [scipy.stats.spearmanr(c, x).statistic for x in itertools.permutations(loss)]
    # SciPy doubles the smaller tail, which is symmetric; ties up to rounding count.
    share = np.mean(np.abs(every) >= abs(rho) - 1e-9)
    assert claims.permutation_p(c, loss) == pytest.approx(share, abs=1e-12)


SHORT = replace(experiment.SIZES["smoke"], seeds=3, learning_rate=1e-2)


def _best(c, trend, noise, seed=0):
    """Best losses (2 rates, 3 seeds, points) = trend·C + noise at both horizons."""
    draw = np.random.default_rng(seed)
    two = trend * c + noise * draw.standard_normal((2, 2, 3, len(c)))
    return claims.Measured(c, *two)


@pytest.mark.parametrize(("trend", "verdict"), [(-1, "holds"), (1, "does not hold")])
@pytest.mark.parametrize("reading", ["fixed", "tuned"])
def test_a_trend_is_found(trend, verdict, reading):
    best = _best(np.linspace(-0.02, 0.2, 11), trend, 1e-3)
    found = claims.of_normal_curve(best, SHORT.readings[reading], SHORT.resamples)
    for claim in ("faster", "faster, C < 0 too", "faster, long"):
        assert found[claim]["found"] == -trend
        assert found[claim]["verdict"] == verdict
    assert found["equal"]["verdict"] == "does not hold"  # the same trend at both horizons


def test_noise_is_seldom_called_a_trend():
    c, runs, rows = np.linspace(0.02, 0.2, 7), 200, []
    again = claims.resampling(c, SHORT.seeds, SHORT.resamples)
    read = SHORT.readings["fixed"]
    for seed in range(runs):
        best = _best(c, 0, 1, seed).short
        resampled = claims.spearman(c[again.points], read(again(best)))
        rows.append(claims._correlation(c, read(best), resampled))
    # All 7! orders are counted: 4.8 % of them have p ≤ 0.05 (their ρ comes in steps). Binomial:
    # 9.6 ± 3.0, four standard deviations.
    alarms = sum(row["p"] <= 0.05 for row in rows)
    assert abs(alarms - 0.048 * runs) < 12.1
    # The interval must lie on the same side: fewer.
    assert sum(row["verdict"] != "undecided" for row in rows) <= alarms


def test_equal_at_the_long_horizon():
    c = np.linspace(-0.02, 0.2, 11)
    best = _best(c, -1, 1e-4)
    # A trend of a fifth has a fifth of the spread, but for noise a hundredth of it.
    found = claims.of_normal_curve(
        best._replace(long=best.short / 5), SHORT.readings["fixed"], SHORT.resamples
    )
    assert found["equal"]["found"] == pytest.approx(0.2, rel=1e-9)
    assert found["equal"]["verdict"] == "holds"


@pytest.mark.parametrize(
    ("steeper", "verdict"), [(5, "holds"), (0, "undecided"), (-5, "does not hold")]
)
def test_a_rise_is_what_lies_above_the_line(steeper, verdict):
    c = np.array([0.2, -0.04, 0.1, -0.02, 0.02, 0.05, 0.15, 0.07])
    # On a line of C > 0: the rise is `steeper` times the mean of 0.04 and 0.02.
    loss = 1 - 3 * c + steeper * np.maximum(-c, 0)
    assert claims.rise(c, loss) == pytest.approx(0.03 * steeper, abs=1e-12)
    draw = np.random.default_rng(0)
    best = loss + 1e-2 * draw.standard_normal((2, 3, 8))
    found = claims.of_normal_curve(
        claims.Measured(c, best, best), SHORT.readings["fixed"], SHORT.resamples
    )["rise"]
    assert found["verdict"] == verdict


def test_resamples_keep_the_sides_and_spread_like_means():
    c = np.array([-0.1, 0.1, -0.2, 0.3, 0.2])
    again = claims.resampling(c, seeds=4, resamples=20_000)
    assert np.all((c[again.points] < 0).sum(axis=1) == 2)
    best = np.zeros((1, 4, 5)) + np.array([0.0, 1.0, 2.0, 5.0])[:, None]
    means = again(best).mean(axis=2)[:, 0, 0]
    # Of four draws with replacement: variance 3.5/4; its estimate to 1 % at 20 000.
    assert means.var() == pytest.approx(3.5 / 4, rel=0.05)
    other = claims.resampling(np.array([0.1, 0.2]), seeds=4, resamples=20_000)
    np.testing.assert_array_equal(again.seeds, other.seeds)


@pytest.mark.parametrize(
    ("low", "high", "above", "verdict"),
    [
        (0.6, 0.9, True, "holds"), (0.1, 0.4, True, "does not hold"), (0.4, 0.6, True, "undecided"),
        (0.6, 0.9, False, "does not hold"), (0.1, 0.4, False, "holds"),
        (float("nan"), float("nan"), True, "undecided"),
    ],
)  # fmt: skip
def test_verdicts_of_intervals(low, high, above, verdict):
    assert verdict_of_interval(low, high, 0.5, above) == verdict


def _falling(network, seed, rate, pairs, steps, every):
    """Losses e^{−speed · step}, the speed growing with C and no more by chance than by 1 %."""
    del network
    b1, b2 = pairs
    c = 2 * (1 - b1) / b1 - (1 - b2) / b2
    speed = rate * (1 + c) * (1 + 0.01 * np.random.default_rng(seed).random(len(c)))
    return np.exp(-np.outer(speed, np.arange(0, steps + 1, every)))


@pytest.fixture
def tree(monkeypatch, tmp_path):
    """The smoke run without its networks: that with them is in test_experiments."""
    monkeypatch.setattr(measured, "held_out_losses", _falling)
    # Not by `run`: invented losses must not be kept where a real run looks for its own.
    return experiment._run(experiment.SIZES["smoke"], lambda *told: None, tmp_path)


def test_a_run_is_put_together(tree):
    assert experiment.check(tree) == []
    found = experiment.numbers(tree)
    json.dumps(_plain(found), allow_nan=False)
    for claim, count in (("faster", 8), ("equal", 8), ("rise", 8), ("alone", 4)):
        tally = found["claims"][claim]
        assert sum(tally[k] for k in ("holds", "does not hold", "undecided")) == count
    # The larger rate is twice and more as fast, whatever C of these curves.
    assert found["text"]["best learning rate"]["default"] == {"0.01": 0, "0.03": 1}
    node = tree["images/level"]
    expected = _falling(None, 1, 3e-2, (node.b1.values, node.b2.values), 60, 10)
    np.testing.assert_array_equal(node.loss.sel(learning_rate=3e-2, seed=1), expected)


def test_c_alone_decides_where_it_does(tree):
    found = experiment.numbers(tree)["text"]
    # One C and 1 % of chance, against C from 0 to 0.22.
    assert found["level"]["fixed"]["alone"]["verdict"] == "holds"
    assert found["default"]["fixed"]["faster"]["found"] == 1


def test_defects_of_the_runs_are_told(tree):
    def broken(point, values):
        other = tree.copy(deep=True)
        other["text/default"]["loss"][{"point": point, "step": slice(1, None)}] = values
        assert np.isfinite(experiment.numbers(other)["text"]["default"]["tuned"]["rise"]["found"])
        return experiment.check(other)

    assert tree["text/default"].c[-1] < 0 < tree["text/default"].c[0]
    assert "not finite" in " ".join(broken(0, np.nan))
    assert "never falls" in " ".join(broken(0, 100.0))
    assert broken(-1, np.nan) == []  # C < 0 may diverge


@pytest.mark.parametrize(
    "wrong",
    [{"points": 5}, {"seeds": 1}, {"short": 3000}, {"every": 7}, {"learning_rates": (1e-2,)}],
)
def test_configurations_that_make_no_sense_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        replace(experiment.Config(), **wrong)
