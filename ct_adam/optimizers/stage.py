"""One stage of Adam on the discrete side: (m, v) and the update u, written once.

Every Adam-like optimizer of the package is a chain of such stages; every flow uses the same
`normalized`, so that the zero rule of EQUATIONS §0 exists once for both sides.
"""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, PyTree

from ..decays import Scalar, Schedule, is_removed, learning_rate_at

Leaf = Float[Array, "..."]


def normalized(m_hat: Leaf, v_hat: Leaf, eps: Scalar, eps_root: Scalar = 0.0) -> Leaf:
    """u = m̂/(√(v̂ + eps_root) + eps), and 0 with derivative 0 where the denominator is 0.

    The second `where` of each pair is for the derivative: without it √ and the quotient send
    NaNs through implicit solvers and gradients at any dead weight (EQUATIONS §0, Zero).

    !!! example
        >>> import jax.numpy as jnp
        >>> print(normalized(jnp.array([3.0, 0.0]), jnp.array([9.0, 0.0]), eps=0.0))
        [1. 0.]
    """
    radicand = v_hat + eps_root
    positive = ~(radicand <= 0)  # NaN stays NaN
    root = jnp.where(positive, jnp.sqrt(jnp.where(positive, radicand, 1)), 0)
    scale = root + eps
    nonzero = ~(scale <= 0)
    return jnp.where(nonzero, m_hat / jnp.where(nonzero, scale, 1), 0).astype(m_hat.dtype)


class StageState(NamedTuple):
    """Moments after `count` gradients; `None` in place of a moment whose decay is a Python 0."""

    count: Int[Array, ""]
    m: PyTree | None
    v: PyTree | None


def stage_states(optimizer_state: PyTree, stages: int) -> list[StageState]:
    """The moments in the state of `k_adam`, or of an optax chain around `scale_by_adam`.

    !!! example
        >>> import ct_adam as ct, jax.numpy as jnp
        >>> state = ct.k_adam(1e-2, (0.9, 0.8), (0.99, 0.9)).init(jnp.ones(2))
        >>> print([stage.m for stage in stage_states(state, 2)])
        [Array([0., 0.], dtype=float64), Array([0., 0.], dtype=float64)]
    """

    def is_stage(node: Any) -> bool:
        return isinstance(node, StageState | optax.ScaleByAdamState)

    found = [
        node if isinstance(node, StageState) else StageState(node.count, node.mu, node.nu)
        for node in jax.tree.leaves(optimizer_state, is_leaf=is_stage)
        if is_stage(node)
    ]
    if len(found) != stages:
        raise ValueError(
            f"The optimizer state holds {len(found)} stages of moments, {stages} are wanted: give "
            "the state of flow.optimizer or ct.k_adam (or of optax.adam for one stage)."
        )
    return found


def averaged(b: Scalar, moment: PyTree | None, sample: PyTree) -> PyTree | None:
    """b·moment + (1 - b)·sample, leaf by leaf; None where the moment is removed.

    The summands stand in optax's order: compilers fuse one product into the sum, and which one
    decides the last bit of k_adam's step against optax.adamw's.

    !!! example
        >>> import jax.numpy as jnp
        >>> print(averaged(0.75, jnp.array([4.0, 0.0]), jnp.array([0.0, 8.0])))
        [3. 2.]
    """
    if is_removed(b):
        return None
    return jax.tree.map(lambda x, y: ((1 - b) * y + b * x).astype(x.dtype), moment, sample)


def scale_by_stage(
    b1: Scalar, b2: Scalar, eps: Scalar, eps_root: Scalar = 0.0, further: bool = False
) -> optax.GradientTransformation:
    """m ← b1 m + (1 - b1) g, v ← b2 v + (1 - b2) g², u = m̂/(√(v̂ + eps_root) + eps).

    `further`: the stage follows another, whose u is its g.

    The hats divide by 1 - bⁿ. Source: EQUATIONS §1 and §4 (one stage of k-Adam). Moments keep the
    dtype of their parameter, whatever the gradient's; v is |g|² and real where g is complex.

    **Raises:** at `init`, `ValueError` for parameters that are not floating-point numbers.

    !!! example
        >>> import jax.numpy as jnp
        >>> stage = scale_by_stage(0.9, 0.999, eps=0.0)
        >>> g = jnp.array([3.0, -0.2])
        >>> u, state = stage.update(g, stage.init(g))
        >>> print(u.round(6))  # the first update is the sign
        [ 1. -1.]
    """

    def init(params: PyTree) -> Any:
        for leaf in jax.tree.leaves(params):
            _check_dtype(leaf)
        m = None if is_removed(b1) else jax.tree.map(jnp.zeros_like, params)
        v = None if is_removed(b2) else jax.tree.map(lambda p: jnp.zeros_like(p).real, params)
        return StageState(jnp.zeros([], jnp.int32), m, v)

    def update(updates: PyTree, state: Any, params: PyTree | None = None) -> Any:
        del params
        if further and jax.default_backend() == "cpu":
            # Else XLA divides and takes roots for u anew wherever it is used: 1.6 times the time
            # of a step of two stages on 10⁷ parameters (benchmarks/optimizer.py). Elsewhere memory
            # is what counts, and this sends u through it.
            updates = jax.tree.map(jax.lax.optimization_barrier, updates)
        m_hat, v_hat, state = corrected_moments(b1, b2, state, updates)
        update = jax.tree.map(lambda x, y: normalized(x, y, eps, eps_root), m_hat, v_hat)
        return update, state

    return optax.GradientTransformation(init, update)


