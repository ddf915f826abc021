"""What `scale_freeness` measures, against closed forms and NumPy; whether its claims can fail."""

import json
from dataclasses import replace

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import xarray

import ct_adam as ct
from ct_adam.problems.models import ConvNet
from experiments import _scale_free_claims as claims
from experiments import _scale_free_steps as steps
from experiments import _scale_freeness as measured
from experiments import scale_freeness as experiment
from experiments._scale_freeness import Cell, Run

CLOSED = {0.1: -0.100432108277524, 0.01: -0.0100408807399680, 0.001: -0.00100408574420119}
"""EQUATIONS §7."""


def test_the_three_values():
    found = steps.orders(CLOSED)
    np.testing.assert_allclose(found.constant, list(CLOSED.values()), rtol=0, atol=1e-12)
    # (1 - ηλ)^N as NumPy's power rounds N times as much.
    np.testing.assert_allclose(found.closed, list(CLOSED.values()), rtol=0, atol=1e-12)
    assert claims.order_of(found.along) == pytest.approx(1, abs=0.05)


def test_one_step_apart_is_the_printed_difference():
    """(κ²θ + κηu)/(1 + κ), κ = ηλ, u of the first step g/(|g| + eps)."""
    eta = 0.01
    found = steps.orders((eta,))
    g = steps.THETA * np.geomspace(1, 30, steps.DIRECTIONS)
    kappa, u = eta * steps.DECAY, g / (g + 0.1)
    difference = (kappa**2 * steps.THETA + kappa * eta * u) / (1 + kappa)
    # a difference of iterates of size 4
    assert float(found.local[0]) == pytest.approx(difference.max(), abs=1e-14)


def test_a_scaled_loss_is_another_eps():
    powers = steps.identities(1024.0)
    assert list(powers.values()) == [0.0] * 4
    assert max(steps.identities(10.0).values()) < 1e-12


def test_hessians():
    for axes in steps.AXES:
        matrix = steps.hessian(1e6, axes)
        known = np.geomspace(1, 1e6, steps.DIRECTIONS)
        # of rounding, relative to the largest
        np.testing.assert_allclose(np.linalg.eigvalsh(matrix), known, atol=1e-8)
    diagonal = steps.hessian(7, "diagonal")
    assert np.array_equal(diagonal, np.diag(np.diag(diagonal)))


def away(params):
    """A minimum that is not at 0: there decay into the gradient only scales it, and Adam-ℓ2 is
    Adam."""
    return jnp.sum(jnp.array([1.0, 10.0]) * (params - 1.5) ** 2) / 2


@pytest.mark.parametrize("method", measured.METHODS, ids=("l2", "adamw", "prox"))
def test_a_lane_is_the_packages_own_optimizer(method):
    make = {"Adam-ℓ2": ct.adam_l2, "AdamW": ct.adamw, "AdamProx": ct.adam_prox}[method]
    lane = measured.lane_of(Run(Cell(method, 1.0, 0.05, 0.5), 0))
    schedule = optax.cosine_decay_schedule(0.05, 30)
    problem, start = ct.problems.LossProblem(away), jnp.array([1.0, -2.0])
    ours = ct.run(measured.optimizer(lane, 30), problem, start, 30)
    own = make(schedule, measured.B1, measured.B2, measured.EPS, weight_decay=0.5)
    theirs = ct.run(own, problem, start, 30)
    # η is a float32 in the lane, 1e-7 of 30 steps of 0.05
    np.testing.assert_allclose(ours.params, theirs.params, rtol=0, atol=1e-6)
    other = ct.run(ct.adamw(schedule), problem, start, 30)
    assert np.abs(ours.params - other.params).max() > 1e-3


