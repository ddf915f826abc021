"""Costs against NumPy, `ct.solve` and known methods, and whether the claim can fail."""

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import xarray

import ct_adam as ct
from experiments import _cost
from experiments import cost as experiment
from experiments._cost import WARM
from experiments._crossing import crossing, crossing_words, exponents
from experiments.cost import Config, check, numbers

from .reference import Hyper, adam_run


@pytest.mark.parametrize(
    ("solver", "known"),
    # 1 - x + x²/2 = 1, and - of order 3 with three stages - 1 - x + x²/2 - x³/6 = -1.
    [(diffrax.Heun(), 2.0), (diffrax.Bosh3(), 2.512745)],
)
def test_stability_intervals_of_the_textbook(solver, known):
    assert _cost.stability_interval(solver) == pytest.approx(known, abs=1e-6)


@pytest.mark.parametrize(("part", "grows"), [(0.999, False), (1.001, True)])
def test_stability_interval_of_tsit5_by_a_step_of_it(part, grows):
    length = part * _cost.stability_interval(diffrax.Tsit5())
    term, start = diffrax.ODETerm(lambda t, y, args: -y), jnp.ones(())
    state = diffrax.Tsit5().init(term, 0.0, length, start, None)
    after = diffrax.Tsit5().step(term, 0.0, length, start, None, state, made_jump=False)[0]
    assert (abs(after) > 1) == grows


def test_derived_limits():
    """By hand: 6 calls over 3.50685/a, a = -ln 0.9; of order 2 a = 0.1 + 0.1²/2, two a call."""
    assert _cost.derived_limit("log") == pytest.approx(6 * 0.1053605 / 3.506847, rel=1e-5)
    assert _cost.derived_limit("interpolating-2") == pytest.approx(12 * 0.105 / 3.506847, rel=1e-5)
    assert _cost.derived_limit("modified") is None


def test_both_scalings_are_the_default_pair_at_one_learning_rate():
    problem = _cost.PROBLEMS["quadratic"]
    assert problem.horizon / 1024 == _cost.AT
    for of in (_cost.fixed(problem, 1024), _cost.scaled(problem, 1024)):
        np.testing.assert_allclose([of.b1, of.b2], [0.9, 0.999], rtol=1e-15)
    quarter = _cost.scaled(problem, 4096)
    np.testing.assert_allclose([quarter.b1, quarter.b2], [0.975, 0.99975], rtol=1e-15)


