"""Collects everything that is counted on the robot: for files, ``~/status`` and diagnostics."""

from __future__ import annotations

import time
from collections import deque
from typing import Any

from wm_ros.control_loop import ControlLoop
from wm_ros.policies.slot import PolicySlot
from wm_ros.process import realtime
from wm_ros.reporting.diagnosis import (
    Diagnosis,
    command_statuses,
    episode_status,
    pace_name,
    policy_status,
    sensor_status,
    stream_status,
)
from wm_ros.sensors.source import Source
from wm_ros.stream import Stream
from wm_ros.timing.rhythm import NS

SLOWER = 1.05  #: a camera whose interval is so many periods is worth a warning
RATE_S = 5  #: seconds over which the rate of a sensor is measured


class StatusBoard:
    """Reads the counters of every part of the node.

    Args:
        loop: the ticks and what they join.
        slot: the running policy.
        stream: the way of experience to disk and trainer.
    """

    def __init__(self, loop: ControlLoop, slot: PolicySlot, stream: Stream) -> None:
        self._loop, self._slot, self._stream = loop, slot, stream
        self._heard: dict[str, deque[tuple[int, int]]] = {}
        self.newest: dict[str, Any] = {}  #: report, which nobody changes; for other threads

    def ticks(self) -> dict[str, object]:
        """Give the histograms of all ticks."""
        return self._loop.stats.to_json(self._loop.pacer.period_ns * 1e-9)

    def report(self) -> dict[str, Any]:
        """Collect the counters.

        Every tick's step is accounted for: ``ticks + safe_ticks`` equals ``steps_recorded +
        steps_held`` plus the sum of ``dropped``.
        """
        loop = self._loop
        now_ns = time.monotonic_ns()
        if not loop.active:
            loop.standing.pause("inactive", now_ns)
        stand, sent = loop.standing.stand(now_ns), self._stream.counters()
        signals, recorder = loop.signals, loop.recorder
        report = {
            "time_s": round(time.time(), 3),
            "active": loop.active,
            "standing": stand.word,
            "standing_level": stand.level,
            "standing_text": stand.text,
            "standing_s": round(stand.since_s, 3),
            "session": self._stream.session,
            **self._slot.counters(),
            "return_now": signals.return_now,
            "return_last": signals.returns[-1] if signals.returns else None,
            "returns": signals.returns[-20:],
            "episodes": signals.counts["episodes"],
            "episode_ended_by": signals.ended_by,
            "reward_problem": signals.unheard or signals.problem,
            "signals": signals.counts["signals"],
            "signals_without_tick": signals.counts["signals_without_tick"],
            "signals_refused": signals.counts["signals_refused"],
            **recorder.counters(),
            "dropped": dict(recorder.skipped),
            "breaks": dict(recorder.breaks),
            "steps_streamed": sent.get("spool_steps_sealed", 0),
            "chunks_sealed": sent.get("spool_chunks_sealed", 0),
            "chunks_acked": sent.get("uploader_acked", 0),
            **loop.stats.summary(),
            **loop.stats.lately(now_ns, loop.pacer.period_ns),
            **self._pace(now_ns),
            "refusal": loop.sensors.refusal,
            "refusals": self._slot.refusals[-3:],
            "policy_problem": self._slot.problem(),
            "alarm": loop.guard.alarm,
            "limits_assumed": loop.pilot.narrowed(),
            "latched": loop.pilot.latched,
            "realtime": realtime.standing(),
            "dry_runs": loop.warm_up.count,
            "stream": sent,
        }
        self.newest = report
        return report

    def _pace(self, now_ns: int) -> dict[str, Any]:
        """Say how often the policy decides and frames come, of late."""
        pacer, sensors = self._loop.pacer, self._loop.sensors
        counts, first = pacer.rhythm.counts(now_ns), sensors.first
        return {
            "period_s": pacer.period_ns * 1e-9,
            "card_period_s": self._loop.trained_period_ns * 1e-9,
            "pace": pace_name(first),
            "policy_hz": round(NS / pacer.period_ns, 3),
            "camera_hz": round(NS / pacer.interval_ns, 3) if pacer.interval_ns else 0.0,
            "decisions_hz": round(NS / pacer.cadence_ns, 3),
            "camera_slower": pacer.slow and pacer.interval_ns > SLOWER * pacer.period_ns,
            "frames": sensors.frames,
            "frames_missed": pacer.rhythm.lost,
            "frames_lately": counts["came"],
            "frames_missed_lately": counts["lost"],
            "pauses_lately": counts["pauses"],
            "stamp_jumps_lately": counts["jumps"],
            "frame_bytes": self._loop.frame_bytes,
            "frame_age_s": 0.0 if first is None else (now_ns - first.arrived_ns) * 1e-9,
        }

    def statuses(self, report: dict[str, Any]) -> list[Diagnosis]:
        """Judge a report: the policy first, then sensors, commands, episodes, the stream."""
        now_ns = time.monotonic_ns()
        self._loop.sensors.drain(now_ns)  # where no tick does it
        heard = [
            sensor_status(source, now_ns, self._rate_hz(source, now_ns))
            for source in self._loop.sensors.sources
        ]
        sent = command_statuses(report["command_problems"])
        rest = [episode_status(report), stream_status(report)]
        return [policy_status(report), *heard, *sent, *rest]

    def _rate_hz(self, source: Source, now_ns: int) -> float:
        """Measure how many messages a second came of late."""
        kept = self._heard.setdefault(source.name, deque())
        kept.append((now_ns, source.messages))
        while now_ns - kept[0][0] > RATE_S * NS:
            kept.popleft()
        (begin_ns, before), (end_ns, after) = kept[0], kept[-1]
        return (after - before) * NS / (end_ns - begin_ns) if end_ns > begin_ns else 0.0
