"""What `ct-adam --help` says: what each command is for, by an example."""

import textwrap

from .._version import __version__

EXIT_CODES = {0: "done", 2: "bad input, told in a sentence", 130: "stopped by Ctrl-C"}

EXAMPLES = {
    "advise": ("--b1 0.98 --b2 0.96", "is this pair of decays safe, and what to change"),
    "compare": ("--flow log,lag --steps 100", "flows beside the optimizer, on any loss"),
    "region": ("--cells 64", "the map of where Adam is stable over both decays"),
    "report": ("out/region.zarr --figures figures", "one page of maps that one can touch"),
    "scale": ("--batch-from 64 --batch-to 256", "Adam's numbers at another batch size"),
    "sweep": ("--b1 0.8,0.9 --b2 cells:0.5:1:8 --dry-run", "any grid, into a store that survives"),
    "version": ("", "the version"),
}
"""By command: an example's flags, and what it is for."""


def front_page() -> str:
    """At most 24 lines of 80 characters: a terminal's screen."""
    lines = [f"ct-adam {__version__}: optimizers as differential equations.", ""]
    for name, (flags, purpose) in EXAMPLES.items():
        lines += [f"  {name:<9}{purpose}"] + (
            [f"           ct-adam {name} {flags}"] if flags else []
        )
    lines += ["", "ct-adam COMMAND --help explains one; --json prints for machines."]
    lines += ["Completion: ct-adam --tyro-print-completion bash (or zsh, tcsh, fish)."]
    return "\n".join([*lines, *textwrap.wrap(_exit_codes(), 80)])


def help_text(name: str, text: str) -> str:
    """A command's help: its example below the first sentence, the exit codes at the end."""
    first, _, rest = text.partition("\n\n")
    example = f"Example: ct-adam {name} {EXAMPLES[name][0]}".rstrip()
    return "\n\n".join(part for part in (first, example, rest, _exit_codes()) if part)


def _exit_codes() -> str:
    codes = "; ".join(f"{code} {meaning}" for code, meaning in EXIT_CODES.items())
    return f"Exit codes: {codes}."
