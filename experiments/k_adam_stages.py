"""What each stage of k-Adam hands to the next, on a network in training (EQUATIONS §4).

The size of |u^i| by stage and strategy beside the stage's own bound, the effective step, and how
near each stage comes to sign descent. And a first stage whose bound grows without limit: its
overflow kills a coordinate for ever.
"""

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

import ct_adam as ct
from ct_adam.optimizers.k_adam_decays import EVERY_STAGE_ALIKE
from ct_adam.plotting.k_adam_stages import stages_figure
from ct_adam.sweep.provenance import provenance
from ct_adam.theory import update_bound

from . import Progress
from . import _k_adam_stages as measured
from ._checked import check_counts, check_names, check_positive
from ._generalisation import image_model
from ._k_adam_stages import BINS, CASES, OCTAVES, overflow_step

if TYPE_CHECKING:
    import xarray
    from matplotlib.figure import Figure

BASE = (0.9, 0.999)
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
            found = measured.trained(problem, params, config.learning_rate, decays, config.steps)
            rows.append(jax.tree.map(np.asarray, found))
            progress(strategy, len(rows), total)
    tree = xarray.DataTree.from_dict(
        {"network": _labelled(rows, config), "overflow": measured.overflow()}
    )
    progress("overflow", total, total)
    tree.attrs = provenance(config, time.perf_counter() - begun)
    return tree


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
