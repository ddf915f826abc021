"""Kernels for a GPU in numba's simulator, against the reference engine.

The simulator is chosen before numba is imported: this file runs itself once, in a process of its
own, which prints the numbers of all cases.
"""

import ast
import json
import os
import subprocess
import sys
from functools import partial
from importlib import import_module
from pathlib import Path
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ct_adam as ct
from ct_adam.ensemble.lower import Lowered

STEPS = 8
RTOL = 1e-7
METRICS = ("final_params", "max_update", "outcome", "evaluations")
B1 = [0.5, 0.8, 0.9, 0.95, 0.6]
B2 = [0.95, 0.999, 0.9, 0.8, 0.99]
RATES = [0.01, 0.03, 0.1, 0.3, 0.02]
H = jnp.array([1.0, 10.0])


def quadratic(x):
    return jnp.sum(H * x**2) / 2


def falls_off(x):
    """Its gradient, -ln x - 1, leads from below 1/e to 0 and is NaN beyond."""
    return -jnp.sum(x * jnp.log(x))


def on_a_stream(b1, b2):
    # Longer than what is taken apart into names, so that the kernel reads a table.
    stream = ct.problems.worst_case_stream(b1, b2, 80, "held", start="zero")
    return ct.Case(ct.AdamFlow(0.01, b1, b2), stream)


CASES = {
    "flow": (lambda b1, b2: ct.AdamFlow(0.01, b1, b2, rates="lag"), quadratic, [1.0, -1.0],
             {"b1": B1, "b2": B2}),
    "adamw": (lambda eta, b1: ct.adamw(eta, b1, 0.99, weight_decay=0.1), quadratic, [1.0, -1.0],
              {"eta": RATES, "b1": B1}),
    "stream": (on_a_stream, None, [0.0], {"b1": B1, "b2": B2}),
    "nan": (lambda eta: ct.adamw(eta, 0.5, 0.9), falls_off, [0.2, 0.3], {"eta": RATES}),
    "nan flow": (lambda eta: ct.AdamFlow(eta, 0.5, 0.9), falls_off, [0.2, 0.3], {"eta": RATES}),
}  # fmt: skip


def numbers_of(case, engine):
    make, loss, start, lanes = CASES[case]
    table = ct.ensemble(
        make, loss, jnp.asarray(start), STEPS, lanes, engine=engine, rtol=RTOL,
        max_solver_steps=300, metrics=METRICS,
    )  # fmt: skip
    return {name: table[name].values.tolist() for name in METRICS}


def in_the_simulator():
    """Prints every case's numbers, from two threads for five lanes."""
    jax.config.update("jax_enable_x64", True)
    fused = import_module("ct_adam.ensemble.fused")
    kernels = import_module("ct_adam.ensemble.kernels_cuda")
    assert kernels.available()
    on_gpu = partial(fused.Fused, kernels=kernels)
    with (
        mock.patch.object(fused, "Fused", on_gpu),
        mock.patch.multiple(kernels, BLOCK=2, BLOCKS_A_MULTIPROCESSOR=1),
    ):
        print(json.dumps({case: numbers_of(case, "fused") for case in CASES}))


@pytest.fixture(scope="module")
def simulated(tmp_path_factory):
    environment = os.environ | {
        "NUMBA_ENABLE_CUDASIM": "1",
        "CT_ADAM_CACHE": str(tmp_path_factory.mktemp("cache")),
        "PYTHONPATH": str(Path(ct.__file__).parents[1]),
        "PYTHONWARNINGS": "error",
        "JAX_PLATFORMS": "cpu",
    }
    command = [sys.executable, __file__]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


# An optimizer's steps are the same arithmetic; a flow's step sizes differ by roundings.
@pytest.mark.parametrize(
    ("case", "rtol"),
    [("flow", RTOL), ("adamw", 1e-9), ("stream", RTOL), ("nan", 1e-9), ("nan flow", RTOL)],
)
def test_lanes_are_those_of_the_reference(simulated, case, rtol):
    expected = numbers_of(case, "reference")
    found = simulated[case]
    assert found["outcome"] == expected["outcome"]
    assert found["evaluations"] == expected["evaluations"]
    for name in ("final_params", "max_update"):
        np.testing.assert_allclose(found[name], expected[name], rtol, atol=rtol * 1e-3)


def test_the_cases_are_what_they_say(simulated):
    assert np.all(np.array(simulated["flow"]["outcome"]) == 0)
    for case in ("nan", "nan flow"):
        assert len(set(simulated[case]["outcome"])) > 1, "some lanes end well and some do not"


def module_names(source):
    """What a module imports, assigns and defines."""
    names = set()
    for statement in ast.parse(source).body:
        if isinstance(statement, ast.FunctionDef):
            names.add(statement.name)
            continue
        for node in ast.walk(statement):
            if isinstance(node, ast.alias):
                names.add(node.name)
            elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                names.add(node.id)
    return names


@pytest.mark.parametrize("simulated", [True, False])
def test_a_body_finds_every_name(simulated):
    """All that a CPU's kernel offers to a lowered body."""
    cpu, gpu = (import_module(f"ct_adam.ensemble.{name}") for name in ("kernels", "kernels_cuda"))
    empty = Lowered(["s0 = 0.0"], [], {}, ["0.0", "0.0"], ["f8"], [], [], [])
    offered = module_names(cpu.kernel_source(empty, [], cache=False)) - {"njit", "enter"}
    offered -= {"next_power"}  # of running powers, which a GPU does without
    assert len(offered) > 40
    assert offered <= module_names(gpu.kernel_source(empty, [], simulated))


if __name__ == "__main__":
    in_the_simulator()
