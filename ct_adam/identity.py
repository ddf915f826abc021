"""What a stored result is known by: a hash of the program that makes it."""

import hashlib
import re
from collections.abc import Callable, Iterator
from typing import Any

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
    for leaf in (*constants(program), *jax.tree.leaves(arguments)):
        digest.update(np.asarray(leaf).tobytes())
    return digest.hexdigest(), shapes


def constants(program: Any) -> Iterator[Any]:
    """All that a program has closed over: its own, and those of the programs in it (a jitted loss,
    a rule of its own for derivatives), which its text does not show."""
    yield from getattr(program, "consts", ())
    yield from inner_constants(program)


def inner_constants(program: Any) -> Iterator[Any]:
    """The same without its own."""
    for equation in getattr(program, "jaxpr", program).eqns:
        for atom in equation.invars:
            if hasattr(atom, "val"):
                yield atom.val
        for value in jax.tree.leaves(equation.params, is_leaf=_is_program):
            if _is_program(value):
                yield from constants(value)


def _is_program(value: Any) -> bool:
    return hasattr(value, "eqns")
