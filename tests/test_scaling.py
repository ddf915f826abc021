"""Scaling rules by what Adam's SDE keeps, the advice and its command; whether `noise` measures what
it says and its claims can fail."""

import json
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import xarray

import ct_adam as ct
from ct_adam import theory
from ct_adam.cli import main
from experiments import _noise_claims as claims
from experiments import _scaling as measured
from experiments import _scaling_networks as networks
from experiments import noise as experiment
from experiments._scaling import ANCHOR, BATCHES, Case, without

OLD = (1e-3, 0.95, 0.999, 1e-6, 0.1, 1200)
"""η, b1, b2, eps, λ, steps."""


def scaled(factor, *old, **more):
    return theory.scaled_hyperparameters(factor, *(old or OLD), **more)


@pytest.mark.parametrize("rule", ["square_root", "linear"])
def test_rules_are_a_group(rule):
    """κ = 1 changes nothing, and two factors in turn are their product."""
    # 1 − κ(1 − b) rounds to an ulp of 1, eight times here
    np.testing.assert_allclose(scaled(1.0, rule=rule), OLD, rtol=1e-15)
    twice = scaled(2.0, *scaled(3.0, rule=rule), rule=rule)
    np.testing.assert_allclose(twice, scaled(6.0, rule=rule), rtol=2e-15)


@pytest.mark.parametrize("factor", [0.25, 9.0])
def test_what_the_limit_of_malladi_et_al_holds_fixed(factor):
    """Noise σ ∝ 1/√B: σ0 = ση, ε0 = εη, c_i = (1 − b_i)/η², the time steps·η², the decay λη/η²."""

    def fixed(eta, b1, b2, eps, decay, steps, sigma):
        return [sigma * eta, eps * eta, (1 - b1) / eta**2, (1 - b2) / eta**2,
                steps * eta**2, decay / eta]  # fmt: skip

    new = fixed(*scaled(factor), 0.7 / np.sqrt(factor))
    # 1 − b of b = 0.999 is known to 1e-13
    np.testing.assert_allclose(new, fixed(*OLD, 0.7), rtol=1e-12)


def test_what_stays_is_what_is_not_named():
    new = scaled(4.0, scale=("b2", "eps"))
    assert new == pytest.approx((1e-3, 0.95, 0.996, 5e-7, 0.1, 300), rel=1e-12)


def test_the_linear_rule_keeps_the_mean_of_noiseless_adam():
    """Without noise u is all but constant over a few batches: ηκ every κ-th step moves as far, to
    first order in η."""
    gradient = ct.problems.LossProblem(lambda x: jnp.sum(jnp.cosh(x)))

    def end(hyper):
        path = ct.run(ct.adamw(*hyper[:5]), gradient, jnp.array([3.0]), round(hyper[5]))
        return float(path.params[-1, 0])  # pyright: ignore[reportOptionalSubscript]

    old = (1e-3, 0.95, 0.999, 1e-6, 0.1, 400)
    base, linear = end(old), end(scaled(4.0, *old, rule="linear"))
    root = end(scaled(4.0, *old))
    # 400 steps of 1e-3 go 0.4 far; steps of 4e-3 and u's change in one of them, under 1
    assert linear == pytest.approx(base, abs=4e-3)
    assert abs(root - base) > 0.1


@pytest.mark.parametrize("rule", ["square_root", "linear"])
def test_the_error_of_the_preconditioner(rule):
    """Root mean squares of gradients drawn at both batch sizes."""
    draw = np.random.default_rng(0)
    rho, factor, g = 1.5, 4.0, 2.0
    noise = draw.standard_normal(400_000)
    old, new = (np.sqrt(np.mean((g + s * noise) ** 2)) for s in (rho * g, rho * g / 2))
    wanted = (1 / np.sqrt(factor) if rule == "square_root" else 1.0) * old
    found = theory.preconditioner_error(rho, factor, rule)
    # a mean square of n normals errs by √(2/n) = 0.2 %, twice, and three deviations of it
    assert found == pytest.approx(wanted / new - 1, abs=0.01)
    assert theory.preconditioner_error(rho, 1.0, rule) == 0


