"""Which optimizer is scale-, shift- and rotation-free; the proximal step in the metric of √v."""

import re
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ct_adam as ct
from ct_adam.optimizers import Invariances, invariances, variable_metric_prox

PAGE = Path(__file__).parents[1] / "docs" / "scale-freeness.md"
ROW = r"^\| .*?`((?:ct|optax)\..*?\))` \| (.*?) \| (.*?) \| (.*?) \| (.*?) \|"
ROWS = re.findall(ROW, PAGE.read_text(), re.MULTILINE)
"""Expression, and "yes" or "no" for each of `Invariances`, of the page's table."""


def test_the_page_has_its_table():
    assert len(ROWS) >= 20
    assert {"ct.adam_prox", "ct.adam_l2", "optax.lion"} <= {row[0].split("(")[0] for row in ROWS}


@pytest.mark.parametrize(
    "row",
    [
        # a compilation each
        pytest.param(row, id=row[0], marks=[] if row[0].startswith("ct.") else [pytest.mark.slow])
        for row in ROWS
    ],
)
def test_the_pages_table(row):
    expression, *said = row
    found = invariances(eval(expression, {"ct": ct, "optax": optax}))
    wanted = tuple(n for n, word in zip(Invariances._fields, said, strict=True) if word == "yes")
    assert set(said) <= {"yes", "no"}
    assert found.names == wanted
    # Nothing is a matter of the threshold: what does not hold is a hundred times above it, and
    # what holds a tenth of it.
    for difference, word in zip(found, said, strict=True):
        assert difference < 1e-11 if word == "yes" else difference > 1e-9


FREE = {"adamw": ct.adamw, "adam_prox": ct.adam_prox, "adam": ct.adamw}
EXPONENTS = st.lists(st.integers(-30, 30), min_size=4, max_size=4)


@jax.jit(static_argnums=0)
def path(name: str, start: Any, gradients: Any):
    decay = 0.0 if name == "adam" else 0.3
    make = FREE.get(name, ct.adam_l2)
    optimizer = make(0.01, eps=0.0, weight_decay=decay)

    def step(carry, g):
        params, state = carry
        delta, state = optimizer.update(g, state, params)
        params = optax.apply_updates(params, delta)
        return (params, state), params

    return jax.lax.scan(step, (start, optimizer.init(start)), gradients)[1]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@given(exponents=EXPONENTS, seed=st.integers(0, 2**16))
@settings(max_examples=20, deadline=None)
def test_powers_of_two_leave_iterates_alone_bitwise(dtype, exponents, seed):
    """Squares of normal gradients times 2^±60 are normal numbers of float32: no bit is lost."""
    rng = np.random.default_rng(seed)
    start = jnp.asarray(rng.standard_normal(4), dtype)
    gradients = jnp.asarray(rng.standard_normal((30, 4)), dtype)
    # NumPy's powers: those of XLA are not exact.
    scaled = gradients * jnp.asarray(np.ldexp(1.0, exponents), dtype)
    for name in FREE:
        one, other = path(name, start, gradients), path(name, start, scaled)
        assert one.dtype == dtype
        np.testing.assert_array_equal(one, other)
    one, other = path("adam_l2", start, gradients), path("adam_l2", start, scaled)
    for i, exponent in enumerate(exponents):
        # A coordinate's gradient against λθ is another by 2^exponent.
        assert np.array_equal(one[:, i], other[:, i]) == (exponent == 0)


def test_what_known_optimizers_have():
    assert invariances(ct.adamw(0.01, eps=0.0)).names == ("scale", "loss", "shift")
    assert invariances(ct.sgdw(0.01, weight_decay=0.1)).names == ("rotation",)
    # In float32 a power of two is as exact.
    assert invariances(ct.adamw(0.01, eps=0.0), dtype=jnp.float32).scale == 0


