"""Finds the action that was sent in answer to an observation, among the commands of a bag.

It is the command that carries the observation's own stamp, else the first one that was written
between this observation and the next.  Where none was, the one before still counts: a position
until another one comes, a velocity or an effort for ``hold_s``, as a driver's watchdog has it.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from wm_core.contract.errors import SpecMismatch
from wm_core.contract.spec import ActionSpec
from wm_core.robot import RobotFile
from wm_ros.commands.command import Command
from wm_ros.commands.from_file import commands_of_channels
from wm_ros.convert import to_ns

_SLACK = 1e-4  #: share of its range by which rounding may carry a command beyond it


class _Sent(NamedTuple):
    log_ns: int
    stamp_ns: int  #: 0 where the message has none
    values: np.ndarray | None  #: (n,) in physical units; None: it says stop


class SentAnswer(NamedTuple):
    """Holds the action that answered an observation."""

    action: np.ndarray  #: (A,) float32 in [-1, 1] or one-hot
    is_intervention: bool


class SentCommands:
    """Remembers the commands of every channel, in the order of the bag.

    Args:
        file: of the robot, whose channels say how messages are read.
        names: leads from topics of the file to those of the bag.
        period_s: of one agent step.
        hold_s: seconds that a velocity or an effort counts after it was sent.
    """

    def __init__(
        self, file: RobotFile, names: Mapping[str, str], period_s: float, hold_s: float
    ) -> None:
        self._spec: ActionSpec = file.action_spec(period_s)
        self._set = commands_of_channels(file.actions, installed=False)
        self._set.begin(self._spec, period_s)
        self._topics = [names[channel.topic] for channel in file.actions]
        self._takeovers = {
            names[c.takeover or ""] for c in file.actions if (c.takeover or "") in names
        }
        held = [c.motion(()) == "position" for c in self._set.channels]
        self._hold_ns = [2**62 if always else round(hold_s * 1e9) for always in held]
        self._sent: list[deque[_Sent]] = [deque() for _ in self._topics]
        self._taken_over_ns: deque[int] = deque()
        self.left_out: Counter[str] = Counter()
        self.clipped: Counter[str] = Counter()  #: commands beyond the range, by element
        self.problem = ""  #: why a command was not read

    @property
    def topics(self) -> dict[str, str]:
        """List the messages by the topics of the bag."""
        found = dict(
            zip(self._topics, (c.command.message for c in self._set.channels), strict=True)
        )
        return found | dict.fromkeys(self._takeovers, self._set.channels[0].command.message)

    def hear(
        self, topic: str, log_ns: int, data: bytes, read: Callable[[bytes, str], Any]
    ) -> None:
        """Remember a message of one of ``topics`` that was written at ``log_ns``."""
        if topic in self._takeovers:
            self._taken_over_ns.append(log_ns)
            return
        i = self._topics.index(topic)
        command = self._set.channels[i].command
        msg = read(data, command.message)
        try:
            values = self._set.decode(i, msg)
        except SpecMismatch as error:
            self.left_out["command_refused"] += 1
            self.problem = f"{topic}: {error}"
            return
        self._sent[i].append(_Sent(log_ns, _stamp(command, msg), values))

    def answer(self, stamp_ns: int, seen_ns: int, until_ns: int) -> SentAnswer | None:
        """Find what answered an observation; None where a channel sent nothing that counts.

        Of choices it is the one that commands all channels what they were sent; None without one.

        Args:
            stamp_ns: of the observation.
            seen_ns: when its message was written.
            until_ns: when that of the next observation was written.
        """
        parts = []
        for sent, hold_ns in zip(self._sent, self._hold_ns, strict=True):
            found = _find(sent, stamp_ns, seen_ns, until_ns, hold_ns)
            _forget(sent, seen_ns)
            if found is None:
                return None
            parts.append(found)
        while self._taken_over_ns and self._taken_over_ns[0] < seen_ns:
            self._taken_over_ns.popleft()
        taken = bool(self._taken_over_ns) and self._taken_over_ns[0] < until_ns
        action = self._action([part.values for part in parts])
        return None if action is None else SentAnswer(action, taken)

    def _action(self, parts: list[np.ndarray | None]) -> np.ndarray | None:
        spec, table = self._spec, self._set.table
        if table is not None:
            stop = np.array([table.stop])
            sent = np.concatenate([stop if values is None else values for values in parts])
            choice = table.choice_of(sent)
            return None if choice is None else spec.from_physical(np.array([choice]))
        command = spec.zero_command
        for values, part in zip(parts, self._set.slices, strict=True):
            if values is not None:
                command[part] = values
        low, high = np.array([spec.low, spec.high])
        slack = _SLACK * (high - low)
        for i in np.flatnonzero((command < low - slack) | (command > high + slack)):
            self.clipped[spec.names[i] if i < len(spec.names) else f"number {i + 1}"] += 1
        return spec.from_physical(command)


def _stamp(command: Command, msg: Any) -> int:
    return to_ns(msg.header.stamp) if command.stamped else 0


def _find(
    sent: deque[_Sent], stamp_ns: int, seen_ns: int, until_ns: int, hold_ns: int
) -> _Sent | None:
    before = None
    for one in sent:
        if one.stamp_ns == stamp_ns and stamp_ns:
            return one
    for one in sent:
        if one.log_ns >= until_ns:
            break
        if one.log_ns >= seen_ns:
            return one
        before = one
    return before if before is not None and seen_ns - before.log_ns <= hold_ns else None


def _forget(sent: deque[_Sent], seen_ns: int) -> None:
    """Forget all but the last of those that were sent before."""
    while len(sent) > 1 and sent[1].log_ns < seen_ns:
        sent.popleft()
