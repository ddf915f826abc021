"""`python -m benchmarks NAME [--quick]`.

NAME is one of {names}; `--quick` takes fewer lanes, steps and
rounds and is kept apart, as `results/NAME-quick.json`. `page` writes `benchmarks/README.md` of all
results. `gpu --rehearse` goes the way of `gpu` on a CPU.

Example: python -m benchmarks ensemble --quick
Exit codes: 0 done, 2 a name or a flag that there is not, or no card for `gpu`.
"""

import atexit
import os
import shutil
import sys
import tempfile
from importlib import import_module

RACES = (
    "ensemble", "precision", "discrete", "network", "scaling", "compile", "gpu", "sweep",
    "optimizer",
)  # fmt: skip
NAMES = (*RACES, "page")
CACHES = ("CT_ADAM_CACHE", "NUMBA_CACHE_DIR", "WARP_CACHE_PATH", "TORCHINDUCTOR_CACHE_DIR")
FLAGS = {"--quick": RACES, "--rehearse": ("gpu",)}


def _begin_empty() -> None:
    """Compilations of former runs would be a head start for those who keep them."""
    folder = tempfile.mkdtemp(prefix="ct_adam_benchmarks_")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    for name in CACHES:
        os.environ[name] = os.path.join(folder, name)
    # A card's memory is shared with those who do not go through JAX.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")


def _refused(sentence: str) -> int:
    print(f"benchmarks: {sentence}", file=sys.stderr)
    return 2


def main(arguments: list[str]) -> int:
    """Runs one benchmark, or makes the page of them all; 2 if there is none of that name."""
    if {"-h", "--help"} & {*arguments}:
        print((__doc__ or "").format(names=", ".join(RACES)).strip())
        return 0
    flags = {argument for argument in arguments if argument.startswith("-")}
    names = [argument for argument in arguments if argument not in flags]
    if not names:
        return _refused(f"say which: one of {', '.join(NAMES)}. See python -m benchmarks --help.")
    if len(names) != 1 or names[0] not in NAMES:
        asked = " ".join(names)
        return _refused(f"there is no benchmark {asked!r}: choose one of {', '.join(NAMES)}.")
    (name,) = names
    for flag in sorted(flags):
        if name not in FLAGS.get(flag, ()):
            known = ", ".join(flag for flag, names in FLAGS.items() if name in names) or "none"
            return _refused(f"{name} has no {flag}: its flags are {known}.")
    _begin_empty()
    import jax

    jax.config.update("jax_enable_x64", True)  # before anything is traced
    options = {flag.removeprefix("--"): True for flag in flags}
    if name in RACES:
        options.setdefault("quick", False)
    return import_module(f".{name}", __package__).main(**options) or 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
