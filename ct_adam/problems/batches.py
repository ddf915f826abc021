"""Losses with data: the whole of it, one minibatch, or a sequence of minibatches."""

from collections.abc import Callable
from typing import Any, ClassVar, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PyTree

from ..decays import choice, whole_number
from .base import AbstractProblem, LossProblem, leading_length

BatchLoss = Callable[[PyTree, PyTree], Array]
"""`(params, batch) -> scalar`, the mean over the batch; `batch` a PyTree like the data."""
Sampling = Literal["epochs", "independent"]


class _OnData(eqx.Module):
    """params → loss over fixed data; the data are leaves, so that a new set compiles nothing."""

    loss: BatchLoss
    data: PyTree

    def __call__(self, params: PyTree) -> Float[Array, ""]:
        return self.loss(params, self.data)


def full_batch(loss: BatchLoss, data: PyTree) -> LossProblem:
    """The loss over all data at every step.

    !!! example
        >>> import jax.numpy as jnp
        >>> problem = full_batch(lambda p, x: jnp.mean((p - x) ** 2), jnp.array([1.0, 3.0]))
        >>> print(problem.value(jnp.array(2.0)))
        1.0
    """
    count_examples(data)
    return LossProblem(_OnData(loss, jax.tree.map(jnp.asarray, data)))


def fixed_batch(loss: BatchLoss, data: PyTree, size: int, seed: int = 0) -> LossProblem:
    """The loss over one minibatch, drawn once without replacement (NumPy's default generator).

    !!! example
        >>> import jax.numpy as jnp
        >>> problem = fixed_batch(lambda p, x: jnp.mean((p - x) ** 2), jnp.ones(3), size=2)
        >>> print(problem.value(jnp.array(3.0)))
        4.0
    """
    count = count_examples(data)
    size = _checked_size(size, count)
    chosen = np.sort(np.random.default_rng(seed).permutation(count)[:size])
    return full_batch(loss, jax.tree.map(lambda leaf: jnp.asarray(leaf)[chosen], data))


class Minibatches(AbstractProblem):
    """Another minibatch at every step; batch n is a function of the seed and n alone.

    So both sides see the same sequence, any step can be the first, and nothing is stored. On
    (n, n + 1] a flow sees batch n + 1 (EQUATIONS §1, Streams and minibatches).

    **Arguments:**

    - `loss`: `(params, batch) -> scalar`.
    - `data`: PyTree of arrays with one leading axis of examples.
    - `size`: examples a batch. `seed`: of the sequence.
    - `sampling`: `"epochs"` visits every example once an epoch in a new order (what is left over
        at its end is skipped), `"independent"` draws each example anew, as theory assumes; it
        costs nothing but the draw.
    - `evaluation`: the data on which `value` reports the loss; by default all.

    **Raises:** `ValueError` for sizes that do not fit.

    !!! example
        >>> import jax.numpy as jnp
        >>> problem = Minibatches(lambda p, x: jnp.mean((p - x) ** 2), jnp.arange(6.0), size=2)
        >>> epoch = jnp.concatenate([problem.batch(n) for n in range(3)])
        >>> print(jnp.sort(epoch))
        [0. 1. 2. 3. 4. 5.]
    """

    loss: BatchLoss
    data: PyTree
    evaluation: PyTree
    seed: Int[Array, ""]
    size: int = eqx.field(static=True)
    sampling: Sampling = eqx.field(static=True)
    held: ClassVar[bool] = True
    has_value: ClassVar[bool] = True

    def __init__(
        self,
        loss: BatchLoss,
        data: PyTree,
        size: int,
        seed: int = 0,
        sampling: Sampling = "epochs",
        evaluation: PyTree | None = None,
    ):
        choice("sampling", sampling, ("epochs", "independent"))
        size = _checked_size(size, count_examples(data))
        self.loss, self.size, self.sampling = loss, size, sampling
        self.data = jax.tree.map(jnp.asarray, data)
        self.evaluation = self.data if evaluation is None else jax.tree.map(jnp.asarray, evaluation)
        self.seed = jnp.asarray(seed)

    def indices(self, step: Any) -> Int[Array, " size"]:
        """Which examples are in batch `step`."""
        count = count_examples(self.data)
        step = jnp.asarray(step).astype(int)
        key = jax.random.key(self.seed)
        if self.sampling == "independent":
            return jax.random.randint(jax.random.fold_in(key, step), (self.size,), 0, count)
        epoch, place = jnp.divmod(step, count // self.size)
        order = jax.random.permutation(jax.random.fold_in(key, epoch), count)
        return jax.lax.dynamic_slice(order, (place * self.size,), (self.size,))

    def batch(self, step: Any) -> PyTree:
        """The data of batch `step`."""
        chosen = self.indices(step)
        return jax.tree.map(lambda leaf: leaf[chosen], self.data)

    def value(self, params: PyTree) -> Float[Array, ""]:
        return self.loss(params, self.evaluation)

    def gradient(self, step: Any, params: PyTree) -> PyTree:
        return jax.grad(self.loss)(params, self.batch(step))

    @property
    def steps_available(self) -> int | None:
        return None


def count_examples(data: PyTree) -> int:
    """The common length of all leaves' leading axes; `ValueError` unless there is one."""
    return leading_length("data", "examples", data)


def _checked_size(size: int, count: int) -> int:
    size = whole_number("size", size)
    if size > count:
        raise ValueError(f"size = {size} must lie between 1 and the {count} examples there are.")
    return size
