"""The main job: its numbers, its files, and what it says to bad input."""

import json
from dataclasses import replace

import jax
import numpy as np
import pytest

from ct_adam import sweep, theory
from ct_adam.cli import main
from ct_adam.plotting import region_figure, save_figure
from ct_adam.sweep.grid import Grid
from ct_adam.sweep.panels import panels_of
from ct_adam.sweep.region import panel_map

CONFIG = replace(sweep.SIZES["smoke"], panels=("worst_case", "vanishing", "quadratic"))


@pytest.fixture(scope="module")
def tree():
    seen = []
    result = sweep.region(CONFIG, lambda panel, done, total: seen.append((panel, done, total)))
    assert seen[-1] == ("quadratic", 3 * 2 * 144, 3 * 2 * 144)
    return result


def test_labels_and_provenance(tree):
    assert list(tree.children) == ["worst_case", "vanishing", "quadratic"]
    panel = tree["worst_case"].to_dataset()
    assert panel.max_update.dims == ("side", "b1", "b2")
    assert panel.b1.attrs["long_name"] == "first-moment decay b1"
    assert "budget_spent" in panel.outcome.attrs["flag_meanings"]
    assert json.loads(tree.attrs["config"])["cells"] == CONFIG.cells
    assert set(tree.attrs) >= {"versions", "device", "git", "command", "wall_seconds"}


@pytest.mark.parametrize("rates", ["log", "lag"])
def test_worst_case_meets_the_boundary(tree, rates):
    if rates == "lag":
        tree = sweep.region(replace(CONFIG, rates="lag", panels=("worst_case",)))
    panel = tree["worst_case"].to_dataset()
    steps = panel.attrs["steps"]
    b1, b2 = np.meshgrid(panel.b1, panel.b2, indexing="ij")
    for side, kind in (("optimizer", "discrete"), ("flow", "flow")):
        cells = panel.sel(side=side)
        rate = np.asarray(theory.growth_rate(b1, b2, kind, rates))
        # The measured slope is the rate plus that of bias factor and of transients, below
        # 1/steps except where the criterion itself is undecided: |rate| within 2/steps.
        sharp = np.abs(rate) > 2 / steps
        assert sharp.mean() > 0.8
        np.testing.assert_array_equal((cells.unstable.values == (rate > 0))[sharp], True)
    bound = np.exp(panel.log_bound)
    # The bound is one of exact arithmetic; the flow's moments carry 1e-6 a step.
    assert float((panel.max_update / bound).max()) < 1 + 1e-6 * steps
    attained = (panel.max_update / bound).sel(side="optimizer")
    assert float(attained.min()) > 1 - 1e-9


def test_vanishing_stream_grows_at_its_rate(tree):
    panel = tree["vanishing"].to_dataset()
    b1, b2 = np.meshgrid(panel.b1, panel.b2, indexing="ij")
    rate = np.log(b1) - np.log(b2) / 2

    # A fitted slope lies between the extreme slopes, and ln B = ln(1 - b^n) is steepest at first.
    def factor(b):
        return -np.log(b) * b**100 / (1 - b**100)

    slack = factor(b1) + factor(b2) / 2
    error = np.abs(panel.update_slope - rate)
    assert np.all(error.sel(side="optimizer").values < slack + 1e-12)
    # A flow's m is known to 1e-6 of √v a solver step, which says something of ln|u| where |u| ≥ 1.
    growing = rate > 0
    assert np.all((error.sel(side="flow").values < slack + 5e-6)[growing])


def test_summary_counts(tree):
    panel = tree["worst_case"].to_dataset()
    row = sweep.panel_summary(panel)["optimizer"]
    cells = panel.sel(side="optimizer")
    assert row["unstable"] == float(cells.unstable.mean())
    assert row["max_update"] == float(cells.max_update.max())
    assert row["answered"] == 1
    # Every answered cell counts for an update above its bound, also where the bound is low.
    log_ratio = np.log(cells.max_update) - cells.log_bound
    assert row["bound_ratio"] == pytest.approx(float(np.exp(log_ratio.max())))
    text = sweep.describe(tree)
    assert "worst-case stream" in text
    assert f"{row['agreement']:.2%}" in text
    # A cell without an answer is neither stable nor unstable.
    lost = panel.assign(answered=panel.answered & (panel.b1 < 0.8))
    assert sweep.panel_summary(lost)["optimizer"]["answered"] == pytest.approx(7 / 12)
    nothing = panel.assign(answered=panel.answered & False)
    assert "no cell has an answer" in sweep.describe(type(tree).from_dict({"worst_case": nothing}))


