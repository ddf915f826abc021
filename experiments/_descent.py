"""The descent inequality of F_k along noisy runs, inside its regime and outside (EQUATIONS §6).

F is a robust regression, (1/n) Σ_j ρ(⟨a_j, x⟩ − y_j) with Geman and McClure's ρ(r) = ½r²/(1 + r²),
which is not convex. −¼ ≤ ρ'' ≤ 1 makes L = λ_max(AᵀA)/n a Lipschitz constant of ∇F, and
|ρ'| ≤ ρ'(1/√3) = 3√3/16 bounds |∂_iF| by (3√3/16)(1/n) Σ_j|A_ji|, wherever x is. Neither is loose:
where the coefficients behind the targets are, the curvature is 0.92 L. A gradient has noise ±s in
every coordinate, so that |g|_∞ ≤ max_i|∂_iF| + s surely and E‖g − ∇F‖² = ds² exactly.
"""

from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from ct_adam.diagnostics import DescentRun, DescentTerms, descent_along
from ct_adam.theory import ZhouHypotheses, from_zhou, zhou_decay, zhou_hypotheses
from ct_adam.theory.decay import Zhou
from ct_adam.theory.regularization_regime import Fall

if TYPE_CHECKING:
    import xarray

SIZE, ROWS, NOISE = 6, 24, 0.3
"""d, n and s."""
DECAY = 0.1
"""λ"""


class Problem(NamedTuple):
    """F, with gradients ∇F ± s in every coordinate."""

    loss: Callable[[Array], Array]
    size: int
    noise: float
    smoothness: float
    """L"""
    bound: float
    """c_∞"""
    truth: np.ndarray
    """the coefficients behind its targets"""

    @property
    def variance(self) -> float:
        """σ² = E‖g − ∇F‖², exactly."""
        return self.size * self.noise**2

    def gradient(self, key: Array, step: Any, x: Array) -> Array:
        signs = jax.random.rademacher(jax.random.fold_in(key, step), x.shape, x.dtype)
        return jax.grad(self.loss)(x) + self.noise * signs


