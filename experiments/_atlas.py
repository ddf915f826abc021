"""What `region_atlas` measures: maps of streams and quadratics, and refined boundaries."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax.numpy as jnp
import numpy as np

import ct_adam as ct
from ct_adam.decays import Rates
from ct_adam.problems import vanishing_stream
from ct_adam.simulate import OUTCOME
from ct_adam.sweep import RegionConfig, axes
from ct_adam.sweep.panels import STREAM_SCALE, Panel, panels_of, scaled_worst_case
from ct_adam.sweep.region import panel_map
from ct_adam.theory import growth_rate, update_bound

if TYPE_CHECKING:
    import xarray

Tell = Callable[[int, int], None]
"""`tell(done, total)`, in lanes."""

PREDICTED = ("worst_case", "vanishing")
"""Streams whose growth theory predicts."""
STREAMS = (*PREDICTED, "random", "constant")
SIDES = ("optimizer", "log", "lag")
"""Of the refined boundaries: the optimizer, and the flows by their rates."""
VERDICTS = ("predicts", "only bounds", "is exceeded", "has no answer")
FRACTIONS = (1e-2, 1e-3, 1e-4)
"""Of the start's loss."""
CRITERION = 1e-3
LARGE = 5.0
"""The other criterion: an update that stays below."""
EXCESS = {"streams": 1e-3, "losses": 5e-3}
"""Of a bound, which is one of exact arithmetic: on top the solver's error. Of losses rtol is 1e-3,
the error of u = m/√v in a step up to 1 + ½ of it, and the moments forget what went before."""


@dataclass(frozen=True)
class Horizon:
    """How long streams are seen.

    eps is 0, so that where gradients fade v = b2ⁿ and a worst case (b2/b1)ⁿ must stay floating-
    point numbers: where a decay is below `corner` such a run has `short` steps. That costs no
    resolution: slopes are told apart to 1/steps, which is 2 b2/steps in b2.
    """

    steps: int = 1000
    short: int = 200
    corner: float = 0.3125


def stream_map(
    name: str, low: float, cells: int, horizon: Horizon, rates: Rates, folder: Path, tell: Tell
) -> "xarray.Dataset":
    """A stream's map over (low, 1)², block by block of equal horizon; `horizon` says which."""
    centres = axes.cells(low, 1, cells).columns[axes.OWN]
    corner = horizon.corner if name in PREDICTED else 0
    cut = [int(np.searchsorted(centres, corner))]
    blocks = [part for part in np.split(centres, cut) if len(part)]
    panels = {
        n: panels_of(RegionConfig(rates=rates, panels=(name,), stream_steps=n))[name]
        for n in (horizon.steps, horizon.short)
    }
    before, rows = 0, []
    for b1 in blocks:
        row = []
        for b2 in blocks:
            steps = horizon.short if min(b1[0], b2[0]) < corner else horizon.steps
            store = folder / f"{name}-{rates}-{b1[0]:g}-{b2[0]:g}.zarr"

            def told(what: str, done: int, total: int, before: int = before) -> None:
                tell(before + done, 2 * cells**2)

            grid = ct.Grid(b1=b1, b2=b2)
            part = panel_map(panels[steps], grid, rates, store, told)
            before += 2 * grid.size
            seen = np.full((len(b1), len(b2)), steps)
            row.append(part.assign(horizon=(("b1", "b2"), seen, {"units": "steps"})))
        rows.append(_joined(row, "b2"))
    whole = _joined(rows, "b1").assign_attrs(steps=horizon.steps)
    return whole.assign(share=_shares(whole, EXCESS["streams"]))


def _joined(parts: "list[xarray.Dataset]", dim: str) -> "xarray.Dataset":
    import xarray

    how: Any = {"data_vars": "minimal", "coords": "minimal", "compat": "override", "join": "exact"}
    return xarray.concat(parts, dim, combine_attrs="drop_conflicts", **how)


def quadratic_map(
    learning_rate: float,
    time: float,
    eps: float,
    cells: int,
    budget: int | None,
    folder: Path,
    tell: Tell,
) -> "xarray.Dataset":
    """The quadratic's map after the learning-rate time `time`.

    `low_loss` is where the loss ends below `CRITERION` of its start; `area` by side and fraction of
    the start's loss, `area_of_updates` that of updates up to `LARGE`. `budget`: the solver's steps.
    """
    steps = round(time / learning_rate)
    config = RegionConfig(
        low=0, panels=("quadratic",), learning_rate=learning_rate, eps=eps, quadratic_steps=steps
    )
    panel = panels_of(config)["quadratic"]
    panel = replace(panel, tolerances={**panel.tolerances, "max_solver_steps": budget})
    grid = ct.Grid(b1=axes.cells(0, 1, cells), b2=axes.cells(0, 1, cells))
    store = folder / f"quadratic-{learning_rate:g}-{eps:g}.zarr"
    found = panel_map(panel, grid, "log", store, lambda what, done, total: tell(done, total))
    # An update that underflowed has arrived: that is an answer here, where no stream fades.
    through = found.outcome == int(OUTCOME.successful._value)  # pyright: ignore[reportAttributeAccessIssue]
    found["answered"] = through & np.isfinite(found.final_loss)
    return _with_areas(found, panel).assign(share=_shares(found, EXCESS["losses"]), steps=steps)


