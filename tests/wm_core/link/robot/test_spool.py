"""Every step that is put ends up in a durable chunk or in a count with its reason."""

from __future__ import annotations

import dataclasses
import os
import resource
import signal
import subprocess
import sys

import numpy as np
import pytest

from wm_core.contract.errors import ChunkRefused
from wm_core.contract.files import write_durably
from wm_core.format.chunk import ChunkKey, chunk_path, decode_chunk
from wm_core.link.robot.journal import SpoolSession, sessions_in
from wm_core.link.robot.spool import Spool, SpoolSettings


@pytest.fixture
def open_spool(tmp_path, spec, closing):
    def make(folder=None, **settings):
        defaults = {"seal_steps": 4, "seal_s": 60.0}
        settings = SpoolSettings(**defaults | settings)
        folder = folder or tmp_path / "spool"
        return closing(Spool(folder, robot="rover", task="seek", spec=spec, settings=settings))

    return make


@pytest.fixture
def bytes_of_two_chunks(open_spool, tmp_path, make_step):
    spool = open_spool(tmp_path / "probe")
    for i in range(8):
        spool.put(make_step(i))
    spool.flush(60.0)
    return spool.counters()["bytes_on_disk"]


def stored(spool):
    """(meta, rewards) of each chunk on the disk; a reward is the step's own number."""
    chunks = [decode_chunk(w.path.read_bytes()) for w in home(spool).waiting()]
    return [(meta, [step.reward for step in steps]) for meta, steps in chunks]


def home(spool):
    return SpoolSession(spool.folder / "rover" / spool.session)


def test_steps_come_back_in_order_and_in_chunks(open_spool, make_step):
    spool = open_spool()
    assert all(spool.put(make_step(i)) for i in range(10))
    spool.close()
    chunks = stored(spool)
    assert [rewards for _, rewards in chunks] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert [meta.seq for meta, _ in chunks] == [0, 1, 2]
    assert [meta.first_step for meta, _ in chunks] == [0, 4, 8]
    journal = home(spool).journal()
    assert (journal.next_seq, journal.next_step, journal.closed) == (3, 10, True)
    counts = spool.counters()
    assert counts["steps_put"] == counts["steps_sealed"] == 10
    assert counts["chunks_sealed"] == 3
    assert counts["bytes_on_disk"] == sum(w.bytes for w in home(spool).waiting())


def test_an_old_chunk_is_sealed_before_it_is_full(open_spool, make_step, wait_until):
    spool = open_spool(seal_steps=64, seal_s=0.2)
    spool.put(make_step(0))
    wait_until(lambda: spool.counters()["chunks_sealed"] == 1)


def test_large_steps_are_sealed_early(open_spool, make_step):
    spool = open_spool(seal_steps=64, seal_bytes=2 * 8 * 8 * 3)
    for i in range(4):
        spool.put(make_step(i))
    assert spool.flush(60.0)
    assert [rewards for _, rewards in stored(spool)] == [[0, 1], [2, 3]]


def test_flush_seals_what_was_put(open_spool, make_step):
    spool = open_spool()
    spool.put(make_step(0))
    assert spool.flush(60.0)
    assert [rewards for _, rewards in stored(spool)] == [[0]]


def test_a_dropped_step_ends_a_chunk_and_is_counted_in_the_next(open_spool, make_step):
    spool = open_spool(seal_steps=64)
    misfit = dataclasses.replace(make_step(2), action=np.zeros(3, np.float32))
    for step in (make_step(0), make_step(1), misfit, make_step(3)):
        spool.put(step)
    spool.close()
    first, second = stored(spool)
    assert (first[1], second[1]) == ([0, 1], [3])
    assert (first[0].first_step, second[0].first_step) == (0, 3)
    assert second[0].dropped == {"spec_mismatch": 1}
    assert spool.counters()["dropped_spec_mismatch"] == 1
    assert not spool.put(make_step(4))
    assert spool.counters()["dropped_closed"] == 1


def test_a_step_with_a_nan_is_kept_and_marked(open_spool, make_step):
    spool = open_spool()
    spool.put(dataclasses.replace(make_step(0), reward=float("nan")))
    spool.close()
    (chunk,) = home(spool).waiting()
    assert not decode_chunk(chunk.path.read_bytes())[1][0].is_valid
    assert spool.counters()["steps_invalid"] == 1


def test_a_full_queue_drops_and_counts_and_put_never_waits(open_spool, make_step):
    """The writer looks ten times a second; a put that waited for it would lose no step."""
    spool = open_spool(queue_steps=8, overflow="drop_newest")
    steps = [make_step(i) for i in range(200)]
    taken = sum(spool.put(step) for step in steps)
    spool.close()
    counts = spool.counters()
    assert 0 < taken == counts["steps_sealed"] < 200
    assert taken + counts["dropped_queue_full"] == 200


def test_at_its_bound_the_spool_evicts_the_oldest_and_records_which(
    open_spool, make_step, bytes_of_two_chunks
):
    bounded = open_spool(max_bytes=bytes_of_two_chunks)
    for i in range(20):
        bounded.put(make_step(i))
    bounded.close()
    kept = stored(bounded)
    assert len(kept) in (1, 2)
    assert kept[-1][1] == [16, 17, 18, 19]
    counts = bounded.counters()
    assert counts["dropped_spool_full"] == 20 - 4 * len(kept)
    assert kept[-1][0].dropped["spool_full"] == counts["dropped_spool_full"] - 4  # until then
    assert counts["chunks_sealed"] == 5
    assert counts["bytes_on_disk"] <= bytes_of_two_chunks
    dropped = home(bounded).journal().dropped_seqs()
    assert dropped == dict.fromkeys(range(5 - len(kept)), "spool_full")


