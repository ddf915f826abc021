"""Adam's flow by heyoka: Taylor series, several lanes in one SIMD register."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from ct_adam.ensemble.cores import cpus

from ..race import Contender, Run, need, release
from ..workloads import FlowLanes


def flow(work: FlowLanes) -> Contender:
    """State (θ, m, w = ln v), lanes in batches in the order of their cost, a thread a core."""
    need("heyoka")
    system = adam_system(work)
    start = work.first_states.copy()
    start[:, 2::3] = np.log(start[:, 2::3])
    threads = cpus()

    def prepare(rtol: float | None) -> Run:
        run = _prepared(system, start, work.lane_parameters, work.steps, rtol, threads)
        return lambda: run()[:, ::3]

    note = f"{release('heyoka')}, ln v, batches in the order of cost, {threads} threads"
    return Contender("heyoka", prepare, note=note)


def adam_system(work: FlowLanes) -> list[Any]:
    """The equations of `ct_adam.AdamFlow`, order 1, `start="first_step"`, per coordinate.

    With r = e^{-w/2} = 1/√v one exponential a coordinate is enough:

        m' = a(g - m)    w' = b((g r)² - 1)    θ' = -η m r / (B1 (1/√B2 + eps r))

    Parameters of a lane: b1, b2 and their rates a, b.
    """
    hy = need("heyoka")
    b1, b2, a, b = (hy.par[i] for i in range(4))
    factor1 = 1.0 - b1 * hy.exp(-a * hy.time)
    root2 = (1.0 - b2 * hy.exp(-b * hy.time)) ** -0.5
    dim = len(work.loss.start)
    xs, ms, ws = ([hy.make_vars(f"{name}{i}") for i in range(dim)] for name in "xmw")
    system = []
    for x, m, w, g in zip(xs, ms, ws, work.loss.slopes(xs), strict=True):
        r = hy.exp(-0.5 * w)
        system.append((x, -work.learning_rate * m * r / (factor1 * (root2 + work.eps * r))))
        system.append((m, a * (g - m)))
        system.append((w, b * ((g * r) ** 2.0 - 1.0)))
    return system


def _prepared(
    system: list[Any],
    start: np.ndarray,
    lane_parameters: np.ndarray,
    steps: float,
    tolerance: float | None,
    threads: int,
) -> Callable[[], np.ndarray]:
    """A run of all lanes: `start` is (lanes, state), `lane_parameters` (lanes, parameter).

    A batch waits for its slowest lane, so lanes go in the order of their cost. No simple function
    of b1 and b2 tells it: a first run counts solver steps. It is charged to compilation, not to
    the times. Threads take turns at the batches; each has an integrator of its own.
    """
    hy = need("heyoka")
    width = hy.recommended_simd_size()
    zeros = np.zeros((start.shape[1], width))
    pars = np.ones((lane_parameters.shape[1], width))
    integrators = [
        # Without compact mode the chain's derivatives take minutes to compile.
        hy.taylor_adaptive_batch(
            system, zeros, pars=pars, tol=tolerance, compact_mode=start.shape[1] > 20
        )
        for _ in range(threads)
    ]
    final, cost = np.empty_like(start), np.empty(len(start))

    def share(integrator: Any, batches: np.ndarray) -> None:
        for batch in batches:
            integrator.set_time(0.0)
            integrator.pars[:] = lane_parameters[batch].T
            integrator.state[:] = start[batch].T
            integrator.propagate_until(float(steps))
            final[batch] = integrator.state.T
            cost[batch] = [solver_steps for *_, solver_steps in integrator.propagate_res]

    def run(order: np.ndarray) -> np.ndarray:
        # The last lane fills up the last batch.
        batches = np.pad(order, (0, -len(order) % width), mode="edge").reshape(-1, width)
        with ThreadPoolExecutor(threads) as pool:
            shares = (batches[thread::threads] for thread in range(threads))
            list(pool.map(share, integrators, shares))  # a list, so that errors are raised
        return final.copy()

    run(np.arange(len(start)))
    by_cost = np.argsort(cost)
    return lambda: run(by_cost)