def corrected_moments(
    b1: Scalar, b2: Scalar, state: StageState, gradient: PyTree
) -> tuple[PyTree, PyTree, StageState]:
    """m̂, v̂ and the state after one more gradient; a removed moment's hat is g or g² itself."""
    count = jnp.asarray(optax.safe_increment(state.count))
    squares = jax.tree.map(_squared, gradient)
    m, v = averaged(b1, state.m, gradient), averaged(b2, state.v, squares)
    # optax's own correction, not 1 - b**count here: outside jit the two round b**count
    # differently, which 1 - b**count enlarges (80 ulp of u in float64).
    m_hat = gradient if m is None else optax.tree.bias_correction(m, b1, count)
    v_hat = squares if v is None else optax.tree.bias_correction(v, b2, count)
    return m_hat, v_hat, StageState(count, m, v)


def _check_dtype(leaf: Any) -> None:
    dtype = jnp.result_type(leaf)
    if not jnp.issubdtype(dtype, jnp.inexact):
        raise ValueError(
            f"A parameter has dtype {dtype}: Adam takes floating-point numbers. Keep other leaves "
            "from it, by optax.masked or equinox.partition."
        )


def _squared(g: Leaf) -> Leaf:
    """|g|², real: g² for real g."""
    return g.real**2 + g.imag**2 if jnp.iscomplexobj(g) else jnp.square(g)


def map_moments(leaf: Any, inputs: PyTree, m: PyTree | None, v: PyTree | None) -> PyTree:
    """`leaf(x, m, v)` over the leaves of `inputs`, with None for a removed moment.

    !!! example
        >>> print(map_moments(lambda x, m, v: (x, m, v), {"w": 1.0}, {"w": 2.0}, None))
        {'w': (1.0, 2.0, None)}
    """
    leaves, structure = jax.tree.flatten(inputs)

    def of(moment: PyTree | None) -> list[Any]:
        return [None] * len(leaves) if moment is None else structure.flatten_up_to(moment)

    return structure.unflatten(map(leaf, leaves, of(m), of(v)))


def decays_where(mask: Any, params: PyTree) -> PyTree:
    """A boolean a leaf of `params`, from a mask as optax takes it: None (all), a function of the
    parameters, or a PyTree that may be a prefix of them."""
    mask = mask(params) if callable(mask) else mask
    mask = True if mask is None else mask
    return jax.tree.map(lambda m, part: jax.tree.map(lambda _: m, part), mask, params)


class UpdateRule(eqx.Module):
    """How the update u is read off a parameter step Δθ: u = -c Δθ/η(n) - λθ_n (DESIGN).

    c = 1 + ηλ for a proximal optimizer (AdamProx), 1 otherwise. Where η(n) = 0 no step tells u: it
    is given as 0.
    """

    learning_rate: Scalar | Schedule
    weight_decay: Scalar = 0.0
    mask: Any = None
    proximal: bool = eqx.field(static=True, default=False)

    def update(self, step: Any, params: PyTree, delta: PyTree) -> PyTree:
        """u, a PyTree like `params`; `step` counts from the start of the schedule."""
        eta = learning_rate_at(self.learning_rate, step)
        factor = 1 + eta * self.weight_decay if self.proximal else 1
        moves = jnp.asarray(eta) != 0
        scale = factor / jnp.where(moves, eta, 1)

        def leaf(p: Leaf, d: Leaf, decays: bool) -> Leaf:
            decay = self.weight_decay * p if decays else 0
            return jnp.where(moves, -d * scale - decay, 0).astype(p.dtype)

        return jax.tree.map(leaf, params, delta, decays_where(self.mask, params))


class Optimizer(optax.GradientTransformationExtraArgs):
    """An optax transformation of ours, that also knows its update rule and hyperparameters.

    A NamedTuple, as optax wants it: it goes wherever an optax transformation goes.
    """

    rule: UpdateRule
    hyperparameters: dict[str, Any]

    @classmethod
    def make(
        cls,
        transformation: optax.GradientTransformation,
        rule: UpdateRule,
        hyperparameters: dict[str, Any],
    ) -> "Optimizer":
        extra = optax.with_extra_args_support(transformation)
        self = cls(extra.init, extra.update)
        self.rule = rule
        self.hyperparameters = hyperparameters
        return self
