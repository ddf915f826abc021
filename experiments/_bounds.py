"""What `bounds` measures: the curves, streams under optimizer and flows, the cap by eps.

Ratios are |u| over a bound. A ratio's step n has seen n gradients, n = 1, 2, …
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from jaxtyping import Array, Float

import ct_adam as ct
from ct_adam import theory
from ct_adam.decays import rate
from ct_adam.problems import GradientStream

Ratios = Float[np.ndarray, "steps streams"]

QUANTILES = (0.5, 0.99, 1.0)
THRESHOLDS = np.geomspace(1e-3, 1, 91)
"""Ratios whose exceedance is counted."""
DEFAULT = (0.9, 0.999)

Draw = Callable[[np.random.Generator, tuple[int, int]], np.ndarray]
# Student's t has two degrees of freedom: no variance.
STREAMS: Mapping[str, Draw] = {
    "normal": lambda rng, shape: rng.standard_normal(shape),
    "mean 1": lambda rng, shape: 1 + rng.standard_normal(shape),
    "Student t": lambda rng, shape: rng.standard_t(2, shape),
    "sparse": lambda rng, shape: rng.standard_normal(shape) * (rng.random(shape) < 0.01),
}


def random_gradients(steps: int, size: int, seed: int) -> Float[np.ndarray, "steps streams"]:
    """`size` streams of each kind of `STREAMS` side by side."""
    rng = np.random.default_rng(seed)
    return np.concatenate([draw(rng, (steps, size)) for draw in STREAMS.values()], axis=1)


class Curve(NamedTuple):
    """A normal curve, the cosine of its angle with the level curve at each of its points, and where
    it crosses C = 0 and b2 = b1²."""

    b1: np.ndarray
    b2: np.ndarray
    cosine: np.ndarray
    crossings: Float[np.ndarray, "boundary 2"]
    cosine_discrete: float
    """with b2 = b1² where they cross"""


def normal_curve(b1: float, b2: float, num: int = 2001) -> Curve:
    """Angles by central differences, crossings by Brent's method on a spline through the curve."""
    from scipy.interpolate import CubicSpline
    from scipy.optimize import brentq

    b1s, b2s = (np.asarray(x) for x in theory.normal_curve(b1, b2, num))
    h = 1e-5
    slope = np.gradient(b2s, b1s)[1:-1]
    b1s, b2s, spline = b1s[1:-1], b2s[1:-1], CubicSpline(b1s, b2s)
    level = np.asarray(theory.stability_coefficient(b1s, b2s))
    up, down = (np.asarray(theory.level_curve(level, b1s + move)) for move in (h, -h))

    def crossing(rates: Any) -> tuple[float, float]:
        def coefficient(x: float) -> float:
            return float(theory.stability_coefficient(x, float(spline(x)), rates))

        found = float(brentq(coefficient, b1s[0], b1s[-1], xtol=1e-12))  # pyright: ignore[reportArgumentType]
        return found, float(spline(found))

    crossings = np.array([crossing("lag"), crossing("log")])
    at = crossings[1, 0]
    cosine_discrete = _cosine(np.asarray(spline(at, 1)), 2 * at)  # (b1²)' = 2 b1
    return Curve(b1s, b2s, _cosine(slope, (up - down) / (2 * h)), crossings, float(cosine_discrete))


def _cosine(slope: Any, other: Any) -> Any:
    return (1 + slope * other) / np.sqrt((1 + slope**2) * (1 + other**2))


def bound(b1: float, b2: float, steps: int, kind: Any, *which: Any) -> Float[np.ndarray, " steps"]:
    """After 1, 2, …, `steps` gradients."""
    return np.asarray(theory.update_bound(b1, b2, np.arange(1, steps + 1), kind, *which))


def optimizer_ratios(b1: float, b2: float, gradients: np.ndarray) -> Ratios:
    """Of the optimizer; the first column is that of its worst case, put before `gradients`."""
    steps = len(gradients)
    stream = _with_first(theory.worst_case_gradients(b1, b2, steps), gradients)
    # A flow stands for its optimizer. Its decays are data: one compiled program for all pairs.
    flow = ct.AdamFlow(1.0, b1, b2, eps=0.0)
    path = ct.run(flow, GradientStream(stream), jnp.zeros(stream.shape[1]), steps - 1)
    return np.abs(path.update) / bound(b1, b2, steps, "discrete")[:, None]


def _with_first(first: Any, others: np.ndarray) -> np.ndarray:
    return np.concatenate([np.asarray(first)[:, None], others], axis=1)


class FlowSide(NamedTuple):
    """A flow on held streams."""

    rates: Any
    start: Any

    @property
    def name(self) -> str:
        return f"{self.rates}, {self.start}"


FLOWS = (FlowSide("log", "first_step"), FlowSide("lag", "first_step"), FlowSide("lag", "zero"))


def flow_ratios(side: FlowSide, b1: float, b2: float, gradients: np.ndarray) -> dict[str, Ratios]:
    """Over `"held"`, `"flow"` and the paper's bound; the first column is the held worst case."""
    steps = len(gradients)
    worst = theory.worst_case_gradients(b1, b2, steps, "held", *side)
    stream = _with_first(worst, gradients)
    flow = ct.AdamFlow(1.0, b1, b2, eps=0.0, rates=side.rates, start=side.start)
    begun = jnp.zeros(stream.shape[1])
    path = ct.solve(
        flow, GradientStream(stream), begun, steps - 1, save_steps=np.arange(steps), rtol=1e-9
    )
    # From zero nothing has been seen at s = 0.
    update = np.abs(path.update)[int(side.start == "zero") :]
    kinds = {kind: bound(b1, b2, len(update), kind, *side) for kind in ("held", "flow")}
    kinds["continuous"] = bound(b1, b2, len(update), "continuous")
    return {kind: update / most[:, None] for kind, most in kinds.items()}


