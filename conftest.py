"""Everything runs in float64, doctests too; no figure outlives its test; real data sets by name."""

import importlib.util
import os
import sys
from pathlib import Path

os.environ.setdefault("MPLBACKEND", "Agg")

import jax
import pytest

jax.config.update("jax_enable_x64", True)

# Where PyTorch is missing its twin cannot be imported, nor its doctests.
collect_ignore_glob = [] if importlib.util.find_spec("torch") else ["ct_adam/torch/*"]


@pytest.fixture(autouse=True)
def close_figures():
    """Pyplot holds them otherwise, and warns of more than twenty."""
    yield
    if pyplot := sys.modules.get("matplotlib.pyplot"):
        pyplot.close("all")


@pytest.fixture
def real_data(monkeypatch):
    """Asks for files of real data sets, gives their folder; skips the test where one is missing."""
    folder = os.environ.get("CT_ADAM_DATA") or Path(__file__).parents[1] / "shared" / "data"
    monkeypatch.setenv("CT_ADAM_DATA", str(folder))

    def need(*files):
        for file in files:
            if not (Path(folder) / file).is_file():
                pytest.skip(f"{file} is missing: set CT_ADAM_DATA to a folder that holds it")
        return Path(folder)

    return need
