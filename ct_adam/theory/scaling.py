"""How Adam's hyperparameters follow the batch size, and where such a rule holds (EQUATIONS §9).

With noise of variance σ²/B in a gradient, Adam's stochastic equation knows its hyperparameters by
η/√B, (1−b)/B, eps √B and λ/√B alone, with time counted in samples: that is the square-root rule,
exact as η → 0 while noise dominates the second moment. Source: Malladi et al. (arXiv 2205.10287).
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, NamedTuple, get_args

import numpy as np

from ..decays import check_hyperparameters, choice

Rule = Literal["square_root", "linear"]
SCALED = ("learning_rate", "b1", "b2", "eps", "weight_decay")
"""What a rule scales beside the number of steps."""
LARGEST_ERROR = 0.02
"""Of `preconditioner_error` under the square-root rule, without a warning. Read off one network, an
MLP on digits, the least favourable problem of `experiments noise`: losses differ by 0.09 where it
is 0.014 and by 0.29 where it is 0.066; the noisy quadratic (0.12 at 0.17) and the small transformer
(0.15 at 0.25) allow more. Nothing of the kind was measured of the linear rule, which has no such
warning."""
_ULPS = 1e-12
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
    new = _scaled(factor, (learning_rate, b1, b2, eps, weight_decay, steps), rule, scale)
    for name, old in (("b1", b1), ("b2", b2)):
        if getattr(new, name) < 0:
            raise ValueError(
                f"{name} = {old:g} cannot follow a batch of {factor:g} times the size, as 1 − "
                f"{name} would be {factor * (1 - old):.4g}: give {1 / (1 - old):.4g} times at most."
            )
    return new


def _scaled(
    factor: float, old: tuple[float, ...], rule: Rule, scale: Sequence[str] = SCALED
) -> Scaled:
    """As `scaled_hyperparameters`; a decay can be negative."""
    choice("rule", rule, get_args(Rule))
    if callable(old[0]):
        raise ValueError(
            "learning_rate is a schedule: give its largest number, and scale the schedule by what "
            "comes out, with κ times fewer steps."
        )
    check_hyperparameters(dict(zip(Scaled._fields, old, strict=True)))
    for name in scale:
        choice("scale", name, SCALED)
    if not 0 < factor < math.inf:
        raise ValueError(f"factor = {factor:g} must be positive and finite.")
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
    return 0.0 if abs(new) < _ULPS * factor else new


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
    for name, value in (("noise_to_signal", noise_to_signal), ("factor", factor)):
        if not 0 < value < math.inf:
            raise ValueError(f"{name} = {value:g} must be positive and finite.")
    ratio = noise_to_signal**2
    if rule == "square_root":
        return math.sqrt((1 + 1 / ratio) / (1 + factor / ratio)) - 1
    return math.sqrt((1 + ratio) / (1 + ratio / factor)) - 1


@dataclass(frozen=True)
class ScalingAdvice:
    """What `advise_scaling` found: `str` of it is two lines and one a warning, `as_dict()` one flat
    object.

    - `batch_from`, `batch_to`, `factor`: B, κB and κ. `rule`: which one.
    - `learning_rate`, `b1`, `b2`, `eps`, `weight_decay`: at the new batch; a decay is None where
        none does it. `steps`: over the same samples, not rounded.
    - `samples`: that are seen.
    - `noise_to_signal_from`, `noise_to_signal_to`: √(tr Σ/B)/‖∇f‖ at the old and the new batch,
        None where it is not known. `preconditioner_error`: by which part each step at the new one
        comes out too long, None alike.
    - `warnings`: a sentence each.
    """

    batch_from: int
    batch_to: int
    factor: float
    rule: Rule
    learning_rate: float
    b1: float | None
    b2: float | None
    eps: float
    weight_decay: float
    steps: float
    samples: int
    noise_to_signal_from: float | None
    noise_to_signal_to: float | None
    preconditioner_error: float | None
    warnings: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """The fields; warnings as a list.

        !!! example
            >>> advise_scaling(64, 256).as_dict()["steps"]
            250.0
        """
        return {**asdict(self), "warnings": list(self.warnings)}

    def __str__(self) -> str:
        decays = ", ".join(
            f"{name} {'–' if b is None else f'{b:.8g}'}"
            for name, b in (("b1", self.b1), ("b2", self.b2))
        )
        numbers = (
            f"Batch {self.batch_from} → {self.batch_to}, {self.rule.replace('_', '-')} rule: "
            f"learning rate {self.learning_rate:.6g}, {decays}, eps {self.eps:.6g}, weight decay "
            f"{self.weight_decay:.6g}, steps {self.steps:.6g}."
        )
        return "\n".join((numbers, self._kept(), *(f"Warning: {one}" for one in self.warnings)))

    def _kept(self) -> str:
        kept = {
            "square_root": "η/√B, (1 − b)/B, eps √B, λ/√B",
            "linear": "η/B, (1 − b)/B, eps, λ",
        }[self.rule]
        words = f"Kept: {kept} and the {self.samples} samples seen."
        if self.preconditioner_error is not None:
            part = 100 * self.preconditioner_error
            too = "long" if part > 0 else "short"
            return f"{words} Each step comes out {abs(part):.2g} % too {too}."
        where = "noise dominates" if self.rule == "square_root" else "the gradient dominates"
        return f"{words} Holds where {where} at both sizes: --noise-to-signal checks it."


def advise_scaling(
    batch_from: int,
    batch_to: int,
    *,
    learning_rate: float = 1e-3,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    steps: int = 1000,
    rule: Rule = "square_root",
    noise_to_signal: float | None = None,
) -> ScalingAdvice:
    """Says what hyperparameters become at another batch size, and where the rule does not hold.

    **Arguments:** hyperparameters and `steps` at `batch_from`, as in `scaled_hyperparameters`;
    `noise_to_signal`: √(tr Σ/B)/‖∇f‖ there.

    **Returns:** a `ScalingAdvice`.

    **Raises:** `ValueError` for values outside their range.

    !!! example
        >>> print(str(advise_scaling(64, 256, noise_to_signal=20.0)).splitlines()[1])
        Kept: η/√B, (1 − b)/B, eps √B, λ/√B and the 64000 samples seen. Each step comes out
        0.37 % too short.
    """
    for name, count in (("batch_from", batch_from), ("batch_to", batch_to), ("steps", steps)):
        if isinstance(count, bool) or not isinstance(count, int | np.integer) or count < 1:
            raise ValueError(f"{name} = {count!r} must be a whole number of at least 1.")
    batch_from, batch_to, steps = int(batch_from), int(batch_to), int(steps)  # for JSON
    factor = batch_to / batch_from
    new = _scaled(factor, (learning_rate, b1, b2, eps, weight_decay, steps), rule)
    error = None
    if noise_to_signal is not None:
        error = preconditioner_error(noise_to_signal, factor, rule)
    warnings = [
        *_decay_warnings("b1", b1, new.b1, batch_from),
        *_decay_warnings("b2", b2, new.b2, batch_from),
        *_step_warnings(new.steps),
        *_noise_warnings(error, factor, noise_to_signal if rule == "square_root" else None),
    ]
    return ScalingAdvice(
        batch_from=batch_from,
        batch_to=batch_to,
        factor=factor,
        rule=rule,
        learning_rate=float(new.learning_rate),
        b1=float(new.b1) if new.b1 >= 0 else None,
        b2=float(new.b2) if new.b2 >= 0 else None,
        eps=float(new.eps),
        weight_decay=float(new.weight_decay),
        steps=float(new.steps),
        samples=batch_from * steps,
        noise_to_signal_from=noise_to_signal,
        noise_to_signal_to=None if noise_to_signal is None else noise_to_signal / math.sqrt(factor),
        preconditioner_error=error,
        warnings=tuple(warnings),
    )


def _decay_warnings(name: str, old: float, new: float, batch: int) -> list[str]:
    if new > 0 or (new == 0 and old == 0):
        return []
    most = math.ceil(batch / (1 - old) * (1 - _ULPS)) - 1  # below which something is averaged
    what = f"{name} = 0 averages nothing"
    if new < 0:
        what = f"no {name} does it, 1 − {name} would be {1 - new:.4g}"
    return [f"{what}; the rule keeps a moment up to a batch of {most}."]


def _step_warnings(steps: float) -> list[str]:
    whole = round(steps)
    if whole and abs(steps - whole) <= _ULPS * steps:
        return []
    below, above = math.floor(steps), math.ceil(steps)
    return [f"{steps:.6g} steps are not a whole number: take {above} (or {below}, fewer samples)."]


def _noise_warnings(error: float | None, factor: float, noise_to_signal: float | None) -> list[str]:
    """Of the square-root rule."""
    if error is None or noise_to_signal is None or abs(error) <= LARGEST_ERROR:
        return []
    # Of the two batches the larger one has less noise, and is where the rule fails.
    larger = noise_to_signal / math.sqrt(max(factor, 1.0))
    return [
        f"the rule is {100 * abs(error):.2g} % off as noise does not dominate at the larger batch "
        f"(noise-to-signal {larger:.3g}): take a smaller one, or tune."
    ]
