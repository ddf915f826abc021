"""How fast the gradient of F_k falls: at the choices of EQUATIONS §6, and on Zhou et al.'s toy.

General: (1/T)Σ‖∇F_k(x_k)‖² of the robust regression of `_descent` at `complexity_choice`, which
promises ε² ∝ T^{−1/2}. PŁ: F = ½E(ax − ξ)², ξ = 1 ± s, at η ∝ T^{−1/2}, at η ∝ 1/T, and in
`pl_stages`.
"""

from functools import cache, partial
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from ct_adam.optimizers import uncorrected, zhou_adamw
from ct_adam.optimizers.stage import stage_states
from ct_adam.theory import (
    ComplexityChoice,
    ComplexityConditions,
    complexity_choice,
    dynamic_loss,
    from_zhou,
    gradient_bound,
    pl_stages,
)
from ct_adam.theory.decay import Zhou

from ._descent import DECAY, Problem, robust

if TYPE_CHECKING:
    import xarray

TARGETS = (0.1, 0.05, 0.025, 0.0125, 0.00625)
"""ε² of the general case."""
GENERAL_NOISE, GENERAL_DELTA = 0.1, 4.0
"""s, and δ/c_∞². μ is 1/T, so that in every run λ_k falls to λ/e."""
TOY_START, TOY_NOISE, TOY_MU = 3.0, 1.0, 0.1
"""x₀, s and μ: λ_k is gone after 100 steps, and the minimum stands still."""
TOY_DECAY = 0.01
HORIZONS = (100, 316, 1000, 3162, 10_000)
"""T of the toy's constant learning rates."""
RATES = {"η ∝ T^(-1/2)": (-0.5, 3.0), "η ∝ 1/T": (-1.0, 30.0)}
"""η = cT^p; c so large that the start is forgotten at every T, to e^{−ηT/v}."""
FORGETS = 3
"""Stages that are not fitted."""
LARGEST_TARGET = (TOY_START - 1) ** 2 / 2 / 2 ** (FORGETS + 1)
"""Below it there are two stages to be fitted."""


@cache
def toy() -> Problem:
    """a = 1. |x − 1| ≤ 2 from x₀ = 3 on, unless momentum overshoots, so that |g| ≤ 2 + s."""
    return Problem(
        lambda x: jnp.sum(jnp.square(x - 1)) / 2, 1, TOY_NOISE, 1.0, 2 + TOY_NOISE, np.ones(1)
    )


PROBLEMS = {"robust": partial(robust, GENERAL_NOISE), "toy": toy}


class Walk(NamedTuple):
    """Where a run is, and Σ‖∇F_k(x_k)‖² of its steps."""

    clock: Array
    params: Array
    state: Any
    squares: Array


class Setting(NamedTuple):
    """The numbers of a walk, and μ."""

    method: Zhou
    learning_rate: float
    mu: float


def _setting(
    problem: Problem, choice: ComplexityChoice, delta: float, mu: float, decay: float
) -> Setting:
    method = from_zhou(choice.beta1, mu * delta / problem.bound**2, delta, decay)
    return Setting(method, choice.learning_rate, mu)


@partial(jax.jit, static_argnums=0)
def _begin(name: str, setting: Setting, keys: Array, start: Array) -> Walk:
    problem = PROBLEMS[name]()

    def one(key: Array) -> Walk:
        state = _optimizer(setting).init(start)
        state = uncorrected(state, problem.gradient(key, 0, start))
        return Walk(jnp.asarray(0), start, state, jnp.zeros((), start.dtype))

    return jax.vmap(one)(keys)


@partial(jax.jit, static_argnums=0)
def _walk(name: str, setting: Setting, keys: Array, walks: Walk, steps: Array) -> Walk:
    """So many more steps of each; one program whatever the numbers are."""
    problem, optimizer = PROBLEMS[name](), _optimizer(setting)

    def one(key: Array, walk: Walk, steps: Array) -> Walk:
        def step(_: Any, walk: Walk) -> Walk:
            clock, x, state, squares = walk
            delta, state = optimizer.update(problem.gradient(key, clock, x), state, x)
            (stage,) = stage_states(state, 1)
            now = setting.method.weight_decay * jnp.power(1 - setting.mu, clock)
            slope = jax.grad(
                lambda x: dynamic_loss(problem.loss, x, stage.v, now, setting.method.eps_root)
            )(x)
            return Walk(clock + 1, x + delta, state, squares + jnp.sum(slope**2))

        return jax.lax.fori_loop(0, steps, step, walk)

    return jax.vmap(one, in_axes=(0, 0, 0 if steps.ndim else None))(keys, walks, steps)


def _optimizer(setting: Setting) -> Any:
    method, eta, mu = setting
    return zhou_adamw(method, eta, lambda k: method.weight_decay * jnp.power(1 - mu, k))


def _keys(seeds: int, run: int) -> Array:
    """Other noise for every run."""
    return jax.random.split(jax.random.fold_in(jax.random.key(1), run), seeds)


