"""docs/table.md, method × problem × engine, is what runs."""

from pathlib import Path

import numpy as np
import pytest

from tools import method_table

PAGE = Path(__file__).parents[1] / "docs" / "table.md"
TABLE = method_table.parsed(PAGE.read_text())


def test_table_has_every_method_and_problem():
    """`python tools/method_table.py` adds what is missing."""
    assert list(TABLE) == list(method_table.PROBLEMS)
    for problem, rows in TABLE.items():
        assert list(rows) == list(method_table.methods()), f"docs/table.md, {problem}"
    assert method_table.rendered(TABLE) == PAGE.read_text()


@pytest.mark.parametrize(
    ("problem", "method"),
    [("quadratic", "optimizer `l2_descent`"), ("minibatches", "optimizer `sgdw`")],
)
def test_row_of_the_table(problem, method):
    _compare_row(problem, method)


@pytest.mark.slow
@pytest.mark.parametrize("problem", method_table.PROBLEMS)
def test_table(problem):
    for method in TABLE[problem]:
        _compare_row(problem, method)


def _compare_row(problem, method):
    """Not the reasons: a primitive has other names in other versions of JAX."""
    found = method_table.verdicts(method, problem)
    shown = TABLE[problem][method]
    assert {e: v.runs for e, v in found.items()} == {e: v.runs for e, v in shown.items()}, found


def test_table_tells_an_engine_that_errs(monkeypatch):
    wrong = {"reference": np.zeros(2), "cohort": np.full(2, 1e-9), "fused": np.array([0, 1e-3])}
    monkeypatch.setattr(
        method_table, "_final", lambda make, problem, engine: np.ones(2) * wrong[engine]
    )
    found = method_table.verdicts("optimizer `adamw`", "quadratic")
    assert [verdict.runs for verdict in found.values()] == [True, True, False]
