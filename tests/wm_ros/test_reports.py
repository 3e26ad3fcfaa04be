"""Reports are whole files, and none of a killed node's half ones stays."""

from __future__ import annotations

import json

from wm_ros.reporting.reports import ReportWriter


def test_the_newest_report_is_written_and_what_a_killed_node_left_is_removed(tmp_path):
    (tmp_path / "status.json.0a1b2c3d.tmp").touch()
    reports = ReportWriter(tmp_path)
    reports.put("status.json", {"ticks": 1})
    reports.put("status.json", {"ticks": 2})
    reports.close()
    assert [path.name for path in tmp_path.iterdir()] == ["status.json"]
    assert json.loads((tmp_path / "status.json").read_text()) == {"ticks": 2}
