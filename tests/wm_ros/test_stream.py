"""The robot's stream to the outside holds its own, whatever the disk does; no ROS."""

from __future__ import annotations

import time
from contextlib import ExitStack

import numpy as np
import pytest

from wm_core.contract.errors import ChunkRefused
from wm_core.contract.inputs import Depth
from wm_core.contract.step import Step
from wm_core.format.chunk import decode_chunk
from wm_core.link.robot.live import LiveSettings
from wm_core.link.robot.spool import SpoolSettings
from wm_ros.assembly import Assembly
from wm_ros.control_loop import Outside
from wm_ros.robot import robot_of
from wm_ros.settings import PolicySettings, SensorSettings, StreamSettings
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


# ------------------------------------------------------------------ whose spec is recorded


@pytest.fixture
def parts(tmp_path):
    """The parts of a robot, without ROS and without a tick; no worker looks for policies."""
    settings = PolicySettings(
        policy_dir=str(tmp_path / "policies"), sensors=("image",), policy_poll_s=3600.0
    )
    outside = Outside(False, time.time_ns, *[lambda *told: None] * 4)
    found = Assembly(robot_of(settings, {"image": SensorSettings()}), tmp_path, outside)
    with ExitStack() as closers:
        found.begin = lambda: found.start(closers, lambda: None)
        yield found


@pytest.fixture
def slower(spec_of):
    """The tiny policy's spec with another limit: the same shapes, and other actions."""
    tiny = spec_of()
    action = tiny.action.model_copy(update={"high": (0.5, 2.0)})
    return tiny.model_copy(update={"action": action})


def chunk_of_one_step(parts, folder):
    """What the chunk says in which one step is recorded."""
    spec = parts.spec
    assert parts.stream.put(Step(spec.zeros(), np.zeros(2, np.float32), 0.0, False, False, False))
    assert parts.stream.counters()["spool_steps_put"] == 1
    parts.stream.close()
    deadline = time.monotonic() + 60
    while not (chunks := list((folder / "spool").rglob("*.mcap"))):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    (path,) = chunks
    return decode_chunk(path.read_bytes())[0]


def test_a_recording_is_of_the_policy_that_runs_and_not_of_a_newer_one_that_was_refused(
    parts, policy_at, spec_of, slower, tmp_path
):
    """Every step was dropped, or its actions were scaled by the limits of the refused one."""
    policy_at(tmp_path / "policies" / "00000001", version=1, task="walk")
    policy_at(tmp_path / "policies" / "00000002", version=2, task="run", spec=slower, breaks_at=0)
    parts.begin()
    assert "00000002 refused" in parts.slot.refusals[-1]
    meta = chunk_of_one_step(parts, tmp_path)
    assert (meta.task, meta.spec) == ("walk", spec_of())


def test_a_recording_is_of_the_policy_that_runs_and_not_of_one_that_it_replaced_while_both_waited(
    parts, policy_at, slower, tmp_path
):
    """On a node that is not active yet."""
    parts.begin()
    sessions = []
    for version, task, spec in ((1, "walk", None), (2, "run", slower), (3, "run", slower)):
        policy_at(tmp_path / "policies" / f"{version:08d}", version=version, task=task, spec=spec)
        assert parts.slot.look()
        sessions.append(parts.stream.session)
    assert len(set(sessions)) == 2
    assert sessions[1] == sessions[2]
    parts.slot.between_ticks()
    parts.adopt()
    meta = chunk_of_one_step(parts, tmp_path)
    assert (meta.session, meta.task, meta.spec) == (sessions[2], "run", slower)


def test_a_policy_whose_steps_cannot_be_recorded_is_refused_before_it_runs(
    parts, policy_at, spec_of, tmp_path, monkeypatch
):
    spec = spec_of().model_copy(update={"images": {"depth": Depth(height=8, width=8)}})
    begin = parts.stream.begin
    monkeypatch.setattr(parts.stream, "begin", lambda *of: begin("walk", spec, {"depth": "jpeg"}))
    policy_at(tmp_path / "policies" / "00000001", version=1)
    parts.begin()
    assert "00000001 refused: codec of 'depth': expected zstd" in parts.slot.refusals[-1]
    assert parts.slot.runner is None
    assert not parts.stream.records
