"""What `bounds` measures against closed forms and NumPy, and whether its claim can fail."""

import jax.numpy as jnp
import numpy as np
import pytest
import xarray
from scipy.optimize import minimize_scalar

import ct_adam as ct
from experiments import _bounds, _bounds_networks
from experiments._bounds_tables import BOUNDARIES, on_the_curve
from experiments.bounds import CROSSINGS, Config, check, numbers

from .reference import adam_updates, discrete_bound


@pytest.mark.parametrize(("b1", "b2"), [(0.9, 0.999), (0.9, 0.95)])
def test_crossings_are_the_roots_of_polynomials(b1, b2):
    curve = _bounds.normal_curve(b1, b2)
    k = b1**3 + 2 * b2**3
    # b2 = b1²: b1³ + 2 b1⁶ = K, quadratic in b1³.
    x = np.cbrt((np.sqrt(1 + 8 * k) - 1) / 4)
    # C = 0: b2 = b1/(2 − b1), so b1³ (2 − b1)³ + 2 b1³ = K (2 − b1)³.
    factor = np.polynomial.Polynomial([2, -1]) ** 3
    cube = np.polynomial.Polynomial([0, 0, 0, 1])
    roots = (cube * (factor + 2) - k * factor).roots()
    (y,) = roots[(abs(roots.imag) < 1e-9) & (roots.real > 0) & (roots.real < 1)].real
    # Spline and root to 1e-12; the roots of a polynomial of degree six to 1e-10.
    np.testing.assert_allclose(curve.crossings, [(y, y / (2 - y)), (x, x**2)], atol=1e-9)
    slopes = np.array([-(x**2) / (2 * x**4), 2 * x])
    cosine = (1 + slopes.prod()) / np.sqrt(1 + slopes**2).prod()
    # The spline's derivative: spacing 1e-4 cubed.
    np.testing.assert_allclose(curve.cosine_discrete, cosine, atol=1e-9)


def test_cosine_is_zero_on_the_normal_curve_and_on_no_other(monkeypatch):
    assert np.abs(_bounds.normal_curve(0.9, 0.999).cosine).max() < 1e-7

    def other(b1, b2, num):
        """b1² + 2 b2² = K."""
        k = b1**2 + 2 * b2**2
        x = np.linspace(np.sqrt(k - 2), 1, num + 2)[1:-1]
        return x, np.sqrt((k - x**2) / 2)

    monkeypatch.setattr(_bounds.theory, "normal_curve", other)
    curve = _bounds.normal_curve(0.9, 0.999)
    gradient = np.array([-2 / curve.b1**2, 1 / curve.b2**2])
    tangent = np.array([np.ones_like(curve.b1), -curve.b1 / (2 * curve.b2)])
    # The cosine with a level curve is the sine of the angle with the gradient of C.
    sine = (gradient[0] * tangent[1] - gradient[1] * tangent[0]) / np.sqrt(
        (gradient**2).sum(0) * (tangent**2).sum(0)
    )
    assert np.abs(sine).max() > 0.02
    np.testing.assert_allclose(np.abs(curve.cosine), np.abs(sine), atol=1e-7)


