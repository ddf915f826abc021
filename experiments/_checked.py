"""What every experiment's `Config` checks of its numbers."""

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np


def check_counts(config: Any, **least: int) -> None:
    """`ValueError` unless each of the named fields is a whole number, and large enough."""
    for name, low in least.items():
        value = getattr(config, name)
        if isinstance(value, bool) or not isinstance(value, int) or value < low:
            raise ValueError(f"{name} = {value!r} must be a whole number of at least {low}.")


def check_names(config: Any, once: bool = False, **known: Collection[str]) -> None:
    """`ValueError` unless each of the named fields has some of the names that are known for it."""
    for name, all_of_it in known.items():
        given = getattr(config, name)
        twice = once and len(set(given)) < len(given)
        if not given or twice or not set(given) <= set(all_of_it):
            # Some names hold commas.
            listed = ("; " if any("," in one for one in all_of_it) else ", ").join(all_of_it)
            each = ", each once" if once else ""
            raise ValueError(f"{name} = {given} must name some of {listed}{each}.")


def check_positive(config: Any, *names: str) -> None:
    """`ValueError` unless the named fields are positive, finite numbers."""
    for name in names:
        value = getattr(config, name)
        if not 0 < value < np.inf:
            raise ValueError(f"{name} = {value} must be positive and finite.")


def check_distinct(config: Any, least: int, *names: str) -> None:
    """`ValueError` unless each of the named fields holds so many different positive numbers."""
    for name in names:
        values = getattr(config, name)
        several = isinstance(values, Sequence) and len(set(values)) == len(values) >= least
        if not several or not all(isinstance(x, int | float) and 0 < x < np.inf for x in values):
            raise ValueError(
                f"{name} = {values} must be {least} or more different positive numbers."
            )
