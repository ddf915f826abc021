"""`ct-adam sweep`: flags, TOML, --resume, --dry-run, seeds as lanes."""

import json
import sys
import textwrap

import numpy as np
import pytest

import ct_adam as ct
from ct_adam.cli import main
from ct_adam.sweep.configured import SweepConfig, config_from, sweep_of
from ct_adam.sweep.pilot import estimate
from ct_adam.sweep.seeds import by_seed

SMALL = ["--b1", "linear:0.5:0.9:4", "--b2", "0.9,0.99", "--steps", "5"]


def said(capsys, words, code=0):
    assert main(["sweep", *words]) == code
    return capsys.readouterr()


def test_flags_write_a_store_and_tell(tmp_path, capsys):
    store, copy = tmp_path / "s.zarr", tmp_path / "s.nc"
    out, _ = said(capsys, [*SMALL, "--out", str(store), "--netcdf", str(copy)])
    assert "4 b1 × 2 b2" in out
    assert "8 successful" in out
    assert f"Wrote {store} and {copy}." in out
    dataset = ct.open(store)
    assert dataset.sizes == {"b1": 4, "b2": 2}
    assert json.loads(dataset.attrs["config"])["problem"] == "quadratic"
    assert copy.exists()


def test_json_is_one_object_with_the_same_numbers(tmp_path, capsys):
    store = tmp_path / "s.zarr"
    out, err = said(capsys, [*SMALL, "--method", "adamw,log", "--out", str(store), "--json"])
    found = json.loads(out)
    assert err == ""
    dataset = ct.open(store)
    assert found["dims"] == {"dynamics": 2, "b1": 4, "b2": 2}
    for name in ("adamw", "log"):
        part = dataset.sel(dynamics=name)
        assert found["dynamics"][name]["final_loss"]["max"] == float(part.final_loss.max())
        assert found["dynamics"][name]["outcomes"] == {"successful": 8}
    assert found["dynamics"]["adamw"] != found["dynamics"]["log"]


def test_toml_is_the_same_as_flags(tmp_path, capsys):
    file = tmp_path / "map.toml"
    file.write_text('b1 = "linear:0.5:0.9:4"\nb2 = [0.9, 0.99]\nsteps = 7\nlearning-rate = 1e-3\n')
    words = ["--file", str(file), "--steps", "5"]  # a flag goes before the file
    said(capsys, [*words, "--out", str(tmp_path / "a.zarr")])
    said(capsys, [*SMALL, "--learning-rate", "1e-3", "--out", str(tmp_path / "b.zarr")])
    a, b = (ct.open(tmp_path / name).load() for name in ("a.zarr", "b.zarr"))
    assert a.drop_attrs(deep=False).identical(b.drop_attrs(deep=False))
    # And the store of one is that of the other, up to how its numbers were written.
    assert json.loads(a.attrs["config"])["steps"] == 5


def test_resume_takes_the_stores_settings(tmp_path, capsys):
    store = tmp_path / "s.zarr"
    said(capsys, [*SMALL, "--out", str(store)])
    out, _ = said(capsys, ["--resume", str(store)])
    assert "8 successful" in out
    _, err = said(capsys, ["--resume", str(store), "--steps", "6"], 2)
    assert "steps is 5 there and 6 here" in err


