"""Jaxprs as scalar source: each primitive and random expressions against JAX."""

import re
from importlib import import_module
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ct_adam.ensemble.atoms import LoweringError
from ct_adam.ensemble.jaxprs import split
from ct_adam.ensemble.lower import lower
from ct_adam.ensemble.lower_rules import RULES, STRUCTURAL

jaxprs = import_module("ct_adam.ensemble.jaxprs")
kernels = import_module("ct_adam.ensemble.kernels")
ULP = 2.0**-52
X = np.array([0.3, -1.7, 2.0, 0.0, -0.5, 1e-3, 4.0, np.nan, np.inf, -np.inf])
Y = np.array([1.5, 0.2, 2.0, -1.0, np.nan, 3.0, -7.0, 1.0, 2.0, 0.5])


def evaluate(functions, *columns):
    """Each function at each lane's numbers, by one kernel; (lane, function)."""
    live = [jnp.asarray(0.0)] * (len(columns) + len(functions))

    def body(*args):
        given = args[: len(columns)]
        return [*given, *(f(*given) for f in functions), jnp.asarray(False)]

    cut = split(body, [], [], live)
    lowered = lower(cut, len(live))
    values = [np.asarray(value, float).ravel() for value in cut.values()]
    known = [number for at in lowered.scalars for number in values[at]]
    tables = [values[at] for at in lowered.tables]
    kernel = kernels.compiled(lowered, [0] * len(tables))
    carry = np.zeros((len(columns[0]), len(live)))
    carry[:, : len(columns)] = np.stack(columns, axis=1)
    lanes = np.arange(len(carry))
    rows = np.tile(known, (len(carry), 1))
    kernels.run_kernel(kernel, carry, rows, tables, lanes, threads=2)
    return carry[:, len(columns) :]


def whole(x):
    return jnp.clip(jnp.nan_to_num(x), -50, 50).astype(int)


