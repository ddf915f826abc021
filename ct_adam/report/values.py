"""What theory says of a grid of decays, and its curves: numbers for the page."""

from typing import Any

import numpy as np

from ..decays import RATES, Rates, rate
from ..plotting.square import DEFAULT_PAIR
from ..theory import level_curve, normal_curve, stability_boundary, update_bound
from ..theory.stability import Kind
from .encoding import encode

LEVELS = (-2.0, -1.0, -0.5, -0.2, 0.2, 0.5, 1.0, 2.0)
"""Of the paper's C, drawn beside its boundary C = 0."""
_POINTS = 240


def theory_values(
    b1: np.ndarray, b2: np.ndarray, steps: int, rates: tuple[Rates, ...]
) -> dict[str, Any]:
    """Rates of both decays, bounds of every pair, and the curves over the square.

    C = 2a − b is one number of b1 less one of b2: the rates go to the page as they are, and C is
    taken there (and compared with `ct.theory.stability_coefficient` in the tests).

    **Arguments:**

    - `b1`, `b2`: the grid's axes, `(n,)` and `(m,)`. `steps`: gradients seen.
    - `rates`: of the flows that are shown.

    **Returns:** of JSON's types: `rates` by name with `a` (n,) and `b` (m,), `bounds` by kind,
    encoded, (n, m): `"discrete"` and `"continuous"` after `steps` gradients, `"flow RATES"` after
    one more (u(s) has seen s + 1); a bound beyond the floating-point range is infinite. `curves`: a
    list with `name`, `kind` ("boundary", "level", "normal") and points.
    """
    grid = np.meshgrid(b1, b2, indexing="ij")
    bounds = {kind: bound(*grid, steps, kind, "log") for kind in ("discrete", "continuous")}
    bounds |= {f"flow {name}": bound(*grid, steps, "flow", name) for name in rates}
    return {
        "rates": {name: {"a": _rates(b1, name), "b": _rates(b2, name)} for name in RATES},
        "bounds": {name: encode(values) for name, values in bounds.items()},
        "curves": curves(_edge(b1), "euler" in rates),
    }


def curves(low: float, euler: bool = False) -> list[dict[str, Any]]:
    """Boundaries, levels of C and the normal curve through the default pair, from b1 = `low`."""
    b1 = _axis(low)
    lines = [
        _curve(
            "b2 = b1² (discrete; log rates)", "boundary", b1, stability_boundary(b1, "discrete")
        ),
        _curve("b2 = b1/(2 − b1) (the paper's; lag rates)", "boundary", b1, stability_boundary(b1)),
    ]
    if euler:
        edge = stability_boundary(b1, "flow", "euler")
        lines.append(_curve("b2 = 2 b1 − 1 (euler rates)", "boundary", b1, edge))
    lines += [_curve(f"C = {c:g}", "level", b1, level_curve(c, b1)) for c in LEVELS]
    x, y = (np.asarray(values) for values in normal_curve(*DEFAULT_PAIR, _POINTS))
    name = "normal curve through the default pair, b1³ + 2 b2³ = K"
    return [*lines, _curve(name, "normal", x, y)]


def _edge(b1: np.ndarray) -> float:
    """A cell before the first: the map shows half of it, and its frame cuts the curves."""
    low = 2 * b1.min() - np.sort(b1)[1] if len(b1) > 1 else b1[0] / 2
    return float(max(low, 0))


def _axis(low: float) -> np.ndarray:
    """Dense towards 1, where maps in ln(1 − b) look."""
    even = np.linspace(low, 1, _POINTS, endpoint=False)
    near = 1 - np.geomspace(1 - low, 1e-6, _POINTS)
    return np.unique(np.clip(np.concatenate([even, near]), low, None))


def _curve(name: str, kind: str, b1: np.ndarray, b2: Any) -> dict[str, Any]:
    b2 = np.asarray(b2)
    inside = (b2 > 0) & (b2 < 1)
    # Seven digits: a pixel is a thousandth.
    return {
        "name": name,
        "kind": kind,
        "b1": [float(f"{x:.7g}") for x in b1[inside]],
        "b2": [float(f"{y:.7g}") for y in b2[inside]],
    }


def bound(b1: np.ndarray, b2: np.ndarray, steps: int, kind: Kind, rates: Rates) -> np.ndarray:
    """On each component of the update in a run of `steps`; NaN where no gradient was seen."""
    seen = steps + (kind == "flow")  # u(s) has seen s + 1
    if not seen or not b1.size:
        return np.full_like(b1, np.nan)
    return np.asarray(update_bound(b1, b2, seen, kind, rates))


def _rates(b: np.ndarray, name: Rates) -> list[float | None]:
    """A decay of 0 has none."""
    with np.errstate(divide="ignore"):
        found = np.asarray(rate(b, name), float)
    return [float(x) if np.isfinite(x) else None for x in found]
