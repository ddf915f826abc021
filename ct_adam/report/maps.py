"""Stores on disk as maps over (b1, b2), whatever command has written them."""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..decays import RATES, Rates
from ..optimizers.registry import ADAM_KIN
from ..sweep import opened
from ..theory.stability import Kind

if TYPE_CHECKING:
    import xarray

METHODS = ("side", "dynamics")
"""Names of the dimension along which the optimizer stands beside its flows."""
MOST_CELLS = 256
"""A side of a map on the page has no more cells; a larger store is thinned."""
MOST_LANES = 2**19
"""The page's size is bounded: 256 × 256 cells of four problems, optimizer and flow."""

_SCALE_FREE = ("worst_case", "vanishing", "random", "constant")
"""Streams, whose updates do not feel a learning rate."""


@dataclass(frozen=True)
class Map:
    """One problem over (b1, b2).

    - `name`, `title`: of the problem. `store`: the folder's name. `steps`: optimizer steps.
    - `data`: measured values; each variable ends in the dims (b1, b2), and has those of `dims`
        before.
    - `methods`: by name what is run, with the kind of `ct.theory.update_bound` and the rates that
        speak of it, None where theory has no bound.
    - `fixed`: hyperparameters that do not vary. `stride`: every how many-th cell of the store.
    - `about`: the store's attributes, `config` read.
    - `thinned_from`: the data of every cell of the store, where the map has not all of them.
    """

    name: str
    title: str
    store: str
    steps: int
    data: "xarray.Dataset"
    methods: dict[str, tuple[Kind, Rates] | None]
    fixed: dict[str, Any]
    about: dict[str, Any]
    stride: int = 1
    thinned_from: "xarray.Dataset | None" = None

    @property
    def whole(self) -> "xarray.Dataset":
        """All cells of the store."""
        return self.data if self.thinned_from is None else self.thinned_from

    @property
    def dims(self) -> tuple[str, ...]:
        """Those beside b1 and b2, the methods first."""
        names = [str(dim) for dim in self.data.sizes if dim not in ("b1", "b2")]
        return tuple(sorted(names, key=lambda name: name not in METHODS))

    @property
    def lanes(self) -> int:
        return int(np.prod(list(self.data.sizes.values())))


def read_maps(stores: Sequence[str | Path], check: bool = True) -> list[Map]:
    """The maps of several stores, small enough together for one page.

    Stores of `ct-adam region` that differ in nothing but the learning rate become one map with a
    dimension `learning_rate`; what does not feel it is taken once.

    **Arguments:**

    - `stores`: folders of `ct-adam region` and `ct-adam sweep`, or of `ct.Sweep`. `check`: whether
        to look for damaged tiles first.

    **Returns:** the maps in the stores' order.

    **Raises:** `ValueError` for a path that holds no such store, one without b1 and b2, and for
    more lanes than a page can hold.
    """
    if not stores:
        raise ValueError("There is no store: name one that ct-adam region or sweep has written.")
    maps = [found for store in stores for found in _maps_of(Path(store), check)]
    return _thinned(_merged(maps))


def _maps_of(store: Path, check: bool) -> Iterator[Map]:
    import xarray

    found = opened.open(store, check)
    if isinstance(found, xarray.Dataset):
        panels = {"": found}
    else:
        panels = {name: node.to_dataset() for name, node in found.children.items()}
        panels = {name: panels[name] for name in _in_order(panels, found.attrs)}
    about = read_about(found.attrs)
    seen = 0
    for name, data in panels.items():
        if not {"b1", "b2"} <= set(map(str, data.dims)):
            continue
        seen += 1
        _check_decays(store, data)
        yield _region_map(store, name, data, about) if name else _sweep_map(store, data, about)
    if not seen:
        raise ValueError(
            f"{store} has no map over b1 and b2: take a store of ct-adam region, or of ct-adam "
            "sweep with both as axes."
        )


def _check_decays(store: Path, data: "xarray.Dataset") -> None:
    for b in ("b1", "b2"):
        values = data[b].values
        if values.dtype.kind not in "fiu" or not np.all((values >= 0) & (values < 1)):
            raise ValueError(
                f"{store} has values of {b} outside of [0, 1): it is no map of decays."
            )
        if not values.size:
            raise ValueError(f"{store} has no value of {b}: run its sweep again.")


def _in_order(names: Iterable[str], attributes: Any) -> list[str]:
    """As they were asked for: a folder lists its groups in no order of its own."""
    asked = read_about(attributes)["config"].get("panels")
    order = [str(name) for name in asked] if isinstance(asked, list) else []
    return sorted(
        names, key=lambda name: (order.index(name) if name in order else len(order), name)
    )


def read_about(attributes: Any) -> dict[str, Any]:
    """A store's attributes, the JSON among them read; an empty dictionary for what is none."""
    about = {str(key): value for key, value in attributes.items()}
    for key in ("config", "versions", "sweep"):
        try:
            about[key] = json.loads(about[key])
        except (KeyError, TypeError, ValueError):
            about[key] = {}
        if not isinstance(about[key], dict):
            about[key] = {}
    return about


def _region_map(store: Path, name: str, data: "xarray.Dataset", about: dict[str, Any]) -> Map:
    config = about["config"]
    adam = data.attrs.get("optimizer", "Adam") == "Adam"
    rates: Any = config.get("rates") if config.get("rates") in RATES else "log"
    kinds: dict[str, tuple[Kind, Rates] | None] = {
        "optimizer": ("discrete", "log") if adam else None,
        "flow": ("flow", rates),
    }
    names = ("learning_rate", "eps") if name not in _SCALE_FREE else ()
    return Map(
        name,
        str(data.attrs.get("title", name)),
        store.name,
        _whole(data.attrs.get("steps")),
        _plain(data),
        {side: kinds.get(side) for side in _labels(data, "side")},
        {key: config[key] for key in names if key in config},
        about,
    )


