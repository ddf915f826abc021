"""The stability region: for which decays gradients cannot make an update as large as they like.

Source: EQUATIONS §2; Gould & Tanaka (arXiv 2411.05746). With rates a and b of the moments, the
largest update is a sum or an integral of e^{−C j}, C = 2a − b (`update_bounds`): the sign of C
decides whether it converges. Nothing here depends on the learning rate.
"""

from typing import Literal, TypeAlias

import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, ArrayLike, Float

from ..decays import RATES, Rates, choice, numbers, rate, whole_number

Kind = Literal["continuous", "discrete", "flow", "held"]
Start = Literal["first_step", "zero"]
Numbers: TypeAlias = Float[Array, "..."]

KINDS: tuple[Kind, ...] = ("continuous", "discrete", "flow", "held")
STARTS: tuple[Start, ...] = ("first_step", "zero")

# Which rates a kind has whatever the user asks for: the paper's bound is built on `lag`, and the
# discrete average is a flow with `log` rates that is looked at once a step.
RATES_OF: dict[Kind, Rates] = {"continuous": "lag", "discrete": "log"}


def stability_coefficient(b1: ArrayLike, b2: ArrayLike, rates: Rates = "lag") -> Numbers:
    """C = 2a − b: the update is bounded over all gradients where C > 0, and nowhere else.

    With the paper's `"lag"` rates C = 2(1−b1)/b1 − (1−b2)/b2, with `"log"` ln(b2/b1²), with
    `"euler"` 2(1−b1) − (1−b2). Source: EQUATIONS §2; Gould & Tanaka (arXiv 2411.05746).

    **Arguments:**

    - `b1`: first-moment decay(s) in [0, 1).
    - `b2`: second-moment decay(s) in [0, 1), any shape that broadcasts with `b1`.
    - `rates`: `"lag"`, `"log"` or `"euler"`, how a decay becomes a rate.

    **Returns:** C per step, of the broadcast shape. But for `"euler"` it is `inf` at b1 = 0, also
    where b2 = 0, and `-inf` at b2 = 0 elsewhere.

    **Raises:** `ValueError` for unknown `rates` and for decays outside [0, 1).

    !!! example
        >>> print(f"{float(stability_coefficient(0.9, 0.999)):.4f}")
        0.2212
    """
    choice("rates", rates, RATES)
    b1, b2 = decays_of(b1, b2)
    c = 2 * rate(with_logarithm(b1), rates) - rate(with_logarithm(b2), rates)
    if rates == "euler":
        return c
    return jnp.where(b1 == 0, jnp.inf, jnp.where(b2 == 0, -jnp.inf, c))


def growth_rate(
    b1: ArrayLike, b2: ArrayLike, kind: Kind = "continuous", rates: Rates = "lag"
) -> Numbers:
    """The signed rate of the worst-case update: −C/2 of the kind's own C.

    A *bound's* rate is max(0, ·) of it: for C > 0 bounds converge. `"discrete"`: ½ ln(b1²/b2), for
    either sign the rate of a coordinate whose gradient has vanished (bias factor taken out).
    Source: EQUATIONS §2; Gould & Tanaka (arXiv 2411.05746).

    **Arguments:**

    - `b1`: first-moment decay(s) in [0, 1).
    - `b2`: second-moment decay(s) in [0, 1), any shape that broadcasts with `b1`.
    - `kind`: as in `update_bound`.
    - `rates`: the flow's rates, for `"flow"` and `"held"`.

    **Returns:** d ln|u| per step, of the broadcast shape; ∓`inf` where C is ±`inf`.

    **Raises:** `ValueError` for unknown options and for decays outside [0, 1).

    !!! example
        >>> print(f"{float(growth_rate(0.99, 0.9, kind='discrete')):.4f}")
        0.0426
    """
    check_options(kind, rates)
    return -stability_coefficient(b1, b2, RATES_OF.get(kind, rates)) / 2


def stability_boundary(b1: ArrayLike, kind: Kind = "continuous", rates: Rates = "lag") -> Numbers:
    """The second-moment decay b2 on the boundary C = 0; above it updates are bounded.

    b1/(2 − b1) for `"lag"` (and `"continuous"`), b1² for `"log"` (and `"discrete"`), 2 b1 − 1
    for `"euler"`, negative below b1 = ½ where every b2 is stable. Source: EQUATIONS §2; Gould &
    Tanaka (arXiv 2411.05746).

    **Arguments:**

    - `b1`: first-moment decay(s) in [0, 1), any shape.
    - `kind`: as in `update_bound`.
    - `rates`: the flow's rates, for `"flow"` and `"held"`.

    **Returns:** b2, of the shape of `b1`.

    **Raises:** `ValueError` for unknown options and for decays outside [0, 1).

    !!! example
        >>> print(f"{float(stability_boundary(0.9)):.4f}")
        0.8182
    """
    check_options(kind, rates)
    (b1,) = decays_of(b1)
    rates = RATES_OF.get(kind, rates)
    if rates == "log":
        return b1**2
    return 2 * b1 - 1 if rates == "euler" else b1 / (2 - b1)


