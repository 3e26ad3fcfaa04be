"""Takes chunks into an object store, without any state of its own.

Whoever asks first to write a chunk's name has stored it: the store itself decides, so any number
of services may stand before one bucket, and one that dies takes nothing with it.  A learner pulls
its own copy (``store.pull``) and finds there what only a ledger can know, such as the same steps
under two numbers.
"""

from __future__ import annotations

import hashlib
import logging
import threading
from collections import Counter
from concurrent.futures import Future, ThreadPoolExecutor

from wm_core.contract.errors import ChunkRefused, ChunkVersionRefused, StoreError
from wm_core.contract.spec import Spec
from wm_core.format.chunk import ChunkKey
from wm_core.store.examine import MAX_CHUNK_BYTES, ForeignChunk, check
from wm_core.store.intake import MAX_BACKLOG_BYTES
from wm_core.store.objects import Objects, object_name
from wm_core.store.verdict import Verdict

log = logging.getLogger(__name__)


class ObjectIntake:
    """Stores chunks in an object store; offers may come from any thread.

    A refused chunk is not kept: its robot keeps it, with the reason.

    Args:
        objects: the object store.
        max_bytes: a larger chunk is refused without being looked at.
        spec: refuse chunks that were recorded with another one; None takes any.
        writers: chunks that are checked and written at once.
    """

    def __init__(
        self,
        objects: Objects,
        *,
        max_bytes: int = MAX_CHUNK_BYTES,
        spec: Spec | None = None,
        writers: int = 16,
    ) -> None:
        self._objects, self._max_bytes, self._spec = objects, max_bytes, spec
        self._writers = ThreadPoolExecutor(writers, thread_name_prefix="intake-object")
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()
        self._usage: Counter[str] = Counter()
        self._offers = self._bytes = 0
        self._closed = False

    def offer(self, key: ChunkKey, data: bytes, sha256: str) -> Future[Verdict]:
        """Take over a chunk; the answer comes once the object store has it, or why not."""
        refused: Future[Verdict] = Future()
        with self._lock:
            if self._closed:
                refused.set_result(Verdict("busy", "the service is ending"))
                return refused
            if self._bytes + len(data) > MAX_BACKLOG_BYTES:
                refused.set_result(Verdict("busy", "too many bytes wait for the object store"))
                return refused
            self._offers += 1
            self._bytes += len(data)
            return self._writers.submit(self._take, key, data, sha256)

    def counts(self) -> dict[str, int]:
        """Count what this process stored and refused since it began, by name."""
        with self._lock:
            names = ("chunks", "steps", "bytes", "quarantined")
            waiting = {"waiting": self._offers, "waiting_bytes": self._bytes}
            return {name: self._counts[name] for name in names} | waiting

    def usage(self, robot: str) -> int:
        """Sum the bytes of one robot that this process stored since it began."""
        with self._lock:
            return self._usage[robot]

    def backlog(self) -> tuple[int, int]:
        """Count offers without an answer yet, and their bytes."""
        with self._lock:
            return self._offers, self._bytes

    def close(self) -> None:
        """Finish what was offered and end the threads; a second call does nothing."""
        with self._lock:
            self._closed = True
        self._writers.shutdown()

    def _take(self, key: ChunkKey, data: bytes, sha256: str) -> Verdict:
        steps = 0
        try:
            verdict, steps = self._store(key, data, sha256)
        except StoreError as error:
            log.error("%s", error)
            verdict = Verdict("busy", f"the object store could not be used: {error}"[:500])
        except Exception as error:  # memory, a fault of ours: not the chunk's fault
            log.exception("the intake failed")
            verdict = Verdict("busy", f"the trainer could not store it: {error}"[:500])
        with self._lock:
            self._offers -= 1
            self._bytes -= len(data)
            if verdict.kind == "stored":
                self._counts.update(chunks=1, steps=steps, bytes=len(data))
                self._usage[key.robot] += len(data)
            self._counts["quarantined"] += not verdict.ok and verdict.kind != "busy"
        return verdict

    def _store(self, key: ChunkKey, data: bytes, sha256: str) -> tuple[Verdict, int]:
        """Check a chunk and write it, unless it is there; returns the verdict and its steps."""
        if len(data) > self._max_bytes:
            reason = f"expected at most {self._max_bytes} bytes, got {len(data)}"
            return Verdict("too_large", reason), 0
        got = hashlib.sha256(data).hexdigest()
        if got != sha256:
            reason = f"expected sha256 {sha256}, got {got} over {len(data)} bytes"
            return Verdict("damaged", reason), 0
        try:
            columns = check(data, key, max_bytes=self._max_bytes, spec=self._spec)
        except ForeignChunk as error:
            return Verdict("conflict", str(error)), 0
        except ChunkVersionRefused as error:
            return Verdict("version", str(error)), 0
        except ChunkRefused as error:
            return Verdict("damaged", str(error)), 0
        name = object_name(key)
        if self._objects.put_new(name, data):
            return Verdict("stored"), columns.meta.steps
        there = self._objects.get(name)
        if there == data:
            return Verdict("known"), 0
        if there is None:
            return Verdict("busy", "it was removed from the object store a moment ago"), 0
        other = hashlib.sha256(there).hexdigest()
        reason = f"chunk {key.seq} is stored with sha256 {other}; this one has {got}"
        return Verdict("conflict", reason), 0
