"""Bounds on the update in action (EQUATIONS §2): how tight, for whom, and what eps makes of them.

The paper's second figure, level and normal curves of C. Along a normal curve the ratio |u|/bound of
worst-case and of random streams, for the optimizer and for flows. The same ratio over the training
of two networks, and what the gradients of the coordinate that comes nearest look like. Last, where
nothing bounds u but eps: the largest |u| after a gradient σ has vanished, against σ/eps.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from ct_adam.plotting.bounds import bounds_figure
from ct_adam.sweep.provenance import provenance

from . import Progress
from . import _bounds as measured
from . import _bounds_tables as tables
from ._bounds_networks import NETWORKS
from ._checked import check_counts, check_names
from ._paths import each

if TYPE_CHECKING:
    import xarray
    from matplotlib.figure import Figure

ROUNDING = 1e-11
"""A few units in the last place a step of m, at most of Σ w|g|, which obeys the same bound, and as
many of √v; some thousand steps at most. The bound itself is the exponential of a number below 200.
"""
SOLVER = 1e-6
"""Of flows: rtol 1e-9 a solver step, about a thousand of them."""
CROSSINGS = dict(zip(tables.BOUNDARIES, [(0.980591, 0.961920), (0.980737, 0.961844)], strict=True))
"""Of the normal curve through the default pair (EQUATIONS §2)."""
EXCESS = 0.14
"""By which a flow from zero exceeds the paper's bound (EQUATIONS §2), to half of its last digit."""
EXPECTED = (
    "No update exceeds its exact bound, whatever the gradients, and the worst case attains it at "
    "every step; the paper's bound is exceeded by a flow from zero, by 14 % at most. The normal "
    "curve crosses the level curves of C at right angles, C = 0 at (0.980591, 0.961920) and "
    "b2 = b1² at (0.980737, 0.961844). Where b1² > b2 the update that follows a gradient σ which "
    "vanishes grows to r^r (1−r)^{1−r} (σ/eps)^{1−r}, r = 2 ln b1/ln b2: slopes within 2 %."
)


@dataclass(frozen=True)
class Config:
    """How many pairs and streams, and which networks."""

    pairs: int = 24
    """on the normal curve through the default pair, which is one more"""
    size: int = 256
    """random streams of each kind"""
    steps: int = 1000
    flows: int = len(measured.FLOWS)
    """how many of `lag` and `log` from the first step and `lag` from zero, the last ones first"""
    flow_pairs: int = 5
    flow_size: int = 64
    flow_steps: int = 300
    networks: tuple[str, ...] = tuple(NETWORKS)
    network_steps: int = 1000
    learning_rate: float = 1e-3
    """of the networks; streams do not feel it"""
    scales: int = 17
    """values of σ/eps from 1e2 to 1e6"""
    seed: int = 0

    def __post_init__(self) -> None:
        if self.networks:
            check_names(self, once=True, networks=NETWORKS)
        # Below 200 steps the bound of the default pair leaves no room in the first half of a run.
        check_counts(self, network_steps=200, steps=2, flow_steps=2, scales=2, seed=0)
        check_counts(self, pairs=1, size=1, flows=1, flow_pairs=1, flow_size=1)
        if self.flows > len(measured.FLOWS):
            raise ValueError(f"flows = {self.flows}: there are {len(measured.FLOWS)} of them.")


SIZES = {
    "smoke": Config(
        pairs=6, size=32, steps=400, flows=1, flow_pairs=2, flow_size=16, flow_steps=100,
        networks=("digits MLP",), network_steps=200, scales=9,
    ),
    "quick": Config(),
    "full": Config(
        pairs=100, size=2000, steps=2000, flow_pairs=12, flow_size=256, flow_steps=1000,
        network_steps=5000, scales=65,
    ),
}  # fmt: skip


def run(config: Config, progress: Progress) -> "xarray.DataTree":
    """Nodes `curves`, `optimizer`, `flows`, `paper`, `caps` and one a network."""
    import xarray

    begun = time.perf_counter()
    parts, nodes = _parts(config), {}
    for name, part in parts.items():
        nodes[name] = part()
        progress(name, len(nodes), len(parts))
    tree = xarray.DataTree.from_dict(nodes)
    tree.attrs = provenance(config, time.perf_counter() - begun)
    return tree


