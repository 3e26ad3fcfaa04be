"""Joins the channels of a robot into its command: limits, safe action and message of each.

The command is flat, (command_size,) in physical units; each channel carries its own slice of it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np

from wm_core.contract.errors import SpecMismatch
from wm_core.contract.spec import ActionSpec
from wm_ros.commands.choices import (
    ROUNDING,
    ChoiceTable,
    check_indices,
    check_one_of,
    check_sent_whole,
    nearest_within,
)
from wm_ros.commands.command import MOTIONS, Command, Motion
from wm_ros.commands.owner import largest

#: what stops a channel: a word, or the numbers of a posture
SafeAction = Literal["zero", "hold", "none"] | tuple[float, ...]


@dataclass(frozen=True)
class CommandChannel:
    """Describes one topic that moves a part of the robot.

    Limits are one number per element; a policy's card may narrow them.  Where no range is stated,
    that of ``commands.owner`` holds.
    """

    command: Command
    safe: SafeAction = "zero"
    hold_s: float = 0.0  #: seconds that ``hold`` lasts, then zero; 0: without end
    size: int | None = None  #: elements; None: all of the policy's action
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()
    most: tuple[float, ...] = ()  #: largest magnitude, where there is no ``low`` and ``high``
    max_rate: tuple[float, ...] = ()  #: units per second
    max_jerk: tuple[float, ...] = ()  #: units per second squared
    units: tuple[str, ...] = ()
    mode: Motion | None = None  #: what its numbers command, where message and unit do not tell
    choices: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    takeover: str = ""  #: topic of the same message whose commands go out instead
    frame: str = ""  #: frame of reference; empty: that of the node

    @property
    def label(self) -> str:
        """Name the channel to people."""
        return f"{self.command.topic} ({self.command.name})"

    def motion(self, units: Sequence[str]) -> Motion:
        """Tell what its numbers command; a position where neither message nor unit tells."""
        stated = self.command.motion or self.mode
        if stated is not None:
            return stated
        known = {MOTIONS[unit] for unit in (self.units or units) if unit in MOTIONS}
        return known.pop() if len(known) == 1 else "position"


class CommandSet:
    """Holds every channel of a robot, which together carry its command.

    Args:
        channels: at least one; in their order they make up the command.
    """

    def __init__(self, channels: Sequence[CommandChannel]) -> None:
        self.channels = tuple(channels)
        self.slices: tuple[slice, ...] = ()  #: of the command, by channel; of a table its index
        self.motions: tuple[Motion, ...] = tuple(c.motion(()) for c in self.channels)
        self.action: ActionSpec | None = None
        self.names = tuple(c.command.names for c in self.channels)  #: of the elements
        self._period_s = 0.0
        #: of a robot file whose action is a choice: a command has one index for each channel
        self.table = self._table() if self.choices else None

    @property
    def choices(self) -> tuple[str, ...]:
        """Name the choices, where every channel has a table of the numbers of each."""
        return tuple(self.channels[0].choices)

    def check(self, action: ActionSpec, what: str = "the policy") -> None:
        """Raise ``SpecMismatch`` where these channels cannot carry, or not safely stop, an action.

        Args:
            action: of a policy.
            what: whose action it is, for the error.
        """
        if self.table is not None:
            check_one_of(self.choices, action, what)
            self.table.check(self.choices)
            for channel, motion in zip(self.channels, self.motions, strict=True):
                _check_unlimited(channel)
                check_stop(channel, motion)
            return
        sizes = self._sizes(action, what)
        start = 0
        for channel, size in zip(self.channels, sizes, strict=True):
            part = slice(start, start + size)
            start += size
            channel.command.check(
                size,
                discrete=action.discrete,
                what=what,
                units=channel.units or action.units[part],
            )
            if action.discrete:
                _check_unlimited(channel)
            else:
                _check_counts(channel, size)
                _check_units(channel, action, part, what)
                _check_names(channel, action, part, what)
                low, high = limits_of(channel, action, part)
                _check_safe(channel, channel.motion(action.units[part]), low, high)

    def begin(self, action: ActionSpec, period_s: float) -> None:
        """Take sizes, names and period from the first policy, which ``check`` has accepted."""
        self.action, self._period_s = action, period_s
        if self.table is not None:
            self.slices = tuple(slice(i, i + 1) for i in range(len(self.channels)))
            return
        if action.discrete:
            count = len(self.channels)
            choice: Motion = "choice"
            whole = slice(0, action.command_size)
            self.slices, self.motions = (whole,) * count, (choice,) * count
            self.names = (action.names,) * count
            for channel in self.channels:
                channel.command.begins = action.begins
            return
        ends = np.cumsum([0, *self._sizes(action, "the policy")]).tolist()
        self.slices = tuple(map(slice, ends[:-1], ends[1:]))
        pairs = list(zip(self.channels, self.slices, strict=True))
        self.names = tuple(c.command.names or action.names[part] for c, part in pairs)
        self.motions = tuple(channel.motion(action.units[part]) for channel, part in pairs)

    def use(self, other: CommandSet) -> None:
        """Stop by the safe actions of ``other``, whose channels are these, from now on.

        Raises:
            SpecMismatch: for a safe action that moves the robot, or leaves the range.
        """
        if self.action is not None:
            other.check(self.action)
        self.channels = tuple(
            replace(mine, safe=theirs.safe, hold_s=theirs.hold_s)
            for mine, theirs in zip(self.channels, other.channels, strict=True)
        )

    def encode(
        self,
        command: np.ndarray,
        *,
        stamp_ns: int,
        frame_id: str,
        held: frozenset[int] = frozenset(),
    ) -> list[tuple[int, Any]]:
        """Make the message of each channel that gets one.

        Args:
            command: (command_size,) physical units, or of a table (channels,) an index for each;
                empty, before the first policy, stops those channels that an empty message stops,
                and leaves the others alone.
            stamp_ns: stamp of the image that it answers.
            frame_id: such as base_link.
            held: channels to which nothing is sent.

        Returns:
            (number of the channel, message), in the channels' order.
        """
        found = []
        for i, channel in enumerate(self.channels):
            coder = channel.command
            if i in held or (command.size == 0 and not coder.has_empty):
                continue
            values, names = (command[self.slices[i]] if command.size else command), self.names[i]
            if self.table is not None and command.size:
                values, names = self.table.numbers(i, values[0]), ()
            coder.reach_s = coder.reach_s or self._period_s
            frame = channel.frame or frame_id
            msg = coder.encode(values, names=names, stamp_ns=stamp_ns, frame_id=frame)
            found.append((i, msg))
        return found

    def decode(self, i: int, msg: Any) -> np.ndarray | None:
        """Read the numbers (n,) that a message for channel ``i`` carries; None: it says stop.

        Where the action is a choice, the nearest counts that is not more than was asked for.

        Raises:
            SpecMismatch: for names, or a number of numbers, that do not fit, NaN, or no choice
                of that index.
        """
        part, channel = self.slices[i], self.channels[i]
        if not channel.choices:
            read = channel.command.decode(msg, part.stop - part.start, self.names[i])[0]
            if read is not None and self.action is not None and self.action.discrete:
                check_indices(read, self.action)
            return read
        rows = np.array([*channel.choices.values()])
        value, _ = channel.command.decode(msg, rows.shape[1])
        if value is None:
            return None
        choice = nearest_within(rows, value, bounded=channel.motion(channel.units) != "position")
        return None if choice is None else np.array([choice], np.float32)

    def warnings(self) -> list[str]:
        """List what a person should know of safe actions and limits, one sentence each."""
        return self.narrowed() + [
            f"{channel.label}: hold repeats the last {motion}, so the robot may move on when it "
            f"should stop{f', for {channel.hold_s} s' if channel.hold_s else ''}; "
            "zero stops it" + ("" if channel.hold_s else ", hold_s bounds the time")
            for channel, motion in zip(self.channels, self.motions, strict=True)
            if channel.safe == "hold" and motion in ("velocity", "effort")
        ]

    def narrowed(self) -> list[str]:
        """Say of each channel without an owner's range where that narrows the policy's."""
        if self.action is None or self.action.discrete:
            return []
        found = []
        for channel, part in zip(self.channels, self.slices, strict=True):
            if channel.low or channel.high or channel.most:
                continue
            most = assumed(channel, self.action, part)
            asked = np.maximum(np.abs(self.action.low[part]), np.abs(self.action.high[part]))
            if (asked > most + ROUNDING).any():
                found.append(
                    f"{channel.label}: no limit of this robot is stated, so at most "
                    f"{most.round(3).tolist()} is sent, the policy's card says {asked.tolist()}; "
                    "state max_command, or low and high in a robot file"
                )
        return found

    def _sizes(self, action: ActionSpec, what: str) -> list[int]:
        """Count the elements of each channel.

        Raises:
            SpecMismatch: where they do not add up to the action.
        """
        stated = [channel.size for channel in self.channels]
        if len(stated) == 1 and stated[0] is None:
            return [action.command_size if action.discrete else action.size]
        sizes = [size or 0 for size in stated]
        if action.discrete or sum(sizes) != action.size:
            parts = ", ".join(
                f"{channel.label} {size}"
                for channel, size in zip(self.channels, sizes, strict=True)
            )
            got = action.kind if action.discrete else f"{action.size} elements"
            raise SpecMismatch(
                f"the robot's channels carry {sum(sizes)} elements ({parts}); "
                f"the action of {what} has {got}"
            )
        return sizes

    def _table(self) -> ChoiceTable:
        rows = [np.array([c.choices[name] for name in self.choices]) for c in self.channels]
        return ChoiceTable(rows, [motion != "position" for motion in self.motions])


def limits_of(
    channel: CommandChannel, action: ActionSpec, part: slice
) -> tuple[np.ndarray, np.ndarray]:
    """Give the range that a channel's numbers may have: its own, cut to that of the action.

    Returns:
        low (n,) and high (n,) in physical units.

    Raises:
        SpecMismatch: where nothing is left between them.
    """
    low, high = np.array(action.low[part]), np.array(action.high[part])
    if not channel.low and not channel.high:
        most = assumed(channel, action, part)
        if channel.most:
            most = np.where(np.isfinite(channel.most), channel.most, most)
        low, high = np.maximum(low, -most), np.minimum(high, most)
    if channel.low:
        low = np.maximum(low, channel.low)
    if channel.high:
        high = np.minimum(high, channel.high)
    if (low > high).any():
        own = f"{list(channel.low)} .. {list(channel.high)}" if channel.low else "(max_command)"
        raise SpecMismatch(
            f"{channel.label}: its range {own} and that of the policy, "
            f"{list(action.low[part])} .. {list(action.high[part])}, do not meet"
        )
    return low, high


def assumed(channel: CommandChannel, action: ActionSpec, part: slice) -> np.ndarray:
    """Give the largest magnitude (n,) of a channel whose owner has stated none."""
    units, size = channel.units or action.units[part], len(action.low[part])
    twist = channel.command.message.startswith("geometry_msgs/Twist")
    fields = channel.command.fields if twist else ()
    return largest(units, fields, channel.motion(units), size)


def _check_counts(channel: CommandChannel, size: int) -> None:
    for name in ("max_rate", "max_jerk", "low", "high", "most"):
        count = len(getattr(channel, name))
        if count not in (0, 1, size):
            raise SpecMismatch(
                f"{channel.label}: {name} has {count} numbers, expected 1 or {size}"
            )


def _check_unlimited(channel: CommandChannel) -> None:
    limits = {"max_rate": channel.max_rate, "max_jerk": channel.max_jerk}
    limits["max_command"] = channel.most
    check_sent_whole(channel.label, channel.safe, limits)


def _check_units(channel: CommandChannel, action: ActionSpec, part: slice, what: str) -> None:
    known = action.units[part]
    pairs = zip(channel.units, known, strict=False)
    if any(a and b and _plain(a) != _plain(b) for a, b in pairs):
        raise SpecMismatch(
            f"{channel.label}: expected the units {list(channel.units)}, those of {what} are "
            f"{list(known)}"
        )


def _plain(unit: str) -> str:
    """Write a unit without what people write between its parts."""
    return re.sub(r"[ *·.]", "", unit)


def _check_names(channel: CommandChannel, action: ActionSpec, part: slice, what: str) -> None:
    wanted, known = channel.command.names, action.names[part]
    if wanted and known and tuple(wanted) != tuple(known):
        raise SpecMismatch(
            f"{channel.label}: expected the names {list(wanted)}, those of {what} are "
            f"{list(known)}; bring them into one order"
        )


def _check_safe(
    channel: CommandChannel, motion: Motion, low: np.ndarray, high: np.ndarray
) -> None:
    """Raise ``SpecMismatch`` for a safe action that moves the robot, or leaves the range."""
    check_stop(channel, motion)
    safe = channel.safe
    if safe in ("hold", "none"):
        return
    posture = np.zeros(low.size) if safe == "zero" else np.array(safe, float)
    if posture.size == 1:
        posture = np.full(low.size, posture[0])
    if posture.size != low.size:
        raise SpecMismatch(
            f"{channel.label}: safe_posture has {posture.size} numbers, expected {low.size}"
        )
    if (posture < low - 1e-6).any() or (posture > high + 1e-6).any():
        raise SpecMismatch(
            f"{channel.label}: the safe action {posture.tolist()} is outside of its range "
            f"{low.tolist()} .. {high.tolist()}; set safe_action to hold or none, or state a "
            "safe_posture within the range"
        )


def check_stop(channel: CommandChannel, motion: Motion | None) -> None:
    """Raise ``SpecMismatch`` for a safe action that would move the robot.

    Args:
        channel: that is to be stopped.
        motion: what its numbers command; None: not known before there is a policy.
    """
    if motion != "position":
        return
    if channel.safe == "zero":
        raise SpecMismatch(
            f"{channel.label}: safe_action is zero, but its numbers are positions, or have no "
            "unit that says otherwise, so zeros would move the robot; set safe_action to hold or "
            "none, or state a safe_posture"
        )
    if not isinstance(channel.safe, str) and not channel.max_rate:
        raise SpecMismatch(
            f"{channel.label}: a posture needs max_rate, so that the robot moves there slowly"
        )