def test_shares_of_octaves():
    u = {"a": jnp.array([1.0, 0.5, -0.75, 0.25]), "b": jnp.array([0.0, 5.0, 1e-8, -0.249999])}
    share = np.asarray(measured.shares(u)) * 8
    found = {int(b): s for b, s in zip(measured.BINS, share, strict=True) if s}
    # floor(log₂): 1 and 5 (clipped) 0; ½ and ¾ -1; ¼ -2; just below it -3; 0 and 1e-8 -27
    assert found == {0: 2.0, -1: 2.0, -2: 1.0, -3: 1.0, -27: 2.0}


def test_spreads():
    bins = len(measured.BINS)
    even, one = np.full(bins, 1 / bins), np.eye(bins)[3]
    two = (np.eye(bins)[3] + np.eye(bins)[7]) / 2
    found = measured.spread(np.stack([even, one, two]))
    np.testing.assert_allclose(found, [np.sqrt((bins**2 - 1) / 12), 0, 2], atol=1e-6)


def test_updates_are_those_of_the_last_step():
    flow = ct.AdamFlow(0.1, measured.B1, measured.B2, measured.EPS)
    params = jnp.array([1.0, -3.0])
    state = flow.optimizer.init(params)
    for g in (params, 2 * params, -params):
        (u,) = ct.stage_updates(flow.hyperparameters, g, state, params)
        _, state = flow.optimizer.update(g, state, params)
    np.testing.assert_allclose(measured.updates(state), u, rtol=1e-13)


def test_depth_adds_to_what_is_there():
    """A residual block whose weights are 0 adds gelu(0) = 0: the deeper network is the other."""
    image = jnp.asarray(np.random.default_rng(0).random((8, 8, 1)))
    flat = ConvNet((8, 8, 1), 10)
    deep = ConvNet((8, 8, 1), 10, depth=2)
    assert [block.residual for block in deep.blocks] == [False, True, True] * 2
    kept = [b for b in deep.blocks if not b.residual]
    for block, other in zip(kept, flat.blocks, strict=True):
        assert block.weight.shape == other.weight.shape

    def emptied(block, other):
        return jax.tree.map(jnp.zeros_like, block) if block.residual else other

    sources = [other for other in flat.blocks for _ in range(3)]
    blocks = tuple(map(emptied, deep.blocks, sources))
    same = eqx.tree_at(lambda m: (m.blocks, m.head), deep, (blocks, flat.head))
    np.testing.assert_allclose(same(image), flat(image), rtol=1e-12)
    assert np.abs(deep(image) - flat(image)).max() > 1e-3
    with pytest.raises(ValueError, match="depth = -1"):
        ConvNet((8, 8, 1), 10, depth=-1)


CONFIG = replace(experiment.SIZES["smoke"], looks=2, depths=(1,))
BEST = {"Adam-ℓ2": {1.0: 1e-2, 100.0: 1.0}, "AdamW": dict.fromkeys((1.0, 100.0), 1.0)}
BEST["AdamProx"] = BEST["AdamW"]


def _found(net, best, error):
    """Runs whose validation loss is the distance of the decay from the best one."""
    found = {}
    empty = np.zeros((2, len(measured.BINS)))
    empty[:, 3] = 1
    for cell in CONFIG.cells(net):
        loss = abs(np.log10(cell.decay / best[cell.method][cell.scale]))
        found[Run(cell, 0)] = loss
    for method in measured.METHODS:
        cell = Cell(method, 1.0, CONFIG.rates[0], best[method][1.0])
        found |= {Run(cell, seed): 0.0 for seed in (2, 1)}
    return {
        run: {
            "validation": np.array([loss, 0.5]),
            "test": np.array([1.0, error[run.cell.method] + 0.01 * run.seed]),
            "share": empty,
        }
        for run, loss in found.items()
    }


