"""What a run leaves behind: the same record for a flow and for an optimizer."""

import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float, Int, PyTree

from ..decays import numbers, whole_number
from .outcome import OUTCOME

if TYPE_CHECKING:
    import xarray

Save = Callable[[Any, PyTree, PyTree, Array], PyTree]
UpdateKind = Literal["u", "step"]


class Trajectory(eqx.Module):
    """Parameters, updates and losses at whole steps n counted from the start of the run.

    - `steps`: (n,) whole numbers, as asked for by `save_steps`.
    - `params`, `update`: PyTrees with a leading axis n; None where `save=` was given. `update[n]`
        leads from n to n + 1. Entries that the run did not reach are NaN.
    - `loss`: (n,), NaN for streams.
    - `saved`: what `save=` returned, with a leading axis n.
    - `result`: an `OUTCOME`; `OUTCOME[traj.result]` is its text.
    - `stats`: solver steps and gradient evaluations.
    - `trust`: a `Trust` of an `InterpolatingFlow`, None of other flows and optimizers.
    - `update_kind`: `"u"` (before learning rate and decay), or `"step"`: minus the parameter
        step, where an optimizer's learning rate is not known.
    """

    steps: Int[Array, " n"]
    params: PyTree | None
    update: PyTree | None
    loss: Float[Array, " n"]
    saved: PyTree | None
    result: OUTCOME
    stats: dict[str, Any]
    trust: PyTree | None = None
    update_kind: UpdateKind = eqx.field(static=True, default="u")

    def to_xarray(self) -> "xarray.Dataset":
        """The trajectory as a dataset over `step`, one variable a leaf, named by its path."""
        import xarray  # 0.4 s: only where it is asked for

        dataset = xarray.Dataset(
            {"loss": ("step", np.asarray(self.loss))},
            coords={"step": ("step", np.asarray(self.steps), _STEP)},
            attrs={"outcome": outcome_name(self.result)},
        )
        labels = {
            "params": "parameters",
            "update": "update u" if self.update_kind == "u" else "minus the parameter step",
            "saved": "observable",
        }
        for group, label in labels.items():
            for path, leaf in jax.tree_util.tree_leaves_with_path(getattr(self, group)):
                name = group + jax.tree_util.keystr(path)
                dims = ["step", *(f"{name}.{axis}" for axis in range(leaf.ndim - 1))]
                dataset[name] = (dims, np.asarray(leaf), {"long_name": label})
        return dataset


_STEP = {"long_name": "optimizer step since the start of the run", "units": "steps"}


def outcome_name(result: OUTCOME) -> str:
    """The identifier of an outcome, e.g. `"successful"`."""
    return outcome_names()[int(result._value)]  # pyright: ignore[reportAttributeAccessIssue]


def outcome_names() -> list[str]:
    """All outcomes' identifiers, by their number."""
    members = {
        int(getattr(OUTCOME, name)._value): name
        for name in OUTCOME._name_to_item  # pyright: ignore[reportAttributeAccessIssue]
    }
    return [members[i] for i in range(len(members))]


def check_steps(steps: int, warm_steps: int) -> tuple[int, int]:
    """Both as Python's numbers; a `ValueError` unless they count something."""
    return whole_number("steps", steps), whole_number("warm_steps", warm_steps, least=0)


def check_tolerances(rtol: Any, atol: Any, max_solver_steps: int | None) -> None:
    """Raises a `ValueError` unless a solver can meet them; traced numbers are left out."""
    given = {"rtol": rtol, "atol": atol}
    known = [numbers(name, x) for name, x in given.items() if not isinstance(x, Tracer)]
    if any(not x >= 0 for x in known) or (len(known) == 2 and not sum(known) > 0):
        raise ValueError(
            f"rtol = {rtol} and atol = {atol}: give two that are not negative, nor both 0."
        )
    if max_solver_steps is not None:
        whole_number("max_solver_steps", max_solver_steps)


def checked_save_steps(save_steps: Any, steps: int, most: int | None = None) -> np.ndarray:
    """`save_steps` as sorted whole numbers in [0, steps]; every step by default, at most `most`."""
    if save_steps is None:
        if most is None or steps + 1 <= most:
            return np.arange(steps + 1)
        return np.unique(np.linspace(0, steps, most).round().astype(int))
    array = np.asarray(save_steps)
    countable = array.dtype.kind in "iuf" and array.ndim == 1 and array.size > 0
    if not countable or not np.array_equal(array, np.floor(array)):
        raise ValueError("save_steps must be a list of whole numbers.")
    if array.min() < 0 or array.max() > steps:
        raise ValueError(
            f"save_steps reach from {array.min():g} to {array.max():g}: "
            f"they must lie in 0 … {steps}."
        )
    if np.any(np.diff(array) <= 0):
        raise ValueError("save_steps must increase strictly: sort them and drop repetitions.")
    return array.astype(int)


def check_save(save: Save | None) -> None:
    """Raises a `ValueError` unless `save` can be called with what is observed at a step."""
    if save is None:
        return
    wanted = "save(step, params, update, loss)"
    if not callable(save):
        raise ValueError(f"save = {save!r} is no function: give one as {wanted}.")
    try:
        inspect.signature(save).bind(*(None,) * 4)
    except ValueError:
        return  # some functions of C do not tell what they take
    except TypeError as error:
        raise ValueError(f"save is called as {wanted}: {error}.") from None


def tree_where(mask: Array, tree: PyTree) -> PyTree:
    """The leaves where `mask` (n,) holds along their first axis, NaN elsewhere (ints untouched)."""

    def leaf(x: Array) -> Array:
        if not jnp.issubdtype(x.dtype, jnp.inexact):
            return x
        return jnp.where(mask.reshape(mask.shape + (1,) * (x.ndim - 1)), x, jnp.nan)

    return jax.tree.map(leaf, tree)


class RunError(RuntimeError):
    """A run that did not end as it should, with the outcome's text as its message."""


def raise_unless_okay(trajectory: Trajectory) -> Trajectory:
    """`trajectory`, or a `RunError` with the outcome's text (an equinox error under a trace)."""
    okay = (trajectory.result == OUTCOME.successful) | (trajectory.result == OUTCOME.event_occurred)
    if isinstance(okay, Tracer):
        result = trajectory.result
        return result.error_if(trajectory, ~okay)  # pyright: ignore[reportAttributeAccessIssue]
    if not bool(okay):
        raise RunError(f"{OUTCOME[trajectory.result]}{_of_float32(trajectory)}")
    return trajectory


def _of_float32(trajectory: Trajectory) -> str:
    """What else a solver may have stumbled over."""
    dtype = getattr(trajectory.loss, "dtype", None)
    if dtype != jnp.float32 or trajectory.result == OUTCOME.nonfinite_start:
        return ""
    return " This was float32: enable jax_enable_x64, above all for an rtol below 1e-6."