def test_curve_takes_the_place_of_both_decays(tmp_path, capsys):
    said(capsys, ["--curve", "normal:0.9:0.999:6", "--steps", "5", "--out", str(tmp_path / "s")])
    dataset = ct.open(tmp_path / "s")
    assert dataset.max_update.dims == ("curve",)
    np.testing.assert_allclose(dataset.b1**3 + 2 * dataset.b2**3, 0.9**3 + 2 * 0.999**3)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--b1", "0.9", "--b2", "0.99"], "Nothing varies"),
        (["--b1", "linear:0.5"], "b1: axis 'linear:0.5': write linear:START:STOP:NUM"),
        (["--b1", "linear:0.5:1:3"], r"b1 = 1 must be in [0, 1)"),
        (["--b1", "normal:0.9:0.999:4"], "say --curve"),
        (["--curve", "normal:0.9:0.99:4", "--b1", "0.9"], "curve sets b1 and b2: leave b1"),
        (["--curve", "linear:0.5:0.9:4"], "give normal:B1:B2:NUM"),
        (["--seed", "0.5,1.5"], "give whole numbers"),
        (["--seed", "seeds:3"], "does not depend on its seed"),
        (["--seed", "3,3"], "seed = '3,3' names one twice"),
        (["--curve", "level:x"], "curve: axis 'level:x': 'x' is no number: write level:C:LOW"),
        (["--problem", "worst_case", "--seed", "0,1"], "do not feel it"),
        (["--b1", "linear:0.5:0.9:100000000000"], "more than an axis holds"),
        (["--refine", "boundary", "--resolution", "1e-30"], "take fewer seeds, or stop earlier"),
        (["--refine", "boundary", "--threshold", "nan"], "threshold = nan must be finite"),
        (["--netcdf", "/proc/none/x.nc"], "name another folder with --netcdf"),
        (["--resume", "x.zarr"], "drop --out"),
        (["--method", "modified", "--weight-decay", "0,0.1"], "knows no weight_decay"),
        (["--method", "optax:sgd", "--weight-decay", "0,0.1"], "no b1, b2, weight_decay: give one"),
        (["--method", "sgdw,sign_descent"], "sgdw,sign_descent takes no b2: give one number there"),
        (["--problem", "nonsense"], "problem 'nonsense' is unknown"),
        (["--method", "nonsense"], "optimizer 'nonsense' is unknown"),
        (["--method", "adamw,adamw"], "each once"),
        (["--method", "paper", "--problem", "worst_case"], "the worst case is known of"),
        (["--metrics", "speed"], "metrics = 'speed' is unknown"),
        (["--engine", "warp"], "engine = 'warp' is unknown"),
        (["--refine", "boundary", "--b1", "linear:0.5:0.9:8"], "no cells to cut"),
        (["--steps", "0"], "steps"),
        (["--workers", "-1"], "workers = -1"),
        (["--workers", "1", "--scheduler", "tcp://127.0.0.1:1"], "not both"),
        (["--file", "missing.toml"], "Cannot read missing.toml"),
        (["--learning-rate", "-1"], "learning_rate = -1 must be finite and not negative"),
    ],
)
def test_bad_input_is_one_sentence(tmp_path, capsys, words, says):
    store = tmp_path / "s.zarr"
    out, err = said(capsys, [*words, "--out", str(store)], 2)
    assert out == ""
    assert says in err
    assert err.startswith("ct-adam sweep: ")
    assert err.count("\n") == 1
    assert not store.exists()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("steps = ", "is no TOML"),
        ("b3 = 1", "'b3' is unknown: there are problem,"),
        ('steps = "many"', "steps = 'many' must be a whole number"),
        ("steps = 5.0", "steps = 5.0 must be a whole number"),
        ('tile = "x"', "tile = 'x' must be a whole number"),
        ('threshold = "x"', "threshold = 'x' must be a number"),
    ],
)
def test_bad_toml_is_one_sentence(tmp_path, capsys, text, says):
    (tmp_path / "x.toml").write_text(text)
    _, err = said(capsys, ["--file", str(tmp_path / "x.toml")], 2)
    assert says in err
    assert str(tmp_path / "x.toml") in err


def test_lists_and_numbers_of_a_table_are_words():
    config = config_from({"b1": [0.5, 0.9], "b2": 0.99, "seed": 3, "rtol": 1e-3})
    assert (config.b1, config.b2, config.seed, config.rtol) == ("0.5,0.9", "0.99", "3", 1e-3)


# Every name sweeps


@pytest.mark.parametrize(
    "method",
    ["adam_l2", "sgdw", "optax:lion", "lag", "paper", "heavy_ball", "sign", "interpolating-2"],
)
def test_methods_are_those_of_their_names(tmp_path, method):
    from ct_adam.flows.registry import flow_named, is_flow
    from ct_adam.optimizers.registry import optimizer_named
    from ct_adam.problems.registry import problem_named

    config = SweepConfig(
        method=method, b1="0.8,0.9", b2="0.99", steps=12, metrics="final_loss,final_params"
    )
    dataset = sweep_of(config).run(tmp_path / "s.zarr")
    loss, start = problem_named("quadratic")
    for b1 in (0.8, 0.9):
        options = {"learning_rate": 1e-2, "b1": b1, "b2": 0.99, "eps": 1e-8, "weight_decay": 0}
        go = ct.solve if is_flow(method) else ct.run
        named = flow_named if is_flow(method) else optimizer_named
        if method == "interpolating-2":
            options["optimizer"] = ct.adamw(1e-2, b1, 0.99)
        path = go(named(method, **options), loss, start, 12)
        # A flow's loss of some 50 is known to rtol = 1e-6 a solver step, of which it takes tens.
        rtol = 1e-4 if is_flow(method) else 1e-13
        np.testing.assert_allclose(dataset.final_loss.sel(b1=b1), path.loss[-1], rtol=rtol)


# Seeds as lanes


def test_seeds_are_the_problems_of_those_seeds(tmp_path):
    """Starts, and data where they differ, are the lane's own."""
    from ct_adam.problems.registry import problem_named

    config = SweepConfig(
        problem="digits_logistic", b1="0.9", b2="0.999", seed="3,5", steps=4, tile=1
    )
    dataset = sweep_of(config).run(tmp_path / "s.zarr")
    for seed in (3, 5):
        loss, start = problem_named("digits_logistic", seed)
        path = ct.run(ct.adamw(1e-2), loss, start, 4)
        np.testing.assert_allclose(dataset.final_loss.sel(seed=seed), path.loss[-1], rtol=1e-12)


def test_weight_decay_is_an_axis(tmp_path):
    config = SweepConfig(b1="0.9", b2="0.99", weight_decay="0,0.5", steps=7)
    dataset = sweep_of(config).run(tmp_path / "s.zarr")
    from ct_adam.problems.registry import problem_named

    loss, start = problem_named("quadratic")
    for decay in (0.0, 0.5):
        path = ct.run(ct.adamw(1e-2, 0.9, 0.99, weight_decay=decay), loss, start, 7)
        found = dataset.final_loss.sel(weight_decay=decay)
        np.testing.assert_allclose(found, path.loss[-1], rtol=1e-13)


