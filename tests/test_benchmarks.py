"""The benchmarks' own decisions; no timing."""

import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import ct_adam as ct
from benchmarks import discrete, ensemble, gpu, limits, scaling, sweep, workloads
from benchmarks.__main__ import NAMES, main
from benchmarks.output import report
from benchmarks.peers import jax_peer, numba_peer, ours
from benchmarks.race import (
    FIRST_RTOL,
    LADDER,
    AbsentError,
    Contender,
    Entry,
    Errors,
    Target,
    entered,
    errors,
    race,
    ratios,
    verdict,
)
from benchmarks.workloads import CHAIN, QUADRATIC, FlowLanes, Lanes, by_scipy, uniform
from ct_adam.ensemble.prepared import prepared
from ct_adam.sweep.layout import make_store
from ct_adam.sweep.local import here

TRUTH = np.arange(12.0).reshape(6, 2)
PEERS = ("cubie", "gradsolve", "heyoka", "optuna", "sympy", "torch", "warp")


@pytest.mark.parametrize(
    ("median", "q90", "expected"),
    [
        (0.0, 0.0, "ok"),
        (1e-5, 1e-3, "ok"),
        (1e-5, 1.1e-3, "WRONG"),  # a tenth of the lanes is nowhere near
        (1.1e-5, 1.1e-5, "missed"),
        (1e-3, 1e-3, "missed"),
        (1.1e-3, 1.1e-3, "WRONG"),
        (math.inf, math.inf, "WRONG"),
        (math.nan, math.nan, "WRONG"),
    ],
)
def test_verdict(median, q90, expected):
    assert verdict(Errors(median, q90), 1e-5) == expected


def test_nine_lanes_of_ten_may_be_asked_for():
    assert verdict(Errors(1e-6, 2e-5), 1e-5, "q90") == "missed"
    assert verdict(Errors(1e-6, 1e-5), 1e-5, "q90") == "ok"


def test_one_lane_that_is_not_a_number_spoils_the_error():
    final = np.zeros((5, 2))
    final[3, 1] = math.nan
    assert all(map(math.isnan, errors(final, np.zeros((5, 2)))))


def test_errors_are_over_lanes_of_the_largest_coordinate():
    final = np.array([[0.0, 1.0], [-2.0, 0.0], [3.0, 3.0]])
    assert errors(final, np.zeros((3, 2))) == Errors(2.0, pytest.approx(2.8))


def answers(name, final, **options):
    """A contender of one answer."""
    return Contender(name, lambda _: lambda: final, (None,), **options)


def raises(_):
    raise ValueError("no such thing\nmore of it")


def absent(_):
    raise AbsentError("it needs a compiler")


HALF = np.where(np.arange(6)[:, None] < 2, TRUTH + 1e6, TRUTH)

BROKEN = {
    "some lanes off": answers("some lanes off", HALF),
    "another answer": answers("another answer", TRUTH + 1.0),
    "not a number": answers("not a number", np.where(TRUTH == 5, np.nan, TRUTH)),
    "lanes missing": answers("lanes missing", TRUTH[:-1]),
    "raises": Contender("raises", raises, (None,)),
    "absent": Contender("absent", absent, (None,)),
}


def test_who_is_wrong_has_no_time_and_no_ratio(capsys):
    entries = race([answers("auto", TRUTH), *BROKEN.values()], lambda: TRUTH, 1e-5, 2)
    found = report("title", entries, [Target("auto", "raises", 2)])
    assert [one["ratio"] for one in found["ratios"]] == [None] * len(BROKEN)
    told = {one["name"]: one for one in found["contenders"]}
    assert told["auto"]["verdict"] == "ok"
    assert told["auto"]["median_s"] > 0
    for name in BROKEN:
        assert told[name]["median_s"] is None
        assert told[name]["rounds_s"] == []
    assert told["another answer"]["verdict"] == told["some lanes off"]["verdict"] == "WRONG"
    assert told["another answer"]["error_median"] == 1.0
    assert told["not a number"]["verdict"] == told["lanes missing"]["verdict"] == "WRONG"
    assert told["raises"]["verdict"] == "FAILED: ValueError: no such thing"
    assert told["absent"]["verdict"] == "it needs a compiler"
    printed = capsys.readouterr().out
    assert "not measured" in printed
    assert "it needs a compiler" in printed


@pytest.mark.slow
def test_a_broken_engine_of_ours_is_wrong(monkeypatch):
    """Through the workload, the reference and SciPy, as the benchmark goes."""
    work = FlowLanes("a few", **uniform(3), steps=20)
    truth, doubt = ensemble.reference(work, 1e-4)
    assert doubt <= 1e-6
    good = ours.flow("reference", work)

    def off_by_one_lane(rtol):
        run = good.prepare(rtol)
        return lambda: np.roll(run(), 1, axis=0)

    entries = race([good, replace(good, prepare=off_by_one_lane)], lambda: truth, 1e-4, 1)
    assert [entry.verdict for entry in entries] == ["ok", "WRONG"]
    monkeypatch.setattr(ours, "flow_params", lambda *_: truth + 1.0)
    with pytest.raises(RuntimeError, match="away from SciPy's"):
        ensemble.reference(work, 1e-4)


