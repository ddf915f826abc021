"""The experiment `meta_adaptive`: what it measures, against loops in NumPy and exact recursions."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray
from scipy import stats

from ct_adam.problems import NormalizedWeight
from ct_adam.problems.base import as_problem
from ct_adam.theory.scale_invariance import (
    ScaleInvariance,
    TensorInvariance,
    momentum_inner,
    weight_norm_path,
)
from experiments import _meta as seen
from experiments import _meta_claims as claims
from experiments import _meta_follow as follow
from experiments import _meta_labelled as labelled
from experiments import _meta_map as cells
from experiments import meta_adaptive as experiment

B2, EPS = 0.999, 1e-12
MATRIX = np.diag([1.0, 2.0, 5.0, 9.0]) + 0.3


def norm(x):
    return np.sqrt(np.sum(x**2))


def stage(moments, g, n, b1):
    """Moments after gradient n = 1, 2, …, and u."""
    m, v = b1 * moments[0] + (1 - b1) * g, B2 * moments[1] + (1 - B2) * g**2
    return (m, v), m / (1 - b1**n) / (np.sqrt(v / (1 - B2**n)) + EPS)


# ---- which optimizer the direction follows -------------------------------------------------------


def mixed(params):
    """Invariant in w, not in b, which is moved by w and moves it."""
    unit = params["w"] / jnp.linalg.norm(params["w"])
    return unit @ jnp.asarray(MATRIX) @ unit * (1 + params["b"] ** 2) + params["b"]


def mixed_gradient(w, b):
    unit = w / norm(w)
    quotient = unit @ MATRIX @ unit
    return (
        2 * (MATRIX @ unit - quotient * unit) / norm(w) * (1 + b**2),
        2 * b * quotient + 1,
    )


ETA, DECAY, B1, STEPS = 0.05, 0.8, 0.9, 30
START = {"w": np.array([1.0, -2.0, 0.5, 1.5]), "b": 0.7}


def by_numpy(lane, free_norms=()):
    """Every w and its norm; the rules of `follow.Lane` one by one."""
    w, b, first, second, path = START["w"], START["b"], (0.0, 0.0), (0.0, 0.0), []
    beside, begin = (0.0, 0.0), norm(START["w"])
    s = 0.0 if lane.rule == follow.SCALAR else begin**2
    for n in range(1, STEPS + 1):
        g, gb = mixed_gradient(w, b)
        if lane.rule == follow.EXACT:
            g = g * begin / free_norms[n - 1]
        first, u = stage(first, g, n, B1)
        beside, ub = stage(beside, gb, n, B1)
        second, u2 = stage(second, u, n, 0.0)
        b = b - ETA * (ub + DECAY * b)
        if lane.rule == follow.FREE:
            w = w - ETA * (u + DECAY * w)
        else:
            balance = begin * np.sqrt(2 * ETA * DECAY / lane.source)
            if lane.rule == follow.CONSTANT:
                rate = lane.factor * (balance / 2 if lane.second else ETA)  # √d is 2
            elif lane.rule == follow.SCALAR:
                s = B2 * s + (1 - B2) * u @ u
                rate = lane.factor * balance / np.sqrt(s / (1 - B2**n))
            elif lane.rule == follow.DERIVED:
                rate = ETA * begin / np.sqrt(s)
                s = (1 - ETA * DECAY) ** 2 * s + lane.source * ETA**2 * u @ u
            else:
                rate = ETA * begin / free_norms[n - 1]
                rate /= 1 - ETA * DECAY if lane.rule == follow.EXACT else 1
            w = w - rate * (u2 if lane.second else u)
            w = begin * w / norm(w)
        path.append(w)
    return np.array(path)


def test_every_candidate_is_numpys():
    lanes = follow.lanes_of(B1, (0.5, 1.0))
    del lanes["floor", 1.0]  # its start is drawn
    problem, params = as_problem(mixed), jax.tree.map(jnp.asarray, START)
    setting = follow.Setting(ETA, DECAY, B1, STEPS // 5, 5)
    mask = {"w": True, "b": False}
    found = follow.followed(problem, params, mask, list(lanes.values()), setting)
    free = by_numpy(lanes["free", 1.0])
    norms = np.array([norm(START["w"]), *map(norm, free)])
    # 30 steps of a recursion without chaos: rounding.
    np.testing.assert_allclose(found["norm"][:, 0], norms[5::5], rtol=1e-11)
    for i, lane in enumerate(lanes.values()):
        path = by_numpy(lane, norms)[4::5]
        units = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (path, free[4::5]))
        chord = np.linalg.norm(np.subtract(*units), axis=1)
        np.testing.assert_allclose(found["angle"][i, :, 0], 2 * np.arcsin(chord / 2), atol=1e-10)
    names = [name for name, _ in lanes]
    # The identity: only the free run's norm differs. All others do differ from it.
    assert found["angle"][names.index("exact")].max() < 1e-12
    rest = [i for i, name in enumerate(names) if name not in ("free", "exact")]
    assert found["angle"][rest, -1, 0].min() > 1e-3


def test_angle_of_neighbours_keeps_its_digits():
    one, other = jnp.array([[3.0, 0.0], [0.0, 1.0]]), jnp.array([[2.0, 2e-9], [-5.0, 0.0]])
    np.testing.assert_allclose(follow.between(one, other), [1e-9, np.pi / 2], rtol=1e-12)


# ---- what is recorded of a network ---------------------------------------------------------------


@pytest.fixture(scope="module")
def record():
    network: Any = seen.Network("", as_problem(mixed), jax.tree.map(jnp.asarray, START), None)  # pyright: ignore[reportArgumentType]
    pairs = ((0.02, 0.5), (0.01, 2.0))
    return pairs, seen.recorded(network, (seen.Cut(1, heads=False),), pairs, 0.8, 120)


def test_recorded_numbers_obey_the_exact_recursions(record):
    """‖W‖² and ⟨W, m⟩ step by step: each number is in one of them."""
    pairs, found = record
    for i, (eta, decay) in enumerate(pairs):
        one = {name: values[i, :, 0] for name, values in found.items()}
        path = weight_norm_path(
            one["norm"][0], one["update_norm"], eta, decay, inner=one["inner"], form="exact"
        )
        # Rounding, over 120 steps.
        np.testing.assert_allclose(path[:-1], one["norm"], rtol=1e-12)
        bias = 1 - 0.8 ** np.arange(1, 121)
        expected = momentum_inner(one["along_moment"] * bias, eta, decay, 0.8)
        size = np.abs(expected).max()
        np.testing.assert_allclose(one["with_moment"] * bias, expected, atol=1e-10 * size)
        assert size > 0
        np.testing.assert_allclose(
            one["cosine"], one["inner"] / one["norm"] / one["update_norm"], rtol=1e-12
        )
        # A gradient is orthogonal to its own W, no longer to later ones.
        assert np.abs(one["with_past"][:: seen.LAGS]).max() < 1e-12
        assert np.abs(one["with_past"][10 :: seen.LAGS]).min() > 1e-4
        assert np.all((one["evenness"] > 0) & (one["evenness"] <= 1))
        assert np.all((one["parallel"] > 0) & (one["parallel"] <= 1))


def test_heads_are_named_and_counted():
    row = TensorInvariance(".blocks[1].attention.key", (64, 64), "nearly", 0, 0, 2.0, (1, 1))
    other = row._replace(name=".blocks[0].weight", shape=(3, 3, 2, 5))
    unused = row._replace(name=".head", verdict="not")
    found = ScaleInvariance((unused, row, other), None)
    network = seen.Network("", None, None, found)  # pyright: ignore[reportArgumentType]
    cuts = seen.cuts_of(network)
    assert cuts == ((1, True), (2, False))
    names, sizes = seen.names_of(network, cuts)
    assert names == [*(f"[1].key, head {h}" for h in range(4)), "[0].weight"]
    assert sizes == [1024] * 4 + [90]


def test_mean_by_age_of_the_gradient():
    age = np.arange(100) % seen.LAGS
    values = np.stack([age, 2.0 * age + (np.arange(100) < 40)], 1)
    np.testing.assert_array_equal(
        seen.by_lag(values, 40), np.arange(seen.LAGS)[:, None] * [1.0, 2.0]
    )


# ---- the map -------------------------------------------------------------------------------------


def test_the_map_is_numpys():
    size, eta, decay, steps = 5, 0.05, 0.4, 40
    found = cells.mapped(size, (0.0, 3.0), (0.0, 0.8), eta, decay, steps, seed=3)
    rng = np.random.default_rng(3)
    start = rng.standard_normal(size)
    start *= np.sqrt(eta * size / (2 * decay)) / norm(start)
    spread = rng.standard_normal(size)
    gradient = jax.jit(lambda p, n, w: p.gradient(n, w))
    for k, (alone, scalar) in enumerate(cells.KINDS.values()):
        for i, signal in enumerate((0.0, 3.0)):
            problem = NormalizedWeight(np.eye(size)[0] if alone else spread, signal, seed=3)
            for j, b1 in enumerate((0.0, 0.8)):
                w, m, v, sums = start, 0.0, 0.0, []
                for n in range(steps):
                    g = np.asarray(gradient(problem, n, w))
                    m, v = (
                        b1 * m + (1 - b1) * g,
                        B2 * v + (1 - B2) * (np.mean(g**2) if scalar else g**2),
                    )
                    u = m / (1 - b1 ** (n + 1)) / np.sqrt(v / (1 - B2 ** (n + 1)))
                    sums.append((w @ w, u @ u, w @ u / norm(w) / norm(u)))
                    w = w - eta * (u + decay * w)
                square, power, cosine = np.mean(sums[steps // 2 :], axis=0)
                at = k, i, j
                assert found["norm"][at] == pytest.approx(np.sqrt(square), rel=1e-10)
                assert found["update_norm"][at] == pytest.approx(np.sqrt(power), rel=1e-10)
                assert found["cosine"][at] == pytest.approx(cosine, rel=1e-9, abs=1e-12)


# ---- claims and checks ---------------------------------------------------------------------------


FACTORS = (0.5, 1.0)
LANES = list(follow.lanes_of(0.9, FACTORS))
REACHED = {"exact": 0.0, "matched": 0.01, "derived, corrected": 0.02, "derived": 0.3, "floor": 0.0,
           "scalar": 0.2, "meta": 0.4, "adam": 0.1, "free": 0.0}  # fmt: skip


def direction_node():
    """Distances as in `REACHED`, half as far again at the factor 1; seeds differ by 1 %."""
    far = np.array([REACHED[name] * (1.5 if factor == 1 else 1) for name, factor in LANES])
    seeds = [
        {
            "angle": np.broadcast_to(far[:, None, None] * scale, (len(LANES), 4, 2)),
            "moved": np.ones((4, 2)),
            "norm": np.ones((4, 2)),
        }
        for scale in (0.99, 1.0, 1.01)
    ]
    return labelled.directions(seeds, LANES, "a case", 0.01, 0.1, 5)


def test_distances_and_verdicts():
    found = claims.direction(direction_node(), 2)
    # 1.5 times as far at ×1: those with a grid take ×0.5, the others have ×1 alone.
    assert found["distance"]["adam"]["mean"] == pytest.approx(0.1)
    assert found["distance"]["adam"]["at η ×"] == 0.5
    assert found["distance"]["matched"]["mean"] == pytest.approx(0.015)
    verdicts = {claim: row["verdict"] for claim, row in found["claims"].items()}
    # `REACHED`: the paper's form, 0.45, and one scalar, 0.2, are farther than Adam, 0.1.
    for claim in ("2-Adam", "c = 1", "one scalar"):
        assert verdicts.pop(claim) == "does not hold"
    assert set(verdicts.values()) == {"holds"}
    tallied = claims.tallies({"one": found, "other": found})
    assert tallied["2-Adam"]["in all"] == "does not hold 2"
    # Bonferroni over 8 claims of 2 cases: t at 0.05/32 on either side, of a spread of 1 %.
    row = found["claims"]["2-Adam"]
    error = np.std([0.99, 1.0, 1.01], ddof=1) / np.sqrt(3)
    wide = stats.t.isf(0.05 / 32, 2) * (0.4 - 0.1) * error
    assert row["high"] - row["found"] == pytest.approx(wide, rel=1e-6)
    assert claims.shown(direction_node())["adam"].shape == (3, 4)


def norm_arrays(scale=1.0):
    """Two matrices of a run that never was, whose ‖W‖ is that of the full form times `scale`."""
    u, inner = np.full((2, 101, 2), 3.0), np.full((2, 101, 2), -0.2)
    path = weight_norm_path(1.0, u[0, :-1], 0.01, 0.5, inner=inner[0, :-1])
    later = np.where(np.arange(101)[:, None] > 50, scale, 1.0)
    one = dict.fromkeys(("cosine", "evenness", "parallel", "with_past", "angle"), u / 3)
    one |= {"norm": np.stack([path * later] * 2), "update_norm": u, "inner": inner}
    one |= {"with_moment": inner, "along_moment": u}
    return one | {"matrix": np.array(["a", "b"]), "size": np.array([4, 4])}


def test_numbers_of_the_norm():
    node = xarray.DataTree(labelled.norm(norm_arrays(), 101, "a network", 0.01, 0.5, 0.9))
    found = claims.norm(node)
    assert found["full form, of ‖W‖²"] < 1e-14
    assert found["assumption 1 (0)"] == "13.3 … 13.3"  # 0.4/(0.01·3)
    assert found["assumption 2 (as 1)"] == "4.44 … 4.44"  # 0.4/(0.01·9)
    # Σ over the ages j ≥ 1 of what is left of an update's part along m.
    ages = np.arange(1, 1000)
    series = 2 * np.sum(0.9**ages * (1 - 0.01 * 0.5) ** (ages - 1))
    assert found["exact recursion"] == pytest.approx(series, rel=1e-12)
    measured, theory = claims.lagged(node)
    assert measured == pytest.approx(1.0)
    np.testing.assert_allclose(theory[1] / theory[2], 0.1 / 0.19)
    expected = -0.1 * 0.01 * 2 * np.mean(1 / node.to_dataset()["norm"].values[50:])
    assert theory[1] == pytest.approx(expected, rel=1e-12)


def tree_of(scale=1.0, still=1.0, exact=0.0):
    node = labelled.norm(norm_arrays(scale), 101, "a network", 0.01, 0.5, 0.9)
    axes = {"kind": ["any"], "signal": [0.0, 5.0], "b1": [0.9]}
    u, eta, decay = 3.0, 0.01, 0.5
    balance = np.sqrt(19 * eta * u**2 / (2 * decay))
    arrays = {"norm": balance * np.array([[[still], [2.0]]]), "update_norm": np.full((1, 2, 1), u)}
    direction = direction_node()
    direction["angle"] = direction.angle + exact
    return xarray.DataTree.from_dict(
        {
            "norm/mlp": node,
            "angles": labelled.angles(norm_arrays(), "a network", [(0.01, 0.5)], 0.9),
            "map": labelled.cells(arrays, axes, eta, decay, 9),
            "direction/noise": direction,
        }
    )


def test_what_is_not_as_expected_is_said():
    assert experiment.check(tree_of()) == []
    said = experiment.check(tree_of(scale=1.01, still=0.98, exact=1e-6))
    assert len(said) == 4
    assert "1.97% of ‖W‖², more than 1 %" in said[0]  # 1 − 1/1.01²
    assert "any: without signal the norm is off by 2.0%" in said[1]
    # √19 · 0.98
    assert "uncorrected norm is 4.27 times too small, not √19 = 4.36" in said[2]
    assert "noise: what should be an identity differs by 1e-06" in said[3]
    found = experiment.numbers(tree_of())
    assert found["map"]["any"]["farthest"] == pytest.approx(2.0)
    assert found["map"]["any"]["uncorrected without signal, b1 0.9"] == pytest.approx(19**0.5)
    angle = found["angle"]["η 0.01, λ 0.5"]
    assert angle["corrected"] == pytest.approx(np.sqrt(0.01 / 19))
    assert angle["measured"] == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("norms", "size", "said"),
    [
        ((3.16, 5.06), 400, []),
        ((2.7, 5.06), 400, ["At signal-to-noise 2 ‖W‖ is 2.7, not 3.15."]),
        ((3.16, 5.5), 400, ["At signal-to-noise 10 ‖W‖ is 5.5, not 4.94."]),
        ((2.7, 5.5), 100, []),  # of this size nothing is known
    ],
)
def test_norms_where_the_mean_gradient_matters(norms, size, said):
    axes = {"kind": ["one"], "signal": [0.0, 2.0, 10.0], "b1": [0.5, 0.9]}
    shape, u = (1, 3, 2), np.sqrt(size / 19)
    # Without signal ‖W‖² = ηd/2λ, where ‖u‖² = d/c.
    values = np.broadcast_to(np.array([np.sqrt(0.005 * size), *norms])[:, None], shape)
    arrays = {"norm": values, "update_norm": np.full(shape, u)}
    node = labelled.cells(arrays, axes, 1e-3, 0.1, size)
    assert claims.map_missing(node) == said
    assert claims.map_missing(node.isel(b1=[0])) == []


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"networks": ("convnet", "convnet")}, "each once"),
        ({"networks": ("lstm",)}, "must name some of"),
        ({"pairs": ((0.1, 0.0),)}, "must lie in"),
        ({"pairs": ()}, "must lie in"),
        ({"b1": 1.0}, "b1 = 1.0 must lie"),
        ({"decays": (1.0,)}, "decays = "),
        ({"decays": ()}, "decays = "),
        ({"signals": (1.0,)}, "contain 0"),
        ({"factors": ()}, "must be positive"),
        ({"seeds": 2}, "seeds = 2 must be"),
        ({"angle_steps": 500}, "must not be above"),
    ],
)
def test_bad_configurations(wrong, words):
    with pytest.raises(ValueError, match=words):
        experiment.Config(**wrong)
