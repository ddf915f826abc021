"""One race: contenders on the same lanes at the same achieved error, wrong ones without a time."""

import importlib
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from importlib.metadata import PackageNotFoundError, version
from types import ModuleType
from typing import Literal, NamedTuple

import numpy as np

from .timing import compile_seconds, interleave

Verdict = Literal["ok", "missed", "WRONG", "absent"]
Quantile = Literal["median", "q90"]
Run = Callable[[], np.ndarray]
LADDER = tuple(10 ** (-k / 4) for k in range(4, 41))  # 1e-1 … 1e-10
STRIDE = 4  # a decade
FIRST_RTOL = 1e-4  # the tolerance of the first call, which compiles


class AbsentError(Exception):
    """A contender cannot run here; the message says why."""


def need(package: str) -> ModuleType:
    """An optional package, or `AbsentError`."""
    try:
        return importlib.import_module(package)
    except ModuleNotFoundError as error:
        if error.name != package:  # it is there, but not whole
            raise
        raise AbsentError(f"{package} is not installed") from None


def release(package: str) -> str:
    """Version of a package, for notes."""
    try:
        return f"{package} {version(package)}"
    except PackageNotFoundError:
        return package


@dataclass(frozen=True)
class Contender:
    """Who races.

    `prepare(rtol)` returns what runs every `every`-th lane and returns their θ (lane, parameter).
    Without `tolerances` there is one way to run it, `prepare(None)`. What runs a lane after the
    other in Python takes a sample: its time a lane does not depend on how many there are. Who
    `follows` another takes the same solver steps, and so that one's tolerance.
    """

    name: str
    prepare: Callable[[float | None], Run]
    tolerances: tuple[float | None, ...] = LADDER
    every: int = 1
    follows: str = ""
    note: str = ""


class Errors(NamedTuple):
    """Quantiles over the lanes of max |θ - reference|."""

    median: float
    q90: float


UNKNOWN = Errors(math.nan, math.nan)


@dataclass
class Entry:
    """One contender, and what was found. `absent` says why there is nothing to run."""

    name: str
    run: Run | None = None
    rtol: float | None = None
    absent: str = ""
    note: str = ""
    lanes: int = 0
    compile_s: float = math.nan
    errors: Errors = UNKNOWN
    verdict: Verdict = "WRONG"
    rounds: list[float] = field(default_factory=list)

    @property
    def median(self) -> float:
        """Seconds of a call."""
        return float(np.median(self.rounds)) if self.rounds else math.nan

    @property
    def a_lane(self) -> float:
        """Seconds a lane."""
        return self.median / self.lanes if self.lanes else math.nan

    @property
    def has_speed(self) -> bool:
        return self.verdict in ("ok", "missed")


def verdict(found: Errors, target: float, by: Quantile = "median") -> Verdict:
    """Whether a contender's answer may be called an answer at all.

    `"ok"` up to the target, `"missed"` up to a hundred times it, beyond or not a number `"WRONG"`:
    such a contender has no speed. So has one that is that far off in a tenth of the lanes.
    """
    if not max(found) <= 100 * target or math.isnan(sum(found)):
        return "WRONG"
    return "ok" if getattr(found, by) <= target else "missed"


def errors(final: np.ndarray, reference: np.ndarray) -> Errors:
    """NaN in any lane, or another shape, makes both NaN."""
    if np.shape(final) != np.shape(reference):
        return UNKNOWN
    lanes = np.max(np.abs(final - reference), axis=1)
    return Errors(float(np.median(lanes)), float(np.quantile(lanes, 0.9)))


def race(
    contenders: Iterable[Contender | Entry],
    truth: Callable[[], np.ndarray],
    target: float,
    rounds: int,
    by: Quantile = "median",
) -> list[Entry]:
    """Compiles all, calibrates each to an error of `target` in a typical lane (or in nine of ten),
    times the rest.

    Solvers differ in what a tolerance means to them, so each one runs at the loosest of its
    tolerances whose result is right to `target`. Who raises is reported with what it said.
    """
    pairs = [_first_call(one) for one in contenders]
    # Not before: computing the reference may compile for somebody.
    reference = truth()
    found = {entry.name: entry for _, entry in pairs}
    for contender, entry in pairs:
        if contender is None or entry.absent:
            continue
        led = found.get(contender.follows)
        if led is not None and led.has_speed:
            contender = replace(contender, tolerances=(led.rtol,))
        _guarded(entry, lambda c=contender, e=entry: calibrate(c, e, reference, target, by))
    racing = [entry for _, entry in pairs if entry.run and entry.has_speed]
    for entry, times in zip(racing, interleave([_timed(e) for e in racing], rounds), strict=True):
        # Who failed while the clock ran keeps no time.
        entry.rounds = times if entry.has_speed else []
    return [entry for _, entry in pairs]


