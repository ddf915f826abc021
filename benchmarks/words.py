"""Numbers and tables as the page of the benchmarks writes them."""

from collections.abc import Iterable, Sequence
from typing import Any


def has_time(one: dict[str, Any]) -> bool:
    return bool(one["rounds_s"]) and one.get("s_a_lane") is not None


def why(one: dict[str, Any]) -> str:
    """Why a contender has no time."""
    if one["verdict"] != "WRONG":
        return one["verdict"]
    if one["error_median"] is None:
        return "WRONG, not a number in some lane"
    return f"WRONG, error {one['error_median']:.1e} at rtol {small(one['rtol'])}"


def rounds_a_lane(one: dict[str, Any]) -> list[float]:
    """Rounds, in seconds a lane."""
    share = one["s_a_lane"] / one["median_s"]
    return [share * seconds for seconds in one["rounds_s"]]


def seconds_a_lane(one: dict[str, Any]) -> float:
    return one["s_a_lane"]


def short(text: str, most: int = 72) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"


def table(heading: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [heading, ["---"] * len(heading), *([safe(cell) for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def safe(text: str) -> str:
    """Markdown that ends no cell and opens no HTML."""
    return " ".join(text.split()).replace("<", "&lt;").replace("|", "\\|")


def is_time(key: str) -> bool:
    return key == "s_a_lane" or (key.endswith(("_s", "seconds")) and not key.endswith("_per_s"))


def worded(key: str) -> str:
    return key.replace("_per_s", "/s").removesuffix("_s").removeprefix("s_").replace("_", " ")


def told(key: str, value: Any) -> str:
    return duration(value) if is_time(key) and isinstance(value, float) else plain(value)


def plain(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def small(value: float | None) -> str:
    return "-" if value is None else f"{value:.1e}"


def duration(seconds: float | None, unknown: str = "-") -> str:
    if seconds is None:
        return unknown
    units = (("s", 1.0), ("ms", 1e3), ("µs", 1e6), ("ns", 1e9))
    unit, scale = next((one for one in units if one[1] * abs(seconds) >= 1), units[-1])
    return f"{rounded(scale * seconds)} {unit}"


def rounded(number: float) -> str:
    """Three digits, never 1.23e+03."""
    return f"{float(f'{number:.3g}'):,.12g}"


def prefixed(number: float) -> str:
    """Large numbers in millions or billions."""
    scale, prefix = next(((s, p) for s, p in ((1e9, " G"), (1e6, " M")) if number >= s), (1, ""))
    return rounded(number / scale) + prefix


def span(times: list[float]) -> str:
    return f"{duration(min(times))} … {duration(max(times))}"
