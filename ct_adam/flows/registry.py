"""Published models of optimizers, by name."""

import re
from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
import optax
from jax.core import Tracer

from .adam import AdamFlow
from .base import AbstractFlow
from .interpolating import InterpolatingFlow
from .modified import ModifiedFlow
from .momentum import MomentumFlow
from .rmsprop import RMSPropFlow
from .second_order import SMEFlow, StaggeredFlow
from .sign import SignFlow


class Settings(NamedTuple):
    """What a model is made of; each takes what it knows.

    `optimizer` is the optax transformation that an interpolating flow needs.
    """

    learning_rate: Any = None
    b1: Any = 0.9
    b2: Any = 0.999
    eps: Any = 1e-8
    weight_decay: Any = 0.0
    decay: Any = "decoupled"
    optimizer: optax.GradientTransformation | None = None


class PublishedFlow(NamedTuple):
    """A model with a name.

    - `make`: the flow of `Settings`; `ValueError` for settings that the model does not have.
    - `order`: the ODE's order in time. `state`: what it carries along.
    - `source`: who published it. `note`: what tells it from its neighbours.
    - `takes_over`: the named optimizers whose state it continues after warm steps, None for any.
    """

    make: Callable[[Settings], AbstractFlow]
    order: str
    state: str
    source: str
    note: str
    takes_over: tuple[str, ...] | None = ()


def _adam(**options: Any) -> Callable[[Settings], AbstractFlow]:
    return lambda of: AdamFlow(
        of.learning_rate, of.b1, of.b2, of.eps, of.weight_decay, decay=of.decay, **options
    )


def _sign(of: Settings) -> SignFlow:
    # A flow without memory or decays of its own; its eps smooths the kink.
    eps = jnp.maximum(of.eps, 1e-3) if isinstance(of.eps, Tracer) else max(of.eps, 1e-3)
    return SignFlow(of.learning_rate, eps, of.weight_decay)


def _check_no_decay(of: Settings, model: str) -> None:
    if isinstance(of.weight_decay, Tracer) or of.weight_decay:
        raise ValueError(f"{model} knows no weight_decay: leave it 0.")


def _modified(corrected: bool) -> Callable[[Settings], AbstractFlow]:
    def make(of: Settings) -> ModifiedFlow:
        _check_no_decay(of, "the modified equation")
        return ModifiedFlow(of.learning_rate, of.b1, of.b2, of.eps, corrected)

    return make


def _momentum(of: Settings) -> MomentumFlow:
    if of.decay != "decoupled":
        raise ValueError(f"its weight decay is decoupled, not {of.decay!r}.")
    return MomentumFlow(of.learning_rate, of.b1, of.weight_decay)


def _second_order(flow: type[SMEFlow | StaggeredFlow]) -> Callable[[Settings], AbstractFlow]:
    return lambda of: flow(of.learning_rate, of.b1, of.b2, of.eps, of.weight_decay, decay=of.decay)


def _rmsprop(of: Settings) -> RMSPropFlow:
    _check_no_decay(of, "the stable flow of RMSProp")
    return RMSPropFlow(of.learning_rate, of.b2, of.eps)


def _gradient(of: Settings) -> MomentumFlow:
    return _momentum(of._replace(b1=0))


def _interpolating(order: Any = 2, stride: int = 1, degree: int | None = None) -> PublishedFlow:
    def make(of: Settings) -> InterpolatingFlow:
        if of.optimizer is None:
            raise ValueError("it needs an optimizer, an optax transformation to follow.")
        return InterpolatingFlow(of.optimizer, order, stride, degree)

    return PublishedFlow(
        make,
        "any",
        "θ and the optimizer's state",
        "this package",
        "through any optimizer's iterates; also -P, -PxQ, -PdS, -PdSxQ, -auto (degree S)",
        None,
    )


_ADAM = ("adamw", "adam_l2")
_CATTANEO = "Cattaneo, Klusowski & Shigida (ICML 2024)"

