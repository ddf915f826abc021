"""Engines against one another, lane by lane, but for lanes that one ulp of the start changes."""

import json
import os
import subprocess
import sys
from functools import partial
from importlib import import_module
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import ct_adam as ct
from ct_adam.caches import cache_folder
from ct_adam.simulate.trajectory import outcome_names

compiled = import_module("ct_adam.ensemble.compiled")
H = jnp.array([1.0, 3.0, 10.0, 30.0])
START = jnp.array([1.0, -1.0, 0.5, 2.0])
RNG = np.random.default_rng(0)
DECAYS = {"b1": RNG.uniform(0.5, 0.98, 48), "b2": RNG.uniform(0.5, 0.999, 48)}


def quadratic(x):
    return jnp.sum(H * x**2) / 2


def coupled(x):
    """Rosenbrock's valley in six coordinates."""
    return jnp.sum(100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2) / 100


def of_two_leaves(params):
    return quadratic(params["a"]) + params["b"] ** 2


def sometimes_nan(x):
    return jnp.sum(jnp.log(x))


def adam_flow(b1, b2):
    return ct.AdamFlow(1e-2, b1, b2)


def paper_flow(b1, b2):
    return ct.AdamFlow(1e-2, b1, b2, weight_decay=0.1, rates="lag", order=2, start="paper")


def scheduled(b1, b2):
    return ct.AdamFlow(optax.linear_schedule(1e-2, 0.0, 40), b1, b2, decay="l2", weight_decay=0.1)


def two_stages(b1, b2):
    return ct.KAdamFlow(1e-2, (b1, b1), (b2, b2))


def adamw(b1, b2):
    return ct.adamw(1e-2, b1, b2, weight_decay=0.1)


def users_own(b1, b2):
    return optax.chain(
        optax.clip(1.0),
        optax.trace(b1, nesterov=True),
        optax.scale_by_rms(b2, bias_correction=True),
        optax.add_decayed_weights(1e-3),
        optax.scale_by_schedule(optax.cosine_decay_schedule(-1e-2, 60)),
    )


def on_a_stream(b1, b2):
    stream = ct.problems.worst_case_stream(b1, b2, 61, "held", "log")
    return ct.Case(ct.AdamFlow(1e-2, b1, b2, eps=0.0), stream, jnp.zeros(1))


def on_a_shared_stream(b1, b2):
    return ct.Case(ct.k_adam(1e-2, b1, b2), ct.problems.random_stream(80, 2, seed=1), jnp.zeros(2))


CASES = {
    "adam flow": (adam_flow, quadratic, START),
    "the paper's flow": (paper_flow, quadratic, START),
    "a schedule": (scheduled, quadratic, START),
    "two stages": (two_stages, quadratic, START),
    "sign flow": (lambda b1, b2: ct.SignFlow(b1 * 1e-2, eps=b2), quadratic, START),
    "a coupled loss": (adam_flow, coupled, jnp.linspace(-1, 1, 6)),
    "a PyTree": (adam_flow, of_two_leaves, {"a": START, "b": jnp.ones(())}),
    "adamw": (adamw, quadratic, START),
    "a user's optimizer": (users_own, quadratic, START),
    "lion": (lambda b1, b2: optax.lion(1e-3, b1, b2), quadratic, START),
    "radam": (lambda b1, b2: optax.radam(1e-2, b1, b2), quadratic, START),
    "a stream of each lane": (on_a_stream, None, START),
    "a stream of all": (on_a_shared_stream, None, START),
}  # fmt: skip


def both(make, loss, start, lanes=DECAYS, steps=60, engine="fused", **options):
    run = partial(ct.ensemble, make, loss, start, steps, lanes, **options)
    return run(engine=engine), run(engine="reference")


def sensitive(make, loss, start, theirs, **options):
    """Lanes that one ulp of the start changes by as much as a hundredth of the tolerance."""
    nudged = jax.tree.map(lambda x: x * (1 + 2.0**-52), start)
    other = ct.ensemble(make, loss, nudged, 60, DECAYS, engine="reference", **options)
    return np.abs(other.final_params - theirs.final_params).max("parameter").values > 1e-8


