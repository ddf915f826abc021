"""The page in a browser: what pointer, keys, sliders and address change, and what it never does."""

import json
import re
import time
from dataclasses import replace
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest
import xarray

from ct_adam import sweep, theory
from ct_adam.report import Trajectories, document, read_gallery, read_maps, render
from ct_adam.report.encoding import encode
from ct_adam.report.gallery import Entry

from .browsing import chromium, opened, until

pytest.importorskip("plotly")
CONFIG = replace(sweep.SIZES["smoke"], panels=("worst_case", "quadratic"), cells=8)
MARKUP = "<img src=x onerror=\"document.title='broken'\">"
PICTURE = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAQAAAC1HAwCAAAAC0lEQVR42mNkYAAAAAYAAjCB"
    "0C8AAAAASUVORK5CYII="
)


def made_tree(cells, problems):
    """Maps as of `ct-adam region`, their numbers drawn: the page does not know better."""
    draw = np.random.default_rng(0)
    axis = sweep.axes.cells(0.5, 1, cells).columns[""]
    grid = np.meshgrid(axis, axis, indexing="ij")
    size = np.exp(theory.update_bound(*grid, 200, "discrete", log=True))
    nodes = {}
    for name in ("vanishing", "random", "worst_case", "quadratic")[-problems:]:
        noise = draw.normal(0, 0.1, (2, cells, cells))
        panel = {
            "max_update": (size * np.exp(-np.abs(noise)), "largest update"),
            "update_slope": (noise, MARKUP),
            "outcome": (np.zeros(noise.shape, np.int32), "how the lane ended"),
            "unstable": (grid[0] ** 2 > grid[1], "unstable"),
            "answered": (noise > -0.25, "answered"),
        }
        dataset = xarray.Dataset(
            {
                key: (
                    ("side", "b1", "b2"),
                    np.broadcast_to(x, noise.shape),
                    {"long_name": label, "units": "1/step" if key == "update_slope" else "1"},
                )
                for key, (x, label) in panel.items()
            },
            {"side": ["optimizer", "flow"], "b1": axis, "b2": axis},
            {"title": f"{name} {MARKUP}", "steps": 200},
        )
        dataset.outcome.attrs["flag_meanings"] = "successful budget_spent"
        nodes[name] = dataset
    return xarray.DataTree.from_dict(nodes)


def stored(tree, config, path):
    own = tree.copy()
    own.attrs = {
        "program": "ct_adam",
        "config": json.dumps(vars(config)),
        "command": MARKUP,
    }
    sweep.write_tree(own, path)
    return path


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Two problems, the second at two learning rates."""
    folder = tmp_path_factory.mktemp("stores")
    tree = made_tree(8, 2)
    first = stored(tree, CONFIG, folder / "a.zarr")
    only = xarray.DataTree.from_dict({"quadratic": tree["quadratic"].to_dataset() * 1.5})
    only["quadratic"].attrs = tree["quadratic"].attrs
    for name in ("outcome", "unstable", "answered"):
        only["quadratic"][name] = tree["quadratic"][name]
    second = stored(only, replace(CONFIG, learning_rate=1e-3), folder / "b.zarr")
    return first, second, tree


@pytest.fixture(scope="module")
def maps(store):
    return read_maps(store[:2])


def drawn_runs(found, side=2, points=21):
    """As of `coarse_trajectories`, but for the numbers."""
    ends = np.linspace(0, found.data.sizes["b1"] - 1, side).astype(int)
    sizes = [found.data.sizes[dim] for dim in found.dims]
    places = {dim: range(size) for dim, size in zip(found.dims, sizes, strict=True)}
    values = np.random.default_rng(1).uniform(0.5, 2, (*sizes, side, side, points))
    loss = np.full_like(values, np.nan) if found.name == "worst_case" else values**2
    places |= {"b1": ends, "b2": ends}
    paths = {
        "places": places,
        "steps": np.linspace(0, 200, points).astype(int),
        "update": values,
        "loss": loss,
    }
    return Trajectories(paths)


@pytest.fixture(scope="module")
def address(maps, tmp_path_factory):
    runs = [drawn_runs(found) for found in maps]
    texts = [MARKUP] * 4  # name, claim, expected, found
    verdict = "Not all as expected"
    entry = Entry(*texts, [MARKUP], verdict, False, "x", "", PICTURE, 1, 1)
    file = tmp_path_factory.mktemp("page") / "report.html"
    file.write_text(render(document(maps, runs), [entry]))
    return file.as_uri()


@pytest.fixture(scope="module")
def browser():
    with chromium() as found:
        yield found


@pytest.fixture(scope="module")
def told():
    """What the page says on the console, and asks for beyond itself."""
    return []


@pytest.fixture(scope="module")
def page(browser, address, told):
    page = browser.new_page(viewport={"width": 1200, "height": 1000}, accept_downloads=True)
    page.set_default_timeout(10_000)
    page.on("console", lambda message: told.append(message.text))
    page.on("pageerror", lambda error: told.append(str(error)))
    page.on("request", lambda request: told.append(request.url))
    opened(page, address)
    return page


def visit(page, view):
    """As a link of this page does, but that the drawing is waited for."""
    page.evaluate("hash => report.visit(hash)", view)


def facts(page):
    """The cell's table by row, a list of its columns each."""
    return page.eval_on_selector_all(
        "#cell tbody tr",
        "rows => Object.fromEntries(rows.map(r => [r.cells[0].textContent, "
        "[...r.cells].slice(1).map(c => c.textContent)]))",
    )


