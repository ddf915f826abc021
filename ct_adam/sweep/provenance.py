"""What a stored result says of its making."""

import json
import platform
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from ..ensemble.cores import XLA_CORES, xla_threads


def provenance(config: Any, seconds: float) -> dict[str, str | float]:
    """Attributes of a dataset: configuration (JSON), versions, device, git hash, command, time."""
    return {**origin(asdict(config)), "wall_seconds": round(seconds, 2)}


def origin(config: Mapping[str, Any]) -> dict[str, str | float]:
    """The same before the work."""
    import jax

    return {
        "program": PROGRAM,
        "config": json.dumps(config, default=str),
        "versions": json.dumps(versions()),
        "python": platform.python_version(),
        "device": jax.devices()[0].device_kind,
        "git": git_hash(),
        "command": " ".join([Path(sys.argv[0]).name, *sys.argv[1:]]),
    }


def surroundings() -> dict[str, str]:
    """What the last digits depend on beside the sweep: libraries, processor, XLA's threads."""
    import jax

    threads = str(xla_threads()) if jax.default_backend() == "cpu" else "–"
    return {
        **{f"version {name}": found for name, found in versions().items() if name not in _STORAGE},
        "device": jax.devices()[0].device_kind,
        "machine": platform.machine(),
        f"threads of XLA ({XLA_CORES})": threads,
    }


def versions() -> dict[str, str]:
    """Of this package and of those that its numbers depend on."""
    return {name: _version(name) for name in _PACKAGES}


PROGRAM = "ct_adam"
_PACKAGES = (
    *("ct-adam", "jax", "jaxlib", "diffrax", "equinox", "optax", "numpy", "numba"),
    *("xarray", "zarr"),
)
_STORAGE = ("xarray", "zarr")


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def git_hash() -> str:
    """The checkout's commit, with "+changes" where its code differs; "none" outside of git.

    Code is what git tracks as Python: a figure made anew does not make the next one's code another.
    """
    root = Path(__file__).parent

    def git(*words: str) -> str:
        done = subprocess.run(
            ["git", *words], cwd=root, capture_output=True, text=True, timeout=10, check=True
        )
        return done.stdout.strip()

    try:
        code = ("--", ":(top)*.py")
        # A package installed below a repository of somebody else's is none of its files.
        git("ls-files", "--error-unmatch", Path(__file__).name)
        changed = "+changes" if git("status", "--porcelain", "--untracked-files=no", *code) else ""
        return git("rev-parse", "--short", "HEAD") + changed
    except (OSError, subprocess.SubprocessError):
        return "none"
