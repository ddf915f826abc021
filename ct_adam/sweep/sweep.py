"""`ct.Sweep`: an ensemble over a grid, kept on disk tile by tile."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from jaxtyping import PyTree

from ..ensemble.prepared import Prepared, prepared
from ..problems import AbstractProblem
from ..problems.base import Loss
from ..progress import Progress, progress_bar
from ..simulate.trajectory import Save
from .execute import execute
from .grid import Grid, slabs
from .opened import open as open_store
from .provenance import surroundings
from .refine import Refine
from .work import Level

if TYPE_CHECKING:
    import xarray

METRICS = ("max_update", "update_slope", "final_loss", "outcome", "evaluations")
Make = Callable[..., Any]
_TILES = 16
"""At least so many tiles, where a tile of the smallest size allows it."""
_TILE = {"fused": (2**12, 2**16), "cohort": (2**4, 2**6), "reference": (2**4, 2**6)}
"""Lanes of the smallest and the largest tile by default: large enough that its files cost nothing
beside it, small enough to lose."""
_TILE_GPU = (2**16, 2**18)


@dataclass(frozen=True, eq=False)
class Sweep:
    """`ct.ensemble` over all points of a grid, into a store that survives a kill.

    **Arguments:**

    - `make`: as in `ct.ensemble`, of the grid's columns; or several by name, which become a first
        dimension `dynamics` (`method` is a word of xarray's `sel`).
    - `loss`, `params`, `steps`, `engine`, `rtol`, `atol`, `max_solver_steps`, `warm_steps`, `save`,
        `metrics`: as in `ct.ensemble`; `final_params` is left out unless asked for.
    - `grid`: a `ct.Grid`.
    - `tile`: lanes a tile, the unit of work and of loss; by default a sixteenth of the grid, within
        4096 … 65536 of a fused kernel and 16 … 64 of the other engines.
    - `refine`: a `ct.Refine`, to follow a boundary.
    - `config`: what the store should say of itself beyond that, of JSON's types.

    **Raises:** `ValueError` for bad input, before anything runs.

    !!! example
        >>> import ct_adam as ct, jax.numpy as jnp, tempfile
        >>> sweep = ct.Sweep(
        ...     lambda b1, b2: ct.k_adam(1e-2, b1, b2), lambda x: jnp.sum(x**2), jnp.ones(2), 20,
        ...     ct.Grid(b1=[0.5, 0.9], b2=ct.axes.linear(0.9, 0.99, 4)),
        ... )
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     table = sweep.run(f"{folder}/map.zarr")
        ...     table.final_loss.sel(b1=0.9).shape
        (4,)
    """

    make: Make | Mapping[str, Make]
    loss: Loss | AbstractProblem | None
    params: PyTree
    steps: int
    grid: Grid
    engine: str = field(default="auto", kw_only=True)
    rtol: float = field(default=1e-6, kw_only=True)
    atol: float = field(default=1e-9, kw_only=True)
    max_solver_steps: int | None = field(default=None, kw_only=True)
    warm_steps: int = field(default=0, kw_only=True)
    save: Save | None = field(default=None, kw_only=True)
    metrics: tuple[str, ...] = field(default=METRICS, kw_only=True)
    tile: int | None = field(default=None, kw_only=True)
    refine: Refine | None = field(default=None, kw_only=True)
    config: Mapping[str, Any] = field(default_factory=dict, kw_only=True)

    def __post_init__(self) -> None:
        if self.tile is not None and (self.tile != int(self.tile) or self.tile < 1):
            raise ValueError(f"tile = {self.tile} lanes must be a whole number of at least 1.")
        if isinstance(self.metrics, str) or not self.metrics:
            raise ValueError(f"metrics = {self.metrics!r}: give a tuple of one name at least.")
        if not isinstance(self.grid, Grid):
            raise ValueError(
                f"grid is a {type(self.grid).__name__}: give a ct.Grid, as ct.Grid(b1=[0.5, 0.9])."
            )
        if self.refine is not None:
            _check_refinable(self.refine, self.grid, self.metrics)
        if isinstance(self.make, Mapping) and not self.make:
            raise ValueError("make names no method: give one at least.")
        for ensemble in self.ensembles.values():
            ensemble.check(self.grid.every_value())

    def __reduce__(self) -> tuple[Callable[..., "Sweep"], tuple[Any, ...]]:
        """Without what is derived: a worker makes its own."""
        # No field: what is copied with another field changed is made by nobody's recipe.
        recipe = self.__dict__.get("_recipe")
        return recipe or (_assembled, ({f.name: getattr(self, f.name) for f in fields(self)},))

    def made_by(self, make: Callable[..., "Sweep"], *arguments: Any) -> "Sweep":
        """This sweep, which travels to workers as the call that makes it."""
        self.__dict__["_recipe"] = (make, arguments)
        return self

    @cached_property
    def ensembles(self) -> dict[str, Prepared]:
        """What the lanes of each method run; one without a name where `make` is no mapping."""
        makes = self.make if isinstance(self.make, Mapping) else {"": self.make}
        return {
            name: prepared(
                make,
                self.loss,
                self.params,
                self.steps,
                engine=self.engine,
                rtol=self.rtol,
                atol=self.atol,
                max_solver_steps=self.max_solver_steps,
                warm_steps=self.warm_steps,
                save=self.save,
                metrics=self.metrics,
                expected=self.grid.size,
            )
            for name, make in makes.items()
        }

    @property
    def methods(self) -> tuple[str, ...] | None:
        """The names along the dimension `dynamics`; None where there is none."""
        return tuple(self.make) if isinstance(self.make, Mapping) else None

    @cached_property
    def engines(self) -> dict[str, str]:
        """The engine of each method; makes them."""
        lanes = self.grid.lanes(np.zeros(1, int))
        return {name: ensemble.engine_for(lanes) for name, ensemble in self.ensembles.items()}

    @cached_property
    def levels(self) -> list[Level]:
        """The grids to compute: one, or those of the refinement."""
        if self.refine is None:
            tile = slabs(self.grid.shape, self._tile_lanes())
            return [Level(self.grid, tile, self.methods)]
        grids = self.refine.grids(self.grid)
        return [Level(grid, self.refine.tile_of(grid), self.methods) for grid in grids]

    @cached_property
    def templates(self) -> dict[str, tuple["xarray.Dataset", str]]:
        """By method a table of one lane, for its variables and labels, and its program's hash."""
        lanes = self.grid.lanes(np.zeros(1, int))
        return {name: ensemble.template(lanes) for name, ensemble in self.ensembles.items()}

    @property
    def template(self) -> "xarray.Dataset":
        """The table that all methods share.

        **Raises:** `ValueError` where they do not.
        """
        tables = {name: table for name, (table, _) in self.templates.items()}
        first = next(iter(tables.values()))
        for name, other in tables.items():
            if _columns(other) != _columns(first):
                raise ValueError(
                    f"{name} has other variables than {next(iter(tables))}: {_columns(other)}, not "
                    f"{_columns(first)}; let save return the same of all."
                )
        kinds = {name: table.attrs["update_kind"] for name, table in tables.items()}
        if len(set(kinds.values())) == 1:
            return first
        mixed = ", ".join(f"{name}: {kind}" for name, kind in kinds.items())
        return first.assign_attrs(update_kind=mixed)

    def description(self) -> dict[str, Any]:
        """What makes this sweep another than the next one: of JSON's types, by name."""
        refine = None if self.refine is None else vars(self.refine) | {"dims": [*self.refine.dims]}
        return {
            **{f"axis {dim}": word for dim, word in self.grid.words().items()},
            "methods": None if self.methods is None else [*self.methods],
            "steps": int(self.steps),
            "warm_steps": int(self.warm_steps),
            "rtol": float(self.rtol),
            "atol": repr(float(self.atol)),
            "max_solver_steps": self.max_solver_steps,
            "metrics": [*self.metrics],
            "tile": [*self.levels[0].tiling.tile],
            "refine": refine,
            "engine": self.engines,
            "float64": bool(jax.config.jax_enable_x64),
            "config": json.loads(json.dumps(dict(self.config), default=float)),
            "surroundings": {k: v for k, v in surroundings().items() if not _moot(k, self.engines)},
            "program": {name: named for name, (_, named) in self.templates.items()},
        }

    def compute(self, level: int, tile: int) -> dict[str, np.ndarray]:
        """A tile's numbers, by variable. Tiles are padded alike: all share one program."""
        tiling = self.levels[level].tiling
        points = tiling.points(tile)
        name, lanes = self.levels[level].lanes(points.ravel())
        pad = (0, tiling.lanes - points.size)
        full = {column: np.pad(values, pad, "edge") for column, values in lanes.items()}
        table = self.ensembles[name].table(full)
        return {
            str(name): v.values[: points.size].reshape(*points.shape, *v.shape[1:])
            for name, v in table.data_vars.items()
        }

    def run(
        self, store: str | Path, *, progress: bool | Progress = False, **options: Any
    ) -> "xarray.Dataset":
        """Computes what the store lacks, and opens it.

        - `progress`: whether to show how far it is and the time left, or who is told.
        - `options`: `workers`, `scheduler` and `notice` of `ct_adam.sweep.execute.execute`.
        """
        if progress is True:
            with progress_bar("lane") as bar:
                execute(self, Path(store), progress=bar, **options)
        else:
            execute(self, Path(store), progress=progress or None, **options)
        # What was kept was looked through, what is fresh is checked when it is read.
        return open_store(store, check=False)  # pyright: ignore[reportReturnType]

    def _tile_lanes(self) -> int:
        if self.tile is not None:
            return self.tile
        on_gpu = jax.default_backend() == "gpu"
        least, most = min(_TILE_GPU if on_gpu else _TILE[name] for name in self.engines.values())
        return min(max(-(-self.grid.size // _TILES), least), most)


def _check_refinable(refine: Refine, grid: Grid, metrics: tuple[str, ...]) -> None:
    if not isinstance(refine, Refine):
        raise ValueError(f"refine = {refine!r}: give a ct.Refine, as ct.Refine(resolution=1e-3).")
    refine.grids(grid)
    if refine.variable not in metrics:
        raise ValueError(f"refine: {refine.variable!r} is not among the metrics {metrics}.")
    if refine.variable == "final_params":
        raise ValueError("refine: final_params are many numbers a lane: take another.")


def _moot(name: str, engines: Mapping[str, str]) -> bool:
    """Kernels do one lane's arithmetic on one thread."""
    return name.startswith("threads") and set(engines.values()) == {"fused"}


def _columns(table: "xarray.Dataset") -> dict[str, tuple[str, tuple[int, ...]]]:
    return {str(name): (str(v.dtype), v.shape[1:]) for name, v in table.data_vars.items()}


def _assembled(values: dict[str, Any]) -> Sweep:
    return Sweep(**values)
