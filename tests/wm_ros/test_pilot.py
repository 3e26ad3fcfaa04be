"""One tick decides: policy, exploration, limits or the safe action; and records what it sent."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from wm_core.contract.errors import SpecMismatch
from wm_core.contract.spec import ActionSpec
from wm_ros.commands.build import commands_of_parameters
from wm_ros.episodes.experience import Recorder, Signal, Signals
from wm_ros.pilot import Pilot, check_exploration
from wm_ros.policies.slot import PolicySlot
from wm_ros.policies.source import FolderSource
from wm_ros.safety.actuation import Actuation
from wm_ros.safety.guard import Guard
from wm_ros.safety.interventions import Interventions
from wm_ros.sensors.source import Senses
from wm_ros.settings import PilotSettings, PolicySettings, SlotSettings

PERIOD_NS = 40_000_000


class Robot:
    """A pilot and everything around it, driven by hand."""

    def __init__(self, folder, settings=None, **safety):
        self.slot = PolicySlot(FolderSource(folder), SlotSettings(exploration="sample"))
        self.signals, self.steps = Signals(), []
        self.recorder = Recorder()
        given = PolicySettings(**{"exploration": "sample", **safety})
        self.commands = commands_of_parameters(given)
        self.interventions = Interventions(given)
        self.pose = None
        self.guard = Guard(given)
        self.pilot = Pilot(
            self.slot,
            self.guard,
            Actuation(self.commands, lambda names: self.pose),
            self.signals,
            self.recorder,
            settings or PilotSettings(),
            interventions=self.interventions,
            calm=lambda: self.calm,
        )
        self.calm = False
        self.pilot.activate(0)
        self.now_ns = 0

    def adopt(self):
        self.slot.look()
        self.slot.between_ticks()
        self.recorder.open(lambda step: self.steps.append(step) is None, PERIOD_NS)
        self.commands.check(self.slot.runner.spec.action)
        self.pilot.begin(self.slot.runner)
        return self

    def tick(self, k, *, fresh=True, age_s=0.01, obs=None, signal=True, skipped=0):
        stamp = k * PERIOD_NS
        if signal:
            self.signals.put(Signal(stamp, 1.0, k == 0, False, False))
        self.now_ns = max(self.now_ns + 1, stamp)
        obs = obs or {"image": np.full((32, 32, 3), 100 + k % 2, np.uint8)}
        decision = self.pilot.decide(Senses(obs, stamp, fresh, age_s, 0.01), self.now_ns)
        self.pilot.sent(decision, missed=False, skipped=skipped)
        return decision

    def stop(self):
        """Stops for good; what was sent last."""
        sent = []
        self.pilot.stop(sent.append, 10**9, final=True)
        return sent[0].command


@pytest.fixture
def folder(tmp_path, policy_at):
    return policy_at(tmp_path / "policy", bias=0.5)


def test_without_a_policy_the_robot_is_safe(tmp_path):
    robot = Robot(tmp_path / "nothing")
    decision = robot.tick(0)
    assert decision.safe == "no_policy"
    assert decision.command.size == 0  # a twist of zeros, whatever the robot
    assert robot.recorder.skipped == {"no_policy": 1}


def test_the_command_is_the_action_in_physical_units(folder):
    decision = Robot(folder).adopt().tick(0)
    np.testing.assert_allclose(decision.action, [0.5, 0.5])
    np.testing.assert_allclose(decision.command, [0.625, 1.0])
    assert decision.safe is None


def test_the_action_that_was_sent_and_the_one_that_the_policy_requested_are_both_recorded(folder):
    robot = Robot(folder, PilotSettings(exploration_noise=0.5)).adopt()
    sent = [robot.tick(k).action for k in range(6)]
    robot.recorder.close()
    np.testing.assert_array_equal([s.action for s in robot.steps], sent)
    np.testing.assert_allclose([s.requested_action for s in robot.steps], 0.5)
    assert np.std([a[0] for a in sent]) > 0.05
    assert all(s.policy_version == 0 for s in robot.steps)


def test_a_robot_that_must_be_calm_does_as_the_policy_asks_and_explores_later(folder):
    robot = Robot(folder, PilotSettings(exploration_noise=0.5, random_prefill=3)).adopt()
    robot.calm = True
    calm = [robot.tick(k) for k in range(4)]
    assert [d.policy_version for d in calm] == [0] * 4
    np.testing.assert_allclose([d.action for d in calm], 0.5)
    robot.calm = False
    later = [robot.tick(k) for k in range(4, 10)]
    assert [d.policy_version for d in later] == [-1] * 3 + [0] * 3
    assert not np.allclose([d.action for d in later[3:]], 0.5)


@pytest.mark.parametrize("record", [True, False])
def test_random_prefill_ends_after_its_number_of_steps_recorded_or_not(folder, record):
    robot = Robot(folder, PilotSettings(random_prefill=10, random_hold=3)).adopt()
    if not record:
        robot.recorder.open(None, PERIOD_NS)
    decisions = [robot.tick(k) for k in range(20)]
    robot.recorder.close()
    versions, actions = [d.policy_version for d in decisions], [d.action for d in decisions]
    assert versions == [-1] * 10 + [0] * 10
    assert [s.policy_version for s in robot.steps] == (versions if record else [])
    np.testing.assert_array_equal(actions[0], actions[2])
    assert not np.array_equal(actions[2], actions[3])


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"fresh": False, "age_s": 1.0}, "no_frame"),
        ({"obs": {"image": np.zeros((8, 8, 3), np.uint8)}}, "policy_failed"),
    ],
)
def test_a_bad_tick_sends_zero_and_breaks_the_record(folder, change, reason):
    robot = Robot(folder).adopt()
    for k in range(3):
        robot.tick(k)
    decision = robot.tick(3, **change)
    assert decision.safe == reason
    assert decision.command.tolist() == [0.0, 0.0]
    assert robot.tick(4).begins == reason
    robot.recorder.close()
    assert [s.is_last for s in robot.steps] == [False, False, True, True]
    assert robot.recorder.skipped == {reason: 1}


def test_a_policy_that_is_too_slow_stops_the_robot_for_a_reason_of_its_own(folder):
    robot = Robot(folder).adopt()
    robot.tick(0)
    robot.pilot._slot._running.deadline.limit_s = 1e-9
    told = [robot.tick(k).safe for k in range(1, 6)]
    assert told == [None, None, "policy_slow", "policy_slow", "policy_slow"]
    robot.pilot._slot._running.deadline.limit_s = 60.0
    assert robot.tick(6).safe is None
    assert robot.recorder.skipped == {"policy_slow": 3}


def test_a_safe_command_answers_a_new_frame_or_none(tmp_path, policy_at, spec_of):
    robot = Robot(policy_at(tmp_path / "policy", spec=spec_of(vectors=1))).adopt()
    obs = {"image": np.full((32, 32, 3), 100, np.uint8), "proprio": np.full(1, np.nan, np.float32)}
    refused = robot.tick(1, obs=obs)
    assert (refused.safe, refused.stamp_ns) == ("nan_obs", PERIOD_NS)
    silent = robot.tick(1, obs=obs, fresh=False, age_s=1.0)
    assert (silent.safe, silent.stamp_ns) == ("no_frame", 0)


def test_a_short_gap_repeats_the_command_where_that_was_asked_for(folder):
    robot = Robot(folder, max_gap_s=0.3).adopt()
    robot.tick(0)
    decision = robot.tick(1, fresh=False, age_s=0.1)
    assert decision.safe is None
    np.testing.assert_allclose(decision.command, [0.625, 1.0])
    assert robot.recorder.skipped == {"repeated": 1}


def test_a_nan_measurement_is_answered_safely_and_kept_marked(tmp_path, policy_at, spec_of):
    robot = Robot(policy_at(tmp_path / "policy", spec=spec_of(vectors=1))).adopt()
    image = np.full((32, 32, 3), 100, np.uint8)
    for k, value in enumerate((0.0, np.nan, 0.0)):
        decision = robot.tick(k, obs={"image": image, "proprio": np.array([value], np.float32)})
        assert decision.safe == ("nan_obs" if k == 1 else None)
    robot.recorder.close()
    assert [s.is_valid for s in robot.steps] == [True, False, True]
    assert robot.steps[1].is_intervention
    assert robot.steps[2].is_first


def test_the_policy_is_told_to_begin_exactly_where_the_record_begins(folder):
    robot = Robot(folder).adopt()
    memory = []
    for k in (0, 1, 2, 5, 6, 7):
        robot.tick(k)
        memory.append(float(robot.slot._running.engine.carry["memory"].item()))
    robot.recorder.close()
    assert memory == [1, 2, 3, 1, 2, 3]
    assert [s.is_first for s in robot.steps] == [m == 1 for m in memory]


def test_a_policy_that_fails_while_a_person_drives_begins_anew_where_the_record_does(
    tmp_path, policy_at
):
    robot = Robot(policy_at(tmp_path / "policy", breaks_at=250)).adopt()
    bright = {"image": np.full((32, 32, 3), 255, np.uint8)}
    memory = []
    for k in range(7):
        robot.interventions.takeover.on_command(0, np.array([0.2, 0.0]), robot.now_ns)
        assert robot.tick(k, obs=bright if k in (2, 3) else None).safe == "takeover"
        memory.append(float(robot.slot._running.engine.carry["memory"].item()))
    robot.recorder.close()
    assert memory == [1, 2, 0, 0, 1, 2, 3]  # zero: the next step begins
    assert [s.stamp_ns // PERIOD_NS for s in robot.steps] == [0, 1, 2, 3, 4, 5, 6]
    assert [s.is_last for s in robot.steps] == [False, False, True, True, False, False, True]
    for before, step in itertools.pairwise(robot.steps):
        assert step.is_first == before.is_last
    assert all(s.is_intervention for s in robot.steps)
    assert robot.recorder.breaks == {"policy_failed": 2, "close": 1}


def test_a_policy_keeps_its_memory_on_a_robot_without_rewards(folder):
    robot = Robot(folder).adopt()
    memory = []
    for k in (1, 2, 3, 4, 8, 9, 10, 11, 12, 13):  # rewards come with 10, 11 and 13
        robot.tick(k, signal=k in (10, 11, 13))
        memory.append(float(robot.slot._running.engine.carry["memory"].item()))
    robot.recorder.close()
    assert memory == [1, 2, 3, 4, 1, 2, 1, 2, 3, 1]
    assert [s.stamp_ns // PERIOD_NS for s in robot.steps] == [10, 11, 13]
    assert [s.is_first for s in robot.steps] == [True, False, True]
    assert [s.is_last for s in robot.steps] == [False, True, True]
    assert robot.recorder.skipped == {"no_reward": 7}


def test_every_tick_is_recorded_or_counted(folder):
    robot = Robot(folder).adopt()
    for k in range(30):
        robot.tick(k, fresh=k % 6 != 5, age_s=1.0, signal=k % 7 != 6, skipped=int(k == 11))
    robot.recorder.close()
    assert len(robot.steps) + sum(robot.recorder.skipped.values()) == 31


@pytest.fixture
def chooser(tmp_path, policy_at, choosing):
    """A folder with a policy that always chooses 3; 2 stops the robot."""
    stops = choosing().action.model_copy(update={"noop": 2})
    spec = choosing().model_copy(update={"action": stops})
    return policy_at(tmp_path / "chooser", bias=[0, 0, 0, 1], spec=spec)


@pytest.mark.parametrize(("kind", "want"), [("zero", [2.0]), ("hold", [3.0]), ("none", None)])
def test_a_robot_that_takes_choices_stops_by_a_choice(chooser, kind, want):
    robot = Robot(chooser, command_type="index", safe_action=kind).adopt()
    first = robot.tick(0)
    assert (first.command.tolist(), first.action.tolist()) == ([3.0], [0, 0, 0, 1])
    stopped = robot.tick(1, fresh=False, age_s=1.0)
    assert stopped.safe == "no_frame"
    assert (None if stopped.command is None else stopped.command.tolist()) == want


def test_noise_on_choices_is_the_share_that_is_taken_at_random(chooser):
    robot = Robot(chooser, PilotSettings(exploration_noise=0.5), command_type="index").adopt()
    sent = np.stack([robot.tick(k).action for k in range(400)])
    robot.recorder.close()
    np.testing.assert_array_equal([s.action for s in robot.steps], sent)
    assert all(s.requested_action.tolist() == [0, 0, 0, 1] for s in robot.steps)
    counts = sent.sum(0)  # expected: 50 each, and 250 of the policy's own
    assert counts.sum() == 400
    assert (counts[:3] > 25).all()
    assert 200 < counts[3] < 300


def test_no_more_than_all_choices_can_be_taken_at_random():
    choices, arm = ActionSpec.choices(3), ActionSpec(low=(-1.0,), high=(1.0,))
    for noise, action in ((1.0, choices), (2.0, arm)):
        check_exploration(PilotSettings(exploration_noise=noise), action)
    with pytest.raises(SpecMismatch, match=r"at most 1, for the policy takes choices.* got 1.5"):
        check_exploration(PilotSettings(exploration_noise=1.5), choices)


def test_random_choices_are_held_and_recorded_without_a_policy_version(chooser):
    robot = Robot(
        chooser, PilotSettings(random_prefill=40, random_hold=4), command_type="index"
    ).adopt()
    decisions = [robot.tick(k) for k in range(50)]
    assert [d.policy_version for d in decisions] == [-1] * 40 + [0] * 10
    sent = np.stack([d.action for d in decisions])
    np.testing.assert_array_equal(sent.sum(1), 1.0)
    held = sent[:40].reshape(10, 4, 4)
    assert (held == held[:, :1]).all()
    assert (held[:, 0].sum(0) > 0).sum() >= 3


def test_hold_keeps_the_last_command_when_stopping(folder):
    robot = Robot(folder, safe_action="hold").adopt()
    robot.tick(0)
    np.testing.assert_allclose(robot.stop(), [0.625, 1.0])


def test_after_a_stop_the_slew_limit_counts_from_standstill(folder):
    robot = Robot(folder, max_rate=(9.375, 25.0)).adopt()  # half of an action's unit per tick
    for k in range(6):
        robot.tick(k)
    np.testing.assert_array_equal(robot.stop(), [0.0, 0.0])
    decision = robot.tick(9)
    np.testing.assert_allclose(decision.action, [-1 / 3 + 0.5, 0.5], atol=1e-6)
    assert decision.begins == "stopped"


def test_a_record_that_cannot_be_ended_keeps_no_robot_from_its_last_command(folder):
    robot, sent = Robot(folder, safe_action="hold").adopt(), []
    robot.tick(0)

    def fails(reason):
        raise RuntimeError("of the test")

    robot.recorder.break_off = fails
    for final in (False, True):  # an emergency stop first, which ends what is held
        with pytest.raises(RuntimeError, match="of the test"):
            robot.pilot.stop(sent.append, 10**9, final=final)
        assert sent.pop().command.tolist() == [0.0, 0.0]


def test_a_latched_robot_stands_whoever_drives_it_and_however_it_is_activated(folder):
    robot = Robot(folder, latch_safe=True).adopt()
    robot.tick(0)
    robot.interventions.takeover.on_command(0, np.array([0.25, 0.5]), robot.now_ns)
    driven = robot.tick(1)
    assert (driven.safe, driven.command.tolist()) == ("takeover", [0.25, 0.5])
    latching = robot.tick(2, fresh=False, age_s=1.0)  # the camera misses a frame meanwhile
    later = robot.tick(3)
    robot.pilot.activate(robot.now_ns)
    activated = robot.tick(4)
    assert [d.safe for d in (latching, later, activated)] == ["no_frame", "latched", "latched"]
    assert all(d.command.tolist() == [0.0, 0.0] for d in (latching, later, activated))
    assert robot.pilot.rearm(robot.now_ns) is None
    assert robot.tick(5).safe == "takeover"
