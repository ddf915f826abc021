"""Labelled results on disk."""

import hashlib
import json
import os
import shutil
import tempfile
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from .provenance import PROGRAM

if TYPE_CHECKING:
    import xarray


def writable_folder(path: str | Path, flag: str = "--out") -> Path:
    """`path` as an existing folder that can be written to, or an `OSError` of one sentence.

    To be called before long work, so that nothing is lost to a folder that refuses it.

    !!! example
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     writable_folder(Path(folder, "out")).is_dir()
        True
    """
    folder = Path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise OSError(
            f"Cannot write to {folder} ({error.strerror}): name another folder with {flag}."
        ) from None
    return folder


def check_replaceable(store: Path) -> None:
    """Raises a `ValueError` unless `store` is free, or holds a result of this program.

    !!! example
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     check_replaceable(Path(folder, "new.zarr"))  # free
    """
    if not store.exists():
        return
    if not _is_ours(store):
        raise ValueError(
            f"{store} exists and was not written by this program: move it, or name another --out."
        )


def _is_ours(store: Path) -> bool:
    """Whether the store's root says which program wrote it."""
    return _attribute(store, "program") == PROGRAM


def _attribute(store: Path, name: str) -> object:
    """Of the store's root; None where there is none."""
    try:
        return json.loads((store / "zarr.json").read_text(encoding="utf-8"))["attributes"][name]
    except (OSError, ValueError, KeyError, TypeError):
        return None


def keep_earlier(store: Path, config: str) -> Path | None:
    """Moves a result of another configuration out of the way, and its figures.

    `config` is the new result's attribute of that name. The earlier `map.zarr`, `map.png` and
    `map.pdf` become `map-3ce6013c.zarr` and so on, eight digits of their own configuration's hash:
    where that is, or None if nothing was moved.

    !!! example
        >>> import tempfile, xarray
        >>> mine = {"program": "ct_adam", "config": "1 step"}
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     store = Path(folder, "map.zarr")
        ...     write_dataset(xarray.Dataset(attrs=mine), store)
        ...     print(keep_earlier(store, "1 step"), keep_earlier(store, "2 steps").name)
        None map-3ce6013c.zarr
    """
    earlier = _attribute(store, "config")
    if not isinstance(earlier, str) or earlier == config:
        return None
    known = hashlib.sha256(earlier.encode()).hexdigest()[:8]
    for suffix in (".png", ".pdf", store.suffix):
        path, kept = (
            store.with_name(f"{stem}{suffix}") for stem in (store.stem, f"{store.stem}-{known}")
        )
        if kept.is_dir():
            shutil.rmtree(kept)
        if path.exists():
            path.replace(kept)
    return store.with_name(f"{store.stem}-{known}{store.suffix}")


def write_tree(tree: "xarray.DataTree", store: Path) -> None:
    """Writes `tree` to a zarr store, whole or not at all: an older result stays until then.

    !!! example
        >>> import tempfile, xarray
        >>> tree = xarray.DataTree.from_dict({"mine": xarray.Dataset({"loss": 1.0})})
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_tree(tree, Path(folder, "mine.zarr"))
        ...     print(list(read_tree(Path(folder, "mine.zarr"))))
        ['mine']
    """
    check_replaceable(store)
    partial = store.with_name(f".{store.name}.{os.getpid()}")
    try:
        with warnings.catch_warnings():
            # zarr warns that fixed-width strings and consolidated metadata are not yet in its
            # specification; the store is read back by the library that wrote it.
            warnings.simplefilter("ignore")
            tree.to_zarr(partial, mode="w", consolidated=False)
        if store.exists():
            shutil.rmtree(store)
        partial.rename(store)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def write_dataset(dataset: "xarray.Dataset", store: Path) -> None:
    """As `write_tree`, for a dataset; `read_tree(store).dataset` is the way back.

    !!! example
        >>> import tempfile, xarray
        >>> losses = xarray.Dataset({"loss": ("step", [2.0, 1.0])})
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_dataset(losses, Path(folder, "mine.zarr"))
        ...     print(read_tree(Path(folder, "mine.zarr")).dataset.loss.values)
        [2. 1.]
    """
    import xarray

    tree = xarray.DataTree(dataset)
    write_tree(tree, store)


def read_tree(store: str | Path) -> "xarray.DataTree":
    """The labelled result in `store`, loaded."""
    import xarray

    with xarray.open_datatree(store, engine="zarr", consolidated=False) as tree:
        return tree.load()
