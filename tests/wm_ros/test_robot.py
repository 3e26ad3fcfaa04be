"""What the node takes from a robot file, and what it refuses beside one."""

import pytest

from wm_core.contract.errors import SettingsError
from wm_ros.robot import robot_of
from wm_ros.settings import PolicySettings

TEXT = """\
robot: walker
rate_hz: 50
observations: {body: {type: sensor_msgs/Imu}}
actions: {type: geometry_msgs/Twist, low: [-1, -1], high: [1, 1]}
reward: {topic: score, required: false}
safety: {latch_safe: true, max_gap_s: 0.2}
"""


@pytest.fixture
def settings(tmp_path):
    """Settings that name a robot file."""
    path = tmp_path / "robot.yaml"
    path.write_text(TEXT)
    return PolicySettings(robot_file=str(path))


def test_a_robot_file_sets_the_parameters_that_it_states(settings):
    robot = robot_of(settings, {}, {})
    assert robot.settings.robot == "walker"
    assert robot.settings.period_s == 0.02
    assert robot.settings.latch_safe
    assert robot.settings.max_gap_s == 0.2
    assert robot.settings.max_obs_age_s == PolicySettings().max_obs_age_s
    assert not robot.settings.reward_required
    assert robot.reward.topic == "score"
    assert [*robot.observations] == ["body"]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"period_s": 0.05}, "parameter period_s is 0.05, but"),
        ({"robot": "other"}, "says 'walker': set one of them only"),
        ({"sensors": ["image"]}, "leave the parameter out and see observations"),
        ({"command_type": "joint"}, "see actions[].type in the file"),
        ({"safe_action": "hold"}, "see actions[].safe in the file"),
    ],
)
def test_a_parameter_that_contradicts_the_file_is_refused_by_name(settings, given, said):
    with pytest.raises(SettingsError) as caught:
        robot_of(settings, {}, given)
    assert said in str(caught.value)


def test_a_parameter_that_says_the_same_or_its_default_is_no_contradiction(settings):
    robot_of(settings, {}, {"period_s": 0.02, "safe_action": "zero", "robot": "robot"})


def test_what_the_file_states_cannot_be_changed_while_the_node_runs(settings):
    robot = robot_of(settings, {}, {})
    new = robot.changed(settings.model_copy(update={"exploration": "mean"}))
    assert (new.exploration, new.latch_safe) == ("mean", True)
    with pytest.raises(SettingsError, match="'max_gap_s' is stated by"):
        robot.changed(settings.model_copy(update={"max_gap_s": 0.5}))
    # whether the file states it or leaves it out
    with pytest.raises(SettingsError, match=r"'safe_action' has no effect .* actions\[\].safe"):
        robot.changed(settings.model_copy(update={"safe_action": "none"}))


def test_without_a_file_the_parameters_say_everything():
    robot = robot_of(PolicySettings(reward_required=False), {}, {})
    assert robot.file is None
    assert robot.channels == ()
    assert robot.reward.topic == "reward"
    assert not robot.reward.required
