"""Steps that were written ahead come back as they were, whatever became of the log's end."""

from __future__ import annotations

import random
import resource
import struct
import tracemalloc
import zlib

import pytest
import zstandard

from wm_core.contract.errors import ChunkRefused
from wm_core.format.chunk import ChunkMeta, decode_chunk, encode_step, join_steps
from wm_core.link.robot.open_log import OpenLog, read_log


@pytest.fixture
def steps(spec, make_step):
    return [encode_step(make_step(i), spec) for i in range(4)]


@pytest.fixture
def meta(spec):
    return ChunkMeta(robot="rover", session="5" * 32, seq=7, spec=spec, first_step=90, steps=1)


@pytest.fixture
def open_log(tmp_path):
    logs = []

    def make(**settings):
        logs.append(OpenLog(tmp_path / "open.log", **{"sync_s": 0.5} | settings))
        return logs[-1]

    yield make
    for log in logs:
        log.remove()


@pytest.fixture
def data(tmp_path, open_log, steps, meta):
    """The bytes of a log of four steps, three of them written one by one."""
    log = open_log()
    log.begin(meta)
    log.append(steps[:2])
    log.append(steps[2:3])
    log.append(steps[3:])
    return (tmp_path / "open.log").read_bytes()


def test_a_log_gives_its_chunk_back(data, steps, meta):
    found = read_log(data)
    assert found.steps == steps
    assert found.meta == meta.model_copy(update={"steps": 4})
    assert found.torn_bytes == 0


def test_a_cut_at_any_byte_costs_only_what_is_behind_it(data, steps):
    counts = []
    for end in range(len(data) + 1):
        found = read_log(data[:end])
        taken = [] if found is None else found.steps
        assert taken == steps[: len(taken)]
        counts.append(len(taken))
    assert counts == sorted(counts)
    assert (counts[0], counts[-2], counts[-1]) == (0, 3, 4)


def test_a_flipped_bit_never_makes_another_step(data, steps):
    rng = random.Random(5)
    for at in range(len(data)):
        damaged = bytearray(data)
        damaged[at] ^= 1 << rng.randrange(8)
        try:
            found = read_log(bytes(damaged))
        except ChunkRefused:
            continue
        taken = [] if found is None else found.steps
        assert taken == steps[: len(taken)]
        assert len(taken) < 4


def test_what_an_earlier_chunk_left_behind_is_not_taken(
    data, spec, steps, meta, open_log, tmp_path
):
    log = open_log()
    log.begin(meta.model_copy(update={"seq": 8}))
    later = (tmp_path / "open.log").read_bytes()
    assert read_log(later + data[len(later) :]).steps == []
    behind = data[16 + int.from_bytes(data[12:16], "little") + 4 :]  # its steps alone
    assert read_log(data[: len(data) - len(behind)] + behind).steps == steps
    assert read_log(later + behind).steps == []


def test_an_ended_log_makes_the_same_bytes_again(open_log, steps, meta, tmp_path):
    log = open_log()
    log.begin(meta)
    log.append(steps)
    sealed = meta.model_copy(update={"steps": 4, "dropped": {"queue_full": 3}})
    log.end(sealed)
    found = read_log((tmp_path / "open.log").read_bytes())
    assert join_steps(found.steps, found.meta) == join_steps(steps, sealed)
    assert decode_chunk(join_steps(found.steps, found.meta))[0].dropped == {"queue_full": 3}


def test_a_log_without_all_steps_is_emptied_before_the_chunk_appears(
    open_log, steps, meta, tmp_path
):
    """A chunk made of it would have the same number and other steps."""
    log = open_log()
    log.begin(meta)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (log.bytes + 10, limits[1]))
    try:
        with pytest.raises(OSError, match="large"):
            log.append(steps)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not log.is_whole
    log.append(steps[:1])
    assert read_log((tmp_path / "open.log").read_bytes()).steps == []
    log.end(meta)
    assert (tmp_path / "open.log").read_bytes() == b""


def test_syncs_come_as_often_as_set(open_log, steps, meta):
    log = open_log(sync_s=3600.0)
    log.begin(meta)
    log.append(steps)
    assert not log.sync_if_due()
    eager = open_log(sync_s=1e-9)
    eager.begin(meta)
    eager.append(steps)
    assert eager.sync_if_due()
    assert not eager.sync_if_due()  # nothing came since


def test_no_log_is_written_where_it_is_off(open_log, steps, meta, tmp_path):
    log = open_log(sync_s=0)
    log.begin(meta)
    log.append(steps)
    log.end(meta)
    assert not (tmp_path / "open.log").exists()
    assert log.bytes_written == 0


def test_a_log_whose_file_was_removed_is_made_again(open_log, steps, meta, tmp_path):
    log = open_log()
    log.begin(meta)
    (tmp_path / "open.log").unlink()
    log.begin(meta)
    log.append(steps)
    assert read_log((tmp_path / "open.log").read_bytes()).steps == steps


@pytest.mark.parametrize("junk", [b"", b"wm open\x01", b"\0" * 64, b"wm open\x01" + b"\xff" * 99])
def test_junk_is_no_log(junk):
    assert read_log(junk) is None


def record(content, seq=7, kind=b"s"):
    body = kind + zstandard.compress(content)
    return struct.pack("<II", len(body), zlib.crc32(body, seq)) + body


LIES = {
    "unpacks to 200 MB": record(bytes(200 << 20)),
    "four billion messages": record(struct.pack("<qI", 5, 2**32 - 1)),
    "messages beyond its end": record(struct.pack("<qIIII", 5, 3, 0, 10, 2**31) + b"012345678"),
    "fewer messages than topics": record(struct.pack("<qII", 5, 1, 0)),
    "a negative stamp": record(struct.pack("<qIIII", -5, 3, 0, 0, 0)),
    "no message": record(b""),
    "no zstd": struct.pack("<II", 5, zlib.crc32(b"sabcd", 7)) + b"sabcd",
    "ends with other steps": record(b"{}", kind=b"e"),
    "a meta of 200 MB": record(bytes(200 << 20), kind=b"e"),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_record_that_lies_is_refused_before_it_takes_memory(data, lie):
    tracemalloc.start()
    try:
        with pytest.raises(ChunkRefused):
            read_log(data + LIES[lie])
        assert tracemalloc.get_traced_memory()[1] < 4_000_000
    finally:
        tracemalloc.stop()


def test_more_steps_than_a_chunk_may_have_are_refused(data):
    empty = struct.pack("<qIIII", 5, 3, 0, 0, 0)  # a camera, the action and the numbers
    one = record(empty)
    with pytest.raises(ChunkRefused, match="4096 steps"):
        read_log(data + one * 4096)
