"""What an interpolating flow says of itself, against what the optimizer says of it."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from optax import contrib

import ct_adam as ct
from ct_adam.simulate import VERDICT
from ct_adam.simulate.trajectory import raise_unless_okay


def tanh_network():
    return ct.problems.digits_mlp((16,), images=300, criterion="squared")


def follow(optimizer, network, steps, warm_steps, order, stride=1, every=5, **options):
    problem, params = network
    saved = np.unique(np.r_[0 : steps + 1 : every, 1:steps:every])  # both ends of a stride
    where = {"save_steps": saved, "warm_steps": warm_steps}
    flow = ct.InterpolatingFlow(optimizer, order, stride)
    path = ct.solve(flow, problem, params, steps, throw=False, **where, **options)
    distance = ct.compare(path, ct.run(flow, problem, params, steps, **where))
    trust = path.trust
    print(
        f"({trust.order}, {trust.stride}): error {distance.relative_error:.1e}, estimated "
        f"{float(trust.estimate):.1e}; {distance.max_error:.1e} absolute; {trust.advice}"
    )
    return path, distance


@pytest.mark.slow
def test_order_two_follows_where_higher_orders_blow_up():
    """EQUATIONS §1, Stability: digits, η = 0.01, (0.9, 0.99): a curved direction of Adam."""
    adam = optax.adam(0.01, b2=0.99)
    path, distance = follow(adam, tanh_network(), 200, 100, 2)
    assert distance.relative_error < 5e-4
    assert bool(path.trust.trusted)
    _, distance = follow(adam, tanh_network(), 200, 100, 3, 2)
    assert distance.relative_error < 5e-4
    four, distance = follow(adam, tanh_network(), 200, 100, 4)
    assert distance.relative_error > 0.1
    assert four.trust.verdict == VERDICT.order_too_high
    six, _ = follow(adam, tanh_network(), 200, 100, 6, max_solver_steps=4096)
    assert six.trust.verdict == VERDICT.order_too_high
    assert six.result == ct.OUTCOME.order_too_high
    with pytest.raises(ct.RunError, match="take order 2, or a larger stride"):
        raise_unless_okay(six)


def test_auto_falls_back_from_an_order_that_blows_up():
    path, distance = follow(optax.adam(0.01, b2=0.99), tanh_network(), 200, 100, "auto")
    assert (path.trust.order, path.trust.stride) == (3, 2)
    assert distance.relative_error < 5e-4


@pytest.mark.slow
def test_estimate_is_the_error_where_nothing_amplifies_it():
    """Within a factor of four of the error against the optimizer, over three orders of it."""
    network = ct.problems.digits_mlp((8,), images=100)
    for order in (1, 6):
        path, distance = follow(optax.adam(1e-3), network, 100, 20, order)
        assert 1 / 4 < float(path.trust.estimate) / distance.relative_error < 4


@pytest.mark.slow
def test_a_flow_that_damps_what_the_optimizer_grows_is_not_trusted():
    """RMSProp past the edge: order 2 slides smoothly where the optimizer bounces."""
    rmsprop = optax.rmsprop(3e-3, decay=0.99, bias_correction=True)
    path, distance = follow(rmsprop, tanh_network(), 300, 100, 2)
    assert path.result == ct.OUTCOME.successful
    assert distance.relative_error > 0.1
    assert path.trust.verdict == VERDICT.period_two


@pytest.mark.slow
def test_stride_two_passes_the_edge_of_stability():
    """Gradient descent, sharpness·η going through 2: EQUATIONS §1, Past the edge."""
    descent = optax.sgd(0.08)
    path, distance = follow(descent, tanh_network(), 1200, 260, 6, 2, every=20)
    assert bool(path.trust.trusted)
    assert max(distance.per_step) < 0.15 * distance.distance
    assert distance.per_step[-1] < 1e-2 * distance.distance
    path, distance = follow(descent, tanh_network(), 1200, 260, 2, 1, every=20)
    assert distance.relative_error > 0.1
    assert path.trust.verdict == VERDICT.period_two


def test_at_rest_everything_is_trusted():
    path = ct.solve(ct.InterpolatingFlow(optax.sgd(0.1)), lambda x: jnp.sum(x**2), jnp.zeros(2), 20)
    assert bool(path.trust.trusted)
    assert float(path.trust.estimate) == 0


def test_other_flows_have_no_trust():
    assert ct.solve(ct.AdamFlow(0.1), lambda x: jnp.sum(x**2), jnp.ones(2), 3).trust is None


def toy():
    """A tanh layer of 4 × 3 weights and 3 biases fitted to 30 points."""
    rng = np.random.default_rng(0)
    inputs = jnp.asarray(rng.standard_normal((30, 4)))
    wanted = jnp.tanh(jnp.asarray(rng.standard_normal((30, 4)) @ rng.standard_normal((4, 3))))

    def loss(params):
        outputs = jnp.tanh(inputs @ params["weight"] + params["bias"])
        return jnp.mean(jnp.sum((outputs - wanted) ** 2, axis=1))

    weight = jnp.asarray(rng.standard_normal((4, 3)) / 2)
    return ct.problems.as_problem(loss), {"weight": weight, "bias": jnp.zeros(3)}


RATE = 3e-3
FOLLOWED = {
    "adabelief": optax.adabelief(RATE),
    "adadelta": optax.adadelta(RATE),
    "adafactor": optax.adafactor(RATE),
    "adagrad": optax.adagrad(RATE),
    "adam": optax.adam(RATE),
    "adam, clipped": optax.chain(optax.clip_by_global_norm(0.1), optax.adam(RATE)),
    "adam, scheduled": optax.adam(optax.cosine_decay_schedule(RATE, 100)),
    "adam, injected": optax.inject_hyperparams(optax.adam)(learning_rate=RATE),
    "adamax": optax.adamax(RATE),
    "adamaxw": optax.adamaxw(RATE),
    "adamw": optax.adamw(RATE),
    "adan": optax.adan(RATE),
    "amsgrad": optax.amsgrad(RATE),
    "fromage": optax.fromage(RATE),
    "lamb": optax.lamb(RATE),
    "lars": optax.lars(RATE),
    "nadam": optax.nadam(RATE),
    "nadamw": optax.nadamw(RATE),
    "novograd": optax.novograd(RATE / 3),
    "radam": optax.radam(RATE),
    "sgd": optax.sgd(RATE),
    "sgd, momentum": optax.sgd(RATE, momentum=0.9),
    "sgd, nesterov": optax.sgd(RATE, momentum=0.9, nesterov=True),
    "sm3": optax.sm3(RATE),
    "yogi": optax.yogi(RATE),
    "acprop": contrib.acprop(RATE),
    "ademamix": contrib.ademamix(RATE),
    "adopt": contrib.adopt(RATE),
    "cocob": contrib.cocob(),
    "dadapt_adamw": contrib.dadapt_adamw(RATE),
    "galore": contrib.galore(RATE, rank=2),
    "madgrad": contrib.madgrad(RATE),
    "muon": contrib.muon(RATE),
    "schedule_free": contrib.schedule_free_adamw(RATE),
    "simplified_ademamix": contrib.simplified_ademamix(RATE / 3),
}
DOUBTED = {
    "dowg": contrib.dowg(),
    "lion": optax.lion(10 * RATE),
    "mechanize": contrib.mechanize(optax.adam(10 * RATE)),
    "prodigy": contrib.prodigy(),
    "rmsprop": optax.rmsprop(3 * RATE),
    "rprop": optax.rprop(RATE),
    "sign_sgd": optax.sign_sgd(10 * RATE),
    "signum": optax.signum(10 * RATE),
}
"""Signs, jumps and restarts: no map that a flow could follow. (The refused ones are in
test_interpolating.)"""
QUICK = {"lamb", "rmsprop"}


def named(optimizers):
    return [
        pytest.param(optimizer, id=name, marks=() if name in QUICK else pytest.mark.slow)
        for name, optimizer in optimizers.items()
    ]


@pytest.mark.parametrize("optimizer", named(FOLLOWED))
def test_followed(optimizer):
    """Trusted, and rightly so: within the limit of trust of the optimizer."""
    path, distance = follow(optimizer, toy(), 100, 20, 2, max_solver_steps=4096)
    assert bool(path.trust.trusted)
    assert distance.relative_error < 0.02


@pytest.mark.parametrize("optimizer", named(DOUBTED))
def test_doubted(optimizer):
    """Not trusted, and rightly so: the flow ends early or goes elsewhere."""
    path, distance = follow(optimizer, toy(), 100, 20, 2, max_solver_steps=4096)
    assert not bool(path.trust.trusted)
    assert distance.steps[-1] < 100 or distance.relative_error > 0.02


@pytest.mark.slow
@pytest.mark.parametrize("name", ["radam", "lamb", "nadamw", "adan", "adamw", "rmsprop"])
def test_digits_table(name):
    """Digits 64-32-32-10, GELU, full batch, η = 1e-3, 10 warm steps, 200 steps, rtol 1e-6."""
    optimizer = getattr(optax, name)(1e-3)
    network = ct.problems.digits_mlp((32, 32), activation=jax.nn.gelu)
    path, auto = follow(optimizer, network, 200, 10, "auto")
    if name == "rmsprop":
        assert not bool(path.trust.trusted)
        return
    assert auto.max_error < (1e-3 if name in ("nadamw", "adan") else 1e-4)
    _, six = follow(optimizer, network, 200, 10, 6)
    assert six.max_error < 1e-4
    if name == "adamw":
        problem, params = network
        where = {"save_steps": auto.steps, "warm_steps": 10}
        paper = ct.AdamFlow(
            1e-3, weight_decay=1e-4, rates="lag", order=2, start="paper"
        )  # optax.adamw's decay
        theirs = ct.solve(paper, problem, params, 200, **where)
        distance = ct.compare(theirs, ct.run(optimizer, problem, params, 200, **where))
        print(f"paper: {distance.max_error:.2e}, {distance.max_error / auto.max_error:.0f} times")
        assert distance.max_error > 50 * auto.max_error
