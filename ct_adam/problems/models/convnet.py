"""A small convolutional network, with the normalisations that make its weights scale-invariant."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Literal, get_args

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from ...decays import choice, whole_number
from .layers import (
    ACTIVATIONS,
    Activation,
    Initializer,
    Linear,
    Size,
    check_sizes,
    standardize,
)

Norm = Literal["batch", "group", "layer"]
NORMS: tuple[Any, ...] = (None, *get_args(Norm))

WIDTHS = {"small": (8, 16), "medium": (16, 32, 64)}
GROUPS = 4  # divides every width


def convolve(
    x: Float[Array, "height width inputs"], weight: Float[Array, "3 3 inputs outputs"], stride: int
) -> Float[Array, "rows columns outputs"]:
    """Cross-correlation with one ring of zeros around the image, rows = ⌈height / stride⌉.

    As one matrix product: each position's nine neighbours side by side, times the weights. Not
    `lax.conv_general_dilated`: inside a loop (the scan of `run`, the solver's while) XLA's CPU
    compiler writes convolutions as plain loops, a step of the medium network takes 36 ms there
    and 3 ms this way; and over lanes of weights a product remains a product, where a convolution
    becomes a grouped one. The price is a copy of the image nine times, small here.
    """
    height, width, _ = x.shape
    ringed = jnp.pad(x, ((1, 1), (1, 1), (0, 0)))
    neighbours = [
        ringed[i : i + height : stride, j : j + width : stride] for i in range(3) for j in range(3)
    ]
    return jnp.concatenate(neighbours, axis=-1) @ weight.reshape(-1, weight.shape[-1])


class Normalization(eqx.Module):
    """Mean 0, variance 1, then a scale and a shift a channel.

    - `"batch"`: a channel over the positions and images of the batch (Ioffe & Szegedy 2015).
    - `"group"`: four groups of channels, each over its channels and positions (Wu & He 2018).
    - `"layer"`: all channels and positions of one image together, i.e. one group.

    Batch normalisation always takes the statistics of the batch at hand. Running averages would be
    a state beside the parameters that every evaluation moves; a flow, its adaptive solver and a
    line of lanes evaluate the loss where and as often as they like, so it must be a function of the
    parameters alone.
    """

    scale: Float[Array, " channels"]
    shift: Float[Array, " channels"]
    kind: Norm = eqx.field(static=True)
    eps: float = eqx.field(static=True)

    def __init__(self, draw: Initializer, channels: int, kind: Norm, eps: float):
        self.scale, self.shift = draw.ones(channels), draw.zeros(channels)
        self.kind, self.eps = kind, eps

    def __call__(
        self, x: Float[Array, "height width channels"]
    ) -> Float[Array, "height width channels"]:
        if self.kind == "batch":
            normal = self._over_batch(x)
        else:
            groups = GROUPS if self.kind == "group" else 1
            grouped = x.reshape(*x.shape[:2], groups, -1)
            normal = standardize(grouped, (0, 1, 3), self.eps).reshape(x.shape)
        return normal * self.scale + self.shift

    def _over_batch(self, x: Array) -> Array:
        try:
            return standardize(x, (0, 1), self.eps, axis_name="batch")
        except NameError as error:  # JAX's word for an axis that nobody mapped
            raise ValueError(
                "norm = 'batch' needs the whole batch: call models.apply(model, inputs), or "
                "jax.vmap(model, axis_name='batch')(inputs)."
            ) from error


class Block(eqx.Module):
    """A convolution of stride 2, the normalisation or a bias, the activation; a residual one has
    stride 1 and adds its input."""

    weight: Float[Array, "3 3 inputs outputs"]
    bias: Float[Array, " outputs"] | None
    norm: Normalization | None
    activation: Activation = eqx.field(static=True)
    residual: bool = eqx.field(static=True)

    def __init__(
        self,
        draw: Initializer,
        inputs: int,
        outputs: int,
        norm: Norm | None,
        activation: Activation,
        eps: float,
        residual: bool = False,
    ):
        gain = ACTIVATIONS[activation][1]
        self.weight = draw.normal((3, 3, inputs, outputs), 9 * inputs, gain)
        # One or the other: a bias before a normalisation is (all but) a direction without effect.
        self.bias = draw.zeros(outputs) if norm is None else None
        self.norm = None if norm is None else Normalization(draw, outputs, norm, eps)
        self.activation, self.residual = activation, residual

    def __call__(
        self, x: Float[Array, "height width inputs"]
    ) -> Float[Array, "rows columns outputs"]:
        before = x
        x = convolve(x, self.weight, stride=1 if self.residual else 2)
        if self.bias is not None:
            x = x + self.bias
        if self.norm is not None:
            x = self.norm(x)
        x = ACTIVATIONS[self.activation][0](x)
        return before + x if self.residual else x


class ConvNet(eqx.Module):
    """3 × 3 convolutions of stride 2, a mean over positions, a linear map to the classes.

    With a normalisation the loss does not change if a block's `weight` is multiplied by a positive
    number: exactly for `eps = 0`, else up to eps / variance. These are the networks of EQUATIONS'
    scale-invariant weights. Weights ~ N(0, gain²/fan-in), biases and shifts 0, scales 1.

    **Arguments:**

    - `shape`: of one image, (height, width, channels).
    - `classes`: two or more.
    - `norm`: None, `"batch"`, `"group"` or `"layer"`. `"batch"` needs the whole batch and always
        takes its statistics: call the model through `apply`.
    - `size`: `"small"`, channels 8 and 16; `"medium"`, 16, 32 and 64.
    - `seed`: of NumPy's default generator.
    - `activation`: `"gelu"`, smooth, which an adaptive ODE solver needs; or `"relu"`, `"tanh"`.
    - `eps`: added to variances. With 0, channels that are constant give NaN.
    - `dtype`: of the parameters, JAX's default float type if None.
    - `depth`: residual blocks, x + activation(norm(convolution x)), after each convolution of
        stride 2. Without a normalisation each about doubles the variance, as in a residual network
        whose normalisation layers are taken out.

    **Raises:** `ValueError` for an option that does not exist or a shape that is none; and, called
    without a batch, where `norm="batch"`.

    !!! example
        >>> import jax.numpy as jnp
        >>> from ct_adam.problems.models import apply
        >>> model = ConvNet((8, 8, 1), classes=10, norm="batch")
        >>> apply(model, jnp.ones((5, 8, 8, 1))).shape
        (5, 10)
    """

    blocks: tuple[Block, ...]
    head: Linear
    shape: tuple[int, ...] = eqx.field(static=True)
    classes: int = eqx.field(static=True)
    norm: Norm | None = eqx.field(static=True)
    size: Size = eqx.field(static=True)
    activation: Activation = eqx.field(static=True)

    def __init__(
        self,
        shape: Sequence[int],
        classes: int,
        norm: Norm | None = None,
        size: Size = "small",
        seed: int = 0,
        *,
        activation: Activation = "gelu",
        eps: float = 1e-5,
        dtype: Any = None,
        depth: int = 0,
    ):
        choice("norm", norm, NORMS)
        choice("size", size, tuple(WIDTHS))
        choice("activation", activation, tuple(ACTIVATIONS))
        self.shape = check_sizes("shape", shape, 3)
        if len(self.shape) != 3 or classes < 2:
            raise ValueError(
                f"shape = {self.shape} must be (height, width, channels) and classes = {classes} "
                "two or more."
            )
        self.classes, self.norm, self.size, self.activation = classes, norm, size, activation
        draw = Initializer(seed, dtype)
        widths = (self.shape[-1], *WIDTHS[size])
        options = (norm, activation, eps)
        self.blocks = tuple(
            Block(draw, m if deeper else n, m, *options, residual=deeper > 0)
            for n, m in pairwise(widths)
            for deeper in range(whole_number("depth", depth, 0) + 1)
        )
        self.head = Linear(draw, widths[-1], classes)

    def __call__(self, image: Float[Array, "height width channels"]) -> Float[Array, " classes"]:
        """One image of shape `shape` to logits."""
        if image.shape != self.shape:
            raise ValueError(f"image of shape {image.shape} must be of shape {self.shape}.")
        x = image.astype(self.head.weight.dtype)
        for block in self.blocks:
            x = block(x)
        return self.head(jnp.mean(x, (0, 1)))
