"""Commands, and what becomes of an error: one sentence and exit code 2."""

import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from ..ensemble.cores import XLA_CORES
from .front_page import EXAMPLES, front_page
from .parse import parsed, print_completion
from .told import tell


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command; returns the exit code (2 for bad input, 130 after Ctrl-C)."""
    os.environ.setdefault("MPLBACKEND", "Agg")
    words = sys.argv[1:] if argv is None else list(argv)
    if not words or words[0] in ("-h", "--help"):
        print(front_page())
        return 0 if words else 2
    if words == ["--version"]:
        words = ["version"]
    import jax

    jax.config.update("jax_enable_x64", True)  # theory wants float64
    from ..caches import keep_compilations
    from ..simulate import RunError

    keep_compilations()
    command = words[0] if words[0] in EXAMPLES else ""
    try:
        if words[0].startswith("--tyro-"):
            return print_completion(words)
        call = parsed(words)
        with _termination_as_ctrl_c():
            call()
    except (ValueError, RunError, OSError) as error:
        if isinstance(error, BrokenPipeError) and _reader_has_left():
            raise
        if os.environ.get("CT_ADAM_TRACEBACK"):
            raise
        tell(command, str(error))
        return 2
    except KeyboardInterrupt as stopped:
        tell(command, str(stopped) or "stopped; no file was changed.")
        return 130
    return 0


def _reader_has_left() -> bool:
    """Whether it is the output, and not some other connection, that nobody reads any more."""
    try:
        print(flush=True)
    except BrokenPipeError:
        return True
    return False


@contextmanager
def _termination_as_ctrl_c() -> Iterator[None]:
    """What a time limit sends before it kills ends a sweep as Ctrl-C does."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only there may signals be asked for
        return
    before = signal.signal(signal.SIGTERM, signal.getsignal(signal.SIGINT))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def entry() -> None:
    """The script's way: after Ctrl-C nothing is waited for, such as a tile that XLA has begun."""
    if sys.argv[1:2] in (["sweep"], ["region"]):
        # Lanes take all cores, a lane takes one: its last digits are those of any machine.
        os.environ.setdefault(XLA_CORES, "1")
    try:
        code = main()
        sys.stdout.flush()
    except BrokenPipeError:  # the reader, such as `head`, has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    sys.stderr.flush()
    if code == 130:
        os._exit(code)
    sys.exit(code)
