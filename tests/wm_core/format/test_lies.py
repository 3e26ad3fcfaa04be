"""A chunk whose checksums are right and whose records lie is refused, in bounded memory."""

from __future__ import annotations

import dataclasses
import struct
import tracemalloc

import numpy as np
import pytest
import zstandard

from tests.wm_core.format.forge import Forged, take_apart, text
from tests.wm_core.format.test_chunk import SPEC, make_meta, make_steps
from wm_core.contract.errors import MAX_REASON, ChunkRefused
from wm_core.contract.spec import ActionSpec, Spec, VectorSpec
from wm_core.format import cdr, records
from wm_core.format.chunk import decode_chunk, encode_chunk, read_columns
from wm_core.format.recording import MAX_RECORDS

STEPS = 20
GOOD = encode_chunk(make_steps(STEPS, np.random.default_rng(0)), make_meta(STEPS))
MB = 1_000_000


def forged() -> Forged:
    return take_apart(GOOD)


def refused(data: bytes, match: str | None = None, *, most_bytes: int = 3 * MB) -> None:
    """``data`` is refused in a short line, and costs at most ``most_bytes`` beside its own."""
    for bulk in (True, False):
        tracemalloc.start()
        try:
            with pytest.raises(ChunkRefused, match=match) as error:
                read_columns(data, bulk=bulk)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert len(str(error.value)) <= MAX_REASON
        assert str(error.value).isprintable()
        assert peak <= most_bytes


def test_what_is_put_together_unchanged_is_as_good():
    assert decode_chunk(forged().build())[0] == decode_chunk(GOOD)[0]


# ---- bombs: few bytes that would become many objects -----------------------------------------


@pytest.mark.parametrize("bulk", [True, False])
def test_empty_messages_are_counted_before_they_are_built(bulk):
    chunk = forged()
    spec = SPEC.model_dump(mode="json")
    spec["images"]["image"] |= {"height": 1024, "width": 1024}  # so that many bytes are allowed
    chunk.set_meta(spec=spec)
    empty = (records.MESSAGE, struct.pack("<HIQQ", 6, 0, 0, 0))
    chunk.blocks[0] += [empty] * 200_000
    chunk.change = lambda opcode, number, body: None if opcode == 7 else body
    data = chunk.build()
    assert len(data) < 60_000
    tracemalloc.start()
    try:
        with pytest.raises(ChunkRefused, match="more messages than 20 steps"):
            read_columns(data, bulk=bulk)
        unpacked = sum(len(body) + 9 for _, body in chunk.blocks[0])
        assert tracemalloc.get_traced_memory()[1] < unpacked + 2 * MB
    finally:
        tracemalloc.stop()


def test_the_first_topic_that_does_not_belong_ends_the_reading():
    chunk = forged()
    head = [record for record in chunk.blocks[0] if record[0] == records.SCHEMA]
    many = [
        (records.CHANNEL, struct.pack("<HH", 100 + i % 60_000, 1) + text(f"/t{i}") + text("cdr")
         + text(b"")) for i in range(100_000)
    ]  # fmt: skip
    spec = SPEC.model_dump(mode="json")
    spec["images"]["image"] |= {"height": 512, "width": 512}
    chunk.set_meta(spec=spec)
    chunk.blocks[0] = head + many
    chunk.change = lambda kind, number, body: None if kind == 4 else body
    refused(chunk.build(), "'/t0'", most_bytes=14 * MB)


@pytest.mark.parametrize(
    ("opcode", "body"),
    [
        (records.MESSAGE_INDEX, struct.pack("<HI", 1, 0)),
        (records.CHUNK, struct.pack("<QQQII", 0, 0, 0, 0, 4) + b"zstd" + bytes(8)),
        (records.METADATA, text("x") + text(b"")),
    ],
)
def test_records_outside_of_blocks_are_few(opcode, body):
    chunk = forged()

    def change(kind, number, old):
        behind = kind == records.MESSAGE_INDEX and number == 0
        return [(kind, old), *[(opcode, body)] * 100_000] if behind else old

    chunk.change = change
    refused(chunk.build(), most_bytes=6 * MB)


