"""What `k_adam_stages` measures: every stage's update on a network in training, and a first stage
that overflows."""

from functools import partial
from typing import TYPE_CHECKING, Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, PyTree

import ct_adam as ct
from ct_adam.problems import Minibatches
from ct_adam.theory import growth_rate

if TYPE_CHECKING:
    import xarray

OCTAVES = (-16, 4)
"""Of |u^i|, what the histogram shows; what is smaller counts in the first bin."""
BINS = 80
BAD, GOOD, LAST = (0.99, 0.5), (0.5, 0.99), (0.9, 0.999)
CASES = {
    "bad first stage, eps = 0": (BAD, 0.0),
    "bad first stage, eps = 1e-8": (BAD, 1e-8),
    "good first stage, eps = 0": (GOOD, 0.0),
}
"""The first stage of two, in float32, with the defaults as the second."""
LOUD, QUIET, AFTER = 20, 180, 100
"""Steps with gradient 1000, none, and gradient 1."""


def trained(
    problem: Minibatches, params: PyTree, rate: float, decays: Any, steps: int
) -> dict[str, Array]:
    """By stage the largest |u^i| at every step, and means of the run's second half."""
    # As arrays: one program for all strategies.
    b1, b2 = (tuple(jnp.asarray(b, float) for b in bs) for bs in decays)
    return _measured(problem, params, jnp.asarray(rate), b1, b2, steps)


@eqx.filter_jit
def _measured(
    problem: Minibatches, params: PyTree, rate: Array, b1: Any, b2: Any, steps: int
) -> dict[str, Array]:
    flow = ct.KAdamFlow(rate, b1, b2)
    optimizer = flow.optimizer

    def step(carry: Any, n: Array) -> Any:
        params, state = carry
        gradient = problem.gradient(n, params)
        stages = ct.stage_updates(flow.hyperparameters, gradient, state, params)
        delta, state = optimizer.update(gradient, state, params)
        seen = jax.vmap(_seen)(jnp.stack([ravel_pytree(u)[0] for u in stages]))
        return (optax.apply_updates(params, delta), state), seen

    _, seen = jax.lax.scan(step, (params, optimizer.init(params)), jnp.arange(steps))
    late = {name: jnp.mean(values[steps // 2 :], axis=0) for name, values in seen.items()}
    return {**late, "rms": jnp.sqrt(late["square"]), "largest": seen["largest"].T}


def _seen(u: Float[Array, " size"]) -> dict[str, Array]:
    size = jnp.abs(u)
    low, high = OCTAVES
    octaves = jnp.clip(jnp.log2(jnp.maximum(size, 2.0**-30)), low, high)
    share = jnp.histogram(octaves, bins=BINS, range=(low, high))[0] / size.size
    square = jnp.mean(size**2)
    # cos(u, sign u): 1 where all coordinates are equal in size
    return {
        "largest": jnp.max(size),
        "square": square,
        "near_sign": jnp.mean(size) / jnp.sqrt(square),
        "share": share,
    }


def overflow() -> "xarray.Dataset":
    """Two stages on one coordinate in float32: |u¹|, |u²| and θ by case and step."""
    import xarray

    gradients = np.repeat([1000.0, 0.0, 1.0], [LOUD, QUIET, AFTER])
    paths = [_stream(*case, gradients) for case in CASES.values()]
    return xarray.Dataset(
        {name: (("case", "step"), np.array([p[name] for p in paths])) for name in paths[0]},
        coords={"case": list(CASES), "step": ("step", np.arange(len(gradients)))},
        attrs={"predicted": overflow_step()},
    )


def overflow_step() -> int:
    """The first step n whose (u¹)² is above the largest float32.

    From the last gradient on m and v decay by b1 and b2, so that u¹ is that of step LOUD-1 times
    (b1/√b2)^j, with its bias factors.
    """
    b1, b2 = BAD
    j = np.arange(QUIET)
    n = LOUD + j
    # of a constant gradient m = 1 - b1ⁿ and v = 1 - b2ⁿ after n gradients, in its units
    start = np.log1p(-(b1**LOUD)) - np.log1p(-(b2**LOUD)) / 2
    bias = np.log1p(-(b2 ** (n + 1.0))) / 2 - np.log1p(-(b1 ** (n + 1.0)))
    log_u = start + float(growth_rate(b1, b2, "discrete")) * (j + 1) + bias
    return int(n[np.argmax(2 * log_u > np.log(np.finfo(np.float32).max))])


def _stream(first: tuple[float, float], eps: float, gradients: np.ndarray) -> dict[str, np.ndarray]:
    b1, b2 = zip(first, LAST, strict=True)
    flow = ct.KAdamFlow(1e-3, b1, b2, eps=eps)
    optimizer, start = flow.optimizer, jnp.zeros((), jnp.float32)

    def step(carry: Any, g: Array) -> Any:
        params, state = carry
        updates = ct.stage_updates(flow.hyperparameters, g, state, params)
        delta, state = optimizer.update(g, state, params)
        params = optax.apply_updates(params, delta)
        return (params, state), {"u1": updates[0], "u2": updates[1], "params": params}

    # As one compiled scan: outside one, warnings of an overflow depend on the platform.
    _, path = jax.jit(partial(jax.lax.scan, step))(
        (start, optimizer.init(start)), jnp.asarray(gradients, jnp.float32)
    )
    return {name: np.asarray(values) for name, values in path.items()}
