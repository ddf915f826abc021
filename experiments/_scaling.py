"""What `noise` measures on a noisy quadratic: expected losses at several batch sizes, of rules that
scale Adam's hyperparameters, all of them on the same samples."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, ArrayLike, Float

import ct_adam as ct
from ct_adam.theory import scaling

from ._kept import Arrays, all_remembered

ANCHOR = 64
"""The batch size at which hyperparameters are given, and the largest: from 1 up b1 would become
negative."""
BATCHES = (1, 2, 4, 8, 16, 32, ANCHOR)
CURVATURES, COPIES = np.array([1.0, 2.0]), np.array([5, 1])
"""Six coordinates from θ = 1, so that |∇f| = 3; copies of one have the same expected loss."""
B2 = 0.999
NOISES = (20.0, 5.0, 1.0)
"""σ of a coordinate at the anchor: σ/|∇f| at the start is 20/3, 5/3, 1/3 (EQUATIONS §9)."""


class Case(NamedTuple):
    """A rule on a noise: σ of a coordinate at `ANCHOR`; what of it is scaled."""

    noise: float
    rule: scaling.Rule = "square_root"
    b1: float = 0.9
    eps: float = 0.0
    weight_decay: float = 0.0
    scale: tuple[str, ...] = scaling.SCALED
    learning_rate: float = 0.15

    @property
    def name(self) -> str:
        numbers = (
            f"η {self.learning_rate:g}, σ {self.noise:g}, b1 {self.b1:g}, eps {self.eps:g}, "
            f"λ {self.weight_decay:g}"
        )
        left = [name for name in scaling.SCALED if name not in self.scale]
        return f"{self.rule}, {numbers}" + (f", without {' '.join(left)}" if left else "")


def without(*names: str) -> tuple[str, ...]:
    """`scale` of all but these."""
    return tuple(name for name in scaling.SCALED if name not in names)


def noise_to_signal(noise: ArrayLike) -> Any:
    """√(tr Σ/B)/‖∇f‖ at the start, B = `ANCHOR`, of a coordinate's σ."""
    gradient = np.sqrt(np.sum(COPIES * CURVATURES**2))
    return np.sqrt(COPIES.sum()) * np.asarray(noise) / gradient


class Lane(NamedTuple):
    """Numbers of Adam at one batch size, an array each, of a lane a case."""

    learning_rate: ArrayLike
    b1: ArrayLike
    b2: ArrayLike
    eps: ArrayLike
    weight_decay: ArrayLike
    noise: ArrayLike


def lanes(cases: Sequence[Case], batch: int) -> Lane:
    rows = []
    for noise, rule, b1, eps, decay, scale, eta in cases:
        new = scaling.scaled_hyperparameters(
            batch / ANCHOR, eta, b1, B2, eps, decay, rule=rule, scale=scale
        )
        rows.append((*new[:5], noise * np.sqrt(ANCHOR)))  # σ of one sample
    # In float32 1 − b2 is known to 0.4 % at batch 1, and √v̂ of the first step with it to 0.2 %.
    return Lane(*np.array(rows, np.float32).T)


def losses(
    cases: Sequence[Case], saves: int, replicas: int, seed: int
) -> Float[np.ndarray, "save batch case"]:
    """Means of f over replicas after 64, 128, … samples; every case and batch size has the same
    noise of the samples."""
    draw = np.random.default_rng(seed)
    by_batch = [lanes(cases, batch) for batch in BATCHES]
    shape = len(cases), len(CURVATURES), replicas
    carries = [_start(lane, shape) for lane in by_batch]
    found = []
    for _ in range(saves):
        noise = draw.standard_normal((ANCHOR, len(CURVATURES), replicas), np.float32)
        carries, loss = _advance(by_batch, carries, noise)
        found.append(loss)
    return np.stack([np.asarray(loss) for loss in found])


def _optimizer(lane: Lane) -> optax.GradientTransformation:
    return ct.adamw(lane.learning_rate, lane.b1, lane.b2, lane.eps, lane.weight_decay)


def _start(lane: Lane, shape: tuple[int, ...]) -> Any:
    params = jnp.ones(shape, jnp.float32)
    return params, jax.vmap(lambda one, p: _optimizer(one).init(p))(lane, params)


