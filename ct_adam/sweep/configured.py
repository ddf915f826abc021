"""A sweep from names and words: what the command line and a TOML file can say."""

import math
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal

import jax.numpy as jnp
import numpy as np
import optax

from ..decays import RATES, choice
from ..ensemble import Case
from ..ensemble.compiled import ENGINES
from ..flows import AbstractFlow
from ..flows.registry import flow_named, is_flow
from ..optimizers import Optimizer, UpdateRule
from ..optimizers.registry import optimizer_named, takes
from ..problems import vanishing_stream
from ..problems.registry import problem_named
from .axes import OWN, Axis, parse
from .grid import Grid, named
from .panels import STREAM_SCALE, check_float64, scaled_worst_case
from .refine import Refine
from .seeds import Pick, by_seed
from .sweep import METRICS, Sweep

STREAMS = ("worst_case", "vanishing")
_SWEPT = ("b1", "b2", "learning_rate", "eps", "weight_decay", "seed")


@dataclass(frozen=True)
class SweepConfig:
    """What to sweep over what.

    A hyperparameter is a number, numbers with commas, or an axis: linear:START:STOP:NUM,
    log:START:STOP:NUM, 1-log:START:STOP:NUM (evenly in ln(1 − value)), cells:LOW:HIGH:NUM (centres
    of cells), seeds:NUM.
    """

    problem: str = "quadratic"
    """a problem's name, your own as package.module:factory, or a stream of gradients with eps = 0
    and learning rate 1: worst_case, vanishing"""
    method: str = "adamw"
    """what is swept, with commas: optimizers (adamw, adam_l2, adam_prox, sgdw, optax:adan, your own
    as package.module:factory) and flows (log, lag, paper, interpolating-2, …)"""
    optimizer: str = "adamw"
    """what an interpolating flow follows"""
    steps: int = 300
    """optimizer steps of a run"""
    b1: str = "cells:0.5:1:64"
    """first-moment decay"""
    b2: str = "cells:0.5:1:64"
    """second-moment decay"""
    curve: str = ""
    """pairs in place of b1 and b2: normal:B1:B2:NUM or level:C:LOW:HIGH:NUM"""
    learning_rate: str = "1e-2"
    """η of a step"""
    eps: str = "1e-8"
    """added to the root of the second moment"""
    weight_decay: str = "0"
    """λ: decoupled, of adam_l2 part of the gradient"""
    seed: str = "0"
    """of the problem's start and data"""
    warm_steps: int = 0
    """discrete steps before a flow takes over"""
    rtol: float = 1e-6
    """relative tolerance of a flow's solver"""
    atol: float = 1e-9
    """its absolute tolerance of parameters"""
    max_solver_steps: int | None = None
    """budget of a lane; the default grows with steps"""
    engine: str = "auto"
    """auto, reference, cohort or fused"""
    metrics: str = ",".join(METRICS)
    """what is kept of a lane, with commas; also min_loss, final_params"""
    tile: int | None = None
    """lanes a tile, the unit of work; the default depends on the engine"""
    refine: Literal["no", "boundary"] = "no"
    """boundary: cut only the cells finer that the boundary crosses; b1 and b2 as cells:…"""
    resolution: float = 2.0**-10
    """of the boundary in b2"""
    variable: str = "update_slope"
    """whose level the boundary is"""
    threshold: float | None = None
    """that level; of update_slope 1/steps"""

    def __post_init__(self) -> None:
        choice("engine", self.engine, ENGINES)
        choice("refine", self.refine, ("no", "boundary"))
        for name in self.methods:
            if self.problem == "worst_case" and name not in (*RATES, "adamw"):
                raise ValueError(
                    f"method {name!r}: the worst case is known of adamw, log, lag and euler."
                )

    @property
    def methods(self) -> list[str]:
        names = [name.strip() for name in self.method.split(",") if name.strip()]
        if not names or len(set(names)) < len(names):
            raise ValueError(f"method = {self.method!r}: name one at least, and each once.")
        return names


def sweep_of(config: SweepConfig) -> Sweep:
    """The sweep that a configuration describes.

    **Raises:** `ValueError` for unknown names, bad axes, and where nothing varies.

    !!! example
        >>> config = SweepConfig(b1="0.9", b2="1-log:0.9:0.999:8", learning_rate="1e-3,1e-2")
        >>> sweep_of(config).grid.shape
        (8, 2)
    """
    axes = _axes(config)
    columns = {name: x for dim, axis in axes.items() for name, x in named(dim, axis).items()}
    fixed = {name: values[0].item() for name, values in columns.items() if len(values) == 1}
    varied = {dim: axis for dim, axis in axes.items() if len(axis) > 1}
    if not varied:
        raise ValueError("Nothing varies: give b1, b2 or another an axis, e.g. linear:0.8:0.99:32.")
    _check_taken(config, varied)
    stream, seeds = config.problem in STREAMS, columns["seed"].tolist()
    if stream:
        _check_felt(config.problem, varied)
    pick = by_seed(config.problem, seeds) if len(seeds) > 1 and not stream else None
    loss, start = (None, jnp.zeros(1)) if stream else problem_named(config.problem, seeds[0])
    makes = {name: _make(config, name, fixed, pick) for name in config.methods}
    return Sweep(
        makes if len(makes) > 1 else next(iter(makes.values())),
        loss,
        start,
        config.steps,
        Grid(**varied),
        engine=config.engine,
        rtol=config.rtol,
        # The parameters of a stream feel nothing back: their error is not asked for.
        atol=math.inf if stream else config.atol,
        max_solver_steps=config.max_solver_steps,
        warm_steps=config.warm_steps,
        metrics=tuple(name.strip() for name in config.metrics.split(",")),
        tile=config.tile,
        refine=_refine(config),
        config=asdict(config),
    ).made_by(sweep_of, config)


