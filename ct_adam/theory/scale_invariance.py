"""The norm of a scale-invariant weight W under Adam with decoupled decay.

⟨W, g⟩ = 0 and g(αW) = g(W)/α. Source: EQUATIONS §3; Gould & Tanaka (arXiv 2411.05746) for the full
form and the rate without correction; the correction and the recursions are derived there. One
optimizer step is W⁺ = (1 − ηλ) W − ηu, so that, whatever W is,

    ‖W⁺‖² = (1−ηλ)²‖W‖² + η²‖u‖² − 2η(1−ηλ)⟨W, u⟩

and invariance enters through ⟨W, u⟩ alone. Norms are Frobenius'; the update norm of a prediction
is the root of the *mean* of ‖u‖², over much more than 1/(1−b1) steps. What turns the direction is
in `rotation`, which tensors are invariant at all is told by `find`.
"""

from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, PyTree

from ..decays import choice
from ._arguments import arrays, check, check_shrink
from .flow_norms import flow_source as flow_source
from .flow_norms import held_average as held_average
from .invariance import blocks
from .invariance import find as find
from .invariance_verdict import ScaleInvariance as ScaleInvariance
from .invariance_verdict import TensorInvariance as TensorInvariance

Stationary = Literal["corrected", "uncorrected", "exact"]
Form = Literal["exact", "full", "corrected", "uncorrected"]

STATIONARY: tuple[Stationary, ...] = ("corrected", "uncorrected", "exact")
FORMS: tuple[Form, ...] = ("exact", "full", "corrected", "uncorrected")


class Radial(NamedTuple):
    """‖W‖, ‖u‖, ⟨W, u⟩ and the cosine between the two, of one tensor or of each of its slices."""

    norm: Array
    update_norm: Array
    inner: Array
    cosine: Array


def radial(params: PyTree, update: PyTree, axis: int | None = None, block: int = 1) -> PyTree:
    """What the equations of the norm need of a step, for every tensor of `params`.

    For `save=` of `ct.run` and `ct.solve`: `save=lambda step, p, u, loss: radial(p, u)`.

    **Arguments:**

    - `params`, `update`: W_n and u_{n+1}, PyTrees alike.
    - `axis`, `block`: as in `find`: one number for every `block` entries of that axis.

    **Returns:** a PyTree like `params` with a `Radial` in place of every tensor.

    !!! example
        >>> seen = radial(jnp.array([3.0, 4.0]), jnp.array([4.0, -3.0]))
        >>> print(seen.norm, seen.update_norm, seen.inner)
        5.0 5.0 0.0
    """

    def leaf(w: Array, u: Array) -> Radial:
        w, u = blocks(w, axis, block), blocks(u, axis, block)
        norm, update_norm = jnp.linalg.norm(w, axis=-1), jnp.linalg.norm(u, axis=-1)
        inner = jnp.sum(w * u, axis=-1)
        product = norm * update_norm
        cosine = jnp.where(product > 0, inner / jnp.where(product > 0, product, 1), 0)
        seen = Radial(norm, update_norm, inner, cosine)
        return jax.tree.map(lambda x: x[0], seen) if axis is None else seen

    return jax.tree.map(leaf, params, update)


def weight_norm_rate(
    norm: ArrayLike,
    update_norm: ArrayLike,
    learning_rate: ArrayLike,
    weight_decay: ArrayLike,
    b1: ArrayLike,
    corrected: bool = True,
) -> Float[Array, "..."]:
    """d‖W‖²/dstep = −2ηλ‖W‖² + c η²‖u‖², c = (1+b1)/(1−b1), or 1 without correction.

    c = 1 (Gould & Tanaka) supposes ⟨W, m⟩ ≈ 0; but past gradients are orthogonal to past weights,
    and what W has moved since is of the order of η‖u‖² too: ⟨W, u⟩ = −η‖u‖² b1/(1−b1). To first
    order in ηλ for a slowly varying scalar v, near that where noise dominates. It fails where Ŵ
    rests on few coordinates of an elementwise v: on one, with a mean gradient 2, 10 and 50 times
    the noise of a coordinate, ‖W‖ settles at 3.2, 5.1 and 7.1 where this says 1.41 (d = 400).
    Source: EQUATIONS §3.

    **Arguments:** of shapes that broadcast

    - `norm`: ‖W‖. `update_norm`: ‖u‖, its root mean square over ≫ 1/(1−b1) steps.
    - `learning_rate`, `weight_decay`: η and λ (decoupled). `b1`: first-moment decay in [0, 1).
    - `corrected`: whether c is that of momentum, or 1.

    **Returns:** the rate of ‖W‖² per step.

    **Raises:** `ValueError` for values outside their range.

    !!! example
        >>> print(f"{weight_norm_rate(1.0, 20.0, 1e-3, 0.1, 0.9):.6f}")
        0.007400
    """
    check(learning_rate=learning_rate, weight_decay=weight_decay, b1=b1)
    norm, update_norm, eta, decay, b1 = arrays(norm, update_norm, learning_rate, weight_decay, b1)
    return -2 * eta * decay * norm**2 + _source(b1, corrected) * (eta * update_norm) ** 2


