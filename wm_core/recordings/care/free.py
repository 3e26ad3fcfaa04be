"""Frees room in a store: what is old and of no use goes, then the oldest chunks beyond a bound.

Chunks in which a person acted are kept: they move to the end of the order in which chunks go.
Rows of evicted chunks stay in the ledger, so that they count as evicted and never as lost.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from wm_core.contract.errors import StoreError, WmError
from wm_core.contract.files import TMP_SUFFIX
from wm_core.format.chunk import ChunkKey, chunk_path
from wm_core.recordings.care.place import alone, explained, reading
from wm_core.store.index import SIDECARS, load_index, step_number
from wm_core.store.ledger import LEDGER_NAME, ChunkRow, Ledger
from wm_core.store.quarantine import QUARANTINE, quarantine_path

_WRITTEN_S = 3600.0  #: age of a temporary file that no living process writes any more
_ASIDE = (".damaged-", ".before-repair-")  # how ledgers are called that were put aside


@dataclass(frozen=True)
class FreeRule:
    """Says what may go."""

    aside_ns: int = 30 * 86_400 * 10**9  #: age from which quarantine and old ledgers go
    max_bytes: int | None = None  #: of chunk files that may stay; None: any
    older_than_ns: int | None = None  #: age from which chunks go; None: none for their age
    keep_demonstrations: bool = True  #: chunks in which a person acted stay
    keep_robots: tuple[str, ...] = ()  #: whose chunks stay

    @property
    def evicts(self) -> bool:
        return self.max_bytes is not None or self.older_than_ns is not None


@dataclass
class Garbage:
    """Names one thing that may go."""

    kind: str  #: quarantine, unfinished, old ledger, old index or chunk
    path: Path
    bytes: int
    steps: int = 0  #: of a chunk


@dataclass
class Freed:
    """Lists what went, or would go."""

    garbage: list[Garbage] = field(default_factory=list)
    kept: int = 0  #: chunks that would have gone and stay as demonstrations
    kept_bytes: int = 0
    left_bytes: int = 0  #: of the chunk files that stay
    failed: list[tuple[Path, str]] = field(default_factory=list)  #: what could not be removed

    @property
    def bytes(self) -> int:
        return sum(item.bytes for item in self.garbage)

    @property
    def steps(self) -> int:
        return sum(item.steps for item in self.garbage)


def free_store(root: Path, rule: FreeRule, *, dry_run: bool = True) -> Freed:
    """Remove from the store ``root`` what ``rule`` lets go, or say what that would be.

    Args:
        root: the store's folder.
        rule: what may go.
        dry_run: remove nothing.

    Raises:
        StoreError: where chunks are to go and the store is served or trained from, a robot is
            named that it does not hold, or ledger or disk refuse.
    """
    if dry_run:
        with reading(root) as ledger:
            return _plan(root, ledger, rule)[0]
    with alone(root) if rule.evicts else contextlib.nullcontext(), explained(root):
        ledger = Ledger(root / LEDGER_NAME)
        try:
            with ledger.writing():  # nobody else writes to the store meanwhile
                freed, evicted, stay = _plan(root, ledger, rule)
                _evict(ledger, evicted, stay)
                _forget_refused(root, ledger, freed)
            freed.garbage = [item for item in freed.garbage if _removed(item, freed)]
        finally:
            ledger.close()
    return freed


def _plan(
    root: Path, ledger: Ledger, rule: FreeRule
) -> tuple[Freed, list[ChunkRow], list[ChunkRow]]:
    """List what goes; and of the oldest chunks those that go and those that stay."""
    robots = {robot for robot, _ in ledger.sessions()}
    for name in rule.keep_robots:
        if name not in robots:
            known = ", ".join(sorted(robots)) or "none"
            raise StoreError(f"--keep-robots {name}: {root} holds the robots {known}")
    freed, now_ns = Freed(), time.time_ns()
    freed.garbage += _aside(root, now_ns, rule)
    rows = ledger.since(ledger.pruned_through())
    evicted, stay = _oldest(root, rows, rule, now_ns)
    for row in evicted:
        path = chunk_path(root, row.key)
        size = _size(path) + sum(_size(path.with_suffix(f".{kind}")) for kind in SIDECARS)
        freed.garbage.append(Garbage("chunk", path, size, row.steps))
    freed.kept, freed.kept_bytes = len(stay), sum(row.bytes for row in stay)
    freed.left_bytes = sum(row.bytes for row in rows) - sum(row.bytes for row in evicted)
    return freed, evicted, stay


def _oldest(
    root: Path, rows: list[ChunkRow], rule: FreeRule, now_ns: int
) -> tuple[list[ChunkRow], list[ChunkRow]]:
    """Chunks that go, oldest first, and those before the last of them that stay."""
    evicted: list[ChunkRow] = []
    stay: list[ChunkRow] = []
    passed: list[ChunkRow] = []  # that stay, since the last one that goes
    left = sum(row.bytes for row in rows)
    newest = max((row.received_ns for row in rows), default=0)
    for row in rows[:-1]:
        too_much = rule.max_bytes is not None and left > rule.max_bytes
        too_old = rule.older_than_ns is not None and now_ns - row.received_ns > rule.older_than_ns
        if not (too_much or too_old):
            break
        if row.received_ns == newest or _is_kept(root, row, rule):
            passed.append(row)
            continue
        stay, passed = stay + passed, []
        evicted.append(row)
        left -= row.bytes
    return evicted, stay


def _is_kept(root: Path, row: ChunkRow, rule: FreeRule) -> bool:
    if row.robot in rule.keep_robots:
        return True
    if not rule.keep_demonstrations:
        return False
    try:
        index = load_index(root, row, keep=False)
    except (OSError, ValueError, WmError):
        return False
    return bool(step_number(index.steps, "is_intervention").any())


def _evict(ledger: Ledger, evicted: list[ChunkRow], stay: list[ChunkRow]) -> None:
    """Mark ``evicted`` as gone, within the ledger's transaction; ``stay`` get new arrivals."""
    if not evicted:
        return
    arrival = int(ledger.counts()["arrival"])
    damaged = ledger.damaged()
    for number, row in enumerate(stay, 1):
        ledger.remove(row.arrival)
        ledger.restore([row._replace(arrival=arrival + number)], pruned=0)
        if row.arrival in damaged:
            ledger.mark_sound(row.arrival)
            ledger.mark_damaged(arrival + number, damaged[row.arrival])
    ledger.mark_pruned(evicted[-1].arrival)


