"""A network: many lanes of a small one, and one long path of a transformer as η goes to 0."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache, partial
from itertools import pairwise
from typing import Any

import numpy as np
import scipy.integrate
import xarray  # noqa: F401 (imported here, so that no contender's first call pays for it)
from jax.flatten_util import ravel_pytree

from ct_adam.problems import digits_mlp
from ct_adam.problems.digits import digits_data

from .network_path import trajectory
from .output import finish, report
from .peers import jax_peer, ours, torch_peer
from .race import LADDER, Contender, entered, need, race
from .workloads import FlowLanes, Lanes, Loss, square

HIDDEN = 32
IMAGES = 64
SIZES = (64, HIDDEN, 10)
DISCRETE_ERROR = 1e-9  # the same arithmetic in another order
FLOW_ERROR = 1e-4
TOLERANCES = LADDER[4:]  # from 1e-2


def main(quick: bool) -> None:
    """Many lanes of the digits MLP, by Adam and by its flow; one path of a transformer."""
    finish("network", quick, [discrete(quick), flow(quick), trajectory(quick)])


def discrete(quick: bool) -> dict[str, Any]:
    """Adam itself."""
    side, steps, rounds = (6, 20, 3) if quick else (12, 100, 7)
    work = Lanes("digits MLP", **square(side), loss=digits_loss(), steps=steps)
    chosen = ours.optimizer_program(work).engine_for(work.decays)
    peers: dict[str, Callable[..., Contender]] = {
        "auto": partial(ours.optimizer, "auto"),
        "cohort": partial(ours.optimizer, "cohort"),
        "vmap(scan)": partial(jax_peer.optimizer, "vmap(scan)", jax_peer.side_by_side),
        "lax.map(scan)": partial(jax_peer.optimizer, "lax.map(scan)", jax_peer.one_by_one),
        "torch loop": lambda work: torch_peer.loop(work, torch_loss()),
        "torch vmap": lambda work: torch_peer.mapped(work, torch_loss()),
    }
    names = [name for name in peers if name != chosen]
    entries = race(entered(names, peers, work), lambda: by_numpy(work), DISCRETE_ERROR, rounds)
    title = f"Adam, {_shown(work)}, {steps} steps; error against NumPy; auto is {chosen}"
    return report(title, entries, name="network, Adam", engine=chosen)


def flow(quick: bool) -> dict[str, Any]:
    """Its flow, all at one achieved error."""
    side, steps, rounds = (6, 10, 3) if quick else (12, 20, 3)
    work = FlowLanes("digits MLP", **square(side), loss=digits_loss(), steps=steps, rates="log")
    chosen = ours.flow_program(work, FLOW_ERROR).engine_for(work.decays)
    peers: dict[str, Callable[..., Contender]] = {
        "auto": partial(ours.flow, "auto"),
        "cohort": partial(ours.flow, "cohort"),
        "reference": partial(ours.flow, "reference"),
        "lax.map(diffrax)": partial(jax_peer.flow, "lax.map(diffrax)", jax_peer.one_by_one),
        "vmap(diffrax)": partial(jax_peer.flow, "vmap(diffrax)", jax_peer.side_by_side),
    }
    names = [name for name in peers if name != chosen]
    contenders = [
        replace(one, tolerances=TOLERANCES) if isinstance(one, Contender) else one
        for one in entered(names, peers, work)
    ]
    doubts: list[float] = []
    entries = race(contenders, lambda: reference(work, doubts), FLOW_ERROR, rounds)
    title = (
        f"Adam's flow, {_shown(work)}, {steps} steps, error {FLOW_ERROR:g} "
        f"(reference against SciPy: {doubts[0]:.1e}); auto is {chosen}"
    )
    return report(
        title,
        entries,
        name="network, flow",
        engine=chosen,
        reference_against_scipy=doubts[0],
    )


def _shown(work: Lanes) -> str:
    shape, lanes = "-".join(map(str, SIZES)), len(work.b1)
    return f"digits MLP {shape} ({len(work.loss.start)} parameters, {IMAGES} images): {lanes} lanes"


@cache
def digits_loss() -> Loss:
    """Parameters in one row, so that every peer takes them. In NumPy with a backward pass by
    hand, which shares nothing with JAX's."""
    problem, params = digits_mlp((HIDDEN,), IMAGES)
    start, unravel = ravel_pytree(params)

    def of(row: Any) -> Any:
        return problem.value(unravel(row))

    return Loss("digits MLP", of, digits_slopes, _not_by_hand, np.asarray(start))


