"""The problems of a region map: how a lane is made, on each side, from a pair of decays."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from ..decays import RATES, Rates, choice
from ..ensemble import Case
from ..flows import AdamFlow
from ..optimizers import Optimizer, UpdateRule, k_adam
from ..optimizers.registry import ADAM_KIN, optimizer_named
from ..problems import (
    AbstractProblem,
    GradientStream,
    constant_stream,
    digits_mlp,
    random_stream,
    vanishing_stream,
    worst_case_stream,
)
from ..problems.models import count_parameters
from ..problems.registry import CURVATURES, problem_named

PANELS = ("worst_case", "vanishing", "random", "constant", "quadratic", "network")
"""Problems of the map: four streams of gradients, a quadratic, a small network."""
# A stream's updates do not depend on its scale (eps = 0); this one, a power of two so that not
# even rounding does, keeps g² and v in floating-point range over 1000 steps.
STREAM_SCALE = 2.0**498
_SMALLEST = 2.0**-500


@dataclass(frozen=True)
class RegionConfig:
    """What to map, and how finely."""

    cells: int = 256
    """cells a side of the streams' and the quadratic's maps"""
    network_cells: int = 12
    """cells a side of the network's map, and of your own problem's"""
    low: float = 0.5
    """both decays run over (low, 1)"""
    rates: Rates = "log"
    """relaxation rates of the flow: log, lag or euler"""
    panels: tuple[str, ...] = ("worst_case", "vanishing", "quadratic", "network")
    """which problems: worst_case, vanishing, random, constant, quadratic, network"""
    problem: str | None = None
    """in their place: a problem by name, or your own as package.module:factory"""
    optimizer: str = "adamw"
    """of losses: adamw, adam_l2, adam_prox, or your own, of learning_rate, b1, b2 and eps; the flow
    beside it is always Adam's"""
    stream_steps: int = 1000
    """optimizer steps on given gradients"""
    quadratic_steps: int = 300
    """those on the quadratic"""
    network_steps: int = 60
    """those of the network, and of your own problem"""
    learning_rate: float = 1e-2
    """of losses; streams do not feel it"""
    eps: float = 1e-8
    """of losses; streams have 0"""
    images: int = 128
    """digits that the network learns"""
    hidden: int = 16
    """width of its hidden layer"""
    seed: int = 0
    """of the network's start and data, and of random gradients"""

    @property
    def names(self) -> tuple[str, ...]:
        """The panels that are mapped."""
        return self.panels if self.problem is None else ("problem",)

    def __post_init__(self) -> None:
        choice("rates", self.rates, RATES)
        for panel in self.panels:
            choice("panel", panel, PANELS)
        if len(set(self.panels)) < len(self.panels):
            raise ValueError("panels names one twice: name each once.")
        if not self.panels:
            raise ValueError(f"panels is empty: choose among {', '.join(PANELS)}.")
        for name in ("cells", "network_cells", "hidden"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} = {getattr(self, name)} must be at least 1.")
        for name in ("stream_steps", "quadratic_steps", "network_steps"):
            if getattr(self, name) < 4:
                raise ValueError(f"{name} = {getattr(self, name)} must be at least 4.")
        if self.optimizer != "adamw" and self.problem is None:
            raise ValueError("optimizer is for a problem of your own: name it with --problem.")
        if not 0 <= self.low < 1:
            raise ValueError(f"low = {self.low} must be in [0, 1).")
        if self.seed < 0:
            raise ValueError(f"seed = {self.seed} must not be negative.")
        for name in ("learning_rate", "eps"):
            if not 0 <= getattr(self, name) < np.inf:
                value = getattr(self, name)
                raise ValueError(f"{name} = {value} must be finite and not negative.")


SIZES = {
    "smoke": RegionConfig(
        cells=12, network_cells=3, stream_steps=200, quadratic_steps=60, network_steps=20, hidden=4
    ),
    "quick": RegionConfig(),
    "full": replace(RegionConfig(), cells=1024, network_cells=32),
}
"""Of `experiments/region`: seconds, two minutes, hours."""


@dataclass(frozen=True)
class Panel:
    """One problem: how a lane is made for each side, and what it costs."""

    title: str
    make: dict[str, Callable[..., Case]]
    problem: AbstractProblem | None
    params: PyTree
    steps: int
    cells: int
    tolerances: dict[str, Any]
    optimizer: str = "Adam"
    """the discrete side; theory's bound is Adam's alone"""


def _stream_panel(
    title: str,
    config: RegionConfig,
    stream: Callable[[str, Any, Any], AbstractProblem],
    size: int = 1,
) -> Panel:
    def flow(b1: Any, b2: Any) -> Case:
        return Case(AdamFlow(1.0, b1, b2, eps=0.0, rates=config.rates), stream("flow", b1, b2))

    def optimizer(b1: Any, b2: Any) -> Case:
        return Case(k_adam(1.0, b1, b2, eps=0.0), stream("optimizer", b1, b2))

    return Panel(
        title,
        {"flow": flow, "optimizer": optimizer},
        None,
        jnp.zeros(size),
        config.stream_steps,
        config.cells,
        # The parameters feel nothing back: their error is not asked for.
        {"atol": np.inf},
    )


