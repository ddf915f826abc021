"""One discrete step of any optax optimizer on any problem, written once for runs and flows."""

from typing import Any

import optax
from jaxtyping import PyTree

from ..named import told
from ..problems import AbstractProblem, like


def optimizer_step(
    optimizer: optax.GradientTransformation,
    problem: AbstractProblem,
    step: Any,
    params: PyTree,
    state: PyTree,
) -> tuple[PyTree, PyTree, PyTree]:
    """(θ_{n+1}, optimizer state, Δθ) from θ_n and g_n.

    **Raises:** `ValueError` where the optimizer wants more than gradient and parameters.

    !!! example
        >>> import optax, jax.numpy as jnp
        >>> from ct_adam.problems import as_problem
        >>> sgd, start = optax.sgd(0.25), jnp.array([2.0])
        >>> after, _, change = optimizer_step(
        ...     sgd, as_problem(lambda x: jnp.sum(x**2)), 0, start, sgd.init(start)
        ... )
        >>> print(after, change)
        [1.] [-1.]
    """
    gradient = like(problem.gradient(step, params), params)
    try:
        delta, state = optimizer.update(gradient, state, params)
    except Exception as error:
        raise ValueError(
            f"The optimizer's update(gradient, state, params) fails: {told(error)}"
        ) from error
    return optax.apply_updates(params, delta), state, delta
