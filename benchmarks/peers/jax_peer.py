"""Plain diffrax and plain optax, mapped over the lanes."""

from collections.abc import Callable
from typing import Any

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import optax

from ct_adam.problems import as_problem
from ct_adam.simulate.controllers import default_controller

from ..race import Contender, Run
from ..workloads import FlowLanes, Lanes

Mapped = Callable[..., Any]


def side_by_side(function: Any, lanes: Any) -> Any:
    """`jax.vmap`: all lanes in lockstep, the slowest sets the pace."""
    return jax.vmap(function)(lanes)


def one_by_one(function: Any, lanes: Any) -> Any:
    """`jax.lax.map`: a lane after the other."""
    return jax.lax.map(function, lanes)


def flow(name: str, mapped: Mapped, work: FlowLanes) -> Contender:
    """What one would write without `ct.ensemble`, in the same error scale."""
    problem = as_problem(work.loss.of)
    # As arrays: Python's numbers would make all of it float64.
    begin, end = jnp.zeros((), work.dtype), jnp.asarray(work.steps, work.dtype)

    def final(b1: Any, b2: Any, rtol: Any) -> Any:
        method = work.make(b1, b2)
        solution = diffrax.diffeqsolve(
            diffrax.ODETerm(method.vector_field),  # pyright: ignore[reportArgumentType]
            diffrax.Tsit5(),
            begin,
            end,
            None,
            method.init(problem, jnp.asarray(work.start)),
            problem,
            stepsize_controller=default_controller(method, rtol, 1e-3 * rtol, work.dtype, end),
            # A third faster than the default, which prepares for reverse-mode derivatives.
            adjoint=diffrax.ForwardMode(),
            max_steps=1_000_000,
            throw=False,
        )
        assert solution.ys is not None
        return solution.ys.params[-1]

    @jax.jit
    def all_lanes(b1: Any, b2: Any, rtol: Any) -> Any:
        return mapped(lambda lane: final(*lane, rtol), (b1, b2))

    def prepare(rtol: float | None) -> Run:
        b1, b2, rtol_ = (jnp.asarray(x, work.dtype) for x in (work.b1, work.b2, rtol))
        return lambda: np.asarray(all_lanes(b1, b2, rtol_))

    note = f"Tsit5, forward mode{_cores(mapped)}"
    return Contender(name, prepare, follows="lax.map(diffrax)", note=note)


def _cores(mapped: Mapped) -> str:
    return ", one core" if mapped is one_by_one else ""


def optimizer(name: str, mapped: Mapped, work: Lanes) -> Contender:
    """optax under `lax.scan`."""

    def final(decays: tuple[Any, Any]) -> Any:
        method = optax.adam(work.learning_rate, *decays, eps=work.eps)
        return scanned(method, work.loss.of, jnp.asarray(work.loss.start), work.steps)

    all_lanes = jax.jit(lambda b1, b2: mapped(final, (b1, b2)))
    return Contender(
        name,
        lambda _: lambda: np.asarray(all_lanes(work.b1, work.b2)),
        (None,),
        note=f"optax{_cores(mapped)}",
    )


def scanned(
    method: optax.GradientTransformation, loss: Callable[[Any], Any], params: Any, steps: int
) -> Any:
    """θ after so many steps."""

    def step(carry: Any, _: None) -> tuple[Any, None]:
        params, state = carry
        update, state = method.update(jax.grad(loss)(params), state)
        return (optax.apply_updates(params, update), state), None

    return jax.lax.scan(step, (params, method.init(params)), length=steps)[0][0]
