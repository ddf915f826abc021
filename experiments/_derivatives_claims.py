"""What `derivatives` says of its slopes and of chattering runs, and where they are not as due."""

from typing import TYPE_CHECKING, Any

from ._derivatives import KINDS

if TYPE_CHECKING:
    import xarray

WITHIN = 0.1
"""of slope 1"""
ROUNDING = 1e-8
"""Reverse against forward: the same solver steps, differentiated (tests/test_derivatives.py)."""
SHARE = 0.03
"""Of a flow's error that differences and solver may make: it moves a slope by as much over an
e-fold of η at most, a third of what is allowed."""
EXPLODES = 1e6
"""times the smoothed derivative: no longer a number of use to anyone"""
ERRORS = 2.0
"""standard errors of the smoothed slope: by so many the flow's derivative may be larger"""


def of_slopes(dataset: "xarray.DataTree") -> dict[str, Any]:
    """By problem and scaling a line a kind with its verdict, and the cost of both modes."""
    return {f"{name}, {scaling}": _table(scaling, node) for name, scaling, node in _nodes(dataset)}


def _table(scaling: str, node: "xarray.Dataset") -> dict[str, Any]:
    last = node.isel(eta=-1)
    spent = float(last.evaluations.mean())
    return {
        **{kind: _row(scaling, last.sel(kind=kind)) for kind in KINDS},
        # Reverse: checkpoints, √(2·budget) of them, so that no step is taken more than three times.
        "gradients, and Hessian products": {
            "discrete run": int(last.steps),
            "its differences": 10 * int(last.steps),
            "flow": spent,
            "forward": f"{spent:.0f}, {5 * spent:.0f}",
            "reverse": f"{3 * spent:.0f} at most, {spent:.0f}",
        },
    }


def of_chattering(node: "xarray.Dataset") -> dict[str, Any]:
    """By kind and problem the derivatives over the longest horizon."""
    end = node.isel(step=-1)
    return {
        f"{kind}, seed {seed}": {
            key: float(end[key].sel(kind=kind, seed=seed))
            for key in ("discrete", "flow", "smoothed", "smoothed_error")
        }
        for kind in end.kind.values.tolist()
        for seed in end.seed.values.tolist()
    }


def _row(scaling: str, one: "xarray.Dataset") -> dict[str, Any]:
    kind = one.kind.item()
    return {
        "slope": float(one.slope),
        "from": float(one.slope_low),
        "to": float(one.slope_high),
        "due": "1 to 2" if _decay_at_fixed(scaling, kind) else "1",
        "verdict": "agrees" if _slope_is_due(scaling, one) else "does not",
        "error at the smallest η": float(one.error),
        "modes apart": float(one.modes),
        "solver's share": float(one.solver / one.error),
        "differences' share": float(one.differences / one.error),
    }


def _nodes(dataset: "xarray.DataTree") -> list[tuple[str, str, "xarray.Dataset"]]:
    return [
        (name, scaling, node.to_dataset())
        for name, problem in dataset.children.items()
        if name != "horizon"
        for scaling, node in problem.children.items()
    ]


def _decay_at_fixed(scaling: str, kind: str) -> bool:
    return scaling == "fixed" and kind in ("b1", "b2")


def _slope_is_due(scaling: str, one: "xarray.Dataset") -> bool:
    low, high = float(one.slope_low), float(one.slope_high)
    return low >= 1 - WITHIN and (_decay_at_fixed(scaling, one.kind.item()) or high <= 1 + WITHIN)


def check_slopes(dataset: "xarray.DataTree") -> list[str]:
    """Slopes, modes, and that neither solver nor differences make them."""
    missing = []
    for name, scaling, node in _nodes(dataset):
        for kind in KINDS:
            one, where = node.sel(kind=kind), f"{name}, {scaling}, by {kind}"
            if not _slope_is_due(scaling, one):
                missing.append(
                    f"{where}: the slope lies in {float(one.slope_low):.2f} … "
                    f"{float(one.slope_high):.2f}."
                )
            if not float(one.modes.max()) <= ROUNDING:
                missing.append(f"{where}: the modes differ by {float(one.modes.max()):.1e}.")
            for what in ("solver", "differences"):
                share = float((one[what] / one.error).max())
                if not share <= SHARE:
                    missing.append(f"{where}: the {what} make {share:.2g} of the error.")
    return missing


def check_chattering(node: "xarray.Dataset") -> list[str]:
    missing, end = [], node.isel(step=-1)
    for seed in node.seed.values.tolist():
        for kind in node.kind.values.tolist():
            one, where = end.sel(seed=seed, kind=kind), f"problem {seed}, by {kind}"
            names = ("flow", "discrete", "smoothed", "smoothed_error")
            flow, discrete, mean, error = (float(one[k]) for k in names)
            if not abs(discrete) >= EXPLODES * abs(mean):
                missing.append(f"{where}: the discrete derivative is {discrete:.2g}, of use still.")
            if not abs(flow) <= abs(mean) + ERRORS * error:
                missing.append(f"{where}: the flow's is {flow:.3g}, the smoothed one {mean:.3g}.")
    return missing
