"""`ct-adam report`: the page's numbers are the store's, its text does nothing, its errors help."""

import hashlib
import json
import re
import shutil
import subprocess
import sys
from base64 import b64encode
from dataclasses import replace
from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import pytest
import tyro
import xarray

from ct_adam import sweep, theory
from ct_adam.report import coarse_trajectories, document, read_gallery, read_maps, render
from ct_adam.report import maps as reading
from ct_adam.report.encoding import PRECISION, decode, encode
from ct_adam.report.values import LEVELS, theory_values
from ct_adam.sweep.configured import SweepConfig, sweep_of

from .reference import BEGIN, CURVATURE, Hyper, adam_run

pytest.importorskip("plotly")

CONFIG = replace(sweep.SIZES["smoke"], panels=("worst_case", "quadratic"), cells=9)
HOSTILE = "</script><img src=x onerror=alert(1)>\u2028{{ 7*7 }}"


@pytest.fixture(scope="module")
def region(tmp_path_factory):
    """A store of `ct-adam region`, with its tree; to save time its panels are one, twice."""
    once = sweep.region(replace(CONFIG, panels=("quadratic",)))
    node = once["quadratic"].to_dataset()
    tree = xarray.DataTree.from_dict({"worst_case": node.copy(deep=True), "quadratic": node})
    tree["worst_case"]["max_update"] = node.max_update / 2
    tree.attrs = once.attrs | {"config": json.dumps(vars(CONFIG))}
    store = tmp_path_factory.mktemp("region") / "region.zarr"
    sweep.write_tree(tree, store)
    return store, tree


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    """A store of `ct-adam sweep` over decays, rates and seeds."""
    config = SweepConfig(
        b1="0.5,0.9,0.99",
        b2="1-log:0.9:0.999:4",
        learning_rate="1e-3,1e-2",
        method="adamw,lag",
        steps=20,
        engine="cohort",
    )
    store = tmp_path_factory.mktemp("sweep") / "sweep.zarr"
    sweep_of(config).run(store)
    return store


def command(*words):
    from ct_adam.cli.report import report

    tyro.cli(report, args=[str(word) for word in words])


def embedded(html):
    found = re.search(
        r'<script type="application/json" id="report-data">(.*?)</script>', html, re.DOTALL
    )
    return json.loads(found[1])


def test_encoding_keeps_what_it_says():
    draw = np.random.default_rng(0)
    # Over the range of float64, both signs.
    numbers = draw.choice([-1, 1], 4000) * np.exp(draw.uniform(-700, 700, 4000))
    text = encode(numbers.reshape(40, 100))
    found = decode(json.loads(json.dumps(text)))
    error = np.abs(found.ravel() / numbers - 1)
    # Rounding to twelve bits after the leading one; a wrong number of bits shows on either side.
    assert PRECISION / 2 < error.max() <= PRECISION
    special = np.array([[np.nan, np.inf, -np.inf, 0.0, -0.0, 1.0, 2**-1074.0, 1.7e308]])
    # NaN of any bits stays one, and does not carry over into the next number's sign.
    special[0, 0] = np.array([2**64 - 1], np.uint64).view(float)[0]
    back = decode(encode(special))[0]
    assert np.isnan(back[0])
    np.testing.assert_array_equal(back[1:6], special[0, 1:6])
    bytes_ = draw.integers(0, 256, (3, 5, 7)).astype(np.uint8)
    np.testing.assert_array_equal(decode(encode(bytes_)), bytes_)


