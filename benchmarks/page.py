"""`benchmarks/README.md` and its figures, made of all `results/*.json`."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from .drawing import draw
from .output import RESULTS
from .reasons import REASONS
from .words import (
    duration,
    has_time,
    is_time,
    plain,
    prefixed,
    rounded,
    rounds_a_lane,
    safe,
    seconds_a_lane,
    small,
    span,
    table,
    told,
    why,
    worded,
)

README = Path(__file__).parent / "README.md"
BEATEN = 0.95  # a ratio below is no noise
NO_REASON = "**no reason written**"
HEAD = """\
# Benchmarks

Written by `python -m benchmarks page` from `benchmarks/results/*.json`; edit neither by hand.

How long `ct.ensemble` takes, beside other ways to compute the same. In a race

- all contenders get **the same lanes** (one parameter point each) in **one run** on one machine;
- each one runs at the loosest of its tolerances whose answer has the **error asked for** in a
  typical lane, against a solution at a tight tolerance that SciPy confirms, or against plain NumPy
  for optimizers; "missed" is up to a hundred times that error, beyond it an answer is WRONG and has
  no time. What is shown is the error *achieved*: median and 90 % quantile over the lanes of
  max |θ − reference|;
- **compilation is apart**: the first call's time beyond that of later ones;
- times are **medians over rounds**, with the smallest and the largest one. A round calls
  everybody once, in turns, so that a disturbance hits neighbours. The machines are shared and
  noisy: what carries over to another one is the ratios (time a lane over that of ours in the same
  round, smallest to largest; below 1 the other one is faster), not the milliseconds.

Who is not installed, fails or is wrong is named, never left out.

To run them, in the environment that `make test` leaves, or in any other with this package:

```
.venv/bin/pip install -e '.[bench]'          # the peers; PyTorch alone is several GB
.venv/bin/python -m benchmarks ensemble      # precision, discrete, network, scaling, …; --quick
.venv/bin/python -m benchmarks page          # this page
```

On a machine with an NVIDIA card `pip install -e '.[bench-cuda]'`, then `python -m benchmarks gpu`,
which needs no network; `python -m benchmarks gpu --rehearse` goes the same way on a CPU.
"""


def main(results: Path = RESULTS, readme: Path = README) -> None:
    """Writes the page, and a figure a race."""
    contents = {file.stem: json.loads(file.read_text(encoding="utf-8")) for file in kept(results)}
    figures = results / "figures"
    for stale in figures.glob("*.png"):
        stale.unlink()
    parts = [HEAD]
    for name, content in contents.items():
        parts += _file_section(name, content)
        for number, report in enumerate(content["reports"], 1):
            if not is_race(report):
                parts += _plain_section(report)
                continue
            figure = figures / f"{name}-{number}.png"
            figures.mkdir(exist_ok=True)
            draw(report, figure)
            link = Path(os.path.relpath(figure, readme.parent)).as_posix()
            parts += _race_section(report, link)
    readme.write_text("\n\n".join(part.strip() for part in parts) + "\n", encoding="utf-8")


def kept(results: Path) -> list[Path]:
    """Results of whole runs."""
    return [file for file in sorted(results.glob("*.json")) if not file.stem.endswith("-quick")]


def is_race(report: dict[str, Any]) -> bool:
    return "ratios" in report and "ours" in report


def unexplained(content: dict[str, Any]) -> list[tuple[str, str]]:
    """Workload and name of each contender that beats ours, with no reason written."""
    return [
        (report["title"], peer)
        for report in content["reports"]
        if is_race(report)
        for peer, reason in losses(report).items()
        if reason is None
    ]


def losses(report: dict[str, Any]) -> dict[str, str | None]:
    """Who is faster than ours, with the reason if one is written."""
    reasons = _reasons(report)
    beaten = [peer for peer, one in _against_ours(report).items() if one["ratio"] < BEATEN]
    return {peer: reasons.get(peer, "").strip() or None for peer in beaten}


def _reasons(report: dict[str, Any]) -> dict[str, str]:
    return REASONS.get(report.get("name", ""), {})


def _against_ours(report: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Ratios that were measured, by peer."""
    return {
        one["peer"]: one
        for one in report["ratios"]
        if one["ours"] == report["ours"] and one["ratio"] is not None
    }


def _file_section(name: str, content: dict[str, Any]) -> list[str]:
    machine = ", ".join(f"{key} {plain(value)}" for key, value in content["hardware"].items())
    return [f"## {name}", f"`python -m benchmarks {name}` on {machine}."]


def _race_section(report: dict[str, Any], figure: str) -> list[str]:
    parts = [f"### {report['title']}", f"![{_alt(report)}]({figure})", _contenders(report)]
    unable = [one for one in report["contenders"] if not has_time(one)]
    if unable:
        lines = [f"- {one['name']}: {safe(why(one))}" for one in unable]
        parts += ["Without a time:", "\n".join(lines)]
    targets = [one for one in report["ratios"] if one["at_least"] is not None]
    if targets:
        parts += ["Targets:", "\n".join(map(_target, targets))]
    if report.get("limits"):
        parts.append(_limits(report["limits"], report["ours"]))
    lost = _lost(report)
    if lost:
        parts += ["What we lose at and why:", "\n".join(lost)]
    else:
        parts.append("What we lose at and why: nobody here is faster.")
    return parts


def _lost(report: dict[str, Any]) -> list[str]:
    """A line for each contender with a ratio below 1."""
    reasons, unknown, lines = _reasons(report), losses(report), []
    for peer, one in _against_ours(report).items():
        if one["ratio"] < 1:
            reason = reasons.get(peer, "").strip() or (
                NO_REASON if peer in unknown else "in noise."
            )
            lines.append(f"- {peer}, {1 / one['ratio']:.3g} times as fast: {reason}")
    return lines


