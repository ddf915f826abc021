"""cubie: SymPy's expressions as CUDA kernels, a lane a thread; for NVIDIA cards alone."""

from typing import Any

import numpy as np

from ..race import Contender, Run, need, release
from ..workloads import FlowLanes


def flow(work: FlowLanes) -> Contender:
    """Tsit5 with its own controller, the last state alone is kept."""
    cubie, sympy = need("cubie"), need("sympy")
    dim = len(work.loss.start)
    names = [f"{kind}{i}" for i in range(dim) for kind in "xmv"]
    lane_names = ["b1", "b2", "rate1", "rate2"]
    symbols = sympy.symbols(names)
    slopes = work.slope(
        sympy.Symbol("t"), symbols, sympy.symbols(lane_names), sympy.exp, sympy.sqrt
    )
    system = cubie.create_ODE_system(
        [f"d{name} = {slope}" for name, slope in zip(names, slopes, strict=True)],
        states=dict.fromkeys(names, 0.0),
        parameters=dict.fromkeys(lane_names, 0.5),
        precision=np.dtype(work.dtype).type,
    )
    states = {name: work.first_states[:, i] for i, name in enumerate(names)}
    lanes = {name: work.lane_parameters[:, i] for i, name in enumerate(lane_names)}

    def prepare(rtol: float | None) -> Run:
        assert rtol is not None

        # One for all calls; its own default allows no step longer than 1.
        solver = cubie.Solver(
            system, algorithm="tsit5", dt_min=1e-12, dt_max=float(work.steps), rtol=rtol,
            atol=1e-3 * rtol, save_every=float(work.steps), save_variables=names[::3],
            output_types=["state"],
        )  # fmt: skip

        def run() -> np.ndarray:
            found: Any = solver.solve(
                states, lanes, duration=float(work.steps), grid_type="verbatim",
                nan_error_trajectories=True,  # who did not reach the end is no answer
            )  # fmt: skip
            values = np.asarray(found.time_domain_array)  # (save, variable, lane)
            return values[-1, :dim].T

        return run

    return Contender("cubie", prepare, note=f"{release('cubie')}, tsit5")
