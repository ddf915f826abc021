"""How far the derivatives of a flow are those of its optimizer, and where those explode.

The final loss of AdamFlow, differentiated by learning rate, decays, weight decay and initial
parameters in both modes, against central differences of the discrete run as η → 0 at fixed η·steps.
What is due, the flow's iterates differing by O(η) times a smooth function of all numbers:

- 1 − b = cη (EQUATIONS §1; here the flow converges): slope 1 for all five. Two terms are of first
  order, the decay, e^{−ηλ} for 1 − ηλ, and the start: the bias-corrected flow weighs its first
  gradient half a step more.
- fixed decays: the limit is θ' = −g/(|g| + eps) − λθ, without decays. So the derivatives by b1, b2
  are themselves O(η), the lag's, 1/(1 − b)²; a `log` rate has 1/(b ln²b), more by (1 − b)²/12 of
  it. Hence slope 1 in the end with a coefficient that small, and before that the next term's 2:
  at least 1. For the other three 1.
"""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ct_adam.plotting.derivatives import derivatives_figure
from ct_adam.sweep.provenance import provenance

from . import Progress
from . import _derivatives_claims as claims
from ._checked import check_counts
from ._derivatives import KINDS, Point, Problem, digits, measure, over_horizon, ripples, slopes
from ._kept import Arrays, Keep, numbered, resumed

if TYPE_CHECKING:
    import xarray
    from matplotlib.figure import Figure

EXPECTED = (
    "Derivatives of a flow's final loss by η, b1, b2, λ and the start differ from central "
    "differences of the discrete run by O(η): slope 1 ± 0.1 with its 95 % interval where "
    "1 − b ∝ η; at fixed decays so by η, λ and the start, and 0.9 or more by b1 and b2. Both modes "
    "agree to 1e-8. Where the iterates chatter, the optimizer's own derivative grows to a million "
    "times the slope of its losses over ± 25 % of η or λ, and the flow's does not exceed that "
    "slope by more than two of its standard errors. (It is not that slope: what chatter costs, a "
    "flow of single steps cannot know.)"
)


@dataclass(frozen=True)
class Config:
    """What to differentiate. Smoke 10 s (30 s the first time), quick 5 minutes on two cores."""

    ripples: int = 12
    """random problems of four parameters"""
    digits: int = 6
    """networks"""
    hidden: int = 4
    images: int = 100
    shrinking: tuple[int, ...] = (400, 800, 1600, 3200)
    """steps of the runs with 1 − b ∝ η"""
    fixed: tuple[int, ...] = (3200, 6400, 12_800)
    """steps of the runs with fixed decays; half as many of the network"""
    unstable: int = 8
    """problems whose iterates chatter, of the seeds 100, 101, …: with 0 to 5 setting and claim
    were chosen"""
    horizon: int = 400
    """their steps"""
    runs: int = 41
    """discrete ones in the window over which losses are smoothed"""

    def __post_init__(self) -> None:
        check_counts(self, ripples=3, hidden=1, images=1, horizon=40, runs=3, digits=0, unstable=0)
        if self.digits in (1, 2):
            raise ValueError(f"digits = {self.digits} must be 0, or 3 and more for an interval.")
        if min(len(self.shrinking), len(self.fixed)) < 2 or min(self.shrinking + self.fixed) < 10:
            raise ValueError("Give two lengths of at least 10 steps of each scaling: a slope.")


SIZES = {
    "smoke": Config(digits=0, unstable=0),  # fewer problems or lengths leave intervals too wide
    "quick": Config(),
    "full": Config(
        ripples=48, digits=24, shrinking=(400, 800, 1600, 3200, 6400),
        fixed=(3200, 6400, 12_800, 25_600), unstable=32,
    ),
}  # fmt: skip
LENGTH = {"ripple": 1.0, "digits": 0.05}
"""η·steps. At 1 the network overshoots time and again, at 0.2 some of them still do, and slopes
scatter: an η small enough there costs hours."""
SCALINGS = ("shrinking", "fixed")
MEMORIES = (2.0, 0.5)
"""(1 − b)·steps of both moments, where they shrink with η: lengths of a run in their memories."""
DECAYS = (0.9, 0.95)
"""Fixed ones."""
EPS = {"ripple": 0.3, "digits": 0.03}
"""Some hundredths of the gradients at the start: at fixed decays the limit η → 0 asks for
η·curvature/eps ≪ 1 − b, else a flow oscillates as fast as its memory."""
WEIGHT_DECAY = 0.5
FIRST = 100
UNSTABLE = Point(0.05, 0.9, 0.9, 1e-3, 0.5)
"""Here η·curvature/eps is up to 1500; beyond 38 a step of these decays is unstable at rest."""
WATCHED = (0, 3)
"""The kinds that are followed over the horizon: learning rate and weight decay."""
WIDTH = 0.25
"""of the window of relative changes over which losses are smoothed"""


def point_at(scaling: str, problem: str, steps: int) -> Point:
    b1, b2 = DECAYS
    if scaling == "shrinking":
        b1, b2 = (1 - memory / steps for memory in MEMORIES)
    return Point(LENGTH[problem] / steps, b1, b2, EPS[problem], WEIGHT_DECAY)


