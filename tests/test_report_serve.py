"""`ct-adam report --serve`: who is answered, what grows, and a stop that loses nothing."""

import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path

import numpy as np
import pytest

import ct_adam as ct
from ct_adam.cli import main
from ct_adam.cli.parse import parsed
from ct_adam.report import GrowingStores
from ct_adam.report.encoding import PRECISION, decode
from ct_adam.report.growing import GrowingStore
from ct_adam.report.serve import PageServer
from ct_adam.sweep.configured import SweepConfig, sweep_of
from ct_adam.sweep.layout import level_tiles
from ct_adam.sweep.stopping import StopRequests, ask_to_stop
from ct_adam.sweep.tiles import Tiles

from .browsing import chromium, opened, until

pytest.importorskip("plotly")

CONFIG = SweepConfig(
    problem="quadratic",
    b1="linear:0.5:0.9:6",
    b2="linear:0.9:0.99:4",
    steps=20,
    tile=2,
    engine="cohort",
)
TILES = 12


@pytest.fixture(scope="module")
def sweep():
    """Compiled once."""
    return sweep_of(CONFIG)


def stopped_at(sweep, store, tiles):
    """Runs until so many tiles are told of, then asks the store to stop."""

    def tell(what, done, total):
        del what
        if done >= tiles * total // TILES:
            ask_to_stop(store)

    with pytest.raises(KeyboardInterrupt):
        sweep.run(store, progress=tell)


def contents(store):
    """All that is part of the result."""
    return {
        str(path.relative_to(store)): path.read_bytes()
        for path in store.rglob("*")
        if path.is_file() and path.name != "claims.lock" and "journal" not in path.parts
    }


@contextmanager
def serving(stores, **options):
    with PageServer(GrowingStores(stores), **options) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture(scope="module")
def begun(sweep, tmp_path_factory):
    store = tmp_path_factory.mktemp("begun") / "half <b>.zarr"
    stopped_at(sweep, store, 5)
    return store


@pytest.fixture(scope="module")
def served(begun):
    with serving([begun]) as server:
        yield server


def ask(server, path, method="GET", **headers):
    """Status, headers and body of an answer; the `Host` is the server's unless it is given."""
    connection = HTTPConnection("127.0.0.1", server.server_port, timeout=20)
    connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
    headers = {"Host": f"127.0.0.1:{server.server_port}"} | headers
    for name, value in headers.items():
        for one in [value] if isinstance(value, str) else value:
            connection.putheader(name.replace("_", "-"), one)
    connection.endheaders()
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    return answer.status, answer.headers, body


def test_a_stop_keeps_every_tile_and_the_rest_follows_bitwise(sweep, begun, tmp_path):
    done = ct.open(begun).attrs["tiles_done"]
    # The request was made when five were told of; of two more one is computed, one written.
    assert 5 <= done <= 7
    whole, again = tmp_path / "whole.zarr", tmp_path / "again.zarr"
    sweep.run(whole)
    stopped_at(sweep, again, 5)
    # The request is still there: it ends nothing that begins later.
    sweep.run(again)
    # All but the root's, which says when it was made.
    expected, found = contents(whole), contents(again)
    assert {name for name in expected if expected[name] != found.get(name)} <= {"zarr.json"}
    assert set(found) == set(expected)


def test_a_stop_ends_all_sweeps_of_a_store(sweep, begun, tmp_path, monkeypatch):
    """Two at once: each has begun a tile when the request comes, and keeps it.

    Locks are a process's own, so that these two may take the same tile.
    """
    store = tmp_path / "s.zarr"
    shutil.copytree(begun, store)
    before, requests = ct.open(store).attrs["tiles_done"], StopRequests(store)
    compute, taken, ended = ct.Sweep.compute, [], []
    both = threading.Barrier(3)

    def held(self, level, tile):
        taken.append(tile)
        both.wait(20)
        while not requests.fresh():
            time.sleep(0.005)
        return compute(self, level, tile)

    def run():
        try:
            sweep.run(store)
        except KeyboardInterrupt as stopped:
            ended.append(str(stopped))

    monkeypatch.setattr(ct.Sweep, "compute", held)
    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    both.wait(20)
    ask_to_stop(store)
    for thread in threads:
        thread.join(20)
    assert len(ended) == 2
    assert len(taken) == 2
    assert ct.open(store).attrs["tiles_done"] == before + len(set(taken))


