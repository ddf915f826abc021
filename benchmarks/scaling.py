"""Cost a lane of `ct.ensemble` and its peers as lanes grow, and the memory that ours takes."""

import resource
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

import ct_adam as ct

from .discrete import by_numpy
from .ensemble import flow_limits, reference
from .limits import told
from .output import finish, print_rows
from .peers import gradsolve_peer, heyoka_peer, jax_peer, numba_peer, ours
from .race import Contender, Entry, entered, errors, failure, race, verdict
from .timing import seconds
from .words import duration, rounded, span
from .workloads import QUADRATIC, FlowLanes, Lanes, uniform

SPENT = 10.0  # seconds that the rounds of one contender and count may take
ERROR = 1e-4
TAIL = 1e4  # times the error in a typical lane, where one amplifies it
PEERS: dict[str, Callable[[FlowLanes], Contender]] = {
    "auto": partial(ours.flow, "auto"),
    "cohort": partial(ours.flow, "cohort"),
    "lax.map(diffrax)": partial(jax_peer.flow, "lax.map(diffrax)", jax_peer.one_by_one),
    "vmap(diffrax)": partial(jax_peer.flow, "vmap(diffrax)", jax_peer.side_by_side),
    "heyoka": heyoka_peer.flow,
    "gradsolve": gradsolve_peer.flow,
    "numba loop": numba_peer.flow,
}
OPTIMIZERS: dict[str, Callable[[Lanes], Contender]] = {
    "auto": partial(ours.optimizer, "auto"),
    "vmap(scan)": partial(jax_peer.optimizer, "vmap(scan)", jax_peer.side_by_side),
    "numba loop": numba_peer.optimizer,
}
MOST = 4.0
"""Seconds of a call beyond which a contender is not asked for more lanes; ours always is."""


def main(quick: bool) -> None:
    """A flow, an optimizer, and what a call costs that has next to nothing to do."""
    counts = [2**k for k in ((10, 12) if quick else (10, 12, 14, 16, 18, 20))]
    flow, optimizer = FlowLanes("Adam flow", **uniform(1024)), Lanes("Adam", **uniform(1024))
    reports = [
        climbed(flow, PEERS, counts, ERROR),
        climbed(optimizer, OPTIMIZERS, counts, 1e-9, by_numpy),
        overhead(),
    ]
    finish("scaling", quick, reports)


def tight(work: Any) -> np.ndarray:
    """A flow's θ by ours at a tight tolerance, compared with SciPy."""
    return reference(work, ERROR)[0]


def climbed(
    work: Any,
    peers: dict[str, Callable[..., Contender]],
    counts: Sequence[int],
    error: float,
    truth_of: Callable[[Any], np.ndarray] = tight,
    most: float = MOST,
) -> dict[str, Any]:
    """Everybody at the tolerance that is right to `error` on the lanes of `work`, on more and more:
    of these the first ones are compared again."""
    truth = truth_of(work)
    entries = race(entered(peers, peers, work), lambda: truth, error, 1)
    tails = {count: truth_of(last(work, count)) for count in counts}
    rows = []
    for entry in entries:
        for row in _climb(entry, work, peers[entry.name], counts, truth, tails, error, most):
            rows.append(row)
            if row["name"] == "auto" and "s_a_lane" in row:
                row["memory_GiB"] = largest_memory()
    title = f"{work.name}, {work.steps} steps, error {error:g}"
    print(f"\n{title}; each at the tolerance that {len(work.b1)} lanes need", flush=True)
    heading = [
        "contender",
        "lanes",
        "time a lane",
        "lanes/s",
        "rounds",
        "largest memory",
        "verdict",
    ]
    print_rows(heading, map(_row, rows))
    found: dict[str, Any] = {"title": title, "kind": "scaling", "rows": rows}
    auto = [row for row in rows if row["name"] == "auto" and "s_a_lane" in row]
    if auto and isinstance(work, FlowLanes):
        most_lanes = auto[-1]
        more = replace(work, **uniform(most_lanes["lanes"]))
        spent = most_lanes["s_a_lane"] * most_lanes["lanes"]
        found["limits"] = flow_limits(more, most_lanes["rtol"], spent)
        print(told(found["limits"]))
    return found


