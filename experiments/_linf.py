"""What `linf_constraint` measures on losses with a formula (EQUATIONS §5)."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

import ct_adam as ct
from ct_adam.norms import NORMS
from ct_adam.optimizers import frank_wolfe_rate
from ct_adam.theory import (
    constant_rate_bound,
    falling_rate_bound,
    quadratic_fixed_point,
    residuals,
)

if TYPE_CHECKING:
    import xarray

CASES = (
    (1, 2, 1, 0.1, 0, 0.9155711229775239),
    (1, 2, 1, 0.01, 0, 0.9901942113767562),
    (1, 0.5, 1, 0.1, 0, 0.425834261322605),
    (3, -4, 0.5, 0.2, 0, -1.937381185148427),
    (1, 2, 0.25, 0.1, 0, 1.9087287789486673),
    (1, 2, 1, 0, 0.01, 0.995085258378865),
)
"""h, a, λ, eps, eps_root of L = ½h(x − a)², and where AdamW ends on it (EQUATIONS §5)."""
DECAYS, MINIMUM = (0.25, 1.0, 2.0), 2.0
"""Of the grid over eps: 1/λ is 4, 1 and ½."""
FIXED = {"rate": 1e-2, "steps": 60_000, "flow": 8000}
"""§5's learning rate, and steps for 1e-13; the flow, with b2 = 0.99, forgets ten times faster."""


def fixed_points(levels: int, with_flow: bool) -> "xarray.Dataset":
    """Over (optimizer, lane) the last iterate; lanes are `CASES`, then eps × `DECAYS`."""
    import xarray

    eps = np.geomspace(1e-3, 3, levels)
    grid = np.array([(1, MINIMUM, decay, e, 0) for decay in DECAYS for e in eps])
    lanes = np.concatenate([np.array(CASES)[:, :5], grid])
    limits = [*np.array(CASES)[:, 5], *quadratic_fixed_point(*grid[:, :4].T)]
    inputs = jnp.asarray(lanes.T)
    found: dict[str, Any] = dict(
        zip(("AdamW", "AdamProx", "Adam-ℓ2"), _optimizers_end(inputs), strict=True)
    )
    if with_flow:
        found["AdamFlow"] = _flows_end(inputs)
    h, a, decay = lanes.T[:3]
    names = ("curvature", "minimum", "weight_decay", "eps", "eps_root")
    return xarray.Dataset(
        {
            "end": (("optimizer", "lane"), np.array([*map(np.asarray, found.values())])),
            "limit": ("lane", np.array(limits)),
            "ridge": ("lane", h * a / (h + decay)),
        },
        coords={"optimizer": list(found)}
        | {name: ("lane", column) for name, column in zip(names, lanes.T, strict=True)},
        attrs={"cases": len(CASES)},
    )


@jax.jit
def _optimizers_end(lanes: Array) -> tuple[Array, ...]:
    def end(make: Callable[..., Any]) -> Array:
        def lane(h: Array, a: Array, decay: Array, eps: Array, eps_root: Array) -> Array:
            optimizer = make(
                FIXED["rate"], 0.9, 0.999, eps=eps, weight_decay=decay, eps_root=eps_root
            )

            def step(_: Any, carry: Any) -> Any:
                x, state = carry
                delta, state = optimizer.update(h * (x - a), state, x)
                return x + delta, state

            start = jnp.zeros_like(a)
            return jax.lax.fori_loop(0, FIXED["steps"], step, (start, optimizer.init(start)))[0]

        return jax.vmap(lane)(*lanes)

    return tuple(end(make) for make in (ct.adamw, ct.adam_prox, ct.adam_l2))


@jax.jit
def _flows_end(lanes: Array) -> Array:
    def lane(h: Array, a: Array, decay: Array, eps: Array, eps_root: Array) -> Array:
        flow = ct.AdamFlow(FIXED["rate"], 0.9, 0.99, eps, decay, eps_root=eps_root)
        path: Any = ct.solve(
            flow, lambda x: h * (x - a) ** 2 / 2, jnp.zeros_like(a), FIXED["flow"],
            save_steps=[FIXED["flow"]], rtol=1e-9, atol=1e-12, max_solver_steps=100_000,
        )  # fmt: skip
        return path.params[0]

    return jax.vmap(lane)(*lanes)


