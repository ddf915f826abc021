"""AdamW as descent on a loss that it regularises dynamically, F_k = F + (λ_k/2)‖x‖²_{v_k}.

Source: EQUATIONS §6; Zhou et al., "Towards Understanding Convergence and Generalization of AdamW"
(TPAMI 2024). Their variant is `ct.optimizers.zhou_adamw`:

    x_{k+1} = (1 − ηλ_k) x_k − η m_k/v_k       v_k = √(n_k + δ)       λ_k = λ(1 − μ)^k

m_k and n_k already hold g_k, the gradient at x_k. So F_{k+1} is known only when step k + 1 has seen
its gradient: what is said of step k lags one step behind the run.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from ..conventions import not_negative, positive
from ..decays import Scalar, Schedule, learning_rate_at, whole_number
from ..norms import leaves_of
from ..optimizers import stage_states, uncorrected, zhou_adamw
from ..theory import zhou_decay
from ..theory.decay import Zhou
from ..theory.regularization import check_alike, one_number, regulariser, total


class ZhouState(NamedTuple):
    """Of step k: x_k before it, the moments m_k and n_k that it uses (g_k in them), and λ_k.

    !!! example
        >>> x, g = jnp.array([0.5]), jnp.array([2.0])
        >>> print(ZhouState(x, g, g**2, 0.1).second_moment)  # as they start
        [4.]
    """

    params: PyTree
    first_moment: PyTree
    second_moment: PyTree
    weight_decay: Any


class DescentTerms(NamedTuple):
    """One step of the descent inequality, left ≤ right; a scalar each, or (steps,)."""

    left: Array
    """F_{k+1}(x_{k+1})"""
    start: Array
    """F_k(x_k)"""
    error: Array
    """(η/2c₁)‖∇F(x_k) − m_k‖², which lets F_k rise"""
    gradient: Array
    """(η/2c₂)‖∇F_k(x_k)‖², subtracted"""
    update: Array
    """(η/4c₂)‖u_k‖², subtracted; u_k = m_k + λ_k x_k v_k"""
    reweighting: Array
    """F_{k+1}(x_{k+1}) − F_k(x_{k+1}): not positive where λ_k falls as fast as μ asks"""
    gradient_norm: Array
    """‖∇F_k(x_k)‖²"""

    @property
    def right(self) -> Array:
        return self.start + self.error - self.gradient - self.update

    @property
    def slack(self) -> Array:
        """right − left, negative where the inequality is violated."""
        return self.right - self.left

    @property
    def step_slack(self) -> Array:
        """The same before the weights change, right − F_k(x_{k+1}): negative only if η is above
        its limit, or c_∞ is none. `slack` is this less `reweighting`."""
        return self.slack + self.reweighting


def descent_terms(
    loss: Callable[[PyTree], Any],
    now: ZhouState,
    after: ZhouState,
    learning_rate: Scalar,
    eps_root: Scalar,
    bound: Scalar,
) -> DescentTerms:
    """The two sides of the descent inequality at step k, by the states of k and k + 1.

        F_{k+1}(x_{k+1}) ≤ F_k(x_k) + (η/2c₁)‖∇F − m_k‖² − (η/2c₂)‖∇F_k‖² − (η/4c₂)‖u_k‖²

    Key step. x_{k+1} − x_k = −ηu_k/v_k with the *same* v_k that weights F_k, so that F_k's own
    second-order expansion there is exact but for F's part, at most (L/2)‖x_{k+1} − x_k‖²:

        F_k(x_{k+1}) ≤ F_k(x_k) − η⟨∇F_k, u_k/v_k⟩ + (η²/2) Σ(L/v_k + λ_k) u_k²/v_k

    −2⟨a, b⟩ = ‖a − b‖² − ‖a‖² − ‖b‖² with ∇F_k − u_k = ∇F − m_k, c₁ ≤ v_k ≤ c₂ and
    η ≤ c₁/(2(L + λc₁)) give the three terms. F_k becomes F_{k+1} *at* x_{k+1}, which is downhill
    where λ_{k+1}v_{k+1} ≤ λ_k v_k (`zhou_decay`). With n_{k−1} in the place of n_k the step is not
    along u_k/v_k, and nothing of it follows. Source: EQUATIONS §6; Zhou et al.

    **Arguments:**

    - `loss`: F, the full loss and not the minibatch's.
    - `now`, `after`: of steps k and k + 1; moments are read *after* `optimizer.update`, params
        before it.
    - `learning_rate`: η of step k. `eps_root`: δ > 0. `bound`: c_∞, for c₂ = √(c_∞² + δ).

    **Raises:** `ValueError` unless the PyTrees are alike, for a negative η, and for a δ or c_∞ that
    is not positive.

    !!! example
        >>> import ct_adam as ct
        >>> loss = lambda x: jnp.sum(x**2) / 2
        >>> x, eta, delta, decay = jnp.array([0.5]), 0.3, 1.0, 0.1
        >>> now = ZhouState(x, x, x**2, decay)  # m₀ = g₀ = x₀, n₀ = g₀²
        >>> y = x - eta * (x / jnp.sqrt(x**2 + delta) + decay * x)
        >>> after = ZhouState(y, 0.9 * x + 0.1 * y, 0.99 * x**2 + 0.01 * y**2, 0.99 * decay)
        >>> terms = descent_terms(loss, now, after, eta, delta, bound=0.5)
        >>> print(f"{float(terms.left):.4f} <= {float(terms.right):.4f}")
        0.0684 <= 0.0768
    """
    for one in (now, after):
        check_alike(one.params, one.first_moment, one.second_moment)
        one_number("weight_decay", one.weight_decay)
    eta = one_number("learning_rate", learning_rate, not_negative)
    bottom = one_number("eps_root", eps_root, positive)
    c1, c2 = jnp.sqrt(bottom), jnp.sqrt(one_number("bound", bound, positive) ** 2 + bottom)
    value, grads = jax.value_and_grad(loss)(now.params)

    def pull(x: Array, n: Array) -> Array:
        """λ_k v_k x, of the regulariser."""
        return now.weight_decay * jnp.sqrt(n + eps_root) * x

    pulls = jax.tree.map(pull, now.params, now.second_moment)
    here = regulariser(now.params, now.second_moment, now.weight_decay, eps_root)
    new = regulariser(after.params, after.second_moment, after.weight_decay, eps_root)
    old = regulariser(after.params, now.second_moment, now.weight_decay, eps_root)
    slope = total(lambda g, p: (g + p) ** 2, grads, pulls)
    return DescentTerms(
        left=loss(after.params) + new,
        start=value + here,
        error=eta / (2 * c1) * total(lambda g, m: (g - m) ** 2, grads, now.first_moment),
        gradient=eta / (2 * c2) * slope,
        update=eta / (4 * c2) * total(lambda m, p: (m + p) ** 2, now.first_moment, pulls),
        reweighting=new - old,
        gradient_norm=slope,
    )


def descent_path(
    loss: Callable[[PyTree], Any],
    states: ZhouState,
    learning_rate: Scalar,
    eps_root: Scalar,
    bound: Scalar,
) -> DescentTerms:
    """`descent_terms` along a run whose n states were kept, leaves with a leading axis: n − 1
    steps. `descent_along` makes such a run.

    **Arguments:** as `descent_terms`; λ_k may be one number, where it is constant.

    **Returns:** `DescentTerms` of shape (n − 1,).

    **Raises:** `ValueError` as `descent_terms`, for fewer than two states, or unless there is a λ_k
    a state.

    !!! example
        >>> one = jnp.ones((3, 1))  # at rest where m = −λ x v
        >>> still = ZhouState(one, -0.1 * one, 0 * one, 0.1)
        >>> print(descent_path(jnp.sum, still, 0.5, 1.0, 1.0).reweighting)
        [0. 0.]
    """
    count = len(leaves_of(states.params)[0])
    if count < 2:
        raise ValueError("Give two states at least: the inequality of a step lags one behind.")
    decay = jnp.asarray(states.weight_decay, float)
    if decay.shape not in ((), (count,)):
        raise ValueError(f"weight_decay has shape {decay.shape}: give one λ_k a state, {count}.")
    states = states._replace(weight_decay=jnp.broadcast_to(decay, count))
    pairs = jax.tree.map(lambda x: x[:-1], states), jax.tree.map(lambda x: x[1:], states)

    def of(pair: tuple[ZhouState, ZhouState]) -> DescentTerms:
        now, after = pair
        return descent_terms(loss, now, after, learning_rate, eps_root, bound)

    return jax.lax.map(of, pairs)


class DescentRun(NamedTuple):
    """What `descent_along` saw.

    !!! example
        >>> from ct_adam.theory import from_zhou
        >>> method = from_zhou(0.1, 0.001, 1.0, 0.1)
        >>> run = descent_along(jnp.sum, jnp.ones(2), method, 0.1, 1.0, 3)
        >>> print(run.terms.left.shape, run.params.shape, run.largest_gradient)
        (3,) (2,) 1.0
    """

    terms: DescentTerms
    """by step, (steps,)"""
    params: PyTree
    """x after the last of them"""
    largest_gradient: Array
    """max |g_k|_∞, which c_∞ must not be below"""


def descent_along(
    loss: Callable[[PyTree], Any],
    params: PyTree,
    method: Zhou,
    learning_rate: Scalar | Schedule,
    bound: Scalar,
    steps: int,
    *,
    weight_decay: Scalar | Schedule | None = None,
    gradient: Callable[[Any, PyTree], PyTree] | None = None,
) -> DescentRun:
    """Both sides of the descent inequality along a run of Zhou et al.'s AdamW.

    **Arguments:**

    - `loss`: F. `params`: x_0, any PyTree.
    - `method`: as `from_zhou` returns it. `learning_rate`: η. `bound`: c_∞.
    - `steps`: how many inequalities; the run takes one step more.
    - `weight_decay`: λ_k, a number or a schedule; None: `zhou_decay(method, bound)`.
    - `gradient`: (k, x) → g_k, a PyTree like x, such as a minibatch's; None: ∇F.

    **Returns:** a `DescentRun`. Where the terms are no larger than F's rounding, as at rest or soon
    in float32, that may look like a violation.

    **Raises:** `ValueError` as `descent_terms` and `zhou_decay`, or for no steps.

    !!! example
        >>> from ct_adam.theory import from_zhou
        >>> loss = lambda x: jnp.sum(x**2) / 2
        >>> method = from_zhou(0.1, 0.001, 1.0, 0.1)
        >>> run = descent_along(loss, jnp.array([0.5]), method, 0.4, bound=0.5, steps=50)
        >>> print(int((run.terms.slack < 0).sum()), f"{float(run.largest_gradient):.1f}")
        0 0.5
    """
    steps = whole_number("steps", steps)
    given: Any = bound
    decay = zhou_decay(method, given) if weight_decay is None else weight_decay
    # As arrays: a Python 0 would remove a moment that the inequality asks for.
    method = jax.tree.map(lambda number: jnp.asarray(number, float), method)
    optimizer = zhou_adamw(method, learning_rate, decay)
    sampled = gradient or (lambda _, x: jax.grad(loss)(x))

    def visit(step: Any, x: PyTree, state: Any, largest: Array) -> tuple[ZhouState, Any]:
        """The state of step k, and what the next one starts from."""
        g = sampled(step, x)
        delta, state = optimizer.update(g, state, x)
        (stage,) = stage_states(state, 1)
        now = ZhouState(x, stage.m, stage.v, learning_rate_at(decay, step))
        seen = jnp.stack([largest, *(jnp.max(jnp.abs(leaf)) for leaf in jax.tree.leaves(g))])
        return now, (jax.tree.map(jnp.add, x, delta), state, jnp.max(seen))

    def pair(carry: Any, step: Array) -> Any:
        now, ahead = carry
        after, ahead = visit(step, *ahead)
        eta = learning_rate_at(learning_rate, step - 1)
        terms = descent_terms(loss, now, after, eta, method.eps_root, bound)
        return (after, ahead), terms

    params = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.result_type(float, leaf)), params)
    state = uncorrected(optimizer.init(params), sampled(0, params))
    begun = visit(0, params, state, jnp.zeros((), float))
    (after, (_, _, largest)), terms = jax.lax.scan(pair, begun, jnp.arange(1, steps + 1))
    return DescentRun(terms, after.params, largest)
