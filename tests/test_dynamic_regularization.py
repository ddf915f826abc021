"""What `dynamic_regularization` measures of networks, against matrices made by NumPy, and whether
its claims can fail."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray
from jax.flatten_util import ravel_pytree

import ct_adam as ct
from ct_adam.problems import Minibatches
from ct_adam.problems.models import MLP
from ct_adam.problems.networks import ImageLoss
from experiments import _complexity, _descent
from experiments import _dynamic_claims as claims
from experiments import _flatness as measured
from experiments import dynamic_regularization as experiment
from experiments._pac_bayes import PAC, priors
from experiments._scale_freeness import Cell, Run, Training

ARPACK = 2e-3
"""Of two eigenvalues whose relative tolerance is 1e-3."""


def _data(shape, classes=3, count=9):
    draw = np.random.default_rng(0)
    return draw.random((count, *shape)), np.arange(count) % classes


def _softmax_regression():
    """Its Hessian is mean of C ⊗ xxᵀ, C = diag p − ppᵀ and x with a 1 for the bias."""
    inputs, labels = _data((4,))
    params, rebuild = ct.problems.trainable(MLP((4, 3), seed=1))
    (layer,) = params.layers
    params = jax.tree.map(
        lambda leaf: leaf + 0.1 * np.arange(leaf.size).reshape(leaf.shape), params
    )
    (layer,) = params.layers
    weight, bias = np.asarray(layer.weight), np.asarray(layer.bias)
    x = np.column_stack([inputs, np.ones(len(inputs))])
    logits = inputs @ weight + bias
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    hessian = np.zeros((15, 15))
    for one, q in zip(x, p, strict=True):
        hessian += np.kron(np.outer(one, one), np.diag(q) - np.outer(q, q)) / len(x)
    norms = np.concatenate([np.full(12, np.linalg.norm(weight)), np.full(3, np.linalg.norm(bias))])
    return ImageLoss(rebuild), params, (inputs, labels), hessian, norms


def test_flatness_of_softmax_regression():
    loss, params, data, hessian, norms = _softmax_regression()
    sharpness, relative, trace = measured.flatness(loss, params, data)
    assert sharpness == pytest.approx(np.linalg.eigvalsh(hessian)[-1], rel=ARPACK)
    scaled = norms[:, None] * hessian * norms
    assert relative == pytest.approx(np.linalg.eigvalsh(scaled)[-1], rel=ARPACK)
    assert trace == pytest.approx(np.trace(hessian), rel=1e-12)  # here H is Gauss–Newton's


def test_trace_of_a_network_is_that_of_its_jacobian():
    inputs, labels = _data((4,), count=5)
    params, rebuild = ct.problems.trainable(MLP((4, 3, 3), seed=2))
    jacobian = jax.jacobian(lambda p: jax.vmap(rebuild(p))(inputs))(params)
    leaves = [np.asarray(leaf).reshape(5, 3, -1) for leaf in jax.tree.leaves(jacobian)]
    p = np.asarray(jax.nn.softmax(jax.vmap(rebuild(params))(inputs)))
    total = 0.0
    for one, q in zip(np.concatenate(leaves, -1), p, strict=True):
        total += np.trace(one.T @ (np.diag(q) - np.outer(q, q)) @ one) / len(p)
    found = measured.flatness(ImageLoss(rebuild), params, (inputs, labels))[2]
    assert found == pytest.approx(total, rel=1e-12)


def test_relative_sharpness_does_not_see_the_size_of_normalised_weights():
    """Of a loss of w/‖w‖: three times w is the same loss, of a ninth of the curvature."""
    data, draw = _data((4,)), np.random.default_rng(1)

    def rebuild(params: Any) -> Any:
        return lambda image: image @ (params["w"] / jnp.linalg.norm(params["w"])) * params["s"]

    params = {"w": draw.standard_normal((4, 3)), "s": draw.standard_normal(3)}
    larger = params | {"w": 3 * params["w"]}
    one, other = (measured.flatness(ImageLoss(rebuild), p, data) for p in (params, larger))
    assert other[1] == pytest.approx(one[1], rel=ARPACK)
    assert abs(other[0] / one[0] - 1) > 0.05
    assert abs(other[2] / one[2] - 1) > 0.05


def test_a_run_that_diverged_has_no_flatness():
    loss, params, data, *_ = _softmax_regression()
    gone = jax.tree.map(lambda leaf: leaf * np.nan, params)
    assert np.isnan(measured.flatness(loss, gone, data)).all()


TRAINING = Training(batch=4, train=16, validation=10, test=20, steps=12, looks=1, lanes=4)
MLP_NET = measured.Net("MLP", "digits")


def adam_by_hand(problem, params, l2, decoupled, rate=0.05, steps=TRAINING.steps):
    """Adam of a few lines, η falling to 0 as a cosine."""
    theta, back = ravel_pytree(params)
    gradient = jax.jit(lambda n, x: ravel_pytree(problem.gradient(n, back(x)))[0])
    theta, m, v = (np.asarray(x, float) for x in (theta, 0 * theta, 0 * theta))
    for n in range(steps):
        g = np.asarray(gradient(n, theta.astype(np.float32)), float) + l2 * theta
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
        u = m / (1 - 0.9 ** (n + 1)) / (np.sqrt(v / (1 - 0.999 ** (n + 1))) + 1e-8)
        theta = theta - rate * (1 + np.cos(np.pi * n / steps)) / 2 * (u + decoupled * theta)
    return back(jnp.asarray(theta, jnp.float32))


@pytest.mark.slow
def test_training_is_adam_and_its_two_decays():
    """Three methods in one program; the fourth lane fills up."""
    decays = {"Adam": (0.0, 0.0), "Adam-ℓ2": (0.3, 0.0), "AdamW": (0.0, 0.3)}
    runs = [Run(Cell(name, 1.0, 0.05, max(both)), 3) for name, both in decays.items()]
    found = measured.trained(MLP_NET, runs, TRAINING, flat=False)
    assert found["train loss"].shape == (3,)
    problem, data = measured.problem_of(MLP_NET, TRAINING)
    problem = Minibatches(problem.loss, data.train, TRAINING.batch, 3, "independent")
    for i, (l2, decoupled) in enumerate(decays.values()):
        end = adam_by_hand(problem, measured._start(MLP_NET, TRAINING, 3), l2, decoupled)
        # float32 twice, along 12 steps
        expected = float(problem.loss(end, data.train))
        assert found["train loss"][i] == pytest.approx(expected, rel=1e-4)
    assert np.abs(np.diff(found["train loss"])).min() > 1e-3


def test_what_chooses_is_not_what_compares():
    _, data = measured.problem_of(MLP_NET, TRAINING)
    assert [len(part[1]) for part in data] == [16, 10, 20]
    pixels, _ = ct.problems.data.images("digits", "train")
    np.testing.assert_array_equal(np.concatenate([part[0] for part in data]), pixels[:46])
    with pytest.raises(ValueError, match="digits has 1437"):
        measured.problem_of(MLP_NET, TRAINING._replace(test=1500))


def test_best_cells():
    cells = measured.cells((0.1, 0.2), (1e-3, 1e-2))
    assert [cell.decay for cell in cells if cell.method == "Adam"] == [0.0, 0.0]
    best = {"Adam": (0.2, 0.0), "Adam-ℓ2": (0.1, 1e-2), "AdamW": (0.2, 1e-3)}

    def loss(cell, seed):
        if cell.rate == 0.1 and cell.method == "Adam":
            return np.nan if seed else -1.0  # one of two diverged
        return 0.0 if (cell.rate, cell.decay) == best[cell.method] else 1.0

    found = {Run(c, s): {"validation": np.float64(loss(c, s))} for c in cells for s in (0, 1)}
    assert {m: (c.rate, c.decay) for m, c in measured.best_cells(found).items()} == best
    lost = {run: {"validation": np.float64(np.nan)} for run in found}
    with pytest.raises(ValueError, match="Adam diverges in every cell"):
        measured.best_cells(lost)


def _good():
    """What `numbers` gives where all is as expected."""
    descent = {}
    for case in _descent.CASES:
        row = {"in the regime": case in _descent.INSIDE, "steps": 100_000, "violations": 0,
               "largest |g| / c_∞": 0.9} | dict.fromkeys(claims.PARTS, 0)  # fmt: skip
        for part, broken in claims.PARTS.items():
            if case in broken:
                row[part] = row["violations"] = 7
        descent[case] = row
    laws = {"largest |z|": 2.5, "limit": 3.1, "comparisons": 30,
            "wrong laws, least |z|": {"the flow's": 11.0, claims.NEAR: 2.0}}  # fmt: skip
    counts = {f"{words}, x > 1": 20 for words in claims.PAC_COUNTS.values()}
    return {
        "descent": descent,
        "gradients": {
            "general": {"exponent": -0.53, "±": 0.01, "expected": -0.5},
            "largest mean / bound": {"general": 0.2},
            claims.LEVEL: {"η ∝ 1/T": {"found": 1.02, "±": 0.03, "η": 0.01}},
        },
        "variances of §6": dict(claims.VALUES),
        "laws": {"modes": laws},
        "PAC-Bayes": {"modes, Q frozen": counts, claims.LANCZOS: 1e-9},
    }


INSIDE, BROKEN = _descent.INSIDE[0], _descent.BROKEN_WEIGHTS[0]
SMALL = ("wrong laws, least |z|", "the flow's")


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        (("descent", INSIDE, "violations"), 1, "the inequality is violated 1 times"),
        (("descent", _descent.SLOWEST, "violations"), 2, "the inequality is violated 2 times"),
        (("descent", BROKEN, "by the fall of λ_k"), 0, f"{BROKEN}: no step violates"),
        (("descent", "η ten times its limit", "by the step"), 0, "no step violates the inequality"),
        (("descent", INSIDE, "largest |g| / c_∞"), 1.01, "a gradient is above c_∞"),
        (("gradients", "general", "exponent"), -0.6, "exponent -0.600 ± 0.010, not -0.5"),
        (("gradients", "largest mean / bound", "general"), 1.1, "1.1 of what bounds them"),
        (("gradients", claims.LEVEL, "η ∝ 1/T", "found"), 1.08, "1.08 of the level"),
        (("variances of §6", "Adam-ℓ2"), 1.62e-4, "Adam-ℓ2: variance 0.000162"),
        (("laws", "modes", "largest |z|"), 3.2, "3.20 standard errors from its law"),
        (("laws", "modes", *SMALL), 9.0, "the flow's law is but 9.00"),
        (("laws", "modes", *SMALL), np.nan, "the flow's law is but nan"),
        (("PAC-Bayes", "modes, Q frozen", "plain Adam least, x > 1"), 19, "in 19 of 20 modes"),
        (("PAC-Bayes", claims.LANCZOS), 1e-3, "differ by 0.001"),
    ],
    ids=lambda case: "",
)
def test_what_is_not_as_expected_is_said(path, value, words, monkeypatch):
    found, nothing = _good(), xarray.DataTree()
    monkeypatch.setattr(experiment, "numbers", lambda _: found)
    assert experiment.check(nothing) == []
    *outer, last = path
    row = found
    for key in outer:
        row = row[key]
    row[last] = value
    (sentence,) = experiment.check(nothing)
    assert words in sentence


def _network(gap, factor):
    """AdamW's gap and sharpness beside the others'; seeds differ by a little."""
    seeds, few = 6, 1e-3 * np.array([1, -1, 1, -1, 1, -1])
    rows = {name: np.ones((3, seeds)) for name in (*claims.DIFFERENCES, *measured.SCORES)}
    rows |= {name: np.ones((3, seeds)) for name in measured.FLATNESS}
    rows["gap in loss"][2] += gap + few
    rows["sharpness"][2] *= factor * np.exp(few)
    coords = {"optimizer": list(measured.METHODS), "rate": ("optimizer", [0.1] * 3),
              "decay": ("optimizer", [0.0, 1.0, 1.0])}  # fmt: skip
    return xarray.Dataset({k: (("optimizer", "seed"), v) for k, v in rows.items()}, coords)


def test_verdicts_on_networks():
    better = claims.of_network(_network(-0.1, 0.5), 3)["AdamW against Adam"]
    assert better["gap in loss"]["found"] == pytest.approx(-0.1)
    assert better["sharpness"]["found"] == pytest.approx(0.5)  # the mean logarithm is ln ½
    assert better["sharpness"]["low"] < 0.5 < better["sharpness"]["high"]
    worse = claims.of_network(_network(0.1, 2.0), 3)["AdamW against Adam-ℓ2"]
    unknown = claims.of_network(_network(1e-4, 1.0001), 3)["AdamW against Adam"]
    for name in ("gap in loss", "sharpness"):
        found = [row[name]["verdict"] for row in (better, worse, unknown)]
        assert found == ["holds", "does not hold", "undecided"]


def test_priors_are_the_printed_term():
    """x_W = 2ρb(√σ+λ)/η, x_ℓ2 = 2ρb(√σ+λ/√σ)/η, x_A = 2ρb√σ/η (EQUATIONS §6)."""
    sigma = np.array([4.0, 0.25, 4e-8, 1e-12])  # the last is left out
    found = priors(xarray.Dataset({"eigenvalue": ("mode", sigma)}))
    assert found.modes.values.tolist() == [3, 2]
    # where x_A = 1 in the flattest mode
    edges = PAC["learning_rate"] / 2 / PAC["batch_size"] / np.sqrt([4e-8, 0.25])
    np.testing.assert_allclose(found.inside_from.sel(preconditioner="frozen"), edges, rtol=1e-12)
    rho, root = found.prior_variance.values[:, None], np.sqrt(sigma[:2])
    scale = 2 * rho * PAC["batch_size"] / PAC["learning_rate"]
    decay = PAC["weight_decay"]
    for rule, x in (("AdamW", root + decay), ("Adam-ℓ2", root + decay / root), ("Adam", root)):
        one = found.sel(preconditioner="frozen", rule=rule, cutoff=1e-6)
        x = scale * x
        np.testing.assert_allclose(one.term, (np.log(x) + 1 / x).mean(1), rtol=1e-12)


def test_a_kept_dataset_is_the_same():
    one = xarray.Dataset(
        {"x": (("a", "b"), np.array([[1.0, np.nan]])), "n": ((), 3)},
        {"a": ["α"], "b": ("b", [1, 2], {"units": "steps"})},
        {"about": 0.5},
    )
    xarray.testing.assert_identical(experiment._dataset(experiment._flat(lambda: one)), one)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"nets": ("MLP", "MLP")}, "nets = "),
        ({"images": "cats"}, "images = 'cats'"),
        ({"rates": (0.1, -1.0)}, "rates = "),
        ({"horizons": (10,)}, "horizons = "),
        ({"parts": (0.5,)}, "parts = "),
        ({"seeds": 1}, "seeds = 1"),
        ({"toy_target": 0.0}, "toy_target = 0"),
        ({"toy_target": 0.125}, r"toy_target = 0\.125 must be below 0\.125"),
        ({"train": 2000}, "test = 3181, digits has 1437"),
        ({"spectrum_images": 5000}, "must be 1797 at most"),
        ({"targets": (0.1, 0.1)}, "targets = "),
        ({"horizons": (100, 100)}, "horizons = "),
        ({"horizons": (100.5, 200)}, "horizons = "),
        ({"rates": (0.1, 0.1)}, "rates = "),
        ({"decays": ("a",)}, "decays = "),
    ],
)
def test_bad_configurations(wrong, words):
    with pytest.raises(ValueError, match=words):
        experiment.Config(**wrong)


# What `numbers` reads of small Datasets made by hand.


def test_numbers_of_descent():
    case, seed = ["μ = 1e-4", "μ = 1.5"], 2
    per_seed = {
        "violations": [[0, 0], [5, 8]], "by_reweighting": [[0, 0], [4, 6]],
        "by_step": [[0, 0], [1, 2]], "last_violation": [[-1, -1], [7, 3]],
        "live_steps": [[10, 9], [2, 3]], "error_over_gradient": [[1.0, 3.0], [5.0, 9.0]],
        "smallest_relative": [[0.5, 0.25], [-2.0, -3.0]],
        "largest_gradient": [[0.5, 0.7], [1.5, 1.0]],
    }  # fmt: skip
    per_case = {
        "mu": [1e-4, 1.5], "learning_rate": [0.1, 0.4], "learning_rate_sufficient": [0.1, 0.2],
        "learning_rate_printed": [0.05, 0.1],
    }  # fmt: skip
    descent = xarray.Dataset(
        {name: (("case", "seed"), np.array(rows)) for name, rows in per_seed.items()}
        | {name: ("case", rows) for name, rows in per_case.items()}
        | {"true_bound": 2.0, "curvature": 3.0, "smoothness": 4.0},
        {"case": case, "seed": range(seed)},
        {"steps": 10},
    )
    inside, outside = claims.of_descent(descent).values()
    assert inside["in the regime"]
    assert outside == {
        "in the regime": False, "μ": 1.5, "η over its limit": 2.0, "η over its printed limit": 4.0,
        "steps": 20, "violations": 13, "by the fall of λ_k": 10, "by the step": 3,
        "last violation, step": 7, "steps with λ_k alive": 5,
        "median of error / gradient term": 7.0, "smallest slack / terms": -3.0,
        "largest |g| / c_∞": 0.75, "largest curvature found / L": 0.75,
    }  # fmt: skip


def test_numbers_of_gradients():
    schedules = [*_complexity.RATES]
    node = {
        "general": xarray.Dataset({"average": (("target", "seed"), [[1.0, 3.0], [1.0, 1.0]]),
                                   "bound": ("target", [4.0, 10.0]),
                                   "slope": ("seed", [-0.5, -0.6])}),
        "toy_rates": xarray.Dataset(
            {"square": (("schedule", "horizon", "group"), [[[9.0, 9.0], [2.0, 4.0]]] * 2),
             "predicted": (("schedule", "horizon"), [[1.0, 2.0], [1.0, 3.0]]),
             "learning_rate": (("schedule", "horizon"), [[0.3, 0.2], [0.3, 0.1]]),
             "slope": (("schedule", "group"), [[-0.5, -0.5], [-1.0, -1.2]])},
            {"schedule": schedules}),
        "toy_stages": xarray.Dataset({"gap": (("stage", "group"), [[1.0, 2.0], [0.5, 0.5]]),
                                      "promised": ("stage", [2.0, 1.0]),
                                      "slope": ("group", [-1.0, -1.0])}),
    }  # fmt: skip
    found = claims.of_gradients(node)
    assert found["general"]["exponent"] == pytest.approx(-0.55)
    # Student's t of one degree of freedom: 12.706 times 0.05
    assert found["general"]["±"] == pytest.approx(0.6353, rel=1e-4)
    exponents = [found[f"toy, {name}"]["exponent"] for name in schedules]
    assert exponents == pytest.approx([-0.5, -1.1])
    assert found["largest mean / bound"] == {"general": 0.5, "in stages": 0.75}
    first, second = found[claims.LEVEL].values()
    assert (first["found"], first["η"]) == pytest.approx((1.5, 0.2))
    assert (second["found"], second["η"]) == pytest.approx((1.0, 0.1))


def _live():
    """Two problems, two lanes each; covariances that say where they stand."""
    places = 100.0 * np.arange(4)[:, None, None] + 10.0 * np.arange(3)[:, None] + np.arange(3)
    entry = ("lane", "row", "column")
    wrong = np.array([[12, 6.5, 40], [50, 7, 41], [60, 33, 42], [70, 85, 43.0]])
    return xarray.Dataset(
        {"measured": (entry, places), "error": (entry, places / 100),
         "z": (entry, 0 * places + 1.5), "wrong_z": (("lane", "wrong"), wrong)},
        {"problem": ("lane", ["modes", "modes", "coupled", "coupled"]),
         "rule": ("lane", ["AdamW", "Adam", "AdamW", "Adam"]), "b1": ("lane", [0.0] * 4),
         "wrong": ["Zhou's Q", claims.NEAR, "another rule's"]},
    )  # fmt: skip


def test_numbers_of_variances():
    found = claims.of_variances(_live())
    # lane 1, and h = 1 the second of 0.1, 1 and 10
    assert found["Adam measured"] == 111
    assert found["± 1.96 σ"] == pytest.approx(1.96 * 1.11)
    printed = {name: found[name] for name in claims.VALUES}
    assert printed == pytest.approx(claims.VALUES, rel=5e-5)  # so many digits are printed


def test_numbers_of_laws():
    found = claims.of_laws(_live())
    assert found["largest |z|"] == 1.5
    assert found["comparisons"] == 4 * 6  # of symmetric matrices
    assert found["wrong laws, least |z|"] == {"Zhou's Q": 12.0, claims.NEAR: 6.5,
                                              "another rule's": 40.0}  # fmt: skip
    assert found[f"{claims.NEAR}, |z|"] == {"modes": [6.5, 7.0], "coupled": [33.0, 85.0]}
    # Of learning rates only the quarter's distance is told; agreement is told of all.
    modes = xarray.Dataset(
        {"z": ("lane", [1.0, -2.9]), "wrong_z": (("lane", "wrong"), [[30.0], [2.0]])},
        {"part": ("lane", [0.25, 0.05]), "wrong": ["the flow's"]},
    )
    found = claims.of_laws(modes)
    assert found["largest |z|"] == 2.9
    assert found["wrong laws, least |z|"] == {"the flow's": 30.0}


def test_numbers_of_pac_bayes():
    rules, rho = ["AdamW", "Adam-ℓ2", "Adam"], [1e-4, 1e-2, 1.0]
    counts = {f"{name}_{side}" if name else side: 10 * i + j
              for i, name in enumerate(claims.PAC_COUNTS)
              for j, side in enumerate(("inside", "outside"))}  # fmt: skip
    dims = ("preconditioner", "spectrum", "prior_variance")
    pac = xarray.Dataset(
        {name: (dims, np.full((1, 1, 3), value)) for name, value in counts.items()}
        | {"term": (("rule", *dims), np.array([[4.0, 5.0, 6.0], [7.0, 8.0, 9.0], [1.0, 1.0, 1.0]])
                    [:, None, None])}
        | {name: (("rule", *dims[:2]), np.array(values)[:, None, None])
           for name, values in {"fitted": [1.0, 2.0, 3.0], "centred": [9.0, 12.0, 4.0]}.items()}
        | {"center_square": ("spectrum", [40.0])},
        {"preconditioner": ["frozen"], "spectrum": ["mine"], "prior_variance": rho, "rule": rules},
    )  # fmt: skip
    network = xarray.Dataset(
        {"eigenvalue": ("mode", [4.0, 2.0, 1.0]), "lanczos": ("leading", [4.0, 2.1])}
    )
    edges = xarray.Dataset({"inside_from": (("preconditioner", "cutoff"), [[0.5, 0.1]])},
                           {"preconditioner": ["frozen"], "cutoff": [1e-8, 1e-6]})  # fmt: skip
    found = claims.of_pac_bayes(pac, network, edges)
    modes = [3 * value for value in (0, 10, 20, 30, 1, 11, 21, 31)]
    assert list(found["modes, Q frozen"].values()) == modes
    assert found["mine"] == {
        "Adam-ℓ2 − Adam, ρ = 0.01": 7.0, "AdamW − Adam, ρ = 0.01": 4.0,
        "Adam-ℓ2 − Adam, ρ fitted, θ* = 0": -1.0, "AdamW − Adam, ρ fitted, θ* = 0": -2.0,
        "Adam-ℓ2 − Adam, ρ fitted, with ‖θ*‖²": 8.0, "AdamW − Adam, ρ fitted, with ‖θ*‖²": 5.0,
        "‖θ*‖²": 40.0, "modes with x < 1 at ρ = 0.01": 1,
    }  # fmt: skip
    assert found["network, all x > 1 from ρ"] == {"σ > 1e-08": 0.5, "σ > 1e-06": 0.1}
    assert found[claims.LANCZOS] == pytest.approx(0.05)
