"""Grids, and sweeps on disk: labels, resuming, refusing, sharing."""

import json
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import xarray
from hypothesis import given
from hypothesis import strategies as st

import ct_adam as ct
from ct_adam.problems import quadratic
from ct_adam.sweep.execute import execute
from ct_adam.sweep.grid import Tiling, slabs
from ct_adam.sweep.layout import level_tiles

PROBLEM = quadratic([1.0, 3.0, 10.0, 30.0])
START = jnp.array([1.0, -1.0, 0.5, 2.0])
GRID = ct.Grid(b1=ct.axes.linear(0.5, 0.9, 5), b2=ct.axes.one_minus_log(0.9, 0.999, 7))


def discrete(b1, b2):
    return ct.k_adam(1e-2, b1, b2)


def swept(steps=30, grid=GRID, tile=4, make=discrete, **options):
    return ct.Sweep(make, PROBLEM, START, steps, grid, tile=tile, **options)


# Axes and grids


def test_axes_are_what_their_words_say():
    word = ct.axes.parse
    np.testing.assert_allclose(word("linear:0.5:0.9:5").columns[""], np.linspace(0.5, 0.9, 5))
    np.testing.assert_allclose(word("log:1e-4:1e-1:4").columns[""], [1e-4, 1e-3, 1e-2, 1e-1])
    np.testing.assert_allclose(
        np.log(1 - word("1-log:0.9:0.9999:10").columns[""]),
        np.linspace(np.log(0.1), np.log(1e-4), 10),
    )
    np.testing.assert_allclose(word("cells:0.5:1:4").columns[""], [0.5625, 0.6875, 0.8125, 0.9375])
    assert word("seeds:3:5").columns[""].tolist() == [5, 6, 7]
    assert word("seeds:3").columns[""].dtype.kind == "i"
    assert word([0, 0.1]).columns[""].tolist() == [0, 0.1]
    b1, b2 = word("normal:0.9:0.999:64").columns.values()
    np.testing.assert_allclose(b1**3 + 2 * b2**3, 0.9**3 + 2 * 0.999**3)
    b1, b2 = word("level:0.01:0.8:0.99:16").columns.values()
    np.testing.assert_allclose(2 * (1 - b1) / b1 - (1 - b2) / b2, 0.01, atol=1e-12)


@pytest.mark.parametrize(
    ("word", "says"),
    [
        ("linear:0.5:0.9", "write linear:START:STOP:NUM"),
        ("linear:0.5:0.9:0", "at least 1"),
        ("linear:0.5:0.9:2.5", "whole number"),
        ("linear:0.5:x:3", "'x' is no number"),
        ("log:0:1:3", "no logarithm"),
        ("1-log:0.9:1:3", "no logarithm"),
        ("level:0.5:0.8:0.99:3", "no b2 in"),
        ("cosine:1:2:3", "linear:START:STOP:NUM"),
        ("0.9,nan", "not finite"),
        ("0.9,,1", "'' is no number"),
        ("0,…", "axis '0,…': '…' is no number: write numbers with commas, or linear:START"),
        ("linear::0.9:3", "'' is no number: write linear:START:STOP:NUM"),
        ("linear:0.5:0.9:inf", "num = inf must be a whole number"),
        ("linear:0.5:inf:3", "inf is not finite"),
        ("log:nan:1:3", "nan is not finite"),
        ("cells:0.5:0.5:4", "nothing lies between"),
        ("seeds:2:nan", "nan is not finite"),
        ("", "is no number"),
    ],
)
def test_bad_words_say_what_to_write(word, says):
    with pytest.raises(ValueError, match=says):
        ct.axes.parse(word)


@pytest.mark.parametrize("num", ["3", None, [3]])
def test_a_count_that_is_no_number_is_refused(num):
    with pytest.raises(ValueError, match="must be a whole number of at least 1"):
        ct.axes.linear(0.5, 0.9, num)


def test_grid_refuses_what_it_cannot_be():
    with pytest.raises(ValueError, match="no axis"):
        ct.Grid()
    with pytest.raises(ValueError, match="b1 is set by the axes"):
        ct.Grid(b1=[0.5], curve=ct.axes.normal_curve(0.9, 0.999, 3))
    with pytest.raises(ValueError, match="one length"):
        ct.axes.zipped(b1=[0.5], b2=[0.9, 0.99])
    with pytest.raises(ValueError, match="in a row"):
        ct.Grid(b1=np.ones((2, 2)))
    with pytest.raises(ValueError, match=r"b1: axis \['linear:0:1:3'\] is text: ct.axes.parse"):
        ct.Grid(b1="linear:0:1:3")


