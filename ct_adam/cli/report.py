"""`ct-adam report`: stability maps that one can touch, as one page that works offline."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import tyro

from ..progress import progress_bar
from ..report import GrowingStores, coarse_trajectories, document, read_gallery, read_maps, render
from ..report.page import check_installed
from ..sweep.store import writable_folder
from .told import tell

_LARGE = 10_000_000


def report(
    stores: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="STORE …")],
    out: Path = Path("report.html"),
    figures: Path | None = None,
    trajectories: int = 8,
    own_code: bool = False,
    serve: bool = False,
    port: int = 0,
) -> None:
    """Make one self-contained HTML page of stability maps from stores on disk.

    The page shows each map with theory beside measurement, trajectories of a coarse grid, the
    worst cells and, with --figures, the gallery of experiments. It works offline and loads nothing.

    Args:
        stores: folders that ct-adam region or ct-adam sweep has written; those of region that
            differ in the learning rate alone become one map with a slider
        out: the page
        figures: folder of figures and their records, for the gallery
        trajectories: pairs of decays a side of the grid whose trajectories are run; 0 for none
        own_code: import and run code of your own that a store names (package.module:factory)
        serve: write nothing, but serve the page to this machine alone while the stores grow: with
            progress, new tiles and a stop button; without trajectories
        port: where --serve listens; 0 takes a port that is free
    """
    check_installed()
    if serve:
        _serve(stores, figures, port)
        return
    if trajectories < 0:
        raise ValueError(f"trajectories = {trajectories} must not be negative.")
    writable_folder(out.parent)
    if out.is_dir():
        raise ValueError(f"{out} is a folder: name a file with --out, such as report.html.")
    maps = read_maps(stores)
    gallery = read_gallery(figures) if figures is not None else []
    with progress_bar("lane") as bar:
        runs = [coarse_trajectories(found, trajectories, own_code, bar) for found in maps]
    html = render(document(maps, runs), gallery)
    _write(out, html)
    for found, path in zip(maps, runs, strict=True):
        shape = " × ".join(str(found.data.sizes[dim]) for dim in ("b1", "b2"))
        drawn = f"no trajectories: {path.why}" if path.values is None else "with trajectories"
        print(f"{found.title}: {shape} pairs, {found.steps} steps, {drawn}")
    pictures = f" and {_count(len(gallery), 'experiment')}" if gallery else ""
    size = len(html.encode())
    print(f"\nWrote {out}, {size / 1e6:.1f} MB: {_count(len(maps), 'map')}{pictures}.")
    if size > _LARGE:
        print("That is large for a page: name fewer stores, or leave --figures away.")


def _serve(stores: Sequence[Path], figures: Path | None, port: int) -> None:
    from ..report.serve import PageServer

    gallery = read_gallery(figures) if figures is not None else []
    with PageServer(GrowingStores(stores), gallery, port) as server:
        tell("report", "serving to this machine alone, until Ctrl-C:")
        print(server.address, flush=True)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            raise KeyboardInterrupt("stopped serving; a sweep that is running goes on.") from None


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _write(out: Path, html: str) -> None:
    """Whole or not at all: an older page stays until then."""
    partial = out.with_name(f".{out.name}.{os.getpid()}")
    try:
        partial.write_text(html, encoding="utf-8")
        partial.replace(out)
    except OSError as error:
        raise OSError(f"Cannot write {out} ({error.strerror}): name another --out.") from None
    finally:
        partial.unlink(missing_ok=True)
