"""run, solve and compare as a user calls them: saving, observables, errors, compilations."""

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import ct_adam as ct


def loss(x):
    return jnp.sum(x**2) / 2


START = jnp.array([1.0, -2.0])
FLOW = ct.AdamFlow(0.01)


def test_run_saves_any_steps():
    every = ct.run(FLOW, loss, START, 40)
    some = ct.run(FLOW, loss, START, 40, save_steps=[0, 3, 4, 17, 40])
    np.testing.assert_array_equal(some.steps, [0, 3, 4, 17, 40])
    for field in ("params", "update", "loss"):
        # The same program steps; another scan around it may round otherwise.
        np.testing.assert_allclose(
            getattr(some, field), getattr(every, field)[some.steps], atol=1e-14
        )


def test_warm_steps_shift_the_clock():
    grads = ct.problems.random_stream(50, size=2)
    schedule = optax.linear_schedule(0.1, 0.0, 50)
    optimizer = ct.k_adam(schedule, 0.9, 0.99)
    every = ct.run(optimizer, grads, START, 49)
    late = ct.run(optimizer, grads, START, 29, warm_steps=20)
    np.testing.assert_allclose(late.params, every.params[20:], atol=1e-14)
    np.testing.assert_allclose(late.update, every.update[20:], atol=1e-12)


@pytest.mark.parametrize("call", [ct.run, ct.solve])
def test_observables_replace_parameters(call):
    whole = call(FLOW, loss, START, 10, save_steps=[0, 5, 10], warm_steps=3)
    seen = call(FLOW, loss, START, 10, save_steps=[0, 5, 10], warm_steps=3, save=_observe)
    assert seen.params is None
    assert seen.update is None
    np.testing.assert_array_equal(seen.saved["step"], [0, 5, 10])
    np.testing.assert_allclose(seen.saved["norm"], jnp.linalg.norm(whole.params, axis=1), 1e-12)
    np.testing.assert_allclose(seen.saved["u"], whole.update, atol=1e-12)
    np.testing.assert_allclose(seen.loss, whole.loss, 1e-12)


def _observe(step, params, update, loss):
    del loss
    return {"step": step, "norm": jnp.linalg.norm(params), "u": update}


def test_solve_saves_1001_steps_of_a_long_run():
    steps = ct.solve(ct.AdamFlow(1e-4), loss, START, 5000).steps
    assert steps.shape == (1001,)
    assert (steps[0], steps[-1]) == (0, 5000)


def test_update_of_an_opaque_optimizer():
    known = ct.run(ct.k_adam(0.01, 0.9, 0.999, weight_decay=0.1), loss, START, 30)
    opaque = optax.adamw(0.01, weight_decay=0.1)
    told = ct.run(opaque, loss, START, 30, learning_rate=0.01, weight_decay=0.1)
    assert told.update_kind == "u"
    # u is read off Δθ/η: an ulp of Δθ ~ η stays an ulp of u ~ 1, plus λθ's.
    np.testing.assert_allclose(told.update, known.update, atol=1e-13)
    with pytest.raises(ValueError, match=r"weight_decay .* with learning_rate: give both"):
        ct.run(opaque, loss, START, 30, weight_decay=0.1)


def test_compare_uses_common_steps_only():
    a = ct.solve(FLOW, loss, START, 20, save_steps=[0, 7, 20])
    b = ct.run(FLOW, loss, START, 20)
    result = ct.compare(a, b)
    difference = np.abs(np.asarray(a.params) - np.asarray(b.params)[[0, 7, 20]])
    travelled = np.max(np.abs(np.asarray(b.params)[[0, 7, 20]] - np.asarray(START)))
    np.testing.assert_array_equal(result.steps, [0, 7, 20])
    np.testing.assert_allclose(result.per_step, difference.max(axis=1))
    assert result.max_error == pytest.approx(difference.max())
    assert result.rms_error == pytest.approx(np.sqrt(np.mean(difference**2)))
    assert f"max_error={difference.max():.4g}" in str(result)
    assert str(result).endswith("learning_rate=nan, 3 steps)")
    assert result.relative_error == pytest.approx(difference.max() / travelled)
    with pytest.raises(ValueError, match="no saved step in common"):
        ct.compare(ct.run(FLOW, loss, START, 4, save_steps=[3]), a)
    with pytest.raises(ValueError, match="without save"):
        ct.compare(ct.run(FLOW, loss, START, 4, save=_observe), a)


