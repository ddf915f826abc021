"""From words to a call: flags by tyro, and its complaints as one sentence."""

import functools
import importlib
import inspect
import io
import re
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr
from typing import Any

from .front_page import EXAMPLES, help_text

_SHELLS = ("bash", "zsh", "tcsh", "fish")
_NUMBERS = {"INT": "a whole number", "FLOAT": "a number"}


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
                description=help_text(name, text),
                args=flags,
            )
    except SystemExit as refused:
        if not refused.code:
            raise
        raise ValueError(f"{_sentence(told.getvalue())} See ct-adam {name} --help.") from None


def print_completion(words: Sequence[str]) -> int:
    """Prints the shell's completion of all commands.

    **Raises:** `ValueError` for a shell that tyro does not know.
    """
    import tyro

    given, *_ = [*words[0].split("=")[1:], *words[1:], ""]
    if given not in _SHELLS:
        raise ValueError(f"shell = {given!r} is unknown: choose one of {', '.join(_SHELLS)}.")
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

    # tyro keeps breaks inside a flag's description, and would read them from what is wrapped.
    del later.__wrapped__
    later.__dict__["__signature__"] = inspect.signature(command)
    later.__doc__ = re.sub(r"\n {8,}", " ", inspect.getdoc(command) or "")
    return later


def _sentence(box: str) -> str:
    """What is wrong, and what may have been meant, out of tyro's framed text."""
    # Its blocks, the first of which is a title, have rules between them (of ASCII where the
    # terminal knows no more).
    blocks = re.split(r"[─-]{5,}", re.sub("[│╭╮╰╯]", " ", box))
    _, told, *rest = (block for block in blocks if block.strip())
    wrong, *hints = (" ".join(block.split()) for block in (told, *rest))
    wrong = wrong.rstrip(".")
    if wrong.startswith("Missing from "):
        # Flags stand further left than what is said of them.
        flags = re.findall(r"^[ |]{1,7}(--[\w-]+) ", told, re.MULTILINE)
        wrong = f"Give {' and '.join(flags)}" if flags else wrong
    if empty := re.match(r"Missing value for argument '(--[\w-]+)'", wrong):
        wrong = f"{empty[1]} needs a value"
    for hint in hints:
        if meant := re.match(r"Perhaps you meant: (--[\w-]+)", hint):
            return f"{wrong}; did you mean {meant[1]}?"
        wanted = re.match(r"Argument helptext: (--[\w-]+) \S*?(INT|FLOAT)\b", hint)
        if wanted and (given := _given(wrong)) is not None:
            return f"{wanted[1]} = {given} must be {_NUMBERS[wanted[2]]}."
    return f"{wrong}."


def _given(wrong: str) -> str | None:
    """The words that could not be read, out of Python's own complaint; None where it has none."""
    found = re.search(r"(?:from|arguments:) \[(.*?)\]|: ('.*')$", wrong)
    if found is None:
        return None
    words = (found[1] or found[2] or "").split(", ")
    return " ".join(word.strip("'\"") for word in words) or "''"
