"""Cost a lane of `ct.ensemble`, from a thousand lanes to a million, and the memory it takes."""

import resource
from typing import Any

import numpy as np

import ct_adam as ct

from .ensemble import LEARNING_RATE, START, loss
from .timing import finish, seconds

STEPS = 120
METRICS = ("max_update", "final_params", "outcome")


def flow(b1: Any, b2: Any) -> Any:
    return ct.AdamFlow(LEARNING_RATE, b1, b2)


def optimizer(b1: Any, b2: Any) -> Any:
    return ct.k_adam(LEARNING_RATE, b1, b2)


def main(quick: bool) -> None:
    counts = [2**k for k in ((10, 12, 14) if quick else (10, 12, 14, 16, 18, 20))]
    reports = [_scale(name, make, counts) for name, make in (("flow", flow), ("Adam", optimizer))]
    finish("scaling", quick, [*reports, _overhead()])


def _overhead() -> dict[str, Any]:
    """What a call costs that has next to nothing to do: a lane, four steps, the whole table."""
    lane = {"b1": np.array([0.9]), "b2": np.array([0.99])}
    rows = []
    for engine in ("fused", "cohort", "reference"):

        def run(engine: str = engine) -> Any:
            return ct.ensemble(flow, loss, START, 4, lane, engine=engine)

        run()
        rounds = [seconds(run) for _ in range(51)]
        rows.append({"engine": engine, "rounds_s": rounds})
        print(f"a call's overhead, {engine}: {1e3 * float(np.median(rounds)):.2f} ms")
    return {"title": "overhead", "rows": rows}


def _scale(name: str, make: Any, counts: list[int]) -> dict[str, Any]:
    """The median of rounds that get fewer as they get longer."""
    print(f"\n{name}, {STEPS} steps, rtol 1e-3: lanes, time a lane, largest memory so far")
    rows = []
    for count in counts:
        rng = np.random.default_rng(0)
        lanes = {"b1": rng.uniform(0.5, 0.99, count), "b2": rng.uniform(0.5, 0.999, count)}

        def run(lanes: dict[str, np.ndarray] = lanes) -> np.ndarray:
            table = ct.ensemble(
                make, loss, START, STEPS, lanes, rtol=1e-3, atol=1e-6, metrics=METRICS
            )
            return table.final_params.values

        run()
        rounds = [seconds(run) for _ in range(max(1, min(7, 2**18 // count)))]
        # Linux counts in units of 1024 bytes.
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        cost = float(np.median(rounds)) / count
        print(f"{count:>8}  {1e6 * cost:6.2f} µs  {memory:5.2f} GiB")
        rows.append({"lanes": count, "rounds_s": rounds, "s_a_lane": cost, "memory_GiB": memory})
    costs = [row["s_a_lane"] for row in rows]
    print(f"dearest over cheapest: {max(costs) / min(costs):.2f}")
    return {"title": name, "rows": rows}
