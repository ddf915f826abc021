"""How many steps AdamW takes to a small gradient of the loss that it regularises.

Source: EQUATIONS §6; Zhou et al. (TPAMI 2024). Constants are derived here, from the descent
inequality (`ct.diagnostics.descent_terms`) and the error of the first moment e_k = m_k − ∇F(x_k):

    E‖e_k‖² ≤ (1 − β₁)E‖e_{k−1}‖² + (L²η²/(β₁c₁²))E‖u_{k−1}‖² + β₁²σ²

Summed, and with η ≤ β₁c₁^{1.5}/(L√(2c₂)) so that the u_k cancel:

    (1/T)ΣE‖∇F_k(x_k)‖² ≤ 2c₂Δ/(ηT) + (c₂/c₁)(E‖e₀‖²/(β₁T) + β₁σ²)
"""

import math
from typing import NamedTuple

from ..conventions import not_negative, positive


class ComplexityChoice(NamedTuple):
    """β₁ as Zhou et al. have it (for `from_zhou`), η and T steps.

    !!! example
        >>> choice = complexity_choice(0.1, 1.0, ComplexityConditions(1.0, 1.0, 0.5, 1.0))
        >>> choice.steps
        336454
    """

    beta1: float
    learning_rate: float
    steps: int


class ComplexityConditions(NamedTuple):
    """What is known of loss and gradients, and δ and λ of the method.

    `smoothness`: L. `variance`: σ² ≥ E‖g − ∇F‖², summed over coordinates. `bound`: c_∞ ≥ |g|_∞.
    `eps_root`: δ. `weight_decay`: λ.

    !!! example
        >>> known = ComplexityConditions(smoothness=1.0, variance=1.0, bound=3.0, eps_root=16.0)
        >>> print(known.c1, known.c2)
        4.0 5.0
    """

    smoothness: float
    variance: float
    bound: float
    eps_root: float
    weight_decay: float = 0.0

    @property
    def c1(self) -> float:
        return math.sqrt(self.eps_root)

    @property
    def c2(self) -> float:
        return math.sqrt(self.bound**2 + self.eps_root)


def complexity_choice(
    target: float, gap: float, conditions: ComplexityConditions
) -> ComplexityChoice:
    """β₁, η and T after which (1/T)ΣE‖∇F_k(x_k)‖² ≤ ε².

        β₁ = ε²c₁/(3c₂σ²)        η = β₁c₁^{1.5}/(L√(2c₂))
        T = max(18√2 (c₂/c₁)^{2.5} ΔLσ²/ε⁴, 9 (c₂/c₁)² σ⁴/ε⁴)

    β₁ and η are printed, T is printed as the order of its first form. The second (ours) forgets
    m₀ = g₀, whose error is σ² whatever β₁ is; both go as ε⁻⁴. Where ε is so large that β₁ would
    exceed 1 or η its limit c₁/(2(L + λc₁)), they are 1 and that limit, and T follows from the sum
    above. Source: EQUATIONS §6.

    **Arguments:** `target`: ε. `gap`: Δ = F_0(x_0) − inf F. `conditions`: of loss and method.

    **Returns:** a `ComplexityChoice`. β₂ stays free within μ < 1 (`zhou_hypotheses`).

    **Raises:** `ValueError` for numbers that are not positive (σ² and λ: negative), and where T
    would be too large for a float.

    !!! example
        >>> choice = complexity_choice(0.1, 1.0, ComplexityConditions(1.0, 1.0, 0.5, 1.0))
        >>> print(f"{choice.beta1:.2e} {choice.learning_rate:.2e} {choice.steps}")
        2.98e-03 1.99e-03 336454
    """
    _check(target=target, gap=gap)
    _check_conditions(conditions)
    return _stage(target**2, gap, conditions.variance, conditions, 1.0)