def test_an_underflowed_update_is_no_answer():
    # 0.05^1000 is below every float: the stream's scale cannot save it.
    deep = replace(CONFIG, low=0.0, cells=10, stream_steps=600, panels=("worst_case",))
    cells = sweep.region(deep)["worst_case"].to_dataset().sel(side="optimizer")
    unstable = cells.b1.values[:, None] ** 2 > cells.b2.values[None, :]
    dead = ~cells.answered.values
    assert dead.any()
    assert np.all(unstable[dead])


def _one_pair(tmp_path, panel, steps, b1, b2):
    config = sweep.RegionConfig(panels=(panel,), stream_steps=steps)
    made = panels_of(config)[panel]
    return panel_map(made, Grid(b1=[b1], b2=[b2]), "log", tmp_path / "one.zarr").isel(b1=0, b2=0)


def test_a_worst_case_that_has_faded_does_not_exceed_its_bound(tmp_path):
    """Its last g² are below the normal numbers: what they lost would be a factor of u."""
    steps = 600
    cell = _one_pair(tmp_path, "worst_case", steps, 0.1328125, 0.4296875)
    # The bound is one of exact arithmetic; the flow's moments carry 1e-6 a step.
    assert np.all(cell.max_update / np.exp(cell.log_bound) < 1 + 1e-6 * steps)
    assert cell.answered.all()


def test_a_flow_that_has_died_is_not_unstable(tmp_path):
    """Its update is the solver's error, whose slope is no growth: theory's is ln b1 - ln(b2)/2."""
    cell = _one_pair(tmp_path, "vanishing", 200, 0.0293, 0.986)
    assert np.log(0.0293) - np.log(0.986) / 2 < -3
    assert cell.answered.all()
    assert cell.update_slope.sel(side="flow") > 1 / 200  # what there is to be deceived by
    assert not cell.unstable.any()
    # Above the solver's error a slope counts.
    grows = _one_pair(tmp_path / "grows", "vanishing", 200, 0.5, 0.2)
    assert grows.unstable.all()


def test_panels_of_streams_that_do_not_fade():
    made = panels_of(replace(CONFIG, panels=("random", "constant"), stream_steps=30, seed=3))
    expected = {
        "random": np.random.default_rng(3).standard_normal((31, 8)), "constant": np.ones((31, 1))
    }  # fmt: skip
    for name, panel in made.items():
        for side in sweep.SIDES:
            stream = panel.make[side](0.9, 0.99).loss
            assert stream is not None
            np.testing.assert_array_equal(stream.gradients, expected[name])


def test_store_is_read_back(tree, tmp_path):
    store = tmp_path / "region.zarr"
    sweep.write_tree(tree, store)
    again = sweep.read_tree(store)
    np.testing.assert_array_equal(
        again["quadratic"].max_update.values, tree["quadratic"].max_update.values
    )
    assert again.attrs == tree.attrs
    sweep.write_tree(tree, store)  # its own older result may be replaced
    assert [p.name for p in tmp_path.iterdir()] == ["region.zarr"]


def test_figure(tree, tmp_path):
    figure = region_figure(tree)
    labels = {axis.get_xlabel() for axis in figure.axes}
    assert "first-moment decay b1" in labels
    for path in save_figure(figure, tmp_path / "region", tree.attrs):
        assert path.stat().st_size > 5000


def test_a_figures_name_may_have_a_dot(tree, tmp_path):
    paths = save_figure(region_figure(tree), str(tmp_path / "new" / "lr_0.01"), {})
    assert [path.name for path in paths] == ["lr_0.01.png", "lr_0.01.pdf"]
    assert all(path.exists() for path in paths)


@pytest.fixture
def cli(capsys):
    def call(*args):
        try:
            code = main(args)
        except SystemExit as stop:  # the parser's own way to end
            code = stop.code
        output = capsys.readouterr()
        return code, output.out, output.err

    return call


SMALL = ("--cells", "4", "--network-cells", "2", "--stream-steps", "50", "--quadratic-steps", "20",
         "--network-steps", "5", "--hidden", "3", "--images", "20")  # fmt: skip


