"""How each primitive is written as scalar source."""

import itertools
from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any

import numpy as np

from .atoms import LoweringError, constant, kind_of

STRUCTURAL = {
    "broadcast_in_dim", "concatenate", "copy", "copy_p", "expand_dims", "optimization_barrier",
    "pad", "reshape", "rev", "slice", "split", "squeeze", "stack", "stop_gradient", "tile",
    "transpose", "unstack",
}  # fmt: skip
"""Primitives that only move numbers about."""


def _each(function: Callable[..., Any], *arrays: np.ndarray) -> list[Any]:
    """Applies a function of atoms entry by entry, with broadcasting."""
    return [np.asarray(np.frompyfunc(function, len(arrays), 1)(*arrays), object)]


def _elementwise(template: str, kind: str | None = None, double: bool = False) -> Callable:
    """`kind`: of the result, that of the first input by default; `double`: known in float64."""

    def rule(source: Any, eqn: Any, *arrays: np.ndarray) -> list[Any]:
        del eqn

        def one(*atoms: Any) -> Any:
            single = double and atoms[0].kind == "f4"
            if single:
                atoms = tuple(source.line("f8({0})", "f8", a) for a in atoms)
            made = source.line(template, kind or atoms[0].kind, *atoms)
            return source.line("f4({0})", "f4", made) if single else made

        return _each(one, *arrays)

    return rule


def _simplified(template: str, neutral: Callable[[Any, Any], Any]) -> Callable:
    """A binary operation; `neutral(a, b)` returns the result where it is one of the two."""
    plain = _elementwise(template)

    def rule(source: Any, eqn: Any, *arrays: np.ndarray) -> list[Any]:
        def one(a: Any, b: Any) -> Any:
            short = neutral(a, b)
            return plain(source, eqn, _cell(a), _cell(b))[0][()] if short is None else short

        return _each(one, *arrays)

    return rule


def _cell(atom: Any) -> np.ndarray:
    made = np.empty((), object)
    made[()] = atom
    return made


def _times(a: Any, b: Any) -> Any:
    return b if a.value == 1 else a if b.value == 1 else None


def _mul(source: Any, eqn: Any, a: np.ndarray, b: np.ndarray) -> list[Any]:
    """Whole numbers do not wrap around here: large factors, as of random numbers, are refused."""

    def small(x: np.ndarray) -> bool:
        return all(atom.value is not None and abs(atom.value) < 2**16 for atom in x.ravel())

    if _kind(a) == "i" and not (small(a) or small(b)):
        raise LoweringError("a product of whole numbers, which might wrap around")
    return _MUL(source, eqn, a, b)


def _not(source: Any, eqn: Any, x: np.ndarray) -> list[Any]:
    if _kind(x) != "b":
        raise LoweringError("the primitive not of whole numbers")
    return _elementwise("({0} == False)", "b")(source, eqn, x)


def _over(a: Any, b: Any) -> Any:
    return a if b.value == 1 else None


def _plus(a: Any, b: Any) -> Any:
    """-0 + 0 = 0 is not kept apart from -0."""
    return b if a.value == 0 else a if b.value == 0 else None


def _minus(a: Any, b: Any) -> Any:
    return a if b.value == 0 else None


def _div(source: Any, eqn: Any, a: np.ndarray, b: np.ndarray) -> list[Any]:
    rule = _elementwise("whole_quotient({0}, {1})") if _kind(a) == "i" else _DIV
    return rule(source, eqn, a, b)


_DIV = _simplified("{0} / {1}", _over)
_MUL = _simplified("{0} * {1}", _times)


def _rem(source: Any, eqn: Any, a: np.ndarray, b: np.ndarray) -> list[Any]:
    template = "whole_remainder({0}, {1})" if _kind(a) == "i" else "remainder({0}, {1})"
    return _elementwise(template)(source, eqn, a, b)


def _kind(array: np.ndarray) -> str:
    return array.ravel()[0].kind if array.size else "f8"


def _compare(sign: str) -> Callable:
    return _elementwise(f"({{0}} {sign} {{1}})", "b")