def _exponential(growth: Array, late: Array, step: Any) -> Array:
    return jnp.exp(growth * (step - late))[None]


def continuous_ratios(b1: float, b2: float, steps: int = 200) -> dict[str, np.ndarray]:
    """The `lag` flow from zero under its worst case e^{(a−b)s}, over its bound and the paper's.

    Not many more steps: where the paper's bound is exceeded most, v falls by e^{−1.8} a step.
    """
    growth = float(rate(b1, "lag") - rate(b2, "lag"))
    late = float(steps if growth > 0 else 0)  # the largest value is 1 at either end
    stream = ct.problems.ContinuousStream(
        Partial(_exponential, jnp.asarray(growth), jnp.asarray(late))
    )
    flow = ct.AdamFlow(1.0, b1, b2, eps=0.0, rates="lag", start="zero")
    path = ct.solve(flow, stream, jnp.zeros(1), steps, save_steps=np.arange(steps + 1), rtol=1e-9)
    update = np.abs(np.asarray(path.update))[1:, 0]
    return {
        "flow": update / bound(b1, b2, steps, "flow", "lag", "zero"),
        "continuous": update / bound(b1, b2, steps, "continuous"),
    }


def largest_excess(points: int = 200) -> tuple[float, float, int, float]:
    """(b1, b2, steps, ratio) where a `lag` flow from zero may exceed the paper's bound the most, as
    theory has it: over b1 from ½ to 0.999, all b2 and 1 to 10 gradients."""
    b1 = 1 - np.geomspace(0.5, 1e-3, points)
    b2 = np.linspace(0.01, 0.99, points)
    b1, b2, steps = np.meshgrid(b1, b2, np.arange(1, 11), indexing="ij")
    logs = [
        np.asarray(theory.update_bound(b1, b2, steps, kind, "lag", "zero", log=True))
        for kind in ("flow", "continuous")
    ]
    ratio = np.exp(logs[0] - logs[1])
    at = np.unravel_index(ratio.argmax(), ratio.shape)
    return float(b1[at]), float(b2[at]), int(steps[at]), float(ratio[at])


def quantiles_of(ratio: np.ndarray) -> Float[np.ndarray, " quantile"]:
    """Of the ratios that are not 0: a gradient that was never there says nothing."""
    return np.quantile(ratio[ratio > 0], QUANTILES)


def exceedance_of(ratio: np.ndarray) -> Float[np.ndarray, " threshold"]:
    """The part of them at or above each threshold."""
    seen = np.sort(ratio[ratio > 0])
    return 1 - np.searchsorted(seen, THRESHOLDS) / len(seen)


SIDES = ("optimizer", "log", "lag")
EPS = 1e-8
FORGOTTEN = 1e-12
"""What is left of the start, in both moments, when the gradient vanishes."""
CAPPED = ((0.95, 0.85), (0.99, 0.95))
"""Pairs with b1² > b2, beside `far_pair`."""


def far_pair() -> tuple[float, float]:
    """The pair with b1 = 0.9976 on the normal curve through the default pair."""
    b1, b2 = DEFAULT
    return 0.9976, float(np.cbrt((b1**3 + 2 * b2**3 - 0.9976**3) / 2))


def exponent(b1: float, b2: float, side: str) -> float:
    """r = 2a/b, which is 2 ln b1 / ln b2 for the optimizer; below 1 where nothing bounds |u|."""
    rates: Any = "log" if side == "optimizer" else side
    return 2 * float(rate(b1, rates) / rate(b2, rates))


def cap(r: float, scale: np.ndarray) -> np.ndarray:
    """The largest y^r/(y + 1/scale) over y in (0, 1], scale = σ/eps.

    y = √(v/σ²) falls from 1 once the gradient has vanished, and |m| = σ y^r. The maximum lies at
    y = r/((1−r)·scale) where that is below 1, and at y = 1 otherwise.
    """
    inside = r**r * (1 - r) ** (1 - r) * scale ** (1 - r)
    return np.where(scale > r / (1 - r), inside, scale / (1 + scale))


def caps(pairs: Any, scales: np.ndarray) -> Float[np.ndarray, "pair side scale"]:
    """The largest |u| at whole steps after a constant gradient σ = scale · `EPS` has vanished.

    It lasts until both bias factors are 1 to `FORGOTTEN`. Coordinates are the scales: the flow's
    equations are linear in them.
    """
    before = int(np.ceil(max(np.log(FORGOTTEN) / np.log(b) for pair in pairs for b in pair)))
    turns = [
        2 * np.log(scales.max() * (1 - r) / r) / float(rate(b2, "lag" if side == "lag" else "log"))
        for b1, b2 in pairs
        for side in SIDES
        for r in [exponent(b1, b2, side)]
    ]
    after = int(max(turns)) + 20  # past the maximum
    there = np.arange(before + after + 1) <= before
    stream = GradientStream(np.where(there[:, None], EPS * scales, 0.0))
    found = [[_after(b1, b2, side, stream, before, after) for side in SIDES] for b1, b2 in pairs]
    return np.array(found)


def _after(
    b1: float, b2: float, side: str, stream: GradientStream, before: int, after: int
) -> np.ndarray:
    flow = ct.AdamFlow(1.0, b1, b2, eps=EPS, rates="lag" if side == "lag" else "log")
    begun = jnp.zeros(stream.gradients.shape[1])
    if side == "optimizer":
        path = ct.run(flow, stream, begun, after, warm_steps=before)
    else:
        path = ct.solve(flow, stream, begun, after, warm_steps=before, rtol=1e-9)
    return np.abs(np.asarray(path.update)).max(axis=0)
