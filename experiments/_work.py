"""What `work_precision` measures: the error and the cost of one flow of one case."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import optax
import optimistix
from jaxtyping import Array, Float, PyTree

import ct_adam as ct
from ct_adam.flows import AbstractFlow
from ct_adam.flows.interpolating import Differences
from ct_adam.flows.registry import flow_named
from ct_adam.problems import AbstractProblem, LossProblem
from ct_adam.problems.registry import CURVATURES
from ct_adam.simulate.controllers import ErrorScale
from ct_adam.theory.interpolation import difference_weights

from ._paths import Rows, rows

SAVES = 60
"""Steps at which flow and optimizer are compared."""
WHOLE = 12
"""They are multiples of this, of every stride that is tried."""
MOST_CALLS = 24
"""Evaluations a call of the field of the dearest flow."""


class Variant(NamedTuple):
    """An interpolating flow: order, stride, degree (the order's own: the plain logarithm); or a
    published model of Adam, by name."""

    order: int
    stride: int
    degree: int
    model: str = ""

    @property
    def name(self) -> str:
        """As in `interpolating-NAME`, or the model's."""
        if self.model:
            return self.model
        degree = "" if self.degree == self.order else f"d{self.degree}"
        stride = "" if self.stride == 1 else f"x{self.stride}"
        return f"{self.order}{degree}{stride}"


def plain(order: int, stride: int = 1) -> Variant:
    return Variant(order, stride, order)


MODELS = (Variant(1, 1, 1, "log"), Variant(2, 1, 2, "staggered"))
"""One gradient a call; their order is that of their error where 1 - b ∝ η."""


class Case(NamedTuple):
    """An optimizer on a problem; what is compared begins after `warm_steps`."""

    title: str
    rate: float
    optimizer: optax.GradientTransformation
    make: Callable[[], tuple[AbstractProblem, PyTree]]
    warm_steps: int
    steps: int
    variants: tuple[Variant, ...]
    solvers: tuple[str, ...]

    @property
    def cost(self) -> int:
        """Gradients of the optimizer itself."""
        return self.warm_steps + self.steps


def waves() -> tuple[AbstractProblem, PyTree]:
    """½ Σ h_i θ_i² + Σ cos 2θ_i, the four-dimensional problem of EQUATIONS §1."""
    curvatures = jnp.array(CURVATURES)

    def loss(x: Array) -> Array:
        return jnp.sum(curvatures * x**2) / 2 + jnp.sum(jnp.cos(2 * x))

    return LossProblem(loss), jnp.array([1.0, -1.0, 0.5, 2.0])


def digits() -> tuple[AbstractProblem, PyTree]:
    return ct.problems.digits_mlp((16,), images=300, criterion="squared")


class TracedFlow(ct.InterpolatingFlow):
    """An interpolating flow whose order, stride and degree are numbers of a compiled program: one
    compilation for all. It is not judged."""

    weights: Float[Array, " most"]
    calls: Array

    def __init__(self, optimizer: optax.GradientTransformation, variant: Variant):
        super().__init__(optimizer)
        order, stride, degree = variant[:3]
        weights = np.zeros(MOST_CALLS)
        weights[: degree * stride] = np.repeat(difference_weights(order, degree), stride) / stride
        self.weights, self.calls = jnp.asarray(weights), jnp.asarray(degree * stride)

    @property
    def evaluations(self) -> Any:
        return self.calls

    def vector_field(self, step: Any, state: Any, loss: Any) -> Any:
        def move(i: Array, carry: tuple[Any, Any]) -> tuple[Any, Any]:
            z, total = carry
            after = self.next(step + i, z, loss)
            return after, jax.tree.map(
                lambda t, x, y: t + self.weights[i] * (y - x), total, z, after
            )

        nothing = jax.tree.map(jnp.zeros_like, state)
        return jax.lax.fori_loop(0, self.calls.astype(int), move, (state, nothing))[1]

    def differences(self, step: Any, state: Any, loss: Any) -> Differences:
        return Differences(jnp.ones(()), jnp.zeros(()), jnp.ones(()))


def proportional(flow: AbstractFlow, rtol: float, atol: float) -> ErrorScale:
    """The default controller with a proportional part (pcoeff 0.1, icoeff 0.3)."""
    inner = diffrax.PIDController(
        rtol=0, atol=1, pcoeff=0.1, icoeff=0.3, norm=optimistix.max_norm, force_dtmin=False,
        dtmin=1e-9,
    )  # fmt: skip
    return ErrorScale(inner, flow.error_scale, jnp.asarray(rtol), jnp.asarray(atol))


SOLVERS: dict[str, tuple[diffrax.AbstractSolver, Any]] = {
    "Tsit5": (diffrax.Tsit5(), None),
    "Tsit5, PI": (diffrax.Tsit5(), proportional),
    "Bosh3": (diffrax.Bosh3(), None),
    "Heun": (diffrax.Heun(), None),
}
"""Solver, and controller if not the default one."""

ALL = tuple(SOLVERS)
DEGREES = (Variant(2, 1, 6), Variant(3, 1, 7))
STRIDES = (plain(2, 2), plain(3, 2))
CASES = {
    "smooth": Case(
        "four-dimensional,\nAdam, η = 0.001", 1e-3, optax.adam(1e-3), waves, 10, 9000,
        (plain(1), plain(2), plain(3), plain(4), plain(6), *STRIDES, *DEGREES, *MODELS),
        ALL,
    ),
    "digits, small steps": Case(
        "digits MLP,\nAdam, η = 0.0001", 1e-4, optax.adam(1e-4), digits, 100, 3000,
        (plain(1), plain(2), plain(3), plain(4), *DEGREES, *MODELS),
        ("Tsit5", "Bosh3", "Heun"),
    ),
    "digits": Case(
        "digits MLP,\nAdam, η = 0.01", 1e-2, optax.adam(1e-2), digits, 300, 600,
        (plain(1), plain(2), plain(3), *STRIDES, *DEGREES, *MODELS),
        ("Tsit5", "Bosh3", "Heun"),
    ),
    "edge": Case(
        "past the edge,\nRMSProp, η = 0.003", 3e-3,
        optax.rmsprop(3e-3, decay=0.99, bias_correction=True), digits, 100, 300,
        (plain(2), *STRIDES, plain(6, 2), Variant(3, 2, 7)), ("Tsit5",),
    ),
}  # fmt: skip
"""Flows whose failure is known are left out (EQUATIONS §1): orders above 3 at η = 0.01, all but one
with stride 1 past the edge. They would spend the whole budget."""


class Reference(NamedTuple):
    """The optimizer's run, and where it was looked at."""

    problem: AbstractProblem
    params: PyTree
    saved: np.ndarray
    path: Rows


def reference(case: Case) -> Reference:
    problem, params = case.make()
    blocks = case.steps // WHOLE
    saved = WHOLE * np.unique(np.linspace(0, blocks, min(SAVES, blocks) + 1).round().astype(int))
    discrete = ct.run(
        case.optimizer, problem, params, case.steps, warm_steps=case.warm_steps, save_steps=saved
    )
    return Reference(problem, params, saved, rows(discrete.params))


def measure(
    case: Case, against: Reference, variant: Variant, solver: str, rtols: Sequence[float], most: int
) -> dict[str, np.ndarray]:
    """Error over the distance travelled (infinite where the flow did not get to its end), solver
    steps and evaluations, by tolerance; at most `most` solver steps."""
    flow: Any = TracedFlow(case.optimizer, variant)
    if variant.model:
        flow = flow_named(variant.model, learning_rate=case.rate)
    method, controller = SOLVERS[solver]
    found: dict[str, list] = {"error": [], "solver_steps": [], "evaluations": []}
    for rtol in rtols:
        atol = 1e-3 * rtol
        solved = ct.solve(
            flow,
            against.problem,
            against.params,
            case.steps,
            save_steps=against.saved,
            warm_steps=case.warm_steps,
            solver=method,
            controller=None if controller is None else controller(flow, rtol, atol),
            rtol=rtol,
            atol=atol,
            max_solver_steps=most,
            throw=False,
        )
        found["error"].append(relative_error(rows(solved.params), against.path))
        found["solver_steps"].append(int(solved.stats["num_steps"]))
        found["evaluations"].append(int(solved.stats["evaluations"]))
    return {name: np.array(values, float) for name, values in found.items()}


def relative_error(ours: Rows, theirs: Rows) -> float:
    """Largest difference over the distance that the optimizer travelled."""
    with np.errstate(invalid="ignore", over="ignore"):
        error = np.abs(ours - theirs).max() / np.abs(theirs - theirs[0]).max()
    return float(error) if np.isfinite(error) else np.inf
