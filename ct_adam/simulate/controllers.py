"""Step-size control for optimizer flows: the error scale, and break points at whole steps."""

from collections.abc import Callable
from typing import Any

import diffrax
import equinox as eqx
import equinox.internal as eqxi
import jax
import jax.numpy as jnp
import optimistix as optx
from jaxtyping import Array, PyTree

from ..flows import AbstractFlow
from ..problems import AbstractProblem
from .outcome import right_after

FIRST_STEP = 0.01
"""Length of the solver's first step, in optimizer steps. diffrax's heuristic divides by the error
scale of the state, which is 0 for a moment that starts at 0; a hundredth of a step is short for
every decay, and the controller lengthens it tenfold a step."""


class ErrorScale(diffrax.AbstractAdaptiveStepSizeController):
    """Measures the error in units of `scale(state)` and lets `controller` judge it.

    EQUATIONS §1, Solver error: `PIDController` knows one atol and one rtol for all of the state,
    but the second moment needs a relative error however small it is, the first moment one
    relative to max(|m|, √v), and the parameters atol + rtol·|θ|. So the controller is given the
    scaled error with rtol = 0, atol = 1. `rtol` and `atol` are kept for implicit solvers, which
    take their root finder's tolerances from here.
    """

    controller: diffrax.PIDController
    scale: Callable[[PyTree, Any, Any], PyTree]
    rtol: Any
    atol: Any

    def __init__(
        self,
        controller: diffrax.PIDController,
        scale: Callable[[PyTree, Any, Any], PyTree],
        rtol: Any,
        atol: Any,
    ):
        self.controller, self.scale, self.rtol, self.atol = controller, scale, rtol, atol

    @property
    def norm(self) -> Callable[[PyTree], Any]:  # pyright: ignore[reportIncompatibleMethodOverride]
        return self.controller.norm

    def wrap(self, direction: Any) -> "ErrorScale":
        return eqx.tree_at(lambda s: s.controller, self, self.controller.wrap(direction))

    def init(self, terms, t0, t1, y0, dt0, args, func, error_order):
        if dt0 is None:
            dtmin = 0 if self.controller.dtmin is None else self.controller.dtmin
            dt0 = jnp.maximum(jnp.asarray(FIRST_STEP, jnp.result_type(t0)), 2 * dtmin)
        return self.controller.init(terms, t0, t1, y0, dt0, args, func, error_order)

    def adapt_step_size(
        self, t0, t1, y0, y1_candidate, args, y_error, error_order, controller_state
    ):
        def scaled(error, before, after):
            after = jnp.where(jnp.isnan(after), before, after)
            return error / jnp.maximum(before, after)

        # Step sizes are not differentiated through, here as in diffrax's own controllers.
        y0, y1, y_error = jax.lax.stop_gradient((y0, y1_candidate, y_error))
        before = self.scale(y0, self.rtol, self.atol)
        after = self.scale(y1, self.rtol, self.atol)
        # A solver without an error estimate: let the inner controller say so.
        error = None if y_error is None else jax.tree.map(scaled, y_error, before, after)
        zeros = jax.tree.map(jnp.zeros_like, y0)
        return self.controller.adapt_step_size(
            t0, t1, zeros, zeros, args, error, error_order, controller_state
        )


class WholeStepBreaks(diffrax.AbstractAdaptiveStepSizeController):
    """Ends a solver step at every whole optimizer step, where a held gradient jumps.

    `ClipStepSizeController(jump_ts=...)` does this too, but looks through all break points at
    every solver step; whole numbers need no list. A step ends on the number n itself and the next
    begins right after it, so that ⌈t⌉ names the gradient that rules, at every stage.
    """

    controller: diffrax.AbstractAdaptiveStepSizeController

    def __init__(self, controller: diffrax.AbstractAdaptiveStepSizeController):
        self.controller = controller

    @property
    def rtol(self) -> Any:
        return self.controller.rtol

    @property
    def atol(self) -> Any:
        return self.controller.atol

    @property
    def norm(self) -> Callable[[PyTree], Any]:  # pyright: ignore[reportIncompatibleMethodOverride]
        return self.controller.norm

    def wrap(self, direction: Any) -> "WholeStepBreaks":
        return eqx.tree_at(lambda s: s.controller, self, self.controller.wrap(direction))

    def init(self, terms, t0, t1, y0, dt0, args, func, error_order):
        t1, state = self.controller.init(terms, t0, t1, y0, dt0, args, func, error_order)
        return _to_break(t0, t1), state

    def adapt_step_size(
        self, t0, t1, y0, y1_candidate, args, y_error, error_order, controller_state
    ):
        keep, next_t0, next_t1, made_jump, state, result = self.controller.adapt_step_size(
            t0, t1, y0, y1_candidate, args, y_error, error_order, controller_state
        )
        at_break = keep & (next_t0 == jnp.floor(next_t0))
        next_t0 = jnp.where(at_break, eqxi.nextafter(next_t0), next_t0)
        next_t1 = jnp.maximum(next_t1, eqxi.nextafter(next_t0))
        return keep, next_t0, _to_break(next_t0, next_t1), made_jump | at_break, state, result


def _to_break(t0: Any, t1: Any) -> Any:
    """The end t1 of a step, or the first whole number after t0 if t1 nearly reaches it."""
    return end_at(t0, t1, jnp.floor(t0) + 1)


def end_at(t0: Any, t1: Any, wanted: Any) -> Any:
    """`wanted` if a step from t0 to t1 ends beyond it, or so close that a tenth more ends there.

    Not more than a tenth: after a rejection the controller shortens a step by a tenth at least, so
    that the next one is not stretched as far again, for ever.
    """
    return jnp.where(t0 + 1.1 * (t1 - t0) > wanted, wanted, t1)


def default_controller(
    flow: AbstractFlow, rtol: Any, atol: Any, dtype: Any, last_step: Any
) -> ErrorScale:
    """diffrax's default (integral) controller in the flow's own error scale."""
    # Below a few units in the last place of the step count, time no longer advances: without a
    # floor, a loss that turns NaN would eat the whole solver budget.
    dtmin = 16 * jnp.finfo(dtype).eps * jnp.maximum(1, jnp.asarray(last_step, dtype))
    # The largest coordinate, not the root mean square: ‖u‖_∞ is what maps measure, and among 10⁴
    # parameters a mean lets a single one be wrong by a hundred times the tolerance.
    pid = diffrax.PIDController(rtol=0, atol=1, dtmin=dtmin, force_dtmin=False, norm=optx.max_norm)
    return ErrorScale(pid, flow.error_scale, rtol, atol)


def start_time(problem: AbstractProblem, warm_steps: int, dtype: Any) -> Array:
    """When the flow starts: for a held problem right after the whole step, where gradient
    warm_steps + 1 begins to rule; gradient warm_steps has entered through the start."""
    return right_after(problem, jnp.asarray(warm_steps, dtype))


def controller_for(
    flow: AbstractFlow,
    problem: AbstractProblem,
    controller: diffrax.AbstractStepSizeController | None,
    rtol: Any,
    atol: Any,
    dtype: Any,
    last_step: Any,
) -> diffrax.AbstractStepSizeController:
    """The user's controller or the default one, with break points where the problem has them."""
    if controller is None:
        controller = default_controller(flow, rtol, atol, dtype, last_step)
    if not problem.held:
        return controller
    assert isinstance(controller, diffrax.AbstractAdaptiveStepSizeController)
    return WholeStepBreaks(controller)
