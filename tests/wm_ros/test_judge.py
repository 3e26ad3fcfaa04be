"""The reward of an observation by message, formula and function, from messages near in time."""

import math
import sys
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

from wm_core.contract.errors import SettingsError, SpecMismatch
from wm_core.robot.reading import read_text
from wm_core.robot.robot_file import RobotFile
from wm_ros.episodes.experience import Signal
from wm_ros.episodes.judge import Judge
from wm_ros.robot import Robot
from wm_ros.sensors.source import Senses
from wm_ros.settings import PolicySettings

pytest.importorskip("nav_msgs", reason="needs ROS 2 with nav_msgs")
pytestmark = pytest.mark.ros

MS = 1_000_000
TEXT = """\
rate_hz: 20
tolerance_s: 0.02
observations:
  image: {type: sensor_msgs/Image, topic: image_raw}
  proprio: {type: sensor_msgs/JointState, joints: [a, b]}
actions: {type: geometry_msgs/Twist, low: [-1, -1], high: [1, 1]}
values:
  speed: {type: nav_msgs/Odometry, topic: odom, field: 'twist.twist.linear.x'}
  bonus: {type: std_msgs/Float32, topic: bonus}
reward: {expression: "speed + bonus - a"}
"""


def judge_of(text=TEXT):
    """A judge and the policy's spec, with a period of 50 ms."""
    file = read_text(RobotFile, text)
    judge, spec = Judge(Robot(PolicySettings(), file)), file.spec()
    judge.begin(spec, 50 * MS)
    return judge


def odometry(stamp_ns, speed):
    """An odometry message with a velocity."""
    from nav_msgs.msg import Odometry

    msg = Odometry()
    msg.header.stamp.sec, msg.header.stamp.nanosec = divmod(stamp_ns, 1_000_000_000)
    msg.twist.twist.linear.x = speed
    return msg


def judged(judge, stamp_ns, a=0.0, now_ns=0):
    """The signal of an observation with that stamp."""
    obs = {"image": np.zeros((64, 64, 3), np.uint8), "proprio": np.array([a, 1], np.float32)}
    return judge.judge(Senses(obs, stamp_ns, True), np.zeros(2, np.float32), now_ns)


def test_a_formula_reads_messages_that_are_stamped_a_little_apart():
    judge = judge_of()
    judge.readings["bonus"].on_message(SimpleNamespace(data=0.25), 0, 0)
    judge.readings["speed"].on_message(odometry(1001 * MS, 2.0), 0, 0)
    assert judged(judge, 1000 * MS).is_first
    judge.readings["speed"].on_message(odometry(1049 * MS, 3.0), 0, 0)
    signal = judged(judge, 1050 * MS, a=1.0)
    assert signal == Signal(1050 * MS, 2.25, is_first=False, is_last=False, is_terminal=False)
    assert judge.return_now == 2.25
    assert judge.problem == ""


def test_without_a_message_near_enough_there_is_no_reward_and_the_topic_is_named():
    judge = judge_of()
    judge.readings["bonus"].on_message(SimpleNamespace(data=0.0), 0, 0)
    judged(judge, 1000 * MS)
    judge.readings["speed"].on_message(odometry(1029 * MS, 3.0), 0, 0)
    assert judged(judge, 1050 * MS) is None
    assert judge.problem == "no message near the observation: speed on odom"


def test_a_message_that_may_still_come_is_waited_for_half_a_period():
    judge = judge_of()
    judge.readings["bonus"].on_message(SimpleNamespace(data=0.0), 0, 0)
    judge.readings["speed"].on_message(odometry(1000 * MS, 3.0), 0, 0)
    judge.on_tick()
    period = {"period_ns": 50 * MS}
    assert judge.may_come(1050 * MS, waited_ns=0, **period)
    assert not judge.may_come(1050 * MS, waited_ns=25 * MS, **period)
    judge.readings["speed"].on_message(odometry(1051 * MS, 3.0), 0, 0)
    assert not judge.may_come(1050 * MS, waited_ns=0, **period)
    for _ in range(4):
        judge.on_tick()  # a topic that has fallen silent delays no tick
    assert not judge.may_come(1200 * MS, waited_ns=0, **period)


def test_nan_in_a_message_is_carried_into_the_reward():
    judge = judge_of()
    judge.readings["bonus"].on_message(SimpleNamespace(data=math.nan), 0, 0)
    judge.readings["speed"].on_message(odometry(1000 * MS, 3.0), 0, 0)
    judged(judge, 1000 * MS)
    assert math.isnan(judged(judge, 1010 * MS).reward)


def test_a_last_message_counts_until_it_is_too_old():
    text = TEXT.replace("topic: bonus}", "topic: bonus, max_age_s: 1}")
    judge = judge_of(text)
    judge.readings["bonus"].on_message(SimpleNamespace(data=1.0), 0, 0)
    judge.readings["speed"].on_message(odometry(1000 * MS, 0.0), 0, 0)
    judged(judge, 1000 * MS)
    assert judged(judge, 1010 * MS, now_ns=900 * MS).reward == 1.0
    assert judged(judge, 1015 * MS, now_ns=1100 * MS) is None