def test_at_its_bound_the_spool_can_keep_the_oldest(open_spool, make_step, bytes_of_two_chunks):
    bounded = open_spool(max_bytes=bytes_of_two_chunks + 100, overflow="drop_newest")
    for i in range(20):
        bounded.put(make_step(i))
    bounded.close()
    assert [rewards for _, rewards in stored(bounded)] == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert bounded.counters()["dropped_spool_full"] == 12
    assert home(bounded).journal().next_seq == 2


def test_a_full_disk_is_counted_and_the_spool_continues(open_spool, make_step):
    spool = open_spool()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (500, limits[1]))
    try:
        for i in range(4):
            assert spool.put(make_step(i))
        assert spool.flush(60.0)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    for i in range(4, 8):
        spool.put(make_step(i))
    spool.close()
    ((meta, rewards),) = stored(spool)
    assert rewards == [4, 5, 6, 7]
    assert (meta.seq, meta.first_step, meta.dropped) == (1, 4, {"disk_full": 4})
    assert home(spool).journal().dropped_seqs() == {0: "disk_full"}  # never given again
    assert spool.counters()["dropped_disk_full"] == 4


def test_a_session_is_never_used_twice(open_spool, make_step, spec):
    spool = open_spool()
    spool.put(make_step(0))
    spool.close()
    with pytest.raises(ChunkRefused, match="used before"):
        Spool(spool.folder, robot="rover", task="seek", spec=spec, session=spool.session)
    with pytest.raises(ChunkRefused, match="robot"):
        Spool(spool.folder, robot="../rover", task="seek", spec=spec)


def test_chunks_of_a_killed_process_are_recovered(tmp_path, open_spool, make_chunk, wait_until):
    folder = tmp_path / "spool"
    key, data, _ = make_chunk(seq=0)
    whole, half = key._replace(seq=1), key._replace(seq=2)
    write_durably(chunk_path(folder, key), data)
    _, whole_data, _ = make_chunk(seq=1, session=key.session)
    path = chunk_path(folder, whole)
    path.with_name(f"{path.name}.01234567.tmp").write_bytes(whole_data)
    path = chunk_path(folder, half)
    path.with_name(f"{path.name}.89abcdef.tmp").write_bytes(data[:100])
    spool = open_spool(folder)
    assert spool.flush(60.0)
    counts = spool.counters()
    assert (counts["tmp_recovered"], counts["tmp_removed"]) == (1, 1)
    assert counts["chunks_left_over"] == 2
    assert counts["bytes_on_disk"] == len(data) + len(whole_data)
    assert [w.key for w in SpoolSession(chunk_path(folder, key).parent).waiting()] == [key, whole]


def test_a_living_process_keeps_its_unfinished_files(tmp_path, open_spool, make_step):
    first = open_spool()
    first.put(make_step(0))
    first.flush(60.0)
    unfinished = home(first).path / "00000009.mcap.01234567.tmp"
    unfinished.write_bytes(b"on its way")
    second = open_spool()
    second.flush(60.0)
    assert unfinished.exists()


ROBOT = """
import sys, time
import numpy as np
from pathlib import Path
from wm_core.contract.spec import Spec
from wm_core.contract.step import Step
from wm_core.link.robot.spool import Spool, SpoolSettings

spec = Spec.model_validate_json(sys.argv[2])
settings = SpoolSettings(seal_steps=2)
spool = Spool(Path(sys.argv[1]), robot="rover", task="", spec=spec, settings=settings)
for number in range(100_000):
    image = np.zeros((8, 8, 3), np.uint8)
    spool.put(Step({"image": image}, np.zeros(1, np.float32), number, False, False, False))
    time.sleep(0.001)
assert "torch" not in sys.modules and "starlette" not in sys.modules
"""


def test_a_robot_killed_while_it_writes_leaves_whole_chunks(tmp_path, spec, wait_until):
    folder = tmp_path / "spool"
    args = [sys.executable, "-c", ROBOT, folder, spec.model_dump_json()]
    process = subprocess.Popen(args)
    wait_until(lambda: len(list(folder.glob("*/*/*.mcap"))) > 10)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    (session,) = sessions_in(folder)
    waiting = session.waiting()
    assert [w.key.seq for w in waiting] == list(range(len(waiting)))
    rewards = [s.reward for w in waiting for s in decode_chunk(w.path.read_bytes())[1]]
    assert rewards == list(range(len(rewards)))
    assert session.journal().next_seq in (len(waiting), len(waiting) - 1)
    assert not session.journal().closed


def test_the_robots_half_needs_neither_torch_nor_the_service():
    names = ("spool", "uploader", "policy_client")
    code = "import sys; " + "; ".join(f"import wm_core.link.robot.{name}" for name in names)
    code += "; print(*sorted({'torch', 'starlette', 'uvicorn', 'rclpy'} & sys.modules.keys()))"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == ""


def test_a_key_sorts_by_session_age_then_number(tmp_path, open_spool, make_step):
    old = open_spool()
    assert old.flush()  # its session has begun: one that begins after another has ended is newer
    new = open_spool()
    for spool in (new, old):
        for i in range(8):
            spool.put(make_step(i))
        spool.close()
    found = [w for s in sessions_in(old.folder) for w in s.waiting(s.journal().created_ns)]
    order = [(w.key.session, w.key.seq) for w in sorted(found)]
    assert order == [(s.session, seq) for s in (old, new) for seq in (0, 1)]
    assert ChunkKey("rover", old.session, 0) == sorted(found)[0].key
