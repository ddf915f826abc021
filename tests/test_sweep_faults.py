"""Sweeps that are killed, run out of disk, or find their files damaged: nothing is lost."""

import os
import random
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ct_adam as ct
from ct_adam.cli import main
from ct_adam.problems import quadratic
from ct_adam.sweep.layout import level_tiles

jax.config.update("jax_enable_x64", True)  # also in the processes that import this file

PROBLEM = quadratic([1.0, 3.0, 10.0, 30.0])
START = jnp.array([1.0, -1.0, 0.5, 2.0])


def make(b1, b2):
    return ct.k_adam(1e-2, b1, b2)


def swept(refined=False):
    """40 tiles; refined, 4 and those along the boundary of `final_loss`."""
    if refined:
        grid = ct.Grid(b1=ct.axes.cells(0.5, 1, 8), b2=ct.axes.cells(0.5, 1, 8))
        refine = ct.Refine(2**-7, "final_loss", 50.33, tile=4)
        return ct.Sweep(make, PROBLEM, START, 20, grid, refine=refine)
    grid = ct.Grid(b1=ct.axes.linear(0.5, 0.9, 10), b2=ct.axes.linear(0.9, 0.99, 8))
    return ct.Sweep(make, PROBLEM, START, 20, grid, tile=2)


def contents(store: Path) -> dict[str, bytes]:
    """All files by name, but for the locks and the journals of who did what."""
    return {
        str(path.relative_to(store)): path.read_bytes()
        for path in store.rglob("*")
        if path.is_file() and path.name != "claims.lock" and "journal" not in path.parts
    }


SLOW = textwrap.dedent(
    """
    import sys, time
    sys.path.insert(0, {tests!r})
    import test_sweep_faults as t
    compute = t.ct.Sweep.compute
    def slow(self, level, tile):
        time.sleep(0.05)
        return compute(self, level, tile)
    t.ct.Sweep.compute = slow
    t.swept({refined}).run({store!r})
    """
)


def started(store: Path, refined: bool = False) -> subprocess.Popen:
    code = SLOW.format(tests=os.path.dirname(__file__), store=str(store), refined=refined)
    # One command for all, as it is kept in the store.
    return subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE)


def finished(store: Path, refined: bool = False) -> None:
    with started(store, refined) as process:
        _, err = process.communicate()
    assert process.returncode == 0, err


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    store = tmp_path_factory.mktemp("whole") / "s.zarr"
    finished(store)
    return contents(store)


def killed_at_random(store: Path, times: int, refined: bool = False) -> int:
    """Kills the sweep at random moments after its first fresh tile; how often it still ran."""
    rng, hit = random.Random(0), 0
    for _ in range(times):
        before = tiles_done(store)
        with started(store, refined) as process:
            while process.poll() is None and tiles_done(store) <= before:
                time.sleep(0.005)
            time.sleep(rng.uniform(0, 0.25))
            hit += process.poll() is None
            process.send_signal(signal.SIGKILL)
    return hit


def tiles_done(store: Path) -> int:
    return len([p for p in store.rglob("status/c.*") if p.suffix != ".partial"])


@pytest.mark.parametrize("times", [3, pytest.param(10, marks=pytest.mark.slow)])
def test_killed_at_random_moments_ends_bitwise_the_same(tmp_path, whole, times):
    store = tmp_path / "s.zarr"
    # 40 tiles of 0.05 s at least, ten times up to 0.25 s: it cannot end before the last kill.
    assert killed_at_random(store, times) == times
    assert 0 < ct.open(store).attrs["tiles_done"] < 40
    finished(store)
    assert contents(store) == whole


@pytest.mark.slow
def test_killed_refinement_ends_bitwise_the_same(tmp_path):
    finished(tmp_path / "a.zarr", refined=True)
    expected = contents(tmp_path / "a.zarr")
    assert any(name.startswith("refined/3/max_update/c") for name in expected)
    store = tmp_path / "s.zarr"
    assert killed_at_random(store, 2, refined=True) == 2
    finished(store, refined=True)
    assert contents(store) == expected


