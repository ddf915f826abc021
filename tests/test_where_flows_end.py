"""When a flow leaves and alarms, against closed forms, and whether the claim can fail."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import optax
import pytest
import xarray

from experiments import _ends
from experiments import where_flows_end as experiment
from experiments._ends import Case, alarm_step, first_above, measure
from experiments.where_flows_end import Config, check, numbers, table


def test_a_flow_of_descent_leaves_where_the_kink_is():
    """θ_i falls by ηh_i a step until it passes 0: the flow is exact, then knows nothing of it."""
    case = Case("kink", "GD", "|x|", optax.sgd(1e-3), warm_steps=0, steps=96)
    found = measure(case, 0)
    start = np.asarray(_ends.PROBLEMS["|x|"](0)[1])
    crossing = np.min(np.abs(start) / (1e-3 * np.array([1, 3, 10, 30])))
    assert 5 < crossing < 60
    # Order 2 looks two steps ahead. Before, differences of equal steps are rounding.
    assert max(found["error"][: int(crossing) - 2]) < 1e-9
    assert crossing - 2 <= found["left"]
    assert found["window"] == 6
    assert found["alarm"] % 6 == 0
    assert found["alarm"] > crossing - 2


def test_first_step_above():
    assert np.isnan(first_above(np.array([0, 0.01]), 0.01))
    assert first_above(np.array([0, 0.02, 0.0, 0.03]), 0.01) == 1
    assert first_above(np.array([0, 0.0, np.nan]), 0.01) == 2
    assert first_above(np.array([0, np.inf]), 0.01) == 1


@pytest.mark.parametrize(
    ("defect", "step"),
    [
        ([0.01, 0.009, 0.0], np.nan),
        ([0.01, 0.009, 0.002], 30),
        ([0.03, 0.0, 0.0], 10),
        ([0.0, np.nan, 0.0], 20),
    ],
)
def test_alarm_is_at_the_end_of_the_window_whose_defect_is_too_much(defect, step):
    trust: Any = SimpleNamespace(defect=np.array(defect))
    np.testing.assert_equal(alarm_step(trust, 10), step)


def test_contingency_table():
    left = np.array([1, np.nan, 3, np.nan, 4, np.nan])
    alarm = np.array([2, np.nan, np.nan, 7, 1, np.nan])
    assert list(table(left, alarm).values()) == [2, 1, 1, 2]


@pytest.mark.parametrize(
    "wrong", [{"seeds": 0}, {"seeds": True}, {"cases": ()}, {"cases": ("control: nothing",)}]
)
def test_configuration_that_makes_no_sense(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Config(**wrong)


def test_cases_have_controls_and_fit_into_windows():
    groups = {case.group for case in _ends.CASES.values()}
    assert {"control", "kink", "chattering", "sign", "switch", "spike"} <= groups
    assert set(_ends.AMPLIFYING) <= groups
    for case in _ends.CASES.values():
        assert case.steps % case.stride == 0  # the last step is seen


NEVER = np.nan


def _found(**changes: tuple[str, float, float, float]) -> xarray.Dataset:
    """A control, a kink and a spike as they are expected, ten quiet runs, and the changes.

    Each is (group, step of leaving, of leaving far, of the alarm); windows have ten steps.
    """
    runs = {
        "control": ("control", NEVER, NEVER, NEVER),
        "kink": ("kink", 40.0, 45.0, 50.0),
        "spike": ("spike", 70.0, 75.0, NEVER),
        **{f"quiet {i}": ("switch", NEVER, NEVER, NEVER) for i in range(10)},
        **changes,
    }
    columns = dict(zip(("group", "left", "left_far", "alarm"), zip(*runs.values()), strict=True))  # noqa: B905
    both = ("case", "seed")
    scalars = {k: (both, np.array(columns[k])[:, None]) for k in ("left", "left_far", "alarm")}
    for name, value in (("max_error", 0.1), ("estimate", 0.1)):
        scalars[name] = (both, np.full((len(runs), 1), value))
    for name in ("verdict", "outcome"):
        scalars[name] = (both, np.full((len(runs), 1), "one"))
    return xarray.Dataset(
        scalars,
        coords={
            "case": list(runs),
            "seed": [0],
            "group": ("case", list(columns["group"])),
            "window": ("case", np.full(len(runs), 10)),
        },
    )


def test_claim_holds_where_all_is_as_expected():
    assert check(_found()) == []
    found = numbers(_found())
    assert list(found["left at 1e-2"]["all"].values()) == [1, 1, 0, 11]
    assert list(found["left at 1e-2"]["kink"].values()) == [1, 0, 0, 0]
    assert found["alarm before leaving 1e-2, in windows"]["median"] == -1


@pytest.mark.parametrize(
    ("run", "words"),
    [
        (("control", 30.0, NEVER, NEVER), "a control leaves at step 30"),
        (("control", NEVER, NEVER, 20.0), "a control alarms at step 20"),
        (("kink", 30.0, 40.0, NEVER), "exceeds 0.02 at step 40 and nothing alarms"),
        (("kink", 30.0, 40.0, 60.0), "alarms 20 steps late"),
    ],
)
def test_claim_fails_in_a_sentence(run, words):
    (sentence,) = check(_found(odd=run))
    assert sentence.startswith("odd, seed 0: ")
    assert words in sentence


def test_between_the_limits_nothing_need_alarm():
    assert check(_found(odd=("kink", 30.0, NEVER, NEVER))) == []


def test_too_many_false_alarms():
    false = ("switch", NEVER, NEVER, 20.0)
    assert check(_found(odd=false)) == []
    (sentence,) = check(_found(odd=false, other=false))
    assert sentence == "Of 13 runs that stay within 0.01 2 alarm."


def test_measured_and_kept_rows_are_alike():
    rows = [{"left": 1.0, "verdict": "one"}, {"left": np.array(1.0), "verdict": np.array("one")}]
    first, second = experiment._plain(rows)
    assert first == second
