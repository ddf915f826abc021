"""Optimizers by name."""

from collections.abc import Callable
from typing import Any

import optax
from jax.core import Tracer

from ..named import accepted, called, imported
from .adam import adam_l2, adam_prox, adamw
from .sgdw import sgdw
from .sign import sign_descent
from .steepest import steepest_descent


def _sgdw(
    learning_rate: Any, b1: Any = 0.9, weight_decay: Any = 0.0
) -> optax.GradientTransformation:
    return sgdw(learning_rate, b1, weight_decay)


def _l2_descent(learning_rate: Any, weight_decay: Any = 0.0) -> optax.GradientTransformation:
    return steepest_descent(learning_rate, weight_decay, "l2")


OPTIMIZERS: dict[str, Callable[..., optax.GradientTransformation]] = {
    "adamw": adamw,
    "adam_l2": adam_l2,
    "adam_prox": adam_prox,
    "sgdw": _sgdw,
    "sign_descent": sign_descent,
    "l2_descent": _l2_descent,
}
"""Each takes those of learning_rate, b1, b2, eps and weight_decay that it has; `adamw` without
decay is Adam, the momentum of `sgdw` is b1, and `l2_descent` is normalised by the norm of all."""

ADAM_KIN = ("adamw", "adam_l2", "adam_prox")
"""Those whose update is Adam's: its bounds and flows are theirs."""


def optimizer_named(name: str, **hyperparameters: Any) -> optax.GradientTransformation:
    """An optimizer by name, or from a user's `package.module:factory`.

    The factory is given those of learning_rate, b1, b2, eps and weight_decay that it takes by
    name; `optax:adan`, `optax:rmsprop` and the like are such factories, whatever optax means by
    the names.

    **Raises:** `ValueError` for an unknown name, or a factory that returns something else.

    !!! example
        >>> optimizer_named("adam_prox", learning_rate=1e-3).rule.proximal
        True
    """
    factory = _factory(name)
    decay = hyperparameters.get("weight_decay")
    taken = accepted(factory, hyperparameters)
    if decay is not None and "weight_decay" not in taken and (isinstance(decay, Tracer) or decay):
        raise ValueError(f"{name} takes no weight_decay: leave it 0, or let the factory take it.")
    made = called(name, factory, hyperparameters)
    if not isinstance(made, optax.GradientTransformation):
        raise ValueError(f"{name} returned {type(made).__name__}: return an optax transformation.")
    return made


def takes(name: str, hyperparameter: str) -> bool:
    """Whether an optimizer, by name or a user's, has this hyperparameter.

    !!! example
        >>> takes("adamw", "b2"), takes("sgdw", "b2")
        (True, False)
    """
    return hyperparameter in accepted(_factory(name), {hyperparameter: None})


def _factory(name: str) -> Callable[..., Any]:
    return OPTIMIZERS.get(name) or imported(name, "optimizer", list(OPTIMIZERS))
