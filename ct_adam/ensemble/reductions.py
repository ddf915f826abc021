"""What is kept of a lane while it runs: a maximum, a minimum, a fitted line."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree


class Line(NamedTuple):
    """Running sums of a weighted least-squares line y = slope·t + c.

    `t` is to be given around the middle of its range, so that the sums stay well conditioned.
    """

    weight: Float[Array, ""]
    t: Float[Array, ""]
    y: Float[Array, ""]
    tt: Float[Array, ""]
    ty: Float[Array, ""]

    @staticmethod
    def empty(dtype: Any) -> "Line":
        return Line(*jnp.zeros(5, dtype))

    def add(self, weight: Any, t: Any, y: Any) -> "Line":
        """Adds a point; weight 0 leaves the sums as they are, whatever y is."""
        y = jnp.where(weight > 0, y, 0)
        terms = (weight, weight * t, weight * y, weight * t * t, weight * t * y)
        return Line(*(total + term for total, term in zip(self, terms, strict=True)))

    @property
    def slope(self) -> Float[Array, ""]:
        """NaN unless two points lie apart."""
        spread = self.weight * self.tt - self.t**2
        return (self.weight * self.ty - self.t * self.y) / jnp.where(spread > 0, spread, jnp.nan)


class Reductions(NamedTuple):
    """Largest ‖u‖_∞ and loss extremes so far, and the line of ln‖u‖_∞ over the last half."""

    max_update: Float[Array, ""]
    min_loss: Float[Array, ""]
    line: Line

    @staticmethod
    def empty(dtype: Any) -> "Reductions":
        return Reductions(
            jnp.asarray(-jnp.inf, dtype), jnp.asarray(jnp.inf, dtype), Line.empty(dtype)
        )

    def see(self, size: Any, loss: Any) -> "Reductions":
        """A new largest coordinate and a new loss; NaN, once seen, stays."""
        return Reductions(
            jnp.maximum(self.max_update, size), jnp.minimum(self.min_loss, loss), self.line
        )


def largest(tree: PyTree) -> Float[Array, ""]:
    """max |x| over all entries of all leaves."""
    return jnp.max(jnp.stack([jnp.max(jnp.abs(leaf), initial=0) for leaf in jax.tree.leaves(tree)]))


def floored_log(size: Float[Array, ""]) -> Float[Array, ""]:
    """ln, between the logarithms of the smallest and the largest normal number."""
    info = jnp.finfo(size.dtype)
    return jnp.log(jnp.clip(size, info.tiny, info.max))