def test_eps_breaks_scale_freeness_by_its_size():
    """To first order u changes by eps/√v̂, of the smallest gradients: here √v̂ ~ 2^-octaves."""
    small, large = (invariances(ct.adamw(0.01, eps=eps)).scale for eps in (1e-8, 1e-6))
    assert large / small == pytest.approx(100, rel=0.01)
    assert 1e-8 < small < 1e-8 * 2**10


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"size": 1}, "size = 1"),
        ({"size": 2.5}, "size = 2.5"),
        ({"steps": 0}, "steps = 0"),
        ({"octaves": 0}, "octaves = 0"),
    ],
)
def test_numbers_out_of_range(options, words):
    with pytest.raises(ValueError, match=words):
        invariances(ct.sgdw(0.1), **options)


def test_one_that_does_not_move_is_refused():
    with pytest.raises(ValueError, match="optax transformation, not AdamFlow"):
        invariances(ct.AdamFlow(0.1))  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match=r"moves by 0\.0"):
        invariances(ct.sgdw(0.0))


B1, B2, ETA, DECAY, EPS, ROOT = 0.9, 0.99, 0.05, 0.4, 1e-2, 1e-3


def test_the_variable_metric_step_is_the_minimum():
    """Where the derivative m̂ + λx + D(x - θ)/η is 0, moments in NumPy."""
    rng = np.random.default_rng(0)
    params = rng.standard_normal(5)
    optimizer = variable_metric_prox(ETA, B1, B2, EPS, DECAY, eps_root=ROOT)
    state = optimizer.init(jnp.asarray(params))
    m = v = np.zeros(5)
    for n in range(1, 20):
        g = rng.standard_normal(5)
        m, v = B1 * m + (1 - B1) * g, B2 * v + (1 - B2) * g**2
        metric = np.sqrt(v / (1 - B2**n) + ROOT) + EPS
        delta, state = optimizer.update(jnp.asarray(g), state, jnp.asarray(params))
        after = params + np.asarray(delta)
        slope = m / (1 - B1**n) + DECAY * after + metric * (after - params) / ETA
        # of terms of size D/η = 20
        np.testing.assert_allclose(slope, 0, atol=1e-13)
        params = after


def test_the_variable_metric_step_without_decay_is_adams():
    problem = ct.problems.quadratic([1.0, 30.0])
    start = jnp.array([1.0, -2.0])
    ours = ct.run(variable_metric_prox(ETA, eps=EPS), problem, start, 50)
    adam = ct.run(optax.adam(ETA, eps=EPS), problem, start, 50)
    # 50 steps of η·u with |u| ≤ 1
    np.testing.assert_allclose(ours.params, adam.params, atol=1e-14)


def test_the_variable_metric_step_of_a_dead_coordinate():
    params = jnp.array([3.0])
    for decay, after in ((0.5, 0.0), (0.0, 3.0)):
        optimizer = variable_metric_prox(ETA, eps=0.0, weight_decay=decay)
        delta, _ = optimizer.update(0 * params, optimizer.init(params), params)
        # θ + Δθ, Δθ = -ηλθ/(ηλ), rounds
        assert float((params + delta)[0]) == pytest.approx(after, abs=1e-15)


def test_the_variable_metric_refuses():
    with pytest.raises(ValueError, match="needs both moments"):
        variable_metric_prox(0.1, b1=0.0)
    with pytest.raises(ValueError, match="needs both moments"):
        variable_metric_prox(0.1, b1=np.int64(0))  # NumPy's zero removes, too
    with pytest.raises(ValueError, match="variable_metric_prox has one stage"):
        variable_metric_prox(0.1, b2=(0.9, 0.9))  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="b2"):
        variable_metric_prox(0.1, b2=1.5)
    optimizer = variable_metric_prox(0.1)
    with pytest.raises(ValueError, match="needs the parameters"):
        optimizer.update(jnp.ones(1), optimizer.init(jnp.ones(1)))
