"""At every bound something gives way by the owner's rule, is counted, and the bound holds."""

from __future__ import annotations

import os
import subprocess
import threading
from collections import Counter

import numpy as np
import pytest

from wm_core.contract.errors import ChunkRefused
from wm_core.contract.spec import ActionSpec, ImageSpec, Spec
from wm_core.format.chunk import ChunkMeta, decode_chunk
from wm_core.link.robot.finished import all_finished
from wm_core.link.robot.journal import SpoolSession, sessions_in
from wm_core.link.robot.open_log import most_steps
from wm_core.link.robot.spool import Spool, SpoolSettings
from wm_core.link.robot.step_queue import StepQueue, bytes_of

ROOM = 10**9  #: bytes, of which no test fills as many


@pytest.fixture
def open_spool(tmp_path, spec, closing):
    def make(folder=tmp_path / "spool", **settings):
        settings = SpoolSettings(**{"seal_steps": 4, "seal_s": 60.0} | settings)
        spool = closing(Spool(folder, robot="rover", task="", spec=spec, settings=settings))
        assert spool.flush(60.0)
        return spool

    return make


@pytest.fixture
def chunk_bytes(open_spool, tmp_path, make_step):
    """How large a chunk of four steps is; the pixels are noise, so all are about that large."""
    spool = open_spool(tmp_path / "probe")
    fill(spool, make_step, 4)
    return spool.counters()["bytes_on_disk"]


def fill(spool, make_step, count, *, start=0, **changes):
    for i in range(start, start + count):
        spool.put(make_step(i, **changes))
    assert spool.flush(60.0)


def rewards(folder):
    """Rewards of the steps that wait, chunk by chunk."""
    found = [w for s in sessions_in(folder) for w in s.waiting()]
    return [[s.reward for s in decode_chunk(w.path.read_bytes())[1]] for w in sorted(found)]


def home(spool):
    return SpoolSession(spool.folder / "rover" / spool.session)


# ------------------------------------------------------------------ in memory


def numbers(queue):
    return [number for number, _ in queue.take()]


@pytest.mark.parametrize("overflow", ["drop_newest", "pause_exploration"])
def test_a_full_queue_keeps_the_oldest(make_step, overflow):
    queue = StepQueue(2, ROOM, overflow)
    assert [queue.put(i, make_step(i)) for i in range(3)] == [(True, 0), (True, 0), (False, 0)]
    assert numbers(queue) == [0, 1]


def test_a_full_queue_drops_the_oldest(make_step):
    queue = StepQueue(2, ROOM, "drop_oldest")
    assert [queue.put(i, make_step(i)) for i in range(3)] == [(True, 0), (True, 0), (True, 1)]
    assert numbers(queue) == [1, 2]


@pytest.mark.parametrize(
    "value",
    [{"is_intervention": True}, {"is_last": True}, {"is_terminal": True}, {"reward": -1.0}],
)
def test_a_full_queue_keeps_what_is_valuable(make_step, value):
    plain = {"reward": 0.0}
    queue = StepQueue(3, ROOM, "keep_valuable")
    for i in range(3):
        queue.put(i, make_step(i, **plain | (value if i == 0 else {})))
    assert queue.put(3, make_step(3, **plain)) == (True, 1)
    assert queue.put(4, make_step(4, **plain | value)) == (True, 1)
    assert numbers(queue) == [0, 3, 4]
    for i in range(3):
        queue.put(i, make_step(i, **plain | value))
    assert queue.put(3, make_step(3, **plain)) == (False, 0)  # worth less than all that waits
    assert queue.put(4, make_step(4, **plain | value)) == (True, 1)
    assert numbers(queue) == [1, 2, 4]


@pytest.mark.parametrize(
    ("overflow", "kept"),
    [
        ("drop_newest", [0, 1]),
        ("pause_exploration", [0, 1]),
        ("drop_oldest", [2, 3]),
        ("keep_valuable", [2, 3]),
    ],
)
def test_a_queue_of_a_few_steps_is_full_where_they_take_as_many_bytes_as_are_allowed(
    make_step, overflow, kept
):
    steps = [make_step(i, reward=0.0) for i in range(4)]
    queue = StepQueue(100, 2 * bytes_of(steps[0]), overflow)
    told = [queue.put(i, step) for i, step in enumerate(steps)]
    assert len(queue) == 2
    assert sum(not taken for taken, _ in told) + sum(gone for _, gone in told) == 2
    assert queue.share == 1.0
    assert numbers(queue) == kept
    assert queue.share == 0.0


