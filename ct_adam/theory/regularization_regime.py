"""When AdamW descends on its dynamically regularised loss: the regime, and the schedule of λ_k.

Source: EQUATIONS §6; Zhou et al., "Towards Understanding Convergence and Generalization of AdamW"
(TPAMI 2024). The inequality itself: `ct.diagnostics.descent_terms`.
"""

import math
from collections.abc import Callable, Iterator
from typing import Any, Literal, NamedTuple

from ..conventions import not_negative, positive
from ..decays import Schedule, check_hyperparameters, choice
from .decay import Zhou

Fall = Literal["printed", "slowest"]
FALLS: tuple[Fall, ...] = ("printed", "slowest")
PRESUMED = "That λ_k falls as `zhou_decay` has it is presumed: a constant λ is outside."


class ZhouHypotheses(NamedTuple):
    """What the descent of F_k asks for. In c₁ ≤ v_k ≤ c₂ lies every root of the second moment.

    !!! example
        >>> from ct_adam.theory import from_zhou
        >>> found = zhou_hypotheses(from_zhou(0.1, 0.01, 0.1, 0.0), 0.1, 1.0, 1.0)
        >>> print(f"{found.learning_rate_printed:.4f} {found.learning_rate_sufficient:.4f}")
        0.0477 0.1581
        >>> print(found)
        The regime holds: μ = 0.1.
    """

    mu: float
    """β₂c_∞²/δ: v_k² grows at most by 1 + μ in a step"""
    learning_rate_printed: float
    """c₁²/(2c₂(L + λc₁)), the limit as printed"""
    learning_rate_sufficient: float
    """c₁/(2(L + λc₁)), above it, which suffices"""
    c1: float
    c2: float
    violated: tuple[str, ...]
    """a sentence each"""
    presumed: str
    """what was not given and is taken to be so, or \"\" """

    @property
    def holds(self) -> bool:
        return not self.violated

    def __str__(self) -> str:
        found = " ".join(self.violated) or f"The regime holds: μ = {self.mu:.3g}."
        return f"{found} {self.presumed}".strip()


def zhou_hypotheses(
    method: Zhou,
    learning_rate: float,
    smoothness: float,
    bound: float,
    largest_gradient: float | None = None,
    decay_ratio: float | None = None,
) -> ZhouHypotheses:
    """Whether a run is in the regime of the descent inequality, and what keeps it out.

        0 ≤ μ = β₂c_∞²/δ < 1        η ≤ c₁/(2(L + λc₁))        |g_k|_∞ ≤ c_∞ surely
        0 ≤ λ_{k+1}/λ_k ≤ (1 + μ)^{−½}, as of λ(1 − μ)^k

    with c₁ = √δ and c₂ = √(c_∞² + δ). A constant λ, as in practice, is outside. Source: EQUATIONS
    §6; the ratio is ours (`zhou_decay`).

    **Arguments:**

    - `method`: as `from_zhou` returns it. `learning_rate`: η, the largest of a schedule.
    - `smoothness`: L, the Lipschitz constant of ∇F. `bound`: c_∞, of the *stochastic* gradients.
    - `largest_gradient`: max |g_k|_∞ that a run has seen, if it is to be checked against c_∞.
    - `decay_ratio`: λ_{k+1}/λ_k, 1 of a constant λ; None: not checked, which `str` of what is
        returned says.

    **Raises:** `ValueError` for numbers that are negative, or an L or c_∞ that is not positive.

    !!! example
        >>> from ct_adam.theory import from_zhou
        >>> method = from_zhou(0.1, 1e-3, 0.1, 0.01)
        >>> zhou_hypotheses(method, 0.1, 1.0, 1.0, decay_ratio=1 - 0.01).holds
        True
        >>> print(zhou_hypotheses(method, 0.1, 1.0, 1.0, decay_ratio=1.0))
        λ_k changes by 1 a step, not by 0 … (1 + μ)^(−1/2) = 0.995: give `zhou_decay`, or no decay.
        >>> found = zhou_hypotheses(from_zhou(0.1, 1e-3, 1e-8, 0.01), 1e-5, 1.0, 1.0)
        >>> print(str(found).split(":")[0])  # PyTorch's defaults, their 1e-8 in the place of δ
        μ = 1e+05 is not below 1
    """
    if callable(learning_rate):
        raise ValueError("learning_rate is a schedule: give its largest value.")
    check_hyperparameters({"learning_rate": learning_rate, **method._asdict()})
    # Looked at by NumPy alone, so that known numbers are known inside jit too.
    smooth, bound = _known("smoothness", smoothness), _known("bound", bound)
    delta, decay = float(method.eps_root), float(method.weight_decay)
    c1, c2 = math.sqrt(delta), math.sqrt(bound**2 + delta)
    mu = _mu(method, bound)
    enough = c1 / (2 * (smooth + decay * c1))
    violated = list(_of_method(method, mu, learning_rate, enough))
    if largest_gradient is not None:
        largest_gradient = _known("largest_gradient", largest_gradient, not_negative)
        if largest_gradient > bound:
            violated.append(
                f"A gradient of {largest_gradient:.3g} was seen, above c_∞ = {bound:.3g}: no bound "
                "of v_k holds; raise c_∞, or clip."
            )
    if decay and decay_ratio is not None:
        violated += _of_decay(float(decay_ratio), mu)
    presumed = "" if decay_ratio is not None or not decay else PRESUMED
    return ZhouHypotheses(mu, enough * c1 / c2, enough, c1, c2, tuple(violated), presumed)


