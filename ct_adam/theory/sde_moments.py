"""Means and covariances of the stochastic flows on a quadratic, without Monte Carlo (EQUATIONS §9).

There v is no random number, so that `AdamSDE` is linear in (θ, m) with coefficients in time, and
its first two moments solve an ordinary differential equation.
"""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import ArrayLike, Float

from ..decays import (
    Decay,
    Scalar,
    Schedule,
    check_hyperparameters,
    choice,
    is_removed,
    learning_rate_at,
)

Array = np.ndarray
Numbers = ArrayLike | Sequence[float]


class SDEMoments(NamedTuple):
    """Mean and covariance of z = (θ, m) at `steps`, or of θ alone where there is no m.

    `scale` is what makes the update of m: u = scale · m (of the gradient, without m).
    """

    steps: Float[Array, " n"]
    mean: Float[Array, "n z"]
    covariance: Float[Array, "n z z"]
    scale: Float[Array, "n d"]

    @property
    def square(self) -> Float[Array, "n z"]:
        """E z_i²."""
        return self.mean**2 + np.diagonal(self.covariance, axis1=1, axis2=2)


def sde_moments(
    hessian: Numbers,
    variance: Numbers,
    mean: Numbers,
    steps: Numbers,
    learning_rate: Scalar | Schedule,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 0.0,
    weight_decay: float = 0.0,
    *,
    rule: Literal["adam", "sgd"] = "adam",
    decay: Decay = "decoupled",
    warm_steps: int | None = None,
    second_moment: Numbers | None = None,
    covariance: Numbers | None = None,
) -> SDEMoments:
    """Moments of `AdamSDE` and its relatives on the loss ½ θᵀHθ.

        dθ = -η (Q m/B1 + λθ) ds        dm = (1-b1) [(Hθ - m) ds + √Σ dW]
        Q = 1/(√(v/B2) + eps)           v = Σ + (v_w - Σ) e^{-(1-b2)s}

    is dz = A(s) z ds + noise of covariance N(s) ds, so that μ' = Aμ, C' = AC + CAᵀ + N. Source:
    EQUATIONS §9; solved by SciPy's DOP853 to 1e-10.

    **Arguments:**

    - `hessian`: H, its diagonal (d,) or the symmetric matrix (d, d); the minimum is at 0.
    - `variance`: Σ, (d,) or a number: of each coordinate of one gradient.
    - `mean`: of z at the start: (d,) is θ's alone, with m = Hθ, its own mean in a long run.
    - `steps`: when, increasing, counted from the start; shape (n,).
    - `learning_rate`, `b1`, `b2`, `eps`, `weight_decay`, `decay`: as in `AdamSDE`. A schedule is
        evaluated at `warm_steps` + s. b1 = 0 removes m; b2 > 0.
    - `rule`: `"sgd"` for `SGDSDE`: b1 is its momentum (m undamped, at the start 0 unless `mean`
        holds it); b2 and eps are not used.
    - `warm_steps`: w, as in a run: B = 1 - b^w e^{-(1-b)s}. None for `moments="warm"` (and for
        RMSProp, which corrects no bias): B = 1.
    - `second_moment`: v_w at the start, (d,) or a number, by default B2·Σ, where v̂ = Σ. It needs
        `warm_steps`, but without m: RMSProp corrects no bias of what it is handed.
    - `covariance`: of z at the start, by default 0.

    **Returns:** `SDEMoments`, NumPy arrays. With eps = 0 and v = 0 a coordinate's scale is 0, as u.

    **Raises:** `ValueError` for shapes that do not fit, a value outside its range, and moments that
    are not finite on the way.

    !!! example
        >>> long = sde_moments([1.0], 0.1, [1.0], [5000.0], 0.01, weight_decay=0.3)
        >>> print(f"{float(long.covariance[0, 0, 0]):.4e}")  # §6, with Q = 1/√Σ and its 1/(1+ηλ/a)
        1.4021e-03
    """
    choice("rule", rule, ("adam", "sgd"))
    choice("decay", decay, ("decoupled", "l2"))
    named = {"b1": b1, "b2": b2, "eps": eps, "weight_decay": weight_decay}
    check_hyperparameters(named | {"learning_rate": learning_rate})
    if rule == "adam" and b2 == 0:
        raise ValueError("b2 = 0 leaves no second moment: take rule='sgd'.")
    _check_warm(warm_steps)
    h = _matrix("hessian", hessian)
    sigma = _not_negative("variance", variance, len(h))
    v = None if second_moment is None else _not_negative("second_moment", second_moment, len(h))
    if v is not None and (rule == "sgd" or (warm_steps is None and not is_removed(b1))):
        raise ValueError(
            "second_moment is that of a run of Adam after warm_steps, or of RMSProp (b1 = 0): give "
            "warm_steps too, or leave it out."
        )
    inner, outer = (weight_decay, 0.0) if decay == "l2" else (0.0, weight_decay)
    system = _System(
        h + inner * np.eye(len(h)), sigma, learning_rate, b1, b2, eps, outer, rule, warm_steps, v
    )
    begin, around = _start(system, mean, covariance)
    times, size = np.asarray(steps, float), len(begin)
    path = _solved(system, begin, around, times)
    covariances = path[:, size:].reshape(-1, size, size)
    scales = np.array([system.scale(s) for s in times])
    return SDEMoments(times, path[:, :size], covariances, scales)


def _check_warm(steps: Any) -> None:
    whole = isinstance(steps, int | np.integer) and not isinstance(steps, bool)
    if steps is not None and not (whole and steps >= 1):
        raise ValueError(
            f"warm_steps = {steps!r} must be a whole number of at least 1, or None for B = 1."
        )