def lyapunov(seed: int = 0, size: int = 8) -> "xarray.Dataset":
    """L plus the barrier along the SignFlow, eps = 0.1, on a rotated quadratic with λ = 1."""
    import xarray

    rng = np.random.default_rng(seed)
    problem = ct.problems.quadratic(np.geomspace(0.1, 10, size), 2.0, rotation_seed=seed)
    flow = ct.SignFlow(0.01, eps=0.1, weight_decay=1.0)
    steps = np.arange(0, 2001, 10)
    start = jnp.asarray(rng.uniform(-0.99, 0.99, size))
    path = ct.solve(flow, problem, start, 2000, save_steps=steps, rtol=1e-9)
    value = jax.jit(jax.vmap(lambda x: flow.lyapunov(x, problem)))(path.params)
    return xarray.Dataset({"value": ("step", np.asarray(value))}, coords={"step": steps})


SIZE, STEPS = 8, 400
SCHEDULES = ("constant", "2/(λ(t+1))")
BALLS = ("linf", "l2")


def rates(instances: int, seed: int = 0) -> "xarray.Dataset":
    """Over (instance, norm, schedule, step): the gap to the minimum over the ball, and its bound.

    Dense convex quadratics of all scales, every second start outside the ball. The first instance
    is for the figure: of moderate numbers, with ηλ = 0.02 from three radii.
    """
    import xarray

    rng = np.random.default_rng(seed)
    drawn = [_instance(rng, i) for i in range(instances)]
    hessian, a, start, eta, decay = (np.array(x) for x in zip(*drawn, strict=True))
    lowest = np.array([_least(h, m, d) for h, m, d in zip(hessian, a, decay, strict=True)])
    losses = np.asarray(_descents(hessian, a, start, eta, decay))
    gap = losses - lowest[:, :, None, None]
    smooth = np.stack([np.abs(hessian).sum((1, 2)), np.linalg.eigvalsh(hessian)[:, -1]], 1)
    norm = np.stack([np.abs(start).max(1), np.linalg.norm(start, axis=1)], 1)
    t = np.arange(STEPS)
    wide = [x[:, None, None] for x in (eta, decay)]
    constant = constant_rate_bound(t, gap[:, :, 0, :1], smooth[..., None], norm[..., None], *wide)
    falling = falling_rate_bound(t, smooth[..., None], norm[..., None], wide[1])
    bound = np.stack([constant, np.where(t > 0, falling, np.inf)], axis=2)
    scale = smooth * (norm + 1 / decay[:, None] + np.linalg.norm(a, axis=1)[:, None]) ** 2
    dims = ("instance", "norm", "schedule", "step")
    return xarray.Dataset(
        {"gap": (dims, gap), "bound": (dims, bound), "scale": (dims[:2], scale)},
        coords={
            "norm": list(BALLS),
            "schedule": list(SCHEDULES),
            "step": t,
            "radii": (dims[:2], norm * decay[:, None]),
        },
    )


def _instance(rng: np.random.Generator, i: int) -> tuple[Any, ...]:
    factor = rng.standard_normal((SIZE, SIZE))
    decay, shrink = np.exp(rng.uniform(-2, 2)), np.exp(rng.uniform(np.log(1e-3), 0))
    a, start = (rng.standard_normal(SIZE) / decay for _ in range(2))
    radii = 3.0 if i == 0 else rng.uniform(1, 20) if i % 2 else rng.uniform(0, 1)
    if i == 0:
        shrink, a = 0.02, 2 * a
    else:
        factor, a = factor * np.exp(rng.uniform(-3, 3)), a * np.exp(rng.uniform(-2, 2))
    start *= radii / (np.abs(start).max() * decay)
    return factor.T @ factor, a, start, shrink / decay, decay


def _least(hessian: np.ndarray, a: np.ndarray, decay: float) -> tuple[float, float]:
    """min ½(x − a)ᵀH(x − a) over the box, and over the ℓ2 ball by its multiplier."""
    from scipy.optimize import brentq

    x = box_minimum(hessian, a, decay)
    values, vectors = np.linalg.eigh(hessian)
    pulled = values * (vectors.T @ a)

    def excess(mu: float) -> float:
        return float(np.linalg.norm(pulled / (values + mu))) * decay - 1

    inside = np.linalg.norm(a) <= 1 / decay
    # Above μ = ‖b‖λ every such x is inside.
    mu = 0.0 if inside else brentq(excess, 0, float(np.linalg.norm(pulled)) * decay, xtol=1e-300)
    y = vectors @ (pulled / (values + mu))  # pyright: ignore[reportOperatorIssue]
    return tuple(float((z - a) @ hessian @ (z - a) / 2) for z in (x, y))  # pyright: ignore[reportReturnType]


