"""The table of docs/choosing.md, from the record of `python -m experiments work_precision`.

    python tools/choosing_table.py

Which flow takes the fewest gradients for a wanted error is now and then a tie that another machine
decides otherwise, so the table is written from figures/work_precision.json and not by hand.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
RECORD = ROOT / "figures" / "work_precision.json"
PAGE = ROOT / "docs" / "choosing.md"
CASES = {
    "smooth": ("four-dimensional, Adam, η = 0.001", 9000),
    "digits, small steps": ("digits MLP, Adam, η = 0.0001", 3000),
    "digits": ("digits MLP, Adam, η = 0.01", 600),
    "edge": ("digits MLP past the edge, RMSProp, η = 0.003", 300),
}
"""What the record's cases are called on the page, and the optimizer's steps."""
HEAD = (
    "| problem | wanted error | fewest gradients: flow, solver, rtol | gradients / optimizer's "
    "| fewest solver steps | solver steps / optimizer's steps | take |\n"
    "| --- | --- | --- | --- | --- | --- | --- |\n"
)
_CHOICE = re.compile(r"(\S+), (.*): (\S+) times the optimizer's gradients, (\d+) solver steps, .*")
_TABLE = re.compile(r"^\| problem \| wanted error .*\n(?:\|.*\n)+", re.MULTILINE)


def table(found: dict[str, Any]) -> str:
    """A row a case and wanted error, the largest error first; `found` as in the record."""
    return HEAD + "".join(f"| {' | '.join(row)} |\n" for row in _rows(found))


def _rows(found: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    for case, (title, steps) in CASES.items():
        for key, choice in found[case].items():
            if not key.startswith("error "):
                continue
            least, gradients, _ = _cells(choice["by gradients"], steps)
            fewest, _, share = _cells(choice["by solver steps"], steps)
            take = choice["take"]
            take = take if take == "the optimizer" else f"`{take}`"
            yield title, key.removeprefix("error "), least, gradients, fewest, share, take
            title = ""


def _cells(choice: str, steps: int) -> tuple[str, str, str]:
    """Flow with solver, gradients and solver steps over the optimizer's; dashes for no flow."""
    if choice == "no flow":
        return "–", "–", "–"
    read = _CHOICE.fullmatch(choice)
    assert read, choice
    flow, solver, gradients, solver_steps = read.groups()
    return f"`{flow}`, {solver}", gradients, f"{int(solver_steps) / steps:.2f}"


def rewritten(page: str, found: dict[str, Any]) -> str:
    """The page with the table of this record."""
    return _TABLE.sub(lambda _: table(found), page)


if __name__ == "__main__":
    record = json.loads(RECORD.read_text(encoding="utf-8"))
    page = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(rewritten(page, record["found"]), encoding="utf-8")
