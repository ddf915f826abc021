"""From words to a call: flags by tyro, and its complaints as one sentence."""

import functools
import importlib
import inspect
import io
import re
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr
from typing import Any

from .front_page import EXAMPLES, with_example


def parsed(words: Sequence[str]) -> Callable[[], None]:
    """The call that the words ask for, not yet made.

    **Raises:** `ValueError` of one sentence for words that no command understands; `SystemExit`
    after --help.
    """
    import tyro

    name, *flags = words
    if name not in EXAMPLES:
        raise ValueError(f"there is no command {name!r}: choose one of {', '.join(EXAMPLES)}.")
    command = _command(name, words)
    text = (inspect.getdoc(command) or "").split("\n\nArgs:")[0]
    told = io.StringIO()
    try:
        with redirect_stderr(told):
            return tyro.cli(
                _deferred(command),
                prog=f"ct-adam {name}",
                description=with_example(name, text),
                args=flags,
            )
    except SystemExit as refused:
        if not refused.code:
            raise
        raise ValueError(f"{_sentence(told.getvalue())} See ct-adam {name} --help.") from None


def print_completion(words: Sequence[str]) -> int:
    """Prints the shell's completion of all commands."""
    import tyro

    app = tyro.extras.SubcommandApp()
    for name in EXAMPLES:
        command: Any = _command(name, [name])
        app.command(command, name=name)
    app.cli(prog="ct-adam", args=list(words))
    return 0


def _command(name: str, words: Sequence[str]) -> Callable[..., None]:
    """The function behind a command: one of its own name in the module of its name."""
    module = importlib.import_module(f".{name}", __package__)
    if name == "sweep":
        return module.command(words)  # its defaults may come from a file that the words name
    return getattr(module, name)


def _deferred(command: Callable[..., None]) -> Callable[..., Callable[[], None]]:
    """`command` without the call, so that only tyro's own words are caught."""

    @functools.wraps(command)
    def later(*args: Any, **kwargs: Any) -> Callable[[], None]:
        return functools.partial(command, *args, **kwargs)

    return later


def _sentence(box: str) -> str:
    """What is wrong, and what may have been meant, out of tyro's framed text."""
    # Its blocks, the first of which is a title, have rules between them (of ASCII where the
    # terminal knows no more).
    blocks = re.split(r"[─-]{5,}", re.sub("[│╭╮╰╯]", " ", box))
    _, wrong, *hints = (" ".join(block.split()) for block in blocks if block.strip())
    wrong = wrong.rstrip(".")
    for hint in hints:
        meant = re.match(r"Perhaps you meant: (--[\w-]+)", hint)
        if meant:
            return f"{wrong}; did you mean {meant[1]}?"
    return f"{wrong}."