def test_compare_does_not_praise_a_flow_that_was_lost():
    def cut(path, last):
        """As if it had ended right after step `last`."""
        kept = jnp.where((path.steps <= last)[:, None], path.params, jnp.nan)
        return eqx.tree_at(lambda t: t.params, path, kept)

    ode, discrete = ct.solve(FLOW, loss, START, 20), ct.run(FLOW, loss, START, 20)
    whole = ct.compare(ode, discrete)
    for lost, other in ((cut(ode, 7), discrete), (ode, cut(discrete, 7))):
        found = ct.compare(lost, other)
        assert (found.max_error, found.rms_error, found.relative_error) == (np.inf,) * 3
        np.testing.assert_array_equal(found.steps, np.arange(8))
        np.testing.assert_array_equal(found.per_step, whole.per_step[:8])
    assert ct.compare(cut(ode, 7), discrete).distance == whole.distance
    # Where both were lost, what both reached is compared; of the start alone nothing is told.
    both = ct.compare(cut(ode, 7), cut(discrete, 7))
    assert both.max_error == whole.per_step[:8].max()
    nothing = ct.compare(cut(ode, 0), cut(discrete, 0))
    assert np.isnan([nothing.max_error, nothing.rms_error, nothing.relative_error]).all()


def test_compare_of_a_run_that_spent_its_budget():
    stiff, where = ct.AdamFlow(0.01, b1=0.9, b2=0.1, eps=0.0), {"save_steps": [0, 400]}
    path = ct.solve(stiff, loss, START, 400, max_solver_steps=50, throw=False, **where)
    assert ct.compare(path, ct.run(stiff, loss, START, 400, **where)).relative_error == np.inf


def test_compare_leaves_out_what_lies_behind_an_event():
    def half_way(t, *_, **__):
        return t >= 10

    path = ct.solve(FLOW, loss, START, 20, event=diffrax.Event(half_way))
    assert path.result == ct.OUTCOME.event_occurred
    found, whole = (
        ct.compare(x, ct.run(FLOW, loss, START, 20))
        for x in (path, ct.solve(FLOW, loss, START, 20))
    )
    last = int(found.steps[-1])
    assert 0 < last < 20
    # The same tolerance, not the same solver steps.
    np.testing.assert_allclose(found.max_error, whole.per_step[: last + 1].max(), rtol=1e-3)
    discrete = ct.run(FLOW, loss, START, last)
    assert found.distance == np.max(np.abs(discrete.params - START)) < whole.distance


def test_errors_in_units_of_the_learning_rate():
    found = ct.compare(
        ct.solve(FLOW, loss, START, 20), ct.run(FLOW, loss, START, 20), lambda n: 0.02 / (1 + n)
    )
    assert found.learning_rate == pytest.approx(0.02)  # the largest, at step 0
    assert found.max_error_in_learning_rates == pytest.approx(found.max_error / 0.02)
    np.testing.assert_allclose(found.per_step_in_learning_rates, found.per_step / 0.02)


def test_trajectory_as_xarray():
    params = {"w": jnp.ones((2, 3)), "b": jnp.zeros(3)}

    def tree_loss(p):
        return jnp.sum(p["w"] ** 2) + jnp.sum((p["b"] - 1) ** 2)

    dataset = ct.run(FLOW, tree_loss, params, 5).to_xarray()
    assert dataset["params['w']"].shape == (6, 2, 3)
    assert dataset.step.attrs["units"] == "steps"
    assert dataset.attrs["outcome"] == "successful"


def test_a_new_value_compiles_nothing():
    traces = []

    def counted(x):
        traces.append(1)
        return loss(x)

    ct.solve(ct.AdamFlow(0.01), counted, START, 10)
    ct.run(ct.AdamFlow(0.01), counted, START, 10)
    before = len(traces)
    for b1, eta, steps in ((0.8, 0.02, 10), (0.7, 0.03, 10)):
        flow = ct.AdamFlow(eta, b1=b1, b2=0.99, eps=1e-6)
        ct.solve(flow, counted, START, steps, rtol=1e-7)
        ct.run(flow, counted, START, steps)
    # check_problem looks at shapes (value and gradient) at each of the four calls.
    assert len(traces) - before == 4 * 2


