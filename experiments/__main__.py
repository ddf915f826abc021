"""`python -m experiments NAME [--smoke | --quick | --full | --check] [--out DIR]`, or `all`."""

import argparse
import json
import math
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import Experiment, load, names
from ._gallery import check_all, first_paragraph, indented, renew_page, run_all

if TYPE_CHECKING:
    from matplotlib.figure import Figure


ALL = "all"


def main(argv: Sequence[str] | None = None) -> int:
    """Runs an experiment; returns 0, 1 if its claim was not found, 2 for bad input."""
    os.environ.setdefault("MPLBACKEND", "Agg")
    import jax

    from ct_adam.caches import keep_compilations
    from ct_adam.sweep import writable_folder

    jax.config.update("jax_enable_x64", True)  # theory wants float64
    keep_compilations()
    words = list(sys.argv[1:] if argv is None else argv)
    arguments = _arguments(words)
    try:
        if arguments.check:
            return check_all([] if arguments.name == ALL else [arguments.name], arguments.out)
        if arguments.name == ALL:
            return run_all(arguments.size, writable_folder(arguments.out))
        return _run(arguments.name, arguments.size, arguments.out, words)
    except (ValueError, OSError) as error:
        if os.environ.get("CT_ADAM_TRACEBACK"):
            raise
        print(f"experiments: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as stopped:
        state = str(stopped) or "no file was changed"
        print(f"experiments: stopped; {state}.", file=sys.stderr)
        return 130


def _arguments(words: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m experiments", description="Reproduce figures and check their numbers."
    )
    parser.add_argument("name", metavar="NAME", help=f"{ALL} (each of them), {', '.join(names())}")
    sizes = parser.add_mutually_exclusive_group()
    for size, words_of in (("smoke", "seconds"), ("quick", "about a minute"), ("full", "hours")):
        default = " (default)" if size == "quick" else ""
        sizes.add_argument(
            f"--{size}", dest="size", action="store_const", const=size, help=words_of + default
        )
    sizes.add_argument(
        "--check", action="store_true", help="run nothing: do the folder's numbers hold?"
    )
    parser.add_argument("--out", type=Path, default=Path("figures"), help="folder for the results")
    parser.set_defaults(size="quick")
    return parser.parse_args(words)


def _run(name: str, size: str, out: Path, words: list[str]) -> int:
    from ct_adam.plotting import save_figure
    from ct_adam.sweep import writable_folder

    experiment = load(name)
    folder = writable_folder(out)
    config = experiment.SIZES[size]
    dataset = _measure(experiment, name, config)
    dataset.attrs["command"] = "python -m experiments " + shlex.join(words)
    about = {"experiment": name, "size": size, **dataset.attrs}
    figure = experiment.plot(dataset)
    paths = save_figure(figure, folder / name, about)
    _close(figure)
    found, missing = _plain(experiment.numbers(dataset)), experiment.check(dataset)
    record = {
        **about,
        **{key: json.loads(about[key]) for key in ("config", "versions")},
        "title": first_paragraph(experiment.__doc__ or name),
        "expected": experiment.EXPECTED,
        "found": found,
        "missing": missing,
    }
    paths.append(folder / f"{name}.json")
    text = json.dumps(record, indent=1, allow_nan=False, ensure_ascii=False)
    paths[-1].write_text(f"{text}\n", encoding="utf-8")
    renew_page(folder)
    print(_report(experiment.EXPECTED, found, missing))
    print(f"\nWrote {', '.join(map(str, paths))} in {dataset.attrs['wall_seconds']:.0f} s.")
    return 1 if missing else 0


def _close(figure: "Figure") -> None:
    """Pyplot holds it otherwise, with all its data."""
    import matplotlib.pyplot as plt

    plt.close(figure)


def _measure(experiment: Experiment, name: str, config: Any) -> Any:
    from ct_adam.progress import progress_bar

    with progress_bar("it", f"{name}: ") as progress:
        return experiment.run(config, progress)


def _plain(value: Any) -> Any:
    """`value` with floats of five digits; JSON knows no NaN and no infinity: they become None."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, float):
        return float(f"{value:.5g}") if math.isfinite(value) else None
    return value


def _report(expected: str, found: dict[str, Any], missing: list[str]) -> str:
    verdict = [f"  - {sentence}" for sentence in missing] or ["  all of it"]
    lines = [f"Expected: {expected}", "Found:", *indented(found)]
    return "\n".join([*lines, "Not as expected:" if missing else "As expected:", *verdict])


if __name__ == "__main__":
    sys.exit(main())
