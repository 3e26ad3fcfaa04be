"""Each step of a bag holds what the robot could know, and what was sent in answer."""

from __future__ import annotations

import numpy as np
import pytest

from tests.wm_ros.recorded.bags import (
    BEGIN_NS,
    MS,
    ROBOT,
    boolean,
    drive,
    float32,
    image,
    odometry,
    time_of,
    twist,
)
from wm_core.contract.errors import RecordingError, WmError
from wm_ros.recorded.reader import open_source


def numbers(steps):
    """The number of the frame that each step shows."""
    return [int(step.obs["image"][0, 0, 0]) for step in steps]


def commands(steps):
    """The command of each step in hundredths of a metre per second."""
    return [round(float(step.action[0]) * 100) for step in steps]


def test_each_frame_has_the_measurement_beside_it_and_the_command_that_answered_it(play):
    got = play(drive(20))
    assert len(got.episodes) == 1
    assert numbers(got.steps) == [*range(20)]
    assert commands(got.steps) == [*range(20)]
    assert [round(float(s.obs["odometry"][0]) * 100) for s in got.steps] == [*range(20)]
    assert [s.stamp_ns for s in got.steps] == [BEGIN_NS + i * 100 * MS for i in range(20)]
    assert got.left_out == {}
    assert "every reward is 0" in " ".join(got.notes)


def test_a_gap_ends_an_episode_and_nothing_is_made_up_for_it(play):
    messages = [m for m in drive(20) if not 800 <= m[1] < 1200]
    got = play(messages)
    assert [numbers(e) for e in got.episodes] == [[*range(8)], [*range(12, 20)]]
    assert [(e[0].is_first, e[-1].is_last, e[-1].is_terminal) for e in got.episodes] == [
        (True, True, False)
    ] * 2
    assert "gap 1" in " ".join(got.notes)


def test_a_frame_without_a_measurement_near_it_is_left_out_and_counted(play):
    messages = [m for m in drive(20) if m[0] != "/odom" or not 800 <= m[1] < 1000]
    got = play(messages)
    assert [numbers(e) for e in got.episodes] == [[*range(8)], [*range(10, 20)]]
    assert got.left_out == {"no_odometry": 2}


def test_a_command_counts_for_half_a_second_and_no_longer(play):
    messages = [m for m in drive(20) if m[0] != "/cmd_vel" or m[1] < 500]
    got = play(messages)
    assert numbers(got.steps) == [*range(10)]  # the last command was written at 425 ms
    assert commands(got.steps) == [0, 1, 2, 3, 4, 4, 4, 4, 4, 4]
    assert got.left_out == {"no_action": 10}
    longer = play(messages, hold_s=5.0)
    assert (numbers(longer.steps), longer.left_out) == ([*range(20)], {})


def test_a_command_beyond_the_range_is_taken_as_its_end_and_counted(play):
    got = play(
        [*drive(60)],
        robot=ROBOT.replace("low: [-1.0", "low: [-0.1").replace("high: [1.0", "high: [0.1"),
    )
    assert [s.action[0] for s in got.steps[10:]] == [1.0] * 50
    assert "49 commands of linear.x lay beyond" in " ".join(got.notes)


def test_frames_between_two_decisions_are_counted(play):
    got = play(drive(60, period_ms=50, latency_ms=5))
    assert numbers(got.steps) == [*range(0, 60, 2)]
    assert got.left_out == {}
    assert "30 messages of /camera/image_raw lie between two decisions" in " ".join(got.notes)
    assert commands(got.steps) == [*range(0, 60, 2)]


def test_frames_that_do_not_divide_into_decisions_keep_the_rate(play):
    got = play(drive(60, period_ms=40, latency_ms=5))  # 25 Hz for 10 decisions a second
    stamps = np.diff([step.stamp_ns for step in got.steps]) / MS
    assert len(got.episodes) == 1
    assert {*stamps} <= {80.0, 120.0}
    assert abs(stamps.mean() - 100) < 3


def test_a_camera_that_is_too_slow_is_refused_with_the_rate_to_write(play):
    with pytest.raises(RecordingError, match=r"5 Hz.*10 decisions.*write rate_hz: 5"):
        play(drive(40, period_ms=200))


def test_the_same_bag_gives_the_same_fingerprint_and_another_mapping_another(play, tmp_path):
    got = play(drive(5))
    bag = got.source._path
    options = got.source._options
    assert open_source(bag, options).fingerprint == got.source.fingerprint
    assert open_source(bag, options.model_copy(update={"hold_s": 1.0})).fingerprint != (
        got.source.fingerprint
    )