@pytest.mark.parametrize(("b1", "b2"), [(0.9, 0.999), (0.968, 0.968), (0.995, 0.954)])
def test_ratios_of_the_optimizer(b1, b2):
    gradients = _bounds.random_gradients(50, 3, seed=1)
    ratio = _bounds.optimizer_ratios(b1, b2, gradients)
    expected = np.abs(adam_updates(gradients, b1, b2)) / discrete_bound(b1, b2, 50)[:, None]
    # Fifty steps of a few units in the last place.
    np.testing.assert_allclose(ratio[:, 1:], expected, rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(ratio[:, 0], 1, rtol=1e-12)


def test_ratios_of_a_flow_with_log_rates_are_the_optimizers():
    """At whole steps a held stream's `log` flow is the optimizer, its bound the discrete one."""
    gradients = _bounds.random_gradients(40, 2, seed=2)
    flow = _bounds.flow_ratios(_bounds.FLOWS[0], 0.95, 0.93, gradients)
    optimizer = _bounds.optimizer_ratios(0.95, 0.93, gradients)
    # rtol 1e-9 a solver step, about two a step.
    np.testing.assert_allclose(flow["held"], optimizer, atol=1e-7)
    # A continuous g(s) may be held too: its bound is no smaller.
    assert np.all(flow["flow"] <= flow["held"] * (1 + 1e-12))


def test_the_papers_bound_is_exceeded_as_in_closed_form():
    """After one gradient: √((1−e^{−b})/(1−b2)) · (1−b1)/(1−e^{−a})."""

    def excess(b2, b1=0.999):
        a, b = (1 - b1) / b1, (1 - b2) / b2
        return np.sqrt((1 - np.exp(-b)) / (1 - b2)) * (1 - b1) / (1 - np.exp(-a))

    best = minimize_scalar(lambda b2: -excess(b2), bounds=(0.1, 0.9), method="bounded")
    b1, b2, steps, ratio = _bounds.largest_excess()
    assert (b1, steps) == (pytest.approx(0.999), 1)
    # A grid of 0.005 in b2 around a maximum of curvature below 2: 0.0025².
    assert 0 <= -best.fun - ratio < 2e-5
    assert b2 == pytest.approx(best.x, abs=0.005)
    found = _bounds.continuous_ratios(b1, b2, 20)
    # rtol 1e-9 a solver step, some hundred of them.
    np.testing.assert_allclose(found["continuous"][0], excess(b2), rtol=1e-7)
    np.testing.assert_allclose(found["flow"], 1, rtol=1e-7)


@pytest.mark.parametrize("r", [0.1, 0.37, 0.9])
def test_cap_is_the_largest_over_all_times(r):
    scale = np.array([0.05, 0.5 * r / (1 - r), 2 * r / (1 - r), 1e4])
    y = np.geomspace(1e-7, 1, 200_001)
    largest = (y**r / (y + 1 / scale[:, None])).max(axis=1)
    # A grid of 8e-5 in ln y, curvature at most ¼.
    np.testing.assert_allclose(_bounds.cap(r, scale), largest, rtol=1e-9)


def test_caps_are_those_of_the_recursion_and_of_decaying_moments(monkeypatch):
    monkeypatch.setattr(_bounds, "FORGOTTEN", 1e-3)  # short, and the bias factors with it
    b1, b2, scales = 0.95, 0.85, np.array([1e2, 1e4])
    found = _bounds.caps([(b1, b2)], scales)[0]
    sigma, before = _bounds.EPS * scales, int(np.ceil(np.log(1e-3) / np.log(b1)))
    gradients = np.vstack([np.tile(sigma, (before + 1, 1)), np.zeros((120, 2))])
    optimizer = np.abs(adam_updates(gradients, b1, b2, _bounds.EPS))[before:].max(axis=0)
    # A hundred steps of a few units in the last place; the flow: rtol 1e-9 a solver step.
    np.testing.assert_allclose(found[0], optimizer, rtol=1e-11)
    np.testing.assert_allclose(found[1], optimizer, rtol=1e-6)
    s = np.arange(121)[:, None]

    def corrected(b):
        """A `lag` flow's moment of a unit gradient: 1 − b^{w+1} at the hand-over, then decaying."""
        left, decay = 1 - b ** (before + 1), np.exp(-(1 - b) / b * s)
        return left * decay / (1 - (1 - left) * decay)

    lag = sigma * corrected(b1) / (sigma * np.sqrt(corrected(b2)) + _bounds.EPS)
    np.testing.assert_allclose(found[2], lag.max(axis=0), rtol=1e-6)


def test_pairs_lie_on_the_curve_in_order_and_the_default_is_among_them():
    b1, b2 = on_the_curve(9)
    np.testing.assert_allclose(b1**3 + 2 * b2**3, 0.9**3 + 2 * 0.999**3, rtol=1e-14)
    assert np.all(np.diff(b1) > 0)
    assert (0.9, 0.999) in zip(b1, b2, strict=True)
    x, y = _bounds.far_pair()
    assert x**3 + 2 * y**3 == pytest.approx(0.9**3 + 2 * 0.999**3, rel=1e-14)


def test_random_gradients_are_what_they_are_called():
    steps, size = 400, 100
    found = _bounds.random_gradients(steps, size, seed=0)
    normal, mean, heavy, sparse = (x.ravel() for x in np.split(found, 4, axis=1))
    assert np.array_equal(found, _bounds.random_gradients(steps, size, seed=0))
    error = 5 / np.sqrt(normal.size)  # five standard errors
    assert abs(normal.mean()) < error > abs(mean.mean() - 1)
    assert abs((sparse != 0).mean() - 0.01) < 5 * np.sqrt(0.01 / sparse.size)
    # Student's t with two degrees of freedom: P(|t| > x) = 1 − x/√(2 + x²).
    tail = 1 - 10 / np.sqrt(102)
    assert abs((np.abs(heavy) > 10).mean() - tail) < 5 * np.sqrt(tail / heavy.size)


def test_quantiles_and_exceedance_leave_zeros_out():
    ratio = np.array([[0, 0.25, 0.5], [0, 0.75, 1.0]])
    np.testing.assert_allclose(_bounds.quantiles_of(ratio), [0.625, 0.9925, 1.0])
    found = _bounds.exceedance_of(ratio)
    expected = [(ratio[ratio > 0] >= t).mean() for t in _bounds.THRESHOLDS]
    np.testing.assert_allclose(found, expected)
    assert (found[0], found[-1]) == (1, 0.25)


def test_network_in_numbers_is_that_of_its_coordinates():
    """A stream in place of a network: the recursion gives every ratio, the stream the gradients."""
    steps = 200
    gradients = np.random.default_rng(3).standard_normal((steps, 5))
    gradients[:, 2] = 0
    gradients[:120, 4] = 0
    found = _bounds_networks.ratios(
        ct.problems.GradientStream({"w": gradients}), {"w": jnp.zeros(5)}, steps, 1e-3
    )
    ratio = np.abs(adam_updates(gradients, 0.9, 0.999)) / discrete_bound(0.9, 0.999, steps)[:, None]
    live = np.where(ratio > 0, ratio, np.nan)
    expected = np.nanquantile(live, _bounds.QUANTILES, axis=1, method="lower").T
    # u is read off Δθ: two roundings more.
    np.testing.assert_allclose(found["quantiles"], expected, rtol=1e-11)
    np.testing.assert_allclose(found["live"], (ratio > 0).mean(axis=1))
    late = ratio[100:][ratio[100:] > 0]
    parts = [(late >= t).mean() for t in _bounds.THRESHOLDS[:-1]]
    np.testing.assert_allclose(found["exceedance"][:-1], parts)
    room = np.flatnonzero(discrete_bound(0.9, 0.999, steps) >= 2)[0]
    for half, (low, high) in enumerate([(room, 100), (100, steps)]):
        n, which = np.unravel_index(ratio[low:high].argmax(), (high - low, 5))
        step = int(found["nearest_step"][half])
        assert step == low + n + 1
        assert found["nearest_name"][half] == f"['w'][{which}]"
        np.testing.assert_allclose(found["nearest_ratio"][half], ratio[low + n, which], rtol=1e-11)
        seen = found["nearest_gradient"][half]
        np.testing.assert_array_equal(seen[:step], gradients[:step, which])
        assert np.all(np.isnan(seen[step:]))


@pytest.mark.parametrize(
    "wrong",
    [
        {"networks": ("resnet",)},
        {"networks": ("digits MLP", "digits MLP")},
        {"pairs": 0},
        {"steps": 1},
        {"size": True},
        {"flows": 4},
        {"network_steps": 150},
        {"seed": -1},
    ],
)
def test_configuration_that_makes_no_sense(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Config(**wrong)


def _found(**changes: float) -> xarray.DataTree:
    """A result as it is expected, but for the changes."""
    value = {
        "cosine": 1e-9, "crossing": 0.0, "optimizer": 1.0, "optimizer_worst": 1.0, "held": 1.0,
        "held_worst": 1.0, "flow_worst": 1.0, "excess": 0.139, "slope": 0.369, "largest": 1.0,
        "network": 0.9, **changes,
    }  # fmt: skip
    crossing = np.array(list(CROSSINGS.values())) + value["crossing"]
    quantile, end, decays = [0.5, 0.99, 1.0], ["least", "largest"], {"b1": ("pair", [0.95])}
    decays["b2"] = ("pair", [0.85])

    def full(shape, key):
        return np.full(shape, value[key])

    nodes = {
        "curves": xarray.Dataset(
            {
                "cosine": (("curve", "point"), full((1, 3), "cosine")),
                "crossing": (("curve", "boundary", "decay"), crossing[None]),
                "cosine_discrete": ("curve", [-0.01]),
            },
            coords={"curve": ["one"], "boundary": list(BOUNDARIES)},
        ),
        "optimizer": xarray.Dataset(
            {
                "quantiles": (("pair", "stream", "quantile"), full((1, 1, 3), "optimizer")),
                "largest": ("pair", full(1, "optimizer")),
                "worst": (("pair", "end"), full((1, 2), "optimizer_worst")),
                "bound": ("pair", [2.0]),
            },
            coords={**decays, "stream": ["normal"], "quantile": quantile, "end": end},
        ),
        "flows": xarray.Dataset(
            {
                "largest": (("flow", "pair", "kind"), full((1, 1, 3), "held")),
                "quantiles": (("flow", "pair", "kind", "quantile"), full((1, 1, 3, 3), "held")),
                "worst": (("flow", "pair", "kind", "end"), full((1, 1, 3, 2), "held_worst")),
            },
            coords={
                **decays, "flow": ["lag, zero"], "kind": ["held", "flow", "continuous"],
                "quantile": quantile, "end": end,
            },
        ),
        "paper": xarray.Dataset(
            {
                "worst": (("pair", "end"), full((1, 2), "flow_worst")),
                "excess": ("pair", full(1, "excess")),
                "steps": ("pair", [1]),
            },
            coords={**decays, "end": end},
        ),
        "caps": xarray.Dataset(
            {
                "slope": (("pair", "side"), full((1, 1), "slope")),
                "exponent": (("pair", "side"), [[0.369]]),
                "largest": (("pair", "side", "scale"), full((1, 1, 2), "largest")),
                "closed_form": (("pair", "side", "scale"), np.ones((1, 1, 2))),
            },
            coords={**decays, "side": ["optimizer"]},
        ),
        "transformer": xarray.Dataset(
            {
                "quantiles": (("step", "quantile"), full((4, 3), "network")),
                "nearest_gradient": (("half", "step"), np.zeros((2, 4))),
                "nearest_step": ("half", [2, 4]),
                "nearest_ratio": ("half", [0.9, 0.5]),
                "nearest_name": ("half", ["a", "b"]),
            },
            coords={"half": ["first", "second"]},
        ),
    }  # fmt: skip
    return xarray.DataTree.from_dict(nodes)


def test_claim_holds_where_all_is_as_expected():
    assert check(_found()) == []
    found = numbers(_found())
    assert set(found) == {"curves", "optimizer", "flows", "paper", "networks", "caps"}
    assert found["networks"]["transformer"]["nearest, second half"]["step"] == 4


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"cosine": 0.01}, "level curve with the cosine 0.01"),
        ({"cosine": np.nan}, "level curve with the cosine"),
        ({"optimizer": 1 + 1e-9}, "the optimizer is 1.000000001"),
        ({"optimizer": np.nan}, "the optimizer is nan"),
        ({"optimizer_worst": 1 - 1e-9}, "worst case of the optimizer stays"),
        ({"held": 1.01}, "a flow is 1.01"),
        ({"held_worst": 0.999}, "worst case of a flow stays"),
        ({"held_worst": np.nan}, "worst case of a flow stays at nan"),
        ({"flow_worst": 0.999}, "under g(s) stays"),
        ({"flow_worst": 1.001}, "under g(s) is 1.001"),
        ({"network": 1.1}, "transformer is 1.1"),
        ({"excess": 0.12}, "paper's bound by 0.12"),
        ({"excess": 0.2}, "paper's bound by 0.2"),
        ({"excess": np.nan}, "paper's bound by nan"),
        ({"slope": 0.38}, "slope is 0.38"),
        ({"slope": np.nan}, "slope is nan"),
        ({"largest": 0.99}, "0.01 off its closed form"),
    ],
)
def test_claim_fails_in_a_sentence(change, words):
    (sentence,) = check(_found(**change))
    assert words in sentence


def test_claim_fails_at_both_crossings():
    sentences = check(_found(crossing=3e-6))
    assert [s.split(" at ")[0] for s in sentences] == [
        f"The normal curve crosses {boundary}" for boundary in BOUNDARIES
    ]
