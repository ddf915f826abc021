"""What each stage of k-Adam hands to the next, on a network in training (EQUATIONS §4).

The size of |u^i| by stage and strategy beside the stage's own bound, the effective step, and how
near each stage comes to sign descent. And a first stage whose bound grows without limit: its
overflow kills a coordinate for ever.
"""

import time
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, PyTree

import ct_adam as ct
from ct_adam.optimizers.k_adam_decays import EVERY_STAGE_ALIKE
from ct_adam.plotting.k_adam_stages import stages_figure
from ct_adam.problems import Minibatches
from ct_adam.sweep.provenance import provenance
from ct_adam.theory import growth_rate, update_bound

from . import Progress
from ._checked import check_counts, check_names, check_positive
from ._generalisation import image_model

if TYPE_CHECKING:
    import xarray
    from matplotlib.figure import Figure

BASE = (0.9, 0.999)
OCTAVES = (-16, 4)
"""Of |u^i|, what the histogram shows; what is smaller counts in the first bin."""
BINS = 80
BAD, GOOD, LAST = (0.99, 0.5), (0.5, 0.99), BASE
EPS = {"bad first stage, eps = 0": (BAD, 0.0), "bad first stage, eps = 1e-8": (BAD, 1e-8)}
CASES = {**EPS, "good first stage, eps = 0": (GOOD, 0.0)}
"""The first stage of two, in float32, with the defaults as the second."""
LOUD, QUIET, AFTER = 20, 180, 100
"""Steps with gradient 1000, none, and gradient 1."""
ROUNDING = 1e-6
"""Of the bound: float32 rounds m̂ and √v̂ by some 1e-7."""
EXPECTED = (
    "No stage's update ever exceeds the bound of its own decays. That of a first stage with "
    "b1² > b2 grows without limit: with eps = 0 and a gradient that vanishes its square overflows "
    "at the step that its growth rate says, and from then on the second stage's update is 0 for "
    "ever. A first stage with b1² < b2 prevents it; eps does too, but the second stage remembers "
    "how large the first one's update was and all but stops. How near a stage is to sign descent, "
    "and whether the next is nearer, is found, not expected."
)


@dataclass(frozen=True)
class Config:
    """Which network, how many stages, for how long."""

    images: str = "mnist"
    strategies: tuple[str, ...] = ("inverse_exp", "exp", "scaled", "naive", "lag_split")
    stages: int = 4
    seeds: int = 3
    """of weights and batches"""
    steps: int = 1000
    """the second half counts, but for the largest update"""
    batch: int = 32
    learning_rate: float = 1e-3

    def __post_init__(self) -> None:
        check_counts(self, stages=2, seeds=2, steps=4, batch=1)
        check_names(self, once=True, strategies=EVERY_STAGE_ALIKE)
        check_positive(self, "learning_rate")


SIZES = {
    "smoke": Config(images="digits", strategies=("inverse_exp", "naive"), stages=2, seeds=2,
                    steps=60, batch=8),
    "quick": Config(),
    "full": Config(stages=8, seeds=10, steps=10_000),
}  # fmt: skip


def run(config: Config, progress: Progress) -> "xarray.DataTree":
    """Node `network` over (strategy, seed, stage), and `overflow` over (case, step)."""
    import xarray

    begun = time.perf_counter()
    made = image_model("images", config.images, "small", config.batch, 1).make
    models = [made(seed) for seed in range(config.seeds)]
    total = len(config.strategies) * config.seeds + 1
    rows = []
    for strategy in config.strategies:
        decays = ct.k_adam_decays(config.stages, *BASE, strategy)  # pyright: ignore[reportArgumentType]
        for problem, params in models:
            found = _trained(problem, params, config.learning_rate, decays, config.steps)
            rows.append(jax.tree.map(np.asarray, found))
            progress(strategy, len(rows), total)
    tree = xarray.DataTree.from_dict({"network": _labelled(rows, config), "overflow": _overflow()})
    progress("overflow", total, total)
    tree.attrs = provenance(config, time.perf_counter() - begun)
    return tree


def _trained(
    problem: Minibatches, params: PyTree, rate: float, decays: Any, steps: int
) -> dict[str, Array]:
    # As arrays: one program for all strategies.
    b1, b2 = (tuple(jnp.asarray(b, float) for b in bs) for bs in decays)
    return _measured(problem, params, jnp.asarray(rate), b1, b2, steps)


