"""`ct-adam scale`: Adam's hyperparameters at another batch size."""

import json
from typing import Annotated

import tyro

from ..theory import advise_scaling
from ..theory.scaling import Rule


def scale(
    batch_from: int,
    batch_to: int,
    learning_rate: float = 1e-3,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    steps: int = 1000,
    rule: Rule = "square_root",
    noise_to_signal: float | None = None,
    json_: Annotated[bool, tyro.conf.arg(name="json")] = False,
) -> None:
    """Scale Adam's hyperparameters to another batch size, and say where that does not hold.

    Two lines, and one a warning: the hyperparameters, and what they keep. The square-root rule is
    that of Adam's stochastic differential equation and holds where noise dominates its second
    moment; the linear one where the gradient does.

    Args:
        batch_from: batch size that the hyperparameters below are for
        batch_to: batch size to scale them to
        learning_rate: at batch-from
        b1: first-moment decay at batch-from
        b2: second-moment decay at batch-from
        eps: added to the root of the second moment, at batch-from
        weight_decay: decoupled, as in optax and PyTorch, at batch-from
        steps: optimizer steps at batch-from; as many samples are seen at batch-to
        rule: how the learning rate follows the batch size
        noise_to_signal: norm of the gradient's noise over that of the gradient, at batch-from; JSON
            tells it at both
        json_: print one flat JSON object in place of text; null is a decay that no number does, or
            what was not given
    """
    advice = advise_scaling(
        batch_from,
        batch_to,
        learning_rate=learning_rate,
        b1=b1,
        b2=b2,
        eps=eps,
        weight_decay=weight_decay,
        steps=steps,
        rule=rule,
        noise_to_signal=noise_to_signal,
    )
    print(json.dumps(advice.as_dict()) if json_ else advice)
