"""One style sheet, and how a figure is kept."""

import io
import json
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

OKABE_ITO: Mapping[str, str] = MappingProxyType(
    {
        "blue": "#0072B2",
        "vermilion": "#D55E00",
        "green": "#009E73",
        "purple": "#CC79A7",
        "orange": "#E69F00",
        "sky": "#56B4E9",
        "yellow": "#F0E442",
        "black": "#000000",
    }
)
"""Okabe & Ito's colours, by name."""
VERDICTS: Mapping[str, str] = MappingProxyType(
    {
        "holds": OKABE_ITO["green"],
        "does not hold": OKABE_ITO["vermilion"],
        "undecided": "0.6",
    }
)
"""Colours of what was found of a claim."""
COLUMN = 3.4
"""Width of a column of a two-column paper, in inches."""
PAGE = 7.0
"""Width of its page, in inches."""


def style() -> AbstractContextManager[None]:
    """The style sheet, as a context for the making of a figure.

    !!! example
        >>> import matplotlib.pyplot as plt
        >>> with style():
        ...     print(plt.rcParams["axes.prop_cycle"].by_key()["color"][0])
        #0072B2
    """
    from matplotlib import style as styles

    return styles.context(Path(__file__).with_name("ct_adam.mplstyle"))


def _save_png(figure: "Figure", path: Path, description: str) -> None:
    """With 256 colours of its own choice: a third of the size, and nothing that one would see."""
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    with io.BytesIO() as buffer:
        figure.savefig(buffer, format="png")
        picture = Image.open(buffer).convert("RGB")
        dpi = Image.open(buffer).info.get("dpi")
    told = PngInfo()
    told.add_text("Description", description)
    few = picture.quantize(256, dither=Image.Dither.NONE)
    few.save(path, pnginfo=told, optimize=True, dpi=dpi)


def save_figure(figure: "Figure", base: str | Path, about: Mapping[Any, Any]) -> list[Path]:
    """Writes `base`.png and `base`.pdf with `about` in their metadata.

    **Arguments:**

    - `base`: the path without its ending; its folder is made. `about`: attributes of the dataset,
        kept as JSON.

    **Returns:** both paths.

    **Raises:** `OSError` where they cannot be written.

    !!! example
        >>> import tempfile, matplotlib.pyplot as plt
        >>> with style(), tempfile.TemporaryDirectory() as folder:
        ...     figure, axes = plt.subplots(figsize=(COLUMN, 2.0))
        ...     paths = save_figure(figure, Path(folder, "mine"), {"seed": 0})
        >>> [path.name for path in paths]
        ['mine.png', 'mine.pdf']
    """
    description = json.dumps(dict(about), default=str)
    base = Path(base)
    base.parent.mkdir(parents=True, exist_ok=True)
    # Not `with_suffix`: the dot of `lr_0.01` begins no ending.
    paths = [base.with_name(f"{base.name}.{kind}") for kind in ("png", "pdf")]
    with style():
        _save_png(figure, paths[0], description)
        # Without a date, the same result makes the same file.
        figure.savefig(paths[1], metadata={"Subject": description, "CreationDate": None})
    return paths
