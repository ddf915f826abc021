"""The stationary law near a minimum, where the gradient is Hθ plus noise of covariance H/b.

    g_n = Hθ_n + ζ_n,  Cov ζ = H/b,    m ← b1 m + (1−b1) g,    θ ← θ − η(Qm + λθ)

θ is the distance from the minimum, b the batch size, Q the preconditioner, symmetric and held
still; Adam-ℓ2 adds λθ to g instead. The chain is linear, so that its stationary covariance solves
a Lyapunov equation; mode by mode it has a closed form. Zhou et al. freeze Q = diag(H)^{-1/2}
(`"frozen"`). Adam divides by the root of the gradient's second moment, whose noise is H/b:
Q = √b diag(H)^{-1/2} (`"adam"`), √b times as much. Source: EQUATIONS §6; Zhou et al., "Towards
Understanding Convergence and Generalization of AdamW".
"""

from typing import Any, Literal, get_args

import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, ArrayLike, Float

from ..conventions import not_negative, positive, within
from ..decays import RATES, Rates, choice, rate

Rule = Literal["adamw", "adam_l2", "adam"]
Preconditioner = Literal["frozen", "adam"]
Matrix = Float[np.ndarray, "d d"]
RULES: tuple[Rule, ...] = get_args(Rule)
PRECONDITIONERS: tuple[Preconditioner, ...] = get_args(Preconditioner)


def stationary_variance(
    curvature: ArrayLike,
    learning_rate: ArrayLike,
    batch_size: ArrayLike,
    weight_decay: ArrayLike,
    rule: Rule = "adamw",
    b1: ArrayLike = 0.0,
    discrete: bool = False,
    *,
    preconditioner: Preconditioner | ArrayLike = "frozen",
    rates: Rates = "log",
) -> Float[Array, "..."]:
    """Stationary variance of θ in one mode of curvature h, H and Q being diagonal together.

        continuous   C = (η/2b) q²h/κ            κ = qh + λ (AdamW), q(h + λ) (Adam-ℓ2), qh (Adam)
                     AdamW with momentum: C/(1 + ηλ/a), a the moment's rate; the others: C
        discrete     C · 2(1−b1)(1+b1−b1ηλ)/[(1−b1+b1ηλ)(2(1+b1) − (1−b1)ηqh − (1+b1)ηλ)]
                     Adam, Adam-ℓ2: C/(1 − ηκ(1−b1)/(2(1+b1)));  with b1 = 0 all: C/(1 − ηκ/2)

    "Continuous" is the flow of order 1 under white noise, which has as much of it in a step as the
    chain. With q = h^{-1/2}, C is (η/2b) times 1/(√h + λ), √h/(h + λ) and 1/√h.

    **Arguments:** numbers or arrays that broadcast

    - `curvature`: h > 0. `learning_rate`: η. `batch_size`: b, of gradients a step.
    - `weight_decay`: λ. Plain Adam has none, whatever is given.
    - `rule`: `"adamw"`, `"adam_l2"` or `"adam"`. `b1`: first-moment decay in [0, 1).
    - `discrete`: the law of the chain rather than of its flow.
    - `preconditioner`: `"frozen"`: q = h^{-1/2}; `"adam"`: q = √(b/h); or q itself.
    - `rates`: of the flow, as in `ct.AdamFlow`.

    **Returns:** the variance, for the flow with derivative 0 by b1 at b1 = 0; `inf` where the chain
    is unstable, qh ≥ (1+b1)(2−ηλ)/((1−b1)η).

    **Raises:** `ValueError` for an unknown name or a value outside its range.

    !!! example
        >>> for rule in RULES:
        ...     print(f"{stationary_variance(0.01, 0.01, 10, 0.3, rule):.4e}")
        1.2500e-03
        1.6129e-04
        5.0000e-03
        >>> print(f"{stationary_variance(1.0, 0.01, 10, 0.0, preconditioner='adam'):.4e}")
        1.5811e-03
    """
    choice("rule", rule, RULES)
    choice("rates", rates, RATES)
    h, eta = positive("curvature", curvature), positive("learning_rate", learning_rate)
    batch, b1 = positive("batch_size", batch_size), _decay(b1)
    decay = not_negative("weight_decay", weight_decay)
    q = _preconditioner(h, batch, preconditioner)
    inner = q * (h + decay) if rule == "adam_l2" else q * h
    outer = decay if rule == "adamw" else jnp.zeros_like(decay)
    continuous = eta / (2 * batch) * q**2 * h / (inner + outer)
    shrink = eta * outer
    if not discrete:
        # Without a moment there is no lag. Two `where`s: its derivative by b1 would be NaN else.
        lag = jnp.where(b1 > 0, 1 / rate(jnp.where(b1 > 0, b1, 0.5), rates), 0)
        return continuous / (1 + shrink * lag)
    # One formula for all three: without outer decay it is 1/(1 − ηκ(1−b1)/(2(1+b1))).
    slack = 2 * (1 + b1) - (1 - b1) * eta * inner - (1 + b1) * shrink
    stable = slack > 0
    memory = 2 * (1 - b1) * (1 + b1 - b1 * shrink) / (1 - b1 + b1 * shrink)
    return jnp.where(stable, continuous * memory / jnp.where(stable, slack, 1), jnp.inf)


