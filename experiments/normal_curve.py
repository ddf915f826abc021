"""Updates of a language model along the normal curve through the default pair (EQUATIONS §2).

Where C < 0 nothing bounds the update, and a coordinate whose gradient vanishes makes it grow.
Beside minibatches with eps = 0: one batch for ever; two eps; and a learning rate that falls as fast
as the update grows.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ct_adam.plotting.growth import growth_figure
from ct_adam.sweep.provenance import provenance
from ct_adam.theory import growth_rate, normal_curve, stability_coefficient, update_bound

from . import Progress, _growth
from ._checked import check_counts, check_positive
from ._growth import Model, Window
from ._growth_claims import ALLOWED, STILL, claims, pair_of
from ._kept import Arrays, numbered, resumed
from ._paths import each

if TYPE_CHECKING:
    import xarray
    from matplotlib.figure import Figure

DEFAULT = (0.9, 0.999)
EPS = {"eps = 1e-8": 1e-8, "eps = 1e-5": 1e-5}
CASES = ("minibatches", "one batch", *EPS, "annealed")
ROUNDING = 1e-9
"""Of the bound: a few units in the last place a step of m and √v."""
EXPECTED = (
    "In minibatches and with eps = 0, ln‖u_n‖_∞ has the slope of the discrete rate with its bias "
    "factor (to 10 %) where b1² > b2 and the coordinate that carries it had no gradient, and no "
    "slope (0 ± 0.002 a step) where b1² < b2. It never exceeds the exact bound. Claims with a "
    "verdict of their own: growth at |C|/2 (the paper's); none with one fixed batch; steps that "
    "annealing bounds while the update grows; growth hidden by eps."
)


@dataclass(frozen=True)
class Config:
    """Where on the curve, on what text, for how long."""

    points: int = 64
    """uniform in b1: the upper half of `2 points` strictly inside the curve, a section of it"""
    others: int = 64
    """points, the last ones, that see one batch for ever, or have an eps; seed 0 alone"""
    seeds: int = 3
    """of weights and batches"""
    data: str = "tinyshakespeare"
    """or python_topics, for which no file is needed"""
    context: int = 32
    batch: int = 16
    learning_rate: float = 1e-3
    middle: int = 500
    """the step at which slopes are taken"""
    half: int = 50
    """Steps on either side of it. ln‖u‖_∞ of minibatches scatters by σ ≈ 0.1, for τ ≈ 10 steps at a
    time; a slope over 2 half steps then by σ √(12τ)/(2 half)^1.5, a thousandth at 50."""

    @property
    def window(self) -> Window:
        return Window(self.middle - self.half, self.middle + self.half)

    @property
    def steps(self) -> int:
        return self.window.last + 1

    @property
    def minutes(self) -> float:
        """Of two cores, for all trainings."""
        runs = self.points * self.seeds + (len(CASES) - 2) * self.others + 1
        return runs * self.steps * self.batch * self.context * 1.3e-5 / 60

    def __post_init__(self) -> None:
        check_counts(self, points=2, others=1, seeds=1, half=2, middle=4, context=1, batch=1)
        if self.others > self.points:
            raise ValueError(f"others = {self.others} must not be above points = {self.points}.")
        if self.half > self.middle:
            raise ValueError(f"half = {self.half} must not be above middle = {self.middle}.")
        check_positive(self, "learning_rate")


SIZES = {
    "smoke": Config(points=3, others=1, seeds=1, data="python_topics", context=8, batch=8),
    "quick": Config(points=16, others=8),
    "full": Config(),
}


def run(config: Config, progress: Progress) -> "xarray.Dataset":
    """Over (case, point, seed, step) `largest`; slopes, and who carried the maximum."""
    return resumed("normal_curve", config, lambda folder: _run(config, progress, folder))


def _run(config: Config, progress: Progress, folder: Path) -> "xarray.Dataset":
    begun = time.perf_counter()
    models = [
        _growth.language_model(config.data, seed, config.context, config.batch)
        for seed in range(config.seeds)
    ]
    b1s, b2s = (np.asarray(x)[-config.points :] for x in normal_curve(*DEFAULT, 2 * config.points))
    pairs = [*zip(map(float, b1s), map(float, b2s), strict=True)]
    places = [*_places(config, pairs)]
    about = f"{len(places)} trainings of {config.steps} steps, about {config.minutes:.1f} min"
    progress(about, 0, len(places))
    keep = numbered(folder, progress, len(places))
    found = {}
    for case, p, s in places:
        train = partial(_train, models[s], CASES[case], pairs[p], config)
        found[case, p, s] = keep(f"{CASES[case]}, b1 = {pairs[p][0]:.4f}", train)
    dataset = _labelled(found, pairs, config)
    dataset.attrs |= provenance(config, time.perf_counter() - begun)
    return dataset


def _places(config: Config, pairs: list[tuple[float, float]]) -> Iterator[tuple[int, int, int]]:
    """(case, point, seed) of every training.

    Annealed is the first point that can grow tenfold, or the last: where the learning rate falls
    much faster training stops, and gradients that stay make no update grow.
    """
    for p in range(config.points):
        yield from ((0, p, s) for s in range(config.seeds))
    for p in range(config.points - config.others, config.points):
        yield from ((case, p, 0) for case in range(1, len(CASES) - 1))
    growth = [_rate(pair) * config.steps for pair in pairs]
    yield (
        len(CASES) - 1,
        next((p for p, g in enumerate(growth) if g > np.log(10)), config.points - 1),
        0,
    )


def _rate(pair: tuple[float, float]) -> float:
    """Per step, of a coordinate whose gradient has vanished; 0 where it does not grow."""
    return max(0.0, float(growth_rate(*pair, "discrete")))


def _train(model: Model, case: str, pair: tuple[float, float], config: Config) -> Arrays:
    problem = _growth.fixed(model) if case == "one batch" else model.batches
    rate = _rate(pair)
    path = _growth.trained(
        problem,
        model.params,
        pair,
        config.steps,
        config.learning_rate,
        eps=EPS.get(case, 0.0),
        fall=rate if case == "annealed" else 0.0,
        gradients=rate > 0 and case in CASES[:2],
    )
    who = _growth.carrier(model, path, pair[0], config.window)
    slope = config.window.slope(np.log(path.largest))
    found = {"largest": path.largest, "slope": slope, **who._asdict()}
    return {name: np.asarray(value) for name, value in found.items()}


def _labelled(
    found: dict[tuple[int, int, int], Arrays], pairs: list[tuple[float, float]], config: Config
) -> "xarray.Dataset":
    """NaN and '' where a case was not run."""
    import xarray

    dims, shape = ("case", "point", "seed"), (len(CASES), len(pairs), config.seeds)
    largest = np.full((*shape, config.steps), np.nan)
    tables = {name: np.full(shape, np.nan) for name in ("slope", "returned")}
    tables |= {name: np.full(shape, "", object) for name in ("tensor", "character", "reason")}
    for at, one in found.items():
        largest[at] = one["largest"]
        for name, table in tables.items():
            table[at] = one[name].item()
    b1s, b2s = np.array(pairs).T
    steps = np.arange(1, config.steps + 1)
    bounds = [np.asarray(update_bound(*pair, steps, "discrete", log=True)) for pair in pairs]
    vanished = [config.window.slope(_growth.vanished(pair, config.steps)) for pair in pairs]
    per_step = {"units": "1/step"}
    return xarray.Dataset(
        {
            "largest": ((*dims, "step"), largest, {"long_name": "largest update ‖u_n‖_∞"}),
            **{
                name: (dims, table if table.dtype == float else table.astype(str))
                for name, table in tables.items()
            },
            "log_bound": (("point", "step"), np.array(bounds), {"long_name": "ln of the bound"}),
            "vanished": ("point", vanished, {"long_name": "slope without gradient", **per_step}),
            "rate": ("point", np.asarray(growth_rate(b1s, b2s, "discrete")), per_step),
            "coefficient": ("point", np.asarray(stability_coefficient(b1s, b2s)), per_step),
        },
        coords={
            "case": list(CASES),
            "b1": ("point", b1s, {"long_name": "first-moment decay b1"}),
            "b2": ("point", b2s, {"long_name": "second-moment decay b2"}),
            "step": ("step", np.arange(config.steps), {"units": "steps"}),
        },
        attrs={name: getattr(config, name) for name in ("middle", "half", "data", "batch")},
    )


def plot(dataset: "xarray.Dataset") -> "Figure":
    return growth_figure(dataset)


def numbers(dataset: "xarray.Dataset") -> dict[str, Any]:
    """By point slopes beside theory and who carried; the bound; annealing; the claims."""
    points = {pair_of(row): _point(row) for row in each(dataset, "point")}
    return {
        "points": points,
        # The first updates are ±1 and so is their bound.
        "bound": {
            "largest update over it": float(_over_bound(dataset).max()),
            "in the second half": float(
                _over_bound(dataset).isel(step=slice(dataset.sizes["step"] // 2, None)).max()
            ),
        },
        "claims": claims(dataset),
    }


def _point(row: "xarray.Dataset") -> dict[str, Any]:
    first = row.sel(case="minibatches")
    slope = first.slope.values
    return {
        "slopes": {
            **{"mean": slope.mean(), "least": slope.min(), "most": slope.max()},
            **{case: float(row.slope.sel(case=case)[0]) for case in CASES[1:-1]},
        },
        "theory": {
            "with bias": float(row.vanished),
            "½ ln(b1²/b2)": float(row.rate),
            "−C/2": -float(row.coefficient) / 2,
        },
        "carriers": {f"seed {s}": _who(one) for s, one in enumerate(each(first, "seed"))}
        | {"one batch": _who(row.sel(case="one batch").isel(seed=0))},
    }


def _who(one: "xarray.Dataset") -> str:
    tensor, character, reason = (
        str(one[name].item()) for name in ("tensor", "character", "reason")
    )
    place = f"{tensor} of {character!r}" if character else tensor
    return f"{place}: {reason or 'no gradient'}" if tensor else "not run"


def _over_bound(dataset: "xarray.Dataset") -> "xarray.DataArray":
    return np.exp(np.log(dataset.largest) - dataset.log_bound)


def check(dataset: "xarray.Dataset") -> list[str]:
    missing = []
    for row in each(dataset, "point"):
        missing += [f"{pair_of(row)}: {sentence}" for sentence in _check_point(row)]
    over = float(_over_bound(dataset).max())
    if not over <= 1 + ROUNDING:
        missing.append(f"An update is {over:.6g} times its bound.")
    return missing


def _check_point(row: "xarray.Dataset") -> list[str]:
    theory, grows = float(row.vanished), float(row.rate) > 0
    missing = []
    for s, one in enumerate(each(row.sel(case="minibatches"), "seed")):
        slope, silent = float(one.slope), one.reason.item() == ""
        if grows and silent and not abs(slope - theory) <= ALLOWED * abs(theory):
            missing.append(f"seed {s} grows by {slope:.4g} without gradient, not {theory:.4g}.")
        if not grows and not abs(slope) <= STILL:
            missing.append(f"seed {s} has a slope of {slope:.4g} on the stable branch.")
    return missing