# A kernel takes seconds to compile: what lowers like another stands among the slow ones.
LIKE_OTHERS = {
    "adam flow",
    "a PyTree",
    "a stream of each lane",
    "a schedule",
    "two stages",
    "sign flow",
    "the paper's flow",
    "lion",
    "radam",
}


@pytest.mark.parametrize("engine", ["cohort", "fused"])
@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=[pytest.mark.slow] if n in LIKE_OTHERS else []) for n in CASES],
)
def test_engines_agree(name, engine):
    """Both take the reference's steps: they differ by rounding, but where steps are accepted by a
    hair; then by the solver's tolerance, in lanes that are sensitive by the one-ulp criterion."""
    make, loss, start = CASES[name]
    ours, theirs = both(make, loss, start, engine=engine)
    apart = np.abs(ours.final_params - theirs.final_params).max("parameter").values
    nudged = sensitive(make, loss, start, theirs)
    free = nudged | (ours.evaluations != theirs.evaluations).values
    print(f"{name}, {engine}: {nudged.mean():.0%} sensitive, {free.mean():.0%} with other steps")
    assert np.all(ours.outcome == theirs.outcome)
    assert np.all(apart[~free] < 1e-8)
    assert free.mean() <= 0.1
    # A few other steps: of the order of the solver's error, which is 1e-6 a step, 60 steps.
    assert np.all(apart[free] < 1e-3)
    for metric, tolerance in (("max_update", 1e-6), ("update_slope", 1e-5), ("min_loss", 1e-5)):
        found, expected = ours[metric].values[~free], theirs[metric].values[~free]
        np.testing.assert_allclose(found, expected, rtol=tolerance, atol=1e-5 * tolerance + 1e-9)


@pytest.mark.parametrize("engine", ["cohort", pytest.param("fused", marks=pytest.mark.slow)])
def test_how_lanes_end(engine):
    """Each by its own outcome: none, too little budget, a NaN on the way, a NaN at the start."""
    names = outcome_names()

    def outcomes(make, loss, start, lanes, **options):
        table, theirs = both(make, loss, start, lanes, engine=engine, **options)
        assert np.all(table.outcome == theirs.outcome)
        return [names[i] for i in table.outcome.values]

    lanes = {"scale": [1e-3, 1e-1]}
    flow = lambda scale: ct.AdamFlow(scale, eps=1e-3)  # noqa: E731
    assert outcomes(flow, quadratic, START, lanes, max_solver_steps=30) == [
        "successful", "budget_spent",
    ]  # fmt: skip
    positive = jnp.full(2, 0.5)
    assert outcomes(flow, sometimes_nan, positive, lanes) == ["successful", "stalled"]
    assert outcomes(flow, sometimes_nan, -positive, lanes) == ["nonfinite_start"] * 2
    gd = lambda scale: optax.sgd(scale)  # noqa: E731
    lanes = {"scale": [1e-2, 1e3]}
    assert outcomes(gd, lambda x: jnp.sum(x**4), START, lanes) == ["successful", "nonfinite_run"]


def test_fused_refuses_by_name_and_auto_falls_back():
    many = {"rate": np.linspace(1e-3, 1e-2, compiled.FUSED_FROM)}
    loss = lambda x: jnp.sum(jnp.cumsum(x) ** 2 * H)  # noqa: E731
    make = lambda rate: ct.AdamFlow(rate)  # noqa: E731
    with pytest.raises(ValueError, match=r"engine='fused' cannot .* the primitive cumsum"):
        ct.ensemble(make, loss, START, 5, many, engine="fused")
    table = ct.ensemble(make, loss, START, 5, many)
    assert np.all(table.outcome == 0)


