"""Oracles in NumPy and SciPy, written from EQUATIONS.md; nothing of the package is used here.

Gradients are functions `gradient(step, params)` of NumPy arrays; stages of k-Adam are tuples.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from scipy import integrate


class Hyper(NamedTuple):
    """Hyperparameters in the notation of EQUATIONS §0; `b1`, `b2` hold one decay a stage."""

    learning_rate: float | Callable[[float], float] = 1e-3
    b1: tuple[float, ...] = (0.9,)
    b2: tuple[float, ...] = (0.999,)
    eps: float = 1e-8
    weight_decay: float = 0.0
    decay: str = "decoupled"
    eps_root: float = 0.0

    def eta(self, step: float) -> float:
        return self.learning_rate(step) if callable(self.learning_rate) else self.learning_rate

    @property
    def outer(self) -> float:
        """λ of the decay beside the update."""
        return self.weight_decay if self.decay == "decoupled" else 0.0

    def input(self, gradient: np.ndarray, params: np.ndarray) -> np.ndarray:
        """u⁰: the gradient, with λθ where the decay is inside."""
        return gradient + self.weight_decay * params if self.decay == "l2" else gradient


class Path(NamedTuple):
    """`params[n]` = θ_n and `update[n]` = u_{n+1}, n = 0 … steps; (steps + 1, d) each."""

    params: np.ndarray
    update: np.ndarray


def rate_of(b: float, rates: str) -> float:
    """EQUATIONS §1: the relaxation rate per step of a decay b > 0."""
    return {"log": -np.log(b), "lag": (1 - b) / b, "euler": 1 - b}[rates]


def quotient(m_hat: np.ndarray, v_hat: np.ndarray, hyper: Hyper) -> np.ndarray:
    """m̂/(√(v̂ + eps_root) + eps), 0 where that denominator is 0 (EQUATIONS §0, Zero)."""
    bottom = np.sqrt(np.maximum(v_hat, 0) + hyper.eps_root) + hyper.eps
    return np.where(bottom > 0, m_hat / np.where(bottom > 0, bottom, 1), 0.0)


# ---- the discrete optimizer ----------------------------------------------------------------------


def stages_of(n, stage_input, moments, hyper):
    """u¹ … u^k of gradient n = 1, 2, … and the moments after it; a decay of 0 needs no rule here.

    `moments` is a tuple of (m, v), one a stage.
    """
    updates, after = [], []
    for b1, b2, (m, v) in zip(hyper.b1, hyper.b2, moments, strict=True):
        m = b1 * m + (1 - b1) * stage_input
        v = b2 * v + (1 - b2) * stage_input**2
        after.append((m, v))
        stage_input = quotient(m / (1 - b1**n), v / (1 - b2**n), hyper)
        updates.append(stage_input)
    return updates, tuple(after)


def adam_step(step, params, moments, gradient, hyper):
    """(u_{n+1}, moments of n + 1) from θ_n and the moments of n."""
    stage_input = hyper.input(gradient(step, params), params)
    updates, after = stages_of(step + 1, stage_input, moments, hyper)
    return updates[-1], after


def stage_updates(gradients, b1, b2, eps=0.0) -> np.ndarray:
    """u¹ … u^k after each of the gradients, (n, k, …); b1 and b2 hold one decay a stage."""
    hyper, found = Hyper(b1=b1, b2=b2, eps=eps), []
    moments = tuple((0.0, 0.0) for _ in b1)
    for n, g in enumerate(gradients, 1):
        updates, moments = stages_of(n, g, moments, hyper)
        found.append(updates)
    return np.array(found)


def adam_updates(gradients, b1, b2, eps=0.0) -> np.ndarray:
    """u after each of the gradients, of whatever shape these are."""
    return stage_updates(gradients, (b1,), (b2,), eps)[:, 0]


def discrete_bound(b1: float, b2: float, steps: int) -> np.ndarray:
    """The sum of EQUATIONS §2, term by term: the largest |u| after 1 … steps gradients."""
    n = np.arange(1, steps + 1)
    memory = np.cumsum((b1**2 / b2) ** (n - 1.0))
    return np.sqrt((1 - b2**n) / (1 - b2) * memory) * (1 - b1) / (1 - b1**n)


def no_moments(params: np.ndarray, hyper: Hyper):
    return tuple((np.zeros_like(params), np.zeros_like(params)) for _ in hyper.b1)


def adam_run(gradient, params, steps: int, hyper: Hyper):
    """(θ, moments) after `steps` discrete steps, and the `Path` to there."""
    params = np.asarray(params, dtype=float)
    moments = no_moments(params, hyper)
    path, updates = [], []
    for n in range(steps + 1):
        update, after = adam_step(n, params, moments, gradient, hyper)
        path.append(params)
        updates.append(update)
        if n < steps:
            params = params - hyper.eta(n) * (update + hyper.outer * params)
            moments = after
    return params, moments, Path(np.array(path), np.array(updates))


# ---- the flow, by DOP853 -------------------------------------------------------------------------

# Where the reference for start "zero" begins. There m̂ = m/B obeys m̂' = a (x - m̂)/B, x the
# moment's input, and a/B → 1/s: whatever m̂ is at s0, its error falls as s0/s. Beginning with
# m̂ = x(0), wrong by x'(0) s0/2, costs about s0² = 1e-14 at s = 1; so does one Euler step of θ.
HAIR = 1e-7


def adam_flow(
    gradient: Callable[[float, np.ndarray], np.ndarray],
    params: Any,
    steps: int,
    hyper: Hyper,
    *,
    rates: str = "log",
    order: int = 1,
    start: str = "first_step",
    warm_steps: int = 0,
) -> Path:
    """The equations of §1 and §4 at s = w, w + 1, …, w + steps, to about 1e-11.

    Unlike the package it integrates m̂ and v̂ themselves for start "zero" (see HAIR), and √(s - w)
    is the time of start "paper", whose u goes like √s: in that time everything is smooth.
    """
    w, size, stages = warm_steps, np.size(params), len(hyper.b1)
    theta, held, _ = adam_run(gradient, params, w, hyper)
    hatted = start == "zero" and w == 0
    rooted = start == "paper" and w == 0

    def response(b: float, s: float) -> float:
        """B(s) of §1."""
        if hatted:
            return 1.0
        if rooted:
            return 1 - b ** (1 + s)
        return 1 - b ** (w + (start == "first_step")) * np.exp(-rate_of(b, rates) * (s - w))

    def stage(i: int, s: float, stage_input, m, v):
        m_hat = stage_input if hyper.b1[i] == 0 else m / response(hyper.b1[i], s)
        v_hat = stage_input**2 if hyper.b2[i] == 0 else v / response(hyper.b2[i], s)
        return quotient(m_hat, v_hat, hyper)

    def relaxation(b: float, s: float, moment, target):
        if b == 0:  # no moment: it is its own input
            return np.zeros_like(moment)
        rate = rate_of(b, rates)
        return (rate / -np.expm1(-rate * s) if hatted else rate) * (target - moment)

    moments = []
    stage_input = hyper.input(gradient(w, theta), theta)
    for i in range(stages):
        (m, v), b1, b2 = held[i], hyper.b1[i], hyper.b2[i]
        if start == "first_step":
            m, v = b1 * m + (1 - b1) * stage_input, b2 * v + (1 - b2) * stage_input**2
        elif hatted:
            m, v = stage_input, stage_input**2
        moments += [m, v]
        stage_input = stage(i, w, stage_input, m, v)
    velocity = -hyper.eta(w) * (stage_input + hyper.outer * theta)
    state = np.concatenate([theta, *([velocity] if order == 2 else []), *moments])

    def parts(y):
        y = y.reshape(-1, size)
        return (y[0], None, y[1:]) if order == 1 else (y[0], y[1], y[2:])

    def stages_at(s, y):
        theta, velocity, moments = parts(y)
        x, rates_of_change = hyper.input(gradient(s, theta), theta), []
        for i in range(stages):
            m, v = moments[2 * i], moments[2 * i + 1]
            rates_of_change += [
                relaxation(hyper.b1[i], s, m, x),
                relaxation(hyper.b2[i], s, v, x**2),
            ]
            x = stage(i, s, x, m, v)
        return theta, velocity, x, rates_of_change

    def field(s, y):
        theta, velocity, update, rates_of_change = stages_at(s, y)
        drift = -hyper.eta(s) * (update + hyper.outer * theta)
        first = [drift] if order == 1 else [velocity, 2 * (drift - velocity)]
        return np.concatenate([*first, *rates_of_change])

    begin, times = float(w), np.arange(w, w + steps + 1, dtype=float)
    right_hand_side = field
    if hatted:
        begin, state[:size] = HAIR, theta + HAIR * velocity
        times[0] = HAIR
    if rooted:

        def right_hand_side(root, y):
            return 2 * root * field(root**2, y)

        times = np.sqrt(times)
    solution = integrate.solve_ivp(
        right_hand_side,
        (begin, times[-1]),
        state,
        method="DOP853",
        t_eval=times,
        rtol=1e-12,
        atol=1e-14,
    )
    assert solution.success
    path = solution.y[:size].T.copy()
    path[0] = theta
    clock = np.arange(w, w + steps + 1, dtype=float)
    clock[0] = begin
    update = np.array([stages_at(s, y)[2] for s, y in zip(clock, solution.y.T, strict=True)])
    return Path(path, update)


def sign_flow(gradient, params, steps: int, hyper: Hyper) -> Path:
    """θ' = -η (g/(|g| + eps) + λθ), §5."""

    def update(s, theta):
        g = gradient(s, theta)
        return g / (np.abs(g) + hyper.eps)

    solution = integrate.solve_ivp(
        lambda s, y: -hyper.eta(s) * (update(s, y) + hyper.weight_decay * y),
        (0, steps),
        np.asarray(params, dtype=float),
        method="DOP853",
        t_eval=np.arange(steps + 1),
        rtol=1e-12,
        atol=1e-14,
    )
    assert solution.success
    path = solution.y.T
    return Path(path, np.array([update(n, theta) for n, theta in enumerate(path)]))


