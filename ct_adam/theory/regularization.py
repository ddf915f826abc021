"""The loss that AdamW regularises dynamically, F_k = F + (λ_k/2)‖x‖²_{v_k}.

Source: EQUATIONS §6; Zhou et al., "Towards Understanding Convergence and Generalization of AdamW"
(TPAMI 2024). Their optimizer: `ct.optimizers.zhou_adamw`; its descent on F_k along a run:
`ct.diagnostics.descent_along`; what that asks for: `regularization_regime`; how many steps it
takes: `regularization_rates`.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, PyTree

from ..conventions import not_negative
from ..norms import leaves_of

Number = Float[Array, ""]


def dynamic_loss(
    loss: Callable[[PyTree], Any],
    params: PyTree,
    second_moment: PyTree,
    weight_decay: ArrayLike,
    eps_root: ArrayLike,
) -> Number:
    """F_k(x) = F(x) + (λ_k/2) Σ √(n_k + δ) x²: what AdamW descends on at step k.

    **Arguments:**

    - `loss`: F. `params`: x, any PyTree. `second_moment`: n_k, alike: the moment *after* g_k.
    - `weight_decay`: λ_k, of that step. `eps_root`: δ.

    **Raises:** `ValueError` unless the PyTrees are alike, or for a negative λ_k or δ.

    !!! example
        >>> print(dynamic_loss(jnp.sum, jnp.array([2.0]), jnp.array([8.0]), 0.5, 1.0))
        5.0
    """
    one_number("eps_root", eps_root, not_negative)
    one_number("weight_decay", weight_decay, not_negative)
    check_alike(params, second_moment)
    return jnp.asarray(loss(params)) + regulariser(params, second_moment, weight_decay, eps_root)


def regulariser(params: PyTree, n: PyTree, decay: ArrayLike, delta: ArrayLike) -> Number:
    return total(lambda x, n: decay / 2 * jnp.sqrt(n + delta) * x**2, params, n)


def one_number(name: str, value: Any, check: Callable[..., Array] | None = None) -> Array:
    """One number; `ValueError` for a schedule or several."""
    if callable(value):
        raise ValueError(f"{name} is a schedule: give its value at this step.")
    found = check(name, value) if check else jnp.asarray(value, float)
    if found.ndim:
        raise ValueError(f"{name} has shape {found.shape}: give one number.")
    return found


def check_alike(params: PyTree, *others: PyTree) -> None:
    wanted = [jnp.shape(leaf) for leaf in leaves_of(params)]
    for other in others:
        found = [jnp.shape(leaf) for leaf in jax.tree.leaves(other)]
        if jax.tree.structure(other) != jax.tree.structure(params) or found != wanted:
            raise ValueError(
                f"Moments must be like params, of shapes {wanted} and not {found}: give those of "
                "one stage after its update."
            )


def total(part: Callable[..., Array], *trees: PyTree) -> Number:
    parts = jax.tree.leaves(jax.tree.map(lambda *x: jnp.sum(part(*x)), *trees))
    return jnp.sum(jnp.stack(parts))
