"""Where Adam is stable over (b1, b2): measured, with the flow and with the optimizer."""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from ..decays import RATES, Rates, choice
from ..ensemble import Case, ensemble
from ..ensemble.reductions import largest
from ..flows import AdamFlow
from ..optimizers import k_adam
from ..problems import (
    AbstractProblem,
    GradientStream,
    digits_mlp,
    quadratic,
    vanishing_stream,
    worst_case_stream,
)
from ..simulate.outcome import OUTCOME
from ..theory import stability_boundary, update_bound
from .provenance import provenance

if TYPE_CHECKING:
    import xarray

PANELS = ("worst_case", "vanishing", "quadratic", "network")
SIDES = ("optimizer", "flow")
_TILE = 256  # lanes between two ticks of the progress bar
# A stream's updates do not depend on its scale (eps = 0); this one, a power of two so that not
# even rounding does, keeps g² and v in floating-point range over 1000 steps.
_STREAM_SCALE = 2.0**498


@dataclass(frozen=True)
class RegionConfig:
    """What to map, and how finely."""

    cells: int = 64
    """cells a side of the streams' and the quadratic's maps"""
    network_cells: int = 12
    """cells a side of the network's map"""
    low: float = 0.5
    """both decays run over (low, 1)"""
    rates: Rates = "log"
    """relaxation rates of the flow: log, lag or euler"""
    panels: tuple[str, ...] = PANELS
    """which problems: worst_case, vanishing, quadratic, network"""
    stream_steps: int = 1000
    quadratic_steps: int = 300
    network_steps: int = 60
    learning_rate: float = 1e-2
    """of the quadratic and the network; streams do not feel it"""
    eps: float = 1e-8
    """of the quadratic and the network; streams have 0"""
    images: int = 128
    hidden: int = 16
    seed: int = 0

    def __post_init__(self) -> None:
        choice("rates", self.rates, RATES)
        for panel in self.panels:
            choice("panel", panel, PANELS)
        if not self.panels:
            raise ValueError(f"panels is empty: choose among {', '.join(PANELS)}.")
        for name in ("cells", "network_cells", "hidden"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} = {getattr(self, name)} must be at least 1.")
        for name in ("stream_steps", "quadratic_steps", "network_steps"):
            if getattr(self, name) < 4:
                raise ValueError(f"{name} = {getattr(self, name)} must be at least 4.")
        if not 0 <= self.low < 1:
            raise ValueError(f"low = {self.low} must be in [0, 1).")
        for name in ("learning_rate", "eps"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} = {getattr(self, name)} must not be negative.")


SIZES = {
    "smoke": RegionConfig(
        cells=12, network_cells=3, stream_steps=200, quadratic_steps=60, network_steps=20, hidden=4
    ),
    "quick": RegionConfig(),
    "full": replace(RegionConfig(), cells=256, network_cells=32),
}


@dataclass(frozen=True)
class _Panel:
    """One problem: how a lane is made for each side, and what it costs."""

    title: str
    make: dict[str, Callable[..., Case]]
    problem: AbstractProblem | None
    params: PyTree
    steps: int
    cells: int
    tolerances: dict[str, float]


