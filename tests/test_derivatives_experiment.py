"""What `derivatives` measures against NumPy and SciPy, and whether its claim can fail."""

import re
from pathlib import Path

import numpy as np
import pytest
import xarray
from scipy import stats

from experiments import derivatives
from experiments._derivatives import KINDS, Point, measure, ripples, slopes, smoothed
from experiments.derivatives import Config, check, numbers

from .reference import Hyper, adam_flow, adam_run

STEPS = 12
POINT = Point(0.02, 0.9, 0.97, 0.3, 0.5)


def _by_hand(problem, lane: int, final, h: float) -> np.ndarray:
    """Central differences of the loss at `final(gradient, start, steps, hyper)`, in NumPy."""
    rotation = np.asarray(problem.loss.loss.rotation[lane])
    start, direction = np.asarray(problem.params[lane]), np.asarray(problem.direction[lane])
    curvature = np.array([1.0, 3.0, 10.0, 30.0])
    hessian = rotation.T @ np.diag(curvature) @ rotation

    def gradient(_, x):
        return hessian @ x - 2 * np.sin(2 * x)

    def loss(at):
        by = np.exp(at)
        hyper = Hyper(
            POINT.learning_rate * by[0],
            (1 - (1 - POINT.b1) * by[1],),
            (1 - (1 - POINT.b2) * by[2],),
            POINT.eps,
            POINT.weight_decay * by[3],
        )
        x = final(gradient, start + at[4] * direction, STEPS, hyper)
        return x @ hessian @ x / 2 + np.sum(np.cos(2 * x))

    return np.array([(loss(h * axis) - loss(-h * axis)) / (2 * h) for axis in np.eye(5)])


@pytest.mark.slow
def test_derivatives_are_those_of_numpy_and_scipy():
    problem = ripples([5, 6])
    np.testing.assert_allclose(np.linalg.norm(problem.direction, axis=1), 1, rtol=1e-15)
    found = measure(POINT, problem, STEPS)
    for lane in range(2):
        run = _by_hand(problem, lane, lambda *a: adam_run(*a)[0], 1e-5)
        # h²/6 times a third derivative of some tens, and ε/h = 2e-11 of losses of some tens.
        for mode in ("discrete", "difference"):
            np.testing.assert_allclose(found[mode][lane], run, rtol=0, atol=2e-8)
        flow = _by_hand(problem, lane, lambda *a: adam_flow(*a).params[-1], 1e-3)
        # Here h²/6 = 2e-7 rules; SciPy's 1e-12 makes 1e-9. The two sides are 1e-2 apart.
        for mode in ("reverse", "forward"):
            np.testing.assert_allclose(found[mode][lane], flow, rtol=0, atol=1e-5)
        assert np.max(np.abs(run - flow)) > 1e-3
    assert found["evaluations"].shape == (2,)


def test_smoothed_slope_is_that_of_linear_regression():
    at, losses = np.linspace(-0.3, 0.3, 15), np.random.default_rng(0).standard_normal((15, 2, 3))
    ours = smoothed(at, losses)
    for i, j in np.ndindex(2, 3):
        theirs = stats.linregress(at, losses[:, i, j])
        np.testing.assert_allclose(ours.slope[i, j], theirs.slope, rtol=1e-12)
        np.testing.assert_allclose(ours.error[i, j], theirs.stderr, rtol=1e-12)


ETA = np.array([4e-3, 2e-3, 1e-3])


def test_slopes_of_powers_are_certain_and_others_are_not():
    size = np.array([0.3, -2.0, 1.0, 0.0])[:, None, None]
    powers = size * ETA[:, None] ** np.array([1.0, 1.5])
    found = slopes(ETA, powers)
    for part in found:
        np.testing.assert_allclose(part, [1, 1.5], rtol=1e-12)
    mixed = slopes(ETA, np.concatenate([powers, 5e2 * powers**2]))
    assert np.all((mixed.low < mixed.value) & (mixed.value < mixed.high))


