"""Adam's flow by heyoka: Taylor series, several lanes in one SIMD register."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

THREADS = 2


def adam_system(curvatures: np.ndarray, learning_rate: float, eps: float) -> list[Any]:
    """The equations of `ct_adam.AdamFlow`, order 1, `start="first_step"`, per coordinate.

    State (θ, m, w = ln v). With r = e^{-w/2} = 1/√v one exponential a coordinate is enough:

        m' = a(g - m)    w' = b((g r)² - 1)    θ' = -η m r / (B1 (1/√B2 + eps r))

    Parameters of a lane: b1, b2 and their rates a, b.
    """
    import heyoka as hy

    b1, b2, a, b = (hy.par[i] for i in range(4))
    factor1 = 1.0 - b1 * hy.exp(-a * hy.time)
    root2 = (1.0 - b2 * hy.exp(-b * hy.time)) ** -0.5
    system = []
    for i, h in enumerate(curvatures):
        x, m, w = hy.make_vars(f"x{i}", f"m{i}", f"w{i}")
        g, r = float(h) * x, hy.exp(-0.5 * w)
        system.append((x, -learning_rate * m * r / (factor1 * (root2 + eps * r))))
        system.append((m, a * (g - m)))
        system.append((w, b * ((g * r) ** 2.0 - 1.0)))
    return system


def prepare(
    system: list[Any],
    start: np.ndarray,
    lane_parameters: np.ndarray,
    steps: float,
    tolerance: float,
) -> Callable[[], np.ndarray]:
    """A run of all lanes: `start` is (lanes, state), `lane_parameters` (lanes, parameter).

    A batch waits for its slowest lane, so lanes go in the order of their cost. No simple function
    of b1 and b2 tells it: a first run counts solver steps. It is charged to compilation, not to
    the times. Threads take turns at the batches; each has an integrator of its own.
    """
    import heyoka as hy

    width = hy.recommended_simd_size()
    zeros = np.zeros((start.shape[1], width))
    pars = np.ones((lane_parameters.shape[1], width))
    integrators = [
        hy.taylor_adaptive_batch(system, zeros, pars=pars, tol=tolerance) for _ in range(THREADS)
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
        with ThreadPoolExecutor(THREADS) as pool:
            shares = (batches[thread::THREADS] for thread in range(THREADS))
            list(pool.map(share, integrators, shares))  # a list, so that errors are raised
        return final.copy()

    run(np.arange(len(start)))
    by_cost = np.argsort(cost)
    return lambda: run(by_cost)
