"""What `regimes` measures: the end of long runs over (b1, b2), one lane a pair."""

from functools import partial
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, Int, PyTree

import ct_adam as ct
from ct_adam.optimizers import Optimizer, optimizer_step
from ct_adam.problems import AbstractProblem
from ct_adam.problems.base import LossProblem
from ct_adam.problems.registry import CURVATURES, START
from ct_adam.sweep import axes
from ct_adam.theory import REGIME, regime, spectral_radius, stability_edge
from ct_adam.theory.regimes import SIGN, SPIKE, STILL

Cells = Float[np.ndarray, "b1 b2"]
DEGREE = 4
"""Of the flat minimum."""

SETTLED = 10**6
"""Gradients that a settled optimizer counts: its bias factors are 1 to e^{-100} at b = 0.9999."""


class Power(eqx.Module):
    """Σ x^k/k, k even: a minimum without curvature for k > 2."""

    degree: int = eqx.field(static=True)

    def __call__(self, x: Float[Array, " d"]) -> Float[Array, ""]:
        return jnp.sum(x**self.degree) / self.degree


class Problem(NamedTuple):
    """A loss, where runs of it start, and its name in figures."""

    title: str
    loss: AbstractProblem
    params: PyTree


def rotated_quadratic() -> Problem:
    # Rotated: with a diagonal one and little eps, Adam runs in every coordinate alike.
    loss = ct.problems.quadratic(CURVATURES, rotation_seed=0)
    return Problem("quadratic, curvatures 1, 3, 10, 30", loss, jnp.array(START))


def power(degree: int) -> Problem:
    return Problem(f"|x|^{degree}", LossProblem(Power(degree)), jnp.ones(1))


def digits(hidden: int, images: int) -> Problem:
    loss, params = ct.problems.digits_mlp((hidden,), images, criterion="squared")
    return Problem(f"digits MLP 64-{hidden}-10, {images} images", loss, params)


class Setting(NamedTuple):
    """What a map holds fixed."""

    learning_rate: float
    eps: float
    weight_decay: float = 0.0

    def optimizer(self, b1: Any, b2: Any) -> Optimizer:
        return ct.adamw(self.learning_rate, b1, b2, self.eps, self.weight_decay)


def centres(cells: int) -> Float[np.ndarray, " cells"]:
    """Of equal cells of (0, 1)."""
    return axes.cells(0, 1, cells).columns[axes.OWN]