def _logical(sign: str, name: str) -> Callable:
    def rule(source: Any, eqn: Any, *arrays: np.ndarray) -> list[Any]:
        def one(a: Any, b: Any) -> Any:
            if a.kind != "b":
                raise LoweringError(f"the primitive {name} of whole numbers")
            for x, y in ((a, b), (b, a)):
                if x.value is not None and sign in "&|":
                    return y if x.value == (sign == "&") else x
            return source.line(f"({{0}} {sign} {{1}})", "b", a, b)

        return _each(one, *arrays)

    return rule


def _select(source: Any, eqn: Any, which: np.ndarray, *cases: np.ndarray) -> list[Any]:
    del eqn

    def one(p: Any, *options: Any) -> Any:
        if p.value is not None:
            return options[int(p.value)]
        if p.kind == "b":
            no, yes = options
            if no is yes or no.text == yes.text:
                return no
            return source.line("select({0}, {1}, {2})", no.kind, p, yes, no)
        return _chosen(source, p, options)

    return _each(one, which, *cases)


def _chosen(source: Any, position: Any, options: Sequence[Any]) -> Any:
    """options[position]; the last one beyond them."""
    result = options[-1]
    for i, option in list(enumerate(options))[-2::-1]:
        template = f"select({{0}} == {float(i)}, {{1}}, {{2}})"
        result = source.line(template, option.kind, position, option, result)
    return result


def _clamp(source: Any, eqn: Any, low: np.ndarray, x: np.ndarray, high: np.ndarray) -> list[Any]:
    raised = RULES["max"](source, eqn, x, low)[0]
    return RULES["min"](source, eqn, raised, high)


def _extreme(name: str, sign: str, closer: str) -> Callable:
    """Maximum and minimum; beside a constant one comparison does, which a NaN fails."""
    numbers = _elementwise(f"{name}({{0}}, {{1}})", double=True)
    constants = _elementwise(f"select({{0}} {closer} {{1}}, {{1}}, {{0}})")
    logical = _logical(sign, name)

    def rule(source: Any, eqn: Any, a: np.ndarray, b: np.ndarray) -> list[Any]:
        def one(x: Any, y: Any) -> Any:
            if x.value is not None:
                x, y = y, x
            known = y.value is not None and not np.isnan(y.value)
            written = constants if known else numbers
            return written(source, eqn, _cell(x), _cell(y))[0][()]

        return logical(source, eqn, a, b) if _kind(a) == "b" else _each(one, a, b)

    return rule


def _pow(source: Any, eqn: Any, x: np.ndarray, y: np.ndarray) -> list[Any]:
    """Where the base stays, its logarithm is taken once a lane."""
    del eqn

    def one(a: Any, b: Any) -> Any:
        single = a.kind == "f4"
        base, exponent = (source.line("f8({0})", "f8", z) if z.kind == "f4" else z for z in (a, b))
        high = source.line("log_high({0})", "f8", base)
        low = source.line("log_low({0})", "f8", base)
        whole = "whole_" if exponent.whole else ""
        template = f"{whole}power_of_log({{0}}, {{1}}, {{2}}, {{3}})"
        made = source.line(template, "f8", base, high, low, exponent)
        return source.line("f4({0})", "f4", made) if single else made

    return _each(one, x, y)


def _integer_pow(source: Any, eqn: Any, x: np.ndarray) -> list[Any]:
    power = eqn.params["y"]

    def power_of(a: Any) -> Any:
        result, square, left = None, a, abs(power)
        while left:
            if left & 1:
                result = (
                    square if result is None else source.line("{0} * {1}", a.kind, result, square)
                )
            left >>= 1
            if left:
                square = source.line("{0} * {0}", a.kind, square)
        if result is None:
            return constant(1, a.kind)
        one = "f4(1.0)" if a.kind == "f4" else "1.0"
        return source.line(f"{one} / {{0}}", a.kind, result) if power < 0 else result

    return _each(power_of, x)