def _parts(config: Config) -> dict[str, Callable[[], "xarray.Dataset"]]:
    """What is measured, by the node's name."""
    streams = config.pairs, config.steps, config.size, config.seed
    held = config.flow_pairs, config.flow_steps, config.flow_size, config.seed
    training = config.network_steps, config.learning_rate, config.seed
    return {
        "curves": tables.curves,
        "optimizer": partial(tables.optimizer, *streams),
        "flows": partial(tables.flows, config.flows, *held),
        "paper": partial(tables.paper, config.flow_pairs),
        "caps": partial(tables.caps, config.scales),
        **{name: partial(tables.network, name, *training) for name in config.networks},
    }


def plot(dataset: "xarray.DataTree") -> "Figure":
    return bounds_figure(dataset)


def numbers(dataset: "xarray.DataTree") -> dict[str, Any]:
    """Crossings and angles; |u|/bound by stream and pair, by flow, by network; slopes of caps."""
    return {
        "curves": _curves(dataset["curves"].to_dataset()),
        "optimizer": _streams(dataset["optimizer"].to_dataset()),
        "flows": _flows(dataset["flows"].to_dataset()),
        "paper": _paper(dataset["paper"].to_dataset()),
        "networks": {n: _network(dataset[n].to_dataset()) for n in NETWORKS if n in dataset},
        "caps": _caps(dataset["caps"].to_dataset()),
    }


def _pair(at: "xarray.Dataset") -> str:
    return f"({float(at.b1):.6g}, {float(at.b2):.6g})"


def _three(quantiles: "xarray.DataArray") -> dict[str, float]:
    return dict(zip(("median", "99 %", "largest"), map(float, quantiles), strict=True))


def _curves(node: "xarray.Dataset") -> dict[str, Any]:
    found = {}
    for name in node.curve.values:
        row = node.sel(curve=name)
        found[name] = {
            "largest cosine with a level curve": float(abs(row.cosine).max()),
            **{
                f"crosses {b}": str(tuple(round(float(x), 6) for x in row.crossing.sel(boundary=b)))
                for b in row.boundary.values
            },
            "degrees to b2 = b1²": float(np.degrees(np.arccos(row.cosine_discrete))),
        }
    return found


def _streams(node: "xarray.Dataset") -> dict[str, Any]:
    """At half a dozen pairs, the default among them."""
    default = int(np.abs(node.b2.values - measured.DEFAULT[1]).argmin())
    chosen = {default, *np.linspace(0, node.sizes["pair"] - 1, 6).round().astype(int)}
    found = {}
    for at in sorted(chosen):
        row = node.isel(pair=at)
        found[_pair(row)] = {
            "bound": {"at the last step": float(row.bound), "worst case": float(row.worst[0])},
            **{name: _three(row.quantiles.sel(stream=name)) for name in row.stream.values},
        }
    return found


def _flows(node: "xarray.Dataset") -> dict[str, Any]:
    """By flow and kind of bound, over the pairs."""
    return {
        flow: {
            kind: {
                "worst case, least": float(row.worst.sel(end="least").min()),
                "largest": float(row.worst.sel(end="largest").max()),
                "random, median": float(row.quantiles.sel(quantile=0.5).max()),
                "random, largest": float(row.quantiles.sel(quantile=1.0).max()),
            }
            for kind in node.kind.values
            for row in [node.sel(flow=flow, kind=kind)]
        }
        for flow in node.flow.values
    }


def _paper(node: "xarray.Dataset") -> dict[str, Any]:
    rows = each(node, "pair")
    return {_pair(row): {"excess": float(row.excess), "after": int(row.steps)} for row in rows}


