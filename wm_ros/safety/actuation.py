"""Stands between what is wanted of the robot and what it is sent: limits and safe actions; no ROS.

It remembers what each channel was sent last.  Before anything was sent nothing is known of where
a robot is but its measured pose, so that a ``hold`` sends that, or nothing, and never zeros.

Where a robot file has a table of choices, a command is not (command_size,): it has one index for
each channel, (channels,), so that each stops in its own way.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from wm_core.contract.spec import ActionSpec
from wm_ros.commands.channels import CommandSet, limits_of
from wm_ros.commands.choices import ChoiceTable
from wm_ros.safety.limits import Limiter

log = logging.getLogger(__name__)

#: gives the present positions (n,) of joints by their names; None where they are not known
PoseOf = Callable[[Sequence[str]], np.ndarray | None]


class Actuation:
    """Limits commands, chooses safe ones, and knows what each channel was sent.

    Args:
        commands: the robot's channels.
        pose_of: gives the present pose of joints by their names.
    """

    def __init__(self, commands: CommandSet, pose_of: PoseOf = lambda names: None) -> None:
        self.commands, self._pose_of = commands, pose_of
        self._spec: ActionSpec | None = None
        self._card_change = np.zeros(0)  # (n,) largest change per tick that the card allows
        self._safe_since_ns: int | None = None
        self._held = np.zeros(0)  # (n,) what ``hold`` repeats; NaN: nothing
        self._fresh_start = True
        self._stopped: frozenset[int] = frozenset()  # channels that are brought to rest at once

    def begin(self, spec: ActionSpec, *, period_s: float, card_period_s: float) -> None:
        """Take sizes and ranges from the first policy, which the commands' ``check`` accepted.

        Args:
            spec: of the policy's action.
            period_s: true seconds between two commands.
            card_period_s: the seconds for which the card states its largest change.
        """
        self._spec = spec
        self.commands.begin(spec, period_s)
        size, free = self.commands.slices[-1].stop, np.inf
        low, high = np.full(size, -free), np.full(size, free)
        rate, jerk = np.full(size, free), np.full(size, free)
        if not spec.discrete:
            for channel, part in zip(self.commands.channels, self.commands.slices, strict=True):
                low[part], high[part] = limits_of(channel, spec, part)
                rate[part] = channel.max_rate or free
                jerk[part] = channel.max_jerk or free
            if spec.max_change < 2.0:
                share = min(1.0, period_s / card_period_s)
                span = np.array(spec.high) - np.array(spec.low)
                rate = np.minimum(rate, share * spec.max_change * span / 2.0 / period_s)
        self._limiter = Limiter(low, high, rate, jerk, period_s)
        self._tolerance = 1e-6 * np.where(np.isfinite(high - low), high - low, 1.0)
        # How far outside of the range a pose may lie: one step, or a hundredth of the range.
        span = np.where(np.isfinite(high - low), high - low, np.inf)
        self._leeway = np.where(np.isfinite(rate), rate * period_s, 0.01 * span)
        self._held = np.full(size, np.nan)
        self.soft_start()

    @property
    def last(self) -> np.ndarray | None:
        """Give the command (command_size,) that was sent last; None while a part is unknown."""
        if self._spec is None or not np.isfinite(self._limiter.sent).all():
            return None
        return self._limiter.sent.astype(np.float32)

    @property
    def limits(self) -> tuple[np.ndarray, np.ndarray]:
        """Give the least and the most (command_size,) that is sent; empty before a policy."""
        if self._spec is None:
            return np.zeros(0), np.zeros(0)
        return self._limiter.low, self._limiter.high

    def soft_start(self) -> None:
        """Let the next command begin where the robot is: at its pose, or at rest."""
        self._fresh_start = True

    def moved_by_others(self) -> None:
        """Forget where joints were sent: a reset drives them, or a person has moved them."""
        if self._spec is None:
            return
        at = self._limiter.sent.copy()
        for motion, part in zip(self.commands.motions, self.commands.slices, strict=True):
            if motion == "position":
                at[part] = self._held[part] = np.nan
        self._limiter.start(at)
        self.soft_start()

    def limited(self, wanted: np.ndarray) -> np.ndarray | str:
        """Limit what is wanted.

        Args:
            wanted: (command_size,) physical units.

        Returns:
            (command_size,) float32 to send, or the reason, in one word, why nothing may move.
        """
        self._safe_since_ns, self._stopped = None, frozenset()
        return self._limited(wanted)

    def _limited(self, wanted: np.ndarray) -> np.ndarray | str:
        assert self._spec is not None
        if self._spec.discrete:
            return np.broadcast_to(wanted, self._limiter.sent.shape).astype(np.float32)
        if self._fresh_start:
            reason = self._begin_where_it_is()
            if reason is not None:
                return reason
        got = self._limiter.limited(wanted)
        same = np.abs(got - wanted) <= self._tolerance  # do not round what no limit touches
        return np.where(same, wanted, got).astype(np.float32)

    def _begin_where_it_is(self) -> str | None:
        """Begin at the measured pose and at rest; or name the reason why that cannot be done."""
        at, slewed = self._limiter.sent.copy(), self._limiter.slewed
        pairs = zip(self.commands.motions, self.commands.slices, strict=True)
        for i, (motion, part) in enumerate(pairs):
            if motion == "position":
                pose = self._pose(i)
                at[part] = at[part] if pose is None else pose
            else:
                at[part] = np.clip(0.0, self._limiter.low[part], self._limiter.high[part])
        if (slewed & ~np.isfinite(at)).any():
            return "no_pose"
        if (slewed & self._outside(at)).any():
            return "pose_out_of_range"
        self._limiter.start(at)
        self._fresh_start = False
        return None

    def _outside(self, at: np.ndarray, part: slice = slice(None)) -> np.ndarray:
        """Mark (n,) bool which elements of a pose ``at`` (n,) lie too far outside of the range."""
        limiter, leeway = self._limiter, self._leeway[part] + self._tolerance[part]
        return (limiter.low[part] - at > leeway) | (at - limiter.high[part] > leeway)

    def _pose(self, i: int) -> np.ndarray | None:
        """Measure the pose (n,) of channel ``i``; None where its joints are not known."""
        names = self.commands.names[i]
        return self._pose_of(names) if names else None

    # ------------------------------------------------------------------------------ safe actions

    def safe(
        self, now_ns: int, *, urgent: bool = False, final: bool = False
    ) -> tuple[np.ndarray | None, frozenset[int]]:
        """Choose what stops the robot.

        Args:
            now_ns: steady time.
            urgent: an emergency stop: a velocity becomes zero though it should be held, and
                joints stay where they are instead of moving to a posture.
            final: the last command before the node sends no more: a hold that ends by its time
                would have nobody to end it, so it ends now.

        Returns:
            (command_size,) physical units, empty before a policy has told the sizes, or None for
            nothing at all; and the channels to which nothing is sent.
        """
        channels = self.commands.channels
        if self._safe_since_ns is None:
            self._safe_since_ns = now_ns
        if self._spec is None:
            held = {i for i, channel in enumerate(channels) if channel.safe != "zero"}
            command = np.zeros(0, np.float32)
        else:
            command = np.nan_to_num(self._limiter.sent).astype(np.float32)
            held = set()
            for i in range(len(channels)):
                lasted_s = np.inf if final else (now_ns - self._safe_since_ns) * 1e-9
                try:
                    value = self._safe_value(i, lasted_s, urgent)
                except Exception:  # of the last command the other channels get theirs
                    if not final:
                        raise
                    log.exception("channel %d: no safe action is known, so nothing is sent", i)
                    value = None
                if value is None:
                    held.add(i)
                else:
                    command[self.commands.slices[i]] = value
        moves = {i for i, c in enumerate(channels) if isinstance(c.safe, tuple) and not urgent}
        self._stopped = frozenset({*range(len(channels))} - held - moves)
        if len(held) == len(channels):
            return None, frozenset(held)
        return command, frozenset(held)

    def taken_over(
        self, values: Mapping[int, np.ndarray | None], now_ns: int
    ) -> tuple[np.ndarray, frozenset[int]] | str:
        """Combine what a person commands with the safe action of every other channel.

        Args:
            values: by channel the numbers (n,), or None where the person says stop.
            now_ns: steady time.

        Returns:
            (command_size,) within the limits, and the channels to which nothing is sent; or the
            reason, in one word, why nothing may move.
        """
        safe, held = self.safe(now_ns)
        command = np.nan_to_num(self._limiter.sent).astype(np.float32) if safe is None else safe
        wanted = command.copy()
        told = {i: self._at_rest(i) if v is None else v for i, v in values.items()}
        known = {i: v for i, v in told.items() if v is not None}
        for i, value in known.items():
            wanted[self.commands.slices[i]] = value
        limited = self._limited(wanted)
        if isinstance(limited, str):
            return limited
        for i in known:
            command[self.commands.slices[i]] = limited[self.commands.slices[i]]
        self._stopped -= known.keys()
        return command, held - known.keys()

    def _at_rest(self, i: int) -> np.ndarray | None:
        """Give what brings channel ``i`` to rest, (n,); None where no position is known."""
        return self._stay(i) if self.commands.motions[i] == "position" else self._rest(i)

    def _safe_value(self, i: int, lasted_s: float, urgent: bool) -> np.ndarray | None:
        """Choose the numbers (n,) that stop channel ``i``; None: send nothing."""
        channel, part = self.commands.channels[i], self.commands.slices[i]
        motion, safe = self.commands.motions[i], channel.safe
        moving = motion != "position"
        if safe == "none":
            return None
        if safe == "hold" and moving:
            # An effort that is held may carry a load; of choices the file has one that stops.
            carries = motion == "effort" and self.commands.table is None
            stops = (urgent and not carries) or _over(channel.hold_s, lasted_s)
            return self._rest(i) if stops else self._known(self._limiter.sent[part])
        if safe == "zero":
            return self._rest(i)
        if safe == "hold" or (urgent and motion == "position"):
            return self._stay(i)
        if moving:
            return np.array(safe, float)
        return self._towards(i, np.array(safe, float))

    def _rest(self, i: int) -> np.ndarray:
        """Give what stops channel ``i`` (n,): zeros, or what is nearest to them in the range.

        Of choices the index of the one that stops: as the robot file has it, and only without a
        file as the policy says.
        """
        assert self._spec is not None
        if self.commands.table is not None:
            return np.array([self.commands.table.stop])
        if self.commands.motions[i] == "choice":
            return self._spec.zero_command
        part = self.commands.slices[i]
        return np.clip(0.0, self._limiter.low[part], self._limiter.high[part])

    @staticmethod
    def _known(values: np.ndarray) -> np.ndarray | None:
        return values if np.isfinite(values).all() else None

    def _stay(self, i: int) -> np.ndarray | None:
        """Give where channel ``i`` is to stay (n,): what it was sent last, or its first pose."""
        part = self.commands.slices[i]
        if self._known(self._limiter.sent[part]) is not None:
            return self._limiter.sent[part]
        if self.commands.table is not None:
            return None  # no choice says where the joints are
        if self._known(self._held[part]) is None:
            pose = self._pose(i)
            if pose is None or self._outside(pose, part).any():
                return None
            self._held[part] = np.clip(pose, self._limiter.low[part], self._limiter.high[part])
        return self._held[part]

    def _towards(self, i: int, posture: np.ndarray) -> np.ndarray | None:
        """Give the next step (n,) to a posture (n,), within the limits; None from nowhere."""
        part = self.commands.slices[i]
        start = self._stay(i)
        if start is None:
            return None
        if self._known(self._limiter.sent[part]) is None:
            at = self._limiter.sent.copy()
            at[part] = start
            self._limiter.start(at)
        wanted = np.nan_to_num(self._limiter.sent)
        wanted[part] = posture
        return self._limiter.limited(wanted)[part]

    # ------------------------------------------------------------------------------ what was sent

    def sent(self, command: np.ndarray | None, held: frozenset[int]) -> None:
        """Note what was sent: ``command`` (command_size,), but for the channels ``held``."""
        if self._spec is None:
            return
        size = self._limiter.sent.size
        which, stopped = np.zeros(size, bool), np.zeros(size, bool)
        values = self._limiter.sent.copy()
        for i, part in enumerate(self.commands.slices):
            if i not in held and command is not None and command.size == size:
                which[part], stopped[part], values[part] = True, i in self._stopped, command[part]
            elif self.commands.motions[i] in ("velocity", "effort"):
                which[part] = stopped[part] = True  # a driver that hears nothing stops
                stop = 0.0 if self.commands.table is None else self.commands.table.stop
                values[part] = np.where(np.isfinite(values[part]), stop, np.nan)
        self._held[which] = np.nan
        self._limiter.remember(values, which, stopped)

    def moving(self, share: float) -> bool:
        """Tell whether what was sent last moves the robot, as far as a command tells that.

        A velocity or effort does beyond ``share`` of its range, a position while it changes by a
        tenth of that each time, an index that is not the one which stops; of a table of choices
        every velocity or effort but zero, and every change of a position.
        """
        assert self._spec is not None
        limiter, table = self._limiter, self.commands.table
        if table is not None:
            return self._rows_move(table)
        for motion, part in zip(self.commands.motions, self.commands.slices, strict=True):
            span = limiter.high[part] - limiter.low[part]
            now, change = limiter.sent[part], limiter.change[part]
            if motion in ("velocity", "effort") and (np.abs(now) > share * span).any():
                return True
            if motion == "position" and (np.abs(change) > 0.1 * share * span).any():
                return True
            chosen = motion == "choice" and self._known(now) is not None
            if chosen and (now != self._spec.zero_command).any():
                return True
        return False

    def _rows_move(self, table: ChoiceTable) -> bool:
        for i, motion in enumerate(self.commands.motions):
            now, change = self._limiter.sent[i], self._limiter.change[i]
            if np.isfinite(now):
                rests = table.numbers(i, now - change) if motion == "position" else 0.0
                if (table.numbers(i, now) != rests).any():
                    return True
        return False

    def action_of(self, command: np.ndarray) -> np.ndarray | None:
        """Give the action (A,) whose command (command_size,) or (channels,) this is.

        None where each channel was sent a choice and none of them is that of all.
        """
        assert self._spec is not None
        if self.commands.table is None:
            return self._spec.from_physical(command)
        choice = self.commands.table.choice_of(command)
        return None if choice is None else self._spec.from_physical(np.array([choice]))

    def prev_action(self) -> np.ndarray:
        """Give what was sent last as an action (A,): a pose or rest where nothing was sent.

        Where no single choice says what was sent, the one that stops.
        """
        assert self._spec is not None
        at = self._limiter.sent.copy()
        for i, part in enumerate(self.commands.slices):
            if self._known(at[part]) is None:
                rest = self._at_rest(i)
                at[part] = self._rest(i) if rest is None else rest
        action = self.action_of(at.astype(np.float32))
        return self._spec.from_physical(self._spec.zero_command) if action is None else action


def _over(hold_s: float, lasted_s: float) -> bool:
    """Tell whether a hold of so many seconds is over; 0 is without end."""
    return 0.0 < hold_s <= lasted_s
