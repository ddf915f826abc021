"""Loops by hand for numba: what a careful person writes for one problem."""

import diffrax
import numba
import numpy as np

from ..race import Contender, Run
from ..workloads import FlowLanes, Lanes

BLOCK = 16  # lanes of a block: two of the widest registers for each quantity
_FLAGS = {"contract", "arcp"}  # fuse multiply and add, divide by a reciprocal
_TABLEAU = diffrax.Tsit5.tableau
_STAGES = len(_TABLEAU.c) + 1
_A = np.array([np.pad(row, (0, _STAGES - len(row))) for row in _TABLEAU.a_lower])
_C = np.asarray(_TABLEAU.c)
_E = np.asarray(_TABLEAU.b_error)


def flow(work: FlowLanes) -> Contender:
    """Adaptive Tsit5, a lane after the other, lanes over cores."""

    def prepare(rtol: float | None) -> Run:
        def run() -> np.ndarray:
            return _flows(
                work.lane_parameters, work.first_states, float(work.steps), work.learning_rate,
                work.eps, rtol, 1e-3 * rtol, work.loss.compiled,
            )  # fmt: skip

        return run

    return Contender("numba loop", prepare, note="Tsit5, prange over lanes")


@numba.njit(fastmath=_FLAGS, error_model="numpy")
def _slope(t, y, lane, learning_rate, eps, gradient, x, g, out):
    b1, b2, a, b = lane
    dim = len(x)
    scale1 = learning_rate / (1 - b1 * np.exp(-a * t))
    scale2 = 1 / (1 - b2 * np.exp(-b * t))
    for i in range(dim):
        x[i, 0] = y[3 * i]
    gradient(x, g)
    for i in range(dim):
        m, v = y[3 * i + 1], y[3 * i + 2]
        out[3 * i] = -scale1 * m / (np.sqrt(scale2 * v) + eps)
        out[3 * i + 1] = a * (g[i, 0] - m)
        out[3 * i + 2] = b * (g[i, 0] ** 2 - v)


@numba.njit(parallel=True, fastmath=_FLAGS, error_model="numpy")
def _flows(lanes, first, end, learning_rate, eps, rtol, atol, gradient):
    size = first.shape[1]
    final = np.empty((len(lanes), size // 3))
    for lane in numba.prange(len(lanes)):
        y, trial, slopes = first[lane].copy(), np.empty(size), np.empty((_STAGES, size))
        x, g = np.empty((size // 3, 1)), np.empty((size // 3, 1))
        decays = (lanes[lane, 0], lanes[lane, 1], lanes[lane, 2], lanes[lane, 3])
        t, step = 0.0, 0.01
        _slope(t, y, decays, learning_rate, eps, gradient, x, g, slopes[0])
        while t < end:
            step = min(step, end - t)
            for stage in range(1, _STAGES):
                for i in range(size):
                    total = 0.0
                    for before in range(stage):
                        total += _A[stage - 1, before] * slopes[before, i]
                    trial[i] = y[i] + step * total
                _slope(
                    t + _C[stage - 1] * step, trial, decays, learning_rate, eps, gradient, x, g,
                    slopes[stage],
                )  # fmt: skip
            error = 0.0
            for i in range(size):
                total = 0.0
                for stage in range(_STAGES):
                    total += _E[stage] * slopes[stage, i]
                error += (step * total / (atol + rtol * max(abs(y[i]), abs(trial[i])))) ** 2
            error = np.sqrt(error / size)
            if error <= 1:  # not where it is a NaN
                t = end if step == end - t else t + step
                y[:] = trial
                slopes[0] = slopes[_STAGES - 1]
            if np.isnan(error):  # a trial stage left the domain
                error = 1e9
            step *= min(10.0, max(0.2, 0.9 * (error + 1e-30) ** -0.2))
            if step < 1e-14 * end:
                y[:] = np.nan
                break
        final[lane] = y[::3]
    return final


def optimizer(work: Lanes) -> Contender:
    """Blocks of lanes in parallel; steps outside, lanes innermost, where LLVM vectorises."""
    assert len(work.b1) % BLOCK == 0

    def run() -> np.ndarray:
        return _adam(
            work.b1, work.b2, work.steps, work.loss.start, work.learning_rate, work.eps,
            work.loss.compiled,
        )  # fmt: skip

    return Contender("numba loop", lambda _: run, (None,), note=f"blocks of {BLOCK} lanes")


@numba.njit(parallel=True, fastmath=_FLAGS, error_model="numpy")
def _adam(b1, b2, steps, start, learning_rate, eps, gradient):
    dim = len(start)
    final = np.empty((len(b1), dim))
    for block in numba.prange(len(b1) // BLOCK):
        first = block * BLOCK
        d1, d2 = b1[first : first + BLOCK].copy(), b2[first : first + BLOCK].copy()
        x, g = np.empty((dim, BLOCK)), np.empty((dim, BLOCK))
        m, v = np.zeros((dim, BLOCK)), np.zeros((dim, BLOCK))
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
            gradient(x, g)
            for i in range(dim):
                for j in range(BLOCK):
                    m[i, j] = g[i, j] + d1[j] * (m[i, j] - g[i, j])
                    v[i, j] = g[i, j] ** 2 + d2[j] * (v[i, j] - g[i, j] ** 2)
                    x[i, j] -= scale1[j] * m[i, j] / (np.sqrt(scale2[j] * v[i, j]) + eps)
        final[first : first + BLOCK] = x.T
    return final
