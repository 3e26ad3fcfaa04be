"""``wm robot``: check a robot file, print what follows from it; let robots in at the trainer.

It is used on the robot, where neither tyro nor rich is installed, so it parses by argparse and
prints plain text.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from wm_core.cli import robot_tokens
from wm_core.contract.errors import SettingsError
from wm_core.robot import RobotFile
from wm_core.robot.channels import Channel
from wm_core.robot.parts import ImagePart, SensorPart
from wm_core.robot.schema import schema_text

_ABOUT = """\
Check a robot file, or print what follows from it; on the trainer: say which
robots the service lets in.
"""
_EXAMPLES = """\
examples:
  wm robot check robot.yaml
  wm robot spec robot.yaml --json
  wm robot add rover --tokens tokens.txt
"""
_VERBS = "check|spec|schema|add|list|revoke"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="wm robot",
        description=_ABOUT,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    verbs = parser.add_subparsers(dest="verb", required=True, metavar=_VERBS)
    check = verbs.add_parser("check", help="say what a robot file means, or what is wrong with it")
    check.add_argument("file", type=Path, nargs="+", help="robot file (YAML)")
    spec = verbs.add_parser("spec", help="print what a policy for this robot reads and writes")
    spec.add_argument("file", type=Path, help="robot file (YAML)")
    spec.add_argument("--json", action="store_true", help="as JSON, for `wm train --spec`")
    verbs.add_parser("schema", help="print the JSON schema with which editors help to write one")
    robot_tokens.add_verbs(verbs)
    return parser


def main(argv: list[str]) -> int:
    """Run ``wm robot``; the exit status: 2 for a file that is wrong."""
    try:
        asked = _parser().parse_args(argv)
    except SystemExit as stop:
        return int(stop.code or 0)
    if asked.verb in ("add", "list", "revoke"):
        return robot_tokens.run(asked)
    if asked.verb == "schema":
        sys.stdout.write(schema_text())
    elif asked.verb == "check":
        return _check(asked.file)
    elif asked.json:
        sys.stdout.write(RobotFile.load(asked.file).spec().model_dump_json(indent=2) + "\n")
    else:
        sys.stdout.write(_spec_text(RobotFile.load(asked.file)))
    return 0


def _check(files: list[Path]) -> int:
    status = 0
    for path in files:
        try:
            sys.stdout.write(f"{path} is right\n\n{described(RobotFile.load(path))}")
        except SettingsError as error:
            sys.stderr.write(f"{error}\n")
            status = 2
    return status


def described(robot: RobotFile) -> str:
    """Describe a robot as its file does, in lines for people."""
    rate = "as the policy's card says" if robot.rate_hz is None else f"{robot.rate_hz:g} Hz"
    pace = robot.paced_by or "the timer"
    near = "one period" if robot.tolerance_s is None else f"{robot.tolerance_s:g} s"
    lines = [
        f"robot       {robot.robot}",
        f"decisions   {rate}, paced by {pace}; other messages at most {near} away",
        "",
        "observations",
    ]
    for name, parts in robot.observations.items():
        for part in parts:
            lines += _part_lines(name, part)
    kind = "one of several choices" if robot.choices else f"{len(robot.action_names)} numbers"
    lines += ["", f"actions: {kind}"]
    for channel in robot.actions:
        lines += _channel_lines(channel)
    lines += ["", *_outcome_lines(robot)]
    stated = [f"{name} {value}" for name, value in robot.safety if value is not None]
    lines.append(f"safety      {', '.join(stated) or 'as the parameters say'}")
    return "\n".join(lines) + "\n"


def _part_lines(name: str, part: SensorPart) -> list[str]:
    where = ", ".join(part.topics) or "what was sent"
    age = " (the last message counts)" if part.latest else ""
    if isinstance(part, ImagePart):
        size = f"{part.height} x {part.width} {part.colours}"
        return [f"  {name:<12} {size:<20} {part.type} on {where}{age}"]
    size = f"{part.size} number{'s' if part.size != 1 else ''}"
    names = ", ".join(part.names[:12]) + (", ..." if part.size > 12 else "")
    return [f"  {name:<12} {size:<20} {part.type} on {where}{age}", f"  {'':<12} {names}"]


def _channel_lines(channel: Channel) -> list[str]:
    lines = [f"  {channel.topic}  {channel.type}"]
    for i, name in enumerate(channel.names):
        text = f"{channel.low[i]:g} .. {channel.high[i]:g} {channel.units[i]}".rstrip()
        if channel.max_rate:
            rate = f"{channel.max_rate[i]:g} {channel.units[i]}".rstrip()
            text += f", changes by at most {rate} per second"
        lines.append(f"    {name:<20} {channel.modes[i]:<9} {text}")
    for choice, numbers in channel.choices.items():
        lines.append(f"    choice {choice:<13} {[*numbers]}")
    safe = channel.safe if isinstance(channel.safe, str) else f"the posture {[*channel.safe]}"
    held = f" for {channel.hold_s:g} s, then zero" if channel.hold_s else ""
    lines.append(f"    safe action: {safe}{held}")
    if channel.takeover:
        lines.append(f"    a person takes over on {channel.takeover}")
    return lines


def _outcome_lines(robot: RobotFile) -> list[str]:
    reward, episode = robot.reward, robot.episode
    if reward is None:
        lines = ["reward      messages on the topic reward"]
    elif reward.topic is not None:
        lines = [f"reward      messages on the topic {reward.topic}"]
    else:
        lines = [f"reward      {reward.expression or 'the function ' + str(reward.function)}"]
    for name, value in robot.values.items():
        lines.append(f"  {name:<12} {value.field} of {value.type} on {value.topic}")
    ends = [f"{episode.max_s:g} s have passed"] if episode.max_s else []
    ends += [text for text in episode.conditions.values()]
    ends += [f"{t} says so" for t in (episode.end_topic, episode.fail_topic) if t]
    lines.append(f"episode     ends when {' or '.join([*ends, '~/episode/end is called'])}")
    if episode.reset is not None:
        lines.append(f"            then {episode.reset.service} is called")
    if not episode.autostart:
        lines.append("            the next one begins when ~/episode/start is called")
    return lines


def _spec_text(robot: RobotFile) -> str:
    spec = robot.spec()
    lines = [f"{name:<12} {sensor.shape} {sensor.dtype}" for name, sensor in spec.inputs.items()]
    lines += [f"action       ({spec.action.size},)", f"period       {spec.period_s:g} s"]
    return "\n".join(lines) + "\n"
