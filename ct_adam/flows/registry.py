"""Flows by name."""

from collections.abc import Callable
from typing import Any

from ..decays import choice
from .adam import AdamFlow
from .base import AbstractFlow
from .sign import SignFlow


def _sign(
    learning_rate: Any, b1: Any, b2: Any, eps: Any, weight_decay: Any, decay: Any
) -> SignFlow:
    del b1, b2, decay  # a flow without memory; its own eps smooths the kink
    return SignFlow(learning_rate, max(eps, 1e-3), weight_decay)


def _adam(**options: Any) -> Callable[..., AdamFlow]:
    return lambda learning_rate, b1, b2, eps, weight_decay, decay: AdamFlow(
        learning_rate, b1, b2, eps, weight_decay, decay=decay, **options
    )


FLOWS: dict[str, tuple[Callable[..., AbstractFlow], str]] = {
    "log": (_adam(rates="log"), "rates -ln b, first order (this package's default)"),
    "lag": (_adam(rates="lag"), "rates (1-b)/b, first order"),
    "euler": (_adam(rates="euler"), "rates 1-b, first order"),
    "paper": (
        _adam(rates="lag", order=2, start="paper"),
        "Gould & Tanaka (arXiv 2411.05746): rates (1-b)/b, second order, moments from 0",
    ),
    "sign": (_sign, "sign descent with decay, no memory"),
}


def flow_named(name: str, **hyperparameters: Any) -> AbstractFlow:
    """A flow by name, with learning_rate, b1, b2, eps, weight_decay and decay.

    !!! example
        >>> flow_named(
        ...     "paper", learning_rate=1e-3, b1=0.9, b2=0.99, eps=1e-8, weight_decay=0.0,
        ...     decay="decoupled",
        ... ).order
        2
    """
    choice("flow", name, tuple(FLOWS))
    return FLOWS[name][0](**hyperparameters)
