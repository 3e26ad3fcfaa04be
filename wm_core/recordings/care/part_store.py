"""Makes a store of some episodes of another: whole chunks are linked, cut ones are written anew.

A chunk that holds steps of other episodes too is written with those that are wanted alone.  Steps
keep their numbers in the session, and chunks theirs as far as they can: two pieces of one chunk
need two.  Chunks that follow each other go on doing so.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

from wm_core.contract.errors import StoreError
from wm_core.contract.files import TMP_SUFFIX, make_folder, sync_folder
from wm_core.format.chunk import ChunkKey, chunk_path, decode_chunk, encode_chunk
from wm_core.recordings.care.place import explained
from wm_core.store.episodes import StoredEpisode, spans_of
from wm_core.store.ingest import ingest
from wm_core.store.ledger import LEDGER_NAME, ChunkRow, Ledger
from wm_core.store.reconcile import adopt_file
from wm_core.store.verify import read_chunk

_MAX_BYTES = 256 << 20


@dataclass
class PartStore:
    """Counts what a new store was made of."""

    root: Path
    linked: int = 0  #: chunks that share the bytes of the old store on the disk
    copied: int = 0  #: chunks whose bytes were copied: another disk, or one without links
    cut: int = 0  #: chunks that were written anew
    steps: int = 0


@dataclass(frozen=True)
class _Piece:
    """Steps ``start`` .. ``stop`` of a chunk, and the number that they get."""

    row: ChunkRow
    start: int
    stop: int
    seq: int

    @property
    def is_whole(self) -> bool:
        return self.start == 0 and self.stop == self.row.steps and self.seq == self.row.seq


def check_places(to: Path, names: Iterable[str]) -> None:
    """Raise ``StoreError`` where one of the parts ``names`` could not be made in ``to``."""
    for place in (to / name for name in names):
        if place.exists() and (not place.is_dir() or any(place.iterdir())):
            raise StoreError(f"{place} is there already; name a folder that does not exist yet")


def make_parts(
    root: Path,
    ledger: Ledger,
    parts: Mapping[str, Sequence[StoredEpisode]],
    to: Path,
    *,
    on_part: Callable[[Path], object] = lambda place: None,
) -> list[PartStore]:
    """Make a store of each of ``parts`` in the folder ``to``: all of them, or none.

    Args:
        root: the old store's folder, which is only read.
        ledger: of the old store.
        parts: episodes by the name of the part.
        to: folder that takes a folder for each part.
        on_part: called before each is made.

    Raises:
        StoreError: as ``make_part``; the parts that were made before are removed again.
    """
    check_places(to, parts)
    made: list[PartStore] = []
    try:
        for name, episodes in parts.items():
            on_part(to / name)
            made.append(make_part(root, ledger, episodes, to / name))
    except BaseException:
        for part in made:
            shutil.rmtree(part.root, ignore_errors=True)
        raise
    return made


def make_part(
    root: Path,
    ledger: Ledger,
    episodes: Sequence[StoredEpisode],
    to: Path,
    *,
    on_chunk: Callable[[ChunkRow], object] = lambda row: None,
) -> PartStore:
    """Make the store ``to`` of ``episodes`` of the store ``root``.

    Args:
        root: the old store's folder, which is only read.
        ledger: of that store.
        episodes: as ``stored_episodes`` gave them.
        to: folder of the new store: absent, or empty.
        on_chunk: called before each chunk.

    Raises:
        StoreError: where ``to`` holds something, a chunk is damaged, or the disk refuses.
    """
    if to.exists() and (not to.is_dir() or any(to.iterdir())):
        raise StoreError(f"{to} is there already; name a folder that does not exist yet")
    made, unfinished = PartStore(to), to.with_name(f"{to.name}.{uuid4().hex[:8]}{TMP_SUFFIX}")
    with explained(to):
        make_folder(unfinished)
        try:
            new = Ledger(unfinished / LEDGER_NAME)
            try:
                for piece in _pieces(ledger, episodes):
                    on_chunk(piece.row)
                    _put(root, unfinished, new, piece, made)
            finally:
                new.close()
            os.replace(unfinished, to)  # what a kill leaves is no store that anyone takes
        except BaseException:
            shutil.rmtree(unfinished, ignore_errors=True)
            raise
        sync_folder(to.parent)
    return made


def _pieces(ledger: Ledger, episodes: Sequence[StoredEpisode]) -> Iterator[_Piece]:
    """Join the spans of episodes to pieces of chunks, session by session, and number them."""
    sessions: dict[tuple[str, str], list[tuple[ChunkRow, int, int]]] = {}
    for episode in sorted(episodes, key=lambda e: e.first_step):
        spans = sessions.setdefault((episode.robot, episode.session), [])
        for row, start, stop in spans_of(ledger, episode):
            if spans and spans[-1][0].seq == row.seq and spans[-1][2] == start:
                start = spans.pop()[1]
            spans.append((row, start, stop))
    for spans in sessions.values():
        seq = -1
        for row, start, stop in spans:
            seq = max(seq + 1, row.seq)
            yield _Piece(row, start, stop, seq)


def _put(root: Path, to: Path, ledger: Ledger, piece: _Piece, made: PartStore) -> None:
    row, path = piece.row, chunk_path(root, piece.row.key)
    read = read_chunk(root, row)
    if read.data is None:
        raise StoreError(f"{path}: {read.reason}; wm data repair saves what can be read")
    made.steps += piece.stop - piece.start
    if piece.is_whole:
        if _link(path, to, ledger, row.key):
            made.linked += 1
            return
        made.copied += 1
        _ingest(to, ledger, row.key, read.data)
        return
    made.cut += 1
    meta, steps = decode_chunk(read.data)
    key = row.key._replace(seq=piece.seq)
    part = meta.model_copy(
        update={
            "seq": piece.seq,
            "first_step": meta.first_step + piece.start,
            "steps": piece.stop - piece.start,
            "dropped": {},
        }
    )
    _ingest(to, ledger, key, encode_chunk(steps[piece.start : piece.stop], part))


def _link(path: Path, to: Path, ledger: Ledger, key: ChunkKey) -> bool:
    """Give the file at ``path`` a second name in the store ``to``; False where that fails."""
    new = chunk_path(to, key)
    make_folder(new.parent)
    try:
        os.link(path, new)
    except OSError:
        return False
    with ledger.writing():
        return adopt_file(to, ledger, key, new) == "adopted"


def _ingest(to: Path, ledger: Ledger, key: ChunkKey, data: bytes) -> None:
    verdict = ingest(to, ledger, key, data, max_bytes=_MAX_BYTES)
    if not verdict.ok:
        raise StoreError(f"{to}: chunk {tuple(key)} could not be stored: {verdict.reason}")