def _timed(entry: Entry) -> Callable[[], None]:
    def run() -> None:
        if entry.run is not None:
            _guarded(entry, entry.run)

    return run


def _first_call(one: Contender | Entry) -> tuple[Contender | None, Entry]:
    if isinstance(one, Entry):
        return None, one
    entry = Entry(one.name, note=one.note)
    rtol = None if one.tolerances == (None,) else FIRST_RTOL

    def first() -> None:
        entry.run = one.prepare(rtol)
        entry.run()

    def compiling() -> None:
        entry.compile_s = compile_seconds(first, lambda: entry.run and entry.run())

    _guarded(entry, compiling)
    return one, entry


def _guarded(entry: Entry, act: Callable[[], object]) -> None:
    try:
        act()
    except AbsentError as why:
        entry.absent, entry.verdict, entry.run = str(why), "absent", None
    except Exception as error:  # a peer's failure is a result, not the end of the race
        entry.absent, entry.verdict, entry.run = failure(error), "WRONG", None


def failure(error: Exception) -> str:
    """The first line of what it said."""
    said = (str(error).strip().splitlines() or [""])[0]
    return f"FAILED: {type(error).__name__}: {said[:160]}"


def calibrate(
    contender: Contender, entry: Entry, reference: np.ndarray, target: float, by: Quantile
) -> None:
    """Settles on the loosest tolerance that is right to `target`, or on the most exact of all.

    The first of the tolerances in steps of `STRIDE` that is right, then the loosest one between it
    and the one before.
    """
    truth, ladder = reference[:: contender.every], contender.tolerances
    entry.lanes, entry.run, best = len(truth), None, math.inf

    def good(rtol: float | None) -> bool:
        nonlocal best
        run = contender.prepare(rtol)
        found = errors(run(), truth)
        # Of those that are right the loosest, which comes last; before that the most exact.
        error = getattr(found, by)
        if entry.run is None or error < best or error <= target:
            entry.rtol, entry.run, entry.errors = rtol, run, found
            best = error if math.isfinite(error) else math.inf
        return error <= target

    coarse = next((k for k in range(0, len(ladder), STRIDE) if good(ladder[k])), None)
    if coarse:
        next((k for k in range(coarse - STRIDE + 1, coarse) if good(ladder[k])), None)
    entry.verdict = verdict(entry.errors, target, by)


def entered(
    names: Iterable[str], peers: dict[str, Callable[..., Contender]], work: object
) -> list[Contender | Entry]:
    """The contenders of these names on a workload; who cannot run is named with the reason."""
    found: list[Contender | Entry] = []
    for name in names:
        try:
            found.append(peers[name](work))
        except AbsentError as why:
            found.append(Entry(name, absent=str(why), verdict="absent"))
        except Exception as error:  # an installation may be broken in many ways
            found.append(Entry(name, absent=failure(error)))
    return found


class Target(NamedTuple):
    """`ours` is to be `at_least` times as fast as `peer`."""

    ours: str
    peer: str
    at_least: float


def ratios(ours: str, entries: Sequence[Entry], targets: Iterable[Target]) -> list[dict]:
    """How many times as fast `ours` is as each of the others, with the target where there is one;
    then the targets of others."""
    targets = list(targets)
    asked = {(t.ours, t.peer): t.at_least for t in targets}
    pairs = [(ours, entry.name) for entry in entries if entry.name != ours]
    pairs += [pair for pair in asked if pair not in pairs]
    return [_ratio(*pair, asked.get(pair), entries) for pair in pairs]


def _ratio(ours: str, peer: str, at_least: float | None, entries: Sequence[Entry]) -> dict:
    """Median and range of the ratios, a lane, within a round."""
    by_name = {entry.name: entry for entry in entries}
    us, them = by_name[ours], by_name[peer]
    found: dict = {"ours": ours, "peer": peer, "at_least": at_least, "ratio": None, "range": None}
    if us.has_speed and them.has_speed and us.rounds and them.rounds:
        both = min(len(us.rounds), len(them.rounds))
        within = np.array(them.rounds[:both]) / np.array(us.rounds[:both]) * us.lanes / them.lanes
        found |= {
            "ratio": float(np.median(within)),
            "range": [float(within.min()), float(within.max())],
        }
        if at_least is not None:
            found["met"] = us.verdict == "ok" and found["ratio"] >= at_least
    return found