def weight_norm_step(
    norm: ArrayLike,
    update_norm: ArrayLike,
    inner: ArrayLike,
    learning_rate: ArrayLike,
    weight_decay: ArrayLike,
) -> Float[Array, "..."]:
    """‖W⁺‖ after one step W⁺ = (1−ηλ)W − ηu: exact, for any W.

    **Arguments:** as `weight_norm_rate`, `update_norm` that of this step; `inner`: ⟨W, u⟩.

    **Returns:** the norm (not its square), of the broadcast shape.

    **Raises:** `ValueError` for values outside their range.

    !!! example
        >>> print(weight_norm_step(5.0, 5.0, 0.0, 0.1, 0.0) ** 2)
        25.25
    """
    check(learning_rate=learning_rate, weight_decay=weight_decay)
    norm, update_norm, inner, eta, decay = arrays(
        norm, update_norm, inner, learning_rate, weight_decay
    )
    kept = 1 - eta * decay
    square = (kept * norm) ** 2 + (eta * update_norm) ** 2 - 2 * eta * kept * inner
    return jnp.sqrt(jnp.maximum(square, 0))


def weight_norm_path(
    norm: ArrayLike,
    update_norm: ArrayLike,
    learning_rate: ArrayLike,
    weight_decay: float,
    *,
    inner: ArrayLike | None = None,
    b1: float | None = None,
    form: Form = "full",
) -> Float[np.ndarray, "steps+1 ..."]:
    """‖W‖ step by step from a measured trajectory, by one of the four forms.

        "exact"        ‖W⁺‖² = (1−ηλ)²‖W‖² + η²‖u‖² − 2η(1−ηλ)⟨W, u⟩
        "full"         (‖W‖²)' = −2ηλ‖W‖² + η²‖u‖² − 2η⟨W, u⟩     (the paper's figure)
        "corrected"    (‖W‖²)' = −2ηλ‖W‖² + η²‖u‖² (1+b1)/(1−b1)
        "uncorrected"  (‖W‖²)' = −2ηλ‖W‖² + η²‖u‖²

    The ODEs are solved exactly, with what is measured held over each step: no error of a solver is
    among what a figure shows. Source: EQUATIONS §3.

    **Arguments:**

    - `norm`: ‖W_0‖, a number or an array (…).
    - `update_norm`: ‖u_{n+1}‖ of each step n = 0, 1, …, every step, shape (steps, …).
    - `learning_rate`: η, or its values (steps,) where there is a schedule. `weight_decay`: λ.
    - `inner`: ⟨W_n, u_{n+1}⟩, shape (steps, …), for the first two forms.
    - `b1`: first-moment decay, for `"corrected"`.

    **Returns:** ‖W_n‖, n = 0 … steps.

    **Raises:** `ValueError` for an unknown form, or one without what it needs.

    !!! example
        >>> path = weight_norm_path(1.0, np.full(20_000, 20.0), 1e-3, 0.1, form="uncorrected")
        >>> print(path[[0, 5000, 20_000]].round(3))
        [1.    1.278 1.408]
    """
    choice("form", form, FORMS)
    check(learning_rate=learning_rate, weight_decay=weight_decay, b1=0.0 if b1 is None else b1)
    square = np.asarray(update_norm, float) ** 2
    if square.ndim == 0 or np.shape(norm) not in ((), square.shape[1:]):
        raise ValueError(
            f"update_norm has shape {square.shape} and norm {np.shape(norm)}: give ‖u‖ of every "
            "step, (steps, …), and ‖W_0‖ of shape (…)."
        )
    eta = np.asarray(learning_rate, float)
    if eta.ndim not in (0, 1) or (eta.ndim and len(eta) != len(square)):
        raise ValueError(
            f"learning_rate has shape {eta.shape}: give a number, or one of each of the "
            f"{len(square)} steps."
        )
    eta = np.broadcast_to(eta.reshape(eta.shape + (1,) * (square.ndim - 1)), square.shape)
    along = _along(form, inner, b1, square)
    shrink = eta * weight_decay
    if form == "exact":
        kept, source = (1 - shrink) ** 2, eta**2 * square - 2 * eta * (1 - shrink) * along
    else:
        momentum = _source(b1, form == "corrected")
        kept = np.exp(-2 * shrink)
        safe = np.where(shrink > 0, 2 * shrink, 1)
        mean = np.where(shrink > 0, -np.expm1(-safe) / safe, 1)  # of e^{−2ηλ t} over a step
        source = mean * (momentum * eta**2 * square - 2 * eta * along)
    path = np.empty((len(square) + 1, *square.shape[1:]))
    path[0] = np.asarray(norm, float) ** 2
    for n in range(len(square)):
        path[n + 1] = kept[n] * path[n] + source[n]
    return np.sqrt(np.maximum(path, 0))


