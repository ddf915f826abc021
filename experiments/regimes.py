"""Where a long run of Adam ends up over (b1, b2): it comes to rest, cycles, spikes, diverges.

Quadratics, the flat minimum x⁴ and a small network, by the criterion of `ct.theory.regime`. Beside
the runs what theory says of them: the adaptive edge of stability, the boundary of a flat minimum,
and the spectral radius of the step linearised at a fixed point (EQUATIONS §2).
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ct_adam.plotting.regimes import regimes_figure
from ct_adam.sweep.provenance import provenance
from ct_adam.theory import REGIME, degenerate_radius

from . import Progress
from . import _regimes as measured
from ._checked import check_counts
from ._kept import Arrays, remembered, resumed
from ._regimes import Setting
from ._signals import confusion, false_alarms, misses

if TYPE_CHECKING:
    import xarray
    from matplotlib.figure import Figure

Piece = Callable[[str, Callable[[], Arrays]], Arrays]
"""`piece(what, compute)`: what was computed, or kept by an earlier call that was stopped."""

DEGREE = 4
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
DECADES = 60.0
"""Away from the boundary: a disturbance grows or shrinks by a factor e^60 and more over the run."""
AGREEMENT = 0.99
WRONG = 0.01
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
FACTORS = (0.5, 2.0)
"""By which thresholds of the criterion are moved, to see how many pairs change their name."""


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
    done = 0

    def piece(what: str, compute: Callable[[], Arrays]) -> Arrays:
        nonlocal done
        found = remembered(folder / f"{done}.npz", compute)
        done += 1
        progress(what, done, total)
        return found

    nodes = {name: _maps(name, problem, config, piece) for name, problem in problems.items()}
    nodes["local"] = _local(config, piece)
    nodes["by_eps"] = _by_eps(problems["quadratic"], config, piece)
    nodes["signals"] = _signals(config, piece)
    tree = xarray.DataTree.from_dict(nodes)
    tree.attrs = provenance(config, time.perf_counter() - begun)
    return tree


def _maps(name: str, problem: measured.Problem, config: Config, piece: Piece) -> "xarray.Dataset":
    import xarray

    network = name == "network"
    cells = config.network_cells if network else config.cells
    steps = config.network_steps if network else config.steps
    chosen = MAPS[name][: config.maps]
    found = [
        piece(
            f"{name}, learning rate {setting.learning_rate:g}, eps {setting.eps:g}",
            partial(_map, problem, setting, cells, steps, network),
        )
        for setting in chosen
    ]
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
    if network:
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
            "factor": list(FACTORS),
            "threshold": list(measured.THRESHOLDS),
            "learning_rate": ("setting", [s.learning_rate for s in chosen]),
            "eps": ("setting", [s.eps for s in chosen]),
        },
        attrs={
            "title": problem.title,
            "steps": steps,
            "degree": DEGREE,
            "curvature": max(measured.CURVATURES),
        },
    )


def _map(
    problem: measured.Problem, setting: Setting, cells: int, steps: int, network: bool
) -> Arrays:
    """Regimes of all pairs, and the losses of one run of each."""
    ends = measured.late_runs(setting, problem, cells, steps, max(16, steps // 10))
    regimes = measured.regimes_of(ends, problem)
    kinds = np.unique(regimes)
    alike = [np.flatnonzero(regimes.ravel() == kind) for kind in kinds]
    lanes = [lane[len(lane) // 2] for lane in alike]
    factors = [measured.sensitivity(ends, problem, factor) for factor in FACTORS]
    found = {"regime": regimes, "kinds": kinds, "examples": ends.losses[lanes]}
    found["moved"] = np.array(factors)
    if network:
        found["edge_ratio"] = measured.edge_ratio(setting, problem, ends, cells)
    return found


def _decays(cells: int) -> dict[str, Any]:
    at = measured.centres(cells)
    return {
        "b1": ("b1", at, {"long_name": "first-moment decay b1", "units": "1"}),
        "b2": ("b2", at, {"long_name": "second-moment decay b2", "units": "1"}),
    }


def _local(config: Config, piece: Piece) -> "xarray.Dataset":
    import xarray

    found = [
        piece(
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


def _by_eps(problem: measured.Problem, config: Config, piece: Piece) -> "xarray.Dataset":
    """Parts of the square: with a stable minimum, where runs come to rest, where they get down."""
    import xarray

    values = np.geomspace(1e-10, 10, config.eps)
    rows = [piece(f"eps {eps:.1e}", partial(_parts, problem, float(eps), config)) for eps in values]
    return xarray.Dataset(
        {name: ("eps", np.array([row[name] for row in rows])) for name in rows[0]},
        coords={"eps": values},
        attrs={"learning_rate": EMPTY.learning_rate},
    )


def _parts(problem: measured.Problem, eps: float, config: Config) -> Arrays:
    setting, cells = Setting(EMPTY.learning_rate, eps), max(2, config.cells // 2)
    ends = measured.late_runs(setting, problem, cells, config.steps, max(16, config.steps // 10))
    start = float(problem.loss.value(problem.params))
    return {
        "stable": np.mean(measured.radius_map(0.0, setting, cells) < 1),
        "rested": np.mean(measured.regimes_of(ends, problem) == REGIME.converged),
        "low": np.mean(np.median(ends.losses, axis=1) < 1e-3 * start),
    }


def _signals(config: Config, piece: Piece) -> "xarray.Dataset":
    import xarray

    def tables() -> Arrays:
        by_roughness = [confusion(config.signals, 2000, r, config.seed) for r in ROUGHNESS]
        return {"count": np.array(by_roughness)}

    names = [kind.name for kind in REGIME]
    return xarray.Dataset(
        {"count": (("rough", "true", "called"), piece("signals", tables)["count"])},
        coords={"rough": list(ROUGHNESS), "true": names, "called": names},
    )


def plot(dataset: "xarray.DataTree") -> "Figure":
    return regimes_figure(dataset)


def numbers(dataset: "xarray.DataTree") -> dict[str, Any]:
    """Shares of the square by regime; agreements with theory; false alarms and misses."""
    found: dict[str, Any] = {name: _shares(dataset[name].to_dataset()) for name in MAPS}
    found["flat, theory"] = {
        _setting(row): _flat(row) for row in _each(dataset["flat"].to_dataset(), "setting")
    }
    found["linear stability"] = {
        f"minimum at {float(row.minimum):g}, {_setting(row)}": _agreement(row, dataset["local"])
        for row in _each(dataset["local"].to_dataset(), "case")
    }
    empty = dataset["local"].radius_empty
    found["with eps = 1e-8"] = {
        "least radius": float(empty.min()), "pairs with a stable minimum": float((empty < 1).mean())
    }  # fmt: skip
    found["by eps"] = {
        f"{float(row.eps):.1e}": {k: float(row[k]) for k in ("stable", "rested", "low")}
        for row in _each(dataset["by_eps"].to_dataset(), "eps")
    }
    found["signals"] = {
        f"rough {float(row.rough):g}": _rates(row)
        for row in _each(dataset["signals"].to_dataset(), "rough")
    }
    return found


def _each(node: "xarray.Dataset", dim: str) -> list["xarray.Dataset"]:
    return [node.isel({dim: i}) for i in range(node.sizes[dim])]


def _setting(row: "xarray.Dataset") -> str:
    decay = f", weight decay {float(row.weight_decay):g}" if "weight_decay" in row.coords else ""
    return f"learning rate {float(row.learning_rate):g}, eps {float(row.eps):g}{decay}"


def _shares(node: "xarray.Dataset") -> dict[str, dict[str, float]]:
    found = {}
    for row in _each(node, "setting"):
        shares = {k.name: float((row.regime == k).mean()) for k in REGIME}
        found[_setting(row)] = {name: share for name, share in shares.items() if share > 0}
        found[_setting(row)]["renamed with a threshold halved or doubled, most"] = float(
            row.moved.max()
        )
        if "edge_ratio" in row:
            oscillating = row.regime.isin([REGIME.limit_cycle, REGIME.sign_like])
            ratios = row.edge_ratio.values[oscillating.values]
            # At the last step alone, which an oscillation may leave on either side.
            found[_setting(row)]["sharpness over the edge, oscillating (median)"] = (
                float(np.median(ratios)) if ratios.size else float("nan")
            )
    return found


def _flat(row: "xarray.Dataset") -> dict[str, float]:
    """Rest against the radius of the flat minimum, but for pairs on its boundary (b1 = b2)."""
    b1, b2 = np.meshgrid(row.b1.values, row.b2.values, indexing="ij")
    radius = degenerate_radius(b1, b2, DEGREE)
    rested = row.regime.values == REGIME.converged
    # Cells on the diagonal lie on the boundary itself.
    off = np.abs(radius - 1) > 1e-6
    return {"agreement": float((rested == (radius < 1))[off].mean()), "pairs": int(off.sum())}


def _agreement(row: "xarray.Dataset", node: Any) -> dict[str, float]:
    stable = row.radius.values < 1
    away = np.abs(np.log(row.radius.values)) * node.attrs["steps"] > DECADES
    near, far = row.near.values, row.far.values
    return {
        "stable": float(stable.mean()),
        "away from the boundary": float(away.mean()),
        "agreement, disturbed": float((near == stable)[away].mean()),
        "agreement, from far": float((far == stable)[away].mean()),
        "of the stable ones at rest from far": float(far[away & stable].mean())
        if np.any(away & stable)
        else float("nan"),
    }


def _rates(row: "xarray.Dataset") -> dict[str, Any]:
    table = row["count"].values
    names = row.called.values
    return {
        "false alarms": dict(zip(names, map(float, false_alarms(table)), strict=True)),
        "misses": dict(zip(names, map(float, misses(table)), strict=True)),
        "worst confusion": _worst_confusion(row),
    }


def _worst_confusion(row: "xarray.Dataset") -> str:
    shares = row["count"].values / row["count"].values.sum(axis=1, keepdims=True)
    np.fill_diagonal(shares, 0)
    true, called = np.unravel_index(shares.argmax(), shares.shape)
    names = row.called.values
    return f"{shares.max():.1%} of {names[true]} called {names[called]}"


def check(dataset: "xarray.DataTree") -> list[str]:
    found, missing = numbers(dataset), []
    for where, row in found["linear stability"].items():
        share = row["agreement, disturbed"]
        if not share >= AGREEMENT:
            missing.append(f"{where}: linear theory is right on {share:.1%} of the pairs.")
    stable = found["with eps = 1e-8"]["pairs with a stable minimum"]
    if stable != 0:
        missing.append(f"With eps = 1e-8 a share {stable:.3g} of the pairs has a stable minimum.")
    for row in _each(dataset["flat"].to_dataset(), "setting"):
        share = _flat(row)["agreement"]
        if float(row.eps) == 0 and not share >= AGREEMENT:  # theory of no other eps
            missing.append(f"x⁴, {_setting(row)}: theory is right on {share:.1%} of the pairs.")
    for rough in ROUGHNESS[:2]:
        rates = found["signals"][f"rough {rough:g}"]
        for kind, words in (("false alarms", "of the others are called"), ("misses", "are not")):
            missing += [
                f"Signals of roughness {rough:g}: {share:.1%} {words} {name}."
                for name, share in rates[kind].items()
                if not share <= WRONG
            ]
    return missing
