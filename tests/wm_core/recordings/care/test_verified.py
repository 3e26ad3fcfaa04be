"""``wm data verify`` finds each kind of fault in a real store, and none where there is none."""

from __future__ import annotations

import os

import numpy as np
import pytest

from tests.wm_core.recordings.care.conftest import PERIOD_NS, SESSION, changed, dot, play
from wm_core.contract.spec import ActionSpec, ImageSpec, Spec, VectorSpec
from wm_core.recordings.care.findings import CHECKS, MAX_KEPT, Finding, Findings
from wm_core.store.ledger import LEDGER_NAME, Ledger


@pytest.fixture
def verified(wm_json):
    """Runs the verification: its status, the places by kind, and its counts."""

    def call(*words):
        status, [*places, counts] = wm_json("verify", *words)
        by_check = {}
        for place in places:
            by_check.setdefault(place["check"], []).append(place)
        return status, by_check, counts

    return call


def test_a_sound_store_has_nothing_to_say(record, verified, wm):
    record(play(4, 60))
    assert verified()[:2] == (0, {})
    assert "0 faults, 0 notes" in wm("verify")[1]


FILES = {
    "torn": lambda path, data: path.write_bytes(data[:-200]),
    "wrong_hash": lambda path, data: path.write_bytes(
        data[:900] + bytes([data[900] ^ 1]) + data[901:]
    ),
    "missing": lambda path, data: path.unlink(),
    "longer": lambda path, data: path.write_bytes(data + b"\0"),
    "emptied": lambda path, data: path.write_bytes(b""),
}


@pytest.mark.parametrize("damage", FILES)
def test_a_damaged_file_is_named_with_its_steps(record, file_of, verified, damage):
    keys = record(play(2, 40))
    path = file_of(keys[1])
    FILES[damage](path, path.read_bytes())
    status, found, counts = verified()
    kind = damage if damage in CHECKS else "torn"
    (place,) = found[kind]
    assert status == 1
    assert place["where"] == f"rover/{SESSION[:8]}/00000001.mcap"
    assert place["steps"] == counts["bad_steps"][kind] == 16
    assert set(found) <= {kind}


def test_a_folder_in_place_of_a_chunk_is_no_reason_to_stop(record, file_of, verified):
    keys = record(play(2, 40))
    file_of(keys[1]).unlink()
    file_of(keys[1]).mkdir()
    assert "torn" in verified()[1]


def test_steps_that_never_came_are_noted(record, root, verified):
    keys = record(play(2, 40))
    ledger = Ledger(root / LEDGER_NAME)
    ledger.remove(ledger.find(keys[2]).arrival)
    ledger.close()
    status, found, _ = verified()
    assert status == 0
    (place,) = found["gap"]
    assert (place["first_step"], place["steps"]) == (32, 16)
    assert verified("--strict")[0] == 1


def later(by_ns):
    return lambda step: step.stamp_ns + by_ns


def frozen(steps, at):
    image = steps[at.start - 1].obs["image"]
    return changed(steps, at, obs={"image": image})


def stuck(steps, at):
    joints = steps[at.start - 1].obs["joints"]
    return changed(steps, at, obs={"joints": joints})


def delayed(steps, by):
    """Images that come ``by`` steps late."""
    images = [s.obs["image"] for s in steps]
    out = list(steps)
    for i in range(by, len(steps)):
        out = changed(out, [i], obs={"image": images[i - by]})
    return out


def number(value):
    return np.array([0.1, value], np.float32)


NAN, HUGE = float("nan"), 3e9
#: kind -> (what is done to 240 steps, (first step, steps) of the first place)
STEPS = {
    "time_back": (lambda s: changed(s, range(30, 240), stamp_ns=later(-3 * PERIOD_NS)), (30, 1)),
    "time_jump": (lambda s: changed(s, range(30, 240), stamp_ns=later(9 * PERIOD_NS)), (30, 1)),
    "not_finite": (lambda s: changed(s, [20, 21], obs={"joints": number(NAN)}), (20, 2)),
    "unusable": (lambda s: changed(s, [20, 21], obs={"joints": number(HUGE)}), (20, 2)),
    "action_bounds": (lambda s: changed(s, [17], action=number(1.5)), (17, 1)),
    "frozen_camera": (lambda s: frozen(s, range(62, 95)), (62, 33)),
    "stuck_sensor": (lambda s: stuck(s, range(62, 95)), (62, 33)),
    "out_of_step": (lambda s: delayed(s, 4), (0, 240)),
    "black_image": (
        lambda s: changed(s, [40, 41], obs={"image": np.zeros((16, 16, 3), np.uint8)}),
        (40, 2),
    ),
    "white_image": (
        lambda s: changed(s, [40, 41], obs={"image": np.full((16, 16, 3), 255, np.uint8)}),
        (40, 2),
    ),
    "empty_episode": (lambda s: changed(s, [60], is_last=True), (60, 1)),
}