def number(text):
    return float(text.replace("−", "-").removesuffix(" per step"))


def test_a_cell_says_what_the_store_and_the_theory_say(page, maps, store):
    found = next(one for one in maps if one.name == "quadratic")
    for i, j, rate in ((0, 0, 1e-3), (5, 2, 1e-2), (7, 7, 1e-3)):
        b1, b2 = float(found.data.b1[i]), float(found.data.b2[j])
        at = f"b1={b1}&b2={b2}&at.learning_rate={rate:g}"
        visit(page, f"#map=quadratic&{at}")
        rows = facts(page)
        factor = 1.5 if rate == 1e-3 else 1.0
        stored = store[2]["quadratic"].max_update.values[:, i, j] * factor
        side = store[2]["quadratic"].isel(side=0, b1=i, b2=j)
        drawn = page.evaluate("([i, j]) => document.querySelector('#map').data[0].z[j][i]", [i, j])
        if side.answered:
            assert drawn == pytest.approx(np.log10(stored[0]), abs=2**-13 / np.log(10))
        # Four digits are shown of a number kept to 2^-13: half a digit and that.
        shown = [number(text) for text in rows["largest update"]]
        np.testing.assert_allclose(shown, stored, rtol=5e-4 + 2**-13)
        expected = {
            "C, the paper's": theory.stability_coefficient(b1, b2),
            "C of log rates": theory.stability_coefficient(b1, b2, "log"),
            "growth rate, log rates": theory.growth_rate(b1, b2, "discrete"),
            "bound, optimizer (exact)": theory.update_bound(b1, b2, found.steps, "discrete"),
            "bound, the paper's": theory.update_bound(b1, b2, found.steps),
            "bound, flow of log rates": theory.update_bound(b1, b2, found.steps + 1, "flow", "log"),
        }
        for name, value in expected.items():
            np.testing.assert_allclose(number(rows[name][0]), float(value), rtol=5e-4 + 2**-13)
        slope = [number(text) for text in rows[f"{MARKUP}, 1/step"]]
        own = store[2]["quadratic"].update_slope.values[:, i, j] * factor
        np.testing.assert_allclose(slope, own, rtol=5e-4 + 2**-13)
        assert rows["outcome"] == ["successful", "successful"]
        assert number(rows["first-moment decay b1"][0]) == pytest.approx(b1, abs=1e-5)


def test_trajectories_are_those_of_the_nearest_pair(page, maps):
    found = next(one for one in maps if one.name == "quadratic")
    runs = drawn_runs(found).values
    for i, j, corner in ((1, 6, (0, 1)), (6, 2, (1, 0))):
        b1, b2 = float(found.data.b1[i]), float(found.data.b2[j])
        visit(page, f"#map=quadratic&at.learning_rate=0.01&b1={b1}&b2={b2}")
        drawn = page.evaluate(
            "document.querySelector('#paths').data.map(one => [one.name, [...one.y]])"
        )
        assert [name for name, _ in drawn] == ["optimizer", "optimizer", "flow", "flow"]
        for side in range(2):
            for k, of in enumerate(("update", "loss")):
                values = runs[of][side, 1][corner]
                np.testing.assert_allclose(drawn[2 * side + k][1], values, rtol=2**-13)