@pytest.mark.parametrize(
    ("call", "words"),
    [
        ({"factor": 0.0}, "factor = 0 must be positive"),
        ({"factor": -2.0}, "factor = -2 must be positive and finite"),
        ({"factor": "4"}, "factor = '4' is not a number"),
        ({"factor": np.ones(2)}, r"factor has shape \(2,\): give one number"),
        ({"factor": 30.0}, "give 20 times at most"),
        ({"rule": "cubic"}, "rule = 'cubic' is unknown"),
        ({"scale": ("eta",)}, "scale = 'eta' is unknown"),
        ({"b1": 1.0}, "b1 = 1 must be in"),
        ({"eps": -1.0}, "eps = -1 must be"),
        ({"learning_rate": lambda step: 0.1}, "learning_rate is a schedule"),
    ],
)
def test_bad_arguments(call, words):
    arguments = {"factor": 2.0, "b1": 0.95, **call}
    with pytest.raises(ValueError, match=words):
        theory.scaled_hyperparameters(**arguments)
    with pytest.raises(ValueError, match="noise_to_signal = 0 must be"):
        theory.preconditioner_error(0.0, 2.0)


def test_advice_warns_where_it_should():
    quiet = theory.advise_scaling(64, 256, noise_to_signal=20.0)
    assert quiet.warnings == ()
    assert quiet.samples == 64_000
    assert (quiet.noise_to_signal_from, quiet.noise_to_signal_to) == (20.0, 10.0)
    noisy = theory.advise_scaling(64, 256, noise_to_signal=3.0)
    assert len(noisy.warnings) == 1
    assert "12 % off" in noisy.warnings[0]
    assert "(noise-to-signal 1.5)" in noisy.warnings[0]
    down = theory.advise_scaling(64, 16, noise_to_signal=6.0)
    assert down.warnings == ()  # there the larger batch is the old one
    # of the linear rule no limit was measured
    linear = theory.advise_scaling(64, 16, rule="linear", noise_to_signal=1.0)
    assert linear.warnings == ()
    assert "Each step comes out" in str(linear)


def test_advice_on_decays_and_steps():
    gone = theory.advise_scaling(64, 640)
    assert gone.b1 == 0.0
    assert gone.warnings == (
        "b1 = 0 averages nothing; the rule keeps a moment up to a batch of 639.",
    )
    none = theory.advise_scaling(1, 64)
    assert none.b1 is None
    assert none.b2 == pytest.approx(0.936)
    assert "1 − b1 would be 6.4; the rule keeps a moment up to a batch of 9." in none.warnings[0]
    assert "15.625 steps are not a whole number: take 16" in none.warnings[1]
    assert "b1 –, b2 0.936" in str(none).splitlines()[0]
    # 1/3 of 300 steps is 100 but for rounding
    assert theory.advise_scaling(64, 192, steps=300).warnings == ()
    # 0 is no decay, and NumPy's whole numbers are some
    bare = theory.advise_scaling(np.int64(64), np.int64(256), b1=0, b2=0.0)  # pyright: ignore[reportArgumentType]
    assert (bare.b1, bare.b2) == (0.0, 0.0)
    assert bare.warnings == ()
    assert json.loads(json.dumps(bare.as_dict()))["batch_to"] == 256
    assert theory.scaled_hyperparameters(0.25, b1=0.0).b1 == 0
    with pytest.raises(ValueError, match="batch_to = 0 must be a whole number"):
        theory.advise_scaling(64, 0)
    with pytest.raises(ValueError, match=r"batch_from = 6\.4"):
        theory.advise_scaling(6.4, 64)  # pyright: ignore[reportArgumentType]