def _of_method(method: Zhou, mu: float, learning_rate: float, enough: float) -> Iterator[str]:
    """What its numbers violate, a sentence each."""
    delta = float(method.eps_root)
    if mu >= 1 and not delta:
        yield "δ = 0 leaves v_k without a lower bound: raise it above β₂c_∞²."
    elif mu >= 1:
        yield (
            f"μ = {mu:.3g} is not below 1: raise δ above β₂c_∞² = {mu * delta:.3g} (at PyTorch's "
            "defaults μ is about 1e5 where |g| ≤ 1: the regime is not the practical one)."
        )
    if learning_rate > enough:
        yield (
            f"learning_rate = {learning_rate:.3g} is above c₁/(2(L + λc₁)) = {enough:.3g}: lower "
            "it, or raise δ."
        )
    if method.eps:
        yield f"eps = {method.eps:.3g} stands outside the root, where theirs is 0."


def _of_decay(ratio: float, mu: float) -> Iterator[str]:
    slowest = (1 + mu) ** -0.5
    # (1 − μ)√(1 + μ) ≤ 1 may fail by rounding where μ is tiny.
    if not 0 <= ratio <= slowest * (1 + 1e-15):
        yield (
            f"λ_k changes by {ratio:.6g} a step, not by 0 … (1 + μ)^(−1/2) = {slowest:.3g}: give "
            "`zhou_decay`, or no decay."
        )


def _known(name: str, value: float, check: Callable[..., Any] = positive) -> float:
    check(name, value)
    return float(value)


def _mu(method: Zhou, bound: float) -> float:
    squares = (1 - float(method.b2)) * bound**2
    return squares / float(method.eps_root) if method.eps_root else math.inf


def zhou_decay(method: Zhou, bound: float, fall: Fall = "printed") -> Schedule:
    """λ_k as a schedule of the step count, for `ct.decoupled(…, convention="zhou")`.

        printed    λ(1 − μ)^k               needs μ < 1
        slowest    λ(1 + μ)^{−k/2}          any μ

    What the descent needs is λ_{k+1}v_{k+1} ≤ λ_k v_k in every coordinate, and v_{k+1} ≤ √(1+μ) v_k
    with equality where n_k = 0 and |g_{k+1}| = c_∞. So `"slowest"` (ours) is the slowest geometric
    schedule for which F_k's fall is sure, and (1 − μ)√(1 + μ) ≤ 1 is why theirs does it too.

    **Arguments:** as `zhou_hypotheses`. **Returns:** a schedule.

    **Raises:** `ValueError` for μ ≥ 1 with `"printed"`, where λ_k would change its sign, for δ = 0,
    or an unknown name.

    !!! example
        >>> from ct_adam.theory import from_zhou
        >>> method = from_zhou(0.1, 0.01, 0.1, 0.3)  # μ = 0.1 for c_∞ = 1
        >>> print(f"{zhou_decay(method, 1.0)(2):.3f} {zhou_decay(method, 1.0, 'slowest')(2):.3f}")
        0.243 0.273
    """
    choice("fall", fall, FALLS)
    mu = _mu(method, _known("bound", bound))
    if math.isinf(mu) or (fall == "printed" and mu >= 1):
        raise ValueError(
            f"μ = {mu:.3g} gives no schedule: raise δ (eps_root) until β₂c_∞²/δ < 1, or take "
            "fall='slowest' with δ > 0."
        )
    ratio = 1 - mu if fall == "printed" else (1 + mu) ** -0.5
    return lambda step: method.weight_decay * ratio**step
