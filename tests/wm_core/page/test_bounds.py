"""A lost link shows within two seconds: by the bounds that are set, whatever the machine."""

from __future__ import annotations

import re

from wm_core.link.robot.live import LiveSettings
from wm_core.page import application, board, hearing

SHOWN_S = 2.0


def script_s(name):
    """A constant of the page's script, in seconds."""
    text = (application.STATIC / "page.js").read_text()
    return int(re.search(rf"\b{name} = (\d+)", text)[1]) / 1000


def test_a_silent_server_shows_within_two_seconds():
    silent_s = script_s("SILENT_MS")
    assert silent_s + script_s("CHECK_MS") <= SHOWN_S
    assert silent_s > 2 * application.HEARTBEAT_S  # one word that is late is no loss


def test_a_silent_robot_shows_within_two_seconds():
    assert hearing.UNHEARD_S + board.LOOK_S <= SHOWN_S
    assert hearing.UNHEARD_S > 1.0  # robots that nobody watches speak once a second
    assert 5 / LiveSettings().rate_hz < hearing.UNHEARD_S


def test_a_service_that_does_not_answer_shows_within_two_seconds():
    assert board.LOOK_S + hearing.WAIT_S <= SHOWN_S


def test_a_learner_that_has_gone_shows_within_two_seconds():
    assert board.READ_S + board.LOOK_S <= SHOWN_S