def last_part(steps: int) -> int:
    """How many of a run's steps are looked at."""
    return max(16, steps // 10)


class Ends(NamedTuple):
    """The ends of runs, by lane: the last steps' losses and moves ‖Δθ‖_∞/η, the last parameters and
    what their updates are divided by, √v̂ + eps."""

    losses: Float[Array | np.ndarray, "lanes window"]
    moves: Float[Array | np.ndarray, "lanes window"]
    params: PyTree
    divisor: PyTree


def late_runs(
    setting: Setting,
    problem: Problem,
    cells: int,
    steps: int,
    window: int,
    settled: bool = False,
    block: int = 1024,
) -> Ends:
    """Runs over cells × cells pairs, b1 first, seen at the last `window` of `steps` steps.

    `settled`: the optimizer begins with bias factors of 1 and the moments g, g² of where it
    stands, as it does at a fixed point.
    """
    b1, b2 = (x.ravel() for x in np.meshgrid(centres(cells), centres(cells), indexing="ij"))
    run = jax.jit(jax.vmap(partial(_late_run, setting, problem, steps, window, settled)))
    parts = [run(b1[at : at + block], b2[at : at + block]) for at in range(0, len(b1), block)]
    return jax.tree.map(lambda *leaves: np.concatenate(leaves), *parts)


def _late_run(
    setting: Setting, problem: Problem, steps: int, window: int, settled: bool, b1: Any, b2: Any
) -> Ends:
    optimizer, loss = setting.optimizer(b1, b2), problem.loss
    state = optimizer.init(problem.params)
    if settled:
        gradient = loss.gradient(0, problem.params)
        square = jax.tree.map(jnp.square, gradient)
        state = optax.tree_utils.tree_set(state, count=SETTLED, m=gradient, v=square)

    def step(carry: Any, n: Array) -> tuple[Any, tuple[Array, Array]]:
        params, state = carry
        after, state, delta = optimizer_step(optimizer, loss, n, params, state)
        move = jnp.max(jnp.abs(ravel_pytree(delta)[0])) / setting.learning_rate
        return (after, state), (loss.value(params), move)

    def blindly(n: Array, carry: Any) -> Any:
        return step(carry, n)[0]

    carry = jax.lax.fori_loop(0, steps - window, blindly, (problem.params, state))
    (params, state), seen = jax.lax.scan(step, carry, jnp.arange(steps - window, steps))
    second, count = (optax.tree_utils.tree_get(state, name) for name in ("v", "count"))
    divisor = jax.tree.map(lambda v: jnp.sqrt(v / (1 - b2**count)) + setting.eps, second)
    return Ends(*seen, params, divisor)


def regimes_of(ends: Ends, problem: Problem) -> Int[np.ndarray, "b1 b2"]:
    """The regime of every pair."""
    cells = round(len(ends.losses) ** 0.5)
    start = float(problem.loss.value(problem.params))
    return regime(ends.losses, ends.moves, start).reshape(cells, cells)


THRESHOLDS = {"still": STILL, "sign": SIGN, "spike": SPIKE}
FACTORS = (0.5, 2.0)
"""By which thresholds of the criterion are moved, to see how many pairs change their name."""


def sensitivity(ends: Ends, problem: Problem, factor: float) -> Float[np.ndarray, " threshold"]:
    """The part of the pairs that get another name with a threshold times `factor`."""
    start = float(problem.loss.value(problem.params))
    plain = regime(ends.losses, ends.moves, start)
    moved = [
        regime(ends.losses, ends.moves, start, **{name: factor * value}) != plain
        for name, value in THRESHOLDS.items()
    ]
    return np.mean(moved, axis=1)


def edge_ratio(setting: Setting, problem: Problem, ends: Ends, cells: int) -> Cells:
    """The preconditioned sharpness at the end of every run over the edge of stability."""

    def sharpness(params: PyTree, divisor: PyTree) -> Array:
        flat, unravel = ravel_pytree(params)
        hessian = jax.hessian(lambda x: problem.loss.value(unravel(x)))(flat)
        root = jnp.sqrt(ravel_pytree(divisor)[0])
        return jnp.linalg.eigvalsh(hessian / root[:, None] / root[None, :])[-1]

    found = np.asarray(jax.lax.map(lambda lane: sharpness(*lane), (ends.params, ends.divisor)))
    edges = [stability_edge(setting.learning_rate, float(b1)) for b1 in centres(cells)]
    return found.reshape(cells, cells) / np.array(edges)[:, None]


def regime_map(
    problem: Problem, setting: Setting, cells: int, steps: int, edge: bool
) -> dict[str, np.ndarray]:
    """Regimes of all pairs, the losses of one run of each, and the `sensitivity` by factor; with
    `edge` their `edge_ratio`."""
    ends = late_runs(setting, problem, cells, steps, last_part(steps))
    regimes = regimes_of(ends, problem)
    kinds = np.unique(regimes)
    alike = [np.flatnonzero(regimes.ravel() == kind) for kind in kinds]
    lanes = [lane[len(lane) // 2] for lane in alike]
    factors = [sensitivity(ends, problem, factor) for factor in FACTORS]
    found = {"regime": regimes, "kinds": kinds, "examples": np.asarray(ends.losses)[lanes]}
    found["moved"] = np.array(factors)
    if edge:
        found["edge_ratio"] = edge_ratio(setting, problem, ends, cells)
    return found


class FixedPoint(NamedTuple):
    """AdamW's in one coordinate of curvature h whose minimum lies at a: θ* and g* = h(θ* − a)."""

    theta: float
    gradient: float


def fixed_point(curvature: float, minimum: float, setting: Setting) -> FixedPoint:
    """Where g/(|g| + eps) + λθ = 0."""
    from scipy.optimize import brentq

    def excess(theta: float) -> float:
        g = curvature * (theta - minimum)
        return g / (abs(g) + setting.eps) + setting.weight_decay * theta

    if minimum == 0:
        return FixedPoint(0.0, 0.0)
    theta = float(brentq(excess, 0.0, minimum, xtol=1e-15, rtol=1e-15))  # pyright: ignore[reportArgumentType]
    return FixedPoint(theta, curvature * (theta - minimum))


def radius_map(minimum: float, setting: Setting, cells: int) -> Cells:
    """The spectral radius at the fixed point of the quadratic of `CURVATURES`, diagonal."""
    b1, b2 = np.meshgrid(centres(cells), centres(cells), indexing="ij")
    radii = [
        spectral_radius(h, fixed_point(h, minimum, setting).gradient, setting.learning_rate,
                        b1, b2, setting.eps, setting.weight_decay)
        for h in CURVATURES
    ]  # fmt: skip
    return np.max(radii, axis=0)


def local_stability(
    minimum: float, setting: Setting, cells: int, steps: int
) -> dict[str, np.ndarray]:
    """Linear theory beside long runs on the diagonal quadratic with its minimum at (a, …, a).

    Over (b1, b2): the `radius`; whether a disturbance of the settled optimizer `near` the fixed
    point fell to a tenth and less; whether a run from `far`, started as one starts, came to rest.
    """
    loss = ct.problems.quadratic(CURVATURES, minimum)
    points = jnp.array([fixed_point(h, minimum, setting).theta for h in CURVATURES])
    # So near that the update is linear in the disturbance: h |δ| ≪ √v + eps.
    away = 1e-6 * (setting.eps + abs(minimum)) / max(CURVATURES)
    starts = {"near": points + away, "far": jnp.array(START) if minimum == 0 else jnp.zeros(4)}
    rested = {}
    for name, start in starts.items():
        problem = Problem(name, loss, start)
        ends = late_runs(setting, problem, cells, steps, last_part(steps), settled=name == "near")
        if name == "near":
            left = np.abs(np.asarray(ends.params) - np.asarray(points)).max(axis=1)
            rested[name] = (left < away / 10).reshape(cells, cells)
        else:
            # L need not be below its start at the fixed point of AdamW: that is no divergence here.
            called = regime(ends.losses, ends.moves, np.inf).reshape(cells, cells)
            rested[name] = called == REGIME.converged
    return {"radius": radius_map(minimum, setting, cells), **rested}


def parts(problem: Problem, setting: Setting, cells: int, steps: int) -> dict[str, Any]:
    """Of the square: with a stable minimum, where runs come to rest, where they get down."""
    ends = late_runs(setting, problem, cells, steps, last_part(steps))
    start = float(problem.loss.value(problem.params))
    return {
        "stable": np.mean(radius_map(0.0, setting, cells) < 1),
        "rested": np.mean(regimes_of(ends, problem) == REGIME.converged),
        "low": np.mean(np.median(ends.losses, axis=1) < 1e-3 * start),
    }
