"""Gradient noise: a loss whose gradients carry Gaussian noise, and how much minibatches have."""

from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree

from ..decays import whole_number
from .base import AbstractProblem, Loss, as_params, as_problem, like


class GaussianNoise(AbstractProblem):
    """A loss whose gradient at step n is ∇f(θ) + √variance · ξ_n, ξ_n standard normal.

    ξ_n is a function of the seed and n alone (JAX's generator), so that any step can be the first.
    An optimizer and an ordinary flow see these gradients, the flow ξ_{n+1} over (n, n + 1]; the
    stochastic flows (`AdamSDE` and its relatives) see ∇f and the variance, and draw Brownian paths
    from the same seed, independent of the ξ_n. Source: EQUATIONS §9 (Malladi et al., arXiv
    2205.10287), their noisy gradient oracle with a constant, diagonal covariance.

    **Arguments:**

    - `loss`: f, `params -> scalar`. `value` is f, without noise.
    - `variance`: of each coordinate of one gradient, in units of the gradient squared: a number, or
        a PyTree like the parameters or a prefix of it, or the `NoiseEstimate` of minibatches that
        `estimate_noise` gives.
    - `seed`: of the sequence, a whole number.
    - `path_seed`: of the Brownian paths, by default `seed`. With one seed and many of these, paths
        part at the end of the same warm steps.

    **Raises:** `ValueError` for a variance that is negative, not finite, no number or (at the first
    gradient) not like the parameters, for a seed that is no whole number, and for a problem that
    has no value or gradients that jump.

    !!! example
        >>> import jax.numpy as jnp
        >>> problem = GaussianNoise(lambda x: jnp.sum(x**2) / 2, variance=4.0, seed=1)
        >>> noise = [problem.gradient(n, jnp.zeros(2000)) for n in (0, 1)]
        >>> print(f"{float(jnp.std(noise[0])):.1f}", bool(jnp.any(noise[0] == noise[1])))
        2.0 False
    """

    mean: AbstractProblem
    variance: PyTree
    seed: Int[Array, ""]
    path_seed: Int[Array, ""]
    held: ClassVar[bool] = True
    has_value: ClassVar[bool] = True

    def __init__(
        self, loss: Loss | AbstractProblem, variance: PyTree, seed: Any = 0, path_seed: Any = None
    ):
        self.mean = as_problem(loss)
        if self.mean.held or not self.mean.has_value:
            raise ValueError(
                f"{type(self.mean).__name__} has no value, or noise of its own: give the mean loss "
                "(params -> scalar, or ct.problems.full_batch)."
            )
        self.variance = _checked_variance(variance)
        self.seed = _checked_seed("seed", seed)
        self.path_seed = self.seed if path_seed is None else _checked_seed("path_seed", path_seed)

    def value(self, params: PyTree) -> Float[Array, ""]:
        return self.mean.value(params)

    def gradient(self, step: Any, params: PyTree) -> PyTree:
        leaves, structure = jax.tree.flatten(params)
        key = jax.random.fold_in(_keys(self.seed)[0], jnp.asarray(step).astype(int))
        keys = structure.unflatten(jax.random.split(key, len(leaves)))
        return jax.tree.map(
            lambda g, v, k: g + jnp.sqrt(v) * jax.random.normal(k, v.shape, v.dtype),
            like(self.mean.gradient(step, params), params),
            broadcast_to_params(self.variance, params),
            keys,
        )

    @property
    def steps_available(self) -> int | None:
        return None

    @property
    def white(self) -> "WhiteNoise":
        """The same in continuous time."""
        return WhiteNoise(self.mean, self.variance, self.path_seed)


def _checked_variance(variance: Any) -> PyTree:
    if isinstance(variance, NoiseEstimate):
        variance = variance.variance
    leaves = jax.tree.leaves(variance)
    if not leaves:
        raise ValueError("variance has no number: give one, or a PyTree like the parameters.")
    for leaf in leaves:
        real = eqx.is_array_like(leaf) and not jnp.iscomplexobj(leaf)
        if not real:
            raise ValueError(f"variance holds {leaf!r}, which is no real number.")
        if not isinstance(leaf, Tracer) and not np.all((np.asarray(leaf) >= 0) & np.isfinite(leaf)):
            raise ValueError("variance must be finite and not negative.")
    return jax.tree.map(jnp.asarray, variance)


def _checked_seed(name: str, seed: Any) -> Array:
    kind = jnp.result_type(seed) if eqx.is_array_like(seed) else None
    if kind is None or not jnp.issubdtype(kind, jnp.integer) or jnp.shape(seed):
        raise ValueError(f"{name} = {seed!r} must be a whole number.")
    return jnp.asarray(seed)


class WhiteNoise(AbstractProblem):
    """What a stochastic flow sees of `GaussianNoise`: the mean gradient, and the noise's variance
    per optimizer step and seed beside it."""

    mean: AbstractProblem
    variance: PyTree
    seed: Int[Array, ""]
    held: ClassVar[bool] = False
    has_value: ClassVar[bool] = True

    def value(self, params: PyTree) -> Float[Array, ""]:
        return self.mean.value(params)

    def gradient(self, step: Any, params: PyTree) -> PyTree:
        return self.mean.gradient(step, params)

    @property
    def steps_available(self) -> int | None:
        return None

    @property
    def key(self) -> PRNGKeyArray:
        """Of the Brownian path."""
        return _keys(self.seed)[1]

    def variance_like(self, params: PyTree) -> PyTree:
        """The variance of every coordinate."""
        return broadcast_to_params(self.variance, params)


