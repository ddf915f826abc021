"""Weight decay in every convention against recursions in NumPy, and EQUATIONS §8 by closed forms.

Rounding: two orders of the same sums differ by an ulp of θ a step, 2e-16 · steps · max|θ|; moments
in other orders by as much of u. Paths here have some 40 steps and |θ| of order 1: 1e-12.
"""

import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ct_adam as ct
from ct_adam import theory
from ct_adam.cli import main
from ct_adam.optimizers import restart_decay, restart_steps, scale_by_stage, uncorrected

ALPHA, STEPS = 0.05, 40
CURVATURE, CENTRE, START = np.array([0.5, 3.0]), np.array([1.0, -2.0]), np.array([2.0, 0.3])
COURSE = 0.5 + 0.5 * np.cos(np.pi * np.arange(STEPS) / STEPS)
"""η_t of Loshchilov & Hutter."""


def gradient(theta):
    return CURVATURE * (theta - CENTRE)


def eta(step):
    return ALPHA * jnp.asarray(COURSE)[step]


def path(optimizer, state=None):
    """θ_1 … of one compiled scan."""
    params = jnp.asarray(START)
    state = optimizer.init(params) if state is None else state

    def step(carry, _):
        params, state = carry
        delta, state = optimizer.update(gradient(params), state, params)
        params = optax.apply_updates(params, delta)
        return (params, state), params

    return jax.lax.scan(step, (params, state), length=STEPS)[1]


def adam(take, b1=0.9, b2=0.99, eps=1e-3):
    """θ_1 … by NumPy; `take(step, θ, u)` is the step's rule."""
    theta, m, v, found = START, 0.0, 0.0, []
    for n in range(STEPS):
        g = gradient(theta)
        m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g * g
        u = m / (1 - b1 ** (n + 1)) / (np.sqrt(v / (1 - b2 ** (n + 1))) + eps)
        theta = take(n, theta, u)
        found.append(theta)
    return np.array(found)


def loshchilov_hutter(decay):
    return adam(lambda n, theta, u: theta - COURSE[n] * (ALPHA * u + decay * theta))


# ---------------------------------------------------------------- numbers of a convention


@pytest.mark.parametrize("source", theory.CONVENTIONS)
@pytest.mark.parametrize("target", theory.CONVENTIONS)
def test_there_and_back(source, target):
    other = theory.convert_decay(0.3, source, target, learning_rate=0.02, steps=700)
    back = theory.convert_decay(other, target, source, learning_rate=0.02, steps=700)
    np.testing.assert_allclose(back, 0.3, rtol=1e-15)


def test_normalised_decay_of_the_paper():
    found = theory.normalised_decay(0.05, 128, 50_000, np.array([25, 100, 400]))
    np.testing.assert_allclose(found, 0.05 * np.sqrt(128 / (5e4 * np.array([25, 100, 400]))))
    # As printed, to the three digits it has.
    np.testing.assert_allclose(found, [5.06e-4, 2.53e-4, 1.26e-4], atol=6e-7)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((0.1, "paper"), "source = 'paper' is unknown"),
        ((0.1, "optax", "torch"), "target = 'torch' is unknown"),
        ((0.1, "optax", "loshchilov_hutter"), "Give learning_rate"),
        ((0.1, "normalised", "loshchilov_hutter"), "Give steps"),
    ],
)
def test_what_cannot_be_converted(arguments, words):
    with pytest.raises(ValueError, match=words):
        theory.convert_decay(*arguments)
    with pytest.raises(ValueError, match="learning_rate = 0 must be positive"):
        theory.convert_decay(0.1, "optax", "loshchilov_hutter", learning_rate=0)
    for decay in (-0.1, np.array([0.1, -0.1]), jnp.array([-0.1]), [0.1, -0.1]):
        with pytest.raises(ValueError, match=r"decay = -0.1 must be finite and not negative\."):
            theory.convert_decay(decay, "optax")
    with pytest.raises(ValueError, match=r"steps = -2 must be positive and finite\."):
        theory.convert_decay(0.1, "normalised", "loshchilov_hutter", steps=np.array([9, -2]))
    with pytest.raises(ValueError, match=r"learning_rate = .* is not a number\."):
        theory.convert_decay(0.1, "optax", "loshchilov_hutter", learning_rate=eta)


# ---------------------------------------------------------------- equal trajectories


