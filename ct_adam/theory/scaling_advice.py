"""What hyperparameters become at another batch size, and where the rule fails (EQUATIONS §9)."""

import math
from dataclasses import asdict, dataclass
from typing import Any

from ..decays import whole_number
from .scaling import ULPS, Rule, preconditioner_error, scaled

LARGEST_ERROR = 0.02
"""Of `preconditioner_error` under the square-root rule, without a warning. Read off one network, an
MLP on digits, the least favourable problem of `experiments noise`: losses differ by 0.09 where it
is 0.014 and by 0.29 where it is 0.066; the noisy quadratic (0.12 at 0.17) and the small transformer
(0.15 at 0.25) allow more. Nothing of the kind was measured of the linear rule, which has no such
warning."""


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
    batch_from = whole_number("batch_from", batch_from)
    batch_to = whole_number("batch_to", batch_to)
    steps = whole_number("steps", steps)
    factor = batch_to / batch_from
    new = scaled(factor, (learning_rate, b1, b2, eps, weight_decay, steps), rule)
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
    most = math.ceil(batch / (1 - old) * (1 - ULPS)) - 1  # below which something is averaged
    what = f"{name} = 0 averages nothing"
    if new < 0:
        what = f"no {name} does it, 1 − {name} would be {1 - new:.4g}"
    return [f"{what}; the rule keeps a moment up to a batch of {most}."]


def _step_warnings(steps: float) -> list[str]:
    whole = round(steps)
    if whole and abs(steps - whole) <= ULPS * steps:
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
