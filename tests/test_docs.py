"""The site's pages run as they stand, and the site holds together."""

import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml

from ct_adam.cli import main

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = {path.relative_to(DOCS).as_posix(): path.read_text() for path in DOCS.rglob("*.md")}
CHEAP = (
    "howto/own-problem.md",
    "constraint.md",
    "noise.md",
    "regularization.md",
    "scale-freeness.md",
    "scale-invariance.md",
)
SLOW = (
    "tutorial.md",
    "howto/own-optimizer.md",
    "howto/gpu.md",
    "howto/cluster.md",
    "howto/gradients.md",
    "howto/figures.md",
)
ELSEWHERE = ("derivatives.md", "hyperparameters.md", "sweeps.md")
"""Run by the tests of what they are about."""


class Block(NamedTuple):
    """A fenced block: its language, the file that it is, its text, and what is shown below it."""

    language: str
    title: str
    text: str
    shown: str | None


def blocks(page: str) -> list[Block]:
    """The blocks of a page that do something, in their order."""
    fences = re.findall(r'^```(\w+)(?: title="(.*?)")?\n(.*?)^```$', page, re.MULTILINE | re.DOTALL)
    found = []
    for i, (language, title, text) in enumerate(fences):
        following = fences[i + 1] if i + 1 < len(fences) else ("", "", "")
        if language in ("python", "bash"):
            shown = following[2] if following[0] == "text" else None
            found.append(Block(language, title, text, shown))
    return found


def commands(block: str) -> list[str]:
    """Command lines of a shell block, without comments and continuations."""
    lines = block.replace("\\\n", " ").splitlines()
    return [line for line in (re.sub(r"(^|\s)#.*", "", x).strip() for x in lines) if line]


def is_as_shown(shown: str, printed: str) -> bool:
    """Word by word; `…` is any word, a number may differ by one in its last shown digit.

    So much rounding can change; a later digit of a program's answer is not shown.
    """
    left, right = shown.split(), printed.split()
    return len(left) == len(right) and all(map(_same, left, right))


def _same(shown: str, printed: str) -> bool:
    number = re.fullmatch(r"(\W*)(-?\d+(?:\.(\d*))?(?:e([+-]?\d+))?)(\W*)", shown)
    if "…" in shown or shown == printed or number is None:
        return re.fullmatch(re.escape(shown).replace("…", ".+"), printed) is not None
    before, value, decimals, exponent, after = number.groups()
    inner = printed.removeprefix(before).removesuffix(after)
    unit = 10.0 ** (int(exponent or 0) - len(decimals or ""))
    try:
        return abs(float(inner) - float(value)) < 1.01 * unit
    except ValueError:
        return False


def play(page: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> list[tuple[Block, str]]:
    """Runs a page's blocks in `folder`; each with what it printed."""
    namespace: dict[str, object] = {"__name__": "page"}
    played = []
    for block in blocks(page):
        capsys.readouterr()
        if block.title:
            (folder / block.title).write_text(block.text)
        elif block.language == "python":
            exec(compile(block.text, "page", "exec"), namespace)
        printed = "".join(map(_run, commands(block.text))) if block.language == "bash" else ""
        played.append((block, printed + capsys.readouterr().out))
    return played


def _run(command: str) -> str:
    """`ct-adam` in this process, `python FILE` in another; what needs a cluster is only parsed."""
    words = [word.strip("'") for word in command.split()]
    program = Path(words[0]).name
    if program == "ct-adam" and "--scheduler" not in words:
        assert main(words[1:]) == 0, command
    elif program == "python" and words[1] != "-m":
        done = subprocess.run([sys.executable, *words[1:]], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout
    return ""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty working folder, whose modules are forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(tmp_path)):
            del sys.modules[name]


def test_every_page_with_python_is_run():
    with_python = {name for name, text in PAGES.items() if "```python" in text}
    assert with_python == {*CHEAP, *SLOW, *ELSEWHERE}


@pytest.mark.parametrize(
    "name", [*CHEAP, *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)]
)
def test_page_runs_and_prints_what_it_shows(name, folder, capsys):
    for block, printed in play(PAGES[name], folder, capsys):
        if block.shown is not None:
            assert is_as_shown(block.shown, printed), f"{block.text}\n{printed}"


def program_words(page: str) -> list[list[str]]:
    """What stands behind each `ct-adam` of a page's shell blocks."""
    found = []
    for block in blocks(page):
        for command in commands(block.text) if block.language == "bash" else ():
            words = command.replace("'", " ").split()
            at = [i for i, word in enumerate(words) if Path(word).name == "ct-adam"]
            found += [words[i + 1 :] for i in at[:1]]
    return found


