"""Adam's family as optax transformations, each a chain of the one stage."""

from typing import Any

import jax
import optax
from jaxtyping import Array, PyTree

from ..decays import (
    Decay,
    Hyperparameters,
    Scalar,
    Schedule,
    check_one_stage,
    learning_rate_at,
)
from .descent import counted_step
from .stage import Optimizer, UpdateRule, scale_by_stage, stage_states


def k_adam(
    learning_rate: Scalar | Schedule,
    b1: Scalar | tuple[Scalar, ...] = (0.9, 0.9),
    b2: Scalar | tuple[Scalar, ...] = (0.999, 0.999),
    eps: Scalar = 1e-8,
    weight_decay: Scalar = 0.0,
    *,
    eps_root: Scalar = 0.0,
    decay: Decay = "decoupled",
    mask: Any = None,
) -> Optimizer:
    """k stages of Adam, each fed with the update of the one before; k = 1 is AdamW.

    u⁰ = g, then for i = 1…k the stage of EQUATIONS §4, θ ← θ - η(u^k + λθ). Source: Gould &
    Tanaka (arXiv 2411.05746), §4.

    Later stages normalise what shrinks: with k > 1 and a constant learning rate the run ends on a
    cycle of size ~η about a minimum, so let the rate fall.

    Like `optax.adamw` it keeps moments in the dtype of the parameters, and rounds b2 to it: in
    bfloat16 0.999 is 1, in float16 gradients below 2e-4 have the square 0. Train such parameters
    on a float32 copy.

    Decays that change go through `optax.inject_hyperparams(ct.k_adam)(…)`, by schedules that
    return a number, or for k > 1 an array of one decay a stage; 1 - bⁿ then has the b of step n,
    as in optax. There `mask` is one of `static_args` if it is a function.

    **Arguments:**

    - `learning_rate`: η, a number or a schedule of the step count (step n → n+1 uses η(n)).
    - `b1`, `b2`: first- and second-moment decays per step in [0, 1), one a stage, in a tuple or
        an array; a Python 0 removes that moment. `k_adam_decays` makes them from one pair.
    - `eps`, `eps_root`: added outside and inside the root. With both 0 the update is 0 wherever
        v = 0.
    - `weight_decay`: λ, as in PyTorch and optax.
    - `decay`: `"decoupled"`, or `"l2"` (g + λθ before stage 1; Gould & Tanaka's *coupled*).
    - `mask`: which leaves decay, as in `optax.add_decayed_weights`.

    **Returns:** an optax transformation.

    **Raises:** `ValueError` for a value outside its range, a schedule as a decay, and at `init`
    for parameters that are not floating-point numbers.

    !!! example
        >>> import jax.numpy as jnp, optax
        >>> optimizer = k_adam(0.1, b1=(0.9,), b2=(0.999,))
        >>> params = jnp.array([1.0, -2.0])
        >>> updates, state = optimizer.update(2 * params, optimizer.init(params), params)
        >>> print(optax.apply_updates(params, updates))
        [ 0.9 -1.9]
    """
    shared = Hyperparameters(learning_rate, b1, b2, eps, weight_decay, eps_root, decay)
    return from_hyperparameters(shared, mask)


def from_hyperparameters(shared: Hyperparameters, mask: Any = None) -> Optimizer:
    """The discrete optimizer of a record of hyperparameters, as a flow holds one.

    !!! example
        >>> import ct_adam as ct
        >>> flow = ct.AdamFlow(1e-2, weight_decay=0.1)
        >>> from_hyperparameters(flow.hyperparameters).rule.weight_decay
        0.1
    """
    stages = _stages(shared)
    decayed = [optax.add_decayed_weights(shared.weight_decay, mask)]  # pyright: ignore[reportArgumentType]
    inner = decayed + stages if shared.decay == "l2" else stages + decayed
    rate = optax.scale_by_learning_rate(shared.learning_rate)  # pyright: ignore[reportArgumentType]
    rule = UpdateRule(shared.learning_rate, shared.outer_weight_decay, mask)
    return Optimizer.make(optax.chain(*inner, rate), rule, shared.named())


