"""The user's own things by `package.module:factory`."""

import importlib
import inspect
import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any


def imported(name: str, kind: str, known: list[str]) -> Callable[..., Any]:
    """The factory that `package.module:factory` names; `ValueError` in one sentence if none."""
    module_name, colon, attribute = name.partition(":")
    if not (colon and module_name and attribute):
        raise ValueError(
            f"{kind} {name!r} is unknown: choose one of {', '.join(known)}, "
            "or name your own as package.module:factory."
        )
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        advice = "run from its folder, or install it"
        if error.name is not None and not module_name.startswith(error.name):
            advice = f"it needs {error.name}"
        raise ValueError(f"{kind} {name!r}: cannot import {module_name}; {advice}.") from None
    except Exception as error:
        raise ValueError(
            f"{kind} {name!r}: importing {module_name} raised {told(error)}"
        ) from error
    factory = getattr(module, attribute, None)
    if factory is None:
        raise ValueError(f"{kind} {name!r}: {module_name} has no {attribute!r}.")
    if not callable(factory):
        raise ValueError(f"{kind} {name!r} is no function: name one that makes the {kind}.")
    return factory


def called(name: str, factory: Callable[..., Any], options: dict[str, Any]) -> Any:
    """What the factory makes of those options that it takes; its own errors in one sentence."""
    try:
        return factory(**accepted(factory, options))
    except OSError:
        raise  # missing data say so themselves
    except Exception as error:
        raise ValueError(f"{name} raised {told(error)}") from error


def told(error: Exception) -> str:
    """An error of the user's code: its type, first line, and where it was raised."""
    frames = traceback.extract_tb(error.__traceback__)
    where = f" ({Path(frames[-1].filename).name}, line {frames[-1].lineno})" if frames else ""
    first = (str(error).strip() or "no message").splitlines()[0]
    return f"{type(error).__name__}: {first}{where}; CT_ADAM_TRACEBACK=1 shows where."


def accepted(function: Callable[..., Any], options: dict[str, Any]) -> dict[str, Any]:
    """Those of `options` that `function` takes by name."""
    parameters = inspect.signature(function).parameters.values()
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        return options
    names = {p.name for p in parameters}
    return {name: value for name, value in options.items() if name in names}
