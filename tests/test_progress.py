"""Bars for those who look on, lines for a log."""

import sys

import pytest
from tqdm import tqdm

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