shapes = st.lists(st.integers(1, 6), min_size=1, max_size=3).map(tuple)


@given(shapes, st.integers(1, 40))
def test_tiles_cover_the_grid_once(shape, lanes):
    tiling = Tiling(shape, slabs(shape, lanes))
    assert tiling.lanes <= lanes
    seen = np.concatenate([tiling.points(tile).ravel() for tile in range(len(tiling))])
    assert sorted(seen) == list(range(np.prod(shape)))


def test_every_value_appears_in_the_check():
    lanes = GRID.every_value()
    assert len(lanes["b1"]) == 7
    assert set(lanes["b1"]) == set(GRID.lanes(np.arange(35))["b1"])
    assert set(lanes["b2"]) == set(GRID.lanes(np.arange(35))["b2"])


# Sweeps


def test_sweep_is_the_ensemble_with_labels(tmp_path):
    dataset = swept().run(tmp_path / "s.zarr")
    lanes = GRID.lanes(np.arange(GRID.size))
    table = ct.ensemble(discrete, PROBLEM, START, 30, lanes)
    assert dataset.max_update.dims == ("b1", "b2")
    for name, variable in dataset.data_vars.items():
        # Both run lane by lane; XLA may fuse differently around another number of lanes.
        np.testing.assert_allclose(variable.values.ravel(), table[name].values, rtol=1e-13)
        assert variable.attrs["long_name"] == table[name].attrs["long_name"]
    np.testing.assert_array_equal(dataset.b2, ct.axes.parse("1-log:0.9:0.999:7").columns[""])
    assert dataset.b1.attrs["units"] == "1"
    meanings = table.outcome.attrs["flag_meanings"] + " not_done"
    assert dataset.outcome.attrs["flag_meanings"] == meanings
    assert dataset.outcome.attrs["flag_values"][-1] == -1
    assert set(dataset.attrs) >= {"versions", "device", "git", "command", "config", "steps"}
    assert dataset.attrs["tiles"] == dataset.attrs["tiles_done"] == 10  # rows of 7 in 4 and 3
    again = xarray.open_zarr(tmp_path / "s.zarr", consolidated=False)  # anybody's zarr
    np.testing.assert_array_equal(again.max_update, dataset.max_update)


def test_netcdf_brings_everything_back(tmp_path):
    dataset = swept(metrics=("final_params", "outcome")).run(tmp_path / "s.zarr")
    assert dataset.final_params.dims == ("b1", "b2", "parameter")
    dataset.to_netcdf(tmp_path / "s.nc", engine="h5netcdf")
    with xarray.open_dataset(tmp_path / "s.nc", engine="h5netcdf") as back:
        np.testing.assert_array_equal(back.final_params, dataset.final_params)
        assert back.attrs["sweep"] == dataset.attrs["sweep"]


def test_methods_curves_and_saved_things(tmp_path):
    makes = {"adam": discrete, "flow": lambda b1, b2: ct.AdamFlow(1e-2, b1, b2)}
    grid = ct.Grid(curve=ct.axes.normal_curve(0.9, 0.999, 5), weight_decay=[0.0])

    def largest(step, params, update, loss):
        return {"size": jnp.max(jnp.abs(params)), "params": params}

    sweep = ct.Sweep(
        {name: lambda b1, b2, weight_decay, m=m: m(b1, b2) for name, m in makes.items()},
        PROBLEM,
        START,
        30,
        grid,
        tile=2,
        save=largest,
    )
    dataset = sweep.run(tmp_path / "s.zarr")
    assert dataset.max_update.dims == ("dynamics", "curve", "weight_decay")
    assert dataset.dynamics.values.tolist() == ["adam", "flow"]
    assert dataset.b1.dims == ("curve",)
    # Also a coordinate of nothing but 0 is written, and checked.
    xarray.testing.assert_identical(ct.open(tmp_path / "s.zarr").load(), dataset.load())
    lanes = {name: dataset[name].values for name in ("b1", "b2")}
    for name, make in makes.items():
        table = ct.ensemble(make, PROBLEM, START, 30, lanes, save=largest)
        found = dataset.sel(dynamics=name).isel(weight_decay=0)
        np.testing.assert_allclose(found.final_loss, table.final_loss, rtol=1e-13)
        np.testing.assert_allclose(found.saved_params, table.saved_params, rtol=1e-13)