def test_calibration_takes_the_loosest_tolerance_that_is_right():
    """Errors of 30 times the tolerance: the target needs a third of a decade more."""
    asked = []

    def prepare(rtol):
        asked.append(rtol)
        return lambda: TRUTH + 30 * rtol

    (entry,) = race([Contender("solver", prepare)], lambda: TRUTH, 1e-3, 1)
    assert entry.rtol == pytest.approx(10**-4.5)
    assert entry.verdict == "ok"
    assert entry.errors.median == pytest.approx(30 * 10**-4.5)
    assert max(asked) == LADDER[0]


def test_who_is_never_right_runs_at_its_best():
    (entry,) = race(
        [Contender("solver", lambda rtol: lambda: TRUTH + 2e-3 + rtol)], lambda: TRUTH, 1e-3, 1
    )
    assert (entry.rtol, entry.verdict) == (LADDER[-1], "missed")


def test_a_sample_counts_by_the_lane():
    all_lanes = Entry("auto", verdict="ok", lanes=100, rounds=[1.0, 2.0, 9.0])
    sample = Entry("loop", verdict="missed", lanes=10, rounds=[10.0, 8.0, 9.0])
    (found,) = ratios("auto", [all_lanes, sample], [Target("auto", "loop", 2)])
    assert found["ratio"] == pytest.approx(40)
    assert found["range"] == [pytest.approx(10), pytest.approx(100)]
    assert found["at_least"] == 2
    entry = race([answers("loop", TRUTH[::2], every=2)], lambda: TRUTH, 1e-5, 1)[0]
    assert (entry.lanes, entry.verdict) == (3, "ok")


def test_who_follows_takes_the_tolerance_of_the_first():
    asked = []

    def prepare(rtol):
        asked.append(rtol)
        return lambda: TRUTH + rtol

    first = Contender("auto", lambda rtol: lambda: TRUTH + 3 * rtol)
    race([first, Contender("cohort", prepare, follows="auto")], lambda: TRUTH, 1e-4, 1)
    assert asked == [FIRST_RTOL, pytest.approx(10**-4.5)]


def test_who_fails_while_the_clock_runs_has_no_time():
    calls = iter(range(100))

    def run():
        if next(calls) > 5:
            raise MemoryError("no room")
        return TRUTH

    (entry,) = race([Contender("large", lambda _: run, (None,))], lambda: TRUTH, 1e-5, 9)
    assert (entry.rounds, entry.verdict) == ([], "WRONG")
    assert entry.absent == "FAILED: MemoryError: no room"


def test_a_target_is_not_met_by_one_that_missed_the_error():
    fast = Entry("auto", verdict="missed", lanes=1, rounds=[1.0])
    slow = Entry("peer", verdict="ok", lanes=1, rounds=[10.0])
    (found,) = ratios("auto", [fast, slow], [Target("auto", "peer", 2)])
    assert (found["ratio"], found["met"]) == (10, False)


@pytest.mark.parametrize("where", [slice(0, 4), slice(-4, None), slice(30, 31)])
def test_a_climb_gives_no_time_to_a_wrong_answer(where):
    """Wrong in the first lanes, in the last ones, not a number between."""
    work, truth = Lanes("a climb", **uniform(8), steps=2), discrete.by_numpy

    def peer(work):
        final = truth(work)
        if len(final) == 64:
            final[where] += np.nan if where.start == 30 else 1e3
        return answers("auto", final)

    rows = scaling.climbed(work, {"auto": peer}, [32, 64], 1e-9, truth)["rows"]
    assert [("s_a_lane" in row, row["verdict"]) for row in rows] == [(True, "ok"), (False, "WRONG")]


def test_what_is_broken_is_named():
    def peer(_):
        raise OSError("libheyoka.so: no such file")

    (entry,) = entered(["heyoka"], {"heyoka": peer}, None)
    assert entry.absent == "FAILED: OSError: libheyoka.so: no such file"
    assert not entry.has_speed


def test_what_is_not_installed_is_named():
    def peer(_):
        raise AbsentError("warp is not installed")

    (entry,) = entered(["gradsolve"], {"gradsolve": peer}, None)
    assert isinstance(entry, Entry)
    assert (entry.name, entry.absent, entry.verdict) == (
        "gradsolve",
        "warp is not installed",
        "absent",
    )


@pytest.mark.parametrize("loss", [QUADRATIC, CHAIN])
def test_gradients_of_all_peers_are_one(loss):
    x = np.random.default_rng(0).normal(size=(len(loss.start), 3))
    by_jax = np.stack([jax.grad(loss.of)(column) for column in x.T], axis=1)
    # A few operations each, on numbers of order 40.
    tolerance = {"rtol": 1e-13, "atol": 1e-13}
    np.testing.assert_allclose(np.array(loss.slopes(x)), by_jax, **tolerance)
    found = np.full_like(x, np.nan)
    loss.compiled(x, found)
    np.testing.assert_allclose(found, by_jax, **tolerance)


