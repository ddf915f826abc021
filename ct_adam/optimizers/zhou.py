"""AdamW as Zhou et al. write it, whose descent they prove.

Source: EQUATIONS §6; "Towards Understanding Convergence and Generalization of AdamW" (TPAMI 2024).
"""

import optax

from ..decays import Scalar, Schedule
from ..theory.decay import Zhou
from .decoupled import decoupled
from .stage import scale_by_stage


def zhou_adamw(
    method: Zhou, learning_rate: Scalar | Schedule, weight_decay: Scalar | Schedule
) -> optax.GradientTransformation:
    """x_{k+1} = (1 − ηλ_k) x_k − η m_k/√(n_k + δ), without bias correction.

    Its first state must be `uncorrected(state, g_0)`, for m₀ = g₀ and n₀ = g₀². Source: EQUATIONS
    §6.

    **Arguments:**

    - `method`: as `from_zhou` of `ct.theory` returns it.
    - `learning_rate`: η. `weight_decay`: λ_k, as of `zhou_decay`, in the place of the method's own.

    **Raises:** `ValueError` as `decoupled`.

    !!! example
        >>> import jax.numpy as jnp
        >>> from ct_adam.optimizers import uncorrected
        >>> from ct_adam.theory import from_zhou
        >>> method = from_zhou(0.1, 0.01, delta=0.25, weight_decay=0.5)
        >>> x, g, rule = jnp.array([1.0]), jnp.array([0.0]), zhou_adamw(method, 0.1, 0.5)
        >>> print(rule.update(g, uncorrected(rule.init(x), g), x)[0])  # −ηλx
        [-0.05]
    """
    stage = scale_by_stage(method.b1, method.b2, method.eps, method.eps_root)
    return decoupled(stage, learning_rate, weight_decay, convention="zhou")