def box_minimum(hessian: np.ndarray, a: np.ndarray, decay: float) -> np.ndarray:
    """argmin of ½(x − a)ᵀH(x − a) over |x_i| ≤ 1/λ, by SciPy's bounded least squares."""
    from scipy.optimize import lsq_linear

    factor = np.linalg.cholesky(hessian).T
    return lsq_linear(factor, factor @ a, (-1 / decay, 1 / decay), method="bvls", tol=1e-15).x


@jax.jit
@jax.vmap
def _descents(hessian: Array, a: Array, start: Array, eta: Array, decay: Array) -> Array:
    """Losses (norm, schedule, step)."""

    def loss_path(norm: Any, rate: Any) -> Array:
        optimizer = ct.steepest_descent(rate, decay, norm)

        def step(carry: Any, _: None) -> Any:
            x, state = carry
            g = hessian @ (x - a)
            delta, state = optimizer.update(g, state, x)
            return (x + delta, state), (x - a) @ g / 2

        return jax.lax.scan(step, (start, optimizer.init(start)), None, STEPS)[1]

    rates = eta, frank_wolfe_rate(decay)
    paths = [jnp.stack([loss_path(n, rate) for rate in rates]) for n in BALLS]
    return jnp.stack(paths)


def methods(steps: int, seed: int = 1, size: int = 20) -> "xarray.Dataset":
    """Over (optimizer, step) residuals and distance to the minimum of a quadratic over a box.

    η is 0.05 for a hundred steps, then falls as 1/n; eps = 0; Frank–Wolfe takes its own step.
    """
    import xarray

    rng = np.random.default_rng(seed)
    factor = rng.standard_normal((size, size))
    hessian, a = factor.T @ factor / size, 2 * rng.standard_normal(size)
    goal = box_minimum(hessian, a, 1.0)
    options: dict[str, Any] = {"b1": 0.9, "b2": 0.99, "eps": 0.0, "weight_decay": 1.0}
    made = {
        "AdamW": ct.adamw(harmonic, **options),
        "AdamProx": ct.adam_prox(harmonic, **options),
        "sign descent": ct.sign_descent(harmonic, weight_decay=1.0),
        "Frank–Wolfe": ct.frank_wolfe(),
        "Adam-ℓ2": ct.adam_l2(harmonic, **options),
    }
    start = jnp.asarray(3 * rng.standard_normal(size))

    def path(optimizer: Any) -> Any:
        def step(carry: Any, _: None) -> Any:
            x, state = carry
            g = jnp.asarray(hessian) @ (x - a)
            delta, state = optimizer.update(g, state, x)
            return (x + delta, state), (residuals(x, g, 1.0), jnp.max(jnp.abs(x - goal)))

        return jax.lax.scan(step, (start, optimizer.init(start)), None, steps)[1]

    found = jax.jit(lambda: [path(optimizer) for optimizer in made.values()])()
    names = ("norm", "stationarity", "feasibility", "gradient")
    return xarray.Dataset(
        {
            name: (("optimizer", "step"), np.array([getattr(seen, name) for seen, _ in found]))
            for name in names
        }
        | {"error": (("optimizer", "step"), np.array([error for _, error in found]))},
        coords={"optimizer": list(made), "step": np.arange(steps)},
        attrs={"held": int((np.abs(goal) == 1).sum()), "size": size},
    )


def harmonic(step: Any, learning_rate: Any = 0.05, flat: Any = 100) -> Array:
    """η: constant for `flat` steps, then falling as 1/n. As it stands that of `methods`."""
    return learning_rate / jnp.maximum(1.0, step / flat)


def frank_wolfe_difference(steps: int = 40, seed: int = 0) -> dict[str, float]:
    """By norm, the largest difference of one step of either method from the same matrix."""
    goal, start = np.random.default_rng(seed).standard_normal((2, 4, 3))
    eta, decay = 0.1, 0.7

    @jax.jit
    def all_norms() -> Array:
        return jnp.stack([one(norm) for norm in NORMS])

    def one(norm: Any) -> Array:
        descent = ct.steepest_descent(eta, decay, norm)
        other = ct.frank_wolfe(eta * decay, 1 / decay, norm)

        def step(carry: Any, _: None) -> Any:
            x, state, twin = carry
            (delta, state), (same, twin) = (
                method.update(x - goal, held, x)
                for method, held in ((descent, state), (other, twin))
            )
            return (x + delta, state, twin), jnp.max(jnp.abs(jnp.subtract(delta, same)))

        x = jnp.asarray(3 * start)
        carry = (x, descent.init(x), other.init(x))
        return jnp.max(jax.lax.scan(step, carry, None, steps)[1])

    return dict(zip(NORMS, np.asarray(all_norms()).tolist(), strict=True))
