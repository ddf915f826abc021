"""`python -m experiments all`, and the page of the committed figures."""

import json
import subprocess
from pathlib import Path

import pytest

from experiments import _gallery, names
from experiments.__main__ import main

FIGURES = Path(__file__).parents[1] / "figures"


@pytest.fixture
def few(monkeypatch, tmp_path):
    """Two experiments, one of which does not find its claim; a run takes no time."""
    monkeypatch.setenv("CT_ADAM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(_gallery, "names", lambda: ["region", "cost"])
    ran = []

    def run(words, check):
        del check
        name, size, out = words[3], words[4].removeprefix("--"), Path(words[6])
        ran.append(name)
        record = {
            **{"size": size, "command": f"python -m experiments {name}", "git": "abc"},
            **{"wall_seconds": 60.0, "found": {"x": {"a": 1.0, "b": "one | two"}}},
            "expected": _gallery.load(name).EXPECTED,
            "missing": ["It is 3, not 4."] if name == "cost" else [],
        }
        (out / f"{name}.json").write_text(json.dumps(record))
        return subprocess.CompletedProcess(words, 1 if name == "cost" else 0)

    monkeypatch.setattr(_gallery.subprocess, "run", run)
    return ran


def test_all_runs_each_and_names_what_is_amiss(few, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(["all", "--quick", "--out", str(out)]) == 1
    assert few == ["region", "cost"]
    assert "Not as expected: cost (1 of 2)." in capsys.readouterr().out
    text = (out / "README.md").read_text()
    assert "![region](region.png)" in text
    assert "- It is 3, not 4." in text
    assert text == _gallery.page(out)
    (out / "README.md").write_text(text[:200])
    _gallery.renew_page(out)
    assert (out / "README.md").read_text() == text
    (tmp_path / "README.md").write_text("mine")
    _gallery.renew_page(tmp_path)
    assert (tmp_path / "README.md").read_text() == "mine"
    assert main(["all", "--out", str(out)]) == 1  # one that is through begins anew
    assert few == 2 * ["region", "cost"]


def test_stopped_gallery_goes_on(few, tmp_path, capsys, monkeypatch):
    out, run = tmp_path / "out", _gallery.subprocess.run

    def stopped(words, check):
        return subprocess.CompletedProcess(words, 130) if words[3] == "cost" else run(words, check)

    monkeypatch.setattr(_gallery.subprocess, "run", stopped)
    assert main(["all", "--out", str(out)]) == 130
    assert "1 of 2 are done: the same call goes on." in capsys.readouterr().err
    monkeypatch.setattr(_gallery.subprocess, "run", run)
    assert main(["all", "--out", str(out)]) == 1
    assert few == ["region", "cost"]


def test_error_is_told_after_the_others_have_run(few, tmp_path, capsys, monkeypatch):
    run = _gallery.subprocess.run

    def fails(words, check):
        broken = words[3] == "region"
        return subprocess.CompletedProcess(words, 2) if broken else run(words, check)

    monkeypatch.setattr(_gallery.subprocess, "run", fails)
    assert main(["all", "--out", str(tmp_path / "out")]) == 2
    assert "region ended with exit code 2" in capsys.readouterr().err
    assert few == ["cost"]


def test_larger_figure_is_kept(few, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(["all", "--full", "--out", str(out)]) == 1
    assert main(["all", "--smoke", "--out", str(out)]) == 1
    assert few == ["region", "cost"]
    assert "region (1 of 2): kept, made by --full" in capsys.readouterr().out


def test_check_fails_by_name(few, tmp_path, capsys):
    out = tmp_path / "out"
    main(["all", "--out", str(out)])
    capsys.readouterr()
    assert main(["region", "--check", "--out", str(out)]) == 0
    record = json.loads((out / "region.json").read_text())
    (out / "region.json").write_text(json.dumps({**record, "expected": "Something else."}))
    assert main(["all", "--check", "--out", str(out)]) == 1
    told = capsys.readouterr().out
    assert "answers another claim" in told
    assert "Not as expected: region, cost (2 of 2)." in told
    (out / "region.json").unlink()
    assert main(["region", "--check", "--out", str(out)]) == 1
    assert "is not there" in capsys.readouterr().out
    (out / "region.json").write_text("[]")
    assert main(["region", "--check", "--out", str(out)]) == 2
    assert "is no record" in capsys.readouterr().err


def test_committed_page_is_that_of_the_committed_records():
    assert (FIGURES / _gallery.PAGE).read_text() == _gallery.page(FIGURES)
    for name in names():
        assert (FIGURES / f"{name}.png").exists(), f"run `python -m experiments {name}`"
