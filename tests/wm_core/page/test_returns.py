"""Curves of a run are followed as its file grows, in bounded memory."""

from __future__ import annotations

import json

from wm_core.page.returns import MOST_POINTS, ReturnsReader


def line(steps, **more):
    return json.dumps({"updates": 0, "agent_steps": steps, **more}) + "\n"


def test_only_what_was_appended_is_taken_and_half_a_line_waits(tmp_path):
    path = tmp_path / "metrics.jsonl"
    reader = ReturnsReader(path)
    assert reader.look().lines == 0
    path.write_text(line(64, **{"episode/return": 1.0}))
    assert [p.mean for p in reader.look().episodes] == [1.0]
    whole = line(128, **{"episode/return": 3.0, "eval/return": 5.0, "eval/low": 4.0})
    with path.open("a") as file:
        file.write(whole[:20])
        file.flush()
        assert len(reader.look().episodes) == 1
        file.write(whole[20:])
    curves = reader.look()
    assert [p.mean for p in curves.episodes] == [1.0, 3.0]
    assert [(p.mean, p.low, p.high) for p in curves.evaluations] == [(5.0, 4.0, 5.0)]


def test_a_version_is_marked_where_it_came(tmp_path):
    path = tmp_path / "metrics.jsonl"
    versions = [(0, 0), (64, 0), (128, 1), (192, 1), (256, 4)]
    path.write_text("".join(line(s, published_version=v) for s, v in versions))
    assert ReturnsReader(path).look().versions == [(0, 0), (128, 1), (256, 4)]


def test_a_run_of_any_length_takes_the_same_memory_and_keeps_its_mean(tmp_path):
    path = tmp_path / "metrics.jsonl"
    lines = 20_000
    path.write_text("".join(line(n, **{"episode/return": n % 7}) for n in range(lines)))
    reader = ReturnsReader(path)
    points = reader.look().episodes
    assert reader.curves.lines == lines
    assert MOST_POINTS <= len(points) <= 2 * MOST_POINTS
    total = sum(p.mean * p.joined for p in points)
    assert abs(total - sum(n % 7 for n in range(lines))) < 1e-6
    assert {(p.low, p.high) for p in points[:100]} == {(0.0, 6.0)}
    assert [p.agent_steps for p in points] == sorted(p.agent_steps for p in points)


def test_a_file_that_begins_anew_is_read_anew(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text(line(64, **{"episode/return": 1.0}) * 3)
    reader = ReturnsReader(path)
    assert reader.look().lines == 3
    path.unlink()
    path.write_text(line(1, **{"episode/return": 9.0}))
    assert [p.mean for p in reader.look().episodes] == [9.0]


def test_lines_that_say_nothing_are_passed_over(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'\xff\n[]\n{"agent_steps": "x"}\n{"agent_steps": 1e999}\n\n' + b"[" * 9999)
    assert ReturnsReader(path).look().lines == 0
