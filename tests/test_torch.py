"""The PyTorch twin: against `ct.k_adam` by fixtures, torch.optim.AdamW, and NumPy.

Without PyTorch only what needs none of it runs. `python tests/test_torch.py` writes the fixtures,
from `ct.k_adam` alone.
"""

import io
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

FIXTURES = Path(__file__).parent / "fixtures" / "k_adam.json"
EPS = np.finfo(float).eps
STEPS = 20
LR = 0.05
START = [1.0, -1.0, 0.5, 2.0, 3.0]
BASE = {"eps": 1e-8, "weight_decay": 0.0, "eps_root": 0.0, "decay": "decoupled"}
PAIRS = {
    "k1": ((0.9,), (0.999,)),
    "k2": ((0.9, 0.7), (0.999, 0.95)),
    "k3": ((0.9, 0.5, 0.7), (0.99, 0.8, 0.95)),
    "meta": ((0.9, 0), (0.999, 0.99)),
    "no_v": ((0.9, 0.5), (0, 0.99)),
}
CASES = {
    f"{pair}_{name}": {"b1": b1, "b2": b2} | BASE | options
    for pair, (b1, b2) in PAIRS.items()
    for name, options in {
        "decoupled": {"weight_decay": 0.3},
        "l2": {"weight_decay": 0.3, "decay": "l2"},
        "eps_0": {"eps": 0.0},
        "eps_root": {"eps": 1e-3, "eps_root": 1e-2},
    }.items()
}
# 1 - bⁿ has an error of 2⁻⁵³/(1 - b2) ≤ 1.1e-13 relative, half of it in u; a stage hands it on to
# the next one, at most doubled (m and √v), so u³ is off by less than 8 times as much, and θ by
# η·STEPS = 1 times that. A wrong formula shows at 1e-4.
CLOSE = 5e-13
MODES = {
    "single": {"foreach": False},
    "foreach": {"foreach": True},
    "single, capturable": {"foreach": False, "capturable": True},
    "foreach, capturable": {"foreach": True, "capturable": True},
}


def gradients(seed=0):
    """A shared stream; its last coordinate is dead."""
    grads = np.random.default_rng(seed).standard_normal((STEPS, len(START)))
    grads[:, -1] = 0
    return grads


def by_ours(case, grads, steps=STEPS):
    """θ_0 … of `ct.k_adam`, not jitted."""
    import jax.numpy as jnp
    import optax

    import ct_adam as ct

    optimizer = ct.k_adam(LR, **case)
    theta = jnp.asarray(START)
    state, path = optimizer.init(theta), [START]
    for g in grads[:steps]:
        delta, state = optimizer.update(jnp.asarray(g), state, theta)
        theta = optax.apply_updates(theta, delta)
        path.append(theta.tolist())
    return path


def by_numpy(case, grads):
    """EQUATIONS §4 for decays above 0 and eps > 0."""
    theta, path = np.array(START), [START]
    m, v = np.zeros((2, len(case["b1"]), len(START)))
    for n, g in enumerate(grads, start=1):
        u = g + case["weight_decay"] * theta if case["decay"] == "l2" else g
        for i, (b1, b2) in enumerate(zip(case["b1"], case["b2"], strict=True)):
            m[i] = b1 * m[i] + (1 - b1) * u
            v[i] = b2 * v[i] + (1 - b2) * u**2
            root = np.sqrt(v[i] / (1 - b2**n) + case["eps_root"])
            u = m[i] / (1 - b1**n) / (root + case["eps"])
        theta = theta - LR * (u + case["weight_decay"] * theta * (case["decay"] == "decoupled"))
        path.append(theta.tolist())
    return path


@pytest.fixture
def torch():
    return pytest.importorskip("torch")


def by_torch(torch, make, grads, dtype="float64", start=START, step=None):
    """θ_0 … of an optimizer that `make` makes of the parameters, here two of them."""
    parts = (slice(2), slice(2, None))
    given = torch.tensor(start, dtype=getattr(torch, dtype))
    params = [given[part].clone().requires_grad_() for part in parts]
    optimizer = make(params)
    path = [torch.cat(params).tolist()]
    for g in grads:
        for p, part in zip(params, parts, strict=True):
            p.grad = torch.tensor(g[part], dtype=p.dtype)
        (step or optimizer.step)()
        path.append(torch.cat([p.detach() for p in params]).tolist())
    return path


def k_adam(**options):
    from ct_adam.torch import KAdam

    return lambda params: KAdam(params, **{"lr": LR} | options)


