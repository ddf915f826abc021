"""‖x‖_∞ of a language model in full-batch training by Adam and AdamW (EQUATIONS §5)."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, PyTree

import ct_adam as ct
from ct_adam.problems import AbstractProblem, full_batch, text_network
from ct_adam.theory import residuals

from . import Progress
from ._kept import Arrays, all_remembered, remembered
from ._linf import harmonic

if TYPE_CHECKING:
    import xarray

PAIRS = ((0.9, 0.95), (0.95, 0.95), (0.9, 0.99), (0.9, 0.999), (0.97, 0.95), (0.99, 0.9))
"""Of the first moment's decay and the second's. The last two have b1 > b2: one with b1² < b2, where
updates are bounded (EQUATIONS §2), one without."""
DECAYS = (1.0, 2.0)
SCALE = 4.0
"""Of the start that is further outside."""


class Run(NamedTuple):
    """One training; λ = 0 is Adam."""

    b1: float
    b2: float
    weight_decay: float
    scale: float = 1.0


class Training(NamedTuple):
    """What is trained, and how: η is constant for `flat` steps, then falls as 1/n."""

    data: str
    context: int
    windows: int
    learning_rate: float
    flat: int
    steps: int
    every: int

    def rates(self) -> np.ndarray:
        return np.asarray(harmonic(np.arange(self.steps), self.learning_rate, self.flat))


def runs_of(pairs: Sequence[tuple[float, float]], adam: bool) -> list[Run]:
    """AdamW at all pairs and λ; a scaled start, largest λ; Adam at the last pair with b1 ≤ b2."""
    runs = [Run(*pair, decay) for pair in pairs for decay in DECAYS]
    if adam:
        runs.append(Run(*pairs[0], DECAYS[-1], SCALE))
        runs += [Run(*pair, 0.0) for pair in pairs if pair[0] <= pair[1]][-1:]
    return runs


def trained(
    runs: Sequence[Run], training: Training, folder: Path, progress: Progress
) -> "xarray.Dataset":
    """Over (run, step) loss, ‖x‖_∞ and residuals; runs are kept in the folder. Float32, eps = 0."""
    import xarray

    problem, params = model(training)
    work = [partial(_train, problem, params, run, training) for run in runs]
    files = [folder / f"{i}.npz" for i in range(len(runs))]
    # The first alone compiles for all.
    found = [remembered(files[0], work[0])]
    progress("language model", 1, len(runs))
    found += all_remembered(
        list(zip(files[1:], work[1:], strict=True)),
        lambda i, _: progress("language model", i + 2, len(runs)),
    )
    names = ("norm", "stationarity", "feasibility", "gradient", "loss")
    coords = {name: ("run", [getattr(run, name) for run in runs]) for name in Run._fields}
    return xarray.Dataset(
        {name: (("run", "step"), np.array([one[name] for one in found])) for name in names},
        coords={**coords, "step": np.arange(0, training.steps + 1, training.every)},
        attrs={
            "rates": training.rates(),
            "parameters": sum(leaf.size for leaf in jax.tree.leaves(params)),
        },
    )


def model(training: Training) -> tuple[AbstractProblem, PyTree]:
    """The small transformer on the text's first windows, all of them at every step."""
    made, params = text_network(
        training.data, context=training.context, held_out=1, dtype=jnp.float32
    )
    return full_batch(made.loss, made.data[: training.windows]), params


def _train(problem: AbstractProblem, params: PyTree, run: Run, training: Training) -> Arrays:
    # Numbers as arrays: one program for all runs.
    numbers = jnp.array([*run[:3], training.learning_rate, training.flat], jnp.float32)
    start = jax.tree.map(lambda p: run.scale * p, params)
    seen, loss = _path(problem, start, numbers, training.steps + 1)
    every = slice(None, None, training.every)
    found = {**seen._asdict(), "loss": loss}
    return {name: np.asarray(values)[every] for name, values in found.items()}


@eqx.filter_jit
def _path(problem: AbstractProblem, params: PyTree, numbers: Array, steps: int) -> Any:
    """Residuals and loss at every step; not by `ct.run`, whose observer has no gradient."""
    b1, b2, decay, eta, flat = numbers
    rate = partial(harmonic, learning_rate=eta, flat=flat)
    optimizer = ct.adamw(rate, b1, b2, eps=0.0, weight_decay=decay)

    def step(carry: Any, _: None) -> Any:
        params, state = carry
        loss, gradient = jax.value_and_grad(problem.value)(params)
        delta, state = optimizer.update(gradient, state, params)
        after = optax.apply_updates(params, delta)
        return (after, state), (residuals(params, gradient, decay), loss)

    return jax.lax.scan(step, (params, optimizer.init(params)), None, steps)[1]
