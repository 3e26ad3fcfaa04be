"""What a robot file says, and what it says of its own errors."""

import pytest

from wm_core.contract.errors import SettingsError
from wm_core.contract.inputs import RGB, Depth, Mono
from wm_core.robot import RobotFile

BASE = """\
robot: base
rate_hz: 20
observations:
  front: {type: sensor_msgs/Image, topic: front/image_raw}
  rear: {type: sensor_msgs/msg/CompressedImage, topic: rear/compressed, colours: mono, height: 32}
  far: {type: sensor_msgs/Image, topic: depth, colours: depth, near_mm: 100}
  proprio:
    - {type: sensor_msgs/JointState, joints: [left, right], fields: [position, velocity]}
    - {type: prev_action, scale: 2}
actions:
  - {type: geometry_msgs/TwistStamped, low: [-0.5, -2], high: [1, 2], max_rate: [1.5e0, 2]}
  - {type: sensor_msgs/JointState, joints: [pan, tilt], mode: position, low: -1, high: 1,
     max_rate: 1}
"""


def read(tmp_path, text):
    """Load ``text`` as a robot file."""
    path = tmp_path / "robot.yaml"
    path.write_text(text)
    return RobotFile.load(path)


def errors_of(tmp_path, text):
    """Lines of the error that ``text`` causes, without the folder."""
    with pytest.raises(SettingsError) as caught:
        read(tmp_path, text)
    return str(caught.value).replace(f"{tmp_path}/", "").splitlines()


def test_a_file_says_what_its_policy_reads_and_writes(tmp_path):
    robot = read(tmp_path, BASE)
    spec = robot.spec()
    assert [type(image) for image in spec.images.values()] == [RGB, Mono, Depth]
    assert spec.images["rear"].shape == (32, 64, 1)
    assert spec.vectors["proprio"].names == (
        *("left", "right", "left.velocity", "right.velocity"),
        *("prev.linear.x", "prev.angular.z", "prev.pan", "prev.tilt"),
    )
    assert spec.action.names == ("linear.x", "angular.z", "pan", "tilt")
    assert spec.action.units == ("m/s", "rad/s", "rad", "rad")
    assert spec.action.low == (-0.5, -2.0, -1.0, -1.0)
    assert spec.action.max_change == pytest.approx(0.1)  # 1.5 m/s² of 1.5 m/s in 1/20 s, twice
    assert spec.period_s == 0.05
    assert robot.paced_by == "front"
    assert robot.observations["proprio"][1].scale == (2.0,) * 4
    assert robot.actions[0].safe == "zero"
    assert robot.actions[1].safe == "hold"


def test_formulas_may_read_values_vectors_the_last_action_and_the_time(tmp_path):
    text = """\
values: {progress: {topic: progress}}
reward: {expression: "progress + left - left_velocity + sent_pan + prev_action[0] * episode_s"}
episode: {terminal_if: "proprio['right.velocity'] > 3 or max(proprio) > 9"}
"""
    assert read(tmp_path, BASE + text).formulas.keys() == {
        ("reward", "expression"),
        ("episode", "terminal_if"),
    }


def test_a_walker_needs_no_camera_and_a_timer_may_set_the_pace(tmp_path):
    text = """\
rate_hz: 50
observations:
  body: [{type: sensor_msgs/Imu}, {type: sensor_msgs/JointState, joints: [a, b]}]
actions: {type: std_msgs/Float64MultiArray, topic: legs, names: [a, b], mode: position,
          low: -1, high: 1}
"""
    assert read(tmp_path, text).paced_by is None
    assert read(tmp_path, text + "pace: body\n").paced_by == "body"


def test_choices_make_the_action_discrete_and_one_of_them_stops(tmp_path):
    text = """\
    rate_hz: 10
    observations: {image: {type: sensor_msgs/Image, topic: image_raw}}
    actions:
      type: geometry_msgs/Twist
      low: [-1, -1]
      high: [1, 1]
      choices: {go: [0.5, 0], stop: [0, 0], left: [0.2, 1]}
    """
    action = read(tmp_path, text).spec().action
    assert action.discrete
    assert action.names == ("go", "stop", "left")
    assert action.noop == 1
    (said,) = errors_of(tmp_path, text.replace("stop: [0, 0]", "stop: [0.1, 0]"))
    assert said.endswith(
        "actions.choices: expected a choice that stops velocities and efforts, such as stop: "
        "[0.0, 0.0] on cmd_vel; got none among ['go', 'stop', 'left']"
    ), said


def choosing(*channels):
    listed = "".join(f"  - {channel}\n" for channel in channels)
    camera = "{image: {type: sensor_msgs/Image, topic: image_raw}}"
    return f"rate_hz: 10\nobservations: {camera}\nactions:\n{listed}"


DRIVE = "{type: geometry_msgs/Twist, low: -1, high: 1, choices: {go: [0.5, 0], %s: [0, 0]}%s}"
PUSH = (
    "{type: std_msgs/Float64MultiArray, topic: w, names: [wheel], mode: %s, low: -9, high: 9, "
    "choices: {go: [%s], stop: [%s]}%s}"
)