@pytest.mark.parametrize("engine", ["fused", "cohort", "reference"])
def test_lanes_do_not_feel_their_tile(tmp_path, engine):
    """Whatever tiles are computed before or beside it, a lane's numbers are bitwise the same."""
    one = swept(engine=engine, tile=32).run(tmp_path / "a.zarr")
    # Reversed axes: every lane lies elsewhere in its tile.
    axes = {name: axis.columns[""][::-1] for name, axis in GRID.axes.items()}
    two = swept(engine=engine, tile=32, grid=ct.Grid(**axes)).run(tmp_path / "b.zarr")
    for name in one.data_vars:
        np.testing.assert_array_equal(one[name], two[name][::-1, ::-1])


def counting(monkeypatch):
    computed = []
    compute = ct.Sweep.compute

    def counted(self, level, tile):
        computed.append((level, tile))
        return compute(self, level, tile)

    monkeypatch.setattr(ct.Sweep, "compute", counted)
    return computed


def test_only_what_is_missing_is_computed(tmp_path, monkeypatch):
    store = tmp_path / "s.zarr"
    whole = swept().run(store)
    kept = {name: v.values.copy() for name, v in whole.data_vars.items()}
    computed = counting(monkeypatch)
    swept().run(store)
    assert computed == []
    tiles = level_tiles(store, 0)
    tiles.forget(3)
    opened = ct.open(store)
    assert opened.attrs["tiles_done"] == 9
    again = swept().run(store)
    assert computed == [(0, 3)]
    for name, values in kept.items():
        np.testing.assert_array_equal(again[name], values)


def test_unfinished_store_opens_with_gaps(tmp_path, monkeypatch):
    compute, computed = ct.Sweep.compute, []

    def failing(self, level, tile):
        if len(computed) == 5:
            raise KeyboardInterrupt
        computed.append(tile)
        return compute(self, level, tile)

    monkeypatch.setattr(ct.Sweep, "compute", failing)
    with pytest.raises(KeyboardInterrupt):
        swept().run(tmp_path / "s.zarr")
    dataset = ct.open(tmp_path / "s.zarr")
    assert (dataset.attrs["tiles"], dataset.attrs["tiles_done"]) == (10, 5)
    lanes = sum(3 if tile % 2 else 4 for tile in computed)  # rows of 7 in 4 and 3
    assert int(np.isnan(dataset.max_update).sum()) == int((dataset.outcome == -1).sum())
    assert int((dataset.outcome != -1).sum()) == lanes
    with pytest.raises(ValueError, match="5 of 10 tiles are done: a gap is no boundary"):
        ct.boundary(dataset)


# Refusals


@pytest.mark.parametrize(
    ("other", "says"),
    [
        ({"steps": 31}, "steps is 30 there and 31 here"),
        ({"grid": ct.Grid(b1=[0.5, 0.9], b2=[0.9, 0.99])}, "axis b1 is linear:0.5:0.9:5 there"),
        ({"tile": 14}, r"tile is \[1, 4\] there and \[2, 7\] here"),
        ({"make": lambda b1, b2: ct.k_adam(1e-3, b1, b2)}, "its program differs"),
        ({"metrics": ("max_update",)}, "metrics is"),
        ({"engine": "reference"}, "engine is"),
        ({"config": {"note": "x"}}, "note is not set there and x here"),
        ({"config": {"engine": "x"}}, "engine is not set there and x here"),
    ],
)
def test_another_sweeps_store_is_refused_with_the_difference(tmp_path, other, says):
    store = tmp_path / "s.zarr"
    swept().run(store)
    with pytest.raises(ValueError, match=says):
        swept(**other).run(store)
    assert ct.open(store).attrs["tiles_done"] == 10


def test_another_version_or_format_is_refused(tmp_path):
    store = tmp_path / "s.zarr"
    swept().run(store)
    file = store / "zarr.json"
    root = json.loads(file.read_text())

    def with_attributes(**changed):
        file.write_text(json.dumps(root | {"attributes": root["attributes"] | changed}))

    old = json.loads(root["attributes"]["sweep"])
    old["surroundings"]["version jax"] = "0.1"
    with_attributes(sweep=json.dumps(old))
    with pytest.raises(ValueError, match=f"version jax is 0.1 there and {jax.__version__} here"):
        swept().run(store)
    file.write_text(json.dumps(root))
    swept().run(store)
    assert ct.open(store).attrs["tiles_done"] == 10  # reading needs no version
    with_attributes(format=99)
    for use in (lambda: ct.open(store), lambda: swept().run(store)):
        with pytest.raises(ValueError, match=r"format 99, this ct-adam knows 1: update"):
            use()


