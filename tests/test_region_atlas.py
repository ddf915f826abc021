"""What `region_atlas` measures against closed forms and NumPy, and whether its claim can fail."""

import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import xarray

from ct_adam.plotting import save_figure
from ct_adam.plotting.square import edges
from experiments import _atlas, _kept, region_atlas
from experiments.region_atlas import SIZES, Config, check, numbers

from .reference import adam_updates


def nothing(*told):
    del told


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    config = replace(SIZES["smoke"], cells=8, other_cells=8, lag_cells=8, refined=("worst_case",))
    nodes = region_atlas._measure(config, tmp_path_factory.mktemp("tiles"), nothing)
    return xarray.DataTree.from_dict(nodes)


def test_blocks_of_a_map_are_what_each_would_be_alone(tmp_path):
    horizon = _atlas.Horizon(steps=60, short=30, corner=0.3)
    told = []
    whole = _atlas.stream_map(
        "vanishing", 0.0, 8, horizon, "log", tmp_path, lambda *x: told.append(x)
    )
    centres = (np.arange(8) + 0.5) / 8
    np.testing.assert_array_equal(whole.b1, centres)
    np.testing.assert_array_equal(whole.b2, centres)
    low = centres < 0.3
    np.testing.assert_array_equal(whole.horizon, np.where(low[:, None] | low[None, :], 30, 60))
    assert whole.attrs["steps"] == 60
    assert told[-1] == (2 * 8 * 8, 2 * 8 * 8)
    for i, j in ((0, 7), (7, 0), (0, 0), (6, 5)):
        steps = int(whole.horizon[i, j])
        gradients = np.where(np.arange(steps) < steps // 2, 1.0, 0.0)
        largest = np.abs(adam_updates(gradients, centres[i], centres[j])).max()
        # Sixty steps of a few units in the last place.
        cell = whole.sel(side="optimizer").isel(b1=i, b2=j)
        assert float(cell.max_update) == pytest.approx(largest, rel=1e-12)


def test_shares_are_counted(tree):
    panel = tree["worst_case"].to_dataset()
    below = panel.b2 < panel.boundary
    both = {"unstable": below, "answered": below | True, "log_bound": panel.log_bound + 1}
    shares = dict(zip(_atlas.VERDICTS, _atlas._shares(panel.assign(both), 1e-3)[1][0], strict=True))
    assert shares == {**dict.fromkeys(_atlas.VERDICTS, 0.0), "predicts": 1.0}
    # One column of eight without an answer, one grows as nobody says, one is above its bound.
    b1 = np.arange(8)
    wrong = panel.assign(
        unstable=below ^ xarray.DataArray(b1 == 1, dims="b1"),
        answered=both["answered"] & xarray.DataArray(b1 != 0, dims="b1"),
        log_bound=both["log_bound"] - xarray.DataArray(np.where(b1 == 2, 1e3, 0), dims="b1"),
    )
    assert _atlas._shares(wrong, 1e-3)[1].tolist() == [[5 / 8, 1 / 8, 1 / 8, 1 / 8]] * 2


def test_areas_are_counted(tree):
    panel = tree["quadratic"].to_dataset()
    start = 0.5 * (1 * 1 + 3 * 1 + 10 * 0.25 + 30 * 4)  # ½ Σ h x²
    for k, fraction in enumerate(_atlas.FRACTIONS):
        area = np.mean(panel.final_loss.values < fraction * start, axis=(-2, -1))
        np.testing.assert_array_equal(panel.area.values[..., k], area)
    ends = panel.final_loss.values < 1e-3 * start
    np.testing.assert_array_equal(panel.low_loss.values, ends)
    small = np.mean(panel.max_update.values <= 5, axis=(-2, -1))
    np.testing.assert_array_equal(panel.area_of_updates.values, small)
    assert panel.steps.values.tolist() == [40, 400]


def test_a_quadratic_that_has_arrived_has_an_answer(tmp_path):
    """After 4000 steps with eps 1e-3 some updates underflow; their loss is known all the same."""
    panel = _atlas.quadratic_map(1e-3, 4.0, 1e-3, 4, None, tmp_path, nothing)
    assert panel.answered.all()
    spent = _atlas.quadratic_map(1e-1, 4.0, 1e-3, 4, 3, tmp_path, nothing)
    assert spent.answered.sel(side="optimizer").all()
    assert not spent.answered.sel(side="flow").any()
    assert spent.area.sel(side="flow").max() == 0


@pytest.mark.parametrize("name", _atlas.PREDICTED)
def test_slope_of_theory_is_that_of_the_recursion(name):
    b1, b2, steps = 0.8, 0.6, 120
    gradients = np.where(np.arange(steps) < steps // 2, 1.0, 0.0)
    if name == "worst_case":
        gradients = (b2 / b1) ** np.arange(steps)
    updates = np.abs(adam_updates(gradients, b1, b2))
    expected = np.polyfit(np.arange(steps // 2, steps), np.log(updates[steps // 2 :]), 1)[0]
    if name == "vanishing":  # g_{n/2 − 1} is the last that is not 0
        seen = np.arange(steps // 2, steps)
        theory = np.log(b1 / np.sqrt(b2)) * seen - np.log(1 - b1 ** (seen + 1))
        theory += np.log(1 - b2 ** (seen + 1)) / 2
        # The same but for m and v at the last gradient: 1 − b^{n/2}, constant in n.
        assert np.ptp(theory - np.log(updates[steps // 2 :])) < 1e-11
    found = _atlas._slope(name, "optimizer", np.array([b1]), np.array([b2]), steps)
    # A slope of values near 60 that are known to 1e-14, over 60 steps.
    np.testing.assert_allclose(found, expected, atol=1e-12)


def test_refined_boundary_is_where_theory_grows_by_one_over_steps(tree):
    found = tree["refined"].to_dataset()
    assert found.boundary.dims == ("stream", "side", "b1")
    assert (found.crossings == 1).all()
    off = np.abs(found.boundary - found.resolvable)
    assert float((off - found.uncertainty).max()) < 1e-5
    # An error in either of half a cell would be seen.
    assert float(off.max()) > 0.9 * float(found.uncertainty.max())
    b1 = found.b1.values
    for side, expected in (("optimizer", b1**2), ("log", b1**2), ("lag", b1 / (2 - b1))):
        for theory in found.theory.sel(side=side).values:
            np.testing.assert_allclose(theory, expected, rtol=1e-15)


@pytest.mark.parametrize(
    "wrong",
    [
        {"streams": ("sphere",)},
        {"streams": ()},
        {"refined": ("random",)},
        {"refined": ("vanishing", "vanishing")},
        {"cells": 1},
        {"other_cells": True},
        {"stream_steps": 2.5},
        {"corner": 1.0},
        {"refined_cells": 12},
        {"learning_rates": (1e-2, 1e-1)},
        {"learning_rates": ()},
        {"learning_rate_time": 0.1},
    ],
)
def test_configuration_that_makes_no_sense(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Config(**wrong)


def _doctored(tree, node, **changes):
    """The tree with variables of one node replaced by what a function makes of them."""
    panel = tree[node].to_dataset()
    panel = panel.assign({name: change(panel) for name, change in changes.items()})
    nodes = {name: child.to_dataset() for name, child in tree.children.items()}
    return xarray.DataTree.from_dict({**nodes, node: panel})


def _in_one_cell(variable, side, value, i=0, j=-1):
    def change(panel):
        values = panel[variable].copy()
        values[{"side": side, "b1": i, "b2": j}] = value
        return values

    return change


def test_claim_holds(tree):
    assert check(tree) == []
    found = json.loads(json.dumps(numbers(tree)))
    assert set(found) == {"worst_case", "lag", "quadratic", "refined"}
    assert found["worst_case"]["flow"]["farthest"] <= 1 / 8
    assert "agreement" in found["lag"]["flow"]
    assert found["refined"]["worst_case"]["lag"]["uncertainty"] == pytest.approx(0.0125)


DOCTORED = {
    "far cell": ("worst_case", {"unstable": _in_one_cell("unstable", 1, True)}, "flow: a cell"),
    "no answer": ("worst_case", {"answered": _in_one_cell("answered", 0, False)}, "an answer"),
    "exceeded": ("worst_case", {"log_bound": lambda p: p.log_bound - 0.01}, "times its bound"),
    "lag, by sign": (
        "lag", {"unstable": lambda p: p.unstable ^ (abs(p.b2 - p.boundary) < 0.05)}, "sign of C",
    ),
    "lag, far cell": ("lag", {"unstable": _in_one_cell("unstable", 1, True)}, "lag, flow: a cell"),
    "areas": ("quadratic", {"area": lambda p: p.area.isel(learning_rate=[1, 0]).values
                            + 0 * p.area}, "does not grow: "),
    "areas the same": ("quadratic", {"area": lambda p: 0 * p.area + 0.5}, "does not grow: "),
    "loss's bound": ("quadratic", {"log_bound": lambda p: p.log_bound - 5}, "learning rate 0.1"),
    "refined": ("refined", {"boundary": lambda p: p.boundary + 0.03}, "slope is 1/steps"),
    "not refined": ("refined", {"boundary": lambda p: p.boundary * np.nan}, "slope is 1/steps"),
}  # fmt: skip


@pytest.mark.parametrize("case", DOCTORED)
def test_claim_fails_in_a_sentence(tree, case):
    node, changes, words = DOCTORED[case]
    missing = check(_doctored(tree, node, **changes))
    assert missing
    assert any(words in sentence for sentence in missing)
    assert all(sentence.startswith(node) or node == "refined" for sentence in missing)


def test_claim_on_other_streams_can_fail(tree):
    worst = tree["worst_case"].to_dataset()
    nodes = {name: child.to_dataset() for name, child in tree.children.items()}
    quiet = worst.assign(unstable=worst.unstable & False)
    assert check(xarray.DataTree.from_dict({**nodes, "constant": quiet})) == []
    missing = check(xarray.DataTree.from_dict({**nodes, "constant": worst}))
    assert [sentence.split(" on ")[0] for sentence in missing] == [
        "constant, optimizer: it grows",
        "constant, flow: it grows",
    ]


def test_figure(tree, tmp_path):
    figure = region_atlas.plot(tree)
    labels = [axis.get_xlabel() for part in figure.subfigs for axis in part.axes]
    assert "first-moment decay b1" in labels
    for path in save_figure(figure, tmp_path / "atlas", {}):
        assert 5000 < path.stat().st_size < 300_000


def test_edges_of_cells():
    np.testing.assert_allclose(edges((np.arange(4) + 0.5) / 4), np.linspace(0, 1, 5))
    np.testing.assert_allclose(edges(np.array([0.75])), [0.5, 1])
    # Of 96 cells the first edge is -9e-19 by rounding.
    assert edges((np.arange(96) + 0.5) / 96)[0] == 0


def test_a_stopped_measurement_goes_on(monkeypatch, tmp_path):
    monkeypatch.setenv("CT_ADAM_CACHE", str(tmp_path))

    def stopped(folder):
        (folder / "tile").write_text("done")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        _kept.resumed("mine", 1, stopped)
    assert _kept.resumed("mine", 2, lambda folder: [*folder.iterdir()]) == []
    assert _kept.resumed("mine", 1, lambda folder: (folder / "tile").read_text()) == "done"
    assert _kept.resumed("mine", 1, lambda folder: [*folder.iterdir()]) == []


def test_tiles_of_changed_code_are_made_anew(monkeypatch, tmp_path):
    monkeypatch.setenv("CT_ADAM_CACHE", str(tmp_path))

    def stopped(folder):
        (folder / "tile").touch()
        raise KeyboardInterrupt

    def changed(folder):
        if (folder / "tile").exists():
            raise _kept.AnotherSweepError("another sweep")
        return "anew"

    with pytest.raises(KeyboardInterrupt):
        _kept.resumed("mine", 1, stopped)
    assert _kept.resumed("mine", 1, changed) == "anew"


def test_two_processes_do_not_share_a_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("CT_ADAM_CACHE", str(tmp_path))
    assert _kept.resumed("mine", 1, lambda folder: folder).parent == tmp_path / "experiments"
    (lock,) = (tmp_path / "experiments").glob("mine-*.lock")
    hold = (
        "import sys; from pathlib import Path; from ct_adam.sweep.claims import Claims\n"
        "with Claims(Path(sys.argv[1])) as claims:\n"
        "    print(claims.take(0), flush=True); sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", hold, str(lock)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as other:  # fmt: skip
        assert other.stdin is not None
        assert other.stdout is not None
        assert other.stdout.readline().strip() == "True"
        apart = _kept.resumed("mine", 1, lambda folder: folder)
        other.stdin.close()
    assert apart.parent != tmp_path / "experiments"
    assert not apart.exists()
