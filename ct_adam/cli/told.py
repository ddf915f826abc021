"""What a command says beside its results: every note and every error in one form."""

import sys
from pathlib import Path


def tell(command: str, sentence: str) -> None:
    """A line on the error stream, `ct-adam COMMAND: sentence`, beside a bar where there is one."""
    from tqdm import tqdm

    tqdm.write(f"{' '.join(['ct-adam', command]).rstrip()}: {sentence}", file=sys.stderr)


def tell_kept(command: str, kept: Path | None) -> None:
    """Where an earlier result is, if it was moved."""
    if kept is not None:
        tell(command, f"the earlier result, of other settings, is kept as {kept}.")
