"""A lane as a program: init, body, active, output. Engines run it, each in its own way.

`body` is one step of an optimizer, or one attempted step of an explicit Runge–Kutta method as a
straight line, with the reductions inside. What `reference` leaves to diffrax is written out here
with diffrax's tableau and step-size controller, so that both take the same steps.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from equinox.internal import prevbefore
from jaxtyping import Array, Bool, Int, PyTree

from ..flows import AbstractFlow, AbstractSDE
from ..problems import AbstractProblem
from ..problems.base import Loss
from ..simulate.controllers import controller_for, start_time
from ..simulate.discrete import warm_state, warmed
from .case import resolve
from .reductions import Reductions
from .reference import (
    LaneResult,
    Observer,
    ObserverState,
    Settings,
    flow_lane,
    flow_result,
    optimizer_lane,
    optimizer_result,
    seen_step,
)
from .stochastic import Path

Lane = dict[str, Any]
_SOLVER = diffrax.Tsit5()


class Program(eqx.Module):
    """What all lanes run.

    `init(lane) -> (fixed, carry)`; while `active(fixed, carry)`: `carry = body(lane, fixed,
    carry)`; `output(lane, fixed, carry) -> LaneResult`. `fixed` does not change while a lane runs.
    A module, so that its arrays are arguments of whatever is compiled from it. `make` is called in
    each of the four, under the trace: schedules may close over the lane's numbers.
    """

    make: Callable[..., Any]
    loss: Loss | AbstractProblem | None
    params: PyTree
    settings: Settings

    def init(self, lane: Lane) -> tuple[PyTree, PyTree]:
        return self._method(lane).init()

    def body(self, lane: Lane, fixed: PyTree, carry: PyTree) -> PyTree:
        return self._method(lane).body(fixed, carry)

    def active(self, fixed: PyTree, carry: PyTree) -> Bool[Array, ""]:
        return carry.active(self.settings)

    def output(self, lane: Lane, fixed: PyTree, carry: PyTree) -> LaneResult:
        return self._method(lane).output(fixed, carry)

    def reference(self, lane: Lane) -> LaneResult:
        """The same numbers by diffrax, or a scan."""
        problem, params, method = resolve(self.make, self.loss, self.params, lane)
        if isinstance(method, AbstractSDE):
            return Path(method, problem, params, self.settings).reference()
        if isinstance(method, AbstractFlow):
            return flow_lane(method, problem, params, self.settings)
        return optimizer_lane(method, problem, params, self.settings)

    def _method(self, lane: Lane) -> "_Flow | _Optimizer | Path":
        problem, params, method = resolve(self.make, self.loss, self.params, lane)
        if isinstance(method, AbstractSDE):
            return Path(method, problem, params, self.settings)
        kind = _Flow if isinstance(method, AbstractFlow) else _Optimizer
        return kind(method, problem, params, self.settings)


class FlowCarry(NamedTuple):
    """Before an attempt: the step from t0 to t1, the moving leaves of the state, their slope at t0
    (None where it jumps), and what the controller keeps."""

    t0: Array
    t1: Array
    moving: list[Array]
    slope: list[Array] | None
    control: ObserverState
    result: Int[Array, ""]
    attempts: Int[Array, ""]

    def active(self, settings: Settings) -> Bool[Array, ""]:
        going = self.t0 < settings.warm_steps + settings.steps
        okay = self.result == _value(diffrax.RESULTS.successful)
        return going & okay & (self.attempts < settings.max_solver_steps)


class _Flow(NamedTuple):
    method: AbstractFlow
    problem: AbstractProblem
    params: PyTree
    settings: Settings

    def init(self) -> tuple[PyTree, FlowCarry]:
        settings = self.settings
        t0 = start_time(self.problem, settings.warm_steps, settings.steps.dtype)
        state = warm_state(self.method, self.problem, self.params, settings.warm_steps)
        leaves, structure = jax.tree.flatten(state)
        zero = _constant_leaves(self._slope, t0, state)
        resting = [leaf for leaf, rests in zip(leaves, zero, strict=True) if rests]
        fixed = _Fixed(resting, structure, tuple(zero))
        moving = [leaf for leaf, rests in zip(leaves, zero, strict=True) if not rests]
        observer = self._observer()
        unused: Any = None  # terms and solver: for the choice of a first step, which is ours
        t1, control = observer.init(unused, t0, self._end, state, None, self.problem, unused, None)
        slope = None if self.problem.held else self._moving_slope(fixed, t0, moving)
        carry = FlowCarry(
            t0, jnp.minimum(t1, self._end), moving, slope, control,
            jnp.asarray(_value(diffrax.RESULTS.successful)), jnp.asarray(0),
        )  # fmt: skip
        return fixed, carry

    def body(self, fixed: "_Fixed", carry: FlowCarry) -> FlowCarry:
        t0, t1 = carry.t0, carry.t1
        slope = carry.slope
        if slope is None:  # of the gradient that rules right after a break
            slope = self._moving_slope(fixed, t0, carry.moving)
        after, error, last = _attempt(
            lambda t, y: self._moving_slope(fixed, t, y), t0, t1, carry.moving, slope
        )
        resting = [jnp.zeros_like(leaf) for leaf in fixed.resting]
        keep, next_t0, next_t1, _, control, told = self._observer().adapt_step_size(
            t0,
            t1,
            fixed.state(carry.moving),
            fixed.state(after),
            self.problem,
            _Fixed(resting, fixed.structure, fixed.zero).state(error),
            _SOLVER.error_order(None),  # pyright: ignore[reportArgumentType]
            carry.control,
        )
        next_t0, next_t1 = self._before_the_end(keep, next_t0, next_t1)
        okay = carry.result == _value(diffrax.RESULTS.successful)

        def kept(new: list[Array], old: list[Array]) -> list[Array]:
            return [jnp.where(keep, a, b) for a, b in zip(new, old, strict=True)]

        return FlowCarry(
            next_t0,
            next_t1,
            kept(after, carry.moving),
            None if carry.slope is None else kept(last, slope),
            control,
            jnp.where(okay, told._value, carry.result),
            carry.attempts + 1,
        )

    def output(self, fixed: "_Fixed", carry: FlowCarry) -> LaneResult:
        result = eqx.tree_at(lambda r: r._value, diffrax.RESULTS.successful, carry.result)
        spent = (carry.t0 < self._end) & (result == diffrax.RESULTS.successful)
        result = diffrax.RESULTS.where(spent, diffrax.RESULTS.max_steps_reached, result)
        return flow_result(
            *self, carry.t0, fixed.state(carry.moving), carry.control.reductions, result,
            carry.attempts,
        )  # fmt: skip

    @property
    def _end(self) -> Array:
        return self.settings.warm_steps + self.settings.steps

    def _before_the_end(self, keep: Any, t0: Any, t1: Any) -> tuple[Array, Array]:
        t0 = jnp.minimum(t0, self._end)
        # As diffrax: a step that would leave less than 100 units in the last place ends at the end.
        floor = self._end - 100 * (self._end - prevbefore(self._end))
        clipped = jnp.where(keep, self._end, t0 + 0.5 * (self._end - t0))
        return t0, jnp.where(t1 > floor, clipped, t1)

    def _observer(self) -> Observer:
        s = self.settings
        inner = controller_for(
            self.method, self.problem, None, s.rtol, s.atol, s.steps.dtype, self._end
        )
        return Observer(inner, self.method, s)

    def _slope(self, t: Any, state: PyTree) -> PyTree:
        return self.method.vector_field(t, state, self.problem)

    def _moving_slope(self, fixed: "_Fixed", t: Any, moving: list[Array]) -> list[Array]:
        leaves = jax.tree.leaves(self._slope(t, fixed.state(moving)))
        return [leaf for leaf, rests in zip(leaves, fixed.zero, strict=True) if not rests]


class _Fixed(eqx.Module):
    """The leaves of a flow's state whose derivative is 0 as written (e.g. the hand-over step)."""

    resting: list[Array]
    structure: Any = eqx.field(static=True)
    zero: tuple[bool, ...] = eqx.field(static=True)

    def state(self, moving: list[Array]) -> PyTree:
        moves, rests = iter(moving), iter(self.resting)
        leaves = [next(rests) if zero else next(moves) for zero in self.zero]
        return jax.tree.unflatten(self.structure, leaves)


