"""What `dynamic_regularization` measures of stationary laws (EQUATIONS §6): chains with the
preconditioner held, and Adam itself. Their PAC-Bayes terms: `_pac_bayes`."""

from collections.abc import Callable, Sequence
from functools import partial
from itertools import product
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

import ct_adam as ct
from ct_adam import theory
from ct_adam.theory.stationary import RULES, Rule

from ._chains import BATCH, Chain, chain_at, commuting, stable_without_momentum
from ._pac_bayes import NAMES

if TYPE_CHECKING:
    import xarray

MOMENTA = (0.0, 0.9)
CURVATURE, DECAYS = 0.25, (0.2, 0.5)
"""Of one mode. At h = 1 AdamW and Adam-ℓ2 are alike."""
COUPLED = np.array([[4.0, 1.6, 0.1], [1.6, 1.0, -0.15], [0.1, -0.15, 0.25]])
"""A Hessian that is far from commuting with diag(H)^{-1/2}."""
COUPLED_DECAY = 1.0
"""Where Adam-ℓ2's own law and the commuting one are well apart."""
WRONG = ("the flow's", "no momentum's", "the other rule's")
COMMUTING = "the commuting"


def modes(replicas: int, parts: Sequence[float], seed: int = 0) -> "xarray.Dataset":
    """Variance in one mode over rules, momenta, decays and learning rates, against the closed form
    of the chain and three that are not its own."""
    hessian = np.array([[CURVATURE]])
    of_rule = {rule: (0.0,) if rule == "adam" else DECAYS for rule in RULES}
    chains = [
        chain_at(rule, b1, decay, part, hessian)
        for rule in RULES
        for b1, decay, part in product(MOMENTA, of_rule[rule], parts)
    ]

    def closed(chain: Chain, discrete: bool = True, **other: Any) -> np.ndarray:
        rule, b1, decay, eta, *_ = chain._replace(**other)
        variance = theory.stationary_variance(CURVATURE, eta, BATCH, decay, rule, b1, discrete)
        return np.array([[float(variance)]])

    def wrong(chain: Chain) -> dict[str, np.ndarray]:
        found = {WRONG[0]: closed(chain, False)}
        if chain.b1:
            found[WRONG[1]] = closed(chain, b1=0.0)
        if chain.rule != "adam":
            other = "adam_l2" if chain.rule == "adamw" else "adamw"
            found[WRONG[2]] = closed(chain, rule=other)
        return found

    laws = [closed(chain) for chain in chains]
    found = _against(chains, laws, [wrong(chain) for chain in chains], WRONG, replicas, seed)
    part = [part for rule in RULES for _, _, part in product(MOMENTA, of_rule[rule], parts)]
    found = found.assign_coords(part=("lane", part)).assign_attrs(curvature=CURVATURE)
    return found.squeeze(("row", "column"), drop=True)


def matrices(replicas: int, part: float = 0.25, seed: int = 1) -> "xarray.Dataset":
    """Covariances in three coupled directions, Q and H not commuting, against Lyapunov solves."""
    wrongs = (*WRONG[:2], COMMUTING)
    chains = [
        chain_at(rule, b1, 0.0 if rule == "adam" else COUPLED_DECAY, part, COUPLED)
        for rule, b1 in product(RULES, MOMENTA)
    ]

    def wrong(chain: Chain) -> dict[str, np.ndarray]:
        found = {WRONG[0]: chain.law(False)}
        if chain.b1:
            there = stable_without_momentum(chain)
            found[WRONG[1]] = chain.law(b1=0.0) if there else np.full((3, 3), np.inf)
        else:
            found[COMMUTING] = commuting(chain)
        return found

    laws = [chain.law() for chain in chains]
    return _against(chains, laws, [wrong(chain) for chain in chains], wrongs, replicas, seed)


