"""Discrete Adam over many pairs of decays: `ct.ensemble` beside scans, torch and loops by hand."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import xarray  # noqa: F401 (imported here, so that no contender's first call pays for it)

from .limits import limits, told
from .output import finish, report
from .peers import jax_peer, numba_peer, ours, torch_peer
from .race import Contender, Target, entered, race
from .workloads import CHAIN, Lanes, square

ERROR = 1e-9  # the same arithmetic in another order
PEERS: dict[str, Callable[[Lanes], Contender]] = {
    "auto": partial(ours.optimizer, "auto"),
    "cohort": partial(ours.optimizer, "cohort"),
    "numba loop": numba_peer.optimizer,
    "vmap(scan)": partial(jax_peer.optimizer, "vmap(scan)", jax_peer.side_by_side),
    "lax.map(scan)": partial(jax_peer.optimizer, "lax.map(scan)", jax_peer.one_by_one),
    "torch loop": torch_peer.loop,
    "torch vmap": torch_peer.mapped,
    "torch.compile": torch_peer.compiled,
}
TARGETS = (Target("auto", "numba loop", 1 / 1.1), Target("auto", "vmap(scan)", 4))
"""Of the quadratic."""


class Event(NamedTuple):
    """A workload, and what is asked."""

    work: Lanes
    targets: tuple[Target, ...] = ()


def events(quick: bool) -> list[Event]:
    """The map of the decays, the coupled loss, the long horizon."""
    side, less = (32, 16) if quick else (128, 32)
    steps, many = (200, 1000) if quick else (1000, 10_000)
    return [
        # With larger steps lanes amplify rounding until nobody is right.
        Event(Lanes("quadratic", **square(side), learning_rate=1e-4, steps=steps), TARGETS),
        Event(Lanes(CHAIN.name, **square(less), loss=CHAIN, learning_rate=1e-4, steps=steps)),
        Event(Lanes("long horizon", **square(less), learning_rate=5e-5, steps=many)),
    ]


def main(quick: bool) -> None:
    """All workloads."""
    finish("discrete", quick, [measured(event, 3 if quick else 15) for event in events(quick)])


def measured(event: Event, rounds: int) -> dict[str, Any]:
    """The race of one workload."""
    work = event.work
    entries = race(entered(PEERS, PEERS, work), partial(by_numpy, work), ERROR, rounds)
    (auto,) = (entry for entry in entries if entry.name == "auto")
    near = None
    if auto.rounds:
        made = ours.optimizer_program(work)
        near = limits(made, work.decays, len(work.b1) * work.steps, auto.median)
    title = f"Adam, {work.name}: {len(work.b1)} lanes, {work.steps} steps; error against NumPy"
    result = report(title, entries, event.targets, name=f"Adam, {work.name}", limits=near)
    if near:
        print(told(near))
    return result


def by_numpy(work: Lanes) -> np.ndarray:
    """Adam as its paper writes it, all lanes at once."""
    x = np.tile(work.loss.start, (len(work.b1), 1)).T
    m, v = np.zeros_like(x), np.zeros_like(x)
    for n in range(1, work.steps + 1):
        g = np.array(work.loss.slopes(x))
        m = work.b1 * m + (1 - work.b1) * g
        v = work.b2 * v + (1 - work.b2) * g**2
        m_hat, v_hat = m / (1 - work.b1**n), v / (1 - work.b2**n)
        x = x - work.learning_rate * m_hat / (np.sqrt(v_hat) + work.eps)
    return x.T
