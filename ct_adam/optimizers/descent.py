"""Optimizers made of one piece: of a direction, or of a step that knows its own count."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import optax
from jaxtyping import Array, Int, PyTree

from ..decays import Scalar, Schedule, check_hyperparameters
from .stage import Optimizer, UpdateRule


def descent(
    direction: optax.GradientTransformation,
    learning_rate: Scalar | Schedule,
    weight_decay: Scalar,
    **others: Scalar,
) -> Optimizer:
    """θ ← θ - η(u + λθ), u what `direction` makes of the gradient; `others` are its numbers.

    **Raises:** `ValueError` for a value outside its range.
    """
    named = {"learning_rate": learning_rate, **others, "weight_decay": weight_decay}
    check_hyperparameters(named)
    transformation = optax.chain(
        direction,
        optax.add_decayed_weights(weight_decay),  # pyright: ignore[reportArgumentType]
        optax.scale_by_learning_rate(learning_rate),  # pyright: ignore[reportArgumentType]
    )
    return Optimizer.make(transformation, UpdateRule(learning_rate, weight_decay), named)


def counted_step(
    name: str, move: Callable[[Int[Array, ""], PyTree, PyTree], PyTree]
) -> optax.GradientTransformation:
    """Δθ = `move(n, u, θ)` at step n; `name` is who asks for θ where it is not given."""

    def init(params: PyTree) -> Any:
        del params
        return optax.ScaleByScheduleState(count=jnp.zeros([], jnp.int32))

    def update(updates: PyTree, state: Any, params: PyTree | None = None) -> Any:
        if params is None:
            raise ValueError(f"{name} needs the parameters: call update(grads, state, params).")
        step = move(state.count, updates, params)
        return step, optax.ScaleByScheduleState(count=optax.safe_increment(state.count))

    return optax.GradientTransformation(init, update)
