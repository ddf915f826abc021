"""k-Adam as a citizen of optax (EQUATIONS §4).

`test_optimizers.py` has the one stage, torch's trajectories and NumPy's three stages;
`test_k_adam_decays.py`, `test_k_adam_bounds.py` and `test_k_adam_flows.py` the rest of k-Adam.
"""

import io
import os
import pickle
import subprocess
import sys

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import serialization

import ct_adam as ct

from . import reference
from .reference import Hyper

ULP = np.finfo(float).eps


def dtypes(tree):
    return [leaf.dtype for leaf in jax.tree.leaves(tree)]


def assert_same_tree(ours, theirs):
    """Bitwise, types included."""
    assert jax.tree.structure(ours) == jax.tree.structure(theirs)
    assert dtypes(ours) == dtypes(theirs)
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)


# ---- k = 1 is optax.adamw ------------------------------------------------------------------------

MIXED = {"a": np.ones(6, np.float32), "b": [np.ones(6), np.ones(6, np.float32)]}


def random_like(tree, rng):
    return jax.tree.map(lambda x: np.asarray(rng.standard_normal(x.shape), x.dtype), tree)


def assert_equal_runs(ours, theirs, steps, compiled):
    """Each from its own state; the gradient depends on the parameters."""
    rng = np.random.default_rng(0)
    params = [jax.tree.map(jnp.asarray, MIXED)] * 2
    states = [optimizer.init(p) for optimizer, p in zip((ours, theirs), params, strict=True)]
    updates = [jax.jit(o.update) if compiled else o.update for o in (ours, theirs)]
    for _ in range(steps):
        noise = random_like(MIXED, rng)
        for i in (0, 1):
            grads = jax.tree.map(lambda p, z: p + z, params[i], noise)
            change, states[i] = updates[i](grads, states[i], params[i])
            params[i] = optax.apply_updates(params[i], change)
    assert_same_tree(*params)


ADAMW = {
    "plain": {"learning_rate": 1e-2},
    "all": {
        "learning_rate": optax.cosine_decay_schedule(1e-2, 1000),
        "eps": 1e-6,
        "eps_root": 1e-7,
        "weight_decay": 0.1,
        "mask": lambda p: {"a": True, "b": [False, True]},
    },
}


@pytest.mark.parametrize(
    ("case", "compiled", "steps"),
    [
        ("all", True, 1000),
        ("all", False, 15),
        pytest.param("plain", True, 1000, marks=pytest.mark.slow),
        pytest.param("plain", False, 1000, marks=pytest.mark.slow),
        pytest.param("all", False, 1000, marks=pytest.mark.slow),
    ],
)
def test_one_stage_is_adamw_bitwise(case, compiled, steps):
    # The same operations in the same order: no bit may differ, step by step, in jit and out of it.
    options = {"b1": 0.8, "b2": 0.99, "weight_decay": 0.0, **ADAMW[case]}
    assert_equal_runs(ct.k_adam(**options), optax.adamw(**options), steps, compiled)


