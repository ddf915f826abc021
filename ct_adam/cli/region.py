"""`ct-adam region`: where Adam is stable over (b1, b2)."""

from pathlib import Path
from typing import Annotated

import tyro
from tqdm import tqdm

from .. import plotting, sweep
from ..sweep import RegionConfig


def region(
    config: Annotated[RegionConfig, tyro.conf.arg(name="")] = RegionConfig(),  # noqa: B008
    out: Path = Path("out"),
) -> None:
    """Map where Adam is stable over its two decays: theory, the ODE and the optimizer.

    Writes region.zarr (labelled data), region.png and region.pdf, and prints a summary.

    Args:
        config: what to map, and how finely
        out: folder for the results
    """
    folder = sweep.writable_folder(out)
    store = folder / "region.zarr"
    sweep.check_replaceable(store)
    with tqdm(total=1, unit="lane", desc="region", dynamic_ncols=True) as bar:

        def progress(panel: str, done: int, total: int) -> None:
            bar.total = total
            bar.set_description(panel, refresh=False)
            bar.update(done - bar.n)

        tree = sweep.region(config, progress)
    figure = plotting.region_figure(tree)
    sweep.write_tree(tree, store)
    paths = plotting.save_figure(figure, folder / "region", tree.attrs)
    print(sweep.describe(tree))
    print(f"\nWrote {store}, {', '.join(str(path) for path in paths)} in {_seconds(tree)} s.")


def _seconds(tree: object) -> str:
    return f"{tree.attrs['wall_seconds']:.0f}"  # pyright: ignore[reportAttributeAccessIssue]