def stationary_covariance(
    hessian: Float[ArrayLike, "d d"],
    preconditioner: Preconditioner | Float[ArrayLike, "d"] | Float[ArrayLike, "d d"],
    learning_rate: float,
    batch_size: float,
    weight_decay: float,
    rule: Rule = "adamw",
    b1: float = 0.0,
    discrete: bool = False,
    *,
    noise: Float[ArrayLike, "d d"] | None = None,
    rates: Rates = "log",
) -> Matrix:
    """Stationary covariance of θ for any H and Q, by SciPy's Lyapunov solvers.

        continuous, b1 = 0    K C + C Kᵀ = η QΣQ      K = QH + λI (AdamW), Q(H + λI) (Adam-ℓ2), QH
        discrete, b1 = 0      C = (I − ηK) C (I − ηK)ᵀ + η² QΣQ

    and with momentum the same of (θ, m). For Σ = H/b and b1 = 0, AdamW and Adam have closed forms,
    H and Q commuting or not: (η/2b) K⁻¹QHQ, and (η/2b) [K(I − ηK/2)]⁻¹QHQ of the chain. Adam-ℓ2
    has them only where H and Q commute. Source: EQUATIONS §6.

    **Arguments:** as `stationary_variance`, η, b, λ and b1 being numbers

    - `hessian`: H, symmetric and positive semidefinite.
    - `preconditioner`: `"frozen"`, `"adam"` (from H's diagonal), the diagonal of Q, or a symmetric
        positive definite Q.
    - `noise`: covariance of one example's gradient, bΣ; None: H.

    **Returns:** `(d, d)` in float64.

    **Raises:** `ValueError` for an unknown name, a value outside its range, matrices that are not
    as said, and where no law is stationary: the chain or flow is unstable.

    !!! example
        >>> hessian = np.array([[2.0, 0.5], [0.5, 1.0]])
        >>> q = np.diag(hessian) ** -0.5
        >>> found = stationary_covariance(hessian, q, 0.01, 10, 0.3)
        >>> drift = q[:, None] * hessian
        >>> closed = 0.01 / 20 * np.linalg.solve(drift + 0.3 * np.eye(2), drift * q)
        >>> bool(np.allclose(found, closed, rtol=1e-12))
        True
    """
    from scipy import linalg

    h, q, sigma = _matrices(hessian, preconditioner, batch_size, noise)
    drift, push = _linear_step(h, q, learning_rate, weight_decay, rule, b1, discrete, rates)
    forcing = push @ sigma @ push.T
    eigenvalues: Any = np.linalg.eigvals(drift)
    if discrete and not np.abs(eigenvalues).max() < 1:
        raise ValueError(
            f"The chain has no stationary law, its spectral radius is "
            f"{np.abs(eigenvalues).max():.6g}: lower the learning rate, and give a positive "
            "definite Hessian or, with AdamW, a decay."
        )
    if not discrete and not eigenvalues.real.max() < 0:
        raise ValueError(
            "The flow has no stationary law, a direction does not relax: give a positive definite "
            "Hessian or, with AdamW, a decay."
        )
    solve: Any = linalg.solve_discrete_lyapunov if discrete else linalg.solve_continuous_lyapunov
    found = solve(drift, forcing if discrete else -forcing)[: len(h), : len(h)]
    return (found + found.T) / 2


def live_preconditioner(
    hessian: Float[ArrayLike, "d d"],
    learning_rate: float,
    batch_size: float,
    weight_decay: float,
    rule: Rule = "adamw",
    b1: float = 0.0,
    discrete: bool = True,
    *,
    noise: Float[ArrayLike, "d d"] | None = None,
) -> Float[np.ndarray, " d"]:
    """The diagonal of the Q at which Adam itself comes to rest, with eps = 0 and b2 → 1.

        Q_i = E[g_i²]^{-1/2},    E[g_i²] = Σ_ii + (G C(Q) G)_ii,    G = H (Adam-ℓ2: H + λI)

    To first order in η that is Σ_ii alone, `"adam"`. The spread C of the iterates adds to it, a
    share ηκ/2 in one mode: at learning rates where the chain differs from its flow, so does this.
    v averages g², not m²: momentum enters by C alone.

    **Arguments:** as `stationary_covariance`. **Returns:** `(d,)`, for its `preconditioner`.

    **Raises:** `ValueError` as `stationary_covariance`, also where the chain would be unstable
    with the Q of first order.

    !!! example
        >>> q = live_preconditioner(np.eye(1), 0.01, 10, 0.0)
        >>> print(q.round(4), np.sqrt(10).round(4))
        [3.1374] 3.1623
    """
    h, start, sigma = _matrices(hessian, "adam", batch_size, noise)
    slope = h + weight_decay * np.eye(len(h)) if rule == "adam_l2" else h
    q = np.diag(start)
    rest = (learning_rate, batch_size, weight_decay, rule, b1, discrete)
    # A larger Q makes C larger, which makes the next Q smaller: their geometric mean settles it.
    for _ in range(200):
        spread = stationary_covariance(h, q, *rest, noise=noise)
        wanted = (np.diag(sigma) + np.diag(slope @ spread @ slope)) ** -0.5
        if np.abs(wanted / q - 1).max() < 1e-12:
            return q
        q = np.sqrt(q * wanted)
    raise ValueError("No preconditioner at rest was found: lower the learning rate.")


