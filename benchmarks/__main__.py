"""`python -m benchmarks ensemble|discrete|scaling|sweep [--quick]`."""

import sys
from importlib import import_module

NAMES = ("ensemble", "discrete", "scaling", "sweep")


def main(arguments: list[str]) -> int:
    """Runs one benchmark; 2 if there is none of that name."""
    names = [argument for argument in arguments if argument != "--quick"]
    if len(names) != 1 or names[0] not in NAMES:
        asked = " ".join(names) or "nothing"
        print(f"No such benchmark ({asked}): choose one of {', '.join(NAMES)}.", file=sys.stderr)
        return 2
    import jax

    jax.config.update("jax_enable_x64", True)  # before anything of a benchmark is traced
    import_module(f".{names[0]}", __package__).main(quick="--quick" in arguments)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