def region(
    config: RegionConfig | None = None, progress: Callable[[str, int, int], None] | None = None
) -> "xarray.DataTree":
    """Measures the largest update and its growth over the square of decays.

    **Arguments:**

    - `config`: what to map. `progress(panel, done, total)` is told of each finished tile.

    **Returns:** a `DataTree` with a node a panel, each over (side, b1, b2): `max_update`,
    `update_slope`, `unstable` (slope above 1/steps: EQUATIONS §2), `answered` (whether the lane
    reached its end with a number), `log_bound` (ln of the largest update that theory
    allows), `outcome`,
    `evaluations`, `final_loss`; and over (side, b1) `boundary`, the theory's b2.

    **Raises:** `ValueError` for a configuration that makes no sense.
    """
    import xarray

    config = RegionConfig() if config is None else config
    begun = time.perf_counter()
    panels = {name: _PANELS[name](config) for name in config.panels}
    total = sum(len(SIDES) * panel.cells**2 for panel in panels.values())
    done = 0
    nodes = {}
    for name, panel in panels.items():
        centres = config.low + (1 - config.low) * (np.arange(panel.cells) + 0.5) / panel.cells
        maps = []
        for side in SIDES:
            tiles = []
            for tile in _tiles(centres):
                tiles.append(_measure(panel, side, tile))
                done += len(tiles[-1].lane)
                if progress is not None:
                    progress(name, done, total)
            maps.append(xarray.concat(tiles, "lane"))
        nodes[name] = _labelled(panel, centres, maps, config)
    tree = xarray.DataTree.from_dict(nodes)
    tree.attrs = provenance(config, time.perf_counter() - begun)
    return tree


def _tiles(centres: np.ndarray) -> list[dict[str, np.ndarray]]:
    b1, b2 = (axis.ravel() for axis in np.meshgrid(centres, centres, indexing="ij"))
    starts = range(0, b1.size, _TILE)
    return [{"b1": b1[i : i + _TILE], "b2": b2[i : i + _TILE]} for i in starts]


def _measure(panel: _Panel, side: str, tile: dict[str, np.ndarray]) -> "xarray.Dataset":
    metrics = ("max_update", "update_slope", "final_loss", "outcome", "evaluations")
    count = len(tile["b1"])
    # The last tile is filled up, so that all share one compiled program.
    lanes = {name: np.pad(column, (0, _pad(count, panel)), "edge") for name, column in tile.items()}
    table = ensemble(
        panel.make[side],
        panel.problem,
        panel.params,
        panel.steps,
        lanes,
        metrics=metrics,
        save=_last_update,
        **panel.tolerances,  # pyright: ignore[reportArgumentType]
    )
    return table.isel(lane=slice(count))


def _pad(count: int, panel: _Panel) -> int:
    return min(_TILE, panel.cells**2) - count


def _last_update(step: Any, params: PyTree, update: PyTree, loss: Any) -> Any:
    del step, params, loss
    return largest(update)


def _labelled(
    panel: _Panel, centres: np.ndarray, maps: list["xarray.Dataset"], config: RegionConfig
) -> "xarray.Dataset":
    """The sides' lanes as one map over (side, b1, b2), with theory beside measurement."""
    import xarray

    n = len(centres)
    dims = ("side", "b1", "b2")

    def square(name: str) -> np.ndarray:
        return np.stack([table[name].values.reshape(n, n) for table in maps])

    attrs = {name: maps[0][name].attrs for name in maps[0].data_vars}
    dataset = xarray.Dataset(
        {
            name: (dims, square(name), attrs[name])
            for name in ("max_update", "update_slope", "final_loss", "outcome", "evaluations")
        },
        coords={
            "side": list(SIDES),
            "b1": ("b1", centres, {"long_name": "first-moment decay b1", "units": "1"}),
            "b2": ("b2", centres, {"long_name": "second-moment decay b2", "units": "1"}),
        },
        attrs={"title": panel.title, "steps": panel.steps},
    )
    # An update that underflowed to 0 was too small for floating point, not stable.
    tiny = np.finfo(float).tiny
    fine = (square("outcome") == _SUCCESSFUL) & (square("saved") > tiny)
    answered = fine & np.isfinite(square("update_slope"))
    dataset["answered"] = (dims, answered, {"long_name": "lane reached its end with a number"})
    unstable = answered & (square("update_slope") > 1 / panel.steps)
    dataset["unstable"] = (dims, unstable, {"long_name": "slope of ln ‖u‖_∞ above 1/steps"})
    # "flow" also where the stream is held: between whole steps a held one exceeds its own bound.
    kinds = {"optimizer": "discrete", "flow": "flow"}
    b1, b2 = np.meshgrid(centres, centres, indexing="ij")
    # u(s) of a flow has seen s + 1 gradients; the optimizer's last update is that of step n - 1.
    seen = {"optimizer": panel.steps, "flow": panel.steps + 1}
    bounds = [
        np.asarray(update_bound(b1, b2, seen[m], kinds[m], config.rates, log=True))  # pyright: ignore[reportArgumentType]
        for m in SIDES
    ]
    label = {"long_name": "ln of the largest update that theory allows", "units": "1"}
    dataset["log_bound"] = (dims, np.stack(bounds), label)
    edges = [
        np.asarray(stability_boundary(centres, kinds[m], config.rates))  # pyright: ignore[reportArgumentType]
        for m in SIDES
    ]
    label = {"long_name": "second-moment decay b2 at the boundary", "units": "1"}
    dataset["boundary"] = (("side", "b1"), np.stack(edges), label)
    return dataset


