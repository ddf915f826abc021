"""Adam's proximal step in its own metric: what AdamProx would be, were it not scale-free."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, PyTree

from ..decays import (
    Hyperparameters,
    Scalar,
    Schedule,
    check_one_stage,
    is_removed,
    learning_rate_at,
)
from .stage import corrected_moments, scale_by_stage


def variable_metric_prox(
    learning_rate: Scalar | Schedule,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-8,
    weight_decay: Scalar = 0.0,
    *,
    eps_root: Scalar = 0.0,
) -> optax.GradientTransformation:
    """θ ← (Dθ - ηm̂)/(D + ηλ), D = √(v̂ + eps_root) + eps: the proximal step in the metric of D,

        θ⁺ = argmin_x ⟨m̂, x⟩ + (λ/2)‖x‖² + (1/2η)‖x - θ‖²_D.

    `adam_prox` takes the gradient step in this metric but the proximal one in the Euclidean, and is
    scale-free for that. Here a coordinate decays by ηλ/D, faster the smaller its gradients are;
    gradients times c are eps times c and λ times c, as with `adam_l2`. Constant gradients 0 take
    θ to 0 at once where eps = 0. Source: Duchi, Hazan & Singer (JMLR 2011, the composite step)
    and Yun, Lozano & Yang (NeurIPS 2021, with momentum).

    **Arguments:** as in `k_adam`. Moments are kept, so neither decay may be a Python 0.

    **Returns:** an optax transformation.

    **Raises:** `ValueError` for a value outside its range.

    !!! example
        >>> import jax.numpy as jnp
        >>> optimizer = variable_metric_prox(0.5, eps=0.0, weight_decay=2.0)
        >>> params = jnp.array([1.0, 1.0])
        >>> updates, _ = optimizer.update(jnp.array([1.0, 3.0]), optimizer.init(params), params)
        >>> print(params + updates)
        [0.25  0.375]
    """
    check_one_stage("variable_metric_prox", b1=b1, b2=b2)
    shared = Hyperparameters(learning_rate, b1, b2, eps, weight_decay, eps_root, "decoupled")
    (b1,), (b2,) = shared.b1, shared.b2
    if is_removed(b1) or is_removed(b2):
        raise ValueError("variable_metric_prox needs both moments: give decays b1 and b2 above 0.")

    def update(updates: PyTree, state: Any, params: PyTree | None = None) -> Any:
        if params is None:
            raise ValueError(
                "variable_metric_prox needs the parameters: call update(grads, state, params)."
            )
        eta = learning_rate_at(learning_rate, state.count)
        m_hat, v_hat, state = corrected_moments(b1, b2, state, updates)

        def leaf(p: Array, x: Array, y: Array) -> Array:
            metric = jnp.sqrt(y + eps_root) + eps
            whole = metric + eta * weight_decay
            moves = ~(whole <= 0)  # NaN stays NaN
            # Not θ⁺ - θ of the quotient above: the difference would cost the step its digits.
            step = -eta * (x + weight_decay * p) / jnp.where(moves, whole, 1)
            return jnp.where(moves, step, 0).astype(p.dtype)

        return jax.tree.map(leaf, params, m_hat, v_hat), state

    return optax.GradientTransformation(scale_by_stage(b1, b2, eps, eps_root).init, update)
