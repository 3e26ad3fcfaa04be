"""Where an episode begins and ends, and what is waited for in between."""

import pytest

from wm_core.robot.episode import EpisodeRules, Reset
from wm_ros.episodes.rules import EpisodeCycle

PERIOD_NS = 50_000_000


class Robot:
    """Observes once a period; ``reset`` says whether the reset service is there."""

    def __init__(self, reset=True, **rules):
        if rules.pop("resets", False):
            rules["reset"] = Reset(service="home", wait_s=1.0)
        self.calls = 0
        self.there = reset
        self.episodes = EpisodeCycle(EpisodeRules(**rules), self._call)
        self.now = 0

    def _call(self):
        self.calls += int(self.there)
        return self.there

    def step(self, ends="", terminal=False, periods=1):
        """What a tick with an observation says: flags, or the reason to wait."""
        self.now += periods * PERIOD_NS
        reason = self.episodes.stops(self.now)
        if reason is not None:
            return reason
        flags = self.episodes.observe(self.now, self.now, ends=ends, terminal=terminal)
        return "".join(
            letter
            for letter, is_set in zip(
                "flt", (flags.is_first, flags.is_last, flags.is_terminal), strict=True
            )
            if is_set
        )

    def idle(self, periods=1):
        """What a tick without an observation says."""
        self.now += periods * PERIOD_NS
        return self.episodes.stops(self.now)


def test_without_rules_one_episode_follows_the_other_without_a_stop():
    robot = Robot()
    assert [robot.step(), robot.step(), robot.step("message"), robot.step(), robot.step()] == [
        *("f", "", "l"),
        *("f", ""),
    ]


def test_time_ends_an_episode_that_might_go_on():
    robot = Robot(max_s=0.1)
    assert [robot.step() for _ in range(6)] == ["f", "", "l", "f", "", "l"]
    assert robot.episodes.ended_by == "max_s"


def test_an_end_that_is_asked_for_comes_with_the_next_observation():
    robot = Robot()
    robot.step()
    assert robot.episodes.ask_end(robot.now, terminal=True, why="~/episode/fail") is None
    assert [robot.step(), robot.step()] == ["lt", "f"]
    assert robot.episodes.ended_by == "~/episode/fail"


def test_an_end_that_is_asked_for_comes_without_an_observation_too():
    robot = Robot(pause_s=10)
    robot.step()
    robot.episodes.ask_end(robot.now, terminal=False, why="asked")
    assert robot.idle() is None
    assert robot.idle() is None
    assert robot.idle() == "no_episode"


def test_a_pause_is_waited_for_on_the_steady_clock():
    robot = Robot(pause_s=0.1)
    robot.step()
    assert robot.step("end_if") == "l"
    assert [robot.step() for _ in range(3)] == ["no_episode", "f", ""]


def test_without_autostart_a_start_is_waited_for():
    robot = Robot(autostart=False)
    assert robot.step() == "no_episode"
    assert robot.episodes.ask_end(0, terminal=False, why="asked") == "no episode runs"
    assert robot.episodes.ask_start() is None
    assert robot.step() == "f"
    assert "call ~/episode/end first" in robot.episodes.ask_start()
    assert robot.step("end_if") == "l"
    assert robot.step() == "no_episode"


def test_the_reset_is_called_once_and_its_answer_waited_for():
    robot = Robot(resets=True)
    robot.step()
    assert robot.step("terminal_if", terminal=True) == "lt"
    assert [robot.step(), robot.step()] == ["resetting"] * 2
    assert robot.calls == 1
    robot.episodes.on_reset("")
    assert robot.step() == "f"


def test_a_reset_that_never_answers_is_an_error_until_it_does_or_a_person_starts():
    robot = Robot(resets=True)
    robot.step()
    robot.step("end_if")
    assert robot.step() == "resetting"
    assert robot.step(periods=21) == "reset_failed"
    assert robot.episodes.reset_problem == "home does not answer for 1 s"
    robot.episodes.on_reset("")  # late, but it is an answer
    assert robot.step() == "f"
    robot.step("end_if")
    robot.step()
    robot.step(periods=30)
    assert robot.episodes.ask_start() is None
    assert robot.step() == "f"


def test_a_reset_that_refuses_is_called_again_when_the_end_is_asked_for_again():
    robot = Robot(resets=True)
    robot.step()
    robot.step("end_if")
    robot.step()
    robot.episodes.on_reset("the reset failed: arm is stuck")
    assert robot.step() == "reset_failed"
    assert robot.calls == 1
    assert robot.episodes.ask_end(robot.now, terminal=False, why="again") is None
    assert robot.step() == "resetting"
    assert robot.calls == 2


def test_a_reset_that_is_not_there_is_called_as_soon_as_it_is():
    robot = Robot(resets=True, reset=False)
    robot.step()
    robot.step("end_if")
    assert robot.step() == "resetting"
    assert robot.step(periods=30) == "reset_failed"
    assert robot.episodes.reset_problem == "home is not there for 1 s"
    robot.there = True
    assert robot.step() == "resetting"
    robot.episodes.on_reset("")
    assert robot.step() == "f"


@pytest.mark.parametrize("terminal", [True, False])
def test_the_first_observation_ends_nothing_by_a_condition(terminal):
    robot = Robot()
    assert robot.step("terminal_if", terminal) == "f"


def test_a_message_that_says_first_begins_anew():
    robot = Robot(max_s=0.1)
    robot.step()
    robot.step()
    robot.episodes.restart()
    assert [robot.step(), robot.step(), robot.step()] == ["f", "", "l"]
