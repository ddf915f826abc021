"""`ct-adam compare`, with problems and optimizers of the user's own."""

import json
import textwrap

import numpy as np
import pytest

from ct_adam import sweep
from ct_adam.cli import main
from ct_adam.flows.registry import FLOWS
from ct_adam.optimizers.registry import OPTIMIZERS
from ct_adam.plotting import following_figure

MINE = textwrap.dedent(
    """
    import jax.numpy as jnp
    import optax

    def valley(seed=0):
        return (lambda p: jnp.sum(p["x"] ** 2) + jnp.sum((p["y"] - seed) ** 4)), {
            "x": jnp.array([1.0, -2.0]), "y": jnp.array([0.5])}

    def clipped(learning_rate, b1, b2):
        return optax.chain(optax.clip(10.0), optax.adam(learning_rate, b1, b2))

    def accumulated(learning_rate):
        return optax.MultiSteps(optax.sgd(learning_rate), 3).gradient_transformation()

    def broken():
        return 3.0

    def raises():
        raise RuntimeError("my own words")

    def nowhere():
        return (lambda p: jnp.log(-p).sum()), jnp.ones(3)

    number = 7
    """
)


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """A user's package outside the repository."""
    package = tmp_path / "mypackage"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "things.py").write_text(MINE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def test_the_users_own(mine, capsys):
    args = ["compare", "--problem", "mypackage.things:valley", "--optimizer",
            "mypackage.things:clipped", "--flow", "log,euler", "--steps", "40", "--json",
            "--seed", "2"]  # fmt: skip
    assert main(args) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["parameters"] == 3
    assert set(found["flows"]) == {"log", "euler"}
    assert 0 < found["flows"]["log"]["relative_error"] < 0.1
    assert {p.name for p in (mine / "out").iterdir()} == {
        "compare.zarr", "compare.png", "compare.pdf"}  # fmt: skip
    dataset = sweep.read_tree(mine / "out" / "compare.zarr").dataset
    largest = found["flows"]["log"]["max_error"]
    np.testing.assert_allclose(dataset.error.sel(flow="log").max(), largest)
    assert dataset.step.attrs["units"] == "steps"
    assert "log, euler: published, of Adam's family" in sweep.describe_following(dataset)
    alone = sweep.follow(sweep.FollowConfig(problem="quadratic", flow="log", steps=5))
    assert "published" not in sweep.describe_following(alone)


def test_region_of_the_users_own(mine, capsys):
    args = ["region", "--problem", "mypackage.things:valley", "--optimizer",
            "mypackage.things:clipped", "--network-cells", "2",
            "--network-steps", "20"]  # fmt: skip
    assert main(args) == 0
    out = capsys.readouterr().out
    assert "mypackage.things:valley" in out
    assert "(the flow and the bound are Adam's, the optimizer is clipped)" in out
    bounds = [line.split()[-1] for line in out.splitlines() if " 100.0% " in line]
    assert bounds[0] == "–"  # of an optimizer that theory does not know
    assert 0 < float(bounds[1]) <= 1
    tree = sweep.read_tree(mine / "out" / "region.zarr")
    assert list(tree.children) == ["problem"]
    assert tree["problem"].max_update.shape == (2, 2, 2)


def test_a_loss_that_is_nan_everywhere(mine, capsys):
    for command in (["compare"], ["region", "--network-cells", "2", "--network-steps", "5"]):
        assert main([*command, "--problem", "mypackage.things:nowhere"]) == 2
        assert "not finite at the initial parameters" in capsys.readouterr().err
        assert not (mine / "out").exists() or list((mine / "out").iterdir()) == []


def test_figure_of_a_store_without_the_distance():
    """As earlier versions wrote them."""
    dataset = sweep.follow(sweep.FollowConfig(problem="quadratic", flow="log", steps=5))
    new, old = (following_figure(x) for x in (dataset, dataset.drop_vars("distance")))
    new, old = (figure.axes[1].lines[0].get_ydata() for figure in (new, old))
    np.testing.assert_allclose(old, new, rtol=1e-12)


def test_figure_of_an_optimizer_that_stood_still(recwarn):
    config = sweep.FollowConfig(problem="quadratic", flow="log", steps=5, learning_rate=0.0)
    following_figure(sweep.follow(config))
    assert not [w for w in recwarn if issubclass(w.category, RuntimeWarning)]


def test_table(tmp_path, capsys):
    args = ["compare", "--problem", "quadratic", "--optimizer", "adam_l2", "--weight-decay", "0.1",
            "--flow", "log,paper,sign", "--steps", "20", "--out", str(tmp_path)]  # fmt: skip
    assert main(args) == 0
    captured = capsys.readouterr()
    assert "4 parameters" in captured.out
    assert captured.out.count("successful") == 4  # and the optimizer
    assert "running log" in captured.err


def test_list_of_flows(mine, capsys):
    assert main(["compare", "--flow", "list"]) == 0
    rows = capsys.readouterr().out.splitlines()
    assert rows[0].split() == ["name", "order", "state", "source", "model"]
    assert [row.split()[0] for row in rows[2:]] == list(FLOWS)
    assert not (mine / "out").exists()


def test_help_names_every_flow(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["compare", "--help"])
    assert ended.value.code == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in (*FLOWS, *OPTIMIZERS, "interpolating-PxQ", "list"))


