"""Where updates grow over the whole square of decays, beside what theory says (EQUATIONS §2).

Theory removes the bound below a boundary; it makes nothing grow by itself. Streams that attain the
bound, or whose gradients vanish, grow there and nowhere else; random and constant ones grow
nowhere. A quadratic's region depends on the learning rate, and on what one calls the region: here
the pairs whose loss ends below 10⁻³ of its start after the same learning-rate time. Its eps is
10⁻³: with 10⁻⁸ the ODE oscillates ever faster once a coordinate is near the minimum, and spends its
budget of solver steps; node `tiny_eps` counts on which part of the square.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ct_adam.plotting.atlas import atlas_figure
from ct_adam.sweep.provenance import provenance

from . import Progress, _atlas
from . import _atlas_claims as claims
from ._atlas import PREDICTED, STREAMS
from ._checked import check_counts, check_names, check_positive
from ._kept import resumed

if TYPE_CHECKING:
    import xarray
    from matplotlib.figure import Figure

EXPECTED = (
    "Worst-case and vanishing streams grow below b2 = b1² and nowhere else, within one cell of the "
    "map, of the optimizer and of the ODE with log rates; that with lag rates below b2 = b1/(2−b1) "
    "under its own worst case, by the sign of C in 99.9 % of the cells. The refined boundary is "
    "where theory's own updates grow by 1/steps. No update exceeds its bound by more than the "
    "solver's error, a constant stream and the largest of eight random ones grow nowhere, and the "
    "region in which a quadratic's loss falls to a thousandth in the same learning-rate time grows "
    "as the learning rate falls (that of updates up to 5 does not)."
)


@dataclass(frozen=True)
class Config:
    """Which maps, how finely and for how long."""

    streams: tuple[str, ...] = STREAMS
    cells: int = 256
    """a side of the maps of streams that theory predicts"""
    lag_cells: int = 128
    """of the `lag` flow's worst case, over (½, 1)²"""
    other_cells: int = 100
    """of all other maps"""
    stream_steps: int = 1000
    short_steps: int = 200
    corner: float = 0.3125
    """decays below have short runs, where gradients fade"""
    learning_rates: tuple[float, ...] = (1e-1, 1e-2, 1e-3, 1e-4)
    """of the quadratic, falling"""
    learning_rate_time: float = 4.0
    eps: float = 1e-3
    """of the quadratic"""
    tiny_eps: float = 1e-8
    tiny_cells: int = 32
    """a side of the quadratic's maps with `tiny_eps`; 0 for none"""
    tiny_budget: int = 20_000
    """the solver's steps there"""
    refined: tuple[str, ...] = PREDICTED
    """streams whose boundary is refined"""
    refined_cells: int = 16
    """of b1 on (0.6, 1), a multiple of 8, before they are refined"""
    resolution: float = 2.0**-9
    """of the refined boundaries, in b2"""
    refined_steps: int = 600

    def __post_init__(self) -> None:
        check_names(self, once=True, streams=STREAMS, refined=PREDICTED)
        check_counts(self, cells=2, lag_cells=2, other_cells=2, stream_steps=4, short_steps=4)
        check_counts(self, tiny_cells=0, tiny_budget=1, refined_cells=8, refined_steps=4)
        check_positive(self, "eps", "tiny_eps", "resolution")
        if self.refined_cells % 8:  # 7/4 as many of b2 are to be cut in two
            raise ValueError(f"refined_cells = {self.refined_cells} must be a multiple of 8.")
        if not 0 <= self.corner < 1:
            raise ValueError(f"corner = {self.corner} must be in [0, 1).")
        rates = self.learning_rates
        if not rates or min(rates) <= 0 or list(rates) != sorted(set(rates), reverse=True):
            raise ValueError(f"learning_rates = {rates} must be positive, and fall.")
        if not self.learning_rate_time >= 4 * rates[0]:
            raise ValueError(
                f"learning_rate_time = {self.learning_rate_time} must be four steps of "
                f"{rates[0]} at least."
            )

    @property
    def horizon(self) -> _atlas.Horizon:
        return _atlas.Horizon(self.stream_steps, self.short_steps, self.corner)


SIZES = {
    "smoke": Config(
        streams=("worst_case",), cells=16, lag_cells=16, other_cells=16, stream_steps=200,
        corner=0.0, learning_rates=(1e-1, 1e-2), tiny_cells=0, refined=("vanishing",),
        refined_cells=8, resolution=2.0**-5, refined_steps=100,
    ),
    "quick": Config(
        cells=96, lag_cells=48, other_cells=32, learning_rates=(1e-1, 1e-2, 1e-3), tiny_cells=16,
        tiny_budget=4000, refined=("vanishing",), refined_cells=8, resolution=2.0**-7,
    ),
    "full": Config(),
}  # fmt: skip

