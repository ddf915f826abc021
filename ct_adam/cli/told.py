"""What a command says beside its results: every note and every error in one form."""

import sys


def tell(command: str, sentence: str) -> None:
    """A line on the error stream, `ct-adam COMMAND: sentence`, beside a bar where there is one."""
    from tqdm import tqdm

    tqdm.write(f"{' '.join(['ct-adam', command]).rstrip()}: {sentence}", file=sys.stderr)
