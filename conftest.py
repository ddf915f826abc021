"""Doctests of the package run in float64 too."""

import importlib.util
import os

os.environ.setdefault("MPLBACKEND", "Agg")

import jax

jax.config.update("jax_enable_x64", True)

# Where PyTorch is missing its twin cannot be imported, nor its doctests.
collect_ignore_glob = [] if importlib.util.find_spec("torch") else ["ct_adam/torch/*"]
