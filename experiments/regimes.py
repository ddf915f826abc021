"""Where a long run of Adam ends up over (b1, b2): it comes to rest, cycles, spikes, diverges.

Quadratics, the flat minimum x⁴ and a small network, by the criterion of `ct.theory.regime`. Beside
the runs what theory says of them: the adaptive edge of stability, the boundary of a flat minimum,
and the spectral radius of the step linearised at a fixed point (EQUATIONS §2).
"""

import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ct_adam.plotting.regimes import regimes_figure
from ct_adam.sweep.provenance import provenance
from ct_adam.theory import REGIME

from . import Progress
from . import _regimes as measured
from . import _regimes_claims as claims
from ._checked import check_counts
from ._kept import Arrays, Keep, numbered, resumed
from ._paths import each
from ._regimes import DEGREE, Setting
from ._signals import confusion

if TYPE_CHECKING:
    import xarray
    from matplotlib.figure import Figure

MAPS = {
    "quadratic": (
        Setting(1e-1, 1e-8), Setting(1e-2, 1e-8), Setting(1e-2, 1e-2), Setting(1e-2, 1e-1),
    ),
    "flat": (Setting(1e-1, 0.0), Setting(1e-2, 0.0), Setting(1e-2, 1e-8), Setting(1e-2, 1e-2)),
    "network": (
        Setting(3e-2, 1e-8), Setting(1e-2, 1e-8), Setting(1e-1, 1e-2), Setting(1e-2, 1e-2),
    ),
}  # fmt: skip
"""By problem what its maps hold fixed."""
LOCAL = (
    (0.0, Setting(1e-1, 1e-2)),
    (0.0, Setting(1e-2, 1e-2)),
    (0.0, Setting(1e-2, 1e-1)),
    (1.05, Setting(1e-1, 1e-8, 1.0)),
)
"""Quadratics by where their minimum lies, beyond 1/λ of AdamW: a fixed point with g ≠ 0."""
EMPTY = Setting(1e-2, 1e-8)
"""Where no pair has a stable minimum, so that nothing can disagree."""
EXPECTED = (
    "A small disturbance of a fixed point dies out where the spectral radius of the linear step "
    "is below 1 and not where it is above, on 99 % of the pairs away from 1: Adam at eps ≥ 1e-2, "
    "AdamW with λ = 1; from an ordinary start a run may cycle about a stable point all the same. "
    "With eps = 1e-8 the radius is above 1 at every pair. At the flat minimum x⁴ with eps = 0 Adam "
    "comes to rest above b2 = b1, whatever the learning rate. Of synthetic signals of up to twice "
    "the usual roughness the criterion calls 1 % by a wrong name, or fewer."
)


@dataclass(frozen=True)
class Config:
    """How finely, and for how long."""

    cells: int = 48
    """cells a side of the maps of quadratic and x⁴"""
    steps: int = 20_000
    """of their runs"""
    network_cells: int = 12
    network_steps: int = 3000
    hidden: int = 8
    images: int = 128
    maps: int = 4
    """of each problem, the first ones"""
    eps: int = 23
    """values of eps from 1e-10 to 10"""
    signals: int = 1000
    """synthetic ones of each regime and roughness"""
    seed: int = 0

    def __post_init__(self) -> None:
        check_counts(self, cells=2, network_cells=2, steps=160, network_steps=160, seed=0)
        check_counts(self, hidden=1, images=1, maps=1, eps=1, signals=1)
        if self.maps > 4:
            raise ValueError(f"maps = {self.maps}: there are 4 of each problem.")


SIZES = {
    "smoke": Config(
        cells=10, steps=6000, network_cells=2, network_steps=160, hidden=4, maps=1, eps=5,
        signals=100,
    ),
    "quick": Config(),
    "full": Config(
        cells=128, network_cells=32, network_steps=20_000, hidden=16, images=300, eps=45,
    ),
}  # fmt: skip
ROUGHNESS = (1.0, 2.0, 4.0, 8.0)


