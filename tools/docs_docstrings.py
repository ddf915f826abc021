"""Docstrings as the site's Markdown: doctests become code, `EQUATIONS §n` a link.

A Griffe extension; it runs in the environment of the documentation, which has no JAX.
"""

import re
from typing import Any

import griffe

_SECTION = re.compile(r"(?<![`\[])EQUATIONS §(\d)")


def fenced(text: str) -> str:
    """Runs of doctest lines (up to a blank line) in fences, at their own indentation.

    A fence, not an indented block: inside `!!! example` the prompts would be block quotes.
    """
    lines, inside, indent = [], False, ""
    for line in [*text.split("\n"), ""]:
        if not inside and line.lstrip().startswith(">>>"):
            indent = line[: len(line) - len(line.lstrip())]
            if lines and lines[-1].strip():
                lines.append("")
            lines.append(f"{indent}```pycon")
            inside = True
        elif inside and not line.strip():
            lines.append(f"{indent}```")
            inside = False
        lines.append(line)
    return "\n".join(lines[:-1])


def linked(text: str, to: str) -> str:
    """`EQUATIONS §n` as a link to that section of the page on concepts.

    Not inside code: there a link would be shown as typed.
    """
    return "\n".join(
        line if line.startswith("    ") else _SECTION.sub(rf"[EQUATIONS §\1]({to}#s\1)", line)
        for line in text.split("\n")
    )


class Docstrings(griffe.Extension):
    """Rewrites every docstring once, when it is read."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        if obj.docstring is not None:
            obj.docstring.value = linked(fenced(obj.docstring.value), "../concepts.md")
