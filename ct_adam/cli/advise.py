"""`ct-adam advise`: where a pair of decays lies, and what to change."""

import json
from typing import Annotated

import tyro

from .. import theory


def advise(
    b1: tuple[float, ...] = (0.9,),
    b2: tuple[float, ...] = (0.999,),
    eps: float = 1e-8,
    steps: int = 1000,
    gradient_scale: float = 1.0,
    json_: Annotated[bool, tyro.conf.arg(name="json")] = False,
) -> None:
    """Say where a pair of decays lies in the stability region of Adam, and what to change.

    Three lines: on which side of b2 = b1², and how far from it; how large an update can get, with
    eps and without; what to change. Several decays are the stages of k-Adam.

    Args:
        b1: first-moment decay, one a stage
        b2: second-moment decay, one a stage
        eps: added to the root of the second moment
        steps: optimizer steps of the run
        gradient_scale: the largest gradient of a coordinate
        json_: print one flat JSON object in place of text; null is infinite, or beyond a float:
            see log_bound
    """
    advice = theory.advise(b1, b2, eps=eps, steps=steps, gradient_scale=gradient_scale)
    print(json.dumps(advice.as_dict()) if json_ else advice)