def run(config: Config, progress: Progress) -> "xarray.DataTree":
    """Nodes `quadratic`, `flat`, `network` (regimes), `local`, `by_eps` and `signals`."""
    return resumed("regimes", config, lambda folder: _run(config, progress, folder))


def _run(config: Config, progress: Progress, folder: Path) -> "xarray.DataTree":
    import xarray

    begun = time.perf_counter()
    problems = {
        "quadratic": measured.rotated_quadratic(),
        "flat": measured.power(DEGREE),
        "network": measured.digits(config.hidden, config.images),
    }
    total = len(problems) * config.maps + len(LOCAL) + config.eps + 1
    keep = numbered(folder, progress, total)
    nodes = {name: _maps(name, problem, config, keep) for name, problem in problems.items()}
    nodes["local"] = _local(config, keep)
    nodes["by_eps"] = _by_eps(problems["quadratic"], config, keep)
    nodes["signals"] = _signals(config, keep)
    tree = xarray.DataTree.from_dict(nodes)
    tree.attrs = provenance(config, time.perf_counter() - begun)
    return tree


def _maps(name: str, problem: measured.Problem, config: Config, keep: Keep) -> "xarray.Dataset":
    network = name == "network"
    cells = config.network_cells if network else config.cells
    steps = config.network_steps if network else config.steps
    chosen = MAPS[name][: config.maps]
    found = [
        keep(
            f"{name}, learning rate {setting.learning_rate:g}, eps {setting.eps:g}",
            partial(measured.regime_map, problem, setting, cells, steps, network),
        )
        for setting in chosen
    ]
    return _labelled_maps(found, chosen, cells).assign_attrs(
        title=problem.title, steps=steps, degree=DEGREE, curvature=max(measured.CURVATURES)
    )


def _labelled_maps(
    found: list[Arrays], chosen: tuple[Setting, ...], cells: int
) -> "xarray.Dataset":
    """With the losses of one run of each regime, the first map's that has one."""
    import xarray

    dims = ("setting", "b1", "b2")
    label = {
        "long_name": "regime of the run's end",
        "flag_values": [int(k) for k in REGIME],
        "flag_meanings": " ".join(k.name for k in REGIME),
    }
    ratio = {"long_name": "preconditioned sharpness over the edge of stability", "units": "1"}
    moved = ("setting", "factor", "threshold")
    maps: dict[str, Any] = {
        "regime": (dims, np.array([one["regime"] for one in found]), label),
        "moved": (moved, np.array([one["moved"] for one in found]), {"units": "1"}),
    }
    if "edge_ratio" in found[0]:
        maps["edge_ratio"] = (dims, np.array([one["edge_ratio"] for one in found]), ratio)
    examples = {
        int(kind): losses
        for one in reversed(found)
        for kind, losses in zip(one["kinds"], one["examples"], strict=True)
    }
    return xarray.Dataset(
        {**maps, "example": (("kind", "step"), np.array([*examples.values()]))},
        coords={
            **_decays(cells),
            "kind": [REGIME(k).name for k in examples],
            "factor": list(measured.FACTORS),
            "threshold": list(measured.THRESHOLDS),
            "learning_rate": ("setting", [s.learning_rate for s in chosen]),
            "eps": ("setting", [s.eps for s in chosen]),
        },
    )


def _decays(cells: int) -> dict[str, Any]:
    at = measured.centres(cells)
    return {
        "b1": ("b1", at, {"long_name": "first-moment decay b1", "units": "1"}),
        "b2": ("b2", at, {"long_name": "second-moment decay b2", "units": "1"}),
    }


def _local(config: Config, keep: Keep) -> "xarray.Dataset":
    import xarray

    found = [
        keep(
            f"linear stability, learning rate {setting.learning_rate:g}, eps {setting.eps:g}",
            partial(measured.local_stability, minimum, setting, config.cells, config.steps),
        )
        for minimum, setting in LOCAL
    ]
    empty = measured.radius_map(0.0, EMPTY, config.cells)
    dims = ("case", "b1", "b2")
    return xarray.Dataset(
        {
            **{k: (dims, np.array([one[k] for one in found])) for k in ("radius", "near", "far")},
            "radius_empty": (("b1", "b2"), empty),
        },
        coords={
            **_decays(config.cells),
            "minimum": ("case", [minimum for minimum, _ in LOCAL]),
            **{
                name: ("case", [getattr(setting, name) for _, setting in LOCAL])
                for name in Setting._fields
            },
        },
        attrs={"steps": config.steps},
    )