def _tree(best=BEST, **changes):
    error = {"Adam-ℓ2": 0.3, "AdamW": 0.2, "AdamProx": 0.2}
    nets = CONFIG.nets
    networks = {
        f"network_{i}": experiment._labelled(net, _found(net, best, error), CONFIG)
        for i, net in enumerate(nets)
    }
    eta = np.array(CONFIG.etas)
    columns = {"local": eta**2, "along": eta, "constant": eta, "closed": eta} | changes
    orders = xarray.Dataset({k: ("eta", v) for k, v in columns.items() if k in
                             ("local", "along", "constant", "closed")}, {"eta": eta})  # fmt: skip
    apart = np.array([[0, 1.0], [0, 1], [1, 1], [1, 1]])
    apart[:, 0] = changes.get("diagonal", apart[:, 0])
    quadratics = xarray.Dataset(
        {"apart": (("optimizer", "axes", "condition", "step"), apart[..., None, None])},
        {"optimizer": list(steps.MAKERS), "axes": list(steps.AXES)},
    )
    tree = xarray.DataTree.from_dict({**networks, "orders": orders, "quadratics": quadratics})
    tree.attrs["identities"] = json.dumps({"c = 10": {"AdamW": changes.get("identity", 0.0)}})
    return tree


def test_what_is_found_and_as_expected():
    tree = _tree()
    assert experiment.check(tree) == []
    found = experiment.numbers(tree)
    one = found["networks"]["digits, no norm, depth 1"]
    assert one["AdamW"]["decay"] == 1.0
    assert one["AdamW"]["test error"] == pytest.approx(0.215)
    assert one["AdamW"]["centre, last look"] == pytest.approx(-24)
    gap = one["gap Adam-ℓ2 − AdamW"]
    assert gap["found"] == pytest.approx(0.1)
    assert gap["of the published, found"] == pytest.approx(0.1 / 0.0311)
    moves = found["best cells by the loss's scale"]["Adam-ℓ2"]
    assert moves == {"loss × 1": "η = 0.03, λ = 0.01", "loss × 100": "η = 0.03, λ = 1"}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"local": np.array([1e-1, 1e-2])}, ["local order 1.000, not 2"]),
        ({"along": np.array([1e-2, 1e-4])}, ["global order 2.000, not 1"]),
        ({"constant": np.array([0.1, 0.01 + 1e-11])}, ["η = 0.01: AdamW is 1e-11"]),
        ({"identity": 1e-9}, ["AdamW: loss × c and eps / c differ by 1e-09"]),
        ({"diagonal": [1e-9, 0, 1, 1]}, ["AdamW: another condition number"]),
        ({"diagonal": [0, 0, 0, 1]}, ["Adam-ℓ2: another condition number"]),
        ({"best": {**BEST, "AdamW": {1.0: 1e-2, 100.0: 1.0}}}, ["AdamW's best cell moves"]),
        ({"best": {**BEST, "Adam-ℓ2": BEST["AdamW"]}}, ["Adam-ℓ2's best cell stays"]),
    ],
    ids=lambda case: "-".join(case) if isinstance(case, dict) else "",
)
def test_what_is_not_as_expected_is_said(changes, words):
    said = experiment.check(_tree(**changes))
    assert len(said) == len(words)
    assert all(word in sentence for word, sentence in zip(words, said, strict=True))


def test_a_run_that_diverged_is_no_candidate():
    tree = _tree()
    network = tree["network_0"].to_dataset()
    bad = (network.method == "AdamW") & (network.decay == 1.0)
    network["validation"] = network.validation.where(~bad)
    assert claims.best_cell(network, "AdamW", 1.0).decay == 1e-2
    with pytest.raises(ValueError, match="AdamW diverges in every cell"):
        claims.best_cell(network.assign(validation=network.validation * np.nan), "AdamW", 1.0)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"scales": (10.0, 100.0)}, "must begin with 1"),
        ({"decays": (0.1,)}, "decays = "),
        ({"rates": ()}, "rates = "),
        ({"images": "cats"}, "images = 'cats'"),
        ({"norm": "none"}, "norm = 'none'"),
        ({"looks": 7}, "looks = 7"),
        ({"seeds": 1}, "seeds = 1"),
    ],
)
def test_bad_configurations(wrong, words):
    with pytest.raises(ValueError, match=words):
        experiment.Config(**wrong)