def test_the_command(capsys):
    flags = "--batch-from 64 --batch-to 256 --weight-decay 0.1 --noise-to-signal 20"
    assert main(["scale", *flags.split()]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0] == (
        "Batch 64 → 256, square-root rule: learning rate 0.002, b1 0.6, b2 0.996, eps 5e-09, "
        "weight decay 0.2, steps 250."
    )
    assert len(said) == 2
    assert main(["scale", *flags.split(), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["b1"] == pytest.approx(0.6)
    assert told["warnings"] == []
    assert main(["scale", "--batch-from", "1", "--batch-to", "64", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["b1"] is None
    assert main(["scale", "--batch-from", "0", "--batch-to", "64"]) == 2
    told = "ct-adam scale: batch_from = 0 must be a whole number of at least 1.\n"
    assert capsys.readouterr().err == told


CASES = [
    Case(20.0),
    Case(1.0, "linear", b1=0.95, eps=0.5, weight_decay=0.1, learning_rate=0.05),
    Case(5.0, eps=2.0, scale=without("b1", "eps")),
]
SAVES, REPLICAS = 3, 5


def test_losses_are_adams_on_the_same_samples():
    """NumPy's recursion, replica by replica, on means of the same noises."""
    found = measured.losses(CASES, SAVES, REPLICAS, seed=3)
    draw = np.random.default_rng(3)
    noises = np.concatenate(
        [draw.standard_normal((ANCHOR, 2, REPLICAS), np.float32) for _ in range(SAVES)]
    ).astype(float)
    for i, batch in enumerate(BATCHES):
        means = noises.reshape(-1, batch, 2, REPLICAS).mean(1)
        for j, case in enumerate(CASES):
            expected = numpy_losses(case, batch, means)
            # float32: 1 − b2 to 0.4 %, which √v̂ halves, on the moving part of losses (5 % here)
            np.testing.assert_allclose(found[:, i, j], expected, rtol=2e-3)


def numpy_losses(case, batch, means):
    kappa = batch / ANCHOR
    root, linear = np.sqrt(kappa), case.rule == "linear"
    eta = case.learning_rate * (kappa if linear else root)
    eps = case.eps / (1 if linear or "eps" not in case.scale else root)
    decay = case.weight_decay * (1 if linear else root)
    c1 = (1 - case.b1) * (kappa if "b1" in case.scale else 1)
    c2 = 1e-3 * kappa
    h = np.array([[1.0], [2.0]])
    theta, m, v, found = np.ones((2, REPLICAS)), 0.0, 0.0, []
    for n, mean in enumerate(means, 1):
        g = h * theta + case.noise * 8 * mean
        m, v = m + c1 * (g - m), v + c2 * (g * g - v)
        u = m / (1 - (1 - c1) ** n) / (np.sqrt(v / (1 - (1 - c2) ** n)) + eps)
        theta = theta - eta * (u + decay * theta)
        if n % (ANCHOR // batch) == 0:
            found.append(5 * np.mean(theta[0] ** 2) / 2 + np.mean(theta[1] ** 2))
    return found


def test_noise_to_signal_at_the_start():
    """Six coordinates of deviation 20 against a gradient of norm 3."""
    assert measured.noise_to_signal(20.0) == pytest.approx(np.sqrt(6 * 400 / 9))


def test_the_interval_of_a_collapse():
    """One save and one other batch size: of 8 groups two choose the sign, and six are Student's."""
    draw = np.random.default_rng(1).random((8, 1, 1, 1)) + 1
    loss = np.concatenate([draw, np.ones_like(draw)], 2)
    found = measured.collapse_of_means(loss)
    values = draw[:, 0, 0, 0] - 1  # the reference is 1: ratios of means are means
    mean, error = values[2:].mean(), values[2:].std(ddof=1) / np.sqrt(6)
    assert found.value == pytest.approx([mean])
    assert found.low == pytest.approx([mean - 2.570582 * error])
    upper = values.mean() + 2.364624 * values.std(ddof=1) / np.sqrt(8)
    assert found.high == pytest.approx([max(upper, mean)])
    one_of_ten = measured.collapse_of_means(loss, 10)
    assert one_of_ten.low == pytest.approx([max(mean - 4.773341 * error, 0)])


@pytest.mark.parametrize("groups", [3, 8, 32])
@pytest.mark.parametrize("apart", [0.0, 0.05, 0.2])
@pytest.mark.parametrize("everywhere", [True, False], ids=["everywhere", "once"])
def test_intervals_of_a_maximum_cover_it(groups, apart, everywhere):
    """Curves of known collapse under noise of 0.03, in thousands of experiments: the ends of the
    interval err with 2.5 % at most each. A jackknife of the maximum covered half of them at 0."""
    many, saves = 2000, 12
    draw = np.random.default_rng(groups)
    loss = 1 + 0.03 * np.sqrt(groups) * draw.standard_normal((groups, saves, 3, many))
    loss[:, :, -1] = 1.0
    where = slice(None) if everywhere else slice(4, 5)
    loss[:, where, :-1] += apart
    found = measured.collapse_of_means(loss)
    # Three deviations of a share of 0.025 among so many.
    least = 0.975 - 3 * np.sqrt(0.975 * 0.025 / many)
    assert np.mean(found.low <= apart) >= least
    assert np.mean(found.high >= apart) >= least
    assert np.all((found.low <= found.value) & (found.value <= found.high))


NETWORK = networks.Training(examples=96, learning_rate=1e-2, looks=2, batches=2, seeds=2)


@pytest.fixture(scope="module")
def mlp():
    rules = tuple(experiment.RULES.values())
    return networks.trained("digits MLP", rules, ANCHOR, NETWORK), networks.trained(
        "digits MLP", rules, 32, NETWORK
    )


def test_networks_are_trained_by_the_rules(mlp):
    """optax.adam in a loop of Python, on samples drawn as documented."""
    anchor, half = mlp
    assert anchor["loss"].shape == (1, 2, 3)
    assert half["loss"].shape == (3, 2, 3)
    model, params = networks.made("digits MLP", 96, 1)
    np.testing.assert_allclose(anchor["loss"][0, 1, 0], model.loss(params, model.data), rtol=1e-5)
    eta, b1, b2, *_ = theory.scaled_hyperparameters(0.5, 1e-2)
    optimizer = optax.adam(eta, b1, b2)
    state = optimizer.init(params)
    gradient = jax.jit(jax.grad(model.loss))
    for look in range(2):
        key = jax.random.fold_in(jax.random.key(1), look)
        for chosen in jax.random.randint(key, (4, 32), 0, 96):
            batch = tuple(x[chosen] for x in model.data)
            delta, state = optimizer.update(gradient(params, batch), state, params)
            params = optax.apply_updates(params, delta)
    # float32, eight steps of Adam from rounding: gradients near 0 have no sign to rounding
    assert float(model.loss(params, model.data)) == pytest.approx(half["loss"][0, 1, -1], rel=1e-3)
    assert abs(half["loss"][1, 1, -1] / half["loss"][0, 1, -1] - 1) > 1e-2


def test_noise_to_signal_of_a_network(mlp):
    """Gradients example by example, in float64."""
    model, params = networks.made("digits MLP", 96, 0)
    params, data = jax.tree.map(jnp.asarray, (params, model.data))
    each = jax.vmap(lambda x, y: jax.grad(model.loss)(params, (x[None], y[None])))(*data)
    flat = np.concatenate([np.asarray(x, float).reshape(96, -1) for x in jax.tree.leaves(each)], 1)
    ratio = np.sqrt(flat.var(0).sum() / 64 / (flat.mean(0) ** 2).sum())
    assert mlp[0]["noise"][0, 0] == pytest.approx(ratio, rel=1e-4)  # float32 sums of 2410 squares


CONFIG = replace(experiment.SIZES["smoke"], batches=(16, ANCHOR), looks=2, saves=2)


def collapsing(number):
    """Losses (group, save, batch) whose collapse is `number`, all groups alike."""
    loss = np.ones((claims.LEAST_GROUPS, 2, len(BATCHES)))
    loss[:, 1, 0] += number
    return loss


def tree(order=1.0, z=2.0, stationary=1.0, weak_z=8.0, groups=None, **numbers):
    """What a run would give, with collapse numbers by the name of the case."""
    known = {c.name: 0.05 for c in CONFIG.cases} | {
        c.name: 0.7 for c in CONFIG.cases if c.rule == "linear" or len(c.scale) < 5
    }
    known |= {Case(1.0).name: 1.5} | {k: v for k, v in numbers.items() if k in known}
    loss = np.stack([collapsing(known[c.name]) for c in CONFIG.cases], -1)[:groups]
    quadratic = xarray.Dataset(
        {"loss": (("group", "save", "batch", "case"), loss)},
        {"batch": list(BATCHES), "case": [c.name for c in CONFIG.cases], "save": [64, 128]},
        {"noises": CONFIG.noises, "shown": CONFIG.shown, "learning_rate": 0.05},
    )
    losses = np.ones((3, 2, 4, 3)) + 0.01 * np.arange(4)[:, None]
    losses[0, 0, :, 1] *= 1.3
    net = experiment._network_labelled(
        "digits MLP", {"loss": losses, "noise": np.full((4, 3), 2.0)}, CONFIG
    )
    shape = ("decay", "curvature")
    names = ("theory", "estimate", "standard_error", "published")
    law = xarray.Dataset(
        {name: (shape, [[1.0]]) for name in names} | {"z": (shape, [[stationary]])},
        {"decay": [0.0], "curvature": [1.0]},
    )
    weak = xarray.Dataset(
        {name: ("size", [0.1, 0.05]) for name in ("error", "standard_error")}
        | {"z": ("size", [9.0, weak_z])},
        {"size": [0.1, 0.05]},
        {"order": order, "order_low": order - 0.1, "order_high": order + 0.1},
    )
    moments = xarray.Dataset({"z": ("step", [-z, 1.0])})
    return xarray.DataTree.from_dict(
        {"quadratic": quadratic, "network_0": net, "moments": moments, "stationary": law,
         "weak": weak}
    )  # fmt: skip


def test_what_is_found_and_as_expected():
    assert experiment.check(tree()) == []
    found = experiment.numbers(tree())
    root = found["collapse by σ/|∇f|"]["0.333"]["square root"]
    assert root["value"] == pytest.approx(1.5)
    assert root["≥ 0.5"] == "holds"
    assert found["regime map"]["16.3"]["linear"]["value"] == pytest.approx(0.7)
    part = found["collapse, scaled or not"]["decays, b1 = 0.98"]
    assert part["unscaled"]["low"] == pytest.approx(0.7)
    assert part["scaled is less"] == "holds"
    one = found["networks"]["digits MLP"]["square root"]["to 64"]
    assert one["value"] == pytest.approx(0.3)
    assert one["median noise-to-signal"] == 2.0
    assert one["≤ 0.1"] == "does not hold"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({Case(5.0).name: 0.12}, ["≤ 0.1 under the square root rule does not hold: 0.120"]),
        ({Case(5.0, "linear").name: 0.4}, ["≥ 0.5 under the linear rule does not hold: 0.400"]),
        ({Case(1.0).name: 0.3}, ["0.333: collapse ≥ 0.5 under the square root rule does not"]),
        ({Case(20.0, eps=20.0, scale=without("eps")).name: 0.04}, ["eps = σ: that scaling it"]),
        ({"z": 3.4}, ["SDE against the moment ODE: 3.40"]),
        ({"stationary": -3.5}, ["SDE against §6's stationary variances: 3.50"]),
        ({"order": 0.6}, ["weak order lies within 1 ± 0.2 does not hold: 0.60"]),
        ({"order": 0.85}, ["weak order lies within 1 ± 0.2 is undecided: 0.85"]),
        ({"weak_z": 4.9}, ["4.9 standard errors"]),
    ],
    ids=["root", "linear", "failure", "eps", "moments", "stationary", "order", "wide", "errors"],
)
def test_what_is_not_as_expected_is_said(changes, words):
    said = experiment.check(tree(**changes))
    assert len(said) == len(words)
    assert all(word in sentence for word, sentence in zip(words, said, strict=True))


def test_few_groups_need_not_decide():
    assert experiment.check(tree(order=0.85, groups=8)) == []
    assert len(experiment.check(tree(order=0.6, groups=8))) == 1


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"noises": (1.0,), "shown": (1.0, 1.0)}, "noises = "),
        ({"batches": (1, 32)}, "must grow to 64"),
        ({"batches": (3, 64)}, "must grow to 64"),
        ({"networks": ("resnet",)}, "networks = "),
        ({"sizes": (0.1,)}, "sizes = "),
        ({"sizes": (0.1, 0.03)}, "0.03 must divide"),
        ({"groups": 2}, "groups = 2"),
        ({"shown": (20.0, 7.0)}, "must be two of noises"),
    ],
    ids=["noises", "end", "divide", "networks", "order", "steps", "groups", "shown"],
)
def test_bad_configurations(wrong, words):
    with pytest.raises(ValueError, match=words):
        experiment.Config(**wrong)
