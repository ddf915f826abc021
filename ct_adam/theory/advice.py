"""Where a pair of decays lies in the stability region, and what to change.

Source: EQUATIONS §2 and, for k stages, §4; Gould & Tanaka (arXiv 2411.05746).
"""

import math
from dataclasses import dataclass, fields
from fractions import Fraction
from typing import Any, Literal, NamedTuple

import jax
import numpy as np

from ..decays import Hyperparameters, check_hyperparameters
from . import _advice_text as text
from . import _with_eps
from .stability import growth_rate, stability_boundary, stability_coefficient, update_bound

Decays = float | tuple[float, ...]
Verdict = Literal["stable", "boundary", "unstable"]

# Decays are typed as decimals: b1² is then an ulp and a half off, b2 half of one.
_ROUNDING = 2 * float(np.finfo(float).eps)

_SMALLEST = 1e-123  # `update_bound` tells no smaller decays apart; its square is a float


class Stage(NamedTuple):
    """A stage of k-Adam before the last: decays, ½ ln(b1²/b2), and what its |u| cannot exceed."""

    b1: float
    b2: float
    growth_rate: float
    largest_update: float


@dataclass(frozen=True)
class Advice:
    """What `advise` found: `str` of it is three lines, `as_dict()` one flat object.

    - `b1`, `b2`: the pair that decides, in k-Adam the last stage's. `earlier`: the stages before.
    - `eps`, `steps`, `gradient_scale`: as given. `input_scale`: the largest |input| of the stage
        that decides: the gradient's or, in k-Adam, what the stages before it can put out.
    - `verdict`: `"stable"` where the optimizer's updates are bounded (b2 > b1²), `"boundary"`
        where b2 = b1² to rounding, `"unstable"` below.
    - `stability_coefficient`: the paper's C. `log_coefficient`: ln(b2/b1²), the optimizer's.
    - `bound`, `continuous_bound`: the largest |u| over all gradients within `steps` of them,
        eps = 0, the optimizer's and the paper's. `log_bound`: ln of the first, never overflows.
    - `limit`, `continuous_limit`: those for any number of steps, `inf` where nothing bounds them.
    - `growth_rate`, `continuous_growth_rate`: ½ ln(b1²/b2) and −C/2 per step, of either sign.
        `doubling_steps`: ln 2 over the first, `inf` unless it is unstable.
    - `boundary_b2`, `continuous_boundary_b2`: b1² and the paper's b1/(2 − b1).
    - `distance_b2`, `distance_b1`: b2 − b1² and √b2 − b1, positive where stable.
    - `largest_update`: the largest |u| over all inputs of at most `input_scale`, within `steps` of
        them and with eps. Attained by Adam; k-Adam stays below it.
    - `vanishing_update`: the largest |u| within `steps` of a coordinate whose input, long constant
        of size `input_scale`, has vanished; that is `vanishing_step` steps later. `vanishing_cap`:
        the same for any number of steps, which eps alone limits.
    """

    b1: float
    b2: float
    eps: float
    steps: int
    gradient_scale: float
    verdict: Verdict
    stability_coefficient: float
    log_coefficient: float
    bound: float
    continuous_bound: float
    log_bound: float
    limit: float
    continuous_limit: float
    growth_rate: float
    continuous_growth_rate: float
    doubling_steps: float
    boundary_b2: float
    continuous_boundary_b2: float
    distance_b2: float
    distance_b1: float
    input_scale: float
    largest_update: float
    vanishing_update: float
    vanishing_step: int
    vanishing_cap: float
    earlier: tuple[Stage, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """The fields with earlier stages as `stage_1_b1`, …; `deciding_stage`, `change`.

        JSON has neither infinity nor NaN: they become None.

        !!! example
            >>> advise(0.9, 0.999).as_dict()["verdict"], advise(0.98, 0.96).as_dict()["limit"]
            ('stable', None)
        """
        flat = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "earlier"}
        for number, stage in enumerate(self.earlier, 1):
            flat |= {f"stage_{number}_{name}": value for name, value in stage._asdict().items()}
        flat |= {"deciding_stage": len(self.earlier) + 1, "change": text.change(self)}
        finite = {k: v for k, v in flat.items() if not isinstance(v, float) or math.isfinite(v)}
        return dict.fromkeys(flat) | finite

    def __str__(self) -> str:
        return "\n".join((text.place(self), text.size(self), text.change(self)))


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
    _check(steps, gradient_scale)
    *before, (last1, last2) = zip(_floats(given.b1), _floats(given.b2), strict=True)
    log_scale, earlier = math.log(gradient_scale), []
    with jax.enable_x64(True):
        for early1, early2 in before:
            # An update has no unit: it is the next input. No stage puts out more in fewer steps.
            log_scale = _with_eps.log_largest(early1, early2, _log(eps) - log_scale, int(steps))
            rate = float(growth_rate(early1, early2, "discrete"))
            earlier.append(Stage(early1, early2, rate, _exp(log_scale)))
        return Advice(
            eps=float(eps),
            steps=int(steps),
            gradient_scale=float(gradient_scale),
            input_scale=_exp(log_scale) if earlier else float(gradient_scale),
            earlier=tuple(earlier),
            **_located(last1, last2),
            **_sized(last1, last2, int(steps), _log(eps) - log_scale),
        )


def _floats(decays: tuple[Any, ...]) -> list[float]:
    return [max(float(decay), _SMALLEST) if decay else 0.0 for decay in decays]


def _check(steps: Any, gradient_scale: Any) -> None:
    # Beyond 10¹⁵ floats do not count one by one.
    whole = isinstance(steps, int | np.integer) and not isinstance(steps, bool)
    if not whole or not 1 <= steps <= 10**15:
        raise ValueError(f"steps = {steps!r} must be a whole number from 1 to 10¹⁵.")
    check_hyperparameters({"gradient_scale": gradient_scale})
    if gradient_scale == 0:
        raise ValueError("gradient_scale = 0 must be positive: without gradients nothing moves.")


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