def _convert(source: Any, eqn: Any, x: np.ndarray) -> list[Any]:
    target = kind_of(eqn.params["new_dtype"])

    def one(a: Any) -> Any:
        if a.value is not None:
            return constant(np.trunc(a.value) if target == "i" else a.value, target)
        if a.kind == target or (a.kind, target) == ("i", "f8"):
            return a if a.kind == target else type(a)(a.text, target, a.live, whole=True)
        if a.kind == "b":
            ones = {"f4": ("f4(1.0)", "f4(0.0)")}.get(target, ("1.0", "0.0"))
            return source.line(f"select({{0}}, {ones[0]}, {ones[1]})", target, a)
        if target == "b":
            return source.line("({0} != 0.0)", "b", a)
        if target == "i":
            wide = source.line("f8({0})", "f8", a) if a.kind == "f4" else a
            info = np.iinfo(eqn.params["new_dtype"])
            inside = f"minimum(maximum({{0}}, {float(info.min)}), {float(info.max)})"
            return source.line(f"select({{0}} == {{0}}, truncate({inside}), 0.0)", "i", wide)
        return source.line(f"{target}({{0}})", target, a)

    return _each(one, x)


def _reduce(name: str) -> Callable:
    def rule(source: Any, eqn: Any, x: np.ndarray) -> list[Any]:
        axes = eqn.params["axes"]
        moved = np.moveaxis(x, axes, range(len(axes)))
        rest = moved.shape[len(axes) :]
        if not x.size:
            raise LoweringError(f"the primitive {eqn.primitive.name} of nothing")
        flat = moved.reshape(-1, *rest)
        rows = [flat[i : i + 1].reshape(rest) for i in range(len(flat))]
        return [reduce(lambda a, b: RULES[name](source, eqn, a, b)[0], rows)]

    return rule


def _dot_general(source: Any, eqn: Any, a: np.ndarray, b: np.ndarray) -> list[Any]:
    (a_sum, b_sum), (a_batch, b_batch) = eqn.params["dimension_numbers"]

    def arranged(x: np.ndarray, batch: Any, summed: Any) -> tuple[np.ndarray, list[int]]:
        free = [axis for axis in range(x.ndim) if axis not in (*batch, *summed)]
        shape = [x.shape[axis] for axis in free]
        moved = np.transpose(x, (*batch, *free, *summed))
        sizes = [int(np.prod([x.shape[axis] for axis in axes])) for axes in (batch, free, summed)]
        return moved.reshape(sizes), shape

    left, left_free = arranged(a, a_batch, a_sum)
    right, right_free = arranged(b, b_batch, b_sum)
    products = RULES["mul"](source, eqn, left[:, :, None, :], right[:, None, :, :])[0]
    if not products.size:
        raise LoweringError("the primitive dot_general of nothing")
    rows = [products[..., i] for i in range(products.shape[-1])]
    summed = reduce(lambda x, y: RULES["add"](source, eqn, x, y)[0], rows)
    shape = [*(a.shape[axis] for axis in a_batch), *left_free, *right_free]
    return [summed.reshape(shape)]


def _dynamic_slice(source: Any, eqn: Any, operand: Any, *starts: np.ndarray) -> list[Any]:
    """One read a number, from a table or by selection; starts are clamped as JAX clamps them."""
    sizes = eqn.params["slice_sizes"]
    shape = operand.shape
    strides = [int(np.prod(shape[axis + 1 :])) for axis in range(len(shape))]
    at = []
    for start, size, length in zip(starts, sizes, shape, strict=True):
        index: Any = start[()]
        if length == size:
            at.append(None)
        elif index.value is not None:
            at.append(int(np.clip(index.value, 0, length - size)))
        else:
            # NaN, in a place that holds no lane, must not read outside.
            line = f"select({{0}} > 0.0, minimum({{0}}, {float(length - size)}), 0.0)"
            at.append(source.line(line, "i", index))
    results = np.empty(sizes, object)
    for offsets in itertools.product(*(range(size) for size in sizes)):
        fixed, moving = 0, []
        for place, offset, stride in zip(at, offsets, strides, strict=True):
            fixed += stride * offset
            if isinstance(place, int):
                fixed += stride * place
            elif place is not None:
                moving.append((place, stride))
        results[offsets] = _read_at(source, operand, fixed, moving)
    return [results]


