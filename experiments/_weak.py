"""Adam's SDE against discrete Adam: of which weak order it is in η² (EQUATIONS §9).

On quadratics, where `theory.sde_moments` knows the SDE's moments without Monte Carlo. Every error
has a standard error over independent paths.
"""

from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

import ct_adam as ct
from ct_adam.optimizers import optimizer_step
from ct_adam.optimizers.stage import StageState
from ct_adam.theory import sde_moments

if TYPE_CHECKING:
    import xarray

_CHUNK = 4096


class Setting(NamedTuple):
    """Malladi et al.'s limit: time t = η²n, noise of deviation `noise`/η, 1 - b_i = c_i η².

    From t = `begin`, where θ = `start`, m/B1 = curvature·start and v/B2 = the noise's variance, to
    t = `end`.
    """

    c1: float = 1.0
    c2: float = 0.5
    noise: float = 1.0
    curvature: float = 1.0
    start: float = 1.0
    begin: float = 1.0
    end: float = 4.0


class AtRate(NamedTuple):
    """A setting at one η."""

    learning_rate: Any
    b1: Any
    b2: Any
    variance: Any
    warm_steps: Any
    steps: Any


def scaled(setting: Setting, size: float) -> AtRate:
    """The setting at η² = size; `ValueError` unless its times are whole steps."""
    counts = [setting.begin / size, (setting.end - setting.begin) / size]
    warm, steps = (round(count) for count in counts)
    if warm < 1 or steps < 1 or not np.allclose(counts, [warm, steps], rtol=1e-9):
        raise ValueError(f"η² = {size} must divide {setting.begin} and {setting.end}.")
    c1, c2 = 1 - setting.c1 * size, 1 - setting.c2 * size
    return AtRate(np.sqrt(size), c1, c2, setting.noise**2 / size, warm, steps)


def weak_order(
    sizes: tuple[float, ...] = (0.1, 0.05, 0.025, 0.0125),
    paths: int = 200_000,
    seed: int = 0,
    setting: Setting = Setting(),  # noqa: B008
) -> "xarray.Dataset":
    """Error of E θ² of the SDE against discrete Adam with Gaussian gradient noise, by η².

    Adam is the package's own, on `GaussianNoise`, from the state that the SDE is handed. A twin
    with the same noise, but v/B2 held at the noise's variance, is linear: E θ² of it is a recursion
    of two numbers, and what Monte Carlo has left to tell is E (θ² - twin²), of deviation O(η).

    **Returns:** over `size` = η²: `learning_rate`, `steps`, `exact` (the SDE), `estimate` (Adam),
    `error` = |estimate - exact|, `standard_error`, `plain_standard_error` (without twin), `z`; and
    the attributes `order`, its 95 % interval from the errors' own (`order_low`, `order_high`),
    `limit` (of `exact` as η → 0), `paths`.
    """
    import xarray

    rows = []
    for i, size in enumerate(sizes):
        of = scaled(setting, size)
        theta, twin = ends(setting, of, paths, seed + i * paths)
        difference = theta**2 - twin**2
        estimate = twin_square(setting, of) + difference.mean()
        error, plain = (float(x.std(ddof=1)) / np.sqrt(paths) for x in (difference, theta**2))
        exact = sde_square(setting, of)
        off = abs(float(estimate) - exact)
        rows.append((of.learning_rate, of.steps, exact, estimate, off, error, plain, off / error))
    names = ("learning_rate", "steps", "exact", "estimate", "error", "standard_error",
             "plain_standard_error", "z")  # fmt: skip
    columns = {
        name: ("size", np.array(x)) for name, x in zip(names, zip(*rows, strict=True), strict=True)
    }
    found = xarray.Dataset(columns, {"size": ("size", np.array(sizes))})
    order, half = slope(np.array(sizes), found.error.values, found.standard_error.values)
    attrs = {"order": order, "order_low": order - half, "order_high": order + half}
    return found.assign_attrs(
        **attrs, limit=sde_square(setting, scaled(setting, 1e-7)), paths=paths
    )