def test_a_large_step_takes_the_place_of_several_small_ones_and_one_that_never_fits_of_none(
    make_step,
):
    size = bytes_of(make_step(0))
    assert size == 8 * 8 * 3 + 4  # the image, and a float32
    queue = StepQueue(100, 3 * size, "drop_oldest")
    for i in range(3):
        queue.put(i, make_step(i))
    large, huge = (np.zeros(more, np.uint8) for more in (size, 2 * size + 1))
    assert queue.put(3, make_step(3, requested_action=large)) == (True, 2)
    assert queue.put(4, make_step(4, requested_action=huge)) == (False, 0)
    assert numbers(queue) == [2, 3]


def test_while_the_disk_hangs_no_more_bytes_wait_than_are_allowed_and_the_rest_is_counted(
    open_spool, make_step, monkeypatch
):
    """At 20 images of 640x480 a second, two minutes filled the memory of a small robot."""
    hangs, goes_on = threading.Event(), threading.Event()

    def hang():
        hangs.set()
        goes_on.wait(60.0)

    spool = open_spool(queue_bytes=10 * bytes_of(make_step(0)), overflow="drop_oldest")
    monkeypatch.setattr(spool._writer, "write_ahead", hang)
    assert hangs.wait(60.0)
    for i in range(30):
        assert spool.put(make_step(i))
    counts = spool.counters()
    assert (counts["queue_steps"], counts["dropped_queue_full"]) == (10, 20)
    goes_on.set()
    assert spool.flush(60.0)
    assert [r for found in rewards(spool.folder) for r in found] == [*range(20, 30)]


# ------------------------------------------------------------------ on the disk


def test_chunks_of_an_earlier_session_that_give_way_are_counted_as_steps(
    open_spool, make_step, chunk_bytes, tmp_path
):
    """In the journal of their session, and in what the chunks that follow tell the trainer."""
    first = open_spool()
    fill(first, make_step, 11)  # 4 + 4 + 3
    first.close()
    second = open_spool(max_bytes=3 * chunk_bytes + 200)
    fill(second, make_step, 12)
    fill(second, make_step, 1, start=12)
    assert home(first).journal().dropped_steps == {"spool_full": 11}
    assert home(first).journal().dropped_seqs() == dict.fromkeys(range(3), "spool_full")
    assert home(second).journal().dropped_steps.get("spool_full", 0) in (0, 4)
    meta, _ = decode_chunk(home(second).waiting()[-1].path.read_bytes())
    assert meta.dropped["earlier_spool_full"] == 11
    assert second.counters()["dropped_earlier_spool_full"] == 11
    assert not list((tmp_path / "spool").rglob("*.dropped"))


def test_valuable_chunks_stay_longest_over_sessions(open_spool, make_step, chunk_bytes):
    first = open_spool(overflow="keep_valuable")
    for chunk in range(4):  # the second holds an intervention
        for i in range(4):
            touched = chunk == 1 and i == 2
            number = 4 * chunk + i
            first.put(make_step(number, reward=0.0, stamp_ns=number, is_intervention=touched))
    first.close()
    second = open_spool(overflow="keep_valuable", max_bytes=4 * chunk_bytes + 400)
    fill(second, make_step, 4, reward=0.0)
    fill(second, make_step, 4, reward=5.0)
    fill(second, make_step, 4, reward=0.0)
    assert home(first).waiting()[0].key.seq == 1
    assert home(first).journal().dropped_seqs() == dict.fromkeys((0, 2, 3), "spool_full")
    fill(second, make_step, 4, reward=7.0)
    fill(second, make_step, 4, reward=8.0)
    assert [w.key.seq for w in home(first).waiting()] == [1]
    held = [max(found) for found in rewards(second.folder) if max(found)]
    assert held == [5.0, 7.0, 8.0]
    fill(second, make_step, 4, reward=9.0)  # where all are valuable, the oldest goes
    assert home(first).waiting() == []