def test_warm_steps_and_single_precision():
    table, theirs = both(adam_flow, quadratic, START, warm_steps=7)
    agree = (table.evaluations == theirs.evaluations).values
    assert agree.mean() > 0.5
    apart = np.abs(table.final_params - theirs.final_params).max("parameter").values
    assert np.max(apart[agree]) < 1e-8
    short = START.astype("float32")
    table, theirs = both(adamw, lambda x: jnp.sum(H.astype(x.dtype) * x**2) / 2, short)
    assert table.final_params.dtype == np.float32
    # 60 contracting steps of η = 1e-2 in 24 bits.
    np.testing.assert_allclose(table.final_params, theirs.final_params, atol=1e-5)


def test_second_call_neither_traces_nor_compiles():
    made = []

    def make(b1, b2):
        made.append(b1)
        return ct.AdamFlow(1e-2, b1, b2)

    for engine in ("reference", "cohort", "fused"):
        run = partial(ct.ensemble, make, quadratic, START, engine=engine)
        first = run(20, DECAYS)
        count = len(made)
        again = {name: column[::-1].copy() for name, column in DECAYS.items()}
        second = run(20, again)
        assert len(made) == count, engine
        np.testing.assert_array_equal(second.final_params[::-1], first.final_params)
        if engine != "reference":  # diffrax compiles its budget in
            run(25, DECAYS, rtol=1e-5)
            # A new number of steps is checked against what a stream holds: one look, no program.
            assert len(made) == count + 1, engine


@pytest.mark.parametrize("engine", ["reference", "cohort", "fused"])
def test_outcomes_do_not_depend_on_what_else_is_asked(engine):
    """A lane that overflows on its way, whether its updates are looked at or not."""
    rates = {"learning_rate": [1e-3, 1e3]}
    run = partial(ct.ensemble, optax.sgd, quadratic, START, 400, engine=engine)
    alone = run(rates, metrics=("outcome",)).outcome.values
    all_told = run(rates).outcome.values
    np.testing.assert_array_equal(alone, all_told)
    assert alone[0] != alone[1]


def test_bad_lanes_are_told():
    with pytest.raises(ValueError, match=r"make fails .*\(b3\): TypeError"):
        ct.ensemble(adam_flow, quadratic, START, 5, {"b3": [0.9]})
    with pytest.raises(ValueError, match=r"make fails .* TracerBoolConversionError"):
        ct.ensemble(lambda b1: b1 if b1 > 0 else None, quadratic, START, 5, {"b1": [0.9]})
    single = lambda b1: ct.Case(ct.AdamFlow(1e-2, b1), params=START.astype("float32"))  # noqa: E731
    with pytest.raises(ValueError, match="float32, params are of type float64"):
        ct.ensemble(single, quadratic, START, 5, {"b1": [0.9]})


@pytest.mark.slow
def test_what_the_lowering_trips_over_runs_elsewhere(monkeypatch):
    """Refused by name (random keys), or failing with an error of ours: then with a warning."""
    many = {"rate": np.linspace(1e-3, 1e-2, compiled.FUSED_FROM)}
    noise = lambda x: quadratic(x + jax.random.normal(jax.random.key(0), (4,)))  # noqa: E731
    table = ct.ensemble(lambda rate: ct.AdamFlow(rate), noise, START, 3, many)
    assert np.all(table.outcome == 0)

    def broken(*_):
        raise RuntimeError("no idea")

    monkeypatch.setattr(import_module("ct_adam.ensemble.fused"), "plan", broken)
    with pytest.warns(UserWarning, match="no idea.* the cohort engine runs it"):
        ct.ensemble(lambda rate: ct.AdamFlow(rate), quadratic, START, 3, many)


INTERRUPTED = """
import os, signal, sys, threading, time
from importlib import import_module
import numpy as np
kernels = import_module("ct_adam.ensemble.kernels")
ended = []
def kernel(carry, known, lanes, first, stride, stop):
    while not stop[0]:
        time.sleep(0.01)
    ended.append(first)
threading.Timer(0.5, os.kill, [os.getpid(), signal.SIGINT]).start()
try:
    kernels.run_kernel(kernel, np.zeros((1, 1)), np.zeros((1, 0)), [], np.arange(1), 2)
except KeyboardInterrupt:
    print("stopped", ended)
"""


