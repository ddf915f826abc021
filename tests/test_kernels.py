"""The kernels that numba compiles for a CPU."""

import re

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ct_adam.ensemble import fused, kernels
from ct_adam.ensemble.prepared import prepared


@pytest.mark.slow
def test_bodies_of_many_numbers_are_vectorised():
    """LLVM gave up on those that write two arrays in more than a hundred places: three times as
    slow on the sixteen-dimensional chain of the benchmarks."""
    made = prepared(
        lambda rate: optax.sgd(rate, momentum=0.5),
        lambda x: jnp.sum(1 / x),  # one division a parameter, to be found again
        jnp.ones(64),
        10,
        metrics=("final_params",),
    )
    plan = fused.plan(*eqx.partition(made.program, eqx.is_array), {"rate": np.float64(0.1)})
    source = kernels.kernel_source(plan.lowered, plan.table_sizes, cache=False)
    kernel = kernels.load(source).kernel
    rows = [np.zeros((0, len(k))) for k in (plan.lowered.live_kinds, plan.lowered.known_kinds)]
    kernel(*rows, np.zeros(0, np.int64), 0, 1, np.zeros(1, np.int64))
    (program,) = kernel.inspect_llvm().values()
    assert len(re.findall(r"fdiv[\w ]*<\d+ x double>", program)) >= 64