def test_pointer_and_click(page):
    visit(page, "#map=worst_case&b1=0.9&b2=0.999")
    box = page.locator("#map .nsewdrag").bounding_box()

    def at(right, up):
        return box["x"] + right * box["width"], box["y"] + (1 - up) * box["height"]

    kept = facts(page)
    page.mouse.move(*at(0.31, 0.45))
    page.mouse.move(*at(0.3125, 0.4375))  # the middle of cell (2, 3) of eight
    page.wait_for_selector("#tip:not([hidden])")
    assert number(facts(page)["first-moment decay b1"][0]) == pytest.approx(0.65625, abs=1e-3)
    assert number(facts(page)["second-moment decay b2"][0]) == pytest.approx(0.71875, abs=1e-3)
    page.mouse.move(5, 5)
    page.wait_for_selector("#tip[hidden]", state="attached")
    assert facts(page) == kept
    before = page.locator("#paths-note").text_content()
    page.mouse.click(*at(0.3125, 0.4375))
    until(page, "location.hash.includes('b1=0.65625')")
    until(page, "was => document.querySelector('#paths-note').textContent !== was", before)
    assert page.locator("#paths .scatterlayer .trace").count() >= 2


def test_keys_sliders_layers_and_theme(page):
    visit(page, "#map=quadratic&b1=0.72&b2=0.72")
    page.focus("#map")
    at = "() => [report.state.i, report.state.j]"
    first = page.evaluate(at)
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowUp")
    page.keyboard.press("ArrowUp")
    assert page.evaluate(at) == [first[0] + 1, first[1] + 2]
    page.keyboard.press("Shift+ArrowLeft")
    assert page.evaluate(at) == [0, first[1] + 2]
    assert "b1 0.53125" in page.locator("#status").text_content()
    value = "document.querySelector('#map').data[0].z[0][0]"
    before = page.evaluate(value)
    page.get_by_label("learning rate").focus()
    page.keyboard.press("ArrowRight")
    until(page, f"was => {value} !== was", before)
    # The second learning rate's store is 1.5 times the first's: log10 on the colour scale.
    assert abs(page.evaluate(value) - before) == pytest.approx(np.log10(1.5), abs=2e-4)
    assert page.evaluate("document.activeElement.type") == "range"
    page.get_by_label("problem").focus()
    page.keyboard.press("ArrowLeft")
    until(page, "location.hash.includes('map=worst_case')")
    count = "document.querySelector('#map').data.length"
    traces = page.evaluate(count)
    page.get_by_label("level curves of C").check()
    until(page, f"was => {count} > was", traces)
    page.select_option("#metric", "1")
    until(page, "location.hash.includes('metric=update_slope')")
    ground = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(ground)
    page.click("#theme")
    page.click("#theme")
    assert page.evaluate(ground) != light
    assert page.get_attribute("html", "data-theme") == "dark"
    # The address brings the view back.
    view, rows = page.evaluate("location.href"), facts(page)
    opened(page, view)
    assert (page.evaluate("location.href"), facts(page)) == (view, rows)
    assert page.evaluate(count) > traces
    assert page.get_attribute("html", "data-theme") == "dark"
    page.evaluate("location.hash = '#map=quadratic&theme=light'")
    until(page, "document.querySelector('#problem').value === '1'")


def test_worst_cells_and_downloads(page, maps):
    visit(page, "#map=quadratic&at.learning_rate=0.001&metric=max_update")
    found = next(one for one in maps if one.name == "quadratic")
    values = found.data.max_update.sel(learning_rate=1e-3, side="optimizer")
    values = values.where(found.data.answered.sel(learning_rate=1e-3, side="optimizer"))
    largest = np.sort(values.values[np.isfinite(values.values)])[::-1][:10]
    shown = page.locator("#worst tbody tr td:nth-child(4)").all_text_contents()
    np.testing.assert_allclose([number(x) for x in shown], largest, rtol=5e-4 + 2**-13)
    i, j = np.unravel_index(np.nanargmax(values.values), values.shape)
    page.get_by_role("button", name="Show 1", exact=True).click()
    assert page.evaluate("[report.state.i, report.state.j]") == [i, j]
    with page.expect_download() as waited:
        page.click("[data-download=csv]")
    lines = waited.value.path().read_text().splitlines()
    names = lines[0].split(",")
    assert len(lines) == 1 + 64
    view = found.data.sel(learning_rate=1e-3, side="optimizer")
    columns = dict(
        zip(names, zip(*(line.split(",") for line in lines[1:]), strict=True), strict=True)
    )
    grid = np.meshgrid(found.data.b1, found.data.b2, indexing="ij")
    expected = {
        "b1": (grid[0], 0),
        "b2": (grid[1], 0),
        "C_lag": (theory.stability_coefficient(*grid), 1e-13),
        "bound": (theory.update_bound(*grid, found.steps, "discrete"), 2**-13),
        "max_update": (view.max_update.values, 2**-13),
        "update_slope": (view.update_slope.values, 2**-13),
    }
    for name, (values, error) in expected.items():
        # Near C = 0 its terms, of size 1, cancel.
        got = np.array(columns[name], float).reshape(8, 8)
        np.testing.assert_allclose(got, values, rtol=error, atol=1e-15 if name == "C_lag" else 0)
    for name in ("unstable", "answered"):
        words = ["true" if flag else "false" for flag in view[name].values.ravel()]
        assert list(columns[name]) == words
    assert set(columns["outcome"]) == {"successful"}
    with page.expect_download() as waited:
        page.click("[data-download=json]")
    kept = json.loads(waited.value.path().read_text())
    assert (len(kept["rows"]), kept["about"]["at"]["learning_rate"]) == (64, "0.001")
    for kind, begins in (("png", b"\x89PNG"), ("svg", b"<svg")):
        with page.expect_download() as waited:
            page.click(f"[data-download={kind}]")
        content = waited.value.path().read_bytes()
        assert content.startswith(begins)
        if kind == "png":
            pixels = plt.imread(waited.value.path())
            assert pixels.shape[:2] == (960, 900)
            # The map has a colour a cell, or nearly.
            assert len(np.unique(pixels[::7, ::7, :3].reshape(-1, 3), axis=0)) > 32
        else:
            # Alone it says of what it is, and the store's markup is text there too.
            text = content.decode()
            assert "; optimizer; learning rate 0.001; 200 steps" in text
            assert "&#60;img src=x" in text
            assert "<img" not in text


