"""Problems by name, and the user's own by `package.module:factory`."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from jaxtyping import PyTree

from ..named import called, imported
from .analytic import quadratic, rosenbrock
from .base import AbstractProblem, as_params, as_problem
from .digits import digits_logistic, digits_mlp
from .networks import image_network, text_network
from .scale_invariant import normalized_weight, rayleigh_quotient, weight_norm_mlp

Factory = Callable[..., tuple[Any, PyTree]]


CURVATURES = (1.0, 3.0, 10.0, 30.0)
START = (1.0, -1.0, 0.5, 2.0)
"""Of the `quadratic` of maps and figures."""


def _quadratic(seed: int) -> tuple[AbstractProblem, PyTree]:
    del seed
    return quadratic(CURVATURES), jnp.array(START)


def _rosenbrock(seed: int) -> tuple[AbstractProblem, PyTree]:
    del seed
    return rosenbrock(), jnp.array([-1.2, 1.0])


def _rayleigh_quotient(seed: int) -> tuple[AbstractProblem, PyTree]:
    del seed
    return rayleigh_quotient(jnp.diag(jnp.array(CURVATURES))), jnp.array(START)


PROBLEMS: dict[str, Factory] = {
    "quadratic": _quadratic,
    "rosenbrock": _rosenbrock,
    "rayleigh_quotient": _rayleigh_quotient,
    "normalized_weight": lambda seed: normalized_weight(signal=10.0, seed=seed),
    "digits_logistic": lambda seed: digits_logistic(seed=seed),
    "digits_mlp": lambda seed: digits_mlp((32,), seed=seed),
    "digits_weight_norm": lambda seed: weight_norm_mlp((32,), seed=seed),
    "digits_convnet": lambda seed: image_network("digits", norm="group", seed=seed),
    # Its 10 000 test images: the small networks here do not need the other 60 000.
    "mnist_convnet": lambda seed: image_network("mnist", "test", norm="group", seed=seed),
    "topics_transformer": lambda seed: text_network("python_topics", seed=seed),
    "shakespeare_transformer": lambda seed: text_network("tinyshakespeare", seed=seed),
}
"""Factories of `(problem, params)` by name; each takes a seed."""


def problem_named(name: str, seed: int = 0) -> tuple[AbstractProblem, PyTree]:
    """A problem and its start, by name or from a user's factory.

    **Arguments:**

    - `name`: one of `PROBLEMS`, or `package.module:factory`; the factory returns `(loss, params)`
        and may take a `seed`. Modules are looked for in the working folder too.

    **Raises:** `ValueError` for an unknown name, a negative seed, or a factory that returns
    something else.

    !!! example
        >>> problem, start = problem_named("rosenbrock")
        >>> print(start)
        [-1.2  1. ]
    """
    if seed < 0:
        raise ValueError(f"seed = {seed} must not be negative.")
    factory = PROBLEMS.get(name) or imported(name, "problem", list(PROBLEMS))
    made = called(name, factory, {"seed": seed})
    if not isinstance(made, tuple) or len(made) != 2:
        raise ValueError(f"{name} returned {type(made).__name__}: return a pair (loss, params).")
    return as_problem(made[0]), as_params(made[1])
