"""Disks of the campaign: an ext4 file system in a file each, which can be filled, locked and cut.

A power cut is ext4's own shutdown without a flush: what was not made durable before is gone after
the next mount.  Mounting needs root; without it a disk is a folder that knows no faults.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import struct
import subprocess
import time
from pathlib import Path

_SHUTDOWN = 0x8004587D  # _IOR('X', 125, __u32) of linux/fs/ext4/ext4.h
_NO_FLUSH = 2
_BALLAST = "ballast"


def mountable() -> bool:
    """Whether this process may mount a file as a disk."""
    if os.geteuid() != 0 or not all(map(shutil.which, ("mkfs.ext4", "mount", "umount"))):
        return False
    return os.path.exists("/dev/loop-control")


class Disk:
    """A file system of its own, mounted at ``place`` where that is permitted.

    Args:
        place: folder at which it is mounted.
        image: file that holds it; None makes ``place`` a plain folder.
        size_bytes: of the file system.
    """

    def __init__(self, place: Path, image: Path | None, size_bytes: int) -> None:
        self.place, self.image = place, image
        place.mkdir(parents=True, exist_ok=True)
        if image is None:
            return
        with image.open("wb") as file:
            file.truncate(size_bytes)
        _do("mkfs.ext4", "-q", "-F", "-N", str(max(20_000, size_bytes // 2048)), str(image))
        self.mount()

    @property
    def real(self) -> bool:
        return self.image is not None

    def mount(self) -> None:
        """Mount it, with what a power cut left."""
        _do("mount", "-o", "loop", str(self.image), str(self.place))

    def unmount(self) -> None:
        """Unmount it, once the last process has let go of it."""
        deadline_s = time.monotonic() + 30.0
        while subprocess.run(["umount", str(self.place)], capture_output=True).returncode:
            if time.monotonic() > deadline_s:
                _do("umount", str(self.place))
                return
            time.sleep(0.05)

    def cut_power(self) -> None:
        """Stop the file system without a flush; every later call on it fails."""
        handle = os.open(self.place, os.O_RDONLY)
        try:
            fcntl.ioctl(handle, _SHUTDOWN, struct.pack("I", _NO_FLUSH))
        finally:
            os.close(handle)

    def fill(self) -> None:
        """Leave no byte free."""
        with open(self.place / _BALLAST, "ab") as file, contextlib.suppress(OSError):
            free = os.statvfs(self.place)
            os.posix_fallocate(file.fileno(), 0, max(1, (free.f_bfree - 16) * free.f_frsize))
        with open(self.place / _BALLAST, "ab") as file:
            for size in (1 << 16, 1 << 12, 1 << 9):
                with contextlib.suppress(OSError):
                    while True:
                        os.write(file.fileno(), b"\0" * size)

    def empty(self) -> None:
        """Take away what ``fill`` put there."""
        (self.place / _BALLAST).unlink(missing_ok=True)

    def turn_read_only(self) -> None:
        """Refuse every write from now on, as after an error of the medium, until mounted anew."""
        _do("mount", "-o", "remount,abort", str(self.place))

    def close(self) -> None:
        """Unmount it and delete the file."""
        if self.image is not None:
            self.unmount()
            self.image.unlink(missing_ok=True)


def _do(*words: str) -> None:
    done = subprocess.run(words, capture_output=True, text=True)
    if done.returncode:
        raise OSError(f"{' '.join(words)}: {done.stderr.strip()}")
