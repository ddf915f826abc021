"""Bars for those who look on, lines for a log."""

import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tqdm import tqdm

import ct_adam as ct
from ct_adam import progress


def _told(capsys):
    with progress.progress_bar("lane", "map: ") as tell:
        for done in (0, 5, 5, 10):
            tell("level 1", done, 10)
    return capsys.readouterr().err


@pytest.mark.parametrize("where", ["a terminal", "a notebook"])
def test_whoever_looks_on_sees_a_bar(where, capsys, monkeypatch):
    if where == "a terminal":
        monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    else:
        monkeypatch.setattr(sys, "ps1", "In : ", raising=False)
    told = _told(capsys)
    assert "\r" in told
    assert "map: level 1: 100%|" in told
    assert "10/10" in told


def test_short_work_leaves_nothing_in_a_log(capsys):
    assert _told(capsys) == ""


def test_long_work_leaves_lines_in_a_log(capsys, monkeypatch):
    monkeypatch.setattr(progress, "_PAUSE", 1e-9)
    *lines, last, end = _told(capsys).split("\n")
    assert end == ""
    assert lines
    assert last.startswith("map: level 1: 100%| 10/10 lane [")
    for line in lines:
        assert line == line.strip()
        assert line.startswith("map: level 1: ")


def test_bars_inside_each_other_leave_plain_lines(capsys, monkeypatch):
    monkeypatch.setattr(progress, "_PAUSE", 1e-9)
    with progress.progress_bar("it") as tell:
        tell("outer", 1, 2)
        with progress.bar(3, "step") as inner:
            inner.update(3)
        tqdm.write("between", file=sys.stderr)
        tell("outer", 2, 2)
    told = capsys.readouterr().err
    assert "\x1b" not in told
    assert "\r" not in told
    assert "between" in told.split("\n")


def test_a_bar_that_is_not_shown_says_nothing(capsys, monkeypatch):
    monkeypatch.setattr(progress, "_PAUSE", 1e-9)
    with progress.bar(3, "step", shown=False) as hidden:
        hidden.update(3)
    assert capsys.readouterr().err == ""


def _final(curvature, **options):
    loss = lambda x: curvature * jnp.sum(x**2)  # noqa: E731
    return ct.solve(ct.AdamFlow(0.01), loss, jnp.ones(2), 50, save_steps=[0, 50], **options)


def test_a_solve_has_the_same_lines(capsys, monkeypatch):
    monkeypatch.setattr(progress, "_PAUSE", 1e-9)
    silent = _final(1.0, rtol=1e-12)
    assert capsys.readouterr().err == ""
    told = _final(1.0, progress=True, rtol=1e-12)
    jax.effects_barrier()
    *lines, last, end = capsys.readouterr().err.split("\n")
    assert end == ""
    assert last.startswith("100%| 50/50 step [")
    seen = [int(line.split("| ")[1].split("/")[0]) for line in lines]
    assert seen == sorted(seen)
    assert any(0 < n < 50 for n in seen)
    np.testing.assert_array_equal(told.params, silent.params)


def test_a_bar_does_not_stand_in_the_way_of_derivatives_and_batches(capsys, monkeypatch):
    monkeypatch.setattr(progress, "_PAUSE", 1e-9)
    end = lambda a, shown: _final(a, throw=False, progress=shown).params[-1, 0]  # noqa: E731
    several = jnp.array([0.5, 1.0, 2.0])
    found = [
        (jax.grad(end)(1.0, shown), jax.vmap(end, (0, None))(several, shown))
        for shown in (False, True)
    ]
    jax.effects_barrier()
    assert "50/50 step" in capsys.readouterr().err
    # Compiled apart, so equal but for rounding, and steps of a solver that differ by it (rtol).
    np.testing.assert_allclose(found[1][0], found[0][0], rtol=1e-6)
    np.testing.assert_allclose(found[1][1], found[0][1], rtol=1e-6)