def _decay(b1: ArrayLike) -> Array:
    return within("b1", b1, lambda x: (x >= 0) & (x < 1), "in [0, 1)")


def _preconditioner(h: Array, batch: Any, kind: Preconditioner | ArrayLike) -> Array:
    """The diagonal q of Q, h being that of H."""
    if not isinstance(kind, str):
        return positive("preconditioner", kind)
    choice("preconditioner", kind, PRECONDITIONERS)
    return jnp.sqrt(batch / h) if kind == "adam" else 1 / jnp.sqrt(h)


def _matrices(
    hessian: Any, preconditioner: Any, batch_size: float, noise: Any
) -> tuple[Matrix, Matrix, Matrix]:
    """H, Q and Σ, in float64."""
    h = _symmetric("hessian", hessian)
    single = h if noise is None else _symmetric("noise", noise, len(h))
    sigma = single / float(positive("batch_size", batch_size))
    if isinstance(preconditioner, str):
        choice("preconditioner", preconditioner, PRECONDITIONERS)
        # Of Adam it is the gradient's noise that counts, which `noise` may have changed.
        diagonal = np.diag(sigma if preconditioner == "adam" else h)
        if not np.all(diagonal > 0):
            raise ValueError("A diagonal entry is 0: give the preconditioner as numbers.")
        return h, np.diag(diagonal**-0.5), sigma
    q = _numbers("preconditioner", preconditioner)
    if q.ndim == 1:
        if len(q) != len(h):
            raise ValueError(f"preconditioner has {len(q)} numbers: give {len(h)}, or a matrix.")
        q = np.diag(q)
    q = _symmetric("preconditioner", q, len(h))
    if not np.linalg.eigvalsh(q)[0] > 0:
        raise ValueError("The preconditioner must be positive definite.")
    return h, q, sigma


def _symmetric(name: str, given: Any, size: int | None = None) -> Matrix:
    """The matrix in float64; it may lack symmetry by rounding, and semidefiniteness too."""
    matrix = _numbers(name, given)
    wanted = len(matrix) if size is None and matrix.ndim else size
    if matrix.shape != (wanted, wanted) or not matrix.size:
        raise ValueError(
            f"{name} has shape {matrix.shape}: give a square matrix"
            + (f" of {size} rows." if size else ".")
        )
    largest = np.abs(matrix).max(initial=0.0)
    if not np.isfinite(largest) or np.abs(matrix - matrix.T).max() > 1e-8 * largest:
        raise ValueError(f"{name} must be finite and symmetric.")
    if np.linalg.eigvalsh(matrix)[0] < -1e-8 * largest:
        raise ValueError(f"{name} must be positive semidefinite.")
    return (matrix + matrix.T) / 2


def _numbers(name: str, given: Any) -> np.ndarray:
    if isinstance(given, Tracer):
        raise ValueError(f"{name} is traced, and SciPy solves for numbers: call it outside jit.")
    try:
        return np.asarray(given, float)
    except (TypeError, ValueError):
        raise ValueError(f"{name} is no array of numbers, or its rows are unequal.") from None


def _linear_step(
    h: Matrix, q: Matrix, learning_rate: float, weight_decay: float, rule: Rule, b1: float,
    discrete: bool, rates: Rates,
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """A and B of z ← Az + Bζ, or of dz = Az ds + B dW: z is θ, and with momentum (θ, m)."""
    choice("rule", rule, RULES)
    choice("rates", rates, RATES)
    eta = float(positive("learning_rate", learning_rate))
    decay, b1 = float(not_negative("weight_decay", weight_decay)), float(_decay(b1))
    one = np.eye(len(h))
    slope = h + decay * one if rule == "adam_l2" else h
    leave = eta * decay * one if rule == "adamw" else 0 * one
    if not b1:
        toward = -leave - eta * q @ slope
        return (one + toward if discrete else toward), -eta * q
    if not discrete:
        a = float(rate(b1, rates))
        return np.block([[-leave, -eta * q], [a * slope, -a * one]]), np.vstack([0 * one, a * one])
    # θ moves by the new m, b1 m + (1 − b1) g.
    of_m, of_noise = (1 - b1) * slope, (1 - b1) * one
    step = np.block([[one - leave - eta * q @ of_m, -eta * b1 * q], [of_m, b1 * one]])
    return step, np.vstack([-eta * q @ of_noise, of_noise])
