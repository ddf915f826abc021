"""Derivatives through `solve`, both modes, against finite differences and each other.

The program is differentiated as it is, steps and all, so both modes give the same derivative to
rounding; it is the derivative of the ODE up to the solver's error, whose own slope counts. At
rtol = 1e-9 a step, 100 steps and sensitivities of at most 1e3 (to eps_root) to the moments make
that 1e-6 relative. The differences: five points, error h⁴/30 times a fifth derivative, that is
1e-10 for steps h of 1e-3 of the length on which each number matters, and noise 1e-10/h.
"""

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import ct_adam as ct

from .jax_reference import ripple
from .reference import BEGIN

POINT = {
    "learning_rate": 0.03,
    "b1": 0.9,
    "b2": 0.99,
    "eps": 1e-2,
    "weight_decay": 0.1,
    "eps_root": 1e-2,
    "params": BEGIN,
}
# The length on which each matters: distances to the edge of its range.
LENGTH = {
    "learning_rate": 0.03,
    "b1": 0.1,
    "b2": 0.01,
    "eps": 1e-2,
    "weight_decay": 0.1,
    "eps_root": 1e-2,
    "params": 0.1,
}


def observed(point, rtol, adjoint=None, **options):
    """A scalar of everything that a trajectory holds: parameters, an update, a loss."""
    point = dict(point)
    params = point.pop("params")
    ours = ct.solve(
        ct.AdamFlow(**point, **options),
        ripple,
        params,
        20,
        save_steps=[10, 20],
        solver=diffrax.Dopri8(),
        rtol=rtol,
        atol=rtol / 10,
        adjoint=adjoint,
    )
    return (
        jnp.sum(jnp.arange(1, 5) * ours.params[-1])
        + jnp.sum(ours.update[0] ** 2)
        + ours.loss[0] / 50
    )


def differences(function, point):
    """Five-point central differences by every number in `point`."""

    def along(name, direction):
        h = 1e-2 * LENGTH[name]
        values = [
            float(function(point | {name: point[name] + k * h * direction})) for k in (-2, -1, 1, 2)
        ]
        return float(np.dot([1, -8, 8, -1], values) / (12 * h))

    return {
        name: np.array([along(name, axis) for axis in np.eye(value.size)])
        if value.ndim
        else along(name, 1.0)
        for name, value in point.items()
    }


@pytest.mark.parametrize(
    "options",
    [
        {},
        pytest.param(
            {"start": "zero", "order": 2, "decay": "l2", "rates": "lag"}, marks=pytest.mark.slow
        ),
        pytest.param({"start": "paper", "rates": "euler"}, marks=pytest.mark.slow),
    ],
    ids=lambda options: options.get("start", "first_step"),
)
def test_derivatives_by_every_number(options):
    point = {name: jnp.asarray(value) for name, value in POINT.items()}

    def reverse_of(point):
        return observed(point, 1e-9, **options)

    def forward_of(point):
        return observed(point, 1e-9, diffrax.ForwardMode(), **options)

    reverse = jax.jit(jax.grad(reverse_of))(point)
    forward = jax.jit(jax.jacfwd(forward_of))(point)
    numbers = differences(jax.jit(lambda p: observed(p, 1e-12, **options)), point)
    for name in point:
        np.testing.assert_allclose(reverse[name], forward[name], rtol=1e-8, atol=1e-8)
        np.testing.assert_allclose(reverse[name], numbers[name], rtol=1e-6, atol=1e-6)


def test_derivative_by_a_schedules_own_number():
    def end(rate):
        flow = ct.AdamFlow(optax.exponential_decay(rate, 10, 0.5), eps=1e-2)
        ours = ct.solve(
            flow,
            ripple,
            BEGIN,
            20,
            save_steps=[20],
            rtol=1e-9,
            atol=1e-10,
            adjoint=diffrax.ForwardMode(),
        )
        return jnp.sum(jnp.arange(1, 5) * ours.params[-1])

    both = jax.jit(lambda rate: jax.jvp(end, (rate,), (1.0,)))
    h = 1e-4
    slope = (both(0.03 + h)[0] - both(0.03 - h)[0]) / (2 * h)
    # Central differences: h²/6 times a third derivative of order slope/0.03².
    np.testing.assert_allclose(both(0.03)[1], slope, rtol=1e-5)


def test_reverse_mode_needs_no_forward_adjoint_and_says_so():
    # `adjoint` reaches diffrax: its default has no forward mode.
    with pytest.raises(TypeError, match="forward-mode"):
        jax.jvp(lambda rate: observed(POINT | {"learning_rate": rate}, 1e-6), (0.03,), (1.0,))
