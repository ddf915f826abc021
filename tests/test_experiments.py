"""Every experiment end to end at its smallest size, and what the runner does with bad input."""

import json
from dataclasses import dataclass
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import pytest
import xarray

import ct_adam as ct
from ct_adam.problems import quadratic
from ct_adam.sweep.provenance import provenance
from experiments import load, names
from experiments.__main__ import main
from experiments._crossing import evaluations_at
from experiments._states import EPS, LEARNING_RATE, START, STATES, Panel
from experiments._states_reference import reference
from experiments.state_formulation import SIZES, panels

SLOW = {"derivatives", "edge_of_stability", "generalisation", "hyperparameters",
        "ode_vs_discrete", "regimes", "region_atlas"}  # fmt: skip
"""Those that compile for half a minute and more; `make test-slow` runs them."""


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=[pytest.mark.slow] if n in SLOW else []) for n in names()],
)
def test_smoke_finds_what_is_expected_and_writes_it(name, tmp_path, capsys):
    assert main([name, "--smoke", "--out", str(tmp_path)]) == 0
    assert "As expected" in capsys.readouterr().out
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        f"{name}.{suffix}" for suffix in ("json", "pdf", "png")
    ]
    record = json.loads((tmp_path / f"{name}.json").read_text())
    assert record["expected"] == load(name).EXPECTED
    assert record["found"]
    assert not record["missing"]
    assert record["command"].endswith(f"{name} --smoke --out {tmp_path}")
    picture = (tmp_path / f"{name}.png").read_bytes()
    assert b'"size": "smoke"' in picture
    assert len(picture) < 300_000
    jax.clear_caches()  # gigabytes of programs that no other test runs


def _one_sentence(capsys) -> str:
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("experiments: ")
    assert err.count("\n") == 1
    return err


def test_unknown_name_lists_the_known_ones(tmp_path, capsys):
    folder = tmp_path / "out"
    assert main(["nonsense", "--smoke", "--out", str(folder)]) == 2
    err = _one_sentence(capsys)
    assert "'nonsense'" in err
    assert all(name in err for name in names())
    assert not folder.exists()


def test_unwritable_folder_is_refused_before_the_work(tmp_path, capsys):
    file = tmp_path / "file"
    file.write_text("")
    assert main(["state_formulation", "--smoke", "--out", str(file / "below")]) == 2
    assert str(file / "below") in _one_sentence(capsys)


def test_sizes_exclude_each_other(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["state_formulation", "--smoke", "--full"])
    assert stopped.value.code == 2
    assert "not allowed with" in capsys.readouterr().err


def test_claim_that_fails_is_exit_code_1(tmp_path, capsys, monkeypatch):
    failing = SimpleNamespace(
        EXPECTED="It is 4.",
        SIZES={"smoke": Size()},
        run=lambda config, progress: xarray.Dataset(attrs=provenance(config, 0.0)),
        plot=lambda dataset: plt.figure(),
        numbers=lambda dataset: {"it": 3.0},
        check=lambda dataset: ["It is 3."],
    )
    monkeypatch.setattr("experiments.__main__.load", lambda name: failing)
    assert main(["failing", "--smoke", "--out", str(tmp_path)]) == 1
    assert "Not as expected:\n  - It is 3." in capsys.readouterr().out
    assert json.loads((tmp_path / "failing.json").read_text())["missing"] == ["It is 3."]


@dataclass(frozen=True)
class Size:
    """An experiment's configuration."""

    steps: int = 1


@pytest.mark.parametrize("start", ["first_step", "zero"])
def test_state_v_is_the_flow_of_the_package(start):
    problem, steps = quadratic([1.0, 3.0, 10.0, 30.0]), 40
    ours = Panel("", problem, steps, seen=float(start == "first_step")).solve("v", 1e-9, 10_000)
    flow = ct.AdamFlow(LEARNING_RATE, eps=EPS, start=start)
    theirs = ct.solve(flow, problem, jnp.array(START), steps, rtol=1e-9, atol=1e-12)
    # Their bias factors differ by rounding, which the step sizes carry on, far below rtol.
    np.testing.assert_allclose(ours.params, theirs.params, atol=1e-12)
    np.testing.assert_allclose(ours.update, theirs.update, atol=1e-12)
    assert ours.stats["evaluations"] == theirs.stats["evaluations"]


def test_reference_of_a_stream_is_discrete_adam():
    """With `log` rates the flow's update at whole steps is the optimizer's (EQUATIONS §1)."""
    panel = panels(SIZES["smoke"])["random"]
    params, update = reference(panel)
    adam = ct.k_adam(LEARNING_RATE, 0.9, 0.999, eps=EPS)
    discrete = ct.run(adam, panel.problem, jnp.array(START), panel.steps)
    np.testing.assert_allclose(update[:-1], discrete.update[: panel.steps], atol=1e-12)
    assert np.abs(params - np.asarray(discrete.params)).max() < 2 * LEARNING_RATE


@pytest.mark.parametrize("name", ["quadratic", "gap"])
def test_tight_solves_of_all_states_meet_the_reference(name):
    panel = panels(SIZES["smoke"])[name]
    for state in STATES[:4]:  # not the floor, whose error is what the figure shows
        solved = panel.solve(state, 1e-11, 20_000)
        for found, expected in zip((solved.params, solved.update), reference(panel), strict=True):
            np.testing.assert_allclose(found, expected, atol=2e-9, rtol=2e-9)


def test_evaluations_at_a_target():
    work = np.array([10, 100, 1000])
    assert evaluations_at(1e-3, np.array([1e-2, 1e-4, 1e-6]), work) == pytest.approx(10**1.5)
    assert evaluations_at(1.0, np.array([1e-2, 1e-4, 1e-6]), work) == 10
    # An error that comes back above the target counts from its last fall.
    assert evaluations_at(1e-3, np.array([1e-4, 1e-2, 1e-4]), work) == pytest.approx(10**2.5)
    assert np.isnan(evaluations_at(1e-9, np.array([1e-2, 1e-4, 1e-6]), work))
    assert np.isnan(evaluations_at(1e-9, np.array([]), np.array([])))
