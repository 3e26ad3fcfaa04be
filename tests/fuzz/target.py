"""What a decoder under test is, and where it finds its files."""

from __future__ import annotations

import random
import sys
import tempfile
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from tests.fuzz import mutations
from wm_core.contract.errors import SettingsError

ROOT = Path(__file__).parents[2]
MAX_CALLS = 3_000_000  #: of functions for one input: what any of them may cost
MAX_REASON = 4000  #: characters of what a decoder says

Edit = Callable[[bytes, random.Random], bytes]


class TooMuchWork(Exception):
    """Reports a decoder that called more functions for one input than any may."""


@dataclass(frozen=True)
class Target:
    """Is one decoder.

    Args:
        decode: reads bytes that may hold anything.
        seeds: good inputs; each decodes.
        refuses: the only errors that ``decode`` may raise.
        edit: makes one change that fits the format.
    """

    decode: Callable[[bytes], object]
    seeds: Callable[[], list[bytes]]
    refuses: tuple[type[Exception], ...]
    edit: Edit = mutations.edit_bytes

    def mutated(self, rng: random.Random) -> bytes:
        """Change a good input once or a few times."""
        data = rng.choice(_seeds(self))
        for _ in range(rng.choice((1, 1, 2, 4))):
            edit = self.edit if rng.randrange(4) else mutations.edit_bytes
            try:
                data = edit(data, rng)
            except Exception:  # no longer of its format
                data = mutations.edit_bytes(data, rng)
        return data

    def run(self, data: bytes) -> bool:
        """Decode ``data`` with its calls counted; returns whether it was taken."""
        left = MAX_CALLS

        def count(frame: Any, event: str, argument: Any) -> None:
            nonlocal left
            if event in ("call", "c_call"):
                left -= 1
                if left == 0:
                    raise TooMuchWork(f"more than {MAX_CALLS} calls")

        before = sys.getprofile()
        sys.setprofile(count)
        try:
            self.decode(data)
        except self.refuses as error:
            if not isinstance(error, SettingsError) and len(str(error)) > MAX_REASON:
                raise AssertionError(f"a reason of {len(str(error))} characters") from error
            return False
        finally:
            sys.setprofile(before)
        return True


@cache
def _seeds(target: Target) -> list[bytes]:
    return target.seeds()


def in_folder(name: str) -> Path:
    """Give a path of that name in a folder that is not there yet."""
    return Path(_folder()) / uuid.uuid4().hex / name


@cache
def _folder() -> str:
    return tempfile.mkdtemp(prefix="wm-fuzz-")


def written(name: str, data: bytes) -> Path:
    """Write a file of that name into a folder of its own."""
    path = in_folder(name)
    path.parent.mkdir(parents=True)
    path.write_bytes(data)
    return path


def remove(path: Path) -> None:
    """Remove the folder that ``path`` is in, with its files."""
    for file in path.parent.iterdir():
        file.unlink()
    path.parent.rmdir()
