"""Repairs a store: what is whole of a damaged chunk becomes a chunk again, nothing is deleted.

The damaged file itself moves to the quarantine, and the ledger is copied before it is changed.
What could not be read stays where it is: its bytes may come again from a backup, by ``wm store
import``.  That is tried first where there is one, for a repaired chunk has other bytes than the
one that was acknowledged.  A file that was never acknowledged stays in the quarantine, for its
robot sends the whole chunk again.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from wm_core.contract.errors import ChunkRefused, StoreError
from wm_core.contract.files import make_folder, sync_folder, write_durably
from wm_core.format.chunk import ChunkKey, ChunkMeta, chunk_path, encode_chunk
from wm_core.format.salvage import Salvaged, salvage, salvage_meta
from wm_core.recordings.care.place import alone, explained, reading, store_at
from wm_core.store.examine import check
from wm_core.store.index import SIDECARS
from wm_core.store.ingest import ingest
from wm_core.store.ledger import LEDGER_NAME, ChunkRow, Ledger
from wm_core.store.quarantine import QUARANTINE, quarantine_path
from wm_core.store.rebuild import rebuild
from wm_core.store.reconcile import reconcile, session_folders
from wm_core.store.rows import Refused
from wm_core.store.verify import read_chunk

DROPPED = "lost_in_repair"  #: reason in the meta of a repaired chunk
_FOUND = "found without a row"  # how the reason begins of a file that nobody acknowledged
_MAX_BYTES = 256 << 20


@dataclass
class MendedChunk:
    """Says what became of one damaged chunk."""

    path: Path
    fault: str  #: missing, torn, wrong_hash, unreadable or undecodable
    steps: int  #: that it had; 0 where that is not known
    saved: int = 0  #: steps that are in the store again
    pieces: int = 0  #: runs of consecutive steps that they make
    note: str = ""

    @property
    def lost(self) -> int:
        return max(0, self.steps - self.saved)


@dataclass
class Mended:
    """Says what a repair did, or would do."""

    chunks: list[MendedChunk] = field(default_factory=list)
    ledger: str = "sound"  #: sound, or why a new one was made
    copy: Path | None = None  #: of the ledger, as it was before
    adopted: int = 0  #: good files that had no row and have one now
    unfinished: int = 0  #: temporary files of a killed writer, removed
    set_aside: int = 0  #: files in the quarantine that were never acknowledged; they stay there

    @property
    def saved(self) -> int:
        return sum(chunk.saved for chunk in self.chunks)

    @property
    def lost(self) -> int:
        return sum(chunk.lost for chunk in self.chunks)


def store_to_mend(path: Path) -> Path:
    """Give the store's folder of ``path``, one without a ledger too; raises ``StoreError``."""
    for root in (path / "store", path):
        if (root / LEDGER_NAME).exists() or any(
            next(folder.glob("*.mcap"), None) for _, _, folder in _sessions(root)
        ):
            return root
    return store_at(path)


def _sessions(root: Path) -> list[tuple[str, str, Path]]:
    return list(session_folders(root)) if root.is_dir() else []


def repair_store(
    root: Path, *, dry_run: bool = False, on_file: Callable[[Path], object] = lambda path: None
) -> Mended:
    """Repair the store ``root``, or say what that would do.

    Args:
        root: the store's folder.
        dry_run: change nothing.
        on_file: called before each chunk file is read.

    Raises:
        StoreError: where the store is served or trained from, or the disk refuses; what was not
            repaired by then is as it was.
    """
    if dry_run:
        return _looked_at(root, on_file)
    with alone(root):
        return _repaired(root, on_file)


def _looked_at(root: Path, on_file: Callable[[Path], object]) -> Mended:
    mended = Mended(ledger=_fault_of_ledger(root))
    if mended.ledger != "sound":
        for robot, session, folder in _sessions(root):
            for path in sorted(folder.glob("*.mcap")):
                on_file(path)
                _look_without_row(ChunkKey(robot, session, 0), path, mended)
        return mended
    with reading(root) as ledger:
        for row in ledger.since(ledger.pruned_through()):
            on_file(chunk_path(root, row.key))
            found = _damage(root, row)
            if found is not None:
                _save_steps(root, ledger, row, found)
                mended.chunks.append(found)
        mended.set_aside = len(_unacknowledged(root, ledger))
    return mended


def _look_without_row(key: ChunkKey, path: Path, mended: Mended) -> None:
    if not path.stem.isdecimal():
        return
    data = _bytes_of(path)
    try:
        check(data, key._replace(seq=int(path.stem)), max_bytes=_MAX_BYTES)
    except ChunkRefused as error:
        got = salvage(data)
        steps = got.meta.steps if got.meta else 0
        mended.chunks.append(
            MendedChunk(path, "torn", steps, len(got.steps), len(got.runs), str(error))
        )