def _with_areas(found: "xarray.Dataset", panel: Panel) -> "xarray.Dataset":
    assert panel.problem is not None
    start = float(panel.problem.value(panel.params))
    ends = found.final_loss.where(found.answered, np.inf) / start
    areas = [(ends < fraction).mean(("b1", "b2")).values for fraction in FRACTIONS]
    small = found.answered & (found.max_update <= LARGE)
    return found.assign(
        low_loss=ends < CRITERION,
        area=(("side", "fraction"), np.array(areas).T),
        area_of_updates=small.mean(("b1", "b2")),
    ).assign_coords(fraction=list(FRACTIONS))


def _shares(panel: "xarray.Dataset", excess: float) -> tuple[tuple[str, str], np.ndarray]:
    """By side the fraction of the square on which theory …

    - predicts: the update grows below the boundary, and does not above it;
    - only bounds: it does otherwise, within the bound;
    - is exceeded: the update is above its bound;
    - has no answer: the lane did not reach its end with a number.
    """
    answered = panel.answered
    above = answered & (np.log(panel.max_update) > panel.log_bound + np.log1p(excess))
    as_said = answered & ~above & (panel.unstable == (panel.b2 < panel.boundary))
    parts = (as_said, answered & ~above & ~as_said, above, ~answered)
    return ("side", "verdict"), np.array([p.mean(("b1", "b2")).values for p in parts]).T


def refined_boundary(
    name: str, steps: int, cells: int, resolution: float, folder: Path, tell: Tell
) -> "xarray.Dataset":
    """Where the optimizer and the flows of log and lag rates begin to grow, by refinement.

    Returns `boundary`, `uncertainty`, `crossings`, `resolvable` and `theory` over (side, b1): the
    last is C = 0, that before it theory's boundary for a slope of 1/steps rather than 0.
    """
    sweep = ct.Sweep(
        {side: _refined_lane(name, side, steps) for side in SIDES},
        None,
        jnp.zeros(1),
        steps,
        # Below b2 = 0.3 the second moment of the lag flow underflows within 600 steps.
        ct.Grid(b1=axes.cells(0.6, 1, cells), b2=axes.cells(0.3, 1, round(1.75 * cells))),
        refine=ct.Refine(resolution),
        atol=np.inf,
    )
    store = folder / f"boundary-{name}.zarr"
    map_ = sweep.run(store, progress=lambda what, done, total: tell(done, total))
    found = ct.boundary(map_)[["boundary", "uncertainty", "crossings"]].load()
    found = found.rename(dynamics="side").drop_attrs(deep=False)
    found["resolvable"] = (("side", "b1"), _resolvable(name, found.b1.values, steps))
    kinds = [_kind(side) for side in SIDES]
    theory = [np.asarray(ct.theory.stability_boundary(found.b1.values, *k)) for k in kinds]
    found["theory"] = (("side", "b1"), np.array(theory))
    return found.assign_attrs(steps=steps)


def _refined_lane(name: str, side: str, steps: int) -> Callable[..., ct.Case]:
    """`make` of a sweep: the stream of that name, under the optimizer or one of the flows."""
    rates: Rates = "lag" if side == "lag" else "log"
    vanishing = vanishing_stream(steps + 1, steps // 2, STREAM_SCALE)

    def lane(b1: Any, b2: Any) -> ct.Case:
        stream = vanishing
        if name == "worst_case":
            kind = None if side == "optimizer" else rates
            stream = scaled_worst_case(b1, b2, steps + 1, kind)
        if side == "optimizer":
            return ct.Case(ct.k_adam(1.0, b1, b2, eps=0.0), stream)
        return ct.Case(ct.AdamFlow(1.0, b1, b2, eps=0.0, rates=rates), stream)

    return lane


def _kind(side: str) -> tuple[Any, Any]:
    return ("discrete", "log") if side == "optimizer" else ("held", side)


def _resolvable(name: str, b1: np.ndarray, steps: int) -> np.ndarray:
    """By side and b1 the b2 below which theory's own ln|u_n| has a slope above 1/steps."""
    found = []
    for side in SIDES:
        low, high = 0.2 * b1**2, np.full_like(b1, 0.9999)
        for _ in range(40):  # to 1e-12
            middle = (low + high) / 2
            grows = _slope(name, side, b1, middle, steps) > 1 / steps
            low, high = np.where(grows, middle, low), np.where(grows, high, middle)
        found.append((low + high) / 2)
    return np.array(found)


def _slope(name: str, side: str, b1: np.ndarray, b2: np.ndarray, steps: int) -> np.ndarray:
    """Least squares over the last half: of an optimizer's updates up to steps − 1, of a flow's up
    to `steps`, weighted by the time between them."""
    flow = side != "optimizer"
    s = np.arange(steps // 2, steps + flow)[:, None] + 0.0
    weight = np.ones_like(s)
    if flow:
        weight[[0, -1]] = 0.5
    kind, rates = _kind(side)
    if name == "worst_case":
        logs = np.asarray(update_bound(b1, b2, s + 1, kind, rates, log=True))
    else:  # EQUATIONS §2: a rate, and bias factors
        a, b = (np.asarray(ct.decays.rate(x, rates)) for x in (b1, b2))
        decayed = [np.log1p(-x * np.exp(-r * s)) for x, r in ((b1, a), (b2, b))]
        logs = np.asarray(growth_rate(b1, b2, kind, rates)) * s + decayed[1] / 2 - decayed[0]
    t = s - np.sum(weight * s) / weight.sum()
    return np.sum(weight * t * logs, axis=0) / np.sum(weight * t * t)