def test_nobody_imports_torch_unasked():
    code = """
import sys

class Refuses:
    def find_spec(self, name, path=None, target=None):
        if name == "torch":
            raise ModuleNotFoundError(name=name)

import ct_adam
print("torch" in sys.modules)
sys.meta_path.insert(0, Refuses())  # as where it is not installed
try:
    import ct_adam.torch
except ImportError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    said = "ct_adam.torch needs PyTorch: pip install '.[torch]' in ct_adam's repository."
    assert done.stdout.splitlines() == ["False", said]


# Few, for each operation compiles; all of them were written by this function.
@pytest.mark.parametrize("name", ["k3_l2", "meta_eps_0", "k2_decoupled"])
def test_fixtures_are_those_of_k_adam(name):
    record = json.loads(FIXTURES.read_text())
    assert record["gradients"] == gradients().tolist()
    assert set(record["theta"]) == set(CASES)
    found = by_ours(CASES[name], gradients(), steps=5)
    # A few ulp of θ: another JAX may compute bⁿ and roots in another way.
    np.testing.assert_allclose(record["theta"][name][: len(found)], found, atol=CLOSE)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", CASES)
def test_twin_is_k_adam(torch, name, mode):
    record = json.loads(FIXTURES.read_text())
    found = by_torch(torch, k_adam(**CASES[name], **MODES[mode]), record["gradients"])
    np.testing.assert_allclose(found, record["theta"][name], atol=CLOSE)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", ["k2_decoupled", "k2_l2", "k3_l2", "k3_eps_root"])
def test_twin_is_numpy(torch, name, mode):
    grads = gradients(1)
    found = by_torch(torch, k_adam(**CASES[name], **MODES[mode]), grads)
    np.testing.assert_allclose(found, by_numpy(CASES[name], grads), atol=CLOSE)


@pytest.mark.parametrize("mode", ["single", "foreach"])
@pytest.mark.parametrize("decay", ["decoupled", "l2"])
@pytest.mark.parametrize("maximize", [False, True])
def test_one_stage_is_torchs_own(torch, decay, mode, maximize):
    theirs = torch.optim.AdamW if decay == "decoupled" else torch.optim.Adam
    shared = {"lr": LR, "eps": 1e-3, "weight_decay": 0.3, "maximize": maximize}
    ours = k_adam(b1=0.8, b2=0.95, decay=decay, **shared, **MODES[mode])
    found = by_torch(torch, ours, gradients())
    other = by_torch(torch, lambda p: theirs(p, betas=(0.8, 0.95), **shared), gradients())
    np.testing.assert_allclose(found, other, atol=CLOSE)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_dtypes_keep_theirs_and_their_zeros(torch, dtype, mode):
    # eps = 1e-8 is 0 in float16: the dead coordinate must not become 0/0.
    made = []
    make = k_adam(**CASES["k2_decoupled"] | {"weight_decay": 0.5}, **MODES[mode])
    found = by_torch(torch, lambda p: made.append(make(p)) or made[0], gradients(), dtype)
    for p, state in made[0].state.items():
        assert {value.dtype for name, value in state.items() if name != "step"} == {p.dtype}
    # Each step rounds θ, m, v and u a few times; u and θ are below 8.
    atol = STEPS * 8 * torch.finfo(getattr(torch, dtype)).eps
    exact = by_numpy(CASES["k2_decoupled"] | {"weight_decay": 0.5}, gradients())
    np.testing.assert_allclose(found, exact, atol=atol)


@pytest.mark.parametrize("mode", MODES)
def test_update_is_0_where_v_underflows(torch, mode):
    # g² is 0 in float32 while m is not (EQUATIONS §0, Zero).
    grads = np.full((3, len(START)), 1e-30)
    make = k_adam(b1=0.9, b2=0.999, eps=0.0, **MODES[mode])
    found = by_torch(torch, make, grads, "float32")
    assert found == [START] * 4


def test_a_gradient_that_is_not_a_number_is_not_hidden(torch):
    grads = np.full((1, len(START)), np.nan)
    for mode in MODES.values():
        assert np.isnan(by_torch(torch, k_adam(eps=0.0, **mode), grads)[-1]).all()


def test_groups_have_hyperparameters_of_their_own(torch):
    mine = [{"lr": 0.1, "b1": (0.5,), "b2": (0.9,)}, {"b1": (0.9, 0.8, 0), "b2": (0.99,) * 3}]
    together = by_torch(
        torch,
        lambda ps: k_adam()([{"params": [p]} | own for p, own in zip(ps, mine, strict=True)]),
        gradients(),
    )
    alone = [by_torch(torch, k_adam(**own), gradients()) for own in mine]
    np.testing.assert_array_equal(np.array(together)[:, :2], np.array(alone[0])[:, :2])
    np.testing.assert_array_equal(np.array(together)[:, 2:], np.array(alone[1])[:, 2:])


@pytest.mark.parametrize("mode", MODES)
def test_each_parameter_counts_its_own_steps(torch, mode):
    late, early = torch.ones(2, requires_grad=True), torch.ones(2, requires_grad=True)
    optimizer = k_adam(**MODES[mode])([late, early])
    early.grad = torch.tensor([1.0, -2.0])
    optimizer.step()
    assert late not in optimizer.state
    assert torch.equal(late, torch.ones(2))
    late.grad = torch.tensor([3.0, 0.0])
    optimizer.step()
    # The first update of Adam is the sign, of k-Adam too; 1e-5 is float32's 1 - 0.999.
    assert torch.allclose(late, torch.tensor([1 - LR, 1.0]), atol=1e-5 * LR)
    assert [int(optimizer.state[p]["step"]) for p in (late, early)] == [1, 2]


@pytest.mark.parametrize("mode", MODES)
def test_state_goes_to_a_file_and_back(torch, mode):
    grads = gradients()
    whole = by_torch(torch, k_adam(**MODES[mode]), grads)
    kept = {}

    def stop(params):
        kept["optimizer"] = k_adam(**MODES[mode])(params)
        return kept["optimizer"]

    half = by_torch(torch, stop, grads[:10])
    file = io.BytesIO()
    torch.save(kept["optimizer"].state_dict(), file)
    file.seek(0)

    def go_on(params):
        optimizer = k_adam(lr=7.0, b1=0.1, b2=0.2)(params)
        optimizer.load_state_dict(torch.load(file, weights_only=True))
        return optimizer

    rest = by_torch(torch, go_on, grads[10:], start=half[-1])
    assert half + rest[1:] == whole


def test_state_follows_the_parameters_dtype(torch):
    params = [torch.ones(3, dtype=torch.float64, requires_grad=True)]
    source = k_adam(capturable=True)(params)
    params[0].grad = torch.ones_like(params[0])
    source.step()
    target = k_adam()([torch.ones(3, dtype=torch.float32, requires_grad=True)])
    target.load_state_dict(source.state_dict())
    (state,) = target.state.values()
    assert state.pop("step") == 1
    assert {value.dtype for value in state.values()} == {torch.float32}
    assert set(state) == {"m1", "v1", "m2", "v2"}


def test_a_decay_of_0_keeps_no_moment(torch):
    p = torch.ones(2, requires_grad=True)
    optimizer = k_adam(b1=(0.9, 0), b2=(0, 0.9))([p])
    p.grad = torch.ones(2)
    optimizer.step()
    assert set(optimizer.state[p]) == {"step", "m1", "v2"}


@pytest.mark.parametrize("foreach", [False, True])
def test_closure_is_evaluated_with_gradients(torch, foreach):
    p = torch.tensor([3.0], requires_grad=True)
    optimizer = k_adam(lr=0.5, foreach=foreach)([p])

    def closure():
        optimizer.zero_grad()
        loss = (p**2).sum()
        loss.backward()
        return loss

    assert optimizer.step(closure).item() == 9
    assert p.item() == pytest.approx(2.5, abs=1e-5)  # float32's 1 - 0.999


@pytest.mark.parametrize("foreach", [False, True])
def test_gradients_are_left_as_they_are(torch, foreach):
    # With b1 = 0 and b2 = 0 the gradient itself stands for the moments.
    p = torch.ones(2, requires_grad=True)
    p.grad = torch.tensor([2.0, -3.0])
    for decay in ("decoupled", "l2"):
        options = {"weight_decay": 0.1, "decay": decay, "maximize": True, "foreach": foreach}
        k_adam(b1=(0, 0), b2=(0, 0.9), **options)([p]).step()
        k_adam(b1=(0, 0), b2=(0, 0.9), foreach=foreach)([p]).step()
    assert p.grad.tolist() == [2.0, -3.0]


@pytest.mark.parametrize("mode", ["single, capturable", "foreach, capturable"])
def test_lr_as_a_tensor_follows_its_scheduler(torch, mode):
    def scheduled(**options):
        made = []

        def make(params):
            optimizer = k_adam(weight_decay=0.1, **options)(params)
            made.extend((optimizer, torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)))
            return optimizer

        def step():
            made[0].step()
            made[1].step()

        return by_torch(torch, make, gradients(), step=step)

    # float64, so that 0.05 and its halves are the numbers that they are as Python's.
    tensor = torch.tensor(LR, dtype=torch.float64)
    found = scheduled(lr=tensor, **MODES[mode])
    np.testing.assert_allclose(found, scheduled(), atol=CLOSE)
    assert tensor.item() == LR * 0.5**STEPS


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of PyTorch's own modules
@pytest.mark.filterwarnings("ignore:Guards may run slower")  # Python 3.13.0
@pytest.mark.parametrize("foreach", [False, True])
@pytest.mark.parametrize("capturable", [False, True])
def test_compiled_step(torch, foreach, capturable):
    """By Dynamo alone, which needs no compiler: one graph of all, traced once."""
    traced = []

    def backend(graph, inputs):
        traced.append(graph)
        return graph.forward

    params = [torch.tensor([x], dtype=torch.float64, requires_grad=True) for x in START]
    lr = torch.tensor(LR, dtype=torch.float64) if capturable else LR
    options = CASES["k2_decoupled"] | {"foreach": foreach, "capturable": capturable, "lr": lr}
    optimizer = k_adam(**options)(params)
    torch._dynamo.reset()
    step = torch.compile(optimizer.step, backend=backend)
    for g in gradients():
        for p, x in zip(params, g, strict=True):
            p.grad = torch.tensor([x])
        step()
    found = torch.cat(params).tolist()
    np.testing.assert_allclose(found, by_numpy(CASES["k2_decoupled"], gradients())[-1], atol=CLOSE)
    assert len(traced) == 1


def test_sparse_gradients_are_refused_and_nothing_moves(torch):
    first, second = torch.ones(2, requires_grad=True), torch.ones(2, requires_grad=True)
    optimizer = k_adam()([{"params": [first]}, {"params": [second]}])
    first.grad = torch.ones(2)
    second.grad = torch.ones(2).to_sparse()
    with pytest.raises(ValueError, match="A gradient is sparse: KAdam needs dense ones"):
        optimizer.step()
    assert torch.equal(first, torch.ones(2))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"lr": -1.0}, "lr = -1 must be finite and not negative."),
        ({"lr": "fast"}, "lr = 'fast' is not a number."),
        ({"b1": (0.9, 1.0)}, r"b1\[1\] = 1 must be in \[0, 1\)."),
        ({"b1": (0.9,)}, "b1 has 1 and b2 2 decays: give one of each a stage."),
        ({"b1": (), "b2": ()}, "b1 has 0 and b2 0 decays"),
        ({"eps": float("nan")}, "eps = nan must be finite and not negative."),
        ({"weight_decay": -0.1}, "weight_decay = -0.1 must be finite"),
        ({"decay": "coupled"}, "decay = 'coupled' is unknown: choose one of 'decoupled', 'l2'."),
    ],
)
def test_bad_values_are_one_sentence(torch, options, said):
    p = torch.ones(2, requires_grad=True)
    with pytest.raises(ValueError, match=said):
        k_adam(**options)([p])
    optimizer = k_adam()([p])
    with pytest.raises(ValueError, match=said):
        optimizer.add_param_group({"params": [torch.ones(1, requires_grad=True)], **options})
    assert len(optimizer.param_groups) == 1


def test_bad_tensors_are_one_sentence(torch):
    p = torch.ones(2, requires_grad=True)
    with pytest.raises(ValueError, match="lr is a tensor: give a number, or capturable=True"):
        k_adam(lr=torch.tensor(0.1))([p])
    with pytest.raises(ValueError, match=r"lr has shape \(2,\): give one number."):
        k_adam(lr=torch.tensor([0.1, 0.1]), capturable=True)([p])
    with pytest.raises(ValueError, match="A parameter is complex"):
        k_adam()([torch.ones(2, dtype=torch.complex64, requires_grad=True)])


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of PyTorch's own modules
@pytest.mark.filterwarnings("ignore:Guards may run slower")  # Python 3.13.0
@pytest.mark.parametrize("foreach", [False, True])
def test_compiled_by_inductor(torch, foreach):
    """Needs a C++ compiler."""
    compiled, made = [], []

    def make(params):
        lr = torch.tensor(LR, dtype=torch.float64)
        options = CASES["k3_l2"] | {"foreach": foreach, "capturable": True, "lr": lr}
        made.append(k_adam(**options)(params))
        compiled.append(torch.compile(made[0].step))
        return made[0]

    torch._dynamo.reset()
    found = by_torch(torch, make, gradients(), step=lambda: compiled[0]())
    np.testing.assert_allclose(found, by_numpy(CASES["k3_l2"], gradients()), atol=CLOSE)


def write() -> None:
    """The fixtures, all digits."""
    record = {
        "lr": LR,
        "start": START,
        "gradients": gradients().tolist(),
        "theta": {name: by_ours(case, gradients()) for name, case in CASES.items()},
    }
    FIXTURES.write_text(json.dumps(record, separators=(",", ":")) + "\n", encoding="utf-8")


if __name__ == "__main__":
    import jax

    jax.config.update("jax_enable_x64", True)
    write()