@pytest.mark.parametrize("safe", ["", ", safe: none", ", safe: hold, hold_s: 1"])
def test_one_choice_stops_every_velocity_and_effort_at_once_whatever_the_safe_actions(
    tmp_path, safe
):
    drive = DRIVE % ("stop", safe)
    for mode in ("velocity", "effort"):
        (said,) = errors_of(tmp_path, choosing(drive, PUSH % (mode, 0, 1, safe)))
        assert "such as stop: [0.0, 0.0] on cmd_vel and [0.0] on w; got none" in said
        assert read(tmp_path, choosing(drive, PUSH % (mode, 1, 0, safe))).stopping_choices == (1,)


def test_positions_beside_choices_stay_where_they_are_and_need_no_choice_that_stops(tmp_path):
    arm = PUSH % ("position", 1, 2, "")
    assert read(tmp_path, choosing(arm)).stopping_choices == ()
    both = read(tmp_path, choosing(DRIVE % ("stop", ""), arm))
    assert (both.stopping_choices, both.spec().action.noop) == ((1,), 1)


@pytest.mark.parametrize(
    ("stated", "said"),
    [
        (", max_rate: 1", "actions[0].max_rate: expected none beside choices, got [1.0, 1.0]"),
        (", max_jerk: 2", "actions[0].max_jerk: expected none beside choices, got [2.0, 2.0]"),
        (", safe: [0, 0]", "actions[0].safe: expected zero, hold or none beside choices, got the"),
    ],
)
def test_what_cannot_hold_of_a_choice_is_refused_with_the_reason(tmp_path, stated, said):
    (got,) = errors_of(tmp_path, choosing(DRIVE % ("stop", stated)))
    assert said in got


def test_a_gripper_is_told_by_its_two_ends(tmp_path):
    text = """\
    rate_hz: 10
    observations: {image: {type: sensor_msgs/Image, topic: image_raw}}
    actions: {type: gripper, topic: gripper/commands, open: 0.08, closed: 0}
    """
    channel = read(tmp_path, text).actions[0]
    assert (channel.low, channel.high, channel.safe) == ((0.0,), (0.08,), "hold")


#: (what is replaced in BASE, by what, line, part of the message)
WRONG = [
    ("rate_hz: 20", "rate_hz: fast", 2, "rate_hz: expected a number, got 'fast'"),
    ("rate_hz: 20", "rate_hz: yes", 2, "got yes (YAML reads yes as true"),
    ("height: 32", "height: 32.0", 5, "height: expected a whole number, got 32.0"),
    ("height: 32", "height:", 5, "height: expected a whole number, got nothing"),
    ("topic: front/image_raw", "topic: 7", 4, "topic: expected a text, got 7"),
    ("low: [-0.5, -2]", "low: []", 11, "low: expected 1 or 2 numbers, got 0"),
    ("low: [-0.5, -2]", "low: {a: 1}", 11, "low: expected a list, got {'a': 1}"),
    ("robot: base", "episode: 7", 1, "episode: expected entries with names, got 7"),
    ("robot: base", "safety: {latch_safe: 1}", 1, "latch_safe: expected true or false, got 1"),
    ("rate_hz: 20", "rate_hz: 0", 2, "expected greater than 0, got 0"),
    ("rate_hz", "rate_hzz", 2, "unknown field 'rate_hzz'; did you mean 'rate_hz'?"),
    ("robot: base", "robot: My Base", 1, "expected letters a-z, digits, _ and -"),
    ("sensor_msgs/Image,", "sensor_msgs/Imgae,", 4, "did you mean 'sensor_msgs/Image'?"),
    ("{type: sensor_msgs/Image, ", "{", 4, "expected a field type that names the message"),
    ("topic: front/image_raw", "topic: a b", 4, "front.topic: expected a name of ROS"),
    (", topic: front/image_raw", "", 4, "observations.front.topic: is missing"),
    ("front:", "action:", 4, "'action' is an input or output of every policy"),
    ("front:", "noise_action:", 4, "'noise_action' is an input or output of every policy"),
    ("near_mm: 100", "near_mm: 20000", 6, "near_mm: expected less than far_mm 10000, got 20000"),
    ("[left, right]", "[left, left]", 8, "joints: expected each name once, got twice: left"),
    ("[left, right]", "[]", 8, "expected at least 1 entry, got []"),
    ("velocity]", "velocty]", 8, "fields[1]: expected 'position', 'velocity' or 'effort'"),
    ("scale: 2", "scale: [1, 2]", 9, "scale: expected 1 or 4 numbers, got 2"),
    ("scale: 2", "scale: 0", 9, "scale: expected no zero"),
    (
        "high: [1, 2]",
        "high: [-1, 2]",
        11,
        "expected less than high for 'linear.x', got -0.5 .. -1",
    ),
    ("high: [1, 2]", "high: [1, 2, 3]", 11, "high: expected 1 or 2 numbers, got 3"),
    ("high: [1, 2]", "high: [1, .inf]", 11, "high[1]: expected a finite number, got .inf"),
    ("low: [-0.5,", "low: [0.5,", 11, "safe: expected 0.5 .. 1 for 'linear.x', got 0; use hold"),
    ("1.5e0, 2]", "1.5e0, -2]", 11, "max_rate: expected numbers above 0"),
    ("low: -1", "safe: zero, low: -1", 12, "zero would drive positions to 0"),
    ("low: -1", "safe: [0, 3], low: -1", 12, "safe: expected -1 .. 1 for 'tilt', got 3"),
    ("low: -1", "safe: [0], low: -1", 12, "safe: expected 2 numbers ['pan', 'tilt'], got 1"),
    ("low: -1", "safe: off, low: -1", 12, "YAML reads off as false; a word goes in quotes"),
    ("low: -1", "safe: hodl, low: -1", 12, "unknown safe action 'hodl'; did you mean 'hold'?"),
    ("low: [-0.5", "safe: hold, low: [-0.5", 11, "hold repeats a velocity or effort"),
    ("[pan, tilt]", "[pan, linear.x]", 12, "got twice: linear.x"),
    ("low: -1", "takeover: cmd_vel, low: -1", 12, "takeover: expected a topic on which no"),
    (
        "topic: depth",
        "topic: joint_states",
        8,
        "carries sensor_msgs/Image above and sensor_msgs/J",
    ),
    ("topic: depth", "topic: cmd_vel", 6, "is what an action commands"),
    ("robot: base", "pace: frnt", 1, "pace: unknown input 'frnt'; did you mean 'front'?"),
    ("robot: base", "rate_hz: 10", 2, "expected each name once, got it in line 1 already"),
    ("robot: base", "off: 1", 1, "expected a name, got off; put it in quotes"),
    ("robot: base", "episode: {reset: {type: std_srvs/Empty}}", 1, "reset.service: is missing"),
    ("robot: base", "reward: {}", 1, "one of topic, expression and function, got none"),
    ("robot: base", "reward: {expression: pan_}", 1, "unknown name 'pan_'; did you mean"),
    ("robot: base", "reward: {expression: left +}", 1, "reward.expression: expected a formula"),
    ("robot: base", "episode: {end_if: lft > 1}", 1, "unknown name 'lft'; did you mean 'left'?"),
    ("robot: base", "values: {front: {topic: a}}", 1, "'front' means something else in formulas"),
    ("robot: base", "values: {a: {topic: a, field: a..b}}", 1, "field: expected a path such as"),
    ("robot: base", "values: {a: {topic: a, type: float}}", 1, "expected a message such as"),
    ("robot: base", "reward: {function: score}", 1, "expected module:function"),
    ("robot: base", "robot: [", 3, "expected YAML, got"),
]


