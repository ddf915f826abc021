"""Flows with a degree above their order (EQUATIONS §1, other polynomials in Φ)."""

import importlib.util
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import ct_adam as ct
from ct_adam import theory
from ct_adam.flows.registry import flow_named
from ct_adam.theory.coefficients import DAMPED, EXTRA
from ct_adam.theory.interpolation import difference_weights
from experiments import _work
from tools import choosing_table

from .jax_reference import ripple
from .reference import BEGIN, CURVATURE

TABLE = list(EXTRA)
START = jnp.asarray(BEGIN)


def monomials(order, degree):
    """c_k of P(μ) = Σ c_k μ^k from the weights of the differences μ^{k+1} - μ^k."""
    weights = difference_weights(order, degree)
    assert len(weights) == degree
    return np.diff(np.concatenate([[0.0], weights, [0.0]])) * -1.0


@pytest.mark.parametrize("entry", TABLE)
def test_order_conditions(entry):
    """Of P(e^h) = h + O(h^{p+1}) at h = 0: Σ c_k k^j is 0, 1, 0, 0, … for j = 0 … p."""
    order, degree = entry
    c = monomials(order, degree)
    moments = [np.sum(c * np.arange(degree + 1.0) ** j) for j in range(order + 1)]
    # Sums of up to eight numbers below 2·7^3, each rounded.
    np.testing.assert_allclose(moments, [0, 1, *[0] * (order - 1)], atol=1e-12)
    # The next one is what the flow is wrong by: (h K/(p+1)) (-h)^p has K as its constant.
    next_moment = np.sum(c * np.arange(degree + 1.0) ** (order + 1))
    fact = np.prod(np.arange(1, order + 2))
    leading = theory.error_constant(order, degree) * (-1.0) ** (order + 1) / (order + 1)
    assert next_moment / fact == pytest.approx(leading, rel=1e-10)


@pytest.mark.parametrize("entry", TABLE)
def test_damping_and_moduli(entry):
    """The disc |μ| ≤ √0.9 is damped, and EQUATIONS' table of moduli is met on its rim."""
    c = monomials(*entry)
    for radius in (0.3, 0.7, 0.9**0.5, DAMPED):
        mu = radius * np.exp(1j * np.linspace(0, 2 * np.pi, 7919))
        assert np.polyval(c[::-1], mu).real.max() < 0
    real = np.linspace(-DAMPED, 1 - 1e-6, 10_001)
    assert np.polyval(c[::-1], real).max() < 0
    rim = 0.9**0.5 * np.exp(1j * np.linspace(0, np.pi, 20_001))
    table = {(2, 6): 1.0, (3, 7): 1.7}
    # Two digits are printed.
    assert np.abs(np.polyval(c[::-1], rim)).max() == pytest.approx(table[entry], abs=0.051)
    assert theory.stability_radius(*entry) >= DAMPED


@pytest.mark.parametrize("entry", TABLE)
def test_stability_radius_is_where_a_mode_turns(entry):
    radius = theory.stability_radius(*entry)
    c = monomials(*entry)
    circle = np.exp(1j * np.linspace(0, np.pi, 10_001))
    assert np.polyval(c[::-1], 0.99 * radius * circle).real.max() < 0
    if entry[0] == 2:
        assert radius == 1
    else:
        assert np.polyval(c[::-1], min(1, 1.01 * radius) * circle).real.max() > 0
        assert theory.smallest_stride(entry[0], 0.99, entry[1]) == np.ceil(
            np.log(radius) / np.log(0.99)
        )


def test_the_script_derives_the_table():
    """One entry anew, and its optimum against others nearby."""
    path = Path(__file__).parents[1] / "tools" / "derive_coefficients.py"
    spec = importlib.util.spec_from_file_location("derive_coefficients", path)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    assert set(script.WANTED) == set(EXTRA)
    # A fifth of the points: they are apart by less than the table's own tolerance of M, 0.5 %.
    found = script.largest_rate(2, script.derive(2, 6, DAMPED, 200), DAMPED)
    kept = np.array(EXTRA[2, 6])
    least = script.largest_rate(2, kept, DAMPED)
    assert least == pytest.approx(found, rel=5e-3)
    steps = np.random.default_rng(0).normal(size=(200, 4)) * 0.03
    best = min(script.largest_rate(2, kept + step, DAMPED) for step in steps)
    assert least < 1.002 * best  # the polygon of 64 sides
    assert script.derive(4, 6, DAMPED, 200) is None  # EQUATIONS: order 4 needs degree 8


@pytest.mark.parametrize(("order", "degree", "stride"), [(2, 6, 1), (3, 7, 2)])
def test_field_of_a_linear_map_is_its_rate(order, degree, stride):
    flow = ct.InterpolatingFlow(optax.sgd(0.05), order, stride, degree)

    def quadratic(x):
        return jnp.sum(CURVATURE * x**2) / 2

    field = flow.vector_field(0.0, flow.init(quadratic, START), quadratic).params
    mu = 1 - 0.05 * CURVATURE
    rates = np.polyval(monomials(order, degree)[::-1], mu**stride) / stride
    # Sums of a dozen numbers of order one.
    np.testing.assert_allclose(field, rates * np.asarray(START), rtol=1e-12, atol=1e-12)
    ours = theory.interpolated_rate(mu, order, stride, degree)
    np.testing.assert_allclose(ours.real, rates, rtol=1e-11, atol=1e-13)
    assert flow.evaluations == degree * stride


