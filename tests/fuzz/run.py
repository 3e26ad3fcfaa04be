"""Fuzzes every decoder for as long as wanted: ``python -m tests.fuzz.run --minutes 120``.

Each target has a share of the time.  What fails is saved as a file, with how to replay it; the
exit status is then 1.  The process may grow by a bounded amount of memory only, and one input may
call a bounded number of functions.  Where atheris is installed, half of the time goes to changes
that are guided by which lines of the decoders they reach.
"""

from __future__ import annotations

import argparse
import faulthandler
import hashlib
import logging
import random
import resource
import subprocess
import sys
import time
import traceback
from importlib.util import find_spec
from pathlib import Path
from typing import Any

if "--atheris" in sys.argv:
    import atheris

    with atheris.instrument_imports(include=["wm_core"]):
        from tests.fuzz.targets import TARGETS
else:
    from tests.fuzz.targets import TARGETS

GROWTH_BYTES = 900 << 20  #: a chunk may unpack to 256 MiB; nothing may need more than this
HANG_S = 120  #: after which one input counts as a hang


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def bound_memory() -> None:
    """Let this process grow by ``GROWTH_BYTES`` from now on."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * resource.getpagesize() + GROWTH_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (most, resource.getrlimit(resource.RLIMIT_AS)[1]))


def attempt(name: str, data: bytes, folder: Path) -> bool:
    """Decode ``data``; saves it where anything but an answer came, and returns whether one did."""
    kept = folder / f"{name}-hang.bin"
    folder.mkdir(parents=True, exist_ok=True)
    kept.write_bytes(data)  # still there where this process ends here
    faulthandler.dump_traceback_later(HANG_S, exit=True, file=sys.__stderr__)
    try:
        TARGETS[name].run(data)
    except Exception:
        path = folder / f"{name}-{hashlib.sha256(data).hexdigest()[:12]}.bin"
        path.write_bytes(data)
        traceback.print_exc()
        say(f"FAILED {name}: replay by  python -m tests.fuzz.run --replay {path}")
        return False
    finally:
        faulthandler.cancel_dump_traceback_later()
        kept.unlink()
    return True


class _Guided(random.Random):
    """Draws what the bytes of a fuzzer say."""

    def __init__(self, provider: Any) -> None:
        self._provider = provider
        super().__init__(0)

    def getrandbits(self, k: int) -> int:
        return int(self._provider.ConsumeIntInRange(0, 2**k - 1)) if k < 63 else 0

    def random(self) -> float:
        return float(self.getrandbits(53)) / 2**53


def guided(name: str, runs: int, seconds: int, folder: Path) -> None:
    """Let atheris choose the changes of one target; it ends the process at the first failure."""

    def one(data: bytes) -> None:
        changed = TARGETS[name].mutated(_Guided(atheris.FuzzedDataProvider(data)))
        if not attempt(name, changed, folder):
            raise SystemExit(1)

    limits = [f"-runs={runs}"] if runs else [f"-max_total_time={max(1, seconds)}"]
    atheris.Setup([sys.argv[0], *limits, "-max_len=256", "-len_control=0"], one)
    atheris.Fuzz()


def guide(name: str, seconds: float, folder: Path) -> int:
    """Run ``guided`` in a process of its own; returns whether it failed."""
    command = [sys.executable, "-m", "tests.fuzz.run", "--atheris", "--target", name]
    command += ["--minutes", str(seconds / 60), "--failures", str(folder)]
    return int(subprocess.run(command, stderr=subprocess.DEVNULL).returncode != 0)


def fuzz(name: str, examples: int, seconds: float, seed: int, folder: Path) -> tuple[int, int]:
    """Try changed inputs of one target; returns how many there were, and how many failed."""
    failed, count = 0, 0
    until_s = time.monotonic() + seconds
    while count < examples if examples else time.monotonic() < until_s:
        rng = random.Random(f"{seed}/{name}/{count}")
        failed += not attempt(name, TARGETS[name].mutated(rng), folder)
        count += 1
        if failed >= 10:
            break
    return count, failed


def main() -> int:
    """Read the command line and fuzz; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=1.0, help="for all targets together")
    parser.add_argument("--examples", type=int, default=0, help="of each target, instead of time")
    parser.add_argument("--target", action="append", choices=sorted(TARGETS))
    parser.add_argument("--seed", type=int, default=time.time_ns() % 2**32)
    parser.add_argument("--failures", type=Path, default=Path("fuzz-failures"))
    parser.add_argument("--replay", type=Path, help="decode this file once more")
    parser.add_argument("--atheris", action="store_true", help="one target, guided by coverage")
    options = parser.parse_args()
    logging.disable(logging.CRITICAL)
    if options.replay:
        TARGETS[options.replay.name.split("-")[0]].run(options.replay.read_bytes())
        say("an answer came: this input no longer fails")
        return 0
    names = options.target or list(TARGETS)
    for name in names:
        for seed in TARGETS[name].seeds():
            assert TARGETS[name].run(seed), f"{name}: a good input was refused"
    bound_memory()
    share_s = options.minutes * 60 / len(names)
    if options.atheris:
        guided(names[0], options.examples, round(share_s), options.failures)
    total, both = 0, find_spec("atheris") is not None and not options.examples
    for name in names:
        own_s = share_s / 2 if both else share_s
        count, failed = fuzz(name, options.examples, own_s, options.seed, options.failures)
        if both:
            failed += guide(name, own_s, options.failures)
        total += failed
        say(f"{name}: {count} inputs, {failed} failed (seed {options.seed})")
    return 1 if total else 0


if __name__ == "__main__":
    sys.exit(main())
