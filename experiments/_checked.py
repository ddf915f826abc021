"""What every experiment's `Config` checks of its numbers."""

from typing import Any


def check_counts(config: Any, **least: int) -> None:
    """`ValueError` unless each of the named fields is a whole number, and large enough."""
    for name, low in least.items():
        value = getattr(config, name)
        if isinstance(value, bool) or not isinstance(value, int) or value < low:
            raise ValueError(f"{name} = {value!r} must be a whole number of at least {low}.")
