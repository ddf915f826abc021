"""SciPy in a loop: what many would write."""

import numpy as np

from ..race import Contender, Run
from ..workloads import FlowLanes, by_scipy

SAMPLE = 16
"""Lanes that the loop runs, spread over all; a lane takes tens of milliseconds."""


def flow(work: FlowLanes) -> Contender:
    """`solve_ivp` by LSODA, in Fortran but for the slope."""
    every = max(1, len(work.b1) // SAMPLE)

    def prepare(rtol: float | None) -> Run:
        assert rtol is not None
        options = {"method": "LSODA", "rtol": rtol, "atol": 1e-3 * rtol}
        lanes = range(0, len(work.b1), every)
        return lambda: np.array([by_scipy(work, lane, **options) for lane in lanes])

    note = "LSODA, one core" if every == 1 else f"LSODA, one core, one lane in {every}"
    return Contender("SciPy solve_ivp", prepare, every=every, note=note)