# ---- a stream of gradients, held over each step --------------------------------------------------

NODES, WEIGHTS = np.polynomial.legendre.leggauss(24)


def held_flow(
    gradients: np.ndarray,
    params: Any,
    hyper: Hyper,
    *,
    rates: str = "log",
    start: str = "first_step",
) -> Path:
    """The flow of one stage under held gradients, moments exact, θ by quadrature (§1, Streams).

    m ← e^{-a} m + (1 - e^{-a}) g over each step, g being gradient n + 1 on (n, n + 1] for start
    "first_step" and gradient n for the two others. Inside a step u is analytic in √(s - n) (in
    s - n but for the first step of "paper"), and 24 Gauss nodes in it are exact to rounding.
    N gradients give N entries, n = 0 … N - 1.
    """
    assert hyper.decay == "decoupled"
    gradients, theta = np.asarray(gradients), np.asarray(params, dtype=float)
    a, b = (rate_of(x[0], rates) for x in (hyper.b1, hyper.b2))
    lagged = start != "first_step"

    def relaxed(moment, target, rate, t):
        return np.exp(-rate * t) * moment - np.expm1(-rate * t) * target

    def hat(moment, target, decay, rate, s):
        if start == "first_step":
            return moment / (1 - decay * np.exp(-rate * s))
        if start == "zero":
            return moment / -np.expm1(-rate * s) if s > 0 else target
        return moment / (1 - decay ** (1 + s))

    def update(m, v, g, s):
        m_hat, v_hat = hat(m, g, hyper.b1[0], a, s), hat(v, g**2, hyper.b2[0], b, s)
        return quotient(m_hat, v_hat, hyper)

    m = np.zeros_like(theta) if lagged else (1 - hyper.b1[0]) * gradients[0]
    v = np.zeros_like(theta) if lagged else (1 - hyper.b2[0]) * gradients[0] ** 2
    path, updates = [theta], [update(m, v, gradients[0], 0.0)]
    for n in range(len(gradients) - 1):
        g = gradients[n if lagged else n + 1]
        # θ(n+1) = e^{-Λ(n,n+1)} θ(n) - ∫ η u e^{-Λ(s,n+1)} ds with Λ = ∫ηλ; η constant here.
        strength = hyper.eta(n) * hyper.outer
        integral = np.zeros_like(theta)
        for root, weight in zip((NODES + 1) / 2, WEIGHTS / 2, strict=True):
            t = root**2
            u = update(relaxed(m, g, a, t), relaxed(v, g**2, b, t), g, n + t)
            integral += weight * 2 * root * np.exp(-strength * (1 - t)) * u
        theta = np.exp(-strength) * theta - hyper.eta(n) * integral
        m, v = relaxed(m, g, a, 1), relaxed(v, g**2, b, 1)
        path.append(theta)
        updates.append(update(m, v, g, n + 1.0))
    return Path(np.array(path), np.array(updates))


# ---- the loss that the tests of the continuous side share ----------------------------------------

CURVATURE = np.array([1.0, 3.0, 10.0, 30.0])
BEGIN = np.array([1.0, -1.0, 0.5, 2.0])


def ripple_gradient(step: float, params: np.ndarray) -> np.ndarray:
    """Of ½Σhθ² + Σcos 2θ: smooth, not convex, not quadratic."""
    return CURVATURE * params - 2 * np.sin(2 * params)
