"""Asks the trainer's service what its robots say, and keeps only what can be shown.

A robot's words come from outside: names, numbers and pictures that are not of the agreed form are
left out, one by one, so that one robot cannot spoil the page for the others.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import urllib3

from wm_core.contract.errors import SettingsError
from wm_core.contract.files import json_object, read_json
from wm_core.link.trainer.settings import SERVICE_FILE
from wm_core.page.returns import number

UNHEARD_S = 1.6  #: robots that are watched speak five times a second, the others once
MOST_ROBOTS, MOST_CAMERAS, MOST_ACTIONS, MOST_COUNTERS = 12, 8, 32, 60
WAIT_S = 0.8  #: for an answer, so that a silent service is noticed within two seconds
_MAX_ANSWER = 64 << 20
_BASE64 = re.compile(r"[A-Za-z0-9+/]{4,400000}={0,2}")


@dataclass(frozen=True)
class RobotFacts:
    """What one robot said last."""

    name: str
    age_s: float  #: since it was heard
    mode: str = ""
    mode_text: str = ""
    policy: int | None = None
    observation_age_ms: float | None = None
    tick_p99_ms: float | None = None
    period_ms: float | None = None
    action: tuple[float | None, ...] = ()
    action_low: tuple[float | None, ...] = ()
    action_high: tuple[float | None, ...] = ()
    action_names: tuple[str, ...] = ()
    safe_why: str = ""
    safe_age_s: float | None = None  #: since the last safe action, by the robot's clock
    counters: dict[str, float] = field(default_factory=dict)
    cameras: dict[str, str] = field(default_factory=dict)  #: base64 of a JPEG by name

    @property
    def is_heard(self) -> bool:
        """Whether it said something just now."""
        return self.age_s <= UNHEARD_S


@dataclass(frozen=True)
class RobotsHeard:
    """What the service answered, or why it did not."""

    problem: str = ""  #: why nothing is known; empty where the service answered
    robots: tuple[RobotFacts, ...] = ()
    more: int = 0  #: robots that are not shown


class Hearing:
    """Asks the service over HTTP, and does not wait long for it.

    Args:
        root: run folder, whose service is asked where no address is given.
        trainer: address of the service; empty: as the run folder says.
        token_file: file with the token to ask with; None asks without one.
        ca_file: authority of the service's certificate; None: those of the system.
    """

    def __init__(
        self,
        root: Path,
        trainer: str = "",
        token_file: Path | None = None,
        ca_file: Path | None = None,
    ) -> None:
        self._root, self._trainer, self._token_file = root, trainer.rstrip("/"), token_file
        more: dict[str, Any] = {} if ca_file is None else {"ca_certs": str(ca_file)}
        self._pool = urllib3.PoolManager(
            num_pools=2, retries=False, timeout=urllib3.Timeout(total=WAIT_S), **more
        )
        self._headers()  # a missing token is said at the start

    def listen(self) -> Callable[[], RobotsHeard]:
        """Give what asks once."""
        return self.look

    def look(self) -> RobotsHeard:
        """Ask once, and wait for the answer."""
        base = self._trainer or str(read_json(self._root / SERVICE_FILE).get("url", ""))
        if not base.startswith(("http://", "https://")):
            return RobotsHeard("no trainer's service: `wm serve --root RUN` starts one")
        try:
            answer = self._pool.request(
                "GET",
                f"{base}/v1/live",
                headers=self._headers(),
                redirect=False,
                preload_content=False,
            )
            body = answer.read(_MAX_ANSWER, decode_content=True)
            answer.release_conn()
        except (urllib3.exceptions.HTTPError, OSError, SettingsError) as error:
            return RobotsHeard(
                f"the trainer's service at {base} does not answer ({_short(error)})"
            )
        if answer.status == 401:
            return RobotsHeard(
                f"the trainer's service at {base} wants a token that may look: give --token-file "
                "FILE"
            )
        if answer.status == 403:
            why = str(json_object(body).get("reason", "no reason was given"))[:300]
            return RobotsHeard(f"the trainer's service at {base} refuses: {why}")
        if answer.status == 404:
            return RobotsHeard(f"the trainer's service at {base} is older than this page")
        if answer.status != 200:
            return RobotsHeard(f"the trainer's service at {base} answered {answer.status}")
        return heard_in(json_object(body))

    def _headers(self) -> dict[str, str]:
        if self._token_file is None:
            return {}
        try:
            token = self._token_file.read_text().strip()
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise SettingsError(
                f"--token-file {self._token_file}: expected a file with one token, got: {reason}"
            ) from error
        if not re.fullmatch(r"[!-~]{1,512}", token):
            raise SettingsError(f"--token-file {self._token_file}: expected one token in it")
        return {"Authorization": f"Bearer {token}"}


#: called in the event loop; gives a function that is called in a thread and may take a second
Listen = Callable[[], Callable[[], RobotsHeard]]


def heard_in(answer: dict[str, Any]) -> RobotsHeard:
    """Keep what can be shown of an answer to ``GET /v1/live``."""
    robots = answer.get("robots")
    if not isinstance(robots, dict):
        return RobotsHeard("the trainer's service said nothing of robots")
    named = sorted((str(name)[:64], said) for name, said in robots.items() if _is_map(said))
    found = tuple(_robot(name, said) for name, said in named[:MOST_ROBOTS])
    return RobotsHeard(robots=found, more=max(0, len(named) - MOST_ROBOTS))


def _robot(name: str, said: dict[str, Any]) -> RobotFacts:
    report = said.get("report") if _is_map(said.get("report")) else said
    assert isinstance(report, dict)
    age_s, now_ns = number(said.get("age_s")), number(report.get("t_ns"))
    safe = report.get("safe_action")
    safe = safe if isinstance(safe, dict) else {}
    safe_ns = number(safe.get("t_ns"))
    policy = number(report.get("policy"))
    return RobotFacts(
        name,
        age_s=1e9 if age_s is None else max(0.0, age_s),
        mode=_word(report.get("mode")),
        mode_text=_word(report.get("mode_text"), 300),
        policy=None if policy is None or policy < 0 else int(policy),
        observation_age_ms=number(report.get("observation_age_ms")),
        tick_p99_ms=number(report.get("tick_p99_ms")),
        period_ms=number(report.get("period_ms")),
        action=_numbers(report.get("action")),
        action_low=_numbers(report.get("action_low")),
        action_high=_numbers(report.get("action_high")),
        action_names=tuple(map(_word, _listed(report.get("action_names")))),
        safe_why=_word(safe.get("text"), 200) or _word(safe.get("why")).replace("_", " "),
        safe_age_s=_since(now_ns, safe_ns, age_s),
        counters=_counters(report.get("counters")),
        cameras=_cameras(report.get("cameras")),
    )


def _since(now_ns: float | None, then_ns: float | None, age_s: float | None) -> float | None:
    """Seconds since something on the robot, by its own clock and the age of what it said."""
    if now_ns is None or then_ns is None:
        return None
    return max(0.0, (now_ns - then_ns) * 1e-9) + (age_s or 0.0)


def _is_map(value: object) -> bool:
    return isinstance(value, dict)


def _word(value: object, most: int = 64) -> str:
    return value[:most] if isinstance(value, str) else ""


def _listed(value: object) -> list[Any]:
    return value[:MOST_ACTIONS] if isinstance(value, list) else []


def _numbers(value: object) -> tuple[float | None, ...]:
    return tuple(number(v) for v in _listed(value))


def _counters(value: object) -> dict[str, float]:
    items = value.items() if isinstance(value, dict) else ()
    found = ((str(k)[:64], number(v)) for k, v in list(items)[:MOST_COUNTERS])
    return {name: v for name, v in found if v is not None}


def _cameras(value: object) -> dict[str, str]:
    items = sorted(value.items())[:MOST_CAMERAS] if isinstance(value, dict) else ()
    found = {}
    for name, said in items:
        jpeg = said.get("jpeg") if isinstance(said, dict) else None
        if isinstance(jpeg, str) and _BASE64.fullmatch(jpeg):
            found[str(name)[:64]] = jpeg
    return found


def _short(error: Exception) -> str:
    reason = getattr(error, "reason", None) or error
    name = type(reason).__name__
    return {
        "NewConnectionError": "nobody listens there",
        "ConnectTimeoutError": "no connection in time",
        "ReadTimeoutError": "no answer in time",
        "ProtocolError": "the connection broke",
    }.get(name, name)