def test_exploration_pauses_before_the_bound_and_goes_on_when_there_is_room(
    open_spool, make_step, chunk_bytes, wait_until
):
    spool = open_spool(overflow="pause_exploration", max_bytes=5 * chunk_bytes)
    fill(spool, make_step, 8)
    assert spool.pressure() == "ok"
    fill(spool, make_step, 12, start=8)
    assert spool.pressure() == "pause"
    fill(spool, make_step, 8, start=20)
    counts = spool.counters()
    assert counts["bytes_on_disk"] <= 5 * chunk_bytes
    assert counts["dropped_spool_full"] >= 4  # the newest went
    assert rewards(spool.folder)[0] == [0, 1, 2, 3]
    home(spool).waiting()[0].path.unlink()
    wait_until(lambda: spool.counters()["bytes_on_disk"] < counts["bytes_on_disk"])
    assert spool.pressure() == "pause"  # until half of it is free
    for chunk in home(spool).waiting():
        chunk.path.unlink()
    wait_until(lambda: spool.counters()["bytes_on_disk"] == 0)
    assert spool.pressure() == "ok"


@pytest.mark.parametrize("overflow", ["drop_oldest", "drop_newest", "keep_valuable"])
def test_only_a_spool_that_was_told_so_pauses_exploration(
    open_spool, make_step, chunk_bytes, overflow
):
    spool = open_spool(overflow=overflow, max_bytes=chunk_bytes + 1)
    fill(spool, make_step, 12)
    assert spool.pressure() == "ok"


def test_a_chunk_larger_than_the_bound_costs_no_other(open_spool, make_step, chunk_bytes):
    spool = open_spool(max_bytes=chunk_bytes + 200)
    fill(spool, make_step, 2)
    spool.close()
    small = open_spool(max_bytes=chunk_bytes - 1)
    fill(small, make_step, 4)
    assert small.counters()["dropped_spool_full"] == 4
    assert rewards(spool.folder) == [[0, 1]]


def test_two_processes_on_one_spool_share_one_bound(open_spool, make_step, chunk_bytes):
    """Neither removes what the other, which still runs, has sealed."""
    first = open_spool(max_bytes=4 * chunk_bytes + 200)
    fill(first, make_step, 8)
    second = open_spool(max_bytes=4 * chunk_bytes + 200)
    fill(second, make_step, 20)
    assert [w.key.seq for w in home(first).waiting()] == [0, 1]
    total = sum(w.bytes for s in sessions_in(first.folder) for w in s.waiting())
    assert total <= 4 * chunk_bytes + 200
    fill(first, make_step, 8, start=8)  # and the first one sees what the second one has
    total = sum(w.bytes for s in sessions_in(first.folder) for w in s.waiting())
    assert total <= 4 * chunk_bytes + 200
    for spool in (first, second):
        lost = spool.counters().get("dropped_spool_full", 0)
        there = sum(decode_chunk(w.path.read_bytes())[0].steps for w in home(spool).waiting())
        assert there + lost == spool.counters()["steps_put"]


def test_a_chunk_that_cannot_give_way_is_no_error_and_counts_against_the_bound(
    open_spool, make_step, chunk_bytes
):
    """A folder in the place of its file, which no uploader can read either."""
    first = open_spool()
    fill(first, make_step, 4)
    first.close()
    (waiting,) = home(first).waiting()
    blocked = waiting.path.with_suffix(".dropped")
    blocked.mkdir()
    (blocked / "full").write_text("so that no rename replaces it")
    second = open_spool(max_bytes=2 * chunk_bytes + 200)
    fill(second, make_step, 12)
    assert waiting.path.exists()
    assert sorted(rewards(first.folder)) == [[0, 1, 2, 3], [8, 9, 10, 11]]
    assert second.counters()["dropped_spool_full"] == 8
    assert second.counters().get("writer_faults", 0) == 0


def test_no_chunk_is_sealed_that_a_trainer_would_refuse_for_its_size():
    images = {"image": ImageSpec(height=1000, width=1000)}
    spec = Spec(images=images, action=ActionSpec(low=(-1.0,), high=(1.0,)))
    meta = ChunkMeta(robot="rover", session="0" * 32, seq=0, spec=spec, first_step=0, steps=1)
    most = most_steps(meta)
    assert 80 < most < 90  # of 3 MB each
    ChunkMeta.model_validate(meta.model_dump() | {"steps": most})
    with pytest.raises(ChunkRefused, match="unpack"):
        ChunkMeta.model_validate(meta.model_dump() | {"steps": most + 1})


# ------------------------------------------------------------------ a disk that is full


