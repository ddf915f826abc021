"""Tiles as tasks of a Dask cluster: the same bits, whatever happens to its workers."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

import ct_adam as ct
from ct_adam.cli import main
from ct_adam.sweep.configured import SweepConfig, sweep_of
from ct_adam.sweep.execute import execute
from ct_adam.sweep.layout import level_tiles

psutil = pytest.importorskip("psutil")
pytest.importorskip("distributed")

GRID = ct.Grid(b1=ct.axes.linear(0.5, 0.9, 10), b2=ct.axes.linear(0.9, 0.99, 8))


def swept(steps=20):
    """A local function: it travels by value, as a user's in a notebook does."""
    weights = jnp.array([1.0, 3.0])

    def make(b1, b2):
        return ct.k_adam(1e-2, b1, b2)

    return ct.Sweep(make, lambda x: jnp.sum(weights * x**2), jnp.ones(2), steps, GRID, tile=2)


def same(a, b):
    for name, variable in a.data_vars.items():
        np.testing.assert_array_equal(variable, b[name])


def journal(store):
    lines = []
    for file in (store / "status" / "journal").glob("*.jsonl"):
        lines += [json.loads(line)["tile"] for line in file.read_text().splitlines()]
    return sorted(lines)


def worker_processes():
    return [
        child
        for child in psutil.Process().children(recursive=True)
        if "spawn_main" in " ".join(child.cmdline())
    ]


def test_killed_worker_costs_only_its_tile(tmp_path):
    # Some 10⁵ steps a lane: long enough that a tile is at work when the worker dies.
    expected = swept(100_000).run(tmp_path / "a.zarr")
    store = tmp_path / "b.zarr"
    running = threading.Thread(target=execute, args=(swept(100_000), store), kwargs={"workers": 2})
    running.start()
    status, killed = store / "status", []
    while running.is_alive() and not killed:
        if len([*status.glob("c.*")]) >= 3:
            killed = worker_processes()[:1]
            for process in killed:
                process.send_signal(signal.SIGKILL)
        time.sleep(0.01)
    running.join(300)
    assert killed, "it ended before its worker could be killed"
    same(ct.open(store), expected)
    assert journal(store) == list(range(40))  # none lost, none twice


def test_networks_travel_too(tmp_path):
    config = SweepConfig(
        problem="digits_logistic", b1="0.8,0.9", b2="0.99", seed="seeds:2", steps=3, tile=1
    )
    a = sweep_of(config).run(tmp_path / "a.zarr")
    b = sweep_of(config).run(tmp_path / "b.zarr", workers=1)
    same(a, b)
    assert b.attrs["tiles_done"] == 4


@contextlib.contextmanager
def cluster_elsewhere():
    """A scheduler and a worker of Dask's own commands, as on a cluster."""
    command = [sys.executable, "-m", "distributed.cli.dask_scheduler", "--port", "0"]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "address.json"
        options = ["--no-dashboard", "--scheduler-file", str(file)]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        scheduler = subprocess.Popen([*command, *options], **quiet)
        while not file.exists():
            assert scheduler.poll() is None
            time.sleep(0.05)
        worker = [sys.executable, "-m", "distributed.cli.dask_worker", "--nthreads", "1"]
        working = subprocess.Popen(
            [*worker, "--no-dashboard", "--scheduler-file", str(file)],
            **quiet,
            start_new_session=True,
        )
        try:
            yield json.loads(file.read_text())["address"], scheduler
        finally:
            os.killpg(working.pid, signal.SIGKILL)
            scheduler.kill()
            working.wait()
            scheduler.wait()


def test_scheduler_by_its_address(tmp_path, capsys):
    words = ["sweep", "--b1", "linear:0.5:0.9:8", "--b2", "0.9,0.99", "--steps", "5", "--tile", "2"]
    assert main([*words, "--out", str(tmp_path / "a.zarr")]) == 0
    with cluster_elsewhere() as (address, _):
        store = tmp_path / "b.zarr"
        assert main([*words, "--out", str(store), "--scheduler", address]) == 0
    same(ct.open(store), ct.open(tmp_path / "a.zarr"))
    capsys.readouterr()


def test_lost_scheduler_loses_no_tile(tmp_path):
    """No tile counts as done that was not written, and the same call goes on."""
    store = tmp_path / "s.zarr"
    with cluster_elsewhere() as (address, scheduler):
        found = []

        def run():
            try:
                execute(swept(100_000), store, scheduler=address)
            except OSError as error:
                found.append(str(error))

        running = threading.Thread(target=run)
        running.start()
        while running.is_alive() and len([*(store / "status").glob("c.*")]) < 3:
            time.sleep(0.01)
        scheduler.kill()
        running.join(120)
        assert not running.is_alive()
    assert len(found) == 1
    assert "All finished tiles are kept" in found[0]
    assert 3 <= ct.open(store).attrs["tiles_done"] < 40
    same(swept(100_000).run(store), swept(100_000).run(tmp_path / "whole.zarr"))


def test_scheduler_that_does_not_answer(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("ct_adam.sweep.distributed._ANSWER", 1)
    words = ["sweep", "--b1", "0.5,0.9", "--steps", "5", "--scheduler", "tcp://127.0.0.1:9"]
    assert main([*words, "--out", str(tmp_path / "s.zarr")]) == 2
    assert "No Dask scheduler with a worker answers at tcp://127.0.0.1:9" in capsys.readouterr().err


@pytest.mark.slow
def test_error_of_a_tile_is_the_users(tmp_path):
    """What goes wrong in a worker is told as it is here."""
    store = tmp_path / "s.zarr"
    swept().run(store)
    level_tiles(store, 0).forget(3)
    (store / "max_update" / "c.0.3").unlink()
    (store / "max_update" / "c.0.3").mkdir()  # nothing can be written there
    with pytest.raises(OSError, match=r"Tile 3 of .* was not written: .* All finished tiles"):
        swept().run(store, workers=1)


def test_losses_that_close_over_their_seeds_travel(tmp_path, monkeypatch):
    """A factory of functions, the most natural one; workers make the sweep by its names."""
    (tmp_path / "mine_distributed.py").write_text(
        "import jax.numpy as jnp\n"
        "def bowl(seed):\n"
        "    centre = jnp.array([1.0, 2.0]) * seed\n"
        "    return lambda x: jnp.sum((x - centre) ** 2), jnp.zeros(2)\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    config = SweepConfig(
        problem="mine_distributed:bowl", b1="0.8,0.9", b2="0.99", seed="1,2", steps=3, tile=1
    )
    a = sweep_of(config).run(tmp_path / "a.zarr")
    same(sweep_of(config).run(tmp_path / "b.zarr", workers=1), a)
    assert float(a.final_loss.sel(b1=0.9, seed=2)) > float(a.final_loss.sel(b1=0.9, seed=1))
