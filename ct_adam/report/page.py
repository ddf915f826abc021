"""The page: one HTML file that holds all that it shows."""

import base64
import functools
import gzip
import hashlib
from collections.abc import Sequence
from importlib import resources
from typing import Any

from .._version import __version__
from .gallery import Entry

SCRIPTS = (
    "decode.js", "model.js", "figures.js", "paths.js", "tables.js", "controls.js", "main.js",
)  # fmt: skip
SERVED = "growth.js"
"""Put after them where the page is served."""
TITLE = "Stability of Adam over its two decays"


def render(
    data: dict[str, Any],
    gallery: Sequence[Entry] = (),
    title: str = TITLE,
    served: bool = False,
) -> str:
    """The page of a document.

    All that comes from a store is text: the template escapes it, the document's JSON is written
    without `<`, `>` and `&`, and the scripts set text, never markup. The page's own policy allows
    no other script than the two that it holds (by their hashes), and no request (served: to its
    own server alone).

    **Arguments:**

    - `data`: of `document`. `gallery`: of `read_gallery`. `title`: the page's heading.
    - `served`: whether the page comes from `ct-adam report --serve`, which it then may ask for
        what is new, and no one else.

    **Returns:** HTML.

    **Raises:** `ValueError` where plotly or jinja2 is not installed.
    """
    jinja2 = _jinja2()
    library, packed = _packed_plotly()
    script = _program(served)
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(_template), autoescape=True, undefined=jinja2.StrictUndefined
    )
    from markupsafe import Markup

    return environment.get_template("page.html.j2").render(
        title=title,
        policy=_policy([script, library], "'self'" if served else "'none'"),
        style=Markup(_template("report.css")),
        data=jinja2.utils.htmlsafe_json_dumps(data, allow_nan=False, separators=(",", ":")),
        plotly=packed,
        script=Markup(script),
        gallery=gallery,
        served=served,
        version=__version__,
    )


def check_installed() -> None:
    """`ValueError` where plotly or jinja2 is not installed: to be called before long work."""
    _jinja2()
    _plotly()


def _jinja2() -> Any:
    try:
        import jinja2
        import jinja2.utils
    except ImportError:
        raise ValueError(
            "The report needs jinja2: pip install '.[report]' in ct_adam's repository."
        ) from None
    return jinja2


def _plotly() -> str:
    try:
        from plotly.offline import get_plotlyjs
    except ImportError:
        raise ValueError(
            "The report needs plotly: pip install '.[report]' in ct_adam's repository."
        ) from None
    return get_plotlyjs()


@functools.cache
def _packed_plotly() -> tuple[str, str]:
    """Its source, and that as text of a third of the size."""
    library = _plotly()
    return library, base64.b64encode(gzip.compress(library.encode(), 9, mtime=0)).decode()


def _template(name: str) -> str:
    return (resources.files("ct_adam.report") / "templates" / name).read_text(encoding="utf-8")


def _program(served: bool) -> str:
    """The page's scripts as one, in a scope of its own."""
    parts = [_template(name) for name in (*SCRIPTS, *([SERVED] if served else []))]
    return '"use strict";\n(() => {\n' + "\n".join(parts) + "\n})();\n"


def _policy(scripts: Sequence[str], connect: str) -> str:
    """No source but the page; inline styles are Plotly's, images are pictures and downloads."""
    hashes = (hashlib.sha256(script.encode()).digest() for script in scripts)
    allowed = " ".join(f"'sha256-{base64.b64encode(found).decode()}'" for found in hashes)
    return (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; "
        f"img-src data: blob:; connect-src {connect}; base-uri 'none'; form-action 'none'"
    )