def test_a_flow_that_is_not_trusted(tmp_path, capsys):
    # Past the reach of order 6: curvature 30 turns by a large phase at |μ| = √0.9.
    args = ["compare", "--problem", "quadratic", "--optimizer", "sgdw", "--flow",
            "interpolating-6,heavy_ball", "--learning-rate", "0.05", "--steps", "60", "--out",
            str(tmp_path), "--json"]  # fmt: skip
    assert main(args) == 0
    found = json.loads(capsys.readouterr().out)["flows"]
    ours, theirs = found["interpolating-6"], found["heavy_ball"]
    assert (ours["trusted"], ours["trust_order"], ours["trust_stride"]) == (False, 6, 1)
    assert theirs["trusted"] is None
    assert theirs["trust_estimate"] is None
    assert theirs["outcome"] == "successful"
    dataset = sweep.read_tree(tmp_path / "compare.zarr").dataset
    assert dataset.trusted.values.tolist() == ["no", "–"]
    *_, row, other, advice = sweep.describe_following(dataset).splitlines()
    assert row.startswith("interpolating-6 ")
    assert "no " in row
    assert other.startswith("heavy_ball ")
    assert advice.startswith("interpolating-6 (order 6, stride 1, estimated relative error ")
    assert advice.endswith(ours["trust_advice"])


@pytest.mark.parametrize(
    "optimizer",
    [
        pytest.param("sgdw", marks=pytest.mark.slow),
        "optax:adan",
        pytest.param("adam_prox", marks=pytest.mark.slow),
    ],
)
def test_warm_steps_of_any_optimizer(optimizer):
    flow = "interpolating-3x2" + (",heavy_ball" if optimizer == "sgdw" else "")
    config = sweep.FollowConfig(
        problem="quadratic",
        optimizer=optimizer,
        flow=flow,
        steps=20,
        warm_steps=10,
        learning_rate=3e-4,
    )
    dataset = sweep.follow(config)
    print(dataset.relative_error.values)
    assert dataset.trusted[0] == "yes"
    assert dataset.relative_error[0] < 1e-2


BAD = {
    "unknown problem": (["--problem", "sphere"], "choose one of quadratic"),
    "unknown flow": (["--flow", "log,fast"], "choose one of 'log'"),
    "no flow": (["--flow", ","], "flow is empty"),
    "unknown optimizer": (["--optimizer", "sgdx"], "choose one of adamw"),
    "no module": (["--problem", "nowhere:loss"], "cannot import nowhere"),
    "no attribute": (["--problem", "mypackage.things:nothing"], "has no 'nothing'"),
    "no function": (["--problem", "mypackage.things:number"], "is no function"),
    "no pair": (["--problem", "mypackage.things:broken"], "return a pair"),
    "no optimizer": (["--optimizer", "mypackage.things:broken"], "return an optax"),
    "steps": (["--steps", "0"], "steps = 0"),
    "twice": (["--flow", "log,log"], "names a flow twice"),
    "hand-over": (["--warm-steps", "5", "--optimizer", "adam_prox"], "take over"),
    "hand-over of momentum": (
        ["--warm-steps", "5", "--flow", "interpolating,heavy_ball"],
        "heavy_ball can take over that of sgdw, not the state of adamw",
    ),
    "no memory": (["--warm-steps", "5", "--flow", "sign"], "sign can take over none"),
    "stride 0": (["--flow", "interpolating-3x0"], "interpolating-PxQ"),
    "no decay": (["--flow", "modified", "--weight-decay", "1"], "no weight_decay"),
    "no such alias": (["--optimizer", "optax:adamm"], "optax has no 'adamm'"),
    "not to be followed": (
        ["--optimizer", "mypackage.things:accumulated", "--flow", "interpolating"],
        "No flow can follow this optimizer",
    ),
    "tolerance": (["--rtol", "-1"], "not negative, nor both 0"),
    "user's error": (["--problem", "mypackage.things:raises"], "RuntimeError: my own words"),
    "no decay taken": (
        ["--optimizer", "mypackage.things:clipped", "--weight-decay", "1"],
        "takes no weight_decay",
    ),
    "points": (["--points", "1"], "points = 1"),
    "decay": (["--b1", "1.5"], "b1 = 1.5"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_exits_with_2(mine, capsys, case):
    args, words = BAD[case]
    assert main(["compare", *args]) == 2
    error = capsys.readouterr().err.strip().split("\n")[-1]
    assert error.startswith("ct-adam compare: ")
    assert words in error


def test_ctrl_c_keeps_the_flows_that_are_done(monkeypatch):
    from ct_adam.sweep import following

    solve, calls = following.solve, []

    def stops(*args, **kwargs):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return solve(*args, **kwargs)

    monkeypatch.setattr(following, "solve", stops)
    config = sweep.FollowConfig(problem="quadratic", flow="log,lag,euler", steps=10)
    assert sweep.follow(config).flow.values.tolist() == ["log"]


def test_a_comparison_of_other_settings_is_kept(tmp_path, capsys):
    words = ["compare", "--problem", "quadratic", "--flow", "log", "--out", str(tmp_path)]
    assert main([*words, "--steps", "5"]) == main([*words, "--steps", "5"]) == 0
    assert {path.stem for path in tmp_path.iterdir()} == {"compare"}
    assert main([*words, "--steps", "6"]) == 0
    (kept,) = tmp_path.glob("compare-*.zarr")
    assert sorted(path.suffix for path in tmp_path.glob("compare-*")) == [".pdf", ".png", ".zarr"]
    assert sweep.read_tree(kept).dataset.step[-1] == 5
    assert sweep.read_tree(tmp_path / "compare.zarr").dataset.step[-1] == 6
    assert f"kept as {kept}." in capsys.readouterr().err