def _along(form: Form, inner: Any, b1: Any, square: np.ndarray) -> np.ndarray:
    """⟨W, u⟩ where the form has it, 0 where it does not."""
    if form in ("exact", "full"):
        if inner is None or np.shape(inner) != square.shape:
            raise ValueError(
                f"form = {form!r} needs inner, ⟨W, u⟩ of shape {square.shape}: measure it with "
                "radial, or take a reduced form."
            )
        return np.asarray(inner, float)
    if form == "corrected" and b1 is None:
        raise ValueError("form = 'corrected' needs b1, the first-moment decay.")
    return np.zeros_like(square)


def momentum_inner(
    update_moment: ArrayLike, learning_rate: ArrayLike, weight_decay: float, b1: float
) -> Float[np.ndarray, "steps ..."]:
    """⟨W_{n−1}, m_n⟩ for n = 1 … steps, from ⟨u_n, m_n⟩: exact for any v, elementwise or scalar.

        P_n = b1 [(1−ηλ) P_{n−1} − η⟨u_{n−1}, m_{n−1}⟩]        P_1 = 0

    since the newest gradient is orthogonal to W_{n−1}; m from 0, without bias correction. Source:
    EQUATIONS §3.

    **Arguments:**

    - `update_moment`: ⟨u_n, m_n⟩ for n = 1 … steps, shape (steps, …).
    - `learning_rate`: η, or its values (steps,). `weight_decay`: λ. `b1`: first-moment decay.

    !!! example
        >>> print(momentum_inner([1.0, 1.0, 1.0], 0.1, 0.0, 0.5))
        [ 0.    -0.05  -0.075]
    """
    check(learning_rate=learning_rate, weight_decay=weight_decay, b1=b1)
    given = np.asarray(update_moment, float)
    if given.ndim == 0:
        raise ValueError("update_moment is one number: give ⟨u_n, m_n⟩ of every step.")
    eta = np.broadcast_to(np.asarray(learning_rate, float), len(given))
    inner = np.zeros_like(given)
    for n in range(1, len(given)):
        kept = (1 - eta[n - 1] * weight_decay) * inner[n - 1]
        inner[n] = b1 * (kept - eta[n - 1] * given[n - 1])
    return inner


def stationary_norm(
    update_norm: ArrayLike,
    learning_rate: ArrayLike,
    weight_decay: ArrayLike,
    b1: ArrayLike = 0.9,
    kind: Stationary = "corrected",
) -> Float[Array, "..."]:
    """‖W‖ where decay and the growth by updates balance.

        "uncorrected"  ‖W‖² = η‖u‖²/(2λ)                         (Gould & Tanaka)
        "corrected"    ‖W‖² = η‖u‖²/(2λ) · (1+b1)/(1−b1)
        "exact"        ‖W‖² = η²‖u‖²(1+q)/((1−q)(2ηλ − η²λ²)),   q = b1(1−ηλ)

    `"exact"` is that of the discrete recursion for a constant scalar v, `"corrected"` its limit as
    ηλ → 0; source: EQUATIONS §3. It is reached in a few `warm_up_steps`.

    **Arguments:** as `weight_norm_rate`, ηλ in (0, 1].

    **Raises:** `ValueError` for values outside their range.

    !!! example
        >>> update = 400**0.5 * (0.1 / 1.9) ** 0.5  # 400 coordinates of noise averaged by b1 = 0.9
        >>> print(f"{stationary_norm(update, 1e-3, 0.1, 0.9):.4f}")
        1.4142
        >>> print(f"{stationary_norm(update, 1e-3, 0.1, 0.9, 'uncorrected'):.4f}")
        0.3244
    """
    choice("kind", kind, STATIONARY)
    check(learning_rate=learning_rate, weight_decay=weight_decay, b1=b1)
    check_shrink(learning_rate, weight_decay)
    update_norm, eta, decay, b1 = arrays(update_norm, learning_rate, weight_decay, b1)
    if kind == "exact":
        shrink, q = eta * decay, b1 * (1 - eta * decay)
        square = _source(q, True) * (eta * update_norm) ** 2 / (shrink * (2 - shrink))
    else:
        square = _source(b1, kind == "corrected") * eta * update_norm**2 / (2 * decay)
    return jnp.sqrt(square)


def _source(b1: Any, corrected: bool) -> Any:
    return (1 + b1) / (1 - b1) if corrected else 1.0
