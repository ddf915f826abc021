"""How Adam's hyperparameters follow the batch size, and where such a rule holds (EQUATIONS §9).

With noise of variance σ²/B in a gradient, Adam's stochastic equation knows its hyperparameters by
η/√B, (1−b)/B, eps √B and λ/√B alone, with time counted in samples: that is the square-root rule,
exact as η → 0 while noise dominates the second moment. Source: Malladi et al. (arXiv 2205.10287).
"""

import math
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, get_args

from ..decays import check_hyperparameters, choice
from ._arguments import check_positive

Rule = Literal["square_root", "linear"]
SCALED = ("learning_rate", "b1", "b2", "eps", "weight_decay")
"""What a rule scales beside the number of steps."""
ULPS = 1e-12
"""κ(1 − b) of decimal numbers misses 1, and a whole number of steps, by some ulps."""


class Scaled(NamedTuple):
    """Hyperparameters at another batch size; `steps` need not be whole."""

    learning_rate: Any
    b1: Any
    b2: Any
    eps: Any
    weight_decay: Any
    steps: Any


def scaled_hyperparameters(
    factor: float,
    learning_rate: float = 1e-3,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    steps: float = 1000,
    *,
    rule: Rule = "square_root",
    scale: Sequence[str] = SCALED,
) -> Scaled:
    """Hyperparameters for κ times the batch, over the same samples.

    |               | η    | 1 − b1, 1 − b2 | eps    | λ    | steps |
    | ------------- | ---- | -------------- | ------ | ---- | ----- |
    | `square_root` | η√κ  | κ(1 − b)       | eps/√κ | λ√κ  | N/κ   |
    | `linear`      | ηκ   | κ(1 − b)       | eps    | λ    | N/κ   |

    √v̂ falls as 1/√κ where noise makes it (square_root) and not at all where the gradient does
    (linear); in both what a sample does to the mean update, to the averages and by decay stays.
    Source: EQUATIONS §9, Malladi et al. (arXiv 2205.10287); λ follows from ηλ/κ.

    **Arguments:**

    - `factor`: κ, the new batch size over the old one.
    - `learning_rate` … `weight_decay`, `steps`: at the old batch size.
    - `scale`: which of `SCALED` follow the rule; the others stay. Steps always follow.

    **Returns:** `Scaled`.

    **Raises:** `ValueError` for values outside their range, an unknown rule or name, and where
    κ(1 − b) > 1: no decay averages over less than one batch. A decay of 0 is none and stays 0.

    !!! example
        >>> new = scaled_hyperparameters(4.0, learning_rate=1e-3, weight_decay=0.1, steps=1000)
        >>> print(f"{new.learning_rate:g}, {new.b1:g}, {new.b2:g}, {new.weight_decay:g}")
        0.002, 0.6, 0.996, 0.2
    """
    new = scaled(factor, (learning_rate, b1, b2, eps, weight_decay, steps), rule, scale)
    for name, old in (("b1", b1), ("b2", b2)):
        if getattr(new, name) < 0:
            raise ValueError(
                f"{name} = {old:g} cannot follow a batch of {factor:g} times the size, as 1 − "
                f"{name} would be {factor * (1 - old):.4g}: give {1 / (1 - old):.4g} times at most."
            )
    return new


def scaled(
    factor: float, old: tuple[float, ...], rule: Rule, scale: Sequence[str] = SCALED
) -> Scaled:
    """As `scaled_hyperparameters`; where no decay follows the rule it comes out negative."""
    choice("rule", rule, get_args(Rule))
    if callable(old[0]):
        raise ValueError(
            "learning_rate is a schedule: give its largest number, and scale the schedule by what "
            "comes out, with κ times fewer steps."
        )
    check_hyperparameters(dict(zip(Scaled._fields, old, strict=True)))
    for name in scale:
        choice("scale", name, SCALED)
    check_positive(factor=factor)
    root = math.sqrt(factor) if rule == "square_root" else 1.0
    rate = root if rule == "square_root" else factor
    by = {"learning_rate": rate, "eps": 1 / root, "weight_decay": root}
    found = {}
    for name, value in zip(Scaled._fields, old, strict=True):
        if name == "steps":
            found[name] = value / factor
        elif name not in scale:
            found[name] = value
        else:
            found[name] = by[name] * value if name in by else _decay(value, factor)
    return Scaled(**found)


def _decay(b: float, factor: float) -> float:
    if b == 0:
        return b  # a moment that is not there (§0)
    new = 1 - factor * (1 - b)
    return 0.0 if abs(new) < ULPS * factor else new


def preconditioner_error(
    noise_to_signal: float, factor: float, rule: Rule = "square_root"
) -> float:
    """By which part steps at κ times the batch come out too long, at a given gradient.

    √v̂ is |g|√(1 + ρ²), ρ the noise over the gradient, which is ρ/√κ at the new batch. The rules
    scale η for √v̂ ∝ 1/√κ and √v̂ constant:

        square_root √[(1 + ρ⁻²)/(1 + κρ⁻²)] − 1        linear √[(1 + ρ²)/(1 + ρ²/κ)] − 1

    All coordinates have this ρ here; among unequal ones those with little noise are worse off.

    **Arguments:** `noise_to_signal`: ρ = √(tr Σ/B)/‖∇f‖ at the old batch; `factor`: κ.

    **Returns:** the part, 0 for a rule that holds.

    **Raises:** `ValueError` for numbers that are not positive and finite, and an unknown rule.

    !!! example
        >>> print(f"{preconditioner_error(2.0, 4.0):.3f}")  # √v̂ is that of the gradient too
        -0.209
    """
    choice("rule", rule, get_args(Rule))
    check_positive(noise_to_signal=noise_to_signal, factor=factor)
    ratio = noise_to_signal**2
    if rule == "square_root":
        return math.sqrt((1 + 1 / ratio) / (1 + factor / ratio)) - 1
    return math.sqrt((1 + ratio) / (1 + ratio / factor)) - 1