def test_conditions_end_the_episode_and_an_unknown_one_spoils_the_step():
    rules = 'episode: {terminal_if: "a > 2", end_if: "speed > 5"}\n'
    judge = judge_of(TEXT.replace("speed + bonus - a", "-a") + rules)
    judge.readings["speed"].on_message(odometry(1000 * MS, 0.0), 0, 0)
    assert judged(judge, 1000 * MS, a=3.0).is_first
    last = judged(judge, 1010 * MS, a=3.0)
    assert (last.is_last, last.is_terminal, last.reward) == (True, True, -3.0)
    assert judge.returns == [-3.0]
    assert judged(judge, 1015 * MS).is_first
    judge.readings["speed"].on_message(odometry(1100 * MS, 6.0), 0, 0)
    last = judged(judge, 1100 * MS)
    assert (last.is_last, last.is_terminal) == (True, False)
    judged(judge, 1200 * MS)
    assert math.isnan(judged(judge, 1250 * MS).reward)  # no odometry near: who knows whether


def test_an_owners_function_is_the_reward_and_its_error_is_said(monkeypatch):
    module = ModuleType("own_rewards")
    module.score = lambda values, obs, prev_action: values["speed"] * 10 + obs["proprio"][0]
    module.fails = lambda values, obs, prev_action: 1 / 0
    monkeypatch.setitem(sys.modules, "own_rewards", module)
    text = TEXT.replace('expression: "speed + bonus - a"', "function: own_rewards:score")
    judge = judge_of(text)
    for name in ("score", "fails"):
        judge = judge_of(text.replace("score", name))
        judge.readings["bonus"].on_message(SimpleNamespace(data=0.0), 0, 0)
        judge.readings["speed"].on_message(odometry(1000 * MS, 2.0), 0, 0)
        judged(judge, 1000 * MS)
        signal = judged(judge, 1010 * MS, a=0.5)
        assert (signal and signal.reward) == (20.5 if name == "score" else None)
    assert judge.problem == "own_rewards:fails: ZeroDivisionError: division by zero"


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("linear.x'}", "linear.y0'}", "unknown field 'y0'; did you mean"),
        ("twist.twist.linear.x'}", "twist.covariance'}", "several numbers: write [0]"),
        ("twist.twist.linear.x'}", "twist.twist.linear'}", "expected a path to a number"),
        ("twist.twist.linear.x'}", "child_frame_id'}", "expected a path to a number, got string"),
        ("twist.twist.linear.x'}", "twist.twist[0].linear.x'}", "in 'twist' one value"),
        ("nav_msgs/Odometry", "no_such_msgs/Odometry", "a message that is installed"),
        ("nav_msgs/Odometry", "nav_msgs/Odometri", "a message that is installed"),
        (
            'expression: "speed + bonus - a"',
            "function: no_such:f",
            "can be imported, got no_such:f",
        ),
        (
            'expression: "speed + bonus - a"',
            "function: math:pi",
            "expected a function, got math:pi",
        ),
    ],
)
def test_what_does_not_exist_is_refused_when_the_node_is_configured(old, new, said):
    with pytest.raises(SettingsError) as caught:
        judge_of(TEXT.replace(old, new))
    assert said in str(caught.value)


def test_a_number_of_an_array_is_picked_by_place_or_by_joint():
    from sensor_msgs.msg import JointState

    text = TEXT.replace(
        "type: nav_msgs/Odometry, topic: odom, field: 'twist.twist.linear.x'",
        "type: sensor_msgs/JointState, topic: lift, field: 'effort[up]', latest: true",
    )
    judge = judge_of(text.replace("speed + bonus - a", "speed"))
    message = JointState(name=["down", "up"], effort=[1.0, 7.0])
    judge.readings["speed"].on_message(message, 0, 0)
    judged(judge, 1000 * MS)
    assert judged(judge, 1010 * MS).reward == 7.0
    judge.readings["speed"].on_message(JointState(name=["down"], effort=[1.0]), 0, 0)
    assert math.isnan(judged(judge, 1020 * MS).reward)


def test_a_policy_without_an_input_that_the_reward_reads_is_refused():
    file = read_text(RobotFile, TEXT)
    spec = file.spec().model_copy(update={"vectors": {}})
    with pytest.raises(SpecMismatch, match="expression of the robot file reads proprio"):
        Judge(Robot(PolicySettings(), file)).check(spec)


def test_messages_of_rewards_are_joined_to_the_nearest_frame_and_never_to_the_next():
    judge = Judge(Robot(PolicySettings()))
    judge.begin(read_text(RobotFile, TEXT).spec(), 50 * MS)
    flags = {"is_first": False, "is_last": False, "is_terminal": False}
    judge.put(Signal(1001 * MS, 1.0, **flags))
    judge.put(Signal(1050 * MS, 2.0, **flags))
    assert judged(judge, 1000 * MS).reward == 1.0
    assert judged(judge, 1050 * MS).reward == 2.0
    assert judged(judge, 1100 * MS) is None
