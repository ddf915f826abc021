"""What `derivatives` measures: the final loss of flow and optimizer, differentiated in five ways.

Coordinates of a derivative are ln η, ln(1 − b1), ln(1 − b2), ln λ and the distance along a
direction of the initial parameters: relative changes, so that no kind has a unit of its own. With
1 − b = cη the derivative by ln(1 − b) at fixed η is that by ln c, which stays where η → 0.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

import ct_adam as ct
from ct_adam.problems.base import LossProblem
from ct_adam.problems.registry import CURVATURES

from ._jackknife import half_width, left_out

KINDS = ("learning rate", "b1", "b2", "weight decay", "start")
STEP = float(np.finfo(float).eps ** (1 / 3))
"""Of central differences: their error h²/6·f''' and the rounding ε/h of the loss are then both
ε^{2/3} = 4e-11 times numbers of order 1 (all coordinates are relative changes)."""
RTOL = 1e-9
"""Of the flows: errors of at most 1e-6 in derivatives (tests/test_derivatives.py)."""
BUDGET = 2**17
"""Solver steps, the same for all runs, which so share one program."""


class Ripple(eqx.Module):
    """½ Σ h (Qx)² + Σ cos 2x with the curvatures of EQUATIONS §1 and a rotation Q."""

    rotation: Float[Array, "4 4"]

    def __call__(self, x: Float[Array, " 4"]) -> Float[Array, ""]:
        quadratic = jnp.sum(jnp.asarray(CURVATURES) * (self.rotation @ x) ** 2) / 2
        return quadratic + jnp.sum(jnp.cos(2 * x))


class Problem(NamedTuple):
    """Random problems side by side: all but the title have a leading axis `seed`."""

    title: str
    loss: LossProblem
    params: PyTree
    direction: PyTree
    """of unit length"""

    @property
    def lanes(self) -> tuple[PyTree, PyTree, PyTree]:
        return self.loss, self.params, self.direction


def ripples(seeds: Sequence[int]) -> Problem:
    """Rotation, start and direction drawn anew for each seed."""

    def draw(seed: int) -> tuple[PyTree, PyTree, PyTree]:
        rng = np.random.default_rng(seed)
        rotation = np.linalg.qr(rng.standard_normal((4, 4)))[0]
        params, direction = jnp.asarray(rng.standard_normal((2, 4)))
        return LossProblem(Ripple(jnp.asarray(rotation))), params, _unit(direction)

    return Problem("ripple, 4 parameters", *_stacked([draw(seed) for seed in seeds]))


def digits(seeds: Sequence[int], hidden: int, images: int) -> Problem:
    """Initial weights and direction drawn anew; tanh and squared error."""

    def draw(seed: int) -> tuple[PyTree, PyTree, PyTree]:
        loss, params = ct.problems.digits_mlp((hidden,), images, seed, criterion="squared")
        rng = np.random.default_rng([seed, 1])
        direction = jax.tree.map(lambda leaf: jnp.asarray(rng.standard_normal(leaf.shape)), params)
        return loss, params, _unit(direction)

    return Problem(f"digits MLP 64-{hidden}-10", *_stacked([draw(seed) for seed in seeds]))


def _unit(tree: PyTree) -> PyTree:
    length = jnp.sqrt(sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(tree)))
    return jax.tree.map(lambda leaf: leaf / length, tree)


def _stacked(draws: list[tuple[PyTree, PyTree, PyTree]]) -> tuple[PyTree, PyTree, PyTree]:
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *draws)


class Point(NamedTuple):
    """Where derivatives are taken."""

    learning_rate: Any
    b1: Any
    b2: Any
    eps: float
    weight_decay: Any

    def flow(self, at: Float[Array, " 5"]) -> ct.AdamFlow:
        """The flow at coordinates `at`, 0 being this point."""
        by = jnp.exp(at)
        return ct.AdamFlow(
            self.learning_rate * by[0],
            1 - (1 - self.b1) * by[1],
            1 - (1 - self.b2) * by[2],
            self.eps,
            self.weight_decay * by[3],
        )


Lane = tuple[PyTree, PyTree, PyTree]
Curve = Callable[[Float[Array, " 5"]], Any]


def _moved(lane: Lane, at: Float[Array, " 5"]) -> tuple[PyTree, PyTree]:
    loss, params, direction = lane
    return loss, jax.tree.map(lambda p, d: p + at[4] * d, params, direction)


def losses_of_flow(
    point: Point,
    lane: Lane,
    saves: np.ndarray,
    at: Array,
    *,
    adjoint: Any,
    rtol: float,
    solver: Any,
) -> tuple[Float[Array, " saves"], Array]:
    """Losses at `saves`, NaN where the flow did not get there; and its gradient evaluations."""
    solved = ct.solve(
        point.flow(at), *_moved(lane, at), int(saves[-1]), save_steps=saves, solver=solver,
        adjoint=adjoint, rtol=rtol, atol=rtol / 100, max_solver_steps=BUDGET, throw=False,
    )  # fmt: skip
    okay = solved.result == ct.OUTCOME.successful
    # Times NaN, not NaN in its place: the derivative shall be NaN too.
    return solved.loss * jnp.where(okay, 1, jnp.nan), solved.stats["evaluations"]


def losses_of_run(point: Point, lane: Lane, saves: np.ndarray, at: Array) -> Array:
    """The same of the flow's own optimizer."""
    ran = ct.run(point.flow(at), *_moved(lane, at), int(saves[-1]), save_steps=saves)
    return ran.loss


def measure(point: Point, problem: Problem, steps: int) -> dict[str, np.ndarray]:
    """Derivatives of the final loss, (seed, kind) each, and evaluations, (seed,).

    `reverse` and `forward` are of the flow, `loose` too, at a hundredfold tolerance; `difference`
    and `discrete` of the optimizer, by central differences and by differentiation of its steps.
    """
    saves = np.array([steps])

    def flow(lane: Lane, adjoint: Any, rtol: float) -> Curve:
        def curve(at: Array) -> tuple[Array, Array]:
            ended, spent = losses_of_flow(
                point, lane, saves, at, adjoint=adjoint, rtol=rtol, solver=diffrax.Dopri8()
            )
            return ended[0], spent

        return curve

    def reverse(rtol: float, *lane: PyTree) -> tuple[Array, Array]:
        return jax.grad(flow(lane, None, rtol), has_aux=True)(ORIGIN)

    def forward(*lane: PyTree) -> Array:
        return jax.jacfwd(flow(lane, diffrax.ForwardMode(), RTOL), has_aux=True)(ORIGIN)[0]

    def differences(*lane: PyTree) -> Array:
        ends = jnp.concatenate([jnp.eye(5), -jnp.eye(5)]) * STEP
        values = jax.vmap(lambda at: losses_of_run(point, lane, saves, at)[0])(ends)
        return (values[:5] - values[5:]) / (2 * STEP)

    def discrete(*lane: PyTree) -> Array:
        return jax.jacfwd(lambda at: losses_of_run(point, lane, saves, at)[0])(ORIGIN)

    derivative, spent = jax.vmap(partial(reverse, RTOL))(*problem.lanes)
    found = {
        "reverse": derivative,
        "forward": jax.vmap(forward)(*problem.lanes),
        "loose": jax.vmap(partial(reverse, 100 * RTOL))(*problem.lanes)[0],
        "difference": jax.vmap(differences)(*problem.lanes),
        "discrete": jax.vmap(discrete)(*problem.lanes),
        "evaluations": spent,
    }
    return {name: np.asarray(value) for name, value in found.items()}


ORIGIN = jnp.zeros(5)


class Smoothed(NamedTuple):
    """The slope of a straight line through losses over a wide window, and its standard error."""

    slope: np.ndarray
    error: np.ndarray


def smoothed(at: np.ndarray, losses: np.ndarray) -> Smoothed:
    """Least squares over the first axis: a difference with a large step, less noisy than one of
    two points. `at` is centred about 0, evenly spaced."""
    weight = at / np.sum(at**2)
    slope = np.tensordot(weight, losses, 1)
    rest = losses - losses.mean(0) - at.reshape(-1, *[1] * (losses.ndim - 1)) * slope
    variance = np.sum(rest**2, 0) / (len(at) - 2)
    return Smoothed(slope, np.sqrt(variance / np.sum(at**2)))


def over_horizon(
    point: Point,
    problem: Problem,
    saves: np.ndarray,
    kinds: tuple[int, ...],
    width: float,
    runs: int,
) -> dict[str, np.ndarray]:
    """By (seed, step) the losses, by (seed, kind, step) the derivatives of both sides and the
    optimizer's smoothed one, over relative changes of up to `width`."""
    axes = jnp.eye(5)[jnp.asarray(kinds)]
    window = np.linspace(-width, width, runs)

    def flow(*lane: PyTree) -> tuple[Array, Array, Array]:
        def curve(at: Array) -> tuple[Array, tuple[Array, Array]]:
            path, spent = losses_of_flow(
                point, lane, saves, at @ axes, adjoint=diffrax.ForwardMode(), rtol=1e-6,
                solver=diffrax.Tsit5(),
            )  # fmt: skip
            return path, (path, spent)

        slopes, (path, spent) = jax.jacfwd(curve, has_aux=True)(jnp.zeros(len(kinds)))
        return path, slopes.T, spent

    def run(*lane: PyTree) -> tuple[Array, Array]:
        def curve(at: Array) -> tuple[Array, Array]:
            path = losses_of_run(point, lane, saves, at @ axes)
            return path, path

        slopes, path = jax.jacfwd(curve, has_aux=True)(jnp.zeros(len(kinds)))
        return path, slopes.T

    def around(*lane: PyTree) -> Array:
        ends = jnp.asarray(window)[:, None, None] * axes  # (run, kind, 5)
        return jax.vmap(jax.vmap(partial(losses_of_run, point, lane, saves)))(ends)

    flow_loss, by_flow, spent = jax.vmap(flow)(*problem.lanes)
    loss, by_run = jax.vmap(run)(*problem.lanes)
    mean = smoothed(window, np.moveaxis(np.asarray(jax.vmap(around)(*problem.lanes)), 1, 0))
    found = {
        "flow_loss": flow_loss, "loss": loss, "flow": by_flow, "discrete": by_run,
        "smoothed": mean.slope, "smoothed_error": mean.error, "evaluations": spent,
    }  # fmt: skip
    return {name: np.asarray(value) for name, value in found.items()}


class Slope(NamedTuple):
    """d ln error/d ln η with its 95 % interval."""

    value: np.ndarray
    low: np.ndarray
    high: np.ndarray


def slopes(learning_rates: np.ndarray, errors: Float[np.ndarray, "seed eta kind"]) -> Slope:
    """Of the root mean square over the seeds, by kind; the interval is the jackknife's.

    Of the mean, not seed by seed: an error may pass through 0 on one problem by accident, where it
    has no slope, but not on all.
    """

    def fit(square: np.ndarray) -> np.ndarray:
        return np.polyfit(np.log(learning_rates), np.log(np.sqrt(square)), 1)[0]

    found = left_out(errors**2, fit)
    value, half = found[0], half_width(found)
    return Slope(value, value - half, value + half)
