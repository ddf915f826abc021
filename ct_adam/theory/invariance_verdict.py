"""Whether a tensor is scale-invariant, by what `invariance` has measured of it."""

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple, get_args

import numpy as np
from jaxtyping import PyTree

Verdict = Literal["unused", "invariant", "nearly", "not"]
VERDICTS: tuple[Verdict, ...] = get_args(Verdict)
"""Of several slices the last of theirs is that of the tensor."""
SCALE_FREE: tuple[Verdict, ...] = ("invariant", "nearly")


class TensorInvariance(NamedTuple):
    """What was measured of one tensor, or of the worst of its slices.

    - `verdict`: `"invariant"` (to rounding), `"nearly"` (but for an eps: both defects small, and
        gone as W grows), `"not"`, or `"unused"`: the loss does not depend on it, so that there is
        nothing to tell.
    - `radial_defect`: the largest |⟨W, g⟩|/(‖W‖‖g‖) over the points.
    - `scaling_defect`: the largest |L(αW) − L(W)|/(‖W‖‖g‖|ln α|) over points and scales.
    - `falloff`: p in radial defect ∝ α^{−p}, NaN where it is rounding: 2 of an eps beside a
        variance, 1 of an eps beside a norm; 0 or below where the defect does not die out as W
        grows, and is no eps.
    - `slices`: how many of how many slices are invariant, or nearly; (1, 1) of a whole tensor.
    """

    name: str
    shape: tuple[int, ...]
    verdict: Verdict
    radial_defect: float
    scaling_defect: float
    falloff: float
    slices: tuple[int, int]


class ScaleInvariance(NamedTuple):
    """A row a tensor, and as `mask` a PyTree like the parameters: True where (nearly) invariant."""

    tensors: tuple[TensorInvariance, ...]
    mask: PyTree

    def __str__(self) -> str:
        head = ("tensor", "shape", "verdict", "radial", "scaling", "falloff", "slices")
        rows = [head, *(_shown(tensor) for tensor in self.tensors)]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = [
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
            for row in rows
        ]
        return "\n".join(lines)


class Look(NamedTuple):
    """One tensor at one point; arrays over (slices,) or (scales, slices)."""

    size: np.ndarray
    """‖W‖‖g‖"""
    whole: float
    """|L| and the sum of ‖W‖‖g‖ over all tensors: what rounding is relative to."""
    radial: np.ndarray
    radial_scaled: np.ndarray
    change: np.ndarray
    count: int
    """Entries of a slice."""


def judged(
    name: str,
    shape: tuple[int, ...],
    looks: list[Look],
    scales: Sequence[float],
    tolerance: float,
    near: float,
) -> TensorInvariance:
    """One tensor, by its looks at all points."""
    size = np.stack([look.size for look in looks])  # (points, slices)
    rounding = tolerance * np.array([look.whole for look in looks])[:, None]
    change = np.stack([look.change for look in looks])  # (points, scales, slices)
    flat = np.all(size <= rounding, axis=0)
    still = np.all(change <= rounding[:, None], axis=(0, 1))
    radial = np.stack([look.radial for look in looks])
    radial = np.max(np.where(size > rounding, radial, 0), axis=0)
    logs = np.abs(np.log(np.asarray(scales)))[:, None]
    safe = np.where(size > rounding, size, np.inf)[:, None]
    scaling = np.max(change / (safe * logs), axis=(0, 1))
    falloff = _falloff(looks, scales)
    chance = math.sqrt(looks[0].count)
    close = (np.maximum(radial, scaling) * chance <= near) & (falloff > 0.5)
    exact = (radial <= tolerance) & still
    # A loss may change without a gradient, behind a stop_gradient or rounded: that is not unused.
    verdicts = np.select([flat & still, exact, close], VERDICTS[:3], VERDICTS[3]).tolist()
    radial_defect = float(np.max(radial))
    return TensorInvariance(
        name,
        tuple(shape),
        max(verdicts, key=VERDICTS.index),
        radial_defect,
        float(np.max(np.where(flat & ~still, math.inf, scaling))),
        falloff if radial_defect > tolerance else math.nan,
        (sum(verdict in SCALE_FREE for verdict in verdicts), len(verdicts)),
    )


def _falloff(looks: list[Look], scales: Sequence[float]) -> float:
    """−d ln(radial defect)/d ln α between the smallest and the largest scale; the median."""
    low, high = int(np.argmin(scales)), int(np.argmax(scales))
    first = np.concatenate([look.radial_scaled[low] for look in looks])
    last = np.concatenate([look.radial_scaled[high] for look in looks])
    there = (first > 0) & (last > 0)
    if not np.any(there):
        return math.nan
    slope = np.log(first[there] / last[there]) / math.log(scales[high] / scales[low])
    return float(np.median(slope))


def _shown(tensor: TensorInvariance) -> tuple[str, ...]:
    return (
        tensor.name,
        "×".join(map(str, tensor.shape)) or "scalar",
        tensor.verdict,
        f"{tensor.radial_defect:.1e}",
        f"{tensor.scaling_defect:.1e}",
        "" if math.isnan(tensor.falloff) else f"{tensor.falloff:.1f}",
        f"{tensor.slices[0]}/{tensor.slices[1]}",
    )
