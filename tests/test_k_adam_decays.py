"""Decays of k-Adam's stages from one pair: the strategies of EQUATIONS §4."""

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ct_adam as ct

ULP = np.finfo(float).eps
STRATEGIES = ("inverse_exp", "exp", "scaled", "naive", "lag_split", "lag_stretch")


@pytest.mark.parametrize(
    ("strategy", "k", "b1", "b2"),
    [
        ("inverse_exp", 2, 0.683772, 0.968377),
        ("exp", 2, 0.81, 0.998001),
        ("scaled", 2, 0.45, 0.4995),
        ("naive", 2, 0.9, 0.999),
        ("inverse_exp", 10, 0.205672, 0.498813),
        ("exp", 10, 0.348678, 0.990045),
        ("scaled", 10, 0.09, 0.0999),
        ("naive", 10, 0.9, 0.999),
        ("lag_split", 10, 0.473684, 0.990089),
    ],
)
def test_numbers_of_the_strategies(strategy, k, b1, b2):
    found = ct.k_adam_decays(k, strategy=strategy)
    assert [len(set(bs)) for bs in found] == [1, 1]
    assert [len(bs) for bs in found] == [k, k]
    # Six digits are printed.
    np.testing.assert_allclose([found[0][0], found[1][0]], [b1, b2], rtol=0, atol=5.1e-7)


def test_meta():
    assert ct.k_adam_decays(2, 0.8, 0.99, "meta") == ((0.8, 0), (0.99, 0.99))


DECAY = st.floats(0, 0.9999)


@settings(max_examples=50, deadline=None)
@given(b1=DECAY, b2=DECAY, k=st.integers(1, 50))
def test_properties_of_the_strategies(b1, b2, k):
    for strategy in STRATEGIES:
        assert ct.k_adam_decays(1, b1, b2, strategy) == ((b1,), (b2,))
        found, more = (ct.k_adam_decays(n, b1, b2, strategy) for n in (k, k + 1))
        assert all(0 <= b < 1 for bs in found for b in bs)
        grows = {"naive": 0, "lag_stretch": 1}.get(strategy, -1)
        for few, many in zip(found, more, strict=True):
            change = many[0] - few[0]
            # But for rounding; "naive" keeps the decay.
            assert change == 0 if grows == 0 else grows * change >= -2 * ULP

    def lags(strategy):
        return [sum(b / (1 - b) for b in bs) for bs in ct.k_adam_decays(k, b1, b2, strategy)]

    # b/(1-b) loses 1/(1-b) ≤ 1e4 ulp, here on two ways; k/(1-b) where the lag is stretched k-fold.
    lag1, lag2 = b1 / (1 - b1), b2 / (1 - b2)
    np.testing.assert_allclose(lags("lag_split"), [lag1, lag2], rtol=1e5 * ULP, atol=1e-300)
    np.testing.assert_allclose(
        lags("lag_stretch"), [k**2 * lag1, k**2 * lag2], rtol=1e5 * k * ULP, atol=1e-300
    )
    if min(b1, b2) > 1e-3:
        # C = 2(1-b1)/b1 - (1-b2)/b2 → kC.
        split1, split2 = (bs[0] for bs in ct.k_adam_decays(k, b1, b2, "lag_split"))
        terms = 2 * (1 - split1) / split1, (1 - split2) / split2
        c = 2 / lag1 - 1 / lag2
        assert abs(terms[0] - terms[1] - k * c) < 1e6 * ULP * max(terms)


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ((2, 0.9, 0.999, "inverse"), "strategy = 'inverse' is unknown"),
        ((1, 0.9, 0.999, "meta"), "k = 1 must be 2"),
        ((3, 0.9, 0.999, "meta"), "k = 3 must be 2"),
        ((0,), "k = 0 must be a whole number"),
        ((2.0,), "k = 2.0"),
        ((True,), "k = True"),
        (("exp", 2), "k = 'exp'"),
        ((2, 1.0), "b1 = 1"),
        ((2, 0.9, -0.1), "b2 = -0.1"),
    ],
)
def test_bad_strategies(arguments, word):
    with pytest.raises(ValueError, match=word):
        ct.k_adam_decays(*arguments)


def test_strategies_go_everywhere():
    lanes = np.array([0.5, 0.9])
    for strategy in (*STRATEGIES, "meta"):
        decays = ct.k_adam_decays(2, 0.9, 0.99, strategy)
        assert decays[1][-1] > decays[0][-1] ** 2  # stable, whatever the strategy
        flow = ct.KAdamFlow(0.1, *decays)
        assert flow.optimizer.hyperparameters == ct.k_adam(0.1, *decays).hyperparameters
    advice = ct.advise(*ct.k_adam_decays(2, 0.98, 0.97, "lag_split"))
    assert (advice.verdict, len(advice.earlier)) == ("stable", 1)
    assert ct.advise(*ct.k_adam_decays(2, 0.98, 0.94, "naive")).verdict == "unstable"
    traced = jax.vmap(lambda b: ct.k_adam_decays(2, b, b)[1][1])(lanes)
    plain = [ct.k_adam_decays(2, float(b), float(b))[1][1] for b in lanes]
    np.testing.assert_allclose(traced, plain, rtol=1e-14)
