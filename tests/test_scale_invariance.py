"""Scale-invariant weights (EQUATIONS §3): the norm, the direction, the flow.

Oracles: NumPy's own loop of AdamW, norms and angles measured on whole parameters, SciPy's
integrals, metamorphic properties. `test_scale_invariance_find.py` has the checker.
"""

from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy import integrate

import ct_adam as ct
from ct_adam.flows import RadiusDirectionFlow
from ct_adam.problems import (
    AbstractProblem,
    NormalizedWeight,
    normalized_weight,
    rayleigh_quotient,
)
from ct_adam.problems.models import MLP
from ct_adam.theory import rotation
from ct_adam.theory import scale_invariance as theory

ETA, DECAY, SIZE = 1e-3, 0.1, 400  # of EQUATIONS' table: ‖W‖² = ηd/(2λ) = 2 whatever b1
MATRIX = np.diag([1.0, 2.0, 5.0, 9.0, 14.0]) + 0.3
BEGIN = np.array([1.0, -2.0, 0.5, 1.5, 2.0])


def scalar_adamw(b1, b2=0.999, eps=1e-12):
    """AdamW with one v a tensor, the average of g²: assumption 2 of EQUATIONS §3."""

    def init(params):
        return jnp.zeros((), int), jnp.zeros_like(params), jnp.zeros((*params.shape[:-1], 1))

    def update(g, state, params):
        n, m, v = state[0] + 1, b1 * state[1] + (1 - b1) * g, b2 * state[2]
        v = v + (1 - b2) * jnp.mean(g**2, -1, keepdims=True)
        u = m / (1 - b1**n) / (jnp.sqrt(v / (1 - b2**n)) + eps)
        return -ETA * (u + DECAY * params), (n, m, v)

    return optax.GradientTransformation(init, update)


def measured(optimizer, problem, start, steps, last):
    """Root mean squares of ‖W‖, of ‖u‖ and of the angle of a step, over the last steps."""
    run = ct.run(
        optimizer,
        problem,
        start,
        steps,
        learning_rate=ETA,
        weight_decay=DECAY,
        save_steps=np.arange(steps - last, steps),
        save=lambda n, p, u, loss: (jnp.sum(p**2, -1), jnp.sum(u**2, -1), jnp.sum(p * u, -1)),
    )
    square, power, inner = map(np.asarray, run.saved)
    ahead = (1 - ETA * DECAY) * square - ETA * inner  # ⟨W, W⁺⟩
    angles = np.arccos(ahead[:-1] / np.sqrt(square[:-1] * square[1:]))
    return (np.sqrt(np.mean(x, 0)) for x in (square, power, angles**2))


def norms(x):
    return np.sqrt(np.sum(x**2, axis=-1))


# ---- the norm under projected noise --------------------------------------------------------------


def check_table(b1, norm, update, angle):
    corrected = np.asarray(theory.stationary_norm(update, ETA, DECAY, b1))
    uncorrected = np.asarray(theory.stationary_norm(update, ETA, DECAY, b1, "uncorrected"))
    # 1 %: what the contract asks for. ‖u‖² varies by √(2/d) = 7 % in some 1/(1-b1) steps, which
    # averages to less than 1 % of ‖W‖ over the shortest run even at b1 = 0.99.
    np.testing.assert_allclose(norm, corrected, rtol=0.01)
    np.testing.assert_allclose(norm, np.sqrt(ETA * SIZE / (2 * DECAY)), rtol=0.01)
    np.testing.assert_allclose(uncorrected / norm, np.sqrt((1 - b1) / (1 + b1)), rtol=0.01)
    np.testing.assert_allclose(angle, rotation.equilibrium_angle(ETA, DECAY, b1), rtol=0.01)


class Rows(AbstractProblem):
    """The same problem for each row of the parameters: all b1 in one run."""

    problem: AbstractProblem
    held: ClassVar[bool] = True
    has_value: ClassVar[bool] = False
    steps_available: ClassVar[None] = None

    def value(self, params):
        return jnp.array(jnp.nan)

    def gradient(self, step, params):
        return jax.vmap(lambda row: self.problem.gradient(step, row))(params)


