"""What `meta_adaptive` sees of the scale-invariant tensors of a network that AdamW trains."""

import math
from functools import lru_cache
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

import ct_adam as ct
from ct_adam.optimizers import scale_by_stage
from ct_adam.problems import Minibatches
from ct_adam.problems.models import MLP, ConvNet
from ct_adam.problems.models.transformer import HEAD
from ct_adam.problems.networks import ImageLoss
from ct_adam.theory.invariance import blocks
from ct_adam.theory.rotation import angular_update
from ct_adam.theory.scale_invariance import ScaleInvariance, find, radial

from ._generalisation import independent
from ._kept import Arrays

B2 = 0.999
EPS = 1e-12
"""Next to nothing: an eps that is felt makes u depend on the scale of W."""
LAGS = 32
"""Past gradients are held against W for so many steps."""


class Network(NamedTuple):
    """A network in training, and which of its tensors are scale-invariant."""

    title: str
    problem: Minibatches
    params: PyTree
    found: ScaleInvariance

    @property
    def names(self) -> list[str]:
        return [t.name for t in self.found.tensors if t.verdict in ("invariant", "nearly")]


class Cut(NamedTuple):
    """A scale-invariant tensor, by its place among the leaves: whole, or cut into heads."""

    leaf: int
    heads: bool


class Model(NamedTuple):
    """`transformer`: normalised queries and keys. `convnet`, `mlp`: digits, with layer and with
    weight normalisation; each convolution, each layer's direction is then invariant as a whole."""

    kind: str
    text: str = ""
    size: Any = "small"
    layers: int = 1
    context: int = 16
    batch: int = 32

    @property
    def title(self) -> str:
        if self.kind == "transformer":
            return f"{self.size} transformer, {self.layers} layers, {self.text}"
        return f"{self.kind}, digits"

    def make(self, seed: int) -> tuple[Minibatches, PyTree]:
        if self.kind == "transformer":
            problem, params = ct.problems.text_network(
                self.text, self.layers, True, self.size, self.context, self.batch, self.batch, seed
            )
            return independent(problem, seed), params
        inputs, labels = map(np.asarray, ct.problems.images("digits"))
        if self.kind == "convnet":
            model = ConvNet(inputs.shape[1:], 10, "layer", seed=seed)
        else:
            sizes = (inputs[0].size, *(16,) * (self.layers - 1), 10)
            model = MLP(sizes, seed=seed, weight_norm=True)
        params, rebuild = ct.problems.trainable(model)
        few = (inputs[: self.batch], labels[: self.batch])  # invariance is all they are asked for
        loss = ImageLoss(rebuild)
        return Minibatches(loss, (inputs, labels), self.batch, seed, "independent", few), params


@lru_cache
def network(model: Model) -> Network:
    """With its first seed."""
    problem, params = model.make(0)
    found = find(problem.value, params, points=1, scales=(0.5, 3.0))
    return Network(model.title, problem, params, found)


def cuts_of(network: Network) -> tuple[Cut, ...]:
    """Queries and keys head by head, as the paper counts its matrices."""
    return tuple(
        Cut(i, "attention" in tensor.name)
        for i, tensor in enumerate(network.found.tensors)
        if tensor.name in network.names
    )


def names_of(network: Network, cuts: tuple[Cut, ...]) -> tuple[list[str], list[int]]:
    """Of every matrix a name and how many numbers it has."""
    names, sizes = [], []
    for cut in cuts:
        tensor = network.found.tensors[cut.leaf]
        short = tensor.name.lstrip(".").replace("blocks", "").replace(".attention", "")
        heads = tensor.shape[-1] // HEAD if cut.heads else 0
        names += [f"{short}, head {h}" for h in range(heads)] or [short]
        sizes += [math.prod(tensor.shape) // max(heads, 1)] * max(heads, 1)
    return names, sizes


def recorded(network: Network, cuts: tuple[Cut, ...], pairs: Any, b1: float, steps: int) -> Arrays:
    """Every step of every matrix, for each pair (η, λ): arrays (pair, step, matrix).

    `norm`, `update_norm`, `inner`, `cosine`: of W_n and u_{n+1}, as in `radial`; `angle`: by which
    the step turns W. For the two assumptions: `with_moment` ⟨W, m̂⟩, `along_moment` ⟨u, m̂⟩,
    `parallel` cos(u, m̂), `evenness` the mean of √v over its root mean square (1 for a scalar v),
    and `with_past`, cos(W_n, g_k) with k the last multiple of `LAGS`.
    """
    rates, decays = jnp.asarray(pairs, float).T
    found = _recorded(network.problem, network.params, cuts, rates, decays, b1, steps)
    return {name: np.asarray(values) for name, values in found.items()}


@eqx.filter_jit
def _recorded(
    problem: Minibatches,
    params: PyTree,
    cuts: tuple[Cut, ...],
    rates: Array,
    decays: Array,
    b1: float,
    steps: int,
) -> dict[str, Array]:
    stage: Any = scale_by_stage(b1, B2, EPS)

    def rows(tree: PyTree) -> list[Array]:
        leaves = jax.tree.leaves(tree)
        return [
            blocks(leaves[cut.leaf], -1 if cut.heads else None, HEAD if cut.heads else 1)
            for cut in cuts
        ]

    def lane(rate: Array, decay: Array) -> dict[str, Array]:
        def step(carry: Any, n: Array) -> Any:
            params, state, past = carry
            gradient = problem.gradient(n, params)
            update, state = stage.update(gradient, state)
            past = [
                jnp.where(n % LAGS == 0, g, p) for g, p in zip(rows(gradient), past, strict=True)
            ]
            seen = [
                _row(*row, rate, decay, 1 - b1 ** (n + 1))
                for row in zip(
                    rows(params), rows(update), rows(state.m), rows(state.v), past, strict=True
                )
            ]
            params = jax.tree.map(lambda p, u: p - rate * (u + decay * p), params, update)
            return (params, state, past), jax.tree.map(lambda *x: jnp.concatenate(x), *seen)

        none = [jnp.zeros_like(row) for row in rows(params)]
        return jax.lax.scan(step, (params, stage.init(params), none), jnp.arange(steps))[1]

    return jax.vmap(lane)(rates, decays)


def _row(
    w: Array, u: Array, m: Array, v: Array, past: Array, rate: Array, decay: Array, bias: Array
) -> dict[str, Array]:
    """Of one tensor's rows, (rows,) each."""
    seen, moment, lagged = radial(w, u, 0), radial(u, m / bias, 0), radial(w, past, 0)
    return {
        **seen._asdict(),
        "angle": angular_update(seen.norm, seen.update_norm, seen.inner, rate, decay),
        "with_moment": radial(w, m / bias, 0).inner,
        "along_moment": moment.inner,
        "parallel": moment.cosine,
        "evenness": jnp.mean(jnp.sqrt(v), -1) / jnp.sqrt(jnp.mean(v, -1)),
        "with_past": lagged.cosine,
    }


def by_lag(with_past: np.ndarray, begin: int) -> np.ndarray:
    """The mean of cos(W_n, g_{n-τ}) by τ = 0 … `LAGS` - 1 over n ≥ `begin`; steps come first."""
    n = np.arange(len(with_past))
    late = n >= begin
    return np.array([with_past[late & (n % LAGS == lag)].mean(0) for lag in range(LAGS)])