def _repaired(root: Path, on_file: Callable[[Path], object]) -> Mended:
    mended = Mended(ledger=_fault_of_ledger(root))
    with explained(root):
        before = set((root / QUARANTINE).rglob("*.refused"))
        if mended.ledger != "sound":
            mended.copy = rebuild(root, on_file=on_file).old
        ledger = Ledger(root / LEDGER_NAME)
        try:
            if mended.copy is None:
                mended.copy = _copy_of(ledger)
            found = reconcile(root, ledger)
            mended.adopted, mended.unfinished = found.adopted, found.unfinished
            for row in ledger.since(ledger.pruned_through()):
                on_file(chunk_path(root, row.key))
                chunk = _damage(root, row)
                if chunk is None:
                    continue
                got = _save_steps(root, ledger, row, chunk)
                if got is not None and got.steps:
                    _replace(root, ledger, row, got)
                else:
                    ledger.mark_damaged(row.arrival, chunk.note)
                mended.chunks.append(chunk)
            for refused, path in _unacknowledged(root, ledger):
                # a sound ledger has a row of all that was acknowledged; the robot still has the
                # rest, and a part of a chunk in its place would have the whole one refused
                if mended.ledger == "sound" or path in before:
                    mended.set_aside += 1
                else:
                    mended.chunks.append(_bring_back(root, ledger, refused, path))
        finally:
            ledger.close()
    if not mended.chunks and mended.ledger == "sound" and mended.copy is not None:
        mended.copy.unlink()
        mended.copy = None
    return mended


def _fault_of_ledger(root: Path) -> str:
    """Say what is wrong with the ledger, or ``sound``."""
    if not (root / LEDGER_NAME).exists():
        return "it is gone"
    try:
        with reading(root) as ledger:
            ledger.check()
    except StoreError as error:
        if "newer program" in str(error) or "locked" in str(error):
            raise
        return str(error)
    return "sound"


def _copy_of(ledger: Ledger) -> Path:
    """Copy the ledger beside itself, as it stands."""
    number = 1
    while (copy := ledger.path.with_name(f"{ledger.path.name}.before-repair-{number}")).exists():
        number += 1
    ledger.fold()
    with (
        contextlib.closing(sqlite3.connect(ledger.path)) as old,
        contextlib.closing(sqlite3.connect(copy)) as new,
    ):
        old.backup(new)
    return copy


def _damage(root: Path, row: ChunkRow) -> MendedChunk | None:
    """Say what is wrong with the file of ``row``; None where nothing is."""
    path, read = chunk_path(root, row.key), read_chunk(root, row)
    if read.data is None:
        return MendedChunk(path, read.fault, row.steps, note=read.reason)
    return None


def _save_steps(root: Path, ledger: Ledger, row: ChunkRow, chunk: MendedChunk) -> Salvaged | None:
    """Recover the steps of a damaged chunk and count them in ``chunk``."""
    if chunk.fault not in ("missing", "torn", "wrong_hash"):
        return None
    got = Salvaged(None)
    for path in _files_of(root, ledger, row, chunk.path):
        data = _bytes_of(path)
        other = salvage(data, _meta_of(root, ledger, row, data))
        got = max(got, other, key=lambda salvaged: len(salvaged.steps))
    chunk.saved, chunk.pieces = len(got.steps), len(got.runs)
    if not got.steps and chunk.fault != "missing":
        chunk.note = f"nothing of it can be read ({chunk.note}); it stays where it is"
    return got


def _files_of(root: Path, ledger: Ledger, row: ChunkRow, path: Path) -> list[Path]:
    """The damaged file of a chunk, and what a killed repair put aside of it."""
    noted = {
        refused.sha256[:16]
        for refused in ledger.refused()
        if (refused.robot, refused.session, refused.seq) == tuple(row.key)
    }
    beside = quarantine_path(root, row.key, row.sha256).parent
    aside = sorted(beside.glob(f"{row.seq:08d}.*.refused"))
    unnoted = [other for other in aside if other.name.split(".")[1] not in noted]
    return [other for other in (path, *unnoted) if other.is_file()]


