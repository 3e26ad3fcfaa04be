"""Judges how the robot is doing, for ``/diagnostics`` and the log.

The first status says whether the policy acts, and if not the reason, its level and what to do.
One status for each sensor, for the commands and for the stream of experience follow.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue

from wm_ros.control_loop import ControlLoop
from wm_ros.policies.slot import PolicySlot
from wm_ros.safety.reasons import ERROR, OK, WARN, reason_of
from wm_ros.sensors.source import Source
from wm_ros.timing.rhythm import NS

LOST_SHARE = 0.05  #: of the messages of the last seconds, above which the loss is said
LARGE_BYTES = 500_000  #: of an image, which the default transport loses
CAMERA = "camera"  #: what a sensor of images that sets the pace is called
_LOST = "spool_dropped_"


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """Holds one line of the diagnostics."""

    name: str  #: such as ``policy`` or ``sensor image``
    level: int
    message: str
    values: dict[str, Any] = field(default_factory=dict)


def policy_status(report: dict[str, Any]) -> Diagnosis:
    """Judge the policy: the level and one sentence, the worst thing first."""
    flat = {k: v for k, v in report.items() if not isinstance(v, (dict, list))}
    level, text = report["standing_level"], report["standing_text"]
    if level == OK:
        hint = next(iter(hints(report)), "")
        level = WARN if hint else OK
        text = f"policy version {report['policy_version']} acts"
        if own := _own_period(report):
            text += f" ({own})"
        if hint:
            text += f"; {hint}"
    return Diagnosis("policy", level, text, flat)


def hints(report: dict[str, Any]) -> list[str]:
    """List what is not as it should be though the policy acts, the worst first."""
    found = [f"alarm: {report['alarm']}"] if report["alarm"] else []
    if report["overrun"]:
        found.append(
            f"overrun: a tick takes {report['work_p50_ms']:.0f} ms "
            f"(99 %: {report['work_p99_ms']:.0f} ms), the period is "
            f"{report['period_s'] * 1e3:.0f} ms: take a smaller policy or a faster computer"
        )
    elif report["camera_slower"]:
        found.append(
            f"{report['pace']} {report['camera_hz']:.3g} Hz, "
            f"policy {report['policy_hz']:.3g} Hz: it acts at that rate (slow_camera)"
        )
    lost = report["frames_missed_lately"]
    if report["pace"] != CAMERA:
        lost = 0  # what is lost of numbers that come faster than the policy acts costs nothing
    if lost > LOST_SHARE * (report["frames_lately"] + lost) and not report["overrun"]:
        of, advice = report["frames_lately"] + lost, _transport(report["frame_bytes"])
        found.append(f"{lost} frames of {of} got lost; {advice}")
    if report["alarm"]:
        found.insert(0, f"{report['alarm']}: {reason_of(report['alarm']).text()}")
    told = (report["stream"].get(f"policies_{word}") for word in ("untrusted", "stale"))
    found += [str(text) for text in told if text]
    found += report.get("limits_assumed", [])
    unheard = [text for text in report.get("command_problems", {}).values() if text]
    if unheard:
        found.insert(0, f"no driver takes the commands: {'; '.join(unheard)}")
    if report["stamp_jumps_lately"]:
        found.append(f"the stamps jumped {report['stamp_jumps_lately']} times in 30 s")
    return found


def _transport(frame_bytes: int) -> str:
    """Advise what to do about lost frames of this size."""
    if frame_bytes < LARGE_BYTES:
        return "see image_reliability and the load of both computers"
    size = f"raw images of {frame_bytes / 1e6:.1f} MB"
    if not os.environ.get("FASTRTPS_DEFAULT_PROFILES_FILE"):
        return f"{size}: start driver and node with the Fast DDS profile, or use CompressedImage"
    return f"{size}: start the driver with the Fast DDS profile too, or use CompressedImage"


def pace_name(first: Source | None) -> str:
    """Name for people what sets the pace: a camera, or the sensor by its name."""
    return CAMERA if first is None or first.is_image else first.name


def _own_period(report: dict[str, Any]) -> str:
    period, card = report["period_s"], report["card_period_s"]
    if not card or abs(period - card) < 1e-6:
        return ""
    return f"period_s {period:g} s, its card says {card:g} s"


def sensor_status(source: Source, now_ns: int, hz: float) -> Diagnosis:
    """Judge one sensor by what came of it.

    Args:
        source: that hears it.
        now_ns: steady time.
        hz: messages per second of late.
    """
    age_s = (now_ns - source.arrived_ns) * 1e-9 if source.messages else None
    values = {
        "topic": source.topic,
        "type": source.message,
        "messages": source.messages,
        "rate_hz": round(hz, 2),
        "age_s": None if age_s is None else round(age_s, 3),
    }
    name, problem = f"sensor {source.name}", source.problem()
    if problem:
        return Diagnosis(name, ERROR, problem, values)
    return Diagnosis(
        name, OK, "; ".join(text for text in (f"{hz:.3g} Hz", source.note) if text), values
    )


def episode_status(report: dict[str, Any]) -> Diagnosis:
    """Judge whether what happens is rewarded, and say how episodes go."""
    names = ("episodes", "episode_ended_by", "return_last", "return_now", "reward_problem")
    values = {name: report[name] for name in names}
    if report["reward_problem"]:
        return Diagnosis("episode", WARN, f"no reward: {report['reward_problem']}", values)
    by = f", the last by {report['episode_ended_by']}" if report["episode_ended_by"] else ""
    return Diagnosis("episode", OK, f"{report['episodes']} episodes ended{by}", values)


def command_statuses(problems: Mapping[str, str]) -> list[Diagnosis]:
    """Judge each channel of the command by whether a driver takes it.

    Args:
        problems: by topic why none does; empty where one does.
    """
    return [
        Diagnosis(f"command {topic}", WARN if problem else OK, problem or "a driver takes it")
        for topic, problem in problems.items()
    ]


def stream_status(report: dict[str, Any]) -> Diagnosis:
    """Judge the way of experience to the disk and to the trainer."""
    lost = {k: n for k, n in report["stream"].items() if k.startswith(_LOST) and n}
    if lost:
        reasons = ", ".join(f"{k.removeprefix(_LOST)} {n}" for k, n in sorted(lost.items()))
        text = f"steps were not stored, by reason: {reasons}"
        return Diagnosis("stream", WARN, text, dict(report["stream"]))
    text = f"{report['steps_recorded']} steps recorded, {report['chunks_acked']} chunks delivered"
    stuck = report["stream"].get("uploader_stuck_chunks", 0)
    why = report["stream"].get("uploader_last_error", "")
    if stuck:
        text += f"; {stuck} cannot be sent{f': {why}' if why else ', see the log'}"
    elif why:
        text += f"; {report['stream'].get('uploader_pending_chunks', 0)} wait: {why}"
    level = WARN if stuck or why else OK
    return Diagnosis("stream", level, text, dict(report["stream"]))


def to_message(
    statuses: list[Diagnosis], *, node: str, hardware: str, stamp: Any
) -> DiagnosticArray:
    """Make the message of all statuses.

    Args:
        statuses: what to say.
        node: full name of the node, which tells several robots apart.
        hardware: name of the robot and its namespace.
        stamp: time of the message.
    """
    array = DiagnosticArray()
    array.header.stamp = stamp
    for status in statuses:
        msg = DiagnosticStatus(
            name=f"{node}: {status.name}", message=status.message, hardware_id=hardware
        )
        msg.level = bytes([status.level])
        msg.values = [KeyValue(key=k, value=str(v)) for k, v in status.values.items()]
        array.status.append(msg)
    return array


# ------------------------------------------------------------------------------------- details


def detail(word: str, *, loop: ControlLoop, slot: PolicySlot) -> str:
    """Say what is known about a reason at this moment; empty where there is nothing to add."""
    sensors, guard, pacer = loop.sensors, loop.guard, loop.pacer
    first, now_ns = sensors.first, time.monotonic_ns()
    if word == "latched":
        return f"by {loop.pilot.latched}"
    if word == "no_policy":
        return slot.problem()
    if word in ("no_episode", "resetting", "reset_failed"):
        return loop.signals.why_it_waits()
    large = f"; {_transport(loop.frame_bytes)}" if loop.frame_bytes >= LARGE_BYTES else ""
    if word == "camera_slow":
        rates = f"{pace_name(first)} {NS / pacer.interval_ns:.3g} Hz, "
        rates += f"policy {NS / pacer.period_ns:.3g} Hz"
        return rates + large
    if word == "no_frame" and first is not None:
        return _silence(first, now_ns, over=guard.cause != word) + large
    if guard.blamed is not None and word == "nan_obs":
        return sensors.label(*guard.blamed)
    if guard.blamed is not None and word == "frozen_frame":
        return guard.blamed[0]
    if word in ("stale_stamp", "stamp_in_future") and first is not None:
        return _stamp(first, loop.outside.ros_now_ns(), guard.max_obs_age_s)
    return loop.why


def _silence(source: Source, now_ns: int, *, over: bool) -> str:
    """Say since when a source is silent; ``over``: it is no more, though a latch still says so."""
    problem = source.problem()
    if problem or not source.messages:
        return problem or f"none came on {source.topic}, {source.message}"
    if over:
        return ""
    return f"the last one on {source.topic} came {(now_ns - source.arrived_ns) * 1e-9:.1f} s ago"


def _stamp(source: Source, ros_now_ns: int, limit_s: float) -> str:
    if not source.stamp_ns:
        return f"the stamp on {source.topic} is zero"
    age_s = (ros_now_ns - source.stamp_ns) * 1e-9
    where = "old" if age_s > 0 else "ahead"
    return f"on {source.topic} it is {abs(age_s):.3g} s {where}, at most {limit_s:g} s are allowed"
