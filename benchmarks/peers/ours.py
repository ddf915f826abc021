"""`ct.ensemble`, asked for no more than the others give."""

from collections.abc import Callable
from typing import Any

import numpy as np

import ct_adam as ct
from ct_adam.ensemble.prepared import Prepared, prepared

from ..race import Contender, Run
from ..workloads import FlowLanes, Lanes

METRICS = ("final_params", "outcome")


def flow(engine: str, work: FlowLanes) -> Contender:
    """A flow by one of the engines."""

    def prepare(rtol: float | None) -> Run:
        assert rtol is not None
        return lambda: flow_params(work, engine, rtol, 1e-3 * rtol)

    return Contender(engine, prepare, follows="auto")


def flow_params(
    work: FlowLanes, engine: str, rtol: float, atol: float, budget: int | None = None
) -> np.ndarray:
    """θ at the end."""
    table = ct.ensemble(
        work.make,
        work.loss.of,
        work.start,
        work.steps,
        work.decays,
        engine=engine,
        rtol=rtol,
        atol=atol,
        max_solver_steps=budget,
        metrics=METRICS,
    )
    return table.final_params.values


def flow_program(work: FlowLanes, rtol: float) -> Prepared:
    """The program that the engines run, with its number of gradients a lane."""
    return prepared(
        work.make,
        work.loss.of,
        work.start,
        work.steps,
        rtol=rtol,
        atol=1e-3 * rtol,
        metrics=(*METRICS, "evaluations"),
    )


def optimizer(engine: str, work: Lanes) -> Contender:
    """Discrete Adam by one of the engines."""
    make = _adam(work)

    def run() -> np.ndarray:
        table = ct.ensemble(
            make, work.loss.of, work.loss.start, work.steps, work.decays, engine=engine,
            metrics=METRICS,
        )  # fmt: skip
        return table.final_params.values

    return Contender(engine, lambda _: run, (None,))


def optimizer_program(work: Lanes) -> Prepared:
    """What `ct.ensemble` makes of its arguments."""
    make, start = _adam(work), work.loss.start
    return prepared(make, work.loss.of, start, work.steps, metrics=METRICS)


def _adam(work: Lanes) -> Callable[..., Any]:
    return lambda b1, b2: ct.k_adam(work.learning_rate, b1, b2, work.eps)