def _bytes_of(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(_MAX_BYTES)
    except OSError:
        return b""


def _meta_of(root: Path, ledger: Ledger, row: ChunkRow, data: bytes) -> ChunkMeta | None:
    """The meta of a damaged chunk: by the ledger and a neighbour, for its own may be damaged."""
    own = salvage_meta(data)
    known = {**row.key._asdict(), "first_step": row.first_step, "steps": row.steps}
    neighbours = ledger.of_session(row.robot, row.session)
    neighbours.sort(key=lambda other: abs(other.seq - row.seq))
    for other in neighbours[:8]:
        read = read_chunk(root, other)
        if read.data is not None:
            meta = salvage_meta(read.data)
            if meta is not None and (own is None or own.spec == meta.spec):
                dropped = own.dropped if own is not None else {}
                whole = meta.model_copy(update={**known, "dropped": dropped})
                return whole.with_codecs(own.codecs if own is not None else meta.codecs)
    return own.model_copy(update=known) if own is not None else None


def _unacknowledged(root: Path, ledger: Ledger) -> list[tuple[Refused, Path]]:
    """List files of the quarantine that once lay in the store, and whose place is free."""
    found = []
    for refused in ledger.refused():
        key = ChunkKey(refused.robot, refused.session, refused.seq)
        path = quarantine_path(root, key, refused.sha256)
        if refused.reason.startswith(_FOUND) and ledger.find(key) is None and path.is_file():
            found.append((refused, path))
    return found


def _bring_back(root: Path, ledger: Ledger, refused: Refused, path: Path) -> MendedChunk:
    """Store what is whole of a file that the making of a new ledger put into the quarantine."""
    got = salvage(_bytes_of(path))
    steps = got.meta.steps if got.meta else 0
    chunk = MendedChunk(path, "torn", steps, len(got.steps), len(got.runs), refused.reason)
    if got.meta is not None and got.steps:
        key = ChunkKey(refused.robot, refused.session, refused.seq)
        meta = got.meta.model_copy(update=key._asdict())
        with ledger.writing():
            for piece_key, data in _pieces(got, meta):
                _store(root, ledger, piece_key, data)
    return chunk


def _replace(root: Path, ledger: Ledger, row: ChunkRow, got: Salvaged) -> None:
    """Keep the damaged file in the quarantine, and store what is whole of it in its place.

    A kill in between leaves a file that the row does not fit, and the next repair begins anew.
    """
    assert got.meta is not None
    path = chunk_path(root, row.key)
    data = _bytes_of(path)
    sha256 = hashlib.sha256(data).hexdigest()
    aside = quarantine_path(root, row.key, sha256)
    make_folder(aside.parent)
    if path.is_file():
        _second_name(path, aside)
    reason = f"damaged on the disk; {len(got.steps)} of {row.steps} steps were recovered from it"
    try:
        with ledger.writing():
            ledger.remove(row.arrival)
            ledger.mark_sound(row.arrival)
            if aside.exists():
                ledger.add_refused(row.key, sha256, len(data), reason)
            for kind in SIDECARS:
                path.with_suffix(f".{kind}").unlink(missing_ok=True)
            for key, piece in _pieces(got, got.meta):
                _store(root, ledger, key, piece)
    except BaseException:
        path.unlink(missing_ok=True)
        if aside.exists():
            _second_name(aside, path)
        raise


def _second_name(path: Path, other: Path) -> None:
    """Give the file at ``path`` the name ``other`` too, durably; a copy where links are none."""
    if other.exists():
        return
    try:
        os.link(path, other)
    except OSError:
        write_durably(other, path.read_bytes())
    sync_folder(other.parent)


def _pieces(got: Salvaged, meta: ChunkMeta) -> list[tuple[ChunkKey, bytes]]:
    """Encode each run of recovered steps; all but the first become sessions of their own.

    A session's chunks are numbered, and the numbers beside a damaged one are taken.
    """
    found = []
    lost = meta.steps - len(got.steps)
    for number, (index, steps) in enumerate(got.runs):
        first_step = meta.first_step + index
        update = {"first_step": first_step, "steps": len(steps)}
        if number == 0:
            dropped = dict(meta.dropped)
            if lost:
                dropped[DROPPED] = dropped.get(DROPPED, 0) + lost
            piece = meta.model_copy(update={**update, "dropped": dropped})
        else:
            name = f"{meta.robot}/{meta.session}/{meta.seq}/{first_step}"
            session = hashlib.sha256(name.encode()).hexdigest()[:32]
            other = {**update, "session": session, "seq": 0, "dropped": {}}
            piece = meta.model_copy(update=other)
        found.append((piece.key, encode_chunk(steps, piece)))
    return found


def _store(root: Path, ledger: Ledger, key: ChunkKey, data: bytes) -> None:
    verdict = ingest(root, ledger, key, data, max_bytes=_MAX_BYTES)
    if not verdict.ok:
        raise StoreError(
            f"what was recovered of {tuple(key)} could not be stored: {verdict.reason}; nothing "
            "of that chunk was changed"
        )
