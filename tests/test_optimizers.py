"""The discrete side against optax, PyTorch's trajectories, and NumPy."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ct_adam as ct

from .jax_reference import ripple
from .reference import BEGIN, Hyper, adam_run, adam_updates

EPS = np.finfo(float).eps


def one_step_at_a_time(optimizer, steps):
    """optax as its documentation uses it."""
    step = jax.jit(lambda p, s: _take(optimizer, p, s))
    params, state = jnp.asarray(BEGIN), optimizer.init(jnp.asarray(BEGIN))
    path = [params]
    for _ in range(steps):
        params, state = step(params, state)
        path.append(params)
    return np.stack(path)


def _take(optimizer, params, state):
    updates, state = optimizer.update(jax.grad(ripple)(params), state, params)
    return optax.apply_updates(params, updates), state


@pytest.mark.parametrize(
    "optimizer",
    [optax.adam(1e-2), optax.adamw(1e-2), optax.sgd(1e-2), optax.lion(1e-3)],
    ids=["adam", "adamw", "sgd", "lion"],
)
def test_run_is_optax_one_step_at_a_time(optimizer):
    ours = ct.run(optimizer, ripple, BEGIN, 60)
    # XLA may fuse the two programs differently: a few ulp a step, amplified at most by the
    # curvature of 60 stable steps (contracting maps): 60 · 10 ulp of values below 2.
    np.testing.assert_allclose(ours.params, one_step_at_a_time(optimizer, 60), atol=600 * EPS)
    assert ours.update_kind == "step"
    np.testing.assert_allclose(ours.update[:-1], -np.diff(ours.params, axis=0), atol=4 * EPS)


@pytest.mark.parametrize("eps_root", [0.0, 1e-6])
def test_k_adam_of_one_stage_is_adamw(eps_root):
    kwargs = {"eps": 1e-6, "weight_decay": 0.1, "eps_root": eps_root}
    ours = ct.run(ct.k_adam(1e-2, (0.8,), (0.95,), **kwargs), ripple, BEGIN, 100)
    theirs = ct.run(optax.adamw(1e-2, 0.8, 0.95, **kwargs), ripple, BEGIN, 100)
    np.testing.assert_allclose(ours.params, theirs.params, atol=1000 * EPS)


TORCH = json.loads((Path(__file__).parent / "fixtures" / "torch_trajectories.json").read_text())


@pytest.mark.parametrize("case", sorted(TORCH["cases"]))
def test_torch_trajectories(case):
    record = TORCH["cases"][case]
    given_ = record["settings"]
    b1, b2 = given_["betas"]
    make = ct.adam_l2 if record["optimizer"] == "Adam" else ct.k_adam
    # A Python 0 removes the moment; torch keeps it, which is the same arithmetic.
    optimizer = make(
        given_["lr"], b1 or 0, b2, eps=given_["eps"], weight_decay=given_["weight_decay"]
    )
    path = ct.run(optimizer, ripple, BEGIN, 200, save_steps=TORCH["steps"])
    # `spread` is how far rounding noise moves torch's own run (two of the five oscillate past
    # their edge of stability): where it is below 5e-14, an equal program must stay within twice
    # that.
    sharp = np.asarray(record["spread"]) < 5e-14
    assert sharp.mean() > 0.4
    difference = np.abs(np.asarray(path.params) - np.asarray(record["theta"]))
    assert np.max(difference[sharp]) < 1e-13


def held(grads):
    """A stream as `reference.adam_run` asks for it, which looks one gradient too far."""
    return lambda n, params: grads[min(n, len(grads) - 1)]


@pytest.mark.parametrize("decay", ["decoupled", "l2"])
def test_three_stages_against_numpy(decay):
    grads = np.random.default_rng(0).standard_normal((50, 4))
    b1s, b2s = (0.9, 0.5, 0.7), (0.99, 0.8, 0.95)
    hyper = Hyper(0.03, b1s, b2s, weight_decay=0.2, decay=decay)
    path = adam_run(held(grads), BEGIN, 50, hyper)[2]
    optimizer = ct.k_adam(0.03, b1s, b2s, weight_decay=0.2, decay=decay)
    ours = ct.run(optimizer, ct.problems.GradientStream(grads), BEGIN, 50)
    # 50 steps of rounding, each of a few ulp of u ~ 1, divided by η where u is read off -Δθ/η.
    np.testing.assert_allclose(ours.params, path.params, atol=50 * 8 * EPS)
    np.testing.assert_allclose(ours.update[:-1], path.update[:-1], atol=50 * 8 * EPS)
    assert np.all(np.isnan(ours.update[-1]))  # the stream has no gradient 50


def test_adam_prox_takes_no_further_stage():
    # It would leave it out without a word.
    with pytest.raises(ValueError, match="adam_prox has one stage"):
        ct.adam_prox(0.1, (0.9, 0.8), (0.99, 0.9))  # pyright: ignore[reportArgumentType]


def test_adam_prox_is_the_proximal_step():
    grads = np.random.default_rng(1).standard_normal((30, 4))
    lr, wd = 0.1, 0.5
    theta = BEGIN
    updates = adam_updates(grads, 0.9, 0.999, 1e-8)
    ours = ct.run(ct.adam_prox(lr, weight_decay=wd), ct.problems.GradientStream(grads), BEGIN, 30)
    for n, u in enumerate(updates):  # the stream's updates do not depend on θ
        theta = (theta - lr * u) / (1 + lr * wd)
        np.testing.assert_allclose(ours.params[n + 1], theta, atol=30 * 8 * EPS)
        np.testing.assert_allclose(ours.update[n], u, atol=30 * 8 * EPS)


def test_adamw_and_adam_prox_end_apart_as_the_closed_form_says():
    # EQUATIONS §7: constant gradient 1, eps = 0, θ₀ = 4, λ = ½, ηN = 3.
    for eta, expected in ((0.1, -0.100432108277524), (0.01, -0.0100408807399680)):
        steps = round(3 / eta)
        stream = ct.problems.constant_stream(steps)
        kwargs = {"eps": 0.0, "weight_decay": 0.5}
        w = ct.run(ct.k_adam(eta, 0.9, 0.999, **kwargs), stream, jnp.array([4.0]), steps)
        prox = ct.run(ct.adam_prox(eta, **kwargs), stream, jnp.array([4.0]), steps)
        assert abs(float(w.params[-1, 0] - prox.params[-1, 0]) - expected) < 1e-12


def test_zero_rule_and_its_derivative():
    # Where v underflows before m (g² of 1e-170), u is 0, not NaN nor infinite (EQUATIONS §0).
    for make in (ct.k_adam, ct.adam_l2, ct.adam_prox):
        optimizer = make(0.1, 0.9, 0.999, eps=0.0)
        grads = jnp.array([0.0, 1e-170, 2.0])

        def step(g, optimizer=optimizer):
            return optimizer.update(g, optimizer.init(g), jnp.zeros(3))[0]

        np.testing.assert_array_equal(step(grads)[:2], 0)
        assert abs(float(step(grads)[2]) + 0.1) < 1e-15
        assert np.all(np.isfinite(jax.jacobian(step)(grads)))


def test_removed_moments_have_no_state():
    optimizer = ct.k_adam(0.1, (0, 0.9), (0.9, 0))
    state = optimizer.init(jnp.ones(2))
    stages = [s for s in state if hasattr(s, "m")]
    assert stages[0].m is None
    assert stages[0].v is not None
    assert stages[1].v is None
    # b1 = b2 = 0 is sign descent.
    signs = ct.run(ct.k_adam(0.1, 0, 0, eps=0.0), ripple, BEGIN, 20)
    np.testing.assert_allclose(
        signs.params, ct.run(ct.sign_descent(0.1), ripple, BEGIN, 20).params, atol=100 * EPS
    )


@settings(max_examples=20, deadline=None)
@given(powers=st.lists(st.integers(-20, 20), min_size=4, max_size=4))
def test_scale_freeness_is_bitwise(powers):
    # eps = 0 and g → Λg, Λ of powers of two: not even rounding changes (EQUATIONS §7).
    scale = 2.0 ** np.array(powers)
    grads = np.random.default_rng(3).standard_normal((20, 4))
    optimizer = _SCALE_FREE
    plain = ct.run(optimizer, ct.problems.GradientStream(grads), BEGIN, 20)
    scaled = ct.run(optimizer, ct.problems.GradientStream(grads * scale), BEGIN, 20)
    np.testing.assert_array_equal(plain.params, scaled.params)


_SCALE_FREE = ct.k_adam(0.01, 0.9, 0.99, eps=0.0, weight_decay=0.3)


def test_schedules_are_evaluated_at_the_step():
    schedule = optax.linear_schedule(0.1, 0.0, 10)
    grads = ct.problems.constant_stream(12)
    for optimizer in (ct.k_adam(schedule, 0.9, 0.99, eps=0.0), ct.adam_prox(schedule, eps=0.0)):
        path = ct.run(optimizer, grads, jnp.zeros(1), 12)
        expected = -np.cumsum([0.1 * max(0, 1 - n / 10) for n in range(12)])
        np.testing.assert_allclose(path.params[1:, 0], expected, atol=1e-14)


def test_our_optimizers_compose_as_optax_ones():
    params = {"w": jnp.ones((2, 3)), "b": jnp.zeros(3, jnp.float32)}
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), ct.k_adam(1e-2))
    updates, _ = optimizer.update(params, optimizer.init(params), params)
    assert jax.tree.map(lambda u: (u.shape, u.dtype), updates) == jax.tree.map(
        lambda p: (p.shape, p.dtype), params
    )
    injected = optax.inject_hyperparams(ct.adam_l2)(learning_rate=0.1)
    state = injected.init(params)
    assert float(state.hyperparams["learning_rate"]) == pytest.approx(0.1)
    jax.jit(injected.update)(params, state, params)


def test_masked_decay():
    optimizer = ct.k_adam(0.1, 0.9, 0.99, weight_decay=1.0, mask={"w": True, "b": False})
    params = {"w": jnp.ones(2), "b": jnp.ones(2)}
    zeros = jax.tree.map(jnp.zeros_like, params)
    updates, _ = optimizer.update(zeros, optimizer.init(params), params)
    np.testing.assert_allclose(updates["w"], -0.1, atol=EPS)
    np.testing.assert_array_equal(updates["b"], 0)


@pytest.mark.parametrize(
    ("make", "word"),
    [
        (lambda: ct.k_adam(-0.1), "learning_rate"),
        (lambda: ct.k_adam(0.1, (0.9, 1.0), (0.9, 0.9)), "b1\\[1\\]"),
        (lambda: ct.k_adam(0.1, (0.9,), (0.9, 0.9)), "one of each"),
        (lambda: ct.adam_l2(0.1, b2=-0.5), "b2"),
        (lambda: ct.adam_prox(0.1, eps=float("nan")), "eps"),
        (lambda: ct.k_adam(0.1, decay="coupled"), "decay"),
        (lambda: ct.sgdw(0.1, momentum=1.0), "momentum"),
        (lambda: ct.sign_descent(0.1, weight_decay=-1), "weight_decay"),
        (lambda: ct.k_adam("fast"), "learning_rate"),
        (lambda: ct.adam_l2(0.1, b1=jnp.array(0.0)), "only a Python 0"),
    ],
)
def test_bad_hyperparameters_are_named(make, word):
    with pytest.raises(ValueError, match=word):
        make()


def test_sgdw_solves_ridge_with_its_own_coefficient():
    # EQUATIONS §8: h = 1, a = 2, α = .05, β = .9, λ_LH = .01 → 1.9607843137.
    optimizer = ct.sgdw(0.05, momentum=0.9, weight_decay=0.2)
    path = ct.run(
        optimizer, lambda x: jnp.sum((x - 2) ** 2) / 2, jnp.zeros(1), 3000, save_steps=[3000]
    )
    assert abs(float(path.params[0, 0]) - 1.9607843137) < 1e-9