def test_what_a_users_loss_closes_over_differs_by_seed(tmp_path, monkeypatch):
    (tmp_path / "mine_seeded.py").write_text(
        textwrap.dedent(
            """
            import jax
            import jax.numpy as jnp
            def bowl(seed):
                centre = jnp.array([1.0, 2.0]) * seed
                return lambda x: jnp.sum((x - centre) ** 2), jnp.zeros(2)
            def other(seed):
                return (lambda x: jnp.sum(x**2)) if seed else (lambda x: jnp.sum(x**4)), jnp.ones(2)
            def jitted(seed):
                centre = jnp.array([1.0, 2.0]) * seed
                return jax.jit(lambda x: jnp.sum((x - centre) ** 2)), jnp.zeros(2)
            def wider(seed):
                return lambda x: jnp.sum(x**2), jnp.ones(1 + seed)
            """
        )
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    pick = by_seed("mine_seeded:bowl", [1, 4])
    for seed in (1, 4):
        problem, start = pick(seed)
        assert float(problem.value(start)) == pytest.approx(5 * seed**2)
        np.testing.assert_allclose(problem.gradient(0, start), [-2 * seed, -4 * seed])
    for name in ("other", "wider", "jitted"):
        with pytest.raises(ValueError, match="sweep one seed at a time"):
            by_seed(f"mine_seeded:{name}", [0, 1])


# What it will cost


def test_dry_run_predicts_and_writes_nothing(tmp_path, capsys):
    store = tmp_path / "s.zarr"
    out, _ = said(capsys, [*SMALL, "--dry-run", "--out", str(store), "--workers", "2"])
    assert "8 lanes in 1 tile of at most 8 (cohort), 1 of them to do" in out
    for word in ("time", "memory", "for 2", "disk"):
        assert word in out
    assert not store.exists()
    out, _ = said(capsys, [*SMALL, "--dry-run", "--json", "--out", str(store)])
    assert json.loads(out)["lanes"] == 8
    # What is done is not counted, and a store of another sweep is told now.
    said(capsys, [*SMALL, "--out", str(store)])
    out, _ = said(capsys, [*SMALL, "--dry-run", "--json", "--out", str(store)])
    assert json.loads(out)["tiles_left"] == 0
    assert json.loads(out)["seconds"] == {"": 0}
    _, err = said(capsys, [*SMALL, "--steps", "6", "--dry-run", "--out", str(store)], 2)
    assert "holds another sweep" in err


@pytest.mark.slow
def test_pilot_predicts_the_work(tmp_path, monkeypatch):
    """Gradients, which no noisy clock counts, stand for time: the sample's mean is that of the
    whole within four standard errors, and the seconds are the clock's times that."""
    config = SweepConfig(method="log", b1="cells:0.5:1:48", b2="cells:0.5:1:48", rtol=1e-3)
    sweep = sweep_of(config)
    monkeypatch.setattr("ct_adam.sweep.pilot._LONG_ENOUGH", 0.05)
    seen = {}
    table = type(sweep.ensembles[""]).table

    def spied(self, lanes):
        seen["table"] = table(self, lanes)
        return seen["table"]

    monkeypatch.setattr(type(sweep.ensembles[""]), "table", spied)
    found = estimate(sweep)
    monkeypatch.undo()
    assert found.pilot_lanes < found.lanes == 48**2
    work = sweep.run(tmp_path / "s.zarr").evaluations.values
    sample = seen["table"].evaluations.values
    assert len(sample) == found.pilot_lanes
    error = work.std() / np.sqrt(len(sample))
    assert abs(sample.mean() - work.mean()) < 4 * error
    assert found.uncertainty / found.seconds[""] == pytest.approx(
        sample.std() / sample.mean() / np.sqrt(len(sample)) * np.sqrt(1 - len(sample) / work.size)
    )
    row = 3 * 8 + 4 + 8  # three floats, an outcome, a count
    assert found.disk_bytes == found.lanes * row
    on_disk = sum(f.stat().st_size for f in (tmp_path / "s.zarr").rglob("c.*"))
    assert on_disk <= found.disk_bytes + 64 * found.tiles * 6


def test_summary_of_a_large_store_is_read_in_blocks(tmp_path, monkeypatch):
    from ct_adam.sweep import report

    dataset = sweep_of(SweepConfig(b1="linear:0.5:0.9:7", b2="0.9,0.99", steps=5)).run(
        tmp_path / "s.zarr"
    )
    whole = report.summary(dataset)["dynamics"]["all"]
    monkeypatch.setattr(report, "_BLOCK", 4)
    blocks = report.summary(dataset)["dynamics"]["all"]
    assert blocks["outcomes"] == whole["outcomes"] == {"successful": 14}
    for name in ("final_loss", "max_update"):
        assert blocks[name] == {key: whole[name][key] for key in ("min", "max")}
