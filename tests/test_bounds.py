"""The bounds of EQUATIONS §2 met by the program's own flows and optimizers (ODE solver included).

`test_theory_stability.py` shows the formulas by exact recursions; here they meet `solve` and `run`.
"""

import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

import ct_adam as ct

PAIRS = [(0.9, 0.999), (0.9, 0.95), (0.8, 0.9), (0.95, 0.85), (0.7, 0.4)]
STEPS = 60


@pytest.mark.parametrize(("b1", "b2"), PAIRS)
def test_the_optimizer_attains_the_discrete_bound(b1, b2):
    stream = ct.problems.worst_case_stream(b1, b2, STEPS + 1)
    path = ct.run(ct.k_adam(1.0, b1, b2, eps=0.0), stream, jnp.zeros(1), STEPS)
    seen = np.arange(1, STEPS + 2)
    bound = ct.theory.update_bound(b1, b2, seen, "discrete")
    # 61 steps of a few ulp each, in m and √v.
    np.testing.assert_allclose(path.update[:, 0], bound, rtol=1e-12)


@pytest.mark.parametrize("start", ["first_step", "zero"])
@pytest.mark.parametrize("rates", ["log", "lag", "euler"])
def test_the_flow_attains_the_held_bound(rates, start):
    for b1, b2 in PAIRS:
        stream = ct.problems.worst_case_stream(b1, b2, STEPS + 1, "held", rates, start)
        flow = ct.AdamFlow(1.0, b1, b2, eps=0.0, rates=rates, start=start)
        path = ct.solve(flow, stream, jnp.zeros(1), STEPS, rtol=1e-11, atol=np.inf)
        # At s = n a flow from first_step has seen n + 1 gradients, one from zero n (not at n = 0).
        seen = np.arange(0 if start == "zero" else 1, STEPS + 2)[: STEPS + 1]
        bound = ct.theory.update_bound(b1, b2, np.maximum(seen, 1), "held", rates, start)
        # Sixty steps of 1e-11 each in both moments.
        np.testing.assert_allclose(path.update[seen > 0, 0], bound[seen > 0], rtol=2e-9)


def exponential(rate, late, step):
    return jnp.exp(rate * (step - late))[None]


@pytest.mark.parametrize("rates", ["log", "lag", "euler"])
def test_the_flow_attains_the_flow_bound_from_zero(rates):
    for b1, b2 in PAIRS:
        a, b = (float(ct.decays.rate(x, rates)) for x in (b1, b2))
        # Largest value 1, whichever end it is at.
        late = float(STEPS if a > b else 0)

        flow = ct.AdamFlow(1.0, b1, b2, eps=0.0, rates=rates, start="zero")
        stream = ct.problems.ContinuousStream(
            Partial(exponential, jnp.asarray(a - b), jnp.asarray(late))
        )
        path = ct.solve(flow, stream, jnp.zeros(1), STEPS, rtol=1e-10, atol=np.inf)
        bound = ct.theory.update_bound(b1, b2, np.arange(1, STEPS + 1), "flow", rates, "zero")
        np.testing.assert_allclose(path.update[1:, 0], bound, rtol=1e-6)


@pytest.mark.parametrize("start", ["first_step", "zero"])
def test_random_streams_stay_below_the_flow_bound(start):
    grads = ct.problems.random_stream(STEPS + 1, size=400, seed=2)
    for b1, b2 in PAIRS:
        flow = ct.AdamFlow(1.0, b1, b2, eps=0.0, start=start)
        path = ct.solve(flow, grads, jnp.zeros(400), STEPS, rtol=1e-9, atol=np.inf)
        first = 1 if start == "zero" else 0
        seen = np.arange(first, STEPS + 1) + 1 - first
        bound = ct.theory.update_bound(b1, b2, seen, "flow", "log", start)
        largest = np.abs(path.update[first:]).max(axis=1)
        assert np.all(largest <= np.asarray(bound) * (1 + 1e-6))
