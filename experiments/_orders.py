"""What `convergence_order` measures: the error of a flow against its own optimizer.

One program a model: learning rates, decays, lengths and warm steps are traced numbers.
"""

from functools import partial
from typing import Any, NamedTuple

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int

from ct_adam.flows import AbstractFlow
from ct_adam.flows.registry import flow_named
from ct_adam.optimizers import optimizer_step
from ct_adam.problems import AbstractProblem
from ct_adam.problems.base import LossProblem
from ct_adam.problems.registry import CURVATURES
from ct_adam.simulate.controllers import default_controller
from ct_adam.simulate.discrete import warmed

Ints = Int[np.ndarray, " eta"]
SAVES = 10
EPS = 1.0
"""Of order one, so that the update is smooth where a gradient changes its sign.

Interpolating flows have it inside the root: there √v̂ alone turns within a few steps, once v forgets
within a few.
"""
RTOL, ATOL = 1e-13, 1e-15


class Wavy(eqx.Module):
    """½ xᵀ R diag(h) Rᵀ x + Σ cos 2x: the problem of EQUATIONS §1, rotated."""

    hessian: Float[Array, "4 4"]

    def __call__(self, x: Float[Array, " 4"]) -> Float[Array, ""]:
        return x @ self.hessian @ x / 2 + jnp.sum(jnp.cos(2 * x))


class Draw(NamedTuple):
    """Random problems and starts, one a seed."""

    hessian: Float[Array, "seed 4 4"]
    start: Float[Array, "seed 4"]


def drawn(seeds: int) -> Draw:
    """Rotations uniform on the group, starts standard normal; the first seeds stay the same."""
    hessians, starts = [], []
    for seed in range(seeds):
        rng = np.random.default_rng(seed)
        rotation = np.linalg.qr(rng.standard_normal((4, 4)))[0]
        hessians.append(rotation * CURVATURES @ rotation.T)
        starts.append(rng.standard_normal(4))
    return Draw(jnp.asarray(np.array(hessians)), jnp.asarray(np.array(starts)))


class Setting(NamedTuple):
    """One learning rate, the decays that go with it, and how many steps lie in the horizon."""

    learning_rate: Any
    b1: Any
    b2: Any
    steps: Any
    warm_steps: Any


def fixed(lengths: Ints) -> Setting:
    """Decays (0.5, 0.7) and η·steps = 1, after a half of that to forget the start.

    The 40 warm steps of the largest η leave 0.7^40 = 6e-7 of it, but slopes are those of smaller
    η: 80 steps leave 4e-13.
    """
    eta = 1 / lengths
    return _setting(eta, np.full_like(eta, 0.5), np.full_like(eta, 0.7), lengths, lengths // 2)


def scaled(lengths: Ints) -> Setting:
    """1 - b1 = η, 1 - b2 = η/2 and η·steps = 2, after η·steps = 1/5."""
    eta = 2 / lengths
    return _setting(eta, 1 - eta, 1 - eta / 2, lengths, lengths // 10)


def first(lengths: Ints) -> Setting:
    """As `scaled`, but after a single step."""
    return scaled(lengths)._replace(warm_steps=jnp.ones_like(lengths))


def _setting(*numbers: np.ndarray) -> Setting:
    return Setting(*map(jnp.asarray, numbers))


def flow_of(name: str, of: Setting) -> AbstractFlow:
    """The model with these numbers; the effective learning rate η is the same for all."""
    eta = of.learning_rate
    if name == "heavy_ball":
        eta = eta * (1 - of.b1)  # its momentum is not damped: it moves by η/(1-b1)
    # optax's: of its state the flow knows that m is judged beside √v (EQUATIONS §1).
    optimizer = (
        optax.adam(eta, of.b1, of.b2, 0.0, EPS) if name.startswith("interpolating") else None
    )
    return flow_named(name, optimizer, learning_rate=eta, b1=of.b1, b2=of.b2, eps=EPS)


@partial(jax.jit, static_argnums=0)
def errors(name: str, settings: Setting, draw: Draw) -> Float[Array, "eta seed"]:
    """Largest |flow - optimizer| over coordinates and `SAVES` times, over the distance travelled.

    NaN where the flow did not reach its end.
    """

    def one(of: Setting, hessian: Array, start: Array) -> Array:
        flow, problem = flow_of(name, of), LossProblem(Wavy(hessian))
        ours = _flow_path(flow, problem, start, of)
        theirs = _discrete_path(flow, problem, start, of)
        return jnp.max(jnp.abs(ours - theirs)) / jnp.max(jnp.abs(theirs - theirs[0]))

    return jax.lax.map(lambda of: jax.vmap(partial(one, of))(*draw), settings)


def _flow_path(flow: AbstractFlow, problem: AbstractProblem, start: Array, of: Setting) -> Array:
    params, held = warmed(flow.optimizer, problem, start, of.warm_steps)
    state = flow.from_optimizer(problem, params, held, of.warm_steps)
    begin = of.warm_steps.astype(start.dtype)
    times = begin + of.steps / SAVES * jnp.arange(SAVES + 1)
    solution = diffrax.diffeqsolve(
        diffrax.ODETerm(flow.vector_field),  # pyright: ignore[reportArgumentType]
        diffrax.Dopri8(),
        times[0],
        times[-1],
        None,
        state,
        problem,
        saveat=diffrax.SaveAt(ts=times, fn=lambda t, z, _: flow.params(z)),
        stepsize_controller=default_controller(flow, RTOL, ATOL, start.dtype, times[-1]),
        max_steps=2**18,
        throw=False,
    )
    assert solution.ys is not None
    return jnp.where(jnp.isfinite(solution.ys), solution.ys, jnp.nan)


def _discrete_path(
    flow: AbstractFlow, problem: AbstractProblem, start: Array, of: Setting
) -> Array:
    optimizer = flow.optimizer

    def step(n: Array, carry: Any) -> Any:
        return optimizer_step(optimizer, problem, n, *carry)[:2]

    def segment(carry: Any, i: Array) -> tuple[Any, Array]:
        first = of.warm_steps + i * length
        after = jax.lax.fori_loop(first, first + length, step, carry)
        return after, after[0]

    length = of.steps // SAVES
    begin = warmed(optimizer, problem, start, of.warm_steps)
    path = jax.lax.scan(segment, begin, jnp.arange(SAVES))[1]
    return jnp.concatenate([begin[0][None], path])
