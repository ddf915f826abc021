"""A path of a stochastic flow as a lane: by diffrax, and as a program whose body is one step of
diffrax's own solver. Both draw the same noise: it is a function of the seed and of exact times.

A seed in the lanes makes another path of each: `make(seed)` puts it into a `GaussianNoise`.
"""

from typing import Any, NamedTuple

import diffrax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, PyTree

from ..flows import AbstractSDE
from ..problems import AbstractProblem
from ..simulate.discrete import warm_state
from ..simulate.stochastic import EqualSteps, default_solver, terms_of, while_integrated
from .reference import LaneResult, Observer, ObserverState, Settings, flow_result, integrated


class Watched(diffrax.AbstractStepSizeController):
    """An `Observer` that is no adaptive controller to diffrax: it rejects no step, so that noise
    can be drawn as the steps go."""

    observer: Observer

    def wrap(self, direction: Any) -> "Watched":
        return Watched(self.observer.wrap(direction))

    def init(self, *args: Any) -> tuple[Any, ObserverState]:
        return self.observer.init(*args)

    def adapt_step_size(self, *args: Any) -> Any:
        return self.observer.adapt_step_size(*args)


class PathCarry(NamedTuple):
    """Before the step from t0 to t1."""

    t0: Any
    t1: Any
    state: PyTree
    control: ObserverState
    attempts: Int[Array, ""]

    def active(self, settings: Settings) -> Bool[Array, ""]:
        going = self.t0 < settings.warm_steps + settings.steps
        return going & (self.attempts < settings.max_solver_steps)


class Path(NamedTuple):
    """One lane of a stochastic flow."""

    method: AbstractSDE
    problem: AbstractProblem
    params: PyTree
    settings: Settings

    def init(self) -> tuple[PyTree, PathCarry]:
        t0, _, state = self._start()
        problem = while_integrated(self.method, self.problem)
        unused: Any = None
        t1, control = self._observer().init(
            unused, t0, self._end, state, None, problem, unused, None
        )
        return None, PathCarry(t0, t1, state, control, jnp.asarray(0))

    def body(self, fixed: PyTree, carry: PathCarry) -> PathCarry:
        del fixed
        problem = while_integrated(self.method, self.problem)
        terms = terms_of(self.method, problem, self.params, carry.t0, carry.t1)
        solver = self._solver()
        after, error, *_ = solver.step(
            terms, carry.t0, carry.t1, carry.state, problem, None, made_jump=False
        )
        order = solver.error_order(terms)
        _, t0, t1, _, control, _ = self._observer().adapt_step_size(
            carry.t0, carry.t1, carry.state, after, problem, error, order, carry.control
        )
        return PathCarry(t0, jnp.minimum(t1, self._end), after, control, carry.attempts + 1)

    def output(self, fixed: PyTree, carry: PathCarry) -> LaneResult:
        del fixed
        results = diffrax.RESULTS
        result = results.where(carry.t0 < self._end, results.max_steps_reached, results.successful)
        seen = carry.control.reductions
        return self._result(carry.t0, carry.state, seen, result, carry.attempts)

    def reference(self) -> LaneResult:
        """The same by `diffeqsolve`."""
        t0, t1, state = self._start()
        problem = while_integrated(self.method, self.problem)
        terms, solver = terms_of(self.method, problem, self.params, t0, t1), self._solver()
        watched = Watched(self._observer())
        ended = integrated(terms, solver, t0, state, problem, watched, self.settings)
        return self._result(*ended)

    @property
    def _end(self) -> Array:
        return self.settings.warm_steps + self.settings.steps

    def _start(self) -> tuple[Array, Array, PyTree]:
        t0 = jnp.asarray(self.settings.warm_steps, self.settings.steps.dtype)
        state = warm_state(self.method, self.problem, self.params, self.settings.warm_steps)
        return t0, self._end, state

    def _observer(self) -> Observer:
        return Observer(EqualSteps(), self.method, self.settings)

    def _solver(self) -> Any:
        # Nobody differentiates through a map: plain loops over the stages.
        solver: Any = default_solver(self.method)
        return type(solver)(scan_kind="lax")

    def _result(self, *ended: Any) -> LaneResult:
        of = (self.method, self.problem, self.params, self.settings)
        return flow_result(*of, *ended, solver=self._solver())
