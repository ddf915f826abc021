"""What is optimized: a value, a gradient at a step, and where the gradient jumps."""

import abc
from collections.abc import Callable
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from equinox import AbstractClassVar
from jaxtyping import Array, Float, PyTree

from ..named import told

Loss = Callable[[PyTree], Array]


class AbstractProblem(eqx.Module):
    """A loss, a stream of gradients, or a loss with data: accepted wherever a loss is.

    `held` tells what a flow sees between the steps: a held problem's gradient n + 1 rules on
    (n, n + 1], so every integer is a break point; otherwise the gradient is a function of the
    parameters and perhaps of continuous time.
    """

    held: AbstractClassVar[bool]
    has_value: AbstractClassVar[bool]

    @abc.abstractmethod
    def value(self, params: PyTree) -> Float[Array, ""]:
        """The loss, NaN where there is none (streams)."""

    @abc.abstractmethod
    def gradient(self, step: Any, params: PyTree) -> PyTree:
        """g at a step (a whole number where `held`), a PyTree like `params`."""

    @property
    @abc.abstractmethod
    def steps_available(self) -> int | None:
        """How many gradients there are: 0 … n - 1; None where there is no end."""

    def break_points(self, start: int, stop: int) -> np.ndarray | None:
        """The steps strictly inside (start, stop) at which a flow's gradient jumps."""
        return np.arange(start + 1, stop) if self.held else None

    def seen(self, step: Any, lag: int = 0) -> Any:
        """Which step's gradient rules at continuous time `step`.

        A flow whose moments lag by one (starts `"zero"` and `"paper"`) sees stream gradient
        ⌈step⌉ - 1; the others ⌈step⌉, which at a whole number is that step's own.
        """
        return jnp.maximum(jnp.ceil(step) - lag, 0) if self.held else step


class LossProblem(AbstractProblem):
    """Any `params -> scalar`; its gradient is JAX's.

    !!! example
        >>> import jax.numpy as jnp
        >>> problem = LossProblem(lambda x: jnp.sum(x**2))
        >>> print(problem.value(jnp.ones(2)), problem.gradient(0, jnp.ones(2)))
        2.0 [2. 2.]
    """

    loss: Loss
    held: ClassVar[bool] = False
    has_value: ClassVar[bool] = True

    def value(self, params: PyTree) -> Float[Array, ""]:
        return self.loss(params)

    def gradient(self, step: Any, params: PyTree) -> PyTree:
        del step
        return jax.grad(self.loss)(params)

    @property
    def steps_available(self) -> int | None:
        return None


def as_problem(loss: Loss | AbstractProblem) -> AbstractProblem:
    """`loss` itself if it is a problem already, a `LossProblem` of it otherwise.

    !!! example
        >>> import jax.numpy as jnp
        >>> problem = as_problem(lambda x: jnp.sum(x**2))
        >>> type(problem).__name__, as_problem(problem) is problem
        ('LossProblem', True)
    """
    if isinstance(loss, AbstractProblem):
        return loss
    if not callable(loss):
        raise ValueError(
            f"loss = {loss!r} is no function params -> scalar: give one, or a ct.problems problem."
        )
    return LossProblem(loss)


def as_params(params: PyTree) -> PyTree:
    """`params` with array leaves; `ValueError` unless there are some and all are floating.

    !!! example
        >>> as_params({"w": 1.0})["w"].shape
        ()
    """
    leaves = jax.tree.leaves(params)
    if not leaves:
        raise ValueError("params has no leaves: give a PyTree with one floating array at least.")
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        if not eqx.is_array_like(leaf) or not jnp.issubdtype(jnp.result_type(leaf), jnp.floating):
            where = jax.tree_util.keystr(path) or "params"
            kind = getattr(leaf, "dtype", type(leaf).__name__)
            raise ValueError(
                f"{where} is of type {kind}: an optimizer moves floating-point arrays; convert it, "
                "or close the loss over it (a model of Equinox or Flax: ct.problems.trainable)."
            )
    return jax.tree.map(jnp.asarray, params)


def like(gradient: PyTree, params: PyTree) -> PyTree:
    """The gradient in the parameters' own types: a stream may be of a longer one.

    !!! example
        >>> import jax.numpy as jnp
        >>> like(jnp.ones(2, jnp.float64), jnp.ones(2, jnp.float32)).dtype
        dtype('float32')
    """
    return jax.tree.map(lambda g, p: jnp.asarray(g, jnp.result_type(p)), gradient, params)


def leading_length(name: str, of: str, tree: PyTree) -> int:
    """The common length of all leaves' leading axes; `ValueError` unless there is one."""
    lengths = {np.shape(leaf)[0] if np.ndim(leaf) else 0 for leaf in jax.tree.leaves(tree)}
    if len(lengths) != 1 or 0 in lengths:
        raise ValueError(
            f"{name} need one leading axis of {of}, the same for all arrays: got lengths "
            f"{sorted(lengths)}."
        )
    return lengths.pop()


def working_dtype(params: PyTree) -> np.dtype:
    """The common floating type of all leaves; time and hyperparameters take it too.

    !!! example
        >>> import jax.numpy as jnp
        >>> working_dtype({"a": jnp.ones(2, jnp.float32), "b": jnp.ones(3, jnp.float32)})
        dtype('float32')
    """
    return jnp.result_type(*jax.tree.leaves(params))


def check_problem(problem: AbstractProblem, params: PyTree, gradients: int) -> None:
    """Raises a `ValueError` unless the loss is a real scalar, the gradient is like `params` and
    `gradients` of them exist. Nothing is computed: shapes only.

    !!! example
        >>> import jax.numpy as jnp
        >>> check_problem(as_problem(lambda x: jnp.sum(x**2)), jnp.ones(2), gradients=10)
    """
    try:
        value = jax.eval_shape(lambda p: problem.value(p), params)
    except Exception as error:
        raise ValueError(f"The loss fails on these parameters: {told(error)}") from error
    if not isinstance(value, jax.ShapeDtypeStruct):
        kind = type(value).__name__
        raise ValueError(f"The loss returns {kind}, not a real scalar: return the loss alone.")
    if value.shape != () or not jnp.issubdtype(value.dtype, jnp.floating):
        shown = f"{value.dtype}{list(value.shape)}"
        raise ValueError(f"The loss returns {shown}, not a real scalar: reduce it, e.g. by a mean.")
    gradient = jax.eval_shape(lambda p: problem.gradient(0, p), params)
    like = jax.eval_shape(lambda p: p, params)
    same = jax.tree.structure(gradient) == jax.tree.structure(like) and all(
        g.shape == p.shape
        for g, p in zip(jax.tree.leaves(gradient), jax.tree.leaves(like), strict=True)
    )
    if not same:
        raise ValueError(
            f"Gradients of shape {_shapes(gradient)} do not match params of shape {_shapes(like)}: "
            "give params like one gradient."
        )
    available = problem.steps_available
    if available is not None and gradients > available:
        raise ValueError(
            f"The stream holds {available} gradients but this run sees {gradients}: take fewer "
            "steps or a longer stream (a flow from start 'first_step' sees steps + 1)."
        )


def _shapes(tree: PyTree) -> str:
    shapes = [leaf.shape for leaf in jax.tree.leaves(tree)]
    return str(shapes[0] if len(shapes) == 1 else shapes)
