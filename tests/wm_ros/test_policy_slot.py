"""New policies reach the running robot between ticks, proven, with a latent of their own."""

from __future__ import annotations

import json
import shutil
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from wm_core.contract.errors import PolicyFailed, SpecMismatch
from wm_core.contract.runner import PolicyRunner
from wm_ros.policies.slot import PolicySlot
from wm_ros.policies.source import FolderSource
from wm_ros.settings import SlotSettings

ZERO = np.zeros(2, np.float32)


@pytest.fixture
def home(tmp_path):
    return tmp_path / "policies"


@pytest.fixture
def obs():
    return {"image": np.full((32, 32, 3), 80, np.uint8)}


def slot_at(home, **kwargs):
    settings = {k: kwargs.pop(k) for k in ("swap_mode", "history_s") if k in kwargs}
    return PolicySlot(FolderSource(home), SlotSettings(**settings), **kwargs)


def memory_of(slot):
    """The tiny policy's carry: how many steps it has seen since its episode began."""
    return float(slot._running.engine.carry["memory"].item())


def tick(slot, obs, *, first=False):
    """One tick of a robot that runs ``slot``, and what its worker does behind it."""
    slot.between_ticks()
    out = slot.act(obs, ZERO, first)
    slot.between_ticks()
    slot.prepare(out.action)
    slot.follow()
    return out.action[0]


def test_the_newest_numbered_folder_is_the_source(home, policy_at):
    assert FolderSource(home).latest() is None
    for version in (3, 12):
        policy_at(home / f"{version:08d}", version=version)
    (home / ".00000099.tmp").mkdir()
    policy_at(home / "²", version=2)  # a digit, but no number
    assert FolderSource(home).latest() == home / "00000012"
    assert FolderSource(home / "00000003").latest() == home / "00000003"


def test_a_new_policy_takes_over_with_the_latent_it_infers_from_history(home, policy_at, obs):
    policy_at(home / "00000000", bias=0.25)
    slot = slot_at(home)
    assert slot.look()
    slot.between_ticks()
    for k in range(9):
        np.testing.assert_allclose(slot.act(obs, ZERO, k in (0, 4)).action, 0.25)
        slot.between_ticks()
    policy_at(home / "00000001", version=1, bias=0.5)
    assert slot.look()
    assert slot.runner.card.version == 0
    np.testing.assert_allclose(slot.act(obs, ZERO, False).action, 0.5)
    assert memory_of(slot) == 6  # steps 4 .. 9: as if it had acted since the episode began
    assert slot.runner.card.version == 1


def test_a_new_latent_is_inferred_from_history_s_seconds(home, policy_at, obs):
    policy_at(home / "00000000")
    slot = slot_at(home, history_s=0.4)  # ten steps of 0.04 s
    slot.look()
    slot.between_ticks()
    for k in range(30):
        slot.act(obs, ZERO, k == 0)
        slot.between_ticks()
    policy_at(home / "00000001", version=1, bias=0.5)
    slot.look()
    slot.between_ticks()
    assert memory_of(slot) == 10


def test_at_a_border_a_new_policy_waits_for_the_episode_to_begin(home, policy_at, obs):
    policy_at(home / "00000000")
    slot = slot_at(home, swap_mode="border")
    slot.look()
    slot.between_ticks()
    slot.act(obs, ZERO, True)
    policy_at(home / "00000001", version=1, bias=0.5)
    slot.look()
    slot.between_ticks()
    assert slot.act(obs, ZERO, False).action[0] == 0.0
    np.testing.assert_allclose(slot.act(obs, ZERO, True).action, 0.5)
    assert memory_of(slot) == 1