def test_ctrl_c_stops_the_kernel():
    """Its threads see the flag; the interrupt is raised after they have ended."""
    told = subprocess.run(
        [sys.executable, "-c", INTERRUPTED], capture_output=True, text=True, timeout=60
    )
    assert told.stdout == "stopped [0]\n"


def test_damaged_cache_is_made_anew(monkeypatch, tmp_path):
    monkeypatch.setenv("CT_ADAM_CACHE", str(tmp_path))
    make = lambda rate: optax.sgd(rate)  # noqa: E731

    def final():
        return ct.ensemble(make, quadratic, START, 5, {"rate": [1e-2]}, engine="fused")

    first = final()
    for pattern, content in (("*.py", b"kern"), ("**/*.nbi", b"\0"), ("**/*.nbc", b"\0")):
        for path in (tmp_path / "kernels").glob(pattern):
            path.write_bytes(content)
        compiled._programs.clear()
        np.testing.assert_array_equal(final().final_params, first.final_params)


class Bowl(eqx.Module):
    """A loss that holds a NumPy array, and one of Python's lists."""

    curvatures: np.ndarray
    names: list

    def __call__(self, x):
        return jnp.sum(self.curvatures * x**2) / 2


class Scaled(eqx.Module):
    scale: np.float64

    def __call__(self, x):
        return self.scale * quadratic(x)


def test_losses_with_arrays_of_their_own():
    """Another array is no other program; a program that cannot be told again is compiled anew."""
    scaled = Scaled(np.float64(2.0))
    ct.ensemble(adam_flow, scaled, START, 3, DECAYS, engine="cohort", max_solver_steps=np.int64(99))
    for names in ((), ("a", {1, 2})):
        tables = [
            ct.ensemble(
                adam_flow, Bowl(np.asarray(h), [*names]), START, 20, DECAYS, engine="cohort"
            )
            for h in (H, 2 * H)
        ]
        assert not np.allclose(*(table.final_loss for table in tables))


def test_result_does_not_depend_on_the_neighbours():
    """Bit by bit: what a resumed sweep rests on."""
    whole = ct.ensemble(adam_flow, quadratic, START, 60, DECAYS, engine="fused")
    lanes = {name: column[5:18] for name, column in DECAYS.items()}
    part = ct.ensemble(adam_flow, quadratic, START, 60, lanes, engine="fused")
    np.testing.assert_array_equal(part.final_params, whole.final_params[5:18])


def test_tiles_are_one_ensemble(monkeypatch):
    whole = ct.ensemble(adam_flow, quadratic, START, 60, DECAYS, engine="fused")
    monkeypatch.setattr(import_module("ct_adam.ensemble.kernels"), "TILE", 20)
    compiled._programs.clear()
    tiles = ct.ensemble(adam_flow, quadratic, START, 60, DECAYS, engine="fused")
    np.testing.assert_array_equal(tiles.final_params, whole.final_params)


def test_cohorts_side_by_side():
    """What an accelerator runs, here on the CPU: blocks of 16 lanes that make room for others."""
    cohort = import_module("ct_adam.ensemble.cohort")
    program = import_module("ct_adam.ensemble.program").Program
    settings = import_module("ct_adam.ensemble.reference").Settings
    shared = settings(jnp.asarray(60.0), 0, jnp.asarray(1e-6), jnp.asarray(1e-9),
                      jnp.asarray(5000), True, True, True, None)  # fmt: skip
    ours = jax.jit(
        lambda lanes: cohort.side_by_side(program(adam_flow, quadratic, START, shared), lanes, 16)
    )(DECAYS)
    theirs = ct.ensemble(
        adam_flow, quadratic, START, 60, DECAYS, engine="cohort", max_solver_steps=5000
    )
    same = np.asarray(ours.evaluations) == theirs.evaluations.values
    assert same.mean() > 0.5
    apart = np.abs(ours.params - theirs.final_params.values).max(1)
    assert np.max(apart[same]) < 1e-8


