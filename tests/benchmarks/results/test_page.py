"""The section of docs/results.md, from rows whose figures a reader can check in the head."""

import json
import shutil
from pathlib import Path

import pytest
from PIL import Image

from benchmarks.results.page import BEGIN, END, write_page

RANDOM = {"mean": 10.0, "sd": 2.0, "low": 8.0, "high": 12.0, "episodes": 20, "returns": []}
EXPERT = RANDOM | {"mean": 90.0, "low": 88.0, "high": 92.0}


def row(preset, mean, half, **changes):
    """A row of ``preset`` whose mean return is ``mean`` ± ``half``."""
    return {
        "preset": preset,
        "seed": 0,
        "task": "seek",
        "size": "micro",
        "minutes": 30.0,
        "parts": {"backbone": "gru 256, block", "latent": "categorical 16x16"},
        "command": f"wm train --preset {preset} --size micro --seed 0 --run r/{preset}-0",
        "commit": "abc",
        "date": "2026-01-01",
        "versions": {"python": "3.11.7", "torch": "2.13.0"},
        "cpu": "one CPU",
        "cores": 2,
        "jobs": 2,
        "load": [1.0, 2.5],
        "trained": RANDOM | {"mean": mean, "low": mean - half, "high": mean + half},
        "latency": {"rate_hz": 20.0, "ticks": 400, "p50_ms": 0.5, "p99_ms": 1.25},
        "file_bytes": 2_500_000,
        "updates": 8000,
        "agent_steps": 9000,
        "cpu_s_per_update": 0.2,
        "curve": {"window": 10, "cpu_minutes": [1.0, 30.0], "return": [10.0, mean]},
        "failed": None,
    } | changes


@pytest.fixture
def make(tmp_path):
    """Writes rows and yardsticks, and answers the page that they make."""

    def write(*rows, expert=EXPERT):
        folder = tmp_path / "results" / "seek"
        folder.mkdir(parents=True, exist_ok=True)
        sticks = {"task": "seek", "random": RANDOM, "expert": expert}
        (folder / "yardsticks.json").write_text(json.dumps(sticks))
        for one in rows:
            path = folder / f"{one['preset']}-{one['seed']}.json"
            path.write_text(json.dumps(one))
        page = tmp_path / "results.md"
        page.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
        write_page(page, tmp_path / "results")
        return page.read_text()

    return write


def table(text):
    return [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in text.splitlines()
        if line.startswith("|") and not line.startswith("|--")
    ]


def test_rows_and_baselines_stand_in_the_order_of_their_returns(make):
    _, *lines = table(make(row("twm", 30.0, 5.0), row("awm", 50.0, 5.0)))
    assert [line[0] for line in lines] == ["*expert*", "`awm`", "`twm`", "*random*"]


def test_a_share_is_measured_from_random_to_expert(make):
    _, _, awm, twm, random = table(make(row("twm", 30.0, 5.0), row("awm", 50.0, 5.0)))
    assert (awm[4], twm[4], random[4]) == ("50 %", "25 %", "0 %")
    assert awm[3] == "50.0 (45.0 .. 55.0)"
    assert awm[6:] == ["8,000", "9,000", "0.200", "0.50 / 1.25 ms", "2.5 MB"]


def test_a_preset_that_does_not_beat_random_by_its_bounds_is_named(make):
    text = make(row("twm", 16.0, 4.0), row("awm", 16.0, 3.9))  # random's upper bound is 12
    assert "1 of 2 beat random" in text
    assert "Not shown to beat random: `twm`." in text
    lines = {line[0]: line[5] for line in table(text)}
    assert (lines["`twm`"], lines["`awm`"]) == ("**no**", "yes")


def test_a_run_that_failed_says_why_and_stands_last(make):
    text = make(row("twm", 30.0, 5.0), row("awm", 0.0, 0.0, failed="wm train ended with 2: x"))
    assert "**`awm` failed**: wm train ended with 2: x." in text
    assert table(text)[-1][0] == "`awm`"
    assert "1 of 2 beat random" in text


def test_only_what_stands_between_the_markers_changes(make):
    text = make(row("twm", 30.0, 5.0))
    assert text.startswith(f"before\n{BEGIN}\n")
    assert text.endswith(f"{END}\nafter\n")
    assert "old" not in text


def test_the_plot_lies_where_the_page_says(make, tmp_path):
    text = make(row("twm", 30.0, 5.0), row("awm", 50.0, 5.0), row("awm", 40.0, 5.0, seed=1))
    assert "](results/seek/curves.png)" in text
    with Image.open(tmp_path / "results" / "seek" / "curves.png") as plot:
        assert plot.width > 600
    assert "`awm, seed 1`" in text


def test_commands_that_differ_by_preset_and_seed_alone_are_shown_once(make):
    text = make(row("twm", 30.0, 5.0), row("awm", 50.0, 5.0))
    assert "wm train --preset PRESET --size micro --seed SEED --run r/PRESET-SEED\n" in text
    assert text.count("wm train") == 1


def test_without_an_expert_there_is_no_share(make):
    _, awm, random = table(make(row("awm", 50.0, 5.0), expert=None))
    assert (awm[4], random[4]) == ("", "")


def test_a_page_without_markers_is_refused(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("nothing\n")
    with pytest.raises(SystemExit, match="expected one line"):
        write_page(page, tmp_path)


def test_the_committed_page_is_made_of_the_committed_rows(tmp_path):
    """Folders of other comparisons beside them are left alone."""
    docs = tmp_path / "docs"
    shutil.copytree(Path(__file__).parents[3] / "docs" / "results", docs / "results")
    page = docs / "results.md"
    page.write_text(f"{BEGIN}\n{END}\n")
    write_page(page, docs / "results")
    text = page.read_text()
    assert "## Every preset on `seek`" in text
    assert "### On `recall-6`" in text
