"""A network: many lanes of a small one, and one long path of a transformer as η goes to 0."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache, partial
from itertools import pairwise
from typing import Any, NamedTuple

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import scipy.integrate
import xarray  # noqa: F401 (imported here, so that no contender's first call pays for it)
from jax.flatten_util import ravel_pytree
from jaxtyping import PyTree

import ct_adam as ct
from ct_adam.problems import digits_mlp
from ct_adam.problems.digits import digits_data
from ct_adam.simulate.controllers import default_controller

from .output import finish, print_rows, report
from .peers import jax_peer, ours, torch_peer
from .race import LADDER, Contender, entered, need, race
from .timing import compile_seconds, interleave
from .workloads import FlowLanes, Lanes, Loss, square

HIDDEN = 32
IMAGES = 64
SIZES = (64, HIDDEN, 10)
DISCRETE_ERROR = 1e-9  # the same arithmetic in another order
FLOW_ERROR = 1e-4
TOLERANCES = LADDER[4:]  # from 1e-2


def main(quick: bool) -> None:
    reports = [discrete(quick), flow(quick), trajectory(quick)]
    finish("network", quick, reports)


# Many lanes of the digits MLP


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


# One path of a transformer

DECAYS = (0.9, 0.99)
RTOL = 1e-4
BUDGET = 2**20  # the same for all learning rates: diffrax compiles it in


class Path(NamedTuple):
    """Where a run ended, and how many gradients it took; the plain ones do not count theirs."""

    params: PyTree
    gradients: Any


def trajectory(quick: bool) -> dict[str, Any]:
    """The same stretch T = ηn at ever smaller learning rates: what a flow costs beside Adam."""
    stretch, rates, rounds = (0.02, (1e-3, 3e-4), 3) if quick else (0.09, (1e-3, 3e-4, 1e-4), 5)
    text, problem, params = transformer()
    rows = [
        row
        for eta in rates
        for row in measured_paths(problem, params, eta, round(stretch / eta), rounds)
    ]
    numbers = len(ravel_pytree(params)[0])
    title = (
        f"One path of a transformer ({numbers} parameters, one batch of {text}) over ηn = "
        f"{stretch:g}, decays {DECAYS}, rtol {RTOL:g}"
    )
    print(f"\n{title}", flush=True)
    heading = [
        "η",
        "steps",
        "who",
        "median",
        "compile",
        "gradients",
        "of Adam's",
        "|θ - Adam|/η",
        "median",
    ]
    print_rows(heading, map(_path_row, rows))
    return {"title": title, "kind": "trajectory", "rows": rows}


def transformer() -> tuple[str, Any, PyTree]:
    """On one batch: between whole steps a flow has nothing else to look at."""
    text = "python_topics"  # comes with Python
    problem, params = ct.problems.text_network(text, context=16, batch=4)
    return text, ct.problems.full_batch(problem.loss, problem.batch(0)), params


def measured_paths(
    problem: Any, params: PyTree, eta: float, steps: int, rounds: int
) -> list[dict[str, Any]]:
    """One row a contender, with the distance from `ct.run`'s end."""
    runs = {
        "ct.run": partial(by_run, problem, params, eta, steps),
        "optax scan": by_scan(problem, params, eta, steps),
        "ct.solve": partial(by_solve, problem, params, eta, steps),
        "diffrax": partial(by_diffrax, problem, params, eta, steps),
    }
    compiling, ends = {}, {}
    for name, run in runs.items():
        compiling[name] = compile_seconds(run, run)
        ends[name] = run()
    times = dict(zip(runs, interleave(list(runs.values()), rounds), strict=True))
    adam = ends["ct.run"]
    return [
        {
            "learning_rate": eta,
            "steps": steps,
            "name": name,
            "median_s": float(np.median(times[name])),
            "rounds_s": times[name],
            # JSON has no NaN.
            "compile_s": compiling[name] if np.isfinite(compiling[name]) else None,
            "gradients": int(end.gradients),
            "gradients_of_adam": float(end.gradients) / steps,
            "distance_in_eta": float(jnp.max(_apart(end.params, adam.params))) / eta,
            "median_distance_in_eta": float(jnp.median(_apart(end.params, adam.params))) / eta,
            "travelled_in_eta": float(jnp.max(_apart(end.params, params))) / eta,
        }
        for name, end in ends.items()
    ]


def _path_row(row: dict[str, Any]) -> list[str]:
    compiling = "in noise" if row["compile_s"] is None else f"{row['compile_s']:.2f} s"
    return [
        f"{row['learning_rate']:g}",
        str(row["steps"]),
        row["name"],
        f"{1e3 * row['median_s']:.4g} ms",
        compiling,
        str(row["gradients"]),
        f"{row['gradients_of_adam']:.2f}x",
        f"{row['distance_in_eta']:.3g}",
        f"{row['median_distance_in_eta']:.3g}",
    ]


def _apart(one: PyTree, other: PyTree) -> jax.Array:
    return jnp.abs(ravel_pytree(one)[0] - ravel_pytree(other)[0])


def by_run(problem: Any, params: PyTree, eta: float, steps: int) -> Path:
    # A flow stands for its optimizer; unlike a new optimizer, a new flow compiles nothing anew.
    found = ct.run(ct.AdamFlow(eta, *DECAYS), problem, params, steps, save_steps=[steps])
    return jax.block_until_ready(Path(_last(found.params), found.stats["evaluations"]))


def by_solve(problem: Any, params: PyTree, eta: float, steps: int) -> Path:
    found = ct.solve(
        ct.AdamFlow(eta, *DECAYS), problem, params, steps, save_steps=[steps], rtol=RTOL,
        atol=1e-3 * RTOL, max_solver_steps=BUDGET,
    )  # fmt: skip
    return jax.block_until_ready(Path(_last(found.params), found.stats["evaluations"]))


def by_scan(problem: Any, params: PyTree, eta: float, steps: int) -> Callable[[], Path]:
    """What one writes without this package."""
    method = optax.adam(eta, *DECAYS)
    final = jax.jit(lambda params: jax_peer.scanned(method, problem.value, params, steps))
    return lambda: jax.block_until_ready(Path(final(params), steps))


def by_diffrax(problem: Any, params: PyTree, eta: float, steps: int) -> Path:
    """Nothing saved but the end, and nothing prepared for derivatives."""
    return jax.block_until_ready(
        _by_diffrax(problem, params, jnp.asarray(eta), jnp.asarray(1.0 * steps))
    )


@eqx.filter_jit
def _by_diffrax(problem: Any, params: PyTree, eta: Any, end: Any) -> Path:
    method = ct.AdamFlow(eta, *DECAYS)
    solution = diffrax.diffeqsolve(
        diffrax.ODETerm(method.vector_field),  # pyright: ignore[reportArgumentType]
        diffrax.Tsit5(),
        0.0,
        end,
        None,
        method.init(problem, params),
        problem,
        stepsize_controller=default_controller(method, RTOL, 1e-3 * RTOL, float, end),
        adjoint=diffrax.ForwardMode(),
        max_steps=BUDGET,
    )
    assert solution.ys is not None
    # Six a step, for Tsit5's last is the next one's first, and the first step's own.
    return Path(_last(solution.ys.params), 6 * solution.stats["num_steps"] + 1)


def _last(params: PyTree) -> PyTree:
    return jax.tree.map(lambda leaf: leaf[-1], params)