@pytest.mark.parametrize("dtype", [np.float32, pytest.param(np.float64, marks=pytest.mark.slow)])
def test_one_stage_is_adamw_to_one_ulp_where_compilers_fuse_it(dtype):
    """optax in one `scan` of 1000 steps; ours at each of its states, all at once.

    Within larger programs XLA fuses products into sums where it likes, so bits may differ: those of
    m, v and θ by one rounding each.
    """
    theirs = optax.adamw(1e-2, 0.9, 0.999, weight_decay=0.0)
    ours = ct.k_adam(1e-2, 0.9, 0.999)
    noise = jnp.asarray(np.random.default_rng(1).standard_normal((1000, 8)), dtype)
    params = jnp.ones(8, dtype)

    def step(carry, z):
        p, state = carry
        updates, after = theirs.update(p + z, state, p)
        return (optax.apply_updates(p, updates), after), (p, state)

    (last, _), (before, states) = jax.lax.scan(step, (params, theirs.init(params)), noise)
    adam = states[0]

    @jax.jit
    @jax.vmap
    def at(p, count, m, v, z):
        state = ours.init(p)
        state = (state[0]._replace(count=count, m=m, v=v), *state[1:])
        return optax.apply_updates(p, ours.update(p + z, state, p)[0])

    after = at(before, adam.count, adam.mu, adam.nu, noise)
    path = np.concatenate([before[1:], last[None]])
    # m is good to an ulp of its larger summand, M ≤ max(b1|m|, (1-b1)|g|), which the learning rate
    # and √v̂ carry into θ: η ulp(M)/(B1 √v̂), < 1e-2 · ulp(1) · 10 as |u| < 7.3 (EQUATIONS §2).
    largest = np.maximum(np.abs(before), np.abs(path))
    assert np.all(np.abs(after - path) <= np.spacing(largest) + 0.1 * np.finfo(dtype).eps)


# ---- several stages against NumPy ----------------------------------------------------------------

CASES = {
    "2": ((0.9, 0.5), (0.99, 0.8), {}),
    "2-meta": (*ct.k_adam_decays(2, strategy="meta"), {"eps": 0.0}),
    "3": (*ct.k_adam_decays(3), {"decay": "l2", "eps_root": 1e-4}),
    "5": (*ct.k_adam_decays(5, 0.9, 0.99, "lag_split"), {"weight_decay": 0.0}),
}


@pytest.mark.parametrize("case", CASES)
def test_stages_against_numpy(case):
    b1, b2, options = CASES[case]
    options = {"eps": 1e-3, "weight_decay": 0.1, **options}
    path = reference.adam_run(
        reference.ripple_gradient, reference.BEGIN, 40, Hyper(0.01, b1, b2, **options)
    )[2]
    optimizer = ct.k_adam(0.01, b1, b2, **options)
    step = jax.jit(optimizer.update)
    params = jnp.asarray(reference.BEGIN)
    state = optimizer.init(params)
    for n in range(40):
        # NumPy's gradient at NumPy's iterate: both runs see the same numbers.
        grads = reference.ripple_gradient(n, path.params[n])
        if options.get("decay") == "l2":
            grads = grads + 0.1 * (path.params[n] - params)  # the path of the inside decay too
        updates, state = step(grads, state, params)
        params = optax.apply_updates(params, updates)
    # 40 steps of k quotients of a few ulp each in u ≤ 10, times η.
    np.testing.assert_allclose(params, path.params[40], rtol=0, atol=40 * 5 * 40 * ULP * 0.01)


@pytest.mark.parametrize("eps", [0.0, 1e-8])
def test_a_gradient_that_is_nan_is_not_hidden(eps):
    """u = 0 only where v = 0 (EQUATIONS §0): the zero rule must not freeze a broken coordinate."""
    optimizer, params = ct.k_adam(0.1, (0.9, 0.9), (0.99, 0.99), eps=eps), jnp.ones(3)
    updates, _ = optimizer.update(jnp.array([jnp.nan, 0.0, 1.0]), optimizer.init(params), params)
    assert np.isnan(updates).tolist() == [True, False, False]
    assert updates[1] == 0


# ---- optax's generic checks, as ours -------------------------------------------------------------


def targets(dtype):
    """optax's parabola and Rosenbrock function: start, end, objective."""
    a = jnp.asarray(1 + 1j if jnp.issubdtype(dtype, jnp.complexfloating) else 1, dtype)

    def square(z):
        return (z * z.conj()).real

    end = jnp.array([1, -1, 1], dtype) * a
    return {
        "parabola": (jnp.array([-1, 10, 1], dtype), end, lambda x: jnp.sum(square(x - end))),
        "rosenbrock": (
            jnp.zeros(2, dtype),
            jnp.array([a, a**2]),
            lambda x: square(a - x[0]) + 100 * square(x[1] - x[0] ** 2),
        ),
    }


