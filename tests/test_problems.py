"""Problems against NumPy, and the rule that says which gradient a flow sees when."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ct_adam import problems


def central_difference(value, params, direction, h=1e-5):
    plus = value(jax.tree.map(lambda p, d: p + h * d, params, direction))
    minus = value(jax.tree.map(lambda p, d: p - h * d, params, direction))
    return (plus - minus) / (2 * h)


@pytest.mark.parametrize("seed", [None, 3])
def test_quadratic_has_its_spectrum(seed):
    spectrum, minimum = np.array([1.0, 4.0, 9.0]), np.array([1.0, -2.0, 0.5])
    problem = problems.quadratic(spectrum, minimum, rotation_seed=seed)
    hessian = jax.hessian(problem.value)(jnp.zeros(3))
    np.testing.assert_allclose(np.linalg.eigvalsh(hessian), spectrum, rtol=1e-13)
    np.testing.assert_allclose(problem.gradient(0, jnp.asarray(minimum)), 0, atol=1e-15)
    assert problem.value(jnp.asarray(minimum)) == 0
    diagonal = np.allclose(hessian, np.diag(np.diag(hessian)))
    assert diagonal == (seed is None)


def test_rosenbrock():
    x = np.array([0.3, -1.2, 0.7])
    expected = sum(100 * (x[i + 1] - x[i] ** 2) ** 2 + (1 - x[i]) ** 2 for i in range(2))
    np.testing.assert_allclose(problems.rosenbrock().value(jnp.asarray(x)), expected, rtol=1e-14)
    np.testing.assert_array_equal(problems.rosenbrock().gradient(0, jnp.ones(3)), 0)


def numpy_cross_entropy(params, inputs, labels):
    hidden = inputs
    for weight, bias in params[:-1]:
        hidden = np.tanh(hidden @ np.asarray(weight) + np.asarray(bias))
    logits = hidden @ np.asarray(params[-1][0]) + np.asarray(params[-1][1])
    logs = logits - np.log(np.sum(np.exp(logits), axis=1, keepdims=True))
    return -np.mean(logs[np.arange(len(labels)), labels])


@pytest.mark.parametrize("hidden", [(), (8,), (8, 6)])
def test_digits_networks(hidden):
    problem, params = problems.digits_mlp(hidden, images=50, seed=1)
    inputs, labels = problems.digits_data(50)
    assert inputs.max() <= 1
    assert len(params) == len(hidden) + 1
    expected = numpy_cross_entropy(params, inputs, labels)
    np.testing.assert_allclose(problem.value(params), expected, rtol=1e-12)
    rng = np.random.default_rng(0)
    direction = jax.tree.map(lambda p: jnp.asarray(rng.standard_normal(p.shape)), params)
    slope = sum(
        jnp.vdot(g, d)
        for g, d in zip(
            jax.tree.leaves(problem.gradient(0, params)), jax.tree.leaves(direction), strict=True
        )
    )
    # Central differences: h² |f'''| ~ 1e-10 × 100 and rounding 1e-16/h ~ 1e-11.
    difference = central_difference(problem.value, params, direction)
    np.testing.assert_allclose(slope, difference, rtol=1e-6, atol=1e-8)


def test_logistic_is_convex():
    problem, params = problems.digits_logistic(images=60)
    flat, unravel = jax.flatten_util.ravel_pytree(params)
    rng = np.random.default_rng(0)
    a, b = (jnp.asarray(rng.standard_normal(flat.size)) for _ in range(2))
    values = [float(problem.value(unravel(x))) for x in (a, (a + b) / 2, b)]
    assert values[1] < (values[0] + values[2]) / 2


def test_streams():
    np.testing.assert_array_equal(problems.constant_stream(3, 2.0).gradients[:, 0], [2, 2, 2])
    np.testing.assert_array_equal(problems.alternating_stream(4).gradients[:, 0], [1, -1, 1, -1])
    random = problems.random_stream(2000, 3, seed=5, mean=1.0).gradients
    # Mean and variance of 6000 normal numbers: three standard errors, 1/√6000 and √(2/6000).
    assert abs(float(random.mean()) - 1) < 3 / np.sqrt(6000)
    assert abs(float(random.var()) - 1) < 3 * np.sqrt(2 / 6000)
    again = problems.random_stream(2000, 3, seed=5, mean=1.0).gradients
    np.testing.assert_array_equal(random, again)
    worst = problems.worst_case_stream(0.9, 0.81, 10).gradients[:, 0]
    np.testing.assert_allclose(worst, 0.9 ** np.arange(10), rtol=1e-14)


def test_which_gradient_rules_when():
    # EQUATIONS §1: on (n, n+1] a flow sees gradient n + 1; those that lag hold gradient ⌊s⌋.
    stream = problems.constant_stream(9)
    times = np.array([0.0, 0.5, 1.0, 1.25, 2.0])
    np.testing.assert_array_equal(stream.seen(times), [0, 1, 1, 2, 2])
    np.testing.assert_array_equal(stream.seen(times, lag=1), [0, 0, 0, 1, 1])
    np.testing.assert_array_equal(stream.break_points(0, 4), [1, 2, 3])
    smooth = problems.ContinuousStream(lambda s: jnp.sin(s)[None])
    assert smooth.seen(0.3) == 0.3
    assert smooth.break_points(0, 4) is None
    np.testing.assert_allclose(smooth.gradient(0.3, jnp.zeros(1)), [np.sin(0.3)], rtol=1e-15)


def test_pytree_streams():
    stream = problems.GradientStream({"a": jnp.ones((4, 2)), "b": jnp.zeros((4, 3))})
    assert stream.gradient(2, None)["b"].shape == (3,)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: problems.GradientStream(jnp.float64(1.0)), "leading axis"),
        (lambda: problems.GradientStream({"a": jnp.ones(3), "b": jnp.ones(4)}), "leading axis"),
        (lambda: problems.quadratic([[1.0]]), "eigenvalues"),
        (lambda: problems.quadratic([1.0, float("inf")]), "finite"),
        (lambda: problems.quadratic(["a"]), "is not a number"),
        (lambda: problems.constant_stream(1e3), "steps = 1000.0 must be a whole number"),  # pyright: ignore[reportArgumentType]
        (lambda: problems.digits_data(5000), "between 1 and 1797"),
        (lambda: problems.digits_data("all"), "images = 'all' must be"),  # pyright: ignore[reportArgumentType]
    ],
)
def test_bad_problems(call, words):
    with pytest.raises(ValueError, match=words):
        call()
