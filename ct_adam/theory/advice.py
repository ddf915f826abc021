"""Where a pair of decays lies in the stability region, and what to change.

Source: EQUATIONS §2 and, for k stages, §4; Gould & Tanaka (arXiv 2411.05746).
"""

import math
from fractions import Fraction
from typing import Any

import jax
import numpy as np

from ..decays import Hyperparameters, check_hyperparameters
from . import _with_eps
from ._arguments import count_steps
from .advice_text import Advice, Stage, Verdict
from .stability import growth_rate, stability_boundary, stability_coefficient
from .update_bounds import update_bound

Decays = float | tuple[float, ...]

# Decays are typed as decimals: b1² is then an ulp and a half off, b2 half of one.
_ROUNDING = 2 * float(np.finfo(float).eps)
_SMALLEST = 1e-123  # `update_bound` tells no smaller decays apart; its square is a float


def advise(
    b1: Decays, b2: Decays, *, eps: float = 1e-8, steps: int = 1000, gradient_scale: float = 1.0
) -> Advice:
    """Says where a pair of decays lies, how large its updates can get, and what to change.

    Source: EQUATIONS §2, and §4 for k-Adam: its last stage decides whether its update is bounded
    over all gradients; earlier ones set how large that stage's input can be.

    **Arguments:**

    - `b1`: first-moment decay in [0, 1); k-Adam: one a stage.
    - `b2`: second-moment decay in [0, 1); k-Adam: one a stage. Positive decays below 1e-123 count
        as that.
    - `eps`: added to √v̂, ≥ 0.
    - `steps`: optimizer steps of the run, from 1 to 10¹⁵.
    - `gradient_scale`: the largest |g| of a coordinate, > 0; only eps/gradient_scale matters.

    **Returns:** an `Advice`, computed in float64 whatever JAX is set to.

    **Raises:** `ValueError` for values outside these ranges, and unless b1 and b2 have equally
    many stages.

    !!! example
        >>> print(str(advise(0.98, 0.96, steps=10_000)).splitlines()[0])
        Unstable: b2 = 0.96 is 0.0004 below b1² = 0.9604 (b1 = 0.98 is 0.0002041 above √b2 =
        0.9798); the paper's C = -0.0008503.
        >>> round(advise(0.9, 0.999).limit, 4), advise((0.99, 0.9), (0.9, 0.999)).verdict
        (7.2703, 'stable')
    """
    given = Hyperparameters(0.0, b1, b2, eps, 0.0, 0.0, "decoupled")  # for its checks
    steps = count_steps(steps)
    check_hyperparameters({"gradient_scale": gradient_scale})
    if gradient_scale == 0:
        raise ValueError("gradient_scale = 0 must be positive: without gradients nothing moves.")
    *before, (last1, last2) = zip(_floats(given.b1), _floats(given.b2), strict=True)
    log_scale, earlier = math.log(gradient_scale), []
    with jax.enable_x64(True):
        for early1, early2 in before:
            # An update has no unit: it is the next input. No stage puts out more in fewer steps.
            log_scale = _with_eps.log_largest(early1, early2, _log(eps) - log_scale, steps)
            rate = float(growth_rate(early1, early2, "discrete"))
            earlier.append(Stage(early1, early2, rate, _exp(log_scale)))
        return Advice(
            eps=float(eps),
            steps=steps,
            gradient_scale=float(gradient_scale),
            input_scale=_exp(log_scale) if earlier else float(gradient_scale),
            earlier=tuple(earlier),
            **_located(last1, last2),
            **_sized(last1, last2, steps, _log(eps) - log_scale),
        )


def _floats(decays: tuple[Any, ...]) -> list[float]:
    return [max(float(decay), _SMALLEST) if decay else 0.0 for decay in decays]


def _located(b1: float, b2: float) -> dict[str, Any]:
    """On which side of the boundary the pair lies, and how far from it."""
    distance = float(Fraction(b2) - Fraction(b1) ** 2)  # keeps its digits near the boundary
    verdict: Verdict = "stable" if distance > 0 or b1 == 0 else "unstable"
    c, rate = float(stability_coefficient(b1, b2)), float(growth_rate(b1, b2, "discrete"))
    # Beyond this the rate, a difference of logarithms, has its right sign too.
    if b1 > 0 and abs(distance) <= _ROUNDING * b2 * (1 - _log(b2) if b2 else 1):
        verdict = "boundary"
    return {
        "b1": b1,
        "b2": b2,
        "verdict": verdict,
        "stability_coefficient": c,
        "log_coefficient": -2 * rate,
        "growth_rate": rate,
        "continuous_growth_rate": float(growth_rate(b1, b2)),
        "doubling_steps": math.log(2) / rate if verdict == "unstable" and rate > 0 else math.inf,
        "boundary_b2": float(stability_boundary(b1, "discrete")),
        "continuous_boundary_b2": float(stability_boundary(b1)),
        "distance_b2": distance,
        "distance_b1": distance / (math.sqrt(b2) + b1) if b1 or b2 else 0.0,
        "limit": _limit(b1, b2) if verdict == "stable" else math.inf,
        "continuous_limit": _continuous_limit(b1, b2, c),
    }


def _sized(b1: float, b2: float, steps: int, log_eps: float) -> dict[str, Any]:
    """How large updates get; `log_eps` is ln(eps/σ), σ the scale of the input."""
    vanishing, step = _with_eps.vanishing(b1, b2, log_eps, steps)
    log_bound = float(update_bound(b1, b2, steps, "discrete", log=True))
    return {
        "bound": _exp(log_bound),
        "continuous_bound": float(update_bound(b1, b2, steps)),
        "log_bound": log_bound,
        "largest_update": _exp(_with_eps.log_largest(b1, b2, log_eps, steps)),
        "vanishing_update": _exp(vanishing),
        "vanishing_step": step,
        "vanishing_cap": _exp(_with_eps.vanishing(b1, b2, log_eps, math.inf)[0]),
    }


def _limit(b1: float, b2: float) -> float:
    """(1−b1)/√((1−b2)(1−b1²/b2)), where b2 > b1² or b1 = 0."""
    kept = float(1 - Fraction(b1) ** 2 / Fraction(b2)) if b1 else 1.0
    return (1 - b1) / math.sqrt((1 - b2) * kept)


def _continuous_limit(b1: float, b2: float, c: float) -> float:
    """[(1−b1)/b1] √(b2/(1−b2)) / √C."""
    return (1 - b1) / b1 * math.sqrt(b2 / (1 - b2) / c) if b1 and c > 0 else math.inf


def _log(x: float) -> float:
    return math.log(x) if x else -math.inf


def _exp(x: float) -> float:
    with np.errstate(over="ignore"):
        return float(np.exp(x))
