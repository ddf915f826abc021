"""`ct-adam region`: where Adam is stable over (b1, b2)."""

import hashlib
import json
import shutil
from pathlib import Path
from typing import Annotated, Any

import tyro

from .. import plotting, sweep
from ..progress import progress_bar
from ..simulate import RunError
from ..sweep import RegionConfig
from ..sweep.layout import AnotherSweepError
from .told import tell_kept


def region(
    config: Annotated[RegionConfig, tyro.conf.arg(name="")] = RegionConfig(),  # noqa: B008
    out: Path = Path("out"),
    json_: Annotated[bool, tyro.conf.arg(name="json")] = False,
) -> None:
    """Map where Adam is stable over its two decays: theory, the ODE and the optimizer.

    Writes region.zarr (labelled data), region.png and region.pdf, and prints a summary. Stopped,
    it goes on where it was when it is called again. A map of other settings in that folder is kept
    beside it, as region-….zarr.

    Args:
        config: what to map, and how finely
        out: folder for the results
        json_: print one JSON object in place of the table
    """
    folder = sweep.writable_folder(out)
    store = folder / "region.zarr"
    sweep.check_replaceable(store)
    known = hashlib.sha256(repr(config).encode()).hexdigest()[:8]
    tiles = folder / f".region-{known}"
    tree = _measured(config, tiles)
    figure = plotting.region_figure(tree)
    tell_kept("region", sweep.keep_earlier(store, tree.attrs["config"]))
    sweep.write_tree(tree, store)
    paths = plotting.save_figure(figure, folder / "region", tree.attrs)
    shutil.rmtree(tiles, ignore_errors=True)
    if json_:
        print(json.dumps(sweep.region_summary(tree)))
        return
    print(sweep.describe(tree))
    seconds = f"{tree.attrs['wall_seconds']:.0f} s"
    print(f"\nWrote {store}, {', '.join(map(str, paths))} in {seconds}.")


def _measured(config: RegionConfig, tiles: Path) -> Any:
    """The map, its tiles kept until it is written; those of changed code are made anew."""
    reached = (0, 0)
    try:
        with progress_bar("lane") as bar:

            def tell(what: str, done: int, total: int) -> None:
                nonlocal reached
                reached = (done, total)
                bar(what, done, total)

            return sweep.region(config, tell, tiles)
    except AnotherSweepError:
        shutil.rmtree(tiles)
        return _measured(config, tiles)
    except RunError:
        shutil.rmtree(tiles)  # nothing in them is worth keeping
        raise
    except KeyboardInterrupt:
        done, total = reached
        raise KeyboardInterrupt(
            f"stopped; {done} of {total} lanes are kept: the same call goes on."
            if done
            else "stopped before the first tile."
        ) from None