def test_page_numbers_are_the_stores(region):
    store, tree = region
    data = embedded(render(document(read_maps([store]))))
    assert [one["name"] for one in data["maps"]] == list(tree.children)
    for one in data["maps"]:
        panel = tree[one["name"]].to_dataset()
        assert one["b1"]["values"] == panel.b1.values.tolist()
        assert one["dims"][0]["values"] == ["optimizer", "flow"]
        for metric in one["metrics"]:
            stored = panel[metric["name"]].values
            np.testing.assert_allclose(decode(metric["array"]), stored, rtol=PRECISION)
        names = one["outcome"]["names"]
        codes = decode(one["outcome"]["array"])
        assert names[codes[1, 2, 3]] == "successful"
        np.testing.assert_array_equal(codes, panel.outcome.values)
        for name, flags in one["flags"].items():
            np.testing.assert_array_equal(decode(flags), panel[name].values)
        # The store's own bounds, by side, are those that the page has by kind.
        bounds = data["theories"][one["theory"]]["bounds"]
        for side, name in (("optimizer", "discrete"), ("flow", "flow log")):
            bound = np.exp(panel.log_bound.sel(side=side).values)
            np.testing.assert_allclose(decode(bounds[name]), bound, rtol=1.01 * PRECISION)


def test_theory_is_ct_theory():
    b1, b2 = np.linspace(0, 0.96, 9), np.append(np.linspace(0, 0.96, 8), 0.999)
    values = theory_values(b1, b2, 50, ("lag", "euler"))
    grid = np.meshgrid(b1, b2, indexing="ij")
    for rates, found in values["rates"].items():
        a, b = (np.array([np.nan if x is None else x for x in found[key]]) for key in "ab")
        c = np.asarray(theory.stability_coefficient(*grid, rates))
        # Where a decay is 0 the page has null, and says ±∞ itself.
        fine = np.isfinite(a)[:, None] & np.isfinite(b)[None, :]
        np.testing.assert_allclose((2 * a[:, None] - b)[fine], c[fine], rtol=1e-14)
        assert np.all(np.isinf(c[~fine]))
    assert set(values["bounds"]) == {"discrete", "continuous", "flow lag", "flow euler"}
    continuous = decode(values["bounds"]["continuous"])
    expected = np.asarray(theory.update_bound(*grid, 50, "continuous"))
    np.testing.assert_allclose(continuous, expected, rtol=PRECISION)
    kinds = [curve["kind"] for curve in values["curves"]]
    assert (kinds.count("boundary"), kinds.count("level")) == (3, len(LEVELS))
    for curve in values["curves"]:
        x, y = np.array(curve["b1"]), np.array(curve["b2"])
        if curve["kind"] == "normal":
            # EQUATIONS §2. The points have seven digits: b1³ + 2 b2³ moves by 9 times as much.
            np.testing.assert_allclose(x**3 + 2 * y**3, 2.723005998, atol=9 * 5e-8 + 1e-9)
        elif curve["name"].startswith("C"):
            inner = (x > 0.1) & (y > 0.1)
            c = 2 * (1 - x) / x - (1 - y) / y
            # dC is at most 2/b1² and 1/b2² times the points' error of 5e-8.
            np.testing.assert_allclose(c[inner], float(curve["name"][4:]), atol=300 * 5e-8)


def test_sweep_with_a_learning_rate(swept):
    (found,) = read_maps([swept])
    assert found.dims == ("dynamics", "learning_rate")
    assert found.methods == {"adamw": ("discrete", "log"), "lag": ("flow", "lag")}
    one = document([found])["maps"][0]
    assert [dim["values"] for dim in one["dims"]] == [["adamw", "lag"], ["0.001", "0.01"]]
    assert (one["b1"]["scale"], one["b2"]["scale"]) == ("one_minus_log", "one_minus_log")
    stored = sweep.open(swept).final_loss.transpose("dynamics", "learning_rate", "b1", "b2")
    metric = next(m for m in one["metrics"] if m["name"] == "final_loss")
    np.testing.assert_allclose(decode(metric["array"]), stored.values, rtol=PRECISION)