def _by_eps(problem: measured.Problem, config: Config, keep: Keep) -> "xarray.Dataset":
    """Parts of the square: with a stable minimum, where runs come to rest, where they get down."""
    import xarray

    values, cells = np.geomspace(1e-10, 10, config.eps), max(2, config.cells // 2)
    settings = [Setting(EMPTY.learning_rate, float(eps)) for eps in values]
    rows = [
        keep(f"eps {one.eps:.1e}", partial(measured.parts, problem, one, cells, config.steps))
        for one in settings
    ]
    return xarray.Dataset(
        {name: ("eps", np.array([row[name] for row in rows])) for name in rows[0]},
        coords={"eps": values},
        attrs={"learning_rate": EMPTY.learning_rate},
    )


def _signals(config: Config, keep: Keep) -> "xarray.Dataset":
    import xarray

    def tables() -> Arrays:
        by_roughness = [confusion(config.signals, 2000, r, config.seed) for r in ROUGHNESS]
        return {"count": np.array(by_roughness)}

    names = [kind.name for kind in REGIME]
    return xarray.Dataset(
        {"count": (("rough", "true", "called"), keep("signals", tables)["count"])},
        coords={"rough": list(ROUGHNESS), "true": names, "called": names},
    )


def plot(dataset: "xarray.DataTree") -> "Figure":
    return regimes_figure(dataset)


def numbers(dataset: "xarray.DataTree") -> dict[str, Any]:
    """Shares of the square by regime; agreements with theory; false alarms and misses."""
    found: dict[str, Any] = {name: claims.of_shares(dataset[name].to_dataset()) for name in MAPS}
    found["flat, theory"] = {
        claims.name_of(row): claims.of_flat(row)
        for row in each(dataset["flat"].to_dataset(), "setting")
    }
    found["linear stability"] = {
        f"minimum at {float(row.minimum):g}, {claims.name_of(row)}": claims.of_local(
            row, dataset["local"]
        )
        for row in each(dataset["local"].to_dataset(), "case")
    }
    empty = dataset["local"].radius_empty
    found["with eps = 1e-8"] = {
        "least radius": float(empty.min()), "pairs with a stable minimum": float((empty < 1).mean())
    }  # fmt: skip
    found["by eps"] = {
        f"{float(row.eps):.1e}": {k: float(row[k]) for k in ("stable", "rested", "low")}
        for row in each(dataset["by_eps"].to_dataset(), "eps")
    }
    found["signals"] = {
        f"rough {float(row.rough):g}": claims.of_signals(row)
        for row in each(dataset["signals"].to_dataset(), "rough")
    }
    return found


def check(dataset: "xarray.DataTree") -> list[str]:
    found, missing = numbers(dataset), []
    for where, row in found["linear stability"].items():
        share = row["agreement, disturbed"]
        if not share >= claims.AGREEMENT:
            missing.append(f"{where}: linear theory is right on {share:.1%} of the pairs.")
    stable = found["with eps = 1e-8"]["pairs with a stable minimum"]
    if stable != 0:
        missing.append(f"With eps = 1e-8 a share {stable:.3g} of the pairs has a stable minimum.")
    for row in each(dataset["flat"].to_dataset(), "setting"):
        share = claims.of_flat(row)["agreement"]
        if float(row.eps) == 0 and not share >= claims.AGREEMENT:  # theory of no other eps
            missing.append(
                f"x⁴, {claims.name_of(row)}: theory is right on {share:.1%} of the pairs."
            )
    for rough in ROUGHNESS[:2]:
        missing += claims.check_signals(rough, found["signals"][f"rough {rough:g}"])
    return missing
