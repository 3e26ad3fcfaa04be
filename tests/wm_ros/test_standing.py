"""The log says what lasts, says it again, and says its end; nothing is swallowed."""

from __future__ import annotations

import re

from wm_ros.safety.reasons import ERROR, OK, WARN
from wm_ros.safety.standing import Standing
from wm_ros.timing.rhythm import NS

PERIOD = NS // 20


class Log:
    """A robot whose ticks have reasons, and what was logged of them."""

    def __init__(self) -> None:
        self.standing, self.now, self.lines = Standing(lambda word: f"about {word}"), 0, []

    def ticks(self, reason: str | None, seconds: float) -> list[tuple[int, str]]:
        before = len(self.lines)
        for _ in range(round(seconds * NS / PERIOD)):
            self.now += PERIOD
            self.lines += self.standing.tick(reason, self.now)
        return self.lines[before:]


def test_the_reason_that_lasts_is_said_and_not_the_first_one():
    log = Log()
    assert log.ticks("no_frame", 0.5) == []
    (level, text), *more = log.ticks("stale_stamp", 10)
    assert (level, more) == (ERROR, [])
    assert "stale_stamp: the observation's stamp is too old" in text
    assert "about stale_stamp" in text
    assert log.standing.stand(log.now).word == "stale_stamp"


def test_a_reason_that_has_just_ended_is_not_said_after_the_one_that_ended_it():
    log = Log()
    log.ticks("emergency_missing", 0.95)
    lines = [text for _, text in log.ticks("emergency_stop", 0.5)]
    assert [text for text in lines if "emergency_missing" in text] == []
    assert len([text for text in lines if "emergency_stop" in text]) == 1


def test_a_lasting_reason_is_said_again_every_half_minute_with_its_age():
    log = Log()
    log.ticks("no_frame", 5)
    again = [text for _, text in log.ticks("no_frame", 61)]
    assert len(again) == 2
    assert "for 31 s" in again[0]
    assert "for 61 s" in again[1]


def test_every_change_of_a_lasting_reason_is_said_and_its_end_too():
    log = Log()
    log.ticks(None, 2)
    for reason in ("no_frame", "stale_stamp", "frozen_frame"):
        (line,) = log.ticks(reason, 2)
        assert reason in line[1]
    ((level, text),) = log.ticks(None, 5)
    assert level == OK
    assert "acts again after 6.0 s" in text


def test_what_is_urgent_is_said_at_once_but_not_at_every_tick():
    log = Log()
    log.ticks(None, 2)
    (line,) = log.ticks("nan_obs", 0.05)
    assert "nan_obs" in line[1]
    for _ in range(20):
        log.ticks(None, 0.1)
        assert [t for _, t in log.ticks("nan_obs", 0.1) if "safe action" in t] == []


def test_flips_between_policy_and_stop_are_a_warning_with_their_share():
    log = Log()
    log.ticks(None, 2)
    for _ in range(40):
        log.ticks("no_frame", 0.05)
        log.ticks(None, 0.15)
    stand = log.standing.stand(log.now)
    assert (stand.word, stand.level) == ("no_frame", WARN)
    assert re.search("acts on 7[0-9] % of ticks only", stand.text)
    assert 1 <= sum("single safe actions: no_frame" in text for _, text in log.lines) <= 2


def test_a_node_that_ticks_no_more_is_inactive_and_not_well():
    log = Log()
    log.ticks(None, 2)
    assert log.standing.stand(log.now).level == OK
    log.standing.pause("inactive", log.now)
    stand = log.standing.stand(log.now)
    assert (stand.word, stand.level) == ("inactive", WARN)
