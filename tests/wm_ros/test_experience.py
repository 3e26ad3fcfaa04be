"""Steps hold what belongs together; every gap ends an episode; nothing goes uncounted."""

from __future__ import annotations

import numpy as np

from wm_ros.episodes.experience import Recorder, Signal, Signals

PERIOD = 100


class Taken(list):
    """Takes steps as a spool does."""

    full = False

    def put(self, step):
        if not self.full:
            self.append(step)
        return not self.full


def recorder_into(taken, **kwargs) -> Recorder:
    recorder = Recorder(**kwargs)
    recorder.open(taken.put, PERIOD)
    return recorder


def signal(stamp, reward=1.0, first=False, last=False, terminal=False, answered=True):
    return Signal(stamp, reward, first, last, terminal, answered)


def tick(recorder, stamp, message, *, number=0.0, obs=None, **kwargs):
    """One tick, as the pilot does it; whether the policy was told to begin."""
    begins = recorder.begins(stamp, message)
    recorder.add(
        obs or {"image": np.full((2, 2, 3), stamp % 256, np.uint8)},
        np.array([number], np.float32),
        message,
        stamp_ns=stamp,
        begins=begins,
        **kwargs,
    )
    return begins is not None


def test_a_whole_episode_is_one_first_and_one_last_step_with_its_rewards():
    taken = Taken()
    recorder = recorder_into(taken)
    for k in range(5):
        tick(recorder, k * PERIOD, signal(k * PERIOD, k, k == 0, k == 4, k == 4), number=k / 10)
    assert [s.is_first for s in taken] == [True, False, False, False, False]
    assert [s.is_last for s in taken] == [False, False, False, False, True]
    assert taken[-1].is_terminal
    assert [s.reward for s in taken] == [0.0, 1.0, 2.0, 3.0, 4.0]
    np.testing.assert_allclose([s.action[0] for s in taken], [0.0, 0.1, 0.2, 0.3, 0.4])
    assert recorder.counters()["steps_recorded"] == 5


def test_a_gap_ends_the_episode_before_it_and_begins_one_behind_it():
    taken = Taken()
    recorder = recorder_into(taken)
    begun = [tick(recorder, t, signal(t, first=t == 0)) for t in (0, 100, 200, 400, 500)]
    recorder.close()
    assert begun == [True, False, False, True, False]
    assert [s.is_first for s in taken] == begun
    assert [s.is_last for s in taken] == [False, False, True, False, True]
    assert not any(s.is_terminal for s in taken)
    assert taken[3].reward == 0.0  # what led there is not in the record
    assert recorder.breaks == {"gap": 1, "close": 1}


def test_a_command_that_the_robot_did_not_use_breaks_the_record():
    taken = Taken()
    recorder = recorder_into(taken)
    tick(recorder, 0, signal(0, first=True))
    assert tick(recorder, 100, signal(100, answered=False))
    tick(recorder, 200, signal(200), missed=True)
    assert tick(recorder, 300, signal(300))
    recorder.close()
    assert [s.is_first for s in taken] == [True, True, False, True]
    assert [s.is_last for s in taken] == [True, False, True, True]
    assert recorder.breaks == {"unanswered": 1, "late_command": 1, "close": 1}


def test_a_nan_reward_is_kept_marked_and_cut_out():
    taken = Taken()
    recorder = recorder_into(taken)
    for stamp in range(0, 500, 100):
        tick(recorder, stamp, signal(stamp, np.nan if stamp == 200 else 1.0, first=stamp == 0))
    recorder.close()
    assert [s.is_valid for s in taken] == [True, True, False, True, True]
    assert [s.is_last for s in taken] == [False, True, True, False, True]
    assert [s.is_first for s in taken] == [True, False, True, True, False]
    assert np.isnan(taken[2].reward)
    assert recorder.counters()["steps_invalid"] == 1


def test_a_nan_measurement_is_kept_marked_and_cut_out():
    taken = Taken()
    recorder = recorder_into(taken)
    tick(recorder, 0, signal(0, first=True))
    tick(recorder, 100, signal(100), obs={"proprio": np.array([np.inf], np.float32)})
    assert [s.is_valid for s in taken] == [True, False]
    assert taken[0].is_last


def test_a_step_without_its_reward_is_counted_and_breaks_the_record():
    taken = Taken()
    recorder = recorder_into(taken)
    tick(recorder, 0, signal(0, first=True))
    tick(recorder, 100, None)
    assert tick(recorder, 200, signal(200))
    recorder.close()
    assert [s.stamp_ns for s in taken] == [0, 200]
    assert taken[0].is_last
    assert recorder.skipped == {"no_reward": 1}


def test_without_rewards_on_this_robot_steps_are_stored_all_the_same():
    taken = Taken()
    recorder = recorder_into(taken, reward_required=False)
    for stamp in (0, 100, 200):
        tick(recorder, stamp, None)
    recorder.close()
    assert [s.is_first for s in taken] == [True, False, False]


def test_a_full_spool_never_leaves_a_step_behind_a_lost_one():
    taken = Taken()
    recorder = recorder_into(taken)
    for stamp in range(0, 600, 100):
        taken.full = stamp == 300  # when the step of 200 is handed over
        tick(recorder, stamp, signal(stamp, first=stamp == 0))
    recorder.close()
    assert [s.stamp_ns for s in taken] == [0, 100, 300, 400, 500]
    assert [s.is_first for s in taken] == [True, False, True, False, False]
    assert recorder.skipped == {"spool_full": 1}


def test_every_tick_is_stored_held_or_counted():
    taken = Taken()
    recorder = recorder_into(taken)
    for k in range(50):
        if k % 7 == 3:
            recorder.skip("no_frame")
        else:
            tick(recorder, k * PERIOD, None if k % 5 == 4 else signal(k * PERIOD, first=k == 0))
    counts = recorder.counters()
    assert counts["steps_recorded"] + counts["steps_held"] + sum(recorder.skipped.values()) == 50
    recorder.close()
    recorder.close()
    assert len(taken) == recorder.stored == 50 - sum(recorder.skipped.values())


def test_rewards_are_joined_by_stamp_and_what_finds_no_tick_is_counted():
    signals = Signals(keep=3)
    for stamp in (10, 20, 30):
        signals.put(signal(stamp, reward=stamp))
    assert signals.take(20).reward == 20
    assert signals.counts["signals_without_tick"] == 1  # the one of 10
    assert signals.take(25) is None
    assert signals.take(30).reward == 30


def test_returns_add_up_every_reward_of_an_episode():
    signals = Signals()
    for k in range(4):
        signals.put(signal(k, reward=1.5, first=k == 0, last=k == 3))
    signals.put(signal(9, reward=0.0, first=True))
    signals.put(signal(10, reward=2.0))
    assert signals.returns == [4.5]
    assert signals.return_now == 2.0


def test_a_frame_waits_for_its_reward_where_rewards_came_with_the_last_frames():
    signals = Signals()

    def waits(stamp, waited=0):
        return signals.may_come(stamp, waited_ns=waited, period_ns=PERIOD)

    assert not waits(0)  # no reward ever came
    signals.put(signal(0))
    assert not waits(0)  # it has come
    assert waits(100)
    assert waits(100, waited=49)
    assert not waits(100, waited=50)  # at most half a period
    for _ in range(3):
        signals.on_tick()
    assert not waits(400)  # three frames in a row had none
    signals.put(signal(400))
    assert waits(500)