@jax.jit
def _ours(alpha, decay, b1, b2):
    """AdamW with λ of Loshchilov & Hutter, converted and as it is."""
    weight_decay = theory.convert_decay(decay, "loshchilov_hutter", learning_rate=alpha)

    def course(step):
        return alpha * jnp.asarray(COURSE)[step]

    given_so = ct.decoupled(
        scale_by_stage(b1, b2, 1e-3), course, decay, convention="loshchilov_hutter", base_rate=alpha
    )
    return path(ct.adamw(course, b1, b2, 1e-3, weight_decay)), path(given_so)


@settings(max_examples=25, deadline=None)
@given(
    alpha=st.floats(1e-3, 0.2), decay=st.floats(0, 0.3), b1=st.floats(0.1, 0.95),
    b2=st.floats(0.5, 0.999),
)  # fmt: skip
def test_loshchilov_and_hutter(alpha, decay, b1, b2):
    wanted = adam(lambda n, theta, u: theta - COURSE[n] * (alpha * u + decay * theta), b1, b2)
    for found in _ours(alpha, decay, b1, b2):
        np.testing.assert_allclose(found, wanted, atol=1e-12)


def test_pytorch_optax_and_keras_are_one():
    share = COURSE * ALPHA * 0.4
    # PyTorch and Keras shrink θ in place, then step from there; u has seen θ before.
    wanted = adam(lambda n, theta, u: theta * (1 - share[n]) - COURSE[n] * ALPHA * u)
    for made in (
        ct.adamw(eta, 0.9, 0.99, 1e-3, 0.4),
        optax.adamw(eta, 0.9, 0.99, 1e-3, weight_decay=0.4),
        *(
            ct.decoupled(optax.scale_by_adam(0.9, 0.99, 1e-3), eta, 0.4, convention=name)
            for name in ("optax", "pytorch", "keras", "zhou")
        ),
    ):
        np.testing.assert_allclose(path(made), wanted, atol=1e-12)


def test_keras_momentum_holds_the_rate():
    theta, velocity, wanted = START, 0.0, []
    for _ in range(STEPS):
        velocity, theta = 0.8 * velocity - ALPHA * gradient(theta), theta * (1 - ALPHA * 0.4)
        theta = theta + velocity
        wanted.append(theta)
    np.testing.assert_allclose(path(ct.sgdw(ALPHA, 0.8, 0.4)), wanted, atol=1e-12)


def test_tensorflow_addons_ignores_the_schedule():
    wanted = adam(lambda n, theta, u: theta * (1 - 0.02) - COURSE[n] * ALPHA * u)
    for convention, decay in (("tensorflow_addons", 0.02), ("optax", 0.02 / ALPHA)):
        made = ct.decoupled(
            optax.scale_by_adam(0.9, 0.99, 1e-3), eta, decay, convention=convention,
            follows="nothing", base_rate=ALPHA,
        )  # fmt: skip
        np.testing.assert_allclose(path(made), wanted, atol=1e-12)
    assert np.abs(np.asarray(path(made)) - loshchilov_hutter(0.02)).max() > 1e-3


def test_normalised_is_by_the_steps_of_the_run():
    made = ct.decoupled(
        optax.scale_by_adam(0.9, 0.99, 1e-3), eta, 0.1, convention="normalised", base_rate=ALPHA,
        steps=STEPS,
    )  # fmt: skip
    np.testing.assert_allclose(path(made), loshchilov_hutter(0.1 / math.sqrt(STEPS)), atol=1e-12)


def test_zhou_and_others():
    beta1, beta2, delta, decay, fall = 0.2, 0.05, 1e-3, 0.5, 0.03
    theta, wanted = START, []
    m, v = gradient(theta), gradient(theta) ** 2
    for k in range(STEPS):
        g = gradient(theta)
        if k:
            m, v = (1 - beta1) * m + beta1 * g, (1 - beta2) * v + beta2 * g * g
        shrunk = (1 - decay * (1 - fall) ** k * ALPHA) * theta
        theta = shrunk - ALPHA * m / np.sqrt(v + delta)
        wanted.append(theta)
    same = theory.from_zhou(beta1, beta2, delta, decay)
    made = ct.decoupled(
        scale_by_stage(same.b1, same.b2, same.eps, same.eps_root),
        ALPHA,
        lambda k: same.weight_decay * (1 - fall) ** k,
        convention="zhou",
    )
    params = jnp.asarray(START)
    state = uncorrected(made.init(params), gradient(params))
    np.testing.assert_allclose(path(made, state), wanted, atol=1e-12)
    with pytest.raises(ValueError, match=r"beta1 = 0 must be in \(0, 1\]"):
        theory.from_zhou(0, 0.1, 1e-3, 0.1)