@eqx.filter_jit
def _measured(
    problem: Minibatches, params: PyTree, rate: Array, b1: Any, b2: Any, steps: int
) -> dict[str, Array]:
    """By stage: the largest |u^i| at every step, means of the run's second half."""
    flow = ct.KAdamFlow(rate, b1, b2)
    optimizer = flow.optimizer

    def step(carry: Any, n: Array) -> Any:
        params, state = carry
        gradient = problem.gradient(n, params)
        stages = ct.stage_updates(flow.hyperparameters, gradient, state, params)
        delta, state = optimizer.update(gradient, state, params)
        seen = jax.vmap(_seen)(jnp.stack([_flat(u) for u in stages]))
        return (optax.apply_updates(params, delta), state), seen

    _, seen = jax.lax.scan(step, (params, optimizer.init(params)), jnp.arange(steps))
    late = {name: jnp.mean(values[steps // 2 :], axis=0) for name, values in seen.items()}
    return {**late, "rms": jnp.sqrt(late["square"]), "largest": seen["largest"].T}


def _flat(tree: PyTree) -> Float[Array, " size"]:
    return jnp.concatenate([leaf.ravel() for leaf in jax.tree.leaves(tree)])


def _seen(u: Float[Array, " size"]) -> dict[str, Array]:
    size = jnp.abs(u)
    low, high = OCTAVES
    octaves = jnp.clip(jnp.log2(jnp.maximum(size, 2.0**-30)), low, high)
    share = jnp.histogram(octaves, bins=BINS, range=(low, high))[0] / size.size
    square = jnp.mean(size**2)
    # cos(u, sign u): 1 where all coordinates are equal in size
    return {
        "largest": jnp.max(size),
        "square": square,
        "near_sign": jnp.mean(size) / jnp.sqrt(square),
        "share": share,
    }


def _labelled(rows: list[dict[str, np.ndarray]], config: Config) -> "xarray.Dataset":
    import xarray

    shape = (len(config.strategies), config.seeds)
    by_run = {
        name: np.array([row[name] for row in rows]).reshape(*shape, *rows[0][name].shape)
        for name in ("share", "rms", "near_sign", "largest")
    }
    dims = ("strategy", "seed", "stage")
    names = {
        "share": (("bin",), {"long_name": "share of coordinates"}),
        "rms": ((), {"long_name": "root mean square of u^i"}),
        "near_sign": ((), {"long_name": "cosine between u^i and its sign"}),
        "largest": (("step",), {"long_name": "largest |u^i|"}),
    }
    seen = np.arange(1, config.steps + 1)
    pairs = [ct.k_adam_decays(config.stages, *BASE, s) for s in config.strategies]  # pyright: ignore[reportArgumentType]
    bounds = [np.asarray(update_bound(b1[0], b2[0], seen, "discrete")) for b1, b2 in pairs]
    low, high = OCTAVES
    return xarray.Dataset(
        {
            **{
                name: ((*dims, *more), by_run[name], about) for name, (more, about) in names.items()
            },
            "bound": (("strategy", "step"), np.array(bounds), {"long_name": "its bound"}),
        },
        coords={
            "strategy": list(config.strategies),
            "b1": ("strategy", [float(b1[0]) for b1, _ in pairs]),
            "b2": ("strategy", [float(b2[0]) for _, b2 in pairs]),
            "stage": np.arange(1, config.stages + 1),
            "step": ("step", np.arange(config.steps), {"units": "steps"}),
            "bin": (np.linspace(low, high, BINS + 1)[:-1] + (high - low) / BINS / 2),
        },
        attrs={"images": config.images, "batch": config.batch, "rate": config.learning_rate},
    )


def _overflow() -> "xarray.Dataset":
    """Two stages on one coordinate in float32: |u¹|, |u²| and θ by case and step."""
    import xarray

    gradients = np.repeat([1000.0, 0.0, 1.0], [LOUD, QUIET, AFTER])
    paths = [_stream(*case, gradients) for case in CASES.values()]
    return xarray.Dataset(
        {name: (("case", "step"), np.array([p[name] for p in paths])) for name in paths[0]},
        coords={"case": list(CASES), "step": ("step", np.arange(len(gradients)))},
        attrs={"predicted": overflow_step()},
    )


def overflow_step() -> int:
    """The first step n whose (u¹)² is above the largest float32.

    From the last gradient on m and v decay by b1 and b2, so that u¹ is that of step LOUD-1 times
    (b1/√b2)^j, with its bias factors.
    """
    b1, b2 = BAD
    j = np.arange(QUIET)
    n = LOUD + j
    # of a constant gradient m = 1 - b1ⁿ and v = 1 - b2ⁿ after n gradients, in its units
    start = np.log1p(-(b1**LOUD)) - np.log1p(-(b2**LOUD)) / 2
    bias = np.log1p(-(b2 ** (n + 1.0))) / 2 - np.log1p(-(b1 ** (n + 1.0)))
    log_u = start + float(growth_rate(b1, b2, "discrete")) * (j + 1) + bias
    return int(n[np.argmax(2 * log_u > np.log(np.finfo(np.float32).max))])


def _stream(first: tuple[float, float], eps: float, gradients: np.ndarray) -> dict[str, np.ndarray]:
    b1, b2 = zip(first, LAST, strict=True)
    flow = ct.KAdamFlow(1e-3, b1, b2, eps=eps)
    optimizer, start = flow.optimizer, jnp.zeros((), jnp.float32)

    def step(carry: Any, g: Array) -> Any:
        params, state = carry
        updates = ct.stage_updates(flow.hyperparameters, g, state, params)
        delta, state = optimizer.update(g, state, params)
        params = optax.apply_updates(params, delta)
        return (params, state), {"u1": updates[0], "u2": updates[1], "params": params}

    # As one compiled scan: outside one, warnings of an overflow depend on the platform.
    _, path = jax.jit(partial(jax.lax.scan, step))(
        (start, optimizer.init(start)), jnp.asarray(gradients, jnp.float32)
    )
    return {name: np.asarray(values) for name, values in path.items()}


def plot(dataset: "xarray.DataTree") -> "Figure":
    return stages_figure(dataset, numbers(dataset))


def numbers(dataset: "xarray.DataTree") -> dict[str, Any]:
    """By strategy and stage; the overflow's step beside the predicted one."""
    network, overflow = dataset["network"].to_dataset(), dataset["overflow"].to_dataset()
    found: dict[str, Any] = {}
    for strategy in network.strategy.values:
        one = network.sel(strategy=strategy)
        # The first updates are ±1 and so is their bound.
        late = slice(one.sizes["step"] // 2, None)
        over = (one.largest / one.bound).isel(step=late).max(("seed", "step"))
        found[str(strategy)] = {
            "b1, b2": f"{float(one.b1):.4g}, {float(one.b2):.4g}",
            **{
                f"stage {i}": {
                    "rms": float(one.rms.sel(stage=i).mean()),
                    "cos(u, sign u)": float(one.near_sign.sel(stage=i).mean()),
                    "± seeds": float(one.near_sign.sel(stage=i).std(ddof=1)),
                    "largest": float(one.largest.sel(stage=i).max()),
                    "largest over bound, second half": float(over.sel(stage=i)),
                }
                for i in one.stage.values.tolist()
            },
        }
    found["overflow"] = {"step predicted": int(overflow.attrs["predicted"])} | {
        case: _life(overflow.sel(case=case), CASES[case][0]) for case in CASES
    }
    return found


def _life(one: "xarray.Dataset", first: tuple[float, float]) -> dict[str, Any]:
    """Of a coordinate: its largest u¹, when u² died, and u² long after gradients are back."""
    bound = update_bound(*first, one.step.values + 1, "discrete", log=True)
    with np.errstate(divide="ignore"):  # u¹ = 0 where v has underflowed
        over = np.exp(np.log(np.abs(one.u1.values)) - np.asarray(bound))
    still = np.flatnonzero(one.u2.values != 0)[-1] + 1
    return {
        "largest |u1|": float(np.abs(one.u1).max()),
        "largest |u1| over its bound": float(over.max()),
        "u2 is 0 from step": int(still) if still < one.sizes["step"] else None,
        "|u2| at the end": float(np.abs(one.u2[-1])),
    }


def check(dataset: "xarray.DataTree") -> list[str]:
    missing = []
    network = dataset["network"].to_dataset()
    for strategy in network.strategy.values:
        one = network.sel(strategy=strategy)
        over = float((one.largest / one.bound).max())
        if not over <= 1 + ROUNDING:
            missing.append(f"{strategy}: an update is {over:.7g} times its stage's bound.")
    lives, predicted = numbers(dataset)["overflow"], overflow_step()
    for case in CASES:
        died, dies = lives[case]["u2 is 0 from step"], case == next(iter(CASES))
        if died != (predicted if dies else None):
            expected = f"die at step {predicted}" if dies else "live"
            missing.append(f"{case}: u² should {expected}; it is 0 from step {died}.")
        over = lives[case]["largest |u1| over its bound"]
        if not over <= 1 + 10 * ROUNDING:  # v decays by rounded products, a hundred and more
            missing.append(f"{case}: u¹ is {over:.7g} times its bound.")
    slept, moved = (lives[case]["|u2| at the end"] for case in list(CASES)[1:])
    if not slept < moved / 10:
        missing.append(f"With eps |u²| ends at {slept:.3g}, not far below {moved:.3g} of no spike.")
    return missing
