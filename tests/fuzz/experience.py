"""Good chunks, messages, ledgers and spools, and what reads them."""

from __future__ import annotations

import hashlib

import numpy as np

from tests.fuzz.spool_files import (
    open_log,
)
from tests.fuzz.target import in_folder, remove, written
from wm_core.contract.errors import ChunkRefused
from wm_core.contract.inputs import ImageSpec
from wm_core.contract.spec import ActionSpec, Spec, VectorSpec
from wm_core.contract.step import Step
from wm_core.format import cdr
from wm_core.format.chunk import ChunkKey, ChunkMeta, check_chunk, encode_chunk
from wm_core.format.columns import read_columns
from wm_core.link.robot.journal import SpoolSession
from wm_core.store.index import index_path, load_index, make_index, write_sidecar
from wm_core.store.ledger import LEDGER_NAME, Ledger

SPEC = Spec(
    images={"image": ImageSpec(height=6, width=8)},
    vectors={"proprio": VectorSpec(size=2, names=("hip", "knee"))},
    action=ActionSpec(low=(-1.0,), high=(1.0,), names=("turn",)),
)
SESSION = "0" * 32


def step(number: int) -> Step:
    rng = np.random.default_rng(number)
    return Step(
        obs={"image": SPEC.images["image"].random(rng), "proprio": np.ones(2, np.float32)},
        action=np.zeros(1, np.float32),
        reward=0.0,
        is_first=number == 0,
        is_last=False,
        is_terminal=False,
        requested_action=None if number == 3 else np.zeros(1, np.float32),
        stamp_ns=10**9 + number,
    )


def chunks() -> list[bytes]:
    """Chunks of steps that are alike, and of steps that are not."""
    out = []
    for count in (2, 18):
        meta = ChunkMeta(
            robot="r", session=SESSION, seq=0, task="t", spec=SPEC, first_step=0, steps=count
        )
        out.append(encode_chunk([step(i) for i in range(count)], meta))
    return out


def decode_chunk_both_ways(data: bytes) -> None:
    """Check and index a chunk, and read it once more message by message."""
    refusals = []
    for bulk in (True, False):
        try:
            if bulk:
                make_index(check_chunk(data, None, max_bytes=16 << 20))
            else:
                read_columns(data, bulk=False)
        except ChunkRefused as error:
            refusals.append(error)
    assert len(refusals) in (0, 2), f"only one way of reading refused: {refusals}"
    if refusals:
        raise refusals[0]


def metas() -> list[bytes]:
    columns = check_chunk(chunks()[0], None, max_bytes=2**20)
    return [columns.meta.model_dump_json().encode()]


def messages() -> list[bytes]:
    pixels = np.zeros((6, 8, 3), np.uint8)
    return [
        cdr.encode_image(pixels, SPEC.images["image"], 7, "image"),
        cdr.encode_joint_state(("hip", "knee"), np.ones(2), 7, np.ones(2)),
    ]


def decode_cdr(data: bytes) -> None:
    """Read a message as either type; each refuses by itself."""
    failed = []
    for decode in (cdr.decode_joint_state, lambda d: cdr.decode_image(d, SPEC.images["image"])):
        try:
            decode(data)
        except ChunkRefused as error:
            failed.append(error)
    if len(failed) == 2:
        raise failed[0]


def decode_journal(data: bytes) -> None:
    """Read a journal as the robot's start does: a bad one is no journal."""
    path = written("session.json", data)
    try:
        session = SpoolSession(path.parent)
        session.journal()
        session.has_newer_journal()
    finally:
        remove(path)


def ledgers() -> list[bytes]:
    path = in_folder(LEDGER_NAME)
    ledger = Ledger(path)
    columns = check_chunk(chunks()[0], None, max_bytes=2**20)
    for seq in range(20):
        ledger.add(ChunkKey("r", SESSION, seq), "0" * 64, 100, columns.meta)
    ledger.add_refused(ChunkKey("r", SESSION, 20), "0" * 64, 100, "no chunk")
    ledger.close()
    data = path.read_bytes()
    remove(path)
    return [data]


def decode_ledger(data: bytes) -> None:
    """Open a ledger and read all that it tells."""
    path = written(LEDGER_NAME, data)
    try:
        ledger = Ledger(path)
        try:
            ledger.since(0)
            ledger.counts()
            ledger.refused()
            ledger.sessions()
            ledger.find(ChunkKey("r", SESSION, 3))
            ledger.pruned_through()
        finally:
            ledger.close()
    finally:
        remove(path)


def store(data: bytes, sidecar: bytes | None) -> bytes:
    """Put one chunk and its sidecar into a store and read its index; returns the sidecar."""
    key = ChunkKey("r", SESSION, 0)
    root = in_folder("store").parent
    path = index_path(root, key)
    path.parent.mkdir(parents=True)
    path.with_name("00000000.mcap").write_bytes(data)
    sha256 = hashlib.sha256(data).hexdigest()
    columns = check_chunk(data, key, max_bytes=2**20)
    ledger = Ledger(root / LEDGER_NAME)
    ledger.add(key, sha256, len(data), columns.meta)
    [row] = ledger.since(0)
    ledger.close()
    if sidecar is None:
        write_sidecar(root, key, make_index(columns), sha256)
    else:
        path.write_bytes(sidecar)
    written = path.read_bytes()
    index = load_index(root, row)
    assert len(index.steps) == row.steps
    for file in sorted(root.rglob("*"), reverse=True):
        file.rmdir() if file.is_dir() else file.unlink()
    return written


def decode_sidecar(data: bytes) -> None:
    """Read a sidecar as the learner does: a bad one is made again from its chunk."""
    store(chunks()[0], data)


def open_logs() -> list[bytes]:
    meta = ChunkMeta(robot="r", session=SESSION, seq=3, spec=SPEC, first_step=9, steps=3)
    return [open_log(meta, [step(i) for i in range(3)], ended=ended) for ended in (False, True)]
