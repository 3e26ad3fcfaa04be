"""Knows the chunks of a robot that wait on its disk, and which of them give way at the bounds."""

from __future__ import annotations

import contextlib
import logging
import os
from dataclasses import dataclass, replace
from pathlib import Path

from wm_core.contract.errors import ChunkRefused
from wm_core.format.chunk import ChunkKey, chunk_path, read_columns
from wm_core.link.robot.black_box import give_way
from wm_core.link.robot.journal import GIVEN_UP, read_regular, sessions_in
from wm_core.link.robot.recovery import steps_in
from wm_core.link.robot.spool_settings import SpoolSettings
from wm_core.link.robot.step_queue import any_valuable

log = logging.getLogger(__name__)

_MAX_CHUNK_BYTES = 1 << 29
_LOOKED_AT = 64  #: chunks of earlier sessions whose value is looked at for one that is to go
_SMALL_DISK = 20  #: at most this part of a disk is left free


@dataclass(frozen=True, slots=True, order=True)
class Kept:
    """Describes a chunk that was on the disk when last looked at; sorts oldest first."""

    created_ns: int  #: of its session
    key: ChunkKey
    bytes: int
    steps: int = -1  #: in it; -1 where it is of an earlier session and was not read yet
    valuable: bool | None = None  #: None as above


@dataclass(frozen=True, slots=True)
class Victim:
    """Is a chunk that gave way: its file has the name ``path`` until its loss is noted."""

    key: ChunkKey
    path: Path
    bytes: int
    steps: int


class SpoolRoom:
    """Lists a robot's chunks, and decides which give way.

    Args:
        folder: the spool folder.
        robot: whose chunks count.
        session: of this process; its chunks are added by ``add``.
        settings: bounds, and what gives way.
    """

    def __init__(self, folder: Path, robot: str, session: str, settings: SpoolSettings) -> None:
        self._folder, self._robot, self._session = folder, robot, session
        self._settings = settings
        self._kept: list[Kept] = []
        self._kept_bytes = 0
        self._ended: dict[str, int] = {}  # sessions of processes that ended -> created_ns
        self._others_bytes = 0  # of chunks of processes that run
        self._listed_ns = -1

    @property
    def bytes(self) -> int:
        """Sum up the chunks that wait."""
        return self._others_bytes + self._kept_bytes

    def __len__(self) -> int:
        return len(self._kept)

    def ended(self, session: str, created_ns: int) -> None:
        """Note that the process of ``session`` has ended, so that its chunks may give way."""
        self._ended[session] = created_ns

    def add(self, kept: Kept) -> None:
        """Note a chunk of this process."""
        self._kept.append(kept)
        self._kept_bytes += kept.bytes

    def forget_acknowledged(self) -> None:
        """Forget the oldest chunks whose files the uploader has removed."""
        gone = 0
        for kept in self._kept:
            if chunk_path(self._folder, kept.key).exists():
                break
            gone += 1
            self._kept_bytes -= kept.bytes
        del self._kept[:gone]

    def look(self) -> None:
        """List the files again: others add and remove some too."""
        known = {kept.key: kept for kept in self._kept}
        found, others = [], 0
        with contextlib.suppress(OSError):
            self._listed_ns = os.stat(self._folder / self._robot).st_mtime_ns
        for session in sessions_in(self._folder, self._robot):
            name = session.session
            waiting = session.waiting(self._ended.get(name, 0))
            if name != self._session and name not in self._ended:
                others += sum(chunk.bytes for chunk in waiting)
                continue
            for chunk in waiting:
                kept = known.get(chunk.key)
                found.append(kept or Kept(chunk.created_ns, chunk.key, chunk.bytes))
        self._kept, self._others_bytes = sorted(found), others
        self._kept_bytes = sum(kept.bytes for kept in found)

    def lack(self, size: int) -> str:
        """Say why ``size`` more bytes do not fit: "spool_full", "disk_low", or empty."""
        if self._is_over(size):
            return "spool_full"
        return "disk_low" if self._disk_lacks(size) else ""

    def make(self, size: int) -> tuple[list[Victim], str]:
        """Have chunks give way until ``size`` more bytes fit; where they cannot, none does.

        What the trainer has acknowledged or refused goes before what still waits.  Where the disk
        is low, as much goes as comes: experience grows no more, and does not pay for what others
        write.

        Returns:
            What gave way, and why the new bytes do not fit all the same; empty where they do.
        """
        self.forget_acknowledged()
        self._look_if_shared()
        if self.lack(size):
            self.look()
        freed = give_way(self._folder, size) if self._disk_lacks(size) else 0
        evicts = self._settings.evicts and size <= self._settings.max_bytes - self._others_bytes
        victims = []
        while evicts and self._is_over(size) and (victim := self._give_up()):
            victims.append(victim)
        if self._is_over(size):
            return victims, "spool_full"
        freed += sum(victim.bytes for victim in victims)
        if freed < size and self._disk_lacks(size):
            more = self.free(size - freed) if evicts else []
            victims += more
            if freed + sum(victim.bytes for victim in more) < size:
                return victims, "disk_low"
        return victims, ""

    def _is_over(self, size: int) -> bool:
        return self.bytes + size > self._settings.max_bytes

    def free(self, size: int) -> list[Victim]:
        """Have chunks give way that hold ``size`` bytes together, as far as there are any."""
        victims: list[Victim] = []
        while sum(victim.bytes for victim in victims) < size and (victim := self._give_up()):
            victims.append(victim)
        return victims

    def _look_if_shared(self) -> None:
        """List again where another process uses this spool for the same robot, or might."""
        with contextlib.suppress(OSError):
            changed_ns = os.stat(self._folder / self._robot).st_mtime_ns
            if self._others_bytes or changed_ns != self._listed_ns:
                self.look()

    def _disk_lacks(self, size: int) -> bool:
        try:
            disk = os.statvfs(self._folder)
        except OSError:
            return False
        spare = min(self._settings.min_free_bytes, disk.f_blocks * disk.f_frsize // _SMALL_DISK)
        return bool(spare) and disk.f_bavail * disk.f_frsize < size + spare

    def _give_up(self) -> Victim | None:
        """Rename the chunk that is worth least, so that nothing sends or lists it any more."""
        while self._kept:
            kept = self._kept.pop(self._worth_least())
            self._kept_bytes -= kept.bytes
            path = chunk_path(self._folder, kept.key)
            claimed = path.with_suffix(GIVEN_UP)
            try:
                os.rename(path, claimed)
            except FileNotFoundError:  # acknowledged meanwhile
                continue
            except OSError as error:  # of another user, say: it stays, and counts as others' bytes
                log.error("chunk %s cannot give way: %s", kept.key, error)
                self._others_bytes += kept.bytes
                continue
            steps = kept.steps if kept.steps >= 0 else steps_in(claimed)
            return Victim(kept.key, claimed, kept.bytes, steps)
        return None

    def _worth_least(self) -> int:
        """Find the oldest chunk, or the oldest without a valuable step."""
        if self._settings.overflow != "keep_valuable":
            return 0
        looked_at = 0
        for at, kept in enumerate(self._kept):
            if kept.valuable is None and looked_at < _LOOKED_AT:
                looked_at += 1
                kept = self._kept[at] = replace(kept, valuable=self._holds_value(kept.key))
            if kept.valuable is False:
                return at
        return 0

    def _holds_value(self, key: ChunkKey) -> bool:
        try:
            data = read_regular(chunk_path(self._folder, key), _MAX_CHUNK_BYTES)
            return any_valuable(read_columns(data).numbers)
        except (ChunkRefused, OSError):
            return False