def test_trajectories_are_the_stores_lanes(swept):
    """The largest update of a lane, and its loss at the end, from the path instead of the store."""
    (found,) = read_maps([swept])
    runs = coarse_trajectories(found, 2).values
    assert runs["update"].shape == (2, 2, 2, 2, 21)
    assert runs["places"]["b1"].tolist() == [0, 2]
    part = found.data.isel({name: runs["places"][name] for name in ("b1", "b2")})
    np.testing.assert_allclose(runs["loss"][..., -1], part.final_loss.values, rtol=1e-5)
    # An optimizer's largest update is over steps 0 … steps − 1, each of which is in its path.
    of_adamw = runs["update"][0, ..., :-1].max(-1)
    np.testing.assert_allclose(of_adamw, part.max_update.values[0], rtol=1e-12)


def adam_losses(learning_rate, b1, b2, steps):
    """The quadratic's loss along Adam (EQUATIONS §1), in NumPy."""
    hyper = Hyper(learning_rate, (b1,), (b2,))
    path = adam_run(lambda _, x: CURVATURE * x, BEGIN, steps, hyper)[2].params
    return np.sum(CURVATURE * path**2, axis=1) / 2


def test_stores_that_differ_in_the_learning_rate(region, tmp_path):
    panel = region[1]["quadratic"].to_dataset().isel(side=[0])
    stores = [tmp_path / "a.zarr", tmp_path / "b.zarr"]
    for store, rate, factor in zip(stores, (1e-2, 1e-3), (1, 2), strict=True):
        config = replace(CONFIG, panels=("quadratic",), learning_rate=rate)
        own = panel.assign(max_update=panel.max_update * factor)
        tree = xarray.DataTree.from_dict({"quadratic": own})
        tree.attrs = region[1].attrs | {"config": json.dumps(vars(config))}
        sweep.write_tree(tree, store)
    (found,) = read_maps([*stores, stores[0]])
    assert found.dims == ("side", "learning_rate")
    assert found.data.learning_rate.values.tolist() == [1e-3, 1e-2]
    first = found.data.max_update.sel(learning_rate=1e-3).values
    np.testing.assert_array_equal(first, 2 * panel.max_update.values)
    runs = coarse_trajectories(found, 1).values
    assert runs["loss"].shape == (1, 2, 1, 1, CONFIG.quadratic_steps + 1)
    b1, b2 = (float(panel[b][runs["places"][b][0]]) for b in ("b1", "b2"))
    for place, rate in enumerate((1e-3, 1e-2)):
        losses = adam_losses(rate, b1, b2, CONFIG.quadratic_steps)
        # Rounding alone: 60 smooth steps of a problem of curvature 30.
        np.testing.assert_allclose(runs["loss"][0, place, 0, 0], losses, rtol=1e-9)


def test_a_large_store_is_thinned(monkeypatch, region):
    store, tree = region
    monkeypatch.setattr(reading, "MOST_CELLS", 4)
    for found in read_maps([store]):
        panel = tree[found.name]
        assert (found.stride, found.data.sizes["b1"]) == (3, 3)
        np.testing.assert_array_equal(found.data.b1.values, panel.b1.values[1::3])
        np.testing.assert_array_equal(
            found.data.max_update.values, panel.max_update.values[:, 1::3, 1::3]
        )
    monkeypatch.setattr(reading, "MOST_CELLS", 256)
    monkeypatch.setattr(reading, "MOST_LANES", 250)
    maps = read_maps([store])
    assert sum(found.lanes for found in maps) <= 250 < sum(2 * 81 for found in maps)
    monkeypatch.setattr(reading, "MOST_LANES", 1)
    with pytest.raises(ValueError, match="fewer stores"):
        read_maps([store])