def _attempt(
    field: Callable[[Array, list[Array]], list[Array]],
    t0: Array,
    t1: Array,
    before: list[Array],
    slope: list[Array],
) -> tuple[list[Array], list[Array], list[Array]]:
    """State, error estimate and slope at t1, of Tsit5 written out."""
    tableau: Any = _SOLVER.tableau
    length = t1 - t0
    slopes = [slope]
    after = before
    for row, node in zip(tableau.a_lower, tableau.c, strict=True):
        after = [y + length * x for y, x in zip(before, _weighted(row, slopes), strict=True)]
        slopes.append(field(t1 if node == 1 else t0 + node * length, after))
    assert tableau.fsal
    assert tableau.ssal  # the last stage is the solution
    error = [length * x for x in _weighted(tableau.b_error, slopes)]
    error = [jnp.where(jnp.isnan(x), jnp.inf, x) for x in error]
    return after, error, slopes[-1]


def _weighted(row: np.ndarray, slopes: list[list[Array]]) -> list[Array]:
    def combine(*leaf: Array) -> Array:
        return sum((float(a) * k for a, k in zip(row, leaf, strict=True) if a), start=0.0)  # pyright: ignore[reportReturnType]

    return [combine(*leaf) for leaf in zip(*slopes, strict=True)]


