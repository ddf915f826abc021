"""What `cost` measures: how much of a solver's work a flow takes, and how far it is from the steps.

One program a problem and flow: learning rates, decays, lengths, starts and tolerances are traced
numbers.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, PyTree

import ct_adam as ct
from ct_adam.flows import AbstractFlow
from ct_adam.optimizers import optimizer_step
from ct_adam.problems import AbstractProblem, full_batch
from ct_adam.problems.networks import text_network
from ct_adam.problems.registry import CURVATURES, START
from ct_adam.simulate.controllers import default_controller
from ct_adam.simulate.cost import count_evaluations
from ct_adam.simulate.discrete import warmed
from ct_adam.theory.interpolation import difference_weights

WARM = 10
"""Discrete steps before the flow sets in; a number, for a share of the run would cost ∝ 1/η."""
SAVES = 16
SHARE = 8
"""Most solver steps of any run: an eighth of the optimizer's in the longest one, where the memory
takes 1/33. (An interpolating flow that blows up takes as many as it is given.)"""
B1, B2, AT = 0.9, 0.999, 1e-3
"""The default decays, and the learning rate at which 1 - b ∝ η has them."""


class Problem(NamedTuple):
    """`make(seed)`; η·steps; eps (its square inside the root), about a fiftieth of the first
    gradients' root mean square."""

    title: str
    make: Callable[[int], tuple[AbstractProblem, PyTree]]
    horizon: float
    eps: float


def _quadratic(seed: int) -> tuple[AbstractProblem, PyTree]:
    """That of the registry, in a random rotation."""
    return ct.problems.quadratic(CURVATURES, rotation_seed=seed), jnp.array(START)


def _digits(seed: int) -> tuple[AbstractProblem, PyTree]:
    return ct.problems.digits_mlp((16,), images=300, seed=seed, criterion="squared")


def _transformer(seed: int) -> tuple[AbstractProblem, PyTree]:
    minibatches, params = text_network("python_topics", context=16, batch=8, seed=seed)
    return full_batch(minibatches.loss, minibatches.batch(0)), params


PROBLEMS = {
    "quadratic": Problem("quadratic, 4 parameters", _quadratic, 1.024, 0.5),
    "digits": Problem("digits MLP, 1210 parameters", _digits, 0.256, 6e-3),
    "transformer": Problem("transformer, 20 000 parameters", _transformer, 0.064, 1e-4),
}


class Setting(NamedTuple):
    """Numbers of one run; `warm_steps` beside `steps`."""

    learning_rate: Any
    b1: Any
    b2: Any
    eps: Any
    steps: Any


def fixed(problem: Problem, steps: int) -> Setting:
    return _setting(problem, steps, B1, B2)


def scaled(problem: Problem, steps: int) -> Setting:
    """1 - b ∝ η, the default decays at η = 1e-3: of the run, m remembers a part that stays."""
    part = problem.horizon / steps / AT
    return _setting(problem, steps, 1 - (1 - B1) * part, 1 - (1 - B2) * part)


def _setting(problem: Problem, steps: int, b1: float, b2: float) -> Setting:
    numbers = (problem.horizon / steps, b1, b2, problem.eps, steps)
    return Setting(*(jnp.asarray(x) for x in numbers))


SCALINGS = {"fixed": fixed, "scaled": scaled}


def _interpolating(order: int, degree: int | None, of: Setting) -> AbstractFlow:
    optimizer = optax.adam(of.learning_rate, of.b1, of.b2, 0.0, of.eps**2)
    return ct.InterpolatingFlow(optimizer, order, degree=degree)


def _of(make: Any, of: Setting) -> AbstractFlow:
    return make(of.learning_rate, of.b1, of.b2, 0.0, eps_root=of.eps**2)


def _modified(of: Setting) -> AbstractFlow:
    return ct.ModifiedFlow(of.learning_rate, of.b1, of.b2, of.eps**2)


class Way(NamedTuple):
    """A flow, its solver, evaluations a call, and which scalings and problems it is for."""

    make: Callable[[Setting], AbstractFlow]
    calls: int = 1
    solver: diffrax.AbstractSolver = diffrax.Tsit5()
    scalings: tuple[str, ...] = ("fixed", "scaled")
    problems: tuple[str, ...] = tuple(PROBLEMS)


FLOWS = {
    "log": Way(partial(_of, ct.AdamFlow)),
    "staggered": Way(partial(_of, ct.StaggeredFlow)),
    "interpolating-2": Way(partial(_interpolating, 2, None), 2),
    # Without memory it is no model of Adam that keeps its memory.
    "modified": Way(_modified, 2, scalings=("fixed",), problems=("quadratic", "digits")),
    "log, Kvaerno5": Way(
        partial(_of, ct.AdamFlow), 1, diffrax.Kvaerno5(), ("fixed",), ("quadratic",)
    ),
}
"""Flows of the same optimizer, Adam with eps inside the root, which the modified equation wants."""


def stability_interval(solver: diffrax.AbstractERK) -> float:
    """The x beyond which an explicit method grows y' = -y with steps of length x.

    Of the stability polynomial R(z) = 1 + z bᵀ(1 - zA)⁻¹1 (Hairer & Wanner, Solving ODEs II, IV.2).
    """
    tableau: Any = solver.tableau
    weights = np.asarray(tableau.b_sol)
    matrix = np.zeros((weights.size,) * 2)
    for row, entries in enumerate(tableau.a_lower, 1):
        matrix[row, : len(entries)] = entries

    def grows(x: float) -> bool:
        stages = np.linalg.solve(np.eye(weights.size) + x * matrix, np.ones(weights.size))
        return bool(abs(1 - x * weights @ stages) > 1)

    high = next(x for x in np.arange(0.05, 100, 0.05) if grows(x))
    low = high - 0.05
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (low, middle) if grows(middle) else (middle, high)
    return float(low)


