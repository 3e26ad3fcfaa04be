"""Takes chunks of many senders into the store, and makes them durable in groups.

A chunk passes three stations: checking (a few threads), one commit of all that are checked by
then (files and folders synced side by side, one transaction), and its index, written afterwards.
The more chunks come at once, the more of them share a sync; a lone one waits for no other.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Protocol

from wm_core.contract.errors import StoreError
from wm_core.contract.spec import Spec
from wm_core.format.chunk import ChunkKey
from wm_core.store.commit import commit_group
from wm_core.store.examine import MAX_CHUNK_BYTES, Examined, examine_chunk
from wm_core.store.index import store_index
from wm_core.store.ledger import Ledger
from wm_core.store.verdict import Verdict

log = logging.getLogger(__name__)

MAX_GROUP = 64  #: chunks that one commit makes durable
MAX_GROUP_BYTES = 64 << 20
MAX_BACKLOG_BYTES = 512 << 20  #: of offers that wait; more are answered with busy at once


class Intake(Protocol):
    """Stores what a service receives: into a folder with a ledger, or into an object store."""

    def offer(self, key: ChunkKey, data: bytes, sha256: str) -> Future[Verdict]:
        """Take over a chunk; the answer comes once it is durable, or why it is not stored."""

    def counts(self) -> dict[str, int]:
        """Count what is stored, quarantined and waiting, by name."""

    def usage(self, robot: str) -> int:
        """Sum the bytes that are stored of one robot."""

    def backlog(self) -> tuple[int, int]:
        """Count offers without an answer yet, and their bytes."""

    def close(self) -> None:
        """Finish what was offered and end; later offers are refused as busy."""


class _Offer:
    """Follows one offer to its answer."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.answer: Future[Verdict] = Future()
        self.answer.set_running_or_notify_cancel()  # no one can cancel what is being stored
        self.examined: Examined | None = None


class StoreIntake:
    """Stores chunks in a folder with a ledger, in groups; offers may come from any thread.

    Args:
        root: the store's folder.
        ledger: of that store; it stays open when the intake closes.
        max_bytes: a larger chunk is refused without being looked at.
        min_free_bytes: leave at least this much room on the disk.
        spec: refuse chunks that were recorded with another one; None takes any.
        checkers: threads that check chunks.
        syncers: syncs of the disk at once.
    """

    def __init__(
        self,
        root: Path,
        ledger: Ledger,
        *,
        max_bytes: int = MAX_CHUNK_BYTES,
        min_free_bytes: int = 0,
        spec: Spec | None = None,
        checkers: int = 2,
        syncers: int = 8,
    ) -> None:
        self.root, self.ledger = Path(root), ledger
        self.checked = 0  #: offers that were checked and went to a commit
        self.groups = self.grouped = 0  #: commits so far, and the chunks in them
        self._max_bytes, self._min_free_bytes, self._spec = max_bytes, min_free_bytes, spec
        self._checkers = ThreadPoolExecutor(checkers, thread_name_prefix="intake-check")
        self._syncers = ThreadPoolExecutor(syncers, thread_name_prefix="intake-sync")
        self._changed = threading.Condition()
        self._ready: deque[_Offer] = deque()
        self._offers = self._bytes = 0  # without an answer
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="intake-commit", daemon=True)
        self._thread.start()

    def offer(self, key: ChunkKey, data: bytes, sha256: str) -> Future[Verdict]:
        """Take over a chunk.

        Args:
            key: whose chunk and which one.
            data: the chunk's file as it was sent.
            sha256: what the sender says its hash is, 64 hexadecimal digits.

        Returns:
            The verdict, once file, folder and row are durable, or why it is not stored.  It
            never holds an exception.
        """
        offer = _Offer(len(data))
        with self._changed:
            if self._closed or self._bytes + offer.size > MAX_BACKLOG_BYTES:
                why = "the store is closing" if self._closed else "too many bytes wait"
                offer.answer.set_result(Verdict("busy", why))
                return offer.answer
            self._offers += 1
            self._bytes += offer.size
            self._checkers.submit(self._examine, offer, key, data, sha256)
        return offer.answer

    def counts(self) -> dict[str, int]:
        """Count what is stored, quarantined and waiting, by name."""
        offers, size = self.backlog()
        waiting = {"waiting": offers, "waiting_bytes": size}
        return self.ledger.counts() | waiting | {"groups": self.groups, "grouped": self.grouped}

    def usage(self, robot: str) -> int:
        """Sum the bytes of one robot that are stored and were not evicted."""
        return self.ledger.usage(robot)

    def backlog(self) -> tuple[int, int]:
        """Count offers without an answer yet, and their bytes."""
        with self._changed:
            return self._offers, self._bytes

    def close(self) -> None:
        """Finish what was offered and end the threads; a second call does nothing."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join()
        self._checkers.shutdown()
        self._syncers.shutdown()

    # ------------------------------------------------------------------ stations of an offer

    def _examine(self, offer: _Offer, key: ChunkKey, data: bytes, sha256: str) -> None:
        try:
            offer.examined = examine_chunk(
                self.root,
                self.ledger,
                key,
                data,
                sha256,
                max_bytes=self._max_bytes,
                spec=self._spec,
            )
        except Exception as error:  # memory, disk or ledger: not the chunk's fault
            self._answer([offer], [_failed(error)])
            return
        if offer.examined.verdict is not None and not offer.examined.keep:
            self._answer([offer], [offer.examined.verdict])
            return
        with self._changed:
            self.checked += 1
            self._ready.append(offer)
            self._changed.notify_all()

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._ready:
                    if self._closed and not self._offers:
                        return
                    self._changed.wait()
                group = [self._ready.popleft()]
                size = group[0].size
                while self._ready and len(group) < MAX_GROUP and size < MAX_GROUP_BYTES:
                    group.append(self._ready.popleft())
                    size += group[-1].size
            self._commit(group)

    def _commit(self, group: list[_Offer]) -> None:
        examined = [offer.examined for offer in group if offer.examined is not None]
        try:
            verdicts = commit_group(
                self.root,
                self.ledger,
                examined,
                min_free_bytes=self._min_free_bytes,
                pool=self._syncers,
            )
        except Exception as error:
            verdicts = [_failed(error)] * len(group)
        self.groups += 1
        self.grouped += len(group)
        for chunk, verdict in zip(examined, verdicts, strict=False):
            if verdict.kind == "stored":
                self._checkers.submit(store_index, self.root, chunk)
        self._answer(group, verdicts)

    def _answer(self, offers: list[_Offer], verdicts: list[Verdict]) -> None:
        for offer, verdict in zip(offers, verdicts, strict=True):
            offer.answer.set_result(verdict)
        with self._changed:
            self._offers -= len(offers)
            self._bytes -= sum(offer.size for offer in offers)
            self._changed.notify_all()


def _failed(error: Exception) -> Verdict:
    """Say that a chunk could not be stored for a reason that lies here; it may come again."""
    if isinstance(error, (StoreError, sqlite3.Error, OSError)):
        log.error("nothing can be stored: %s", error)
    else:
        log.error("the intake failed", exc_info=error)
    return Verdict("busy", f"the trainer could not store it: {error}"[:500])
