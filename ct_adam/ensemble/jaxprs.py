"""A traced function cut in two: what does not depend on the live inputs, and the rest."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.extend.core import Literal
from jaxtyping import Array

_CALLS = {
    "jit", "pjit", "closed_call", "core_call", "remat", "checkpoint", "custom_jvp_call",
    "custom_vjp_call", "custom_vjp_call_jaxpr", "custom_lin",
}  # fmt: skip
_INNER = ("jaxpr", "call_jaxpr", "fun_jaxpr")


class Split(NamedTuple):
    """Equations that need no live input, those that do, and the values that pass between."""

    invars: list[Any]
    consts: dict[Any, Any]
    known: list[Any]
    live: list[Any]
    outvars: list[Any]
    residuals: list[Any]
    """known variables that live equations or outputs use"""
    varies: list[bool]
    """which of them differ from lane to lane"""

    def values(self, *known_inputs: Any) -> list[Array]:
        """The residuals."""
        env = dict(self.consts)
        env |= dict(zip(self.invars[: len(known_inputs)], known_inputs, strict=True))
        for eqn in self.known:
            given = [_read(env, var) for var in eqn.invars]
            env |= dict(zip(eqn.outvars, apply(eqn, given), strict=True))
        return [jnp.asarray(env[var]) for var in self.residuals]


def split(
    function: Callable[..., Sequence[Any]], shared: list[Any], lane: list[Any], live: list[Any]
) -> Split:
    """Cuts `function(*shared, *lane, *live)`, of flat arrays; `live` is what its loop changes."""
    inlined = jax.make_jaxpr(function)(*shared, *lane, *live)
    flat = jax.make_jaxpr(lambda *args: _evaluate(inlined.jaxpr, inlined.consts, args))(
        *shared, *lane, *live
    )
    jaxpr = flat.jaxpr
    known, rest = [], []
    alive = set(jaxpr.invars[len(shared) + len(lane) :])
    vary = set(jaxpr.invars[len(shared) : len(shared) + len(lane)])
    for eqn in jaxpr.eqns:
        used = {var for var in eqn.invars if not isinstance(var, Literal)}
        if used & alive:
            alive |= set(eqn.outvars)
            rest.append(eqn)
            continue
        known.append(eqn)
        if used & vary:
            vary |= set(eqn.outvars)
    wanted = [v for eqn in rest for v in eqn.invars] + list(jaxpr.outvars)
    residuals = list(
        dict.fromkeys(v for v in wanted if not isinstance(v, Literal) and v not in alive)
    )
    return Split(
        list(jaxpr.invars),
        dict(zip(jaxpr.constvars, flat.consts, strict=True)),
        known,
        rest,
        list(jaxpr.outvars),
        residuals,
        [var in vary for var in residuals],
    )


def apply(eqn: Any, inputs: Sequence[Any]) -> list[Any]:
    """An equation's outputs from its inputs."""
    outputs = eqn.primitive.bind(*inputs, **eqn.primitive.get_bind_params(eqn.params))
    return list(outputs) if eqn.primitive.multiple_results else [outputs]


def _evaluate(jaxpr: Any, consts: Sequence[Any], inputs: Sequence[Any]) -> list[Any]:
    """Runs a jaxpr with calls opened up, and both branches of a condition taken."""
    env = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*consts, *inputs], strict=True))
    for eqn in jaxpr.eqns:
        given = [_read(env, var) for var in eqn.invars]
        inner = next((eqn.params[key] for key in _INNER if key in eqn.params), None)
        if eqn.primitive.name in _CALLS and inner is not None:
            outputs = _evaluate(getattr(inner, "jaxpr", inner), getattr(inner, "consts", ()), given)
        elif eqn.primitive.name == "cond":
            outputs = _branches(eqn.params["branches"], given)
        else:
            outputs = apply(eqn, given)
        env |= dict(zip(eqn.outvars, outputs, strict=True))
    return [_read(env, var) for var in jaxpr.outvars]


def _branches(branches: Sequence[Any], given: list[Any]) -> list[Any]:
    which, *operands = given
    results = [_evaluate(branch.jaxpr, branch.consts, operands) for branch in branches]
    # Primitives, not jnp's functions, which are calls again.
    low, high = (jax.lax.convert_element_type(n, which.dtype) for n in (0, len(branches) - 1))
    which = jax.lax.clamp(low, which, high)
    if len(branches) == 2:
        which = jax.lax.convert_element_type(which, bool)
    return [jax.lax.select_n(which, *cases) for cases in zip(*results, strict=True)]


def _read(env: dict[Any, Any], var: Any) -> Any:
    return var.val if isinstance(var, Literal) else env[var]