def test_a_summary_of_many_records_is_counted():
    chunk = forged()

    def change(kind, number, old):
        return [(kind, old)] * (MAX_RECORDS + 1) if kind == records.METADATA_INDEX else old

    chunk.change = change
    data = chunk.build()
    with pytest.raises(ChunkRefused, match=f"more than {MAX_RECORDS} records"):
        read_columns(data)


def test_metadata_of_many_entries_is_not_built():
    chunk = forged()
    chunk.metadata["wm_chunk"] |= {f"{i}": "" for i in range(200_000)}
    refused(chunk.build(), "metadata", most_bytes=6 * MB)
    chunk = forged()
    chunk.metadata["other"] = {"a": "b"}
    refused(chunk.build(), "more than one metadata")


def test_a_definition_longer_than_ros_is_not_kept():
    chunk = forged()
    _, body = chunk.blocks[0][0]
    name = cdr.IMAGE
    for other in (cdr.DEFINITIONS[name] + "\nuint8 more", "", cdr.DEFINITIONS[cdr.JOINT_STATE]):
        chunk.blocks[0][0] = (3, body[:2] + text(name) + text("ros2msg") + text(other))
        refused(chunk.build(), "another one than ROS's|unexpected schema")


# ---- zstd ------------------------------------------------------------------------------------


def frame(window_log: int, content: bytes) -> bytes:
    parameters = zstandard.ZstdCompressionParameters.from_level(1, window_log=window_log)
    return zstandard.ZstdCompressor(compression_params=parameters).compress(content)


def test_zstd_frames_of_another_make_are_refused():
    inner = zstandard.compress
    for compress, match in (
        (lambda data: inner(data) + b"hidden", "zstd frame of"),
        (lambda data: inner(data) + inner(b"second"), "zstd frame of"),
        (lambda data: b"\x50\x2a\x4d\x18" + text(b"skipped") + inner(data), "block"),
        (lambda data: inner(data)[:-1], "zstd frame"),
        (lambda data: zstandard.ZstdCompressor(write_content_size=False).compress(data), "states"),
        (lambda data: data, "decompress"),
        (lambda data: b"", "decompress"),
    ):
        chunk = forged()
        chunk.compress = compress
        refused(chunk.build(), match)


def test_a_zstd_frame_of_endless_empty_blocks_is_counted():
    chunk = forged()

    def compress(data):
        packed = zstandard.compress(data)
        start = zstandard.frame_header_size(packed)
        return packed[:start] + b"\x00\x00\x00" * 5_000 + packed[start:]

    chunk.compress = compress
    refused(chunk.build(), "more than .* blocks")


def test_a_zstd_window_of_a_gigabyte_takes_no_memory():
    chunk = forged()

    def compress(data):
        packed = bytearray(zstandard.compress(data, 1))
        packed[4] &= ~0x20  # no single segment: the window is stated by itself
        packed.insert(5, (30 - 10) << 3)
        return bytes(packed)

    chunk.compress = compress
    refused(chunk.build(), "window")


# ---- summaries that tell another story -------------------------------------------------------


@pytest.mark.parametrize(
    "opcode",
    [records.STATISTICS, records.CHUNK_INDEX, records.MESSAGE_INDEX, records.SCHEMA,
     records.CHANNEL, records.FOOTER, records.DATA_END, records.HEADER, records.METADATA],
)  # fmt: skip
def test_a_file_that_lacks_a_record_is_refused(opcode):
    chunk = forged()
    chunk.change = lambda kind, number, body: None if kind == opcode else body
    refused(chunk.build())


@pytest.mark.parametrize(
    ("opcode", "at"),
    [
        *[(records.STATISTICS, at) for at in (0, 8, 10, 14, 18, 22, 26, 34, 46, 48)],
        *[(records.CHUNK_INDEX, at) for at in (0, 8, 16, 24, 36, 38, 96, 104, 108, 112, 116)],
        *[(records.MESSAGE_INDEX, at) for at in (0, 6, 14, 22)],
        *[(records.SCHEMA, at) for at in (0, 10, 60)],
        *[(records.CHANNEL, at) for at in (0, 2, 10)],
        (records.FOOTER, 0),
        (records.CHUNK, 0),
        (records.CHUNK, 8),
    ],
)
def test_a_summary_of_another_file_is_refused(opcode, at):
    chunk = forged()

    def change(kind, number, body):
        if kind != opcode or number:
            return body
        return body[:at] + bytes([body[at] ^ 1]) + body[at + 1 :]

    chunk.change = change
    refused(chunk.build())


