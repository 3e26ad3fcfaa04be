"""What is sent when the robot must stop or begin: never a zero to an arm, never a jump."""

from __future__ import annotations

import numpy as np
import pytest

from wm_core.contract.spec import ActionSpec
from wm_ros.commands import COMMANDS, CommandChannel, CommandSet
from wm_ros.safety.actuation import Actuation

S = 1_000_000_000
ARM = ActionSpec(low=(-2.0, -2.0), high=(2.0, 2.0), names=("a", "b"), units=("rad", "rad"))
BASE = ActionSpec(low=(-1.0,), high=(1.0,), units=("m/s",))


class Body:
    """An actuation whose joints are where ``pose`` says; sends at once what it decides."""

    def __init__(self, *channels, action, pose=None, period_s=0.1):
        self.pose = pose
        commands = CommandSet(channels)
        commands.check(action)
        self.actuation = Actuation(commands, lambda names: self.pose)
        self.actuation.begin(action, period_s=period_s, card_period_s=period_s)

    def safe(self, now_s=0.0, **how):
        command, held = self.actuation.safe(int(now_s * S), **how)
        self.actuation.sent(command, held)
        return None if command is None else command.tolist(), held

    def act(self, *wanted):
        got = self.actuation.limited(np.array(wanted, np.float32))
        if not isinstance(got, str):
            self.actuation.sent(got, frozenset())
            return np.round(got.astype(float), 6).tolist()
        return got


def arm(**fields):
    return CommandChannel(COMMANDS["joint_position"](), **{"safe": "hold", **fields})


def base(**fields):
    return CommandChannel(COMMANDS["twist"](["linear.x"]), **fields)


# ----------------------------------------------------------------------------------- holding


def test_before_anything_was_sent_a_hold_sends_nothing():
    assert Body(arm(), action=ARM).safe() == (None, {0})


def test_a_hold_keeps_the_first_pose_that_is_known_and_does_not_follow_a_sinking_arm():
    body = Body(arm(), action=ARM)
    assert body.safe()[0] is None
    body.pose = np.array([1.5, -0.5])
    assert body.safe()[0] == [1.5, -0.5]
    body.pose = np.array([1.0, -1.0])
    assert body.safe()[0] == [1.5, -0.5]


def test_a_pose_far_outside_of_the_range_is_not_held_by_a_jump_to_its_border():
    body = Body(arm(), action=ARM, pose=np.array([3.0, 0.0]))
    assert body.safe()[0] is None
    body.pose = np.array([2.03, 0.0])  # a hundredth of the range is noise
    assert body.safe()[0] == [2.0, 0.0]


def test_a_hold_repeats_what_was_sent_last():
    body = Body(arm(), action=ARM, pose=np.array([1.5, -0.5]))
    body.act(1.0, 1.0)
    assert body.safe()[0] == [1.0, 1.0]


def test_a_velocity_that_is_held_stops_after_its_time_or_goes_on():
    for hold_s, later in ((0.5, 0.0), (0.0, 0.5)):
        body = Body(base(safe="hold", hold_s=hold_s), action=BASE)
        assert body.safe()[0] is None  # nothing was sent yet
        body.act(0.5)
        assert [body.safe(t)[0] for t in (1.0, 1.4)] == [[0.5], [0.5]]
        assert body.safe(1.6)[0] == [later]
        assert body.act(0.25) == [0.25]
        assert body.safe(1.7)[0] == [0.25]  # the time begins anew


def test_the_last_command_of_a_node_ends_a_hold_that_only_it_could_end():
    for hold_s, last in ((0.5, [0.0]), (0.0, [0.5])):
        body = Body(base(safe="hold", hold_s=hold_s), action=BASE)
        body.act(0.5)
        assert body.safe(final=True)[0] == last


def test_a_joint_whose_stop_fails_keeps_no_other_channel_from_its_last_command(monkeypatch):
    names, units = ("a", "b", "forward"), ("rad", "rad", "m/s")
    both = ActionSpec(low=(-2, -2, -1), high=(2, 2, 1), names=names, units=units)
    body = Body(arm(size=2), base(size=1), action=both)

    def fails(names):
        raise RuntimeError("of the test")

    monkeypatch.setattr(body.actuation, "_pose_of", fails)
    with pytest.raises(RuntimeError, match="of the test"):
        body.safe()
    assert body.safe(final=True) == ([0.0, 0.0, 0.0], {0})


