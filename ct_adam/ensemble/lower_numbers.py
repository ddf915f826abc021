"""Rules entry by entry: an operation on numbers as a line of scalar source for each.

A rule is `rule(source, eqn, *inputs) -> outputs`, of arrays of atoms.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .atoms import LoweringError, constant, kind_of


def _each(function: Callable[..., Any], *arrays: np.ndarray) -> list[Any]:
    """Applies a function of atoms entry by entry, with broadcasting."""
    return [np.asarray(np.frompyfunc(function, len(arrays), 1)(*arrays), object)]


def elementwise(template: str, kind: str | None = None, double: bool = False) -> Callable:
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
    plain = elementwise(template)

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


def _kind(array: np.ndarray) -> str:
    return array.ravel()[0].kind if array.size else "f8"


def _product_with_one(a: Any, b: Any) -> Any:
    return b if a.value == 1 else a if b.value == 1 else None


def _quotient_by_one(a: Any, b: Any) -> Any:
    return a if b.value == 1 else None


def _sum_with_zero(a: Any, b: Any) -> Any:
    """-0 + 0 = 0 is not kept apart from -0."""
    return b if a.value == 0 else a if b.value == 0 else None


def _difference_with_zero(a: Any, b: Any) -> Any:
    return a if b.value == 0 else None


plus = _simplified("{0} + {1}", _sum_with_zero)
minus = _simplified("{0} - {1}", _difference_with_zero)
_DIV = _simplified("{0} / {1}", _quotient_by_one)
_MUL = _simplified("{0} * {1}", _product_with_one)


def times(source: Any, eqn: Any, a: np.ndarray, b: np.ndarray) -> list[Any]:
    """Whole numbers do not wrap around here: large factors, as of random numbers, are refused."""

    def small(x: np.ndarray) -> bool:
        return all(atom.value is not None and abs(atom.value) < 2**16 for atom in x.ravel())

    if _kind(a) == "i" and not (small(a) or small(b)):
        raise LoweringError("a product of whole numbers, which might wrap around")
    return _MUL(source, eqn, a, b)


def divided(source: Any, eqn: Any, a: np.ndarray, b: np.ndarray) -> list[Any]:
    rule = elementwise("whole_quotient({0}, {1})") if _kind(a) == "i" else _DIV
    return rule(source, eqn, a, b)


def remainder(source: Any, eqn: Any, a: np.ndarray, b: np.ndarray) -> list[Any]:
    template = "whole_remainder({0}, {1})" if _kind(a) == "i" else "remainder({0}, {1})"
    return elementwise(template)(source, eqn, a, b)


def comparison(sign: str) -> Callable:
    return elementwise(f"({{0}} {sign} {{1}})", "b")


def negated(source: Any, eqn: Any, x: np.ndarray) -> list[Any]:
    if _kind(x) != "b":
        raise LoweringError("the primitive not of whole numbers")
    return elementwise("({0} == False)", "b")(source, eqn, x)


def logical(sign: str, name: str) -> Callable:
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


def selected(source: Any, eqn: Any, which: np.ndarray, *cases: np.ndarray) -> list[Any]:
    del eqn

    def one(p: Any, *options: Any) -> Any:
        if p.value is not None:
            return options[int(p.value)]
        if p.kind == "b":
            no, yes = options
            if no is yes or no.text == yes.text:
                return no
            return source.line("select({0}, {1}, {2})", no.kind, p, yes, no)
        return chosen(source, p, options)

    return _each(one, which, *cases)


def chosen(source: Any, position: Any, options: Sequence[Any]) -> Any:
    """options[position]; the last one beyond them."""
    result = options[-1]
    for i, option in list(enumerate(options))[-2::-1]:
        template = f"select({{0}} == {float(i)}, {{1}}, {{2}})"
        result = source.line(template, option.kind, position, option, result)
    return result


def _extreme(name: str, sign: str, closer: str) -> Callable:
    """Maximum and minimum; beside a constant one comparison does, which a NaN fails."""
    numbers = elementwise(f"{name}({{0}}, {{1}})", double=True)
    constants = elementwise(f"select({{0}} {closer} {{1}}, {{1}}, {{0}})")
    of_truths = logical(sign, name)

    def rule(source: Any, eqn: Any, a: np.ndarray, b: np.ndarray) -> list[Any]:
        def one(x: Any, y: Any) -> Any:
            if x.value is not None:
                x, y = y, x
            known = y.value is not None and not np.isnan(y.value)
            written = constants if known else numbers
            return written(source, eqn, _cell(x), _cell(y))[0][()]

        return of_truths(source, eqn, a, b) if _kind(a) == "b" else _each(one, a, b)

    return rule


maximum = _extreme("maximum", "|", "<=")
minimum = _extreme("minimum", "&", ">=")


def clamped(source: Any, eqn: Any, low: np.ndarray, x: np.ndarray, high: np.ndarray) -> list[Any]:
    raised = maximum(source, eqn, x, low)[0]
    return minimum(source, eqn, raised, high)


def power(source: Any, eqn: Any, x: np.ndarray, y: np.ndarray) -> list[Any]:
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


def integer_power(source: Any, eqn: Any, x: np.ndarray) -> list[Any]:
    exponent = eqn.params["y"]

    def power_of(a: Any) -> Any:
        result, square, left = None, a, abs(exponent)
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
        return source.line(f"{one} / {{0}}", a.kind, result) if exponent < 0 else result

    return _each(power_of, x)


def converted(source: Any, eqn: Any, x: np.ndarray) -> list[Any]:
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


def next_after(source: Any, eqn: Any, x: np.ndarray, y: np.ndarray) -> list[Any]:
    """Up or down by one float; from a number to itself not at all."""
    template = (
        "select({0} == {1}, {1}, select({0} < {1}, next_up({0}), select({0} > {1}, "
        "-next_up(-{0}), {0} + {1})))"
    )
    if _kind(x) != "f8":
        raise LoweringError("the primitive nextafter in float32")
    return elementwise(template)(source, eqn, x, y)


def rounded(source: Any, eqn: Any, x: np.ndarray) -> list[Any]:
    even = int(eqn.params["rounding_method"]) == 1
    below = "truncate(abs({0}))"
    away = f"with_sign(select(abs({{0}}) - {below} >= 0.5, {below} + 1.0, {below}), {{0}})"
    template = "nearest_even({0})" if even else away
    return elementwise(template, double=True)(source, eqn, x)