@pytest.mark.slow
def test_numpy_is_optax():
    work = Lanes("a few", **uniform(16), steps=30)
    for contender in (numba_peer.optimizer(work), ours.optimizer("reference", work)):
        final = contender.prepare(None)()
        np.testing.assert_allclose(
            final, discrete.by_numpy(work), rtol=1e-12, err_msg=contender.name
        )


def test_the_loop_by_hand_solves_the_flow():
    work = FlowLanes("a few", **uniform(3), steps=20)
    final = numba_peer.flow(work).prepare(1e-8)()
    options = {"method": "DOP853", "rtol": 1e-10, "atol": 1e-13}
    expected = [by_scipy(work, lane, **options) for lane in range(3)]
    # The tolerance times what 20 steps may amplify.
    np.testing.assert_allclose(final, expected, atol=1e-6)


def test_fewer_lanes_are_the_first_of_more():
    few, many = uniform(5), uniform(50)
    for name in few:
        np.testing.assert_array_equal(few[name], many[name][:5])
    decays = workloads.corner(50)
    assert np.all(decays["b1"] >= decays["b2"])


def test_operations_are_counted():
    """Gradient descent on Σx²/2 of four numbers: some operations a number, not hundreds."""
    made = prepared(
        optax.sgd,
        QUADRATIC.of,
        QUADRATIC.start,
        5,
        metrics=("final_params",),
    )
    # Gradient 2, product with the rate and sum: 4 a number; counting, comparing, norms: a few.
    assert 16 <= limits.body_operations(made, {"learning_rate": np.float64(0.1)}) <= 40


BEGIN = """
import sys
from importlib import import_module

class Refuses:
    def find_spec(self, name, path=None, target=None):
        if name in {peers}:
            raise ModuleNotFoundError(name=name)

sys.meta_path.insert(0, Refuses())
assert all(callable(import_module("benchmarks." + name).main) for name in {names})
"""


def test_every_benchmark_can_begin_without_its_peers():
    """In a process that finds none of them, installed or not."""
    code = BEGIN.format(peers=PEERS, names=NAMES)
    subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[1], check=True)


def test_single_precision_is_single_throughout():
    """Else a card would be timed at a speed that is not its own."""
    work = FlowLanes("single", **uniform(2), dtype=np.dtype("float32"))
    assert jax.grad(work.loss.of)(jnp.asarray(work.start)).dtype == np.float32
    program = ours.flow_program(work, 1e-3).program
    lane = {name: jnp.asarray(column[0], "float32") for name, column in work.decays.items()}
    assert "f64[" not in str(jax.make_jaxpr(lambda lane: program.init(lane))(lane))
    final = jax_peer.flow("lax.map(diffrax)", jax_peer.one_by_one, work).prepare(1e-3)()
    assert final.dtype == np.float32


@pytest.mark.slow
def test_the_way_on_a_card_goes_through_on_a_cpu(capsys):
    assert gpu.main(quick=False, rehearse=True) == 0
    said = capsys.readouterr().out
    assert "A rehearsal: nothing is kept." in said
    assert "auto against vmap(diffrax)" in said


def test_without_a_card_the_command_says_so(capsys):
    if jax.default_backend() == "gpu":
        pytest.skip("there is one")
    assert gpu.main(quick=True) == 2
    said = capsys.readouterr().err
    assert said.startswith("benchmarks: there is no GPU that JAX knows")
    assert "--rehearse" in said


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nothing"], "there is no benchmark 'nothing': choose one of ensemble, precision"),
        ([], "benchmarks: say which: one of ensemble, precision"),
        (["--quick"], "ensemble, precision"),
        (["ensemble", "x"], "ensemble, precision"),
        (["ensemble", "--quik"], "ensemble has no --quik: its flags are --quick."),
        (["page", "--quick"], "page has no --quick: its flags are none."),
    ],
)
def test_unknown_name_is_one_sentence(arguments, said, capsys):
    assert main(arguments) == 2
    told = capsys.readouterr().err
    assert told.startswith("benchmarks: ")
    assert told.count("\n") == 1
    assert said in told


def test_help_names_every_benchmark(capsys):
    assert main(["--help"]) == 0
    told = capsys.readouterr().out
    assert all(name in told for name in NAMES)
    assert "Example: python -m benchmarks ensemble --quick" in told


def test_sweeps_tiles_are_made_again_as_a_sweep_makes_them(tmp_path):
    """A runner is asked for what `execute` asks it for."""
    grid = ct.Grid(b1=ct.axes.cells(0.5, 1, 4), b2=[0.9])
    work = ct.Sweep(sweep.optimizer, QUADRATIC.of, QUADRATIC.start, 5, grid, tile=2)
    make_store(work, tmp_path / "s.zarr")
    assert sorted(sweep.made_again(here, work, tmp_path / "s.zarr", [0, 1])) == [0, 1]