def test_a_damaged_policy_is_refused_once_and_the_running_one_goes_on(
    home, policy_at, damaged, obs
):
    said = []
    policy_at(home / "00000000", bias=0.25)
    slot = slot_at(home, on_event=said.append)
    slot.look()
    slot.between_ticks()
    damaged(home / "00000000", home / "00000001")
    assert not slot.look()
    assert not slot.look()
    slot.between_ticks()
    np.testing.assert_allclose(slot.act(obs, ZERO, True).action, 0.25)
    assert slot.counters()["policies_refused"] == 1
    assert "expected sha256" in slot.refusals[0]
    assert slot.refusals[0] in said


def test_a_policy_that_does_not_fit_this_robot_is_refused(home, policy_at, spec_of):
    def accept(runner: PolicyRunner) -> None:
        if runner.spec.images["image"].height != 32:
            raise SpecMismatch(f"expected 32, got {runner.spec.images['image'].height}")

    policy_at(home / "00000000", spec=spec_of(16))
    slot = slot_at(home, accept=accept)
    assert not slot.look()
    assert slot.runner is None
    assert "expected 32, got 16" in slot.refusals[0]


@pytest.mark.parametrize("mode", ["reinfer", "border"])
def test_a_policy_of_another_spec_that_was_accepted_before_the_first_one_ran_is_refused(
    home, policy_at, spec_of, obs, mode
):
    """On a node that becomes active while the second one is proven."""
    policy_at(home / "00000001", version=1, bias=0.25)
    slot = slot_at(home, swap_mode=mode, accept=lambda runner: slot.between_ticks())
    assert slot.look()
    assert slot.runner is None
    tiny = spec_of()
    slower = tiny.action.model_copy(update={"high": (0.5, 2.0)})
    other = tiny.model_copy(update={"action": slower})
    policy_at(home / "00000002", version=2, bias=0.5, spec=other)
    assert not slot.look()
    assert slot.runner.card.version == 1
    assert "00000002 refused: expected the running policy's spec" in slot.refusals[-1]
    assert [tick(slot, obs, first=k == 0) for k in range(3)] == [0.25] * 3
    policy_at(home / "00000003", version=3, bias=-0.5)
    assert slot.look()
    assert tick(slot, obs, first=True) == -0.5


def test_no_other_policy_begins_to_run_while_the_robot_is_told_which_one_will_be_the_first(
    home, policy_at
):
    told = []

    def on_first(runner: PolicyRunner) -> None:
        told.append(runner.card.version)
        slot.between_ticks()  # the control thread goes on meanwhile

    slot = slot_at(home, on_first=on_first)
    for version in (1, 2):
        policy_at(home / f"{version:08d}", version=version)
        assert slot.look()
        assert slot.runner is None
    slot.between_ticks()
    assert slot.runner.card.version == 2
    policy_at(home / "00000003", version=3)
    assert slot.look()
    assert told == [1, 2]


def test_settings_that_change_while_a_policy_is_proven_hold_for_it(home, policy_at, obs):
    """It took over with those before: it explored though the owner had switched that off."""

    def opens(folder: Path) -> PolicyRunner:
        runner = PolicyRunner.open(folder)
        prove = runner.prove

        def proves(*args, **kwargs):
            slot.use(SlotSettings(exploration="mean", inference_deadline_s=7.0))
            prove(*args, **kwargs)

        runner.prove = proves
        return runner

    policy_at(home / "00000001", version=1, bias=0.25, spread=1.5)
    before = SlotSettings(exploration="sample", inference_deadline_s=5.0)
    slot = PolicySlot(FolderSource(home), before, opens=opens)
    assert slot.look()
    assert slot._ready.deadline.limit_s == 7.0
    assert [tick(slot, obs, first=k == 0) for k in range(3)] == [0.25] * 3


def test_every_swap_is_logged_with_the_version_that_took_over(home, policy_at, tmp_path, obs):
    log = tmp_path / "swaps.jsonl"
    slot = slot_at(home, log=log)
    for version in range(3):
        policy_at(home / f"{version:08d}", version=version, learner_updates=60 * version)
        slot.look()
        tick(slot, obs, first=version == 0)
    slot.close()
    slot.close()
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert [line["mode"] for line in lines] == ["start", "reinfer", "reinfer"]
    assert [line["version"] for line in lines] == [0, 1, 2]
    assert [line["learner_updates"] for line in lines] == [0, 60, 120]
    assert slot.counters()["swaps"] == lines[-1]["swaps"] == 2
    assert {"version", "weights_sha256", "learner_updates", "time_s"} <= lines[0].keys()


