"""Decays for the stages of k-Adam, made from those of one Adam."""

from typing import Any, Literal, get_args

from ..decays import Scalar, check_hyperparameters, choice, whole_number

Strategy = Literal["inverse_exp", "exp", "scaled", "naive", "lag_split", "lag_stretch", "meta"]
STRATEGIES: tuple[Strategy, ...] = get_args(Strategy)

EVERY_STAGE_ALIKE = tuple(name for name in STRATEGIES if name != "meta")
"""Those of any k."""


def k_adam_decays(
    k: int, b1: Scalar = 0.9, b2: Scalar = 0.999, strategy: Strategy = "inverse_exp"
) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """The decays of k stages that stand for one Adam of (b1, b2), for `k_adam` and `KAdamFlow`.

    | `strategy` | every stage's decay, from b = b1 and b2 | |
    | --- | --- | --- |
    | `"inverse_exp"` | 1 - (1 - b)^(1/k) | the weights of a new sample multiply to 1 - b |
    | `"exp"` | b^k | |
    | `"scaled"` | b/k | |
    | `"naive"` | b | |
    | `"lag_split"` | b/(b + k(1 - b)) | mean lags b/(1 - b) add up to that of b; C becomes kC |
    | `"lag_stretch"` | kb/(kb + 1 - b) | each mean lag is k times that of b |
    | `"meta"` | (b1, 0), (b2, b2) | k = 2 only: a second normalisation without memory of u¹ |

    Source: EQUATIONS §4; the first four are those of Gould & Tanaka (arXiv 2411.05746), §4.

    **Arguments:**

    - `k`: number of stages, ≥ 1. k = 1 returns (b1,), (b2,).
    - `b1`, `b2`: first- and second-moment decays per step in [0, 1), numbers or traced.
    - `strategy`: one of the table.

    **Returns:** two tuples of k decays per step, of the first and of the second moments. Nothing is
    clipped: with every strategy but `"naive"` and `"lag_stretch"` a stage's decays go to 0 with
    large k, (.206, .499) with `"inverse_exp"` and (.349, .990) with `"exp"` for k = 10.

    **Raises:** `ValueError` for values outside these ranges, an unknown strategy, and for `"meta"`
    unless k = 2.

    !!! example
        >>> k_adam_decays(2, 0.9, 0.999, "scaled")
        ((0.45, 0.45), (0.4995, 0.4995))
        >>> k_adam_decays(2, 0.9, 0.999, "meta")
        ((0.9, 0), (0.999, 0.999))
    """
    choice("strategy", strategy, STRATEGIES)
    k = whole_number("k", k)
    check_hyperparameters({"b1": b1, "b2": b2})
    if strategy == "meta":
        if k != 2:
            raise ValueError(f"strategy = 'meta' has two stages: k = {k} must be 2.")
        return (b1, 0), (b2, b2)
    if k == 1:  # exactly, whatever a formula would round to
        return (b1,), (b2,)
    return (_decay(b1, k, strategy),) * k, (_decay(b2, k, strategy),) * k


def _decay(b: Any, k: int, strategy: Strategy) -> Any:
    if strategy == "inverse_exp":
        return 1 - (1 - b) ** (1 / k)
    if strategy == "exp":
        return b**k
    if strategy == "scaled":
        return b / k
    if strategy == "lag_split":
        return b / (b + k * (1 - b))
    return k * b / (k * b + 1 - b) if strategy == "lag_stretch" else b