def distances(dtype, ks, names, learning_rate):
    """How far from the end 10 000 steps with a rate that falls to 0 leave each k on each target."""
    goals = targets(dtype)
    cases = [
        (ct.k_adam(optax.cosine_decay_schedule(learning_rate, 10_000), *ct.k_adam_decays(k)), name)
        for k in ks
        for name in names
    ]

    def body(_, carried):
        after = []
        for (optimizer, name), (params, state) in zip(cases, carried, strict=True):
            grads = jax.tree.map(jnp.conj, jax.grad(goals[name][2])(params))
            updates, state = optimizer.update(grads, state, params)
            after.append((optax.apply_updates(params, updates), state))
        return after

    start = [(goals[name][0], optimizer.init(goals[name][0])) for optimizer, name in cases]
    ended = jax.jit(lambda carried: jax.lax.fori_loop(0, 10_000, body, carried))(start)
    assert dtypes(ended) == dtypes(start)
    return [
        float(jnp.max(jnp.abs(params - goals[name][1])))
        for (_, name), (params, _) in zip(cases, ended, strict=True)
    ]


@pytest.mark.parametrize(
    ("dtype", "ks", "names", "learning_rate"),
    [
        pytest.param(jnp.float32, (1, 2, 3), ("parabola", "rosenbrock"), 1e-2, id="float32"),
        # A step of 1e-2 is less than half an ulp of the start, 10. No Rosenbrock: its valley is
        # narrower than an ulp. No k = 1: b2 is 1 in bfloat16, √v only grows, and it stops at 5e-2
        # as optax.adamw does.
        pytest.param(
            jnp.bfloat16, (2, 5), ("parabola",), 1e-1, id="bfloat16", marks=pytest.mark.slow
        ),
        *(
            pytest.param(dtype, ks, names, rate, id=name, marks=pytest.mark.slow)
            for name, dtype, ks, names, rate in (
                ("float16", jnp.float16, (1, 2, 3, 5), ("parabola",), 1e-1),
                ("float64", jnp.float64, (1, 2, 3), ("parabola", "rosenbrock"), 1e-2),
                ("complex64", jnp.complex64, (1,), ("parabola", "rosenbrock"), 1e-2),
                ("complex64-k", jnp.complex64, (2, 3, 5), ("parabola",), 1e-2),
            )
        ),
    ],
)
def test_parabola_and_rosenbrock_converge(dtype, ks, names, learning_rate):
    # optax's own tolerance. At a constant rate only k = 1 settles: later stages normalise what
    # shrinks, so updates stay of size 1 however near the end is, as those of sign descent do.
    found = distances(dtype, ks, names, learning_rate)
    print(dict(zip([(k, n) for k in ks for n in names], found, strict=True)))
    assert max(found) < 3e-2


@pytest.mark.parametrize(
    "dtype",
    [
        jnp.bfloat16,
        *(
            pytest.param(dtype, marks=pytest.mark.slow)
            for dtype in (jnp.float16, jnp.float32, jnp.float64)
        ),
    ],
)
def test_state_has_the_dtype_of_the_parameters(dtype):
    params = jnp.ones(2, dtype)
    for learning_rate in (0.1, jnp.asarray(0.1, dtype), optax.constant_schedule(0.1)):
        ours, theirs = ct.k_adam(learning_rate, 0.9, 0.999), optax.adamw(learning_rate)
        changed, state = ours.update(params, ours.init(params), params)
        their_change, their_state = theirs.update(params, theirs.init(params), params)
        assert changed.dtype == their_change.dtype == dtype
        assert dtypes(state) == dtypes(their_state)
    # Gradients of another precision leave it as it was: a `scan` could not carry it otherwise.
    for grads in (params.astype(jnp.float32), params.astype(jnp.bfloat16)):
        optimizer = ct.k_adam(0.1)
        before = optimizer.init(params)
        assert dtypes(optimizer.update(grads, before, params)[1]) == dtypes(before)