@cache
def robust(noise: float = NOISE, seed: int = 0) -> Problem:
    """Features of unequal sizes; a quarter of the targets are outliers."""
    rng = np.random.default_rng(seed)
    matrix = rng.standard_normal((ROWS, SIZE)) * np.geomspace(0.5, 2, SIZE)
    truth = rng.standard_normal(SIZE)
    targets = matrix @ truth + 0.1 * rng.standard_normal(ROWS)
    targets[: ROWS // 4] += 10

    def loss(x: Array) -> Array:
        square = jnp.square(matrix @ x - targets)
        return jnp.mean(square / (1 + square)) / 2

    smooth = float(np.linalg.eigvalsh(matrix.T @ matrix)[-1]) / ROWS
    steepest = float(3 * np.sqrt(3) / 16 * np.abs(matrix).mean(0).max())
    return Problem(loss, SIZE, noise, smooth, steepest + noise, truth)


class Case(NamedTuple):
    """A setting by its distance from the regime's edges; what is not named keeps inside."""

    mu: float
    delta: float = 1.0
    """over c_∞²"""
    beta1: float = 0.1
    rate: float = 1.0
    """η over c₁/(2(L + λc₁)), which suffices; 0: the printed limit, which is c₁/c₂ of it"""
    fall: Fall | Literal["constant"] = "printed"
    """of λ_k: as in `zhou_decay`, or constant"""
    known: float = 1.0
    """the c_∞ that was believed, over the true one"""


CASES: dict[str, Case] = {
    "μ = 1e-5": Case(1e-5),
    "μ = 1e-4": Case(1e-4),
    "μ = 1e-4, δ = c²/10": Case(1e-4, 0.1, 0.01),
    "μ = 1e-4, printed limit of η": Case(1e-4, rate=0.0),
    "μ = 0.01, no momentum": Case(0.01, beta1=1.0),
    "μ = 0.5": Case(0.5),
    "μ = 0.9": Case(0.9, 0.5),
    "μ = 1.5, slowest λ_k": Case(1.5, 0.1, fall="slowest"),
    "μ = 1.5": Case(1.5, 0.1),
    "μ = 1.5, constant λ": Case(1.5, 0.1, fall="constant"),
    "μ = 100, constant λ": Case(100, 1e-3, fall="constant"),
    "μ = 1e5, constant λ": Case(1e5, 1e-8, rate=85.0, fall="constant"),
    "μ = 0.5, constant λ": Case(0.5, fall="constant"),
    "η three times its limit": Case(1e-4, rate=3.0),
    "η ten times its limit": Case(1e-4, rate=10.0),
    "c_∞ believed ten times too small": Case(0.001, known=0.1),
}
INSIDE = tuple(CASES)[:7]
"""In the regime of the paper: never violated. At μ ≥ 0.01 λ_k is gone after few steps, so that it
is the first four that test a loss which is regularised."""
SHOWN = "μ = 1e-4"
"""Whose terms are drawn."""
SLOWEST = "μ = 1.5, slowest λ_k"
"""Never violated either: with our λ_k the descent needs no μ < 1."""
BROKEN_WEIGHTS = tuple(CASES)[8:11]
"""Violated by the change of weights, μ being above 1."""
BROKEN_RATE = ("η ten times its limit",)
"""Violated by the step itself. (At three times the limit some steps of 10⁴ are.)"""
PYTORCH = "μ = 1e5, constant λ"
"""PyTorch's defaults, its eps as δ, at η ≈ 1e-3: not violated, as the right side is vacuous."""
LIVE = 1e-12
"""By so much F_k must change with its weights for λ_k to count as alive; F is about 0.1."""


class Lane(NamedTuple):
    """The numbers of a case: `from_zhou`'s, η, the factor by which λ_k changes, and c_∞."""

    method: Zhou
    learning_rate: float
    ratio: float
    bound: float


def lane(case: Case, problem: Problem) -> tuple[Lane, ZhouHypotheses]:
    """A believed c_∞ that is too small is c₂'s alone: λ_k falls by the true one, else it would
    lack that hypothesis too."""
    bound = case.known * problem.bound
    delta = case.delta * bound**2
    method = from_zhou(case.beta1, case.mu * case.delta, delta, DECAY)
    limits = zhou_hypotheses(method, 0.0, problem.smoothness, bound)
    enough, printed = limits.learning_rate_sufficient, limits.learning_rate_printed
    eta = case.rate * enough if case.rate else printed
    ratio = _ratio(case, method, problem.bound)
    # What is true of the run, by the true bound of its gradients.
    found = zhou_hypotheses(method, eta, problem.smoothness, problem.bound, decay_ratio=ratio)
    return Lane(method, eta, ratio, bound), found


def _ratio(case: Case, method: Zhou, bound: float) -> float:
    """λ_{k+1}/λ_k."""
    if case.fall == "constant":
        return 1.0
    if case.fall == "printed" and case.mu >= 1:
        return 1 - case.mu  # its sign alternates, which `zhou_decay` refuses
    return float(zhou_decay(method, bound, case.fall)(1)) / method.weight_decay


def inequality(
    steps: int = 20_000, seeds: int = 5, points: int = 200, names: Sequence[str] = tuple(CASES)
) -> "xarray.Dataset":
    """Over (case, seed): how often the inequality was violated, in which part and up to which step
    (−1: none), in how many steps λ_k was alive, the smallest slack, alone and over the sum of the
    three terms, the median of error over gradient term, and the largest gradient; over
    (case, step), of seed 0 at `points` steps: both sides and their terms; over case: μ, η, its
    limits, c₁, c₂.

    A violation is below −1e-14 of F_k, of which rounding takes 1e-15.
    """
    import xarray

    problem = robust()
    lanes, known = zip(*(lane(CASES[name], problem) for name in names), strict=True)
    stacked = jax.tree.map(lambda *x: jnp.asarray(x, float), *lanes)
    terms, _, largest = _runs(stacked, jnp.arange(seeds), steps)
    counted = _counted(terms) | {"largest_gradient": np.asarray(largest)}
    said = [_told(one, CASES[name]) for one, name in zip(known, names, strict=True)]
    thin = np.unique(np.geomspace(1, steps, points).astype(int)) - 1
    shown = ("left", "start", "error", "gradient", "update", "reweighting", "right", "slack")
    of_case = ("mu", "learning_rate_printed", "learning_rate_sufficient", "c1", "c2")
    curved = np.linalg.eigvalsh(jax.hessian(problem.loss)(jnp.asarray(problem.truth)))[-1]
    return xarray.Dataset(
        {name: (("case", "seed"), values) for name, values in counted.items()}
        | {name: (("case", "step"), np.asarray(getattr(terms, name))[:, 0, thin]) for name in shown}
        | {name: ("case", [getattr(one, name) for one in known]) for name in of_case}
        | {
            "learning_rate": ("case", [one.learning_rate for one in lanes]),
            "true_bound": ((), problem.bound),
            "smoothness": ((), problem.smoothness),
            "curvature": ((), float(curved)),
            "missing": ("case", said),
        },
        coords={
            "case": list(names),
            "seed": np.arange(seeds),
            "step": ("step", thin, {"units": "steps"}),
        },
        attrs={"steps": steps, "shown": SHOWN, "size": SIZE, "noise": NOISE, "weight_decay": DECAY},
    )


def _counted(terms: DescentTerms) -> dict[str, np.ndarray]:
    """Over (case, seed), of all steps."""
    slack, part = np.asarray(terms.slack), np.asarray(terms.step_slack)
    floor = -1e-14 * np.abs(terms.start)
    violated = ~(slack >= floor)
    sums = np.asarray(terms.error + terms.gradient + terms.update)
    return {
        "violations": violated.sum(-1),
        "by_reweighting": (violated & (part >= floor)).sum(-1),
        "by_step": (violated & ~(part >= floor)).sum(-1),
        "last_violation": np.where(violated, np.arange(slack.shape[-1]), -1).max(-1),
        "live_steps": (np.abs(terms.reweighting) > LIVE).sum(-1),
        "error_over_gradient": np.median(terms.error / terms.gradient, axis=-1),
        "smallest_slack": slack.min(-1),
        "smallest_relative": (slack / sums).min(-1),
    }


def _told(known: ZhouHypotheses, case: Case) -> str:
    """The hypotheses that a case lacks."""
    believed = (f"c_∞ was believed to be {case.known:g} of itself.",) if case.known < 1 else ()
    return " ".join((*known.violated, *believed))


@partial(jax.jit, static_argnums=2)
def _runs(lanes: Lane, seeds: Array, steps: int) -> DescentRun:
    """Over (lane, seed), and step."""
    problem = robust()

    def run(lane: Lane, seed: Array) -> DescentRun:
        key, first = jax.random.split(jax.random.fold_in(jax.random.key(0), seed))

        def decay(step: Any) -> Any:
            return lane.method.weight_decay * jnp.power(lane.ratio, step)

        return descent_along(
            problem.loss, 2 * jax.random.normal(first, (SIZE,)), lane.method, lane.learning_rate,
            lane.bound, steps, weight_decay=decay, gradient=partial(problem.gradient, key),
        )  # fmt: skip

    return jax.vmap(lambda lane: jax.vmap(lambda seed: run(lane, seed))(seeds))(lanes)
