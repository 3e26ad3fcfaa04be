"""``wm robot add | list | revoke``: which robots and people the trainer's service lets in."""

from __future__ import annotations

import argparse
import re
import sys
import time
from pathlib import Path

from wm_core.contract.errors import SettingsError
from wm_core.link.trainer.tokens import add_token, list_tokens, parse_time_s, revoke_tokens

_DAY_S = 86400.0
_ADD = (
    "Make a token of a robot, add its hash to the tokens file and print the token, which is kept "
    "nowhere.  Put it into a file on the robot and name that by the parameter token_file.  "
    "A robot may have several tokens; to change them without a pause, let the old one expire.  "
    "Such a token sees only what its own robot says; with --may-look it is of a person, who sees "
    "all robots and their recorded episodes on the page."
)
_REVOKE = (
    "Remove all tokens of a robot.  A running service lets it in no more from the next request "
    "on; what it has sent stays in the store."
)


def add_verbs(verbs: argparse._SubParsersAction) -> None:
    """Add the verbs to the parser of ``wm robot``."""
    add = verbs.add_parser("add", help="let a robot write to the service", description=_ADD)
    add.add_argument("robot", help="its name: 1 to 64 of a-z, 0-9, _ and -")
    add.add_argument("--expires", help="last moment of the token: 2027-01-31, or 90d from now")
    text = "let whoever has the token see all robots, as the page shows them"
    add.add_argument("--may-look", action="store_true", help=text)
    listed = verbs.add_parser("list", help="list the robots that the service lets in")
    revoke = verbs.add_parser("revoke", help="let a robot in no more", description=_REVOKE)
    revoke.add_argument("robot", help="its name")
    for parser in (add, listed, revoke):
        text = "file that `wm serve --tokens` reads"
        parser.add_argument("--tokens", type=Path, required=True, metavar="FILE", help=text)


def run(asked: argparse.Namespace) -> int:
    """Run one of the verbs; the exit status."""
    if asked.verb == "add":
        expires_s = None if asked.expires is None else _moment_s(asked.expires, time.time())
        token = add_token(asked.tokens, asked.robot, expires_s=expires_s, may_look=asked.may_look)
        sys.stdout.write(f"token of {asked.robot}, shown only now: {token}\n")
    elif asked.verb == "revoke":
        removed = revoke_tokens(asked.tokens, asked.robot)
        if not removed:
            known = sorted({entry.robot for entry in list_tokens(asked.tokens)})
            raise SettingsError(
                f"{asked.tokens} has no token of {asked.robot!r}; it has those of "
                f"{', '.join(known) or 'no robot'}"
            )
        sys.stdout.write(f"{removed} token(s) of {asked.robot} revoked\n")
    else:
        sys.stdout.write(_table(asked.tokens, time.time()))
    return 0


def _table(path: Path, now_s: float) -> str:
    entries = list_tokens(path)
    width = max((len(entry.robot) for entry in entries), default=0)
    lines = []
    for entry in entries:
        _, _, expires = entry.line.partition(" expires=")
        state = f"{'expired' if entry.is_expired(now_s) else 'until'} {expires}" if expires else ""
        look = "may look  " if entry.sees_all else ""
        lines.append(f"{entry.robot:<{width}}  {entry.sha256[:12]}  {look}{state}".rstrip())
    return "\n".join(lines) + "\n" if lines else f"{path} lets no robot in\n"


def _moment_s(text: str, now_s: float) -> float:
    """Read ``90d`` or a date as seconds since 1970, which lie ahead."""
    days = re.fullmatch(r"(\d{1,5})d", text)
    try:
        moment_s = now_s + int(days[1]) * _DAY_S if days else parse_time_s(text)
    except ValueError as error:
        raise SettingsError(
            f"--expires: expected a date like 2027-01-31 or days like 90d, got {text!r}"
        ) from error
    if moment_s <= now_s:
        raise SettingsError(f"--expires {text} lies in the past")
    return moment_s