def test_worst_cells_are_those_of_the_whole_store(monkeypatch, region):
    """A store of 9 × 9 cells of which 3 × 3 are drawn: the largest are not among these."""
    store, tree = region
    monkeypatch.setattr(reading, "MOST_CELLS", 4)
    maps = read_maps([store])
    for found, one in zip(maps, document(maps)["maps"], strict=True):
        panel = tree[found.name].to_dataset()
        worst = one["worst"]["max_update"]
        values, bounds = decode(worst["value"]), decode(worst["bound"])
        for side in range(2):
            stored = panel.max_update.where(panel.answered)[side].values
            largest = np.sort(stored[np.isfinite(stored)])[::-1][:10]
            np.testing.assert_allclose(values[side], largest, rtol=PRECISION)
            assert largest[0] > found.data.max_update[side].values.max()
            for k in range(10):
                at = {"b1": worst["b1"][side][k], "b2": worst["b2"][side][k]}
                cell = panel.sel(at).isel(side=side)  # decays in full
                np.testing.assert_allclose(values[side, k], float(cell.max_update), rtol=PRECISION)
                bound = np.exp(float(cell.log_bound))
                np.testing.assert_allclose(bounds[side, k], bound, rtol=1.01 * PRECISION)
            c = theory.stability_coefficient(*(np.array(worst[b][side]) for b in ("b1", "b2")))
            np.testing.assert_allclose(decode(worst["c"])[side], c, rtol=PRECISION)
    monkeypatch.setattr(reading, "MOST_CELLS", 256)
    assert document(read_maps([store]))["maps"][0]["worst"] is None


def changed(region, tmp_path, **variables):
    """The store's quadratic alone, with other numbers."""
    panel = region[1]["quadratic"].to_dataset()
    panel = panel.assign({name: panel[name] * 0 + value for name, value in variables.items()})
    tree = xarray.DataTree.from_dict({"quadratic": panel})
    tree.attrs = region[1].attrs
    store = tmp_path / "changed.zarr"
    sweep.write_tree(tree, store)
    return store


def test_numbers_that_are_none_are_a_map(region, tmp_path):
    nan = dict.fromkeys(("max_update", "update_slope", "final_loss", "min_loss"), np.nan)
    numbers = [name for name in nan if name in region[1]["quadratic"]]
    store = changed(region, tmp_path, **dict.fromkeys(numbers, np.nan))
    data = document(read_maps([store]))
    assert data["maps"][0]["metrics"][0]["name"]
    json.dumps(data, allow_nan=False)


def test_decays_in_disorder_are_put_in_order(region, tmp_path):
    panel = region[1]["quadratic"].to_dataset().isel(b1=[3, 0, 5])
    tree = xarray.DataTree.from_dict({"quadratic": panel})
    tree.attrs = region[1].attrs
    sweep.write_tree(tree, tmp_path / "s.zarr")
    (found,) = read_maps([tmp_path / "s.zarr"])
    stored = region[1]["quadratic"].to_dataset().isel(b1=[0, 3, 5])
    np.testing.assert_array_equal(found.data.b1, stored.b1)
    np.testing.assert_array_equal(found.data.max_update, stored.max_update)


@pytest.mark.parametrize("bad", [np.nan, 1.0, -0.5, np.inf])
def test_decays_that_are_none_are_refused(region, tmp_path, bad):
    panel = region[1]["quadratic"].to_dataset().isel(b1=[0, 1], b2=[0, 1])
    tree = xarray.DataTree.from_dict({"quadratic": panel.assign_coords(b2=[0.5, bad])})
    tree.attrs = region[1].attrs
    sweep.write_tree(tree, tmp_path / "s.zarr")
    with pytest.raises(ValueError, match=r"b2 outside of \[0, 1\)"):
        read_maps([tmp_path / "s.zarr"])


@pytest.fixture
def hostile(region, tmp_path):
    """A store whose every text is markup."""
    _, tree = region
    panel = tree["quadratic"].to_dataset().copy(deep=True)
    panel.attrs |= {"title": HOSTILE, "optimizer": HOSTILE}
    for name in panel.data_vars:
        panel[name].attrs["long_name"] = HOSTILE
    panel.outcome.attrs["flag_meanings"] = "</script><b> " * 14
    made = xarray.DataTree.from_dict({"<img src=x>": panel})
    made.attrs = tree.attrs | {"command": HOSTILE, "git": HOSTILE, "config": "[1]"}
    store = tmp_path / "hostile.zarr"
    sweep.write_tree(made, store)
    return store