def test_an_emergency_stop_zeroes_a_velocity_that_would_be_held():
    body = Body(base(safe="hold"), action=BASE)
    body.act(0.5)
    assert body.safe(urgent=True)[0] == [0.0]


def test_channels_stop_each_in_its_own_way():
    both = ActionSpec(low=(-1.0, -2.0, -2.0), high=(1.0, 2.0, 2.0))
    body = Body(base(size=1), arm(size=2), action=both)
    assert body.safe() == ([0.0, 0.0, 0.0], {1})
    body.act(0.5, 1.0, -1.0)
    assert body.safe() == ([0.0, 1.0, -1.0], frozenset())
    quiet = Body(base(size=1), arm(size=2, safe="none"), action=both)
    quiet.act(0.5, 1.0, -1.0)
    assert quiet.safe()[1] == {1}


@pytest.mark.parametrize(("safe", "later"), [("zero", [2.0]), ("hold", [3.0]), ("none", None)])
def test_choices_stop_by_noop_or_by_the_last_one(safe, later):
    action = ActionSpec.choices(4, noop=2)
    body = Body(CommandChannel(COMMANDS["index"](), safe=safe), action=action)
    assert body.safe()[0] == (None if safe != "zero" else [2.0])
    body.actuation.sent(np.array([3.0], np.float32), frozenset())
    assert body.safe()[0] == later


def test_before_a_policy_only_what_stops_without_numbers_is_sent():
    for channel, command in ((base(), []), (base(safe="hold"), None), (arm(), None)):
        actuation = Actuation(CommandSet([channel]))
        got, _ = actuation.safe(0)
        assert (None if got is None else got.tolist()) == command


# ----------------------------------------------------------------------------- posture and start


def test_a_posture_is_reached_step_by_step_and_from_nowhere_not_at_all():
    body = Body(arm(safe=(0.0, 0.0), max_rate=(1.0,)), action=ARM)
    assert body.safe() == (None, {0})
    body.pose = np.array([0.25, -0.05])
    np.testing.assert_allclose(body.safe()[0], [0.15, 0.0], atol=1e-6)
    np.testing.assert_allclose(body.safe()[0], [0.05, 0.0], atol=1e-6)
    np.testing.assert_allclose(body.safe()[0], [0.0, 0.0], atol=1e-6)
    assert body.safe(urgent=True)[0] == [0.0, 0.0]


def test_an_emergency_stop_keeps_an_arm_where_it_is_instead_of_moving_it_to_its_posture():
    body = Body(arm(safe=(0.0, 0.0), max_rate=(1.0,)), action=ARM, pose=np.array([1.0, 1.0]))
    body.act(1.05, 1.0)
    np.testing.assert_allclose(body.safe(urgent=True)[0], [1.05, 1.0], atol=1e-6)


def test_the_first_command_begins_at_the_pose_and_obeys_the_rate():
    body = Body(arm(max_rate=(1.0,)), action=ARM, pose=np.array([1.5, -0.5]))
    assert body.act(0.0, 0.0) == [1.4, -0.4]
    assert body.act(0.0, 0.0) == [1.3, -0.3]
    body.pose = np.array([0.0, 0.0])  # moved by hand while it was stopped
    body.actuation.soft_start()
    assert body.act(1.0, 1.0) == [0.1, 0.1]


def test_limits_of_rate_from_an_unknown_pose_are_a_reason_to_stop():
    body = Body(arm(max_rate=(1.0,)), action=ARM)
    assert body.act(0.0, 0.0) == "no_pose"
    body.pose = np.array([2.5, 0.0])
    assert body.act(0.0, 0.0) == "pose_out_of_range"
    body.pose = np.array([2.05, 0.0])  # one step leads back
    assert body.act(0.0, 0.0) == [1.95, 0.0]
    assert Body(arm(), action=ARM).act(0.5, 0.5) == [0.5, 0.5]  # without limits nothing is needed


