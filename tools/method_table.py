"""The table method × problem × engine of docs/table.md, by trying.

    python tools/method_table.py [--anew]    # the missing rows, or all

Every registered method runs three lanes of a few steps on one problem of each kind, on every
engine. `reference` is the oracle: an engine's "yes" says that its parameters at the end are the
reference's. `tests/test_docs.py` repeats a part of the table, and all of it among the slow tests.
"""

import re
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import ct_adam as ct
from ct_adam.flows.registry import FLOWS, flow_named
from ct_adam.named import accepted
from ct_adam.optimizers.registry import OPTIMIZERS, optimizer_named

ENGINES = ("reference", "cohort", "fused")
STEPS = 12
# Engines take the same steps and differ by rounding, but where a solver's step is accepted by a
# hair: then by rtol = 1e-6 of numbers of order 1 a solver step, of which there is one a step or
# fewer.
TOLERANCE = STEPS * 1e-6
LANES = {"learning_rate": np.array([1e-3, 2e-3, 5e-3])}
RATE = {"b1": 0.9, "b2": 0.99, "eps": 1e-3}


def _quadratic() -> tuple[Any, Any]:
    """Four numbers."""
    return ct.problems.problem_named("quadratic")


def _minibatches() -> tuple[Any, Any]:
    """A regression on minibatches."""
    data = np.random.default_rng(0).standard_normal((40, 3))
    loss = lambda p, x: jnp.mean((x @ p - x[:, 0]) ** 2)  # noqa: E731
    return ct.problems.Minibatches(loss, data, size=10, seed=0), jnp.ones(3)


def _stream() -> tuple[Any, Any]:
    """A given stream of gradients, two numbers a step."""
    return ct.problems.random_stream(STEPS + 1, 2, seed=0), jnp.zeros(2)


def _network() -> tuple[Any, Any]:
    """A network of more numbers than a kernel takes."""
    x = jnp.linspace(-1.0, 2.0, 16)[:, None]
    keys = jax.random.split(jax.random.key(0), 2)
    params = {
        "w1": jax.random.normal(keys[0], (1, 40)),
        "w2": jax.random.normal(keys[1], (40, 1)) / 40**0.5,
    }
    return (lambda p: jnp.mean((jnp.tanh(x @ p["w1"]) @ p["w2"] - jnp.cos(x)) ** 2)), params


PROBLEMS: dict[str, Callable[[], tuple[Any, Any]]] = {
    "quadratic": _quadratic,
    "stream": _stream,
    "minibatches": _minibatches,
    "network": _network,
}


class Verdict(NamedTuple):
    """`runs`: whether the engine takes it and agrees with the reference; `why` not, otherwise."""

    runs: bool
    why: str = ""


Table = dict[str, dict[str, dict[str, Verdict]]]
"""By problem, method and engine."""


def methods() -> dict[str, Callable[..., Any]]:
    """What is tried, by name: `make(learning_rate)` of every row of both registries."""

    def optimizer(name: str, learning_rate: Any) -> Any:
        taken = accepted(OPTIMIZERS[name], RATE)
        return optimizer_named(name, learning_rate=learning_rate, **taken)

    def flow(name: str, learning_rate: Any) -> Any:
        adam = ct.adamw(learning_rate, **RATE)
        return flow_named(name, adam, learning_rate=learning_rate, **RATE)

    made: dict[str, Callable[..., Any]] = {
        f"optimizer `{name}`": partial(optimizer, name) for name in OPTIMIZERS
    }
    return made | {f"flow `{name}`": partial(flow, name) for name in FLOWS}


def verdicts(method: str, problem: str) -> dict[str, Verdict]:
    """By engine."""
    oracle, found = None, {}
    for engine in ENGINES:
        try:
            final = _final(methods()[method], problem, engine)
        except ValueError as error:
            found[engine] = Verdict(False, " ".join(str(error).split()))
            continue
        oracle = final if engine == "reference" else oracle
        apart = np.inf if oracle is None else np.abs(final - oracle).max()
        found[engine] = Verdict(bool(apart < TOLERANCE), f"{apart:.0e} from the reference")
    return found


def _final(make: Callable[..., Any], problem: str, engine: str) -> np.ndarray:
    """Parameters at the end; `ValueError` where the engine refuses, or a lane does not end well."""
    loss, params = PROBLEMS[problem]()
    kept = ("final_params", "outcome")
    table = ct.ensemble(make, loss, params, STEPS, LANES, engine=engine, metrics=kept)
    names = table.outcome.attrs["flag_meanings"].split()
    ended = {names[code] for code in table.outcome.values}
    if ended != {"successful"}:
        raise ValueError(f"ends as {', '.join(sorted(ended))}")
    return table.final_params.values


HEAD = f"""# Method × problem × engine

Made by `python tools/method_table.py` from what runs: every registered method, three learning
rates, {STEPS} steps, on one problem of each kind. *yes*: the engine runs it, and its parameters at
the end are those of `reference` to {TOLERANCE:.1e}. A number: not so, for the reason below the
table. `reference` is the oracle, so its *yes* says no more than that it ended well. `engine="auto"`
takes the fastest that runs. What each engine is: [engines](engines.md).
"""


def rendered(table: Table) -> str:
    """The page. Reasons are numbered within a section."""
    parts = [HEAD]
    for problem in (name for name in PROBLEMS if name in table):
        lines = [f"## {problem}", "", str(PROBLEMS[problem].__doc__), ""]
        lines += [f"| method | {' | '.join(ENGINES)} |", "| --- |" + " --- |" * len(ENGINES)]
        reasons: list[str] = []
        for method in (name for name in methods() if name in table[problem]):
            found = table[problem][method]
            reasons += [v.why for v in found.values() if not v.runs and v.why not in reasons]
            cells = ["yes" if v.runs else f"({reasons.index(v.why) + 1})" for v in found.values()]
            lines.append(f"| {method} | {' | '.join(cells)} |")
        lines += ["", *(f"{i}. {why}" for i, why in enumerate(reasons, 1))] if reasons else []
        parts.append("\n".join(lines) + "\n")
    return "\n".join(parts)


def parsed(page: str) -> Table:
    """The way back."""
    table: Table = {}
    found = re.split(r"^## (.*)$", page, flags=re.MULTILINE)[1:]
    for problem, text in zip(found[::2], found[1::2], strict=True):
        reasons = dict(re.findall(r"^(\d+)\. (.*)$", text, re.MULTILINE))
        rows = re.findall(r"^\| ((?:optimizer|flow) .*?) \| (.*) \|$", text, re.MULTILINE)
        table[problem] = {
            method: {
                engine: Verdict(True) if cell == "yes" else Verdict(False, reasons[cell[1:-1]])
                for engine, cell in zip(ENGINES, cells.split(" | "), strict=True)
            }
            for method, cells in rows
        }
    return table


def main(anew: bool) -> None:
    """Writes docs/table.md row by row; a row that stands is made again only if `anew`."""
    path = Path(__file__).parents[1] / "docs" / "table.md"
    table = parsed(path.read_text(encoding="utf-8")) if path.exists() and not anew else {}
    for problem in PROBLEMS:
        rows = table.setdefault(problem, {})
        for method in methods():
            if method not in rows:
                rows[method] = verdicts(method, problem)
                path.write_text(rendered(table), encoding="utf-8")
                print(problem, method, rows[method], flush=True)


if __name__ == "__main__":
    jax.config.update("jax_enable_x64", True)
    main(anew="--anew" in sys.argv[1:])
