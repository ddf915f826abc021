"""The page of the benchmarks: what it says of made-up results, and that no loss is unexplained."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from benchmarks import page
from benchmarks.compile import child, judge, row


def contender(name, lane=None, verdict="ok", error=1e-6, **further):
    """As `benchmarks.output` keeps one; `lane` are seconds a lane."""
    rounds = [] if lane is None else [90 * lane, 100 * lane, 120 * lane]
    numbers = {"median_s": None, "s_a_lane": None} if lane is None else {
        "median_s": 100 * lane, "s_a_lane": lane
    }  # fmt: skip
    return {
        "name": name,
        "note": "",
        "verdict": verdict,
        "rtol": 1e-4,
        "lanes": 100,
        "rounds_s": rounds,
        "compile_s": None,
        "error_median": error,
        "error_q90": error,
        **numbers,
        **further,
    }


def race(*contenders, targets=(), **further):
    """A report in which the first contender is ours."""
    ours, *peers = contenders
    ratios = []
    for peer in peers:
        found = {"ours": ours["name"], "peer": peer["name"], "ratio": None, "range": None}
        if peer["s_a_lane"] is not None:
            ratio = peer["s_a_lane"] / ours["s_a_lane"]
            found |= {"ratio": ratio, "range": [0.9 * ratio, 1.1 * ratio]}
        least = dict(targets).get(peer["name"])
        met = None not in (least, found["ratio"]) and found["ratio"] >= least
        ratios.append(found | {"at_least": least, "met": met})
    return {
        "title": "a race: 100 lanes",
        "ours": ours["name"],
        "ratios": ratios,
        "contenders": contenders,
        **further,
    }


@pytest.fixture
def written(tmp_path):
    """Writes the page of reports, and returns its text."""

    def write(*reports, name="some"):
        content = {
            "benchmark": name,
            "quick": False,
            "hardware": {"CPU": "a processor", "cores": 2},
            "reports": reports,
        }
        results = tmp_path / "results"
        results.mkdir(exist_ok=True)
        (results / f"{name}.json").write_text(json.dumps(content))
        page.main(results, tmp_path / "README.md")
        return (tmp_path / "README.md").read_text()

    return write


def test_ratios_say_who_is_slower(written):
    text = written(
        race(contender("auto", 1e-5), contender("slow", 1.5e-4), contender("quick", 5e-6))
    )
    assert "15 times slower" in text
    assert "2 times **faster**" in text
    assert "`python -m benchmarks some` on CPU a processor, cores 2." in text


def test_a_loss_has_its_reason_or_says_that_it_has_none(written, monkeypatch):
    pair = contender("auto", 1e-5), contender("quick", 5e-6)
    assert f"- quick, 2 times as fast: {page.NO_REASON}" in written(race(*pair))
    monkeypatch.setattr(page, "REASONS", {"work": {"quick": " "}})
    assert page.NO_REASON in written(race(*pair, name="work"))
    monkeypatch.setattr(page, "REASONS", {"work": {"quick": "It computes less."}})
    told = written(race(*pair, name="work"))
    assert "- quick, 2 times as fast: It computes less." in told
    assert page.NO_REASON not in told


def test_what_is_within_noise_needs_no_reason(written):
    report = race(contender("auto", 1e-5), contender("even", 9.7e-6))
    assert page.unexplained({"reports": [report]}) == []
    assert "- even, 1.03 times as fast: in noise." in written(report)


def test_unexplained_names_workload_and_peer(monkeypatch):
    monkeypatch.setattr(page, "REASONS", {"work": {"known": "It computes less."}})
    report = race(
        contender("auto", 1e-5), contender("known", 1e-6), contender("other", 2e-6),
        contender("slow", 1e-4), contender("wrong", verdict="WRONG"),
        name="work",
    )  # fmt: skip
    content = {"reports": [report, {"title": "no race", "rows": []}]}
    assert page.unexplained(content) == [("a race: 100 lanes", "other")]


def test_only_losses_of_ours_count():
    report = race(contender("auto", 1e-5), contender("peer", 1e-4))
    report["ratios"].append(
        {"ours": "cohort", "peer": "peer", "ratio": 0.5, "range": [0.4, 0.6], "at_least": 15}
    )
    assert page.unexplained({"reports": [report]}) == []


@pytest.mark.parametrize(
    ("one", "said"),
    [
        (contender("peer", verdict="WRONG", error=0.25), "- peer: WRONG, error 2.5e-01"),
        (contender("peer", verdict="WRONG", error=None), "- peer: WRONG, not a number"),
        (contender("peer", verdict="it is not installed"), "- peer: it is not installed"),
        (contender("peer", verdict="FAILED: E: <a|b>"), "- peer: FAILED: E: &lt;a\\|b>"),
    ],
)
def test_who_has_no_time_is_named_with_the_reason(written, one, said):
    text = written(race(contender("auto", 1e-5), one, targets={"peer": 3}))
    assert said in text
    assert "- auto at least 3 times as fast as peer: not measured" in text


def test_targets_and_limits(written):
    text = written(
        race(
            contender("auto", 1e-5),
            contender("a", 1e-4),
            contender("b", 2e-5),
            targets={"a": 5, "b": 5},
            limits={"operations_per_s": 3e9, "fraction_of_peak": 0.25},
        )
    )
    assert "as fast as a: 10 (9 … 11), met" in text
    assert "as fast as b: 2 (1.8 … 2.2), **NOT MET**" in text
    assert "operations/s 3 G, fraction of peak 25 %." in text


def test_all_of_a_race_may_be_unknown(written):
    report = race(contender("auto", verdict="WRONG", error=None), contender("peer"))
    report["ratios"][0] |= {"ratio": None, "range": None}
    assert "Time a lane: nobody has one" in written(report | {"limits": None})


def test_figures_are_small_and_shown(written, tmp_path):
    peers = [contender(f"a contender, number {n}", 3.0**n * 1e-6) for n in range(12)]
    missing = [contender(f"missing {n}", verdict="it is not installed" * 20) for n in range(3)]
    text = written(race(contender("auto", 2e-6), *peers, *missing))
    assert "](results/figures/some-1.png)" in text
    assert 1000 < (tmp_path / "results/figures/some-1.png").stat().st_size < 100_000


def test_figures_of_former_results_go(written, tmp_path):
    written(race(contender("auto", 1e-5)), race(contender("auto", 1e-5)))
    written(race(contender("auto", 1e-5)))
    assert [file.name for file in (tmp_path / "results/figures").iterdir()] == ["some-1.png"]


def test_the_same_results_make_the_same_page(written, tmp_path):
    report = race(contender("auto", 1e-5), contender("peer", 1e-4))
    picture = tmp_path / "results/figures/some-1.png"
    first = written(report), picture.read_bytes()
    assert (written(report), picture.read_bytes()) == first


def test_quick_results_are_left_out(written):
    written(race(contender("auto", 1e-5)), name="some-quick")
    assert "some-quick" not in written(race(contender("auto", 1e-5)))


def test_other_reports_are_tables_without_raw_rounds(written):
    compiled = {
        "title": "first answers",
        "kind": "compile",
        "rows": [
            {"name": "auto", "cold": {"first_s": 7.5}, "absent": "", "rounds": [{"first_s": 7}]},
            {"name": "peer", "cold": None, "absent": "not installed"},
        ],
    }
    bare = {"title": "bare", "rows": [{"engine": "fused", "rounds_s": [0.001, 0.002, 0.003]}]}
    pairs = {"title": "pairs", "lanes": 10, "rounds_s": [[2.0, 1.0], [3.0, 1.0], [8.0, 2.0]]}
    nested = {"title": "nested", "rounds": [{"0": {"seconds": 1.0}}, {"0": {"seconds": 3.0}}]}
    text = written(compiled, bare, pairs, nested)
    assert "| name | cold first | absent |" in text
    assert "| auto | 7.5 s |" in text
    assert "| peer | - | not installed |" in text
    assert "| fused | 2 ms |" in text
    assert "lanes 10" in text
    assert "3 times that, rounds 2 … 4" in text
    assert "| 2 s |" in text


def process(first):
    return {"import_s": 1.0, "first_s": first, "second_s": 0.1}


def test_first_answers_are_medians_over_processes():
    found = row("peer", [{"cold": process(first), "warm": process(0.5)} for first in (9, 3, 5)])
    assert found["cold"] == process(5)
    assert found["warm"] == process(0.5)


def test_one_process_that_fails_leaves_no_time():
    whole = {"cold": process(1), "warm": process(1)}
    found = row("peer", [whole, whole | {"warm": {"absent": "FAILED: it did"}}])
    assert (found["cold"], found["warm"], found["absent"]) == (None, None, "FAILED: it did")


@pytest.mark.parametrize(("answer", "kept"), [(1.0, True), (2.0, False), (np.nan, False)])
def test_another_answer_has_no_time(answer, kept):
    found = row("peer", [{"cold": process(1), "warm": process(1)}])
    judge(found, {"auto": np.ones((3, 2)), "peer": np.full((3, 2), answer)}, 1e-4)
    assert (found["cold"] is not None, found["absent"] == "") == (kept, kept)


def test_a_process_that_dies_is_named_with_what_it_said(tmp_path, monkeypatch):
    monkeypatch.setattr("benchmarks.compile.PACKAGES", {"flow": {"nobody": ()}})
    assert child("flow", "nobody", tmp_path / "final.npy") == {
        "absent": "FAILED: KeyError: 'nobody'"
    }


RESULTS = page.kept(page.RESULTS)


@pytest.mark.parametrize("file", RESULTS, ids=[file.stem for file in RESULTS])
def test_no_committed_result_has_an_unexplained_loss(file: Path):
    content = json.loads(file.read_text())
    assert page.unexplained(content) == []
    races = [report for report in content["reports"] if page.is_race(report)]
    assert bool(races) == (file.stem in ("ensemble", "precision", "discrete", "network"))
    for report in races:  # who has no time himself loses to nobody
        (auto,) = (one for one in report["contenders"] if one["name"] == "auto")
        assert auto["verdict"] == "ok", report["title"]


def test_the_committed_page_is_that_of_the_committed_results(tmp_path):
    results = tmp_path / "results"
    results.mkdir()
    for file in RESULTS:
        shutil.copy(file, results)
    page.main(results, tmp_path / "README.md")
    assert (tmp_path / "README.md").read_text() == page.README.read_text()
    drawn = {file.name for file in (results / "figures").iterdir()}
    assert drawn == {file.name for file in (page.RESULTS / "figures").iterdir()}
