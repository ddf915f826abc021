"""What a weight decay means: in every convention, in steps, and as ridge (EQUATIONS §8)."""

import math
from dataclasses import asdict, dataclass
from typing import Any

import jax

from ..conventions import Convention, convert_decay
from ..decays import check_hyperparameters, numbers
from ._arguments import count_steps
from .decay import half_life, ridge


@dataclass(frozen=True)
class DecayAdvice:
    """What `advise_decay` found: `str` of it is three lines, `as_dict()` one flat object.

    - `optax`: λ of optax, PyTorch, Keras and Zhou et al. `per_step`: λ_LH = αλ of Loshchilov &
        Hutter, at a constant rate TensorFlow Addons too. `normalised`: λ_LH √steps.
        `learning_rate`: α.
    - `momentum`: β of SGD, b1 of AdamW. `b2`: of AdamW.
    - `half_life`: steps at constant rate in which a weight without gradient halves.
    - `kept`, `kept_cosine`: what is left of the start after `steps`, at a constant rate and with
        rate and decay falling to 0 as a cosine. A decay of TensorFlow Addons does not fall.
    - `ridge`, `ridge_momentum`: λ' of (λ'/2)‖θ‖² for SGD and for SGD with `momentum`.
    - `box`: 1/λ for b1 ≤ b2, where AdamW ends in |θ| ≤ 1/λ if it converges (eps → 0); infinite for
        b1 > b2, where nothing keeps it in the box. Source: Xie & Li (arXiv 2404.04454).
    """

    optax: float
    per_step: float
    normalised: float
    learning_rate: float
    momentum: float
    b2: float
    steps: int
    half_life: float
    kept: float
    kept_cosine: float
    ridge: float
    ridge_momentum: float
    box: float

    def as_dict(self) -> dict[str, Any]:
        """The fields, each with `decay_` before its name; what is infinite becomes None.

        !!! example
            >>> advise_decay(0.0).as_dict()["decay_half_life"]
        """
        return {
            f"decay_{name}": value if math.isfinite(value) else None
            for name, value in asdict(self).items()
        }

    def __str__(self) -> str:
        decay = f"{self.optax:.4g}"
        names = (
            f"Decay: λ = {decay} times the learning rate (optax, PyTorch, Keras, Zhou), "
            f"{self.per_step:.4g} a step at its base {self.learning_rate:g} (Loshchilov & Hutter, "
            f"TensorFlow Addons at a constant rate), {self.normalised:.4g} normalised over "
            f"{self.steps} steps."
        )
        if not self.optax:
            return f"{names}\nNothing decays.\nNo ridge, no box."
        return "\n".join(
            (
                names,
                f"At a constant rate it halves a weight without gradient in {self.half_life:.4g} "
                f"steps; after {self.steps} steps {self.kept:.3g} of the start is left, with a "
                f"cosine to 0 {self.kept_cosine:.3g}.",
                f"As ridge: ({self.ridge:.4g}/2)‖θ‖² for SGD, ({self.ridge_momentum:.4g}/2)‖θ‖² "
                f"with momentum {self.momentum:g}; for Adam none, but ({decay}/2) Σ √v̂ θ² while v̂ "
                f"stays; {self._box()}.",
            )
        )

    def _box(self) -> str:
        edge = f"|θ| ≤ {1 / self.optax:.4g}"
        if self.momentum <= self.b2:
            return f"AdamW, if it converges (eps → 0), ends in {edge}"
        return f"nothing keeps AdamW in {edge}, as b1 > b2"


def advise_decay(
    decay: float,
    convention: Convention = "optax",
    *,
    learning_rate: float = 1e-3,
    momentum: float = 0.9,
    b2: float = 0.999,
    steps: int = 1000,
) -> DecayAdvice:
    """Says what a decay is in the other conventions, in steps, and as ridge.

    **Arguments:** `decay` in the given convention (`theory.CONVENTIONS`); `learning_rate`: α, the
    base rate; `momentum`: β of SGD and b1 of AdamW; `b2` of AdamW; `steps` of the run.

    **Returns:** a `DecayAdvice`, computed in float64.

    **Raises:** `ValueError` for values outside their range, and where a step would take away a
    whole weight.

    !!! example
        >>> print(str(advise_decay(0.1, learning_rate=1e-3)).splitlines()[1])
        At a constant rate it halves a weight without gradient in 6931 steps; after 1000 steps
        0.905 of the start is left, with a cosine to 0 0.951.
    """
    steps = count_steps(steps)
    # As numbers: here an array that is 0 means none, and removes nothing.
    checked = {"decay": decay, "momentum": momentum, "b2": b2}
    check_hyperparameters({name: numbers(name, value) for name, value in checked.items()})
    with jax.enable_x64(True):
        given = {"learning_rate": learning_rate, "steps": steps}
        weight_decay, share, normalised = (
            float(convert_decay(decay, convention, target, **given))
            for target in ("optax", "loshchilov_hutter", "normalised")
        )
        if not share < 1:
            raise ValueError(
                f"A step would take away {share:g} of a weight: give a decay below "
                f"{decay / share:.4g}, or a smaller learning_rate."
            )
        kept = math.exp(steps * math.log1p(-share))
        falls = convention != "tensorflow_addons"  # there the decay ignores the schedule
        return DecayAdvice(
            optax=weight_decay,
            per_step=share,
            normalised=normalised,
            learning_rate=float(learning_rate),
            momentum=float(momentum),
            b2=float(b2),
            steps=steps,
            half_life=float(half_life(learning_rate, weight_decay)),
            kept=kept,
            kept_cosine=_kept_cosine(share, steps) if falls else kept,
            ridge=float(ridge(weight_decay)),
            ridge_momentum=float(ridge(weight_decay, momentum)),
            box=1 / weight_decay if weight_decay and momentum <= b2 else math.inf,
        )


def _kept_cosine(share: float, steps: int) -> float:
    """Π (1 − f(1 + cos πn/N)/2), n = 0 … N − 1.

    By 1 − f(1+c)/2 = K(1 + 2ρ cos φ + ρ²), −f/2 = 2Kρ, 1 − f/2 = K(1 + ρ²), the product over the
    2N-th roots of unity of |1 + ρz|² is (1 − ρ^{2N})²; half of it, with the ends n = 0 and N once.
    """
    root = math.sqrt(1 - share)
    rho = -(1 - root) / (1 + root)
    ends = math.log1p(-share) / 2  # n = 0, whole; the factor of n = N is 1
    whole = math.log1p(-(rho ** (2 * steps))) + steps * math.log((1 + root) ** 2 / 4)
    return math.exp(whole + ends)