# ---------------------------------------------------------------- options


def test_masked_leaves_keep_their_size_and_the_rule_is_known():
    made = ct.decoupled(optax.identity(), 0.1, 0.5, mask={"w": True, "b": False})
    params = {"w": jnp.array([2.0]), "b": jnp.array([2.0])}
    nothing = jax.tree.map(jnp.zeros_like, params)
    step = made.update(nothing, made.init(params), params)[0]
    np.testing.assert_allclose([step["w"][0], step["b"][0]], [-0.1, 0.0], rtol=1e-15)
    decayed = ct.decoupled(optax.identity(), 0.1, 0.5)
    run = ct.run(decayed, lambda p: jnp.sum(p**2) / 2, jnp.array([2.0, -1.0]), 5)
    assert run.update_kind == "u"
    np.testing.assert_allclose(run.update, run.params, rtol=1e-14)  # u is the gradient θ


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"follows": "cosine"}, "follows = 'cosine' is unknown"),
        ({"convention": "paper"}, "convention = 'paper' is unknown"),
        ({"convention": "loshchilov_hutter"}, "Give base_rate"),
        ({"follows": "nothing"}, "Give base_rate"),
        ({"weight_decay": -1.0}, "weight_decay = -1 must be"),
        ({"convention": "normalised", "base_rate": 0.1}, "Give steps"),
        ({"convention": "normalised", "base_rate": 0.1, "follows": "nothing"}, "Give steps"),
        (
            {"convention": "normalised", "base_rate": 0.1, "weight_decay": lambda n: 0.1},
            "Give steps",
        ),
        ({"base_rate": -1.0}, "base_rate = -1 must be"),
        ({"base_rate": 0.0}, "base_rate = 0 must be positive"),
        ({"base_rate": eta}, "base_rate is a function: give a number"),
    ],
)
def test_bad_options(arguments, words):
    with pytest.raises(ValueError, match=words):
        ct.decoupled(optax.identity(), eta, **{"weight_decay": 0.1} | arguments)


def test_a_direction_is_an_optax_transformation():
    with pytest.raises(ValueError, match="as direction, not AdamFlow"):
        ct.decoupled(ct.AdamFlow(0.1), 0.1)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("follows", ["schedule", "nothing"])
def test_an_injected_rate_is_not_the_base(follows):
    """Under `optax.inject_hyperparams` η is an array, of this step: η/α would be 1."""
    convention = "loshchilov_hutter" if follows == "schedule" else "optax"

    def injected(**given_so):
        return optax.inject_hyperparams(ct.decoupled)(
            optax.scale_by_adam(0.9, 0.99, 1e-3), eta, 0.02 if follows == "schedule" else 0.4,
            convention=convention, follows=follows, **given_so,
        )  # fmt: skip

    with pytest.raises(ValueError, match="Give base_rate"):
        injected().init(jnp.asarray(START))
    with pytest.raises(ValueError, match="Give base_rate"):
        ct.decoupled(optax.identity(), jnp.array(0.1), 0.1, convention="loshchilov_hutter")
    for number in (0.1, 1, np.float64(0.1), np.float32(0.1)):
        ct.decoupled(optax.identity(), number, 0.1, convention="loshchilov_hutter")
    if follows == "schedule":
        wanted = loshchilov_hutter(0.02)
    else:
        wanted = adam(lambda n, theta, u: theta * (1 - 0.02) - COURSE[n] * ALPHA * u)
    np.testing.assert_allclose(path(injected(base_rate=ALPHA)), wanted, atol=1e-12)


def test_uncorrected_knows_one_stage():
    params = jnp.asarray(START)
    for b1, stages in (((0.9, 0.9), 2), ((0.9,) * 3, 3)):
        state = ct.k_adam(0.1, b1, (0.99,) * stages).init(params)
        with pytest.raises(ValueError, match=f"holds {stages} stages of ct.k_adam"):
            uncorrected(state, params)
    with pytest.raises(ValueError, match="holds 0 stages"):
        uncorrected(optax.adam(0.1).init(params), params)


# ---------------------------------------------------------------- warm restarts


