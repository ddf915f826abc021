"""`ct-adam advise`: where a pair of decays lies, what to change, what a weight decay means."""

import json
from typing import Annotated, Any

import tyro

from .. import theory
from ..conventions import Convention


def advise(
    b1: tuple[float, ...] = (0.9,),
    b2: tuple[float, ...] = (0.999,),
    eps: float = 1e-8,
    steps: int = 1000,
    gradient_scale: float = 1.0,
    decay: float | None = None,
    convention: Convention = "optax",
    learning_rate: float = 1e-3,
    json_: Annotated[bool, tyro.conf.arg(name="json")] = False,
) -> None:
    """Say where a pair of decays lies in the stability region of Adam, and what to change.

    Three lines: on which side of b2 = b1², and how far from it; how large an update can get, with
    eps and without; what to change. Several decays are the stages of k-Adam. With --decay three
    more: that weight decay in every convention, in steps, and as ridge.

    Args:
        b1: first-moment decay, one a stage
        b2: second-moment decay, one a stage
        eps: added to the root of the second moment
        steps: optimizer steps of the run
        gradient_scale: the largest gradient of a coordinate
        decay: a decoupled weight decay, in the convention below; the momentum of SGD is the last b1
        convention: whose weight decay it is
        learning_rate: the base rate that goes with it
        json_: print one flat JSON object in place of text; null is infinite, or beyond a float:
            see log_bound
    """
    advice = theory.advise(b1, b2, eps=eps, steps=steps, gradient_scale=gradient_scale)
    told: list[Any] = [advice]
    if decay is not None:
        told.append(
            theory.advise_decay(
                decay,
                convention,
                learning_rate=learning_rate,
                momentum=b1[-1],
                b2=b2[-1],
                steps=steps,
            )
        )
    if json_:
        print(json.dumps({name: value for one in told for name, value in one.as_dict().items()}))
    else:
        print(*told, sep="\n")
