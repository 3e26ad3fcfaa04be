"""What is killed at each of its writing system calls, and what has to hold afterwards."""

from __future__ import annotations

import hashlib
import sqlite3
import sys
from pathlib import Path

import numpy as np
from interrupted import Workload

from wm_core.contract.errors import StoreError
from wm_core.contract.spec import ActionSpec, ImageSpec, Spec
from wm_core.contract.step import Step
from wm_core.format.chunk import ChunkKey, ChunkMeta, chunk_path, decode_chunk, encode_chunk
from wm_core.link.robot.journal import sessions_in
from wm_core.link.robot.spool import Spool, SpoolSettings
from wm_core.store.ingest import ingest
from wm_core.store.intake import StoreIntake
from wm_core.store.ledger import LEDGER_NAME, Ledger
from wm_core.store.quarantine import QUARANTINE
from wm_core.store.reader import Store
from wm_core.store.rebuild import rebuild
from wm_core.store.reconcile import Reconciled, reconcile
from wm_core.store.retention import prune

SPEC = Spec(
    images={"image": ImageSpec(height=8, width=8)}, action=ActionSpec(low=(-1.0,), high=(1.0,))
)


def step(number: int) -> Step:
    image, action = np.full((8, 8, 3), number % 256, np.uint8), np.zeros(1, np.float32)
    first = number == 0
    stamp_ns = 10**9 + number
    return Step({"image": image}, action, float(number), first, False, False, stamp_ns=stamp_ns)


def make_chunk(session: int, seq: int, *, salt: int = 0) -> tuple[ChunkKey, bytes, str]:
    key = ChunkKey("rover", f"{session:032x}", seq)
    more = {"spec": SPEC, "first_step": 3 * seq, "steps": 3, "dropped": {"salt": salt}}
    meta = ChunkMeta(**key._asdict(), **more)
    data = encode_chunk([step(3 * seq + i) for i in range(3)], meta)
    return key, data, hashlib.sha256(data).hexdigest()


OLD = [make_chunk(0, seq) for seq in range(4)]
NEW = [make_chunk(1, 0), make_chunk(0, 4), make_chunk(2, 0)]
RIVAL = make_chunk(0, 1, salt=1)


def filled(root: Path) -> None:
    """A store of four chunks, one of whose files was damaged since."""
    ledger = Ledger(root / LEDGER_NAME)
    for chunk in OLD:
        assert ingest(root, ledger, *chunk).kind == "stored"
    ledger.close()
    chunk_path(root, OLD[3][0]).write_bytes(b"damaged")


def sound(root: Path) -> None:
    """The same store without the damage."""
    filled(root)
    chunk_path(root, OLD[3][0]).write_bytes(OLD[3][1])


def holds(root: Path, said: list[str], chunks: list, *, gone: tuple = ()) -> None:
    """Raise unless a service and a learner start, and everything that was said is there."""
    ledger = Ledger(root / LEDGER_NAME)
    try:
        found = reconcile(root, ledger)
        assert found.quarantined == found.unsound == found.unreadable == 0, found
        assert reconcile(root, ledger)._replace(missing=0) == Reconciled()
        assert not list(root.glob("[!q]*/**/*.tmp"))
        for key, data, sha256 in chunks:
            row = ledger.find(key)
            if f"{key.session}/{key.seq}" in said:
                assert row is not None, f"{key} has no row"
                assert row.sha256 == sha256
                assert chunk_path(root, key).read_bytes() == data, f"{key} is not what was sent"
            if key not in gone and row is not None and row.arrival > ledger.pruned_through():
                assert ingest(root, ledger, key, data, sha256).ok
        for key, data, sha256 in chunks:
            assert ingest(root, ledger, key, data, sha256).ok, key
        store = Store(root, cache_bytes=10**6)
        store.refresh()
        for segment in store.segments:
            steps = store.read(segment.rows(0, segment.length))
            obs = store.observe(steps)["image"]
            assert (obs[:, 0, 0, 0] == steps["reward"]).all()
        assert not store.left_out, store.left_out
        store.close()
    finally:
        ledger.close()


# ------------------------------------------------------------------ workloads


def write_group(root: Path, say) -> None:
    """One group of the service: three new chunks, one known, one damaged, one rival."""
    ledger = Ledger(root / LEDGER_NAME)
    intake = StoreIntake(root, ledger, checkers=1, syncers=2)
    with ledger.writing():
        chunks = [*NEW, OLD[0], OLD[3], RIVAL]
        offers = [(chunk[0], intake.offer(*chunk)) for chunk in chunks]
        while intake.checked < 5:
            pass
    for key, offer in offers:
        if offer.result(60).ok:
            say(f"{key.session}/{key.seq}")
    intake.close()
    ledger.close()


def check_group(root: Path, said: list[str]) -> None:
    holds(root, said, [*OLD, *NEW])