def read_config(file: Path) -> SweepConfig:
    """A configuration from a TOML file: its keys are those of `SweepConfig`, lists are axes.

    **Raises:** `ValueError` for a key that is unknown, or no TOML.
    """
    try:
        table = tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"Cannot read {file} ({error.strerror}): name a TOML file.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{file} is no TOML: {error}.") from None
    try:
        return config_from(table)
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from None


def config_from(table: Mapping[str, Any]) -> SweepConfig:
    """A configuration from a table, numbers and lists as words."""
    known = {field.name: field for field in fields(SweepConfig)}
    table = {name.replace("-", "_"): value for name, value in table.items()}
    for name in table:
        if name not in known:
            raise ValueError(f"{name!r} is unknown: there are {', '.join(known)}.")
    given = {name: value for name, value in table.items() if value is not None}
    return SweepConfig(**{name: _typed(known[name], value) for name, value in given.items()})


def _typed(field: Any, value: Any) -> Any:
    if field.type is str:
        return ",".join(map(str, value)) if isinstance(value, list) else str(value)
    if field.type in (float, float | None) and type(value) not in (int, float):
        raise ValueError(f"{field.name} = {value!r} must be a number.")
    if field.type in (int, int | None) and type(value) is not int:
        raise ValueError(f"{field.name} = {value!r} must be a whole number.")
    return value


def _check_taken(config: SweepConfig, varied: Mapping[str, Axis]) -> None:
    """Lanes that differ in what no method takes are one lane many times over."""
    if any(is_flow(method) for method in config.methods):
        return
    names = [name for dim, axis in varied.items() for name in named(dim, axis) if name != "seed"]
    waste = [name for name in names if not any(takes(method, name) for method in config.methods)]
    if waste:
        raise ValueError(
            f"{config.method} takes no {', '.join(waste)}: give one number there, as "
            f"{waste[0]} = 0.9, or a method that does."
        )


def _check_felt(problem: str, varied: Mapping[str, Axis]) -> None:
    for name in ("learning_rate", "eps", "seed"):
        if name in varied:
            raise ValueError(f"{name}: updates on {problem} do not feel it: leave it out.")


def _refine(config: SweepConfig) -> Refine | None:
    if config.refine == "no":
        return None
    return Refine(config.resolution, config.variable, config.threshold)


def _axes(config: SweepConfig) -> dict[str, Axis]:
    axes = {name: _axis(config, name) for name in _SWEPT}
    for name, axis in axes.items():
        if set(axis.columns) != {OWN}:
            raise ValueError(f"{name} = {getattr(config, name)!r} sets b1 and b2: say --curve.")
    seeds = axes["seed"].columns[OWN]
    if seeds.dtype.kind != "i":
        raise ValueError(f"seed = {config.seed!r}: give whole numbers, or seeds:NUM.")
    if len(np.unique(seeds)) < len(seeds):
        raise ValueError(f"seed = {config.seed!r} names one twice: name each once.")
    if not config.curve:
        return axes
    for name in ("b1", "b2"):
        if getattr(config, name) != getattr(SweepConfig, name):
            raise ValueError(f"curve sets b1 and b2: leave {name} = {getattr(config, name)} out.")
    curve = _axis(config, "curve")
    if set(curve.columns) != {"b1", "b2"}:
        raise ValueError(
            f"curve = {config.curve!r}: give normal:B1:B2:NUM or level:C:LOW:HIGH:NUM."
        )
    return {"curve": curve} | {name: a for name, a in axes.items() if name not in ("b1", "b2")}


def _axis(config: SweepConfig, name: str) -> Axis:
    try:
        return parse(getattr(config, name))
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None


def _make(
    config: SweepConfig, name: str, fixed: Mapping[str, Any], pick: Pick | None
) -> Callable[..., Case]:
    """A lane of one method: the hyperparameters that do not vary stay Python's numbers."""
    if config.problem in STREAMS:
        return _stream_lane(config, name, fixed)

    def make(**lane: Any) -> Case:
        values = {**fixed, **lane}
        seed = values.pop("seed")
        method = _method(config, name, values)
        return Case(method) if pick is None else Case(method, *pick(seed))

    return make


def _stream_lane(config: SweepConfig, name: str, fixed: Mapping[str, Any]) -> Callable[..., Case]:
    """The update does not feel eps or the learning rate; nor does the stream's scale matter."""
    check_float64()
    seen = config.warm_steps + config.steps + 1
    vanishing = vanishing_stream(seen, seen // 2, STREAM_SCALE)

    def make(**lane: Any) -> Case:
        values = {**fixed, **lane, "learning_rate": 1.0, "eps": 0.0}
        del values["seed"]
        stream = vanishing
        if config.problem == "worst_case":
            rates: Any = None if name == "adamw" else name
            b1, b2 = values["b1"], values["b2"]
            stream = scaled_worst_case(b1, b2, seen, rates)
        return Case(_method(config, name, values), stream)

    return make


def _method(
    config: SweepConfig, name: str, values: dict[str, Any]
) -> AbstractFlow | optax.GradientTransformation:
    if is_flow(name):
        return flow_named(name, optimizer_named(config.optimizer, **values), **values)
    made = optimizer_named(name, **values)
    if isinstance(made, Optimizer):
        return made
    return Optimizer.make(made, UpdateRule(values["learning_rate"], values["weight_decay"]), {})
