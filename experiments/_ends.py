"""What `where_flows_end` measures: an interpolating flow, its own doubts, and the optimizer."""

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, PyTree

import ct_adam as ct
from ct_adam.problems import AbstractProblem
from ct_adam.problems.base import LossProblem
from ct_adam.problems.registry import CURVATURES
from ct_adam.simulate.trust import LIMIT, Trust, window_length

from ._edge import followed
from ._orders import Wavy, drawn
from ._paths import rows

LEFT = 0.01
"""A flow has left its optimizer where the error exceeds this part of the distance travelled."""
BUDGET = 4096
"""Most solver steps: a flow that broke down would spend any number."""
AMPLIFYING = ("spike", "past the edge")
"""Groups in which the optimizer's own dynamics make more of an error, which trust does not know."""

Made = tuple[AbstractProblem, PyTree]


class Kinked(eqx.Module):
    """Σ h_i |x_i|."""

    weights: Float[Array, " 4"]

    def __call__(self, x: Float[Array, " 4"]) -> Float[Array, ""]:
        return jnp.sum(self.weights * jnp.abs(x))


def _wavy(seed: int) -> Made:
    draw = drawn(seed + 1)
    return LossProblem(Wavy(draw.hessian[-1])), draw.start[-1]


def _kinked(seed: int) -> Made:
    return LossProblem(Kinked(jnp.array(CURVATURES))), drawn(seed + 1).start[-1]


def _digits(activation: Callable[[Array], Array]) -> Callable[[int], Made]:
    def make(seed: int) -> Made:
        return ct.problems.digits_mlp(
            (16,), images=300, activation=activation, criterion="squared", seed=seed
        )

    return make


PROBLEMS: dict[str, Callable[[int], Made]] = {
    "wavy": _wavy,
    "|x|": _kinked,
    "digits": _digits(jnp.tanh),
    "ReLU digits": _digits(jax.nn.relu),
}


class Case(NamedTuple):
    """An optimizer on a problem, and the flow that follows it."""

    group: str
    title: str
    problem: str
    optimizer: optax.GradientTransformation
    warm_steps: int = 1
    steps: int = 300
    order: int = 2
    stride: int = 1


RATE = 0.03
"""Of the table in EQUATIONS §1, on its four-dimensional problem."""
_SPIKING = optax.adam(0.02, b2=0.99)
_CURVED = optax.adam(0.01, b2=0.99)
_RMSPROP = optax.rmsprop(3e-3, decay=0.99, bias_correction=True)
_LIST = (
    Case("kink", "GD", "|x|", optax.sgd(0.01)),
    Case("kink", "Adam", "|x|", optax.adam(0.01)),
    Case("kink", "Adam", "ReLU digits", optax.adam(3e-3), 20),
    Case("kink", "GD", "ReLU digits", optax.sgd(0.05), 20),
    Case("chattering", "LAMB", "wavy", optax.lamb(RATE)),
    Case("chattering", "Lion", "wavy", optax.lion(RATE)),
    Case("chattering", "RMSProp", "wavy", optax.rmsprop(RATE)),
    Case("sign", "sign descent", "wavy", optax.sign_sgd(RATE)),
    Case("sign", "signum", "wavy", optax.signum(RATE)),
    Case("sign", "Lion", "digits", optax.lion(1e-3), 20),
    Case("switch", "AMSGrad's max", "wavy", optax.amsgrad(RATE)),
    Case("switch", "Yogi's sign", "wavy", optax.yogi(RATE)),
    Case("switch", "RAdam, warm 1", "wavy", optax.radam(RATE)),
    Case("switch", "RAdam, warm 10", "wavy", optax.radam(RATE), 10),
    Case("clipping", "GD, entries ≤ 1", "wavy", optax.chain(optax.clip(1.0), optax.sgd(0.02))),
    Case(
        "clipping", "Adam, norm ≤ 1", "wavy",
        optax.chain(optax.clip_by_global_norm(1.0), optax.adam(RATE)),
    ),
    Case("order", "Adam, order 4", "digits", _CURVED, 100, 200, 4),
    Case("spike", "Adam, b2 = 0.99, order 2", "digits", _SPIKING, 300, 600),
    Case("spike", "Adam, b2 = 0.99, 3 × 2", "digits", _SPIKING, 300, 600, 3, 2),
    Case("past the edge", "GD, order 2", "digits", optax.sgd(0.08), 260, 1200),
    Case("past the edge", "GD, 6 × 2", "digits", optax.sgd(0.08), 260, 1200, 6, 2),
    Case("past the edge", "RMSProp, order 2", "digits", _RMSPROP, 100),
    Case("past the edge", "RMSProp, 6 × 2", "digits", _RMSPROP, 100, 300, 6, 2),
    Case("control", "GD", "wavy", optax.sgd(0.01)),
    Case("control", "GD, momentum 0.9", "wavy", optax.sgd(1e-3, momentum=0.9)),
    Case("control", "Adam", "wavy", optax.adam(0.01)),
    Case("control", "Adam, order 6", "wavy", optax.adam(RATE), order=6),
    Case("control", "Adan", "wavy", optax.adan(0.01)),
    Case("control", "AdamW, 3 × 2", "digits", optax.adamw(1e-3), 20, 300, 3, 2),
    Case("control", "NAdamW", "digits", optax.nadamw(1e-3), 20),
    Case("control", "AdaBelief", "digits", optax.adabelief(1e-3), 20),
    Case("control", "LAMB", "digits", optax.lamb(1e-3), 20),
)  # fmt: skip


def name_of(case: Case) -> str:
    """A case's name, e.g. "kink: GD, |x|"."""
    return f"{case.group}: {case.title}, {case.problem}"


# Made once: a new transformation would be compiled anew for each seed.
CASES = {name_of(case): case for case in _LIST}


def measure(case: Case, seed: int) -> dict[str, Any]:
    """The error by step, when the flow left and when its diagnostics alarmed."""
    problem, params = PROBLEMS[case.problem](seed)
    saved = np.arange(case.steps + 1)
    where: dict[str, Any] = {"save_steps": saved, "warm_steps": case.warm_steps}
    flow = ct.InterpolatingFlow(case.optimizer, case.order, case.stride)
    solved = ct.solve(
        flow, problem, params, case.steps, max_solver_steps=BUDGET, throw=False, **where
    )
    path = rows(ct.run(case.optimizer, problem, params, case.steps, **where).params)
    found = followed(solved, path)
    assert solved.trust is not None
    window = window_length(case.steps, case.stride)
    return {
        "error": np.nan_to_num(found["error"], nan=np.inf, posinf=np.inf),
        "left": first_above(found["error"], LEFT),
        "left_far": first_above(found["error"], LIMIT),
        "alarm": alarm_step(solved.trust, window),
        "max_error": found["max_error"],
        **{key: found[key] for key in ("estimate", "verdict", "outcome")},
        "window": window,
    }


def first_above(error: Float[np.ndarray, " steps"], limit: float) -> float:
    """The first step with an error above the limit, or that was not reached; NaN for none."""
    above = ~(error <= limit)
    return float(np.argmax(above)) if above.any() else float("nan")


def alarm_step(trust: Trust, window: int) -> float:
    """End of the window in which the sum of defects passes the limit of trust; NaN for none.

    A window that the flow did not get through is an alarm too.
    """
    alarmed = first_above(np.cumsum(np.asarray(trust.defect)), LIMIT)
    return (alarmed + 1) * window
