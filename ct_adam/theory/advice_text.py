"""What `advise` found, and its three lines: where the pair lies, how large updates get, what to
change."""

import math
from dataclasses import dataclass, fields
from typing import Any, Literal, NamedTuple

import numpy as np

Verdict = Literal["stable", "boundary", "unstable"]

_FLOAT32_ROOT = float(np.sqrt(np.finfo(np.float32).max))
_USUAL = 7.27
"""`limit` of the usual pair (0.9, 0.999), rounded down: what people live with."""


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
            >>> from ct_adam.theory import advise
            >>> advise(0.9, 0.999).as_dict()["verdict"], advise(0.98, 0.96).as_dict()["limit"]
            ('stable', None)
        """
        flat = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "earlier"}
        for number, stage in enumerate(self.earlier, 1):
            flat |= {f"stage_{number}_{name}": value for name, value in stage._asdict().items()}
        flat |= {"deciding_stage": len(self.earlier) + 1, "change": change(self)}
        finite = {k: v for k, v in flat.items() if not isinstance(v, float) or math.isfinite(v)}
        return dict.fromkeys(flat) | finite

    def __str__(self) -> str:
        return "\n".join((place(self), size(self), change(self)))


def place(advice: Advice) -> str:
    """On which side of the boundary the pair lies, and how far from it."""
    k = len(advice.earlier) + 1
    stage = f"Stage {k} of {k} decides. " if k > 1 else ""
    b1, b2 = f"b1 = {advice.b1:.15g}", f"b2 = {advice.b2:.15g}"
    if not advice.b1:
        return f"{stage}Stable at any b2: {b1} keeps no gradient ({b2}); {_paper(advice)}"
    if advice.verdict == "boundary":
        return f"{stage}On the boundary: {b2} is b1², {b1}; {_paper(advice)}"
    word, side, other = ("Stable", "above", "below")
    if advice.verdict == "unstable":
        word, side, other = ("Unstable", "below", "above")
    return (
        f"{stage}{word}: {b2} is {abs(advice.distance_b2):.4g} {side} b1² = "
        f"{rounded(advice.boundary_b2)} ({b1} is {abs(advice.distance_b1):.4g} {other} √b2 = "
        f"{rounded(math.sqrt(advice.b2))}); {_paper(advice)}"
    )


def _paper(advice: Advice) -> str:
    c = f"the paper's C = {_number(advice.stability_coefficient)}"
    if advice.verdict == "unstable" or advice.stability_coefficient > 0:
        return f"{c}."
    # Between b1² and b1/(2 − b1) the ODE with `lag` rates grows under its own worst case.
    edge = rounded(advice.continuous_boundary_b2)
    return f"{c} is its ODE's, unstable below b1/(2 − b1) = {edge}, not the optimizer's."


def size(advice: Advice) -> str:
    """How large updates get, without eps and with it."""
    with_eps = (
        f"with eps = {advice.eps:g} and |{'input' if advice.earlier else 'g'}| ≤ "
        f"{_number(advice.input_scale)} it is ≤ {_number(advice.largest_update)}"
    )
    vanishes = f"Where a long constant {'input' if advice.earlier else 'gradient'} vanishes |u|"
    if not advice.b2 and advice.b1:
        return f"|u| has no bound after the first step; {with_eps}. {vanishes} {_reached(advice)}."
    after = (
        f"After {advice.steps} steps |u| ≤ {_bound(advice)} "
        f"(the paper's bound: {_number(advice.continuous_bound)})"
    )
    if advice.verdict == "stable":
        ever = f"ever ≤ {_number(advice.limit)} ({_number(advice.continuous_limit)})"
        fades = f"fades as e^({advice.growth_rate:.4g} n)" if advice.b1 else "ends at once"
        return f"{after}, {ever}; {with_eps}. {vanishes} {fades}."
    if advice.verdict == "boundary":
        return f"{after}, growing as √n; {with_eps}. {vanishes} does not grow."
    grows = f"e^({advice.growth_rate:.4g} n), twofold in {advice.doubling_steps:.4g} steps"
    return f"{after}, growing as {grows}; {with_eps}. {vanishes} {_reached(advice)}."


def _bound(advice: Advice) -> str:
    if math.isinf(advice.bound) and math.isfinite(advice.log_bound):
        return f"e^{advice.log_bound:.4g}"
    return _number(advice.bound)


def _reached(advice: Advice) -> str:
    later = "1 step" if advice.vanishing_step == 1 else f"{advice.vanishing_step} steps"
    return f"reaches {_number(advice.vanishing_update)}, {later} later"


def change(advice: Advice) -> str:
    """What to change, and whether the stages before the last can overflow."""
    return " ".join([_change(advice), *_overflows(advice)])


def _change(advice: Advice) -> str:
    if advice.verdict == "stable":
        return _halve(advice)
    least, most = rounded(advice.boundary_b2, np.ceil), rounded(math.sqrt(advice.b2), np.floor)
    raised = f"Raise b2 above {least}" + (f" or lower b1 below {most}" if advice.b2 else "")
    if advice.verdict == "boundary" or not advice.b2:
        return f"{raised}."
    falls = (
        f"let the learning rate fall as e^({-advice.growth_rate:.4g} n), which cancels the growth"
    )
    usual = f" In these steps |u| stays below the {_USUAL} of the usual (0.9, 0.999)."
    return f"{raised}, or {falls}.{usual if advice.largest_update <= _USUAL else ''}"


def _halve(advice: Advice) -> str:
    if advice.limit > 2 and advice.largest_update <= 2:
        return "Nothing needs to change: in these steps, with this eps, |u| stays below 2."
    if advice.limit <= 2:
        return "Nothing needs to change: the least bound of any b2 is 1, at b2 = b1."
    # (1−b2)(1−b1²/b2) = (1−b1)²/limit² is quadratic in b2, its roots have the product b1².
    b1, target = advice.b1, advice.limit / 2
    half = (1 + b1**2 - ((1 - b1) / target) ** 2) / 2
    larger = half + math.sqrt(half**2 - b1**2)
    if advice.b2 > b1:
        to = f"lower b2 to {rounded(larger, np.floor, 2, 1 - larger)}"
    else:
        smaller = b1**2 / larger
        to = f"raise b2 to {rounded(smaller, np.ceil, 2, smaller - b1**2)}"
    return f"Nothing needs to change; to halve its limit {to}."


def _overflows(advice: Advice) -> list[str]:
    """A sentence for each earlier stage that grows: the next one squares what it puts out."""
    sentences = []
    for number, stage in enumerate(advice.earlier, 1):
        if stage.growth_rate > 0:
            fits = stage.largest_update < _FLOAT32_ROOT
            square = "which float32 can square" if fits else "whose square can overflow float32"
            most = _number(stage.largest_update)
            sentences.append(f"Stage {number} grows, to at most {most}, {square}.")
    return sentences


def rounded(
    decay: float, towards: np.ufunc = np.rint, digits: int = 4, near: float | None = None
) -> str:
    """A decay to so many digits of `near`, by default of the smaller of itself and 1 less it."""
    near = min(decay, 1 - decay) if near is None else near
    scale = 10.0 ** (digits - 1 - math.floor(math.log10(near))) if near > 0 else 1.0
    # A round number that floats miss by an ulp is not moved to the next one.
    return f"{towards(round(decay * scale, 6)) / scale:.15g}"


def _number(x: float) -> str:
    return f"{x:.4g}" if math.isfinite(x) else ("−∞" if x < 0 else "∞")
