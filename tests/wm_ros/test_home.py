"""Each robot keeps its files to itself: folders by namespace and name, locked, old ones found."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.wm_ros.conftest import START, tiny_spec
from wm_core.contract.errors import SettingsError
from wm_core.contract.step import Step
from wm_core.link.robot.journal import sessions_in
from wm_core.link.robot.spool import Spool
from wm_ros.process import home


@pytest.fixture
def ros_home(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("ROS_HOME", str(tmp_path / "ros"))
    return tmp_path / "ros" / "wm_ros"


@pytest.mark.parametrize(
    ("namespace", "name", "expected"),
    [
        ("/", "policy", "policy"),
        ("/robot1", "policy", "robot1/policy"),
        ("/fleet/robot1", "driver", "fleet/robot1/driver"),
    ],
)
def test_the_folder_is_told_by_namespace_and_name(ros_home, namespace, name, expected):
    assert home.home_of("", namespace, name) == ros_home / expected


def test_the_owners_folder_wins(ros_home, tmp_path):
    assert home.home_of(str(tmp_path / "mine"), "/robot1", "policy") == tmp_path / "mine"


def test_a_folder_is_occupied_until_it_is_released(tmp_path):
    with ExitStack() as first:
        home.occupy(tmp_path / "state", first, node="/robot1/policy")
        said = f"in use by /robot1/policy, process {os.getpid()}"
        with pytest.raises(SettingsError, match=said), ExitStack() as second:
            home.occupy(tmp_path / "state", second, node="/robot2/policy")
    with ExitStack() as again:
        home.occupy(tmp_path / "state", again, node="/robot2/policy")


def test_a_folder_that_cannot_be_written_is_no_reason_to_stop(tmp_path):
    (tmp_path / "file").write_text("")
    with ExitStack() as closers:
        home.occupy(tmp_path / "file" / "state", closers, node="/policy")


def spool_of(folder: Path, robot: str) -> Spool:
    spool = Spool(folder, robot=robot, task="t", spec=tiny_spec())
    spec = tiny_spec()
    spool.put(
        Step(
            obs=spec.zeros(),
            action=spec.zeros()["image"].reshape(-1)[:2].astype("float32"),
            reward=0.0,
            is_first=True,
            is_last=True,
            is_terminal=False,
            stamp_ns=1,
        )
    )
    return spool


def test_experience_of_an_earlier_release_moves_to_its_robots_folder(ros_home):
    for robot in ("robot1", "robot2"):
        spool_of(ros_home / "policy" / "spool", robot).close()
    running = spool_of(ros_home / "policy" / "spool", "robot1")
    lock = ros_home / "policy" / "spool" / "robot1" / running.session / "lock"
    deadline = time.monotonic() + 60.0
    while not lock.exists():  # its thread makes the folder
        assert time.monotonic() < deadline
        time.sleep(0.01)
    folder = home.home_of("", "/robot1", "policy")
    moved = home.take_over_old_spool(folder, folder / "spool", node="policy", robot="robot1")
    assert moved == 1
    assert [s.robot for s in sessions_in(folder / "spool")] == ["robot1"]
    left = sessions_in(ros_home / "policy" / "spool")
    assert sorted(s.robot for s in left) == ["robot1", "robot2"]
    assert running.session in {s.session for s in left}
    running.close()


def test_the_old_folder_itself_is_left_alone(ros_home):
    spool_of(ros_home / "policy" / "spool", "robot1").close()
    folder = home.home_of("", "/", "policy")
    assert home.take_over_old_spool(folder, folder / "spool", node="policy", robot="robot1") == 0
    assert len(sessions_in(folder / "spool")) == 1


@pytest.mark.ros
def test_two_robots_on_one_machine_have_folders_of_their_own_and_share_none(
    processes, watcher, policy_at, report_of, tmp_path
):
    policy = policy_at(tmp_path / "policy", bias=0.5)
    processes.start("policy_node", {"policy_dir": str(policy)})
    root = tmp_path / "ros_home" / "wm_ros"
    one, two = (root / robot / "policy" for robot in ("robot1", "robot2"))
    watcher.until(lambda: report_of(one / "status.json"), "the first robot's report")
    code = START.format("policy_node")
    argv = [sys.executable, "-c", code, "--ros-args", "-p", f"policy_dir:={policy}", "-r"]
    second = subprocess.Popen([*argv, "__ns:=/robot2"], env=processes.env)
    watcher.until(lambda: report_of(two / "status.json"), "the second robot's report")
    sessions = [report_of(path / "status.json")["session"] for path in (one, two)]
    assert sessions[0] != sessions[1]
    for path, session in zip((one, two), sessions, strict=True):
        assert [s.session for s in sessions_in(path / "spool")] == [session]
    third = subprocess.run(
        [*argv, "__ns:=/robot2"], env=processes.env, capture_output=True, text=True, timeout=300
    )
    second.terminate()
    assert second.wait(timeout=300) == 0
    assert third.returncode == 2
    assert f"state folder {two} is in use by /robot2/policy" in third.stdout + third.stderr