@pytest.mark.parametrize("name", [name for name, text in PAGES.items() if program_words(text)])
def test_flags_of_commands_exist(name, capsys):
    """Also of commands that need a cluster, and so are not run."""
    for command, *rest in program_words(PAGES[name]):
        assert set(_flags(rest)) <= _known_flags(command, capsys), [command, *rest]


def _flags(words):
    return [word.split("=")[0] for word in words if word.startswith("--")]


def _known_flags(command, capsys):
    capsys.readouterr()
    with pytest.raises(SystemExit, match="0"):
        main([command, "--help"])
    return set(re.findall(r"--[a-z][a-z0-9-]*", capsys.readouterr().out))


@pytest.mark.parametrize(
    ("shown", "printed", "same"),
    [
        ("error 7.60e-02 in … s", "error 7.61e-02 in 12 s", True),
        ("error 7.60e-02", "error 7.62e-02", False),
        ("[ 1. -1.]", "[ 1. -1.]", True),
        ("[0.49 0.32]", "[0.49 0.34]", False),
        ("16 of 16", "16 of 18", False),
        ("yes", "no", False),
        ("a b", "a", False),
        ("0.5", "nan", False),
    ],
)
def test_comparison_can_fail(shown, printed, same):
    assert is_as_shown(shown, printed) is same


def _nav(node):
    if isinstance(node, str):
        return [node]
    parts = node.values() if isinstance(node, dict) else node
    return [page for part in parts for page in _nav(part)]


@pytest.fixture(scope="module")
def site():
    return yaml.safe_load((ROOT / "mkdocs.yml").read_text())


def test_no_page_is_missing_from_the_navigation(site):
    assert not (missing := PAGES.keys() - set(_nav(site["nav"]))), (
        f"put {sorted(missing)} into mkdocs.yml"
    )
    gone = [p for p in _nav(site["nav"]) if not (DOCS / p).exists() and not (ROOT / p).exists()]
    assert not gone


def test_links_of_pages_lead_somewhere():
    """mkdocs checks those within the site; here as they stand in the repository."""
    for name, page in PAGES.items():
        text = re.sub(r"^```.*?^```", "", page, flags=re.MULTILINE | re.DOTALL)
        for target in re.findall(r"\]\((?!\w+:|#)([^)#\s]+)", text):
            assert (DOCS / name).parent.joinpath(target).exists(), f"{name} links to {target}"


def test_links_are_rewritten_for_the_site():
    """From where a page lies in the repository to where it lies in the site, which has no docs/."""
    source = (ROOT / "tools" / "docs_hooks.py").read_text()
    code = "".join(source.split("from mkdocs.structure.files import File\n"))  # not installed here
    names: dict = {"__file__": str(ROOT / "tools" / "docs_hooks.py")}
    exec(compile(code, "docs_hooks.py", "exec"), names)
    relinked = names["relinked"]
    assert relinked("[a](../figures/x.png)", "decay.md", True) == "[a](figures/x.png)"
    assert relinked("[a](../../figures/README.md#b)", "howto/g.md", True) == (
        "[a](../figures/README.md#b)"
    )
    assert relinked("[a](docs/sweeps.md)", "CONTRIBUTING.md", False) == "[a](sweeps.md)"
    assert (
        relinked("[a](../docs/engines.md)", "benchmarks/README.md", False) == "[a](../engines.md)"
    )
    assert relinked("[a](x.png) [b](#c)", "figures/README.md", False) == "[a](x.png) [b](#c)"
    assert relinked("[a](https://x.org/y)", "decay.md", True) == "[a](https://x.org/y)"


@pytest.mark.slow
def test_site_builds_and_fetches_nothing(tmp_path):
    """By the one command, strictly; what a page loads lies beside it."""
    subprocess.run(["make", "docs", f"ARGS=--site-dir {tmp_path}"], cwd=ROOT, check=True)
    loading = r'<(?:script|img|iframe|source)[^>]*\ssrc="(.*?)"|<link[^>]*\shref="(.*?)"'
    for page in tmp_path.rglob("*.html"):
        found = ["".join(pair) for pair in re.findall(loading, page.read_text())]
        assert found
        assert not [url for url in found if re.match(r"(\w+:)?//", url)], page
    assert "AdamFlow" in (tmp_path / "api" / "flows.html").read_text()
