"""The robot's stream to the outside holds its own, whatever the disk does; no ROS."""

from __future__ import annotations

import time

import numpy as np
import pytest

from wm_core.contract.errors import ChunkRefused
from wm_core.contract.step import Step
from wm_core.link.robot.live import LiveSettings
from wm_core.link.robot.spool import SpoolSettings
from wm_ros.settings import StreamSettings
from wm_ros.stream import Stream


def stream_at(folder, **changes):
    values = {"robot": "tester", "spool": SpoolSettings(seal_steps=2)}
    return Stream(StreamSettings(**(values | changes)), folder)


@pytest.mark.parametrize("url", ["", "http://127.0.0.1:9"])
def test_where_nothing_can_be_written_steps_are_taken_and_counted(tmp_path, spec_of, url):
    wall = tmp_path / "wall"
    wall.write_text("a file where the folder should be")
    stream, spec = stream_at(wall, trainer_url=url), spec_of()
    stream.begin("task", spec)
    for _ in range(4):
        assert stream.put(Step(spec.zeros(), np.zeros(2, np.float32), 0.0, False, False, False))
    deadline = time.monotonic() + 60
    while stream.counters().get("spool_dropped_write_error") != 4:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert stream.latest() is None
    stream.close()
    assert wall.read_text() == "a file where the folder should be"


def test_a_robot_that_cannot_name_a_file_is_refused_at_once(tmp_path):
    with pytest.raises(ChunkRefused, match="robot 'Robot 1'"):
        stream_at(tmp_path, robot="Robot 1")
    stream_at(tmp_path, robot="Robot 1", record=False).close()


def test_experience_goes_to_a_folder_that_stands_for_the_trainer(tmp_path, spec_of):
    stick = tmp_path / "stick"
    stick.mkdir()
    stream, spec = stream_at(tmp_path / "robot", trainer_url=stick.as_uri()), spec_of()
    assert "policy_dir" in stream.problem()
    stream.begin("task", spec)
    for _ in range(4):
        assert stream.put(Step(spec.zeros(), np.zeros(2, np.float32), 0.0, False, False, False))
    deadline = time.monotonic() + 60
    while len(list((stick / "chunks" / "tester").rglob("*.mcap"))) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    stream.close()
    assert not list((tmp_path / "robot").rglob("*.mcap"))


def test_a_spool_that_fills_up_asks_for_calm(tmp_path, spec_of):
    spool = SpoolSettings(seal_steps=2, max_bytes=100_000, overflow="pause_exploration")
    stream, spec = stream_at(tmp_path, spool=spool), spec_of()
    assert stream.pressure() == "ok"
    stream.begin("task", spec)
    deadline = time.monotonic() + 60
    while stream.pressure() == "ok":
        stream.put(Step(spec.zeros(), np.zeros(2, np.float32), 0.0, False, False, False))
        assert time.monotonic() < deadline
        time.sleep(0.01)
    stream.close()


def test_nothing_is_told_where_that_is_switched_off_or_there_is_no_service(tmp_path):
    """The page of a trainer is for people; a folder that stands for one has no page."""
    stick = (tmp_path / "stick").as_uri()
    for url, live, told in (
        ("http://127.0.0.1:9", {}, True),
        ("http://127.0.0.1:9", {"enabled": False}, False),
        (stick, {}, False),
        ("", {}, False),
    ):
        stream = stream_at(tmp_path / "robot", trainer_url=url, live=LiveSettings(**live))
        assert ("live_sent" in stream.counters()) == told
        stream.close()
