"""Long runs: killed, interrupted, resumed — bitwise the uninterrupted one."""

import os
import signal
import subprocess
import sys
import textwrap

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import ct_adam as ct

START = jnp.array([1.0, -2.0, 0.5])
DATA = np.random.default_rng(0).standard_normal((30, 3))
PROBLEM = ct.problems.Minibatches(lambda p, x: jnp.mean((p - x) ** 2), DATA, 5, seed=3)
OPTIMIZER = ct.k_adam(0.01, 0.9, 0.99)


def go(folder, **options):
    return ct.run(OPTIMIZER, PROBLEM, START, 200, checkpoint=folder, checkpoint_every=16, **options)


def same(a, b):
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_array_equal(x, y)


@pytest.mark.parametrize("save_steps", [None, [0, 5, 100, 200], [200]])
def test_cut_run_equals_scan(tmp_path, save_steps):
    cut = go(tmp_path, save_steps=save_steps)
    whole = ct.run(OPTIMIZER, PROBLEM, START, 200, save_steps=save_steps)
    # Two programs around the same step: rounding only, of 200 contracting steps.
    np.testing.assert_allclose(cut.params, whole.params, atol=1e-13)
    np.testing.assert_allclose(cut.update, whole.update, atol=1e-11)
    np.testing.assert_array_equal(cut.steps, whole.steps)
    # The finished folder is read back, nothing runs again.
    same(go(tmp_path, save_steps=save_steps), cut)


@pytest.mark.parametrize("at", [3, 16, 37, 199])
def test_interrupted_run_is_kept_and_resumed(tmp_path, monkeypatch, at):
    whole = go(tmp_path / "whole")
    interrupt_at(monkeypatch, at)
    partial = go(tmp_path / "cut")
    assert len(partial.steps) == at
    assert partial.result == ct.OUTCOME.interrupted
    same(partial.params, whole.params[:at])
    monkeypatch.undo()
    same(go(tmp_path / "cut"), whole)


def interrupt_at(monkeypatch, at):
    module = sys.modules["ct_adam.simulate.run"]
    record, calls = module._record, []

    def counted(runner, carry):
        calls.append(1)
        if len(calls) > at + 1:  # the first call only writes the program down
            raise KeyboardInterrupt
        return record(runner, carry)

    monkeypatch.setattr(module, "_record", counted)


SCRIPT = textwrap.dedent(
    """
    import sys, time
    import jax
    jax.config.update("jax_enable_x64", True)
    sys.path.insert(0, {tests!r})
    import test_resumable as t
    module = sys.modules["ct_adam.simulate.run"]
    record = module._record
    def slow(runner, carry):
        time.sleep(0.01)
        return record(runner, carry)
    module._record = slow
    t.go({folder!r})
    """
)


def test_killed_run_is_resumed_bitwise(tmp_path):
    whole = go(tmp_path / "whole")
    script = SCRIPT.format(tests=os.path.dirname(__file__), folder=str(tmp_path / "cut"))
    process = subprocess.Popen([sys.executable, "-c", script])
    state = tmp_path / "cut" / "state.npz"
    while not state.exists():
        assert process.poll() is None, "ended before its first checkpoint"
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert len(list((tmp_path / "cut").iterdir())) >= 2
    same(go(tmp_path / "cut"), whole)


def test_progress_without_a_folder(capsys, monkeypatch):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    ct.run(OPTIMIZER, PROBLEM, START, 20, progress=True)
    assert "step" in capsys.readouterr().err


def test_another_runs_checkpoint_is_refused(tmp_path):
    go(tmp_path)
    with pytest.raises(ValueError, match="checkpoint of another run"):
        go(tmp_path, save_steps=[200])
    with pytest.raises(ValueError, match="checkpoint of another run"):
        ct.run(OPTIMIZER, PROBLEM, 2 * START, 200, checkpoint=tmp_path, checkpoint_every=16)
    other = ct.k_adam(0.02, 0.9, 0.99)
    with pytest.raises(ValueError, match="checkpoint of another run"):
        ct.run(other, PROBLEM, START, 200, checkpoint=tmp_path, checkpoint_every=16)

    def warm_up(peak):
        schedule = optax.linear_schedule(0.0, peak, 10)
        return ct.run(ct.k_adam(schedule, 0.9, 0.99), PROBLEM, START, 30, checkpoint=tmp_path / "w")

    warm_up(0.1)  # its first step moves nothing: the schedule itself must tell
    with pytest.raises(ValueError, match="checkpoint of another run"):
        warm_up(0.2)
    go(tmp_path / "s", save=lambda step, params, update, loss: params.max())
    with pytest.raises(ValueError, match="checkpoint of another run"):
        go(tmp_path / "s", save=lambda step, params, update, loss: params.min())
    (tmp_path / "part-1.npz").write_bytes(b"half")
    with pytest.raises(ValueError, match="damaged"):
        go(tmp_path)
    with pytest.raises(ValueError, match="checkpoint_every"):
        ct.run(OPTIMIZER, PROBLEM, START, 5, checkpoint=tmp_path, checkpoint_every=0)