def _constant_leaves(slope: Callable[[Any, PyTree], PyTree], t: Any, state: PyTree) -> list[bool]:
    """Which leaves of the slope are written as zeros."""
    jaxpr = jax.make_jaxpr(slope)(t, state).jaxpr
    made = {var: eqn for eqn in jaxpr.eqns for var in eqn.outvars}

    def is_zero(var: Any) -> bool:
        if hasattr(var, "val"):
            return bool(np.all(var.val == 0))
        eqn: Any = made.get(var)
        if eqn is None or eqn.primitive.name != "broadcast_in_dim":
            return False
        return is_zero(eqn.invars[0])

    return [is_zero(var) for var in jaxpr.outvars]


class OptimizerCarry(NamedTuple):
    """Before step n: θ_n, the optimizer's state, and what was seen."""

    n: Int[Array, ""]
    params: PyTree
    state: PyTree
    seen: Reductions

    def active(self, settings: Settings) -> Bool[Array, ""]:
        return self.n < settings.warm_steps + settings.steps


class _Optimizer(NamedTuple):
    method: Any
    problem: AbstractProblem
    params: PyTree
    settings: Settings

    def init(self) -> tuple[PyTree, OptimizerCarry]:
        start = warmed(self.method, self.problem, self.params, self.settings.warm_steps)
        n = jnp.asarray(self.settings.warm_steps)
        return None, OptimizerCarry(n, *start, Reductions.empty(self.settings.steps.dtype))

    def body(self, fixed: PyTree, carry: OptimizerCarry) -> OptimizerCarry:
        del fixed
        now = (carry.params, carry.state, carry.seen)
        after = seen_step(self.method, self.problem, self.settings, carry.n, now)
        return OptimizerCarry(carry.n + 1, *after)

    def output(self, fixed: PyTree, carry: OptimizerCarry) -> LaneResult:
        del fixed
        return optimizer_result(*self, *carry[1:])


def _value(result: Any) -> Any:
    return np.asarray(result._value)