def general(seeds: int = 8, targets: tuple[float, ...] = TARGETS) -> "xarray.Dataset":
    """Over (target, seed) the average of ‖∇F_k(x_k)‖²; over target β₁, η, T and what bounds the
    expectation of that average. `slope` (seed): d ln average/d ln T."""
    import xarray

    problem = PROBLEMS["robust"]()
    delta = GENERAL_DELTA * problem.bound**2
    known = ComplexityConditions(problem.smoothness, problem.variance, problem.bound, delta, DECAY)
    start = jnp.full(problem.size, 2.0)
    # F ≥ 0 and n₀ ≤ c_∞² make this no less than F_0(x_0) − inf F.
    gap = float(problem.loss(start)) + DECAY / 2 * known.c2 * float(jnp.sum(start**2))
    choices = [complexity_choice(target**0.5, gap, known) for target in targets]
    averages = []
    for run, choice in enumerate(choices):
        setting = _setting(problem, choice, delta, 1 / choice.steps, DECAY)
        keys = _keys(seeds, run)
        walks = _begin("robust", setting, keys, start)
        walks = _walk("robust", setting, keys, walks, jnp.asarray(choice.steps))
        averages.append(np.asarray(walks.squares) / choice.steps)
    columns = zip(ComplexityChoice._fields, zip(*choices, strict=True), strict=True)
    steps = [choice.steps for choice in choices]
    return xarray.Dataset(
        {
            "average": (("target", "seed"), np.array(averages)),
            "bound": ("target", [gradient_bound(choice, gap, known) for choice in choices]),
            "slope": ("seed", _slopes(steps, np.array(averages))),
        }
        | {name: ("target", list(values)) for name, values in columns},
        coords={"target": list(targets), "seed": np.arange(seeds)},
        attrs={"start_gap": gap, **known._asdict()},
    )


def toy_rates(
    groups: int = 8, replicas: int = 256, horizons: tuple[int, ...] = HORIZONS
) -> "xarray.Dataset":
    """The toy at constant η. Over (schedule, horizon, group) the mean over replicas of |∇F|² after
    T steps, which is 2(F − F*); over (schedule, horizon) η, and the ηhq/(2√(δ + q)) that the noise
    keeps up, h = 1 the curvature and q the noise's variance. `slope` (schedule, group)."""
    import xarray

    known = _toy_conditions()
    predicted, rates, found = [], [], []
    for i, (power, factor) in enumerate(RATES.values()):
        for j, steps in enumerate(horizons):
            choice = ComplexityChoice(0.1, factor * float(steps) ** power, steps)
            keys = _keys(groups * replicas, i * len(horizons) + j)
            walks = _toy_walk(choice, keys, None, jnp.asarray(steps))
            found.append(_squares(walks, groups))
            rates.append(choice.learning_rate)
            root = np.sqrt(known.eps_root + known.variance)
            predicted.append(choice.learning_rate * known.variance / (2 * root))
    shape = (len(RATES), len(horizons))
    squares = np.array(found).reshape(*shape, groups)
    dims = ("schedule", "horizon")
    return xarray.Dataset(
        {
            "square": ((*dims, "group"), squares),
            "learning_rate": (dims, np.reshape(rates, shape)),
            "predicted": (dims, np.reshape(predicted, shape)),
            "slope": (("schedule", "group"), np.array([_slopes(horizons, s) for s in squares])),
        },
        coords={
            "schedule": list(RATES),
            "horizon": ("horizon", list(horizons), {"units": "steps"}),
            "group": np.arange(groups),
        },
        attrs={"replicas": replicas},
    )


def toy_stages(groups: int = 8, replicas: int = 256, target: float = 0.004) -> "xarray.Dataset":
    """The toy in `pl_stages`, each left at a step drawn uniformly, with its moments. Over
    (stage, group) the mean over replicas of F − F* there; over stage ΣT_s so far, β₁, η and the
    `promised` gap; `slope` (group): d ln(F − F*)/d ln ΣT_s.

    The first three stages are not fitted: they forget the start.
    """
    import xarray

    known = _toy_conditions()
    gap = (TOY_START - 1) ** 2 / 2
    stages = pl_stages(target, gap, 1.0, known)
    keys, walks, found = _keys(groups * replicas, 100), None, []
    rng = np.random.default_rng(2)
    for stage in stages:
        drawn = jnp.asarray(rng.integers(stage.steps, size=groups * replicas))
        walks = _toy_walk(stage, keys, walks, drawn)
        found.append(_squares(walks, groups) / 2)
    taken = np.cumsum([stage.steps for stage in stages])
    promised = gap / 2.0 ** np.arange(1, len(stages) + 1)
    return xarray.Dataset(
        {
            "gap": (("stage", "group"), np.array(found)),
            "promised": ("stage", promised),
            "beta1": ("stage", [stage.beta1 for stage in stages]),
            "learning_rate": ("stage", [stage.learning_rate for stage in stages]),
            "steps": ("stage", taken, {"units": "steps"}),
            "slope": ("group", _slopes(taken[FORGETS:], np.array(found)[FORGETS:])),
        },
        coords={"stage": np.arange(1, len(stages) + 1), "group": np.arange(groups)},
        attrs={"replicas": replicas, "start_gap": gap},
    )


def _toy_conditions() -> ComplexityConditions:
    problem = toy()
    return ComplexityConditions(1.0, problem.variance, problem.bound, problem.bound**2, TOY_DECAY)


def _toy_walk(choice: ComplexityChoice, keys: Array, walks: Walk | None, steps: Array) -> Walk:
    setting = _setting(toy(), choice, _toy_conditions().eps_root, TOY_MU, TOY_DECAY)
    if walks is None:
        walks = _begin("toy", setting, keys, jnp.full(1, TOY_START))
    return _walk("toy", setting, keys, walks, jnp.broadcast_to(steps, len(keys)))


def _squares(walks: Walk, groups: int) -> np.ndarray:
    """|∇F|² at the end, the mean of each group."""
    return np.mean(np.square(np.asarray(walks.params) - 1).reshape(groups, -1), 1)


def _slopes(steps: Any, values: np.ndarray) -> np.ndarray:
    """d ln value/d ln steps of each column."""
    return np.polyfit(np.log(np.asarray(steps, float)), np.log(values), 1)[0]
