"""`python -m experiments all`: every figure, and the page of what they show."""

import ast
import hashlib
import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ct_adam.caches import cache_folder

from . import __path__ as _here
from . import load, names
from ._kept import code_digest

SIZES = ("smoke", "quick", "full")
"""From small to large."""
PAGE = "README.md"
_HEAD = "# Gallery\n\nWritten by `python -m experiments all`"
_FIELDS = {"size", "command", "git", "wall_seconds", "expected", "found", "missing"}
"""Of a record, all that page and verdict need."""


class Verdict(NamedTuple):
    """What an experiment's record says: what is amiss, a sentence each; none if all is well."""

    name: str
    missing: list[str]


def run_all(size: str, out: Path, told: Callable[[str], None] = print) -> int:
    """Runs every experiment and writes the page; 1 if one of them did not find its claim.

    Each in a process of its own, which gives its memory back. Stopped, the same call goes on with
    those that are not done. A figure made at a larger size is kept.

    **Raises:** `ValueError` that names those that ended in an error, after all others have run.
    """
    done = _Done(size, out)
    failed: list[str] = []
    begun = time.perf_counter()
    for i, name in enumerate(names(), 1):
        where = f"{name} ({i} of {len(names())})"
        larger = _larger(out, name, size)
        if name in done.names or larger:
            told(f"{where}: {f'kept, made by --{larger}' if larger else 'done before'}")
            continue
        told(f"{where} …")
        code = _code(name, size, out)
        if code == 130:
            state = f"{len(done.names)} of {len(names())} are done"
            raise KeyboardInterrupt(f"{state}: the same call goes on")
        if code in (0, 1):
            done.add(name)
        else:
            failed.append(f"{name} ended with exit code {code}")
    write_page(out)
    told(f"Wrote {out / PAGE}; {(time.perf_counter() - begun) / 60:.0f} minutes.")
    found = _told(verdicts(out), told)
    if failed:
        raise ValueError(f"{'; '.join(failed)}: see above; the same call tries again.")
    done.forget()
    return found


def _code(name: str, size: str, out: Path) -> int:
    """With which the experiment's process ended; 130 where it was stopped."""
    words = [sys.executable, "-m", "experiments", name, f"--{size}", "--out", str(out)]
    try:
        return subprocess.run(words, check=False).returncode
    except KeyboardInterrupt:
        return 130


def check_all(chosen: Sequence[str], out: Path, told: Callable[[str], None] = print) -> int:
    """Compares what was found with what is expected; 1, and by name, where they differ."""
    return _told(verdicts(out, chosen), told)


def verdicts(out: Path, chosen: Sequence[str] = ()) -> list[Verdict]:
    """Of each experiment (or of those chosen) by the records in the folder."""
    return [Verdict(name, _missing(out, name)) for name in chosen or names()]


def _missing(out: Path, name: str) -> list[str]:
    claim, record = load(name).EXPECTED, read_record(out, name)
    if record is None:
        return [f"{out / name}.json is not there: run `python -m experiments {name}`."]
    if record["expected"] != claim:
        return [f"{out / name}.json answers another claim than {name}'s of now: run it again."]
    return record["missing"]


def _told(found: list[Verdict], told: Callable[[str], None]) -> int:
    wide = max(len(verdict.name) for verdict in found)
    for name, missing in found:
        told(f"{name:{wide}}  {'as expected' if not missing else 'NOT as expected:'}")
        for sentence in missing:
            told(f"{'':{wide}}  - {sentence}")
    bad = [verdict.name for verdict in found if verdict.missing]
    if bad:
        told(f"Not as expected: {', '.join(bad)} ({len(bad)} of {len(found)}).")
    return 1 if bad else 0


def read_record(out: Path, name: str) -> dict[str, Any] | None:
    """The record of an experiment's last run, None where there is none.

    **Raises:** `ValueError` for a file that is no record.
    """
    path = out / f"{name}.json"
    if not path.exists():
        return None
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(record, dict) or not _FIELDS.issubset(record):
            raise ValueError
        if record["size"] not in SIZES:
            raise ValueError
    except ValueError:
        raise ValueError(f"{path} is no record of an experiment: remove it, and run it.") from None
    return record


