"""The section on the grid of backbones, from rows whose figures a reader can check in the head."""

from __future__ import annotations

import json

import pytest
from PIL import Image

from benchmarks.results.page import BEGIN, END, write_page

RANDOM = {"mean": 0.0, "sd": 2.0, "low": -1.0, "high": 1.0, "episodes": 20, "returns": []}
EXPERT = RANDOM | {"mean": 10.0}


def row(label, seed, mean, **changes):
    """A row of the cell ``label`` whose mean return is ``mean``."""
    return {
        "label": label,
        "seed": seed,
        "task": "recall",
        "place": "recall-6",
        "minutes": 20.0,
        "command": f"wm train --world.x {label} --seed {seed} --run r/{label}-{seed}",
        "commit": "abc",
        "date": "2026-01-01",
        "cpu": "one CPU",
        "jobs": 2,
        "load": [1.0, 2.5],
        "trained": RANDOM | {"mean": mean},
        "latency": {"rate_hz": 20.0, "ticks": 400, "p50_ms": 0.5, "p99_ms": 1.25},
        "file_bytes": 2_500_000,
        "carry_bytes": 1_536,
        "parameters": 1_450_000,
        "gradient": [1.0, 0.5, 0.25],
        "updates": 8000,
        "cpu_s_per_update": 0.2,
        "curve": {"window": 10, "cpu_minutes": [1.0, 20.0], "return": [0.0, mean]},
        "failed": None,
    } | changes


@pytest.fixture
def make(tmp_path):
    """Writes rows and yardsticks, and answers the page that they make."""

    def write(*rows):
        folder = tmp_path / "results" / "backbones" / "recall-6"
        folder.mkdir(parents=True)
        sticks = {"task": "recall", "place": "recall-6", "random": RANDOM, "expert": EXPERT}
        (folder / "yardsticks.json").write_text(json.dumps(sticks))
        for one in rows:
            (folder / f"{one['label']}-{one['seed']}.json").write_text(json.dumps(one))
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


def test_seeds_of_a_cell_are_one_line_with_bounds_over_seeds(make, tmp_path):
    seeds = [row("ssm-gaussian", seed, mean) for seed, mean in enumerate((4.0, 5.0, 6.0))]
    text = make(*seeds, row("rssm-categorical", 0, 9.0))
    _, *lines = table(text)
    assert [line[0] for line in lines] == ["*expert*", "`rssm`", "`ssm`", "*random*"]
    rssm, ssm = lines[1:3]
    assert rssm[1:6] == ["q(z given h, e)", "categorical", "9.0", "9.0", "90 %"]
    # t of two degrees of freedom is 4.30, over 1 / sqrt(3)
    assert ssm[1:6] == ["q(z given e)", "gaussian", "5.0 (2.5 .. 7.5)", "4.0, 5.0, 6.0", "50 %"]
    expected = ["1.45 M", "8,000", "0.200", "0.50 / 1.25 ms", "1.5 kB", "2.5 MB"]
    assert rssm[6:] == ssm[6:] == expected
    for name in ("curves", "gradient"):
        assert f"](results/backbones/recall-6/{name}.png)" in text
        with Image.open(tmp_path / "results" / "backbones" / "recall-6" / f"{name}.png") as plot:
            assert plot.width > 600
    assert text.count("wm train --world.x ssm-gaussian --seed SEED --run r/ssm-gaussian-SEED") == 1


def test_a_training_that_failed_is_named_and_in_no_mean(make):
    text = make(row("gru-gaussian", 0, 5.0), row("gru-gaussian", 1, 0.0, failed="it ended"))
    (line,) = [line for line in table(text) if line[0] == "`gru`"]
    assert line[3:5] == ["5.0", "5.0"]
    assert "**`gru-gaussian`, seed 1, failed**: it ended." in text


def test_a_grid_whose_rows_all_failed_has_a_page(make):
    text = make(row("gru-gaussian", 0, 0.0, failed="it ended"))
    assert "failed**: it ended" in text
