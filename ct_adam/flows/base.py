"""What every flow offers: a state, a vector field over optimizer steps, a way back to params."""

import abc
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import PyTree

from ..optimizers import Optimizer
from ..problems import AbstractProblem
from ..problems.base import Loss


class AbstractFlow(eqx.Module):
    """An optimizer as a differential equation; time is counted in optimizer steps.

    `vector_field(step, state, loss)` is what `diffrax.ODETerm` wants, with the loss as `args`.
    """

    @property
    @abc.abstractmethod
    def lag(self) -> int:
        """How many steps the moments lag behind the gradient: 1 for starts "zero", "paper"."""

    @property
    @abc.abstractmethod
    def evaluations(self) -> int:
        """How many gradients (or what costs as much) one call of `vector_field` takes."""

    @abc.abstractmethod
    def init(self, loss: Loss | AbstractProblem, params: PyTree) -> PyTree:
        """The state at step 0."""

    @abc.abstractmethod
    def from_optimizer(
        self, loss: Loss | AbstractProblem, params: PyTree, optimizer_state: PyTree, step: Any
    ) -> PyTree:
        """The state at `step`, after that many discrete steps of `self.optimizer`."""

    @abc.abstractmethod
    def vector_field(self, step: Any, state: PyTree, loss: Loss | AbstractProblem) -> PyTree:
        """d state / d step."""

    @abc.abstractmethod
    def params(self, state: PyTree) -> PyTree:
        """The parameters in a state."""

    @abc.abstractmethod
    def update(self, step: Any, state: PyTree, loss: Loss | AbstractProblem) -> PyTree:
        """u, the update before learning rate and decay, a PyTree like the parameters."""

    @property
    @abc.abstractmethod
    def optimizer(self) -> Optimizer | optax.GradientTransformation:
        """The discrete optimizer that this flow models."""

    @abc.abstractmethod
    def error_scale(self, state: PyTree, rtol: float, atol: float) -> PyTree:
        """The error that a solver may make in each entry of `state` (EQUATIONS §1)."""


class AbstractMemorylessFlow(AbstractFlow):
    """A flow whose state is the parameters."""

    @property
    def lag(self) -> int:
        return 1  # without memory, batch ⌊s⌋ rules from step ⌊s⌋ on (EQUATIONS §1)

    def init(self, loss: Loss | AbstractProblem, params: PyTree) -> PyTree:
        del loss
        return params

    def from_optimizer(
        self, loss: Loss | AbstractProblem, params: PyTree, optimizer_state: PyTree, step: Any
    ) -> PyTree:
        del loss, optimizer_state, step  # no memory
        return params

    def params(self, state: PyTree) -> PyTree:
        return state

    def error_scale(self, state: PyTree, rtol: float, atol: float) -> PyTree:
        return jax.tree.map(lambda leaf: parameter_scale(leaf, rtol, atol), state)


def as_dynamic(flow: PyTree, dtype: Any) -> PyTree:
    """The flow with its numbers as arrays of `dtype`, so that a new value compiles nothing anew.

    Python zeros stay: they decide the state's structure (a removed moment, EQUATIONS §0).

    !!! example
        >>> import ct_adam as ct, jax
        >>> flow = as_dynamic(ct.AdamFlow(1e-2, b1=0), float)
        >>> isinstance(flow.hyperparameters.b2[0], jax.Array), flow.hyperparameters.b1
        (True, (0,))
    """

    def convert(leaf: Any) -> Any:
        is_number = isinstance(leaf, int | float | jax.Array) and not isinstance(leaf, bool)
        if not is_number or _is_zero(leaf):
            return leaf
        if isinstance(leaf, float) and leaf < 1 <= float(np.asarray(leaf, dtype)):
            raise ValueError(f"{leaf} rounds to 1 in {dtype}: give parameters of a longer type.")
        return jnp.asarray(leaf, dtype)

    return jax.tree.map(convert, flow)


def _is_zero(leaf: Any) -> bool:
    return isinstance(leaf, int | float) and leaf == 0


def parameter_scale(leaf: jax.Array, rtol: float, atol: float) -> jax.Array:
    """atol + rtol·|θ|, never below the smallest normal number."""
    return jnp.maximum(atol + rtol * jnp.abs(leaf), jnp.finfo(leaf.dtype).tiny)