def test_the_slew_of_the_card_counts_from_the_pose_too_and_scales_with_a_shorter_period():
    slow = ARM.model_copy(update={"max_change": 0.1})  # 0.2 rad per tick of the card
    body = Body(arm(), action=slow, pose=np.array([1.0, 1.0]))
    assert body.act(2.0, 1.0) == [1.2, 1.0]
    half = Actuation(CommandSet([arm()]), lambda names: np.array([1.0, 1.0]))
    half.begin(slow, period_s=0.05, card_period_s=0.1)
    np.testing.assert_allclose(half.limited(np.array([2.0, 1.0], np.float32)), [1.1, 1.0])


def test_a_narrower_range_holds_and_a_wider_one_is_cut_to_the_cards():
    narrow = Body(base(low=(-0.2,), high=(0.3,)), action=BASE)
    assert (narrow.act(1.0), narrow.act(-1.0)) == ([0.3], [-0.2])
    wide = Body(base(low=(-9.0,), high=(9.0,)), action=BASE)
    assert wide.act(5.0) == [1.0]


def test_a_base_that_was_stopped_begins_from_rest():
    body = Body(base(max_rate=(1.0,), max_jerk=(5.0,)), action=BASE)
    for _ in range(20):
        body.act(1.0)
    assert body.safe()[0] == [0.0]
    assert body.act(1.0) == [0.05]


def test_a_driver_that_hears_nothing_counts_as_stopped():
    body = Body(base(safe="none", max_rate=(1.0,)), action=BASE)
    for _ in range(5):
        body.act(1.0)
    assert body.safe()[0] is None
    assert body.act(1.0) == [0.1]


def test_the_action_that_was_sent_is_the_pose_where_nothing_was():
    body = Body(arm(), action=ARM, pose=np.array([1.0, -2.0]))
    np.testing.assert_allclose(body.actuation.prev_action(), [0.5, -1.0])
    assert not body.actuation.moving(0.02)


def test_what_is_sent_tells_whether_the_robot_is_told_to_move():
    body = Body(base(), action=BASE)
    assert [(body.act(v), body.actuation.moving(0.02))[1] for v in (0.03, 0.05, 0.0)] == [
        False,
        True,
        False,
    ]
    held = Body(arm(), action=ARM)
    told = [(held.act(v, 0.0), held.actuation.moving(0.02))[1] for v in (0.5, 0.6, 0.6, 0.601)]
    assert told == [False, True, False, False]  # where it was before the first is not known
    chooser = Body(CommandChannel(COMMANDS["index"]()), action=ActionSpec.choices(3, noop=1))
    assert not chooser.actuation.moving(0.02)
    assert [(chooser.act(i), chooser.actuation.moving(0.02))[1] for i in (1, 2)] == [False, True]


# --------------------------------------------------------------------------------- takeover


def test_a_person_moves_within_the_limits_and_every_other_channel_is_safe():
    both = ActionSpec(low=(-1.0, -2.0, -2.0), high=(1.0, 2.0, 2.0))
    body = Body(base(size=1, max_rate=(1.0,)), arm(size=2), action=both)
    body.act(0.0, 1.0, -1.0)
    command, held = body.actuation.taken_over({0: np.array([1.0])}, 0)
    np.testing.assert_allclose(command, [0.1, 1.0, -1.0])
    assert not held
    body.actuation.sent(command, held)
    command, _ = body.actuation.taken_over({0: None}, 0)  # the person says stop
    np.testing.assert_allclose(command, [0.0, 1.0, -1.0], atol=1e-6)


def test_a_person_who_says_stop_to_an_arm_that_nobody_knows_sends_it_nothing():
    both = ActionSpec(low=(-1.0, -2.0, -2.0), high=(1.0, 2.0, 2.0))
    body = Body(base(size=1), arm(size=2), action=both)
    command, held = body.actuation.taken_over({0: np.array([0.5]), 1: None}, 0)
    assert (command[0], held) == (0.5, {1})
    assert Body(arm(), action=ARM).actuation.taken_over({0: None}, 0)[1] == {0}