def test_complex_moments_are_those_of_the_modulus():
    # |u| = 1 in the first step, along the gradient; v is real.
    optimizer = ct.k_adam(0.1, eps=0.0)
    grads = jnp.array([3 + 4j, 0, -2j])
    updates, state = jax.jit(optimizer.update)(grads, optimizer.init(grads), grads)
    np.testing.assert_allclose(updates, [-0.06 - 0.08j, 0, 0.1j], atol=4 * ULP)
    assert state[0].v.dtype == np.float64
    np.testing.assert_allclose(state[0].v, 1e-3 * np.array([25, 0, 4]), rtol=1e-12)


def test_integers_are_refused_and_can_be_left_out():
    params = {"w": jnp.ones(2), "epoch": jnp.array(3)}
    with pytest.raises(ValueError, match="int64: Adam takes floating-point"):
        ct.k_adam(0.1).init(params)
    masked = optax.masked(ct.k_adam(0.1), {"w": True, "epoch": False})
    updates, _ = masked.update(params, masked.init(params), params)
    np.testing.assert_allclose(updates["w"], -0.1, rtol=1e-7)


def test_trees_without_leaves_and_with_none():
    optimizer = ct.k_adam(0.1, weight_decay=0.1)
    everything = jnp.zeros((0, 3)), jnp.ones(()), {"a": None, "b": (jnp.ones(2), None)}
    for params in ({}, [], everything):
        updates, state = jax.jit(optimizer.update)(params, optimizer.init(params), params)
        assert jax.tree.structure(updates) == jax.tree.structure(params)
        assert dtypes(state) == dtypes(optimizer.init(params))


# ---- inside optax --------------------------------------------------------------------------------

# One shape in most tests: outside jit every operation is compiled once a shape.
PARAMS = {"w": jnp.array([1.0, 3.0]), "b": jnp.array([-2.0, 0.5])}
GRADS = [
    jax.tree.map(lambda p, r=r: jnp.asarray(r.standard_normal(p.shape)), PARAMS)
    for r in map(np.random.default_rng, range(4))
]
OURS = ct.k_adam(0.1, (0.9, 0.5), (0.99, 0.9), weight_decay=0.1)


def after(optimizer, grads, params=PARAMS):
    state = optimizer.init(params)
    for g in grads:
        updates, state = optimizer.update(g, state, params)
        params = optax.apply_updates(params, updates)
    return params


def test_chained_and_wrapped():
    plain = after(OURS, GRADS)
    halved = [jax.tree.map(lambda g: g / 2, g) for g in GRADS]
    assert_same_tree(after(optax.chain(optax.scale(0.5), OURS), GRADS), after(OURS, halved))
    # One vector of four numbers: other vector instructions, an ulp.
    flat = after(optax.flatten(OURS), GRADS)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=16 * ULP), flat, plain)
    state = OURS.init(PARAMS)
    assert_same_tree(optax.tree.map_params(OURS, lambda x: x, state), state)
    # As optax wants it of all: unknown extra arguments pass by.
    updates = OURS.update(GRADS[0], state, PARAMS, value=1.0)[0]
    assert_same_tree(updates, OURS.update(GRADS[0], state, PARAMS)[0])


@pytest.mark.slow
def test_wrapped_where_optax_compiles():
    # Compiled, where bits may differ (see above), by an ulp or two of θ ≤ 4 a step.
    doubled = [g for g in GRADS for _ in (0, 1)]  # the mean of a pair of equals is exact
    pairs = optax.MultiSteps(OURS, 2, accumulator_dtype=jnp.float64)  # float32 by default
    for end in (after(optax.apply_if_finite(OURS, 1), GRADS), after(pairs, doubled)):
        jax.tree.map(
            lambda x, y: np.testing.assert_allclose(x, y, rtol=0, atol=4 * 8 * ULP),
            end,
            after(OURS, GRADS),
        )


