"""Whether an interpolating flow can be trusted, judged by what it does along its own path."""

from collections.abc import Callable
from typing import Any, NamedTuple

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
from jax.core import Tracer
from jaxtyping import Array, Float, PyTree

from ..flows import InterpolatingFlow, InterpolatingState
from ..flows.interpolating import Differences
from ..problems import AbstractProblem
from ..theory.interpolation import extra_terms, stability_radius
from .outcome import OUTCOME, right_after
from .trajectory import Trajectory

WINDOWS = 16
LIMIT = 0.02
"""A flow is trusted where its estimated error is below a fiftieth of the distance travelled: what
one can see in a figure."""

ACCURATE = 1e-3
"""`order="auto"` looks no further once a flow is estimated to be as good as this."""

CANDIDATES = ((6, 1), (3, 2), (2, 1), (6, 2), (2, 2))
"""(order, stride) that `order="auto"` tries, most accurate first."""


class VERDICT(eqx.Enumeration):  # pyright: ignore[reportGeneralTypeIssues]
    """What a flow's diagnostics say; the text tells what to change."""

    trusted = "Nothing speaks against this flow."
    order_too_low = (
        "The first term that the series leaves out still matters: take a higher order, or lower "
        "the learning rate."
    )
    order_too_high = (
        "The order is too high here: the flow grows modes that the optimizer damps; take order 2, "
        "or a larger stride (ct.theory.smallest_stride)."
    )
    period_two = "The optimizer oscillates from stride to stride here: take twice the stride."
    not_smooth = (
        "The optimizer's steps are not smooth on the scale of a step here: smooth the loss where "
        "it has kinks (relu), lower the learning rate, or take more warm steps; no order follows "
        "it."
    )


class Trust(eqx.Module):
    """Diagnostics of an interpolating flow along its path, cut into windows.

    - `steps`: (w + 1,) the windows' ends, counted from the start of the run; NaN where the flow
        did not get.
    - `defect`: (w,) how far the optimizer itself, started on the flow at a window's begin, is from
        the flow at the window's end, over the flow's distance travelled. It sees what the order
        cannot damp grow in the flow, and what the flow damps grow in the optimizer.
    - `tail`: (w + 1,) first difference term that the series leaves out, K‖Δ^{p+1}θ‖_∞/((p+1)q),
        over the largest speed of the run; K = 1 but for a degree above the order.
    - `roughness`: (w + 1,) `tail`·(1 - cos) of the angle by which one stride of the optimizer
        turns the last difference: what is no slow motion but flips or turns within a stride.
    - `verdict`: a `VERDICT`; `advice` is its text.
    - `order`, `stride`: of the flow, chosen where `order="auto"`. `degree`: its polynomial's.
    """

    steps: Float[Array, " w+1"]
    defect: Float[Array, " w"]
    tail: Float[Array, " w+1"]
    roughness: Float[Array, " w+1"]
    verdict: VERDICT
    order: int = eqx.field(static=True)
    stride: int = eqx.field(static=True)
    degree: int | None = eqx.field(static=True)

    @property
    def estimate(self) -> Float[Array, ""]:
        """Estimated error over the distance travelled: the sum of the windows' defects, as if
        nothing amplified or forgot them; infinite where the flow did not reach its end."""
        total = jnp.sum(self.defect)
        return jnp.where(jnp.isfinite(total), total, jnp.inf)

    @property
    def trusted(self) -> Any:
        """Whether nothing speaks against the flow."""
        return self.verdict == VERDICT.trusted

    @property
    def advice(self) -> str:
        """What to change, in one sentence."""
        return VERDICT[self.verdict]


class Window(NamedTuple):
    """The flow at a window's begin, and the optimizer at its end when it starts there."""

    flow: PyTree
    optimizer: PyTree
    flow_differences: Differences
    optimizer_differences: Differences


