"""Models against a few lines of NumPy, formulas by hand, finite differences and invariances."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import ct_adam as ct
from ct_adam.problems import as_params, data, digits_mlp
from ct_adam.problems.models import (
    MLP,
    ConvNet,
    Transformer,
    apply,
    count_parameters,
    cross_entropy,
    describe,
)
from ct_adam.problems.models.convnet import Normalization, convolve
from ct_adam.problems.models.layers import Initializer
from ct_adam.problems.models.transformer import Attention

NORMS = [None, "batch", "group", "layer"]


def classifier_loss(shape, classes=5, examples=6):
    rng = np.random.default_rng(3)
    inputs = jnp.asarray(rng.random((examples, *shape)))
    labels = jnp.asarray(rng.integers(0, classes, examples))
    return jax.jit(lambda model: cross_entropy(apply(model, inputs), labels))


def language_loss(vocabulary, context, examples=4):
    windows = jnp.asarray(np.random.default_rng(4).integers(0, vocabulary, (examples, context + 1)))
    return jax.jit(lambda model: cross_entropy(apply(model, windows[:, :-1]), windows[:, 1:]))


IMAGE, VOCABULARY, CONTEXT = (9, 8, 2), 11, 7
CLASSIFIER, LANGUAGE = classifier_loss(IMAGE), language_loss(VOCABULARY, CONTEXT)
CASES = [
    *[
        pytest.param(MLP((144, 6, 5), a, seed=1), CLASSIFIER, id=f"mlp-{a}")
        for a in ("tanh", "gelu", "relu")
    ],
    *[pytest.param(ConvNet(IMAGE, 5, norm), CLASSIFIER, id=f"conv-{norm}") for norm in NORMS],
    *[
        pytest.param(
            Transformer(VOCABULARY, CONTEXT, size, layers, qk_norm),
            LANGUAGE,
            id=f"transformer-{size}-{layers}-{qk_norm}",
        )
        for size, layers, qk_norm in [("small", 1, False), ("small", 2, True)]
    ],
]


@pytest.mark.parametrize(("model", "loss"), CASES)
def test_gradient_by_finite_differences(model, loss):
    rng = np.random.default_rng(5)
    gradient = jax.jit(jax.grad(loss))(model)
    for _ in range(3):
        direction = jax.tree.map(lambda p: rng.standard_normal(p.shape), model)

        def along(h, direction=direction):
            return loss(jax.tree.map(lambda p, d: p + h * d, model, direction))

        h = 1e-4
        # fourth order: the second order's truncation is as large as the tolerance
        slope = (8 * (along(h) - along(-h)) - (along(2 * h) - along(-2 * h))) / (12 * h)
        products = jax.tree.map(lambda g, d: jnp.sum(g * d), gradient, direction)
        np.testing.assert_allclose(slope, sum(jax.tree.leaves(products)), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(("model", "loss"), CASES)
def test_a_model_is_its_own_parameters(model, loss):
    assert jax.tree.structure(as_params(model)) == jax.tree.structure(model)
    single = jax.tree.map(lambda p: p.astype(jnp.float32), model)
    assert jax.eval_shape(loss, single).dtype == jnp.float32  # inputs are cast, not parameters
    flow = ct.AdamFlow(1e-3)
    moved = jax.eval_shape(
        lambda m: flow.params(flow.vector_field(0.5, flow.init(loss, m), loss)), model
    )
    assert jax.tree.structure(moved) == jax.tree.structure(model)


# Counts by hand, draws, types.


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize(("size", "widths"), [("small", (8, 16)), ("medium", (16, 32, 64))])
def test_convnet_count(norm, size, widths):
    expected, before = 0, 3
    for width in widths:
        expected += 9 * before * width + (width if norm is None else 2 * width)
        before = width
    expected += before * 7 + 7
    assert count_parameters(ConvNet((12, 12, 3), 7, norm, size)) == expected


@pytest.mark.parametrize(("size", "d"), [("small", 32), ("medium", 64)])
@pytest.mark.parametrize("layers", [1, 2])
def test_transformer_count(size, d, layers):
    vocabulary, context = 65, 40
    a_layer = 2 * d + 4 * d * d + 2 * d + (d * 4 * d + 4 * d) + (4 * d * d + d)
    expected = vocabulary * d + context * d + layers * a_layer + 2 * d + d * vocabulary
    for qk_norm in (False, True):  # a norm without gains
        assert count_parameters(Transformer(65, 40, size, layers, qk_norm)) == expected


def test_mlp_is_digits_mlp():
    model = MLP((64, 32, 10), seed=7)
    problem, params = digits_mlp((32,), images=50, seed=7)
    assert count_parameters(model) == 64 * 32 + 32 + 32 * 10 + 10 == count_parameters(params)
    inputs, labels = data.digits_data(50)
    loss = cross_entropy(apply(model, jnp.asarray(inputs)), jnp.asarray(labels))
    np.testing.assert_allclose(loss, problem.value(params), rtol=1e-13)


@pytest.mark.parametrize(
    "make",
    [
        lambda **kw: MLP((30, 40, 5), **kw),
        lambda **kw: ConvNet((8, 8, 1), 5, "group", **kw),
        lambda **kw: Transformer(20, 8, **kw),
    ],
)
def test_seeds_and_types(make):
    double, single = make(seed=3), make(seed=3, dtype=jnp.float32)
    for a, b in zip(jax.tree.leaves(double), jax.tree.leaves(single), strict=True):
        assert (a.dtype, b.dtype) == (jnp.float64, jnp.float32)
        np.testing.assert_allclose(a, b, rtol=1e-7)
    other = make(seed=4)
    assert any(map(jnp.any, jax.tree.leaves(jax.tree.map(lambda a, b: a != b, double, other))))
    assert describe(single).endswith(f": {count_parameters(single)} parameters, float32")
    with pytest.raises(ValueError, match="must be a floating type"):
        make(dtype=int)


# Against NumPy.


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("shape", [(6, 6), (7, 4), (1, 3)])
def test_convolution(stride, shape):
    rng = np.random.default_rng(0)
    image, weight = rng.standard_normal((*shape, 2)), rng.standard_normal((3, 3, 2, 5))
    padded = np.zeros((shape[0] + 2, shape[1] + 2, 2))
    padded[1:-1, 1:-1] = image
    expected = [
        [np.tensordot(padded[i : i + 3, j : j + 3], weight, 3) for j in range(0, shape[1], stride)]
        for i in range(0, shape[0], stride)
    ]
    found = convolve(jnp.asarray(image), jnp.asarray(weight), stride)
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("kind", ["batch", "group", "layer"])
def test_normalization(kind):
    x = 3 + np.random.default_rng(0).standard_normal((5, 4, 3, 8))
    layer = Normalization(Initializer(0), 8, kind, eps=0.1)
    layer = eqx.tree_at(lambda n: n.shift, layer, jnp.arange(8.0))
    expected = np.empty_like(x)
    for part in (
        [np.s_[..., c] for c in range(8)]
        if kind == "batch"
        else [np.s_[n, ..., 2 * g : 2 * g + 2] for n in range(5) for g in range(4)]
        if kind == "group"
        else [np.s_[n] for n in range(5)]
    ):
        expected[part] = (x[part] - x[part].mean()) / np.sqrt(x[part].var() + 0.1)
    np.testing.assert_allclose(apply(layer, jnp.asarray(x)), expected + np.arange(8), rtol=1e-11)


@pytest.mark.parametrize("qk_norm", [False, True])
def test_attention(qk_norm):
    layer = Attention(Initializer(2), 32, 0.7, qk_norm, eps=0.0)
    x = np.random.default_rng(1).standard_normal((5, 32))
    q, k, v = (x @ np.asarray(w) for w in (layer.query, layer.key, layer.value))
    mixed = np.zeros((5, 32))
    for head in (slice(0, 16), slice(16, 32)):
        for t in range(5):
            a, b = q[t, head], k[: t + 1, head]
            if qk_norm:  # cosines times √d
                a, b = (y / np.linalg.norm(y, axis=-1, keepdims=True) for y in (a, b))
                logits = 4 * b @ a
            else:
                logits = b @ a / 4
            weights = np.exp(logits) / np.exp(logits).sum()
            mixed[t, head] = weights @ v[: t + 1, head]
    np.testing.assert_allclose(layer(jnp.asarray(x)), mixed @ np.asarray(layer.out), rtol=1e-10)


def test_transformer_around_its_attention():
    model = Transformer(VOCABULARY, CONTEXT, layers=2, seed=1)
    rng = np.random.default_rng(6)  # no scale at 1, no shift at 0
    model = jax.tree.map(lambda p: p + 0.1 * rng.standard_normal(p.shape), model)
    tokens = rng.integers(0, VOCABULARY, 5)

    def norm(layer, x):
        x = (x - x.mean(1, keepdims=True)) / np.sqrt(x.var(1, keepdims=True) + 1e-5)
        return x * np.asarray(layer.scale) + np.asarray(layer.shift)

    def linear(layer, x):
        return x @ np.asarray(layer.weight) + np.asarray(layer.bias)

    x = np.asarray(model.tokens)[tokens] + np.asarray(model.positions)[:5]
    for block in model.blocks:
        x = x + np.asarray(block.attention(jnp.asarray(norm(block.attention_norm, x))))
        y = linear(block.expand, norm(block.mlp_norm, x))
        gelu = y / 2 * (1 + np.tanh(np.sqrt(2 / np.pi) * (y + 0.044715 * y**3)))
        x = x + linear(block.contract, gelu)
    expected = norm(model.norm, x) @ np.asarray(model.head)
    np.testing.assert_allclose(model(jnp.asarray(tokens)), expected, rtol=1e-10)


def test_cross_entropy():
    rng = np.random.default_rng(0)
    logits, labels = 5 * rng.standard_normal((2, 3, 4)), rng.integers(0, 4, (2, 3))
    p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    expected = -np.mean([np.log(p[i, j, labels[i, j]]) for i in range(2) for j in range(3)])
    np.testing.assert_allclose(cross_entropy(jnp.asarray(logits), labels), expected, rtol=1e-13)
    assert cross_entropy(jnp.asarray([[0.0, 1e4]]), np.array([0])) == 1e4  # no overflow
    for wrong in (-1, 4):
        assert jnp.isnan(cross_entropy(jnp.asarray(logits), np.full((2, 3), wrong)))


# What must not matter.


@pytest.mark.parametrize("qk_norm", [False, True])
def test_later_characters_do_not_matter(qk_norm):
    model = Transformer(VOCABULARY, 10, layers=2, qk_norm=qk_norm)
    tokens = jnp.asarray(np.random.default_rng(0).integers(0, VOCABULARY, 10))
    run = eqx.filter_jit(model)
    reference = run(tokens)
    for t in range(10):
        changed = run(tokens.at[t].add(1) % VOCABULARY)
        np.testing.assert_array_equal(changed[:t], reference[:t])
        assert jnp.all(jnp.any(changed[t:] != reference[t:], axis=-1))
    np.testing.assert_allclose(model(tokens[:4]), reference[:4], rtol=1e-10)  # a shorter text


def scaled(model, where, factor):
    return eqx.tree_at(where, model, factor * where(model))


@pytest.mark.parametrize("norm", ["batch", "group", "layer"])
@pytest.mark.parametrize("block", [0, 1])
def test_convolutions_before_a_norm_are_scale_invariant(norm, block):
    loss, gradient_of = CLASSIFIER, jax.jit(jax.grad(CLASSIFIER))

    def weight(model):
        return model.blocks[block].weight

    model = ConvNet(IMAGE, 5, norm, eps=0.0)
    np.testing.assert_allclose(loss(scaled(model, weight, 7.3)), loss(model), rtol=1e-12)
    gradient = weight(gradient_of(model))
    assert jnp.linalg.norm(gradient) > 1e-3
    assert abs(jnp.vdot(gradient, weight(model))) < 1e-12  # ⟨W, g⟩ = 0
    shrunk = weight(gradient_of(scaled(model, weight, 0.5)))
    np.testing.assert_allclose(shrunk, 2 * gradient, rtol=1e-8, atol=1e-12)  # g(W/2) = 2 g(W)
    # With the default eps nearly, and without a norm not at all.
    model = ConvNet(IMAGE, 5, norm)
    assert 0 < abs(loss(scaled(model, weight, 7.3)) - loss(model)) < 1e-3
    model = ConvNet(IMAGE, 5)
    assert abs(loss(scaled(model, weight, 7.3)) - loss(model)) > 1e-2


def test_qk_norm_makes_queries_and_keys_scale_invariant():
    loss, gradient_of = LANGUAGE, jax.jit(jax.grad(LANGUAGE))
    for name in ("query", "key"):

        def weight(model, name=name):
            return getattr(model.blocks[0].attention, name)

        model = Transformer(VOCABULARY, CONTEXT, qk_norm=True, eps=0.0)
        np.testing.assert_allclose(loss(scaled(model, weight, 7.3)), loss(model), rtol=1e-12)
        first_head = jnp.where(jnp.arange(32) < 16, 7.3, 1.0)  # each head on its own
        np.testing.assert_allclose(loss(scaled(model, weight, first_head)), loss(model), rtol=1e-12)
        assert abs(jnp.vdot(weight(gradient_of(model)), weight(model))) < 1e-13
        model = Transformer(VOCABULARY, CONTEXT)
        assert abs(loss(scaled(model, weight, 7.3)) - loss(model)) > 1e-4


@pytest.mark.parametrize(("size", "layers"), [("small", 1), ("medium", 2)])
def test_first_loss_is_that_of_no_knowledge(size, layers):
    for seed, (vocabulary, qk_norm) in enumerate([(65, False), (104, True)]):
        loss = language_loss(vocabulary, 32, examples=8)
        model = Transformer(vocabulary, 32, size, layers, qk_norm, seed)
        assert float(loss(model)) == pytest.approx(np.log(vocabulary), rel=0.05)


def test_convnet_learns():
    inputs, labels = map(jnp.asarray, data.images("digits", count=64))
    model = ConvNet((8, 8, 1), 10, "batch", dtype=jnp.float32)
    optimizer = optax.adam(1e-2)
    losses = ct.run(optimizer, lambda m: cross_entropy(apply(m, inputs), labels), model, 40).loss
    assert losses[-1] < losses[0] / 2


def test_transformer_learns():
    tokens, alphabet = data.text("python_topics")
    windows = jnp.asarray(tokens[: 8 * 17].reshape(8, 17))
    model = Transformer(len(alphabet), 16, qk_norm=True, dtype=jnp.float32)

    @jax.jit
    def step(model):
        value, gradient = jax.value_and_grad(
            lambda m: cross_entropy(apply(m, windows[:, :-1]), windows[:, 1:])
        )(model)
        return value, jax.tree.map(lambda p, g: p - 3e-3 * jnp.sign(g), model, gradient)

    first, model = step(model)
    for _ in range(40):
        last, model = step(model)
    assert last < first / 2


# What the caller gets wrong.


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: MLP((3,)), "sizes = "),
        (lambda: MLP((3, 0, 2)), "positive whole numbers"),
        (lambda: MLP((3, 2.5)), "positive whole numbers"),
        (lambda: MLP((3, 2), "swish"), "'tanh', 'gelu', 'relu'"),
        (lambda: ConvNet((8, 8), 10), "shape = "),
        (lambda: ConvNet((8, 8, 1, 1), 10), "height, width, channels"),
        (lambda: ConvNet((8, 8, 1), 1), "classes = 1 "),
        (lambda: ConvNet((8, 8, 1), 10, "instance"), "None, 'batch', 'group', 'layer'"),
        (lambda: ConvNet((8, 8, 1), 10, size="large"), "'small', 'medium'"),
        (lambda: ConvNet((8, 8, 1), 10)(jnp.ones((8, 8, 3))), r"must be of shape \(8, 8, 1\)"),
        (lambda: ConvNet((8, 8, 1), 10, "batch")(jnp.ones((8, 8, 1))), "needs the whole batch"),
        (lambda: Transformer(65, 8, layers=3), "layers = 3 must be 1 or 2"),
        (lambda: Transformer(65, 8, "tiny"), "'small', 'medium'"),
        (lambda: Transformer(1, 8), "vocabulary = 1 "),
        (lambda: Transformer(65, 8)(jnp.zeros(9, int)), "one sequence of 1 to 8"),
    ],
)
def test_mistakes(make, match):
    with pytest.raises(ValueError, match=match):
        make()
