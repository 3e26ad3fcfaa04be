"""A training that is killed at several kinds of moment goes on by the plain command."""

from __future__ import annotations

import pytest

from benchmarks.run_kills import RunKills, run


@pytest.mark.slow
def test_a_run_that_is_killed_at_each_kind_of_moment_loses_nothing_that_was_shown(tmp_path):
    report = run(RunKills(root=tmp_path / "kills", kills=5, publish=False))
    assert report.faults == []
    assert report.kills == sum(report.aimed.values()) == 5
    assert report.last["agent_steps"] > 0
