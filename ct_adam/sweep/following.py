"""How well flows follow an optimizer: several flows and one discrete run from one start."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
import optax
from jaxtyping import PyTree

from ..decays import check_hyperparameters
from ..flows import AbstractFlow
from ..flows.registry import FLOWS, flow_named, published
from ..optimizers.registry import optimizer_named
from ..problems import AbstractProblem
from ..problems.models import count_parameters
from ..problems.registry import problem_named
from ..simulate import OUTCOME, RunError, Trajectory, compare, run, solve
from ..simulate.trajectory import check_steps, outcome_name
from .provenance import provenance

if TYPE_CHECKING:
    import xarray


@dataclass(frozen=True)
class FollowConfig:
    """Which flows beside which optimizer, on what."""

    problem: str = "digits_mlp"
    """a problem's name, or your own as package.module:factory"""
    optimizer: str = "adamw"
    """adamw, adam_l2, adam_prox, sgdw, sign_descent, l2_descent, optax's as optax:adan, or your own
    as package.module:factory"""
    flow: str = "log,lag,paper"
    """flows by name, with commas: log, lag, euler, paper, sme, staggered, modified, memoryless,
    sign, rmsprop_stable, heavy_ball, gradient, interpolating, interpolating-P (order P),
    interpolating-PxQ (stride Q), interpolating-PdS (degree S), interpolating-auto; list: a table
    of them"""
    steps: int = 200
    """optimizer steps"""
    learning_rate: float = 1e-3
    """η of a step"""
    b1: float = 0.9
    """first-moment decay; the momentum of sgdw"""
    b2: float = 0.999
    """second-moment decay"""
    eps: float = 1e-8
    """added to the root of the second moment"""
    weight_decay: float = 0.0
    """λ: decoupled, of adam_l2 part of the gradient"""
    warm_steps: int = 0
    """discrete steps before the flows take over"""
    points: int = 101
    """steps that are compared, evenly over the run"""
    rtol: float = 1e-6
    """relative tolerance of the solver"""
    atol: float = 1e-9
    """its absolute tolerance of parameters"""
    seed: int = 0
    """of the problem's start and data"""
    max_solver_steps: int | None = None
    """budget of each flow; the default grows with steps"""

    def __post_init__(self) -> None:
        check_steps(self.steps, self.warm_steps)
        check_hyperparameters(_hyperparameters(self))
        if self.points < 2:
            raise ValueError(f"points = {self.points} must be at least 2.")
        if self.warm_steps:
            for name in self.flows:
                _check_takes_over(name, self.optimizer)

    @property
    def flows(self) -> list[str]:
        """The names in `flow`, each checked."""
        names = [name.strip() for name in self.flow.split(",") if name.strip()]
        for name in names:
            published(name)
        if len(set(names)) < len(names):
            raise ValueError(f"flow = {self.flow!r} names a flow twice: name each once.")
        if not names:
            raise ValueError(f"flow is empty: choose among {', '.join(FLOWS)}.")
        return names


def _check_takes_over(name: str, optimizer: str) -> None:
    """A flow takes its warm steps with its own optimizer, which must be the one of the run."""
    possible = published(name).takes_over
    if possible is None or optimizer in possible:
        return
    theirs = f"that of {' or '.join(possible)}" if possible else "none"
    raise ValueError(
        f"warm_steps: flow {name} can take over {theirs}, not the state of {optimizer}; "
        "interpolating flows can."
    )


def follow(
    config: FollowConfig | None = None, progress: Callable[[str], None] | None = None
) -> "xarray.Dataset":
    """Runs the optimizer and every flow, and measures how far they come apart.

    **Returns:** a dataset over (flow, step): `error`, largest |difference| over all parameters,
    and `loss`; over step `optimizer_loss`; over flow `max_error`, `rms_error`, `relative_error`
    (of the distance travelled; infinite where flow or optimizer did not get as far as the other),
    `distance` (that distance), `solver_steps`, `evaluations`, `wall_seconds` (compilation
    included), `outcome`, and of interpolating flows `trusted` ("yes", "no", or "–" of the others),
    `trust_estimate` (of the relative error), `trust_advice`, `trust_order` and `trust_stride`.
    Both sides are saved at the same whole steps: nothing is interpolated on the discrete side.

    Ctrl-C keeps the flows that are done.

    **Raises:** `ValueError` for bad input.
    """
    config = FollowConfig() if config is None else config
    names = config.flows
    begun = time.perf_counter()
    problem, params = problem_named(config.problem, config.seed)
    saved = np.unique(np.linspace(0, config.steps, config.points).round().astype(int))
    optimizer = optimizer_named(config.optimizer, **_hyperparameters(config))
    decay = "l2" if config.optimizer == "adam_l2" else "decoupled"
    # All of them before the first run: a bad setting of the last costs nothing.
    flows = [flow_named(x, optimizer, **_hyperparameters(config), decay=decay) for x in names]
    tell = progress or (lambda label: None)
    tell(config.optimizer)
    discrete = _discrete(optimizer, config, problem, params, saved, progress is not None)
    rows = []
    try:
        for name, flow in zip(names, flows, strict=True):
            tell(name)
            path, seconds = _timed(flow, config, problem, params, saved, progress is not None)
            rows.append(_row(path, discrete, seconds))
    except KeyboardInterrupt:
        if not rows:
            raise
    total = time.perf_counter() - begun
    dataset = _dataset(config, names[: len(rows)], rows, discrete, params, total)
    return dataset.assign_attrs(interrupted=int(len(rows) < len(names)))