def test_each_sweep_sees_the_requests_of_its_own_time(tmp_path):
    first = StopRequests(tmp_path)
    assert not first.fresh()
    ask_to_stop(tmp_path)
    second = StopRequests(tmp_path)
    assert (first.fresh(), second.fresh()) == (True, False)
    ask_to_stop(tmp_path)
    assert (first.fresh(), second.fresh()) == (True, True)
    assert [file.name for file in (tmp_path / "status" / "journal").iterdir()] == ["stop"]


STRANGERS = {
    "no token": ("GET", "/", {}),
    "another token": ("GET", "/{other}/", {}),
    "half of it": ("GET", "/{half}/", {}),
    "no ASCII": ("GET", "/\xff\xfe/data", {}),
    "nothing of that name": ("GET", "/{token}/etc", {}),
    "a folder above": ("GET", "/{token}/../", {}),
    "below": ("GET", "/{token}/data/", {}),
    "a foreign host": ("GET", "/{token}/", {"Host": "evil.example:{port}"}),
    "another port": ("GET", "/{token}/", {"Host": "127.0.0.1:1"}),
    "no host": ("GET", "/{token}/", {"Host": []}),
    "two hosts": ("GET", "/{token}/", {"Host": ["127.0.0.1:{port}", "evil.example"]}),
    "a stop by a link": ("GET", "/{token}/stop", {}),
    "a stop without origin": ("POST", "/{token}/stop", {}),
    "a stop from elsewhere": ("POST", "/{token}/stop", {"Origin": "http://evil.example"}),
    "a stop from a file": ("POST", "/{token}/stop", {"Origin": "null"}),
    "a stop of another port": ("POST", "/{token}/stop", {"Origin": "http://127.0.0.1:1"}),
    "a stop without token": ("POST", "/stop", {"Origin": "http://127.0.0.1:{port}"}),
    "a post elsewhere": ("POST", "/{token}/data", {"Origin": "http://127.0.0.1:{port}"}),
    "another method": ("PUT", "/{token}/data", {}),
    "options": ("OPTIONS", "/{token}/stop", {"Origin": "http://evil.example"}),
}


@pytest.mark.parametrize("case", STRANGERS)
def test_strangers_learn_nothing(served, begun, case):
    method, path, headers = STRANGERS[case]
    token = served.token
    words = {
        "token": token,
        "half": token[:-1],
        "other": "A" * len(token),
        "port": str(served.server_port),
    }

    def filled(text):
        return [filled(one) for one in text] if isinstance(text, list) else text.format(**words)

    requests = StopRequests(begun)
    connection_headers = {name: filled(value) for name, value in headers.items()}
    if not path.isascii():
        status, found, body = raw(served, path)
    else:
        status, found, body = ask(served, filled(path), method, **connection_headers)
    assert (status, body) == (404, b"")
    assert found["Server"] == "ct-adam"
    assert not any(name.lower().startswith("access-control") for name in found)
    assert not requests.fresh()


