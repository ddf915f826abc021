"""What a stored result is known by: a hash of the program that makes it."""

import hashlib
import re
from collections.abc import Callable

import jax
import numpy as np
from jaxtyping import PyTree


def program_hash(function: Callable[..., PyTree], *arguments: PyTree) -> str:
    """A hash of what `function` computes: its program with all constants (schedules, data), and
    the arguments. The same in every process.

    !!! example
        >>> program_hash(lambda x: 2 * x, 1.0) == program_hash(lambda y: 2 * y, 1.0)
        True
        >>> program_hash(lambda x: 2 * x, 1.0) == program_hash(lambda x: 3 * x, 1.0)
        False
    """
    return hash_and_shapes(function, *arguments)[0]


def hash_and_shapes(function: Callable[..., PyTree], *arguments: PyTree) -> tuple[str, PyTree]:
    """The same, and the shapes of what it returns, from one trace."""
    program, shapes = jax.make_jaxpr(function, return_shape=True)(*arguments)
    text = f"{program.jaxpr}{jax.tree.structure(arguments)}"
    text = re.sub(r"0x[0-9a-f]+", "", text)  # addresses differ between processes
    digest = hashlib.sha256(text.encode())
    for leaf in (*program.consts, *jax.tree.leaves(arguments)):
        digest.update(np.asarray(leaf).tobytes())
    return digest.hexdigest(), shapes