def test_hostile_text_stays_text(hostile, tmp_path):
    record = {"experiment": HOSTILE, "expected": HOSTILE, "found": {HOSTILE: HOSTILE}}
    (tmp_path / "bad.json").write_text(json.dumps(record | {"missing": [HOSTILE], "size": HOSTILE}))
    html = render(document(read_maps([hostile])), read_gallery(tmp_path), title=HOSTILE)
    assert "<img src=x" not in html
    assert html.count("<script") == html.count("</script>") == 3
    data = embedded(html)
    assert data["maps"][0]["title"] == HOSTILE
    assert data["maps"][0]["name"] == "<img src=x>"
    assert "{{ 7*7 }}" in html


def test_policy_allows_the_pages_own_scripts_alone(region):
    from plotly.offline import get_plotlyjs

    html = render(document(read_maps([region[0]])))
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', html)[1].replace("&#39;", "'")
    assert "default-src 'none'" in policy
    assert "connect-src 'none'" in policy
    own = re.search(r"<script>(.*?)</script>", html, re.DOTALL)[1]
    for source in (own, get_plotlyjs()):
        digest = b64encode(hashlib.sha256(source.encode()).digest()).decode()
        assert f"'sha256-{digest}'" in policy
    assert "unsafe-inline" not in policy.split("style-src")[0]
    assert not re.search(r'(src|href)="(?!#|data:)', html)


def test_command_writes_a_page(region, tmp_path, capsys):
    out = tmp_path / "page.html"
    (tmp_path / "figures").mkdir()
    record = {"expected": "all", "found": {"x": 1.5}, "missing": ["y is 2"], "command": "python -m"}
    (tmp_path / "figures" / "one.json").write_text(json.dumps(record))
    (tmp_path / "figures" / "other.json").write_text("[]")
    command(region[0], "--out", out, "--figures", tmp_path / "figures", "--trajectories", 0)
    html = out.read_text()
    assert "y is 2" in html
    assert "x: 1.5" in html
    assert "Not all as expected" in html
    assert len(embedded(html)["maps"]) == 2
    assert "2 maps and 1 experiment." in capsys.readouterr().out
    assert sorted(path.name for path in tmp_path.iterdir()) == ["figures", "page.html"]


PNG = b"\x89PNG\r\n\x1a\n" + bytes(8) + (640).to_bytes(4, "big") + (480).to_bytes(4, "big")


def test_gallery_says_what_was_claimed_and_what_is_amiss(tmp_path):
    record = {"expected": "all of it", "found": {"x": 1}, "missing": [], "command": "python -m"}
    pictures = {
        "a": PNG,
        "b": None,
        "c": PNG + bytes(300_000),
        "d": PNG[:20],
        "e": b"<svg onload=alert(1)>" + bytes(40),
    }
    for name, picture in pictures.items():
        own = {
            "a": {"title": "One step is enough."},
            "b": {"missing": "a word"},
            "c": {"missing": 3},
        }
        (tmp_path / f"{name}.json").write_text(json.dumps(record | own.get(name, {})))
        if picture is not None:
            (tmp_path / f"{name}.png").write_bytes(picture)
    a, b, c, d, e = read_gallery(tmp_path)
    assert (a.claim, b.claim) == ("One step is enough.", "")
    assert (a.width, a.height, a.no_image) == (640, 480, "")
    assert a.image.endswith(b64encode(PNG).decode())
    assert [one.missing for one in (a, b, c)] == [[], ["a word"], ["3"]]
    assert [one.as_expected for one in (a, b, c)] == [True, False, False]
    assert [one.image for one in (b, c, d, e)] == [""] * 4
    told = ["There is no figure b.png.", "c.png is left out: 300 kB", "d.png is no", "e.png is no"]
    html = render({}, [a, b, c, d, e])
    for one, words in zip((b, c, d, e), told, strict=True):
        assert one.no_image.startswith(words)
        assert one.no_image in html
    assert "<strong>Claim or question.</strong> One step is enough." in html
    assert html.count("<strong>Claim and expectation.</strong> all of it") == 4
    for broken in ("{", "[" * 100_000, "\xff"):
        (tmp_path / "b.json").write_bytes(broken.encode("latin-1"))
        with pytest.raises(ValueError, match=r"b.json is no JSON file: run its experiment again"):
            read_gallery(tmp_path)


