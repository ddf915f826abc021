"""The ensemble against single runs, lane by lane."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.flatten_util import ravel_pytree

import ct_adam as ct
from ct_adam.simulate.trajectory import outcome_name

H = jnp.array([1.0, 3.0, 10.0, 30.0])
START = jnp.array([1.0, -1.0, 0.5, 2.0])


def loss(x):
    return jnp.sum(H * x**2) / 2


LANES = {"b1": [0.8, 0.9, 0.95], "b2": [0.95, 0.999, 0.9]}


def make_flow(b1, b2):
    return ct.AdamFlow(0.01, b1, b2)


def make_optimizer(b1, b2):
    return ct.k_adam(0.01, b1, b2)


def lanes():
    return list(zip(LANES["b1"], LANES["b2"], strict=True))


def slope_of(log_update, steps):
    half = np.arange(len(log_update)) >= steps / 2
    return np.polyfit(np.arange(len(log_update))[half], log_update[half], 1)[0]


def test_optimizer_lanes_are_runs():
    table = ct.ensemble(make_optimizer, loss, START, 100, LANES)
    for i, (b1, b2) in enumerate(lanes()):
        path = ct.run(make_optimizer(b1, b2), loss, START, 100)
        sizes = np.abs(path.update[:100]).max(axis=1)  # n = 0 … steps - 1
        row = table.isel(lane=i)
        # Two compilations of 100 contracting steps: a thousand ulp.
        np.testing.assert_allclose(row.max_update, sizes.max(), rtol=1e-11)
        np.testing.assert_allclose(row.final_params, path.params[-1], atol=1e-11)
        np.testing.assert_allclose(row.final_loss, path.loss[-1], rtol=1e-9, atol=1e-20)
        np.testing.assert_allclose(row.min_loss, path.loss.min(), rtol=1e-9, atol=1e-20)
        np.testing.assert_allclose(row.update_slope, slope_of(np.log(sizes), 100), rtol=1e-7)
        assert int(row.evaluations) == 100
        assert int(row.outcome) == 0


def test_flow_lanes_are_solves():
    # A tight tolerance, so that the solver's own steps sample u finely enough for its maximum.
    table = ct.ensemble(make_flow, loss, START, 100, LANES, rtol=1e-9, atol=1e-12)
    for i, (b1, b2) in enumerate(lanes()):
        path = ct.solve(make_flow(b1, b2), loss, START, 100, rtol=1e-9, atol=1e-12)
        row = table.isel(lane=i)
        np.testing.assert_allclose(row.final_params, path.params[-1], atol=1e-7)
        np.testing.assert_allclose(row.final_loss, path.loss[-1], rtol=1e-6)
        sizes = np.abs(path.update).max(axis=1)
        # Accepted solver steps and whole steps sample the same curve at different places: its
        # maximum differs by the curvature over a step, a few per cent here.
        np.testing.assert_allclose(row.max_update, sizes.max(), rtol=0.05)
        assert float(row.max_update) >= sizes[0] - 1e-12


def test_slope_of_a_known_exponential():
    # A gradient that vanishes: ln|u| falls or grows linearly, up to the bias factors, which are
    # 1 to 1e-10 in the last half (0.9^300, 0.95^300).
    steps = 600
    stream = ct.problems.vanishing_stream(steps + 1, 250)
    lanes = {"b1": [0.9, 0.95, 0.9], "b2": [0.9, 0.85, 0.8]}
    expected = np.log(lanes["b1"]) - np.log(lanes["b2"]) / 2
    for make in (
        lambda b1, b2: ct.AdamFlow(0.01, b1, b2, eps=0.0),
        lambda b1, b2: ct.k_adam(0.01, b1, b2, eps=0.0),
    ):
        table = ct.ensemble(make, stream, jnp.zeros(1), steps, lanes, rtol=1e-9)
        np.testing.assert_allclose(table.update_slope, expected, atol=1e-7)
        assert np.all(np.isnan(table.final_loss))
        assert np.all(np.isnan(table.min_loss))


def test_streams_starts_and_scales_as_lanes():
    def make(scale, seed):
        grads = ct.problems.GradientStream(scale * jax.random.normal(jax.random.key(seed), (21, 2)))
        return ct.Case(ct.k_adam(0.1, 0.9, 0.99, eps=0.0), grads, params=jnp.full(2, scale))

    columns = {"scale": [1.0, 4.0, 1.0], "seed": np.array([0, 0, 7])}
    table = ct.ensemble(make, None, jnp.zeros(2), 20, columns)
    assert table.seed.dtype.kind == "i"
    moved = table.final_params.values - np.array(columns["scale"])[:, None]
    np.testing.assert_allclose(moved[0], moved[1], atol=1e-13)  # scale-free
    assert np.all(np.abs(moved[0] - moved[2]) > 1e-3)


def test_a_budget_ends_a_lane_and_names_it():
    columns = {"b1": [0.9, 0.9], "b2": [0.999, 0.2]}
    table = ct.ensemble(
        lambda b1, b2: ct.AdamFlow(0.01, b1, b2, eps=0.0),
        loss, START, 300, columns, max_solver_steps=200,
    )  # fmt: skip
    names = table.outcome.attrs["flag_meanings"].split()
    assert [names[i] for i in table.outcome.values] == ["successful", "budget_spent"]
    assert int(table.evaluations[1]) == 200 * 6 + 1
    diverging = ct.ensemble(lambda eta: optax.sgd(eta), loss, START, 400, {"eta": [1e-3, 10.0]})
    assert [names[i] for i in diverging.outcome.values] == ["successful", "nonfinite_run"]
    assert (table.attrs["update_kind"], diverging.attrs["update_kind"]) == ("u", "step")


def test_pytrees_and_observables():
    problem, params = ct.problems.digits_mlp((4,), images=40)
    table = ct.ensemble(
        lambda eta: ct.AdamFlow(eta), problem, params, 5, {"eta": [1e-3, 1e-2]},
        save=lambda step, params, update, loss: {"norm": jnp.linalg.norm(params[0][0])},
    )  # fmt: skip
    size = ravel_pytree(params)[0].size
    assert table.final_params.shape == (2, size)
    assert str(table.parameter.values[0]) == "[0][0][0, 0]"
    alone = ct.solve(ct.AdamFlow(1e-2), problem, params, 5, save_steps=[5])
    np.testing.assert_allclose(
        table.saved_norm[1], jnp.linalg.norm(alone.params[0][0][0]), rtol=1e-9
    )
    assert outcome_name(alone.result) == "successful"


def test_metrics_are_a_choice():
    table = ct.ensemble(make_flow, loss, START, 20, LANES, metrics=("final_loss", "outcome"))
    assert set(table.data_vars) == {"final_loss", "outcome"}


def test_float32_lanes():
    table = ct.ensemble(make_flow, loss, START.astype(jnp.float32), 20, LANES, rtol=1e-4, atol=1e-6)
    assert table.final_params.dtype == np.float32
    assert table.b1.dtype == np.float32


def test_one_compilation_a_sweep():
    traces = []

    def make(b1):
        traces.append(1)
        return ct.AdamFlow(0.01, b1)

    ct.ensemble(make, loss, START, 20, {"b1": np.linspace(0.5, 0.9, 40)})
    first = len(traces)
    ct.ensemble(make, loss, START, 20, {"b1": np.linspace(0.5, 0.8, 40)})
    # The lanes' values are looked at anew, abstractly and traced; the program is not.
    assert len(traces) - first <= 2


BAD = {
    "no lanes": ({}, "empty"),
    "lengths": ({"b1": [0.9], "b2": [0.9, 0.99]}, "common length"),
    "dimensions": ({"b1": [[0.9]], "b2": [[0.9]]}, "one-dimensional"),
    "text": ({"b1": ["a"], "b2": [0.9]}, "numeric"),
    "range": ({"b1": [0.9, 0.5], "b2": [0.9, 1.5]}, "lane 1: b2 = 1.5"),
    "zero": ({"b1": [0.0, 0.5], "b2": [0.9, 0.5]}, "lane 0: b1 = 0"),
    "nan": ({"b1": [0.5, np.nan], "b2": [0.9, 0.5]}, "lane 1: b1 = nan"),
}


@pytest.mark.parametrize("case", BAD)
@pytest.mark.parametrize("make", [make_flow, make_optimizer])
def test_bad_lanes_are_named(case, make):
    columns, words = BAD[case]
    with pytest.raises(ValueError, match=words):
        ct.ensemble(make, loss, START, 10, columns)


def test_bad_options():
    with pytest.raises(ValueError, match="engine"):
        ct.ensemble(make_flow, loss, START, 10, LANES, engine="warp")
    with pytest.raises(ValueError, match="metrics"):
        ct.ensemble(make_flow, loss, START, 10, LANES, metrics=("speed",))
    with pytest.raises(ValueError, match="metrics = 'max_update': give a tuple"):
        ct.ensemble(make_flow, loss, START, 10, LANES, metrics="max_update")
    with pytest.raises(ValueError, match="lanes is a list: give columns by name"):
        ct.ensemble(make_flow, loss, START, 10, [0.5, 0.9])
    with pytest.raises(ValueError, match="make returned float"):
        ct.ensemble(lambda b1, b2: 3.0, loss, START, 10, LANES)
    with pytest.raises(ValueError, match="sees 11"):
        ct.ensemble(make_flow, ct.problems.random_stream(10, 4), START, 10, LANES)


def test_a_removed_moment_in_a_lane():
    table = ct.ensemble(lambda b2: ct.k_adam(0.01, 0, b2), loss, START, 10, {"b2": [0.9, 0.99]})
    path = ct.run(ct.k_adam(0.01, 0, 0.9), loss, START, 10)
    np.testing.assert_allclose(table.final_params[0], path.params[-1], atol=1e-13)


def test_what_is_prepared_compiles_once_for_all_its_tables():
    """Also a loss that cannot be looked up, as it holds a list: a sweep's tiles share a program."""
    from ct_adam.ensemble.prepared import prepared

    traces = []

    class Bowl(eqx.Module):
        centre: list = eqx.field(static=True)

        def __call__(self, x):
            traces.append(1)
            return jnp.sum((x - self.centre[0]) ** 2)

    made = prepared(lambda b1: ct.k_adam(1e-2, b1, 0.99), Bowl([1.0]), jnp.zeros(2), 3)
    first = made.table({"b1": [0.5, 0.9]})
    count = len(traces)
    second = made.table({"b1": [0.6, 0.9]})
    assert len(traces) == count
    assert float(first.final_loss[1]) == float(second.final_loss[1])