def _against(
    chains: Sequence[Chain], laws: Sequence[np.ndarray], wrong: Sequence[dict[str, np.ndarray]],
    wrongs: Sequence[str], replicas: int, seed: int,
) -> "xarray.Dataset":  # fmt: skip
    streams = np.random.SeedSequence(seed).spawn(len(chains))
    generators = [np.random.Generator(np.random.SFC64(stream)) for stream in streams]
    measured = np.array(
        [chain.simulated(replicas, rng) for chain, rng in zip(chains, generators, strict=True)]
    )
    missing = np.full_like(laws[0], np.nan)
    others = np.array([[one.get(name, missing) for name in wrongs] for one in wrong])
    fields = ("rule", "b1", "weight_decay", "learning_rate")
    lanes = {name: [getattr(chain, name) for chain in chains] for name in fields}
    lanes["rule"] = [NAMES[rule] for rule in lanes["rule"]]
    law = np.array(laws)
    error, wrong_error = (sampling_error(each, replicas) for each in (law, others))
    found = _compared(measured, law, error, others, wrong_error, wrongs, lanes)
    return found.assign_attrs(replicas=replicas)


def sampling_error(covariance: np.ndarray, replicas: int) -> np.ndarray:
    """Standard error of each entry, over so many Gaussian replicas of known mean:
    √((C_ii C_jj + C_ij²)/N) (Isserlis)."""
    variance = np.diagonal(covariance, axis1=-2, axis2=-1)
    return np.sqrt((variance[..., :, None] * variance[..., None, :] + covariance**2) / replicas)


def _compared(
    measured: np.ndarray, law: np.ndarray, error: np.ndarray, wrong: np.ndarray,
    wrong_error: np.ndarray, wrongs: Sequence[str], lanes: dict[str, list[Any]],
) -> "xarray.Dataset":  # fmt: skip
    """z is in standard errors; that of a wrong law is of its largest entry."""
    import xarray

    entry = ("lane", "row", "column")
    with np.errstate(invalid="ignore"):
        far = np.abs((measured[:, None] - wrong) / wrong_error).max((-2, -1))
    # No law at all where there is one: rejected beyond any number.
    far = np.where(np.isinf(wrong).any((-2, -1)), np.inf, far)
    return xarray.Dataset(
        {
            "measured": (entry, measured),
            "theory": (entry, law),
            "error": (entry, error),
            "z": (entry, (measured - law) / error),
            "wrong_theory": (("lane", "wrong", *entry[1:]), wrong),
            "wrong_z": (("lane", "wrong"), far),
        },
        coords={**{name: ("lane", values) for name, values in lanes.items()}, "wrong": [*wrongs]},
    )


def agreement(dataset: "xarray.Dataset") -> dict[str, float]:
    """How far the laws are from what was measured, and the |z| that so many comparisons stay below
    with 95 % (Bonferroni); entries beside the diagonal count once."""
    from scipy import stats

    z = np.abs(dataset.z.values)
    if z.ndim == 3:
        z = z[:, *np.triu_indices(z.shape[1])]
    return {
        "largest |z|": float(z.max()),
        "comparisons": z.size,
        "limit": float(stats.norm.isf(0.025 / z.size)),
        "above 3": int((z > 3).sum()),
        "above 3 by chance": float(2 * stats.norm.sf(3) * z.size),
    }


LIVE_RATES = {"modes": 0.01, "coupled": 0.1}
"""§6's, and one at which the iterates' own spread matters to v."""
LIVE_HESSIANS = {"modes": np.diag([0.1, 1.0, 10.0]), "coupled": COUPLED}
LIVE_DECAY, B2 = 0.3, 0.999
LIVE_WRONG = ("Zhou's Q", "another rule's", "the noise alone in v")