def test_outcomes_name_what_happened():
    stiff = ct.AdamFlow(0.01, b1=0.9, b2=0.1, eps=0.0)
    spent = ct.solve(stiff, loss, START, 400, max_solver_steps=50, throw=False)
    assert spent.result == ct.OUTCOME.budget_spent
    assert np.isnan(spent.params[-1, 0])
    assert np.isfinite(spent.params[0, 0])
    with pytest.raises(ct.RunError, match="max_solver_steps"):
        ct.solve(stiff, loss, START, 400, max_solver_steps=50)
    with pytest.raises(ct.RunError, match="This was float32: enable jax_enable_x64"):
        ct.solve(stiff, loss, START.astype(jnp.float32), 400, max_solver_steps=50)
    diverging = ct.run(optax.sgd(10.0), loss, START, 600)
    assert diverging.result == ct.OUTCOME.nonfinite_run


def test_a_loss_that_is_nan_is_said_so():
    def bad(x):
        return jnp.sum(jnp.log(x))

    with pytest.raises(ct.RunError, match="not finite at the initial parameters"):
        ct.solve(FLOW, bad, -jnp.ones(2), 10)
    assert ct.run(FLOW, bad, -jnp.ones(2), 10).result == ct.OUTCOME.nonfinite_start

    def hole(x):  # finite at the start, NaN from x = 0.95 on, where the gradient 1 drives it
        return jnp.sum(jnp.where(x > 0.95, x, jnp.nan))

    for call in (
        ct.solve(FLOW, hole, jnp.ones(1), 20, throw=False),
        ct.run(FLOW, hole, jnp.ones(1), 20),
    ):
        assert call.result == ct.OUTCOME.nonfinite_run

    def edge(x):  # here the gradient is NaN too: no solver step gets past it
        return jnp.sum(jnp.sqrt(x - 0.95))

    late = ct.solve(FLOW, edge, jnp.ones(1), 20, throw=False)
    assert late.result == ct.OUTCOME.stalled
    assert int(late.stats["num_steps"]) < 1000  # of a budget of 8192


def test_errors_under_jit_are_errors_too():
    @eqx.filter_jit
    def compiled(b2):
        return ct.solve(
            ct.AdamFlow(0.01, b1=0.9, b2=b2, eps=0.0), loss, START, 400, max_solver_steps=50
        ).params

    with pytest.raises(Exception, match="max_solver_steps"):
        jax.block_until_ready(compiled(jnp.asarray(0.1)))


