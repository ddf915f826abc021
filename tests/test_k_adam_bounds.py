"""The bound of k-Adam's updates is that of its last stage (EQUATIONS §2, §4)."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ct_adam as ct

from .reference import discrete_bound

STEPS = 40


@jax.jit
def last_updates(b1, b2, grads):
    """u^k of a stream of gradients (steps, d), eps = 0; k = 2, traced decays."""
    optimizer = ct.k_adam(1.0, tuple(b1), tuple(b2), eps=0.0)

    def step(state, g):
        updates, state = optimizer.update(g, state, g)
        return state, -updates

    return jax.lax.scan(step, optimizer.init(grads[0]), grads)[1]


# Smaller gradients have squares that underflow within 40 steps: no bound survives that.
GRADIENT = st.floats(-1e3, 1e3).map(lambda x: 0.0 if abs(x) < 1e-50 else x)
FRACTION = st.floats(0.05, 0.999)


@settings(max_examples=25, deadline=None)
@given(
    grads=st.lists(GRADIENT, min_size=STEPS, max_size=STEPS),
    b1=st.tuples(FRACTION, FRACTION),
    b2=st.tuples(FRACTION, FRACTION),
)
def test_the_last_stage_bounds_the_update(grads, b1, b2):
    found = last_updates(np.array(b1), np.array(b2), np.array(grads)[:, None])[:, 0]
    limit = discrete_bound(b1[1], b2[1], STEPS)
    np.testing.assert_allclose(
        ct.theory.update_bound(b1[1], b2[1], np.arange(1, STEPS + 1), "discrete"), limit, rtol=1e-9
    )
    # 40 steps of a few ulp; 1 - bⁿ costs up to 1/(1-b) = 1e3 more.
    assert np.all(np.abs(found) <= limit * (1 + 1e-9))


def inverse_of_a_stage(wanted, b1, b2):
    """The gradients whose first stage puts out `wanted` (positive, first of all 1), eps = 0.

    A quadratic in g a step: (b1 m + (1-b1) g)² = (x B1)²/B2 (b2 v + (1-b2) g²).
    """
    m, v, grads = 0.0, 0.0, []
    for n, x in enumerate(wanted, 1):
        if n == 1:
            g = 1.0
        else:
            kept, fresh = b1 * m, 1 - b1
            k2 = (x * (1 - b1**n)) ** 2 / (1 - b2**n)
            roots = np.roots([fresh**2 - k2 * (1 - b2), 2 * kept * fresh, kept**2 - k2 * b2 * v])
            fits = [r.real for r in roots if abs(r.imag) < 1e-12 and kept + fresh * r.real > 0]
            g = min(fits, key=abs)
        m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g**2
        grads.append(g)
    return np.array(grads)


@pytest.mark.parametrize(
    ("last", "grows"),
    [((0.95, 0.85), True), ((0.9, 0.7), True), ((0.9, 0.82), False), ((0.8, 0.7), False)],
    ids=str,
)
def test_the_bound_of_the_last_stage_is_attained(last, grows):
    """Over all streams u^k is bounded iff b1_k² < b2_k: the worst case of the last stage is an
    output of the first one, so that no earlier stage prevents growth."""
    b1, b2 = last
    wanted = (b2 / b1) ** np.arange(STEPS)
    grads = inverse_of_a_stage(wanted, 0.9, 0.999)
    found = last_updates(np.array([0.9, b1]), np.array([0.999, b2]), grads[:, None])[:, 0]
    # Inverted and run again, m cancels to x of itself each step: 1e-16 · 40 / the least x ~ 1e-3.
    np.testing.assert_allclose(found, discrete_bound(b1, b2, STEPS), rtol=1e-10)
    rate = np.log(b1**2 / b2) / 2
    assert (rate > 0) == grows
    if grows:
        # Without the bias factor the bound is ∝ √(e^{2·rate·n} - 1).
        bias = (1 - b1 ** np.arange(1, STEPS + 1)) / np.sqrt(1 - b2 ** np.arange(1, STEPS + 1))
        shape = np.sqrt(np.expm1(2 * rate * np.arange(1, STEPS + 1)))
        np.testing.assert_allclose(found * bias / shape, (found * bias / shape)[0], rtol=1e-10)
    else:
        limit = (1 - b1) / np.sqrt((1 - b2) * (1 - b1**2 / b2))
        bias = np.max(np.sqrt(1 - b2 ** np.arange(1, 999.0)) / (1 - b1 ** np.arange(1, 999.0)))
        assert np.all(found <= limit * bias)


def test_last_stage_without_momentum_and_without_memory():
    """eps = 0 with zeros before, between and after: closed forms, nothing undefined."""
    gradients = np.array([0, 0, 3.0, 0, -1e-3, 0])
    for last, expected in (
        # u² = x/√v̂: v holds each 1 with its age.
        ((0, 0.5), lambda n, x, v: x * np.sqrt((1 - 0.5**n) / v) if x else 0.0),
        ((0, 0), lambda n, x, v: x),
    ):
        # Without memory the first stage puts out the sign.
        optimizer = ct.k_adam(1.0, (0, last[0]), (0, last[1]), eps=0.0)
        state, v, found = optimizer.init(jnp.zeros(1)), 0.0, []
        for n, g in enumerate(gradients, 1):
            updates, state = optimizer.update(jnp.array([g]), state, jnp.zeros(1))
            found.append(-float(updates[0]))
            x = np.sign(g)
            v = 0.5 * v + 0.5 * x**2
            np.testing.assert_allclose(found[-1], expected(n, x, v), rtol=1e-14)
        # The third gradient attains the bound: all before were 0.
        bound = ct.theory.update_bound(0.0, last[1], 3, "discrete")
        assert found[2] == pytest.approx(float(bound), rel=1e-14)


def test_growth_after_signs():
    """No memory in the first stage, b1² > b2 in the last: |u²| ∝ (b1/√b2)ⁿ after the gradient."""
    b1, b2 = 0.9, 0.6
    optimizer = ct.k_adam(1.0, (0, b1), (0, b2), eps=0.0)
    state, found = optimizer.init(jnp.zeros(1)), []
    for n in range(30):
        updates, state = optimizer.update(jnp.array([1.0 if n < 10 else 0.0]), state, jnp.zeros(1))
        found.append(-float(updates[0]))
    n = np.arange(11, 31)
    gone = (1 - b1**10) * b1 ** (n - 10.0), (1 - b2**10) * b2 ** (n - 10.0)
    closed = gone[0] / (1 - b1**n) / np.sqrt(gone[1] / (1 - b2**n))
    np.testing.assert_allclose(found[:10], 1, rtol=1e-13)
    np.testing.assert_allclose(found[10:], closed, rtol=1e-13)
    assert found[-1] > 10  # (0.9/√0.6)^20 = 20, halved by the bias factor
