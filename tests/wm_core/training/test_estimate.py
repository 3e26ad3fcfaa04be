"""How long a training still takes, from the rates that it has shown."""

import pytest

from wm_core.training.estimate import ENOUGH, Forecast, TimeLeft, in_words
from wm_core.training.status import Status


def status(time, updates, **changes):
    values = {
        "phase": "training",
        "updates": updates,
        "updates_goal": None,
        "updates_per_s": 0.0,
        "agent_steps": 0,
        "agent_steps_goal": None,
        "agent_steps_per_s": 0.0,
        "published_version": -1,
        "episodes": 0,
        "last_return": None,
        "time": time,
    }
    return Status(**values | changes)


def seconds_after(*reports):
    left = TimeLeft()
    return [left.seconds(report) for report in reports][-1]


def test_the_time_of_the_prefill_does_not_count():
    goal = {"updates_goal": 1001}
    left = seconds_after(status(0, 0, **goal), status(500, 1, **goal), status(600, 101, **goal))
    assert left == 900.0  # one update a second


def test_a_resumed_run_is_judged_by_this_process_alone():
    goal = {"updates_goal": 5000}
    reports = [status(0, 4000, **goal), status(10, 4001, **goal), status(110, 4051, **goal)]
    assert seconds_after(*reports) == pytest.approx(2 * (5000 - 4051))


def test_cpu_time_is_translated_to_time_on_the_wall():
    reports = [
        status(0, 0, cpu_s=5.0, cpu_s_goal=65.0),
        status(1, 1, cpu_s=5.0, cpu_s_goal=65.0),
        status(41, 100, cpu_s=25.0, cpu_s_goal=65.0),  # half of a core
    ]
    assert seconds_after(*reports) == 80.0


def test_the_first_of_two_goals_counts():
    goals = {"updates_goal": 201, "cpu_s_goal": 1000.0}
    reports = [
        status(0, 0, cpu_s=0.0, **goals),
        status(0, 1, cpu_s=0.0, **goals),
        status(100, 101, cpu_s=100.0, **goals),
    ]
    assert seconds_after(*reports) == 100.0


def test_nothing_is_said_before_there_are_enough_updates_or_without_a_goal():
    assert seconds_after(status(0, 0, updates_goal=99)) is None
    goal = {"updates_goal": 999}
    few = [status(0, 0, **goal), status(1, 1, **goal), status(50, ENOUGH, **goal)]
    assert seconds_after(*few) is None
    assert seconds_after(*few, status(60, ENOUGH + 1, **goal)) is not None
    endless = [status(0, 0), status(1, 1), status(100, 100)]
    assert seconds_after(*endless) is None


def test_a_clock_that_went_back_gives_no_estimate():
    goal = {"updates_goal": 999}
    reports = [status(100, 0, **goal), status(100, 1, **goal), status(50, 90, **goal)]
    assert seconds_after(*reports) is None


def test_a_goal_that_is_passed_leaves_no_time():
    goal = {"updates_goal": 50}
    reports = [status(0, 0, **goal), status(1, 1, **goal), status(60, 60, **goal)]
    assert seconds_after(*reports) == 0.0


def said(*reports):
    forecast = Forecast()
    return [forecast.say(report) for report in reports]


def test_a_long_training_is_announced_once_with_a_shorter_one():
    goal = {"updates_goal": 100_000}
    reports = [status(t, t, **goal) for t in (0, 1, 31, 61)]
    text = "about 28 h to go at this rate; --train.minutes 30 ends it sooner, Ctrl-C at any time"
    assert said(*reports) == ["", "", text, ""]


def test_a_short_training_and_one_with_minutes_get_no_proposal():
    assert said(*[status(t, t, updates_goal=600) for t in (0, 1, 31)])[-1] == (
        "about 9 min to go at this rate"
    )
    timed = [status(t, t, cpu_s=t, cpu_s_goal=18_000.0) for t in (0.0, 1.0, 31.0)]
    assert said(*timed)[-1] == "about 5 h to go at this rate"


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.2, "0 s"), (59.0, "59 s"), (60.0, "1 min"), (3540.0, "59 min"), (3590.0, "1 h"),
        (5400.0, "1.5 h"), (7200.0, "2 h"), (132_131.0, "37 h"), (864_000.0, "10 days"),
    ],
)  # fmt: skip
def test_durations_are_said_as_people_do(seconds, words):
    assert in_words(seconds) == words
