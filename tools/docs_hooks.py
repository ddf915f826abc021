"""Hooks of mkdocs: pages of the repository outside docs/, and their links.

The gallery, the benchmarks' results, CONTRIBUTING and CHANGELOG stay where they are, and are pages
of the site at the same place relative to the repository. A link that is right in the repository is
then right in the site, once the folder docs/ is taken out of it.
"""

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File

ROOT = Path(__file__).parents[1]
MOUNTED = (
    "figures/*.md",
    "figures/*.png",
    "figures/*.pdf",
    "figures/*.json",
    "benchmarks/README.md",
    "benchmarks/results/figures/*.png",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
)
_LINK = re.compile(r"(\]\()(?!\w+:|#|/)([^)#\s]+)")


def on_files(files: Any, config: Any) -> Any:
    """Adds what is mounted."""
    for pattern in MOUNTED:
        for path in sorted(ROOT.glob(pattern)):
            name = path.relative_to(ROOT).as_posix()
            files.append(File.generated(config, name, abs_src_path=str(path)))
    return files


def relinked(markdown: str, page: str, in_docs: bool) -> str:
    """Links of a page of the repository, as they are in the site.

    `page` is its place in the site; its place in the repository is the same, in docs/ or not.
    """
    here = posixpath.dirname(page)

    def moved(match: re.Match[str]) -> str:
        target = posixpath.normpath(
            posixpath.join("docs" if in_docs else "", here, match[2])
        ).removeprefix("docs/")
        return match[1] + posixpath.relpath(target, here or ".")

    return _LINK.sub(moved, markdown)


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Before a page is rendered."""
    return relinked(markdown, page.file.src_uri, page.file.generated_by is None)
