"""Decays of the moments: the one place where a decay becomes a rate.

Notation of EQUATIONS §0 and §1: `b` is a decay per optimizer step, its *rate* (`a` or `b` in
m' = a (g - m)) is what the flow relaxes with, also per step.
"""

from collections.abc import Callable
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, ArrayLike, Float

Rates = Literal["log", "lag", "euler"]
Decay = Literal["decoupled", "l2"]
Schedule = Callable[[Any], Any]
Scalar = ArrayLike
"""A hyperparameter: a Python number, a NumPy scalar, or a (traced) JAX scalar."""

RATES: tuple[Rates, ...] = ("log", "lag", "euler")


def choice(name: str, value: object, options: tuple[str, ...]) -> None:
    """Raises a `ValueError` that lists `options` unless `value` is one of them."""
    if value not in options:
        listed = ", ".join(repr(option) for option in options)
        raise ValueError(f"{name} = {value!r} is unknown: choose one of {listed}.")


def is_removed(b: Scalar) -> bool:
    """True where a decay is a Python 0: that moment is its own input and has no state (§0).

    An array is never removed, whatever its value: the state's structure must not depend on it.
    """
    return isinstance(b, int | float) and b == 0


def rate(b: Scalar, kind: Rates = "log") -> Float[Array, "..."]:
    """The relaxation rate per optimizer step of a moment with decay `b`.

    `"log"`: -ln b (exact weights of the discrete average), `"lag"`: (1 - b)/b (its exact mean
    lag), `"euler"`: 1 - b. Source: EQUATIONS §1; Gould & Tanaka (arXiv 2411.05746) use `"lag"`.

    **Arguments:**

    - `b`: decay(s) in (0, 1), any shape.
    - `kind`: which of the three.

    **Returns:** rates of the shape of `b`, per step; `inf` at b = 0 for `"log"` and `"lag"`.

    !!! example
        >>> print(f"{float(rate(0.9, 'lag')):.4f}")
        0.1111
    """
    choice("rates", kind, RATES)
    b = jnp.asarray(b)
    if kind == "log":
        return -jnp.log(b)
    return 1 - b if kind == "euler" else (1 - b) / b


def check_hyperparameters(values: dict[str, Any], *, traced: bool = False, where: str = "") -> None:
    """Raises a `ValueError` at the first hyperparameter outside its range, in one sentence.

    Decays lie in [0, 1) (in (0, 1) if `traced`: arrays cannot remove a moment), all others are
    finite and not negative. Values that cannot be looked at (tracers, schedules) are left out.
    """
    for name, value in values.items():
        if callable(value) or isinstance(value, Tracer):
            continue
        number = _as_number(name, value)
        is_decay = name.startswith(("b1", "b2", "momentum"))
        low_ok = (
            number > 0 if is_decay and (traced or isinstance(value, jax.Array)) else number >= 0
        )
        if not (np.isfinite(number) and low_ok and (number < 1 or not is_decay)):
            wanted = "in [0, 1)" if is_decay else "finite and not negative"
            if is_decay and number == 0:
                wanted = "in (0, 1): only a Python 0 removes a moment"
            raise ValueError(f"{where}{name} = {number:g} must be {wanted}.")


def _as_number(name: str, value: Any) -> float:
    try:
        array = np.asarray(value, dtype=float)
    except (TypeError, ValueError):
        raise ValueError(f"{name} = {value!r} is not a number.") from None
    if array.ndim:
        raise ValueError(f"{name} has shape {array.shape}: give one number.")
    return float(array)


class Hyperparameters(eqx.Module):
    """What an Adam-like flow and its discrete optimizer share; defined once for both.

    `b1` and `b2` hold one decay a stage (k = 1 is AdamW); numbers, tracers, or for the learning
    rate a schedule of the step count.
    """

    learning_rate: Scalar | Schedule
    b1: tuple[Scalar, ...]
    b2: tuple[Scalar, ...]
    eps: Scalar
    weight_decay: Scalar
    eps_root: Scalar
    decay: Decay = eqx.field(static=True)

    def __check_init__(self) -> None:
        choice("decay", self.decay, ("decoupled", "l2"))
        if len(self.b1) != len(self.b2) or not self.b1:
            raise ValueError(
                f"b1 has {len(self.b1)} and b2 {len(self.b2)} decays: give one of each a stage."
            )
        check_hyperparameters(self.named())

    def named(self) -> dict[str, Any]:
        """Each hyperparameter by name, stages as `b1[0]`, `b1[1]`, …"""
        stages = {"b1": self.b1, "b2": self.b2}
        named = {
            f"{name}[{i}]" if len(bs) > 1 else name: b
            for name, bs in stages.items()
            for i, b in enumerate(bs)
        }
        return named | {
            "learning_rate": self.learning_rate,
            "eps": self.eps,
            "weight_decay": self.weight_decay,
            "eps_root": self.eps_root,
        }

    @property
    def outer_weight_decay(self) -> Scalar:
        """λ of the decay that acts beside the update; 0 where it acts inside (`"l2"`)."""
        return self.weight_decay if self.decay == "decoupled" else 0.0


def learning_rate_at(learning_rate: Scalar | Schedule, step: Any) -> Any:
    """η at a step: a schedule is evaluated at `step`, a number is itself."""
    return learning_rate(step) if callable(learning_rate) else learning_rate