def live(replicas: int, steps: int, seed: int = 2, every: int = 50) -> "xarray.Dataset":
    """Covariances of Adam, Adam-ℓ2 and AdamW as they are, v live and eps = 0, over the last half
    of the run, against the Lyapunov solve with Q at rest. All of a problem see the same noise."""
    lanes = list(product(LIVE_RATES, RULES, MOMENTA))
    seen = [
        _lived(jnp.asarray(hessian), LIVE_RATES[problem], seed + i, replicas, steps, every)
        for i, (problem, hessian) in enumerate(LIVE_HESSIANS.items())
    ]
    # A replica's time average is one draw, so that what is correlated in time does no harm.
    squares = np.concatenate([np.asarray(one) for one in seen])
    error = squares.std(1, ddof=1) / np.sqrt(replicas)
    laws = [_live_laws(*lane) for lane in lanes]
    law, wrong = np.array([one[0] for one in laws]), np.array([one[1:] for one in laws])
    names = ("problem", "rule", "b1")
    told: dict[str, list[Any]] = {name: [lane[i] for lane in lanes] for i, name in enumerate(names)}
    told["learning_rate"] = [LIVE_RATES[problem] for problem in told["problem"]]
    told["rule"] = [NAMES[rule] for rule in told["rule"]]
    found = _compared(squares.mean(1), law, error, wrong, error[:, None], LIVE_WRONG, told)
    about = {"b2": B2, "weight_decay": LIVE_DECAY, "batch_size": BATCH}
    return found.assign_attrs(replicas=replicas, steps=steps, **about)


def _live_laws(problem: str, rule: Rule, b1: float) -> list[np.ndarray]:
    """The right one, and those of `LIVE_WRONG`."""
    hessian, eta = LIVE_HESSIANS[problem], LIVE_RATES[problem]
    rest: tuple[Any, ...] = (eta, BATCH, LIVE_DECAY, rule, b1, True)
    q = theory.live_preconditioner(hessian, *rest)
    other: Rule = "adamw" if rule == "adam_l2" else "adam_l2"
    solve = partial(theory.stationary_covariance, hessian)
    another = solve(q, eta, BATCH, LIVE_DECAY, other, b1, True)
    return [solve(q, *rest), solve("frozen", *rest), another, solve("adam", *rest)]


@partial(jax.jit, static_argnames=("replicas", "steps", "every"))
def _lived(
    hessian: Array, eta: Any, seed: Any, replicas: int, steps: int, every: int
) -> Float[Array, "lane replica d d"]:
    """θθᵀ of each replica, mean over every so many of the last half's steps; lanes are rules by
    momenta."""
    make: dict[Rule, Callable[..., Any]] = {
        "adamw": partial(ct.adamw, weight_decay=LIVE_DECAY),
        "adam_l2": partial(ct.adam_l2, weight_decay=LIVE_DECAY),
        "adam": ct.adamw,
    }
    optimizers = [make[rule](eta, b1, B2, eps=0.0) for rule, b1 in product(RULES, MOMENTA)]
    root, key = jnp.linalg.cholesky(hessian / BATCH), jax.random.key(seed)

    def step(n: Any, carry: Any) -> Any:
        noise = jax.random.normal(jax.random.fold_in(key, n), (replicas, len(hessian))) @ root.T

        def one(optimizer: Any, theta: Array, state: Any) -> Any:
            # Coordinate by coordinate: one optimizer for all replicas.
            delta, state = optimizer.update(theta @ hessian + noise, state, theta)
            return theta + delta, state

        return [one(rule, *each) for rule, each in zip(optimizers, carry, strict=True)]

    def look(carry: Any, begin: Any) -> Any:
        lanes, total = carry
        lanes = jax.lax.fori_loop(begin, begin + every, step, lanes)
        theta = jnp.stack([theta for theta, _ in lanes])
        seen = theta[..., :, None] * theta[..., None, :]
        return (lanes, total + jnp.where(begin >= steps // 2, seen, 0)), None

    theta, begins = jnp.zeros((replicas, len(hessian))), jnp.arange(0, steps, every)
    lanes = [(theta, optimizer.init(theta)) for optimizer in optimizers]
    total = jnp.zeros((len(lanes), *theta.shape, len(hessian)))
    total = jax.lax.scan(look, (lanes, total), begins)[0][1]
    return total / jnp.sum(begins >= steps // 2)
