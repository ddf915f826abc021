"""`ct-adam region`: where Adam is stable over (b1, b2)."""

import hashlib
import shutil
from pathlib import Path
from typing import Annotated, Any

import tyro

from .. import plotting, sweep
from ..simulate import RunError
from ..sweep import RegionConfig
from ..sweep.layout import AnotherSweepError
from ..sweep.progress import lane_bar


def region(
    config: Annotated[RegionConfig, tyro.conf.arg(name="")] = RegionConfig(),  # noqa: B008
    out: Path = Path("out"),
) -> None:
    """Map where Adam is stable over its two decays: theory, the ODE and the optimizer.

    Writes region.zarr (labelled data), region.png and region.pdf, and prints a summary. Stopped,
    it goes on where it was when it is called again.

    Args:
        config: what to map, and how finely
        out: folder for the results
    """
    folder = sweep.writable_folder(out)
    store = folder / "region.zarr"
    sweep.check_replaceable(store)
    known = hashlib.sha256(repr(config).encode()).hexdigest()[:8]
    tiles = folder / f".region-{known}"
    tree = _measured(config, tiles)
    figure = plotting.region_figure(tree)
    sweep.write_tree(tree, store)
    paths = plotting.save_figure(figure, folder / "region", tree.attrs)
    shutil.rmtree(tiles)
    print(sweep.describe(tree))
    print(f"\nWrote {store}, {', '.join(str(path) for path in paths)} in {_seconds(tree)} s.")


def _measured(config: RegionConfig, tiles: Path) -> Any:
    """The map, its tiles kept until it is written; those of changed code are made anew."""
    try:
        with lane_bar() as bar:
            return sweep.region(config, bar, tiles)
    except AnotherSweepError:
        shutil.rmtree(tiles)
        return _measured(config, tiles)
    except RunError:
        shutil.rmtree(tiles)  # nothing is worth to be kept
        raise
    except KeyboardInterrupt:
        kept = "stopped; what was done is kept" if tiles.exists() else "stopped"
        raise KeyboardInterrupt(f"{kept}: the same call goes on.") from None


def _seconds(tree: Any) -> str:
    return f"{tree.attrs['wall_seconds']:.0f}"
