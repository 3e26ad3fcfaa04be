"""What a policy's card says of its robot narrows the owner's limits and never widens them."""

from __future__ import annotations

import numpy as np
import pytest

from tests.wm_ros.tiny_policy import tiny_spec
from wm_core.contract.errors import SpecMismatch
from wm_core.contract.spec import ActionSpec
from wm_core.robot.channels import TwistChannel
from wm_ros.commands.build import commands_of_parameters
from wm_ros.commands.from_file import commands_of_channels
from wm_ros.policies.loading import check_acceptable
from wm_ros.policies.slot import PolicySlot
from wm_ros.policies.source import FolderSource
from wm_ros.safety.actuation import Actuation
from wm_ros.safety.guard import Guard
from wm_ros.settings import PolicySettings, SafetySettings, SlotSettings

GREEDY = ActionSpec(low=(-1000.0, -1000.0), high=(1000.0, 1000.0), units=("m/s", "rad/s"))
MOST = np.float32([1000.0, -1000.0])


def sent(commands, action, wanted=MOST):
    """What a robot of these commands is sent where the policy wants ``wanted``."""
    commands.check(action)
    actuation = Actuation(commands)
    actuation.begin(action, period_s=0.05, card_period_s=0.05)
    return [round(float(number), 3) for number in actuation.limited(wanted)]


def test_without_an_owner_s_limit_a_careful_one_holds_and_is_said():
    """The first policy set its own limits: +-1000 m/s."""
    commands = commands_of_parameters(PolicySettings())
    assert sent(commands, GREEDY) == [2.0, -6.283]
    (warning,) = commands.narrowed()
    assert "no limit of this robot is stated" in warning
    assert "2.0, 6.283" in warning
    assert "1000.0" in warning
    assert warning in commands.warnings()


def test_a_stated_limit_holds_for_all_or_for_each_and_nothing_is_assumed():
    each = commands_of_parameters(PolicySettings(max_command=(0.3, 0.7)))
    assert sent(each, GREEDY) == [0.3, -0.7]
    assert each.narrowed() == []
    both = commands_of_parameters(PolicySettings(max_command=(5.0,)))
    assert sent(both, GREEDY) == [5.0, -5.0]
    one = commands_of_parameters(PolicySettings(max_command=(0.0, 9.0)))
    assert sent(one, GREEDY) == [2.0, -9.0]
    with pytest.raises(SpecMismatch, match="most has 3 numbers"):
        sent(commands_of_parameters(PolicySettings(max_command=(1.0, 2.0, 3.0))), GREEDY)


def test_a_card_narrows_and_never_widens():
    narrow = ActionSpec(low=(-0.1, -0.2), high=(0.1, 0.2), units=("m/s", "rad/s"))
    for settings in (PolicySettings(), PolicySettings(max_command=(9.0,))):
        commands = commands_of_parameters(settings)
        assert sent(commands, narrow) == [0.1, -0.2]
        assert commands.narrowed() == []


def test_the_range_of_a_robot_file_holds():
    base = TwistChannel(type="geometry_msgs/TwistStamped", low=(-3.0,), high=(3.5,))
    commands = commands_of_channels((base,))
    assert sent(commands, GREEDY) == [3.5, -3.0]
    assert commands.narrowed() == []


@pytest.mark.parametrize(
    ("command_type", "units", "most"),
    [
        ("twist", ("", ""), [2.0, -6.283]),
        ("joint", ("N m", "N*m"), [50.0, -50.0]),
        ("joint_velocity", ("rad/s", "deg/s"), [6.283, -360.0]),
        ("joint_velocity", ("", ""), [6.283, -6.283]),
    ],
)
def test_what_is_careful_depends_on_unit_and_message(command_type, units, most):
    action = GREEDY.model_copy(update={"units": units, "names": ("a", "b")})
    commands = commands_of_parameters(PolicySettings(command_type=command_type))
    assert sent(commands, action) == most


def test_a_policy_whose_whole_range_lies_beyond_is_refused():
    beyond = ActionSpec(low=(5.0, 5.0), high=(9.0, 9.0), units=("m/s", "rad/s"))
    with pytest.raises(SpecMismatch, match="do not meet"):
        commands_of_parameters(PolicySettings(safe_action="hold", hold_s=1.0)).check(beyond)


@pytest.mark.parametrize(
    ("stated", "card", "oldest"),
    [(0.0, 1e300, 2.0), (0.0, 0.5, 0.5), (5.0, 0.5, 5.0), (0.2, 1e300, 0.2), (-1, 1e300, 0.0)],
)
def test_the_age_of_an_observation_has_a_bound_that_no_card_widens(stated, card, oldest):
    guard = Guard(SafetySettings(max_obs_age_s=stated))
    guard.begin(period_s=0.05, card_max_obs_age_s=card)
    assert guard.max_obs_age_s == oldest


@pytest.mark.parametrize("period_s", [1e-9, 11.0, 3000.0])
def test_a_policy_of_an_absurd_period_is_refused(period_s, tmp_path, policy_at):
    spec = tiny_spec(period_s=period_s)
    commands = commands_of_parameters(PolicySettings())

    def accept(runner):
        check_acceptable(runner.spec, commands=commands, running=None)

    policy_at(tmp_path / "00000001", version=1, spec=spec)
    slot = PolicySlot(FolderSource(tmp_path), SlotSettings(), accept=accept)
    assert not slot.look()
    assert "expected a policy of 0.001 to 10 s a step" in slot.problem()