def test_addresses_tell_close_neighbours_apart(page, maps):
    """Decays that differ in the ninth digit: a link goes to the same cell again."""
    close = 0.7 + 1e-9 * np.arange(8)
    data = document(maps)
    for axis in (data["maps"][1]["b1"], data["maps"][1]["b2"]):
        axis["values"] = close.tolist()
    page.evaluate("data => report.load(data)", data)
    visit(page, f"#map=quadratic&b1={close[5]}&b2={close[2]}")
    assert page.evaluate("[report.state.i, report.state.j]") == [5, 2]
    link = page.get_attribute("#permalink", "href")
    visit(page, "#map=worst_case&b1=0.5&b2=0.5")
    visit(page, link)
    assert page.evaluate("[report.state.i, report.state.j]") == [5, 2]
    page.evaluate("data => report.load(data)", document(maps, [drawn_runs(one) for one in maps]))


def test_a_slider_is_dragged(page):
    """Every step draws the page anew, and the slider under the pointer stays."""
    visit(page, "#map=quadratic&at.learning_rate=0.001")
    slider = page.get_by_label("problem")
    slider.scroll_into_view_if_needed()
    box = slider.bounding_box()
    middle = box["y"] + box["height"] / 2
    page.mouse.move(box["x"] + box["width"] - 8, middle)
    page.mouse.down()
    for share, name in ((0.02, "worst_case"), (0.98, "quadratic"), (0.02, "worst_case")):
        page.mouse.move(box["x"] + share * box["width"], middle)
        until(page, f"location.hash.includes('map={name}')")
    page.mouse.up()


@pytest.mark.parametrize(
    "hash_",
    [
        "#map=nothing&n=-1&metric=none&b1=x&b2=1e999&layers=constructor+toString&theme=no",
        "#n=99999999999&map=%E0%A4%A&at.side=&at.learning_rate=%00",
        "#=&&&&=%",
        "#" + "b1=0.9&" * 5000,
    ],
)
def test_a_broken_address_is_a_map(page, hash_):
    visit(page, hash_)
    assert 0 <= page.evaluate("report.state.i") < 8
    assert 0 <= page.evaluate("report.state.j") < 8
    assert page.evaluate("[...report.state.layers]") in ([], ["boundary", "unstable", "default"])
    assert facts(page)["outcome"][0] == "successful"
    visit(page, "#map=quadratic&theme=auto&layers=boundary+unstable+default")


def edges(mask):
    """Neighbours of which one is unstable, the outside being stable."""
    framed = np.pad(mask, 1)
    return sum(int(np.sum(framed != np.roll(framed, 1, axis))) for axis in (0, 1))


OUTLINE = """() => {
  const line = document.querySelector('#map').data.find(one => one.line?.color === '#D55E00');
  if (!line) return null;
  let length = 0;
  for (let k = 0; k < line.x.length; k += 3) {
    length += Math.abs(line.x[k + 1] - line.x[k]) + Math.abs(line.y[k + 1] - line.y[k]);
  }
  return length;
}"""


