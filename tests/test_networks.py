"""Networks on data as problems: both sides, from the registry, and that they train."""

import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ct_adam as ct
from ct_adam.problems import PROBLEMS, image_network, problem_named, text_network
from ct_adam.problems.models import count_parameters


@pytest.mark.slow
@pytest.mark.parametrize("name", ["digits_convnet", "topics_transformer"])
def test_embedded_networks_on_both_sides(name):
    problem, params = problem_named(name, seed=1)
    flow = ct.AdamFlow(1e-3, eps=1e-2)
    path = ct.run(flow, problem, params, 4, save_steps=[0, 4])
    ode = ct.solve(flow, problem, params, 4, save_steps=[0, 4], rtol=1e-4, atol=1e-6)
    assert path.loss[0] == ode.loss[0]
    # Between whole steps a flow moves while its batch is held: apart by η or so a coordinate,
    # where four steps of wrong batches would be apart by up to 8 η.
    assert ct.compare(ode, path).max_error < 2e-3
    held_out = jax.tree.leaves(problem.evaluation)[0]
    assert len(held_out) in (64, 256)


def test_every_registered_problem_is_a_pair(real_data):
    real_data("mnist/t10k-images-idx3-ubyte.gz", "tinyshakespeare/input.txt")
    for name in PROBLEMS:
        problem, params = problem_named(name)
        assert np.isfinite(problem.value(params))
        assert count_parameters(params) > 0


def test_held_out_examples_are_not_trained_on():
    problem, _ = image_network("digits", batch=8, held_out=37)
    assert len(problem.evaluation[0]) == 37
    assert len(problem.data[0]) == 1437 - 37
    with pytest.raises(ValueError, match="held_out"):
        image_network("digits", held_out=5000)


def test_text_windows():
    source = ct.problems.Text(np.arange(100) % 5, "abcde")
    problem, _ = text_network(source, context=9, batch=2, held_out=3)
    # A hundred characters are ten windows of ten, three of them held out.
    assert problem.data.shape == (7, 10)
    np.testing.assert_array_equal(problem.evaluation.ravel(), np.arange(70, 100) % 5)


def trained(problem, params, steps, learning_rate):
    begun = time.perf_counter()
    optimizer = ct.k_adam(learning_rate, 0.9, 0.999, weight_decay=0.01)
    path = ct.run(optimizer, problem, params, steps, save_steps=[0, steps], save=_nothing)
    seconds = time.perf_counter() - begun
    print(f"{count_parameters(params)} parameters: {path.loss} in {seconds:.0f} s")
    return float(path.loss[-1])


def _nothing(step, params, update, loss):
    return step


@pytest.mark.slow
def test_the_small_transformer_trains_on_shakespeare(real_data):
    """2000 steps of 16 × 32 characters to 2.2 nats on held-out text; half a minute on two cores."""
    real_data("tinyshakespeare/input.txt")
    problem, params = text_network("tinyshakespeare", held_out=256, dtype=jnp.float32)
    # From ln 65 = 4.17; letters' own frequencies give 3.3 and pairs of letters 2.5.
    assert trained(problem, params, 2000, 3e-3) < 2.2


@pytest.mark.slow
def test_the_small_convnet_trains_on_mnist(real_data):
    """1200 steps of 32 of the 10 000 images to 0.7 on the held-out; 20 seconds on two cores."""
    real_data("mnist/t10k-images-idx3-ubyte.gz")
    problem, params = image_network("mnist", "test", "batch", held_out=1000, dtype=jnp.float32)
    assert trained(problem, params, 1200, 1e-2) < 0.7  # from ln 10 = 2.3


def test_a_negative_seed_is_refused():
    with pytest.raises(ValueError, match="seed = -1 must not be negative"):
        problem_named("normalized_weight", seed=-1)
