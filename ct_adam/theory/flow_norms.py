"""The norm of a scale-invariant weight under the *flows* of Adam: not quite the optimizer's.

Source: EQUATIONS §3.
"""

from typing import Literal

import numpy as np

from ..decays import Rates, check_hyperparameters, choice, rate


def flow_source(
    b1: float,
    rates: Rates = "log",
    order: int = 1,
    noise: Literal["held", "white"] = "held",
    shrink: float = 0.0,
) -> float:
    """c of (‖W‖²)' = −2ηλ‖W‖² + c η²‖u‖² for the Adam *flow* under noise: not the optimizer's.

        order 1   c = 2/(a + ηλ)        order 2   c = ρ (1 + 2/a)

    a the flow's rate; at order 1 for any gradient orthogonal to W and a slowly varying scalar v, 0
    at b1 = 0. ρ is the share of ‖u‖² that passes 4/(4+ω²), the filter of ½θ'' + θ': for noise held
    over each step [4F(a) − a²F(2)]/((4−a²)F(a)), F(x) = 1 − (1−e^{−x})/x, for white noise 2/(2+a),
    so 2/a again. ‖u‖² is averaged over time, not over the whole steps: see `held_average`. The
    optimizer's own c is (1+b1)/(1−b1). Source: EQUATIONS §3; F by the noise's correlation 1 − |t|.

    **Arguments:**

    - `b1`: first-moment decay in [0, 1), positive for order 2. `rates`, `order`: of the flow.
    - `noise`: `"held"` over each step, as streams and minibatches are, or `"white"`.
    - `shrink`: ηλ, for order 1; order 2 takes ηλ ≪ a for granted.

    **Raises:** `ValueError` for unknown options and values outside their range.

    !!! example
        >>> f"{flow_source(0.9, 'lag'):.2f} {flow_source(0.9, 'lag', order=2):.2f}"
        '18.00 18.44'
    """
    check_hyperparameters({"b1": b1, "shrink": shrink})
    choice("noise", noise, ("held", "white"))
    if order not in (1, 2):
        raise ValueError(f"order = {order!r} must be 1 or 2.")
    if order == 2 and (b1 == 0 or shrink):
        raise ValueError("Order 2 needs b1 > 0 and shrink = 0.")
    if b1 == 0:
        return 0.0  # u is a multiple of g, and stays orthogonal to W
    a = float(rate(b1, rates))
    if order == 1:
        return 2 / (a + shrink)
    return _share(a, noise) * (1 + 2 / a)


def _share(a: float, noise: str) -> float:
    """ρ, the share of the power of noise filtered by a²/(a²+ω²) that 4/(4+ω²) lets pass."""
    if noise == "white":
        return 2 / (2 + a)
    if abs(a - 2) < 1e-5:  # 0/0 there; ρ is smooth and this moves it by less than 1e-5
        a = 2 + 1e-5
    passed = (4 * held_power(a) - a**2 * held_power(2.0)) / (4 - a**2)
    return passed / held_power(a)


def held_power(a: float) -> float:
    """F(a) = 1 − (1 − e^{−a})/a, the mean square over time of m' = a(g − m), g unit noise held."""
    return 1 + float(np.expm1(-a)) / a


def held_average(b1: float, rates: Rates = "log") -> float:
    """‖u‖² averaged over time, as a share of its average over the whole steps, under held noise.

        F(a) / tanh(a/2)

    m is steepest and smallest inside a step: 0.80 at b1 = 0.5 with `"lag"`, 0.996 at 0.9 with
    `"log"`. `ct.solve` saves at whole steps, `flow_source` is for the average over time.

    **Arguments:** b1 in (0, 1), `rates` of the flow.

    !!! example
        >>> print(f"{held_average(0.5, 'lag'):.3f}")
        0.796
    """
    check_hyperparameters({"b1": b1})
    if b1 == 0:
        raise ValueError("b1 = 0 has no moment to average: give b1 > 0.")
    a = float(rate(b1, rates))
    return held_power(a) / float(np.tanh(a / 2))