def test_warm_restarts_and_their_decay():
    ends = (100, 300, 700, 1500)
    assert restart_steps(100, 2, 4) == restart_steps(*map(np.int64, (100, 2, 4))) == ends
    n, lengths = np.arange(3100), (100, 200, 400, 800, 1600)
    begin, length = np.repeat((0, *ends), lengths), np.repeat(lengths, lengths)
    rate = jax.jit(jax.vmap(ct.warm_restarts(0.3, 100, cycles=5)))(jnp.asarray(n))
    wanted = 0.3 * (0.5 + 0.5 * np.cos(np.pi * (n - begin) / length))
    # optax counts in int32, whose quotient is a float32: 1e-7 of the angle, π at most
    np.testing.assert_allclose(rate, wanted, atol=1e-6)
    assert all(rate[end - 1] < 1e-4 < rate[end] == 0.3 for end in ends)
    decay = jax.jit(jax.vmap(restart_decay(0.05, 100, cycles=5)))(jnp.asarray(n))
    np.testing.assert_allclose(decay, 0.05 / np.sqrt(length), rtol=1e-15)
    assert float(restart_decay(0.05, 100)(10_000)) == decay[1499]
    with pytest.raises(ValueError, match="multiple = 0 must be a whole number"):
        ct.warm_restarts(0.1, 10, 0)
    for lowest in (2, -0.1):
        with pytest.raises(ValueError, match=f"lowest = {lowest} must be in"):
            ct.warm_restarts(0.1, 10, lowest=lowest)
    with pytest.raises(ValueError, match="learning_rate must be a number"):
        ct.warm_restarts(eta, 10)
    with pytest.raises(ValueError, match=r"decay is a function: give a number"):
        restart_decay(eta, 10)


# ---------------------------------------------------------------- what a decay is


@settings(max_examples=20, deadline=None)
@given(share=st.floats(1e-9, 0.99))
def test_half_life(share):
    steps = float(theory.half_life(0.5, share / 0.5))
    # (1 - f)^steps: rounding of f in 1 - f, over f, times the exponent's size, ln 2
    assert (1 - share) ** steps == pytest.approx(0.5, rel=4e-16 / share + 1e-12)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: theory.half_life(-1, 2), "learning_rate = -1 must be finite and not negative"),
        (lambda: theory.half_life(1, jnp.array([0.1, -2.0])), "weight_decay = -2 must be"),
        (lambda: theory.ridge(0.1, 1.5), r"momentum = 1.5 must be in \[0, 1\)"),
        (lambda: theory.ridge(-0.1), "weight_decay = -0.1 must be"),
        (lambda: theory.nearest_ridge([1, -3], 0.1, 0.1), "scales = -3 must be positive"),
        (lambda: theory.nearest_ridge(jnp.ones(2), -0.1, 0.1), "decay = -0.1 must be"),
    ],
)
def test_what_has_no_ridge_or_half_life(call, words):
    with pytest.raises(ValueError, match=words):
        call()


def test_first_proposition_and_sgdw_with_momentum():
    alpha, decay = 0.1, 0.01
    theta, wanted = START, []
    for _ in range(STEPS):
        theta = (1 - decay) * theta - alpha * gradient(theta)
        wanted.append(theta)
    l2 = optax.chain(optax.add_decayed_weights(decay / alpha), optax.sgd(alpha))
    for made in (ct.sgdw(alpha, 0.0, decay / alpha), l2):
        np.testing.assert_allclose(path(made), wanted, rtol=1e-13)
    rest = ct.run(ct.sgdw(0.05, 0.9, 0.2), lambda x: (x - 2) ** 2 / 2, jnp.array(0.0), 2000)
    coefficient = float(theory.ridge(0.2, momentum=0.9))
    assert float(rest.params[-1]) == pytest.approx(1.9607843137, abs=1e-10)
    assert 2 / (1 + coefficient) == pytest.approx(1.9607843137, abs=1e-10)


@settings(max_examples=20, deadline=None)
@given(
    scales=st.lists(st.floats(0.01, 100), min_size=2, max_size=6), decay=st.floats(1e-4, 0.5),
)  # fmt: skip
def test_second_proposition(scales, decay):
    s, alpha = np.array(scales), 0.1
    found = theory.nearest_ridge(jnp.asarray(s), decay, alpha)

    def missed(coefficient):
        return np.abs(decay - alpha * coefficient / s).max()

    most, least = s.max(), s.min()
    wanted = decay * (most - least) / (most + least)
    best = float(found.coefficient)
    assert float(found.residual) == pytest.approx(wanted, abs=1e-15)
    assert missed(best) == pytest.approx(wanted, abs=1e-13 * decay)
    # It falls before its minimum and rises after, being convex.
    for other in (0.0, 0.5, 0.9, 1.1, 2.0):
        assert missed(other * best) >= missed(best) - 1e-13 * decay


