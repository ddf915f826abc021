"""The values and propositions of EQUATIONS §8, each beside a computation that knows none of it."""

from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Float

import ct_adam as ct
from ct_adam.theory import nearest_ridge, normalised_decay, ridge, scale_adjusted_ridge

ROUNDING = 1e-13
RATE, DECAY = 0.1, 0.01
"""α and λ_LH of the propositions."""
PAPER = (0.05, 128, 50_000)
"""λ_norm, batch and training points of the normalised decay."""
WANTED = {25: 5.06e-4, 100: 2.53e-4, 400: 1.26e-4}
"""λ_LH by epochs, to the digits that are printed."""
RIDGE = {"h": 1.0, "a": 2.0, "rate": 0.05, "momentum": 0.9, "decay": 0.01}
AT_REST = 1.9607843137
FIRST, RESTARTS = 100, (100, 300, 700, 1500)


@cache
def propositions() -> dict[str, dict[str, Any]]:
    """Prop. 1: SGD on the ridge is SGD with decay. Prop. 2: what no ridge can do. Prop. 3: which
    penalty is the decay, and that the printed one is not."""
    rng = np.random.default_rng(0)
    curvatures, start = np.geomspace(0.1, 5, 8), rng.standard_normal(8)
    theta, scales = jnp.asarray(rng.standard_normal(20)), jnp.asarray(rng.uniform(0.1, 3, 20))
    coefficient, residual = nearest_ridge(scales, DECAY, RATE)
    searched = _searched(np.asarray(scales))
    return {
        "Prop. 1": {"relative difference": _ridge_and_decay(curvatures, start)},
        "Prop. 2": {
            "residual": float(residual),
            "by search": searched[1],
            "λ'": float(coefficient),
            "λ' by search": searched[0],
        },
        "Prop. 3": {
            "relative difference": _relative(_decayed(theta, scales, "derived"), theta),
            "printed decays times": float(jnp.mean(_decayed(theta, scales, "printed") / theta)),
        },
    }


def _ridge_and_decay(curvatures: np.ndarray, start: np.ndarray, steps: int = 500) -> float:
    """Largest distance of SGD on the ridge, and of `sgdw`, from the recursion
    θ ← (1 − λ_LH)θ − αg, over the largest weight."""

    def loss(theta: Any) -> Any:
        return jnp.sum(curvatures * (theta - 1) ** 2) / 2

    coefficient = float(ridge(DECAY / RATE))

    def ridged(theta: Any) -> Any:
        return loss(theta) + coefficient * jnp.sum(theta**2) / 2

    wanted = [start]
    for _ in range(steps):
        gradient = curvatures * (wanted[-1] - 1)
        wanted.append((1 - DECAY) * wanted[-1] - RATE * gradient)
    last = np.array(wanted[1:])
    runs: list[Any] = [
        ct.run(made, one, jnp.asarray(start), steps, save_steps=range(1, steps + 1)).params
        for made, one in ((ct.sgdw(RATE, 0.0, DECAY / RATE), loss), (optax.sgd(RATE), ridged))
    ]
    return float(max(np.abs(run - last).max() for run in runs) / np.abs(last).max())


def _searched(scales: Float[np.ndarray, " n"]) -> tuple[float, float]:
    """λ' by bisection: where the two coordinates that differ most differ equally."""
    low, high = 0.0, 2 * DECAY / RATE * scales.max()
    for _ in range(200):
        middle = (low + high) / 2
        missed = DECAY - RATE * middle / scales
        low, high = (middle, high) if missed.max() > -missed.min() else (low, middle)
    return low, float(np.abs(DECAY - RATE * low / scales).max())


def _decayed(theta: Any, scales: Any, form: Any) -> Any:
    """What a step −α∇/s on the penalty takes, in units of λ_LH."""
    gradient = jax.grad(scale_adjusted_ridge)(theta, scales, DECAY, RATE, form)
    return RATE * gradient / scales / DECAY


def _relative(found: Any, wanted: Any) -> float:
    return float(jnp.max(jnp.abs(found / wanted - 1)))


@cache
def values() -> dict[str, dict[str, Any]]:
    """The normalised decay, SGDW's rest with momentum, and where the learning rate restarts."""
    norm, batch, points = PAPER
    schedule = ct.warm_restarts(1.0, FIRST, cycles=len(RESTARTS) + 1)
    around = {end: (float(schedule(end - 1)), float(schedule(end))) for end in RESTARTS}
    return {
        "normalised decay": {
            f"T = {t}": float(normalised_decay(norm, batch, points, t)) for t in WANTED
        },
        "SGDW at rest": {
            "run": _rest(),
            "ridge": RIDGE["h"] * RIDGE["a"] / (RIDGE["h"] + _coefficient()),
        },
        "restarts": {f"η before and at {end}": pair for end, pair in around.items()},
    }


def _coefficient() -> float:
    return float(ridge(RIDGE["decay"] / RIDGE["rate"], RIDGE["momentum"]))


def _rest(steps: int = 2000) -> float:
    def loss(theta: Any) -> Any:
        return RIDGE["h"] * (theta - RIDGE["a"]) ** 2 / 2

    made = ct.sgdw(RIDGE["rate"], RIDGE["momentum"], RIDGE["decay"] / RIDGE["rate"])
    run = ct.run(made, loss, jnp.asarray(0.0, float), steps, save_steps=[steps])
    return float(np.asarray(run.params)[0])


def missing() -> list[str]:
    """What of these is not as §8 says."""
    props, found = propositions(), values()
    said = []
    for name in ("Prop. 1", "Prop. 3"):
        off = props[name]["relative difference"]
        if not off <= ROUNDING:
            said.append(f"{name}: off by {off:.2g}, more than rounding.")
    two = props["Prop. 2"]
    for one, other in (("residual", "by search"), ("λ'", "λ' by search")):
        if not abs(two[one] / two[other] - 1) <= 1e-12:  # of 200 bisections rounding is left
            said.append(f"Prop. 2: {one} is {two[one]:.6g}, by search {two[other]:.6g}.")
    times = props["Prop. 3"]["printed decays times"]
    if not abs(times * RATE - 1) <= ROUNDING:
        said.append(f"Prop. 3: the printed form should decay {1 / RATE:g} times, not {times:g}.")
    for t, wanted in WANTED.items():
        value = found["normalised decay"][f"T = {t}"]
        if not abs(value - wanted) <= 0.5e-6 + 1e-7:  # three digits
            said.append(f"Normalised decay at T = {t}: {value:.4g}, not {wanted:g}.")
    for name, value in found["SGDW at rest"].items():
        if not abs(value - AT_REST) <= 1e-10:
            said.append(f"SGDW at rest ({name}): {value:.11g}, not {AT_REST}.")
    for before, at in found["restarts"].values():
        # half a cosine of 100 steps and more: η of its last step is (π/(2·100))² at most
        if not (0 < before <= (np.pi / 2 / FIRST) ** 2 and at == 1):
            said.append(f"A restart goes from {before:.3g} to {at:.3g}, not from 0 to 1.")
    return said