_SUCCESSFUL = int(OUTCOME.successful._value)  # pyright: ignore[reportAttributeAccessIssue]


def _stream_panel(
    title: str, config: RegionConfig, stream: Callable[[str, Any, Any], AbstractProblem]
) -> _Panel:
    def flow(b1: Any, b2: Any) -> Case:
        return Case(AdamFlow(1.0, b1, b2, eps=0.0, rates=config.rates), stream("flow", b1, b2))

    def optimizer(b1: Any, b2: Any) -> Case:
        return Case(k_adam(1.0, b1, b2, eps=0.0), stream("optimizer", b1, b2))

    return _Panel(
        title,
        {"flow": flow, "optimizer": optimizer},
        None,
        jnp.zeros(1),
        config.stream_steps,
        config.cells,
        # The parameters feel nothing back: their error is not asked for.
        {"atol": np.inf},
    )


def _worst_case(config: RegionConfig) -> _Panel:
    def stream(side: str, b1: Any, b2: Any) -> AbstractProblem:
        kind = "held" if side == "flow" else "discrete"
        worst = worst_case_stream(b1, b2, config.stream_steps + 1, kind, config.rates)
        return GradientStream(worst.gradients * _STREAM_SCALE)

    return _stream_panel("worst-case stream", config, stream)


def _vanishing(config: RegionConfig) -> _Panel:
    steps = config.stream_steps
    shared = vanishing_stream(steps + 1, steps // 2, _STREAM_SCALE)
    return _stream_panel("vanishing stream", config, lambda side, b1, b2: shared)


def _loss_panel(
    title: str,
    problem: AbstractProblem,
    params: PyTree,
    steps: int,
    cells: int,
    config: RegionConfig,
) -> _Panel:
    eta, eps, rates = config.learning_rate, config.eps, config.rates
    return _Panel(
        title,
        {
            "flow": lambda b1, b2: Case(AdamFlow(eta, b1, b2, eps, rates=rates)),
            "optimizer": lambda b1, b2: Case(k_adam(eta, b1, b2, eps)),
        },
        problem,
        params,
        steps,
        cells,
        # Near a minimum a flow of low decays oscillates ever faster: at 1e-3 every lane ends, at
        # 1e-6 half of them spend a budget five times as large.
        {"rtol": 1e-3, "atol": 1e-6},
    )


def _quadratic(config: RegionConfig) -> _Panel:
    start = jnp.array([1.0, -1.0, 0.5, 2.0])
    title = "quadratic, curvatures 1, 3, 10, 30"
    problem = quadratic([1.0, 3.0, 10.0, 30.0])
    return _loss_panel(title, problem, start, config.quadratic_steps, config.cells, config)


def _network(config: RegionConfig) -> _Panel:
    problem, params = digits_mlp((config.hidden,), config.images, config.seed)
    title = f"digits MLP 64-{config.hidden}-10, {config.images} images"
    return _loss_panel(title, problem, params, config.network_steps, config.network_cells, config)


_PANELS: dict[str, Callable[[RegionConfig], _Panel]] = {
    "worst_case": _worst_case,
    "vanishing": _vanishing,
    "quadratic": _quadratic,
    "network": _network,
}