def pl_stages(
    target: float, gap: float, pl_constant: float, conditions: ComplexityConditions
) -> list[ComplexityChoice]:
    """Stages after each of which F − F* is halved, under ‖∇F‖² ≥ 2τ(F − F*).

        ε_s² = 2τΔ_s        β₁ = ε_s²c₁/(3c₂σ²)        η = β₁c₁^{1.5}/(2L√(2c₂))
        T_s = 18√2 (c₂/c₁)^{2.5} Lσ²/(τ²Δ_s)           Δ_s = Δ/2^s

    A stage begins at a step drawn uniformly from the one before, *with its moments*: with a new
    m₀ = g₀ its error σ² alone would take ∝ 1/Δ_s² steps. Half of the general η keeps that error
    in hand, E‖m − ∇F‖² ≤ (c₁/c₂)ε_s² at the end of a stage. ΣT_s ∝ 1/Δ_S, as printed; the constants
    are derived here. Only the first stage must forget m₀ = g₀. The minimum must not move: λ = 0, or
    a λ_k that is gone. Source: EQUATIONS §6.

    **Arguments:** `target`: the wanted E(F − F*). `gap`: Δ = F(x₀) − F*. `pl_constant`: τ.
    `conditions`: of loss and method.

    **Returns:** a `ComplexityChoice` a stage; none where the gap is small enough as it is.

    **Raises:** `ValueError` as `complexity_choice`, or for τ > L.

    !!! example
        >>> stages = pl_stages(0.01, 0.04, 1.0, ComplexityConditions(1.0, 1.0, 0.5, 1.0))
        >>> print([stage.steps for stage in stages])
        [7032, 3365]
    """
    _check(target=target, gap=gap, pl_constant=pl_constant)
    _check_conditions(conditions)
    if pl_constant > conditions.smoothness:
        raise ValueError(
            f"pl_constant = {pl_constant:g} is above smoothness = {conditions.smoothness:g}: no "
            "loss is so steep; lower τ or raise L."
        )
    count = max(0, math.ceil(math.log2(gap / target) - 1e-12))
    stages, error = [], conditions.variance
    for _ in range(count):
        square = pl_constant * gap  # 2τΔ_s, the gap being Δ_{s−1} = 2Δ_s
        stages.append(_stage(square, gap, error, conditions, 0.5))
        # What a stage hands on, (c₁/c₂)ε_s², is forgotten in 6/β₁ steps: in fewer, τ being ≤ L.
        gap, error = gap / 2, 0.0
    return stages


def gradient_bound(choice: ComplexityChoice, gap: float, conditions: ComplexityConditions) -> float:
    """2c₂Δ/(ηT) + (c₂/c₁)σ²(1/(β₁T) + β₁): above (1/T)ΣE‖∇F_k(x_k)‖², from m₀ = g₀.

    Arguments as `complexity_choice`, whose choice makes it ε² or less.

    !!! example
        >>> known = ComplexityConditions(1.0, 1.0, 0.5, 1.0)
        >>> print(f"{gradient_bound(complexity_choice(0.1, 1.0, known), 1.0, known):.4f}")
        0.0078
    """
    _check(gap=gap, **choice._asdict())
    _check_conditions(conditions)
    beta1, eta, steps = choice
    c1, c2, variance = conditions.c1, conditions.c2, conditions.variance
    return 2 * c2 * gap / (eta * steps) + c2 / c1 * variance * (1 / (beta1 * steps) + beta1)


def _stage(
    square: float, gap: float, error: float, known: ComplexityConditions, part: float
) -> ComplexityChoice:
    """Each of the sum's three terms at most ε²/3; `error`: E‖e₀‖², `part`: of the printed η."""
    c1, c2, variance, smooth = known.c1, known.c2, known.variance, known.smoothness
    wanted = square * c1 / (3 * c2)
    beta1 = wanted / variance if variance > wanted else 1.0
    limit = c1 / (2 * (smooth + known.weight_decay * c1))
    eta = min(limit, part * beta1 * c1**1.5 / (smooth * math.sqrt(2 * c2)))
    fall, forgotten = eta * square, beta1 * square
    steps = math.inf
    if fall > 0 and forgotten > 0:
        steps = max(6 * c2 * gap / fall, 3 * c2 * error / (c1 * forgotten))
    if not math.isfinite(steps):
        raise ValueError("So small a target takes more steps than can be counted: raise it.")
    return ComplexityChoice(beta1, eta, max(1, math.ceil(steps)))


def _check(**numbers: float) -> None:
    for name, value in numbers.items():
        positive(name, value)


def _check_conditions(known: ComplexityConditions) -> None:
    _check(smoothness=known.smoothness, bound=known.bound, eps_root=known.eps_root)
    not_negative("variance", known.variance)
    not_negative("weight_decay", known.weight_decay)
