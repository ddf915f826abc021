"""A sweep in words and numbers."""

import json
from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from .pilot import duration
from .refine import boundary

if TYPE_CHECKING:
    import xarray

_BLOCK = 2**26
"""Numbers that are looked at at once."""


def summary(dataset: "xarray.Dataset") -> dict[str, Any]:
    """Of JSON's types: what was swept, how the lanes ended, and each metric's range.

    `boundary` of a refined sweep: its range, the resolution reached and the largest spread over
    seeds.
    """
    names = dataset.outcome.attrs["flag_meanings"].split() if "outcome" in dataset else []
    methods = dataset.dynamics.values.tolist() if "dynamics" in dataset.dims else [""]
    found: dict[str, Any] = {
        "config": json.loads(dataset.attrs["config"]),
        "dims": {str(dim): length for dim, length in dataset.sizes.items()},
        "tiles": dataset.attrs["tiles"],
        "tiles_done": dataset.attrs["tiles_done"],
        "tile_seconds": dataset.attrs["tile_seconds"],
        "dynamics": {},
    }
    for method in methods:
        part = dataset.sel(dynamics=method) if method else dataset
        row: dict[str, Any] = {}
        if names:
            row["outcomes"] = _counts(part.outcome, names)
        for name, variable in part.data_vars.items():
            if variable.dtype.kind == "f" and name != "final_params":
                row[str(name)] = _range(variable)
        found["dynamics"][method or "all"] = row
    refine = json.loads(dataset.attrs["sweep"])["refine"]
    if refine:
        edge = boundary(dataset, along=refine["dims"][1])
        found["boundary"] = _edge(edge)
    return found


def _blocks(variable: "xarray.DataArray") -> Iterator[np.ndarray]:
    """A store may be larger than the memory: rows of it, read one after the other."""
    rows = max(1, _BLOCK * len(variable) // max(variable.size, 1))
    for start in range(0, len(variable), rows):
        yield variable[start : start + rows].values


def _counts(outcome: "xarray.DataArray", names: list[str]) -> dict[str, int]:
    """Lanes by how they ended."""
    total: Counter[int] = Counter()
    for block in _blocks(outcome):
        codes, counts = np.unique(block, return_counts=True)
        total.update(dict(zip(codes.tolist(), counts.tolist(), strict=True)))
    return {names[code] if code >= 0 else "not done": total[code] for code in sorted(total)}


def _range(variable: "xarray.DataArray") -> dict[str, float] | None:
    """Smallest and largest of the finite ones, and their median where they fit into memory."""
    low, high, few = np.inf, -np.inf, []
    for block in _blocks(variable):
        finite = block[np.isfinite(block)]
        if finite.size:
            low, high = min(low, finite.min()), max(high, finite.max())
        if variable.size <= _BLOCK:
            few.append(finite)
    if low > high:
        return None
    middle = {"median": float(np.median(np.concatenate(few)))} if few else {}
    return {"min": float(low), **middle, "max": float(high)}


def _edge(edge: "xarray.Dataset") -> dict[str, Any]:
    found = {
        "found": float(np.isfinite(edge.boundary.values).mean()),
        **(_range(edge.boundary) or {}),
        "uncertainty": (_range(edge.uncertainty) or {}).get("max"),
        "crossings": int(edge.crossings.max()),
    }
    if "spread" in edge:
        # Of few seeds that have a boundary at all, the spread says little.
        found["spread"] = _range(edge.spread.where(edge["count"] == edge.sizes["seed"]))
    return found


def describe_sweep(dataset: "xarray.Dataset") -> str:
    """The summary as plain text."""
    found = summary(dataset)
    shape = " × ".join(f"{length} {dim}" for dim, length in found["dims"].items())
    lines = [f"{shape}; {duration(found['tile_seconds'])} of work"]
    for method, row in found["dynamics"].items():
        lines.append(f"{method}:")
        if "outcomes" in row:
            counts = ", ".join(f"{count} {name}" for name, count in row["outcomes"].items())
            lines.append(f"  {'outcome':<14}{counts}")
        for name, span in row.items():
            if name != "outcomes" and span is not None:
                middle = f", median {span['median']:.4g}" if "median" in span else ""
                lines.append(f"  {name:<14}{span['min']:.4g} … {span['max']:.4g}{middle}")
    if "boundary" in found:
        lines.append(_edge_line(found["boundary"]))
    return "\n".join(lines)


def _edge_line(edge: dict[str, Any]) -> str:
    if not edge["found"]:
        return "boundary: none was crossed"
    line = (
        f"boundary: {edge['min']:.4f} … {edge['max']:.4f}, in {edge['found']:.0%} of the columns, "
        f"found on the grid to ±{edge['uncertainty']:.2g}"
    )
    if edge["crossings"] > 1:
        line += f"; up to {edge['crossings']} crossings a column, of which the highest counts"
    if edge.get("spread"):
        line += f"; spread over seeds at most {edge['spread']['max']:.2g}"
    return line