def check_scalar_table(steps, last, start_norm):
    b1 = np.array([0.0, 0.5, 0.9, 0.99])
    problem, start = normalized_weight(SIZE)
    starts = jnp.broadcast_to(start * start_norm, (len(b1), SIZE))
    check_table(b1, *measured(scalar_adamw(b1[:, None]), Rows(problem), starts, steps, last))


def test_norm_under_noise_is_the_corrected_one():
    """EQUATIONS' table, from the stationary norm on, so that 12 000 steps are enough."""
    check_scalar_table(12_000, 10_000, np.sqrt(2))


@pytest.mark.slow
def test_the_whole_table():
    """As it is: 60 000 steps from ‖W‖ = 1, the last half."""
    check_scalar_table(60_000, 30_000, 1.0)


@pytest.mark.parametrize(
    "b1", [0.9, *(pytest.param(b1, marks=pytest.mark.slow) for b1 in (0.0, 0.5, 0.99))]
)
def test_norm_under_noise_elementwise(b1):
    problem, start = normalized_weight(SIZE)
    adamw = ct.adamw(ETA, b1, eps=1e-12, weight_decay=DECAY)
    check_table(b1, *measured(adamw, problem, start * np.sqrt(2), 12_000, 10_000))


def concentrated(signal, optimizer, steps):
    problem = NormalizedWeight(np.eye(SIZE)[0], signal)
    start = normalized_weight(SIZE)[1]
    norm, update, _ = measured(optimizer, problem, start, steps, steps // 2)
    return norm, float(theory.stationary_norm(update, ETA, DECAY, 0.9))


@pytest.mark.slow
@pytest.mark.parametrize(("signal", "reached"), [(2.0, 3.17), (10.0, 5.07), (50.0, 7.09)])
def test_it_fails_where_the_direction_rests_on_one_coordinate(signal, reached):
    """`reached` by a loop in NumPy with noise of its own, 60 000 steps, the mean of three seeds
    (1 % apart; EQUATIONS has 3.15 and 4.94). The scalar v holds whatever the signal."""
    norm, corrected = concentrated(signal, ct.adamw(ETA, eps=1e-12, weight_decay=DECAY), 60_000)
    assert norm == pytest.approx(reached, rel=0.02)
    assert corrected == pytest.approx(1.415, rel=0.01)
    norm, corrected = concentrated(signal, scalar_adamw(0.9), 60_000)
    assert norm == pytest.approx(corrected, rel=0.01)


def numpy_adamw(steps, eta, decay, b1=0.8, b2=0.9, eps=1e-3):
    """AdamW on the Rayleigh quotient: W_n, u_{n+1}, m_{n+1} for n = 0 … steps - 1."""
    w, m, v, seen = BEGIN, 0.0, 0.0, []
    for n in range(1, steps + 1):
        unit = w / np.sqrt(w @ w)
        g = 2 * (MATRIX @ unit - (unit @ MATRIX @ unit) * unit) / np.sqrt(w @ w)
        m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g**2
        u = m / (1 - b1**n) / (np.sqrt(v / (1 - b2**n)) + eps)
        seen.append((w, u, m))
        w = w - eta(n - 1) * (u + decay * w)
    return map(np.array, zip(*seen, strict=True))


def test_recursions_are_exact():
    """⟨W, m⟩ and ‖W‖² with an elementwise v, a learning rate that falls, and strong decay."""
    b1, decay, steps = 0.8, 2.0, 80
    w, u, m = numpy_adamw(steps, lambda n: 0.05 * 0.5 ** (n / 40), decay, b1)
    rates = 0.05 * 0.5 ** (np.arange(steps) / 40)
    adamw = ct.adamw(lambda n: 0.05 * 0.5 ** (jnp.asarray(n, float) / 40), b1, 0.9, 1e-3, decay)
    run = ct.run(adamw, rayleigh_quotient(MATRIX), BEGIN, steps)
    # Two programs for the same 80 steps: rounding, enlarged at most some hundred times.
    np.testing.assert_allclose(run.params[:-1], w, rtol=0, atol=1e-12)

    predicted = theory.momentum_inner(np.sum(u * m, 1), rates, decay, b1)
    inner = np.sum(w * m, 1)
    # Rounding of 80 sums of numbers of the size of ‖W‖‖m‖.
    assert np.max(np.abs(predicted - inner)) < 80 * 5e-16 * np.max(norms(w) * norms(m))
    assert np.max(np.abs(inner)) > 1e-2 * np.max(norms(w) * norms(m))  # and not a trivial 0

    path = theory.weight_norm_path(
        norms(w)[0], norms(u), rates, decay, inner=np.sum(w * u, 1), form="exact"
    )
    np.testing.assert_allclose(path[:-1], norms(w), rtol=1e-13)
    step = theory.weight_norm_step(
        norms(w)[:-1], norms(u)[:-1], np.sum(w * u, 1)[:-1], rates[:-1], decay
    )
    np.testing.assert_allclose(step, norms(w)[1:], rtol=1e-14)
    turned = np.arccos(np.sum(w[1:] * w[:-1], 1) / norms(w[1:]) / norms(w[:-1]))
    seen = theory.radial({"w": jnp.asarray(w.T)}, {"w": jnp.asarray(u.T)}, axis=1)["w"]
    angle = rotation.angular_update(seen.norm, seen.update_norm, seen.inner, rates, decay)
    # arccos near 0 loses half of the digits: its error is rounding over the angle.
    np.testing.assert_allclose(angle[:-1], turned, rtol=0, atol=1e-14 / turned.min())
    np.testing.assert_allclose(seen.cosine, seen.inner / norms(w) / norms(u), rtol=1e-13)


@pytest.mark.parametrize("decay", [0.5, 0.0])
def test_forms_that_are_odes(decay):
    """Against DOP853, the source held over each step."""
    rng = np.random.default_rng(0)
    u, inner = rng.uniform(1, 3, 6), rng.normal(size=6)
    rates, b1 = np.linspace(0.3, 0.1, 6), 0.7
    for form, factor, along in (
        ("full", 1.0, inner),
        ("corrected", 1.7 / 0.3, 0 * inner),
        ("uncorrected", 1.0, 0 * inner),
    ):
        path = theory.weight_norm_path(2.0, u, rates, decay, inner=inner, b1=b1, form=form)
        square = 4.0
        for n, eta in enumerate(rates):
            source = factor * eta**2 * u[n] ** 2 - 2 * eta * along[n]
            end = integrate.solve_ivp(
                lambda _, y, e=eta, s=source: -2 * e * decay * y + s,
                (0, 1),
                [square],
                "DOP853",
                rtol=1e-13,
                atol=1e-13,
            ).y[0, -1]
            square = end
            assert path[n + 1] ** 2 == pytest.approx(square, rel=1e-11)
            rate = theory.weight_norm_rate(path[n], u[n], eta, decay, b1, form == "corrected")
            if form != "full":
                mean = (path[n + 1] ** 2 - path[n] ** 2) - float(rate)
                # The rate at the step's begin is its mean but for what decay does meanwhile.
                assert abs(mean) <= eta * decay * abs(float(rate)) + 1e-12


def test_stationary_norms_are_fixed_points():
    eta, decay, b1, update = 0.02, 1.5, 0.9, 3.0
    for corrected, kind in ((True, "corrected"), (False, "uncorrected")):
        norm = theory.stationary_norm(update, eta, decay, b1, kind)
        assert abs(float(theory.weight_norm_rate(norm, update, eta, decay, b1, corrected))) < 1e-15
    # "exact": the two recursions of NumPy with ‖u‖ fixed and u = m, until they stand still.
    square, inner, kept = 1.0, 0.0, 1 - eta * decay
    for _ in range(3000):
        square = kept**2 * square + eta**2 * update**2 - 2 * eta * kept * inner
        inner = b1 * (kept * inner - eta * update**2)
    exact = float(theory.stationary_norm(update, eta, decay, b1, "exact"))
    assert exact == pytest.approx(np.sqrt(square), rel=1e-12)
    angle = rotation.angular_update(exact, update, inner, eta, decay)
    assert float(rotation.equilibrium_angle(eta, decay, b1, "exact")) == pytest.approx(float(angle))
    # For small ηλ the approximate kinds are its limit.
    ratio = theory.stationary_norm(1.0, 1e-7, 1.0, b1, "exact") / theory.stationary_norm(
        1.0, 1e-7, 1.0, b1
    )
    assert float(ratio) == pytest.approx(1, abs=1e-5)


def test_warm_up_is_the_time_of_forgetting():
    steps = int(rotation.warm_up_steps(1e-3, 0.5))
    path = theory.weight_norm_path(3.0, np.full(steps, 2.0), 1e-3, 0.5, form="uncorrected") ** 2
    balance = float(theory.stationary_norm(2.0, 1e-3, 0.5, 0.0)) ** 2
    assert (path[-1] - balance) / (path[0] - balance) == pytest.approx(np.exp(-1), rel=1e-9)


def test_rescaled_runs_have_the_same_directions():
    """Bitwise for a power of two; eps = 0."""
    problem, start = normalized_weight(30, signal=3.0)
    norm, eta, decay = rotation.rescaled(1.0, 0.01, 0.5, 4.0)
    base = ct.run(ct.adamw(0.01, eps=0.0, weight_decay=0.5), problem, start, 60)
    other = ct.run(
        ct.adamw(float(eta), eps=0.0, weight_decay=float(decay)), problem, start * norm, 60
    )
    np.testing.assert_array_equal(other.params, 4 * base.params)
    assert rotation.effective_learning_rate(eta, norm) == 0.01


# ---- flows ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("b1", "rates", "value"),
    [(0.9, "lag", 18.4), (0.5, "lag", 2.47), (0.9, "log", 19.4), (1 / 3, "lag", None)],
)
def test_source_of_order_two_by_its_spectrum(b1, rates, value):
    """ρ as the share of the power of held noise, |sin(ω/2)/(ω/2)|² a²/(a²+ω²), under 4/(4+ω²)."""
    a = {"lag": (1 - b1) / b1, "log": -np.log(b1)}[rates]

    def power(passed):
        def density(w):
            return np.sinc(w / (2 * np.pi)) ** 2 / (a**2 + w**2) * (4 / (4 + w**2) if passed else 1)

        # Beyond 400 the first falls as ω⁻⁴: below 1e-7 of the whole.
        return integrate.quad(density, 0, 400, limit=2000, epsabs=1e-12, epsrel=1e-10)[0]

    source = power(True) / power(False) * (1 + 2 / a)
    # 1e-5: the singular case a = 2 (b1 = 1/3) is moved by that.
    assert theory.flow_source(b1, rates, 2) == pytest.approx(source, rel=1e-5)
    if value is not None:
        assert source == pytest.approx(value, rel=0.01)
    assert theory.flow_source(b1, rates, 2, "white") == pytest.approx(2 / a)