def test_runner_writes_the_claim_that_the_gallery_shows(tmp_path, monkeypatch):
    from experiments import __main__ as runner
    from experiments import _gallery

    module = SimpleNamespace(
        __doc__="Is four\nfive?\n\nNot told.",
        EXPECTED="It is 4.",
        SIZES={"smoke": CONFIG},
        run=lambda config, progress: xarray.Dataset(attrs=sweep.provenance.provenance(config, 0.0)),
        plot=lambda dataset: plt.figure(figsize=(1, 1)),
        numbers=lambda dataset: {"it": 4.0},
        check=lambda dataset: [],
    )
    monkeypatch.setattr(runner, "load", lambda name: module)
    assert runner.main(["region", "--smoke", "--out", str(tmp_path)]) == 0
    (entry,) = read_gallery(tmp_path)
    assert (entry.claim, entry.expected, entry.missing) == ("Is four five?", "It is 4.", [])
    assert entry.image
    assert "Is four five?" in _gallery.page(tmp_path)  # not what the module says by now


BAD = {
    "no store": (["nothing.zarr"], "is no store"),
    "not ours": (["strange.zarr"], "not written by this program"),
    "no decays": (["curve.zarr"], "no map over b1 and b2"),
    "out is a folder": (["region.zarr", "--out", "."], "is a folder"),
    "out cannot be": (["region.zarr", "--out", "file/page.html"], "Cannot write to"),
    "no figures": (["region.zarr", "--figures", "none"], "is no folder"),
    "negative": (["region.zarr", "--trajectories", "-1"], "must not be negative"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_told(case, region, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(region[0], "region.zarr")
    (tmp_path / "file").write_text("")
    xarray.Dataset({"x": ("n", [1.0])}).to_zarr("strange.zarr", consolidated=False)
    xarray.Dataset({"x": ("n", [1.0])}, attrs={"program": "ct_adam"}).to_zarr(
        "curve.zarr", consolidated=False
    )
    words, told = BAD[case]
    with pytest.raises((ValueError, OSError), match=told) as raised:
        command(*words)
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "report.html").exists()


def test_code_that_a_store_names_is_not_run(swept, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "evil.py").write_text("raise SystemExit('ran')")
    (found,) = read_maps([swept])
    for key in ("problem", "method", "optimizer"):
        config = found.about["config"] | {key: "evil:factory"}
        runs = coarse_trajectories(replace(found, about=found.about | {"config": config}), 2)
        assert runs.values is None
        assert "--own-code" in runs.why
    assert "evil" not in sys.modules


def test_a_store_from_python_says_why_it_has_no_trajectories(swept):
    (found,) = read_maps([swept])
    runs = coarse_trajectories(replace(found, about=found.about | {"config": {}}), 2)
    assert runs.as_json() == {"why": runs.why}
    assert "does not say" in runs.why


def test_missing_library_is_named(monkeypatch):
    from ct_adam.report.page import check_installed

    for name in ("plotly.offline", "jinja2"):
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, name, None)
            with pytest.raises(ValueError, match=r"pip install '\.\[report\]'"):
                check_installed()


@pytest.mark.slow
def test_import_is_lazy():
    code = "import sys, ct_adam; print([m for m in ('plotly', 'jinja2') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
