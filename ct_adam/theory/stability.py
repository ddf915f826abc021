"""The stability region: how large an update can get, and where nothing bounds it.

Source: EQUATIONS §2; Gould & Tanaka (arXiv 2411.05746). Each bound is Cauchy-Schwarz on the two
memories: m = Σ w_k g_k and v = Σ z_k g_k² give m² ≤ v Σ w_k²/z_k, with equality for g_k ∝ w_k/z_k.
With rates a and b of the moments, Σ w²/z is a sum or an integral of e^{−C j}, C = 2a − b: the
sign of C decides whether it converges. Nothing here depends on the learning rate.
"""

from typing import Literal, TypeAlias

import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, ArrayLike, Float

from ..decays import RATES, Rates, choice, rate
from ._log_space import log1mexp, log_integral, log_sum

Kind = Literal["continuous", "discrete", "flow", "held"]
Start = Literal["first_step", "zero"]
Numbers: TypeAlias = Float[Array, "..."]

KINDS: tuple[Kind, ...] = ("continuous", "discrete", "flow", "held")
STARTS: tuple[Start, ...] = ("first_step", "zero")

# Which rates a kind has whatever the user asks for: the paper's bound is built on `lag`, and the
# discrete average is a flow with `log` rates that is looked at once a step.
_RATES_OF: dict[Kind, Rates] = {"continuous": "lag", "discrete": "log"}


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
    b1, b2 = _decays(b1, b2)
    c = 2 * rate(_positive(b1), rates) - rate(_positive(b2), rates)
    if rates == "euler":
        return c
    return jnp.where(b1 == 0, jnp.inf, jnp.where(b2 == 0, -jnp.inf, c))


def update_bound(
    b1: ArrayLike,
    b2: ArrayLike,
    steps: ArrayLike,
    kind: Kind = "continuous",
    rates: Rates = "lag",
    start: Start = "first_step",
    log: bool = False,
) -> Numbers:
    """The largest |u| of any coordinate after `steps` gradients, over all gradients (eps = 0).

    `"discrete"`: Adam's, exact. `"continuous"`: the paper's, which a flow exceeds. `"flow"`: a
    flow that sees a continuous gradient g(s). `"held"`: a flow whose gradient is held over each
    step, at whole steps. The last two and `"discrete"` are the suprema; `"discrete"`, `"held"`
    and, from zero, `"flow"` are attained. From `"first_step"` the worst g is e^{(a−b)s} with a
    value of its own at s = 0, ((1−b1)/a)·(b/(1−b2)) (b1/b2 for `"lag"`, 1 for `"euler"`), which
    a continuous g only approaches.

        flow, held   u² ≤ B2/B1² · [(1−b1)²/(1−b2) · e^{−C s} + memory(s)]   (zero: memory only)
        flow         memory = (a²/b) (1 − e^{−C s})/C
        held         memory = ((1−e^{−a})²/(1−e^{−b})) (1 − e^{−C s})/(1 − e^{−C})

    `"discrete"` is `"held"` with `"log"` rates; `"continuous"` has the memory of a `"lag"` flow
    from zero with the discrete bias factors. Source: EQUATIONS §2; Gould & Tanaka
    (arXiv 2411.05746).

    **Arguments:**

    - `b1`: first-moment decay(s) in [0, 1).
    - `b2`: second-moment decay(s) in [0, 1).
    - `steps`: gradients seen, ≥ 1; `update[n]` has seen n + 1. A flow is then at s = steps − 1
        with `"first_step"`, at s = steps with `"zero"`. All three broadcast.
    - `kind`: one of the four above.
    - `rates`: the flow's rates, for `"flow"` and `"held"`.
    - `start`: the flow's start, for `"flow"` and `"held"`.
    - `log`: whether to return the logarithm, which does not overflow.

    **Returns:** the bound, of the broadcast shape. As b1 → 0 it is `inf` for `"continuous"` and
    `"flow"` (m follows a spike that v has no time to see; with `"euler"`, whose rate stays 1,
    finite), and finite for the others. At b2 = 0 < b1 it is `inf` from the second gradient on.
    Positive decays below 1e-123 (1e-15 in float32) count as that.

    **Raises:** `ValueError` for unknown options, decays outside [0, 1) and `steps` < 1.

    !!! example
        >>> print(f"{float(update_bound(0.9, 0.999, 100_000, kind='discrete')):.3f}")
        7.270
    """
    _check_options(kind, rates, start)
    _check_values("steps", steps, 1)
    given1, given2 = _decays(b1, b2)
    b1, b2 = _positive(given1), _positive(given2)
    steps = jnp.asarray(steps, b1.dtype)
    rates = _RATES_OF.get(kind, rates)
    first_step = start == "first_step" and kind in ("flow", "held")
    s = steps - 1 if first_step else steps
    bias = _log_bias(b1, b2, s, "log" if kind == "continuous" else rates, first_step)
    held = kind in ("discrete", "held")
    memory = _log_memory(rate(b1, rates), rate(b2, rates), s, held)
    if first_step:
        c = 2 * rate(b1, rates) - rate(b2, rates)
        memory = jnp.logaddexp(2 * jnp.log1p(-b1) - jnp.log1p(-b2) - c * s, memory)
    unbounded = _at_a_zero(given1, given2, steps, s, held) & (rates != "euler")
    bound = jnp.where(unbounded, jnp.inf, bias + memory / 2)
    return bound if log else jnp.exp(bound)


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
    _check_options(kind, rates)
    return -stability_coefficient(b1, b2, _RATES_OF.get(kind, rates)) / 2


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
    _check_options(kind, rates)
    (b1,) = _decays(b1)
    rates = _RATES_OF.get(kind, rates)
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
    (b1,) = _decays(b1)
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
    b1, b2 = _decays(b1, b2)
    if num < 1:
        raise ValueError(f"num = {num} must be at least 1.")
    k = b1**3 + 2 * b2**3
    if not isinstance(k, Tracer) and k == 0:
        raise ValueError("The normal curve through (0, 0) is a point: give a positive decay.")
    low, high = jnp.cbrt(jnp.maximum(k - 2, 0)), jnp.cbrt(jnp.minimum(k, 1))
    b1s = jnp.linspace(low, high, num + 2)[1:-1]
    return b1s, jnp.cbrt((k - b1s**3) / 2)