@pytest.mark.parametrize("kind", STEPS)
def test_what_is_wrong_with_steps_is_found_at_its_place_and_nothing_else_is(
    record, verified, kind
):
    change, place = STEPS[kind]
    record(change(play(4, 60)))
    status, found, _ = verified()
    assert set(found) == {kind}
    assert (found[kind][0]["first_step"], found[kind][0]["steps"]) == place
    assert status == (CHECKS[kind].level == "fault")


def test_a_stamp_again_is_time_that_stands_still(record, verified):
    record(changed(play(4, 60), [30], stamp_ns=later(-PERIOD_NS)))
    assert "same stamp" in verified()[1]["time_back"][0]["detail"]


def test_an_action_that_is_not_a_number_is_named(record, verified):
    record(changed(play(4, 60), [30], action=number(NAN)))
    (place,) = verified()[1]["not_finite"]
    assert place["detail"].startswith("action number 1 is nan")


def test_a_reward_that_is_not_a_number_is_found(record, verified):
    record(changed(play(4, 60), [30], reward=float("inf")))
    assert "reward is inf" in verified()[1]["not_finite"][0]["detail"]


def test_a_jump_between_two_episodes_is_none(record, verified):
    record(changed(play(4, 60), range(60, 240), stamp_ns=later(900 * PERIOD_NS)))
    assert verified()[:2] == (0, {})


def test_a_step_that_is_held_longer_is_no_jump(record, verified):
    steps = changed(play(4, 60), [29], period_s=0.5)
    record(changed(steps, range(30, 240), stamp_ns=later(9 * PERIOD_NS)))
    assert verified()[:2] == (0, {})


def test_a_camera_that_stands_still_with_the_robot_is_not_frozen(record, verified):
    steps = stuck(frozen(play(4, 60), range(62, 95)), range(62, 95))
    record(changed(steps, range(62, 95), action=np.zeros(2, np.float32)))
    assert verified()[:2] == (0, {})


def test_joints_that_settle_by_a_hair_say_nothing_of_the_camera(record, verified):
    steps = stuck(frozen(play(4, 60), range(62, 95)), range(62, 95))
    for i in range(62, 95):
        near = steps[i].obs["joints"] + np.float32(1e-6 * (i - 60))
        steps = changed(steps, [i], obs={"joints": near}, action=np.zeros(2, np.float32))
    record(steps)
    assert verified()[:2] == (0, {})


def test_a_robot_that_does_not_move_though_told_to_is_a_note(record, verified):
    record(stuck(frozen(play(4, 60), range(62, 95)), range(62, 95)))
    status, found, _ = verified()
    assert (status, set(found)) == (0, {"still_camera", "still_sensor"})


def test_a_frozen_camera_is_found_over_the_border_of_chunks(record, verified):
    record(frozen(play(4, 60), range(62, 95)), size=8)
    (place,) = verified()[1]["frozen_camera"]
    assert (place["first_step"], place["steps"]) == (62, 33)


def test_steps_that_the_recorder_doubted_are_noted(record, verified):
    import dataclasses

    steps = play(4, 60)
    steps[9] = dataclasses.replace(steps[9], is_valid=False)
    record(steps)
    assert verified()[1]["marked_invalid"][0]["first_step"] == 9


@pytest.mark.parametrize("sensor", ["image", "joints"])
def test_the_sensor_that_lags_is_named(record, verified, sensor):
    steps = play(4, 60)
    late = [s.obs[sensor] for s in steps]
    for i in range(3, 240):
        steps = changed(steps, [i], obs={sensor: late[i - 3]})
    record(steps)
    (place,) = verified()[1]["out_of_step"]
    other = {"image": "joints", "joints": "image"}[sensor]
    assert place["detail"].startswith(f"{sensor} moves 3 steps (150 ms) after {other}")