def test_a_policy_that_has_not_seen_the_last_tick_does_not_take_over(home, policy_at, obs):
    policy_at(home / "00000000")
    slot = slot_at(home)
    slot.look()
    tick(slot, obs, first=True)
    policy_at(home / "00000001", version=1, bias=0.5)
    slot.act(obs, ZERO, False)
    assert slot.look()  # within a tick: what it was given is not over yet
    slot.between_ticks()
    assert slot.act(obs, ZERO, False).action[0] == 0.0
    slot.between_ticks()
    slot.follow()
    assert slot.act(obs, ZERO, False).action[0] == 0.5
    assert memory_of(slot) == 4


def test_a_swap_and_a_newer_policy_at_the_same_moment_end_neither(home, policy_at, obs):
    policy_at(home / "00000000")
    slot = slot_at(home)
    slot.look()
    tick(slot, obs, first=True)
    policy_at(home / "00000001", version=1, bias=0.25)
    slot.look()
    waiting = slot._ready
    assert tick(slot, obs) == 0.25  # it has taken over just now
    assert not waiting.withdraw()  # so the worker, which saw it wait, must not free it
    policy_at(home / "00000002", version=2, bias=0.5)
    slot.look()
    waiting = slot._ready
    assert waiting.withdraw()
    assert tick(slot, obs) == 0.25  # what was withdrawn never takes over


def test_the_newest_of_two_that_wait_takes_over(home, policy_at, obs):
    policy_at(home / "00000000")
    slot = slot_at(home)
    slot.look()
    tick(slot, obs, first=True)
    slot.act(obs, ZERO, False)
    for version in (1, 2):
        policy_at(home / f"{version:08d}", version=version, bias=0.25 * version)
        assert slot.look()
    slot.between_ticks()
    slot.follow()
    slot.between_ticks()
    assert slot.runner.card.version == 2
    assert slot.counters()["swaps"] == 1


def test_a_disk_that_takes_no_log_delays_no_policy(home, policy_at, tmp_path, obs):
    wall = tmp_path / "wall"
    wall.write_text("a file where the log's folder should be")
    slot = PolicySlot(
        FolderSource(home), SlotSettings(policy_poll_s=0.02), log=wall / "swaps.jsonl"
    )
    slot.start()
    deadline = time.monotonic() + 60
    for version in (0, 1):
        policy_at(home / f"{version:08d}", version=version, bias=version / 4)
        while slot.runner is None or slot.runner.card.version != version:
            assert time.monotonic() < deadline
            slot.between_ticks()
            time.sleep(0.02)
    wall.unlink()
    slot.close()
    lines = [json.loads(line) for line in (wall / "swaps.jsonl").read_text().splitlines()]
    assert [line["version"] for line in lines] == [0, 1]


def test_the_watching_thread_finds_new_policies_while_the_robot_acts(home, policy_at, obs):
    policy_at(home / "00000000")
    slot = PolicySlot(FolderSource(home), SlotSettings(policy_poll_s=0.02))
    slot.start()
    deadline = time.monotonic() + 60
    for version in (0, 1, 2):
        if version:
            policy_at(home / f"{version:08d}", version=version, bias=version / 4)
        while slot.runner is None or slot.runner.card.version != version:
            assert time.monotonic() < deadline
            slot.between_ticks()
            if slot.runner is not None:
                slot.act(obs, ZERO, False)
            time.sleep(0.005)
    slot.close()
    assert slot.counters()["swaps"] == 2


# -------------------------------------------------------------------------------- going back