def test_a_camera_that_changes_its_size_is_reduced_to_one_size_and_said(play):
    messages = [
        (topic, at, image(BEGIN_NS + (at - 20) * MS, at // 100, height=16, width=32))
        if topic == "/camera/image_raw" and at > 1000
        else (topic, at, msg)
        for topic, at, msg in drive(20)
    ]
    got = play(messages)
    assert numbers(got.steps) == [*range(20)]
    assert {s.obs["image"].shape for s in got.steps} == {(8, 8, 3)}
    assert "changes from 8x8 to 32x16 pixels 1.0 s into the bag" in " ".join(got.notes)


def test_a_clock_that_is_set_back_ends_an_episode_and_is_said(play):
    messages = [*drive(10)]
    for topic, at, msg in drive(10):
        if topic != "/cmd_vel":
            msg.header.stamp.sec -= 100
        messages.append((topic, at + 1000, msg))
    got = play(messages)
    assert [numbers(e) for e in got.episodes] == [[*range(10)], [*range(10)]]
    assert "were set back 1 times" in " ".join(got.notes)


def test_stamps_that_repeat_or_come_out_of_order_are_left_out_and_counted(play):
    messages = [*drive(10)]
    extra = [m for m in messages if m[0] == "/camera/image_raw"]
    messages += [(extra[3][0], extra[3][1] + 1, extra[3][2])]  # sent twice
    messages += [(extra[5][0], extra[6][1] + 1, extra[5][2])]  # overtaken
    got = play(messages)
    assert numbers(got.steps) == [*range(10)]
    assert got.left_out == {"stamp_repeated": 1, "stamp_out_of_order": 1}


def test_stamps_of_another_clock_are_kept_and_the_disagreement_is_said(play):
    messages = []
    for topic, at, msg in drive(20):
        if topic != "/cmd_vel":
            msg.header.stamp.sec -= 1_000_000
        messages.append((topic, at, msg))
    got = play(messages)
    assert commands(got.steps) == numbers(got.steps) == [*range(20)]
    assert got.steps[0].stamp_ns == BEGIN_NS - 10**15
    assert "1000000.0 s behind the times at which messages were written" in " ".join(got.notes)


def test_one_topic_whose_clock_disagrees_feeds_nothing_and_is_named(play):
    messages = []
    for topic, at, msg in drive(20):
        if topic == "/odom":
            msg.header.stamp.sec += 3
        messages.append((topic, at, msg))
    got = play(messages)
    assert got.steps == []
    assert got.left_out == {"no_odometry": 20}
    assert "/odom: the nearest is" in " ".join(got.notes)


def test_an_empty_bag_and_one_without_a_step_give_no_episode(play):
    assert play([("/odom", 0, odometry(BEGIN_NS, 0)), *list(drive(1))[1:]]).episodes
    got = play([m for m in drive(3) if m[0] != "/cmd_vel"] + [("/cmd_vel", 900, twist(0))])
    assert got.episodes == []
    assert got.left_out == {"no_action": 3}


def test_a_topic_that_is_missing_is_said_with_the_nearest_and_with_what_there_is(play):
    for wrong, right in (("camera/image", "/camera/image_raw"), ("odometry", "/odom")):
        robot = ROBOT.replace(right.strip("/") + ",", f"{wrong},")
        with pytest.raises(RecordingError, match=f"no topic /{wrong} .*did you mean {right}") as e:
            play(drive(3), robot=robot)
        assert "/cmd_vel (geometry_msgs/Twist)" in str(e.value)
    stamped = ROBOT.replace("geometry_msgs/Twist", "geometry_msgs/TwistStamped")
    with pytest.raises(RecordingError, match="expects geometry_msgs/TwistStamped on /cmd_vel"):
        play(drive(3), robot=stamped)


def test_a_namespace_is_suggested_and_followed(play):
    messages = [(f"/rover1{topic}", at, msg) for topic, at, msg in drive(5)]
    with pytest.raises(RecordingError, match="--namespace /rover1 finds them all"):
        play(messages)
    assert numbers(play(messages, namespace="/rover1").steps) == [*range(5)]


def test_a_part_of_a_bag_is_read_by_seconds_from_its_begin(play):
    got = play(drive(20), from_s=0.5, until_s=1.2)
    assert numbers(got.steps) == [*range(5, 12)]
    assert got.steps[0].is_first
    with pytest.raises(RecordingError, match="expected --from before --until"):
        play(drive(3), from_s=2.0, until_s=1.0)


REWARDED = """
values:
  score: {type: std_msgs/Float32, topic: score}
  speed: {type: nav_msgs/Odometry, topic: odom, field: twist.twist.linear.x}
reward: {expression: score + speed}
episode: {terminal_if: abs(speed - 0.1) < 0.005}
"""


def test_rewards_and_ends_are_those_of_the_robot_file(play):
    messages = [*drive(15), *(("/score", i * 100 + 1, float32(i)) for i in range(15))]
    got = play(messages, robot=ROBOT + REWARDED)
    first, second = got.episodes
    assert numbers(first) == [*range(11)]
    assert [round(s.reward, 2) for s in first] == [
        0.0,
        *(round(i * 1.01, 2) for i in range(1, 11)),
    ]
    assert (first[-1].is_last, first[-1].is_terminal) == (True, True)
    assert numbers(second)[0] == 11
    without = play(messages, robot=ROBOT + REWARDED, rewards=False)
    assert {s.reward for s in without.steps} == {0.0}
    assert len(without.episodes) == 1


def test_a_field_that_a_message_lacks_is_said_with_the_nearest(play):
    robot = ROBOT + REWARDED.replace("linear.x}", "linear.xx}")
    with pytest.raises(WmError, match="has unknown field 'xx'; did you mean 'x'"):
        play([*drive(3), ("/score", 1, float32(1))], robot=robot)


def test_flags_of_topics_begin_and_end_episodes(play):
    robot = ROBOT + "episode: {autostart: false, start_topic: go, end_topic: done}\n"
    flags = [("/go", 310, boolean(True)), ("/done", 790, boolean(True))]
    got = play([*drive(20), *flags], robot=robot)
    assert [numbers(e) for e in got.episodes] == [[*range(3, 9)]]
    assert got.left_out["no_episode"] == 14


@pytest.mark.parametrize("rule", ["start_topic", "end_topic", "fail_topic"])
def test_a_topic_of_a_rule_that_the_bag_lacks_is_said_with_the_nearest(rule, play):
    got = play(
        [*drive(3), ("/finish", 1, boolean(False))], ROBOT + f"episode: {{{rule}: finsh}}\n"
    )
    assert f"no topic /finsh ({rule}, std_msgs/Bool), did you mean /finish?" in " ".join(got.notes)


def test_a_timer_paces_a_robot_without_a_camera(play):
    robot = ROBOT.replace(
        "  image: {type: sensor_msgs/Image, topic: camera/image_raw, height: 8, width: 8}\n", ""
    )
    got = play([m for m in drive(20) if m[0] != "/camera/image_raw"], robot=robot)
    assert len(got.episodes) == 1
    assert 18 <= len(got.steps) <= 20


def test_a_camera_without_stamps_is_refused_and_the_times_of_writing_may_stand_in(play):
    messages = [*drive(20)]
    for topic, _, msg in messages:
        if topic == "/camera/image_raw":
            msg.header.stamp = time_of(0)
    with pytest.raises(RecordingError, match=r"carry no stamp .*--log-times"):
        play(messages)
    got = play(messages, log_times=True)
    assert numbers(got.steps) == commands(got.steps) == [*range(20)]
    assert got.steps[0].stamp_ns == BEGIN_NS + 20 * MS


def test_a_topic_without_a_message_is_refused(play):
    robot = ROBOT.replace("topic: cmd_vel", "topic: commanded")
    messages = [*drive(3), ("/commanded", 100, None)]
    with pytest.raises(RecordingError, match=r"/commanded .action. is in the bag without any"):
        play(messages, robot=robot)


def test_a_choice_of_several_channels_is_the_one_that_says_what_all_were_sent(play):
    robot = ROBOT.partition("actions:")[0] + (
        "actions:\n"
        "  - {type: geometry_msgs/Twist, topic: cmd_vel, fields: [linear.x], low: [-1.0],\n"
        "     high: [1.0], choices: {stop: [0.0], go: [0.5], up: [0.0]}}\n"
        "  - {type: geometry_msgs/Twist, topic: lift_vel, fields: [linear.z], low: [-1.0],\n"
        "     high: [1.0], choices: {stop: [0.0], go: [0.0], up: [0.3]}}\n"
    )
    sent = [(0.0, 0.0), (0.5, 0.0), (0.0, 0.3), (0.5, 0.3)]  # of the last no choice says both
    messages = []
    for i in range(16):
        base, raised = sent[i // 4]
        for topic, at, message in [*drive(16)][3 * i : 3 * i + 2]:
            messages.append((topic, at, message))
        messages.append(("/cmd_vel", at + 5, twist(base)))
        lifted = twist(0.0)
        lifted.linear.z = raised
        messages.append(("/lift_vel", at + 6, lifted))
    got = play(messages, robot=robot)
    assert [int(step.action.argmax()) for step in got.steps] == [0] * 4 + [1] * 4 + [2] * 4
    assert got.left_out == {"no_action": 4}