def run(config: Config, progress: Progress) -> "xarray.DataTree":
    """Nodes `ripple/shrinking`, `ripple/fixed`, `digits/…` over (seed, eta, kind); `horizon`."""
    return resumed("derivatives", config, lambda folder: _run(config, progress, folder))


def _run(config: Config, progress: Progress, folder: Path) -> "xarray.DataTree":
    import xarray

    begun = time.perf_counter()
    problems = {"ripple": ripples(range(config.ripples))}
    if config.digits:
        problems["digits"] = digits(range(config.digits), config.hidden, config.images)
    each = len(config.shrinking) + len(config.fixed)
    keep = numbered(folder, progress, len(problems) * each + bool(config.unstable))

    def node(name: str, problem: Problem, scaling: str) -> "xarray.Dataset":
        rows = []
        lengths = np.array(getattr(config, scaling))
        if name == "digits" and scaling == "fixed":
            lengths //= 2
        for steps in lengths.tolist():
            point = point_at(scaling, name, steps)
            what = f"{problem.title}, {scaling}, {steps} steps"
            rows.append(keep(what, lambda p=point, n=steps: measure(p, problem, n)))
        return _labelled(problem.title, LENGTH[name], lengths, rows)

    nodes = {
        f"{name}/{scaling}": node(name, problem, scaling)
        for name, problem in problems.items()
        for scaling in SCALINGS
    }
    if config.unstable:
        nodes["horizon"] = _horizon(config, keep)
    tree = xarray.DataTree.from_dict(nodes)
    tree.attrs = provenance(config, time.perf_counter() - begun)
    return tree


def _labelled(title: str, length: float, steps: np.ndarray, rows: list[Arrays]) -> "xarray.Dataset":
    """Errors are in units of the largest derivative over η, the root mean square over the seeds:
    one number a kind, so that slopes are those of absolute errors."""
    import xarray

    found = {name: np.stack([row[name] for row in rows], axis=1) for name in rows[0]}
    scale = np.sqrt(np.mean(found["difference"] ** 2, axis=0)).max(axis=0)
    apart = (found["reverse"] - found["difference"]) / scale
    slope = slopes(length / steps, apart)
    each, mean = ("seed", "eta", "kind"), ("eta", "kind")

    def size(values: np.ndarray) -> np.ndarray:
        return np.sqrt(np.mean(values**2, axis=0))

    noise = {
        "modes": found["reverse"] - found["forward"],
        "solver": found["reverse"] - found["loose"],
        "differences": found["discrete"] - found["difference"],
    }
    return xarray.Dataset(
        {
            **{name: (each, found[name]) for name in DERIVATIVES},
            "scale": ("kind", scale, {"long_name": "largest derivative over η"}),
            "error": (
                mean,
                size(apart),
                {"long_name": "|flow − difference| / scale", "units": "1"},
            ),
            **{name: (mean, size(x / scale), {"units": "1"}) for name, x in noise.items()},
            "evaluations": (("seed", "eta"), found["evaluations"]),
            "slope": ("kind", slope.value, {"long_name": "d ln error / d ln η"}),
            "slope_low": ("kind", slope.low),
            "slope_high": ("kind", slope.high),
        },
        coords={
            "eta": ("eta", length / steps, {"long_name": "learning rate η"}),
            "steps": ("eta", steps, {"units": "steps"}),
            "kind": list(KINDS),
            "seed": np.arange(len(apart)),
        },
        attrs={"title": title},
    )


DERIVATIVES = ("reverse", "forward", "difference", "discrete")


def _horizon(config: Config, keep: Keep) -> "xarray.Dataset":
    import xarray

    problem = ripples(range(FIRST, FIRST + config.unstable))
    saves = np.arange(0, config.horizon + 1, max(1, config.horizon // 40))
    found = keep(
        f"{problem.title}, chattering",
        lambda: over_horizon(UNSTABLE, problem, saves, WATCHED, WIDTH, config.runs),
    )
    by_step, by_kind = ("seed", "step"), ("seed", "kind", "step")
    dims = {"flow_loss": by_step, "loss": by_step, "evaluations": ("seed",)}
    return xarray.Dataset(
        {name: (dims.get(name, by_kind), values) for name, values in found.items()},
        coords={
            "step": ("step", saves, {"long_name": "horizon", "units": "steps"}),
            "kind": [KINDS[k] for k in WATCHED],
            "seed": np.arange(FIRST, FIRST + config.unstable),
        },
        attrs={"title": problem.title, "width": WIDTH, **UNSTABLE._asdict()},
    )


def plot(dataset: "xarray.DataTree") -> "Figure":
    return derivatives_figure(dataset)


def numbers(dataset: "xarray.DataTree") -> dict[str, Any]:
    """A line a kind with its verdict, and the cost of both modes; then the longest horizon."""
    found = claims.of_slopes(dataset)
    if "horizon" in dataset:
        found["chattering"] = claims.of_chattering(dataset["horizon"].to_dataset())
    return found


def check(dataset: "xarray.DataTree") -> list[str]:
    """Slopes, modes, and that neither solver nor differences make them; then the long horizon."""
    missing = claims.check_slopes(dataset)
    if "horizon" in dataset:
        missing += claims.check_chattering(dataset["horizon"].to_dataset())
    return missing