def worst_case_gradients(
    b1: ArrayLike,
    b2: ArrayLike,
    steps: int,
    kind: Literal["discrete", "held"] = "discrete",
    rates: Rates = "lag",
    start: Start = "first_step",
) -> Float[Array, "... steps"]:
    """The one stream of gradients that attains `update_bound` after every number of gradients.

    g_k ∝ e^{(a−b)k}, which is (b2/b1)^k for `"discrete"`. Held, from `"first_step"`, g_0 enters
    with other weights than the rest and is multiplied by (1−b1)(1−e^{−b})/((1−b2)(1−e^{−a})).
    Normalised so that squares never overflow; small values underflow to 0. Where 0 is reached at
    the *late* end (b2 < b1 and many steps) so does v, and the update with it. Source: EQUATIONS §2.

    **Arguments:**

    - `b1`: first-moment decay(s) in [0, 1).
    - `b2`: second-moment decay(s) in [0, 1), any shape that broadcasts with `b1`.
    - `steps`: how many gradients, a Python integer ≥ 1.
    - `kind`: `"discrete"` or `"held"`, as in `update_bound`.
    - `rates`: the flow's rates, for `"held"`.
    - `start`: the flow's start, for `"held"`.

    **Returns:** `(..., steps)`, `(steps,)` for one pair; positive, the largest value is 1.

    **Raises:** `ValueError` for unknown options, decays outside [0, 1) and `steps` < 1.

    !!! example
        >>> print(worst_case_gradients(0.5, 0.25, 3))
        [1.   0.5  0.25]
    """
    choice("kind", kind, ("discrete", "held"))
    _check_options(kind, rates, start)
    _check_values("steps", steps, 1)
    b1, b2 = (_positive(b)[..., None] for b in _decays(b1, b2))
    rates = _RATES_OF.get(kind, rates)
    a, b = rate(b1, rates), rate(b2, rates)
    k = jnp.arange(steps)
    logs = (a - b) * k
    if kind == "held" and start == "first_step":
        first = jnp.log1p(-b1) - jnp.log1p(-b2) + log1mexp(b) - log1mexp(a)
        logs = logs + jnp.where(k == 0, first, 0)
    return jnp.exp(logs - jnp.max(logs, axis=-1, keepdims=True))


def _check_options(kind: str, rates: str, start: str = "zero") -> None:
    choice("kind", kind, KINDS)
    choice("rates", rates, RATES)
    choice("start", start, STARTS)


def _decays(*decays: ArrayLike) -> list[Array]:
    """The decays b1, b2 as arrays of one floating dtype; concrete ones are checked."""
    for name, decay in zip(("b1", "b2"), decays, strict=False):
        _check_values(name, decay, 0, 1.0)
    arrays = [jnp.asarray(decay) for decay in decays]
    dtype = jnp.result_type(float, *arrays)
    return [array.astype(dtype) for array in arrays]


def _check_values(name: str, values: ArrayLike, low: int, high: float = np.inf) -> None:
    if isinstance(values, Tracer):
        return
    array = np.asarray(values, dtype=float)
    bad = array[~((array >= low) & (array < high))]  # so written NaN is bad too
    if bad.size:
        raise ValueError(f"{name} = {bad.flat[0]:g} must lie in [{low}, {high:g}).")


def _positive(b: Numbers) -> Numbers:
    """A decay with logarithm, reciprocal and the reciprocal's derivative finite.

    Added rather than put in place, so that derivatives at 0 pass: that of bⁿ is n bⁿ⁻¹ there too.
    """
    tiny = float(jnp.finfo(b.dtype).tiny) ** 0.4
    return b + jnp.where(b < tiny, tiny, 0)


def _log_bias(b1: Numbers, b2: Numbers, s: Array, rates: Rates, first_step: bool) -> Numbers:
    """ln(√B2/B1), B = 1 − e^{−as} from zero and 1 − b1 e^{−as} from the first step (§1)."""

    def log_factor(decay: Numbers) -> Numbers:
        decayed = rate(decay, rates) * s
        return log1mexp(decayed - jnp.log(decay) if first_step else decayed)

    return log_factor(b2) / 2 - log_factor(b1)


def _log_memory(a: Numbers, b: Numbers, s: Array, held: bool) -> Numbers:
    """ln Σ w_k²/z_k of what came after the start: `memory(s)` of `update_bound`."""
    if held:
        return 2 * log1mexp(a) - log1mexp(b) + log_sum(2 * a - b, s)
    return 2 * jnp.log(a) - jnp.log(b) + log_integral(2 * a - b, s)


def _at_a_zero(b1: Numbers, b2: Numbers, steps: Array, s: Array, held: bool) -> Array:
    """Where an infinite rate makes the bound infinite; held gradients stay finite at b1 = 0."""
    if held:
        return (b2 == 0) & (b1 > 0) & (steps > 1)
    return ((b1 == 0) | (b2 == 0)) & (s > 0)
