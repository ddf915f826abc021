"""Decays of the moments: the one place where a decay becomes a rate.

Notation of EQUATIONS §0 and §1: `b` is a decay per optimizer step, its *rate* (`a` or `b` in
m' = a (g - m)) is what the flow relaxes with, also per step.
"""

import operator
from collections.abc import Callable, Mapping
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


def whole_number(name: str, value: Any, least: int = 1) -> int:
    """The value, also NumPy's or JAX's, as Python's number; a `ValueError` unless it counts
    something."""
    if isinstance(value, Tracer):
        raise ValueError(f"{name} is traced by JAX: give a number from outside.")
    try:
        number = least - 1 if isinstance(value, bool) else operator.index(value)
    except TypeError:
        number = least - 1
    if number < least:
        raise ValueError(f"{name} = {value!r} must be a whole number of at least {least}.")
    return number


def numbers(name: str, value: Any) -> np.ndarray:
    """The value as floats; a `ValueError` for what is none: NumPy takes None for a NaN, and text
    that can be read as a number for that number, which JAX does not."""
    try:
        if value is None or isinstance(value, str):
            raise TypeError
        return np.asarray(value, dtype=float)
    except (TypeError, ValueError):
        if any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(value)):
            raise ValueError(f"{name} is traced by JAX: give numbers from outside.") from None
        raise ValueError(f"{name} = {value!r} is not a number.") from None


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


def check_hyperparameters(values: Mapping[str, Any]) -> None:
    """Raises a `ValueError` at the first hyperparameter outside its range, in one sentence.

    Decays lie in [0, 1), or in (0, 1) where they are arrays, which cannot remove a moment; all
    others are finite and not negative. Schedules and tracers cannot be looked at and are left out.
    """
    for name, value in values.items():
        if isinstance(value, Tracer) or (callable(value) and name == "learning_rate"):
            continue
        if callable(value):
            raise ValueError(
                f"{name} is a function: give a number. A schedule may be the learning_rate, and in "
                "ct.decoupled the weight_decay."
            )
        number = numbers(name, value)
        if number.ndim:
            raise ValueError(f"{name} has shape {number.shape}: give one number.")
        if not in_range(name, number, isinstance(value, jax.Array)):
            raise ValueError(out_of_range(name, number))


def in_range(name: str, values: np.ndarray, arrays: bool) -> np.ndarray:
    """Where the values of a hyperparameter make sense; `arrays`: whether they came as arrays."""
    low = (values > 0) if arrays and _is_decay(name) else (values >= 0)
    return low & np.isfinite(values) & ((values < 1) | (not _is_decay(name)))


def out_of_range(name: str, value: Any) -> str:
    """The sentence for a value that is not."""
    if not _is_decay(name):
        return f"{name} = {value:g} must be finite and not negative."
    if value == 0:
        return f"{name} = 0 must be in (0, 1): only a Python 0 removes a moment, no array does."
    return f"{name} = {value:g} must be in [0, 1)."


def _is_decay(name: str) -> bool:
    return name.startswith(("b1", "b2", "momentum"))


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

    def __init__(
        self,
        learning_rate: Scalar | Schedule,
        b1: Scalar | tuple[Scalar, ...],
        b2: Scalar | tuple[Scalar, ...],
        eps: Scalar,
        weight_decay: Scalar,
        eps_root: Scalar,
        decay: Decay,
    ):
        self.learning_rate, self.eps, self.eps_root = learning_rate, eps, eps_root
        self.weight_decay, self.decay = weight_decay, decay
        self.b1, self.b2 = _stages("b1", b1), _stages("b2", b2)
        choice("decay", decay, ("decoupled", "l2"))
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


def check_one_stage(owner: str, **decays: Any) -> None:
    """Raises a `ValueError` for decays of several stages, which only k-Adam has."""
    for name, b in decays.items():
        if len(_stages(name, b)) != 1:
            raise ValueError(
                f"{owner} has one stage: give one number, not {name} = {b!r}, or use KAdamFlow or "
                "k_adam."
            )


def _stages(name: str, b: Any) -> tuple[Scalar, ...]:
    """One decay a stage, of a number, a tuple, or the array that `optax.inject_hyperparams` can
    hold. NumPy's numbers become Python's, so that a zero of theirs removes too.

    No schedules: flow and optimizer share these decays, and a flow knows no bias factor of a decay
    that changes.
    """
    array = isinstance(b, jax.Array | np.ndarray) and b.ndim == 1
    stages: tuple[Any, ...] = tuple(b) if array or isinstance(b, tuple | list) else (b,)
    if any(callable(one) for one in stages):
        raise ValueError(
            f"{name} is a schedule: give a number, or use optax.inject_hyperparams(ct.k_adam)(…, "
            f"{name}=schedule), where a schedule for k > 1 returns an array of one decay a stage."
        )
    return tuple(_as_python(one) for one in stages)


def _as_python(b: Any) -> Any:
    return b.item() if isinstance(b, np.generic | np.ndarray) and np.ndim(b) == 0 else b


def learning_rate_at(learning_rate: Scalar | Schedule, step: Any) -> Any:
    """η at a step: a schedule is evaluated at `step`, a number is itself."""
    return learning_rate(step) if callable(learning_rate) else learning_rate