def test_interval_of_a_slope_holds_it_as_often_as_it_says():
    """Of 400 samples of ten problems with slopes of their own about 95 % cover their mean."""
    rng = np.random.default_rng(1)
    own = 1 + 0.05 * rng.standard_normal((400, 10, 1, 1))
    held = [
        bool((s.low[0] <= 1.0) & (s.high[0] >= 1.0))
        for s in (slopes(ETA, (ETA / ETA[1])[:, None] ** one) for one in own)
    ]
    # Four standard deviations of the binomial, and the jackknife's own error at ten problems.
    assert 0.88 <= np.mean(held) <= 0.99


def _rows(power: float = 1.0, **changes: float) -> list[dict[str, np.ndarray]]:
    """What `measure` would return: errors ∝ η^power, and something else that is wrong."""
    size = np.linspace(1, 2, 6)[:, None] * np.ones(5)
    rows = []
    for eta in ETA:
        error = {"reverse": (eta / ETA[0]) ** power / 10, "difference": 0.0, "discrete": 0.0}
        error |= {"forward": error["reverse"], "loose": error["reverse"]}
        rows.append({k: size * (1 + v + changes.get(k, 0.0)) for k, v in error.items()})
        rows[-1]["evaluations"] = np.full(6, 100)
    return rows


def _tree(rows: list[dict[str, np.ndarray]], **horizon: float) -> xarray.DataTree:
    steps = np.round(1 / ETA).astype(int)
    node = derivatives._labelled("", 1.0, steps, rows)
    tree = {"ripple/shrinking": node, "ripple/fixed": node}
    if horizon:
        values = {"discrete": 1e9, "flow": 0.1, "smoothed": 0.12, "smoothed_error": 1e-3} | horizon
        path = (("seed", "step"), np.array([[10.0, 1.0]]))
        tree["horizon"] = xarray.Dataset(
            {
                "loss": path,
                **{k: (("seed", "kind", "step"), np.full((1, 2, 2), v)) for k, v in values.items()},
            },
            coords={"seed": [1], "kind": [KINDS[0], KINDS[3]], "step": [0, 9]},
        )
    return xarray.DataTree.from_dict(tree)


def test_claim_holds_and_is_told():
    tree = _tree(_rows(), flow=0.1)
    assert check(tree) == []
    row = numbers(tree)["ripple, fixed"]["b1"]
    assert row["slope"] == pytest.approx(1)
    assert row["verdict"] == "agrees"


@pytest.mark.parametrize(
    ("rows", "horizon", "words", "count"),
    [
        (_rows(1.3), {}, "slope lies in 1.30", 8),  # by b1 and b2 at fixed decays it may be more
        (_rows(0.8), {}, "slope lies in 0.80", 10),
        (_rows(forward=1e-6), {}, "modes differ", 10),
        (_rows(loose=1e-2), {}, "the solver make", 10),
        (_rows(discrete=1e-2), {}, "the differences make", 10),
        (_rows(), {"discrete": 1e5}, "of use still", 2),
        (_rows(), {"flow": 0.13}, "the flow's is 0.13", 2),  # 0.12 and two errors of 1e-3 may be
        (_rows(), {"flow": float("nan")}, "the flow's is nan", 2),
    ],
)
def test_claim_can_fail(rows, horizon, words, count):
    missing = check(_tree(rows, **horizon))
    assert len(missing) == count
    assert any(words in sentence for sentence in missing)


@pytest.mark.parametrize(
    "wrong", [{"ripples": 2}, {"digits": 1}, {"horizon": 0}, {"shrinking": (100,)}]
)
def test_bad_configurations_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong)) + r"|two lengths"):
        Config(**wrong)


@pytest.mark.slow
def test_page_on_derivatives(capsys):
    """Its Python runs, and prints what it says."""
    text = (Path(__file__).parents[1] / "docs" / "derivatives.md").read_text()
    namespace = {}
    for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
        exec(compile(block, "derivatives.md", "exec"), namespace)
    printed = capsys.readouterr().out.split()
    said = re.findall(r"print\(.*\)  # (\S+)", text)
    assert len(said) == 3
    # Two decimals are shown; the difference has a rounding of ε·50/h = 2e-7.
    assert [float(x) for x in printed] == pytest.approx([float(x) for x in said], abs=0.006)
