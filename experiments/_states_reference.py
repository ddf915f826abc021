"""Solutions of `state_formulation`'s problems by neither JAX nor diffrax."""

from typing import Any

import jax.numpy as jnp
import numpy as np

from ct_adam.problems import GradientStream

from ._states import B1, EPS, LEARNING_RATE, START, Panel


def reference(panel: Panel) -> tuple[np.ndarray, np.ndarray]:
    """θ and u at every whole step, each (steps + 1, 4), by neither JAX nor diffrax."""
    if isinstance(panel.problem, GradientStream):
        return _stream_reference(np.asarray(panel.problem.gradients), panel.steps, panel.b2)
    return _smooth_reference(panel)


def _stream_reference(
    gradients: np.ndarray, steps: int, b2: float
) -> tuple[np.ndarray, np.ndarray]:
    """The moments relax exponentially towards a held gradient; θ is the quadrature of u."""
    m = np.empty_like(gradients)
    v = np.empty_like(gradients)
    m[0], v[0] = (1 - B1) * gradients[0], (1 - b2) * gradients[0] ** 2
    for n in range(1, len(m)):
        m[n] = B1 * m[n - 1] + (1 - B1) * gradients[n]
        v[n] = b2 * v[n - 1] + (1 - b2) * gradients[n] ** 2

    def update(s: Any, n: Any, m0: np.ndarray, v0: np.ndarray, g: np.ndarray) -> np.ndarray:
        """u at n + s, s in [0, 1], from the moments at n."""
        m_now = g + (m0 - g) * B1**s
        # expm1: 1 - b2^s by subtraction loses the start of a return after a gap.
        v_now = v0 * b2**s - g**2 * np.expm1(s * np.log(b2))
        root = np.sqrt(v_now / (1 - b2 ** (n + 1 + s)))
        return m_now / (1 - B1 ** (n + 1 + s)) / (root + EPS)

    n = np.arange(steps)[:, None]
    integral = np.zeros((steps, gradients.shape[1]))
    for s, weight in _graded_quadrature():
        integral += weight * update(s, n, m[:steps], v[:steps], gradients[1 : steps + 1])
    path = np.array(START) - LEARNING_RATE * np.cumsum(integral, axis=0)
    whole = np.arange(steps + 1)[:, None]
    u = update(0.0, whole, m[: steps + 1], v[: steps + 1], gradients[: steps + 1])
    return np.concatenate([[START], path]), u


def _graded_quadrature() -> list[tuple[float, float]]:
    """Nodes and weights on [0, 1], Gauss-Legendre on intervals that double in length: where a
    gradient returns after a gap, u changes within 1e-11 of a step, and then ever slower."""
    edges = np.append(0, 2.0 ** np.arange(-60, 1))
    nodes, weights = np.polynomial.legendre.leggauss(12)
    half = np.diff(edges)[:, None] / 2
    points = edges[:-1, None] + half * (1 + nodes)
    return list(zip(points.ravel(), (half * weights).ravel(), strict=True))


def _smooth_reference(panel: Panel) -> tuple[np.ndarray, np.ndarray]:
    """SciPy's DOP853 at a relative tolerance of 1e-13, restarted at every whole step so that
    nothing is interpolated."""
    from scipy.integrate import solve_ivp

    a, b, size = -np.log(B1), -np.log(panel.b2), len(START)
    gradient = panel.problem.gradient
    slope = np.asarray(gradient(0, jnp.ones(size)))  # a diagonal quadratic around 0: h itself

    def update(s: float, m: np.ndarray, v: np.ndarray) -> np.ndarray:
        root = np.sqrt(v / (1 - panel.b2 * np.exp(-b * s)))
        return m / (1 - B1 * np.exp(-a * s)) / (root + EPS)

    def field(s: float, y: np.ndarray) -> np.ndarray:
        theta, m, v = y.reshape(3, size)
        g = slope * theta
        return np.concatenate([-LEARNING_RATE * update(s, m, v), a * (g - m), b * (g**2 - v)])

    g = slope * np.array(START)
    states = [np.concatenate([START, (1 - B1) * g, (1 - panel.b2) * g**2])]
    atol = np.repeat([1e-16, 1e-17, 1e-300], size)
    for n in range(panel.steps):
        step = solve_ivp(field, (n, n + 1), states[-1], "DOP853", rtol=1e-13, atol=atol)
        states.append(step.y[:, -1])
    theta, m, v = np.array(states).reshape(-1, 3, size).swapaxes(0, 1)
    return theta, update(np.arange(panel.steps + 1)[:, None], m, v)  # pyright: ignore[reportArgumentType]
