"""Preconditioned sharpness, what a flow's end is, and whether the experiment's claim can fail."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray

import ct_adam as ct
from ct_adam.diagnostics import preconditioned_sharpness
from ct_adam.theory import stability_edge
from experiments import _edge
from experiments.edge_of_stability import Config, check, numbers


@pytest.mark.parametrize("size", [1, 2, 12])
def test_sharpness_is_the_largest_eigenvalue_of_the_dense_matrix(size):
    rng = np.random.default_rng(size)
    square = rng.standard_normal((size, size))
    hessian = square @ square.T - 2 * np.eye(size)  # with negative eigenvalues too
    diagonal = rng.uniform(0.1, 3, size)

    def loss(params):
        whole = jnp.concatenate(params)
        return whole @ hessian @ whole / 2

    cut = size // 2
    params, divisor = ([x[:cut], x[cut:]] for x in (jnp.ones(size), jnp.asarray(diagonal)))
    scaled = hessian / np.sqrt(np.outer(diagonal, diagonal))
    for given, matrix in ((None, hessian), (divisor, scaled)):
        found = preconditioned_sharpness(loss, params, given, rtol=1e-10)
        np.testing.assert_allclose(found, np.linalg.eigvalsh(matrix)[-1], rtol=1e-8)


@pytest.mark.parametrize("wrong", [jnp.zeros(3), jnp.ones(2), jnp.array([1.0, jnp.nan, 1.0])])
def test_preconditioner_must_be_positive_and_like_the_parameters(wrong):
    with pytest.raises(ValueError, match="preconditioner"):
        preconditioned_sharpness(lambda x: jnp.sum(x**2), jnp.ones(3), wrong)


def test_hessian_that_is_not_finite_is_refused():
    with pytest.raises(ValueError, match="finite"):
        preconditioned_sharpness(lambda x: jnp.sum(jnp.log(x)), jnp.zeros(3))


@pytest.mark.parametrize(("b1", "decay"), [(0.0, 0.0), (0.9, 0.0), (0.5, 0.3)])
def test_a_multiplier_is_minus_one_at_the_edge(b1, decay):
    eta = 0.05
    curvature = stability_edge(eta, b1, decay)
    moment = np.array([b1, (1 - b1) * curvature])
    step = np.array([moment, [-eta * moment[0], 1 - eta * decay - eta * moment[1]]])
    assert np.abs(np.linalg.eigvals(step) + 1).min() < 1e-9


@pytest.mark.parametrize("wrong", [{"learning_rate": 0}, {"b1": 1.0}, {"weight_decay": -1}])
def test_edge_of_bad_input(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        stability_edge(**{"learning_rate": 0.1, **wrong})


@pytest.mark.parametrize("name", list(_edge.CASES))
def test_preconditioner_is_what_the_optimizer_divides_by(name):
    """P times the step is minus η times the direction, that of Adam from its moments."""
    case = _edge.CASES[name]
    problem, params = ct.problems.quadratic([1.0, 3.0, 10.0]), jnp.array([1.0, -2.0, 0.5])
    warm, count = 4, 6
    divisors = _edge.preconditioners(case.flow("stride 2"), problem, params, warm, count)
    path = ct.run(case.optimizer, problem, params, warm + count)
    assert path.params is not None
    gradients = np.asarray(jax.vmap(lambda x: problem.gradient(0, x))(path.params))
    first = np.zeros(3)
    for n in range(warm + count):
        first = case.b1 * first + (1 - case.b1) * gradients[n]
        if n >= warm:
            direction = first / (1 - case.b1 ** (n + 1))
            step = np.asarray(path.params[n + 1] - path.params[n])
            expected = -case.learning_rate * direction
            np.testing.assert_allclose(divisors[n - warm] * step, expected, rtol=1e-9)


def test_end_step_is_the_first_that_is_wrong_or_not_reached():
    assert np.isnan(_edge.end_step(np.array([0, 0.05, 0.1])))
    assert _edge.end_step(np.array([0, 0.2, 0.05])) == 1
    assert _edge.end_step(np.array([0, 0.05, np.nan, 0.01])) == 2


def test_oscillation_is_without_the_drift():
    steps = np.arange(7)
    path = (0.3 * steps + 0.01 * (-1.0) ** steps)[:, None]
    np.testing.assert_allclose(_edge.oscillation(path), 0.01)
    np.testing.assert_allclose(_edge.half_extent(path), 0.14)
    np.testing.assert_allclose(_edge.centre(path)[:, 0], 0.3 * (steps[:-1:2] + 0.5))


@pytest.mark.parametrize(
    "wrong",
    [
        {"optimizers": ("sgd",)},
        {"optimizers": ()},
        {"optimizers": ("gd", "gd")},
        {"seeds": 0},
        {"points": 1.5},
        {"budget": True},
        {"part": 0.0},
    ],
)
def test_configuration_that_makes_no_sense(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Config(**wrong)


def _found(**changes: float) -> xarray.DataTree:
    """A result of GD as it is expected, but for the changes."""
    value = {"sharpness": 2.1, "end": 300.0, "max_error": 0.01, "final_error": 1e-3, **changes}
    both = ("seed", "flow")

    def scalar(of_stride_1, of_stride_2):
        return (both, np.array([[of_stride_1, of_stride_2]]))

    node = xarray.Dataset(
        {
            "sharpness": (("seed", "where", "point"), np.full((1, 3, 2), value["sharpness"])),
            "end_step": scalar(value["end"], np.nan),
            "max_error": scalar(np.inf, value["max_error"]),
            "final_error": scalar(np.inf, value["final_error"]),
            "solver_steps": scalar(9, 9),
            "evaluations": scalar(9, 9),
            "estimate": scalar(np.inf, 1e-3),
            "verdict": scalar("period_two", "trusted"),
            "outcome": scalar("successful", "successful"),
        },
        coords={"seed": [0], "flow": list(_edge.FLOWS), "where": list(_edge.WHERE)},
        attrs={"threshold": 2.0, "order": 6},
    )
    return xarray.DataTree.from_dict({"gd": node})


def test_claim_holds_where_all_is_as_expected():
    assert check(_found()) == []
    assert set(numbers(_found())["gd"]) == {
        "largest sharpness times η",
        "stride 1, order 2",
        "stride 2, order 6",
    }


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"sharpness": 1.9}, "sharpness stays below"),
        ({"sharpness": np.nan}, "sharpness stays below"),
        ({"end": np.nan}, "stride 1 follows to the end"),
        ({"max_error": 0.2}, "at some step"),
        ({"max_error": np.inf}, "at some step"),
        ({"final_error": 0.02}, "at the end"),
        ({"final_error": np.nan}, "at the end"),
    ],
)
def test_claim_fails_in_a_sentence(change, words):
    (sentence,) = check(_found(**change))
    assert sentence.startswith("gd, seed 0: ")
    assert words in sentence
