"""What a race prints and keeps: ratios first, then everybody; JSON beside it."""

import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from .race import Entry, Target, ratios
from .timing import hardware
from .words import duration, plain, rounded, span

RESULTS = Path(__file__).parent / "results"
OURS = "auto"
"""The contender whose ratios are told."""


def report(
    title: str,
    entries: list[Entry],
    targets: Iterable[Target] = (),
    **further: Any,
) -> dict[str, Any]:
    """Prints ratios, then contenders; returns both for the JSON, with what is `further` known."""
    found = ratios(OURS, entries, targets)
    print(f"\n{title}", flush=True)
    print_rows(["how many times as fast", "ratio", "rounds", "target", ""], map(_ratio, found))
    print()
    heading = [
        "contender", "median", "rounds", "lanes/s", "compile", "rtol", "error", "90 %", "verdict",
    ]  # fmt: skip
    print_rows(heading, map(_row, entries))
    contenders = [_record(entry) for entry in entries]
    return {"title": title, "ours": OURS, "ratios": found, "contenders": contenders} | further


def _ratio(found: dict[str, Any]) -> list[str]:
    pair, least = f"{found['ours']} against {found['peer']}", found["at_least"]
    asked = "" if least is None else f">= {least:.3g}x"
    if found["ratio"] is None:
        return [pair, "-", "-", asked, "not measured"]
    low, high = found["range"]
    met = "" if least is None else "met" if found["met"] else "NOT MET"
    return [pair, f"{found['ratio']:.2f}x", f"{low:.2f} … {high:.2f}", asked, met]


def _row(entry: Entry) -> list[str]:
    if entry.absent:
        return [entry.name, *["-"] * 7, entry.absent]
    compiling = duration(entry.compile_s) if entry.compile_s > 0 else "in noise"
    rtol = "-" if entry.rtol is None else f"{entry.rtol:.1e}"
    achieved = [f"{entry.errors.median:.1e}", f"{entry.errors.q90:.1e}"]
    # A wrong answer has no time: it was left out of the timing.
    shown = ["-"] * 3
    if entry.rounds:
        shown = [duration(entry.median), span(entry.rounds), rounded(1 / entry.a_lane)]
    return [entry.name, *shown, compiling, rtol, *achieved, entry.verdict]


def print_rows(heading: list[str], rows: Iterable[list[str]]) -> None:
    """A table of text, columns as wide as they must be."""
    lines = [heading, *rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        cells = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        print("  ".join(cells).rstrip())


def _record(entry: Entry) -> dict[str, Any]:
    numbers = {
        "median_s": entry.median,
        "s_a_lane": entry.a_lane,
        "compile_s": entry.compile_s,
        "error_median": entry.errors.median,
        "error_q90": entry.errors.q90,
    }
    return {
        "name": entry.name,
        "note": entry.note,
        "verdict": entry.absent or entry.verdict,
        "rtol": entry.rtol,
        "lanes": entry.lanes,
        "rounds_s": entry.rounds,
        # JSON has no NaN.
        **{key: value if math.isfinite(value) else None for key, value in numbers.items()},
    }


def finish(name: str, quick: bool, reports: list[dict[str, Any]], **machine: Any) -> None:
    """Prints the machine and writes `results/NAME.json`; a quick run has a file of its own."""
    found = hardware() | machine
    print("\n" + ", ".join(f"{key} {plain(value)}" for key, value in found.items()))
    RESULTS.mkdir(exist_ok=True)
    content = {"benchmark": name, "quick": quick, "hardware": found, "reports": reports}
    file = RESULTS / f"{name}{'-quick' if quick else ''}.json"
    file.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