FLOWS: dict[str, PublishedFlow] = {
    "log": PublishedFlow(
        _adam(rates="log"), "1", "θ, m, v", "this package", "Adam, rates -ln b (the default)", _ADAM
    ),
    "lag": PublishedFlow(
        _adam(rates="lag"), "1", "θ, m, v", "this package", "Adam, rates (1-b)/b", _ADAM
    ),
    "euler": PublishedFlow(
        _adam(rates="euler"),
        "1",
        "θ, m, v",
        "Heredia (arXiv 2411.09734)",
        "Adam, rates 1-b",
        _ADAM,
    ),
    "paper": PublishedFlow(
        _adam(rates="lag", order=2, start="paper"),
        "2",
        "θ, θ', m, v",
        "Gould & Tanaka (arXiv 2411.05746)",
        "Adam, rates (1-b)/b, moments from 0",
        _ADAM,
    ),
    "sme": PublishedFlow(
        _second_order(SMEFlow),
        "1",
        "θ, m, v",
        "Callisti et al. (arXiv 2509.21614)",
        "Adam to second order where 1-b ∝ η, curvature terms corrected",
        _ADAM,
    ),
    "staggered": PublishedFlow(
        _second_order(StaggeredFlow),
        "1",
        "θ, m, v",
        "this package",
        "the same at one gradient a call, moments half a step behind",
        _ADAM,
    ),
    "modified": PublishedFlow(
        _modified(True), "1", "θ", _CATTANEO, "Adam without memory, eps inside the root"
    ),
    "memoryless": PublishedFlow(
        _modified(False), "1", "θ", _CATTANEO, "the same without its correction"
    ),
    "sign": PublishedFlow(
        _sign,
        "1",
        "θ",
        "Bernstein et al. (arXiv 1802.04434)",
        "sign descent with decay, eps at least 1e-3",
    ),
    "rmsprop_stable": PublishedFlow(
        _rmsprop,
        "1",
        "θ, v",
        "Cohen et al. (arXiv 2410.24206)",
        "RMSProp's stable flow, no bias correction, whatever b1",
    ),
    "heavy_ball": PublishedFlow(
        _momentum,
        "2",
        "θ, m",
        "Polyak (1964), Qian (1999)",
        "SGD with momentum b1, rate (1-b1)/b1",
        ("sgdw",),
    ),
    "gradient": PublishedFlow(
        _gradient, "1", "θ", "classical", "SGD without momentum, whatever b1"
    ),
    "interpolating": _interpolating(),
}
_PATTERN = re.compile(r"interpolating-(?:(auto)|([1-9]\d*)(?:d([1-9]\d*))?)(?:x([1-9]\d*))?")


def is_flow(name: str) -> bool:
    """Whether a model has this name."""
    return name in FLOWS or _PATTERN.fullmatch(name) is not None


def published(name: str) -> PublishedFlow:
    """The record of a model: of `FLOWS`, or `interpolating-P`, `-PxQ`, `-PdS`, `-PdSxQ`,
    `-auto`.

    **Raises:** `ValueError` that lists the names.

    !!! example
        >>> published("paper").source, published("interpolating-3x2").order
        ('Gould & Tanaka (arXiv 2411.05746)', 'any')
    """
    if name in FLOWS:
        return FLOWS[name]
    matched = _PATTERN.fullmatch(str(name))
    if matched is None:
        names = ", ".join(map(repr, FLOWS))
        raise ValueError(
            f"flow = {name!r} is unknown: choose one of {names}, or interpolating-P, "
            "interpolating-PxQ (order P, stride Q), interpolating-PdS and -PdSxQ (degree S), "
            "interpolating-auto."
        )
    auto, order, degree, stride = matched.groups()
    return _interpolating(
        auto or int(order), int(stride or 1), None if degree is None else int(degree)
    )


def flow_named(
    name: str, optimizer: optax.GradientTransformation | None = None, **hyperparameters: Any
) -> AbstractFlow:
    """A published model by name.

    **Arguments:**

    - `name`: one of `FLOWS`, or `interpolating-P` (order P), `interpolating-PxQ` (stride Q),
        `interpolating-PdS` and `-PdSxQ` (degree S), `interpolating-auto`.
    - `optimizer`: what an interpolating flow follows; the others do without.
    - `hyperparameters`: learning_rate, b1, b2, eps, weight_decay and decay. A model leaves out
        those that its equation has no place for; b1 is the momentum of `heavy_ball`.

    **Raises:** `ValueError` for an unknown name or hyperparameter, and for a weight decay that the
    model does not have.

    !!! example
        >>> flow_named("paper", learning_rate=1e-3).order
        2
        >>> import optax
        >>> flow_named("interpolating-3x2", optax.sgd(0.1)).stride
        2
    """
    record = published(name)
    unknown = sorted(set(hyperparameters) - set(Settings._fields))
    if unknown:
        known = ", ".join(field for field in Settings._fields if field != "optimizer")
        raise ValueError(f"{name}: {unknown[0]} is no hyperparameter here; there are {known}.")
    settings = Settings(**hyperparameters, optimizer=optimizer)
    if settings.learning_rate is None and record.order != "any":
        raise ValueError(f"{name}: give a learning_rate.")
    try:
        return record.make(settings)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None


def describe_flows() -> str:
    """The published models as a table of plain text, a row a model.

    !!! example
        >>> print(describe_flows().splitlines()[0].split()[:4])
        ['name', 'order', 'state', 'source']
    """
    head = ("name", "order", "state", "source", "model")
    rows = [(name, f.order, f.state, f.source, f.note) for name, f in FLOWS.items()]
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in (head, *rows)
    ]
    return "\n".join([lines[0], "-" * max(map(len, lines)), *lines[1:]])
