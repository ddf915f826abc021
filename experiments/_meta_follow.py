"""Which optimizer of a weight of fixed norm turns it as AdamW turns a scale-invariant one.

All run at once on the same minibatches, AdamW with a free norm among them: so that each can be
told the norm that it has at this step, and the angle to it is taken on the spot.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

import ct_adam as ct
from ct_adam.optimizers import scale_by_stage
from ct_adam.problems import AbstractProblem

from ._kept import Arrays
from ._meta import B2, EPS

CONSTANT, SCALAR, DERIVED, MATCHED, EXACT, FREE = range(6)
SAVES = 40
"""Looks at the directions of a run."""
SHIFT = 1e-6
"""By which the floor's start differs, relative to each number."""


class Lane(NamedTuple):
    """How the scale-invariant tensors of one run move; all other tensors by AdamW, always."""

    rule: Any
    """`FREE`: AdamW. Else W ← ‖W₀‖ · unit(W − rate · u), and the rate is

    - `CONSTANT`: factor · η; of the second stage factor · ‖W₀‖√(2ηλ/(c d)), its equilibrium's;
    - `SCALAR`: factor · ‖W₀‖√(2ηλ/c) over the root of a bias-corrected average of ‖u‖² by b2;
    - `DERIVED`: η‖W₀‖/√s, s ← (1−ηλ)² s + c η²‖u‖² from ‖W₀‖²;
    - `MATCHED`: η‖W₀‖/‖W‖, by the norm of the free run at this step;
    - `EXACT`: that over 1 − ηλ, and the gradient times ‖W₀‖/‖W‖: an identity but for rounding."""
    second: Any = 0.0
    """1: u is that of a second stage, elementwise (`k_adam_decays(2, …, "meta")`)"""
    factor: Any = 1.0
    source: Any = 1.0
    """c: 1, or (1+b1)/(1−b1)"""
    shift: Any = 0.0


def lanes_of(b1: float, factors: tuple[float, ...]) -> dict[tuple[str, float], Lane]:
    """By name and factor; the first is what is followed. Those with a learning rate of their own
    at each factor."""
    c = (1 + b1) / (1 - b1)
    return {
        ("free", 1.0): Lane(FREE),
        ("floor", 1.0): Lane(FREE, shift=SHIFT),
        ("exact", 1.0): Lane(EXACT),
        ("matched", 1.0): Lane(MATCHED),
        ("derived, corrected", 1.0): Lane(DERIVED, source=c),
        ("derived", 1.0): Lane(DERIVED),
        **{("scalar", f): Lane(SCALAR, factor=f, source=c) for f in factors},
        **{("meta", f): Lane(CONSTANT, 1.0, f, c) for f in factors},
        **{("adam", f): Lane(CONSTANT, factor=f) for f in factors},
    }


class Setting(NamedTuple):
    rate: Any
    decay: Any
    b1: float
    saves: int
    every: int


def followed(
    problem: AbstractProblem, params: PyTree, mask: PyTree, lanes: Sequence[Lane], setting: Setting
) -> Arrays:
    """After `every`, 2 `every`, … steps: `angle` (lane, save, tensor) in radians between the
    direction of a lane and that of the first one; `moved` (save, tensor), the first one's from its
    start; and its `norm`."""
    stacked = jax.tree.map(lambda *x: jnp.asarray(x, float), *lanes)
    chosen = tuple(jax.tree.leaves(mask))
    setting = setting._replace(rate=jnp.asarray(setting.rate), decay=jnp.asarray(setting.decay))
    found = _followed(problem, params, chosen, stacked, setting)
    return {name: np.asarray(values) for name, values in found.items()}


