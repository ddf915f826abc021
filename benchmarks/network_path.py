"""One long path of a transformer as η goes to 0: what a flow costs beside Adam."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.flatten_util import ravel_pytree
from jaxtyping import PyTree

import ct_adam as ct
from ct_adam.simulate.controllers import default_controller

from .output import print_rows
from .peers import jax_peer
from .timing import compile_seconds, interleave
from .words import duration

DECAYS = (0.9, 0.99)
RTOL = 1e-4
BUDGET = 2**20  # the same for all learning rates: diffrax compiles it in


class Path(NamedTuple):
    """Where a run ended, and how many gradients it took; the plain ones do not count theirs."""

    params: PyTree
    gradients: Any


def trajectory(quick: bool) -> dict[str, Any]:
    """The same stretch T = ηn at ever smaller learning rates: what a flow costs beside Adam."""
    stretch, rates, rounds = (0.02, (1e-3, 3e-4), 3) if quick else (0.09, (1e-3, 3e-4, 1e-4), 5)
    text, problem, params = transformer()
    rows = [
        row
        for eta in rates
        for row in measured_paths(problem, params, eta, round(stretch / eta), rounds)
    ]
    numbers = len(ravel_pytree(params)[0])
    title = (
        f"One path of a transformer ({numbers} parameters, one batch of {text}) over ηn = "
        f"{stretch:g}, decays {DECAYS}, rtol {RTOL:g}"
    )
    print(f"\n{title}", flush=True)
    heading = [
        "η", "steps", "contender", "median", "compile", "gradients", "of Adam's",
        "max |θ − Adam|/η", "median of it",
    ]  # fmt: skip
    print_rows(heading, map(_path_row, rows))
    return {"title": title, "kind": "trajectory", "rows": rows}


def transformer() -> tuple[str, Any, PyTree]:
    """On one batch: between whole steps a flow has nothing else to look at."""
    text = "python_topics"  # comes with Python
    problem, params = ct.problems.text_network(text, context=16, batch=4)
    return text, ct.problems.full_batch(problem.loss, problem.batch(0)), params


def measured_paths(
    problem: Any, params: PyTree, eta: float, steps: int, rounds: int
) -> list[dict[str, Any]]:
    """One row a contender, with the distance from `ct.run`'s end."""
    runs = {
        "ct.run": partial(by_run, problem, params, eta, steps),
        "optax scan": by_scan(problem, params, eta, steps),
        "ct.solve": partial(by_solve, problem, params, eta, steps),
        "diffrax": partial(by_diffrax, problem, params, eta, steps),
    }
    compiling, ends = {}, {}
    for name, run in runs.items():
        compiling[name] = compile_seconds(run, run)
        ends[name] = run()
    times = dict(zip(runs, interleave(list(runs.values()), rounds), strict=True))
    adam = ends["ct.run"]
    return [
        {
            "learning_rate": eta,
            "steps": steps,
            "name": name,
            "median_s": float(np.median(times[name])),
            "rounds_s": times[name],
            # JSON has no NaN.
            "compile_s": compiling[name] if np.isfinite(compiling[name]) else None,
            "gradients": int(end.gradients),
            "gradients_of_adam": float(end.gradients) / steps,
            "distance_in_eta": float(jnp.max(_apart(end.params, adam.params))) / eta,
            "median_distance_in_eta": float(jnp.median(_apart(end.params, adam.params))) / eta,
            "travelled_in_eta": float(jnp.max(_apart(end.params, params))) / eta,
        }
        for name, end in ends.items()
    ]


def _path_row(row: dict[str, Any]) -> list[str]:
    compiling = duration(row["compile_s"], "in noise")
    return [
        f"{row['learning_rate']:g}",
        str(row["steps"]),
        row["name"],
        duration(row["median_s"]),
        compiling,
        str(row["gradients"]),
        f"{row['gradients_of_adam']:.2f}x",
        f"{row['distance_in_eta']:.3g}",
        f"{row['median_distance_in_eta']:.3g}",
    ]


def _apart(one: PyTree, other: PyTree) -> jax.Array:
    return jnp.abs(ravel_pytree(one)[0] - ravel_pytree(other)[0])


def by_run(problem: Any, params: PyTree, eta: float, steps: int) -> Path:
    # A flow stands for its optimizer; unlike a new optimizer, a new flow compiles nothing anew.
    found = ct.run(ct.AdamFlow(eta, *DECAYS), problem, params, steps, save_steps=[steps])
    return jax.block_until_ready(Path(_last(found.params), found.stats["evaluations"]))


def by_solve(problem: Any, params: PyTree, eta: float, steps: int) -> Path:
    found = ct.solve(
        ct.AdamFlow(eta, *DECAYS), problem, params, steps, save_steps=[steps], rtol=RTOL,
        atol=1e-3 * RTOL, max_solver_steps=BUDGET,
    )  # fmt: skip
    return jax.block_until_ready(Path(_last(found.params), found.stats["evaluations"]))


def by_scan(problem: Any, params: PyTree, eta: float, steps: int) -> Callable[[], Path]:
    """What one writes without this package."""
    method = optax.adam(eta, *DECAYS)
    final = jax.jit(lambda params: jax_peer.scanned(method, problem.value, params, steps))
    return lambda: jax.block_until_ready(Path(final(params), steps))


def by_diffrax(problem: Any, params: PyTree, eta: float, steps: int) -> Path:
    """Nothing saved but the end, and nothing prepared for derivatives."""
    return jax.block_until_ready(
        _by_diffrax(problem, params, jnp.asarray(eta), jnp.asarray(1.0 * steps))
    )


@eqx.filter_jit
def _by_diffrax(problem: Any, params: PyTree, eta: Any, end: Any) -> Path:
    method = ct.AdamFlow(eta, *DECAYS)
    solution = diffrax.diffeqsolve(
        diffrax.ODETerm(method.vector_field),  # pyright: ignore[reportArgumentType]
        diffrax.Tsit5(),
        0.0,
        end,
        None,
        method.init(problem, params),
        problem,
        stepsize_controller=default_controller(method, RTOL, 1e-3 * RTOL, float, end),
        adjoint=diffrax.ForwardMode(),
        max_steps=BUDGET,
    )
    assert solution.ys is not None
    # Six a step, for Tsit5's last is the next one's first, and the first step's own.
    return Path(_last(solution.ys.params), 6 * solution.stats["num_steps"] + 1)


def _last(params: PyTree) -> PyTree:
    return jax.tree.map(lambda leaf: leaf[-1], params)