@pytest.mark.parametrize("overflow", ["drop_oldest", "drop_newest", "keep_valuable"])
def test_on_a_full_disk_every_step_is_stored_or_counted(
    tmp_path, spec, make_step, overflow, small_disk
):
    settings = SpoolSettings(seal_steps=16, seal_s=60.0, overflow=overflow, min_free_bytes=0)
    with small_disk("128k") as disk:
        for _ in range(3):
            spool = Spool(disk, robot="rover", task="", spec=spec, settings=settings)
            fill(spool, make_step, 16 * 12)
            spool.close(60.0)
            counts = spool.counters()
            assert counts.get("writer_faults", 0) == 0
            own = counts["steps_put"] - sum(
                n for k, n in counts.items() if k in ("dropped_disk_full", "dropped_spool_full")
            )
            waiting = home(spool).waiting()
            there = sum(decode_chunk(w.path.read_bytes())[0].steps for w in waiting)
            assert there == own
            assert there > 0 or overflow == "drop_newest"
        lost, there = Counter(), 0
        for journal in all_finished(disk).values():
            lost.update(journal.dropped_steps)
        for left in sessions_in(disk):
            lost.update(left.journal().dropped_steps)
            there += sum(decode_chunk(w.path.read_bytes())[0].steps for w in left.waiting())
        assert there + sum(lost.values()) == 3 * 16 * 12


def test_a_read_only_disk_costs_steps_and_nothing_else(tmp_path, spec, make_step, small_disk):
    """What waits stays; once the disk takes files again, recording goes on by itself."""
    settings = SpoolSettings(seal_steps=4, seal_s=60.0)
    with small_disk("1m") as disk:
        spool = Spool(disk, robot="rover", task="", spec=spec, settings=settings)
        fill(spool, make_step, 4)
        spool.close()
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        spool = Spool(disk, robot="rover", task="", spec=spec, settings=settings)
        fill(spool, make_step, 8)
        assert spool.counters()["dropped_write_error"] == 8
        assert spool.counters()["journal_faults"] > 0
        assert rewards(disk) == [[0, 1, 2, 3]]
        subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True)
        fill(spool, make_step, 4, start=8)
        spool.close()
        assert sorted(rewards(disk)) == [[0, 1, 2, 3], [8, 9, 10, 11]]
        assert home(spool).journal().dropped_steps == {"write_error": 8}
        assert spool.counters().get("writer_faults", 0) == 0


def test_the_disk_keeps_what_its_owner_wants_free(tmp_path, spec, make_step, small_disk):
    settings = SpoolSettings(
        seal_steps=16, seal_s=60.0, min_free_bytes=10**9
    )  # a twentieth: 51 kB
    with small_disk("1m") as disk:
        spool = Spool(disk, robot="rover", task="", spec=spec, settings=settings)
        fill(spool, make_step, 16 * 4)
        hog = disk / "hog"
        free = os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize
        hog.write_bytes(bytes(free - 60_000))
        fill(spool, make_step, 16 * 4, start=64)
        counts = spool.counters()
        assert counts["dropped_disk_low"] > 0
        assert os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize > 30_000
        assert rewards(disk)[-1][-1] == 127  # the newest came in for the oldest
        spool.close()


def test_the_black_box_gives_way_before_what_waits(tmp_path, spec, make_step, small_disk):
    settings = SpoolSettings(seal_steps=16, seal_s=60.0, min_free_bytes=10**9)
    with small_disk("1m") as disk:
        spool = Spool(disk, robot="rover", task="", spec=spec, settings=settings)
        fill(spool, make_step, 16 * 8)
        sent = home(spool).path / "sent"
        sent.mkdir()
        for chunk in home(spool).waiting()[:6]:
            os.rename(chunk.path, sent / chunk.path.name)
        free = os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize
        (disk / "hog").write_bytes(bytes(free - 52_000))
        fill(spool, make_step, 16 * 2, start=128)
        assert len(list(sent.iterdir())) < 6
        assert "dropped_disk_low" not in spool.counters()
        assert len(home(spool).waiting()) == 4
        spool.close()


def test_a_step_that_cannot_be_recorded_costs_itself_alone(open_spool, make_step):
    spool = open_spool(seal_steps=64)
    odd = [
        make_step(1, stamp_ns=-5),
        make_step(3, stamp_ns=2**70),
        make_step(5, reward=None),
        make_step(7, action=np.zeros(1, object)),
        make_step(9, policy_version=2**60),
        None,
    ]
    for number, step in enumerate(odd):
        assert spool.put(make_step(2 * number))
        assert not spool.put(step)
    spool.close()
    assert [r for found in rewards(spool.folder) for r in found] == [0, 2, 4, 6, 8, 10]
    counts = spool.counters()
    dropped = counts.get("dropped_spec_mismatch", 0) + counts.get("dropped_not_recordable", 0)
    assert dropped == 6
    assert counts.get("writer_faults", 0) == 0
