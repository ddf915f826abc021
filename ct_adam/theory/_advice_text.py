"""`Advice` in three lines: where the pair lies, how large updates get, what to change."""

import math
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from .advice import Advice

_FLOAT32_ROOT = float(np.sqrt(np.finfo(np.float32).max))
_USUAL = 7.27
"""`limit` of the usual pair (0.9, 0.999), rounded down: what people live with."""


def place(advice: "Advice") -> str:
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


def _paper(advice: "Advice") -> str:
    c = f"the paper's C = {_number(advice.stability_coefficient)}"
    if advice.verdict == "unstable" or advice.stability_coefficient > 0:
        return f"{c}."
    # Between b1² and b1/(2 − b1) the ODE with `lag` rates grows under its own worst case.
    edge = rounded(advice.continuous_boundary_b2)
    return f"{c} is its ODE's, unstable below b1/(2 − b1) = {edge}, not the optimizer's."


def size(advice: "Advice") -> str:
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


def _bound(advice: "Advice") -> str:
    if math.isinf(advice.bound) and math.isfinite(advice.log_bound):
        return f"e^{advice.log_bound:.4g}"
    return _number(advice.bound)


def _reached(advice: "Advice") -> str:
    later = "1 step" if advice.vanishing_step == 1 else f"{advice.vanishing_step} steps"
    return f"reaches {_number(advice.vanishing_update)}, {later} later"


def change(advice: "Advice") -> str:
    """What to change, and whether the stages before the last can overflow."""
    return " ".join([_change(advice), *_overflows(advice)])


def _change(advice: "Advice") -> str:
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


def _halve(advice: "Advice") -> str:
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


def _overflows(advice: "Advice") -> list[str]:
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