def stage_updates(
    of: Any, gradient: PyTree, state: PyTree, params: PyTree, mask: Any = None
) -> tuple[PyTree, ...]:
    """u¹ … u^k of the step that `k_adam(…).update(gradient, state, params)` takes.

    Source: EQUATIONS §4. Each |u^i| is below the discrete `update_bound` of its own decays,
    whatever the stages before it did. On the flow's side: `KAdamFlow.stage_updates`.

    **Arguments:**

    - `of`: the k-Adam: a flow whose `optimizer` it is (`ct.KAdamFlow`, `ct.AdamFlow`), or the
        `Hyperparameters` that one holds.
    - `gradient`, `state`, `params`: what `update` takes; the state is the one before the step.
    - `mask`: as in `k_adam`.

    **Returns:** k PyTrees like `params`. The last is the step's u, to which a decoupled decay is
    then added.

    **Raises:** `ValueError` for a state of another number of stages, or no such flow.

    !!! example
        >>> import ct_adam as ct, jax.numpy as jnp
        >>> flow = ct.KAdamFlow(0.1, (0.9, 0.7), (0.999, 0.9), eps=1.0)
        >>> params = jnp.array([3.0])
        >>> state = flow.optimizer.init(params)
        >>> for u in stage_updates(flow, params, state, params):
        ...     print(f"{float(u[0]):.4f}")
        0.7500
        0.4286
    """
    shared = of if isinstance(of, Hyperparameters) else getattr(of, "hyperparameters", None)
    if not isinstance(shared, Hyperparameters):
        raise ValueError(
            "stage_updates wants a flow of k-Adam: ct.KAdamFlow of the optimizer's hyperparameters."
        )
    u, found = gradient, []
    if shared.decay == "l2":
        decayed = optax.add_decayed_weights(shared.weight_decay, mask)  # pyright: ignore[reportArgumentType]
        u, _ = decayed.update(u, decayed.init(params), params)
    stages = _stages(shared)
    for stage, held in zip(stages, stage_states(state, len(stages)), strict=True):
        u, _ = stage.update(u, held)  # pyright: ignore[reportArgumentType]
        found.append(u)
    return tuple(found)


def _stages(shared: Hyperparameters) -> list[optax.GradientTransformation]:
    return [
        scale_by_stage(b1, b2, shared.eps, shared.eps_root, further=i > 0)
        for i, (b1, b2) in enumerate(zip(shared.b1, shared.b2, strict=True))
    ]


def adamw(
    learning_rate: Scalar | Schedule,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-8,
    weight_decay: Scalar = 0.0,
    *,
    eps_root: Scalar = 0.0,
    mask: Any = None,
) -> Optimizer:
    """AdamW, and Adam without decay: `k_adam` of one stage. Arguments and errors as there.

    !!! example
        >>> import jax.numpy as jnp
        >>> optimizer = adamw(0.1, weight_decay=1.0)
        >>> params = jnp.array([1.0])
        >>> print(optimizer.update(0 * params, optimizer.init(params), params)[0])
        [-0.1]
    """
    return k_adam(learning_rate, b1, b2, eps, weight_decay, eps_root=eps_root, mask=mask)


def adam_l2(
    learning_rate: Scalar | Schedule,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-8,
    weight_decay: Scalar = 0.0,
    *,
    eps_root: Scalar = 0.0,
    mask: Any = None,
) -> Optimizer:
    """Adam on L + (λ/2)‖θ‖²: the decay enters both moments (PyTorch's `Adam(weight_decay=…)`).

    Arguments and errors as in `k_adam`.

    !!! example
        >>> import jax.numpy as jnp
        >>> optimizer = adam_l2(0.1, weight_decay=1.0)
        >>> params = jnp.array([1.0])
        >>> print(optimizer.update(0 * params, optimizer.init(params), params)[0])
        [-0.1]
    """
    return k_adam(
        learning_rate, b1, b2, eps, weight_decay, eps_root=eps_root, decay="l2", mask=mask
    )


def adam_prox(
    learning_rate: Scalar | Schedule,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-8,
    weight_decay: Scalar = 0.0,
    *,
    eps_root: Scalar = 0.0,
) -> Optimizer:
    """θ ← (θ - ηu)/(1 + ηλ), u that of Adam: the proximal step on (λ/2)‖θ‖².

    Source: Zhuang et al. (arXiv 2202.00089). Arguments and errors as in `k_adam`.

    !!! example
        >>> import jax.numpy as jnp
        >>> optimizer = adam_prox(0.5, weight_decay=2.0)
        >>> params = jnp.array([1.0])
        >>> print(params + optimizer.update(params, optimizer.init(params), params)[0])
        [0.25]
    """
    check_one_stage("adam_prox", b1=b1, b2=b2)
    shared = Hyperparameters(learning_rate, b1, b2, eps, weight_decay, eps_root, "decoupled")
    stage = scale_by_stage(shared.b1[0], shared.b2[0], shared.eps, shared.eps_root)
    rule = UpdateRule(learning_rate, weight_decay, proximal=True)
    transformation = optax.chain(stage, _proximal_step(learning_rate, weight_decay))
    return Optimizer.make(transformation, rule, shared.named())


def _proximal_step(
    learning_rate: Scalar | Schedule, weight_decay: Scalar
) -> optax.GradientTransformation:
    def move(count: Array, updates: PyTree, params: PyTree) -> PyTree:
        eta = learning_rate_at(learning_rate, count)
        # -η(u + λθ)/(1 + ηλ), not (θ - ηu)/(1 + ηλ) - θ: the difference would cost u its digits.
        scale = -eta / (1 + eta * weight_decay)
        return jax.tree.map(
            lambda u, p: (scale * (u + weight_decay * p)).astype(p.dtype), updates, params
        )

    return counted_step("adam_prox", move)
