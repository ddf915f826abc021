"""Adam's flow with its second moment in one of several coordinates, as `state_formulation` runs it.

In v, √v or ln v, with exponential memories, or with a floor under the solver's steps.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import diffrax
import jax
import jax.numpy as jnp
import optimistix as optx
from jaxtyping import Array

import ct_adam as ct
from ct_adam.decays import rate
from ct_adam.flows.base import AbstractFlow, parameter_scale
from ct_adam.problems import AbstractProblem
from ct_adam.simulate import Trajectory
from ct_adam.simulate.controllers import ErrorScale

STATES = ("v", "sqrt_v", "ln_v", "exponential", "floor")
FLOOR = 1 / 16
"""Of the last state: shortest solver step, in optimizer steps."""
LEARNING_RATE, B1, B2, EPS = 1e-2, 0.9, 0.999, 1e-8
START = (1.0, -1.0, 0.5, 2.0)


class Formulation(NamedTuple):
    """One coordinate x of the second moment."""

    encode: Callable[[Array], Array]  # v -> x
    root: Callable[[Array], Array]  # x -> √v
    rate: Callable[[Array, Array, Array], Array]  # x, g², b -> x'
    scale: Callable[[Array, Array], Array]  # x, rtol -> the error that x may have


FORMULATIONS = (
    Formulation(
        encode=lambda v: v,
        root=lambda v: jnp.sqrt(jnp.maximum(v, 0)),
        rate=lambda v, squared, b: b * (squared - v),
        scale=lambda v, rtol: rtol * jnp.abs(v),
    ),
    Formulation(
        encode=jnp.sqrt,
        root=jnp.abs,  # a w that slips below 0 stands for the same v = w²
        rate=lambda w, squared, b: b * (squared - w**2) / (2 * w),
        scale=lambda w, rtol: rtol / 2 * jnp.abs(w),
    ),
    Formulation(
        encode=jnp.log,
        root=lambda log_v: jnp.exp(log_v / 2),
        rate=lambda log_v, squared, b: b * (squared * jnp.exp(-log_v) - 1),
        scale=lambda log_v, rtol: jnp.full_like(log_v, rtol),
    ),
)


class MomentState(NamedTuple):
    """Parameters, first moment, and the second moment's coordinate x; with exponential memories
    e^{as} m and e^{bs} v. The clock s is there for their error scale."""

    params: Array
    m: Array
    x: Array
    clock: Array


class MomentFlow(AbstractFlow):
    """Adam's flow of order 1 with `log` rates, its second moment in the coordinate `index`.

    `index` is data and `seen` (gradients that the moments have seen at step 0: 1 is the start
    `"first_step"`, 0 is `"zero"`) too: one compiled program serves all.
    """

    b1: Array
    b2: Array
    index: Array
    seen: Array
    exponential: Array

    @property
    def evaluations(self) -> int:
        return 1

    @property
    def lag(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        return 0

    @property
    def optimizer(self) -> ct.optimizers.Optimizer:
        return ct.k_adam(LEARNING_RATE, self.b1, self.b2, EPS)

    def init(self, loss: Any, params: Array) -> MomentState:
        g = loss.gradient(0, params)
        v = (1 - self.b2**self.seen) * g**2
        m, clock = (1 - self.b1**self.seen) * g, jnp.zeros(())
        return MomentState(params, m, self._chosen("encode", v), clock)

    def from_optimizer(self, loss: Any, params: Any, optimizer_state: Any, step: Any) -> Any:
        raise NotImplementedError("This flow starts at step 0.")

    def vector_field(self, step: Any, state: MomentState, loss: Any) -> MomentState:
        g = loss.gradient(loss.seen(step), state.params)
        m, x = self._memories(step, state)
        a, b = rate(self.b1), rate(self.b2)
        grown_m, grown_x = self._growth(step)
        return MomentState(
            -LEARNING_RATE * self.update(step, state, loss),
            grown_m * (a * (g - m) + self.exponential * a * m),
            grown_x * (self._chosen("rate", x, g**2, b) + self.exponential * b * x),
            jnp.ones(()),
        )

    def _growth(self, step: Any) -> tuple[Array, Array]:
        """e^{as} and e^{bs}, or 1."""
        return tuple(jnp.exp(self.exponential * rate(b) * step) for b in (self.b1, self.b2))  # pyright: ignore[reportReturnType]

    def _memories(self, step: Any, state: MomentState) -> tuple[Array, Array]:
        grown_m, grown_x = self._growth(step)
        return state.m / grown_m, state.x / grown_x

    def params(self, state: MomentState) -> Array:
        return state.params

    def update(self, step: Any, state: MomentState, loss: Any) -> Array:
        g = loss.gradient(loss.seen(step), state.params)
        m, x = self._memories(step, state)
        m_hat = self._corrected(m, self._bias_factor(self.b1, step), g)
        root = self._chosen("root", x)
        return m_hat / (
            self._corrected(root, jnp.sqrt(self._bias_factor(self.b2, step)), jnp.abs(g)) + EPS
        )

    def error_scale(self, state: MomentState, rtol: Any, atol: Any) -> MomentState:
        tiny = jnp.finfo(state.m.dtype).tiny
        m, x = self._memories(state.clock, state)
        grown_m, grown_x = self._growth(state.clock)
        size = jnp.maximum(jnp.abs(m), self._chosen("root", x))
        return MomentState(
            parameter_scale(state.params, rtol, atol),
            grown_m * jnp.maximum(rtol * size, tiny),
            grown_x * jnp.maximum(self._chosen("scale", x, jnp.asarray(rtol)), tiny),
            jnp.ones(()),
        )

    def _bias_factor(self, b: Array, step: Any) -> Array:
        return 1 - b**self.seen * jnp.exp(-rate(b) * step)

    def _corrected(self, moment: Array, factor: Array, limit: Array) -> Array:
        """moment/factor, or its limit where both are 0 (start `"zero"`)."""
        begun = factor > 0
        return jnp.where(begun, moment / jnp.where(begun, factor, 1), limit)

    def _chosen(self, what: str, *arguments: Array) -> Array:
        branches = [getattr(formulation, what) for formulation in FORMULATIONS]
        return jax.lax.switch(self.index.astype(int), branches, *arguments)


@dataclass(frozen=True)
class Panel:
    """One problem, and what is said of it in the figure."""

    title: str
    problem: AbstractProblem
    steps: int
    b2: float = B2
    seen: float = 1.0

    def solve(self, state: str, rtol: float, budget: int) -> Trajectory:
        decays = (jnp.asarray(B1), jnp.asarray(self.b2))
        index = STATES.index(state) if state in STATES[:3] else 0
        exponential = jnp.asarray(float(state == "exponential"))
        flow = MomentFlow(*decays, jnp.asarray(index), jnp.asarray(self.seen), exponential)
        return ct.solve(
            flow,
            self.problem,
            jnp.asarray(START),
            self.steps,
            controller=self._floored(flow, rtol) if state == "floor" else None,
            rtol=rtol,
            atol=1e-3 * rtol,  # the ratio of solve's own defaults
            max_solver_steps=budget,
            throw=False,
        )

    def _floored(self, flow: MomentFlow, rtol: float) -> ErrorScale:
        pid = diffrax.PIDController(
            rtol=0, atol=1, dtmin=FLOOR, force_dtmin=True, norm=optx.max_norm
        )
        return ErrorScale(pid, flow.error_scale, jnp.asarray(rtol), jnp.asarray(1e-3 * rtol))
