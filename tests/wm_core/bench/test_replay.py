"""The replay benchmark measures what it says, in the names that are promised."""

from __future__ import annotations

import json

import pytest

from wm_core.bench.replay import run

pytestmark = pytest.mark.long


def test_the_replay_figures_are_printed_as_json(capsys):
    assert run(["--json", "--steps", "1024", "--rounds", "2", "--warm-batches", "1"]) == 0
    head, *rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert head["name"] == "run"
    assert {row["name"] for row in rows} == {
        "stream/seal_ms",
        "stream/check_ms",
        "stream/bytes_per_step",
        "replay/index/steps_per_s",
        "replay/warm/windows_per_s",
        "replay/disk/windows_per_s",
        "replay/plain/wait_ms",
        "replay/prefetch/wait_ms",
    }
    assert all(row["value"] > 0 for row in rows)