@pytest.mark.parametrize("wrapped", [jax.jit, jax.checkpoint, lambda f: jax.jit(jax.jit(f))])
def test_data_deep_inside_a_loss_are_part_of_it(tmp_path, wrapped):
    """Constants of a program within the program, which its text does not show."""

    def run(last):
        data = jnp.array([1.0, 2.0, last])
        loss = wrapped(lambda x: jnp.sum((x[:3] - data) ** 2))
        ct.Sweep(discrete, loss, START, 5, GRID).run(tmp_path / "s.zarr")

    run(3.0)
    run(3.0)
    with pytest.raises(ValueError, match="its program differs"):
        run(300.0)


@pytest.mark.parametrize("damage", ["missing", "cut", "flipped", "no metadata"])
def test_damaged_coordinates_are_told_and_mended(tmp_path, damage):
    store = tmp_path / "s.zarr"
    expected = swept().run(store).load()
    chunk = store / "b1" / "c.0"
    content = chunk.read_bytes()
    if damage == "missing":
        chunk.unlink()
    elif damage == "cut":
        chunk.write_bytes(content[:-2])
    elif damage == "flipped":
        chunk.write_bytes(bytes([content[0] ^ 1]) + content[1:])
    else:
        shutil.rmtree(store / "b1")
    with pytest.raises(ValueError, match="damaged coordinate b1: run the sweep again"):
        ct.open(store)
    again = swept().run(store).load()
    xarray.testing.assert_equal(again, expected)
    assert chunk.read_bytes() == content


@pytest.mark.filterwarnings("ignore")  # zarr's own, of a folder that it does not know
def test_lost_variable_is_damaged_metadata(tmp_path):
    store = tmp_path / "s.zarr"
    swept().run(store)
    (store / "final_loss" / "zarr.json").unlink()
    with pytest.raises(ValueError, match=r"metadata .* damaged"):
        ct.open(store)


def test_names_that_a_store_cannot_hold(tmp_path):
    for name in ("status", "level", "dynamics", "final_loss"):
        with pytest.raises(ValueError, match="a name of the store's own"):
            ct.Grid(**{name: [0.5, 0.9]})
    sweep = swept(save=lambda step, params, update, loss: {"a/b": step})
    with pytest.raises(ValueError, match="'a/b' cannot be a name on disk"):
        sweep.run(tmp_path / "s.zarr")
    assert not (tmp_path / "s.zarr").exists()


def test_methods_must_have_the_same_variables(tmp_path):
    """What they call an update may differ, and is told of each."""
    makes = {"ours": discrete, "lion": lambda b1, b2: optax.lion(1e-2, b1, b2)}
    dataset = swept(make=makes).run(tmp_path / "s.zarr")
    assert dataset.attrs["update_kind"] == "ours: u, lion: step"
    sweep = swept(make={"b1": discrete, "b2": discrete})
    sweep.templates["b2"] = (sweep.templates["b2"][0].drop_vars("final_loss"), "")
    with pytest.raises(ValueError, match="b2 has other variables than b1"):
        sweep.run(tmp_path / "t.zarr")


def test_what_is_no_sweep_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "empty").mkdir()
    for path in ("nothing", "file", "empty"):
        with pytest.raises(ValueError, match="no store"):
            ct.open(tmp_path / path)
    with pytest.raises(ValueError, match="no store"):
        swept().run(tmp_path / "file")
    swept().run(tmp_path / "empty")  # somebody made room for it
    sound = {"program": "ct_adam", "format": 1, "levels": 1, "sweep": "{}"}
    for text in (
        "{",
        *(json.dumps({"attributes": {**sound, k: "x"}}) for k in sound if k[0] != "p"),
    ):
        (tmp_path / "zarr.json").write_text(text)
        with pytest.raises(ValueError, match="it is damaged"):
            ct.open(tmp_path)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"grid": ct.Grid(b1=[0.5, 1.0], b2=[0.9])}, r"b1 = 1 must be in \[0, 1\)"),
        ({"grid": ct.Grid(b1=[0.5], b2=[0.9, -0.1])}, r"b2 = -0.1 must be in \[0, 1\)"),
        ({"metrics": ("speed",)}, "metrics"),
        ({"tile": 0}, "tile = 0"),
        ({"tile": 1.5}, "tile = 1.5"),
        ({"metrics": ()}, "metrics"),
        ({"metrics": "final_loss"}, "give a tuple"),
        ({"make": {}}, "names no method"),
        ({"make": lambda b1: None}, "make fails"),
        ({"refine": ct.Refine()}, "no cells to cut"),
        ({"refine": "boundary"}, "refine = 'boundary': give a ct.Refine"),
        ({"grid": {"b1": [0.5, 0.9]}}, "grid is a dict: give a ct.Grid"),
        ({"steps": 0}, "steps"),
    ],
)
def test_bad_sweeps_are_refused_before_anything_runs(options, says):
    with pytest.raises(ValueError, match=says):
        swept(**options)