def _not_by_hand(x: np.ndarray, g: np.ndarray) -> None:
    raise NotImplementedError("the network's gradient is not written for numba")


def layers(row: Any) -> list[tuple[Any, Any]]:
    """(weight, bias) of each layer, from a row as `ravel_pytree` makes it."""
    found, at = [], 0
    for n, m in pairwise(SIZES):
        bias = at + n * m
        found.append((row[at:bias].reshape(n, m), row[bias : bias + m]))
        at = bias + m
    return found


def digits_slopes(row: Sequence[Any]) -> Any:
    """The gradient of the mean cross-entropy."""
    inputs, labels = digits_data(IMAGES)
    (weight1, bias1), (weight2, bias2) = layers(np.asarray(row))
    hidden = np.tanh(inputs @ weight1 + bias1)
    logits = hidden @ weight2 + bias2
    chances = np.exp(logits - logits.max(axis=1, keepdims=True))
    chances /= chances.sum(axis=1, keepdims=True)
    behind = (chances - np.eye(SIZES[-1])[labels]) / len(labels)
    before = behind @ weight2.T * (1 - hidden**2)
    parts = inputs.T @ before, before.sum(axis=0), hidden.T @ behind, behind.sum(axis=0)
    return np.concatenate([part.ravel() for part in parts])


def torch_loss() -> torch_peer.TorchLoss:
    """The same in PyTorch."""
    torch = need("torch")
    inputs, labels = map(torch.tensor, digits_data(IMAGES))

    def loss(row: Any) -> Any:
        (weight1, bias1), (weight2, bias2) = layers(row)
        logits = torch.tanh(inputs @ weight1 + bias1) @ weight2 + bias2
        return torch.nn.functional.cross_entropy(logits, labels)

    return loss


def by_numpy(work: Lanes) -> np.ndarray:
    """Adam as it is written in the textbook, a lane after the other."""
    found = []
    for b1, b2 in zip(work.b1, work.b2, strict=True):
        x, m, v = work.loss.start.copy(), 0.0, 0.0
        for n in range(1, work.steps + 1):
            g = np.asarray(work.loss.slopes(x))
            m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g**2
            root = np.sqrt(v / (1 - b2**n))
            x -= work.learning_rate * m / (1 - b1**n) / (root + work.eps)
        found.append(x)
    return np.array(found)


def reference(work: FlowLanes, doubts: list[float]) -> np.ndarray:
    """All lanes at a tight tolerance; `doubts` gets SciPy's distance from it on three of them."""
    truth = ours.flow_params(work, "reference", 1e-8, 1e-11, 10**6)
    lanes = (0, len(truth) // 2, len(truth) - 1)
    doubt = max(float(np.max(np.abs(by_scipy(work, lane) - truth[lane]))) for lane in lanes)
    if not doubt <= FLOW_ERROR / 100:
        raise RuntimeError(f"The reference solution is {doubt:.1e} away from SciPy's.")
    doubts.append(doubt)
    return truth


def by_scipy(work: FlowLanes, lane: int) -> np.ndarray:
    """One lane's θ at the end by DOP853; the equations of `workloads` for arrays."""
    b1, b2, a, b = work.lane_parameters[lane]

    def slope(time: float, state: np.ndarray) -> np.ndarray:
        x, m, v = state.reshape(3, -1)
        g = np.asarray(work.loss.slopes(x))
        # A trial stage may make v negative; a NaN shortens the step.
        with np.errstate(invalid="ignore"):
            root = np.sqrt(v / (1 - b2 * np.exp(-b * time)))
        update = m / (1 - b1 * np.exp(-a * time)) / (root + work.eps)
        return np.concatenate([-work.learning_rate * update, a * (g - m), b * (g**2 - v)])

    start = work.first_states[lane].reshape(-1, 3).T.ravel()
    solution = scipy.integrate.solve_ivp(
        slope, (0, work.steps), start, method="DOP853", rtol=1e-8, atol=1e-14
    )
    return solution.y[: len(work.loss.start), -1]