def test_region_command(cli, tmp_path):
    code, out, err = cli("region", "--out", str(tmp_path / "new" / "folder"), *SMALL)
    assert code == 0, err
    assert "digits MLP 64-3-10" in out
    assert "lane" not in err  # a bar is for terminals, and this took less than a minute
    names = {p.name for p in (tmp_path / "new" / "folder").iterdir()}
    assert names == {"region.zarr", "region.png", "region.pdf"}


def test_region_command_on_other_streams(cli, tmp_path):
    code, out, err = cli("region", "--panels", "random", "constant", "--out", str(tmp_path), *SMALL)
    assert code == 0, err
    assert "8 random streams, eps = 0, 50 steps" in out
    assert "constant stream, eps = 0, 50 steps" in out
    # In the order of the file system.
    assert set(sweep.read_tree(tmp_path / "region.zarr").children) == {"random", "constant"}
    # Each coordinate's first update is ±1, and a constant stream's are all 1.
    largest = sweep.read_tree(tmp_path / "region.zarr")["constant"].max_update
    np.testing.assert_allclose(largest, 1, rtol=1e-5)  # fifty steps of 1e-6 a flow's


@pytest.mark.parametrize("panel", ["worst_case", "vanishing"])
def test_streams_of_a_map_need_float64(panel):
    with jax.enable_x64(False), pytest.raises(ValueError, match="need float64"):
        sweep.region(replace(CONFIG, panels=(panel,)))


BAD = {
    "unknown panel": (("--panels", "sphere"), "choose one of 'worst_case'"),
    "no cells": (("--cells", "0"), "at least 1"),
    "steps": (("--stream-steps", "1"), "at least 4"),
    "low": (("--low", "1.5"), "low = 1.5"),
    "learning rate": (("--learning-rate", "-1"), "learning_rate"),
    "nan": (("--eps", "nan"), "eps"),
    "images": (("--panels", "network", "--images", "9999"), "between 1 and 1797"),
    "seed": (("--panels", "network", "--seed", "-1"), "seed = -1 must not be negative"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_exits_with_2(cli, tmp_path, case):
    args, words = BAD[case]
    code, _, err = cli("region", "--out", str(tmp_path), *args)
    assert code == 2
    assert words in err
    assert "Traceback" not in err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "args", [("region", "--rates", "fast"), ("regions",), ("region", "--cell")]
)
def test_bad_options_exit_with_2(cli, args):
    assert cli(*args)[0] == 2


def test_unwritable_output(cli, tmp_path):
    (tmp_path / "file").write_text("mine")
    code, _, err = cli("region", "--out", str(tmp_path / "file"), *SMALL)
    assert code == 2
    assert "name another folder with --out" in err
    assert (tmp_path / "file").read_text() == "mine"


def test_a_foreign_store_is_not_replaced(cli, tmp_path):
    (tmp_path / "region.zarr").mkdir()
    (tmp_path / "region.zarr" / "mine").write_text("mine")
    code, _, err = cli("region", "--out", str(tmp_path), *SMALL)
    assert code == 2
    assert "was not written by this program" in err
    assert (tmp_path / "region.zarr" / "mine").read_text() == "mine"


def test_a_map_of_other_settings_is_kept(cli, tmp_path):
    first = ("region", "--out", str(tmp_path), *SMALL)
    for again in ("first", "same"):
        code, _, err = cli(*first)
        assert (code, "is kept" in err) == (0, False), again
    before = {name: (tmp_path / name).read_bytes() for name in ("region.png", "region.pdf")}
    map_ = sweep.read_tree(tmp_path / "region.zarr")
    code, _, err = cli(*first, "--seed", "1")
    assert code == 0
    (kept,) = tmp_path.glob("region-*.zarr")
    assert f"the earlier result, of other settings, is kept as {kept}." in err
    assert sweep.read_tree(kept).identical(map_)
    for suffix in (".png", ".pdf"):
        assert kept.with_suffix(suffix).read_bytes() == before[f"region{suffix}"]
    new = json.loads(sweep.read_tree(tmp_path / "region.zarr").attrs["config"])
    assert new == json.loads(map_.attrs["config"]) | {"seed": 1}
    assert cli(*first, "--seed", "2")[0] == cli(*first, "--seed", "1")[0] == 0
    assert len(list(tmp_path.glob("region-*.zarr"))) == 3
