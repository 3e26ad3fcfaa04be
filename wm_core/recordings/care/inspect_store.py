"""Looks at every chunk and every step of a store, and says what is wrong with them.

The files are read and hashed by the code of ``wm store verify``; what is whole is decoded.  The
store is only read.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np

from wm_core.contract.errors import ChunkRefused
from wm_core.recordings.care.checks import Limits, check_track
from wm_core.recordings.care.findings import Finding, Findings
from wm_core.recordings.care.track import Before, Track, joined, track_chunk
from wm_core.recordings.care.whole import WholeStore
from wm_core.store.episodes import kept_of_session
from wm_core.store.examine import check
from wm_core.store.ledger import ChunkRow, Ledger
from wm_core.store.verify import read_chunk

_TRACK_STEPS = 32_768  #: that are looked at together
_MAX_MOMENTS = 1 << 20  #: that are remembered; in later ones no repetition is looked for
_SAMPLE = 8  #: one in so many moments is compared over sessions, chosen by its content


def inspect_store(
    root: Path,
    ledger: Ledger,
    *,
    robot: str = "",
    limits: Limits = Limits(),  # noqa: B008  frozen
    on_chunk: Callable[[ChunkRow], object] = lambda row: None,
) -> Findings:
    """Look at every chunk of the store ``root`` that was not evicted.

    Args:
        root: the store's folder.
        ledger: of that store.
        robot: look at the chunks of this one only; empty: of all.
        limits: what counts as wrong.
        on_chunk: called before each chunk.
    """
    look = _Look(root, ledger, limits, on_chunk)
    for name, session in ledger.sessions():
        if robot in ("", name):
            look.session(kept_of_session(ledger, name, session))
    for finding in look.whole.findings():
        look.found.add(finding)
    return look.found


class _Look:
    def __init__(
        self,
        root: Path,
        ledger: Ledger,
        limits: Limits,
        on_chunk: Callable[[ChunkRow], object],
    ) -> None:
        self.found, self.whole = Findings(), WholeStore()
        self._root, self._ledger, self._limits, self._on_chunk = root, ledger, limits, on_chunk
        self._moments: dict[int, tuple[str, str]] = {}  # of a sample of steps: their session

    def session(self, rows: list[ChunkRow]) -> None:
        """Look at the chunks of one session, in order."""
        before, tracks, last = Before(), list[Track](), None
        for row in rows:
            self._on_chunk(row)
            self._gap(last, row)
            last = row
            track = self._read(row, before)
            self.found.chunks += 1
            self.found.bytes += row.bytes
            self.found.steps += row.steps
            known = sum(map(len, tracks))
            if tracks and (track is None or track.spec != tracks[0].spec or known >= _TRACK_STEPS):
                self._judge(tracks)
                tracks = []
            if track is not None:
                tracks.append(track)
        if tracks:
            self._judge(tracks)

    def _gap(self, last: ChunkRow | None, row: ChunkRow) -> None:
        """Note the steps between two chunks of a session that are not there."""
        end = last.first_step + last.steps if last is not None else row.first_step
        if row.first_step > end:
            steps = row.first_step - end
            said = f"{steps} steps before chunk {row.seq} are not there"
            self.found.add(Finding("gap", said, row.robot, row.session, -1, end, steps))

    def _read(self, row: ChunkRow, before: Before) -> Track | None:
        read = read_chunk(self._root, row)
        if read.data is None and row.arrival <= self._ledger.pruned_through():
            return None  # evicted meanwhile
        if read.data is None:
            self.found.of_chunk(read.fault, row.key, row.steps, read.reason)
            return None
        try:
            columns = check(read.data, row.key, max_bytes=len(read.data))
        except ChunkRefused as error:
            self.found.of_chunk("undecodable", row.key, row.steps, str(error))
            return None
        return track_chunk(columns, before)

    def _judge(self, tracks: list[Track]) -> None:
        track = joined(tracks)
        for finding in check_track(track, self._limits):
            self.found.add(finding)
        self.whole.add(track)
        self._repeated(track)

    def _repeated(self, track: Track) -> None:
        """Note steps whose time, action and reward another session has too."""
        mine, hits = (track.robot, track.session), list[int]()
        whose = ""
        for i in range(len(track)):
            moment = zlib.crc32(
                track.action[i].tobytes() + np.float64(track.reward[i]).tobytes(),
                int(track.stamp_ns[i]) & 0xFFFFFFFF,
            )
            if moment % _SAMPLE:
                continue
            place = (moment << 64) + int(track.stamp_ns[i])
            if len(self._moments) >= _MAX_MOMENTS:
                break
            other = self._moments.setdefault(place, mine)
            if other != mine:
                hits.append(i)
                whose = f"{other[0]}/{other[1][:8]}"
        if hits:
            start, stop = hits[0], hits[-1] + 1
            said = f"their times, actions and rewards are those of {whose}"
            seq, index = int(track.seq[start]), int(track.index[start])
            self.found.add(Finding("repeated_steps", said, *mine, seq, index, stop - start))
