"""The checker of scale invariance (EQUATIONS §3): what `find` says of losses and networks whose
invariances are known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ct_adam.problems.models import MLP, ConvNet, Transformer, apply, cross_entropy
from ct_adam.problems.networks import ImageLoss
from ct_adam.theory.scale_invariance import find


def norms(x):
    return np.sqrt(np.sum(x**2, axis=-1))


def verdicts(found):
    return [tensor.verdict for tensor in found.tensors]


X = jnp.asarray(np.random.default_rng(2).standard_normal((6, 4)))


def unit(x):
    return x / jnp.linalg.norm(x)


LOSSES = {
    # Each is a loss of a and b (4 numbers each), and what is to be said of the two.
    "one is, one is not": (lambda a, b: jnp.sum(jnp.tanh(X @ unit(a))) + b @ b, "invariant not"),
    "the pair only": (lambda a, b: jnp.sum(jnp.tanh(X @ a / jnp.linalg.norm(b))), "not not"),
    "the pair against each other": (lambda a, b: jnp.tanh(a @ a * (b @ b) + 1), "not not"),
    "a product's direction": (
        lambda a, b: jnp.sum(jnp.tanh(X @ unit(jnp.outer(a, b)) @ X[0])),
        "invariant invariant",
    ),
    "under a large constant": (lambda a, b: 1e6 + unit(a) @ X[0] + b @ X[1], "invariant not"),
    "a weak penalty": (
        lambda a, b: unit(a) @ X[0] + 1e-6 * (a @ a) + unit(b) @ X[1],
        "not invariant",
    ),
    "an eps in the root": (
        lambda a, b: a @ X[0] / jnp.sqrt(a @ a + 1e-5) + unit(b) @ X[1],
        "nearly invariant",
    ),
    "an eps beside the norm": (
        lambda a, b: a @ X[0] / (jnp.linalg.norm(a) + 1e-5) + unit(b) @ X[1],
        "nearly invariant",
    ),
    "no part of it": (lambda a, b: unit(a) @ X[0], "invariant unused"),
    "homogeneous": (lambda a, b: jnp.linalg.norm(a) * (unit(b) @ X[0]), "not invariant"),
}


@pytest.mark.parametrize("name", LOSSES)
def test_find_on_losses_with_a_known_answer(name):
    loss, expected = LOSSES[name]
    found = find(lambda p: loss(p["a"], p["b"]), {"a": X[2], "b": X[3]})
    assert verdicts(found) == expected.split()
    assert found.mask == {
        key: verdict in ("invariant", "nearly")
        for key, verdict in zip("ab", expected.split(), strict=True)
    }
    if name.startswith("an eps"):
        # Gone as α⁻² inside the root, as α⁻¹ beside the norm; corrections are of order eps.
        assert found.tensors[0].falloff == pytest.approx(2 if "root" in name else 1, abs=1e-3)


def test_find_needs_both_conditions():
    """One loss comes back at every power of two, one has its slope 0 where ‖b‖ = 1."""

    def returns(b):
        return unit(b) @ X[0] + jnp.sin(2 * jnp.pi * jnp.log2(jnp.linalg.norm(b)))

    (tensor,) = find(returns, X[2], scales=(0.5, 2.0, 4.0)).tensors
    assert tensor.verdict == "not"
    assert tensor.scaling_defect < 1e-12 < 1e-2 < tensor.radial_defect

    def rests(b):
        return unit(b) @ X[0] + jnp.log(jnp.linalg.norm(b)) ** 2

    (tensor,) = find(rests, unit(X[2]), spread=0.0, points=1).tensors
    assert tensor.verdict == "not"
    assert tensor.radial_defect < 1e-12 < 1e-2 < tensor.scaling_defect


def test_the_defect_of_an_eps_is_its_closed_form():
    """⟨W, g⟩ = (c·W) eps/S^{3/2}, S = ‖W‖² + eps; ‖g‖ by hand."""
    w, c, eps = np.array([0.3, -0.4, 1.2]), np.array([1.0, 2.0, 0.5]), 0.01
    found = find(
        lambda p: p @ jnp.asarray(c) / jnp.sqrt(p @ p + eps),
        jnp.asarray(w),
        spread=0.0,
        points=1,
        near=1.0,
    )
    s = w @ w + eps
    g = c / np.sqrt(s) - w * (c @ w) / s**1.5
    defect = abs(c @ w) * eps / s**1.5 / norms(w) / norms(g)
    (tensor,) = found.tensors
    assert tensor.radial_defect == pytest.approx(defect, rel=1e-10)
    changes = [
        abs(a * (c @ w) / np.sqrt(a**2 * (w @ w) + eps) - c @ w / np.sqrt(s)) / abs(np.log(a))
        for a in (0.5, 0.8, 1.3, 3.0)
    ]
    assert tensor.scaling_defect == pytest.approx(max(changes) / norms(w) / norms(g), rel=1e-9)
    assert tensor.verdict == "nearly"
    assert "nearly" in str(found)
    assert str(found).splitlines()[0].split()[:3] == ["tensor", "shape", "verdict"]


def test_find_slice_by_slice():
    """Rows each divided by their norm, then one with two rows divided together."""

    def loss(w):
        rows = w / jnp.linalg.norm(w, axis=1, keepdims=True)
        return jnp.sum(jnp.tanh(X[:, :3] @ rows.T) * jnp.arange(1.0, 5.0))

    def pairs(w):
        two = w.reshape(2, -1)
        return loss((two / jnp.linalg.norm(two, axis=1, keepdims=True)).reshape(4, 3) + 1)

    w = X[:4, :3]
    assert find(loss, w, axis=0).tensors[0][2::4] == ("invariant", (4, 4))
    assert find(loss, w, axis=1).tensors[0][2::4] == ("not", (0, 3))
    assert find(pairs, w, axis=0).tensors[0][2::4] == ("not", (0, 4))
    assert find(pairs, w, axis=0, block=2).tensors[0][2::4] == ("invariant", (2, 2))
    assert verdicts(find(pairs, w, axis=0, block=3)) == ["invariant"]  # does not divide: whole


def invariant_names(found, among=("invariant",)):
    return [t.name for t in found.tensors if t.verdict in among]


IMAGES = jnp.asarray(np.random.default_rng(0).standard_normal((8, 8, 8, 1)))
WEIGHTS = [".blocks[0].weight", ".blocks[1].weight"]


def image_loss(model):
    return ImageLoss(lambda p: p)(model, (IMAGES, jnp.arange(8)))


def test_find_on_batch_normalisation():
    """With eps = 0 each channel of both convolutions; nothing else of the network."""
    model = ConvNet((8, 8, 1), 10, "batch", eps=0.0)
    found = find(image_loss, model, axis=-1, points=1, scales=(0.6, 3.0))
    assert invariant_names(found) == WEIGHTS
    assert [t.slices for t in found.tensors if t.name in WEIGHTS] == [(8, 8), (16, 16)]


def test_find_on_weight_normalisation():
    model = MLP((64, 8, 10), weight_norm=True)
    found = find(image_loss, model, axis=-1, points=1, scales=(0.6, 3.0))
    assert invariant_names(found) == [".layers[0].direction", ".layers[1].direction"]
    assert [t.slices for t in found.tensors[::3]] == [(8, 8), (10, 10)]


@pytest.mark.slow
@pytest.mark.parametrize("norm", ["batch", "group", "layer", None])
def test_find_on_convolutional_networks(norm):
    exact = find(image_loss, ConvNet((8, 8, 1), 10, norm, eps=0.0))
    assert invariant_names(exact) == ([] if norm is None else WEIGHTS)
    usual = find(image_loss, ConvNet((8, 8, 1), 10, norm))
    assert invariant_names(usual, ("nearly",)) == ([] if norm is None else WEIGHTS)
    for tensor in usual.tensors:
        if tensor.verdict == "nearly":
            # eps/variance with eps = 1e-5 and variances of the order of 1.
            assert 1e-8 < tensor.radial_defect < 1e-4
            assert tensor.falloff == pytest.approx(2, abs=0.01)
    if norm in ("group", "layer"):  # of all channels together, not of each
        sliced = find(image_loss, ConvNet((8, 8, 1), 10, norm, eps=0.0), axis=-1, points=1)
        assert invariant_names(sliced) == []


@pytest.mark.slow
def test_find_on_the_transformer():
    """Two layers of four heads: the 16 query and key matrices of the paper's figure, exactly for
    eps = 0, else but for the eps; without qk_norm none."""
    windows = jnp.asarray(np.random.default_rng(0).integers(0, 20, (2, 9)))

    def loss(model):
        return cross_entropy(apply(model, windows[:, :-1]), windows[:, 1:])

    names = [f".blocks[{i}].attention.{kind}" for i in (0, 1) for kind in ("query", "key")]
    exact = find(loss, Transformer(20, 8, "medium", 2, True, eps=0.0), axis=-1, block=16, points=1)
    assert invariant_names(exact) == names
    assert [t.slices for t in exact.tensors if t.name in names] == [(4, 4)] * 4
    usual = find(loss, Transformer(20, 8, "medium", 2, True), points=1)
    assert invariant_names(usual, ("invariant", "nearly")) == names
    assert invariant_names(usual) == []
    plain = find(loss, Transformer(20, 8, "small", 1, False), points=1)
    assert invariant_names(plain, ("invariant", "nearly")) == []


def test_find_wants_float64():
    jax.config.update("jax_enable_x64", False)
    try:
        with pytest.raises(ValueError, match="jax_enable_x64"):
            find(lambda w: jnp.sum(w), jnp.ones(2))
    finally:
        jax.config.update("jax_enable_x64", True)


def test_a_loss_that_changes_without_a_gradient_is_not_unused():
    def loss(p):
        return jax.lax.stop_gradient(jnp.sum(p["hidden"] ** 2)) + jnp.sum(p["seen"] ** 2)

    found = find(loss, {"hidden": jnp.arange(1.0, 4.0), "none": jnp.ones(2), "seen": jnp.ones(2)})
    # `none` is not in the loss at all.
    assert [tensor.verdict for tensor in found.tensors] == ["not", "unused", "not"]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: find(lambda w: w.sum(), jnp.ones(2), scales=(1.0, 2.0)), "other than 1"),
        (lambda: find(lambda w: w.sum(), jnp.ones(2), scales=(2.0,)), "two different"),
        (lambda: find(lambda w: w.sum(), jnp.ones(2), points=0), "points = 0"),
        (lambda: find(lambda w: jnp.log(-jnp.sum(w**2)), jnp.ones(2)), "not finite"),
        (lambda: find("loss", jnp.ones(2)), "must be a function"),
        (lambda: find(lambda p: p, jnp.ones(2)), r"array of shape \(2,\)"),
        (lambda: find(jnp.sum, jnp.ones(2), tolerance=-1.0), "tolerance = -1.0"),
    ],
)
def test_errors(call, message):
    with pytest.raises(ValueError, match=message):
        call()
