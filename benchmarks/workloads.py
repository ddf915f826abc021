"""What is raced: losses in every language that a peer needs, and the lanes."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax.numpy as jnp
import numba
import numpy as np
import scipy.integrate

import ct_adam as ct
from ct_adam.decays import rate


@dataclass(frozen=True)
class Loss:
    """A loss for those who differentiate it, and its gradient for those who cannot.

    `slopes` maps the coordinates of θ, a sequence of whatever knows + - *, to the gradient's;
    `compiled(x, g)` writes it into an array (coordinate, lane), for numba.
    """

    name: str
    of: Callable[[Any], Any]
    slopes: Callable[[Sequence[Any]], list[Any]]
    compiled: Callable[[np.ndarray, np.ndarray], None]
    start: np.ndarray


CURVATURES = np.array([1.0, 3.0, 10.0, 30.0])


def _quadratic(params: Any) -> Any:
    return 0.5 * jnp.sum(jnp.asarray(CURVATURES, params.dtype) * params**2)


def _quadratic_slopes(x: Sequence[Any]) -> list[Any]:
    return [float(h) * xi for h, xi in zip(CURVATURES, x, strict=True)]


@numba.njit(error_model="numpy")
def _quadratic_into(x, g):
    for i in range(x.shape[0]):
        for lane in range(x.shape[1]):
            g[i, lane] = CURVATURES[i] * x[i, lane]


DIM = 16  # of the chain


def _chain(params: Any) -> Any:
    return jnp.sum((1 - params[:-1]) ** 2 + 10 * (params[1:] - params[:-1] ** 2) ** 2)


def _chain_slopes(x: Sequence[Any]) -> list[Any]:
    bends = [x[i + 1] - x[i] * x[i] for i in range(len(x) - 1)]
    inner = [-2.0 * (1.0 - x[i]) - 40.0 * x[i] * bends[i] for i in range(len(bends))]
    behind = [20.0 * bend for bend in bends]
    middle = [a + b for a, b in zip(inner[1:], behind[:-1], strict=True)]
    return [inner[0], *middle, behind[-1]]


@numba.njit(error_model="numpy")
def _chain_into(x, g):
    last = x.shape[0] - 1
    for i in range(last):
        for lane in range(x.shape[1]):
            here = x[i, lane]
            bend = x[i + 1, lane] - here * here
            behind = 20.0 * (here - x[i - 1, lane] * x[i - 1, lane]) if i else 0.0
            g[i, lane] = behind - 2.0 * (1.0 - here) - 40.0 * here * bend
            if i == last - 1:
                g[last, lane] = 20.0 * bend


QUADRATIC = Loss(
    "quadratic", _quadratic, _quadratic_slopes, _quadratic_into, np.array([1.0, -1.0, 0.5, 2.0])
)
# Neighbours are coupled, nothing is quadratic; the start alternates about the valley's bend.
CHAIN = Loss(
    f"{DIM}-D Rosenbrock chain", _chain, _chain_slopes, _chain_into, np.tile([-0.6, 0.8], DIM // 2)
)


@dataclass(frozen=True)
class Lanes:
    """Pairs of decays on one loss; `steps` of the optimizer, or as many units of a flow's time."""

    name: str
    b1: np.ndarray
    b2: np.ndarray
    loss: Loss = QUADRATIC
    learning_rate: float = 1e-2
    eps: float = 1e-8
    steps: int = 120

    @property
    def decays(self) -> dict[str, np.ndarray]:
        return {"b1": self.b1, "b2": self.b2}


@dataclass(frozen=True)
class FlowLanes(Lanes):
    """Adam's flow on each of them, in the working type of `dtype`."""

    rates: Any = "lag"
    dtype: Any = float

    @cached_property
    def make(self) -> Callable[..., ct.AdamFlow]:
        """One function for all calls: `ct.ensemble` compiles anew for another one."""
        return lambda b1, b2: ct.AdamFlow(self.learning_rate, b1, b2, self.eps, rates=self.rates)

    @cached_property
    def start(self) -> np.ndarray:
        return self.loss.start.astype(self.dtype)

    @cached_property
    def lane_parameters(self) -> np.ndarray:
        """b1, b2 and their rates a, b of each lane, for solvers that know no `AdamFlow`."""
        a, b = (np.asarray(rate(jnp.asarray(decay), self.rates)) for decay in (self.b1, self.b2))
        return np.stack([self.b1, self.b2, a, b], axis=1)

    @cached_property
    def first_states(self) -> np.ndarray:
        """(lane, θ0 m0 v0 θ1 m1 v1 …) after the first gradient."""
        g = np.array(self.loss.slopes(self.loss.start))
        m, v = np.outer(1 - self.b1, g), np.outer(1 - self.b2, g**2)
        x = np.broadcast_to(self.loss.start, m.shape)
        return np.stack([x, m, v], axis=2).reshape(len(m), -1)

    def slope(self, time: Any, state: Any, lane: Sequence[Any], exp: Any, sqrt: Any) -> list[Any]:
        """The equations as `AdamFlow` states them (order 1), for a peer's own arithmetic."""
        b1, b2, a, b = lane
        factor1, factor2 = 1.0 - b1 * exp(-a * time), 1.0 - b2 * exp(-b * time)
        xs, ms, vs = state[0::3], state[1::3], state[2::3]
        found = []
        for m, v, g in zip(ms, vs, self.loss.slopes(xs), strict=True):
            update = m / factor1 / (sqrt(v / factor2) + self.eps)
            found += [-self.learning_rate * update, a * (g - m), b * (g * g - v)]
        return found


def uniform(
    lanes: int, b1: tuple[float, float] = (0.5, 0.99), b2: tuple[float, float] = (0.5, 0.999)
) -> dict[str, np.ndarray]:
    """Decays drawn evenly; fewer lanes are the first of more."""
    first, second = np.random.default_rng(0), np.random.default_rng(1)
    return {"b1": first.uniform(*b1, lanes), "b2": second.uniform(*b2, lanes)}


def square(side: int) -> dict[str, np.ndarray]:
    """Decays on the centres of a grid over (0.5, 1)²."""
    centres = 0.5 + 0.5 * (np.arange(side) + 0.5) / side
    b1, b2 = (grid.ravel() for grid in np.meshgrid(centres, centres, indexing="ij"))
    return {"b1": b1, "b2": b2}


def corner(lanes: int) -> dict[str, np.ndarray]:
    """b1 ≥ b2, where the second moment forgets first and updates grow."""
    b1 = uniform(lanes, (0.9, 0.99))["b1"]
    share = np.random.default_rng(1).uniform(0.0, 1.0, lanes)
    return {"b1": b1, "b2": 0.5 + share * (b1 - 0.5)}


def by_scipy(work: FlowLanes, lane: int, **options: Any) -> np.ndarray:
    """One lane's θ at the end by `solve_ivp`, in plain NumPy."""
    decays = work.lane_parameters[lane]

    def slope(time: float, state: np.ndarray) -> np.ndarray:
        # sqrt of what a trial stage made negative is a NaN, which shortens the step.
        with np.errstate(invalid="ignore"):
            return np.array(work.slope(time, state, decays, np.exp, np.sqrt))

    solution = scipy.integrate.solve_ivp(slope, (0, work.steps), work.first_states[lane], **options)
    return solution.y[::3, -1]