SHORT = """
import json, jax.numpy as jnp, optax
import ct_adam as ct
rows = [ct.ensemble(make, lambda x: jnp.sum(x**2), jnp.ones(2), 20, {"b1": [0.5, 0.9]}, engine=e)
        for make in (lambda b1: ct.adamw(1e-2, b1), lambda b1: ct.AdamFlow(1e-2, b1))
        for e in ("fused", "reference")]
print(json.dumps([[str(r.final_params.dtype), r.final_params.values.tolist()] for r in rows]))
"""


def test_single_precision_where_jax_knows_no_other():
    told = subprocess.run(
        [sys.executable, "-c", SHORT], capture_output=True, text=True, check=True
    ).stdout
    rows = json.loads(told)
    assert {kind for kind, _ in rows} == {"float32"}
    # 20 steps of 1e-2 in 24 bits; the flows' own tolerance is 1e-6.
    np.testing.assert_allclose(rows[0][1], rows[1][1], atol=1e-5)
    np.testing.assert_allclose(rows[2][1], rows[3][1], atol=1e-4)


SCRIPT = """
import json, jax, jax.numpy as jnp
jax.config.update("jax_enable_x64", True)
import ct_adam as ct
table = ct.ensemble(lambda b1: ct.AdamFlow(1e-2, b1), lambda x: jnp.sum(x**2), jnp.ones(2), 20,
                    {"b1": [0.5, 0.7, 0.9]}, engine="cohort")
print(json.dumps([len(jax.devices()), table.final_params.values.tolist()]))
"""


def test_several_devices_share_the_lanes():
    """Three lanes on two devices, filled up and cut again."""
    environment = os.environ | {"XLA_FLAGS": "--xla_force_host_platform_device_count=2"}
    told = subprocess.run(
        [sys.executable, "-c", SCRIPT], env=environment, capture_output=True, text=True, check=True
    )
    devices, params = json.loads(told.stdout)
    assert devices == 2
    here = ct.ensemble(lambda b1: ct.AdamFlow(1e-2, b1), lambda x: jnp.sum(x**2), jnp.ones(2), 20,
                       {"b1": [0.5, 0.7, 0.9]}, engine="cohort")  # fmt: skip
    np.testing.assert_allclose(params, here.final_params, rtol=1e-12)


def test_kernels_live_where_they_can_be_written(monkeypatch, tmp_path: Path):
    monkeypatch.setenv("CT_ADAM_CACHE", str(tmp_path / "here"))
    assert cache_folder("kernels") == tmp_path / "here" / "kernels"
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("CT_ADAM_CACHE", str(tmp_path / "file"))
    assert cache_folder("kernels").is_dir()


@pytest.mark.parametrize("engine", ["cohort", "fused"])  # a reference takes one lane at a time
def test_lanes_do_not_depend_on_the_number_of_cores(engine, monkeypatch):
    """What a sweep promises: its workers may have other cores than its first process."""
    import_module("ct_adam.ensemble.fused")
    rng = np.random.default_rng(0)
    lanes = {"b1": rng.uniform(0.5, 0.99, 37), "b2": rng.uniform(0.9, 0.999, 37)}

    def table(cores):
        for name in ("cohort", "fused"):
            monkeypatch.setattr(sys.modules[f"ct_adam.ensemble.{name}"], "cpus", lambda: cores)
        return ct.ensemble(
            lambda b1, b2: ct.AdamFlow(1e-2, b1, b2), quadratic, START, 40, lanes, engine=engine
        )

    one = table(1)
    for cores in (2, 3, 5):
        for name, variable in table(cores).data_vars.items():
            np.testing.assert_array_equal(variable, one[name])