def _hyperparameters(config: FollowConfig) -> dict[str, float]:
    names = ("learning_rate", "b1", "b2", "eps", "weight_decay")
    return {name: getattr(config, name) for name in names}


def _discrete(
    optimizer: optax.GradientTransformation,
    config: FollowConfig,
    problem: AbstractProblem,
    params: PyTree,
    saved: np.ndarray,
    progress: bool,
) -> Trajectory:
    path = run(
        optimizer,
        problem,
        params,
        config.steps,
        save_steps=saved,
        warm_steps=config.warm_steps,
        learning_rate=config.learning_rate,
        weight_decay=config.weight_decay,
        progress=progress,
    )
    if path.result == OUTCOME.nonfinite_start:
        raise RunError(OUTCOME[path.result])
    return path


def _timed(
    flow: AbstractFlow,
    config: FollowConfig,
    problem: AbstractProblem,
    params: PyTree,
    saved: np.ndarray,
    progress: bool,
) -> tuple[Trajectory, float]:
    begun = time.perf_counter()
    path = solve(
        flow,
        problem,
        params,
        config.steps,
        save_steps=saved,
        warm_steps=config.warm_steps,
        rtol=config.rtol,
        atol=config.atol,
        throw=False,
        progress=progress,
        max_solver_steps=config.max_solver_steps,
    )
    jax.block_until_ready(path.params)
    return path, time.perf_counter() - begun


def _row(path: Trajectory, discrete: Trajectory, seconds: float) -> dict[str, Any]:
    distance = compare(path, discrete)
    spent = path.stats["evaluations"]
    steps = np.asarray(discrete.steps)
    error = np.full(len(steps), np.nan)
    error[np.isin(steps, distance.steps)] = distance.per_step
    return {
        "error": error,
        "loss": np.asarray(path.loss),
        "max_error": distance.max_error,
        "rms_error": distance.rms_error,
        "relative_error": distance.relative_error,
        "distance": distance.distance,
        "solver_steps": int(path.stats["num_steps"]),
        "evaluations": -1 if spent is None else int(spent),
        "wall_seconds": seconds,
        "outcome": outcome_name(path.result),
        **_trust(path.trust),
    }


def _trust(trust: Any) -> dict[str, Any]:
    """What an interpolating flow says of itself; other flows say nothing."""
    if trust is None:
        nothing = {"trusted": "–", "trust_estimate": np.nan, "trust_advice": ""}
        return nothing | {"trust_order": 0, "trust_stride": 0}
    return {
        "trusted": "yes" if trust.trusted else "no",
        "trust_estimate": float(trust.estimate),
        "trust_advice": trust.advice,
        "trust_order": trust.order,
        "trust_stride": trust.stride,
    }


_LABELS = {
    "error": ("largest |flow − optimizer| over all parameters", "1"),
    "loss": ("loss of the flow", "1"),
    "max_error": ("largest error over steps and parameters", "1"),
    "rms_error": ("root mean square error", "1"),
    "relative_error": ("largest error over the distance travelled", "1"),
    "distance": ("distance that the optimizer travelled", "1"),
    "solver_steps": ("solver steps", "1"),
    "evaluations": ("gradient evaluations", "1"),
    "wall_seconds": ("wall time, compilation included", "s"),
    "outcome": ("how the flow ended", "1"),
    "trusted": ("whether an interpolating flow can be trusted", "1"),
    "trust_estimate": ("its own estimate of the relative error", "1"),
    "trust_advice": ("what to change", "1"),
    "trust_order": ("its order, 0 of other flows", "1"),
    "trust_stride": ("its stride, 0 of other flows", "steps"),
}


def _dataset(
    config: FollowConfig,
    names: list[str],
    rows: list[dict[str, Any]],
    discrete: Trajectory,
    params: PyTree,
    seconds: float,
) -> "xarray.Dataset":
    import xarray

    steps = np.asarray(discrete.steps)
    dataset = xarray.Dataset(
        coords={
            "flow": names,
            "step": ("step", steps, {"long_name": "optimizer step", "units": "steps"}),
        }
    )
    for key, (label, units) in _LABELS.items():
        values = np.stack([np.asarray(row[key]) for row in rows])
        dims = ("flow", "step") if values.ndim == 2 else ("flow",)
        dataset[key] = (dims, values, {"long_name": label, "units": units})
    dataset["optimizer_loss"] = ("step", np.asarray(discrete.loss), {"long_name": "loss"})
    dataset.attrs = provenance(config, seconds) | {
        "parameters": count_parameters(params),
        "optimizer_outcome": outcome_name(discrete.result),
    }
    return dataset