def level_curve(c: ArrayLike, b1: ArrayLike) -> Numbers:
    """The second-moment decay b2 at which the paper's C(b1, b2) = c (`"lag"` rates).

    b2 = 1/(1 + 2(1−b1)/b1 − c), a pair only where 0 < b2 < 1, that is c < 2(1−b1)/b1. Source:
    EQUATIONS §2; Gould & Tanaka (arXiv 2411.05746).

    **Arguments:**

    - `c`: level(s), per step.
    - `b1`: first-moment decay(s) in [0, 1), any shape that broadcasts with `c`.

    **Returns:** b2, of the broadcast shape; outside (0, 1) where the level has no pair.

    **Raises:** `ValueError` for decays outside [0, 1).

    !!! example
        >>> print(f"{float(level_curve(0.0, 0.9)):.4f}")
        0.8182
    """
    (b1,) = decays_of(b1)
    return b1 / (2 - b1 - jnp.asarray(c) * b1)  # the same, without 1/b1: 0 at b1 = 0


def normal_curve(b1: ArrayLike, b2: ArrayLike, num: int) -> tuple[Numbers, Numbers]:
    """Points on the curve through a pair that crosses the level curves of C at right angles.

    b1³ + 2 b2³ = K. Source: EQUATIONS §2; Gould & Tanaka (arXiv 2411.05746).

    **Arguments:**

    - `b1`: first-moment decay of the pair, in [0, 1), a number.
    - `b2`: second-moment decay of the pair, in [0, 1), a number.
    - `num`: how many points, ≥ 1.

    **Returns:** `(b1s, b2s)`, each `(num,)`: uniform in b1, and strictly between the curve's ends
    at the edges of the unit square, where a decay would be 0 or 1.

    **Raises:** `ValueError` for decays outside [0, 1), for the pair (0, 0) and for `num` < 1.

    !!! example
        >>> b1s, b2s = normal_curve(0.9, 0.999, 3)
        >>> print(" ".join(f"({x:.2f}, {y:.2f})" for x, y in zip(b1s, b2s)))
        (0.92, 0.99) (0.95, 0.98) (0.97, 0.97)
    """
    b1, b2 = decays_of(b1, b2)
    num = whole_number("num", num)
    k = b1**3 + 2 * b2**3
    if not isinstance(k, Tracer) and k == 0:
        raise ValueError("The normal curve through (0, 0) is a point: give a positive decay.")
    low, high = jnp.cbrt(jnp.maximum(k - 2, 0)), jnp.cbrt(jnp.minimum(k, 1))
    b1s = jnp.linspace(low, high, num + 2)[1:-1]
    return b1s, jnp.cbrt((k - b1s**3) / 2)


def check_options(kind: str, rates: str, start: str = "zero") -> None:
    choice("kind", kind, KINDS)
    choice("rates", rates, RATES)
    choice("start", start, STARTS)


def decays_of(*decays: ArrayLike) -> list[Array]:
    """The decays b1, b2 as arrays of one floating dtype; concrete ones are checked."""
    for name, decay in zip(("b1", "b2"), decays, strict=False):
        check_values(name, decay, 0, 1.0)
    arrays = [jnp.asarray(decay) for decay in decays]
    dtype = jnp.result_type(float, *arrays)
    return [array.astype(dtype) for array in arrays]


def check_values(name: str, values: ArrayLike, low: int, high: float = np.inf) -> None:
    if isinstance(values, Tracer):
        return
    array = numbers(name, values)
    bad = array[~((array >= low) & (array < high))]  # so written NaN is bad too
    if bad.size:
        raise ValueError(f"{name} = {bad.flat[0]:g} must lie in [{low}, {high:g}).")


def with_logarithm(b: Numbers) -> Numbers:
    """A decay with logarithm, reciprocal and the reciprocal's derivative finite.

    Added rather than put in place, so that derivatives at 0 pass: that of bⁿ is n bⁿ⁻¹ there too.
    """
    tiny = float(jnp.finfo(b.dtype).tiny) ** 0.4
    return b + jnp.where(b < tiny, tiny, 0)