def test_multi_transform():
    split = optax.multi_transform({"k": OURS, "sgd": optax.sgd(0.1)}, {"w": "k", "b": "sgd"})
    found = after(split, GRADS)
    assert_same_tree(found["w"], after(OURS, [g["w"] for g in GRADS], PARAMS["w"]))
    assert_same_tree(found["b"], after(optax.sgd(0.1), [g["b"] for g in GRADS], PARAMS["b"]))


@pytest.mark.parametrize(
    "mask",
    [{"w": True, "b": False}, lambda p: {name: name == "w" for name in p}],
    ids=["a tree", "a function"],
)
def test_mask(mask):
    masked = ct.k_adam(0.1, (0.9, 0.5), (0.99, 0.9), weight_decay=0.1, mask=mask)
    found, bare = after(masked, GRADS), ct.k_adam(0.1, (0.9, 0.5), (0.99, 0.9))
    assert_same_tree(found, {"w": after(OURS, GRADS)["w"], "b": after(bare, GRADS)["b"]})
    # The rule reads the same u off a step whatever decays.
    state = masked.init(PARAMS)
    delta = masked.update(GRADS[0], state, PARAMS)[0]
    u = masked.rule.update(0, PARAMS, delta)
    jax.tree.map(lambda x, g: np.testing.assert_allclose(x, np.sign(g), rtol=1e-6), u, GRADS[0])


def test_injected_hyperparameters_that_change():
    """Learning rate, decay and each stage's b by schedules, against NumPy with those of the step.

    The bias factor is 1 - bⁿ with the b of step n: optax's own way, asserted so.
    """

    def b1_at(n):
        return jnp.array([0.9, 0.5]) + 0.02 * n

    optimizer = optax.inject_hyperparams(ct.k_adam)(
        learning_rate=lambda n: 0.1 / (1 + n),
        b1=b1_at,
        b2=np.array([0.99, 0.9]),
        weight_decay=lambda n: 0.1 * n,
    )
    params, grads = np.array([1.0, -2.0]), np.random.default_rng(0).standard_normal((4, 2))
    hyper, moments = Hyper(b2=(0.99, 0.9)), None
    ours = after(optimizer, jnp.asarray(grads), jnp.asarray(params))
    for n, g in enumerate(grads):
        hyper = hyper._replace(b1=tuple(float(b) for b in b1_at(n)))
        moments = moments or reference.no_moments(params, hyper)
        u, moments = reference.adam_step(n, params, moments, lambda n, p, g=g: g, hyper)
        params = params - 0.1 / (1 + n) * (u + 0.1 * n * params)
    np.testing.assert_allclose(ours, params, rtol=1e-12)


def test_injected_tuples_are_as_they_were():
    injected = optax.inject_hyperparams(ct.k_adam, static_args=("mask",))(
        0.1, (0.9, 0), (0.99, 0.9), weight_decay=0.1, mask=lambda p: True
    )
    state = injected.init(PARAMS)
    assert set(state.hyperparams) == {"learning_rate", "eps", "weight_decay", "eps_root"}
    assert state.inner_state[1].m is None  # a Python 0 stays one
    plain = after(ct.k_adam(0.1, (0.9, 0), (0.99, 0.9), weight_decay=0.1), GRADS)
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-14), after(injected, GRADS), plain
    )
    state.hyperparams["learning_rate"] = jnp.asarray(0.0)  # set by hand
    updates, _ = jax.jit(injected.update)(GRADS[0], state, PARAMS)
    jax.tree.map(lambda u: np.testing.assert_array_equal(u, 0), updates)