def window_length(steps: int, stride: int) -> int:
    """Optimizer steps in a window: whole strides, so that at most `WINDOWS` fit in the run."""
    strides = steps // stride
    return stride * -(-strides // WINDOWS)


def windows(
    flow: InterpolatingFlow, problem: AbstractProblem, begin: Any, count: int, length: int
) -> Any:
    """What diffrax saves for `judged`. It costs about as much as the discrete run."""

    def look(time: Array, state: InterpolatingState, problem: AbstractProblem) -> Window:
        first = jnp.round(time)

        def step(z: InterpolatingState, i: Array) -> tuple[InterpolatingState, None]:
            return flow.next(first + i, z, problem), None

        end = jax.lax.scan(step, state, jnp.arange(length))[0]
        return Window(
            state.params,
            end.params,
            flow.differences(right_after(problem, first), state, problem),
            flow.differences(right_after(problem, first + length), end, problem),
        )

    times = jnp.round(begin) + length * jnp.arange(count + 1, dtype=begin.dtype)
    return diffrax.SubSaveAt(ts=jnp.maximum(times, begin), fn=look)


def judged(
    trajectory: Trajectory, flow: InterpolatingFlow, times: Any, seen: Window, warm_steps: int
) -> Trajectory:
    """The trajectory with its `trust`, and an outcome that names the order if that ended it."""
    path, ends = _rows(seen.flow), _rows(seen.optimizer)
    reached = jnp.isfinite(times) & jnp.all(jnp.isfinite(path), axis=1)
    travelled = jnp.max(jnp.where(reached[:, None], jnp.abs(path - path[0]), 0))
    apart = jnp.max(jnp.abs(path[1:] - ends[:-1]), axis=1)
    defect = jnp.where(reached[1:], apart / jnp.where(travelled > 0, travelled, 1), jnp.nan)
    speed = jnp.max(jnp.where(reached, seen.flow_differences.speed, 0))
    tail, roughness = _relative(seen.flow_differences, speed)
    verdict = _verdict(flow, defect, tail, roughness, seen, speed)
    steps = jnp.where(reached, jnp.round(times) - warm_steps, jnp.nan)
    assert isinstance(flow.order, int)
    trust = Trust(steps, defect, tail, roughness, verdict, flow.order, flow.stride, flow.degree)
    return eqx.tree_at(
        lambda t: (t.trust, t.result),
        trajectory,
        (trust, _outcome(trajectory.result, verdict)),
        is_leaf=lambda x: x is None,
    )


def _rows(params: PyTree) -> Array:
    leaves = jax.tree.leaves(params)
    return jnp.concatenate([leaf.reshape(len(leaf), -1) for leaf in leaves], axis=1)


def _relative(differences: Differences, speed: Array) -> tuple[Array, Array]:
    """Tail and roughness, over the largest speed."""
    tail = differences.tail / jnp.where(speed > 0, speed, 1)
    turn = jnp.where(jnp.isfinite(differences.turn), differences.turn, 1)
    return tail, tail * (1 - turn)


def _verdict(
    flow: InterpolatingFlow,
    defect: Array,
    tail: Array,
    roughness: Array,
    seen: Window,
    speed: Array,
) -> VERDICT:
    """Judged at the first window that takes more than its share of the limit, or ends the flow."""
    excess = ~(defect <= LIMIT / len(defect))
    at = jnp.argmax(excess)
    theirs = _relative(seen.optimizer_differences, speed)[1][at]
    ours = roughness[at + 1]
    flips = (seen.optimizer_differences.turn[at] < -0.5) | (seen.flow_differences.turn[at] < -0.5)
    # The optimizer damps what the flow grew: it is smoother at the window's end than the flow.
    grew = ~(ours <= 2 * theirs) if _may_grow(flow) else jnp.asarray(False)
    verdict = VERDICT.where(tail[at] > LIMIT, VERDICT.order_too_low, VERDICT.not_smooth)
    verdict = VERDICT.where(flips, VERDICT.period_two, verdict)
    verdict = VERDICT.where(grew, VERDICT.order_too_high, verdict)
    return VERDICT.where(jnp.sum(defect) <= LIMIT, VERDICT.trusted, verdict)


def _may_grow(flow: InterpolatingFlow) -> bool:
    """Whether it grows some mode that the optimizer damps; plain orders above 2 all do."""
    assert isinstance(flow.order, int)
    if not extra_terms(flow.order, flow.degree):
        return flow.order > 2
    return stability_radius(flow.order, flow.degree) < 1


def _outcome(result: OUTCOME, verdict: VERDICT) -> OUTCOME:
    """The result, but for a run that broke down: there the verdict's is the better reason."""
    broke = (
        (result == OUTCOME.nonfinite_run)
        | (result == OUTCOME.stalled)
        | (result == OUTCOME.budget_spent)
        | (result == OUTCOME.faster_than_steps)
    )
    for doubt, outcome in (
        (VERDICT.order_too_high, OUTCOME.order_too_high),
        (VERDICT.period_two, OUTCOME.period_two),
    ):
        result = OUTCOME.where(broke & (verdict == doubt), outcome, result)
    return result


def chosen(
    flow: InterpolatingFlow, steps: int, attempt: Callable[[InterpolatingFlow], Trajectory]
) -> Trajectory:
    """The first of `CANDIDATES` that is accurate, else the one with the least estimated error."""
    paths = []
    for order, stride in CANDIDATES:
        if stride * flow.stride > steps:
            continue
        path = attempt(InterpolatingFlow(flow.optimizer, order, stride * flow.stride))
        trust = path.trust
        assert trust is not None
        if isinstance(trust.estimate, Tracer):
            raise ValueError("order = 'auto' looks at numbers: under jit or grad give an order.")
        paths.append(path)
        if trust.estimate <= ACCURATE:
            break
    return min(paths, key=_rank)


def _rank(path: Trajectory) -> tuple[float, int]:
    """The smaller estimate first; among flows that broke down the one that got farther."""
    assert path.trust is not None
    return float(path.trust.estimate), -int(jnp.sum(jnp.isfinite(path.trust.steps)))