def test_a_rollback_brings_back_the_policy_before_and_bans_the_one_that_was(
    home, policy_at, tmp_path, obs
):
    log = tmp_path / "swaps.jsonl"
    slot = slot_at(home, log=log)
    assert slot.roll_back("asked for") == ""
    for version in (1, 2):
        policy_at(home / f"{version:08d}", version=version, bias=version / 4)
        slot.look()
        for k in range(3):
            tick(slot, obs, first=version == 1 and k == 0)
    assert slot.roll_back("asked for") == "version 2 is rolled back to 1: asked for"
    slot.follow()
    assert tick(slot, obs) == 0.25
    assert memory_of(slot) == 7  # it has seen what the other one did
    assert not slot.look()
    assert slot.roll_back("asked for") == ""
    policy_at(home / "00000003", version=3, bias=-0.5)
    assert slot.look()
    assert tick(slot, obs) == -0.5
    slot.close()
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert [line["mode"] for line in lines] == ["start", "reinfer", "rollback", "reinfer"]
    assert lines[2]["because"] == "asked for"
    assert slot.counters()["rollbacks"] == 1
    for name in ("00000001", "00000003"):
        shutil.rmtree(home / name)
    again = slot_at(home, log=log)  # a robot that was started anew
    assert not again.look()
    assert "00000002: it was rolled back; delete" in again.problem()
    (tmp_path / "rolled_back.json").unlink()
    assert slot_at(home, log=log).look()


@pytest.mark.parametrize("mode", ["reinfer", "border"])
def test_a_policy_that_fails_soon_after_its_swap_gives_way_by_itself(home, policy_at, obs, mode):
    said = []
    policy_at(home / "00000001", version=1, bias=0.25)
    slot = slot_at(home, swap_mode=mode, on_event=said.append)
    slot.look()
    tick(slot, obs, first=True)
    policy_at(home / "00000002", version=2, bias=0.5, breaks_at=250)
    assert slot.look()
    assert tick(slot, obs, first=mode == "border") == 0.5
    bright = {"image": np.full((32, 32, 3), 255, np.uint8)}
    with pytest.raises(PolicyFailed):
        slot.act(bright, ZERO, False)
    slot.between_ticks()
    slot.follow()
    assert tick(slot, bright) == 0.25
    assert slot.runner.card.version == 1
    assert "version 2 is rolled back to 1: it failed" in " ".join(said)
    assert not slot.look()


def test_a_policy_that_fails_later_is_not_rolled_back(home, policy_at, obs):
    policy_at(home / "00000001", version=1)
    slot = PolicySlot(FolderSource(home), SlotSettings(trial_s=0.0))
    slot.look()
    tick(slot, obs, first=True)
    policy_at(home / "00000002", version=2, bias=0.5, breaks_at=250)
    slot.look()
    tick(slot, obs)
    with pytest.raises(PolicyFailed):
        slot.act({"image": np.full((32, 32, 3), 255, np.uint8)}, ZERO, False)
    slot.between_ticks()
    slot.follow()
    assert tick(slot, obs) == 0.5


def test_a_policy_that_fails_on_what_the_robot_has_seen_is_refused(home, policy_at):
    bright = {"image": np.full((32, 32, 3), 255, np.uint8)}
    policy_at(home / "00000001", version=1)
    slot = slot_at(home)
    slot.look()
    tick(slot, bright, first=True)
    policy_at(home / "00000002", version=2, breaks_at=250)
    assert not slot.look()
    assert "00000002 refused" in slot.refusals[-1]


def test_closing_breaks_off_a_proof_that_takes_long(home, policy_at):
    began, said = threading.Event(), []
    policy_at(home / "00000001", version=1, golden_steps=20_000)

    slot = PolicySlot(
        FolderSource(home),
        SlotSettings(policy_poll_s=0.01),
        accept=lambda runner: began.set(),
        on_event=said.append,
    )
    slot.start()
    assert began.wait(60)
    thread = slot._thread
    slot.close()
    assert not thread.is_alive()
    assert slot.runner is None
    assert said == []