def _contenders(report: dict[str, Any]) -> str:
    ours, ratios = report["ours"], _against_ours(report)
    heading = (
        "contender", f"beside {ours}", "ratios", "a lane", "rounds", "lanes/s", "compile", "rtol",
        "error", "90 %", "verdict",
    )  # fmt: skip
    rows = []
    for one in report["contenders"]:
        named = f"**{one['name']}**" if one["name"] == ours else one["name"]
        named += f" ({one['note']})" if one.get("note") else ""
        ratio = ratios.get(one["name"])
        beside = ["", ""] if one["name"] == ours else ["-", "-"]
        if ratio is not None:
            low, high = ratio["range"]
            beside = [_times(ratio["ratio"]), f"{low:.3g} … {high:.3g}"]
        shown = ["-"] * 3
        if has_time(one):
            shown = [
                duration(one["s_a_lane"]),
                span(rounds_a_lane(one)),
                rounded(1 / seconds_a_lane(one)),
            ]
        known = one["verdict"] in ("ok", "missed", "WRONG")
        compiling = "-" if not known else duration(one["compile_s"], "in noise")
        errors = [small(one[key]) for key in ("rtol", "error_median", "error_q90")]
        verdict = one["verdict"] if known else "no answer"
        rows.append([named, *beside, *shown, compiling, *errors, verdict])
    return table(heading, rows)


def _times(ratio: float) -> str:
    """A ratio of times in words that cannot be read the wrong way."""
    return f"{ratio:.3g} times slower" if ratio >= 1 else f"{1 / ratio:.3g} times **faster**"


def _target(one: dict[str, Any]) -> str:
    asked = f"- {one['ours']} at least {one['at_least']:.3g} times as fast as {one['peer']}"
    if one["ratio"] is None:
        return f"{asked}: not measured"
    met = "met" if one["met"] else "**NOT MET**"
    low, high = one["range"]
    return f"{asked}: {one['ratio']:.3g} ({low:.3g} … {high:.3g}), {met}"


def _limits(limits: dict[str, Any], ours: str) -> str:
    """Whatever is known, in one sentence."""
    found = []
    for key, value in limits.items():
        name = key.replace("_per_s", "/s").replace("_", " ")
        share = "fraction" in key and isinstance(value, float)
        number = isinstance(value, int | float)
        shown = f"{100 * value:.3g} %" if share else prefixed(value) if number else plain(value)
        found.append(f"{name} {shown}")
    return f"How near {ours} is to what the machine can do: {', '.join(found)}."


def _alt(report: dict[str, Any]) -> str:
    timed = sorted((one for one in report["contenders"] if has_time(one)), key=seconds_a_lane)
    told = ", ".join(f"{one['name']} {duration(one['s_a_lane'])}" for one in timed)
    return f"Time a lane: {told or 'nobody has one'}"


def _plain_section(report: dict[str, Any]) -> list[str]:
    """What a report has, as it is: numbers in a line, rows in tables; of raw rounds the medians."""
    known = {key: value for key, value in report.items() if key not in ("title", "kind", "note")}
    simple = {key: value for key, value in known.items() if not isinstance(value, dict | list)}
    parts = [f"### {report['title']}", report.get("note", "")]
    parts.append(", ".join(f"{worded(key)} {told(key, value)}" for key, value in simple.items()))
    for key, value in known.items():
        if isinstance(value, dict):
            parts.append(table(("", worded(key)), [[k, told(key, v)] for k, v in value.items()]))
        elif isinstance(value, list) and value and isinstance(value[0], dict):
            rows = [_flat(row) for row in value]
            parts.append(_rows([_medians(rows)] if _is_raw(key) else rows))
        elif isinstance(value, list) and value:
            parts.append(_raw(value))
    return [part for part in parts if part]


def _rows(rows: list[dict[str, Any]]) -> str:
    """A column for each key that anybody has a value for."""
    keys = list(dict.fromkeys(key for row in rows for key in row))
    keys = [key for key in keys if any(row.get(key) not in (None, "") for row in rows)]
    cells = [[told(key, row.get(key)) for key in keys] for row in rows]
    return table([worded(key) for key in keys], cells)


def _flat(row: dict[str, Any], before: str = "") -> dict[str, Any]:
    """Without lists; raw rounds count where nothing else tells a time."""
    found: dict[str, Any] = {}
    for key, value in row.items():
        if isinstance(value, dict):
            found |= _flat(value, f"{before}{key} ")
        elif not isinstance(value, list):
            found[before + key] = value
        elif _is_only_time(key, row):
            found["median_s"] = float(np.median(value))
    return found


def _is_only_time(key: str, row: dict[str, Any]) -> bool:
    numbers = row[key] and all(isinstance(value, int | float) for value in row[key])
    return _is_raw(key) and bool(numbers) and not any(map(is_time, row.keys() - {key}))


def _is_raw(key: str) -> bool:
    return key.startswith("rounds")


def _medians(rows: list[dict[str, Any]]) -> dict[str, float]:
    return {key: float(np.median([row[key] for row in rows])) for key in rows[0]}


def _raw(rounds: list[Any]) -> str:
    """Rounds of one thing, or of two whose ratio matters."""
    if not isinstance(rounds[0], list):
        return f"Median {duration(float(np.median(rounds)))}, rounds {span(rounds)}."
    first, second = np.array(rounds).T[:2]
    ratios = first / second
    medians = (duration(float(np.median(times))) for times in (first, second))
    return (
        f"Medians {' against '.join(medians)}: "
        f"{np.median(ratios):.3g} times that, rounds {ratios.min():.3g} … {ratios.max():.3g}."
    )
