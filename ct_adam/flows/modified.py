"""Adam without memory: the modified equation of Cattaneo, Klusowski & Shigida."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from ..decays import Scalar, Schedule, check_hyperparameters, learning_rate_at
from ..optimizers import Optimizer, adamw, normalized
from ..problems import AbstractProblem, as_problem, like
from ..problems.base import Loss
from .base import AbstractMemorylessFlow


class ModifiedFlow(AbstractMemorylessFlow):
    """θ' = -ηu per step, Adam's memory folded into a correction of order η.

        n = g/√(g² + eps)      h = ∇‖g‖_{1,eps} = H n      ‖x‖_{1,eps} = Σ√(x_i² + eps)
        u = [g + (η/2) {(1+b1)/(1-b1) - (1+b2)/(1-b2) n²} h]/√(g² + eps)

    H the Hessian; h is one Hessian-vector product. Source: Cattaneo, Klusowski & Shigida (ICML
    2024), EQUATIONS §1, whose bracket -(1+b2)/(1-b2) + (1+b2)/(1-b2)·eps/(g²+eps) is the n² term.
    Its error is O(η²) over a fixed η·steps against bias-corrected Adam with eps inside the root,
    once the start is forgotten, and only for η ≪ 1 - b2: at the default decays and η = 1e-3 the
    correction may do harm. A schedule is read at the step, its change within the memory is left
    out.

    **Arguments:**

    - `learning_rate`: η, a number or a schedule. `b1`, `b2`: decays per step in [0, 1).
    - `eps`: not negative, inside the root. With 0 the field jumps where a gradient changes sign.
    - `corrected`: False leaves out the η/2 term, u = n, an error of O(η) to judge the term by.

    **Raises:** `ValueError` for a value outside its range. The state is the parameters.

    !!! example
        >>> import jax.numpy as jnp
        >>> flow = ModifiedFlow(0.1, b1=0.5, b2=0.5, eps=0.0)
        >>> loss, start = lambda x: jnp.sum(x**2), jnp.array([1.0])
        >>> print(flow.vector_field(0, flow.init(loss, start), loss))
        [-0.1]
    """

    learning_rate: Scalar | Schedule
    b1: Scalar
    b2: Scalar
    eps: Scalar
    corrected: bool = eqx.field(static=True)

    def __init__(
        self,
        learning_rate: Scalar | Schedule,
        b1: Scalar = 0.9,
        b2: Scalar = 0.999,
        eps: Scalar = 1e-8,
        corrected: bool = True,
    ):
        self.learning_rate, self.b1, self.b2, self.eps = learning_rate, b1, b2, eps
        self.corrected = corrected
        check_hyperparameters({"learning_rate": learning_rate, "b1": b1, "b2": b2, "eps": eps})

    @property
    def evaluations(self) -> int:
        return 2 if self.corrected else 1  # a Hessian-vector product costs about a gradient

    def update(self, step: Any, state: PyTree, loss: Loss | AbstractProblem) -> PyTree:
        return self._update(step, as_problem(loss).seen(step), state, loss)

    def vector_field(self, step: Any, state: PyTree, loss: Loss | AbstractProblem) -> PyTree:
        eta = learning_rate_at(self.learning_rate, step)
        update = self._update(step, as_problem(loss).seen(step, self.lag), state, loss)
        return jax.tree.map(lambda u, p: (-eta * u).astype(p.dtype), update, state)

    def _update(self, step: Any, seen: Any, state: PyTree, loss: Loss | AbstractProblem) -> PyTree:
        def gradient(params: PyTree) -> PyTree:
            return like(as_problem(loss).gradient(seen, params), params)

        def over_root(x: jax.Array, g: jax.Array) -> jax.Array:
            return normalized(x, jnp.square(g), 0.0, self.eps)

        g = gradient(state)
        n = jax.tree.map(over_root, g, g)
        if not self.corrected:
            return n
        _, h = jax.jvp(gradient, (state,), (n,))
        half = learning_rate_at(self.learning_rate, step) / 2
        first, second = ((1 + b) / (1 - b) for b in (self.b1, self.b2))
        return jax.tree.map(
            lambda g, n, h: over_root((g + half * (first - second * n**2) * h).astype(g.dtype), g),
            g,
            n,
            h,
        )

    @property
    def optimizer(self) -> Optimizer:
        return adamw(self.learning_rate, self.b1, self.b2, eps=0.0, eps_root=self.eps)
