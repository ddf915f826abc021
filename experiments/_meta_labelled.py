"""The arrays of `meta_adaptive` as labelled Datasets."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ._kept import Arrays

if TYPE_CHECKING:
    import xarray


def norm(
    one: Arrays, steps: int, title: str, rate: float, decay: float, b1: float
) -> "xarray.Dataset":
    """Of the first pair."""
    import xarray

    about = ("matrix", "size")
    return xarray.Dataset(
        {name: (("step", "matrix"), one[name][0, :steps]) for name in one if name not in about},
        coords={"matrix": one["matrix"], "size": ("matrix", one["size"])},
        attrs={"network": title, "rate": rate, "decay": decay, "b1": b1},
    )


def angles(
    found: Arrays, title: str, pairs: Sequence[tuple[float, float]], b1: float
) -> "xarray.Dataset":
    """Of all others."""
    import xarray

    rates, decays = zip(*pairs, strict=True)
    return xarray.Dataset(
        {"angle": (("pair", "step", "matrix"), found["angle"][1:])},
        coords={"rate": ("pair", list(rates)), "decay": ("pair", list(decays))},
        attrs={"network": title, "b1": b1},
    )


def cells(
    found: Arrays, axes: Mapping[str, Any], rate: float, decay: float, dimension: int
) -> "xarray.Dataset":
    import xarray

    return xarray.Dataset(
        {name: (tuple(axes), x) for name, x in found.items()},
        coords=dict(axes),
        attrs={"rate": rate, "decay": decay, "dimension": dimension},
    )


def directions(
    seeds: Sequence[Arrays],
    lanes: Sequence[tuple[str, float]],
    title: str,
    rate: float,
    decay: float,
    every: int,
) -> "xarray.Dataset":
    import xarray

    names, factors = zip(*lanes, strict=True)
    dims = {
        "angle": ("seed", "lane", "step", "tensor"),
        "moved": ("seed", "step", "tensor"),
        "norm": ("seed", "step", "tensor"),
    }
    by_seed = {name: np.array([one[name] for one in seeds]) for name in dims}
    return xarray.Dataset(
        {name: (dims[name], values) for name, values in by_seed.items()},
        coords={
            "name": ("lane", list(names)),
            "factor": ("lane", list(factors)),
            "step": every * np.arange(1, by_seed["moved"].shape[1] + 1),
        },
        attrs={"case": title, "rate": rate, "decay": decay},
    )