@eqx.filter_jit
def _followed(
    problem: AbstractProblem,
    params: PyTree,
    chosen: tuple[bool, ...],
    lanes: Lane,
    setting: Setting,
) -> dict[str, Array]:
    rate, decay, b1, saves, every = setting
    first_decays, second_decays = zip(*ct.k_adam_decays(2, b1, B2, "meta"), strict=True)
    one: Any = scale_by_stage(*first_decays, EPS)
    two: Any = scale_by_stage(*second_decays, EPS, further=True)
    begin, structure = jax.tree.flatten(params)
    norms = [jnp.linalg.norm(w) for w in begin]

    def lane_step(
        n: Array, held: list[Array], lane: Lane, leaves: list[Array], states: Any,
        memory: list[Array],
    ) -> Any:  # fmt: skip
        gradient = jax.tree.leaves(problem.gradient(n, structure.unflatten(leaves)))
        scales = [jnp.where(lane.rule == EXACT, r / h, 1) for r, h in zip(norms, held, strict=True)]
        gradient = [
            g * scale if yes else g for g, scale, yes in zip(gradient, scales, chosen, strict=True)
        ]
        first, states0 = one.update(gradient, states[0])
        second, states1 = two.update(first, states[1])
        updates = zip(first, second, strict=True)
        moved = [
            _moved(lane, setting, n, w, us, s, r, h) if yes else (w - rate * (us[0] + decay * w), s)
            for w, us, s, r, h, yes in zip(
                leaves, updates, memory, norms, held, chosen, strict=True
            )
        ]
        after, memory = map(list, zip(*moved, strict=True))
        return after, (states0, states1), memory

    def step(n: Array, carry: Any) -> Any:
        held = [jnp.linalg.norm(w[0]) for w in carry[0]]
        return jax.vmap(partial(lane_step, n, held))(lanes, *carry)

    def to_save(carry: Any, save: Array) -> Any:
        carry = jax.lax.fori_loop(save * every, (save + 1) * every, step, carry)
        return carry, _looked(carry[0], begin, chosen)

    def started(lane: Lane) -> Any:
        leaves = _shifted(begin, lane.shift)
        memory = [jnp.where(lane.rule == SCALAR, 0, r**2) for r in norms]
        return leaves, (one.init(leaves), two.init(leaves)), memory

    _, seen = jax.lax.scan(to_save, jax.vmap(started)(lanes), jnp.arange(saves))
    return {**seen, "angle": jnp.swapaxes(seen["angle"], 0, 1)}


def _shifted(begin: list[Array], shift: Array) -> list[Array]:
    """Each number by so much of its own, at random."""
    key = jax.random.key(0)
    return [
        w * (1 + shift * jax.random.normal(jax.random.fold_in(key, i), w.shape))
        for i, w in enumerate(begin)
    ]


def _moved(
    lane: Lane, setting: Setting, n: Array, w: Array, us: tuple[Array, Array], s: Array, r: Array,
    held: Array,
) -> tuple[Array, Array]:  # fmt: skip
    """A scale-invariant tensor and its s after step n, by the updates `us` of both stages; `r` is
    its first norm, `held` the free run's."""
    rate, decay = setting.rate, setting.decay
    u, u2 = us
    square = jnp.sum(u**2)
    equilibrium = r * jnp.sqrt(2 * rate * decay / lane.source)
    average = B2 * s + (1 - B2) * square
    forgetting = (1 - rate * decay) ** 2 * s + lane.source * rate**2 * square
    rates = jnp.stack(
        [
            lane.factor * jnp.where(lane.second > 0, equilibrium / w.size**0.5, rate),
            lane.factor * equilibrium / jnp.sqrt(average / (1 - B2 ** (n + 1.0))),
            rate * r / jnp.sqrt(s),
            rate * r / held,
            rate * r / held / (1 - rate * decay),
            rate,
        ]
    )
    fixed = w - rates[lane.rule.astype(int)] * jnp.where(lane.second > 0, u2, u)
    fixed = fixed * (r / jnp.linalg.norm(fixed))
    after = jnp.where(lane.rule == FREE, w - rate * (u + decay * w), fixed)
    return after, jnp.where(lane.rule == SCALAR, average, forgetting)


def _looked(leaves: list[Array], begin: list[Array], chosen: tuple[bool, ...]) -> dict[str, Array]:
    """As `followed`, of all lanes at once."""
    own = [leaf.reshape(len(leaf), -1) for leaf, yes in zip(leaves, chosen, strict=True) if yes]
    start = [leaf.ravel() for leaf, yes in zip(begin, chosen, strict=True) if yes]
    return {
        "angle": jnp.stack([between(w, w[0]) for w in own], -1),
        "moved": jnp.stack([between(w[0], w0) for w, w0 in zip(own, start, strict=True)]),
        "norm": jnp.stack([jnp.linalg.norm(w[0]) for w in own]),
    }


def between(one: Array, other: Array) -> Array:
    """The angle between vectors, along the last axis; by Kahan's formula, which loses no digits
    where it is small, as the arccosine does."""
    one = one / jnp.linalg.norm(one, axis=-1, keepdims=True)
    other = other / jnp.linalg.norm(other, axis=-1, keepdims=True)
    apart, along = (jnp.linalg.norm(x, axis=-1) for x in (one - other, one + other))
    return 2 * jnp.arctan2(apart, along)