def _larger(out: Path, name: str, size: str) -> str | None:
    """The size of the record that is there, if it is larger."""
    record = read_record(out, name)
    if record is None or SIZES.index(record["size"]) <= SIZES.index(size):
        return None
    return record["size"]


class _Done:
    """Names of the experiments that one gallery is through with, kept between calls."""

    def __init__(self, size: str, out: Path):
        known = hashlib.sha256(f"{size} {out.resolve()} {code_digest()}".encode()).hexdigest()[:12]
        self._path = cache_folder("experiments") / f"all-{known}.json"
        self.names: list[str] = []
        if self._path.exists():
            self.names = json.loads(self._path.read_text(encoding="utf-8"))

    def add(self, name: str) -> None:
        self.names.append(name)
        passing = self._path.with_suffix(".part")
        passing.write_text(json.dumps(self.names), encoding="utf-8")
        passing.replace(self._path)

    def forget(self) -> None:
        self._path.unlink(missing_ok=True)


def write_page(out: Path) -> None:
    """`README.md` in the folder, from the records that are there."""
    (out / PAGE).write_text(page(out), encoding="utf-8")


def renew_page(out: Path) -> None:
    """Writes the page anew where there is one; a `README.md` of somebody else's stays."""
    path = out / PAGE
    if path.exists() and path.read_text(encoding="utf-8").startswith(_HEAD):
        write_page(out)


def page(out: Path) -> str:
    """Every experiment's picture with claim, command, expected, found and verdict, as Markdown."""
    records = {name: read_record(out, name) for name in names()}
    there = {name: record for name, record in records.items() if record is not None}
    lines = [
        f"{_HEAD}; `python -m experiments all --check` fails by the name of each figure whose "
        "numbers are not as expected.",
        "",
        "| figure | what it asks | size | minutes | verdict |",
        "| --- | --- | --- | --- | --- |",
    ]
    for name, record in there.items():
        cells = (f"[{name}](#{name})", _cell(_title(name, record)), record["size"])
        minutes = f"{record['wall_seconds'] / 60:.1f}"
        lines.append(f"| {' | '.join(cells)} | {minutes} | {_verdict(record)} |")
    for name, record in there.items():
        lines += ["", *_section(name, record)]
    return "\n".join(lines) + "\n"


def _section(name: str, record: dict[str, Any]) -> list[str]:
    missing = [f"- {sentence}" for sentence in record["missing"]]
    return [
        f"## {name}",
        "",
        _title(name, record),
        "",
        f"![{name}]({name}.png)",
        "",
        f"**Command.** `{record['command']}` (commit {record['git']})",
        "",
        f"**Expected.** {record['expected']}",
        "",
        f"**Verdict.** {_verdict(record)}",
        *(["", *missing] if missing else []),
        "",
        "<details><summary>Found</summary>",
        "",
        "```text",
        *(line[2:] for line in indented(record["found"])),
        "```",
        "",
        "</details>",
    ]


def indented(found: dict[str, Any], depth: int = 1) -> list[str]:
    """What was found, a line an entry; the innermost dictionaries on one line each."""
    lines = []
    for key, value in found.items():
        nested = isinstance(value, dict)
        if nested and any(isinstance(item, dict) for item in value.values()):
            lines += ["  " * depth + f"{key}:", *indented(value, depth + 1)]
        else:
            shown = ", ".join(f"{k} {v}" for k, v in value.items()) if nested else value
            lines.append("  " * depth + f"{key}: {shown}")
    return lines


def _verdict(record: dict[str, Any]) -> str:
    return (
        f"**not as expected** in {len(record['missing'])}" if record["missing"] else "as expected"
    )


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _title(name: str, record: dict[str, Any]) -> str:
    """As it was when the record was made; one of an earlier version has none."""
    return record.get("title") or title(name)


def title(name: str) -> str:
    """The first paragraph of the experiment's module; nothing is imported."""
    source = (Path(_here[0]) / f"{name}.py").read_text(encoding="utf-8")
    return first_paragraph(ast.get_docstring(ast.parse(source)) or name)


def first_paragraph(text: str) -> str:
    """On one line."""
    return " ".join(text.strip().split("\n\n")[0].split())