def test_schedules_of_decays_are_refused_with_the_way_out():
    for b1 in (lambda n: 0.9, (0.9, lambda n: 0.9)):
        with pytest.raises(ValueError, match=r"b1 is a schedule.*inject_hyperparams"):
            ct.k_adam(0.1, b1, (0.9, 0.9))
    with pytest.raises(ValueError, match="one of each a stage"):
        optax.inject_hyperparams(ct.k_adam)(0.1, b1=lambda n: 0.9).init(PARAMS)


def test_vmap_over_hyperparameters_and_over_parameters():
    rng = np.random.default_rng(0)
    lanes = [rng.uniform(0.3, 0.9, 5) for _ in range(6)]
    starts, grads = rng.standard_normal((5, 3)), rng.standard_normal((2, 5, 3))

    def one(b11, b12, b21, b22, learning_rate, weight_decay, start, grads):
        optimizer = ct.k_adam(learning_rate, (b11, b12), (b21, b22), weight_decay=weight_decay)
        return after(optimizer, grads, start)

    together = jax.vmap(one, in_axes=(0,) * 7 + (1,))(*lanes, starts, grads)
    for i in range(5):
        b11, b12, b21, b22, eta, decay = (float(lane[i]) for lane in lanes)
        hyper = Hyper(eta, (b11, b12), (b21, b22), weight_decay=decay)
        path = reference.adam_run(lambda n, p, i=i: grads[min(n, 1), i], starts[i], 2, hyper)[2]
        # Two steps of a dozen roundings in u < 10; 1 - bⁿ ≥ 0.1 costs ten more.
        np.testing.assert_allclose(together[i], path.params[2], rtol=0, atol=1e4 * ULP)


def test_state_goes_through_files():
    optimizer = ct.k_adam(optax.constant_schedule(0.1), (0.9, 0, 0.5), (0.99, 0.9, 0))
    params = {"w": jnp.ones(2, jnp.bfloat16), "b": [jnp.ones(3, jnp.float32)]}
    blank = optimizer.init(params)
    updates, state = optimizer.update(params, blank, params)
    file = io.BytesIO()
    eqx.tree_serialise_leaves(file, state)
    file.seek(0)
    for back in (
        serialization.from_bytes(blank, serialization.to_bytes(state)),
        pickle.loads(pickle.dumps(state)),
        eqx.tree_deserialise_leaves(file, blank),
    ):
        assert_same_tree(back, state)
        again = optimizer.update(updates, back, params)
        assert_same_tree(again, optimizer.update(updates, state, params))


SHARDED = """
import jax, numpy as np, jax.numpy as jnp, ct_adam as ct
from jax.sharding import Mesh, NamedSharding, PartitionSpec
assert len(jax.devices()) == 2
sharding = NamedSharding(Mesh(np.array(jax.devices()), ("x",)), PartitionSpec("x"))
optimizer = ct.k_adam(0.1, (0.9, 0.5), (0.99, 0.9), weight_decay=0.1)
whole = jnp.linspace(-1.0, 2.0, 16, dtype=jnp.float32)
ends = []
for params in (whole, jax.device_put(whole, sharding)):
    state = jax.jit(optimizer.init)(params)
    for _ in range(3):
        updates, state = jax.jit(optimizer.update)(jnp.cos(params), state, params)
        params = params + updates
    ends.append(params)
for leaf in (ends[1], state[0].m, state[0].v, state[1].m):
    assert leaf.sharding.is_equivalent_to(sharding, 1), leaf.sharding
np.testing.assert_allclose(*ends, rtol=1e-6)
print("sharded")
"""


@pytest.mark.slow
def test_sharded_parameters():
    # Two devices must be asked for before JAX starts: a process of its own.
    environment = os.environ | {"XLA_FLAGS": "--xla_force_host_platform_device_count=2"}
    found = subprocess.run(
        [sys.executable, "-c", SHARDED],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.stdout.strip() == "sharded", found.stderr
