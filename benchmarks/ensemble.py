"""Adam's flow over 1024 pairs of decays: `ct.ensemble` beside plain diffrax and heyoka.

Solvers differ in what a tolerance means to them, so each one runs at the loosest tolerance whose
result is right to `ERROR` in a typical lane.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from typing import Any, NamedTuple

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import scipy.integrate
import xarray  # noqa: F401 (imported here, so that no contender's first call pays for it)

import ct_adam as ct
from ct_adam.decays import rate
from ct_adam.problems import as_problem
from ct_adam.simulate.controllers import default_controller

from . import heyoka_peer
from .timing import Entry, Run, Target, compile_seconds, errors, finish, interleave, report, verdict

CURVATURES = np.array([1.0, 3.0, 10.0, 30.0])
START = np.array([1.0, -1.0, 0.5, 2.0])
LEARNING_RATE = 1e-2
EPS = 1e-8
ERROR = 1e-5
LADDER = tuple(10 ** (-k / 2) for k in range(2, 17))  # 1e-1 … 1e-8
FIRST_RTOL = 1e-4  # the tolerance of the first call, which compiles
TARGETS = (
    Target("auto", "lax.map(diffrax)", 5),
    Target("auto", "vmap(diffrax)", 80),
    Target("auto", "heyoka", 2.5),
    Target("cohort", "vmap(diffrax)", 15),
)


def main(quick: bool) -> None:
    """Both kinds of rates."""
    lanes, rounds = (128, 3) if quick else (1024, 7)
    reports = [measured(Workload.draw(rates, lanes), rounds) for rates in ("lag", "log")]
    finish("ensemble", quick, reports)


def loss(params: Any) -> Any:
    return 0.5 * jnp.sum(jnp.asarray(CURVATURES) * params**2)


@dataclass(frozen=True)
class Workload:
    """The lanes, and the one flow that all contenders integrate."""

    rates: Any
    b1: np.ndarray
    b2: np.ndarray
    steps: int = 120

    @classmethod
    def draw(cls, rates: str, lanes: int) -> "Workload":
        random = np.random.default_rng(0)
        return cls(rates, random.uniform(0.5, 0.99, lanes), random.uniform(0.5, 0.999, lanes))

    @cached_property
    def make(self) -> Callable[..., ct.AdamFlow]:
        """One function for all calls: `ct.ensemble` compiles anew for another one."""
        return lambda b1, b2: ct.AdamFlow(LEARNING_RATE, b1, b2, EPS, rates=self.rates)

    @cached_property
    def lane_parameters(self) -> np.ndarray:
        """b1, b2 and their rates a, b of each lane, for solvers that know no `AdamFlow`."""
        a, b = (np.asarray(rate(jnp.asarray(decay), self.rates)) for decay in (self.b1, self.b2))
        return np.stack([self.b1, self.b2, a, b], axis=1)

    @cached_property
    def first_states(self) -> np.ndarray:
        """(lane, θ0 m0 w0 θ1 m1 w1 …) after the first gradient, with w = ln v."""
        g = CURVATURES * START
        m, v = np.outer(1 - self.b1, g), np.outer(1 - self.b2, g**2)
        return np.stack([np.broadcast_to(START, m.shape), m, np.log(v)], axis=2).reshape(len(m), -1)


class Contender(NamedTuple):
    """`prepare(rtol)` returns what runs all lanes and returns their θ (lane, parameter)."""

    name: str
    prepare: Callable[[float], Run]


def measured(work: Workload, rounds: int) -> dict[str, Any]:
    """Compilation, errors and times of all contenders on one workload."""
    entries, prepares = [], {}
    for name, prepare in contenders(work):
        # Before the reference solution: it would compile the fused engine for us.
        run = []
        compiling = compile_seconds(
            lambda prepare=prepare, run=run: run.append(prepare(FIRST_RTOL)) or run[0](),
            lambda run=run: run[0](),
        )
        entries.append(Entry(name, compile_s=compiling))
        prepares[name] = prepare
    truth, doubt = reference(work)
    for entry in entries:
        calibrate(entry, prepares[entry.name], truth)
    if find_spec("heyoka") is None:
        entries.append(Entry("heyoka", absent="not installed"))
    interleave(entries, rounds)
    title = (
        f"Adam flow, rates={work.rates!r}: {len(work.b1)} lanes, {work.steps} steps, error "
        f"{ERROR:g} (reference against SciPy: {doubt:.1e})"
    )
    return {**report(title, entries, TARGETS), "reference_against_scipy": doubt}


def contenders(work: Workload) -> list[Contender]:
    found = [
        *(ours(engine, work) for engine in ("auto", "cohort", "reference")),
        plain_diffrax("lax.map(diffrax)", jax.lax.map, work),
        plain_diffrax("vmap(diffrax)", lambda lane, lanes: jax.vmap(lane)(lanes), work),
    ]
    if find_spec("heyoka") is not None:
        found.append(taylor(work))
    return found


def ours(engine: str, work: Workload) -> Contender:
    """`ct.ensemble`, asked for no more than the others give."""

    def prepare(rtol: float) -> Run:
        return lambda: ensemble_params(work, engine, rtol, 1e-3 * rtol)

    return Contender(engine, prepare)


def ensemble_params(
    work: Workload, engine: str, rtol: float, atol: float, budget: int | None = None
) -> np.ndarray:
    table = ct.ensemble(
        work.make,
        loss,
        START,
        work.steps,
        {"b1": work.b1, "b2": work.b2},
        engine=engine,
        rtol=rtol,
        atol=atol,
        max_solver_steps=budget,
        metrics=("final_params", "outcome"),
    )
    return table.final_params.values


def plain_diffrax(name: str, mapped: Callable[..., Any], work: Workload) -> Contender:
    """What one would write without `ct.ensemble`, in the same error scale."""
    problem, end = as_problem(loss), float(work.steps)

    def final(b1: Any, b2: Any, rtol: Any) -> Any:
        flow = work.make(b1, b2)
        solution = diffrax.diffeqsolve(
            diffrax.ODETerm(flow.vector_field),  # pyright: ignore[reportArgumentType]
            diffrax.Tsit5(),
            0.0,
            end,
            None,
            flow.init(problem, jnp.asarray(START)),
            problem,
            stepsize_controller=default_controller(flow, rtol, 1e-3 * rtol, float, end),
            # A third faster than the default, which prepares for reverse-mode derivatives.
            adjoint=diffrax.ForwardMode(),
            max_steps=100_000,
            throw=False,
        )
        assert solution.ys is not None
        return solution.ys.params[-1]

    @jax.jit
    def all_lanes(b1: Any, b2: Any, rtol: Any) -> Any:
        return mapped(lambda lane: final(*lane, rtol), (b1, b2))

    def prepare(rtol: float) -> Run:
        return lambda: np.asarray(all_lanes(work.b1, work.b2, rtol))

    return Contender(name, prepare)


def taylor(work: Workload) -> Contender:
    system = heyoka_peer.adam_system(CURVATURES, LEARNING_RATE, EPS)

    def prepare(rtol: float) -> Run:
        run = heyoka_peer.prepare(system, work.first_states, work.lane_parameters, work.steps, rtol)
        return lambda: run()[:, ::3]

    return Contender("heyoka", prepare)


def calibrate(entry: Entry, prepare: Callable[[float], Run], truth: np.ndarray) -> None:
    """Settles on the loosest tolerance that is right to `ERROR`, or on the tightest there is."""
    for rtol in LADDER:
        entry.rtol, entry.run = rtol, prepare(rtol)
        entry.errors = errors(entry.run(), truth)
        if entry.errors.median <= ERROR:
            break
    entry.verdict = verdict(entry.errors.median, ERROR)


def reference(work: Workload) -> tuple[np.ndarray, float]:
    """All lanes at a tight tolerance, and how far SciPy is from it on three of them."""
    truth = ensemble_params(work, "fused", 1e-10, 1e-13, 10**6)
    by_b1 = np.argsort(work.b1)
    lanes = by_b1[[0, len(by_b1) // 2, -1]]
    doubt = max(float(np.max(np.abs(scipy_params(work, lane) - truth[lane]))) for lane in lanes)
    if not doubt <= ERROR / 100:
        raise RuntimeError(f"The reference solution is {doubt:.1e} away from SciPy's.")
    return truth, doubt


def scipy_params(work: Workload, lane: int) -> np.ndarray:
    """One lane's θ at the end, from the equations as they are written in `AdamFlow`."""
    b1, b2, a, b = work.lane_parameters[lane]

    def slope(time: float, state: np.ndarray) -> np.ndarray:
        x, m, w = state.reshape(-1, 3).T
        g, v = CURVATURES * x, np.exp(w)
        m_hat, v_hat = m / (1 - b1 * np.exp(-a * time)), v / (1 - b2 * np.exp(-b * time))
        update = m_hat / (np.sqrt(v_hat) + EPS)
        return np.stack([-LEARNING_RATE * update, a * (g - m), b * (g**2 / v - 1)], axis=1).ravel()

    solution = scipy.integrate.solve_ivp(
        slope, (0, work.steps), work.first_states[lane], method="DOP853", rtol=1e-11, atol=1e-13
    )
    return solution.y[::3, -1]
