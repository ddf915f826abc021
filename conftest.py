"""Doctests of the package run in float64 too; no figure outlives its test."""

import importlib.util
import os
import sys

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
