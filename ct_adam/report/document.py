"""A page's data as one JSON document, apart from the page: a server can send it anew."""

from typing import TYPE_CHECKING, Any

import numpy as np

from ..decays import RATES
from ..plotting.square import LARGEST
from ..simulate import OUTCOME
from .encoding import PRECISION, encode, measured, outcome_codes
from .maps import METHODS, Map
from .trajectories import Trajectories
from .values import theory_values
from .worst import worst_cells

if TYPE_CHECKING:
    import xarray

FORMAT = 1

_FIRST = ("max_update", "update_slope", "final_loss", "min_loss")
_FLAGS = ("unstable", "answered")
_LEFT_OUT = ("outcome", "log_bound", *_FLAGS)
_STOPS = 24


def document(maps: list[Map], trajectories: list[Trajectories] | None = None) -> dict[str, Any]:
    """All that the page shows of the stores, of JSON's types.

    **Arguments:**

    - `maps`: of `read_maps`. `trajectories`: of each map, of `coarse_trajectories`.

    **Returns:** a dictionary: `format`, `precision` (largest relative error of an encoded number),
    `colours` of the two scales, `theories` and `maps`. A map refers to its theory by place: maps of
    one grid and as many steps share it. Arrays are those of `encode`.
    """
    theories: dict[tuple[Any, ...], dict[str, Any]] = {}
    places: list[int] = []
    for found in maps:
        shown = {rule[1] for rule in found.methods.values() if rule}
        rates: Any = tuple(name for name in RATES if name in shown)
        b1, b2 = (found.data[b].values.astype(float) for b in ("b1", "b2"))
        key = (found.steps, rates, tuple(b1), tuple(b2))
        if key not in theories:
            theories[key] = theory_values(b1, b2, found.steps, rates)
        places.append(list(theories).index(key))
    drawn = trajectories or [Trajectories(None, "none were asked for")] * len(maps)
    return {
        "format": FORMAT,
        "precision": PRECISION,
        "colours": {"log": _colours("lapaz_r"), "diverging": _colours("vik")},
        "theories": list(theories.values()),
        "maps": [
            _map(found, place) | {"trajectories": of_map.as_json()}
            for found, place, of_map in zip(maps, places, drawn, strict=True)
        ],
    }


def _map(found: Map, theory: int) -> dict[str, Any]:
    data = found.data
    about = found.about
    metrics = _metrics(found)
    return {
        "name": found.name,
        "title": found.title,
        "store": found.store,
        "command": str(about.get("command", "")),
        "git": str(about.get("git", "")),
        "steps": found.steps,
        "stride": found.stride,
        "fixed": {key: str(value) for key, value in found.fixed.items()},
        "theory": theory,
        "b1": _axis(data, "b1"),
        "b2": _axis(data, "b2"),
        "dims": [_dimension(found, dim) for dim in found.dims],
        "methods": list(found.methods),
        "rules": [list(rule) if rule else None for rule in found.methods.values()],
        "metrics": metrics,
        "worst": worst_cells(found, [metric["name"] for metric in metrics]),
        "flags": {
            name: encode(_full(found, name).astype(np.uint8)) for name in _FLAGS if name in data
        },
        "outcome": _outcome(found) if "outcome" in data else None,
    }


def _axis(data: "xarray.Dataset", name: str) -> dict[str, Any]:
    """Values in full, and how they are drawn: evenly, or evenly in ln(1 − b)."""
    values = data[name].values.astype(float)
    even, near_one = (_evenness(x) for x in (values, np.log1p(-values)))
    return {"values": values.tolist(), "scale": "linear" if even <= near_one else "one_minus_log"}


def _evenness(values: np.ndarray) -> float:
    """Largest distance of neighbours over the smallest."""
    gaps = np.abs(np.diff(values))
    return float(gaps.max() / gaps.min()) if len(gaps) > 1 and gaps.min() > 0 else 1.0