Part = Callable[[Path, _atlas.Tell], "xarray.Dataset"]


def run(config: Config, progress: Progress) -> "xarray.DataTree":
    """Nodes by stream, and `lag`, over (side, b1, b2); `quadratic` and `tiny_eps` with a first
    dimension `learning_rate`; `refined` over (stream, side, b1). Stopped, the next call goes on."""
    import xarray

    begun = time.perf_counter()
    nodes = resumed("region_atlas", config, lambda folder: _measure(config, folder, progress))
    tree = xarray.DataTree.from_dict(nodes)
    tree.attrs = provenance(config, time.perf_counter() - begun)
    return tree


def _measure(config: Config, folder: Path, progress: Progress) -> dict[str, "xarray.Dataset"]:
    parts = [(node, part) for node, its in _parts(config).items() for part in its]
    found: dict[str, list[xarray.Dataset]] = {}
    for k, (node, part) in enumerate(parts):

        def tell(done: int, total: int, node: str = node, before: int = k) -> None:
            # Each part counts for a hundred: how many lanes a refinement takes nobody knows.
            progress(node, 100 * before + 100 * done // total, 100 * len(parts))

        found.setdefault(node, []).append(part(folder, tell))
        tell(1, 1)
    over = {"quadratic": config.learning_rates, "tiny_eps": config.learning_rates}
    labels = {**over, "refined": config.refined}
    dims = {"quadratic": "learning_rate", "tiny_eps": "learning_rate", "refined": "stream"}
    return {
        node: _stacked(its, dims[node], labels[node]) if node in dims else its[0]
        for node, its in found.items()
    }


def _stacked(parts: "list[xarray.Dataset]", dim: str, labels: tuple[Any, ...]) -> "xarray.Dataset":
    import xarray

    how: Any = {"data_vars": "all", "coords": "minimal", "compat": "override", "join": "exact"}
    joined = xarray.concat(parts, dim, combine_attrs="drop_conflicts", **how)
    return joined.assign_coords({dim: list(labels)})


def _parts(config: Config) -> dict[str, list[Part]]:
    """What is measured, by node."""
    c = config

    def stream(name: str, low: float, cells: int, rates: Any) -> Part:
        return lambda *to: _atlas.stream_map(name, low, cells, c.horizon, rates, *to)

    def quadratic(eta: float, eps: float, cells: int, budget: int | None) -> Part:
        time = c.learning_rate_time
        return lambda *to: _atlas.quadratic_map(eta, time, eps, cells, budget, *to)

    def refined(name: str) -> Part:
        cells = (c.refined_steps, c.refined_cells, c.resolution)
        return lambda *to: _atlas.refined_boundary(name, *cells, *to)

    size = {name: c.cells if name in PREDICTED else c.other_cells for name in c.streams}
    parts = {name: [stream(name, 0.0, size[name], "log")] for name in c.streams}
    parts["lag"] = [stream("worst_case", 0.5, c.lag_cells, "lag")]
    parts["quadratic"] = [quadratic(eta, c.eps, c.other_cells, None) for eta in c.learning_rates]
    if c.tiny_cells:
        tiny = (c.tiny_eps, c.tiny_cells, c.tiny_budget)
        parts["tiny_eps"] = [quadratic(eta, *tiny) for eta in c.learning_rates]
    parts["refined"] = [refined(name) for name in c.refined]
    return parts


def plot(dataset: "xarray.DataTree") -> "Figure":
    return atlas_figure(dataset)


def numbers(dataset: "xarray.DataTree") -> dict[str, Any]:
    """By stream and side the shares of theory's verdicts, how far off the map is; areas of the
    quadratic by criterion; refined boundaries against theory."""
    found: dict[str, Any] = {}
    for name in (*STREAMS, "lag"):
        if name in dataset:
            found[name] = claims.of_stream(name, dataset[name].to_dataset())
    for name in ("quadratic", "tiny_eps"):
        if name in dataset:
            found[name] = claims.of_quadratic(dataset[name].to_dataset())
    refined = dataset["refined"].to_dataset()
    found["refined"] = {
        str(stream): {
            str(side): claims.of_refined(refined.sel(stream=stream, side=side))
            for side in refined.side.values
        }
        for stream in refined.stream.values
    }
    return found


def check(dataset: "xarray.DataTree") -> list[str]:
    missing = []
    for name in (*STREAMS, "lag"):
        if name in dataset:
            missing += claims.check_stream(name, dataset[name].to_dataset())
    missing += claims.check_areas(dataset["quadratic"].to_dataset())
    return missing + claims.check_refined(dataset["refined"].to_dataset())
