"""``wm keys``: make, show, rotate and revoke the keys that sign policies, and sign with them.

It needs neither torch nor a server, so that the owner's key can live on a small machine offline.
"""

from __future__ import annotations

import argparse
import sys
from datetime import datetime, timezone
from pathlib import Path

from wm_core.contract.releases import MAX_TIME_S, Keyring
from wm_core.contract.signing import read_public_keys, short
from wm_core.link.trainer.policy_keys import (
    KEYRING,
    OWNER_KEY,
    OWNER_PUB,
    UNSIGNED,
    PolicyKeys,
    make_keys,
    read_keyring,
    revoke,
    rotate,
    sign_keyring,
)

_ABOUT = """\
Make and keep the keys that say whose policies robots run.

  wm keys make keys                    owner, policy, channel key, and keyring
  scp keys/owner.pub robot:            the robot's trusted_keys names this file
  mv keys/owner.key /media/stick       better kept off the trainer's machine
  wm train ... --policy-keys keys      publishes signed policies
  wm serve ... --policy-keys keys      states, signed, what robots are to run
  wm keys sign runs/x/policies/main/00000003 --keys keys
                                       signs one by hand
  wm keys rotate keys --role policy    a new key; the old one is trusted until
  wm keys revoke keys 3fa9             ... it is taken away

Where owner.key is elsewhere, rotate and revoke leave keyring.unsigned.json;
sign it there with `wm keys sign keyring.unsigned.json --keys /media/stick` and
bring keyring.json back.
"""


def main(argv: list[str]) -> int:
    """Run ``wm keys``; the exit status."""
    try:
        asked = _parser().parse_args(argv)
    except SystemExit as stop:
        return int(stop.code or 0)
    _print(_run(asked))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="wm keys", description=_ABOUT, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    verbs = parser.add_subparsers(dest="verb", metavar="make|show|sign|rotate|revoke")
    verbs.required = True
    make = verbs.add_parser("make", help="make an owner's, a policy and a channel key")
    make.add_argument("folder", type=Path, help="new folder for the keys")
    make.add_argument("--name", default="", help="whose keys they are, for people")
    show = verbs.add_parser("show", help="print which keys a folder holds and what they may sign")
    show.add_argument("folder", type=Path, help="folder of keys")
    sign = verbs.add_parser("sign", help="sign a policy, or a keyring that waits for the owner")
    sign.add_argument("path", type=Path, help="folder of a policy, or keyring.unsigned.json")
    sign.add_argument("--keys", type=Path, required=True, help="folder of the secret keys")
    turn = verbs.add_parser("rotate", help="make a new key for a role; the old one stays trusted")
    turn.add_argument("folder", type=Path, help="folder of keys")
    turn.add_argument("--role", choices=("policy", "channel"), required=True, help="what it signs")
    away = verbs.add_parser("revoke", help="take a key out of the keyring")
    away.add_argument("folder", type=Path, help="folder of keys")
    away.add_argument("key", help="first digits of the key, as `wm keys show` prints them")
    return parser


def _run(asked: argparse.Namespace) -> list[str]:
    if asked.verb == "make":
        keyring = make_keys(asked.folder, asked.name)
        return [
            *_described(keyring),
            f"robots: copy {asked.folder / OWNER_PUB} there and set trusted_keys to it",
            f"keep {asked.folder / OWNER_KEY} off this machine: it is needed to rotate and revoke",
        ]
    if asked.verb == "show":
        return _shown(asked.folder)
    if asked.verb == "sign":
        return _signed(asked.path, asked.keys)
    if asked.verb == "rotate":
        keyring = rotate(asked.folder, asked.role)
    else:
        keyring = revoke(asked.folder, asked.key)
    return [*_described(keyring), *_waits(asked.folder)]


def _signed(path: Path, folder: Path) -> list[str]:
    if path.is_file() and path.suffix == ".json":
        signed = sign_keyring(path, folder)
        return [*_described(read_keyring(signed)[1]), f"signed: {signed}"]
    keys = PolicyKeys(folder)
    endorsed = keys.endorse_folder(path)
    return [f"signed by policy key {short(keys.secret('policy').public)}: {endorsed.endorsement}"]


def _shown(folder: Path) -> list[str]:
    _, keyring = read_keyring(folder / KEYRING)
    lines = _described(keyring)
    public = folder / OWNER_PUB
    if public.exists():
        lines += [
            f"owner    {short(key)}  {name}" for key, name in read_public_keys(public).items()
        ]
    secrets = sorted(path.name for path in folder.glob("*.key*"))
    lines.append(f"secrets  {', '.join(secrets) or 'none'}")
    return [*lines, *_waits(folder)]


def _waits(folder: Path) -> list[str]:
    if not (folder / UNSIGNED).exists():
        return []
    where = folder / UNSIGNED
    return [f"{where} waits: `wm keys sign {UNSIGNED} --keys FOLDER` where {OWNER_KEY} is"]


def _described(keyring: Keyring) -> list[str]:
    lines = [f"keyring  number {keyring.number}, expires {_date(keyring.expires)}"]
    for key in keyring.keys:
        name = f"  {key.name}" if key.name else ""
        lines.append(f"{'+'.join(key.roles):<8} {short(key.key)}{name}")
    return lines


def _date(time_s: int) -> str:
    if time_s >= MAX_TIME_S:
        return "never"
    return datetime.fromtimestamp(time_s, timezone.utc).isoformat(timespec="minutes")


def _print(lines: list[str]) -> None:
    text = "\n".join(lines)
    if not text.isprintable():  # a name may come from another's file
        text = "".join(c for c in text if c.isprintable() or c == "\n")
    sys.stdout.write(text + "\n")
