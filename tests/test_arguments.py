"""Arguments as users have them: counts of NumPy and JAX, zeros that are arrays, traced numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import ct_adam as ct
from ct_adam import problems, theory
from ct_adam.decays import numbers, whole_number
from ct_adam.optimizers import invariances, restart_steps

KINDS = [int, np.int64, np.uint8, jnp.asarray]
START = jnp.array([1.0, -2.0])
BATCH = np.arange(12.0)


def loss(x):
    return jnp.sum(x**2) / 2


def mean_square(x, batch):
    return jnp.mean((x[0] - batch) ** 2)


@pytest.mark.parametrize("kind", KINDS)
def test_whole_number(kind):
    found = whole_number("steps", kind(20))
    assert type(found) is int
    assert found == 20
    with pytest.raises(ValueError, match=r"steps = .*0.* must be a whole number of at least 1\."):
        whole_number("steps", kind(0))


@pytest.mark.parametrize(
    "value",
    [
        *(True, np.True_, jnp.array(True), 2.0, np.float64(2), jnp.array(2.0), "2", None),
        *([2], np.array([2]), jnp.array([2]), np.array([2, 3])),
    ],
    ids=repr,
)
def test_what_counts_nothing(value):
    with pytest.raises(ValueError, match=r"^steps = .* must be a whole number of at least 1"):
        whole_number("steps", value)


COUNTED = {
    "run": lambda n: ct.run(ct.adamw(0.1), loss, START, n(6), warm_steps=n(2)).params,
    "solve": lambda n: ct.solve(ct.AdamFlow(0.1), loss, START, n(6), warm_steps=n(2)).params,
    "budget": lambda n: ct.solve(ct.AdamFlow(0.1), loss, START, 6, max_solver_steps=n(99)).params,
    "stride": lambda n: (
        ct.solve(ct.InterpolatingFlow(ct.adamw(0.1), n(2), n(2)), loss, START, 6).params
    ),
    "fixed_batch": lambda n: problems.fixed_batch(mean_square, BATCH, n(4)).value(START),
    "minibatches": lambda n: problems.Minibatches(mean_square, BATCH, n(4)).gradient(0, START),
    "held_out": lambda n: problems.image_network("digits", batch=n(8), held_out=n(37))[0].data,
    "images": lambda n: problems.digits_data(n(9)),
    "stream": lambda n: problems.vanishing_stream(n(6), 2).gradients,
    "gradients": lambda n: theory.worst_case_gradients(0.9, 0.99, n(6)),
    "curve": lambda n: theory.normal_curve(0.9, 0.99, n(6)),
    "k": lambda n: ct.k_adam_decays(n(2), 0.9, 0.999, "lag_split"),
    "restarts": lambda n: restart_steps(n(100), n(2), n(3)),
    "invariances": lambda n: invariances(optax.sgd(0.1), size=n(4), steps=n(5), octaves=n(3)),
    "advise": lambda n: ct.advise(0.9, 0.99, steps=n(6)).bound,
    "advise_decay": lambda n: theory.advise_decay(0.1, steps=n(6)).kept,
    "advise_scaling": lambda n: theory.advise_scaling(n(64), n(128), steps=n(6)).steps,
}


@pytest.mark.parametrize("kind", [np.int64, jnp.asarray])
@pytest.mark.parametrize("call", COUNTED)
def test_counts_of_numpy_and_jax(call, kind):
    given, plain = COUNTED[call](kind), COUNTED[call](int)
    jax.tree.map(np.testing.assert_array_equal, given, plain)


def test_checkpoints_every_so_many_of_jax(tmp_path):
    def run(**how):
        return ct.run(ct.adamw(0.1), loss, START, 6, **how).params

    kept = run(checkpoint=tmp_path, checkpoint_every=jnp.array(4))
    np.testing.assert_array_equal(kept, run(checkpoint=tmp_path / "other", checkpoint_every=4))


@pytest.mark.parametrize("zero", [0, 0.0, np.zeros(()), jnp.zeros(())], ids=repr)
def test_a_decay_of_zero_to_be_advised_on(zero):
    advice = theory.advise_decay(0.1, momentum=zero, b2=zero)
    assert (advice.momentum, advice.b2) == (0, 0)
    assert theory.advise_decay(zero).optax == 0


TRACED = {
    "steps": lambda n: ct.run(ct.adamw(0.1), loss, START, n).params,
    "factor": lambda x: theory.preconditioner_error(0.5, x),
    "noise_to_signal": lambda x: theory.preconditioner_error(x, 2.0),
    "spectrum": lambda x: problems.quadratic([x, 1.0]).value(START),
    "matrix": lambda x: problems.rayleigh_quotient(x * jnp.eye(2)).value(START),
}


@pytest.mark.parametrize("name", TRACED)
def test_what_is_traced_is_named(name):
    with pytest.raises(ValueError, match=f"^{name} is traced by JAX: give"):
        jax.jit(TRACED[name])(2)


def test_what_is_no_number():
    for wrong in (None, "1", "one", [None, "a"], object()):
        with pytest.raises(ValueError, match=r"^eps = .* is not a number"):
            numbers("eps", wrong)


def test_a_schedule_where_a_number_is_wanted():
    for make in (ct.AdamFlow, ct.adamw):
        with pytest.raises(ValueError, match=r"^weight_decay is a function: give a number"):
            make(1e-2, weight_decay=lambda step: 0.1)
