"""What `edge_of_stability` measures of one optimizer and one seed."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Float, PyTree

import ct_adam as ct
from ct_adam.diagnostics import preconditioned_sharpness
from ct_adam.problems import AbstractProblem
from ct_adam.simulate import Trajectory
from ct_adam.simulate.discrete import warm_state
from ct_adam.simulate.trajectory import outcome_name
from ct_adam.simulate.trust import VERDICT
from ct_adam.theory import stability_edge

from ._paths import Rows, rows

Preconditioner = Callable[[PyTree, PyTree], PyTree]
"""`preconditioner(state, params)`: what the step that led to `state` divided its direction by."""

LIMIT = 0.1
"""A flow has ended where its error exceeds this part of the distance travelled."""
FLOWS = ("stride 1", "stride 2")
WHERE = ("optimizer", "optimizer's centre", "flow's centre")


def none(state: PyTree, params: PyTree) -> PyTree:
    """Gradient descent has no preconditioner: the identity."""
    del state
    return jax.tree.map(jnp.ones_like, params)


def root_of_second_moment(decay: float, eps: float, inside: bool) -> Preconditioner:
    """√v̂ + eps (`inside`: √(v̂ + eps)) of an optax state with `nu` and `count`."""

    def root(state: PyTree, params: PyTree) -> PyTree:
        del params
        second, count = (optax.tree_utils.tree_get(state, name) for name in ("nu", "count"))
        corrected = jax.tree.map(lambda v: v / (1 - decay**count), second)
        if inside:
            return jax.tree.map(lambda v: jnp.sqrt(v + eps), corrected)
        return jax.tree.map(lambda v: jnp.sqrt(v) + eps, corrected)

    return root


class Case(NamedTuple):
    """An optimizer on its way past the edge."""

    title: str
    optimizer: optax.GradientTransformation
    preconditioner: Preconditioner
    learning_rate: float
    b1: float
    warm_steps: int
    steps: int
    order: int
    """of the flow with stride 2; that with stride 1 has order 2, which damps all modes"""

    @property
    def threshold(self) -> float:
        """Of sharpness times η."""
        return self.learning_rate * stability_edge(self.learning_rate, self.b1)

    def flow(self, name: str) -> "WatchedFlow":
        order, stride = (2, 1) if name == "stride 1" else (self.order, 2)
        return WatchedFlow(self.optimizer, order, stride, self.preconditioner)


# Made once: a new transformation would be compiled anew for each seed.
CASES = {
    "gd": Case("gradient descent\nη = 0.08", optax.sgd(0.08), none, 0.08, 0.0, 260, 1200, 6),
    "rmsprop": Case(
        "RMSProp, decay 0.99\nη = 0.003",
        optax.rmsprop(3e-3, decay=0.99, bias_correction=True),
        root_of_second_moment(0.99, 1e-8, inside=True),
        *(3e-3, 0.0, 100, 300, 6),
    ),
    "adam": Case(
        "Adam, b2 = 0.999\nη = 0.02, b1 = 0.9",
        optax.adam(0.02),
        root_of_second_moment(0.999, 1e-8, inside=False),
        *(0.02, 0.9, 300, 600, 3),
    ),
    "adam_spike": Case(
        "Adam, b2 = 0.99\nη = 0.02, b1 = 0.9",
        optax.adam(0.02, b2=0.99),
        root_of_second_moment(0.99, 1e-8, inside=False),
        *(0.02, 0.9, 300, 600, 3),
    ),
}


class WatchedFlow(ct.InterpolatingFlow):
    """Tells the preconditioner of each step in place of the update.

    `ct.solve` saves parameters and update, not the optimizer's state.
    """

    preconditioner: Preconditioner = eqx.field(static=True)

    def __init__(
        self,
        optimizer: optax.GradientTransformation,
        order: int,
        stride: int,
        preconditioner: Preconditioner,
    ):
        super().__init__(optimizer, order, stride)
        self.preconditioner = preconditioner

    def update(self, step: Any, state: Any, loss: Any) -> PyTree:
        return self.preconditioner(self.next(step, state, loss).optimizer, state.params)


@eqx.filter_jit
def preconditioners(
    flow: WatchedFlow, problem: AbstractProblem, params: PyTree, warm_steps: int, count: int
) -> PyTree:
    """P of each of `count` discrete steps, those after the warm ones."""
    state = warm_state(flow, problem, params, warm_steps)
    return flow.onwards(warm_steps, state, problem, flow.update, count)


def measure(case: Case, seed: int, steps: int, points: np.ndarray, budget: int) -> Iterator[dict]:
    """Three parts of a row of the dataset: the optimizer's, and that of each flow.

    `points`: the even steps at which the sharpness is taken.
    """
    problem, params = ct.problems.digits_mlp(
        (16,), images=300, activation=jnp.tanh, criterion="squared", seed=seed
    )
    warm = case.warm_steps
    discrete = ct.run(case.optimizer, problem, params, steps, warm_steps=warm)
    path = rows(discrete.params)
    divisors = preconditioners(case.flow("stride 2"), problem, params, warm, steps)
    yield _of_optimizer(case, problem, discrete, divisors, points)
    for name in FLOWS:
        solved = ct.solve(
            case.flow(name),
            problem,
            params,
            steps,
            save_steps=np.arange(steps + 1),
            warm_steps=warm,
            max_solver_steps=budget,
            rtol=1e-6,
            atol=1e-9,
            throw=False,
        )
        row: dict[str, Any] = {name: followed(solved, path)}
        if name == "stride 2":
            row |= _of_centre(case, problem, solved, points)
        yield row


def _of_optimizer(
    case: Case, problem: AbstractProblem, run: Trajectory, divisors: PyTree, points: np.ndarray
) -> dict[str, Any]:
    path, centres = rows(run.params), at(centre(run.params), points // 2)
    here, middle = (
        case.learning_rate * sharpness(problem, params, divisors, points)
        for params in (at(run.params, points), centres)
    )
    return {
        "loss": np.asarray(run.loss),
        "half_extent": {"optimizer": half_extent(path)},
        "oscillation": {"optimizer": oscillation(path)},
        "sharpness": {"optimizer": here, "optimizer's centre": middle},
    }


def _of_centre(
    case: Case, problem: AbstractProblem, flow: Trajectory, points: np.ndarray
) -> dict[str, Any]:
    path, between = rows(flow.params), centre(flow.params)
    curved = sharpness(problem, at(between, points // 2), flow.update, points)
    return {
        "half_extent": {"flow": half_extent(path)},
        "oscillation": {"flow": oscillation(path)},
        "sharpness": {"flow's centre": case.learning_rate * curved},
        "centre_loss": np.asarray(jax.vmap(problem.value)(between)),
    }


def at(tree: PyTree, which: Any) -> PyTree:
    return jax.tree.map(lambda leaf: leaf[which], tree)


def centre(params: PyTree) -> PyTree:
    """(θ_n + θ_{n+1})/2 of the even n that have a successor."""
    return jax.tree.map(lambda leaf: (leaf[:-1:2] + leaf[1::2]) / 2, params)


def half_extent(path: Rows) -> Float[np.ndarray, " pairs"]:
    """‖(θ_n − θ_{n+1})/2‖_∞ of the even n: the oscillation and half a step of the drift."""
    return np.abs(path[:-1:2] - path[1::2]).max(axis=1) / 2


def oscillation(path: Rows) -> Float[np.ndarray, " pairs"]:
    """‖(θ_n − 2θ_{n+1} + θ_{n+2})/4‖_∞ of the even n: the half extent without the drift.

    That is most of Adam's half extent, whose steps have the size of η with or without oscillation.
    """
    return np.abs(path[:-2:2] - 2 * path[1:-1:2] + path[2::2]).max(axis=1) / 4


def sharpness(
    problem: AbstractProblem, params: PyTree, divisors: PyTree, points: np.ndarray
) -> Float[np.ndarray, " points"]:
    """Preconditioned sharpness at `params[i]` with P of step `points[i]`; NaN where there is
    nothing, since a flow did not get there."""
    found = np.full(len(points), np.nan)
    here = at(divisors, points)
    reached = np.isfinite(rows(params)).all(1) & np.isfinite(rows(here)).all(1)
    for i in np.flatnonzero(reached):
        found[i] = preconditioned_sharpness(problem, at(params, i), at(here, i))
    return found


def followed(flow: Trajectory, path: Rows) -> dict[str, Any]:
    """How a flow followed the optimizer's `path`, over the distance that this travelled."""
    travelled = np.abs(path - path[0]).max()
    with np.errstate(invalid="ignore", over="ignore"):
        error = np.abs(rows(flow.params) - path).max(axis=1) / travelled
    assert flow.trust is not None
    return {
        "error": error,
        "flow_loss": np.asarray(flow.loss),
        "end_step": end_step(error),
        "max_error": float(np.where(np.isfinite(error), error, np.inf).max()),
        "final_error": float(error[-1]) if np.isfinite(error[-1]) else np.inf,
        "solver_steps": int(flow.stats["num_steps"]),
        "evaluations": int(flow.stats["evaluations"]),
        "estimate": float(flow.trust.estimate),
        "verdict": verdict_name(flow.trust.verdict),
        "outcome": outcome_name(flow.result),
    }


def end_step(error: Float[np.ndarray, " steps"]) -> float:
    """The first step with an error above `LIMIT`, or that the flow did not reach; NaN for none."""
    ended = ~(error <= LIMIT)
    return float(np.argmax(ended)) if ended.any() else float("nan")


def verdict_name(verdict: Any) -> str:
    """The identifier of a verdict, e.g. `"trusted"`."""
    names = VERDICT._name_to_item  # pyright: ignore[reportAttributeAccessIssue]
    return next(name for name in names if bool(verdict == getattr(VERDICT, name)))
