"""Which policies a robot's file accepts."""

import pytest

from wm_core.contract.errors import SpecMismatch
from wm_core.contract.spec import ActionSpec, ImageSpec, VectorSpec
from wm_core.robot.fitting import check_fits
from wm_core.robot.reading import read_text
from wm_core.robot.robot_file import RobotFile

TEXT = """\
rate_hz: 20
observations:
  image: {type: sensor_msgs/Image, topic: image_raw, height: 32, width: 32}
  proprio: {type: sensor_msgs/JointState, joints: [a, b]}
actions: {type: sensor_msgs/JointState, joints: [a, b], mode: position, low: -1, high: 1}
"""


@pytest.fixture
def robot():
    """A camera, two joints, and commands for them."""
    return read_text(RobotFile, TEXT)


def test_the_policy_learnt_for_a_file_fits_it_and_may_use_less(robot):
    spec = robot.spec()
    check_fits(robot, spec)
    check_fits(robot, spec.model_copy(update={"vectors": {}}))
    check_fits(robot, spec.model_copy(update={"vectors": {"proprio": VectorSpec(size=2)}}))
    check_fits(robot, spec.model_copy(update={"action": ActionSpec(low=(-1, -2), high=(3, 2))}))


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"images": {"imag": ImageSpec()}}, "unknown image of the policy 'imag'; did you mean"),
        ({"images": {"image": ImageSpec(height=64)}}, "input 'image': the file says"),
        (
            {"images": {"image": ImageSpec(height=32, width=32, fit="pad")}},
            "the policy RGB(height=32, width=32, channels=3, fit='pad')",
        ),
        ({"vectors": {"proprio": VectorSpec(size=3)}}, "gives 2 numbers"),
        ({"vectors": {"proprio": VectorSpec(size=2, names=("b", "a"))}}, "in this order"),
        ({"action": ActionSpec(low=(0.0,), high=(1.0,))}, "the policy 1"),
        ({"action": ActionSpec.choices(2)}, "the file's action is continuous"),
        (
            {"action": ActionSpec(low=(0, 0), high=(1, 1), names=("b", "a"))},
            "the file has the actions ['a', 'b']",
        ),
    ],
)
def test_another_robots_policy_is_refused_by_name(robot, changed, said):
    with pytest.raises(SpecMismatch) as caught:
        check_fits(robot, robot.spec().model_copy(update=changed))
    assert said in str(caught.value)


def test_a_camera_that_is_padded_takes_the_policies_that_were_trained_so():
    padded = read_text(RobotFile, TEXT.replace("width: 32", "width: 32, fit: pad"))
    image = padded.spec().images["image"]
    assert image.fit == "pad"
    check_fits(padded, padded.spec())


def test_a_policy_whose_choice_that_stops_moves_the_robot_is_refused():
    text = TEXT[: TEXT.index("actions:")] + (
        "actions: {type: geometry_msgs/Twist, low: -1, high: 1,\n"
        "          choices: {go: [0.5, 0], stop: [0, 0], stand: [0, 0]}}\n"
    )
    robot = read_text(RobotFile, text)
    spec = robot.spec()

    def of(noop, names=()):
        return spec.model_copy(update={"action": ActionSpec.choices(3, names, noop=noop)})

    for noop in (1, 2):
        check_fits(robot, of(noop))
    said = r"noop: expected the choice that stops .*, 1 \('stop'\), the policy says 0 \('go'\)"
    for names in ((), robot.choices):
        with pytest.raises(SpecMismatch, match=said):
            check_fits(robot, of(0, names))
