"""Where a flow stops to be looked at."""

from typing import Any, NamedTuple

import diffrax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from ..flows import AbstractFlow, InterpolatingFlow
from .trust import window_length


class SavePlan(NamedTuple):
    """Where a flow stops to be looked at: at `bases`, multiples of its stride, from where `steps`
    are reached by `offset` discrete steps, of which there are fewer than `offsets`; and how many
    windows of how many steps judge an interpolating flow."""

    steps: Int[Array, " n"]
    bases: Int[Array, " m"]
    base: Int[Array, " n"]
    offset: Int[Array, " n"]
    end: Float[Array, ""]
    from_start: bool
    offsets: int
    windows: int
    window: int


def save_at(plan: SavePlan, t0: Any, warm_steps: int, observe: Any) -> diffrax.SubSaveAt:
    """The bases as diffrax wants them. The start is saved as such: it is there even if the solver
    never takes a step."""
    times = plan.bases[1:] if plan.from_start else plan.bases
    ts = jnp.maximum(times + warm_steps, t0).astype(plan.end.dtype) if times.size else None
    return diffrax.SubSaveAt(t0=plan.from_start, ts=ts, fn=observe)


def save_plan(flow: AbstractFlow, save_steps: np.ndarray, steps: int, dtype: Any) -> SavePlan:
    stride = flow.stride if isinstance(flow, InterpolatingFlow) else 1
    if steps < stride:
        raise ValueError(f"steps = {steps} must be at least the flow's stride, {stride}.")
    bases, base = np.unique(save_steps // stride * stride, return_inverse=True)
    offset = save_steps % stride
    end = steps // stride * stride
    # Other flows are not judged; nothing of theirs depends on the steps but arrays, so that runs
    # of like length share one program.
    window = window_length(steps, stride) if isinstance(flow, InterpolatingFlow) else 0
    return SavePlan(
        *map(jnp.asarray, (save_steps, bases, base, offset)),
        end=jnp.asarray(end, dtype),
        from_start=bool(bases[0] == 0),
        offsets=int(offset.max()) + 1,
        windows=end // window if window else 0,
        window=window,
    )
