"""Trajectories on a coarse grid of decays, computed beforehand: what a click on the map shows."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, PyTree

from ..ensemble import Case
from ..ensemble.reductions import largest
from ..flows import AbstractFlow
from ..flows.registry import is_flow
from ..optimizers.registry import OPTIMIZERS
from ..problems.registry import PROBLEMS
from ..progress import Progress
from ..simulate import run, solve
from ..sweep import RegionConfig
from ..sweep.configured import STREAMS, config_from, sweep_of
from ..sweep.panels import panels_of
from .encoding import encode
from .maps import METHODS, Map

POINTS = 101
"""Of a trajectory at most: about one a pixel column of the small figure."""
_VALUES = 3
"""Of each dimension beside the decays: the first, the middle one and the last."""


@dataclass(frozen=True)
class Trajectories:
    """Size of the update and loss along runs of a map's coarse grid; or why there are none.

    `values`: `places` by dimension (the map's own indices), `steps` (n,), `update` and `loss`
    (dims…, b1, b2, n).
    """

    values: dict[str, Any] | None
    why: str = ""

    def as_json(self) -> dict[str, Any]:
        if self.values is None:
            return {"why": self.why}
        loss = self.values["loss"]
        return {
            "places": {name: list(map(int, of)) for name, of in self.values["places"].items()},
            "steps": self.values["steps"].tolist(),
            "update": encode(self.values["update"]),
            "loss": encode(loss) if np.isfinite(loss).any() else None,
        }


@dataclass(frozen=True)
class _Program:
    """What a store's lanes were: the same call as the sweep's, from its settings."""

    makes: Mapping[str, Callable[..., Any]]
    problem: Any
    params: PyTree
    steps: int
    warm_steps: int
    tolerances: dict[str, Any]


def coarse_trajectories(
    found: Map, side: int, own_code: bool = False, progress: Progress | None = None
) -> Trajectories:
    """Runs the lanes of a coarse grid again, with their paths.

    **Arguments:**

    - `found`: a map of `read_maps`. `side`: pairs of decays a side of the coarse grid; 0: none.
    - `own_code`: whether to import a `package.module:factory` that the store names. A store is
        data; it is not run as a program unless its reader says so.
    - `progress`: is told `(what, done, total)`.

    **Returns:** the trajectories, or the reason why there are none, in a sentence's end.
    """
    if side < 1:
        return Trajectories(None, "none were asked for")
    try:
        if "learning_rate" in found.data.sizes and not found.about["sweep"]:
            return _by_rate(found, side, own_code, progress)
        return _coarse(found, _program(found, own_code), side, progress)
    except (ValueError, TypeError, OSError, KeyError) as error:
        return Trajectories(None, str(error).rstrip("."))


def _by_rate(found: Map, side: int, own_code: bool, progress: Progress | None) -> Trajectories:
    """Of several stores that differ in the learning rate: each by its own settings."""
    chosen = _spread(found.data.sizes["learning_rate"], _VALUES)
    parts = []
    for place in chosen:
        rate = float(found.data.learning_rate[place])
        config = found.about["config"] | {"learning_rate": rate}
        one = replace(
            found,
            data=found.data.isel(learning_rate=place, drop=True),
            about=found.about | {"config": config},
        )
        parts.append(_coarse(one, _program(one, own_code), side, progress).values)
    first, axis = parts[0], found.dims.index("learning_rate")
    stacked = {name: np.stack([part[name] for part in parts], axis) for name in ("update", "loss")}
    places = {dim: first["places"].get(dim, chosen) for dim in (*found.dims, "b1", "b2")}
    return Trajectories({**first, **stacked, "places": places})


def _coarse(found: Map, program: _Program, side: int, progress: Progress | None) -> Trajectories:
    places = {dim: _spread(found.data.sizes[dim], _VALUES) for dim in found.dims}
    places |= {b: _spread(found.data.sizes[b], side) for b in ("b1", "b2")}
    for dim in METHODS:
        if dim in places:
            places[dim] = np.arange(found.data.sizes[dim])
    save_steps = np.unique(np.linspace(0, program.steps, POINTS).round().astype(int))
    methods, lanes = list(found.methods), _lanes(found, places)
    each = len(next(iter(lanes.values())))
    paths = []
    for k, method in enumerate(methods):
        if progress is not None:
            progress(f"trajectories of {found.name}, {method}", k * each, len(methods) * each)
        paths.append(_paths(program, program.makes[method], lanes, save_steps))
    if progress is not None:
        progress(f"trajectories of {found.name}", len(methods) * each, len(methods) * each)
    shape = [*map(len, places.values()), len(save_steps)]
    # The methods come first among the dims, where there is such a dimension.
    update, loss = (np.stack([path[i] for path in paths]).reshape(shape) for i in range(2))
    values = {"places": places, "steps": save_steps, "update": update, "loss": loss}
    return Trajectories(values)


def _spread(length: int, most: int) -> np.ndarray:
    """Places of at most `most` values, both ends among them."""
    if most == 1:
        return np.array([length // 2])
    return np.unique(np.linspace(0, length - 1, min(length, most)).round().astype(int))


def _lanes(found: Map, places: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The columns of all combinations of the places but those of the method, in their order."""
    data = found.data
    dims = [dim for dim in places if dim not in METHODS]
    grid = np.meshgrid(*(places[dim] for dim in dims), indexing="ij")
    return {
        str(name): data[name].values[grid[dims.index(str(data[name].dims[0]))].ravel()]
        for name in data.coords
        if len(data[name].dims) == 1 and data[name].dims[0] in dims
    }


def _paths(
    program: _Program,
    make: Callable[..., Any],
    lanes: dict[str, np.ndarray],
    save_steps: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """‖u‖_∞ and the loss of each lane at `save_steps`; NaN from where a run did not go on."""
    one = partial(_path, program, make, save_steps)
    update, loss = jax.jit(partial(jax.lax.map, one))(
        {name: jnp.asarray(column) for name, column in lanes.items()}
    )
    return np.asarray(update), np.asarray(loss)


def _path(
    program: _Program, make: Callable[..., Any], save_steps: np.ndarray, lane: dict[str, Array]
) -> tuple[Array, Array]:
    made = make(**lane)
    case = made if isinstance(made, Case) else Case(made)
    loss = program.problem if case.loss is None else case.loss
    params = program.params if case.params is None else case.params
    common = {"save_steps": save_steps, "save": _seen, "warm_steps": program.warm_steps}
    if isinstance(case.method, AbstractFlow):
        path = solve(
            case.method,
            loss,
            params,
            program.steps,
            adjoint=diffrax.ForwardMode(),
            throw=False,
            **program.tolerances,
            **common,
        )
    else:
        path = run(case.method, loss, params, program.steps, **common)
    assert path.saved is not None
    return path.saved, path.loss


def _seen(step: Any, params: PyTree, update: PyTree, loss: Array) -> Array:
    del step, params, loss
    return largest(update)


def _program(found: Map, own_code: bool) -> _Program:
    """`ValueError` with a reason where the store's settings do not say how to run it."""
    config = found.about["config"]
    if not config:
        raise ValueError("the store does not say how its lanes are made (it comes from Python)")
    if found.about["sweep"]:
        return _of_sweep(config, own_code)
    return _of_region(found, config, own_code)


def _of_region(found: Map, config: dict[str, Any], own_code: bool) -> _Program:
    given: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in config.items()}
    known = RegionConfig(**given)
    _check_names(own_code, known.optimizer, problem=known.problem)
    one = known if known.problem else replace(known, panels=(found.name,))
    panel = panels_of(one)[found.name]
    return _Program(panel.make, panel.problem, panel.params, panel.steps, 0, panel.tolerances)


def _of_sweep(config: dict[str, Any], own_code: bool) -> _Program:
    known = config_from(config)
    _check_names(own_code, known.optimizer, *known.methods, problem=known.problem)
    sweep = sweep_of(known)
    makes = sweep.make if isinstance(sweep.make, Mapping) else {known.methods[0]: sweep.make}
    tolerances = {
        "rtol": sweep.rtol,
        "atol": sweep.atol,
        "max_solver_steps": sweep.max_solver_steps,
    }
    return _Program(makes, sweep.loss, sweep.params, sweep.steps, sweep.warm_steps, tolerances)


def _check_names(own_code: bool, *methods: str, problem: str | None) -> None:
    """Nothing is imported because a store says so; optax's own functions are at hand anyhow."""
    strange = [name for name in methods if not _is_ours(name)]
    if problem is not None and problem not in (*PROBLEMS, *STREAMS):
        strange.append(problem)
    if strange and not own_code:
        raise ValueError(
            f"the store names code of its own ({strange[0]}), which is run only with --own-code"
        )


def _is_ours(name: str) -> bool:
    module, colon, attribute = name.partition(":")
    own = colon and module == "optax" and callable(getattr(optax, attribute, None))
    return bool(own) or name in OPTIMIZERS or is_flow(name)