@pytest.mark.parametrize(("b1", "rates"), [(0.5, "lag"), (0.9, "log")])
def test_average_over_time_is_below_that_over_whole_steps(b1, rates):
    a = {"lag": (1 - b1) / b1, "log": -np.log(b1)}[rates]
    whole = (1 - np.exp(-a)) ** 2 / (1 - np.exp(-2 * a))  # E m² of the average at whole steps
    mean = integrate.quad(lambda t: whole * np.exp(-2 * a * t) + np.expm1(-a * t) ** 2, 0, 1)[0]
    assert theory.held_average(b1, rates) == pytest.approx(mean / whole, rel=1e-12)
    assert 1 / theory.held_average(0.5, "lag") == pytest.approx(1.26, abs=0.005)


@pytest.mark.parametrize(
    ("b1", "rates", "order", "value"),
    [
        (0.9, "log", 2, 19.4),
        *(
            pytest.param(*case, marks=pytest.mark.slow)
            for case in [
                (0.9, "lag", 1, 18.0),
                (0.9, "log", 1, 18.98),
                (0.5, "lag", 1, 2.0),
                (0, "lag", 1, 0.0),
                (0.9, "lag", 2, 18.4),
                (0.5, "lag", 2, 2.47),
            ]
        ),
    ],
)
def test_source_of_the_flow_measured(b1, rates, order, value):
    """Without decay ‖W‖² grows by c η²‖u‖² a step."""
    size, steps, skip, eta = 1000, 500, 100, 1e-3
    problem, start = normalized_weight(size)
    flow = ct.AdamFlow(eta, b1, eps=1e-12, rates=rates, order=order)
    path = ct.solve(
        flow,
        problem,
        start,
        steps,
        save=lambda n, p, u, loss: (jnp.sum(p**2), jnp.sum(u**2)),
        rtol=1e-5,
    )
    square, power = map(np.asarray, path.saved)
    share = theory.held_average(b1, rates) if b1 else 1.0
    source = (square[-1] - square[skip]) / (eta**2 * share * np.mean(power[skip:]) * (steps - skip))
    # 2 %: the contract's. An elementwise v leaves a random ⟨W, u⟩ of some 0.5 % here.
    assert source == pytest.approx(theory.flow_source(b1, rates, order), rel=0.02, abs=0.02)
    assert source == pytest.approx(value, rel=0.02, abs=0.02)


