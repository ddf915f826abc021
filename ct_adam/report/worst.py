"""The worst cells of a whole store: a thinned map may not show them."""

from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np

from ..theory import stability_coefficient
from .encoding import NOT_DONE, encode, measured, outcome_codes
from .maps import METHODS, Map
from .values import bound

if TYPE_CHECKING:
    import xarray

COUNT = 10
_MOST = 50_000
"""Of all views of a map together; where a view would have none left, the page tells of what it
draws."""


def worst_cells(found: Map, metrics: list[str]) -> dict[str, Any] | None:
    """The largest values of each view of a map, out of all cells of its store.

    **Arguments:**

    - `found`: a map; `metrics`: names of its variables.

    **Returns:** of JSON's types, None where the map shows every cell, or has too many views: by
    metric the decays in full, and encoded `value`, `c` (the paper's C), `bound` and `outcome`, a
    row a view, in the order of the map's dims. Places that are left over have NaN.
    """
    sizes = [found.data.sizes[dim] for dim in found.dims]
    count = min(COUNT, _MOST // max(1, int(np.prod(sizes)) * len(metrics)))
    if found.stride == 1 or not count:
        return None
    views = [dict(zip(found.dims, at, strict=True)) for at in product(*map(range, sizes))]
    return {name: _of_metric(found, name, views, count) for name in metrics}


def _of_metric(found: Map, name: str, views: list[dict[str, int]], count: int) -> dict[str, Any]:
    rows = [_of_view(found, name, at, count) for at in views]
    b1, b2, *numbers = (np.stack(column) for column in zip(*rows, strict=True))
    names = ("value", "c", "bound", "outcome")
    encoded = {name: encode(column) for name, column in zip(names, numbers, strict=True)}
    return {"b1": b1.tolist(), "b2": b2.tolist(), **encoded}


def _of_view(found: Map, name: str, at: dict[str, int], count: int) -> tuple[np.ndarray, ...]:
    values = measured(_plane(found.whole, name, at))
    if "answered" in found.whole:
        values = np.where(_plane(found.whole, "answered", at), values, np.nan)
    i, j = np.unravel_index(_largest(values.ravel(), count), values.shape)
    b1, b2 = (found.whole[b].values[k].astype(float) for b, k in (("b1", i), ("b2", j)))
    c = np.asarray(stability_coefficient(b1, b2)) if len(i) else b1
    outcome = np.full(len(i), NOT_DONE, np.uint8)
    if "outcome" in found.whole:
        outcome = outcome_codes(_plane(found.whole, "outcome", at)[i, j])
    left = (0, count - len(i))
    # A decay of 0 where there is no cell: JSON has no NaN, and the value says that there is none.
    padded = [np.pad(x, left) for x in (b1, b2)]
    numbers = (values[i, j], c, _bound(found, at, b1, b2))
    padded += [np.pad(x, left, constant_values=np.nan) for x in numbers]
    return *padded, np.pad(outcome, left, constant_values=NOT_DONE)


def _bound(found: Map, at: dict[str, int], b1: np.ndarray, b2: np.ndarray) -> np.ndarray:
    """Of the method that the view shows; NaN where theory has none."""
    method = next((at[dim] for dim in found.dims[:1] if dim in METHODS), 0)
    rule = list(found.methods.values())[method]
    return np.full_like(b1, np.nan) if rule is None else bound(b1, b2, found.steps, *rule)


def _plane(data: "xarray.Dataset", name: str, at: dict[str, int]) -> np.ndarray:
    """A variable of one view, (b1, b2)."""
    values = data[name]
    return values.isel({dim: k for dim, k in at.items() if dim in values.dims}).values


def _largest(values: np.ndarray, count: int) -> np.ndarray:
    """Places of the largest; of equal ones the first."""
    places = np.flatnonzero(~np.isnan(values))
    if len(places) > count:
        least = np.partition(values[places], len(places) - count)[len(places) - count]
        places = places[values[places] >= least]
    return places[np.argsort(-values[places], kind="stable")][:count]
