"""The benchmarks' own decisions; no timing."""

import math

import numpy as np
import pytest

from benchmarks.__main__ import main
from benchmarks.timing import Entry, Errors, Target, errors, interleave, ratio, report, verdict


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (0.0, "ok"),
        (1e-5, "ok"),
        (1.1e-5, "missed"),
        (1e-3, "missed"),
        (1.1e-3, "WRONG"),
        (math.inf, "WRONG"),
        (math.nan, "WRONG"),
    ],
)
def test_verdict(error, expected):
    assert verdict(error, 1e-5) == expected


def test_one_lane_that_is_not_a_number_spoils_the_error():
    final = np.zeros((5, 2))
    final[3, 1] = math.nan
    assert all(map(math.isnan, errors(final, np.zeros((5, 2)))))


def test_errors_are_over_lanes_of_the_largest_coordinate():
    final = np.array([[0.0, 1.0], [-2.0, 0.0], [3.0, 3.0]])
    assert errors(final, np.zeros((3, 2))) == Errors(2.0, pytest.approx(2.8))


def test_a_wrong_contender_is_neither_timed_nor_compared(capsys):
    calls = []
    wrong = Entry("fast", run=lambda: calls.append(1), verdict="WRONG")
    right = Entry("slow", run=lambda: np.zeros(1), verdict="ok", errors=Errors(0, 0))
    missing = Entry("missing", absent="not installed")
    interleave([wrong, right, missing], 2)
    assert not calls
    assert len(right.rounds) == 2
    entries = [wrong, right, missing]
    found = report("title", entries, [Target("fast", "slow", 2), Target("slow", "missing", 2)])
    assert [one["ratio"] for one in found["ratios"]] == [None, None]
    assert [one["median_s"] is None for one in found["contenders"]] == [True, False, True]
    printed = capsys.readouterr().out
    assert "WRONG" in printed
    assert "not installed" in printed


def test_ratio_is_one_of_medians():
    fast = Entry("fast", verdict="ok", rounds=[1.0, 2.0, 9.0])
    slow = Entry("slow", verdict="missed", rounds=[10.0, 8.0, 9.0])
    found = ratio(Target("fast", "slow", 2), [fast, slow])
    assert found["ratio"] == pytest.approx(4.5)
    assert found["range"] == [pytest.approx(1), pytest.approx(10)]


@pytest.mark.parametrize("arguments", [["nothing-like-it"], [], ["--quick"], ["ensemble", "x"]])
def test_unknown_name_is_one_sentence(arguments, capsys):
    assert main(arguments) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "ensemble, discrete" in said