def _dimension(found: Map, dim: str) -> dict[str, Any]:
    if dim in METHODS:
        return {"name": dim, "label": "what runs", "values": list(found.methods)}
    data = found.data
    own = data[dim] if dim in data.coords else None
    label = own.attrs.get("long_name", dim) if own is not None else dim
    return {"name": dim, "label": str(label), "values": _names(data, dim)}


def _names(data: "xarray.Dataset", dim: str) -> list[str]:
    """What stands at the places of a dimension; columns that move together, each with its name."""
    if dim in data.coords:
        return [_short(value) for value in data[dim].values]
    columns = [name for name, found in data.coords.items() if found.dims == (dim,)]
    if not columns:
        return [str(place) for place in range(data.sizes[dim])]
    return [
        ", ".join(f"{name} = {_short(data[name].values[k])}" for name in columns)
        for k in range(data.sizes[dim])
    ]


def _short(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float | np.floating) else str(value)


def _full(found: Map, name: str) -> np.ndarray:
    """The variable over all of the map's dims, (…, b1, b2)."""
    values = found.data[name]
    sizes = {dim: found.data.sizes[dim] for dim in (*found.dims, "b1", "b2")}
    return (
        values.broadcast_like(found.data[[name]])
        .expand_dims({dim: size for dim, size in sizes.items() if dim not in values.dims})
        .transpose(*sizes)
        .values
    )


def _metrics(found: Map) -> list[dict[str, Any]]:
    """At least one, as there is no map without colours: where nothing is a number yet, a blank."""
    names = [str(name) for name in found.data.data_vars if name not in _LEFT_OUT]
    names.sort(key=lambda name: (_FIRST.index(name) if name in _FIRST else len(_FIRST), name))
    names = names or [str(name) for name in found.data.data_vars][:1]
    values = {name: measured(_full(found, name)) for name in names}
    told = [name for name in names if np.isfinite(values[name]).any()] or names[:1]
    return [_metric(found, name, values[name]) for name in told]


def _metric(found: Map, name: str, values: np.ndarray) -> dict[str, Any]:
    finite = values[np.isfinite(values)]
    attributes = found.data[name].attrs
    scale = "log" if finite.size and finite.min() > 0 else "diverging"
    return {
        "name": name,
        # On the page as in print: there is no small ∞ to put below.
        "label": str(attributes.get("long_name", name)).replace("‖_∞", "‖∞"),
        "units": str(attributes.get("units", "1")),
        "scale": scale,
        "limits": _limits(name, finite, scale),
        "array": encode(values),
    }


def _limits(name: str, finite: np.ndarray, scale: str) -> list[float]:
    """Of the colours; of the largest update those of the printed map."""
    if not finite.size:
        return [-1.0, 1.0]
    if name == "max_update" and scale == "log":
        return [1.0, LARGEST]
    if scale == "log":
        low, high = np.quantile(finite, [0.01, 0.99])
        return [float(low), float(max(high, low * (1 + 1e-6)))]
    most = float(np.quantile(np.abs(finite), 0.98)) or float(np.abs(finite).max()) or 1.0
    return [-most, most]


def _outcome(found: Map) -> dict[str, Any]:
    codes = outcome_codes(_full(found, "outcome"))
    names = str(found.data.outcome.attrs.get("flag_meanings", "")).split()
    # A store may name an outcome that this version does not know.
    texts = [OUTCOME[getattr(OUTCOME, name)] if _known(name) else "" for name in names]
    return {"array": encode(codes), "names": names, "texts": texts}


def _known(name: str) -> bool:
    return name in OUTCOME._name_to_item  # pyright: ignore[reportAttributeAccessIssue]


def _colours(name: str) -> list[list[Any]]:
    """A colour map of cmcrameri's in stops, as Plotly takes it."""
    from cmcrameri import cm
    from matplotlib.colors import to_hex

    colours = getattr(cm, name)
    places = np.linspace(0, 1, _STOPS)
    return [[round(float(place), 4), to_hex(colours(place))] for place in places]
