"""Records the steps of this process into the store, by the way that robots' steps take.

Every step becomes part of a chunk that ``store.ingest`` takes in, so that training in sim, beside
a robot and from an old store all read one kind of replay.
"""

from __future__ import annotations

import errno
import time
import uuid
from dataclasses import replace
from pathlib import Path

from wm_core.contract.errors import StoreError
from wm_core.contract.spec import Spec
from wm_core.contract.step import Step, is_usable
from wm_core.format.chunk import ChunkKey, ChunkMeta, encode_chunk
from wm_core.store.disk import PAUSES_S, DiskFailed, refusal
from wm_core.store.ingest import ingest
from wm_core.store.ledger import Ledger

SEAL_STEPS = 64  #: steps per chunk; what is younger is not in the store yet


class EnvRecorder:
    """Records the steps of one environment into the store, chunk by chunk.

    Args:
        root: the store.
        ledger: of that store.
        robot: the name that this environment records under.
        task: recorded with every chunk.
        spec: of the steps.
        seal_steps: steps per chunk.
    """

    def __init__(
        self,
        root: Path,
        ledger: Ledger,
        *,
        robot: str,
        task: str,
        spec: Spec,
        seal_steps: int = SEAL_STEPS,
    ) -> None:
        self._root, self._ledger, self._robot, self._task = root, ledger, robot, task
        self._spec, self._seal_steps = spec, seal_steps
        self._session, self._begin_ns = uuid.uuid4().hex, time.time_ns()
        self._seq = self._first_step = 0
        self._open: list[Step] = []

    def add(self, step: Step) -> None:
        """Take in one step, stamped in the environment's own time; full chunks are sealed."""
        index = self._first_step + len(self._open)
        stamp_ns = self._begin_ns + round(index * self._spec.period_s * 1e9)
        is_valid = step.is_valid and is_usable(step, self._spec)
        self._open.append(replace(step, stamp_ns=stamp_ns, is_valid=is_valid))
        if len(self._open) >= self._seal_steps:
            self.seal()

    def seal(self) -> None:
        """Write the steps since the last chunk into the store, durably.

        Raises:
            DiskFailed: where the disk does not take them after a few tries; they stay here.
        """
        if not self._open:
            return
        key = ChunkKey(self._robot, self._session, self._seq)
        meta = ChunkMeta(
            **key._asdict(),
            task=self._task,
            spec=self._spec,
            first_step=self._first_step,
            steps=len(self._open),
        )
        self._store(key, encode_chunk(self._open, meta))
        self._seq += 1
        self._first_step += len(self._open)
        self._open = []

    def _store(self, key: ChunkKey, data: bytes) -> None:
        """Store a chunk; a disk or ledger that refuses may do better in a moment."""
        for pause_s in (*PAUSES_S, None):
            if not self._ledger.path.exists():
                raise DiskFailed(f"{self._root} was removed or moved while steps were recorded")
            verdict = ingest(self._root, self._ledger, key, data)
            if verdict.ok:
                return
            if verdict.kind not in ("no_room", "busy"):
                break
            if pause_s is None:
                number = errno.ENOSPC if verdict.kind == "no_room" else errno.EIO
                error = OSError(number, verdict.reason)
                less = "--replay.store-max-bytes"
                raise DiskFailed(refusal(error, self._root, needed=len(data), less=less))
            time.sleep(pause_s)
        raise StoreError(f"own chunk {key} was not stored ({verdict.kind}): {verdict.reason}")