def test_tail_is_the_first_term_left_out():
    """Of a linear map K(1-μ)^{p+1}/((p+1)q) θ, with μ^q and K from the moments of P."""
    order, degree, stride = 2, 6, 2
    flow = ct.InterpolatingFlow(optax.sgd(0.05), order, stride, degree)

    def line(x):
        return jnp.sum(x**2) / 2

    found = flow.differences(0.0, flow.init(line, jnp.ones(3)), line)
    power = 0.95**stride
    c = monomials(order, degree)
    constant = 3 * np.sum(c * np.arange(degree + 1.0) ** 3) / -6
    expected = constant * (1 - power) ** 3 / (3 * stride)
    assert float(found.tail) == pytest.approx(expected, rel=1e-10)
    rate = np.polyval(c[::-1], power) / stride
    assert float(found.speed) == pytest.approx(abs(rate), rel=1e-12)


def test_follows_as_its_order_says():
    """On the problem of EQUATIONS' table a degree loses its error constant, not its order: order 2
    has the error 2.9e-3 there, order 1 1.4e-2."""
    adam, where = optax.adam(0.03), {"warm_steps": 1, "save_steps": np.arange(0, 301, 10)}
    path = ct.solve(ct.InterpolatingFlow(adam, 2, 1, 6), ripple, START, 300, **where)
    error = ct.compare(path, ct.run(adam, ripple, START, 300, **where)).max_error
    print(f"error {error:.2e}, {int(path.stats['num_steps'])} solver steps")
    # A factor of two for the modes that are not slow, for which K is no measure.
    assert 2.9e-3 < error < 2 * theory.error_constant(2, 6) * 2.9e-3
    assert (path.trust.order, path.trust.stride, path.trust.degree) == (2, 1, 6)


def test_flows_of_the_experiment_are_the_packages():
    """`TracedFlow` has its numbers in arrays: the same field as the flow by its name."""

    adam = optax.adam(0.03)
    for variant in (_work.plain(3, 2), _work.Variant(3, 2, 7), _work.plain(6)):
        flow = flow_named(f"interpolating-{variant.name}", adam)
        assert (flow.order, flow.stride, flow.degree) == variant[:3]
        state = flow.init(ripple, START)
        ours = _work.TracedFlow(adam, variant).vector_field(0.0, state, ripple)
        theirs = flow.vector_field(0.0, state, ripple)
        for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ((2, 1, 9), r"order 2 with degree 9.*among \(2, 6\)"),
        ((4, 1, 2), r"order 4 with degree 2"),
        (("auto", 1, 4), "'auto' has no degree"),
    ],
)
def test_unknown_degrees_list_those_there_are(arguments, complaint):
    with pytest.raises(ValueError, match=complaint):
        ct.InterpolatingFlow(optax.sgd(0.1), *arguments)


def test_names():
    adam = optax.adam(0.1)
    for name, expected in {
        "2d6": (2, 1, 6), "3d7x2": (3, 2, 7), "12": (12, 1, 12), "3d3": (3, 1, 3),
    }.items():  # fmt: skip
        flow = flow_named(f"interpolating-{name}", adam)
        assert (flow.order, flow.stride, flow.degree) == expected
    for name in ("autod6", "2d", "2d0", "d4"):
        with pytest.raises(ValueError, match="unknown"):
            flow_named(f"interpolating-{name}", adam)
    with pytest.raises(ValueError, match="interpolating-2d5: There are no coefficients"):
        flow_named("interpolating-2d5", adam)


def test_the_page_shows_what_was_measured():
    """`python tools/choosing_table.py` writes the table; sentences above are held to nothing."""
    found = json.loads(choosing_table.RECORD.read_text(encoding="utf-8"))["found"]
    page = choosing_table.PAGE.read_text(encoding="utf-8")
    assert choosing_table.rewritten(page, found) == page
    rows = choosing_table.table(found).splitlines()[2:]
    assert len(rows) == 20
    assert all(row in page for row in rows)
    assert list(choosing_table.CASES) == list(_work.CASES)
    for name, (_, steps) in choosing_table.CASES.items():
        assert steps == _work.CASES[name].steps


def test_a_row_of_the_page():
    choice = {
        "by gradients": "2, Tsit5, PI, rtol 0.001: 0.59 times the optimizer's gradients, "
        "144 solver steps, error 1.2e-05",
        "by solver steps": "no flow",
        "take": "the optimizer",
    }
    found = {name: {"log": "not a row"} for name in choosing_table.CASES}
    found["edge"] = {"error 0.1": choice, "error 0.01": choice | {"take": "2"}}
    first, second = choosing_table.table(found).splitlines()[2:]
    past = "digits MLP past the edge, RMSProp, η = 0.003"
    cells = "`2`, Tsit5, PI, rtol 0.001 | 0.59 | – | –"
    assert first == f"| {past} | 0.1 | {cells} | the optimizer |"
    assert second == f"|  | 0.01 | {cells} | `2` |"
