"""Paths of a stochastic flow: its terms, its solver and the length of its steps, for diffrax.

Noise is additive in `AdamSDE` (constant Σ, into m) and `SGDSDE`: ShARK, of strong order 1.5 and
weak order 2 at two gradients a step, where Euler–Maruyama has order 1 at one, EulerHeun too, and
Milstein's correction vanishes. RMSProp's noise is divided by √ν, which is no function of time to
the solver: SlowRK, of the same orders for such (commutative) noise and at as many gradients.
Adaptive steps buy little: what must be resolved, the moments' relaxation, keeps its pace.
"""

from typing import Any

import diffrax
import equinox.internal as eqxi
import jax
from jaxtyping import PyTree

from ..flows import AbstractFlow, AbstractSDE
from ..problems import AbstractProblem
from ..problems.noise import WhiteNoise, as_white

STEP = 0.5
"""Length of a solver step, in optimizer steps. A power of two, so that times are exact: Brownian
increments are drawn by the bits of their ends, and every engine shall draw the same."""
FINEST = 2.0**-10
"""The shortest interval, in optimizer steps, over which a Brownian tree still knows its path."""


class NoiseTerm(diffrax.AbstractTerm):
    """noise_increment(diffusion · dW): noise only for the part of the state that has any."""

    flow: AbstractSDE
    path: diffrax.AbstractBrownianPath

    def vf(self, t: Any, y: PyTree, args: Any) -> PyTree:
        return self.flow.diffusion(t, y, args)

    def contr(self, t0: Any, t1: Any, **kwargs: Any) -> PyTree:
        return self.path.evaluate(t0, t1, **kwargs)

    def prod(self, vf: PyTree, control: PyTree) -> PyTree:
        return self.flow.noise_increment(jax.tree.map(lambda x, dw: x * dw, vf, control))


class EqualSteps(diffrax.AbstractStepSizeController):
    """Steps of one length, each added to the last: exact for a power of two, where diffrax's
    `ConstantStepSize` takes fractions k/N of the whole, which round."""

    length: Any = STEP

    def wrap(self, direction: Any) -> "EqualSteps":
        return self

    def init(self, terms, t0, t1, y0, dt0, args, func, error_order):
        return t0 + (self.length if dt0 is None else dt0), dt0

    def adapt_step_size(
        self, t0, t1, y0, y1_candidate, args, y_error, error_order, controller_state
    ):
        length = self.length if controller_state is None else controller_state
        return True, t1, t1 + length, False, controller_state, diffrax.RESULTS.successful


def while_integrated(flow: AbstractFlow, problem: AbstractProblem) -> AbstractProblem:
    """The problem that a flow sees after its warm steps: for a stochastic one, without the noise of
    single gradients."""
    return as_white(problem) if isinstance(flow, AbstractSDE) else problem


def terms_of(
    flow: AbstractFlow,
    problem: AbstractProblem,
    params: PyTree,
    t0: Any,
    t1: Any,
    tree: bool = False,
) -> diffrax.AbstractTerm:
    """What diffrax integrates; `tree`: along a path that any steps can follow."""
    drift: Any = diffrax.ODETerm(flow.vector_field)  # pyright: ignore[reportArgumentType]
    if not isinstance(flow, AbstractSDE):
        return drift
    assert isinstance(problem, WhiteNoise)
    shape = jax.tree.map(lambda p: jax.ShapeDtypeStruct(p.shape, p.dtype), params)
    area = diffrax.SpaceTimeLevyArea
    if tree:
        path: Any = diffrax.VirtualBrownianTree(t0, t1, FINEST, shape, problem.key, area)
    else:
        path = diffrax.UnsafeBrownianPath(shape, problem.key, area)
    return diffrax.MultiTerm(drift, NoiseTerm(flow, path))


def default_solver(flow: AbstractFlow) -> diffrax.AbstractSolver:
    """Tsit5, and for a stochastic flow the stochastic Runge–Kutta method that fits its noise."""
    if not isinstance(flow, AbstractSDE):
        return diffrax.Tsit5()
    return diffrax.ShARK() if flow.additive else diffrax.SlowRK()


def check_solver(flow: AbstractFlow, solver: diffrax.AbstractSolver) -> None:
    """Refuses a solver of the other kind of equation, ordinary or stochastic."""
    name = type(solver).__name__
    if isinstance(flow, AbstractSDE):
        if not isinstance(solver, diffrax.AbstractStratonovichSolver | diffrax.AbstractItoSolver):
            raise ValueError(
                f"{name} is no solver for stochastic equations: take ShARK, or another of "
                "diffrax's SDE solvers."
            )
    elif isinstance(solver, diffrax.AbstractSRK | diffrax.AbstractFosterLangevinSRK):
        raise ValueError(
            f"{name} is a solver for stochastic equations, and {type(flow).__name__} is an "
            "ordinary one: take Tsit5."
        )


_BACKWARD = (
    "Reverse mode needs a path of a stochastic flow that is there before its steps: give solve "
    "controller=diffrax.ConstantStepSize() and dt0=0.5."
)


def check_path(
    controller: diffrax.AbstractStepSizeController | None, adjoint: diffrax.AbstractAdjoint | None
) -> None:
    """Refuses adjoints for reverse mode where the path is drawn as the steps go."""
    backward = diffrax.RecursiveCheckpointAdjoint | diffrax.BacksolveAdjoint
    if controller is None and isinstance(adjoint, backward):
        raise ValueError(_BACKWARD)


def forward_only(tree: PyTree) -> PyTree:
    """The same; reverse mode says what to do, where JAX would speak of `while_loop`."""
    return eqxi.nondifferentiable_backward(tree, msg=_BACKWARD)