def check_float64() -> None:
    """Raises a `ValueError` where numbers of the size `STREAM_SCALE` are infinite."""
    if not jax.config.jax_enable_x64:
        raise ValueError(
            "Streams of a map need float64: jax.config.update('jax_enable_x64', True) before it."
        )


def scaled_worst_case(b1: Any, b2: Any, steps: int, rates: Rates | None) -> GradientStream:
    """The worst case of a flow with these rates, of the optimizer for None."""
    kind = "discrete" if rates is None else "held"
    worst = worst_case_stream(b1, b2, steps, kind, rates or "log")
    scaled = worst.gradients * STREAM_SCALE
    # A g² below the normal numbers has lost digits, and u = m/√v would gain a factor.
    return GradientStream(jnp.where(scaled < _SMALLEST, 0, scaled))


def _worst_case(config: RegionConfig) -> Panel:
    check_float64()

    def stream(side: str, b1: Any, b2: Any) -> AbstractProblem:
        rates = config.rates if side == "flow" else None
        return scaled_worst_case(b1, b2, config.stream_steps + 1, rates)

    return _stream_panel("worst-case stream, eps = 0", config, stream)


def _vanishing(config: RegionConfig) -> Panel:
    check_float64()
    steps = config.stream_steps
    shared = vanishing_stream(steps + 1, steps // 2, STREAM_SCALE)
    return _stream_panel("vanishing stream, eps = 0", config, lambda side, b1, b2: shared)


def _random(config: RegionConfig) -> Panel:
    # The least-squares slope of one coordinate's ln|u| is noise of the size of 1/steps, the same on
    # all cells: one draw in four calls half the square unstable. The largest of eight is steady.
    size = 8
    shared = random_stream(config.stream_steps + 1, size, config.seed)
    title = f"{size} random streams, eps = 0"
    return _stream_panel(title, config, lambda side, b1, b2: shared, size)


def _constant(config: RegionConfig) -> Panel:
    shared = constant_stream(config.stream_steps + 1)
    return _stream_panel("constant stream, eps = 0", config, lambda side, b1, b2: shared)


def _loss_panel(
    title: str,
    problem: AbstractProblem,
    params: PyTree,
    steps: int,
    cells: int,
    config: RegionConfig,
) -> Panel:
    eta, eps, rates = config.learning_rate, config.eps, config.rates
    decay = "l2" if config.optimizer == "adam_l2" else "decoupled"

    def optimizer(b1: Any, b2: Any) -> Case:
        made = optimizer_named(config.optimizer, learning_rate=eta, b1=b1, b2=b2, eps=eps)
        if not isinstance(made, Optimizer):
            made = Optimizer.make(made, UpdateRule(eta), {})
        return Case(made)

    return Panel(
        title,
        {
            "flow": lambda b1, b2: Case(AdamFlow(eta, b1, b2, eps, rates=rates, decay=decay)),
            "optimizer": optimizer,
        },
        problem,
        params,
        steps,
        cells,
        # Near a minimum a flow of low decays oscillates ever faster: at 1e-3 every lane ends, at
        # 1e-6 half of them spend a budget five times as large.
        {"rtol": 1e-3, "atol": 1e-6},
        "Adam" if config.optimizer in ADAM_KIN else config.optimizer.rpartition(":")[2],
    )


def _quadratic(config: RegionConfig) -> Panel:
    problem, start = problem_named("quadratic")
    title = f"quadratic, curvatures {', '.join(f'{h:g}' for h in CURVATURES)}"
    return _loss_panel(title, problem, start, config.quadratic_steps, config.cells, config)


def _network(config: RegionConfig) -> Panel:
    problem, params = digits_mlp((config.hidden,), config.images, config.seed)
    title = f"digits MLP 64-{config.hidden}-10, {config.images} images"
    return _loss_panel(title, problem, params, config.network_steps, config.network_cells, config)


def _own(config: RegionConfig) -> Panel:
    assert config.problem is not None
    problem, params = problem_named(config.problem, config.seed)
    steps, cells = config.network_steps, config.network_cells
    title = f"{config.problem}, {count_parameters(params)} parameters"
    return _loss_panel(title, problem, params, steps, cells, config)


def panels_of(config: RegionConfig) -> dict[str, Panel]:
    """The panels of a configuration, by name."""
    return {name: _MAKERS[name](config) for name in config.names}


_MAKERS: dict[str, Callable[[RegionConfig], Panel]] = {
    "worst_case": _worst_case,
    "vanishing": _vanishing,
    "random": _random,
    "constant": _constant,
    "quadratic": _quadratic,
    "network": _network,
    "problem": _own,
}