MIXED = {"w": jnp.asarray(BEGIN), "b": jnp.array([0.5, -1.0])}
MASK = {"w": True, "b": False}


def mixed(params):
    unit = params["w"] / jnp.linalg.norm(params["w"])
    return unit @ jnp.asarray(MATRIX) @ unit + jnp.sum(jnp.cosh(params["b"]) * (2 + unit[:2]))


FLOWS = [
    {"rates": "log"},
    {"rates": "lag"},
    {"rates": "lag", "order": 2},
    {"rates": "log", "start": "zero"},
    {"rates": "lag", "order": 2, "start": "paper"},
    {"decay": "l2"},
]


@pytest.mark.parametrize("options", FLOWS)
def test_radius_and_direction_are_coordinates_of_the_flow(options):
    """The chain rule on the full flow's own field, at a state that has moved: no solver."""
    flow = ct.AdamFlow(0.02, b2=0.99, eps=0.0, weight_decay=0.5, **options)
    polar = RadiusDirectionFlow(flow, MASK)
    optimizer, params = flow.optimizer, MIXED
    held = optimizer.init(params)
    for _ in range(5):
        steps, held = optimizer.update(jax.grad(mixed)(params), held, params)
        params = optax.apply_updates(params, steps)
    whole = flow.from_optimizer(mixed, params, held, 5)
    state = polar.from_optimizer(mixed, params, held, 5)
    np.testing.assert_allclose(polar.params(state)["w"], params["w"], rtol=1e-14)
    assert float(state.radius["w"]) == pytest.approx(float(jnp.linalg.norm(params["w"])))

    full = flow.vector_field(5.3, whole, mixed)
    rates = polar.vector_field(5.3, state, mixed)
    w, speed = np.asarray(params["w"]), np.asarray(full.params["w"])
    radius, unit = norms(w), w / norms(w)
    np.testing.assert_allclose(rates.radius["w"], unit @ speed, rtol=1e-11)
    turning = (speed - unit * (unit @ speed)) / radius
    np.testing.assert_allclose(rates.state.params["w"], turning, rtol=1e-10, atol=1e-13)
    np.testing.assert_allclose(rates.state.params["b"], full.params["b"], rtol=1e-12)
    assert rates.radius["b"] == 0
    np.testing.assert_allclose(rates.state.m[0]["w"], full.m[0]["w"], rtol=1e-10, atol=1e-14)
    np.testing.assert_allclose(
        polar.update(5.3, state, mixed)["w"], flow.update(5.3, whole, mixed)["w"], rtol=1e-11
    )


