"""gradsolve: Tsit5 as one Warp kernel, a lane a thread; on a CPU a share of lanes a thread."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from ct_adam.ensemble.cores import cpus

from ..race import Contender, Run, need, release
from ..workloads import FlowLanes

_NAMES = iter(range(10**6))


def flow(work: FlowLanes, device: str = "cpu") -> Contender:
    """The state is (θ, m, v): with ln v this solver takes smaller steps for the same error.

    Where one launch runs on one core, every core gets a launch of its own.
    """
    need("warp").config.quiet = True
    gradsolve = need("gradsolve")
    import jax.numpy as jnp

    def root(v: Any) -> Any:
        # A trial stage may leave v < 0, and this solver does not come back from NaN.
        return jnp.sqrt(jnp.maximum(v, 0.0))

    class Problem:
        """The six members that it asks for."""

        name = f"adam_flow_{next(_NAMES)}"
        dim = work.first_states.shape[1]
        t0, t1 = 0.0, float(work.steps)
        is_stiff = False

        def f_jax(self, t: Any, y: Any, p: Any) -> Any:
            numbers, lane = [y[i] for i in range(self.dim)], [p[i] for i in range(4)]
            return jnp.stack(work.slope(t, numbers, lane, jnp.exp, root))

    problem = Problem()
    gradsolve.register_jax_field(problem.name, problem.f_jax, problem.dim, 4)
    shares = 1 if device != "cpu" else cpus()

    def prepare(rtol: float | None) -> Run:
        def share(first: int, shares: int = shares) -> Any:
            states = work.first_states[first::shares].astype(work.dtype)
            lanes = work.lane_parameters[first::shares]
            return gradsolve.solve(
                problem, states, lanes, engine="warp_ode", rtol=rtol, atol=1e-3 * rtol,
                device=device,
            )  # fmt: skip

        share(0, len(work.b1))  # one lane: two threads must not compile at once

        def run() -> np.ndarray:
            final = np.empty((len(work.b1), len(work.start)))
            if shares == 1:
                found = [share(0)]
            else:
                with ThreadPoolExecutor(shares) as pool:
                    found = list(pool.map(share, range(shares)))
            for first, result in enumerate(found):
                final[first::shares] = np.asarray(result.y_final)[:, ::3]
            return final

        return run

    return Contender(
        "gradsolve", prepare, note=f"{release('gradsolve')}, warp_ode, {shares} launches at once"
    )
