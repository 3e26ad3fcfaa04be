"""What people do to a robot, by times that are passed in."""

from __future__ import annotations

import numpy as np

from wm_ros.safety.interventions import EmergencyStop, RunTime, Takeover
from wm_ros.settings import OperatorSettings

S = 1_000_000_000


def emergency(**fields) -> EmergencyStop:
    return EmergencyStop(OperatorSettings(emergency_stop_topic="stop", **fields))


def test_a_button_among_several_is_not_released_by_the_message_of_another():
    stop = emergency()
    stop.on_message(True, 0)
    stop.on_message(False, S // 10)  # the other button, at its own pace
    assert stop.cause(S // 10) == "emergency_stop"
    assert stop.cause(S) is None
    assert stop.check(S) == "emergency_stop"  # and it is latched all the same
    stop.release()
    assert stop.check(S) is None


def test_silence_counts_from_the_last_message_and_a_topic_without_publisher_is_no_silence_yet():
    stop = emergency(emergency_stop_timeout_s=1.0)
    assert stop.check(0) == "emergency_missing"
    stop.on_publishers(1, 0)
    assert stop.check(5 * S) == "emergency_missing"  # it is there and has said nothing
    stop.on_message(False, 5 * S)
    assert stop.check(6 * S) is None
    assert stop.check(6 * S + 1) == "emergency_silent"
    stop.on_message(False, 7 * S)
    assert stop.check(7 * S) == "emergency_silent"  # until it is released
    assert stop.cause(7 * S) is None


def test_a_publisher_that_goes_away_stops_the_robot_once_it_is_sure():
    stop = emergency()
    stop.on_message(False, 0)
    stop.on_publishers(0, 0)
    assert stop.check(0) is None
    stop.on_publishers(0, 0)
    assert stop.check(0) == "emergency_silent"


def test_a_button_that_may_have_been_pressed_before_is_waited_for_when_its_driver_appears():
    stop = emergency()
    stop.on_publishers(1, 10 * S)
    assert stop.check(11 * S) == "emergency_missing"  # its last message may be on its way
    stop.on_publishers(1, 11 * S)
    assert stop.check(12 * S) is None  # it says nothing before it is pressed
    pressed = emergency()
    pressed.on_publishers(1, 10 * S)
    pressed.on_message(True, 11 * S)
    assert pressed.check(12 * S) == "emergency_stop"


def test_without_a_topic_only_the_service_stops():
    stop = EmergencyStop(OperatorSettings())
    stop.on_publishers(0, 0)
    assert stop.check(S) is None
    stop.on_service()
    assert stop.check(S) == "emergency_stop"
    assert stop.cause(S) is None


def test_what_an_emergency_stop_latches_is_kept_until_a_rearm_and_holds_from_the_next_start_on():
    kept = []
    stop = EmergencyStop(OperatorSettings(), keep=kept.append)
    assert kept == []
    stop.on_service()
    stop.on_service()
    assert kept == ["emergency_stop"]
    later = EmergencyStop(OperatorSettings(), kept[-1], kept.append)
    assert later.check(0) == "emergency_stop"
    assert later.cause(0) is None
    later.release()
    assert kept[2:] == [""]
    assert later.check(0) is None


def test_every_way_to_an_emergency_stop_is_kept():
    for press, reason in (
        (lambda stop: stop.on_message(True, 0), "emergency_stop"),
        (lambda stop: [stop.on_publishers(n, 0) for n in (1, 0, 0)], "emergency_silent"),
        (lambda stop: [stop.on_message(False, 0), stop.check(2 * S)], "emergency_silent"),
    ):
        kept = []
        settings = OperatorSettings(emergency_stop_topic="stop", emergency_stop_timeout_s=1.0)
        press(EmergencyStop(settings, keep=kept.append))
        assert kept == [reason]


def test_a_takeover_lasts_for_its_time_and_channel_by_channel():
    takeover = Takeover(OperatorSettings(takeover_timeout_s=0.5))
    takeover.on_command(0, np.array([1.0]), 0)
    takeover.on_command(1, None, S // 4)
    assert takeover.active(S // 2).keys() == {0, 1}
    assert takeover.active(S // 2 + 1) == {1: None}
    assert not takeover.active(S)


def test_a_run_begins_anew_with_each_call_and_without_a_time_has_no_end():
    run = RunTime(OperatorSettings(run_on_start=False, run_s=30.0))
    run.activate(0)
    assert run.check(0) == "not_started"
    assert run.start(S) == 30.0
    assert [run.check(t * S) for t in (1, 30, 31)] == [None, None, "run_over"]
    run.start(40 * S)
    assert run.check(69 * S) is None
    endless = RunTime(OperatorSettings())
    endless.activate(0)
    assert endless.check(10**9 * S) is None