def _aside(root: Path, now_ns: int, rule: FreeRule) -> Iterator[Garbage]:
    """Everything that is neither chunk nor index nor ledger, and old enough."""
    for folder, _, names in os.walk(root):
        for name in sorted(names):
            path = Path(folder) / name
            age_ns = now_ns - _modified(path)
            if name.endswith(TMP_SUFFIX):
                if age_ns > _WRITTEN_S * 1e9:
                    yield Garbage("unfinished", path, _size(path))
            elif name.endswith(".idx.npz") or (
                name.endswith(".idx") and not path.with_suffix(".mcap").exists()
            ):
                yield Garbage("old index", path, _size(path))
            elif age_ns > rule.aside_ns:
                if QUARANTINE in path.relative_to(root).parts:
                    yield Garbage("quarantine", path, _size(path))
                elif name.startswith(LEDGER_NAME) and any(part in name for part in _ASIDE):
                    yield Garbage("old ledger", path, _size(path))


def _forget_refused(root: Path, ledger: Ledger, freed: Freed) -> None:
    """Take the notes back on files of the quarantine that go: their room counts as free."""
    going = {item.path for item in freed.garbage if item.kind == "quarantine"}
    for refused in ledger.refused() if going else ():
        key = ChunkKey(refused.robot, refused.session, refused.seq)
        if quarantine_path(root, key, refused.sha256) in going:
            ledger.remove_refused(key, refused.sha256)


def _removed(item: Garbage, freed: Freed) -> bool:
    """Remove the file of ``item``; the chunk last, as one that a kill leaves leads to both."""
    paths = [item.path]
    if item.kind == "chunk":
        paths = [item.path.with_suffix(f".{kind}") for kind in (*SIDECARS, "mcap")]
    try:
        for path in paths:
            path.unlink(missing_ok=True)
    except OSError as error:
        freed.failed.append((item.path, error.strerror or str(error)))
        return False
    return True


def _size(path: Path) -> int:
    try:
        return path.lstat().st_size
    except OSError:
        return 0


def _modified(path: Path) -> int:
    try:
        return path.lstat().st_mtime_ns
    except OSError:
        return time.time_ns()