@pytest.mark.parametrize(
    ("fields", "kind", "said"),
    [
        ({"reward": 0.0}, "constant_reward", "rewards are 0"),
        ({"action": lambda s: np.array([s.action[0], 0.25])}, "constant_action", "number 1"),
        ({"action": lambda s: np.sign(s.action)}, "saturated_action", "at a bound in 100 %"),
        ({"obs": {"joints": number(2.0)}}, "constant_number", "joints: 2 of 2 numbers"),
    ],
)
def test_what_never_changes_in_all_of_a_store_is_noted(record, verified, fields, kind, said):
    record(changed(play(4, 60), range(240), **fields))
    _, found, _ = verified()
    assert said in found[kind][0]["detail"]
    assert found[kind][0]["where"] == "rover"
    assert CHECKS[kind].level == "note"


def test_one_choice_for_ever_is_a_constant_action(record, verified):
    choice = ActionSpec.choices(3)
    spec = Spec(images={}, vectors={"joints": VectorSpec(size=2)}, action=choice)
    steps = [changed([s], [0], action=np.array([0, 1, 0], np.float32))[0] for s in play(2, 50)]
    record([_without_image(s) for s in steps], spec=spec)
    assert "same choice" in verified()[1]["constant_action"][0]["detail"]


def _without_image(step):
    import dataclasses

    return dataclasses.replace(step, obs={"joints": step.obs["joints"]}, is_valid=True)


def test_two_recordings_of_the_same_time_are_found(record, verified):
    steps = play(4, 60)
    record(steps[:160])
    again = changed(steps[100:], [0], is_first=True)
    record(again, session="b" * 32)
    (place,) = verified()[1]["repeated_steps"]
    assert place["session"] == "b" * 32
    assert SESSION[:8] in place["detail"]


def test_a_dark_depth_camera_is_black(record, verified):
    from dataclasses import replace

    from wm_core.contract.inputs import Depth

    spec = Spec(
        images={"depth": Depth(height=8, width=8)},
        vectors={"joints": VectorSpec(size=2)},
        action=ActionSpec(low=(-1.0,) * 2, high=(1.0,) * 2),
    )
    blind = np.zeros((8, 8, 1), np.uint16)
    steps = [replace(s, obs={"depth": blind, "joints": s.obs["joints"]}) for s in play(1, 50)]
    record(steps, spec=spec)
    assert "black_image" in verified()[1]


def test_a_robot_is_looked_at_alone(record, verified):
    record(play(1, 60))
    record(changed(play(1, 60), [9], reward=NAN), robot="arm", session="a" * 32)
    assert verified("--robot", "rover")[:2] == (0, {})
    assert set(verified("--robot", "arm")[1]) == {"not_finite"}


def test_places_beyond_a_bound_are_counted_and_not_kept():
    found = Findings()
    for i in range(MAX_KEPT + 7):
        found.add(Finding("action_bounds", "", "rover", SESSION, 0, i, 2))
    assert len(found.kept) == MAX_KEPT
    assert found.places["action_bounds"] == MAX_KEPT + 7
    assert found.bad_steps["action_bounds"] == 2 * (MAX_KEPT + 7)


def test_the_table_says_what_to_do(record, wm, file_of):
    keys = record(frozen(play(4, 60), range(62, 95)))
    os.truncate(file_of(keys[0]), 100)
    status, out, _ = wm("verify", "--all-places")
    assert status == 1
    assert "wm data repair" in out
    assert f"frozen_camera  rover/{SESSION[:8]} step 62-94: image repeats itself for 1.65 s" in out


def test_cameras_of_two_sizes_are_looked_at_one_by_one(record, verified):
    small = Spec(
        images={"image": ImageSpec(height=8, width=8)},
        vectors={"joints": VectorSpec(size=2)},
        action=ActionSpec(low=(-1.0,) * 2, high=(1.0,) * 2),
    )
    steps = play(2, 60)
    record(steps[:60])
    half = [changed([s], [0], obs={"image": dot(*s.obs["joints"])[::2, ::2]})[0] for s in steps]
    record(half[60:], spec=small, first_seq=4, first_step=60)
    assert verified()[:2] == (0, {})
