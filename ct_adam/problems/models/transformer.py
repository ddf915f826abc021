"""A small decoder-only transformer over characters."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int

from ...decays import choice
from .layers import Initializer, LayerNorm, Linear, Size

WIDTHS = {"small": 32, "medium": 64}
HEAD = 16  # features a head


class Attention(eqx.Module):
    """softmax(q kᵀ / √d) v for each head of d features, every position seeing itself and the past.

    With `qk_norm` each head's queries and keys are divided by their root mean square (Henry et al.
    2020, without a gain): the logits then lie in [-√d, √d], and the matrices `query` and `key` are
    scale-invariant, head by head.
    """

    query: Float[Array, "width width"]
    key: Float[Array, "width width"]
    value: Float[Array, "width width"]
    out: Float[Array, "width width"]
    qk_norm: bool = eqx.field(static=True)
    eps: float = eqx.field(static=True)

    def __init__(self, draw: Initializer, width: int, gain: float, qk_norm: bool, eps: float):
        self.query, self.key, self.value = (draw.normal((width, width), width) for _ in range(3))
        self.out = draw.normal((width, width), width, gain)
        self.qk_norm, self.eps = qk_norm, eps

    def __call__(self, x: Float[Array, "t width"]) -> Float[Array, "t width"]:
        q, k, v = (self._heads(x @ weight) for weight in (self.query, self.key, self.value))
        if self.qk_norm:
            q, k = self._normalize(q), self._normalize(k)
        logits = jnp.einsum("qhd,khd->hqk", q, k) / HEAD**0.5
        past = np.tri(len(x), dtype=bool)
        weights = jax.nn.softmax(jnp.where(past, logits, -jnp.inf), axis=-1)
        return jnp.einsum("hqk,khd->qhd", weights, v).reshape(x.shape) @ self.out

    def _heads(self, x: Float[Array, "t width"]) -> Float[Array, "t heads d"]:
        return x.reshape(len(x), -1, HEAD)

    def _normalize(self, x: Float[Array, "t heads d"]) -> Float[Array, "t heads d"]:
        return x * lax.rsqrt(jnp.mean(x**2, -1, keepdims=True) + self.eps)


class Layer(eqx.Module):
    """x + attention(norm(x)), then x + mlp(norm(x)): normalised before, not after (Xiong et al.
    2020), so that it trains without a warm-up of the learning rate."""

    attention_norm: LayerNorm
    attention: Attention
    mlp_norm: LayerNorm
    expand: Linear
    contract: Linear

    def __init__(self, draw: Initializer, width: int, gain: float, qk_norm: bool, eps: float):
        self.attention_norm = LayerNorm(draw, width, eps)
        self.attention = Attention(draw, width, gain, qk_norm, eps)
        self.mlp_norm = LayerNorm(draw, width, eps)
        self.expand = Linear(draw, width, 4 * width)
        self.contract = Linear(draw, 4 * width, width, gain)

    def __call__(self, x: Float[Array, "t width"]) -> Float[Array, "t width"]:
        x = x + self.attention(self.attention_norm(x))
        return x + self.contract(jax.nn.gelu(self.expand(self.mlp_norm(x))))


class Transformer(eqx.Module):
    """Characters to the logits of the character that follows each.

    Learned positions, causal attention with heads of 16 features, a GELU network four times as wide
    as the residual stream, layer normalisation before each and before the (untied) output map.
    Weights ~ N(0, 1/fan-in), where a layer adds to the stream times 1/√(2 layers); embeddings
    ~ N(0, 1/2), so that their sum has variance 1. The output map ~ N(0, 1/(64 width)): the first
    logits have a variance of 1/64, so the first loss is within a per cent or two of
    ln(vocabulary), that of no knowledge.

    **Arguments:**

    - `vocabulary`: the number of distinct characters.
    - `context`: the longest sequence it takes.
    - `size`: `"small"`, width 32; `"medium"`, width 64.
    - `layers`: 1 or 2.
    - `qk_norm`: normalised queries and keys: their matrices are then scale-invariant, exactly for
        `eps = 0`.
    - `seed`: of NumPy's default generator.
    - `eps`: added to variances and mean squares.
    - `dtype`: of the parameters, JAX's default float type if None.

    **Raises:** `ValueError` for an option that does not exist, and for a sequence that is empty or
    longer than `context`.

    !!! example
        >>> import jax.numpy as jnp
        >>> model = Transformer(vocabulary=65, context=32)
        >>> model(jnp.arange(20)).shape
        (20, 65)
    """

    tokens: Float[Array, "vocabulary width"]
    positions: Float[Array, "context width"]
    blocks: tuple[Layer, ...]
    norm: LayerNorm
    head: Float[Array, "width vocabulary"]
    vocabulary: int = eqx.field(static=True)
    context: int = eqx.field(static=True)
    size: Size = eqx.field(static=True)
    layers: int = eqx.field(static=True)
    qk_norm: bool = eqx.field(static=True)

    def __init__(
        self,
        vocabulary: int,
        context: int,
        size: Size = "small",
        layers: int = 1,
        qk_norm: bool = False,
        seed: int = 0,
        *,
        eps: float = 1e-5,
        dtype: Any = None,
    ):
        choice("size", size, tuple(WIDTHS))
        if layers not in (1, 2):
            raise ValueError(f"layers = {layers!r} must be 1 or 2.")
        if vocabulary < 2 or context < 1:
            raise ValueError(
                f"vocabulary = {vocabulary} must be 2 or more, and context = {context} 1 or more."
            )
        self.vocabulary, self.context, self.size = vocabulary, context, size
        self.layers, self.qk_norm = layers, qk_norm
        draw, width, gain = Initializer(seed, dtype), WIDTHS[size], (2 * layers) ** -0.5
        self.tokens = draw.normal((vocabulary, width), 2)
        self.positions = draw.normal((context, width), 2)
        self.blocks = tuple(Layer(draw, width, gain, qk_norm, eps) for _ in range(layers))
        self.norm = LayerNorm(draw, width, eps)
        self.head = draw.normal((width, vocabulary), width, 1 / 8)

    def __call__(self, tokens: Int[Array, " t"]) -> Float[Array, "t vocabulary"]:
        """Tokens 0 … t - 1, t ≤ `context`, to the logits of tokens 1 … t."""
        if tokens.ndim != 1 or not 1 <= len(tokens) <= self.context:
            raise ValueError(
                f"tokens of shape {tokens.shape} must be one sequence of 1 to {self.context}."
            )
        x = self.tokens[tokens] + self.positions[: len(tokens)]
        for block in self.blocks:
            x = block(x)
        return self.norm(x) @ self.head