def _sweep_map(store: Path, data: "xarray.Dataset", about: dict[str, Any]) -> Map:
    config, sweep = about["config"], about["sweep"]
    named = _labels(data, "dynamics") or [str(config.get("method", "")).strip()]
    varied = set(map(str, data.sizes)) | set(map(str, data.coords))
    names = ("learning_rate", "eps", "weight_decay", "seed")
    problem = str(config.get("problem") or store.stem)
    return Map(
        problem,
        problem.replace("_", " "),
        store.name,
        _whole(sweep.get("warm_steps", 0)) + _whole(sweep.get("steps")),
        _plain(data),
        {name: _kind(name) for name in named},
        {key: config[key] for key in names if key in config and key not in varied},
        about,
    )


def _kind(method: str) -> tuple[Kind, Rates] | None:
    """What theory knows of a method: Adam's own bound, or that of its flows by their rates."""
    if method in ADAM_KIN:
        return "discrete", "log"
    return ("flow", method) if method in RATES else None  # pyright: ignore[reportReturnType]


def _labels(data: "xarray.Dataset", dim: str) -> list[str]:
    return [str(name) for name in data[dim].values] if dim in data.sizes else []


def _whole(number: Any) -> int:
    try:
        return max(int(number), 0)
    except (TypeError, ValueError):
        return 0


def _plain(data: "xarray.Dataset") -> "xarray.Dataset":
    """The variables that are numbers of a cell, with b1 and b2 last."""
    first = [str(dim) for dim in data.dims if dim in METHODS]
    rest = [str(dim) for dim in data.sizes if dim not in (*METHODS, "b1", "b2", "parameter")]
    kept = [
        name
        for name, found in data.data_vars.items()
        if {"b1", "b2"} <= set(found.dims) <= {*first, *rest, "b1", "b2"}
        and found.dtype.kind in "fiub"
    ]
    sizes = {dim for name in kept for dim in data[name].dims}
    dims = [dim for dim in (*first, *rest) if dim in sizes]
    if not kept:
        raise ValueError("A store holds no number of its cells: let its sweep keep a metric.")
    disordered = [b for b in ("b1", "b2") if np.any(np.diff(data[b].values) < 0)]
    ordered = data[kept].transpose(*dims, "b1", "b2", missing_dims="ignore")
    return ordered.sortby(disordered) if disordered else ordered


def _merged(maps: list[Map]) -> list[Map]:
    """Maps that differ in the learning rate alone, as one; repetitions are dropped."""
    groups: dict[str, dict[float, Map]] = {}
    for place, found in enumerate(maps):
        rate = found.fixed.get("learning_rate")
        config = {k: v for k, v in found.about["config"].items() if k != "learning_rate"}
        if found.about["sweep"] or not config or "learning_rate" in found.data.sizes:
            groups[str(place)] = {0.0: found}
            continue
        axes = [found.data[b].values.tolist() for b in ("b1", "b2")]
        key = json.dumps([found.name, found.title, found.steps, config, axes], default=str)
        groups.setdefault(key, {}).setdefault(float(rate or 0), found)
    return [_joined(group) for group in groups.values()]


def _joined(group: dict[float, Map]) -> Map:
    import xarray

    rates = sorted(group)
    first = group[rates[0]]
    if len(rates) == 1:
        return first
    label = {"long_name": "learning rate", "units": "1"}
    axis = xarray.Variable("learning_rate", rates, label)
    data = xarray.concat(
        [group[rate].data for rate in rates], "learning_rate", combine_attrs="override"
    ).assign_coords(learning_rate=axis)
    fixed = {key: value for key, value in first.fixed.items() if key != "learning_rate"}
    names = ", ".join(dict.fromkeys(group[rate].store for rate in rates))
    return replace(first, data=_plain(data), fixed=fixed, store=names)


def _thinned(maps: list[Map]) -> list[Map]:
    """Every n-th cell, n the smallest that fits, but at least two cells a side."""
    strides = [
        max(1, -(-max(found.data.sizes["b1"], found.data.sizes["b2"]) // MOST_CELLS))
        for found in maps
    ]
    while sum(_lanes(found, n) for found, n in zip(maps, strides, strict=True)) > MOST_LANES:
        sizes = [_lanes(found, n) for found, n in zip(maps, strides, strict=True)]
        largest = int(np.argmax(sizes))
        strides[largest] += 1
        if sizes[largest] == _lanes(maps[largest], strides[largest]):
            raise ValueError(
                f"The stores hold too many maps for one page (at most {MOST_LANES} lanes): name "
                "fewer stores, or sweep fewer values beside b1 and b2."
            )
    return [_every(found, n) for found, n in zip(maps, strides, strict=True)]


def _lanes(found: Map, stride: int) -> int:
    shape = [-(-found.data.sizes[b] // stride) for b in ("b1", "b2")]
    other = found.lanes // (found.data.sizes["b1"] * found.data.sizes["b2"])
    return other * shape[0] * shape[1]


def _every(found: Map, stride: int) -> Map:
    # From the middle of a stride: the first cells would lean to low decays.
    part = {b: slice(min(stride // 2, found.data.sizes[b] - 1), None, stride) for b in ("b1", "b2")}
    whole = found.data if stride > 1 else None
    return replace(found, data=found.data.isel(part).load(), stride=stride, thinned_from=whole)