def _matrix(name: str, given: Numbers) -> Array:
    """(d, d), symmetric, from that or its diagonal."""
    found = np.asarray(given, float)
    found = np.diag(found) if found.ndim == 1 else found
    if found.ndim != 2 or found.shape != found.T.shape or not found.size:
        raise ValueError(f"{name} of shape {np.shape(given)} must be (d,) or (d, d).")
    # Of Hessians by automatic differentiation the halves differ by rounding.
    if not np.all(np.isfinite(found)) or not np.allclose(found, found.T, rtol=1e-5):
        raise ValueError(f"{name} must be finite and symmetric.")
    return found


def _not_negative(name: str, given: Numbers, size: int) -> Array:
    found = np.asarray(given, float)
    if found.shape not in ((), (size,)):
        raise ValueError(f"{name} of shape {found.shape} must be ({size},) or a number.")
    if not np.all((found >= 0) & np.isfinite(found)):
        raise ValueError(f"{name} must be finite and not negative.")
    return np.broadcast_to(found, (size,))


class _System(NamedTuple):
    """dz = A(s) z ds + noise of covariance N(s) ds."""

    hessian: Array
    """of the gradient that m averages: of an l2 decay too"""
    variance: Array
    learning_rate: Scalar | Schedule
    b1: float
    b2: float
    eps: float
    weight_decay: float
    rule: str
    warm_steps: int | None
    second_moment: Array | None

    @property
    def removed(self) -> bool:
        return is_removed(self.b1)

    def bias(self, b: float, s: float) -> float:
        if self.warm_steps is None:
            return 1.0
        return -np.expm1(self.warm_steps * np.log(b) - (1 - b) * s)

    def scale(self, s: float) -> Array:
        """u = scale · m."""
        if self.rule == "sgd":
            return np.ones(len(self.variance))
        begin = self.second_moment
        begin = self.bias(self.b2, 0.0) * self.variance if begin is None else begin
        v = self.variance + (begin - self.variance) * np.exp(-(1 - self.b2) * s)
        first = 1.0 if self.removed else self.bias(self.b1, s)
        root = first * (np.sqrt(v / self.bias(self.b2, s)) + self.eps)
        return np.divide(1.0, root, out=np.zeros_like(root), where=root > 0)  # 0/0 is 0 (§0)

    def usual_m(self, params: Array) -> Array:
        if self.rule == "sgd":
            return np.zeros_like(params)
        return self.bias(self.b1, 0.0) * self.hessian @ params

    def at(self, s: float) -> tuple[Array, Array]:
        """A and N."""
        d = len(self.variance)
        eta = float(learning_rate_at(self.learning_rate, (self.warm_steps or 0) + s))
        q, decay = np.diag(self.scale(s)), self.weight_decay * np.eye(d)
        if self.removed:
            return -eta * (q @ self.hessian + decay), eta**2 * q @ np.diag(self.variance) @ q
        rate = 1 - self.b1
        gain = 1.0 if self.rule == "sgd" else rate  # SGD's momentum gains whole gradients
        a = np.block([[-eta * decay, -eta * q], [gain * self.hessian, -rate * np.eye(d)]])
        noise = np.zeros((2 * d, 2 * d))
        noise[d:, d:] = gain**2 * np.diag(self.variance)
        return a, noise


def _start(system: _System, mean: Numbers, covariance: Numbers | None) -> tuple[Array, Array]:
    """Mean and covariance of z at the start."""
    begin, d = np.asarray(mean, float), len(system.variance)
    if not system.removed and begin.shape == (d,):
        begin = np.concatenate([begin, system.usual_m(begin)])
    size = d if system.removed else 2 * d
    around = np.zeros((size, size)) if covariance is None else np.asarray(covariance, float)
    if begin.shape != (size,) or around.shape != (size, size):
        raise ValueError(
            f"mean of shape {np.shape(mean)} and covariance of shape {around.shape} must be those "
            f"of θ and m, {(size,)} and {(size, size)}."
        )
    if not (np.all(np.isfinite(begin)) and np.all(np.isfinite(around))):
        raise ValueError("mean and covariance must be finite.")
    return begin, around


def _solved(system: _System, mean: Array, covariance: Array, steps: Array) -> Array:
    """μ' = Aμ, C' = AC + CAᵀ + N at the given steps: rows of both."""
    from scipy.integrate import solve_ivp

    rising = steps.ndim == 1 and steps.size and steps[0] >= 0 and np.all(np.diff(steps) > 0)
    if not rising or not np.isfinite(steps[-1]):
        raise ValueError("steps must be a list of finite numbers that increase from 0 or later.")
    size = len(mean)

    def slope(s: float, y: Array) -> Array:
        (a, noise), c = system.at(s), y[size:].reshape(size, size)
        found = np.concatenate([a @ y[:size], (a @ c + c @ a.T + noise).ravel()])
        if not np.all(np.isfinite(found)):  # SciPy would look for a step short enough, for ever
            raise ValueError(f"The moments are not finite at step {s:.4g}: they diverge, or the "
                             "learning rate is not a number there.")  # fmt: skip
        return found

    begin = np.concatenate([mean, covariance.ravel()])
    # A thousandth of rtol below the largest number around: no entry is followed through its zeros.
    floor = 1e-13 * max(np.max(np.abs(begin)), np.max(system.at(steps[-1])[1]))
    span = 0.0, max(steps[-1], 1e-300)
    with np.errstate(over="ignore", invalid="ignore"):  # `slope` looks at what comes of it
        found = solve_ivp(slope, span, begin, "DOP853", steps, rtol=1e-10, atol=floor)
    if not found.success:
        raise ValueError(f"The moments cannot be followed so far: {found.message}")
    return found.y.T