def test_bad_ways_to_run_are_refused(tmp_path):
    with pytest.raises(ValueError, match="workers = -1"):
        swept().run(tmp_path / "s.zarr", workers=-1)
    with pytest.raises(ValueError, match="not both"):
        swept().run(tmp_path / "s.zarr", workers=1, scheduler="tcp://127.0.0.1:1")
    assert not (tmp_path / "s.zarr").exists()


# Two at a time


def test_threads_on_one_store_never_corrupt_it(tmp_path):
    """Locks are a process's own: threads may compute a tile twice, to the same bytes."""
    expected = swept().run(tmp_path / "a.zarr").load()
    sweeps = [swept(), swept()]
    threads = [threading.Thread(target=execute, args=(s, tmp_path / "b.zarr")) for s in sweeps]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for name, variable in ct.open(tmp_path / "b.zarr").data_vars.items():
        np.testing.assert_array_equal(variable, expected[name])


def test_what_another_thread_writes_is_not_swept_up(tmp_path):
    """A sweep that begins removes leftovers; without the lock most of these writes fail."""
    swept().run(tmp_path / "s.zarr")
    tiles = level_tiles(tmp_path / "s.zarr", 0)
    values = {name: tiles.read(name, 5) for name in tiles._arrays}
    ended = threading.Event()

    def sweep_up():
        while not ended.is_set():
            tiles.sweep_up()

    thread = threading.Thread(target=sweep_up)
    thread.start()
    try:
        for _ in range(30):
            tiles.write(5, values)
    finally:
        ended.set()
        thread.join()


def test_tiles_that_another_process_has_are_waited_for(tmp_path):
    """A claim in another process: the sweep does the rest, then waits until it is freed."""
    store = tmp_path / "s.zarr"
    swept().run(store)
    level_tiles(store, 0).forget(2)
    level_tiles(store, 0).forget(3)
    code = (
        "import sys, time\nfrom pathlib import Path\nfrom ct_adam.sweep.claims import Claims\n"
        "claims = Claims(Path(sys.argv[1]))\nassert claims.take(2)\nprint('taken', flush=True)\n"
        "sys.stdin.read()\n"
    )
    lock = str(level_tiles(store, 0).claims_file)
    with subprocess.Popen(
        [sys.executable, "-c", code, lock], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"taken\n"
        thread = threading.Thread(target=execute, args=(swept(), store))
        thread.start()
        while not level_tiles(store, 0).done(3):
            assert thread.is_alive()
        assert thread.is_alive()
        assert not level_tiles(store, 0).done(2)
        holder.kill()  # the system frees the claim
    thread.join(20)
    assert level_tiles(store, 0).done(2)


# Stores of before


def test_region_of_before_sweeps_opens(tmp_path):
    """Written by `ct-adam region --cells 2 --panels quadratic --quadratic-steps 8` at commit
    d9e69e4, when no store had a format number."""
    archive = Path(__file__).parent / "data" / "region-before-formats.zip"
    shutil.unpack_archive(archive, tmp_path)
    tree = ct.open(tmp_path / "region.zarr")
    assert json.loads(tree.attrs["config"])["quadratic_steps"] == 8
    losses = tree["quadratic"].final_loss.sel(side="optimizer").values
    told = [[57.87100914, 57.89002935], [57.85179922, 57.87109787]]
    np.testing.assert_allclose(losses, told, rtol=1e-9)


def test_trees_of_region_open(tmp_path):
    """What `ct-adam region` and `compare` write has no format number either."""
    from ct_adam import sweep

    tree = sweep.region(sweep.RegionConfig(cells=3, panels=("quadratic",), quadratic_steps=8), None)
    sweep.write_tree(tree, tmp_path / "region.zarr")
    opened = ct.open(tmp_path / "region.zarr")
    xarray.testing.assert_identical(
        opened["quadratic"].to_dataset(), tree["quadratic"].to_dataset()
    )
    sweep.write_dataset(
        tree["quadratic"].to_dataset().assign_attrs(tree.attrs), tmp_path / "q.zarr"
    )
    assert ct.open(tmp_path / "q.zarr").max_update.dims == ("side", "b1", "b2")
    with pytest.raises(ValueError, match="holds no sweep"):
        swept().run(tmp_path / "region.zarr")