def derived_limit(flow: str, b1: float = B1) -> float | None:
    """Evaluations a step of the optimizer as η → 0 with fixed decays; None where nothing of the
    field relaxes in a number of steps.

    What is left of Adam's memory there is m' = a (g - m): Tsit5 is stable for steps of up to
    `stability_interval`/a, with six calls each (the seventh is the next step's first). For an
    interpolating flow a is the value of its polynomial at μ = b1.

    Rejected steps come on top: on the quadratic accepted ones are as many as derived to 2 %, and
    the controller, which tries longer ones again and again, takes 1.27 times as many in all.
    """
    calls = 6 / stability_interval(diffrax.Tsit5())
    if flow in ("log", "staggered"):
        return -calls * float(np.log(b1))
    if flow == "interpolating-2":
        weights = difference_weights(2, None)
        at = float(weights @ (b1 ** np.arange(len(weights)) * (1 - b1)))
        return calls * at * len(weights)
    return None


class Cost(NamedTuple):
    """Largest |flow - optimizer| over the distance travelled (infinite where the flow did not
    reach its end), solver steps, and gradient evaluations (NaN of an implicit solver)."""

    error: Array
    solver_steps: Array
    evaluations: Any


Path = Float[Array, "saves parameters"]


@eqx.filter_jit
def optimizer_path(problem: AbstractProblem, params: PyTree, of: Setting) -> tuple[Path, Array]:
    """The parameters at `SAVES` + 1 evenly spaced steps after the warm ones, and the losses."""
    optimizer = _of(ct.AdamFlow, of).optimizer

    def step(n: Array, carry: Any) -> Any:
        return optimizer_step(optimizer, problem, n, *carry)[:2]

    def segment(carry: Any, i: Array) -> tuple[Any, tuple[Array, Array]]:
        first = WARM + i * length
        after = jax.lax.fori_loop(first, first + length, step, carry)
        return after, (ravel_pytree(carry[0])[0], problem.value(carry[0]))

    length = of.steps // SAVES
    begin = warmed(optimizer, problem, params, WARM)
    # The step after the last one is not looked at: it costs 1/SAVES of the run.
    return jax.lax.scan(segment, begin, jnp.arange(SAVES + 1))[1]


@eqx.filter_jit
def flow_cost(
    flow: str,
    problem: AbstractProblem,
    params: PyTree,
    of: Setting,
    rtol: Array,
    path: Path,
    budget: int,
) -> Cost:
    """One flow against the optimizer's path, in `budget` solver steps at most."""
    way = FLOWS[flow]
    made = way.make(of)
    warm, held = warmed(made.optimizer, problem, params, WARM)
    state = made.from_optimizer(problem, warm, held, WARM)
    times = WARM + of.steps / SAVES * jnp.arange(SAVES + 1)

    def error_at(time: Array, state: PyTree, problem: AbstractProblem) -> Array:
        del problem
        place = jnp.round((time - WARM) * SAVES / of.steps).astype(int)
        return jnp.max(jnp.abs(ravel_pytree(made.params(state))[0] - path[place]))

    solution = diffrax.diffeqsolve(
        diffrax.ODETerm(made.vector_field),  # pyright: ignore[reportArgumentType]
        way.solver,
        times[0],
        times[-1],
        None,
        state,
        problem,
        saveat=diffrax.SaveAt(ts=times, fn=error_at),
        stepsize_controller=default_controller(made, rtol, rtol / 1000, path.dtype, times[-1]),
        max_steps=budget,
        throw=False,
    )
    assert solution.ys is not None
    count = solution.stats["num_steps"]
    evaluations = count_evaluations(way.solver, made, count, problem, of.steps, WARM)
    error = jnp.max(solution.ys) / jnp.max(jnp.abs(path - path[0]))
    return Cost(
        jnp.where(jnp.isfinite(error), error, jnp.inf),
        count,
        jnp.nan if evaluations is None else jnp.asarray(evaluations, float),
    )


def measure(
    name: str,
    seed: int,
    lengths: tuple[int, ...],
    flows: list[str],
    rtols: tuple[float, ...],
) -> dict[str, np.ndarray]:
    """Errors, solver steps and evaluations over (scaling, flow, η, rtol); losses over (scaling, η,
    2), the first and the last. NaN where a flow is not meant for it."""
    problem = PROBLEMS[name]
    budget = 256 + lengths[-1] // SHARE
    made, params = problem.make(seed)
    shape = (len(SCALINGS), len(flows), len(lengths), len(rtols))
    found = {key: np.full(shape, np.nan) for key in Cost._fields}
    losses = np.full((len(SCALINGS), len(lengths), 2), np.nan)
    for i, (scaling, setting_of) in enumerate(SCALINGS.items()):
        for k, steps in enumerate(lengths):
            of = setting_of(problem, steps)
            path, values = optimizer_path(made, params, of)
            losses[i, k] = values[0], values[-1]
            for j, flow in enumerate(flows):
                if scaling not in FLOWS[flow].scalings:
                    continue
                for r, rtol in enumerate(rtols):
                    cost = flow_cost(flow, made, params, of, jnp.asarray(rtol), path, budget)
                    for key, value in cost._asdict().items():
                        found[key][i, j, k, r] = float(value)
    return {**found, "loss": losses}