def test_path_of_the_optimizer():
    """Adam with eps inside the root, by its formulas."""
    problem, steps = _cost.PROBLEMS["quadratic"], 32
    made, start = problem.make(1)
    of = _cost.scaled(problem, steps * 8)._replace(steps=jnp.asarray(steps))
    eta, b1, b2, eps = (float(x) for x in of[:4])
    hessian = np.asarray(jax.hessian(made.value)(start))
    hyper = Hyper(eta, (b1,), (b2,), 0.0, eps_root=eps**2)
    path = adam_run(lambda _, x: hessian @ x, start, WARM + steps, hyper)[2].params
    path = path[WARM :: steps // _cost.SAVES]
    found, losses = _cost.optimizer_path(made, start, of)
    np.testing.assert_allclose(found, path, atol=1e-13)  # some 50 steps of rounding
    expected = np.einsum("ni,ij,nj->n", path, hessian, path) / 2
    np.testing.assert_allclose(losses, expected, rtol=1e-12)


def test_cost_of_a_flow_is_that_of_solve():
    problem, steps, rtol = _cost.PROBLEMS["quadratic"], 64, 1e-3
    made, start = problem.make(0)
    of = _cost.fixed(problem, steps)
    path, _ = _cost.optimizer_path(made, start, of)
    found = _cost.flow_cost("log", made, start, of, jnp.asarray(rtol), path, 4096)
    flow = ct.AdamFlow(float(of.learning_rate), eps=0.0, eps_root=float(of.eps) ** 2)
    saves = np.arange(0, steps + 1, steps // _cost.SAVES)
    common = {"save_steps": saves, "warm_steps": WARM}
    solved = ct.solve(flow, made, start, steps, rtol=rtol, atol=rtol / 1000, **common)
    apart = ct.compare(solved, ct.run(flow, made, start, steps, **common))
    assert found.error == pytest.approx(apart.relative_error, rel=1e-6)
    assert int(found.solver_steps) == int(solved.stats["num_steps"])
    assert int(found.evaluations) == int(solved.stats["evaluations"])


def test_all_flows_model_the_same_optimizer():
    """So that one path is the reference of all: their steps from the same start agree."""
    made, start = _cost.PROBLEMS["quadratic"].make(0)
    of = _cost.fixed(_cost.PROBLEMS["quadratic"], 64)
    after = []
    for way in _cost.FLOWS.values():
        optimizer = way.make(of).optimizer
        delta, _ = optimizer.update(made.gradient(0, start), optimizer.init(start), start)
        after.append(np.asarray(optax.apply_updates(start, delta)))
    np.testing.assert_allclose(after, after[:1] * len(after), rtol=1e-14)


RATES = np.array([1.0, 0.1, 0.01])


@pytest.mark.parametrize(
    ("excess", "at"),
    [
        ([1.0, 1.0, -1.0], 0.1**1.5),
        ([-1.0, 1.0, -3.0], 0.1**1.25),  # what was negative before does not count
        ([-1.0, -1.0, -1.0], np.inf),
        ([-1.0, -1.0, 1.0], np.nan),
        ([1.0, np.nan, -1.0], 0.01),
        ([1.0, 1.0, np.nan], np.nan),
    ],
)
def test_crossing(excess, at):
    np.testing.assert_allclose(crossing(RATES, np.array(excess)), at)


def test_words_of_crossings():
    assert crossing_words(RATES, np.full(3, np.nan)) == "none down to η = 0.01"
    assert (
        crossing_words(RATES, np.array([0.1, np.nan])) == "none down to η = 0.01 for 1 of 2 seeds"
    )
    assert crossing_words(RATES, np.array([0.1, np.inf])).startswith("from η = 1 on")
    # Student's t of one degree: a mean of ln 0.1 ± 12.706 · ln(2)/2 for 0.05 and 0.2.
    reach = np.exp(12.706205 * np.log(4) / 2)
    found = crossing_words(RATES, np.array([0.05, 0.2]))
    assert found == f"η = 0.1 [{0.1 / reach:.2g}, {0.1 * reach:.2g}]"


def test_exponents():
    steps = np.array([1.0, 4, 16, 64])
    work = np.array([7 * steps**0.5, steps, [1, np.nan, 3, 3], [1, np.nan, np.nan, 3]])
    np.testing.assert_allclose(exponents(steps, work), [0.5, 1, 0, np.nan], atol=1e-12)


CONFIG = Config(problems=("quadratic",), flows=("log", "interpolating-2"), seeds=2)
SHAPE = (2, 2, 5, 3)  # scaling, flow, η, rtol


def _table(**changes):
    """300 evaluations, and as derived with fixed decays; errors 1e-3. `changes`: by name, a
    function of the arrays of all of it."""
    lengths = np.array(CONFIG.lengths("quadratic"))
    work = np.full(SHAPE, WARM + 300.0)
    for j, flow in enumerate(CONFIG.flows):
        work[0, j] += _cost.derived_limit(flow) * lengths[:, None]
    row = {
        "error": np.full(SHAPE, 1e-3), "solver_steps": work / 6, "evaluations": work,
        "loss": np.ones((2, 5, 2)),
    }  # fmt: skip
    for name, change in changes.items():
        change(row[name])
    node = experiment._labelled("quadratic", CONFIG, [row, row])
    return xarray.DataTree.from_dict({"quadratic": node})


def test_claim_holds_where_all_is_as_derived():
    assert check(_table()) == []
    found = numbers(_table())["quadratic"]
    row = found["fixed decays, log"]
    assert row["a step"] == pytest.approx(row["derived"] + 300 / 65536)
    # 10 + 300 evaluations and 10 + n steps are equal at n = 300, between 256 and 1024.
    below = found["1-b ∝ η, log"]["cheaper below, at its own error"]
    assert 1e-3 < float(below.split()[2]) < 4e-3


def _growing(work):
    work[1, 0] *= np.array([1, 2, 4, 8, 16])[:, None]


def _stuck(work):
    work[0, 0, -2:] = work[0, 0, -2]


def _too_few(work):
    work[0, 0, -1] *= 0.8


def _useless(error):
    error[1] = 0.1


def _dear(work):
    work[1] = 1e5


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"evaluations": _growing}, "log, 1-b ∝ η: the exponent at an error of 0.01 is 0.5"),
        ({"evaluations": _growing}, "log, 1-b ∝ η: the exponent at its own error is 0.5"),
        ({"evaluations": _stuck}, "log, fixed decays: the exponent is 0.000"),
        ({"evaluations": _too_few}, "evaluations a step, derived 0.180 at least"),
        ({"error": _useless}, "1-b ∝ η: no flow is cheaper and within 0.01"),
        ({"evaluations": _dear}, "1-b ∝ η: no flow is cheaper and within 0.01"),
    ],
)
def test_claim_fails_in_a_sentence(changes, words):
    assert any(words in sentence for sentence in check(_table(**changes)))


def test_cheapest_is_good_enough():
    """Of three tolerances the first is too coarse for its own error, the second for nothing."""

    def coarse(error):
        error[..., 0], error[..., 1] = 5e-3, 1.5e-3

    def dearer(work):
        work *= np.array([1.0, 2.0, 4.0])

    table = _table(error=coarse, evaluations=dearer)["quadratic"].to_dataset()
    row = table.sel(scaling="scaled", flow="log").isel(seed=0, eta=0)
    assert float(row.evaluations_wanted) == WARM + 300
    assert float(row.evaluations_own) == 2 * (WARM + 300)


@pytest.mark.parametrize(
    "wrong",
    [
        {"points": 2}, {"seeds": 1}, {"seeds": True}, {"problems": ()}, {"flows": ("adam",)},
        {"flows": ("modified",)}, {"rtols": (1e-3, 1e-2)}, {"rtols": ()}, {"rtols": (2.0,)},
    ],
)  # fmt: skip
def test_configuration_that_makes_no_sense(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Config(**wrong)