def _network(node: "xarray.Dataset") -> dict[str, Any]:
    late = node.quantiles[node.sizes["step"] // 2 :]
    return {
        "by step, second half": {
            "median": float(late[:, 0].median()),
            "99 %": float(late[:, 1].median()),
            "largest": float(late[:, 2].max()),
        },
        **{f"nearest, {half} half": _nearest(node.sel(half=half)) for half in node.half.values},
    }


def _nearest(row: "xarray.Dataset") -> dict[str, Any]:
    gradient = row.nearest_gradient.values[: int(row.nearest_step)]
    silent = np.flatnonzero(gradient == 0)
    return {
        "|u|/bound": float(row.nearest_ratio),
        "step": int(row.nearest_step),
        "coordinate": str(row.nearest_name.item()),
        "gradients that are 0": f"{len(silent)} of {len(gradient)}",
    }


def _caps(node: "xarray.Dataset") -> dict[str, Any]:
    return {
        _pair(row): {
            side: {
                "slope": float(row.slope.sel(side=side)),
                "1 − r": float(row.exponent.sel(side=side)),
                "off closed form": float(_off(row.sel(side=side))),
            }
            for side in row.side.values
        }
        for row in each(node, "pair")
    }


def _off(row: "xarray.Dataset") -> float:
    return float(np.abs(row.largest.values / row.closed_form.values - 1).max())


def check(dataset: "xarray.DataTree") -> list[str]:
    optimizer, flows, paper = (dataset[name] for name in ("optimizer", "flows", "paper"))
    exact = flows.largest.sel(kind=["held", "flow"])
    missing = [
        *_check_curves(dataset["curves"].to_dataset()),
        *_exceeds("the optimizer", optimizer.largest, ROUNDING),
        *_exceeds("a flow", exact, SOLVER),
        *_exceeds("a flow under g(s)", paper.worst, SOLVER),
        *_attains("the optimizer", optimizer.worst, ROUNDING),
        *_attains("a flow", flows.worst.sel(kind="held"), SOLVER),
        *_attains("a flow under g(s)", paper.worst, SOLVER),
    ]
    for name in (n for n in NETWORKS if n in dataset):
        missing += _exceeds(name, dataset[name].quantiles, ROUNDING)
    excess = float(np.max(paper.excess.values))
    if not abs(excess - EXCESS) <= 0.005:
        missing.append(f"A flow exceeds the paper's bound by {excess:.3g}, not by {EXCESS:g}.")
    return missing + _check_caps(dataset["caps"].to_dataset())


def _check_curves(node: "xarray.Dataset") -> list[str]:
    missing = []
    largest = float(np.abs(node.cosine.values).max())
    if not largest <= 1e-6:  # central differences over 1e-4 of curves with derivatives of order 1
        missing.append(f"A normal curve meets a level curve with the cosine {largest:.3g}, not 0.")
    for boundary, point in CROSSINGS.items():
        found = node.crossing.sel(boundary=boundary)[0].values
        if not np.abs(found - point).max() <= 1e-6:
            shown = ", ".join(f"{x:.7f}" for x in found)
            missing.append(f"The normal curve crosses {boundary} at ({shown}), not at {point}.")
    return missing


def _exceeds(who: str, ratio: "xarray.DataArray", allowed: float) -> list[str]:
    largest = float(np.max(ratio.values))  # NaN is an answer too
    if largest <= 1 + allowed:
        return []
    return [f"An update of {who} is {largest:.12g} times its exact bound."]


def _attains(who: str, worst: "xarray.DataArray", allowed: float) -> list[str]:
    least = float(np.min(worst.values))
    if least >= 1 - allowed:
        return []
    return [f"The worst case of {who} stays at {least:.12g} of its bound at some step."]


def _check_caps(node: "xarray.Dataset") -> list[str]:
    missing = []
    for row in each(node, "pair"):
        for side in row.side.values:
            one = row.sel(side=side)
            slope, expected, off = float(one.slope), float(one.exponent), _off(one)
            where = f"{_pair(row)}, {side}"
            if not abs(slope / expected - 1) <= 0.02:
                missing.append(f"{where}: the cap's slope is {slope:.4g}, not {expected:.4g}.")
            # ln|u| has a curvature of at most ¼ in ln y, and a whole step is at most a quarter of
            # the rate away from its maximum: at most 3e-4 for the rates here.
            if not off <= 1e-3:
                missing.append(f"{where}: the cap is {off:.3g} off its closed form.")
    return missing