def last(work: Any, count: int) -> Any:
    """The last few of so many lanes."""
    return replace(work, **{name: column[-16:] for name, column in uniform(count).items()})


def largest_memory() -> float:
    """GiB that this process has held at most so far; ours goes first, on fewest lanes first."""
    unit = 2**30 if sys.platform == "darwin" else 2**20  # bytes, elsewhere units of 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def _climb(
    entry: Entry,
    work: Any,
    peer: Callable[..., Contender],
    counts: Sequence[int],
    truth: np.ndarray,
    tails: dict[int, np.ndarray],
    error: float,
    most: float,
) -> Iterator[dict[str, Any]]:
    if not entry.has_speed:
        yield {"name": entry.name, "verdict": entry.absent or entry.verdict}
        return
    for count in counts:
        row: dict[str, Any] = {"name": entry.name, "lanes": count, "rtol": entry.rtol}
        try:
            run = peer(replace(work, **uniform(count))).prepare(entry.rtol)
            row["verdict"] = _judged(run(), truth[:count], tails[count], count, error)
            spent = seconds(run)
            rounds = [seconds(run) for _ in range(max(1, min(7, int(SPENT / spent))))]
        except Exception as failed:  # memory has an end
            yield row | {"verdict": failure(failed)}
            return
        if row["verdict"] == "WRONG":
            yield row
            return
        middle = float(np.median(rounds))
        times = {"s_a_lane": middle / count, "lanes_per_s": count / middle, "rounds_s": rounds}
        yield row | times
        if entry.name != "auto" and 4 * middle > most:  # the next count is four times as large
            return


def _judged(
    final: np.ndarray, truth: np.ndarray, tail: np.ndarray, count: int, error: float
) -> str:
    """By the first lanes and the last ones; of all others that they are numbers."""
    if final.shape != (count, truth.shape[1]) or not np.all(np.isfinite(final)):
        return "WRONG"
    head = verdict(errors(final[: len(truth)], truth), error)
    # Sixteen are too few for quantiles: none may be far off.
    far = not np.max(np.abs(final[-len(tail) :] - tail)) <= TAIL * error
    return "WRONG" if far else head


def _row(row: dict[str, Any]) -> list[str]:
    if "s_a_lane" not in row:
        return [row["name"], str(row.get("lanes", "-")), *["-"] * 4, row["verdict"]]
    return [
        row["name"],
        str(row["lanes"]),
        duration(row["s_a_lane"]),
        rounded(row["lanes_per_s"]),
        span(row["rounds_s"]),
        f"{row['memory_GiB']:.2f} GiB" if "memory_GiB" in row else "",
        row["verdict"],
    ]


def overhead() -> dict[str, Any]:
    """What a call costs that has next to nothing to do: a lane, four steps, the whole table."""
    lane = {"b1": np.array([0.9]), "b2": np.array([0.99])}
    make = FlowLanes("overhead", **lane).make
    rows = []
    for engine in ("fused", "cohort", "reference"):

        def run(engine: str = engine) -> Any:
            return ct.ensemble(make, QUADRATIC.of, QUADRATIC.start, 4, lane, engine=engine)

        run()
        rounds = [seconds(run) for _ in range(51)]
        median = float(np.median(rounds))
        rows.append({"engine": engine, "median_s": median, "rounds_s": rounds})
    print("\nA call's overhead")
    cells = [[row["engine"], duration(row["median_s"]), span(row["rounds_s"])] for row in rows]
    print_rows(["engine", "median", "rounds"], cells)
    return {"title": "A call's overhead", "kind": "scaling", "rows": rows}
