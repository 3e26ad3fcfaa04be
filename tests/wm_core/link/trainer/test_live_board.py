"""What is kept of robots' reports, and for how long."""

from __future__ import annotations

import json

import pytest

from wm_core.contract.live import MAX_REPORT_BYTES, LiveCamera, LiveReport
from wm_core.link.trainer import live_board
from wm_core.link.trainer.live_board import LiveBoard


@pytest.fixture
def clock():
    """Seconds that the test sets."""
    return [0.0]


@pytest.fixture
def board(clock):
    return LiveBoard(clock=lambda: clock[0])


def report(picture_bytes=0, **more):
    picture = LiveCamera.model_construct(t_ns=1, jpeg="x" * picture_bytes)
    said = LiveReport(t_ns=1, **more)
    return said.model_copy(update={"cameras": {"a": picture}}) if picture_bytes else said


def told(board, *robots):
    return json.loads(board.read(robots or None))["robots"]


def test_a_thousand_robots_keep_to_the_bounds_and_lose_pictures_before_numbers(board):
    large = report(MAX_REPORT_BYTES - 20_000, counters={f"{i:030}": i for i in range(128)})
    for i in range(1000):
        assert board.put(f"r{i:03}", large) is False
    assert len(board) == 1000
    assert board.held_bytes <= live_board.MAX_BYTES
    assert board.put("one_more", report()).verdict == "busy"
    seen = told(board, "r000", "r999")
    assert not seen["r000"]["cameras_left_out"]
    assert seen["r999"]["cameras_left_out"]
    assert seen["r999"]["report"]["counters"][f"{7:030}"] == 7
    assert len(board.read()) < live_board.MAX_ANSWER_BYTES + 1000 * 6000


def test_what_is_counted_as_held_is_given_back(board, clock):
    for _ in range(3):
        board.put("a", report(1000))
        board.put("b", report(1000))
    assert len(board) == 2
    assert 2000 < board.held_bytes < 6000
    clock[0] = 700.0
    assert told(board) == {}
    assert board.held_bytes == 0


def test_a_silent_robot_gives_way_where_there_is_no_room(board, clock):
    for i in range(1000):
        board.put(f"r{i}", report())
    clock[0] = 11.0
    board.put("r7", report())
    assert board.put("new", report()) is False
    assert sorted(told(board)) == ["new", "r7"]


def test_a_robot_is_watched_for_five_seconds_after_a_look(board, clock):
    assert board.put("a", report()) is False
    board.put("b", report())
    told(board, "a")
    clock[0] = 4.9
    assert board.put("a", report()) is True
    assert board.put("b", report()) is False
    clock[0] = 5.1
    assert board.put("a", report()) is False


def test_a_look_at_all_watches_only_as_many_as_can_be_shown(board):
    for i in range(100):
        board.put(f"r{i:02}", report())
    assert len(told(board)) == 100
    watched = [board.put(f"r{i:02}", report()) for i in range(100)]
    assert watched == [True] * live_board.MAX_WATCHED + [False] * (100 - live_board.MAX_WATCHED)


def test_one_robot_that_sends_too_often_is_told_to_wait_and_others_are_not(board, clock):
    refused = [board.admit("fast") is not None for _ in range(60)]
    assert refused == [False] * 50 + [True] * 10
    assert board.admit("other") is None
    clock[0] = 1.0
    assert board.admit("fast") is None


def test_names_without_end_are_not_remembered(board):
    for i in range(10_000):
        board.admit(f"r{i}")
    assert len(board._rates) <= 4096


def test_robots_of_a_fleet_are_asked_to_say_less_often_how_they_are(board):
    assert board.every_s == 1.0
    for i in range(1000):
        board.put(f"r{i}", report())
    assert board.every_s == 5.0
