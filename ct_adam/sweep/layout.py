"""What a sweep's store is: its groups, and by what it is known.

`STORE/` holds the arrays of the coarse grid, `STORE/refined/1`, `2`, … those of finer levels. All
metadata are written before the first tile, under another name: a store exists whole or not at all.
"""

import json
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .metadata import create_tiles, mend_coords
from .provenance import PROGRAM, origin
from .store import writable_folder
from .tiles import REFINED, STATUS, Tiles
from .work import Work

FORMAT = 1


class AnotherSweepError(ValueError):
    """A store holds other numbers than those that are asked for."""


def level_folder(store: Path, level: int) -> Path:
    """The group of a level."""
    return store / REFINED / str(level) if level else store


def make_store(sweep: Work, store: Path) -> None:
    """Makes the store of a sweep, or checks that the one that is there is this sweep's.

    **Raises:** `AnotherSweepError`, with the difference; `ValueError` for what is no store of a
    sweep; `OSError` where it cannot be written.
    """
    description = sweep.description()
    if store.is_dir() and not any(store.iterdir()):
        store.rmdir()  # somebody made room for it
    if not store.exists():
        _create(sweep, description, store)
    _check(store, description)
    _check_writable(store)
    for k, level in enumerate(sweep.levels):
        mend_coords(level_folder(store, k), level.coords())


def root_attributes(store: Path) -> dict[str, Any]:
    """The attributes of a store's root.

    **Raises:** `ValueError` for a path that holds no store, or a damaged one.
    """
    try:
        root = json.loads((store / "zarr.json").read_text(encoding="utf-8"))
        attributes = dict(root["attributes"])
        if is_sweep(attributes):
            for key in ("format", "levels"):
                attributes[key] = int(attributes[key])
            json.loads(attributes["sweep"])
        return attributes
    except FileNotFoundError:
        raise ValueError(f"{store} is no store: name a folder that a sweep has written.") from None
    except NotADirectoryError:
        raise ValueError(f"{store} is a file, no store: name another.") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{store / 'zarr.json'} cannot be read ({type(error).__name__}): it is damaged; bring "
            "it back from a copy, or remove the store."
        ) from None


def is_sweep(attributes: dict[str, Any]) -> bool:
    return attributes.get("program") == PROGRAM and "format" in attributes


def _create(sweep: Work, description: dict[str, Any], store: Path) -> None:
    writable_folder(store.parent)
    partial = store.with_name(f".{store.name}.{uuid.uuid4().hex}")
    template = sweep.template
    attributes = {
        **origin(sweep.config),
        **template.attrs,
        "format": FORMAT,
        "sweep": json.dumps(description),
        "levels": len(sweep.levels),
        "variables": [str(name) for name in template.data_vars],
        "coordinates": [*sweep.levels[0].coords()],
    }
    try:
        for k, level in enumerate(sweep.levels):
            create_tiles(
                level_folder(partial, k),
                template,
                level.coords(),
                level.dims,
                level.tiling,
                attributes if k == 0 else {},
            )
        partial.rename(store)
    except OSError as error:
        if store.exists():
            return  # another process was faster; what it made is checked as any
        raise OSError(f"Cannot make {store} ({error.strerror}): name another folder.") from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _check(store: Path, description: dict[str, Any]) -> None:
    attributes = root_attributes(store)
    if not is_sweep(attributes):
        raise ValueError(f"{store} exists and holds no sweep: move it, or name another store.")
    check_format(store, attributes)
    there = json.loads(attributes["sweep"])
    here = json.loads(json.dumps(description))  # what differs in type alone is the same
    differences = list(_differences(there, here))
    if differences:
        raise AnotherSweepError(
            f"{store} holds another sweep: {'; '.join(differences)}. Name another store, or run "
            "what this one was made with."
        )


def check_format(store: Path, attributes: dict[str, Any]) -> None:
    """Raises a `ValueError` for a format of the future."""
    if attributes["format"] > FORMAT:
        raise ValueError(
            f"{store} is of format {attributes['format']}, this ct-adam knows {FORMAT}: update it."
        )


def _differences(there: dict[str, Any], here: dict[str, Any]) -> Iterator[str]:
    """What differs, in the user's words; the program only where nothing else explains it."""
    flat = [_flat(x) for x in (there, here)]
    keys = [key for key in flat[0] | flat[1] if flat[0].get(key) != flat[1].get(key)]
    plain = [key for key in keys if key[0] != "program"]
    # A setting and what became of it may bear one name.
    told = {
        key[1]: f"{_shown(flat[0], key)} there and {_shown(flat[1], key)} here" for key in plain
    }
    for name, how in told.items():
        yield f"{name} is {how}"
    if keys and not plain:
        yield "its program differs (make, loss, data, params or save, or code that they use)"


def _flat(description: dict[str, Any]) -> dict[tuple[str, str], Any]:
    """By group and name."""
    flat = {}
    for name, value in description.items():
        if isinstance(value, dict):
            own = name in ("config", "surroundings")
            flat |= {
                (name, inner if own else f"{name} {inner}".strip()): x for inner, x in value.items()
            }
        else:
            flat["", name] = value
    return flat


def _shown(flat: dict[tuple[str, str], Any], key: tuple[str, str]) -> str:
    return str(flat[key]) if key in flat else "not set"


def _check_writable(store: Path) -> None:
    probe = store / STATUS / f".{uuid.uuid4().hex}"
    try:
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise OSError(
            f"Cannot write to {store} ({error.strerror}): make it writable, or copy it elsewhere."
        ) from None


def level_tiles(store: Path, level: int) -> Tiles:
    """A level's tiles.

    **Raises:** `ValueError` where its metadata are damaged.
    """
    folder = level_folder(store, level)
    variables = root_attributes(store).get("variables", [])
    try:
        tiles = Tiles(folder)
        if set(tiles.variables) != set(variables):
            raise KeyError("a variable is gone")
        return tiles
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise OSError(f"Cannot read {folder} ({reason}): bring it back.") from None
    except Exception as error:
        raise ValueError(
            f"The metadata in {folder} are damaged ({type(error).__name__}): bring them back from "
            "a copy, or remove the store."
        ) from None
