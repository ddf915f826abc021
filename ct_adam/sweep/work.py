"""What is to be computed: a sweep as its store and the processes that fill it know it."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from .grid import Grid, Tiling
from .refine import Refine

if TYPE_CHECKING:
    import xarray


@dataclass(frozen=True, eq=False)
class Level:
    """A grid of lanes, tiled; methods are a further axis in front."""

    grid: Grid
    tile: tuple[int, ...]
    methods: tuple[str, ...] | None

    @property
    def dims(self) -> tuple[str, ...]:
        return self.grid.dims if self.methods is None else ("dynamics", *self.grid.dims)

    @property
    def tiling(self) -> Tiling:
        if self.methods is None:
            return Tiling(self.grid.shape, self.tile)
        return Tiling((len(self.methods), *self.grid.shape), (1, *self.tile))

    @property
    def size(self) -> int:
        return math.prod(self.tiling.shape)

    def lanes(self, points: np.ndarray) -> tuple[str, dict[str, np.ndarray]]:
        """The method, and the lanes, at points of one method."""
        lanes = self.grid.lanes(points % self.grid.size)
        method = "" if self.methods is None else self.methods[int(points[0]) // self.grid.size]
        return method, lanes

    def coords(self) -> dict[str, Any]:
        """Of a dataset, as those of its grid."""
        if self.methods is None:
            return self.grid.coords()
        return {"dynamics": ("dynamics", np.array(self.methods), {})} | self.grid.coords()


class Work(Protocol):
    """The part of a `ct.Sweep` that these need."""

    @property
    def steps(self) -> int: ...

    @property
    def refine(self) -> Refine | None: ...

    @property
    def config(self) -> Mapping[str, Any]: ...

    @cached_property
    def levels(self) -> list[Level]:
        """The grids to compute: one, or those of the refinement."""
        ...

    @property
    def template(self) -> "xarray.Dataset":
        """A table over `lane` of one lane, for its variables, types and labels."""
        ...

    def description(self) -> dict[str, Any]:
        """What makes this sweep another than the next one: of JSON's types, by name."""
        ...

    def compute(self, level: int, tile: int) -> dict[str, np.ndarray]:
        """A tile's numbers, by variable."""
        ...
