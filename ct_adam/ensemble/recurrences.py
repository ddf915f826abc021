"""Powers of what a lane keeps to a count that grows by one a pass: a product a pass instead.

Every optimizer with bias correction takes b^n of each of its decays at each step. As a running
product in two parts it stays correct to rounding for any number of steps, at a fifth of the cost
of an exponential.
"""

import re
from typing import NamedTuple

from .lower import Lowered

_POWER = re.compile(r"(t\d+) = whole_power_of_log\((\w+), (\w+), (\w+), (t\d+)\)")
_BOUNDED = re.compile(r"select\((t\d+), (t\d+), (\S+)\)")


class RunningPower(NamedTuple):
    """Line `line` of the body sets `name` to base^(count + 1), and carries count + 1 on."""

    line: int
    name: str
    base: str
    log: tuple[str, str]
    count: int
    """which of the carried numbers it is"""


def running_powers(lowered: Lowered) -> list[RunningPower]:
    """The body's powers that grow by one factor a pass."""
    meaning = dict(line.split(" = ", 1) for line in lowered.body)
    found = []
    for at, line in enumerate(lowered.body):
        match = _POWER.fullmatch(line)
        if match is None or not {*match.groups()[1:4]} <= lowered.kept.keys():
            continue
        name, base, high, low, exponent = match.groups()
        for i, output in enumerate(lowered.outputs[:-1]):
            if output == exponent and _is_next(exponent, f"c{i}", meaning):
                found.append(RunningPower(at, name, base, (high, low), i))
                break
    return found


def _is_next(name: str, count: str, meaning: dict[str, str]) -> bool:
    """Whether a name stands for count + 1, perhaps with an end that no run reaches."""
    text = meaning.get(name, "")
    bounded = _BOUNDED.fullmatch(text)
    if bounded is None:
        return text == f"{count} + 1.0"
    below, following, most = bounded.groups()
    return (
        meaning.get(below) == f"({count} < {most})"
        and float(most) >= 2**31 - 1
        and meaning.get(following) == f"{count} + 1.0"
    )
