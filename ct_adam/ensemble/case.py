"""What a lane runs: a method, and where it varies a loss and a start of its own."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import optax
from jaxtyping import PyTree

from ..flows import AbstractAdamFlow, AbstractFlow
from ..named import told
from ..optimizers import Optimizer
from ..problems import AbstractProblem, as_params, as_problem, working_dtype
from ..problems.base import Loss


class Case(eqx.Module):
    """A lane: `method` (a flow or an optimizer) on `loss` from `params`.

    None stands for the ensemble's own loss or start. With it, streams, seeds and loss scales can
    be lanes too.

    !!! example
        >>> import ct_adam as ct, jax.numpy as jnp
        >>> def make(scale):
        ...     return ct.Case(ct.AdamFlow(1e-2), loss=lambda x: scale * jnp.sum(x**2))
        >>> table = ct.ensemble(make, None, jnp.ones(2), 20, {"scale": [1.0, 100.0]})
        >>> bool(abs(table.final_params[0, 0] - table.final_params[1, 0]) < 1e-6)
        True
    """

    method: AbstractFlow | optax.GradientTransformation
    loss: Loss | AbstractProblem | None = None
    params: PyTree | None = None


def as_case(made: Any) -> Case:
    """What `make` returned as a `Case`; `ValueError` if it is no method at all."""
    case = made if isinstance(made, Case) else Case(made)
    if not isinstance(case.method, AbstractFlow | optax.GradientTransformation):
        raise ValueError(
            f"make returned {type(case.method).__name__}: return a flow, an optimizer or a ct.Case."
        )
    return case


def resolve(
    make: Callable[..., Any],
    loss: Loss | AbstractProblem | None,
    params: PyTree,
    lane: dict[str, Any],
) -> tuple[AbstractProblem, PyTree, Any]:
    """Problem, start and method of a lane."""
    try:
        made = make(**lane)
    except ValueError:
        raise
    except Exception as error:
        names = ", ".join(lane)
        raise ValueError(
            f"make fails on the lanes' traced numbers ({names}): {told(error)}"
        ) from error
    case = as_case(made)
    problem = as_problem(loss if case.loss is None else case.loss)  # pyright: ignore[reportArgumentType]
    start = as_params(params if case.params is None else case.params)
    if working_dtype(start) != working_dtype(params):
        raise ValueError(
            f"The start of a case is of type {working_dtype(start)}, params are of type "
            f"{working_dtype(params)}: give both the same."
        )
    return problem, start, case.method


def hyperparameters_of_method(method: Any) -> dict[str, Any]:
    """A method's hyperparameters by name; none of an opaque optimizer."""
    if isinstance(method, AbstractAdamFlow):
        return method.hyperparameters.named()
    if isinstance(method, Optimizer):
        return getattr(method, "hyperparameters", {})
    if isinstance(method, AbstractFlow):
        return {name: getattr(method, name) for name in method.__dataclass_fields__}
    return {}