MATRIX = jnp.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
PRIMITIVES = {
    "neg": lambda x, y: -x, "abs": lambda x, y: abs(x), "sign": lambda x, y: jnp.sign(x),
    "add": lambda x, y: x + y, "sub": lambda x, y: x - y, "mul": lambda x, y: x * y,
    "div": lambda x, y: x / y, "rem": lambda x, y: jax.lax.rem(x, y), "max": jnp.maximum,
    "min": jnp.minimum, "max constant": lambda x, y: jnp.maximum(0.2, x),
    "min constant": lambda x, y: jnp.minimum(x, 0.2), "sqrt": lambda x, y: jnp.sqrt(x),
    "rsqrt": lambda x, y: jax.lax.rsqrt(x), "exp": lambda x, y: jnp.exp(x),
    "log": lambda x, y: jnp.log(x), "expm1": lambda x, y: jnp.expm1(x),
    "log1p": lambda x, y: jnp.log1p(x), "tanh": lambda x, y: jnp.tanh(x),
    "sinh": lambda x, y: jnp.sinh(x), "cosh": lambda x, y: jnp.cosh(x),
    "sin": lambda x, y: jnp.sin(x), "cos": lambda x, y: jnp.cos(x), "tan": lambda x, y: jnp.tan(x),
    "atan": lambda x, y: jnp.arctan(x), "atan2": jnp.arctan2, "cbrt": lambda x, y: jnp.cbrt(x),
    "erf": lambda x, y: jax.lax.erf(x), "logistic": lambda x, y: jax.nn.sigmoid(x),
    "pow": lambda x, y: jnp.abs(x) ** y, "pow constant": lambda x, y: 0.9 ** y,
    "square": lambda x, y: x**2, "cube": lambda x, y: x**3, "inverse": lambda x, y: x**-2,
    "floor": lambda x, y: jnp.floor(x), "ceil": lambda x, y: jnp.ceil(x),
    "round": lambda x, y: jnp.round(x), "clamp": lambda x, y: jnp.clip(x, -1, 1.0),
    "is_finite": lambda x, y: jnp.isfinite(x).astype(float),
    "isnan": lambda x, y: jnp.isnan(x) * 2.0,
    "eq": lambda x, y: (x == y) * 1.0, "ne": lambda x, y: (x != y) * 1.0,
    "lt": lambda x, y: (x < y) * 1.0, "ge": lambda x, y: (x >= y) * 1.0,
    "and": lambda x, y: ((x > 0) & (y > 0)) * 1.0, "or": lambda x, y: ((x > 0) | (y > 0)) * 1.0,
    "not": lambda x, y: (~(x > 0)) * 1.0, "xor": lambda x, y: ((x > 0) ^ (y > 0)) * 1.0,
    "where": lambda x, y: jnp.where(x > y, x, y),
    "cond": lambda x, y: jax.lax.cond(x > y, jnp.sin, jnp.cos, y),
    "switch": lambda x, y: jax.lax.switch(whole(x), [jnp.sin, jnp.cos, jnp.exp], y),
    "whole numbers": lambda x, y: (whole(10 * x) // 3 + whole(y) * 2 % 5).astype(float),
    "counts and floats": lambda x, y: (whole(x) + 1) // 2 + (whole(x).astype(float) + 1.0) / 2.0,
    "by 49": lambda x, y: (whole(9.8 * x) // 49 + 100 * (whole(9.8 * x) % 49)).astype(float),
    "by nothing": lambda x, y: (jax.lax.div(whole(x), whole(x) * 0)).astype(float),
    "large to whole": lambda x, y: (x * 1e18).astype("int32").astype(float),
    "exp2": lambda x, y: jnp.exp2(x), "power 0": lambda x, y: jax.lax.integer_pow(x, 0),
    "away from zero": lambda x, y: jax.lax.round(x, jax.lax.RoundingMethod.AWAY_FROM_ZERO),
    "unpacked": lambda x, y: sum(jnp.stack([x, y])),
    "nextafter": lambda x, y: jnp.nextafter(x, jnp.inf) - x,
    "dot": lambda x, y: jnp.array([x, y, 1.0]) @ MATRIX @ jnp.array([1.0, y]),
    "norm": lambda x, y: jnp.sum(jnp.stack([x, y]) ** 2),
    "prod": lambda x, y: jnp.prod(jnp.stack([x, y, x])),
    "reduce_max": lambda x, y: jnp.max(jnp.stack([x, y, 0.1])),
    "all": lambda x, y: jnp.all(jnp.stack([x, y]) > 0) * 1.0,
    "index": lambda x, y: jnp.stack([x, y, 2.0])[whole(x) % 3],
    "table": lambda x, y: jnp.arange(200.0)[whole(10 * y) % 190],
    "slices": lambda x, y: jnp.sum(jnp.diff(jnp.append(jnp.stack([x, y])[::-1], 1.0))),
    "outer": lambda x, y: jnp.outer(jnp.stack([x, y]), jnp.arange(1.0, 4)).T.reshape(3, 2)[1, 0],
    "softmax": lambda x, y: jax.nn.softmax(jnp.stack([x, y]))[0],
    "gradient": jax.grad(lambda x, y: jnp.tanh(x * y) * jnp.log(1 + x**2)),
}  # fmt: skip


@pytest.fixture(scope="module")
def found():
    return dict(zip(PRIMITIVES, evaluate(list(PRIMITIVES.values()), X, Y).T, strict=True))


@pytest.mark.parametrize("name", PRIMITIVES)
def test_primitive_agrees_with_jax(found, name):
    """To 8 ulp: 4 of ours, JAX's own, and a rounding or two of what a line composes."""
    with jax.debug_nans(False):
        theirs = np.asarray(jax.vmap(PRIMITIVES[name])(X, Y))
    np.testing.assert_allclose(found[name], theirs, rtol=8 * ULP, atol=1e-300)


# Random expressions, as nested tuples: evaluated by JAX, and with a running bound of the error.
# A bound is an argument; a tolerance that all expressions happen to meet would not be one.
BINARY = ("add", "sub", "mul", "div", "max", "where")
UNARY = ("exp", "log", "sqrt", "tanh", "neg", "square")


def expression(rng, depth):
    if depth == 0:
        return (
            ("x",) if rng.random() < 0.5 else ("y",) if rng.random() < 0.7 else ("c", rng.normal())
        )
    if rng.random() < 0.45:
        return (str(rng.choice(UNARY)), expression(rng, depth - 1))
    return (str(rng.choice(BINARY)), expression(rng, depth - 1), expression(rng, depth - 1))


def in_jax(tree, x, y):
    name, *rest = tree
    if name in "xy":
        return x if name == "x" else y
    if name == "c":
        return rest[0]
    a = [in_jax(part, x, y) for part in rest]
    made = {"add": lambda: a[0] + a[1], "sub": lambda: a[0] - a[1], "mul": lambda: a[0] * a[1],
            "div": lambda: a[0] / a[1], "max": lambda: jnp.maximum(*a),
            "where": lambda: jnp.where(a[0] > a[1], a[0] - 1, a[1] + a[0]),
            "exp": lambda: jnp.exp(a[0]), "log": lambda: jnp.log(a[0]), "neg": lambda: -a[0],
            "tanh": lambda: jnp.tanh(a[0]), "sqrt": lambda: jnp.sqrt(a[0]),
            "square": lambda: jnp.square(a[0])}  # fmt: skip
    return made[name]()


def bounded(tree, x, y):
    """Value and a bound of its error in ulp of 1; infinite where a branch hangs on a rounding."""
    name, *rest = tree
    if name in "xyc":
        return (x if name == "x" else y if name == "y" else rest[0]), 0.0
    (a, ea), (b, eb) = [bounded(part, x, y) for part in rest] + [(0.0, 0.0)] * (2 - len(rest))
    if name == "where" or (name == "max" and np.isnan(ea + eb)):
        close = not abs(a - b) > ea + eb
        value = a - 1 if a > b else b + a
        return value, np.inf if close and ea + eb else ea + eb + 4 * ULP * (abs(a) + abs(b) + 1)
    value, carried = {
        "add": lambda: (a + b, ea + eb), "sub": lambda: (a - b, ea + eb),
        "mul": lambda: (a * b, abs(a) * eb + abs(b) * ea + ea * eb),
        "div": lambda: (a / b, (ea + abs(a / b) * eb) / np.maximum(abs(b) - eb, 0.0)),
        "max": lambda: (max(a, b), max(ea, eb)), "neg": lambda: (-a, ea),
        "exp": lambda: (np.exp(a), np.exp(a) * np.expm1(ea)),
        "log": lambda: (np.log(a), ea / np.maximum(a - ea, 0.0)),
        "sqrt": lambda: (np.sqrt(a), ea / np.sqrt(np.maximum(a - ea, 0.0))),
        "tanh": lambda: (np.tanh(a), ea), "square": lambda: (a * a, 2 * abs(a) * ea + ea * ea),
    }[name]()  # fmt: skip
    return value, carried + 4 * ULP * abs(value)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("seed", [0, 1])
def test_random_expressions_agree_with_jax(seed):
    rng = np.random.default_rng(seed)
    trees = [expression(rng, 4) for _ in range(40)]
    x, y = rng.normal(size=(2, 64)) * 2
    ours = evaluate([lambda x, y, t=t: jnp.asarray(in_jax(t, x, y), float) for t in trees], x, y)
    checked = 0
    for tree, column in zip(trees, ours.T, strict=True):
        theirs = [float(in_jax(tree, *pair)) for pair in zip(x, y, strict=True)]
        for i in range(64):
            bound = bounded(tree, np.float64(x[i]), np.float64(y[i]))[1]
            if np.isfinite(bound):
                checked += 1
                assert abs(column[i] - theirs[i]) <= 2 * bound + 1e-300, (tree, x[i], y[i])
    assert checked > 500


def test_nothing_unknown_is_lowered():
    live = [jnp.ones(3)]
    for function, words in (
        (lambda x: jnp.sort(x), "sort"),
        (lambda x: jax.lax.fori_loop(0, x[0].astype(int), lambda i, y: y * 2, x), "while"),
        (lambda x: jnp.ones(100) * x[0], "of 100 numbers"),
        (lambda x: x.astype(complex).real, "complex128"),
        (lambda x: x[0] * 0 + ~x[0].astype(int), "not of whole numbers"),
        (lambda x: x[0] + x[0].astype(int) * 1103515245, "a product of whole numbers"),
    ):
        with pytest.raises(LoweringError, match=words):
            lower(split(lambda x, f=function: [f(x), x[0] > 0], [], [], live), 1)


def test_what_stays_is_taken_out_of_the_loop():
    """A logarithm of a number that a lane keeps is neither in the body nor computed twice."""
    cut = split(lambda b, n: [n + b**n + jnp.log(b), n < 3], [], [jnp.asarray(0.9)], [jnp.ones(())])
    lowered = lower(cut, 1)
    assert not any("log" in line for line in lowered.body if "power_of_log" not in line)
    assert sum("log_high" in line for line in lowered.setup) == 1


def test_quotients_of_all_small_whole_numbers():
    n = np.arange(400.0)
    for d in (3, 7, 49, 98, 103):
        found = evaluate([lambda x, d=d: (x.astype(int) // d).astype(float),
                          lambda x, d=d: (x.astype(int) % d).astype(float)], n)  # fmt: skip
        np.testing.assert_array_equal(found, np.stack([n // d, n % d], axis=1))


def test_documentation_lists_what_lowers():
    page = (Path(__file__).parents[1] / "docs" / "engines.md").read_text()
    section = page.split("## What lowers")[1].split("Not lowered")[0]
    listed = set(re.findall(r"`(\w+)`", section))
    assert listed >= RULES.keys() | STRUCTURAL
    strangers = listed - RULES.keys() - STRUCTURAL - jaxprs._CALLS - {"cond"}
    assert not strangers