def test_two_processes_share_the_tiles(tmp_path, whole):
    store = tmp_path / "s.zarr"
    both = [started(store), started(store)]
    for process in both:
        _, err = process.communicate()
        assert process.returncode == 0, err
    assert contents(store) == whole
    journals = sorted((store / "status" / "journal").iterdir())
    done = [len(file.read_text().splitlines()) for file in journals]
    # Each tile once, and both at work: neither starts 40 × 0.05 s before the other.
    assert sum(done) == 40
    assert len(done) == 2
    assert min(done) > 0


def run_command(store: Path) -> int:
    words = "sweep --b1 linear:0.5:0.9:4 --b2 0.9,0.99 --steps 5 --tile 2 --out"
    return main([*words.split(), str(store)])


def one_sentence(capsys) -> str:
    err = capsys.readouterr().err
    lines = [line for line in err.splitlines() if line.startswith("ct-adam sweep: ")]
    assert "Traceback" not in err
    assert len(lines) == 1, err
    return lines[0]


def damage(path: Path, how: str) -> None:
    content = path.read_bytes()
    if how == "truncated":
        path.write_bytes(content[:-3])
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "missing":
        path.unlink()
    else:
        path.write_bytes(bytes([content[0] ^ 1]) + content[1:])


@pytest.mark.parametrize("how", ["flipped", "truncated", "empty", "missing"])
@pytest.mark.parametrize("name", ["max_update", "outcome", "status"])
def test_damaged_files_are_told_and_computed_anew(tmp_path, capsys, name, how):
    store = tmp_path / "s.zarr"
    assert run_command(store) == 0
    before = contents(store)
    damage(store / name / "c.1.0", how)
    capsys.readouterr()
    if (name, how) == ("status", "missing"):  # as good as never begun
        assert ct.open(store).attrs["tiles_done"] == 3
    else:
        with pytest.raises(ValueError, match="damaged tile 1: run the sweep again"):
            ct.open(store)
        assert ct.open(store, check=False).attrs["tiles"] == 4
    assert run_command(store) == 0
    if (name, how) != ("status", "missing"):
        assert "damaged and computed anew: tile 1." in one_sentence(capsys)
    assert contents(store) == before


@pytest.mark.parametrize("file", ["zarr.json", "max_update/zarr.json"])
def test_damaged_metadata_is_one_sentence(tmp_path, capsys, file):
    store = tmp_path / "s.zarr"
    assert run_command(store) == 0
    damage(store / file, "truncated")
    capsys.readouterr()
    assert run_command(store) == 2
    assert "damaged" in one_sentence(capsys)
    with pytest.raises(ValueError, match="damaged"):
        ct.open(store)


@pytest.fixture
def may_mount():
    """A file system of our own needs a namespace of our own."""
    tried = subprocess.run(
        ["unshare", "-rm", "mount", "-t", "tmpfs", "tmpfs", "/mnt"],
        capture_output=True,
        check=False,
    )
    if tried.returncode:
        pytest.skip("this machine lets nobody mount a tmpfs")