BAD = {
    "not a flow": (lambda: ct.solve(optax.sgd(1.0), loss, START, 5), "use run"),
    "not an optimizer": (lambda: ct.run(loss, loss, START, 5), "optax transformation or a flow"),
    "loss is no function": (lambda: ct.run(FLOW, 3.0, START, 5), "params -> scalar"),
    "loss is a vector": (lambda: ct.solve(FLOW, lambda x: x**2, START, 5), "not a real scalar"),
    "loss with more": (
        lambda: ct.run(FLOW, lambda x: (jnp.sum(x**2), {}), START, 5),
        "returns tuple, not a real scalar: return the loss alone",
    ),
    "no loss": (lambda: ct.run(FLOW, lambda x: None, START, 5), "returns NoneType, not a real"),
    "loss is complex": (lambda: ct.run(FLOW, lambda x: jnp.sum(x) * 1j, START, 5), "real scalar"),
    "integer parameters": (lambda: ct.solve(FLOW, loss, jnp.arange(3), 5), "floating-point"),
    "text parameters": (lambda: ct.run(FLOW, loss, {"a": "b"}, 5), "floating-point"),
    "no parameters": (lambda: ct.solve(FLOW, loss, [], 5), "no leaves"),
    "no steps": (lambda: ct.solve(FLOW, loss, START, 0), "steps = 0"),
    "half a step": (lambda: ct.run(FLOW, loss, START, 2.5), "whole number"),
    "warm steps": (lambda: ct.solve(FLOW, loss, START, 5, warm_steps=-1), "warm_steps"),
    "save out of range": (lambda: ct.solve(FLOW, loss, START, 5, save_steps=[0, 6]), "0 … 5"),
    "save unsorted": (lambda: ct.run(FLOW, loss, START, 5, save_steps=[3, 1]), "increase"),
    "save halves": (lambda: ct.solve(FLOW, loss, START, 5, save_steps=[0.5]), "whole"),
    "stream too short": (
        lambda: ct.solve(FLOW, ct.problems.random_stream(5, 2), START, 5),
        "holds 5 gradients but this run sees 6",
    ),
    "stream of another shape": (
        lambda: ct.run(FLOW, ct.problems.random_stream(9, 3), START, 5),
        "do not match",
    ),
    "unknown rates": (lambda: ct.AdamFlow(0.1, rates="fast"), "choose one of 'log'"),
    "unknown start": (lambda: ct.AdamFlow(0.1, start="warm"), "choose one of"),
    "order": (lambda: ct.AdamFlow(0.1, order=3), "must be 1 or 2"),
    "decay": (lambda: ct.AdamFlow(0.1, b2=1.0), r"b2 = 1 must be in \[0, 1\)"),
    "learning rate": (lambda: ct.AdamFlow(-0.1), "learning_rate = -0.1"),
    "stages": (lambda: ct.AdamFlow(0.1, b1=(0.9, 0.9)), "KAdamFlow"),
    "array of stages": (lambda: ct.AdamFlow(0.1, np.full(2, 0.9)), "AdamFlow has one stage"),
    "stages of one": (lambda: ct.SMEFlow(0.1, b2=(0.9, 0.9)), "SMEFlow has one stage"),
    "text of digits": (lambda: ct.AdamFlow("0.1"), "learning_rate = '0.1' is not a number"),
    "no learning rate": (lambda: ct.AdamFlow(None), "learning_rate = None is not a number"),
    "sign flow": (lambda: ct.SignFlow(0.1, eps=-1.0), "eps"),
    "class of a solver": (
        lambda: ct.solve(FLOW, loss, START, 5, solver=diffrax.Dopri8),
        r"solver = Dopri8 must be one of diffrax's, made: diffrax\.Tsit5\(\)",
    ),
    "class of a controller": (
        lambda: ct.solve(FLOW, loss, START, 5, controller=diffrax.PIDController),
        "controller = PIDController must be",
    ),
    "budget": (lambda: ct.solve(FLOW, loss, START, 5, max_solver_steps=1e5), "a whole number"),
    "tolerance": (lambda: ct.solve(FLOW, loss, START, 5, rtol=None), "rtol = None is not a number"),
    "first step": (lambda: ct.solve(FLOW, loss, START, 5, dt0="a"), "dt0 = 'a' is not a number"),
    "save nothing": (lambda: ct.solve(FLOW, loss, START, 5, save=3), "save = 3 is no function"),
    "save of one": (lambda: ct.run(FLOW, loss, START, 5, save=lambda x: x), "is called as save"),
    "save text": (lambda: ct.run(FLOW, loss, START, 5, save_steps=["a"]), "whole numbers"),
    "compare a flow": (lambda: ct.compare(FLOW, FLOW), "what solve and run return, not AdamFlow"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_gets_one_sentence(case):
    call, words = BAD[case]
    with pytest.raises(ValueError, match=words) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_another_optimizers_state_is_refused():
    state = optax.sgd(0.1).init(START)
    with pytest.raises(ValueError, match="0 stages of moments"):
        FLOW.from_optimizer(loss, START, state, 3)


def test_vmap_over_hyperparameters():
    def end(b1):
        return ct.solve(ct.AdamFlow(0.01, b1=b1), loss, START, 20, save_steps=[20]).params[0]

    together = jax.vmap(end)(jnp.array([0.5, 0.9]))
    alone = jnp.stack([end(jnp.asarray(b)) for b in (0.5, 0.9)])
    np.testing.assert_allclose(together, alone, atol=1e-12)


def test_the_vector_field_is_a_diffrax_term():
    term = diffrax.ODETerm(FLOW.vector_field)
    solution = diffrax.diffeqsolve(
        term,
        diffrax.Tsit5(),
        0.0,
        20.0,
        0.1,
        FLOW.init(loss, START),
        loss,
        stepsize_controller=diffrax.PIDController(rtol=1e-9, atol=1e-12),
    )
    ours = ct.solve(FLOW, loss, START, 20, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(FLOW.params(solution.ys)[0], ours.params[-1], atol=1e-9)