@pytest.mark.parametrize("opcode", [1, 2, 3, 4, 5, 6, 9, 10, 12, 16, 128, 255, 0])
def test_records_where_none_is_expected_are_refused(opcode):
    for place in (records.METADATA, records.MESSAGE_INDEX, records.DATA_END, records.STATISTICS):
        chunk = forged()

        def change(kind, number, body, place=place):
            return [(kind, body), (opcode, bytes(64))] if (kind, number) == (place, 0) else body

        chunk.change = change
        refused(chunk.build())


# ---- messages that belong to no step ---------------------------------------------------------


def messages_of(chunk: Forged, channel: int) -> list[tuple[int, int]]:
    """Block and number of the messages of a channel."""
    return [
        (b, n)
        for b, block in enumerate(chunk.blocks)
        for n, (opcode, body) in enumerate(block)
        if opcode == records.MESSAGE and body[0] == channel
    ]


def test_names_in_a_message_are_those_of_the_spec():
    for channel, name in ((4, b"hip"), (5, b"turn"), (6, b"reward")):
        chunk = forged()
        block, number = messages_of(chunk, channel)[3]
        body = chunk.blocks[block][number][1]
        assert name in body
        chunk.blocks[block][number] = (5, body.replace(name, b"\x1b" + name[1:]))
        refused(chunk.build(), "expected the names")


def test_one_message_too_many_too_few_or_elsewhere_is_refused():
    for change in ("drop", "twice", "swap", "channel", "later", "stamp"):
        chunk = forged()
        block, number = messages_of(chunk, 5)[7]
        _, body = chunk.blocks[block][number]
        own = chunk.blocks[block]
        if change == "drop":
            del own[number]
        elif change == "twice":
            own.insert(number, own[number])
        elif change == "swap":
            other = messages_of(chunk, 5)[9][1]
            own[number], own[other] = own[other], own[number]
        elif change == "channel":
            own[number] = (5, struct.pack("<H", 77) + body[2:])
        elif change == "later":
            own[number] = (5, body[:6] + struct.pack("<Q", 2**63) + body[14:])
        else:
            own[number] = (5, body[:26] + bytes([body[26] ^ 1]) + body[27:])
        refused(chunk.build())


def test_a_stamp_of_one_topic_alone_is_noticed_though_step_is_irregular():
    for channel in (1, 2, 3, 4, 5):
        chunk = forged()
        block, number = messages_of(chunk, 6)[2]
        opcode, body = chunk.blocks[block][number]
        chunk.blocks[block][number] = (opcode, body + bytes(4))  # slack: /step is read slowly
        read_columns(chunk.build())
        for block, number in messages_of(chunk, channel):
            opcode, body = chunk.blocks[block][number]
            own = body[:26] + bytes([body[26] ^ 1]) + body[27:]
            chunk.blocks[block][number] = (opcode, own)
        refused(chunk.build(), "expected the stamp")


def test_absurd_but_allowed_sizes_cost_what_they_unpack_to():
    vectors = {f"v{i}": VectorSpec(size=2000) for i in range(10)}
    spec = Spec(images={}, vectors=vectors, action=ActionSpec(low=(-1.0,), high=(1.0,)))
    rng = np.random.default_rng(0)
    steps = make_steps(40, rng, spec)
    data = encode_chunk(steps, make_meta(40, spec))
    tracemalloc.start()
    try:
        columns = read_columns(data)
        assert tracemalloc.get_traced_memory()[1] < 3 * len(columns.recording.unpacked)
    finally:
        tracemalloc.stop()
    np.testing.assert_array_equal(columns.vectors["v9"][7], steps[7].obs["v9"])


def test_steps_of_several_layouts_are_read_as_they_were_written():
    steps = make_steps(40, np.random.default_rng(0))
    turns = [
        dataclasses.replace(step, requested_action=None if i in (3, 4, 17, 39) else step.action)
        for i, step in enumerate(steps)
    ]
    data = encode_chunk(turns, make_meta(40))
    for bulk in (True, False):
        columns = read_columns(data, bulk=bulk)
        assert np.flatnonzero(~columns.has_request).tolist() == [3, 4, 17, 39]
        np.testing.assert_array_equal(columns.image("wrist", 17), turns[17].obs["wrist"])
