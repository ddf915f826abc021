"""One way in for models: what is trained comes out as params, the rest stays behind."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
from jaxtyping import PyTree

Rebuild = Callable[[PyTree], Any]


class _Combine(eqx.Module):
    frozen: PyTree

    def __call__(self, params: PyTree) -> Any:
        return eqx.combine(params, self.frozen)


class _Merge(eqx.Module):
    graph: Any = eqx.field(static=True)
    frozen: PyTree

    def __call__(self, params: PyTree) -> Any:
        from flax import nnx

        return nnx.merge(self.graph, params, self.frozen)


class _Bind(eqx.Module):
    module: Any = eqx.field(static=True)
    frozen: PyTree

    def __call__(self, params: PyTree) -> Any:
        return lambda *args, **kwargs: self.module.apply(
            {**self.frozen, "params": params}, *args, **kwargs
        )


def trainable(model: Any, which: Any = None) -> tuple[PyTree, Rebuild]:
    """Splits a model into its parameters and the way back: `rebuild(params)` is the model.

    **Arguments:**

    - `model`: an Equinox module (or any PyTree with array leaves), a Flax `nnx.Module`, or a pair
        `(linen_module, variables)`.
    - `which`: what is trained, the rest is frozen. For Equinox a PyTree of booleans or a function
        of a leaf (default: floating arrays); for nnx a filter (default `nnx.Param`); unused for
        linen, whose `"params"` are trained.

    **Returns:** `(params, rebuild)`.

    **Raises:** `ValueError` where nothing would be trained.

    !!! example
        >>> import equinox as eqx, jax, jax.numpy as jnp
        >>> params, rebuild = trainable(eqx.nn.Linear(2, 1, key=jax.random.key(0)))
        >>> print(rebuild(params)(jnp.ones(2)).shape)
        (1,)
    """
    params, rebuild = _split(model, which)
    if not any(eqx.is_inexact_array(leaf) for leaf in jax.tree.leaves(params)):
        raise ValueError(
            f"{type(model).__name__} has no floating array to train: check the model or `which`."
        )
    return params, rebuild


def _split(model: Any, which: Any) -> tuple[PyTree, Rebuild]:
    if _is_nnx(model):
        from flax import nnx

        graph, params, rest = nnx.split(model, nnx.Param if which is None else which, ...)
        return params, _Merge(graph, rest)
    if isinstance(model, tuple) and len(model) == 2 and hasattr(model[0], "apply"):
        module, variables = model
        rest = {name: value for name, value in variables.items() if name != "params"}
        return variables.get("params", {}), _Bind(module, rest)
    params, frozen = eqx.partition(model, eqx.is_inexact_array if which is None else which)
    return params, _Combine(frozen)


def _is_nnx(model: Any) -> bool:
    """Without importing Flax, which may not be installed."""
    return any(cls.__module__.startswith("flax.nnx") for cls in type(model).__mro__)
