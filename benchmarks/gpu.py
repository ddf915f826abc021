"""The engines on an NVIDIA card, beside those who run there; needs no network.

`--rehearse` goes the same way on a CPU with few lanes, and keeps nothing.
"""

import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from typing import Any

import equinox as eqx
import jax
import numpy as np

from .discrete import by_numpy
from .ensemble import near_the_limit, reference
from .output import finish, report
from .peers import cubie_peer, gradsolve_peer, jax_peer, ours
from .race import Contender, Target, entered, race
from .scaling import OPTIMIZERS, climbed
from .workloads import FlowLanes, Lanes, uniform

COMMAND = "python -m benchmarks gpu"
TARGETS = (Target("auto", "vmap(diffrax)", 100), Target("auto", "gradsolve", 1))
"""From 2¹⁶ lanes on."""
ERRORS = {"float64": 1e-5, "float32": 1e-3}


def peers(device: str) -> dict[str, Callable[[FlowLanes], Contender]]:
    """Who races on `device`, "cuda" or "cpu"."""
    return {
        "auto": partial(ours.flow, "auto"),
        "cohort": partial(ours.flow, "cohort"),
        "vmap(diffrax)": partial(jax_peer.flow, "vmap(diffrax)", jax_peer.side_by_side),
        "gradsolve": partial(gradsolve_peer.flow, device=device),
        "cubie": cubie_peer.flow,
    }


def main(quick: bool, rehearse: bool = False) -> int:
    """Races and climbs in both precisions; 2 where there is no card to do it on."""
    on_card = jax.default_backend() == "gpu"
    if not on_card and not rehearse:
        print(
            "benchmarks: there is no GPU that JAX knows: install the extra `cuda` on a machine "
            f"with an NVIDIA card, or go the same way on the CPU by `{COMMAND} --rehearse`.",
            file=sys.stderr,
        )
        return 2
    raced = 2**6 if rehearse else 2**14 if quick else 2**16
    counts = [2**8] if rehearse else [2**k for k in range(12, 17 if quick else 23, 2)]
    first = min(2**10, raced)
    contenders = peers("cuda" if on_card else "cpu")
    today = datetime.now(UTC).date().isoformat()
    reports: list[dict[str, Any]] = []

    def done(report: dict[str, Any]) -> None:
        """Kept at once: the next one may not come to its end."""
        reports.append(report)
        if not rehearse:
            finish("gpu", quick, reports, date=today, command=COMMAND)

    for dtype in ERRORS:
        done(_raced(dtype, raced, contenders))
    for dtype, error in ERRORS.items():
        work = FlowLanes(f"Adam flow, {dtype}", **uniform(first), dtype=np.dtype(dtype))
        done(
            climbed(work, _bounded(contenders, dtype), counts, error, partial(_truth, error=error))
        )
    discrete = {name: OPTIMIZERS[name] for name in ("auto", "vmap(scan)")}
    adam = Lanes("Adam", **uniform(first))
    done(climbed(adam, discrete, counts, 1e-9, by_numpy))
    if on_card:
        done({"title": "The flow's kernel", "kind": "kernel", **_kernel()})
    if rehearse:
        print("\nA rehearsal: nothing is kept.")
    return 0


def _bounded(contenders: dict[str, Any], dtype: str) -> dict[str, Any]:
    """No tolerances below what the type can tell: solvers would take ever more steps."""
    least = 10 * float(np.finfo(dtype).eps)

    def bounded(make: Callable[[FlowLanes], Contender], work: FlowLanes) -> Contender:
        one = make(work)
        return replace(one, tolerances=tuple(x for x in one.tolerances if x is None or x >= least))

    return {name: partial(bounded, make) for name, make in contenders.items()}


def _raced(dtype: str, lanes: int, contenders: dict[str, Any]) -> dict[str, Any]:
    error = ERRORS[dtype]
    work = FlowLanes(dtype, **uniform(lanes), dtype=np.dtype(dtype))
    peers = _bounded(contenders, dtype)
    entries = race(entered(peers, peers, work), partial(_truth, work, error=error), error, 7)
    title = f"Adam flow, quadratic, {dtype}: {lanes} lanes, {work.steps} steps, error {error:g}"
    near = near_the_limit(work, entries)
    return report(title, entries, TARGETS, name=f"gpu, {dtype}", limits=near)


def _truth(work: FlowLanes, error: float) -> np.ndarray:
    """In double precision whatever the contenders work in."""
    return reference(replace(work, dtype=float), error)[0]


def _kernel() -> dict[str, int]:
    """What the compiler made of the flow's body: registers a thread, and bytes that did not fit."""
    from ct_adam.ensemble import kernels_cuda
    from ct_adam.ensemble.fused import Fused

    lanes = uniform(2**12)
    program = ours.flow_program(FlowLanes("kernel", **lanes), 1e-4).program
    fused = Fused(program, lanes, kernels_cuda)
    fused(eqx.filter(program, eqx.is_array), lanes)
    return {
        "registers": max(fused.kernel.get_regs_per_thread().values()),
        "local_bytes": max(fused.kernel.get_local_mem_per_thread().values()),
    }