@jax.jit
def _advance(by_batch: list[Lane], carries: list[Any], noise: Array) -> tuple[list[Any], Array]:
    """One batch of the anchor's size, cut into batches of every size."""
    found, rows = [], []
    for batch, lane, carry in zip(BATCHES, by_batch, carries, strict=True):
        means = noise.reshape(ANCHOR // batch, batch, *noise.shape[1:]).mean(1)
        carry = jax.vmap(_steps, (0, 0, None))(lane, carry, means)
        found.append(carry)
        per_copy = jnp.mean(carry[0] ** 2, -1) * CURVATURES.astype(np.float32) / 2
        rows.append(per_copy @ COPIES.astype(np.float32))
    return found, jnp.stack(rows)


def _steps(lane: Lane, carry: Any, means: Array) -> Any:
    curvature = CURVATURES.astype(np.float32)[:, None]

    def step(carry: Any, mean: Array) -> tuple[Any, None]:
        params, state = carry
        gradient = curvature * params + lane.noise * mean
        delta, state = _optimizer(lane).update(gradient, state, params)
        return (optax.apply_updates(params, delta), state), None

    return jax.lax.scan(step, carry, means)[0]


def groups(
    cases: Sequence[Case],
    saves: int,
    replicas: int,
    many: int,
    told: Callable[[], None],
    path: Path,
) -> Float[np.ndarray, "group save batch case"]:
    """`losses` of so many groups of replicas, kept in files that begin with `path`."""

    def group(seed: int) -> Arrays:
        return {"loss": losses(cases, saves, replicas, seed)}

    work = [
        (path.with_name(f"{path.name}-{seed}.npz"), lambda seed=seed: group(seed))
        for seed in range(many)
    ]
    return np.stack([one["loss"] for one in all_remembered(work, lambda *_: told())])


class Estimate(NamedTuple):
    """A collapse number and its interval, an array each."""

    value: np.ndarray
    low: np.ndarray
    high: np.ndarray


def collapse_of_means(
    loss: Float[np.ndarray, "group save batch *case"], comparisons: int = 1
) -> Estimate:
    """max over saves and batches of |L_B/L_ref − 1|, of the expected losses and with the last batch
    as reference, from three independent groups at least: one of so many intervals that all hold at
    once with 95 % (Bonferroni).

    The largest of many means that err lies too high, and has no standard error of its own. So a
    quarter of the groups chooses where and in which direction curves are farthest apart, and the
    others say how far: `value`, and `low` by Student's t. Where the choice is not the true place
    this is less than the collapse number, never more. `high` is the largest upper limit of any
    place: it can only be too low if that of the true place is.
    """
    from scipy import stats

    tail = 0.025 / comparisons
    few = max(1, len(loss) // 4)
    mean, error = _apart(loss)
    high = (np.abs(mean) + stats.t.isf(tail, len(loss) - 1) * error).max((0, 1))
    choice = loss[:few].mean(0, dtype=float)
    choice = (choice / choice[:, -1:] - 1).reshape(-1, *loss.shape[3:])
    place = np.abs(choice).argmax(0)[None]
    sign = np.sign(np.take_along_axis(choice, place, 0)[0])
    mean, error = (
        np.take_along_axis(x.reshape(choice.shape), place, 0)[0] for x in _apart(loss[few:])
    )
    reach = stats.t.isf(tail, len(loss) - few - 1) * error
    value = np.maximum(sign * mean, 0)
    return Estimate(value, np.maximum(sign * mean - reach, 0), np.maximum(high, value))


def _apart(loss: Float[np.ndarray, "group save batch *case"]) -> tuple[np.ndarray, np.ndarray]:
    """L_B/L_ref − 1 of the means over groups, and its standard error, by the groups' differences
    from it (the delta method), as all batch sizes of a group have the same samples."""
    mean = loss.mean(0, dtype=float)
    ratio = mean / mean[:, -1:]
    left = (loss - ratio * loss[:, :, -1:]) / mean[:, -1:]
    return ratio - 1, left.std(0, ddof=1) / np.sqrt(len(loss))
