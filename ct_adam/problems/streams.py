"""Gradient streams: what the optimizer sees is given, whatever the parameters are."""

from collections.abc import Callable
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from ..decays import Rates, Scalar, whole_number
from ..theory import worst_case_gradients
from .base import AbstractProblem, leading_length, like


class GradientStream(AbstractProblem):
    """Gradients g_0 … g_{N-1}, held over each step on the continuous side.

    On (n, n+1] the flow sees gradient n + 1; gradient 0 enters through the start. So N gradients
    define `update` up to step N - 1 (EQUATIONS §1, Streams).

    **Arguments:**

    - `gradients`: PyTree like the parameters with a leading axis of N steps.

    !!! example
        >>> import jax.numpy as jnp
        >>> stream = GradientStream(jnp.array([[1.0], [2.0], [3.0]]))
        >>> print(stream.gradient(1, None), stream.steps_available)
        [2.] 3
    """

    gradients: PyTree
    held: ClassVar[bool] = True
    has_value: ClassVar[bool] = False

    def __init__(self, gradients: PyTree):
        gradients = jax.tree.map(jnp.asarray, gradients)
        leading_length("gradients", "steps", gradients)
        self.gradients = gradients

    def value(self, params: PyTree) -> Float[Array, ""]:
        return jnp.array(jnp.nan, jnp.result_type(*jax.tree.leaves(self.gradients)))

    def gradient(self, step: Any, params: PyTree) -> PyTree:
        del params
        index = jnp.clip(jnp.asarray(step).astype(jnp.int32), 0, self.steps_available - 1)
        return jax.tree.map(lambda leaf: leaf[index], self.gradients)

    @property
    def steps_available(self) -> int:
        return jax.tree.leaves(self.gradients)[0].shape[0]


class ContinuousStream(AbstractProblem):
    """A gradient that is a smooth function of time, `gradient_at(step)`; no break points.

    The optimizer sees its values at the whole steps.

    !!! example
        >>> import jax.numpy as jnp
        >>> stream = ContinuousStream(lambda step: jnp.array([jnp.cos(step)]))
        >>> print(stream.gradient(0.0, None))
        [1.]
    """

    gradient_at: Callable[[Any], PyTree]
    held: ClassVar[bool] = False
    has_value: ClassVar[bool] = False

    def value(self, params: PyTree) -> Float[Array, ""]:
        return jnp.array(jnp.nan, jnp.result_type(*jax.tree.leaves(params)))

    def gradient(self, step: Any, params: PyTree) -> PyTree:
        return like(self.gradient_at(step), params)

    @property
    def steps_available(self) -> int | None:
        return None


def worst_case_stream(
    b1: Scalar,
    b2: Scalar,
    steps: int,
    kind: Literal["discrete", "held"] = "discrete",
    rates: Rates = "lag",
    start: Literal["first_step", "zero"] = "first_step",
) -> GradientStream:
    """One coordinate, the stream that attains the bound of its kind at every step.

    Arguments as in `ct_adam.theory.worst_case_gradients`; `"discrete"` is the optimizer's,
    `"held"` that of a flow with these rates and start. Shape (steps, 1).

    !!! example
        >>> print(worst_case_stream(0.5, 0.25, 3).gradients[:, 0])
        [1.   0.5  0.25]
    """
    return GradientStream(worst_case_gradients(b1, b2, steps, kind, rates, start)[:, None])


def constant_stream(steps: int, value: float = 1.0) -> GradientStream:
    """g_n = value: the update of any decays tends to its sign. Shape (steps, 1).

    !!! example
        >>> print(constant_stream(3, 0.5).gradients[:, 0])
        [0.5 0.5 0.5]
    """
    return GradientStream(jnp.full((whole_number("steps", steps), 1), value))


def vanishing_stream(steps: int, last: int, value: float = 1.0) -> GradientStream:
    """g_n = value for n < last, then 0: |u| then moves as (b1/√b2)ⁿ times the bias factor (§2).

    !!! example
        >>> print(vanishing_stream(4, 2).gradients[:, 0])
        [1. 1. 0. 0.]
    """
    n = jnp.arange(whole_number("steps", steps))
    return GradientStream(jnp.where(n < last, value, 0.0)[:, None])


def alternating_stream(steps: int, value: float = 1.0) -> GradientStream:
    """g_n = (-1)ⁿ·value, a period-two oscillation. Shape (steps, 1).

    !!! example
        >>> print(alternating_stream(4, 2.0).gradients[:, 0])
        [ 2. -2.  2. -2.]
    """
    n = jnp.arange(whole_number("steps", steps))
    return GradientStream(jnp.where(n % 2 == 0, value, -value)[:, None])


def random_stream(steps: int, size: int = 1, seed: int = 0, mean: float = 0.0) -> GradientStream:
    """Independent normal gradients of unit variance around `mean`, NumPy's default generator.

    Shape (steps, size); the same seed gives the same stream on every device.

    !!! example
        >>> random_stream(100, size=2, seed=1).gradients.shape
        (100, 2)
    """
    rng = np.random.default_rng(seed)
    return GradientStream(mean + rng.standard_normal((whole_number("steps", steps), size)))
