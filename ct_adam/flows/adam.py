"""Adam, AdamW and k-Adam as ordinary differential equations."""

import equinox as eqx

from ..decays import RATES, Decay, Hyperparameters, Rates, Scalar, Schedule, check_one_stage, choice
from .stages import AbstractAdamFlow, Start

STARTS: tuple[Start, ...] = ("first_step", "zero", "paper")


class AdamFlow(AbstractAdamFlow):
    """Adam and AdamW as an ODE over optimizer steps.

        m' = a (g - m)    v' = b (g² - v)    u = (m/B1)/(√(v/B2 + eps_root) + eps)
        order 1:  θ' = -η (u + λθ)          order 2:  ½θ'' + θ' = -η (u + λθ)

    Source: EQUATIONS §1; order 2 with `rates="lag"` and `start="paper"` is Gould & Tanaka
    (arXiv 2411.05746).

    **Arguments:**

    - `learning_rate`: η, a number or a schedule evaluated at the step s.
    - `b1`, `b2`: first- and second-moment decays per step in [0, 1). A Python 0 removes one.
    - `eps`, `eps_root`: added outside and inside the root. With both 0, u = 0 wherever v = 0.
    - `weight_decay`: λ; `decay="decoupled"` (AdamW) or `"l2"` (g + λθ in both moments).
    - `rates`: `"log"` (a = -ln b1), `"lag"` ((1-b1)/b1, the paper's) or `"euler"` (1-b1).
    - `order`: 1, or 2 for the paper's second-order equation.
    - `start`: `"first_step"` (moments have seen the first gradient), `"zero"` or `"paper"`.

    **Raises:** `ValueError` for a value outside its range or an unknown option.

    !!! example
        >>> import ct_adam as ct, jax.numpy as jnp
        >>> flow = ct.AdamFlow(1e-2, b1=0.9, b2=0.99)
        >>> state = flow.init(lambda x: jnp.sum(x**2), jnp.array([1.0, -3.0]))
        >>> print(flow.update(0, state, lambda x: jnp.sum(x**2)).round(5))
        [ 1. -1.]
    """

    hyperparameters: Hyperparameters
    rates: Rates = eqx.field(static=True)
    order: int = eqx.field(static=True)
    start: Start = eqx.field(static=True)

    def __init__(
        self,
        learning_rate: Scalar | Schedule,
        b1: Scalar = 0.9,
        b2: Scalar = 0.999,
        eps: Scalar = 1e-8,
        weight_decay: Scalar = 0.0,
        *,
        decay: Decay = "decoupled",
        rates: Rates = "log",
        order: int = 1,
        start: Start = "first_step",
        eps_root: Scalar = 0.0,
    ):
        check_one_stage("AdamFlow", b1=b1, b2=b2)
        self.hyperparameters = Hyperparameters(
            learning_rate, b1, b2, eps, weight_decay, eps_root, decay
        )
        self.rates, self.order, self.start = _checked(rates, order, start)


class KAdamFlow(AbstractAdamFlow):
    """k stages of Adam as an ODE, stage i fed with the update of stage i - 1.

    The equations are those of `AbstractAdamFlow`; source: EQUATIONS §4, Gould & Tanaka
    (arXiv 2411.05746). Arguments as `AdamFlow`, with one decay a stage in `b1` and `b2`.

    !!! example
        >>> import ct_adam as ct, jax.numpy as jnp
        >>> flow = ct.KAdamFlow(1e-2, b1=(0.8, 0.8), b2=(0.99, 0.99))
        >>> len(flow.init(lambda x: jnp.sum(x**2), jnp.ones(3)).m)
        2
    """

    hyperparameters: Hyperparameters
    rates: Rates = eqx.field(static=True)
    order: int = eqx.field(static=True)
    start: Start = eqx.field(static=True)

    def __init__(
        self,
        learning_rate: Scalar | Schedule,
        b1: tuple[Scalar, ...] = (0.9, 0.9),
        b2: tuple[Scalar, ...] = (0.999, 0.999),
        eps: Scalar = 1e-8,
        weight_decay: Scalar = 0.0,
        *,
        decay: Decay = "decoupled",
        rates: Rates = "log",
        order: int = 1,
        start: Start = "first_step",
        eps_root: Scalar = 0.0,
    ):
        self.hyperparameters = Hyperparameters(
            learning_rate, b1, b2, eps, weight_decay, eps_root, decay
        )
        self.rates, self.order, self.start = _checked(rates, order, start)


def _checked(rates: Rates, order: int, start: Start) -> tuple[Rates, int, Start]:
    choice("rates", rates, RATES)
    choice("start", start, STARTS)
    if order not in (1, 2):
        raise ValueError(f"order = {order!r} must be 1 or 2.")
    return rates, order, start
