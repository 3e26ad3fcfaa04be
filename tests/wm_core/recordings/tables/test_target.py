"""A table that is read for a robot has that robot's inputs, bounds and rate, or is refused."""

from __future__ import annotations

import numpy as np
import pytest

from tests.wm_core.recordings.outgoing.conftest import SPEC, StoreMaker, episode
from wm_core.contract.errors import RecordingError
from wm_core.recordings.formats import reader, recordings_below
from wm_core.recordings.options import ReadOptions
from wm_core.recordings.outgoing.export import export_store
from wm_core.recordings.tables.lerobot import open_source
from wm_core.recordings.tables.npz import open_source as open_npz
from wm_core.robot import RobotFile

ROBOT = """
robot: arm
rate_hz: 10
observations:
  front: {topic: camera, type: sensor_msgs/Image, height: 48, width: 32}
  joints: {topic: joint_states, type: sensor_msgs/JointState, joints: [a, b], fields: [position]}
actions:
  type: std_msgs/Float64MultiArray
  topic: command
  names: [a, b]
  mode: position
  low: [-8, -8]
  high: [8, 8]
"""


@pytest.fixture
def robot_file(tmp_path):
    path = tmp_path / "robot.yaml"
    path.write_text(ROBOT)
    return path


def test_inputs_bounds_and_sizes_are_those_of_the_robot(lerobot_set, robot_file):
    root = lerobot_set().write()
    rename = ("observation.state=joints",)
    source = open_source(root, ReadOptions(robot=robot_file, rename=rename))
    assert source.spec == RobotFile.load(robot_file).spec()
    steps = [step for steps in source.episodes() for step in steps]
    assert [float(s.action[0]) for s in steps] == [i / 8 for i in range(9)]
    assert steps[0].obs["front"].shape == (48, 32, 3)
    assert source.name == "arm"


def test_an_input_without_a_column_names_the_nearest(lerobot_set, robot_file):
    with pytest.raises(
        RecordingError, match=r"no column for the robot's input 'joints'.*--rename"
    ):
        open_source(lerobot_set().write(), ReadOptions(robot=robot_file))


def test_another_rate_or_another_number_of_joints_is_refused(lerobot_set, robot_file):
    made = lerobot_set()
    made.fps = 30
    options = ReadOptions(robot=robot_file, rename=("observation.state=joints",))
    with pytest.raises(RecordingError, match="30 rows per second, but the robot file decides 10"):
        open_source(made.write(), options)
    made.fps = 10
    made.add("observation.state", np.zeros((9, 3)), shape=[3])
    with pytest.raises(RecordingError, match="expected 2 numbers of the robot's 'joints', got 3"):
        open_source(made.write(), options)


def test_arrays_take_the_rate_of_the_robot(tmp_path, robot_file):
    steps = {"front": np.zeros((3, 96, 64, 3), np.uint8), "joints": np.ones((3, 2))}
    np.savez(tmp_path / "a.npz", **steps, action=np.full((3, 2), 4.0))
    source = open_npz(tmp_path / "a.npz", ReadOptions(robot=robot_file))
    assert source.spec.period_s == 0.1
    assert {float(s.action[0]) for e in source.episodes() for s in e} == {0.5}
    with pytest.raises(RecordingError, match="20 rows per second, but the robot file decides 10"):
        open_npz(tmp_path / "a.npz", ReadOptions(robot=robot_file, fps=20))


def test_a_robot_file_that_is_missing_is_named(lerobot_set, tmp_path):
    with pytest.raises(RecordingError, match=r"absent\.yaml"):
        open_source(lerobot_set().write(), ReadOptions(robot=tmp_path / "absent.yaml"))


@pytest.mark.parametrize("format", ["lerobot", "npz"])
@pytest.mark.parametrize("more", [{}, {"fit": "pad"}])
def test_an_export_of_ours_is_not_mapped_to_a_robot_file(tmp_path, robot_file, format, more):
    """Its actions are in [-1, 1] already: the robot's bounds would scale them once more."""
    maker = StoreMaker(tmp_path / "run" / "store")
    maker.add(episode(SPEC, 6, seed=0), SPEC)
    export_store(maker.root, tmp_path / "out", format)
    ((path, name),) = recordings_below(tmp_path / "out")
    with pytest.raises(RecordingError, match=r"written by wm data export.*leave out --robot$"):
        reader(name).open_source(path, ReadOptions(robot=robot_file, **more))


def test_what_the_robot_file_says_already_is_refused_beside_it(lerobot_set, robot_file):
    options = ReadOptions(robot=robot_file, without=("x",), action_low=(0.0,), image_size="8x8")
    with pytest.raises(
        RecordingError, match=r"leave out --without and --action-low and --image-size$"
    ):
        open_source(lerobot_set().write(), options)


def test_options_of_bags_are_refused_of_tables(lerobot_set, tmp_path):
    np.savez(tmp_path / "a.npz", pose=np.ones((3, 2)), action=np.zeros((3, 1)))
    options = ReadOptions(rewards=False, hold_s=1.0)
    for open_table, path in ((open_source, lerobot_set().write()), (open_npz, tmp_path / "a.npz")):
        with pytest.raises(RecordingError, match=r"leave out --no-rewards and --hold-s$"):
            open_table(path, options)
