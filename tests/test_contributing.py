"""The examples of CONTRIBUTING.md, run as they stand."""

import re
from pathlib import Path

import jax.numpy as jnp
import pytest

import ct_adam as ct
import experiments
from ct_adam.flows.registry import Settings
from experiments.__main__ import main

ROOT = Path(__file__).parents[1]


def _blocks(section):
    text = (ROOT / "CONTRIBUTING.md").read_text().split(f"## {section}\n")[1].split("\n## ")[0]
    return re.findall(r"```python\n(.*?)```", text, re.DOTALL)


@pytest.fixture(scope="module")
def made():
    names = {}
    for section in ("An optimizer", "A flow", "A problem"):
        for block in _blocks(section):
            exec(compile(block, section, "exec"), names)
    return names


def test_optimizer(made):
    path = ct.run(made["signum"](0.1, weight_decay=0.5), lambda x: jnp.sum(x**2), jnp.ones(1), 2)
    # m is positive, so u = 1: θ ← θ − 0.1(1 + θ/2)
    assert path.params[:, 0] == pytest.approx([1.0, 0.85, 0.7075], abs=1e-14)
    with pytest.raises(ValueError, match="b1"):
        made["signum"](0.1, b1=1.5)


def test_flow_follows_its_optimizer(made):
    flow = made["row"].make(Settings(learning_rate=1e-3))
    loss, start = made["double_well"](0)
    ode, steps = ct.solve(flow, loss, start, 100), ct.run(flow, loss, start, 100)
    assert ct.compare(ode, steps).max_error < 1e-3  # a step


def test_experiment(tmp_path, monkeypatch, capsys):
    (block,) = _blocks("An experiment")
    (tmp_path / "half_life.py").write_text(block)
    monkeypatch.setattr(experiments, "__path__", [*experiments.__path__, str(tmp_path)])
    assert "half_life" in experiments.names()
    assert main(["half_life", "--smoke", "--out", str(tmp_path)]) == 0
    assert "As expected" in capsys.readouterr().out
    assert (tmp_path / "half_life.pdf").exists()


@pytest.mark.parametrize("path", ["experiments/half_life.py", "ct_adam/flows/normalised.py"])
def test_examples_are_not_there_yet(path):
    """They would be tested twice, and the page would be wrong."""
    assert not (ROOT / path).exists()