@pytest.mark.slow  # one is integrated by the flow's doctest too
@pytest.mark.parametrize("options", FLOWS[:5])
def test_radius_and_direction_integrated(options):
    flow = ct.AdamFlow(0.02, b2=0.99, eps=0.0, weight_decay=0.5, **options)
    polar = RadiusDirectionFlow(flow, MASK)
    sharp = {"rtol": 1e-9, "atol": 1e-11, "warm_steps": 3}
    full = ct.solve(flow, mixed, MIXED, 150, **sharp)
    path = ct.solve(polar, mixed, MIXED, 150, **sharp)
    # Solver errors of 1e-9 a step in 700 steps of a flow that forgets: measured 1e-11 to 1e-10.
    assert ct.compare(path, full).relative_error < 1e-8


def test_the_polar_flow_sees_the_sphere_alone():
    """Of a loss that is not invariant it is another flow, and its reduced radius follows §3."""
    flow = ct.AdamFlow(0.02, eps=1e-12, weight_decay=0.5)
    loss = ct.problems.quadratic([1.0, 4.0])
    params = jnp.array([3.0, 1.0])
    state = RadiusDirectionFlow(flow).init(loss, params)
    # ∇L(Ŵ)/‖W‖, not ∇L(W); the moments have seen (1 - b1) of it.
    unit = params / jnp.linalg.norm(params)
    expected = 0.1 * jnp.array([1.0, 4.0]) * unit / jnp.linalg.norm(params)
    np.testing.assert_allclose(state.state.m[0], expected, rtol=1e-12)

    quotient = rayleigh_quotient(MATRIX)
    for radius, c in (("corrected", 19.0), ("uncorrected", 1.0)):
        polar = RadiusDirectionFlow(flow, radius=radius)
        state = polar.init(quotient, jnp.asarray(BEGIN))
        u = np.asarray(polar.update(0.0, state, quotient))
        r = norms(BEGIN)
        rate = (-2 * 0.02 * 0.5 * r**2 + c * 0.02**2 * (u @ u)) / (2 * r)
        got = polar.vector_field(0.0, state, quotient).radius
        assert float(got) == pytest.approx(rate, rel=1e-12)


