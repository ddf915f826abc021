"""How each primitive is written as scalar source: the table of rules."""

from collections.abc import Callable
from typing import Any

from .lower_arrays import dot_general, dynamic_slice, reduction
from .lower_numbers import (
    clamped,
    comparison,
    converted,
    divided,
    elementwise,
    integer_power,
    logical,
    maximum,
    minimum,
    minus,
    negated,
    next_after,
    plus,
    power,
    remainder,
    rounded,
    selected,
    times,
)

STRUCTURAL = {
    "broadcast_in_dim", "concatenate", "copy", "copy_p", "expand_dims", "optimization_barrier",
    "pad", "reshape", "rev", "slice", "split", "squeeze", "stack", "stop_gradient", "tile",
    "transpose", "unstack",
}  # fmt: skip
"""Primitives that only move numbers about."""

_CALL = ("exp", "log", "expm1", "log1p", "tanh", "sinh", "cosh", "logistic", "sin", "cos", "tan",
         "asin", "acos", "atan", "asinh", "acosh", "atanh", "erf", "erfc", "cbrt", "floor",
         "ceil")  # fmt: skip
_AND, _OR = logical("&", "and"), logical("|", "or")

RULES: dict[str, Callable[..., list[Any]]] = {
    **{name: elementwise(f"{name}({{0}})", double=True) for name in _CALL},
    "sqrt": elementwise("sqrt({0})"),
    "rsqrt": elementwise("1.0 / sqrt({0})", double=True),
    "neg": elementwise("-{0}"),
    "abs": elementwise("abs({0})"),
    "sign": elementwise("sign({0})", double=True),
    "square": elementwise("{0} * {0}"),
    "one_minus_square": elementwise("1.0 - {0} * {0}", double=True),
    "add": plus,
    "add_any": plus,
    "sub": minus,
    "mul": times,
    "div": divided,
    "rem": remainder,
    "max": maximum,
    "min": minimum,
    "exp2": elementwise("power_of_log(2.0, 0.6931471805599453, 2.3190468138462996e-17, {0})",
                         double=True),
    "pow": power,
    "integer_pow": integer_power,
    "atan2": elementwise("atan2({0}, {1})", double=True),
    "nextafter": next_after,
    "round": rounded,
    "clamp": clamped,
    "is_finite": elementwise("(abs({0}) < inf)", "b"),
    **{name: comparison(sign) for name, sign in {
        "eq": "==", "ne": "!=", "lt": "<", "le": "<=", "gt": ">", "ge": ">=",
    }.items()},
    "and": _AND,
    "or": _OR,
    "xor": logical("^", "xor"),
    "not": negated,
    "select_n": selected,
    "convert_element_type": converted,
    "dot_general": dot_general,
    "dynamic_slice": dynamic_slice,
    "reduce_sum": reduction(plus),
    "reduce_prod": reduction(times),
    "reduce_max": reduction(maximum),
    "reduce_min": reduction(minimum),
    "reduce_and": reduction(_AND),
    "reduce_or": reduction(_OR),
}  # fmt: skip
"""`rule(source, eqn, *inputs) -> outputs`, arrays of atoms."""
