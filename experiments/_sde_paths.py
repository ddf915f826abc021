"""Paths of Adam's SDE on quadratics, through `ct.ensemble`, against what their law is known to be
(EQUATIONS §6, §9)."""

from functools import partial
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

import ct_adam as ct
from ct_adam.simulate.discrete import warmed
from ct_adam.theory import sde_moments, stationary_variance

if TYPE_CHECKING:
    import xarray

CURVATURES = (0.3, 1.0, 3.0)
BATCH = 10
"""b of the gradients' covariance H/b."""
MOMENTS = ("θ", "u", "θ²", "θu", "u²")
_WARM = 20
_NUMBERS: dict[str, Any] = {
    "learning_rate": 0.02,
    "b1": 0.9,
    "b2": 0.98,
    "eps": 0.05,
    "weight_decay": 0.3,
}
_START = (1.0, -1.0, 0.5)
DECAYS = (0.0, 0.3, 1.0)
_STATIONARY: dict[str, Any] = {"learning_rate": 0.02, "b1": 0.9, "eps": 0.0}
_LONG = 250
"""Steps after which the slowest mode has e⁻¹⁷ of its start left: 2η√(b·min h)·steps = 17."""


def _bowl(x: Array) -> Array:
    return jnp.sum(jnp.asarray(CURVATURES, x.dtype) * x**2) / 2


def _noisy(seed: Any, path_seed: Any = None) -> ct.problems.GaussianNoise:
    return ct.problems.GaussianNoise(_bowl, jnp.asarray(CURVATURES) / BATCH, seed, path_seed)


def _parting(path_seed: Any) -> ct.Case:
    return ct.Case(ct.AdamSDE(**_NUMBERS), _noisy(0, path_seed))


def _resting(path_seed: Any, weight_decay: Any) -> ct.Case:
    flow = ct.AdamSDE(**_STATIONARY, weight_decay=weight_decay, moments="warm")
    return ct.Case(flow, _noisy(path_seed))


def _update(step: Any, params: Any, update: Any, loss: Any) -> Any:
    del step, params, loss
    return update


def moment_check(
    paths: int = 10_000, steps: tuple[int, ...] = (25, 50, 100, 200), seed: int = 0
) -> "xarray.Dataset":
    """First and second moments of θ and u of `AdamSDE`, with v and bias factors that still move,
    against the moment ODE. All paths begin at the end of the same 20 steps of noisy Adam.

    **Returns:** over (step, coordinate, moment): `exact`, `estimate`, `standard_error` (over paths,
    new ones at each step), `z`; `curvature` beside coordinate; attribute `paths`.
    """
    import xarray

    with jax.enable_x64(True):
        flow, start = ct.AdamSDE(**_NUMBERS), jnp.array(_START)
        state = flow.from_optimizer(
            _noisy(0), *warmed(flow.optimizer, _noisy(0), start, _WARM), _WARM
        )
        (m,), (v,) = state.m, state.v
        law = sde_moments(
            CURVATURES, np.array(CURVATURES) / BATCH, np.concatenate([state.params, m]), steps,
            **_NUMBERS, warm_steps=_WARM, second_moment=v,
        )  # fmt: skip
        seen = [
            ct.ensemble(
                _parting, None, start, count, {"path_seed": seed + i * paths + np.arange(paths)},
                engine="cohort", warm_steps=_WARM, save=_update, metrics=("final_params",),
            )
            for i, count in enumerate(steps)
        ]  # fmt: skip
    products = [_products(table.final_params.values, table.saved.values) for table in seen]
    found = {
        "exact": [_exact(law, at) for at in range(len(steps))],
        "estimate": [each.mean(axis=0) for each in products],
        "standard_error": [each.std(axis=0, ddof=1) / np.sqrt(paths) for each in products],
    }
    dims = ("step", "coordinate", "moment")
    dataset = xarray.Dataset(
        {name: (dims, np.array(values)) for name, values in found.items()},
        {
            "step": list(steps),
            "moment": list(MOMENTS),
            "curvature": ("coordinate", list(CURVATURES)),
        },
        {"paths": paths},
    )
    return dataset.assign(z=(dataset.estimate - dataset.exact) / dataset.standard_error)


def _products(theta: np.ndarray, u: np.ndarray) -> np.ndarray:
    """θ, u, θ², θu, u² of every path, by coordinate."""
    return np.stack([theta, u, theta**2, theta * u, u**2], axis=-1)


def _exact(law: ct.theory.SDEMoments, at: int) -> np.ndarray:
    """E of θ, u, θ², θu, u² by coordinate."""
    d = len(CURVATURES)
    mean, scale = law.mean[at], law.scale[at]
    squares = law.covariance[at] + np.outer(mean, mean)
    own = np.arange(d)
    return np.stack(
        [
            mean[:d],
            scale * mean[d:],
            squares[own, own],
            scale * squares[own, own + d],
            scale**2 * squares[own + d, own + d],
        ],
        axis=-1,
    )


def stationary_check(paths: int = 10_000, seed: int = 0) -> "xarray.Dataset":
    """Variances of θ of `AdamSDE`, moments warm, gradient covariance H/b: after 250 steps from 0
    against the Ornstein–Uhlenbeck limit (η/2b) q²h/(qh + λ) of EQUATIONS §6, q = √(b/h), divided by
    1 + ηλ/a (a = 1 - b1), which m's memory brings.

    **Returns:** over (decay, curvature), `decay` being λ: `theory`, `memoryless` (without that
    divisor), `published` (Zhou et al.'s q = 1/√h), `moments` (the moment ODE at the end),
    `estimate`, `standard_error`, `z` (against `theory`); attribute `paths`.
    """
    import xarray

    h, eta = np.array(CURVATURES), _STATIONARY["learning_rate"]
    decay = np.repeat(DECAYS, paths)
    with jax.enable_x64(True):
        lanes = {"path_seed": seed + np.arange(len(decay)), "weight_decay": decay}
        table = ct.ensemble(
            _resting, None, jnp.zeros(len(h)), _LONG, lanes, engine="cohort",
            metrics=("final_params",),
        )  # fmt: skip
        ends = [
            sde_moments(
                h, h / BATCH, np.zeros(len(h)), [_LONG], **_STATIONARY, weight_decay=one
            ).covariance[0]
            for one in DECAYS
        ]
        law = partial(stationary_variance, h, eta, BATCH, np.array(DECAYS)[:, None], rates="euler")
        theory = law(b1=_STATIONARY["b1"], preconditioner="adam")
        memoryless, published = law(preconditioner="adam"), law()
    theta = table.final_params.values.reshape(len(DECAYS), paths, len(h))
    squares = theta**2  # the mean is 0, by symmetry
    found = {
        "theory": np.asarray(theory),
        "memoryless": np.asarray(memoryless),
        "published": np.asarray(published),
        "moments": np.array([np.diagonal(end)[: len(h)] for end in ends]),
        "estimate": squares.mean(axis=1),
        "standard_error": squares.std(axis=1, ddof=1) / np.sqrt(paths),
    }
    dataset = xarray.Dataset(
        {name: (("decay", "curvature"), values) for name, values in found.items()},
        {"decay": list(DECAYS), "curvature": list(CURVATURES)},
        {"paths": paths},
    )
    return dataset.assign(z=(dataset.estimate - dataset.theory) / dataset.standard_error)