def test_polar_flow_refuses():
    with pytest.raises(ValueError, match="AdamFlow or one of its family"):
        RadiusDirectionFlow(ct.SignFlow(0.1))  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="radius"):
        RadiusDirectionFlow(ct.AdamFlow(0.1), radius="reduced")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="order 1"):
        RadiusDirectionFlow(ct.AdamFlow(0.1, order=2), radius="corrected")
    with pytest.raises(ValueError, match="one stage"):
        RadiusDirectionFlow(ct.KAdamFlow(0.1), radius="corrected")


# ---- problems ------------------------------------------------------------------------------------


def test_normalized_weight_is_a_loss_of_the_direction():
    problem = NormalizedWeight(np.arange(1.0, 7.0).reshape(2, 3), signal=2.0, noise=0.5, seed=3)
    w = jnp.asarray(np.random.default_rng(0).standard_normal((2, 3)))
    g = problem.gradient(7, w)
    assert abs(float(jnp.sum(g * w))) < 1e-15
    np.testing.assert_allclose(problem.gradient(7, 4 * w), g / 4, rtol=1e-14)
    assert float(jnp.max(jnp.abs(problem.gradient(8, w) - g))) > 0.1
    # Without noise it is the gradient of `value`; the noise has mean 0 and the given size.
    quiet = NormalizedWeight(problem.direction, signal=2.0, noise=0.0)
    np.testing.assert_allclose(quiet.gradient(0, w), jax.grad(quiet.value)(w), atol=1e-15)
    many = jax.vmap(lambda n: problem.gradient(n, w))(jnp.arange(4000)) - quiet.gradient(0, w)
    spread = 0.5 / float(jnp.linalg.norm(w))
    assert float(jnp.max(jnp.abs(jnp.mean(many, 0)))) < 5 * spread / np.sqrt(4000)
    # Five of the six directions are left by the projection.
    assert float(jnp.mean(jnp.sum(many**2, (1, 2)))) == pytest.approx(5 * spread**2, rel=0.05)


def test_rayleigh_quotient_ends_at_the_smallest_eigenvalue():
    loss = rayleigh_quotient(MATRIX)
    run = ct.run(ct.adamw(0.02), loss, BEGIN, 1500)
    # Near the minimum the loss is quadratic in η, the width of Adam's cycle.
    assert float(run.loss[-1]) == pytest.approx(np.linalg.eigvalsh(MATRIX)[0], abs=1e-3)
    vector = jnp.asarray(np.linalg.eigh(MATRIX)[1][:, 2])
    np.testing.assert_allclose(loss.gradient(0, vector), 0, atol=1e-13)


