"""What tests share on JAX's side: the loss of EQUATIONS §1 and a step of Runge and Kutta."""

import jax
import jax.numpy as jnp

from .reference import CURVATURE


def ripple(x):
    """½Σhθ² + Σcos 2θ, whose gradient in NumPy is `reference.ripple_gradient`.

    Of several starts, (start, coordinate), it is the sum: coordinates do not know of each other.
    """
    return jnp.sum(CURVATURE * x**2) / 2 + jnp.sum(jnp.cos(2 * x))


def rk4_step(field, time, state, length):
    """The classical step: one of constant length needs one compilation for all runs."""

    def moved(slope, by):
        return jax.tree.map(lambda y, k: y + by * k, state, slope)

    k1 = field(time, state)
    k2 = field(time + length / 2, moved(k1, length / 2))
    k3 = field(time + length / 2, moved(k2, length / 2))
    k4 = field(time + length, moved(k3, length))
    return moved(jax.tree.map(lambda a, b, c, d: (a + 2 * (b + c) + d) / 6, k1, k2, k3, k4), length)