def in_tmpfs(folder: Path, size: str, script: str) -> subprocess.CompletedProcess:
    """Runs a shell script with a tmpfs of this size at `folder`."""
    folder.mkdir(exist_ok=True)
    mount = f"mount -t tmpfs -o size={size} tmpfs {folder}"
    return subprocess.run(
        ["unshare", "-rm", "bash", "-c", f"set -u; {mount} || exit 99; {script}"],
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.usefixtures("may_mount")
def test_full_disk_keeps_what_was_done(tmp_path):
    command = (
        f"{sys.executable} -m ct_adam sweep --b1 linear:0.5:0.9:64 --b2 linear:0.9:0.99:64"
        f" --steps 5 --tile 256 --out {tmp_path}/disk/s.zarr"
    )
    disk = tmp_path / "disk"
    again = f"mount -o remount,size=64m {disk}; {command}; echo $?; cp -r {disk}/s.zarr {tmp_path}"
    done = in_tmpfs(disk, "300k", f"{command}; echo $?; ls {disk}/s.zarr/status; {again}")
    words = done.stdout.split()
    assert words[0] == "2", done.stderr
    told = [line for line in done.stderr.splitlines() if line.startswith("ct-adam sweep: ")]
    assert len(told) == 1
    assert "the disk is full. All finished tiles are kept: mend that" in told[0]
    assert 0 < sum(word.startswith("c.") for word in words) < 16
    assert "0" in words  # the second call
    assert main([*command.split()[3:-1], str(tmp_path / "whole.zarr")]) == 0
    filled, whole = contents(tmp_path / "s.zarr"), contents(tmp_path / "whole.zarr")
    for name in ("zarr.json",):  # it holds the command
        filled.pop(name), whole.pop(name)
    assert filled == whole


@pytest.mark.usefixtures("may_mount")
def test_read_only_folder_is_one_sentence(tmp_path):
    folder = tmp_path / "disk"
    words = "sweep --b1 linear:0.5:0.9:4 --b2 0.9,0.99 --steps 5 --out"
    command = f"{sys.executable} -m ct_adam {words}"
    looked = f'import ct_adam as ct; print(ct.open("{folder}/s.zarr").sizes["b1"])'
    done = in_tmpfs(
        folder,
        "8m",
        f"{command} {folder}/s.zarr >/dev/null 2>&1; mount -o remount,ro {folder};"
        f"{command} {folder}/s.zarr; echo $?; {command} {folder}/new.zarr; echo $?;"
        f"{sys.executable} -c '{looked}'",
    )
    assert done.stdout.split() == ["2", "2", "4"], done  # it still can be read
    told = [line for line in done.stderr.splitlines() if line.startswith("ct-adam sweep: ")]
    assert len(told) == len(done.stderr.splitlines()) == 2
    assert "Cannot write to" in told[0]
    assert "make it writable" in told[0]
    assert "name another folder with --out" in told[1]


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_says_how_to_go_on(tmp_path, how):
    store = tmp_path / "s.zarr"
    words = ["--b1", "linear:0.5:0.9:64", "--b2", "linear:0.9:0.99:64", "--tile", "16"]
    command = [sys.executable, "-m", "ct_adam", "sweep"]
    with subprocess.Popen([*command, *words, "--out", str(store)], stderr=subprocess.PIPE) as going:
        while not tiles_done(store):
            assert going.poll() is None
            time.sleep(0.01)
        going.send_signal(how)
        _, err = going.communicate()
    assert going.returncode == 130
    last = err.decode().splitlines()[-1]
    assert f"tiles are kept in {store}. Go on with: ct-adam sweep --resume {store}" in last
    assert "Traceback" not in err.decode()
    done = subprocess.run([*command, "--resume", str(store)], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    assert ct.open(store).attrs["tiles_done"] == 256
    shutil.rmtree(store)


def test_what_a_kill_began_to_write_is_swept_up(tmp_path):
    store = tmp_path / "s.zarr"
    swept().run(store)
    expected = contents(store)
    level_tiles(store, 0).forget(7)
    (store / "max_update" / "c.1.0.1234.partial").write_bytes(b"half")
    swept().run(store)
    assert contents(store) == expected
    np.testing.assert_array_equal(ct.open(store).outcome, 0)


def test_another_process_on_other_cores_goes_on_bitwise(tmp_path):
    """A loss that holds functions and long sums: no address of a process, and no number of cores,
    is part of what it is or computes."""
    store = tmp_path / "s.zarr"
    words = ["sweep", "--problem", "digits_mlp", "--b1", "0.8,0.9", "--b2", "0.99", "--seed", "0,1"]
    command = [sys.executable, "-m", "ct_adam", *words, "--steps", "9", "--out", str(store)]
    first = subprocess.run(command, capture_output=True, text=True, check=False)
    assert first.returncode == 0, first.stderr
    expected = contents(store)
    tiles = level_tiles(store, 0)
    for tile in range(len(tiles.tiling)):
        tiles.forget(tile)

    bind = "import os, sys; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))});"
    bound = [sys.executable, "-c", f"{bind} os.execv(sys.executable, sys.argv[1:])", *command]
    again = subprocess.run(bound, capture_output=True, text=True, check=False)
    assert again.returncode == 0, again.stderr
    assert contents(store) == expected
