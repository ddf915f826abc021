"""The experiments' figures with their records, as `python -m experiments` leaves them."""

import base64
import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LARGEST = 300_000
"""Bytes of a picture; the page's size is bounded."""
_HEAD = 24
"""Bytes of a PNG up to the end of width and height."""
_LINES = 300
"""Of what an experiment found; its file has the rest."""


@dataclass(frozen=True)
class Entry:
    """One experiment: its claim, what was expected and found, the picture as a `data:` address.

    `claim` is "" for a record that has none; so is `image`, and `no_image` says why.
    """

    name: str
    claim: str
    expected: str
    found: str
    missing: list[str]
    verdict: str
    as_expected: bool
    command: str
    git: str
    image: str
    width: int
    height: int
    no_image: str = ""


def read_gallery(folder: Path) -> list[Entry]:
    """The experiments in a folder of figures, in alphabetical order.

    **Arguments:**

    - `folder`: holds NAME.json with `expected`, `found`, `missing` and `command`, and NAME.png. A
        JSON file without these is left out.

    **Raises:** `ValueError` for a folder that is none, and for a damaged record.
    """
    if not folder.is_dir():
        raise ValueError(f"{folder} is no folder: name that of the figures with --figures.")
    entries = [_entry(file) for file in sorted(folder.glob("*.json"))]
    return [entry for entry in entries if entry is not None]


def _entry(file: Path) -> Entry | None:
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        raise ValueError(f"{file} is no JSON file: run its experiment again.") from None
    if not isinstance(record, dict) or not {"expected", "found", "missing"} <= set(record):
        return None
    missing = _sentences(record["missing"])
    size = str(record.get("size", ""))
    image, width, height, no_image = _picture(file.with_suffix(".png"))
    verdict = "Not all as expected" if missing else "As expected"
    return Entry(
        name=str(record.get("experiment", file.stem)),
        claim=str(record.get("title", "")),
        expected=str(record["expected"]),
        found=_text(record["found"], file.name),
        missing=missing,
        verdict=f"{verdict} (size {size})" if size else verdict,
        as_expected=not missing,
        command=str(record.get("command", "")),
        git=str(record.get("git", "")),
        image=image,
        width=width,
        height=height,
        no_image=no_image,
    )


def _sentences(missing: Any) -> list[str]:
    """A file of somebody else's may have something else in their place."""
    if not missing:
        return []
    return [str(sentence) for sentence in missing] if isinstance(missing, list) else [str(missing)]


def _text(found: Any, name: str) -> str:
    lines = list(_lines(found, 0))
    if len(lines) > _LINES:
        lines = [*lines[:_LINES], f"… {len(lines) - _LINES} more lines in {name}"]
    return "\n".join(lines)


def _lines(found: Any, depth: int) -> Iterator[str]:
    """A line an entry, the innermost dictionaries on one line each."""
    if not isinstance(found, dict):
        yield "  " * depth + str(found)
        return
    for key, value in found.items():
        if isinstance(value, dict) and any(isinstance(item, dict) for item in value.values()):
            yield "  " * depth + f"{key}:"
            yield from _lines(value, depth + 1)
        else:
            nested = isinstance(value, dict)
            shown = ", ".join(f"{k} {v}" for k, v in value.items()) if nested else value
            yield "  " * depth + f"{key}: {shown}"


def _picture(file: Path) -> tuple[str, int, int, str]:
    """As a `data:` address, with its size in pixels; or why there is none."""
    if not file.is_file():
        return "", 0, 0, f"There is no figure {file.name}."
    if (size := file.stat().st_size) > LARGEST:
        told = f"{file.name} is left out: {size / 1e3:.0f} kB, more than the page takes of one."
        return "", 0, 0, told
    content = file.read_bytes()
    if not content.startswith(b"\x89PNG\r\n\x1a\n") or len(content) < _HEAD:
        return "", 0, 0, f"{file.name} is no PNG."
    width, height = struct.unpack(">II", content[16:_HEAD])
    return "data:image/png;base64," + base64.b64encode(content).decode(), width, height, ""
