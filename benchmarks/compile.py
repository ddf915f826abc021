"""How long until the first answer: fresh processes, with empty caches and with kept ones."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from .compile_child import LANES, PACKAGES, RTOL
from .output import finish, print_rows
from .race import Errors, errors, verdict
from .words import duration

NOTE = (
    "Each contender in processes of its own: cold with empty caches (kernels, JAX's compilations, "
    "what numba and Warp keep), warm with those that the process before left; medians of as many "
    "pairs as there are rounds in the file. The first answer takes the import of the packages and "
    "the first call; the second call is in the same process. All run at the same tolerance, Python "
    "has its byte code. heyoka keeps nothing on disk, nor does numba of a loop that is handed its "
    "gradient."
)
PATIENCE = 600.0  # seconds that a process gets
PARTS = ("import_s", "first_s", "second_s")
TITLES = {
    "flow": f"Adam flow, quadratic: {LANES} lanes, 120 steps, rtol={RTOL:g}",
    "optimizer": f"Adam, quadratic: {LANES} lanes, 120 steps",
}
ALIKE = {"flow": 1e-4, "optimizer": 1e-9}  # as far apart answers may be, times 100: see `verdict`


def main(quick: bool) -> None:
    """A flow and an optimizer, three pairs of processes each."""
    finish("compile", quick, [measured(workload, 1 if quick else 3) for workload in PACKAGES])


def measured(workload: str, repeats: int) -> dict[str, Any]:
    """All contenders of a workload, in turns, so that a disturbance hits neighbours."""
    pairs: dict[str, list[dict[str, Any]]] = {name: [] for name in PACKAGES[workload]}
    finals: dict[str, np.ndarray] = {}
    for _ in range(repeats):
        for name, found in pairs.items():
            with tempfile.TemporaryDirectory() as folder:
                answer = Path(folder) / "final.npy"
                found.append({kind: child(workload, name, answer) for kind in ("cold", "warm")})
                if answer.exists():
                    finals[name] = np.load(answer)
    rows = [row(name, found) for name, found in pairs.items()]
    for one in rows:
        judge(one, finals, ALIKE[workload])
    title = f"{TITLES[workload]}: seconds until the first answer in a fresh process"
    print(f"\n{title}\n(cold: empty caches, warm: those that the process before left)")
    heading = ["contender", *(f"{kind} {part}" for kind in ("cold", "warm")
               for part in ("in all", "import", "first", "second")), ""]  # fmt: skip
    print_rows(heading, map(_cells, rows))
    return {"title": title, "kind": "compile", "note": NOTE, "rows": rows}


def environment(folder: Path, keeps: bool) -> dict[str, str]:
    """Every cache in `folder`. Who keeps JAX's compilations itself (`keeps`) is not told where."""
    found = {key: value for key, value in os.environ.items() if not key.startswith("JAX_")}
    found |= {
        "JAX_ENABLE_X64": "1",
        "CT_ADAM_CACHE": str(folder / "ct_adam"),
        "NUMBA_CACHE_DIR": str(folder / "numba"),
        "WARP_CACHE_PATH": str(folder / "warp"),
    }
    if "JAX_PLATFORMS" in os.environ:
        found["JAX_PLATFORMS"] = os.environ["JAX_PLATFORMS"]
    if not keeps:
        found["JAX_COMPILATION_CACHE_DIR"] = str(folder / "jax")
        found["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    return found


def child(workload: str, name: str, answer: Path) -> dict[str, Any]:
    """What a process of this contender says, whose caches are beside its answer."""
    command = [sys.executable, "-m", "benchmarks.compile_child", workload, name, str(answer)]
    try:
        ended = subprocess.run(
            command,
            env=environment(answer.parent, "ct_adam" in PACKAGES[workload][name]),
            cwd=Path(__file__).parents[1],
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )
    except subprocess.TimeoutExpired:
        return {"absent": f"no answer within {PATIENCE:g} s"}
    try:
        return json.loads(ended.stdout.splitlines()[-1])
    except (IndexError, ValueError):
        said = (ended.stderr.strip().splitlines() or ["nothing"])[-1]
        return {"absent": f"FAILED: exit status {ended.returncode}, said {said[:160]}"}


def row(name: str, pairs: list[dict[str, Any]]) -> dict[str, Any]:
    """Medians over the processes; no times where one of them failed."""
    ran = [pair[kind] for pair in pairs for kind in ("cold", "warm")]
    absent = next((one["absent"] for one in ran if "absent" in one), "")
    found: dict[str, Any] = {"name": name, "cold": None, "warm": None, "absent": absent}
    if not absent:
        for kind in ("cold", "warm"):
            found[kind] = {
                part: float(np.median([pair[kind][part] for pair in pairs])) for part in PARTS
            }
    return found | {"rounds": pairs}


def judge(one: dict[str, Any], finals: dict[str, np.ndarray], alike: float) -> None:
    """Who gives another answer than `auto`, has no times."""
    if one["absent"]:
        return
    answer = finals[one["name"]]
    apart = errors(answer, finals.get("auto", answer)).median
    if verdict(Errors(apart, apart), alike) == "WRONG":
        one |= {"cold": None, "warm": None, "absent": f"WRONG: {apart:.1e} away from auto"}


def _cells(one: dict[str, Any]) -> list[str]:
    if one["absent"]:
        return [one["name"], *["-"] * 8, one["absent"]]
    times = [
        duration(seconds)
        for kind in ("cold", "warm")
        for seconds in (one[kind]["import_s"] + one[kind]["first_s"], *one[kind].values())
    ]
    return [one["name"], *times, ""]
