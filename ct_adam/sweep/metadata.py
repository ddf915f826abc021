"""What is on disk beside the tiles: a group's metadata and coordinates, all written before them."""

import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .grid import Tiling
from .tiles import DONE, REFINED, STATUS, checked

if TYPE_CHECKING:
    import xarray

Coords = Mapping[str, tuple[str, np.ndarray, dict[str, str]]]
"""By name its dimension, values and label."""
_FLAT: Any = {"name": "default", "separator": "."}
"""One folder a variable: a folder a row of tiles costs as much as the files in it."""


def create_tiles(
    folder: Path,
    template: "xarray.Dataset",
    coords: Coords,
    dims: tuple[str, ...],
    tiling: Tiling,
    attrs: Mapping[str, Any],
) -> None:
    """Writes a group's metadata and coordinates: every file that is not a tile's.

    `template`: a table over `lane`, whose variables get the grid's dimensions in its place.
    """
    import zarr

    if folder.parent.name == REFINED and not folder.parent.exists():
        zarr.create_group(folder.parent, zarr_format=3)
    group = zarr.create_group(folder, zarr_format=3, attributes=dict(attrs))
    for name, (dim, values, label) in coords.items():
        _write_coord(group, name, dim, values, label)
    if "parameter" in template.coords:
        _write_names(group, "parameter", template["parameter"].values)
    for name, variable in template.data_vars.items():
        _create_variable(group, str(name), variable, dims, tiling)
    _create_status(group, dims, tiling)
    (folder / STATUS / "claims.lock").touch()


def _create_variable(
    group: Any, name: str, variable: "xarray.DataArray", dims: tuple[str, ...], tiling: Tiling
) -> None:
    if "/" in name:
        raise ValueError(f"save: {name.removeprefix('saved_')!r} cannot be a name on disk.")
    further = variable.shape[1:]
    group.create_array(
        name,
        shape=(*tiling.shape, *further),
        chunks=(*tiling.tile, *further),
        dtype=variable.dtype,
        fill_value=_nothing(variable.dtype),
        dimension_names=(*dims, *map(str, variable.dims[1:])),
        attributes={**_attributes(variable.attrs), "tiled": True},
        compressors=_codecs(variable.dtype),
        chunk_key_encoding=_FLAT,
    )


def _create_status(group: Any, dims: tuple[str, ...], tiling: Tiling) -> None:
    group.create_array(
        STATUS,
        shape=tiling.counts,
        chunks=(1,) * len(dims),
        dtype="uint8",
        fill_value=0,
        dimension_names=tuple(f"{dim}_tile" for dim in dims),
        attributes={"flag_values": [0, DONE], "flag_meanings": "missing done"},
        compressors=_codecs(np.dtype(float)),
        chunk_key_encoding=_FLAT,
    )


def _write_coord(
    group: Any, name: str, dim: str, values: np.ndarray, label: Mapping[str, str]
) -> None:
    if values.dtype.kind == "U":
        return _write_names(group, name, values)
    import zarr

    with zarr.config.set({"array.write_empty_chunks": True}):  # one of nothing but 0 is no gap
        array = group.create_array(
            name,
            shape=values.shape,
            chunks=values.shape,
            dtype=values.dtype,
            dimension_names=(dim,),
            attributes=dict(label),
            compressors=_codecs(np.dtype(float)),
            chunk_key_encoding=_FLAT,
            overwrite=True,
        )
        array[:] = values
    return None


def mend_coords(folder: Path, coords: Coords) -> None:
    """Writes those coordinates again that are not as they should be."""
    import zarr

    group = zarr.open_group(folder, mode="r+", zarr_format=3)
    for name, (dim, values, label) in coords.items():
        try:
            array: Any = group[name]
            there = np.asarray(array[:])
        except Exception:  # whatever a damaged file makes zarr raise
            there = None
        if there is None or not np.array_equal(there.astype(values.dtype), values):
            _write_coord(group, name, dim, values, label)


def damaged_coords(folder: Path, names: Iterable[str]) -> list[str]:
    """Those coordinates of which a file is missing or has a wrong checksum."""
    found = []
    for name in names:
        there = (folder / name / "zarr.json").exists()
        fine = name == "dynamics" or checked(f"{folder}/{name}/c.0") is not None
        if not (there and fine):
            found.append(name)
    return found


def _write_names(group: Any, name: str, values: np.ndarray) -> None:
    with warnings.catch_warnings():
        # zarr warns that strings are not yet in its specification.
        warnings.simplefilter("ignore")
        array = group.create_array(
            name,
            shape=values.shape,
            dtype=str,
            chunks=values.shape,
            dimension_names=(name,),
            overwrite=True,
        )
        array[:] = values.astype(object)


def _codecs(dtype: np.dtype) -> list[Any]:
    """The checksum last: it is that of the bytes on disk. The digits of measured numbers do not
    compress."""
    from zarr.codecs import Crc32cCodec, ZstdCodec

    return [Crc32cCodec()] if dtype.kind == "f" else [ZstdCodec(level=1), Crc32cCodec()]


def _nothing(dtype: np.dtype) -> Any:
    """What stands where no tile is yet."""
    return {"f": np.nan, "i": -1}.get(dtype.kind, 0)


def _attributes(attrs: Mapping[Any, Any]) -> dict[str, Any]:
    """Of JSON's types; an enumeration gets a name for what is not done."""
    plain = {
        str(name): value.tolist() if isinstance(value, np.ndarray) else value
        for name, value in attrs.items()
    }
    if "flag_values" in plain:
        plain["flag_values"] = [*plain["flag_values"], -1]
        plain["flag_meanings"] += " not_done"
    return plain
