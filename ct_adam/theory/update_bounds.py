"""How large an update can get, over all gradients, and the gradients that make it so.

Source: EQUATIONS §2; Gould & Tanaka (arXiv 2411.05746). Each bound is Cauchy-Schwarz on the two
memories: m = Σ w_k g_k and v = Σ z_k g_k² give m² ≤ v Σ w_k²/z_k, with equality for g_k ∝ w_k/z_k.
"""

from typing import Literal

import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from ..decays import Rates, choice, rate, whole_number
from ._log_space import log1mexp, log_integral, log_sum
from .stability import (
    RATES_OF,
    Kind,
    Numbers,
    Start,
    check_options,
    check_values,
    decays_of,
    with_logarithm,
)


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
    check_options(kind, rates, start)
    check_values("steps", steps, 1)
    given1, given2 = decays_of(b1, b2)
    b1, b2 = with_logarithm(given1), with_logarithm(given2)
    steps = jnp.asarray(steps, b1.dtype)
    rates = RATES_OF.get(kind, rates)
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
    check_options(kind, rates, start)
    steps = whole_number("steps", steps)
    b1, b2 = (with_logarithm(b)[..., None] for b in decays_of(b1, b2))
    rates = RATES_OF.get(kind, rates)
    a, b = rate(b1, rates), rate(b2, rates)
    k = jnp.arange(steps)
    logs = (a - b) * k
    if kind == "held" and start == "first_step":
        first = jnp.log1p(-b1) - jnp.log1p(-b2) + log1mexp(b) - log1mexp(a)
        logs = logs + jnp.where(k == 0, first, 0)
    return jnp.exp(logs - jnp.max(logs, axis=-1, keepdims=True))


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
