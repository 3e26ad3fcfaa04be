"""Says what can be wrong with stored experience, and collects what a look at a store found."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, NamedTuple

from wm_core.format.chunk import ChunkKey

Severity = Literal["fault", "note"]
MAX_KEPT = 200  #: findings of a kind that are kept; later ones are only counted


class Check(NamedTuple):
    """Describes one thing that is looked for."""

    level: Severity  #: a fault is data that is lost or wrong; a note may be as it should
    what: str
    advice: str


_BACKUP = "wm store import brings the bytes back from a backup; wm data repair saves the rest"
#: by name
CHECKS: dict[str, Check] = {
    "missing": Check("fault", "the file of a chunk is gone", _BACKUP),
    "torn": Check("fault", "a chunk file has another size than was stored", _BACKUP),
    "wrong_hash": Check("fault", "a chunk file has other bytes than were stored", _BACKUP),
    "unreadable": Check("fault", "a chunk file cannot be read", "look at the disk"),
    "undecodable": Check("fault", "a chunk does not decode", "another version wrote it: upgrade"),
    "time_back": Check("fault", "stamps stand still or go back", "set the clock of the sensor"),
    "time_jump": Check(
        "fault", "time jumps within an episode", "steps were lost there: begin a new episode"
    ),
    "not_finite": Check("fault", "NaN or infinity in a step", "mend the sensor; it is not learnt"),
    "unusable": Check("fault", "numbers too large to learn from", "mend the sensor or its units"),
    "action_bounds": Check(
        "fault", "actions outside of their bounds", "widen the bounds in the robot file"
    ),
    "frozen_camera": Check(
        "fault",
        "a camera repeats its frame while another sensor moves",
        "mend the camera's driver",
    ),
    "stuck_sensor": Check(
        "fault", "a sensor repeats its numbers while another one moves", "mend the sensor's driver"
    ),
    "out_of_step": Check(
        "fault", "a sensor lags behind another", "stamp at capture, or shift it in the mapping"
    ),
    "repeated_steps": Check(
        "fault", "the same moments are stored in two sessions", "two recordings overlap: cut one"
    ),
    "still_camera": Check(
        "note",
        "a camera repeats its frame while the action changes",
        "is the robot stuck or out of sight, or the camera frozen?",
    ),
    "still_sensor": Check(
        "note",
        "a sensor repeats its numbers while the action changes",
        "is the robot stuck, or the sensor?",
    ),
    "black_image": Check("note", "images are black", "look at the camera and its exposure"),
    "white_image": Check("note", "images are white", "look at the camera and its exposure"),
    "marked_invalid": Check("note", "the recorder marked steps as not to be learnt from", ""),
    "gap": Check("note", "steps of a session are not there", "the robot may still have them"),
    "empty_episode": Check("note", "an episode of one step", "look at the border of episodes"),
    "saturated_action": Check("note", "an action is at its bounds nearly always", "widen them"),
    "constant_action": Check("note", "an action never changes", "is its channel connected?"),
    "constant_number": Check("note", "a number of a sensor never changes", "is it connected?"),
    "constant_reward": Check(
        "note", "all rewards are equal", "label them, or learn the world model alone"
    ),
}


@dataclass(frozen=True)
class Finding:
    """Says where something is wrong; what concerns all of a store has no session."""

    check: str  #: a key of ``CHECKS``
    detail: str
    robot: str = ""
    session: str = ""
    seq: int = -1  #: of the chunk; -1 where it is not of one chunk
    first_step: int = -1  #: index in the session; -1 where it is not of certain steps
    steps: int = 0

    @property
    def level(self) -> Severity:
        return CHECKS[self.check].level

    @property
    def where(self) -> str:
        """Name the place, for people: robot/session and the steps, or the chunk's file."""
        if not self.session:
            return self.robot or "everywhere"
        place = f"{self.robot}/{self.session[:8]}"
        if self.first_step < 0:
            return f"{place}/{self.seq:08d}.mcap" if self.seq >= 0 else place
        last = self.first_step + self.steps - 1
        steps = f"{self.first_step}" if self.steps == 1 else f"{self.first_step}-{last}"
        return f"{place} step {steps}"

    def as_json(self) -> dict[str, Any]:
        """Give it as plain values."""
        return {"level": self.level, **asdict(self), "where": self.where}


@dataclass
class Findings:
    """Collects what was found; of each kind the first ``MAX_KEPT`` are kept, all are counted."""

    chunks: int = 0  #: that were looked at
    steps: int = 0
    bytes: int = 0
    kept: list[Finding] = field(default_factory=list)
    places: Counter[str] = field(default_factory=Counter)  #: by check
    bad_steps: Counter[str] = field(default_factory=Counter)  #: by check

    def add(self, finding: Finding) -> None:
        """Note one more."""
        self.places[finding.check] += 1
        self.bad_steps[finding.check] += finding.steps
        if self.places[finding.check] <= MAX_KEPT:
            self.kept.append(finding)

    def of_chunk(self, check: str, key: ChunkKey, steps: int, detail: str) -> None:
        """Note what is wrong with the file of a chunk of that many steps."""
        self.add(Finding(check, detail, key.robot, key.session, key.seq, steps=steps))

    def first(self, check: str) -> Finding:
        """Give the first finding of that kind."""
        return next(finding for finding in self.kept if finding.check == check)

    def count(self, level: Severity) -> int:
        """Count the places of that level."""
        return sum(n for check, n in self.places.items() if CHECKS[check].level == level)
