"""Decoupled decay added to any update, in any convention, following the schedule or not.

Source: EQUATIONS §8; Loshchilov & Hutter (arXiv 1711.05101).
"""

from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, PyTree

from ..conventions import (
    CONVENTIONS,
    MULTIPLIED_BY_RATE,
    Convention,
    conversion_factor,
    convert_decay,
    positive,
)
from ..decays import Scalar, Schedule, check_hyperparameters, choice, learning_rate_at
from .descent import counted_step
from .stage import Optimizer, StageState, UpdateRule, decays_where

Follows = Literal["schedule", "nothing"]
FOLLOWS: tuple[Follows, ...] = ("schedule", "nothing")


def decoupled(
    direction: optax.GradientTransformation,
    learning_rate: Scalar | Schedule,
    weight_decay: Scalar | Schedule = 0.0,
    *,
    convention: Convention = "optax",
    follows: Follows = "schedule",
    base_rate: Scalar | None = None,
    steps: Scalar | None = None,
    mask: Any = None,
) -> Optimizer | optax.GradientTransformation:
    """θ ← θ − η(n) u − d(n) θ, u what `direction` makes of the gradient.

        follows = "schedule"    d(n) = λ_LH η(n)/α = λ η(n)      Loshchilov & Hutter, PyTorch, optax
        follows = "nothing"     d(n) = λ_LH                      TensorFlow Addons as it comes

    **Arguments:**

    - `direction`: an optax transformation without learning rate or decay: `optax.scale_by_adam()`,
        `optax.trace(0.9)`, `ct.optimizers.scale_by_stage(…)`.
    - `learning_rate`: η, a number or a schedule of the step count.
    - `weight_decay`: in the given convention, a number or a schedule of the step count.
    - `convention`: as in `ct.theory.convert_decay`.
    - `base_rate`: α; by default η if that is a Python or NumPy number. An array may be η of this
        step, as under `optax.inject_hyperparams`, and is not taken for α.
    - `steps`: of the run or cycle, for `"normalised"`.
    - `mask`: which leaves decay, as in `optax.add_decayed_weights`.

    **Returns:** an optax transformation; where λ is a number and follows the schedule, one of
    ours, whose update rule `ct.run` knows.

    **Raises:** `ValueError` for an unknown name, a value outside its range, or where α or the
    steps are wanted and not given.

    !!! example
        >>> make = lambda follows: decoupled(
        ...     optax.identity(), lambda n: 0.5 / 2.0**n, 0.1, convention="loshchilov_hutter",
        ...     base_rate=0.5, follows=follows)
        >>> params, grads = jnp.array(1.0), jnp.array(0.0)
        >>> for follows in FOLLOWS:
        ...     optimizer = make(follows)
        ...     first, state = optimizer.update(grads, optimizer.init(params), params)
        ...     print(first, optimizer.update(grads, state, params)[0])
        -0.1 -0.05
        -0.1 -0.1
    """
    if not isinstance(direction, optax.GradientTransformation):
        kind = type(direction).__name__
        raise ValueError(f"decoupled takes an optax transformation as direction, not {kind}.")
    choice("follows", follows, FOLLOWS)
    choice("convention", convention, CONVENTIONS)
    numbers = {} if callable(weight_decay) else {"weight_decay": weight_decay}
    check_hyperparameters({"learning_rate": learning_rate, **numbers})
    if base_rate is not None:
        check_hyperparameters({"base_rate": base_rate})
        positive("base_rate", base_rate)
    a_number = isinstance(learning_rate, int | float | np.number)
    alpha = learning_rate if base_rate is None and a_number else base_rate
    wanted: Convention = "optax" if follows == "schedule" else "loshchilov_hutter"
    if alpha is None and (convention in MULTIPLIED_BY_RATE) != (wanted in MULTIPLIED_BY_RATE):
        raise ValueError("Give base_rate: the learning rate that a schedule is a multiple of.")
    if convention == "normalised":
        conversion_factor("steps", steps)

    def converted(decay: Any) -> Any:
        return convert_decay(decay, convention, wanted, learning_rate=alpha, steps=steps)

    def share(step: Any) -> Any:
        decay = converted(learning_rate_at(weight_decay, step))
        return decay * learning_rate_at(learning_rate, step) if follows == "schedule" else decay

    chain = optax.chain(direction, _step(learning_rate, share, mask))
    if follows != "schedule" or callable(weight_decay):
        return chain
    rule = UpdateRule(learning_rate, converted(weight_decay), mask)
    return Optimizer.make(chain, rule, {"learning_rate": learning_rate, **numbers})


def _step(
    learning_rate: Scalar | Schedule, share: Schedule, mask: Any
) -> optax.GradientTransformation:
    def move(count: Array, updates: PyTree, params: PyTree) -> PyTree:
        eta, taken = learning_rate_at(learning_rate, count), share(count)
        return jax.tree.map(
            lambda u, p, decays: (-eta * u - (taken * p if decays else 0)).astype(p.dtype),
            updates,
            params,
            decays_where(mask, params),
        )

    return counted_step("decoupled", move)


def uncorrected(state: PyTree, gradient: PyTree) -> PyTree:
    """An optimizer's state with m = g, v = |g|² and no bias correction, as Zhou et al. start.

    **Arguments:** `state`: that of `init`, of optimizers made of `ct.k_adam`'s stages. `gradient`:
    the first.

    **Raises:** `ValueError` unless the state holds one stage: of k ≥ 2 the second starts from what
    the first makes of the gradient, not from the gradient.

    !!! example
        >>> import ct_adam as ct
        >>> optimizer, params = ct.adamw(1.0, 0.9, 0.9), jnp.array(1.0)
        >>> state = uncorrected(optimizer.init(params), jnp.array(2.0))
        >>> print(f"{float(optimizer.update(jnp.array(0.0), state, params)[0]):.5f}")  # -1.8/√3.6
        -0.94868
    """

    def is_stage(node: Any) -> bool:
        return isinstance(node, StageState)

    stages = sum(map(is_stage, jax.tree.leaves(state, is_leaf=is_stage)))
    if stages != 1:
        raise ValueError(f"The state holds {stages} stages of ct.k_adam: give one that holds one.")

    def started(node: Any) -> Any:
        if not isinstance(node, StageState):
            return node
        # bⁿ is 0 at this count, which optax does not increase further.
        count = jnp.full_like(node.count, jnp.iinfo(jnp.int32).max)
        m = None if node.m is None else gradient
        squares = jax.tree.map(lambda g: jnp.square(jnp.abs(g)), gradient)
        return StageState(count, m, None if node.v is None else squares)

    return jax.tree.map(started, state, is_leaf=is_stage)
