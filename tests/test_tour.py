"""The tour runs without a browser."""

import runpy
from pathlib import Path

import pytest

TOUR = Path(__file__).parents[1] / "docs" / "tour.py"


def test_tour():
    pytest.importorskip("marimo", reason="the tour needs marimo: pip install '.[tour]'")
    _, found = runpy.run_path(str(TOUR))["app"].run()
    assert set(found["paths"]) == {"Adam", "the ODE", "the interpolating flow"}
    assert all(path.shape == (201, 2) for path in found["paths"].values())
    # On a smooth bowl the flows follow to a few η of a distance of about 2.
    assert found["errors"]["the interpolating flow"] < found["errors"]["the ODE"] < 0.1
    assert [len(axes.lines) for axes in found["figure"].axes] == [3, 2]
    # Another place of the sliders: a longer step of stronger decay, and nothing compiled anew.
    moved = found["races"]["a narrow bowl"](found["settings"] | {"weight_decay": 1.0})
    assert abs(moved["Adam"][-1]).max() < abs(found["paths"]["Adam"][-1]).max()