@pytest.mark.parametrize(("good", "wrong", "line", "message"), WRONG)
def test_an_error_names_line_field_expected_and_got(tmp_path, good, wrong, line, message):
    assert BASE.count(good) >= 1
    said = errors_of(tmp_path, BASE.replace(good, wrong, 1))
    assert any(message in text for text in said), said
    assert all(text.startswith("robot.yaml:") for text in said)
    assert any(text.startswith(f"robot.yaml:{line}: ") for text in said), said


def test_several_errors_are_listed_together_in_the_order_of_the_file(tmp_path):
    text = BASE.replace("rate_hz: 20", "rate_hz: x").replace("[1.5e0, 2]", "q")
    said = errors_of(tmp_path, text)
    assert [line.split(":")[1] for line in said] == ["2", "11"]


def test_a_file_cannot_grow_beyond_bounds(tmp_path):
    bomb = "a0: &a0 [x, x]\n" + "".join(
        f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]\n" for i in range(1, 40)
    )
    assert "more than 20000 entries" in errors_of(tmp_path, bomb)[0]
    assert "alias within itself" in errors_of(tmp_path, "a: &a [*a]\n")[0]
    assert "expected YAML" in errors_of(tmp_path, "[" * 5000)[0]
    assert "at most 262144 bytes" in errors_of(tmp_path, "#" * (1 << 19))[0]
    assert "for the tag" in errors_of(tmp_path, "a: !!python/object/apply:os.getcwd []\n")[0]


def test_a_missing_file_names_the_nearest(tmp_path):
    (tmp_path / "robots.yaml").write_text(BASE)
    with pytest.raises(SettingsError, match=r"did you mean 'robots.yaml'"):
        RobotFile.load(tmp_path / "robot.yaml")


def test_a_file_of_ros_parameters_is_told_apart(tmp_path):
    (said,) = errors_of(tmp_path, "/**:\n  ros__parameters: {robot: base}\n")
    assert "got parameters of ROS" in said


def test_a_robot_without_a_rate_drives_a_policy_but_trains_none(tmp_path):
    robot = read(tmp_path, BASE.replace("rate_hz: 20\n", ""))
    assert robot.rate_hz is None
    with pytest.raises(SettingsError, match="rate_hz: 20"):
        robot.spec()
