"""A step of k-Adam beside `optax.adamw`, PyTorch's AdamW, and what memory allows."""

import math
from pathlib import Path
from typing import Any

import numpy as np

from ct_adam.ensemble.cores import cpus

from .optimizer_steps import (
    ADAMW,
    B1,
    FUSED,
    LEAVES,
    OURS,
    Data,
    Maker,
    Step,
    by_jax,
    by_torch,
    checked,
    copy_step,
    data,
)
from .output import finish, print_rows
from .race import AbsentError, failure
from .timing import interleave
from .words import duration, plain, span

NOTE = (
    "One step in float32, gradients at hand, {leaves} arrays, JAX's buffers donated, {threads} "
    "threads (PyTorch: one, where that is faster); compiled before. Ratios are medians over rounds "
    "of those within a round. The copy is JAX's, in place, of as many numbers as there are "
    "parameters. A limit is what the copy's bandwidth makes of the numbers that must be moved: 7 a "
    "parameter for the first stage (θ, g, m, v read; θ, m, v written), 4 for a further one (m, v), "
    "whose time is that beyond the same with a stage less. On a CPU XLA's loops write one array "
    "each: m, v and u of a further stage move 9 numbers, not 4."
)
COPIED, FIRST, FURTHER = 2, 7, 4  # numbers moved a parameter
ARRAYS = 30  # of a race, at most: what all contenders hold, and what one needs while it runs
AS_ADAMW, OF_LIMIT = 1.05, 1.3


def main(quick: bool) -> None:
    """Each size by itself, JAX apart from PyTorch: each has its copy beside it."""
    sizes = (10**5, 10**6) if quick else (10**6, 10**7, 10**8)
    rounds = 5 if quick else 15
    reports = [
        measured(library, makers(), base, size, rounds)
        for size in sizes
        for library, makers, base in (("JAX", by_jax, ADAMW), ("PyTorch", by_torch, FUSED))
    ]
    finish("optimizer", quick, reports)


def measured(
    library: str, makers: dict[str, Maker], base: str, size: int, rounds: int
) -> dict[str, Any]:
    """All in turns, so that a disturbance hits neighbours; who cannot run is named."""
    title = f"{library}, 10^{math.log10(size):g} parameters"
    print(f"\n{title}", flush=True)
    wanted, free = 4 * size * ARRAYS, free_bytes()
    if wanted > free:
        said = f"Not measured: {wanted / 1e9:.3g} GB of memory wanted, {free / 1e9:.3g} free."
        print(said)
        return {"title": title, "kind": "optimizer", "note": said}
    work = data(size)
    able, unable = entered({"copy": copy_step} | makers, work)
    notes = {name: one.settle() for name, one in able.items()}
    found = interleave([one.run for one in able.values()], rounds)
    times = {name: np.array(rounds) for name, rounds in zip(able, found, strict=True)}
    rows = [row(name, one, times, base, notes[name]) for name, one in able.items()]
    rows += [{"contender": name, "note": why} for name, why in unable.items()]
    for one in rows:
        if one["contender"] == "copy":
            one["GB/s"] = COPIED * 4e-9 * size / one["median_s"]
    show(rows)
    claims = judged(rows) if library == "JAX" else []
    for one in claims:
        print(", ".join(map(plain, one.values())))
    note = NOTE.format(leaves=LEAVES, threads=cpus())
    return {"title": title, "kind": "optimizer", "note": note, "rows": rows, "claims": claims}


def free_bytes() -> float:
    """Memory that can be had; unknown is unlimited."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return math.inf
    (free,) = (line.split()[1] for line in lines if line.startswith("MemAvailable:"))
    return 1024.0 * int(free)


def entered(makers: dict[str, Maker], work: Data) -> tuple[dict[str, Step], dict[str, str]]:
    """Who runs and is right; the reason of everybody else."""
    able: dict[str, Step] = {}
    unable: dict[str, str] = {}
    for name, make in makers.items():
        try:
            able[name] = checked(make(work), work)
        except AbsentError as why:
            unable[name] = str(why)
        except Exception as error:  # a failure is a result, not the end of the race
            unable[name] = failure(error)
    return able, unable


def row(name: str, one: Step, times: dict[str, np.ndarray], base: str, note: str) -> dict[str, Any]:
    """Times and ratios of one contender."""
    mine = times[name]
    found: dict[str, Any] = {
        "contender": name,
        "note": note,
        "median_s": float(np.median(mine)),
        "rounds_s": mine.tolist(),
    }
    found[f"beside {base}"] = ratio(mine, times.get(base))
    if one.k:
        copies = times["copy"]
        numbers = FIRST + FURTHER * (one.k - 1)
        found["times its limit"] = ratio(mine, copies * numbers / COPIED)
        if one.less in times:
            rounds = min(map(len, (mine, times[one.less], copies)))
            beyond = mine[:rounds] - times[one.less][:rounds]
            found["further stage_s"] = float(np.median(beyond))
            found["times the limit of a stage"] = ratio(beyond, copies * FURTHER / COPIED)
    return found


def ratio(mine: np.ndarray, others: np.ndarray | None) -> float | None:
    """The median of the ratios within a round."""
    if others is None:
        return None
    rounds = min(len(mine), len(others))
    return float(np.median(mine[:rounds] / others[:rounds]))


def judged(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What was claimed before anything was measured."""
    by_name = {one["contender"]: one for one in rows}
    claims = [(f"{OURS} beside {ADAMW}", by_name[OURS].get(f"beside {ADAMW}"), AS_ADAMW)]
    for k in range(2, len(B1) + 1):
        stage = by_name[f"k_adam, k = {k}"].get("times the limit of a stage")
        claims.append((f"stage {k} beside its limit", stage, OF_LIMIT))
    return [
        {"claim": what, "found": found, "at most": most, "verdict": verdict(found, most)}
        for what, found, most in claims
    ]


def verdict(found: float | None, most: float) -> str:
    if found is None:
        return "not measured"
    return "met" if found <= most else "NOT MET"


def show(rows: list[dict[str, Any]]) -> None:
    """The table on a terminal, medians and spans for the raw rounds."""
    keys = list(dict.fromkeys(key for one in rows for key in one if key != "rounds_s"))

    def cell(one: dict[str, Any], key: str) -> str:
        value = one.get(key)
        if key.endswith("_s") and value is not None:
            rounds = f" ({span(one['rounds_s'])})" if key == "median_s" else ""
            return duration(value) + rounds
        return "" if value is None else plain(value)

    heading = [key.removesuffix("_s") for key in keys]
    print_rows(heading, [[cell(one, key) for key in keys] for one in rows])
