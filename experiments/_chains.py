"""Chains with the preconditioner held, and their stationary laws (EQUATIONS §6)."""

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from ct_adam import theory
from ct_adam.theory.stationary import Rule

BATCH = 10.0
"""b of the gradients' covariance H/b."""
FORGOTTEN = 1e-4
"""Of the start; of its square, 1e-8, the variance."""


class Chain(NamedTuple):
    """θ ← θ − η(Qm + λθ), m ← b1 m + (1−b1)(Hθ + ζ), Cov ζ = H/`BATCH`, as a lane."""

    rule: Rule
    b1: float
    weight_decay: float
    learning_rate: float
    hessian: np.ndarray
    q: np.ndarray

    def step(self, theta: np.ndarray, m: np.ndarray, noise: Any) -> tuple[np.ndarray, np.ndarray]:
        """Of many replicas, (d, replicas)."""
        gradient = self.hessian @ theta + noise
        if self.rule == "adam_l2":
            gradient += self.weight_decay * theta
        m = self.b1 * m + (1 - self.b1) * gradient
        decay = self.weight_decay if self.rule == "adamw" else 0.0
        return (1 - self.learning_rate * decay) * theta - self.learning_rate * self.q @ m, m

    @property
    def steps(self) -> int:
        """In which any start is forgotten."""
        theta, m, steps = np.eye(len(self.q)), np.zeros_like(self.q), 0
        while max(np.abs(theta).max(), self.learning_rate * np.abs(self.q @ m).max()) > FORGOTTEN:
            theta, m = self.step(theta, m, 0.0)
            steps += 1
        return steps

    def simulated(self, replicas: int, rng: np.random.Generator) -> Float[np.ndarray, "d d"]:
        """Covariance over replicas when θ = m = 0 is forgotten. The mean is known: 0."""
        theta = m = np.zeros((len(self.q), replicas))
        root = np.linalg.cholesky(self.hessian / BATCH)
        for _ in range(self.steps):
            theta, m = self.step(theta, m, root @ rng.standard_normal(theta.shape))
        return theta @ theta.T / replicas

    def law(self, discrete: bool = True, **other: Any) -> Float[np.ndarray, "d d"]:
        """The theory's covariance; `other` fields of a wrong one."""
        rule, b1, decay, eta, hessian, q = self._replace(**other)
        return theory.stationary_covariance(hessian, q, eta, BATCH, decay, rule, b1, discrete)


def chain_at(rule: Rule, b1: float, decay: float, part: float, hessian: np.ndarray) -> Chain:
    """With Zhou's Q, and η that part of where the chain becomes unstable: at b1 = 0 one quarter is
    ηκ = ½."""
    q = np.diag(np.diag(hessian) ** -0.5)
    slope = hessian + decay * np.eye(len(q)) if rule == "adam_l2" else hessian
    # Q·slope is similar to a symmetric matrix.
    inner = np.linalg.eigvals(q @ slope).real.max()
    outer = decay if rule == "adamw" else 0.0
    edge = 2 * (1 + b1) / ((1 - b1) * inner + (1 + b1) * outer)
    return Chain(rule, b1, decay, part * edge, hessian, q)


def stable_without_momentum(chain: Chain) -> bool:
    """Whether without momentum there is a law at all."""
    one = chain._replace(b1=0.0)
    return bool(np.abs(np.linalg.eigvals(_drift(one))).max() < 1)


def _drift(chain: Chain) -> np.ndarray:
    """Of one step without noise or momentum."""
    return chain.step(np.eye(len(chain.q)), np.zeros_like(chain.q), 0.0)[0]


def commuting(chain: Chain) -> np.ndarray:
    """Of Adam-ℓ2 the closed form that would hold if Q and H commuted; of the others, whose closed
    form asks for no commuting, that of H's diagonal alone."""
    if chain.rule != "adam_l2":
        return chain.law(hessian=np.diag(np.diag(chain.hessian)))
    # ηK = I − drift, so that (η/2b)[K(I − ηK/2)]⁻¹QHQ is this; made symmetric.
    move = np.eye(len(chain.q)) - _drift(chain)
    noise = chain.learning_rate**2 / (2 * BATCH) * chain.q @ chain.hessian @ chain.q
    found = np.linalg.solve(move @ (np.eye(len(move)) - move / 2), noise)
    return (found + found.T) / 2
