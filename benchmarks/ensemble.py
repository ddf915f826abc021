"""Adam's flow over many pairs of decays: `ct.ensemble` beside those who integrate the same."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import xarray  # noqa: F401 (imported here, so that no contender's first call pays for it)

from .limits import limits, told
from .output import finish, report
from .peers import gradsolve_peer, heyoka_peer, jax_peer, numba_peer, ours, scipy_peer
from .race import Contender, Entry, Quantile, Target, entered, race
from .workloads import CHAIN, FlowLanes, by_scipy, corner, uniform

PEERS: dict[str, Callable[[FlowLanes], Contender]] = {
    "auto": partial(ours.flow, "auto"),
    "cohort": partial(ours.flow, "cohort"),
    "reference": partial(ours.flow, "reference"),
    "lax.map(diffrax)": partial(jax_peer.flow, "lax.map(diffrax)", jax_peer.one_by_one),
    "vmap(diffrax)": partial(jax_peer.flow, "vmap(diffrax)", jax_peer.side_by_side),
    "heyoka": heyoka_peer.flow,
    "gradsolve": gradsolve_peer.flow,
    "numba loop": numba_peer.flow,
    "SciPy solve_ivp": scipy_peer.flow,
}
FAST = ("auto", "heyoka", "gradsolve", "numba loop")
FLOOR = (
    Target("auto", "lax.map(diffrax)", 5),
    Target("auto", "vmap(diffrax)", 80),
    Target("auto", "heyoka", 2.5),
    Target("cohort", "vmap(diffrax)", 15),
)
"""Of the quadratic workloads."""


class Event(NamedTuple):
    """A workload, the error to be matched in a typical lane (or in nine of ten), what is asked."""

    work: FlowLanes
    error: float
    targets: tuple[Target, ...] = ()
    by: Quantile = "median"
    peers: tuple[str, ...] = tuple(PEERS)


def events(quick: bool) -> list[Event]:
    """The quadratic at both rates, b1 ≥ b2, the coupled loss, the long horizon."""
    many, few = (128, 32) if quick else (1024, 128)
    slow = {"learning_rate": 5e-5, "steps": 1000 if quick else 10_000}
    return [
        Event(FlowLanes("quadratic, lag", **uniform(many)), 1e-5, FLOOR),
        Event(FlowLanes("quadratic, log", **uniform(many), rates="log"), 1e-5, FLOOR),
        # Errors of a Taylor series spread less over the lanes: with the worst tenth it is another
        # race among the fastest.
        Event(FlowLanes("quadratic, lag, 9 of 10 lanes", **uniform(many)), 1e-5, (), "q90", FAST),
        Event(
            FlowLanes("quadratic, log, 9 of 10 lanes", **uniform(many), rates="log"),
            1e-5,
            (),
            "q90",
            FAST,
        ),
        Event(FlowLanes("stiff corner b1 ≥ b2", **corner(many), steps=400), 1e-4),
        Event(FlowLanes(CHAIN.name, **uniform(4 * few), loss=CHAIN), 1e-5),
        Event(FlowLanes("long horizon", **uniform(few), **slow), 1e-5),
    ]


def main(quick: bool) -> None:
    """All workloads."""
    finish("ensemble", quick, [measured(event, 3 if quick else 7) for event in events(quick)])


def measured(event: Event, rounds: int) -> dict[str, Any]:
    """The race of one workload."""
    work, doubts = event.work, []

    def truth() -> np.ndarray:
        found, doubt = reference(work, event.error)
        doubts.append(doubt)
        return found

    entries = race(entered(event.peers, PEERS, work), truth, event.error, rounds, event.by)
    title = (
        f"Adam flow, {work.name}: {len(work.b1)} lanes, {work.steps} steps, error {event.error:g} "
        f"(reference against SciPy: {doubts[0]:.1e})"
    )
    near = near_the_limit(work, entries)
    result = report(
        title,
        entries,
        event.targets,
        name=f"flow, {work.name}",
        by=event.by,
        reference_against_scipy=doubts[0],
        limits=near,
    )
    if near:
        print(told(near))
    return result


def near_the_limit(work: FlowLanes, entries: list[Entry]) -> dict[str, float] | None:
    """Of `auto`, if it has a time."""
    (auto,) = (entry for entry in entries if entry.name == "auto")
    if not auto.rounds or auto.rtol is None:
        return None
    return flow_limits(work, auto.rtol, auto.median)


def flow_limits(work: FlowLanes, rtol: float, spent: float) -> dict[str, float]:
    """Of a run of all lanes in `spent` seconds."""
    made = ours.flow_program(work, rtol)
    # Six gradients an attempt, the last one's is the next one's first.
    passes = float(made.table(work.decays).evaluations.sum()) / 6
    return limits(made, work.decays, passes, spent)


def reference(work: FlowLanes, error: float) -> tuple[np.ndarray, float]:
    """All lanes at a tight tolerance, and how far SciPy is from it on three of them."""
    truth = ours.flow_params(work, "fused", 1e-10, 1e-13, 10**7)
    by_b1 = np.argsort(work.b1)
    lanes = by_b1[[0, len(by_b1) // 2, -1]]
    options = {"method": "DOP853", "rtol": 1e-11, "atol": 1e-13}
    doubt = max(
        float(np.max(np.abs(by_scipy(work, lane, **options) - truth[lane]))) for lane in lanes
    )
    if not doubt <= error / 100:
        raise RuntimeError(f"The reference of {work.name} is {doubt:.1e} away from SciPy's.")
    return truth, doubt
