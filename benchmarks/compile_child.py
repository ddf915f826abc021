"""One contender in a process of its own: `python -m benchmarks.compile_child WORKLOAD NAME FILE`.

Prints one line of JSON, seconds of the imports, the first call and the second one, or why there
are none; θ at the end goes to FILE. Imports nothing before the clock runs.
"""

import importlib
import json
import sys
import time
from pathlib import Path
from typing import Any

LANES = 512  # from which on auto takes its fused engine
RTOL = 1e-5  # at looser ones gradsolve has lanes that are not numbers
_OURS = ("ct_adam", "xarray")  # the second one comes with the first call
_DIFFRAX = ("numpy", "jax", "diffrax")
PACKAGES: dict[str, dict[str, tuple[str, ...]]] = {
    "flow": {
        "auto": (*_OURS, "numba"),
        "cohort": _OURS,
        "reference": _OURS,
        "lax.map(diffrax)": _DIFFRAX,
        "vmap(diffrax)": _DIFFRAX,
        "numba loop": ("numpy", "numba"),
        "gradsolve": ("numpy", "jax", "warp", "gradsolve"),
        "heyoka": ("numpy", "heyoka"),
    },
    "optimizer": {
        "auto": (*_OURS, "numba"),
        "numba loop": ("numpy", "numba"),
        "lax.map(scan)": ("numpy", "jax", "optax"),
    },
}
"""What a user of each contender imports, by workload."""


def timed(workload: str, name: str, file: Path) -> dict[str, float]:
    """Imports the packages, then calls twice."""
    start = time.perf_counter()
    for package in PACKAGES[workload][name]:
        importlib.import_module(package)
    imported = time.perf_counter()
    # Untimed: what the harness needs and a user does not.
    contender = _maker(workload, name)
    import numpy as np

    begun = time.perf_counter()
    if name in ("auto", "cohort", "reference"):
        from ct_adam.caches import keep_compilations

        keep_compilations()
    run = contender().prepare(RTOL if workload == "flow" else None)
    run()
    first = time.perf_counter()
    found = run()
    second = time.perf_counter()
    np.save(file, found)
    return {"import_s": imported - start, "first_s": first - begun, "second_s": second - first}


def _maker(workload: str, name: str) -> Any:
    """What makes the contender, with the lanes drawn."""
    from .peers import gradsolve_peer, heyoka_peer, jax_peer, numba_peer, ours
    from .workloads import FlowLanes, Lanes, uniform

    work = (FlowLanes if workload == "flow" else Lanes)("quadratic", **uniform(LANES))
    peer: Any = {"gradsolve": gradsolve_peer, "heyoka": heyoka_peer, "numba loop": numba_peer}
    mapped = jax_peer.one_by_one if name.startswith("lax.map") else jax_peer.side_by_side
    if name in peer:
        if isinstance(work, FlowLanes):
            _ = work.lane_parameters, work.first_states  # JAX computes the rates: not theirs to pay
        return lambda: getattr(peer[name], workload)(work)
    if "(" in name:
        return lambda: getattr(jax_peer, workload)(name, mapped, work)
    return lambda: getattr(ours, workload)(name, work)


def main(workload: str, name: str, file: str) -> None:
    """Whatever happens is one line."""
    try:
        found: dict[str, Any] = timed(workload, name, Path(file))
    except ModuleNotFoundError as missing:
        found = {"absent": f"{missing.name} is not installed"}
    except Exception as error:
        from .race import failure

        found = {"absent": failure(error)}
    print("\n" + json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
