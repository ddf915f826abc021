"""The user's own things by `package.module:factory`."""

import importlib
import inspect
import os
import sys
from collections.abc import Callable
from typing import Any


def imported(name: str, kind: str, known: list[str]) -> Callable[..., Any]:
    """The factory that `package.module:factory` names; `ValueError` in one sentence if none."""
    module_name, colon, attribute = name.partition(":")
    if not colon:
        raise ValueError(
            f"{kind} {name!r} is unknown: choose one of {', '.join(known)}, "
            "or name your own as package.module:factory."
        )
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        factory = getattr(importlib.import_module(module_name), attribute)
    except ImportError as error:
        raise ValueError(
            f"{kind} {name!r}: cannot import {module_name} ({error}); run from its folder, or "
            "install it."
        ) from None
    except AttributeError:
        raise ValueError(f"{kind} {name!r}: {module_name} has no {attribute!r}.") from None
    if not callable(factory):
        raise ValueError(f"{kind} {name!r} is no function: name one that makes the {kind}.")
    return factory


def accepted(function: Callable[..., Any], options: dict[str, Any]) -> dict[str, Any]:
    """Those of `options` that `function` takes by name."""
    parameters = inspect.signature(function).parameters.values()
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        return options
    names = {p.name for p in parameters}
    return {name: value for name, value in options.items() if name in names}
