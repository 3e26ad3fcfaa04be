"""A policy that is too slow, or fails on and on, gives way; what may pass is tried again."""

from __future__ import annotations

import numpy as np
import pytest

from wm_core.contract.errors import PolicyFailed, PolicyRefused, PolicySlow, PolicyUnready
from wm_core.contract.runner import PolicyRunner
from wm_ros.policies.deadline import LATE_STEPS, limit_of
from wm_ros.policies.slot import PolicySlot
from wm_ros.policies.source import FolderSource
from wm_ros.settings import PolicySettings, SlotSettings

ZERO = np.zeros(2, np.float32)
DARK = {"image": np.full((32, 32, 3), 80, np.uint8)}
BRIGHT = {"image": np.full((32, 32, 3), 255, np.uint8)}
PRODUCTS = 3  #: of matrices of 1024 x 1024: 30 ms and more of any processor
DEADLINE_S = 0.008  #: thirty times of what the tiny policy needs


@pytest.fixture
def home(tmp_path):
    return tmp_path / "policies"


def slot_at(home, *, simulated=False, opens=PolicyRunner.open, log=None, **settings):
    events: list[str] = []
    slot = PolicySlot(
        FolderSource(home),
        SlotSettings(**settings),
        simulated=simulated,
        opens=opens,
        log=log,
        on_event=events.append,
    )
    slot.events = events
    return slot


def tick(slot, obs=DARK, *, first=False):
    """One tick of a robot that runs ``slot``, and what its worker does behind it."""
    slot.between_ticks()
    try:
        out = slot.act(obs, ZERO, first)
    except PolicyFailed as error:
        slot.between_ticks()
        slot.prepare(ZERO)
        slot.follow()
        return error
    slot.between_ticks()
    slot.prepare(out.action)
    slot.follow()
    return out.action[0]


def version(slot):
    return -1 if slot.runner is None else slot.runner.card.version


# ------------------------------------------------------------------ before it may run


@pytest.mark.parametrize("mode", ["reinfer", "border"])
def test_a_policy_that_cannot_hold_its_deadline_is_not_taken_and_holds_up_no_other(
    home, policy_at, mode
):
    """As first policy too: it was accepted, and the robot drove with late commands."""
    policy_at(home / "00000002", version=2, products=PRODUCTS)
    slot = slot_at(home, swap_mode=mode, inference_deadline_s=DEADLINE_S)
    assert not slot.look()
    assert "ms of processor time, at most 8 ms are allowed" in slot.problem()
    policy_at(home / "00000001", version=1, bias=0.25)
    assert slot.look()
    assert tick(slot, first=True) == 0.25
    policy_at(home / "00000003", version=3, bias=0.5)
    assert slot.look()
    assert tick(slot, first=mode == "border") == 0.5
    assert version(slot) == 3


@pytest.mark.parametrize("options", [{"inference_deadline_s": -1}, {"simulated": True}])
def test_the_owner_may_allow_any_time_and_simulated_time_stands_still(home, policy_at, options):
    policy_at(home / "00000001", version=1, products=1)
    slot = slot_at(home, **options)
    assert slot.look()
    assert slot._ready.deadline.limit_s == np.inf


def test_the_deadline_is_one_period_unless_it_is_stated():
    assert limit_of(SlotSettings(), 0.04) == 0.04
    assert limit_of(PolicySettings(period_s=0.1), 0.04) == 0.1
    assert limit_of(PolicySettings(inference_deadline_s=0.01, period_s=0.1), 0.04) == 0.01
    assert limit_of(SlotSettings(inference_deadline_s=0.01), 0.04, simulated=True) == 0.01
    assert limit_of(SlotSettings(), 0.04, simulated=True) == np.inf


# ------------------------------------------------------------------ while it runs


def test_a_running_policy_that_becomes_slow_gives_way_after_a_few_steps(home, policy_at, tmp_path):
    slot = slot_at(home, log=tmp_path / "swaps.jsonl")
    for number in (1, 2):
        policy_at(home / f"{number:08d}", version=number, bias=number / 4)
        slot.look()
        assert tick(slot, first=number == 1) == number / 4
    slot._running.deadline.limit_s = 1e-9
    told = [tick(slot) for _ in range(LATE_STEPS)]
    assert told[:-1] == [0.5] * (LATE_STEPS - 1)
    assert isinstance(told[-1], PolicySlow)
    assert tick(slot) == 0.25
    assert version(slot) == 1
    assert "version 2 is rolled back to 1: it is too slow" in " ".join(slot.events)
    assert not slot.look()


def test_a_slow_policy_computes_nothing_more_while_its_successor_catches_up(home, policy_at):
    slot = slot_at(home)
    for number in (1, 2):
        policy_at(home / f"{number:08d}", version=number)
        slot.look()
        tick(slot, first=number == 1)
    slot._running.deadline.limit_s = 1e-9
    slow = slot._running.engine
    for _ in range(LATE_STEPS - 1):
        slot.act(DARK, ZERO, False)
    with pytest.raises(PolicySlow):
        slot.act(DARK, ZERO, False)
    steps = float(slow.carry["memory"].item())
    with pytest.raises(PolicySlow):
        slot.act(DARK, ZERO, False)  # the worker has had no time yet
    assert float(slow.carry["memory"].item()) == steps


def test_a_step_now_and_then_may_take_long(home, policy_at):
    policy_at(home / "00000001", version=1)
    slot = slot_at(home)
    slot.look()
    tick(slot, first=True)
    for _ in range(5):
        slot._running.deadline.limit_s = 1e-9
        for _ in range(LATE_STEPS - 1):
            assert tick(slot) == 0.0
        slot._running.deadline.limit_s = 60.0
        assert tick(slot) == 0.0