def _read_at(source: Any, operand: Any, fixed: int, moving: list[tuple[Any, int]]) -> Any:
    if not moving and isinstance(operand, np.ndarray):
        return operand.ravel()[fixed]
    terms = " + ".join(f"{{{i}}} * {float(stride)}" for i, (_, stride) in enumerate(moving))
    position = source.line(f"{terms} + {float(fixed)}", "i", *(atom for atom, _ in moving))
    if not isinstance(operand, np.ndarray):
        source.kept[f"offset{operand.index}"] = "f8"
        return source.line(
            f"read_{operand.kind}(table{operand.index}, {{0}} + offset{operand.index})",
            operand.kind,
            position,
        )
    return _chosen(source, position, list(operand.ravel()))


def _next_after(source: Any, eqn: Any, x: np.ndarray, y: np.ndarray) -> list[Any]:
    """Up or down by one float; from a number to itself not at all."""
    template = (
        "select({0} == {1}, {1}, select({0} < {1}, next_up({0}), select({0} > {1}, "
        "-next_up(-{0}), {0} + {1})))"
    )
    if _kind(x) != "f8":
        raise LoweringError("the primitive nextafter in float32")
    return _elementwise(template)(source, eqn, x, y)


def _round(source: Any, eqn: Any, x: np.ndarray) -> list[Any]:
    even = int(eqn.params["rounding_method"]) == 1
    below = "truncate(abs({0}))"
    away = f"with_sign(select(abs({{0}}) - {below} >= 0.5, {below} + 1.0, {below}), {{0}})"
    template = "nearest_even({0})" if even else away
    return _elementwise(template, double=True)(source, eqn, x)


_CALL = ("exp", "log", "expm1", "log1p", "tanh", "sinh", "cosh", "logistic", "sin", "cos", "tan",
         "asin", "acos", "atan", "asinh", "acosh", "atanh", "erf", "erfc", "cbrt", "floor",
         "ceil")  # fmt: skip

RULES: dict[str, Callable[..., list[Any]]] = {
    **{name: _elementwise(f"{name}({{0}})", double=True) for name in _CALL},
    "sqrt": _elementwise("sqrt({0})"),
    "rsqrt": _elementwise("1.0 / sqrt({0})", double=True),
    "neg": _elementwise("-{0}"),
    "abs": _elementwise("abs({0})"),
    "sign": _elementwise("sign({0})", double=True),
    "square": _elementwise("{0} * {0}"),
    "one_minus_square": _elementwise("1.0 - {0} * {0}", double=True),
    "add": _simplified("{0} + {1}", _plus),
    "add_any": _simplified("{0} + {1}", _plus),
    "sub": _simplified("{0} - {1}", _minus),
    "mul": _mul,
    "div": _div,
    "rem": _rem,
    "max": _extreme("maximum", "|", "<="),
    "min": _extreme("minimum", "&", ">="),
    "exp2": _elementwise("power_of_log(2.0, 0.6931471805599453, 2.3190468138462996e-17, {0})",
                         double=True),
    "pow": _pow,
    "integer_pow": _integer_pow,
    "atan2": _elementwise("atan2({0}, {1})", double=True),
    "nextafter": _next_after,
    "round": _round,
    "clamp": _clamp,
    "is_finite": _elementwise("(abs({0}) < inf)", "b"),
    **{name: _compare(sign) for name, sign in {
        "eq": "==", "ne": "!=", "lt": "<", "le": "<=", "gt": ">", "ge": ">=",
    }.items()},
    "and": _logical("&", "and"),
    "or": _logical("|", "or"),
    "xor": _logical("^", "xor"),
    "not": _not,
    "select_n": _select,
    "convert_element_type": _convert,
    "dot_general": _dot_general,
    "dynamic_slice": _dynamic_slice,
    "reduce_sum": _reduce("add"),
    "reduce_prod": _reduce("mul"),
    "reduce_max": _reduce("max"),
    "reduce_min": _reduce("min"),
    "reduce_and": _reduce("and"),
    "reduce_or": _reduce("or"),
}  # fmt: skip
"""`rule(source, eqn, *inputs) -> outputs`, arrays of atoms."""