def write_checkpoint(root: Path, say) -> None:
    """A row more, and the ledger's log folded back into its database."""
    ledger = Ledger(root / LEDGER_NAME)
    assert ingest(root, ledger, *NEW[0]).ok
    say(f"{NEW[0][0].session}/{NEW[0][0].seq}")
    db = sqlite3.connect(root / LEDGER_NAME, isolation_level=None)
    db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    db.close()
    assert ingest(root, ledger, *NEW[1]).ok
    say(f"{NEW[1][0].session}/{NEW[1][0].seq}")
    ledger.close()


def check_checkpoint(root: Path, said: list[str]) -> None:
    holds(root, [*said, *(f"{key.session}/{key.seq}" for key, _, _ in OLD)], [*OLD, *NEW])


def write_too_early(root: Path, say) -> None:
    """What no store may do: speak before the row is committed."""
    say(f"{NEW[0][0].session}/{NEW[0][0].seq}")
    write_checkpoint(root, say)


def write_prune(root: Path, say) -> None:
    ledger = Ledger(root / LEDGER_NAME)
    prune(root, ledger, len(OLD[3][1]) + len(OLD[2][1]))
    ledger.close()


def check_prune(root: Path, said: list[str]) -> None:
    ledger = Ledger(root / LEDGER_NAME)
    assert reconcile(root, ledger).missing == 0
    kept = [row.key for row in ledger.since(ledger.pruned_through())]
    assert len(kept) in (2, 4)
    files = {p.stem for p in root.glob("rover/*/*.mcap")}
    assert files == {f"{key.seq:08d}" for key in kept}
    ledger.close()
    holds(root, [], OLD, gone=tuple(key for key, _, _ in OLD[:2]))


def write_quarantine(root: Path, say) -> None:
    ledger = Ledger(root / LEDGER_NAME)
    assert ingest(root, ledger, *RIVAL).kind == "conflict"
    say("refused")
    ledger.close()


def check_quarantine(root: Path, said: list[str]) -> None:
    ledger = Ledger(root / LEDGER_NAME)
    kept = list((root / QUARANTINE).glob("*/*/*.refused"))
    assert all(path.read_bytes() == RIVAL[1] for path in kept)
    if said:
        assert len(ledger.refused()) == len(kept) == 1
    ledger.close()
    holds(root, [f"{key.session}/{key.seq}" for key, _, _ in OLD], OLD)


def write_migration(root: Path, say) -> None:
    Ledger(root / LEDGER_NAME).close()


def old_ledger(root: Path) -> None:
    """A store as version 1 of the ledger had it."""
    sound(root)
    db = sqlite3.connect(root / LEDGER_NAME, isolation_level=None)
    for drop in ("TABLE unsound", "TABLE damaged"):
        db.execute(f"DROP {drop}")
    db.execute("PRAGMA user_version=1")
    db.close()


def unreadable_ledger(root: Path) -> None:
    """A store whose ledger has a scrambled page."""
    sound(root)
    with (root / LEDGER_NAME).open("r+b") as file:
        file.seek(4096)
        file.write(b"\xa5" * 4096)


def write_rebuild(root: Path, say) -> None:
    rebuild(root)
    say("rebuilt")


def check_rebuild(root: Path, said: list[str]) -> None:
    try:
        Ledger(root / LEDGER_NAME).check()
    except StoreError:
        assert not said
        rebuild(root)
    check_checkpoint(root, [])


def write_seal(root: Path, say) -> None:
    """One session of a spool that seals twice; the robot's journal and its open log."""
    settings = SpoolSettings(seal_steps=4096, seal_s=3600.0, min_free_bytes=0)
    spool = Spool(root, robot="rover", task="", spec=SPEC, settings=settings)
    for number in range(8):
        assert spool.put(step(number))
        if number % 4 == 3:
            assert spool.flush(60.0)
            say(f"{number + 1}")
    spool.close()


def check_seal(root: Path, said: list[str]) -> None:
    settings = SpoolSettings(min_free_bytes=0)
    spool = Spool(root, robot="rover", task="", spec=SPEC, settings=settings)
    assert spool.put(step(0))
    assert spool.flush(60.0)
    spool.close()
    rewards: list[float] = []
    for session in sessions_in(root):
        if session.session != spool.session:
            for chunk in sorted(session.waiting()):
                rewards += [s.reward for s in decode_chunk(chunk.path.read_bytes())[1]]
    assert rewards == list(range(len(rewards)))
    assert len(rewards) >= (int(said[-1]) if said else 0)
    left = list(root.rglob("*.mcap.*.tmp"))
    assert not left, left


WORKLOADS = {
    "group": Workload(filled, write_group, check_group),
    "checkpoint": Workload(sound, write_checkpoint, check_checkpoint),
    "too_early": Workload(sound, write_too_early, check_checkpoint),
    "prune": Workload(sound, write_prune, check_prune),
    "quarantine": Workload(sound, write_quarantine, check_quarantine),
    "migration": Workload(old_ledger, write_migration, check_checkpoint),
    "rebuild": Workload(unreadable_ledger, write_rebuild, check_rebuild),
    "seal": Workload(lambda root: root.mkdir(), write_seal, check_seal),
}

if __name__ == "__main__":
    sys.exit("run interrupted.py")