def sde_square(setting: Setting, of: AtRate) -> float:
    """E θ² of the SDE at the end."""
    moments = sde_moments(
        [setting.curvature], of.variance, [setting.start], [of.steps],
        of.learning_rate, of.b1, of.b2, warm_steps=of.warm_steps,
    )  # fmt: skip
    return float(moments.square[0, 0])


def slope(
    sizes: Float[np.ndarray, " n"],
    errors: Float[np.ndarray, " n"],
    deviations: Float[np.ndarray, " n"],
) -> tuple[float, float]:
    """d ln error/d ln size by least squares, and half of its 95 % interval from the errors'
    independent standard errors: what Monte Carlo leaves open, not how far a line is from true."""
    x = np.log(sizes) - np.log(sizes).mean()
    weights = x / np.sum(x**2)
    half = 1.96 * np.sqrt(np.sum((weights * deviations / errors) ** 2))
    return float(weights @ np.log(errors)), float(half)


def ends(setting: Setting, of: AtRate, paths: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """θ of Adam and of its twin after the last step, one a seed."""
    with jax.enable_x64(True):
        numbers = jax.tree.map(jnp.asarray, (setting, of))
        seeds = np.arange(seed, seed + paths)
        chunks = [seeds[at : at + _CHUNK] for at in range(0, paths, _CHUNK)]
        found = [_ends(*numbers, jnp.asarray(np.resize(chunk, _CHUNK))) for chunk in chunks]
        theta, twin = (np.concatenate(x)[:paths] for x in zip(*found, strict=True))
    return theta, twin


@jax.jit
def _ends(setting: Setting, of: AtRate, seeds: Array) -> tuple[Array, Array]:
    return jax.vmap(partial(_path, setting, of))(seeds)


def _path(setting: Setting, of: AtRate, seed: Array) -> tuple[Array, Array]:
    problem = ct.problems.GaussianNoise(_Bowl(setting.curvature), of.variance, seed)
    optimizer = ct.adamw(of.learning_rate, of.b1, of.b2, eps=0.0)
    theta = setting.start
    m = (1 - of.b1**of.warm_steps) * setting.curvature * theta
    held = StageState(of.warm_steps.astype(jnp.int32), m, (1 - of.b2**of.warm_steps) * of.variance)
    state = jax.tree.map(
        lambda x: held if isinstance(x, StageState) else x,
        optimizer.init(theta),
        is_leaf=lambda x: isinstance(x, StageState),
    )

    def step(n: Array, carry: Any) -> Any:
        theta, state, twin, m = carry
        theta, state, _ = optimizer_step(optimizer, problem, n, theta, state)
        m = of.b1 * m + (1 - of.b1) * problem.gradient(n, twin)
        pace = of.learning_rate / jnp.sqrt(of.variance) / (1 - of.b1 ** (n + 1))
        return theta, state, twin - pace * m, m

    last = of.warm_steps + of.steps
    theta, _, twin, _ = jax.lax.fori_loop(of.warm_steps, last, step, (theta, state, theta, m))
    return theta, twin


class _Bowl(NamedTuple):
    curvature: Any

    def __call__(self, x: Array) -> Array:
        return self.curvature * x**2 / 2


def twin_square(setting: Setting, of: AtRate) -> float:
    """E θ² of the twin: z → Mz + ξ·k in z = (θ, m), step by step."""
    mean = np.array([1.0, (1 - of.b1**of.warm_steps) * setting.curvature]) * setting.start
    covariance = np.zeros((2, 2))
    for n in range(of.warm_steps, of.warm_steps + of.steps):
        pace = of.learning_rate / np.sqrt(of.variance) / (1 - of.b1 ** (n + 1))
        to_m = np.array([(1 - of.b1) * setting.curvature, of.b1])
        step = np.array([np.array([1.0, 0.0]) - pace * to_m, to_m])
        kick = (1 - of.b1) * np.array([-pace, 1.0])
        mean = step @ mean
        covariance = step @ covariance @ step.T + of.variance * np.outer(kick, kick)
    return float(mean[0] ** 2 + covariance[0, 0])