def loaded(page, data):
    """Other maps in the same page."""
    page.evaluate("data => report.load(data)", data)
    visit(page, "#layers=unstable")


def scattered(data, cells, share):
    """With unstable cells here and there; their mask."""
    mask = np.random.default_rng(3).random((2, cells, cells)) < share
    data["maps"][0]["flags"]["unstable"] = encode(mask.astype(np.uint8))
    return mask[0]


def test_the_outline_is_that_of_the_unstable_cells(page, maps):
    runs = [drawn_runs(found) for found in maps]
    data = document(maps, runs)
    mask = scattered(data, 8, 0.3)
    loaded(page, data)
    visit(page, "#map=worst_case&layers=unstable")
    # A cell is 1/16 wide.
    assert page.evaluate(OUTLINE) * 16 == pytest.approx(edges(mask))
    assert page.locator("#outline-note").text_content() == ""
    page.evaluate("data => report.load(data)", document(maps, runs))


@pytest.mark.slow
def test_odd_stores(page, maps, tmp_path):
    tree = made_tree(96, 1)
    data = document(read_maps([stored(tree, CONFIG, tmp_path / "odd.zarr")]))
    scattered(data, 96, 0.5)
    loaded(page, data)
    assert page.evaluate(OUTLINE) is None
    assert "is not drawn" in page.locator("#outline-note").text_content()
    # One row, and no number at all; no edge lies beyond 1.
    few = (
        tree["quadratic"]
        .to_dataset()
        .isel(b1=[0, -1], b2=[-1])
        .assign_coords(b1=[0.5, 0.9], b2=[0.999])
    )
    blank = {name: few[name] * np.nan for name in ("max_update", "update_slope")}
    tree = xarray.DataTree.from_dict({"quadratic": few.assign(blank)})
    loaded(page, document(read_maps([stored(tree, CONFIG, tmp_path / "odd.zarr")])))
    x, y, rows = page.evaluate(
        "(() => { const one = document.querySelector('#map').data[0]; "
        "return [one.x, one.y, one.z.length] })()"
    )
    assert (max(x), len(y), rows) == (1, 2, 1)
    assert 0.999 < max(y) < 1
    assert facts(page)["outcome"] == ["successful", "successful"]
    runs = [drawn_runs(found) for found in maps]
    page.evaluate("data => report.load(data)", document(maps, runs))


def test_text_from_a_store_does_nothing(page):
    assert MARKUP in page.locator("#map-title").text_content()
    assert page.locator("article").text_content().count(MARKUP) == 5
    assert page.title() != "broken"
    assert page.locator("img[src=x]").count() == 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_accessibility_at_phone_width(page, scheme):
    axe = pytest.importorskip(
        "axe_playwright_python.sync_playwright", reason="pip install '.[dev]'"
    )
    page.set_viewport_size({"width": 360, "height": 740})
    page.emulate_media(color_scheme=scheme)
    layers = "layers=boundary+level+normal+unstable+default"
    visit(page, f"#map=quadratic&theme=auto&{layers}")
    until(page, "document.documentElement.scrollWidth <= 360")
    page.evaluate("document.querySelectorAll('details').forEach(one => { one.open = true })")
    found = axe.Axe().run(page)
    assert {one["id"]: one["impact"] for one in found.response["violations"]} == {}


def test_the_page_asks_for_nothing_and_complains_of_nothing(page, told, address):
    """Last: of all that the tests before have done."""
    own = re.compile(rf"^({re.escape(address)}|about:blank|data:|blob:)")
    assert [text for text in told if not own.match(text)] == []


@pytest.mark.slow
def test_large_page(browser, tmp_path):
    """256 × 256 × 4 problems with the gallery of all experiments: size, and time to first paint."""
    config = replace(sweep.SIZES["quick"])
    file = tmp_path / "large.html"
    store = stored(made_tree(256, 4), config, tmp_path / "large.zarr")
    gallery = read_gallery(Path(__file__).parents[1] / "figures")
    assert len(gallery) > 15
    maps = read_maps([store])
    runs = [drawn_runs(found, side=8, points=101) for found in maps]
    file.write_text(render(document(maps, runs), gallery))
    size = file.stat().st_size
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    begun = time.perf_counter()
    opened(page, file.as_uri())
    drawn = time.perf_counter() - begun
    paint = page.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime")
    page.close()
    print(f"{size / 1e6:.2f} MB, first paint {paint:.0f} ms, map {drawn:.2f} s")
    assert size < 10e6
    assert paint < 2000