def raw(server, path):
    """The library refuses to send what is no ASCII."""
    host = f"127.0.0.1:{server.server_port}"
    with socket.create_connection(("127.0.0.1", server.server_port), timeout=20) as line:
        line.sendall(f"GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode("latin-1"))
        answer = line.makefile("rb").read()
    head, _, body = answer.partition(b"\r\n\r\n")
    first, *fields = head.decode().split("\r\n")
    return int(first.split()[1]), dict(one.split(": ", 1) for one in fields), body


def test_it_listens_on_this_machine_alone(served):
    assert served.socket.getsockname()[0] == "127.0.0.1"
    assert len(served.token) >= 32
    with PageServer(served.stores) as other:
        assert other.token != served.token


def test_the_page_may_ask_its_server_and_nobody_else(served):
    status, headers, body = ask(served, f"/{served.token}/")
    html = body.decode()
    assert status == 200
    assert headers["Cache-Control"] == "no-store"
    assert headers["Referrer-Policy"] == "no-referrer"
    assert headers["Content-Security-Policy"] == "frame-ancestors 'none'"
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', html)[1].replace("&#39;", "'")
    assert "default-src 'none'" in policy
    assert "connect-src 'self';" in policy
    assert "<b>" not in html
    assert served.token not in html
    by_name = ask(served, f"/{served.token}/", Host=f"localhost:{served.server_port}")
    assert by_name[0] == 200


def test_tiles_appear(sweep, tmp_path):
    store = tmp_path / "s.zarr"
    stopped_at(sweep, store, 3)
    with serving([store]) as server:

        def progress():
            return json.loads(ask(server, f"/{server.token}/progress")[2])

        def data(tag="none"):
            return ask(server, f"/{server.token}/data", If_None_Match=tag)

        first = progress()
        (one,) = first["stores"]
        assert (one["total"], one["grows"], one["rest"]) == (TILES, True, None)
        assert one["done"] == ct.open(store).attrs["tiles_done"]
        assert one["resume"] == f"ct-adam sweep --resume {store}"
        status, headers, body = data()
        before = json.loads(body)
        assert (status, headers["ETag"]) == (200, f'"{first["tag"]}"')
        assert data(headers["ETag"])[::2] == (304, b"")
        sweep.run(store)
        status, headers, body = data(headers["ETag"])
        after = json.loads(body)
        assert (status, after["tag"] != before["tag"]) == (200, True)
        (now,) = progress()["stores"]
        assert (now["done"], now["grows"], now["rest"]) == (TILES, False, 0)
        stored = ct.open(store).max_update.values
        maps = [decode(of["maps"][0]["metrics"][0]["array"]) for of in (before, after)]
        assert after["maps"][0]["metrics"][0]["name"] == "max_update"
        np.testing.assert_allclose(maps[1], stored, rtol=PRECISION)
        early = np.isfinite(maps[0])
        assert early.sum() == 2 * one["done"]  # two lanes a tile
        np.testing.assert_array_equal(maps[0][early], maps[1][early])
        # A store that goes away is told, and ends nothing.
        store.rename(tmp_path / "moved.zarr")
        status, _, body = ask(server, f"/{server.token}/data")
        assert status == 503
        assert "is no store" in json.loads(body)["error"]
        (tmp_path / "moved.zarr").rename(store)
        assert data()[0] == 200


def test_time_left_is_judged_by_the_last_tiles(begun, monkeypatch):
    from ct_adam.report import growing

    clock, done = [100.0], [3]
    monkeypatch.setattr(growing.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(Tiles, "done_tiles", lambda self: [0] * done[0])
    store = growing.GrowingStore(begun)
    assert store.look()["rest"] is None
    clock[0], done[0] = 110.0, 5
    # Two tiles in ten seconds, seven are missing.
    assert store.look()["rest"] == pytest.approx(35)
    clock[0] = 120.0
    assert store.look()["rest"] == pytest.approx(25)
    assert store.look()["quiet"] == pytest.approx(10)


@pytest.mark.parametrize("done", [0, 1])
def test_a_store_with_hardly_a_tile_is_a_map(sweep, tmp_path, done):
    store = tmp_path / "s.zarr"
    stopped_at(sweep, store, 0)
    tiles = level_tiles(store, 0)
    for tile in tiles.done_tiles()[done:]:
        tiles.forget(tile)
        for name in tiles.variables:
            for file in (store / name).glob("c.*"):
                file.unlink()
    found = GrowingStores([store]).document()
    assert found["maps"][0]["metrics"]
    assert json.dumps(found, allow_nan=False)


def test_command_says_where_it_serves_and_ends_by_ctrl_c(begun, monkeypatch, capsys):
    def ended(self):
        assert capsys.readouterr() == (
            f"{self.address}\n",
            "ct-adam report: serving to this machine alone, until Ctrl-C:\n",
        )
        raise KeyboardInterrupt

    monkeypatch.setattr(PageServer, "serve_forever", ended)
    assert main(["report", str(begun), "--serve"]) == 130
    told = "ct-adam report: stopped serving; a sweep that is running goes on.\n"
    assert capsys.readouterr() == ("", told)


def test_the_button_ends_a_sweep_that_says_how_to_go_on(begun, tmp_path, monkeypatch, capsys):
    store = tmp_path / "s.zarr"
    shutil.copytree(begun, store)
    before = ct.open(store).attrs["tiles_done"]
    fresh = threading.Event()
    compute = ct.Sweep.compute

    def held(self, level, tile):
        """Each tile waits for the request."""
        fresh.set()
        end = time.monotonic() + 20
        while not requests.fresh() and time.monotonic() < end:
            time.sleep(0.005)
        return compute(self, level, tile)

    monkeypatch.setattr(ct.Sweep, "compute", held)
    requests = StopRequests(store)
    with serving([store]) as server:
        codes = []
        going = threading.Thread(
            target=lambda: codes.append(main(["sweep", "--resume", str(store)]))
        )
        going.start()
        assert fresh.wait(60)
        origin = f"http://127.0.0.1:{server.server_port}"
        status, _, body = ask(server, f"/{server.token}/stop", "POST", Origin=origin)
        assert (status, json.loads(body)) == (200, {"asked": 1})
        going.join(60)
    assert codes == [130]
    last = capsys.readouterr().err.splitlines()[-1]
    assert last == (
        f"ct-adam sweep: stopped; {before + 1} of {TILES} tiles are kept in {store}. "
        f"Go on with: ct-adam sweep --resume {store}"
    )
    assert ct.open(store).attrs["tiles_done"] == before + 1


def test_tiles_appear_in_the_page(sweep, tmp_path):
    store = tmp_path / "<b>.zarr"
    stopped_at(sweep, store, 3)
    with chromium() as browser, serving([store]) as server:
        page = browser.new_page(viewport={"width": 1100, "height": 900})
        told = []
        page.on("console", lambda message: told.append(message.text))
        page.on("pageerror", lambda error: told.append(str(error)))
        page.on("request", lambda request: told.append(request.url))
        opened(page, server.address)
        text = "document.querySelector('#growth-stores').textContent"
        until(page, f"{text}.includes('of {TILES} tiles')")
        drawn = "document.querySelector('#map').data[0].z.flatMap(row => [...row])"
        early = page.evaluate(f"{drawn}.filter(x => !Number.isNaN(x)).length")
        assert early == 2 * ct.open(store).attrs["tiles_done"]
        page.get_by_label("level curves of C").check()
        requests = StopRequests(store)
        page.click("#stop")
        until(page, "document.querySelector('#growth-said').textContent.includes('Asked to stop')")
        assert requests.fresh()
        page.focus("#map")
        page.keyboard.press("ArrowLeft")
        view = page.evaluate("location.hash")
        sweep.run(store)
        until(page, f"{text}.includes('complete')")
        until(page, f"{drawn}.filter(x => !Number.isNaN(x)).length === {2 * TILES}")
        # The view, the focus and the layers stay.
        assert page.evaluate("location.hash") == view
        assert page.evaluate("document.activeElement.id") == "map"
        assert not page.locator("#stop").is_visible()
        own = (server.address, "data:", "blob:", "about:blank")
        assert [text for text in told if not text.startswith(own)] == []


@pytest.mark.slow
def test_the_page_follows_a_stop_until_the_sweep_goes_on(begun, monkeypatch):
    """What the store says is made up: stopped for a minute, then a new tile."""
    look = GrowingStore.look
    now = {"quiet": 0.0, "rest": 30.0, "grows": True}
    monkeypatch.setattr(GrowingStore, "look", lambda self: look(self) | now)
    with chromium() as browser, serving([begun]) as server:
        page = browser.new_page()
        opened(page, server.address)
        text = "document.querySelector('#growth-stores').textContent"
        said = "document.querySelector('#growth-said').textContent"
        until(page, f"{text}.includes('about 30 s left')")
        page.click("#stop")
        until(page, f"{said}.includes('Asked to stop')")
        until(page, f"!{text}.includes('left')")
        now["quiet"] = 60.0
        until(page, f"{text}.includes('no new tile for 60 s')")
        assert "Asked to stop" in page.evaluate(said)
        now["quiet"] = 0.0
        until(page, f"{text}.includes('about 30 s left')")
        assert page.evaluate(said) == ""


def test_commands_of_the_page_in_the_documentation():
    """Each is understood; what they do is tested here and in test_report.py."""
    text = (Path(__file__).parents[1] / "docs" / "report.md").read_text()
    blocks = re.findall(r"```bash\n(.*?)```", text, re.DOTALL)
    commands = re.findall(r"^ct-adam ([^#\n]*)", "".join(blocks), re.MULTILINE)
    assert len(commands) == 6
    for words in commands:
        assert callable(parsed(shlex.split(words)))


@pytest.mark.slow
def test_two_processes_of_the_command(tmp_path):
    """Two processes: a sweep, and the server whose button ends it."""
    store = tmp_path / "s.zarr"
    program = [sys.executable, "-m", "ct_adam"]
    words = ["--b1", "linear:0.5:0.9:64", "--b2", "linear:0.9:0.99:64", "--tile", "16"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    sweep = subprocess.Popen([*program, "sweep", *words, "--out", str(store)], **pipes)
    while not list(store.glob("status/c.*")):
        assert sweep.poll() is None
        time.sleep(0.01)
    # The sweep waits where it is, until the server has come up.
    sweep.send_signal(signal.SIGSTOP)
    server = subprocess.Popen([*program, "report", str(store), "--serve"], **pipes)
    try:
        address = server.stdout.readline().strip()
        found = re.fullmatch(r"http://127\.0\.0\.1:(\d+)/([\w-]{32})/", address)
        assert found, server.stderr.read()
        origin = address[: -len(found[2]) - 2]
        line = HTTPConnection("127.0.0.1", int(found[1]), timeout=20)
        line.request("POST", f"/{found[2]}/stop", headers={"Origin": origin})
        assert json.loads(line.getresponse().read()) == {"asked": 1}
        sweep.send_signal(signal.SIGCONT)
        _, told = sweep.communicate(timeout=60)
        assert sweep.returncode == 130
        done = ct.open(store).attrs["tiles_done"]
        assert 0 < done < 256
        last = f"stopped; {done} of 256 tiles are kept in {store}. "
        assert told.splitlines()[-1] == (
            f"ct-adam sweep: {last}Go on with: ct-adam sweep --resume {store}"
        )
        server.send_signal(signal.SIGINT)
        _, told = server.communicate(timeout=20)
        assert server.returncode == 130
        assert told.splitlines()[-1] == (
            "ct-adam report: stopped serving; a sweep that is running goes on."
        )
        assert found[2] not in told
    finally:
        for process in (sweep, server):
            if process.poll() is None:
                os.kill(process.pid, signal.SIGCONT)
                process.kill()
            process.communicate()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["nothing.zarr"], "nothing.zarr is no store"),
        (["nothing.zarr", "--serve"], "nothing.zarr is no store"),
        (["{store}", "--serve", "--port", "70000"], "port = 70000 must lie in 0 … 65535"),
        (["{store}", "--serve", "--port", "{taken}"], "name another --port"),
        (["{store}", "--trajectories", "-1"], "must not be negative"),
        ([], "There is no store"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_2(
    words, told, begun, served, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    filled = [word.format(store=begun, taken=served.server_port) for word in words]
    assert main(["report", *filled]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("ct-adam report: ")
    assert err.count("\n") == 1
    assert told in err
    assert list(tmp_path.iterdir()) == []
