"""A grid of named axes, and how it is cut into tiles."""

import hashlib
import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..ensemble.table import LANE_LABELS, METRICS
from .axes import OWN, Axis, explicit

Block = tuple[slice, ...]

_RESERVED = ("status", "refined", "dynamics", "level", "lane", "parameter", *METRICS)


class Grid:
    """All combinations of named axes; a point is a lane of an ensemble.

    An axis is made by `ct.axes`, or is a list of numbers; its keyword is its dimension, and its
    column's name unless it is zipped.

    **Raises:** `ValueError` for a column that two axes set, and for no axis at all.

    !!! example
        >>> from ct_adam.sweep import axes
        >>> grid = Grid(b1=axes.cells(0.5, 1, 4), b2=axes.cells(0.5, 1, 8), seed=[0, 1])
        >>> grid.dims, grid.shape, grid.size
        (('b1', 'b2', 'seed'), (4, 8, 2), 64)
        >>> grid.lanes(np.array([0, 63]))["b1"].tolist()
        [0.5625, 0.9375]
    """

    axes: dict[str, Axis]

    def __init__(self, **axes: Any):
        if not axes:
            raise ValueError("The grid has no axis: name one at least.")
        self.axes = {}
        owner: dict[str, str] = {}
        for dim, given in axes.items():
            if dim in _RESERVED:
                raise ValueError(f"{dim!r} is a name of the store's own: rename the axis.")
            axis = given if isinstance(given, Axis) else _listed(dim, given)
            for column in named(dim, axis):
                if column in owner or (column != dim and column in axes):
                    other = owner.get(column, column)
                    raise ValueError(f"{column} is set by the axes {other} and {dim}: drop one.")
                owner[column] = dim
            self.axes[dim] = axis

    @property
    def dims(self) -> tuple[str, ...]:
        return tuple(self.axes)

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(map(len, self.axes.values()))

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of a lane's numbers."""
        return tuple(name for dim, axis in self.axes.items() for name in named(dim, axis))

    def lanes(self, flat: np.ndarray) -> dict[str, np.ndarray]:
        """The columns at points given by their place in row-major order."""
        places = np.unravel_index(flat, self.shape)
        return {
            name: values[place]
            for (dim, axis), place in zip(self.axes.items(), places, strict=True)
            for name, values in named(dim, axis).items()
        }

    def every_value(self) -> dict[str, np.ndarray]:
        """Lanes, as few as the longest axis, on which every value of every axis appears."""
        most = np.arange(max(self.shape))
        places = [most % length for length in self.shape]
        return self.lanes(np.ravel_multi_index(places, self.shape))

    def coords(self) -> dict[str, Any]:
        """Coordinates of a dataset: a zipped axis has its columns, and no index."""
        return {
            name: (dim, values, _label(name))
            for dim, axis in self.axes.items()
            for name, values in named(dim, axis).items()
        }

    def words(self) -> dict[str, str]:
        """Each axis in a word, long ones with a hash of their values."""
        return {dim: _short(axis.word) for dim, axis in self.axes.items()}

    def finer(self, dims: tuple[str, ...]) -> "Grid":
        """The grid with the cells of these axes cut in two."""
        return Grid(**{dim: _finer(dim, a) if dim in dims else a for dim, a in self.axes.items()})


@dataclass(frozen=True)
class Tiling:
    """A shape cut into tiles of one shape, those at the far ends perhaps smaller."""

    shape: tuple[int, ...]
    tile: tuple[int, ...]

    @property
    def counts(self) -> tuple[int, ...]:
        return tuple(-(-n // t) for n, t in zip(self.shape, self.tile, strict=True))

    @property
    def lanes(self) -> int:
        """Of a whole tile."""
        return math.prod(self.tile)

    def __len__(self) -> int:
        return math.prod(self.counts)

    def place(self, index: int) -> tuple[int, ...]:
        place = []
        for count in reversed(self.counts):
            index, i = divmod(index, count)
            place.append(i)
        return tuple(reversed(place))

    def block(self, index: int) -> Block:
        """Where a tile lies."""
        starts = (i * t for i, t in zip(self.place(index), self.tile, strict=True))
        return tuple(
            slice(start, min(start + t, n))
            for start, t, n in zip(starts, self.tile, self.shape, strict=True)
        )

    def points(self, index: int) -> np.ndarray:
        """The tile's points by their place in row-major order, of the tile's own shape."""
        ranges = [np.arange(s.start, s.stop) for s in self.block(index)]
        return np.ravel_multi_index(np.meshgrid(*ranges, indexing="ij"), self.shape)


def slabs(shape: tuple[int, ...], lanes: int) -> tuple[int, ...]:
    """The largest tile of at most `lanes` points whose last axes are whole.

    !!! example
        >>> slabs((100, 64, 8), 2048)
        (4, 64, 8)
    """
    tile = []
    for length in reversed(shape):
        share = min(length, max(1, lanes))
        share = -(-length // -(-length // share))  # all about equally long: little is filled up
        tile.append(share)
        lanes = lanes // length if share == length else 1
    return tuple(reversed(tile))


def named(dim: str, axis: Axis) -> dict[str, np.ndarray]:
    """The columns of the axis along `dim`."""
    return {name if name != OWN else dim: values for name, values in axis.columns.items()}


def _listed(dim: str, values: Any) -> Axis:
    try:
        return explicit(np.atleast_1d(values))
    except ValueError as error:
        raise ValueError(f"{dim}: {error}") from None


def _finer(dim: str, axis: Axis) -> Axis:
    if axis.finer is None:
        raise ValueError(f"{dim} = {_short(axis.word)} has no cells to cut: make it cells:….")
    return axis.finer()


def _label(name: str) -> dict[str, str]:
    label, units = LANE_LABELS.get(name, (name, "1"))
    return {"long_name": label, "units": units}


def _short(word: str) -> str:
    if len(word) <= 80:
        return word
    return f"{word[:60]}… (sha256 {hashlib.sha256(word.encode()).hexdigest()[:12]})"
