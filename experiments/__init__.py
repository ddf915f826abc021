"""One module a figure family; `python -m experiments NAME` runs one and writes its figure.

A new experiment is one file here with the members of `Experiment`, nothing else: the runner finds
it by its name. Files whose name begins with an underscore are helpers, not experiments.
"""

import importlib
import pkgutil
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol, cast

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Progress = Callable[[str, int, int], None]
"""`progress(what, done, total)` is told of each finished piece of work."""


class Experiment(Protocol):
    """What a module of this folder offers. A result is a labelled Dataset or DataTree."""

    EXPECTED: str
    """the claim, in one sentence"""
    SIZES: Mapping[str, Any]
    """smoke, quick and full, each a frozen dataclass `Config`"""

    def run(self, config: Any, progress: Progress) -> Any:
        """The measurement, with provenance attributes."""
        ...

    def plot(self, dataset: Any) -> "Figure": ...

    def numbers(self, dataset: Any) -> dict[str, Any]:
        """What was found, for people and for JSON."""
        ...

    def check(self, dataset: Any) -> list[str]:
        """What was expected and is not, a sentence each; empty if all was found."""
        ...


def names() -> list[str]:
    """Every experiment's name, in alphabetical order; nothing is imported."""
    found = (module.name for module in pkgutil.iter_modules(__path__))
    return sorted(name for name in found if not name.startswith("_"))


def load(name: str) -> Experiment:
    """The experiment of that name.

    **Raises:** `ValueError` that lists the names, for one that is unknown.
    """
    if name not in names():
        raise ValueError(f"There is no experiment {name!r}: choose one of {', '.join(names())}.")
    return cast(Experiment, importlib.import_module(f"{__name__}.{name}"))
