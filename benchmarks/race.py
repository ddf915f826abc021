"""What the benchmarks share: interleaved timing, verdicts, tables, JSON."""

import json
import math
import os
import platform
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

RESULTS = Path(__file__).parent / "results"
SLOT = 0.1
"""Seconds that a contender gets in a round, at least: calls of a few ms are repeated and averaged,
for a single one of them would measure the caches that its predecessor left."""

Verdict = Literal["ok", "missed", "WRONG"]
Run = Callable[[], np.ndarray]


def verdict(error: float, target: float) -> Verdict:
    """Whether a contender's answer may be called an answer at all.

    `"ok"` up to the target, `"missed"` up to a hundred times it, beyond or not a number `"WRONG"`:
    such a contender has no speed.
    """
    if not error <= 100 * target:  # also for NaN
        return "WRONG"
    return "ok" if error <= target else "missed"


class Errors(NamedTuple):
    """Quantiles over the lanes of max |θ - reference|."""

    median: float
    q90: float


def errors(final: np.ndarray, reference: np.ndarray) -> Errors:
    """NaN in any lane makes both NaN."""
    lanes = np.max(np.abs(final - reference), axis=1)
    return Errors(float(np.median(lanes)), float(np.quantile(lanes, 0.9)))


UNKNOWN = Errors(math.nan, math.nan)


@dataclass
class Entry:
    """One contender: how to run it, and what was found.

    `absent` says why there is nothing to run.
    """

    name: str
    run: Run | None = None
    rtol: float | None = None
    absent: str = ""
    compile_s: float = math.nan
    errors: Errors = UNKNOWN
    verdict: Verdict = "WRONG"
    rounds: list[float] = field(default_factory=list)

    @property
    def median(self) -> float:
        return float(np.median(self.rounds)) if self.rounds else math.nan

    @property
    def has_speed(self) -> bool:
        return not self.absent and self.verdict != "WRONG"


class Target(NamedTuple):
    """`ours` is to be `at_least` times as fast as `peer`."""

    ours: str
    peer: str
    at_least: float


def seconds(run: Callable[[], Any], repeats: int = 1) -> float:
    """Mean time of a call. What is run returns NumPy arrays, so that nothing is still under way."""
    start = time.perf_counter()
    for _ in range(repeats):
        run()
    return (time.perf_counter() - start) / repeats


def compile_seconds(first: Run, again: Run) -> float:
    """The first call's time beyond the median of three more; NaN where that is lost in noise."""
    begun, later = seconds(first), [seconds(again) for _ in range(3)]
    beyond = begun - float(np.median(later))
    return beyond if beyond > max(later) - min(later) else math.nan


def interleave(entries: Iterable[Entry], rounds: int) -> None:
    """Times everybody in every round, so that a disturbance hits neighbours, not one contender."""
    racing = [(entry, entry.run) for entry in entries if entry.run and entry.has_speed]
    repeats = [min(20, math.ceil(SLOT / seconds(run))) for _, run in racing]
    for _ in range(rounds):
        for (entry, run), count in zip(racing, repeats, strict=True):
            entry.rounds.append(seconds(run, count))


def ratio(target: Target, entries: Iterable[Entry]) -> dict[str, Any]:
    """Ratio of medians, and the range of the ratios within a round."""
    by_name = {entry.name: entry for entry in entries}
    ours, peer = by_name[target.ours], by_name[target.peer]
    found: dict[str, Any] = {**target._asdict(), "ratio": None, "range": None}
    if ours.has_speed and peer.has_speed:
        within = np.array(peer.rounds) / np.array(ours.rounds)
        found |= {
            "ratio": peer.median / ours.median,
            "range": [float(within.min()), float(within.max())],
        }
    return found


def report(title: str, entries: list[Entry], targets: Iterable[Target]) -> dict[str, Any]:
    """Prints ratios, then contenders; returns both for the JSON."""
    ratios = [ratio(target, entries) for target in targets]
    print(f"\n{title}")
    _print_rows(["how many times as fast", "ratio", "rounds", "target", ""], map(_ratio, ratios))
    print()
    heading = ["contender", "median", "rounds", "compile", "rtol", "error", "90 %", "verdict"]
    _print_rows(heading, map(_row, entries))
    return {"title": title, "ratios": ratios, "contenders": [_record(e) for e in entries]}


def _ratio(found: dict[str, Any]) -> list[str]:
    pair, least = f"{found['ours']} against {found['peer']}", f">= {found['at_least']:.3g}x"
    if found["ratio"] is None:
        return [pair, "-", "-", least, "not measured"]
    low, high = found["range"]
    met = "met" if found["ratio"] >= found["at_least"] else "NOT MET"
    return [pair, f"{found['ratio']:.2f}x", f"{low:.2f} .. {high:.2f}", least, met]


def _row(entry: Entry) -> list[str]:
    if entry.absent:
        return [entry.name, *["-"] * 6, entry.absent]
    # A wrong answer has no time: `interleave` left it out.
    time_of = [f"{1e3 * entry.median:.4g} ms", _span(entry.rounds)] if entry.rounds else ["-", "-"]
    compiling = f"{entry.compile_s:.2f} s" if entry.compile_s > 0 else "in noise"
    rtol = "-" if entry.rtol is None else f"{entry.rtol:.1e}"
    achieved = [f"{entry.errors.median:.1e}", f"{entry.errors.q90:.1e}"]
    return [entry.name, *time_of, compiling, rtol, *achieved, entry.verdict]


def _span(times: list[float]) -> str:
    return f"{1e3 * min(times):.4g} .. {1e3 * max(times):.4g} ms"


def _print_rows(heading: list[str], rows: Iterable[list[str]]) -> None:
    lines = [heading, *rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)))


def _record(entry: Entry) -> dict[str, Any]:
    numbers = {
        "median_s": entry.median,
        "compile_s": entry.compile_s,
        "error_median": entry.errors.median,
        "error_q90": entry.errors.q90,
    }
    return {
        "name": entry.name,
        "verdict": entry.absent or entry.verdict,
        "rtol": entry.rtol,
        "rounds_s": entry.rounds,
        # JSON has no NaN.
        **{key: value if math.isfinite(value) else None for key, value in numbers.items()},
    }


def finish(name: str, quick: bool, reports: list[dict[str, Any]]) -> None:
    """Prints the machine and writes `results/NAME.json`; a quick run has a file of its own."""
    machine = hardware()
    print("\n" + ", ".join(f"{key} {value}" for key, value in machine.items()))
    RESULTS.mkdir(exist_ok=True)
    content = {"benchmark": name, "quick": quick, "hardware": machine, "reports": reports}
    file = RESULTS / f"{name}{'-quick' if quick else ''}.json"
    file.write_text(json.dumps(content, indent=1) + "\n")


def hardware() -> dict[str, str | int]:
    """What the times depend on, without the machine's name."""
    import jax

    # Where a process may be bound to some of the cores, those are the ones that count.
    bound = getattr(os, "sched_getaffinity", None)
    return {
        "CPU": _cpu_model(),
        "cores": len(bound(0)) if bound else os.cpu_count() or 1,
        "Python": platform.python_version(),
        "JAX": jax.__version__,
    }


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.machine()
