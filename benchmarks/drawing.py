"""The page's figures: bars of the time a lane."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .words import duration, has_time, rounds_a_lane, seconds_a_lane, short, small, why

ENGINES = ("auto", "fused", "cohort", "reference")
DPI = 150
QUANTILES = {"median": "median", "q90": "90 %"}
"""Of the errors over the lanes: the one that is matched."""


def draw(report: dict[str, Any], file: Path) -> None:
    """Bars of the time a lane, fastest on top; below them who has none."""
    from matplotlib.figure import Figure

    from ct_adam.plotting import OKABE_ITO, PAGE, style

    timed = sorted((one for one in report["contenders"] if has_time(one)), key=seconds_a_lane)
    unable = [one for one in report["contenders"] if not has_time(one)]
    by = report.get("by", "median")
    unit, scale = _unit([seconds_a_lane(one) for one in timed])
    colours = {True: OKABE_ITO["blue"], False: OKABE_ITO["orange"]}
    with style():
        figure = Figure(figsize=(0.9 * PAGE, 1.2 + 0.2 * (len(timed) + len(unable))), dpi=DPI)
        axis = figure.subplots()
        for place, one in enumerate(timed):
            at, rounds = scale * seconds_a_lane(one), scale * np.array(rounds_a_lane(one))
            # A median lies between them but for rounding.
            whiskers = np.maximum([[at - rounds.min()], [rounds.max() - at]], 0)
            mine = _is_ours(one["name"], report["ours"])
            axis.barh(place, at, height=0.64, color=colours[mine])
            axis.errorbar(at, place, xerr=whiskers, color="k", lw=0.8, capsize=2, capthick=0.8)
            error = small(one[f"error_{by}"])
            error += "" if one["verdict"] == "ok" else f", {one['verdict']}"
            _beside(axis, place, duration(seconds_a_lane(one)), error)
        for place, one in enumerate(unable, len(timed)):
            _beside(axis, place, short(why(one)), at=(0.01,), style="italic", color="0.35")
        _beside(axis, -1, "time a lane", f"error ({QUANTILES[by]})")
        places = range(len(timed) + len(unable))
        axis.set_yticks(places, [one["name"] for one in (*timed, *unable)])
        axis.tick_params(axis="y", length=0)
        for label in axis.get_yticklabels():
            label.set_fontweight("bold" if label.get_text() == report["ours"] else "normal")
        axis.set_ylim(len(places) - 0.4, -0.6)
        _logarithmic(axis, [scale * seconds_a_lane(one) for one in timed], unit)
        _legend(figure, colours, report)
        # Without the version of matplotlib, which would change every file.
        figure.savefig(file, dpi=DPI, metadata={"Software": None})


def _is_ours(name: str, ours: str) -> bool:
    """The contender whose ratios are shown, and the package's other engines."""
    return name == ours or name.partition(" ")[0].rstrip(",") in ENGINES


def _beside(axis: Any, place: float, *texts: str, at: Sequence[float] = (1.02, 1.2), **look: Any):
    """Texts in a bar's line, in columns right of the axis."""
    for x, text in zip(at, texts, strict=False):
        axis.annotate(
            text, (x, place), xycoords=("axes fraction", "data"), va="center", fontsize=7,
            annotation_clip=False, **look,
        )  # fmt: skip


def _logarithmic(axis: Any, values: list[float], unit: str) -> None:
    """From a whole decade on, well below the fastest, whose bar would have no length; two ticks."""
    from matplotlib.ticker import FuncFormatter

    axis.set_xscale("log")
    low, high = (min(values), max(values)) if values else (1.0, 1.0)
    first = 10.0 ** math.floor(math.log10(low / 1.5))
    axis.set_xlim(first, max(1.4 * high, 10 * first))
    axis.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:,.12g}"))
    axis.minorticks_off()
    axis.set_xlabel(f"time a lane ({unit}), logarithmic: shorter is better")


def _legend(figure: Any, colours: dict[bool, str], report: dict[str, Any]) -> None:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    peers = any(not _is_ours(one["name"], report["ours"]) for one in report["contenders"])
    handles: list[Any] = [Patch(facecolor=colours[True], label="ct_adam")]
    handles += [Patch(facecolor=colours[False], label="others")] if peers else []
    handles.append(Line2D([], [], color="k", lw=0.8, marker="|", label="range of rounds"))
    figure.suptitle(short(report["title"].partition(" (")[0], 100), x=0.01, ha="left", fontsize=8)
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles))


def _unit(seconds: list[float]) -> tuple[str, float]:
    """That of the one in the middle, and how many there are in a second."""
    return ("ms", 1e3) if seconds and float(np.median(seconds)) >= 1e-3 else ("µs", 1e6)
