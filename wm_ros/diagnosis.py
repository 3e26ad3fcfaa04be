"""Reports how the robot is doing, to files, a topic and the diagnostics."""

from __future__ import annotations

import time
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue

from wm_ros.experience import Recorder, Signals
from wm_ros.policy_slot import PolicySlot
from wm_ros.safety import Guard
from wm_ros.sensors.table import Sensors
from wm_ros.stream import Stream
from wm_ros.timing import TickStats

_SILENT_S = 1.0
_MISSING_SHARE = 0.05
_LOST = "spool_dropped_"


def status_report(
    *,
    active: bool,
    slot: PolicySlot,
    signals: Signals,
    recorder: Recorder,
    stats: TickStats,
    sensors: Sensors,
    guard: Guard,
    stream: Stream,
) -> dict[str, Any]:
    """Collect everything that is counted on the robot.

    Every tick's step is accounted for: ``ticks + safe_ticks`` equals ``steps_recorded +
    steps_held`` plus the sum of ``dropped``.
    """
    sent, returns = stream.counters(), signals.returns
    return {
        "time_s": round(time.time(), 3),
        "active": active,
        "session": stream.session,
        **slot.counters(),
        "return_now": signals.return_now,
        "return_last": returns[-1] if returns else None,
        "returns": returns[-20:],
        "episodes": signals.counts["episodes"],
        "signals": signals.counts["signals"],
        "signals_without_tick": signals.counts["signals_without_tick"],
        "signals_refused": signals.counts["signals_refused"],
        **recorder.counters(),
        "dropped": dict(recorder.skipped),
        "breaks": dict(recorder.breaks),
        "steps_streamed": sent.get("spool_steps_sealed", 0),
        "chunks_sealed": sent.get("spool_chunks_sealed", 0),
        "chunks_acked": sent.get("uploader_acked", 0),
        **stats.summary(),
        "frames": sensors.frames,
        "frames_missed": sensors.frames_missed,
        "frame_age_s": 0.0
        if sensors.first is None
        else (time.monotonic_ns() - sensors.first.arrived_ns) * 1e-9,
        "refusal": sensors.refusal,
        "refusals": slot.refusals[-3:],
        "latched": guard.latched,
        "stream": sent,
    }


def health(report: dict[str, Any]) -> tuple[bytes, str]:
    """Judge a report: the level and one sentence for ``/diagnostics``."""
    error, warning = DiagnosticStatus.ERROR, DiagnosticStatus.WARN
    if report["refusal"]:
        return error, f"refused: {report['refusal']}"
    if report["policy_version"] < 0:
        return warning, "no policy yet: safe actions only"
    if report["latched"]:
        return error, f"latched by {report['latched']}: call ~/rearm"
    if not report["frames"] or report["frame_age_s"] > _SILENT_S:
        return error, "the camera is silent: safe actions only"
    if report["frames_missed"] > _MISSING_SHARE * report["frames"]:
        return warning, "frames go missing: see image_reliability and the Fast DDS profile"
    lost = {k: n for k, n in report["stream"].items() if k.startswith(_LOST) and n}
    if lost:
        reasons = ", ".join(f"{k.removeprefix(_LOST)} {n}" for k, n in sorted(lost.items()))
        return warning, f"steps were not stored, by reason: {reasons}"
    return DiagnosticStatus.OK, f"policy version {report['policy_version']} runs"


def diagnostics(name: str, report: dict[str, Any], stamp: Any) -> DiagnosticArray:
    """Turn a report into a message; nested values are flattened or left out."""
    status = DiagnosticStatus(name=f"{name}: policy")
    status.level, status.message = health(report)
    flat = {k: v for k, v in report.items() if not isinstance(v, (dict, list))}
    status.values = [
        KeyValue(key=key, value=str(value)) for key, value in (flat | report["stream"]).items()
    ]
    array = DiagnosticArray(status=[status])
    array.header.stamp = stamp
    return array
