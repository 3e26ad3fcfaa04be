"""Runs one seal of a spool in a process that may be killed anywhere, and looks what it left.

``put FOLDER`` begins a session, prints its name, puts steps whose rewards are their numbers, seals
them, and prints ``sealed`` and the counts.  ``check FOLDER`` starts a spool as the next start of
a robot does, and prints what is there as JSON: the rewards of each chunk by session and number,
and the counts.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path

import numpy as np

from wm_core.contract.spec import ActionSpec, ImageSpec, Spec
from wm_core.contract.step import Step
from wm_core.format.chunk import decode_chunk
from wm_core.link.robot.journal import sessions_in
from wm_core.link.robot.spool import Spool, SpoolSettings

SPEC = Spec(
    images={"image": ImageSpec(height=8, width=8)}, action=ActionSpec(low=(-1.0,), high=(1.0,))
)


def step(number: int) -> Step:
    """Make the step whose reward and pixels are ``number``."""
    image = np.full((8, 8, 3), number % 256, np.uint8)
    action = np.zeros(1, np.float32)
    return Step(
        {"image": image}, action, float(number), number == 0, False, False, stamp_ns=10**9 + number
    )


def say(line: str) -> None:
    """Print a line by another system call than files are written with, which a test may refuse."""
    os.writev(1, [f"{line}\n".encode()])


def put(args: argparse.Namespace) -> None:
    """Put and seal steps."""
    settings = SpoolSettings(seal_steps=args.seal_steps, seal_s=3600.0, min_free_bytes=0)
    spool = Spool(args.folder, robot="rover", task="", spec=SPEC, settings=settings)
    say(spool.session)
    for number in range(args.steps):
        spool.put(step(number))
        if args.every_s:
            time.sleep(args.every_s)
        elif number + 1 == args.steps // 2:  # half of them is written ahead before the seal
            time.sleep(0.25)
    spool.flush(60.0)
    say("sealed")
    spool.close()
    say(json.dumps(spool.counters()))


def check(args: argparse.Namespace) -> None:
    """Recover what was left, and print it."""
    if args.user:
        os.setegid(args.user)
        os.seteuid(args.user)
    settings = SpoolSettings(min_free_bytes=0)
    spool = Spool(args.folder, robot="rover", task="", spec=SPEC, settings=settings)
    spool.flush(60.0)
    spool.close()
    found = {
        session.session: {
            chunk.key.seq: [s.reward for s in decode_chunk(chunk.path.read_bytes())[1]]
            for chunk in session.waiting()
        }
        for session in sessions_in(args.folder)
    }
    say(json.dumps({"chunks": found, "counts": spool.counters()}))


def main() -> None:
    """Parse the command line and do what it says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("put", "check"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--seal-steps", type=int, default=4096)
    parser.add_argument("--every-s", type=float, default=0.0)
    parser.add_argument("--user", type=int, default=0, help="become this user before check")
    args = parser.parse_args()
    {"put": put, "check": check}[args.what](args)


if __name__ == "__main__":
    main()