def test_weight_norm_begins_as_the_plain_network():
    plain, normal = MLP((12, 5, 3), seed=4), MLP((12, 5, 3), seed=4, weight_norm=True)
    x = jnp.asarray(np.random.default_rng(1).standard_normal(12))
    np.testing.assert_allclose(normal(x), plain(x), rtol=1e-12)
    np.testing.assert_allclose(
        norms(np.asarray(normal.layers[0].weight).T), normal.layers[0].gain, rtol=1e-14
    )


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: rayleigh_quotient([[1.0, 2.0], [0.0, 1.0]]), "symmetric"),
        (lambda: rayleigh_quotient(np.ones((2, 3))), "square"),
        (lambda: NormalizedWeight(np.zeros(3)), "direction"),
        (lambda: normalized_weight(1), "dimension = 1"),
        (lambda: theory.weight_norm_rate(1.0, 1.0, 0.1, 0.1, 1.0), r"b1 = 1 must be in \[0, 1\)"),
        (lambda: theory.weight_norm_step(1.0, 1.0, 0.0, -0.1, 0.1), "learning_rate"),
        (lambda: theory.stationary_norm(1.0, 0.1, 0.0), "without decay"),
        (lambda: theory.stationary_norm(1.0, 0.1, 0.1, 0.9, "true"), "'exact'"),
        (lambda: theory.weight_norm_path(1.0, np.ones(3), 0.1, 0.1), "needs inner"),
        (lambda: theory.weight_norm_path(1.0, np.ones(3), 0.1, 0.1, form="corrected"), "needs b1"),
        (lambda: theory.weight_norm_path(1.0, np.ones(3), np.ones(2), 0.1), "3 steps"),
        (lambda: theory.flow_source(0.9, order=3), "order = 3"),
        (lambda: theory.flow_source(0, order=2), "Order 2 needs b1"),
        (lambda: theory.held_average(0), "b1 > 0"),
        (lambda: theory.radial(jnp.ones((2, 3)), jnp.ones((2, 3)), -1, 2), "slices of 2"),
    ],
)
def test_errors(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    "mask", [{"a": False}, "yes", [True, True], True, {"w": 1, "b": False}], ids=str
)
def test_masks_that_are_none_are_refused(mask):
    params = {"w": jnp.ones(2), "b": jnp.ones(2)}
    flow = ct.flows.RadiusDirectionFlow(ct.AdamFlow(0.01), mask)
    with pytest.raises(ValueError, match="invariant must be a PyTree like the parameters"):
        flow.init(lambda p: jnp.sum(p["w"] ** 2) + jnp.sum(p["b"] ** 2), params)


def test_a_reduced_radius_wants_decoupled_decay():
    flow = ct.AdamFlow(0.01, weight_decay=0.1, decay="l2")
    with pytest.raises(ValueError, match="orthogonal to W"):
        ct.flows.RadiusDirectionFlow(flow, radius="corrected")


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (lambda: theory.weight_norm_path(1.0, 3.0, 0.1, 0.1, form="uncorrected"), "of every step"),
        (
            lambda: theory.weight_norm_path([1.0, 2.0], [3.0], 0.1, 0.1, form="uncorrected"),
            "of shape",
        ),
        (lambda: theory.momentum_inner(1.0, 0.1, 0.1, 0.9), "is one number"),
        (lambda: rotation.rescaled(1.0, 0.1, 0.1, 0.0), "factor = 0.0 must be positive"),
        (lambda: theory.flow_source(0.9, shrink=-5.0), "shrink = -5 must be"),
        (lambda: ct.problems.NormalizedWeight([1.0], noise=-1.0), "noise = -1 must be"),
        (
            lambda: ct.problems.NormalizedWeight([1.0, 0.0]).gradient(0, jnp.ones((3, 2))),
            "must have the direction's",
        ),
    ],
)
def test_more_bad_input(wrong, words):
    with pytest.raises(ValueError, match=words):
        wrong()