def test_without_one_before_a_slow_policy_is_tried_on_and_may_recover(home, policy_at):
    policy_at(home / "00000001", version=1, bias=0.25)
    slot = slot_at(home)
    slot.look()
    tick(slot, first=True)
    slot._running.deadline.limit_s = 1e-9
    told = [tick(slot) for _ in range(6)]
    assert isinstance(told[-1], PolicySlow)
    assert not slot.look()
    assert version(slot) == 1
    slot._running.deadline.limit_s = 60.0
    assert tick(slot) == 0.25


def test_a_changed_deadline_holds_at_once(home, policy_at):
    policy_at(home / "00000001", version=1)
    slot = slot_at(home)
    slot.look()
    tick(slot, first=True)
    slot.use(SlotSettings(inference_deadline_s=1e-9))
    told = [tick(slot) for _ in range(LATE_STEPS)]
    assert isinstance(told[-1], PolicySlow)
    slot.use(SlotSettings(inference_deadline_s=-1))
    assert tick(slot) == 0.0


# ------------------------------------------------------------------ failures that go on


def test_a_policy_that_fails_on_and_on_is_rolled_back_long_after_its_swap(home, policy_at):
    """Once, after ``trial_s``, it was the safe action for ever."""
    slot = slot_at(home, trial_s=0.0)
    for number, breaks_at in ((1, None), (2, 250)):
        policy_at(home / f"{number:08d}", version=number, bias=number / 4, breaks_at=breaks_at)
        slot.look()
        assert tick(slot, first=number == 1) == number / 4
    assert isinstance(tick(slot, BRIGHT), PolicyFailed)
    assert tick(slot) == 0.5  # a single one is no reason
    told = [tick(slot, BRIGHT) for _ in range(5)]
    assert all(isinstance(t, PolicyFailed) for t in told)
    assert tick(slot, BRIGHT) == 0.25
    assert version(slot) == 1
    policy_at(home / "00000003", version=3, bias=-0.5)
    assert slot.look()
    assert tick(slot) == -0.5


@pytest.mark.parametrize("mode", ["reinfer", "border"])
def test_where_none_ran_before_an_older_one_on_the_disk_takes_over(home, policy_at, mode):
    policy_at(home / "00000001", version=1, bias=0.25)
    policy_at(home / "00000002", version=2, bias=0.5, breaks_at=250)
    slot = slot_at(home, swap_mode=mode)
    slot.look()
    assert tick(slot, first=True) == 0.5
    assert not slot.look()
    for _ in range(5):
        assert isinstance(tick(slot, BRIGHT), PolicyFailed)
    assert slot.look()
    assert tick(slot, BRIGHT) == 0.25
    assert version(slot) == 1
    assert not slot.look()  # the newer one is not taken again
    assert slot.counters()["rollbacks"] == 1


def test_the_only_policy_is_kept_though_it_fails(home, policy_at):
    policy_at(home / "00000001", version=1, bias=0.25, breaks_at=250)
    slot = slot_at(home)
    slot.look()
    tick(slot, first=True)
    for _ in range(9):
        assert isinstance(tick(slot, BRIGHT), PolicyFailed)
        assert not slot.look()
    assert tick(slot, first=True) == 0.25


def test_the_next_version_takes_the_place_of_one_that_fails_before_an_episode_ends(
    home, policy_at
):
    policy_at(home / "00000001", version=1, breaks_at=250)
    slot = slot_at(home, swap_mode="border")
    slot.look()
    tick(slot, first=True)
    for _ in range(5):
        assert isinstance(tick(slot, BRIGHT), PolicyFailed)
    policy_at(home / "00000002", version=2, bias=0.5)
    assert slot.look()
    assert tick(slot, BRIGHT) == 0.5


# ------------------------------------------------------------------ what may pass


@pytest.mark.parametrize(
    ("error", "again"),
    [
        (PolicyUnready("cannot read it: Input/output error"), True),
        (MemoryError(), True),
        (PolicyRefused("it has subgraphs"), False),
        (ZeroDivisionError("an error of ours"), False),
    ],
)
def test_a_load_is_tried_again_where_its_cause_may_pass_and_ever_more_seldom(
    home, policy_at, error, again
):
    """Its files stay as they are: once, a load that failed was never tried again."""
    tries = []

    def opens(folder):
        tries.append(folder)
        if len(tries) <= 3:
            raise error
        return PolicyRunner.open(folder)

    policy_at(home / "00000001", version=1)
    slot = slot_at(home, opens=opens)
    assert not slot.look()
    assert not slot.look()  # not at once
    assert len(tries) == 1
    known = slot._shelf._known[home / "00000001"]
    waits = []
    for _ in range(3):
        waits.append(known.again_s)
        known.again_s = 0.0  # as if it had passed
        slot.look()
    assert len(tries) == (4 if again else 1)
    assert version(slot) == -1
    slot.between_ticks()
    assert version(slot) == (1 if again else -1)
    assert len(slot.refusals) == 1  # said once


def test_a_file_of_the_right_size_whose_bytes_come_later_is_tried_again(home, policy_at):
    """Copied into a place that was made at full size, with times that the copy sets back."""
    folder = policy_at(home / "00000001", version=1)
    path, data = folder / "policy.onnx", (folder / "policy.onnx").read_bytes()
    path.write_bytes(bytes(len(data)))
    slot = slot_at(home)
    assert not slot.look()
    assert "expected sha256" in slot.problem()
    known = slot._shelf._known[folder]
    assert not known.hopeless
    path.write_bytes(data)
    known.fingerprint = slot._shelf._look(folder).fingerprint
    slot._shelf._known[folder] = known  # as if the disk told no difference
    known.again_s = 0.0
    assert slot.look()
