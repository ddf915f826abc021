"""What `scale_freeness` measures without networks: AdamW against AdamProx, the loss's scale against
eps, and quadratics by condition number (EQUATIONS §7)."""

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

import ct_adam as ct
from ct_adam.optimizers import variable_metric_prox

if TYPE_CHECKING:
    import xarray

MAKERS: dict[str, Callable[..., Any]] = {
    "AdamW": ct.adamw,
    "AdamProx": ct.adam_prox,
    "Adam-ℓ2": ct.adam_l2,
    "variable metric": variable_metric_prox,
}
SCALE_FREE = ("AdamW", "AdamProx")
AXES = ("diagonal", "rotated")
THETA, DECAY, TIME = 4.0, 0.5, 3.0
"""Of the closed form: θ₀, λ and ηN."""
RATE, DIRECTIONS, STEPS = 0.02, 8, 600
"""Of the quadratics; η falls to 0 as a cosine."""


class Bowl(NamedTuple):
    """The gradient A(x - target) + slope; an array each, so that one program serves all."""

    matrix: Float[np.ndarray, "n n"]
    target: float = 0.0
    slope: float = 0.0


class Numbers(NamedTuple):
    """Of an optimizer; η and λ, eps outside and inside the root."""

    eta: float
    decay: float
    eps: float = 0.0
    eps_root: float = 0.0


def path(
    name: str, bowl: Bowl, numbers: Numbers, start: float, steps: int, cosine: bool = False
) -> Float[np.ndarray, "steps+1 n"]:
    """θ_0, θ_1, … of one of `MAKERS` from (start, …, start)."""
    first = jnp.full(len(bowl.matrix), start, float)
    rest = _path(name, jax.tree.map(jnp.asarray, (bowl, numbers)), first, steps, cosine)
    return np.concatenate([first[None], rest])


@partial(jax.jit, static_argnums=(0, 3, 4))
def _path(name: str, arrays: Any, start: Array, steps: int, cosine: bool) -> Array:
    bowl, (eta, decay, eps, eps_root) = arrays
    rate = (lambda n: eta * (1 + jnp.cos(jnp.pi * n / steps)) / 2) if cosine else eta
    optimizer = MAKERS[name](rate, eps=eps, weight_decay=decay, eps_root=eps_root)

    def step(carry: Any, _: None) -> Any:
        x, state = carry
        gradient = bowl.matrix @ (x - bowl.target) + bowl.slope
        delta, state = optimizer.update(gradient, state, x)
        x = optax.apply_updates(x, delta)
        return (x, state), x

    return jax.lax.scan(step, (start, optimizer.init(start)), None, steps)[1]


def gap(eta: float, steps: int) -> float:
    """θ_AdamW - θ_AdamProx after `steps` with gradient 1, from THETA: both are geometric series
    about -1/λ, so (θ₀ + 1/λ)[(1 - ηλ)^N - (1 + ηλ)^-N]."""
    kept = np.exp(steps * np.log1p(-eta * DECAY)), np.exp(-steps * np.log1p(eta * DECAY))
    return float((THETA + 1 / DECAY) * (kept[0] - kept[1]))


def orders(etas: Iterable[float]) -> "xarray.Dataset":
    """By η: AdamW from AdamProx after one step, and at most while ηn ≤ 3, on a quadratic; at ηn = 3
    with a constant gradient, beside the closed form."""
    import xarray

    bowl, constant = Bowl(_curved(1.0)), Bowl(np.zeros((DIRECTIONS, DIRECTIONS)), 0.0, 1.0)
    rows = []
    for eta in etas:
        steps = round(TIME / eta)
        smooth, still = Numbers(eta, DECAY, 0.1), Numbers(eta, DECAY)
        along = np.abs(_difference(bowl, smooth, steps)).max(1)
        rows.append(
            (along[1], along.max(), _difference(constant, still, steps)[-1, 0], gap(eta, steps))
        )
    columns = zip(("local", "along", "constant", "closed"), np.array(rows).T, strict=True)
    variables = {name: ("eta", column) for name, column in columns}
    return xarray.Dataset(variables, {"eta": list(etas)})


def _difference(bowl: Bowl, numbers: Numbers, steps: int) -> np.ndarray:
    adamw, prox = (path(name, bowl, numbers, THETA, steps) for name in SCALE_FREE)
    return adamw - prox


def _curved(scale: float) -> np.ndarray:
    return scale * np.diag(np.geomspace(1, 30, DIRECTIONS))


def identities(factor: float) -> dict[str, float]:
    """Largest difference of a run on c·L from one on L with eps / c and eps_root / c² (and λ / c
    unless scale-free), over the distance moved."""
    found = {}
    for name in MAKERS:
        decay = DECAY if name in SCALE_FREE else DECAY / factor
        scaled = Numbers(RATE, DECAY, 1e-2, 1e-3)
        shrunk = Numbers(RATE, decay, 1e-2 / factor, 1e-3 / factor**2)
        one = path(name, Bowl(_curved(factor)), scaled, 1.0, STEPS, True)
        other = path(name, Bowl(_curved(1.0)), shrunk, 1.0, STEPS, True)
        found[name] = float(np.abs(one - other).max() / np.abs(one - one[0]).max())
    return found


def quadratics(conditions: Sequence[float]) -> "xarray.Dataset":
    """Over (optimizer, axes, condition, step): the distance to the minimum, over that at the start;
    how far the iterate is from that with condition number 1. From 0 to (1, …, 1), eps = 0."""
    import xarray

    shape = (len(MAKERS), len(AXES), len(conditions), STEPS + 1)
    distance, apart = np.empty(shape), np.empty(shape)
    numbers = Numbers(RATE, 0.1)
    for i, name in enumerate(MAKERS):
        for j, axes in enumerate(AXES):
            bowls = [Bowl(hessian(condition, axes), 1.0) for condition in (1.0, *conditions)]
            first, *paths = (path(name, bowl, numbers, 0.0, STEPS, True) for bowl in bowls)
            distance[i, j] = [np.linalg.norm(one - 1, axis=1) for one in paths]
            apart[i, j] = [np.abs(one - first).max(1) for one in paths]
    dims = ("optimizer", "axes", "condition", "step")
    return xarray.Dataset(
        {"distance": (dims, distance / distance[..., :1]), "apart": (dims, apart)},
        coords={
            "optimizer": list(MAKERS),
            "axes": list(AXES),
            "condition": list(conditions),
            "step": ("step", np.arange(STEPS + 1), {"units": "steps"}),
        },
    )


def hessian(condition: float, axes: str) -> Float[np.ndarray, "n n"]:
    """Eigenvalues log-spaced from 1 to `condition`; one rotation for all."""
    h = np.diag(np.geomspace(1, condition, DIRECTIONS))
    draws = np.random.default_rng(0).standard_normal((DIRECTIONS, DIRECTIONS))
    q = np.linalg.qr(draws)[0]
    return q @ h @ q.T if axes == "rotated" else h