def test_third_proposition_and_the_misprint():
    rng = np.random.default_rng(0)
    theta, scales = rng.standard_normal(9), rng.uniform(0.1, 5, 9)
    alpha, decay = 0.05, 0.02

    def step(form):
        penalty = jax.grad(theory.scale_adjusted_ridge)
        return -alpha * penalty(jnp.asarray(theta), scales, decay, alpha, form) / scales

    np.testing.assert_allclose(step("derived"), -decay * theta, rtol=1e-13)
    np.testing.assert_allclose(step("printed"), -decay * theta / alpha, rtol=1e-13)
    with pytest.raises(ValueError, match="form = 'paper' is unknown"):
        step("paper")


# ---------------------------------------------------------------- advice


@settings(max_examples=20, deadline=None)
@given(share=st.floats(0, 0.9), steps=st.integers(1, 300))
def test_what_is_left_of_the_start(share, steps):
    advice = theory.advise_decay(share, "loshchilov_hutter", learning_rate=0.5, steps=steps)
    taken = share * (1 + np.cos(np.pi * np.arange(steps) / steps)) / 2
    assert advice.kept_cosine == pytest.approx(np.prod(1 - taken), rel=1e-11)
    assert advice.kept == pytest.approx((1 - share) ** steps, rel=1e-11)
    addons = theory.advise_decay(share, "tensorflow_addons", learning_rate=0.5, steps=steps)
    # its decay takes the same share of every step, whatever the rate does
    assert addons.kept_cosine == addons.kept == advice.kept


def test_the_box_is_for_b1_up_to_b2(capsys):
    inside = "AdamW, if it converges (eps → 0), ends in |θ| ≤ 10."
    outside = "nothing keeps AdamW in |θ| ≤ 10, as b1 > b2."
    for b1, b2, words in ((0.9, 0.9, inside), (0.9, 0.999, inside), (0.99, 0.9, outside)):
        advice = theory.advise_decay(0.1, momentum=b1, b2=b2)
        assert str(advice).endswith(words)
        assert advice.as_dict()["decay_box"] == (10 if words == inside else None)
        assert main(["advise", "--b1", str(b1), "--b2", str(b2), "--decay", "0.1"]) == 0
        assert capsys.readouterr().out.endswith(f"{words}\n")
    with pytest.raises(ValueError, match=r"b2 = 1 must be in \[0, 1\)"):
        theory.advise_decay(0.1, b2=1.0)


def test_advise_on_the_command_line(capsys):
    assert main(["advise", "--decay", "0.1", "--steps", "10000"]) == 0
    *before, names, steps, as_ridge = capsys.readouterr().out.splitlines()
    assert main(["advise", "--steps", "10000"]) == 0
    assert before == capsys.readouterr().out.splitlines()
    assert "0.0001 a step at its base 0.001" in names
    assert "(Loshchilov & Hutter, TensorFlow Addons at a constant rate)" in names
    assert "0.01 normalised over 10000 steps" in names
    assert "in 6931 steps" in steps  # ln 2/1e-4, and a half
    assert "0.368 of the start" in steps  # 1/e
    assert "(0.1/2)‖θ‖² for SGD, (0.01/2)‖θ‖² with momentum 0.9" in as_ridge
    assert "|θ| ≤ 10" in as_ridge


def test_advise_as_json_and_its_errors(capsys):
    words = ["advise", "--json", "--convention", "normalised", "--steps", "400", "--decay"]
    assert main([*words, "0.05"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["verdict"] == "stable"
    assert found["decay_per_step"] == pytest.approx(0.0025)
    assert found["decay_optax"] == pytest.approx(2.5)
    assert main([*words, "0"]) == 0
    assert json.loads(capsys.readouterr().out)["decay_half_life"] is None
    for decay, said in (("-1", "decay = -1 must be finite"), ("30", "take away 1.5 of a weight")):
        assert main([*words, decay]) == 2
        assert said in capsys.readouterr().err
    assert main(["advise", "--decay", "0.1", "--learning-rate", "0"]) == 2
    assert "learning_rate = 0 must be positive" in capsys.readouterr().err
