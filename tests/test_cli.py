"""The command line's face: help, examples, completion, errors. Commands have tests of their own."""

import json
import os
import re
import shlex
import subprocess
import sys

import pytest

from ct_adam.cli import main
from ct_adam.cli.front_page import EXAMPLES, front_page
from ct_adam.cli.parse import parsed


def test_help_fits_a_screen(capsys):
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    assert text == front_page() + "\n"
    lines = text.splitlines()
    assert len(lines) <= 24
    assert max(map(len, lines)) <= 80
    assert all(f"ct-adam {name}" in text or name == "version" for name in EXAMPLES)


def test_no_words_are_an_error_that_teaches(capsys):
    assert main([]) == 2
    assert "ct-adam COMMAND --help" in capsys.readouterr().out


@pytest.mark.parametrize("name", EXAMPLES)
def test_help_of_a_command_has_an_example_that_it_understands(name, capsys):
    with pytest.raises(SystemExit) as stopped:
        main([name, "--help"])
    assert stopped.value.code == 0
    text = capsys.readouterr().out
    assert f"Example: ct-adam {name} {EXAMPLES[name][0]}".rstrip() in text
    assert "Exit codes: 0 done; 2 bad input" in text
    assert callable(parsed([name, *shlex.split(EXAMPLES[name][0])]))
    flat = " ".join(text.replace("│", " ").split())
    assert not re.findall(r"--[a-z-]+(?: \S+)? \(default", flat)  # a flag that says nothing


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["regoin"], "there is no command 'regoin': choose one of advise,"),
        (["advise", "--b9", "3"], "Unrecognized options: --b9, 3. See ct-adam advise --help."),
        (["advise", "--step", "3"], "did you mean --steps? See ct-adam advise --help."),
        (["advise", "--b1", "x"], "--b1 = x must be a number. See ct-adam advise --help."),
        (["advise", "--b1", "0.9", "x"], "--b1 = 0.9 x must be a number."),
        (["advise", "--decay", "x"], "--decay = x must be a number."),
        (["advise", "--decay"], "--decay needs a value. See ct-adam advise --help."),
        (["scale"], "Give --batch-from and --batch-to. See ct-adam scale --help."),
        (
            ["scale", "--batch-from", "", "--batch-to", "2"],
            "--batch-from = '' must be a whole number.",
        ),
        (["--tyro-print-completion", "foo"], "shell = 'foo' is unknown: choose one of bash,"),
        (["--tyro-print-completion"], "shell = '' is unknown: choose one of bash,"),
        (["region", "--rates", "x"], "'log', 'lag', 'euler'"),
        (["sweep", "--steps", "1.5"], "--steps = 1.5 must be a whole number."),
        (["advise", "--b1", "1.5"], "b1"),
    ],
)
def test_bad_words_are_one_sentence(words, told, capsys):
    assert main(words) == 2
    out, err = capsys.readouterr()
    assert out == ""
    known = words[0] in EXAMPLES
    assert err.startswith(f"ct-adam {words[0]}: " if known else "ct-adam: ")
    assert err.count("\n") == 1
    assert told in err


def test_completion_knows_every_command(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["--tyro-print-completion", "bash"])
    assert stopped.value.code in (0, None)
    text = capsys.readouterr().out
    assert all(name in text for name in EXAMPLES)


@pytest.mark.parametrize("word", ["version", "--version"])
def test_version(word, capsys):
    assert main([word]) == 0
    assert capsys.readouterr().out.strip().count(".") == 2


def test_region_for_machines(tmp_path, capsys):
    words = ["region", "--panels", "worst_case", "--cells", "8", "--stream-steps", "50", "--json"]
    assert main([*words, "--out", str(tmp_path)]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["config"]["cells"] == 8
    side = found["panels"]["worst_case"]["sides"]["optimizer"]
    assert 0 < side["unstable"] < 1
    assert side["agreement"] > 0.9


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("words", [["--help"], ["--tyro-print-completion", "bash"]])
def test_a_reader_that_has_enough_is_no_error(words, unbuffered):
    """As in `ct-adam --help | head -1`."""
    reads, writes = os.pipe()
    os.close(reads)
    ended = subprocess.run(
        [sys.executable, "-m", "ct_adam", *words],
        stdout=writes,
        stderr=subprocess.PIPE,
        env=os.environ | {"PYTHONUNBUFFERED": unbuffered},
        check=False,
    )
    os.close(writes)
    assert (ended.returncode, ended.stderr) == (0, b"")


def test_another_pipe_that_broke_is_an_error(capsys, monkeypatch):
    def lost():
        raise BrokenPipeError("The scheduler is gone.")

    monkeypatch.setattr(sys.modules["ct_adam.cli.main"], "parsed", lambda words: lost)
    assert main(["sweep"]) == 2
    assert capsys.readouterr().err == "ct-adam sweep: The scheduler is gone.\n"
