"""``wm policy``: see which robots are to run which version, and change it while robots work."""

from __future__ import annotations

import argparse
import sys
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from wm_core.contract.card import Manifest
from wm_core.contract.errors import PolicyRefused, SettingsError, StoreError
from wm_core.contract.files import read_json
from wm_core.contract.policy_folder import PolicyFolder, version_folder, versions_in
from wm_core.contract.releases import Release
from wm_core.contract.signing import short
from wm_core.contract.whole import whole
from wm_core.link.trainer.channels import LINE, REPORTS_NAME, Channels, Course
from wm_core.link.trainer.policy_repository import GATES_NAME, gates_of
from wm_core.link.trainer.settings import POLICIES

_ABOUT = """\
Say which robots run which version of a run's policies.

A channel is what robots follow (their parameter `channel`). `main` follows the
newest version until it is told otherwise; any other name begins with its first
promotion.

  wm policy list --root runs/x
  wm policy promote 12 --to canary --root runs/x
                     every robot of canary runs version 12
  wm policy rollout 12 --to stable --share 0.1 --root runs/x
                     a tenth of stable's robots do
  wm policy rollout 12 --to stable --robots rover arm-3 --root runs/x
  wm policy promote 12 --to stable --root runs/x
                     all do; the roll-out is over
  wm policy rollback --channel stable --root runs/x
                     ends a roll-out, or goes back one release
  wm policy pin rover 9 --channel stable --root runs/x
  wm policy unpin rover --channel stable --root runs/x
  wm policy follow --channel main --root runs/x
                     follow the newest again

A running `wm serve` tells the robots within a second; with --policy-keys it
signs that.
"""


def main(argv: list[str]) -> int:
    """Run ``wm policy``; the exit status."""
    try:
        asked = _parser().parse_args(argv)
    except SystemExit as stop:
        return int(stop.code or 0)
    if not (asked.root / POLICIES).is_dir():
        raise SettingsError(f"--root {asked.root}: expected a run folder with {POLICIES} in it")
    channels = Channels(asked.root / POLICIES)
    if asked.verb != "list":
        course = _changed(channels, asked)
        _print([f"channel {asked.channel}: {_course_text(course)}"])
        return 0
    _print(_listed(channels))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="wm policy", description=_ABOUT, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    verbs = parser.add_subparsers(
        dest="verb", metavar="list|promote|rollout|rollback|pin|unpin|follow"
    )
    verbs.required = True
    verbs.add_parser("list", help="versions, channels, and what robots say they run")
    promote = verbs.add_parser("promote", help="make a version the current one of a channel")
    rollout = verbs.add_parser("rollout", help="give a version to a part of a channel's robots")
    rollback = verbs.add_parser("rollback", help="end a roll-out, or go back by one release")
    pin = verbs.add_parser("pin", help="hold one robot at a version")
    unpin = verbs.add_parser("unpin", help="let a pinned robot go on with the others")
    follow = verbs.add_parser("follow", help="let a channel follow the newest version")
    for verb in (pin, unpin):
        verb.add_argument("robot", help="name of the robot")
    for verb in (promote, rollout, pin):
        verb.add_argument("version", type=whole, help="number of the version")
    for verb in (promote, rollout):
        verb.add_argument("--to", dest="channel", required=True, help="channel that gets it")
    for verb in (rollback, pin, unpin, follow):
        verb.add_argument("--channel", default=LINE, help="channel to change, main by default")
    rollout.add_argument("--share", type=float, default=0.0, help="share of the robots, 0 .. 1")
    rollout.add_argument(
        "--robots", nargs="*", default=[], help="robots by name, beside the share"
    )
    for verb in verbs.choices.values():
        verb.add_argument("--root", type=Path, required=True, help="run folder, as of `wm serve`")
    return parser


def _changed(channels: Channels, asked: argparse.Namespace) -> Course:
    name = asked.channel
    if asked.verb == "promote":
        return channels.promote(name, asked.version)
    if asked.verb == "rollout":
        return channels.roll_out(name, asked.version, asked.share, tuple(asked.robots))
    if asked.verb == "rollback":
        return channels.roll_back(name)
    if asked.verb == "follow":
        return channels.follow(name)
    return channels.pin(name, asked.robot, asked.version if asked.verb == "pin" else None)


def _listed(channels: Channels) -> list[str]:
    home, robots = channels.root / channels.line, read_json(channels.root / REPORTS_NAME)
    lines = ["version  updates    return  signed by     robots  created"]
    for version in versions_in(home):
        folder = PolicyFolder(version_folder(home, version))
        try:
            manifest = folder.read_manifest()
        except PolicyRefused as error:
            lines.append(f"{version:>7}  {error}")
            continue
        count = sum(_runs(said, manifest) for said in robots.values())
        last = gates_of(read_json(folder.path / GATES_NAME)).get("last_return")
        shown = "-" if last is None else f"{last:.4g}"
        lines.append(
            f"{version:>7}  {manifest.learner_updates:>7}  {shown:>8}  {_signer(folder):<12}  "
            f"{count:>6}  {manifest.created}"
        )
    for name in channels.names():
        try:
            lines.append(f"channel {name}: {_course_text(channels.course(name))}")
        except StoreError as error:
            lines.append(f"channel {name}: {error}")
    for name, said in sorted(robots.items()):
        if isinstance(said, dict):
            lines.append(f"robot {name}: version {said.get('version')}, {_seen(said)}")
    return lines


def _signer(folder: PolicyFolder) -> str:
    try:
        return short(folder.read_signed()[1].signatures[0].key)
    except PolicyRefused:
        return "-"


def _runs(said: Any, manifest: Manifest) -> bool:
    return isinstance(said, dict) and said.get("sha256") == manifest.policy.sha256


def _seen(said: dict[str, Any]) -> str:
    seen_s = said.get("seen_s")
    if not isinstance(seen_s, int) or not 0 <= seen_s < 2**36:
        return "never heard"
    when = datetime.fromtimestamp(seen_s, timezone.utc)
    return f"heard {when.isoformat(timespec='seconds')}"


def _course_text(course: Course) -> str:
    plan = course.plan
    words = [f"version {_version(plan.current)}{' (the newest)' if course.follow else ''}"]
    if plan.rollout is not None:
        named = f" and {', '.join(plan.rollout.robots)}" if plan.rollout.robots else ""
        words.append(
            f"rolls out {plan.rollout.release.version} to {plan.rollout.share:.0%}{named}"
        )
    if plan.pins:
        pins = ", ".join(f"{robot} at {r.version}" for robot, r in sorted(plan.pins.items()))
        words.append(f"pinned: {pins}")
    if course.history:
        words.append(f"before: {', '.join(str(r.version) for r in course.history)}")
    return "; ".join(words)


def _version(release: Release | None) -> str:
    return "none" if release is None else str(release.version)


def _print(lines: list[str]) -> None:
    text = "\n".join("".join(c for c in line if c.isprintable()) for line in lines)
    sys.stdout.write(text + "\n")
