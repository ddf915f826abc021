"""Numbers on the papers' pages are those of the records beside the figures, made anew or not."""

import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def found(name):
    return json.loads((ROOT / "figures" / f"{name}.json").read_text(encoding="utf-8"))["found"]


def row_of(page, begins):
    """The one row of a table that begins so, with ASCII's minus and no bold."""
    lines = (ROOT / "docs" / page).read_text(encoding="utf-8").splitlines()
    (row,) = (line for line in lines if line.startswith(f"| {begins}"))
    return row.replace("−", "-").replace("*", "")


def same(shown, value):
    """As many decimals as are shown; a record has five digits."""
    unit = 10.0 ** -len(shown.partition(".")[2])
    return float(shown) == pytest.approx(value, rel=1e-5, abs=0.5 * unit * (1 + 1e-9))


@pytest.mark.parametrize(
    ("norm", "begins"),
    [("no norm", "AdamW is better without normalisation"), ("group norm", "with it there is no")],
)
def test_gaps_of_scale_freeness(norm, begins):
    row, networks = row_of("scale-freeness.md", begins), found("scale_freeness")["networks"]
    shown = re.findall(r"depth (\d): (\S+) \[(\S+), ([^]]+)\](, undecided)?", row)
    assert [depth for depth, *_ in shown] == ["2", "0"]
    for depth, *numbers, undecided in shown:
        gap = networks[f"digits, {norm}, depth {depth}"]["gap Adam-ℓ2 − AdamW"]
        assert all(map(same, numbers, (gap["found"], gap["low"], gap["high"])))
        assert bool(undecided) == (gap["verdict"] == "undecided")


@pytest.mark.parametrize(
    ("name", "begins"),
    [
        ("forget", "linear regression, far start | -1"),
        ("counter", "counter-example | 0.19 ±"),
        ("mlp", "MLP, 256 digits"),
        ("convnet", "small convolutional network"),
    ],
)
def test_slopes_of_decoupled_decay(name, begins):
    begins = begins.replace("-1", "−1")
    shown, slopes = row_of("decay.md", begins).split(" | ")[1:], found("decoupled_decay")["slopes"]
    for cell, slope in zip(shown, slopes[name].values(), strict=True):
        (count,) = re.findall(r"\((\d)\)", cell)
        assert int(count) == slope["learning rates"]
        if slope["found"] is None:
            assert cell.startswith("not known")
        else:
            mean, half = re.findall(r"(\S+) ± (\S+)", cell)[0]
            assert same(mean, slope["found"])
            assert same(half, (slope["high"] - slope["low"]) / 2)


def test_steps_of_the_box():
    rows = found("linf_constraint")["language model"]
    row = re.sub(r"(\d) (\d{3})\b", r"\1\2", row_of("constraint.md", "it takes what decay takes"))
    two, four, one = map(int, re.findall(r"(\d{4,5})", row.split(" | ")[2]))
    predicted = {1: one, 2: two}
    for name, case in rows.items():
        if name.startswith("AdamW"):
            late = four if "start × 4" in name else predicted[int(name[len("AdamW, λ = ")])]
            assert case["predicted step"] == late
    slow = int(re.findall(r"λ = 2: (\d+)", row)[0])
    assert rows["AdamW, λ = 2, (0.9, 0.999)"]["inside from step"] == slow
    text = (ROOT / "docs" / "constraint.md").read_text(encoding="utf-8")
    ended = [rows[f"AdamW, λ = {decay}, (0.99, 0.9)"]["finite until step"] for decay in (1, 2)]
    assert f"overflows after {ended[0]} and {ended[1]} steps" in text
    (least,) = re.findall(r"at best to (\S+) of ‖g‖₁", text)
    ratios = [case["stationarity/‖g‖₁ at end"] for case in rows.values()]
    assert same(least, min(abs(x) for x in ratios if x is not None))


@pytest.mark.parametrize(
    ("name", "begins"),
    [
        ("flow", "descent, flow"),
        ("unrolled", "descent, discrete run"),
        ("random", "random search | 600"),
        ("TPE", "TPE | 600"),
    ],
)
def test_searches_of_hyperparameters(name, begins):
    _, candidates, *numbers = row_of("hyperparameters.md", begins).strip("| ").split(" | ")
    of = found("hyperparameters")["searches"][name]
    assert int(candidates.split()[0]) == of["candidates"]
    assert all(map(same, numbers, (of["seconds"], of["validation"], of["test"])))
