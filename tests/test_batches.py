"""Minibatches: the same on both sides, from any step; models through one door."""

import hashlib

import equinox as eqx
import flax.linen
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import ct_adam as ct
from ct_adam.problems import Minibatches, fixed_batch, full_batch, trainable

DATA = np.random.default_rng(0).standard_normal((23, 3))


def mean_square(params, batch):
    return jnp.mean((batch - params) ** 2)


def test_epochs_visit_every_example_once():
    problem = Minibatches(mean_square, DATA, 5, seed=1)
    per_epoch = 23 // 5
    orders = []
    for epoch in range(3):
        steps = range(epoch * per_epoch, (epoch + 1) * per_epoch)
        chosen = np.concatenate([problem.indices(n) for n in steps])
        assert len(set(chosen.tolist())) == 20
        orders.append(tuple(chosen.tolist()))
    assert len(set(orders)) == 3
    other = Minibatches(mean_square, DATA, 5, seed=2)
    assert not np.array_equal(problem.indices(0), other.indices(0))


def test_independent_draws():
    problem = Minibatches(mean_square, DATA, 23, sampling="independent")
    chosen = np.concatenate([problem.indices(n) for n in range(400)])
    # 9200 draws from 23: each count 400 ± 5 standard deviations of √(400·22/23).
    counts = np.bincount(chosen, minlength=23)
    assert np.all(np.abs(counts - 400) < 5 * np.sqrt(400 * 22 / 23))


def test_both_sides_see_the_same_batches_by_hash():
    seen = {"run": {}, "solve": {}}

    def watched(side):
        def loss(params, batch):
            # A batch may be seen more than once: the solver evaluates between steps.
            jax.debug.callback(
                lambda x: seen[side].setdefault(hashlib.sha256(x.tobytes()).hexdigest(), 1), batch
            )
            return mean_square(params, batch)

        return Minibatches(loss, DATA, 5, seed=4, evaluation=DATA[:1])

    flow = ct.AdamFlow(0.01)
    ct.run(flow, watched("run"), jnp.zeros(3), 12)
    ct.solve(flow, watched("solve"), jnp.zeros(3), 12)
    jax.effects_barrier()
    # run takes the step after the last saved one: 13 batches there, and 0 … 12 in the flow; and
    # the one evaluation set on both sides.
    assert set(seen["run"]) == set(seen["solve"])
    assert len(seen["run"]) == 14


def test_a_flow_sees_batch_n_plus_1_after_step_n():
    problem = Minibatches(mean_square, DATA, 5, seed=3)
    params = jnp.ones(3)
    for time, step in ((0.0, 0), (0.2, 1), (1.0, 1), (1.5, 2)):
        gradient = problem.gradient(problem.seen(time), params)
        expected = jax.grad(mean_square)(params, DATA[np.asarray(problem.indices(step))])
        np.testing.assert_allclose(gradient, expected, rtol=1e-13)


def test_flow_follows_minibatch_adam():
    problem = Minibatches(mean_square, DATA, 5, seed=3)
    flow = ct.AdamFlow(1e-3, eps=1e-3)
    # The parameters move while a batch is held: a few η apart (EQUATIONS §1), where wrong batches
    # would add up to √100 η and more.
    error = ct.compare(
        ct.solve(flow, problem, jnp.zeros(3), 100), ct.run(flow, problem, jnp.zeros(3), 100)
    )
    assert error.max_error < 3e-3


def test_full_and_fixed_batch():
    whole = full_batch(mean_square, DATA)
    np.testing.assert_allclose(whole.value(jnp.zeros(3)), np.mean(DATA**2), rtol=1e-13)
    part = fixed_batch(mean_square, DATA, 7, seed=5)
    again = fixed_batch(mean_square, DATA, 7, seed=5)
    assert part.value(jnp.zeros(3)) == again.value(jnp.zeros(3))
    np.testing.assert_allclose(
        fixed_batch(mean_square, DATA, 23).value(jnp.zeros(3)), np.mean(DATA**2), rtol=1e-13
    )


def test_equinox_with_frozen_leaves():
    model = eqx.nn.MLP(3, "scalar", 4, 1, key=jax.random.key(0))
    mask = jax.tree.map(lambda _: False, model)
    mask = eqx.tree_at(lambda m: m.layers[-1].weight, mask, True)
    params, rebuild = trainable(model, mask)
    assert len(jax.tree.leaves(params)) == 1
    problem = full_batch(lambda p, x: jnp.mean(jax.vmap(rebuild(p))(x) ** 2), DATA)
    path = ct.run(ct.k_adam(0.1), problem, params, 5)
    moved = rebuild(jax.tree.map(lambda x: x[-1], path.params))
    assert not np.array_equal(moved.layers[-1].weight, model.layers[-1].weight)
    np.testing.assert_array_equal(moved.layers[0].weight, model.layers[0].weight)


def flax_linear():
    return nnx.Linear(3, 2, rngs=nnx.Rngs(0))


def linen_dense():
    module = flax.linen.Dense(2)
    return module, module.init(jax.random.key(0), jnp.ones((1, 3)))


@pytest.mark.parametrize("make", [flax_linear, linen_dense])
def test_flax_models(make):
    params, rebuild = trainable(make())
    problem = full_batch(lambda p, x: jnp.mean(rebuild(p)(x) ** 2), DATA.astype(np.float32))
    path = ct.run(ct.k_adam(0.1), problem, params, 10)
    assert path.loss[-1] < path.loss[0]
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == 8
    assert {leaf.dtype for leaf in jax.tree.leaves(path.params)} == {np.dtype("float32")}


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: Minibatches(mean_square, DATA, 24), "between 1 and the 23"),
        (lambda: Minibatches(mean_square, DATA, 2, sampling="all"), "sampling"),
        (lambda: fixed_batch(mean_square, DATA, 0), "size = 0 must be a whole number"),
        (lambda: fixed_batch(mean_square, DATA, "3"), "size = '3' must be"),  # pyright: ignore[reportArgumentType]
        (lambda: full_batch(mean_square, (DATA, DATA[:3])), "leading axis"),
        (lambda: trainable({"a": 1}), "no floating array to train"),
    ],
)
def test_bad_input(call, words):
    with pytest.raises(ValueError, match=words):
        call()