def as_white(loss: Loss | AbstractProblem) -> WhiteNoise:
    """The problem in continuous time; `ValueError` if it has no noise."""
    if isinstance(loss, WhiteNoise):
        return loss
    if not isinstance(loss, GaussianNoise):
        raise ValueError(
            "A stochastic flow needs the variance of the gradient's noise: give "
            "ct.problems.GaussianNoise(loss, variance, seed)."
        )
    return loss.white


class NoiseEstimate(NamedTuple):
    """Variance of each coordinate of a gradient, and its standard error: PyTrees like the
    parameters. `signal` is ‖mean gradient‖² less what the noise adds to it, `noise` the sum of
    the variances: √(noise/signal) is the noise-to-signal ratio."""

    variance: PyTree
    standard_error: PyTree
    signal: Float[Array, ""]
    noise: Float[Array, ""]


def estimate_noise(
    problem: AbstractProblem, params: PyTree, batches: int = 64, first: int = 0
) -> NoiseEstimate:
    """The diagonal of the covariance of a problem's gradients, from some of them.

    s², the unbiased variance over so many gradients at fixed parameters, with the standard error
    √((m₄ - s⁴(n-3)/(n-1))/n), m₄ the fourth central moment, whatever the distribution. Gradients
    are taken twice, so that only sums are kept: any number of batches fits.

    Minibatches should have `sampling="independent"`: those of one epoch, K of them, share no
    example, and are K/(K-1) times as far apart as theory assumes.

    **Arguments:**

    - `problem`: `Minibatches`, or whatever has a new gradient at every step.
    - `params`: where.
    - `batches`: n, at least 4; steps first … first + n - 1.

    **Returns:** a `NoiseEstimate`, in units of the gradient squared.

    **Raises:** `ValueError` for too few batches, more than there are, or a problem without noise.

    !!! example
        >>> import jax.numpy as jnp
        >>> noisy = GaussianNoise(lambda x: jnp.sum(x**2) / 2, variance=4.0)
        >>> found = estimate_noise(noisy, jnp.ones(1), batches=1000)
        >>> bool(abs(found.variance[0] - 4) < 3 * found.standard_error[0])
        True
    """
    batches, first = whole_number("batches", batches, 4), whole_number("first", first, 0)
    problem = as_problem(problem)
    if not problem.held:
        raise ValueError(
            f"{type(problem).__name__} has the same gradient at every step: give Minibatches."
        )
    there = problem.steps_available
    if there is not None and first + batches > there:
        raise ValueError(
            f"batches = {batches} from step {first} on are more than the {there} that there are."
        )
    return _estimate(problem, as_params(params), jnp.asarray(batches), jnp.asarray(first))


@eqx.filter_jit
def _estimate(problem: AbstractProblem, params: PyTree, n: Any, first: Array) -> NoiseEstimate:
    def mean_of(observe: Any) -> PyTree:
        def add(i: Array, total: PyTree) -> PyTree:
            gradient = like(problem.gradient(first + i, params), params)
            return jax.tree.map(jnp.add, total, observe(gradient))

        empty = jax.eval_shape(observe, params)
        zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), empty)
        return jax.tree.map(lambda x: x / n, jax.lax.fori_loop(0, n, add, zeros))

    mean = mean_of(lambda g: g)

    def powers(gradient: PyTree) -> PyTree:
        squares = jax.tree.map(lambda g, m: (g - m) ** 2, gradient, mean)
        return squares, jax.tree.map(jnp.square, squares)

    second, fourth = mean_of(powers)
    variance = jax.tree.map(lambda x: x * n / (n - 1), second)
    error = jax.tree.map(
        lambda x, v: jnp.sqrt(jnp.maximum(x - v**2 * (n - 3) / (n - 1), 0) / n), fourth, variance
    )
    noise = sum(jnp.sum(leaf) for leaf in jax.tree.leaves(variance))
    signal = sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(mean)) - noise / n
    return NoiseEstimate(variance, error, jnp.asarray(signal), jnp.asarray(noise))


def broadcast_to_params(variance: PyTree, params: PyTree) -> PyTree:
    """A number, or a prefix of the parameters' tree, as a PyTree of their shapes and types;
    `ValueError` where they do not fit."""

    def leaf(v: Array, p: Array) -> Array:
        if jnp.shape(v) not in ((), jnp.shape(p)):
            raise ValueError(
                f"variance of shape {jnp.shape(v)} does not fit parameters of shape "
                f"{jnp.shape(p)}: give a number or as many numbers, each coordinate's own."
            )
        return jnp.broadcast_to(jnp.asarray(v, jnp.result_type(p)), jnp.shape(p))

    given = jax.tree.structure(variance)
    try:
        parts = given.flatten_up_to(params)
    except ValueError:
        raise ValueError(
            f"variance is a PyTree {given} and the parameters are {jax.tree.structure(params)}: "
            "give a number, or a PyTree like the parameters."
        ) from None
    leaves = [
        jax.tree.map(lambda p, v=v: leaf(v, p), part)
        for v, part in zip(jax.tree.leaves(variance), parts, strict=True)
    ]
    return given.unflatten(leaves)


def _keys(seed: Array) -> PRNGKeyArray:
    """Two keys: of the gradients' noise, and of Brownian paths."""
    return jax.random.split(jax.random.key(seed), 2)
