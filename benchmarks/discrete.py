"""Discrete Adam over a square of decays: `ct.ensemble` beside scans and a hand-written loop."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numba
import numpy as np
import optax
import xarray  # noqa: F401 (imported here, so that no contender's first call pays for it)

import ct_adam as ct

from .timing import Entry, Run, Target, compile_seconds, errors, finish, interleave, report, verdict

CURVATURES = np.array([1.0, 3.0, 10.0, 30.0])
START = np.array([1.0, -1.0, 0.5, 2.0])
LEARNING_RATE = 1e-2
EPS = 1e-8
ERROR = 1e-9  # the same arithmetic in another order
BLOCK = 16  # lanes of a block: two of the widest registers for each quantity
TRUTH = "lax.map(scan)"
TARGETS = (
    Target("auto", "numba loop", 1 / 1.1),
    Target("auto", "vmap(scan)", 4),
)


def main(quick: bool) -> None:
    side, steps, rounds = (32, 200, 3) if quick else (128, 1000, 15)
    centres = 0.5 + 0.5 * (np.arange(side) + 0.5) / side
    b1, b2 = (grid.ravel() for grid in np.meshgrid(centres, centres, indexing="ij"))
    entries = [
        measured("auto", ours(b1, b2, steps)),
        measured("numba loop", numba_loop(b1, b2, steps)),
        measured("vmap(scan)", scan(lambda f, xs: jax.vmap(f)(xs), b1, b2, steps)),
        measured("lax.map(scan)", scan(jax.lax.map, b1, b2, steps)),
    ]
    judge(entries)
    interleave(entries, rounds)
    title = f"Adam: {len(b1)} lanes, {steps} steps; error against {TRUTH}"
    finish("discrete", quick, [report(title, entries, TARGETS)])


def measured(name: str, run: Run) -> Entry:
    return Entry(name, run, compile_s=compile_seconds(run, run))


def judge(entries: list[Entry]) -> None:
    """Errors against optax; its own against the other way of mapping it."""
    finals = {entry.name: entry.run() for entry in entries if entry.run}
    for entry in entries:
        other = "vmap(scan)" if entry.name == TRUTH else TRUTH
        entry.errors = errors(finals[entry.name], finals[other])
        entry.verdict = verdict(entry.errors.median, ERROR)


def loss(params: Any) -> Any:
    return 0.5 * jnp.sum(jnp.asarray(CURVATURES) * params**2)


def make(b1: Any, b2: Any) -> Any:
    return ct.k_adam(LEARNING_RATE, b1, b2, EPS)


def ours(b1: np.ndarray, b2: np.ndarray, steps: int) -> Run:
    def run() -> np.ndarray:
        table = ct.ensemble(
            make,
            loss,
            START,
            steps,
            {"b1": b1, "b2": b2},
            metrics=("final_params", "outcome"),
        )
        return table.final_params.values

    return run


def scan(mapped: Callable[..., Any], b1: np.ndarray, b2: np.ndarray, steps: int) -> Run:
    """optax under `lax.scan`, mapped over the lanes."""

    def final(decays: tuple[Any, Any]) -> Any:
        optimizer = optax.adam(LEARNING_RATE, *decays, eps=EPS)

        def step(carry: Any, _: None) -> tuple[Any, None]:
            params, state = carry
            update, state = optimizer.update(jax.grad(loss)(params), state)
            return (optax.apply_updates(params, update), state), None

        params = jnp.asarray(START)
        return jax.lax.scan(step, (params, optimizer.init(params)), length=steps)[0][0]

    all_lanes = jax.jit(lambda b1, b2: mapped(final, (b1, b2)))
    return lambda: np.asarray(all_lanes(b1, b2))


def numba_loop(b1: np.ndarray, b2: np.ndarray, steps: int) -> Run:
    """What a careful person writes by hand for this one problem."""
    assert len(b1) % BLOCK == 0
    return lambda: _adam(b1, b2, steps, CURVATURES, START, LEARNING_RATE, EPS)


@numba.njit(parallel=True, fastmath={"contract", "arcp"}, error_model="numpy")
def _adam(b1, b2, steps, curvatures, start, learning_rate, eps):
    """Blocks of lanes in parallel; steps outside, lanes innermost, where LLVM vectorises."""
    dim = len(start)
    final = np.empty((len(b1), dim))
    for block in numba.prange(len(b1) // BLOCK):
        first = block * BLOCK
        d1, d2 = b1[first : first + BLOCK].copy(), b2[first : first + BLOCK].copy()
        x, m, v = np.empty((dim, BLOCK)), np.zeros((dim, BLOCK)), np.zeros((dim, BLOCK))
        for i in range(dim):
            x[i, :] = start[i]
        power1, power2 = np.ones(BLOCK), np.ones(BLOCK)
        scale1, scale2 = np.empty(BLOCK), np.empty(BLOCK)
        for _ in range(steps):
            for j in range(BLOCK):
                power1[j] *= d1[j]
                power2[j] *= d2[j]
                scale1[j] = learning_rate / (1 - power1[j])
                scale2[j] = 1 / (1 - power2[j])
            for i in range(dim):
                for j in range(BLOCK):
                    g = curvatures[i] * x[i, j]
                    m[i, j] = g + d1[j] * (m[i, j] - g)
                    v[i, j] = g * g + d2[j] * (v[i, j] - g * g)
                    x[i, j] -= scale1[j] * m[i, j] / (np.sqrt(scale2[j] * v[i, j]) + eps)
        final[first : first + BLOCK] = x.T
    return final
