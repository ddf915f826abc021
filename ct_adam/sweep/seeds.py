"""Seeds as lanes: what differs from seed to seed is stacked, and a lane picks its own."""

import re
from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import eval_jaxpr
from jaxtyping import PyTree

from ..identity import inner_constants
from ..problems import AbstractProblem, LossProblem
from ..problems.registry import problem_named

Pick = Callable[[Any], tuple[AbstractProblem, PyTree]]


def by_seed(name: str, seeds: Sequence[int]) -> Pick:
    """`pick(seed)`: problem and start of a named problem at one of these seeds, a traced number.

    **Raises:** `ValueError` where a seed changes more than the values of arrays.

    !!! example
        >>> problem, start = by_seed("digits_logistic", [3, 5])(5)
        >>> start[0][0].shape
        (64, 10)
    """
    made = [problem_named(name, int(seed)) for seed in seeds]
    problems = _comparable(name, made)
    whole = [(problem, start) for problem, (_, start) in zip(problems, made, strict=True)]
    parts = [eqx.partition(one, eqx.is_array) for one in whole]
    static = parts[0][1]
    arrays = [part[0] for part in parts]
    shapes = [jax.tree.map(lambda x: (x.shape, x.dtype), a) for a in arrays]
    if not all(eqx.tree_equal(static, part[1]) for part in parts) or shapes.count(shapes[0]) < len(
        shapes
    ):
        raise ValueError(
            f"problem {name!r}: a seed changes more of it than the values of its arrays, so seeds "
            "cannot be an axis: sweep one seed at a time."
        )
    known = jnp.asarray(seeds)
    varies = jax.tree.map(lambda *xs: any(bool(jnp.any(x != xs[0])) for x in xs), *arrays)
    if not any(jax.tree.leaves(varies)):
        raise ValueError(f"problem {name!r} does not depend on its seed: leave seeds out.")
    stacked = jax.tree.map(lambda v, *xs: jnp.stack(xs) if v else xs[0], varies, *arrays)

    def pick(seed: Any) -> tuple[AbstractProblem, PyTree]:
        at = jnp.argmax(known == seed)
        own = jax.tree.map(lambda v, x: x[at] if v else x, varies, stacked)
        return eqx.combine(own, static)

    return pick


def _comparable(name: str, made: list[tuple[AbstractProblem, PyTree]]) -> list[AbstractProblem]:
    """The problems with plain functions replaced by their programs, whose constants can be told
    apart: two calls of a user's factory return two functions."""
    problems = [problem for problem, _ in made]
    if not all(type(p) is LossProblem and not eqx.is_array(p.loss) for p in problems):
        return problems
    if eqx.tree_equal(*(eqx.partition(p, eqx.is_array)[1] for p in problems)):
        return problems
    traced = [jax.make_jaxpr(problem.value, return_shape=False)(start) for problem, start in made]
    # With what lies deeper inside (a jitted function's own constants), which no lane could pick.
    texts = [
        re.sub(r"0x[0-9a-f]+", "", str(t.jaxpr))
        + "".join(str(np.asarray(c).tobytes()) for c in inner_constants(t.jaxpr))
        for t in traced
    ]
    if texts.count(texts[0]) < len(texts):
        raise ValueError(
            f"problem {name!r}: its loss is another function for another seed, so seeds cannot be "
            "an axis: let it close over JAX arrays, outside of jit, or sweep one seed at a time."
        )
    structure = jax.tree.structure(made[0][1])
    jaxpr = traced[0].jaxpr
    return [LossProblem(_Program([*map(jnp.asarray, t.consts)], jaxpr, structure)) for t in traced]


class _Program(eqx.Module):
    """A loss as its jaxpr, and the constants that it closed over."""

    consts: list[Any]
    jaxpr: Any = eqx.field(static=True)
    structure: Any = eqx.field(static=True)

    def __call__(self, params: PyTree) -> Any:
        leaves = self.structure.flatten_up_to(params)
        return eval_jaxpr(self.jaxpr, self.consts, *leaves)[0]
