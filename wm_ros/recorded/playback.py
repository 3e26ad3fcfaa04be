"""Plays a bag to a robot's own sensors, rewards and recorder, which make Steps of it.

A message arrives when the bag says that it was written, so an observation holds what the robot
could have known by then.  Its step is complete when the next one begins, for only then is it
known what was sent in answer.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from wm_core.contract.errors import SpecMismatch
from wm_core.contract.step import Step
from wm_core.robot import RobotFile
from wm_ros.episodes import signal_message
from wm_ros.episodes.experience import Recorder, Signal
from wm_ros.episodes.judge import Judge
from wm_ros.recorded.bag import Bag
from wm_ros.recorded.kept import KeptPictures
from wm_ros.recorded.mapping import FLAG, SIGNAL, TopicMap
from wm_ros.recorded.pace import StepPace
from wm_ros.recorded.sent import SentCommands
from wm_ros.robot import Robot
from wm_ros.sensors.source import FAR_NS, Senses, Source
from wm_ros.sensors.table import Sensors
from wm_ros.settings import PolicySettings


@dataclass
class _Open:
    """Is an observation whose answer is still to come."""

    senses: Senses
    seen_ns: int
    signal: Signal | None = None
    judged: bool = False
    between: str | None = None  #: why no episode runs


class Playback:
    """Makes Steps of one bag; used once.

    Args:
        bag: that is open.
        found: the robot file and where its topics are.
        hold_s: seconds that a velocity or an effort counts after it was sent.
        log_times: whether a message's time is that at which it was written, not its stamp.
    """

    def __init__(
        self, bag: Bag, found: TopicMap, hold_s: float, *, log_times: bool = False
    ) -> None:
        file = found.file
        self._bag, self._file = bag, file
        self._spec = file.spec()
        self._period_ns = round(self._spec.period_s * 1e9)
        self._now_ns = self._ahead_ns = 0  # time of the bag; of the pace's clock before it
        self._steps: list[Step] = []
        self._open: _Open | None = None
        self.left_out: Counter[str] = Counter()
        self.notes: list[str] = []
        self._sensors = self._heard(file, found.names)
        if log_times:
            for source in self._sensors.sources:
                source.stamped = False
        self._sent = SentCommands(file, found.names, self._spec.period_s, hold_s)
        self._judge = Judge(Robot(PolicySettings(), file), find=bag.kind)
        self._judge.begin(self._spec, self._period_ns)
        for reading in self._judge.readings.values() if log_times else ():
            reading.stamped = False
        self._recorder = Recorder(reward_required=self._judge.reward.required)
        self._recorder.open(self._keep, self._period_ns)
        self._prev_action = np.zeros(self._spec.action.size, np.float32)
        self._sensors.on_sent(self._prev_action)
        first = self._sensors.first
        guess_ns = 0.0
        if first is not None:
            count = bag.topics[first.topic].count
            guess_ns = (bag.end_ns - bag.begin_ns) / max(1, count - 1)
        self._kept = KeptPictures(file, self._sensors.sources)
        self._pace = StepPace(first.topic if first is not None else "", self._period_ns, guess_ns)
        self._tick_ns: int | None = None
        self._sizes: dict[str, tuple[int, int]] = {}
        self._handlers = self._all_handlers(file, found.names)

    def _heard(self, file: RobotFile, names: Mapping[str, str]) -> Sensors:
        sensors = Sensors.of_file(file, self._period_ns)
        for source in sensors.sources:
            source.topic = names[source.topic]
            source.steady_now = lambda: self._now_ns
            source.ros_now = lambda: self._now_ns + self._ahead_ns
            source.parse = partial(self._parsed, source)
        sensors.begin(self._spec, self._period_ns)
        return sensors

    def _parsed(self, source: Source, data: bytes) -> Any:
        return self._bag.read(data, source.message)

    def _all_handlers(
        self, file: RobotFile, names: Mapping[str, str]
    ) -> dict[str, list[Callable[[bytes], None]]]:
        """List what each topic of the bag is told to; what sets the pace comes last."""
        found: dict[str, list[Callable[[bytes], None]]] = {}

        def add(topic: str | None, act: Callable[[bytes], None]) -> None:
            if topic is not None and topic in names.values():
                found.setdefault(topic, []).append(act)

        for topic in self._sent.topics:
            add(topic, partial(self._on_command, topic))
        for name, reading in self._judge.readings.items():
            reading.topic = names[file.values[name].topic]
            add(reading.topic, partial(self._on_number, name))
        if self._judge.reward.topic is not None:
            add(names.get(self._judge.reward.topic), self._on_signal)
        rules, cycle = file.episode, self._judge.episodes
        for rule, act in (
            ("start_topic", cycle.ask_start),
            ("end_topic", partial(self._ask_end, False, "end_topic")),
            ("fail_topic", partial(self._ask_end, True, "fail_topic")),
        ):
            add(names.get(getattr(rules, rule) or ""), partial(self._on_flag, act))
        sources = sorted(self._sensors.sources, key=lambda s: s is self._sensors.first)
        for source in sources:
            add(source.topic, partial(self._on_sensor, source))
        return found

    # ---------------------------------------------------------------------------- messages

    def steps(self, begin_ns: int | None = None, end_ns: int | None = None) -> Iterator[Step]:
        """Yield the steps of what was written from ``begin_ns`` until ``end_ns``."""
        for topic, log_ns, data in self._bag.messages(self._handlers.keys(), begin_ns, end_ns):
            self._advance(log_ns)
            for act in self._handlers[topic]:
                act(data)
            yield from self._taken()
        self._finish(self._now_ns + self._period_ns)
        self._recorder.close()
        yield from self._taken()
        self._sum_up()

    def _taken(self) -> list[Step]:
        taken, self._steps = self._steps, []
        return taken

    def _keep(self, step: Step) -> bool:
        self._steps.append(replace(step, jpegs=self._kept.of(step)))
        return True

    def _advance(self, log_ns: int) -> None:
        """Go on to the time of the next message."""
        if self._sensors.first is None:
            self._tick_ns = log_ns if self._tick_ns is None else self._tick_ns
            while self._tick_ns < log_ns:
                self._now_ns = self._tick_ns
                self._observe()
                self._tick_ns += self._period_ns
        self._now_ns = log_ns
        waiting = self._open
        if waiting is not None and not waiting.judged:
            waited_ns = log_ns - waiting.seen_ns
            stamp_ns, period_ns = waiting.senses.stamp_ns, self._period_ns
            if not self._judge.may_come(stamp_ns, waited_ns=waited_ns, period_ns=period_ns):
                self._judge_open()

    def _on_command(self, topic: str, data: bytes) -> None:
        self._sent.hear(topic, self._now_ns, data, self._bag.read)

    def _on_number(self, name: str, data: bytes) -> None:
        reading = self._judge.readings[name]
        msg = self._bag.read(data, reading.message)
        reading.on_message(msg, self._now_ns, self._now_ns + self._ahead_ns)

    def _on_signal(self, data: bytes) -> None:
        try:
            self._judge.put(signal_message.to_signal(self._bag.read(data, SIGNAL)))
        except SpecMismatch:
            self.left_out["signals_refused"] += 1

    def _on_flag(self, act: Callable[[], str | None], data: bytes) -> None:
        if self._bag.read(data, FLAG).data:
            act()

    def _ask_end(self, terminal: bool, why: str) -> str | None:
        return self._judge.episodes.ask_end(self._now_ns, terminal=terminal, why=why)

    def _on_sensor(self, source: Source, data: bytes) -> None:
        if source is not self._sensors.first:
            self._sensors.on_message(source, data, self._now_ns)
            return
        before = source.stamp_ns
        self._sensors.on_message(source, data, self._now_ns)
        if self._pace.takes(source.stamp_ns):
            self._follow(source)
            self._observe()
        elif source.stamp_ns < before:
            source.stamp_ns = before

    def _follow(self, first: Source) -> None:
        """Stamp what has no stamp by the clock of what sets the pace, where that is another."""
        behind_ns = self._now_ns - first.stamp_ns
        apart = abs(behind_ns) > FAR_NS
        if apart and not self._ahead_ns:
            where = "behind" if behind_ns > 0 else "ahead of"
            self.notes.append(
                f"stamps of {first.topic} lie {abs(behind_ns) * 1e-9:.1f} s {where} the times at "
                "which messages were written (another clock, or simulated time): what has no "
                "stamp is taken by when it was written, as seen from that clock"
            )
        self._ahead_ns = -behind_ns if apart else 0
        cadence_ns = self._pace.cadence_ns
        self._recorder.follow(cadence_ns, self._period_ns)

    # ------------------------------------------------------------------------------- steps

    def _observe(self) -> None:
        """Begin a step: observe, after the step before is complete."""
        self._finish(self._now_ns)
        ros_now_ns = self._now_ns + self._ahead_ns
        senses = self._sensors.sense(fresh=True, now_ns=self._now_ns, ros_now_ns=ros_now_ns)
        self._judge.on_tick()
        if senses.obs is None:
            self._skip(senses.refused or "no_frame")
            return
        self._note_sizes()
        self._kept.note(senses.obs, senses.stamp_ns)
        self._open = _Open(senses, self._now_ns, between=self._judge.stops(self._now_ns))

    def _judge_open(self) -> None:
        waiting = self._open
        if waiting is not None and not waiting.judged:
            waiting.judged = True
            waiting.signal = self._judge.judge(waiting.senses, self._prev_action, waiting.seen_ns)

    def _finish(self, until_ns: int) -> None:
        """Complete the step that is open with what was sent until ``until_ns``."""
        self._judge_open()
        waiting, self._open = self._open, None
        if waiting is None or waiting.senses.obs is None:
            return
        stamp_ns, signal = waiting.senses.stamp_ns, waiting.signal
        latest_ns = waiting.seen_ns + self._pace.cadence_ns * 3 // 2  # what is later is a gap
        until_ns = min(until_ns, latest_ns)
        answer = self._sent.answer(stamp_ns, waiting.seen_ns, until_ns)
        if answer is not None:
            self._prev_action = answer.action
            self._sensors.on_sent(answer.action)
        if waiting.between is not None and signal is None:
            self._skip(waiting.between)
        elif answer is None and not (signal is not None and signal.is_last):
            self._skip("no_action")
        else:
            self._recorder.add(
                waiting.senses.obs,
                self._prev_action,  # behind a last step nothing comes, whatever was sent
                signal,
                stamp_ns=stamp_ns,
                begins=self._recorder.begins(stamp_ns, signal),
                is_intervention=answer is not None and answer.is_intervention,
            )

    def _skip(self, reason: str) -> None:
        self._recorder.skip(_word(reason))

    def _note_sizes(self) -> None:
        """Say where a camera changes its size; its images are reduced to one size anyway."""
        for source in self._sensors.sources:
            newest = source.history.newest
            height = (
                getattr(newest.message, "height", None) if newest and source.is_image else None
            )
            if newest is None or height is None:
                continue
            size = (int(newest.message.width), int(height))
            before = self._sizes.setdefault(source.topic, size)
            if size != before:
                self._sizes[source.topic] = size
                self.notes.append(
                    f"{source.topic} changes from {before[0]}x{before[1]} to {size[0]}x{size[1]} "
                    f"pixels {(self._now_ns - self._bag.begin_ns) * 1e-9:.1f} s into the bag; all "
                    "are cropped and reduced to the same size, as on the robot"
                )

    def _sum_up(self) -> None:
        """Count what was left out and say why."""
        counts = {**self._recorder.skipped, **self._pace.left_out, **self._sent.left_out}
        for reason, count in counts.items():
            self.left_out[_word(reason)] += count
        for reason in ("signals_without_tick", "reward_errors"):
            if self._judge.counts[reason]:
                self.left_out[reason] += self._judge.counts[reason]
        breaks = {k: v for k, v in self._recorder.breaks.items() if k not in ("start", "close")}
        if breaks:
            listed = ", ".join(f"{k.replace('_', ' ')} {v}" for k, v in sorted(breaks.items()))
            self.notes.append(f"the record breaks off, and an episode ends, for: {listed}")
        for name, count in self._sent.clipped.items():
            self.notes.append(f"{count} commands of {name} lay beyond low .. high: taken as those")
        first = "" if self._sensors.first is None else self._sensors.first.topic
        if self._pace.between:
            self.notes.append(
                f"{self._pace.between} messages of {first} lie between two decisions, of which "
                f"there are {1e9 / self._period_ns:g} per second"
            )
        if self._pace.clock_set_back:
            self.notes.append(
                f"stamps of {first} were set back {self._pace.clock_set_back} times; an episode "
                "ends there"
            )
        for problem in (self._sensors.refusal, self._sent.problem, self._judge.problem):
            if problem:
                self.notes.append(problem)
        self.notes += [f"{s.topic}: {s.apart}" for s in self._sensors.sources if s.apart]


def _word(reason: str) -> str:
    """Make a reason of those letters that the meta of a chunk takes."""
    return re.sub(r"[^a-z0-9_]", "_", reason.lower())[:64] or "unknown"
