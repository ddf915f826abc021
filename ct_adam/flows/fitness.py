"""Which optimizers a flow can follow: those whose step is a map of real numbers."""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jax.core import Tracer
from jaxtyping import PyTree

from ..named import told


def check_counts(optimizer: optax.GradientTransformation, params: PyTree) -> None:
    """Raises a `ValueError` unless whatever is not real in the optimizer's state counts steps.

    Behaviour tells, not the name: a count rises by one each step, which the phase of an
    accumulation and a counter of rare events do not.
    """

    def states() -> list[PyTree]:
        still = jax.tree.map(lambda x: jnp.zeros(jnp.shape(x), jnp.result_type(x)), params)
        seen = [optimizer.init(still)]
        for _ in range(2):
            seen.append(optimizer.update(still, seen[-1], still)[1])
        return [eqx.filter(state, eqx.is_inexact_array, inverse=True) for state in seen]

    try:
        with jax.ensure_compile_time_eval():
            begin, *later = jax.jit(states)()
    except jax.errors.UnexpectedTracerError:
        begin, later = states()[0], []
    except Exception as error:
        raise _unfit(f"its step fails: {told(error)}") from error
    for path, leaf in jax.tree_util.tree_leaves_with_path(begin):
        where = jax.tree_util.keystr(path)
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            raise _unfit(f"state{where} is a random key")
        if not jnp.issubdtype(leaf.dtype, jnp.integer) or leaf.ndim:
            raise _unfit(f"state{where} is of type {leaf.dtype}{list(leaf.shape)}, not a real")
        for n, state in enumerate(later, start=1):
            at = dict(jax.tree_util.tree_leaves_with_path(state))[path]
            # A lane's hyperparameters are traced, and with them perhaps a count: unknown until it
            # runs.
            if isinstance(at, Tracer) or isinstance(leaf, Tracer):
                continue
            if int(at) != int(leaf) + n:
                raise _unfit(f"state{where} is an integer that does not count steps")


def check_step(step: Callable[[PyTree], PyTree], state: PyTree) -> None:
    """Raises a `ValueError` unless one step leads from real numbers to like ones."""
    try:
        after = jax.eval_shape(step, state)
    except Exception as error:
        raise _unfit(f"its step on real counts fails: {told(error)}") from error
    if jax.tree.structure(after) != jax.tree.structure(state):
        raise _unfit("its state changes its structure from step to step")
    for (path, x), y in zip(
        jax.tree_util.tree_leaves_with_path(state), jax.tree.leaves(after), strict=True
    ):
        if x.shape != y.shape or x.dtype != y.dtype:
            where = jax.tree_util.keystr(path)
            raise _unfit(f"one step turns state{where} from {x.dtype} into {y.dtype}{y.shape}")


def _unfit(reason: str) -> ValueError:
    return ValueError(
        f"No flow can follow this optimizer: {reason}; leave that part out, or use ct.run."
    )
