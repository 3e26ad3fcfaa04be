"""Writes MCAP files by the mcap library, and reads them with every size and count checked first.

The library's own reader believes what a file states.  This one is for bytes that came over a
network: it counts records, topics and messages against what the file may hold before it builds
anything, compares every checksum, and takes no record that it does not expect.
"""

from __future__ import annotations

import io
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import zstandard
from mcap.writer import MCAP0_MAGIC, CompressionType, Writer

from wm_core.contract.errors import ChunkRefused
from wm_core.format import records
from wm_core.format.cdr import DEFINITIONS
from wm_core.format.records import MESSAGE_HEAD, RECORD, Block, RecordBody, walk

PROFILE, SCHEMA_ENCODING, MESSAGE_ENCODING = "ros2", "ros2msg", "cdr"
MAX_RECORDS = 65_536  #: outside of the blocks of a file
MAX_BLOCKS = 4096  #: of a file
MAX_INDEXES = 128  #: message indexes behind a block
MAX_METADATA_BYTES = 2**21  #: of all metadata

_MAX_NAME_BYTES = 256
_LOG_TIME_AT = RECORD.size + 6  # within a message's record
_HEAD_BYTES = RECORD.size + MESSAGE_HEAD.size
_SAME_BYTES = RECORD.size + 2  # opcode, length and channel: equal for messages alike


class Topic(NamedTuple):
    """Names a channel and the type of its messages."""

    name: str
    type: str


def write_recording(
    topics: Sequence[Topic],
    steps: Sequence[tuple[int, Sequence[bytes]]],
    *,
    metadata: dict[str, dict[str, str]],
    steps_per_block: int,
) -> bytes:
    """Write an MCAP file of ``steps``: each its log time in ns and one CDR message per topic.

    The metadata stands in front, so that a reader knows what to expect before it unpacks.
    """
    out = io.BytesIO()
    writer = Writer(out, chunk_size=2**40, compression=CompressionType.ZSTD, enable_data_crcs=True)
    writer.start(profile=PROFILE, library="wm_core")
    for name, entries in metadata.items():
        writer.add_metadata(name, entries)
    schemas = {
        kind: writer.register_schema(kind, SCHEMA_ENCODING, DEFINITIONS[kind].encode())
        for kind in dict.fromkeys(topic.type for topic in topics)
    }
    channels = [writer.register_channel(t.name, MESSAGE_ENCODING, schemas[t.type]) for t in topics]
    for index, (log_time, messages) in enumerate(steps):
        for channel, message in zip(channels, messages, strict=True):
            writer.add_message(channel, log_time, message, log_time, sequence=index)
        if (index + 1) % steps_per_block == 0:
            writer.flush()
    writer.finish()
    return out.getvalue()


class Messages(NamedTuple):
    """Locates the messages of one topic, in the order of the file."""

    log_time: np.ndarray  #: (n,) uint64 ns
    offset: np.ndarray  #: (n,) int64, of the first CDR byte in all that was unpacked
    size: np.ndarray  #: (n,) int64 bytes


@dataclass
class Recording:
    """Holds the content of an MCAP file, its blocks packed until ``unpack`` is called."""

    data: bytes
    metadata: dict[str, dict[str, str]] = field(default_factory=dict)
    blocks: list[Block] = field(default_factory=list)
    summary: list[tuple[int, int, int]] = field(default_factory=list)  #: opcode, place, size
    #: per block, the message indexes that follow it: (place, size)
    indexes: list[list[tuple[int, int]]] = field(default_factory=list)
    unpacked: memoryview = field(default_factory=lambda: memoryview(b""))  #: of all blocks
    starts: np.ndarray = field(default_factory=lambda: np.zeros(1, np.int64))  #: (blocks + 1,)
    schemas: dict[int, tuple[int, int]] = field(default_factory=dict)  #: id -> place, size
    channels: dict[int, tuple[int, int]] = field(default_factory=dict)  #: id -> place, size
    topics: dict[int, str] = field(default_factory=dict)  #: channel id -> name
    messages: dict[str, Messages] = field(default_factory=dict)  #: by topic

    def view(self, messages: Messages, index: int) -> memoryview:
        """View the CDR bytes of message ``index`` of a topic."""
        start = int(messages.offset[index])
        return self.unpacked[start : start + int(messages.size[index])]

    def block_of(self, offsets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Find, (n,) int64 both, the blocks of ``offsets`` (n,) and the offsets within them."""
        blocks = np.searchsorted(self.starts, offsets, "right") - 1
        return blocks, offsets - self.starts[blocks]

    def unpack(
        self, topics: Sequence[Topic], steps: int, *, max_bytes: int, bulk: bool = True
    ) -> None:
        """Decompress all blocks and find the messages of ``topics`` in them.

        Args:
            topics: the only ones that may be there, each of which has to be.
            steps: most messages of a topic, and most blocks.
            max_bytes: of all blocks together; more is refused before anything is unpacked.
            bulk: find messages that repeat a pattern at once; False looks at one after another.

        Raises:
            ChunkRefused: for anything else.
        """
        total = sum(block.unpacked_size for block in self.blocks)
        if total > max_bytes:
            raise ChunkRefused(f"unpacks to {total} bytes; its steps need at most {max_bytes}")
        sizes = [block.unpacked_size for block in self.blocks]
        if not 0 < len(sizes) <= steps or min(sizes) == 0:
            raise ChunkRefused(f"{len(sizes)} blocks for {steps} steps, or one of no bytes")
        self.starts = np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)])
        self.unpacked = np.empty(total, np.uint8).data
        decompressor, file, end = zstandard.ZstdDecompressor(), memoryview(self.data), 0
        for block in self.blocks:
            out = self.unpacked[end : (end := end + block.unpacked_size)]
            packed = file[block.offset : block.offset + block.size]
            records.unpack_into(decompressor, packed, out)
            if zlib.crc32(out) != block.crc:
                raise ChunkRefused("block does not fit its checksum")
        _Finder(self, topics, steps).find(bulk=bulk)


class _Finder:
    """Finds the messages in what a recording unpacked to."""

    def __init__(self, recording: Recording, topics: Sequence[Topic], steps: int) -> None:
        self._recording, self._expected, self._steps = recording, dict(topics), steps
        self._types: dict[int, str] = {}  # of schemas, by id
        self._channels: list[int] = []  # ids in order of their introduction
        self._rows: list[tuple[int, int, int, int]] = []  # channel, log time, offset, size

    def find(self, *, bulk: bool) -> None:
        """Fill ``messages`` of the recording; each topic has at most ``steps`` messages."""
        recording = self._recording
        most = len(self._expected)
        for number in range(len(recording.blocks)):
            start, end = (int(at) for at in recording.starts[number : number + 2])
            limit = 2 * most + self._steps * most + 1
            for opcode, at, size in walk(recording.unpacked, start, end, most=limit):
                if opcode == records.MESSAGE:
                    first = bulk and not self._rows and len(self._channels) == most
                    if first and self._pattern(at - RECORD.size):
                        return
                    self._add_message(at, size)
                elif opcode == records.CHANNEL:
                    self._add_channel(at, size)
                elif opcode == records.SCHEMA:
                    self._add_schema(at, size)
                else:
                    raise ChunkRefused(f"unexpected record {opcode} within a block")
        if len(self._channels) != most:
            raise ChunkRefused(f"expected the topics {list(self._expected)}, got fewer")
        self._sort(np.array(self._rows, np.uint64).reshape(-1, 4))

    def _add_schema(self, at: int, size: int) -> None:
        body = RecordBody(self._recording.unpacked, at, size, "schema")
        number, name, encoding = body.u16(), body.text(_MAX_NAME_BYTES), body.text(64)
        if number == 0 or number in self._types:
            raise ChunkRefused(f"schema {number} is none, or is there twice")
        if name not in self._expected.values() or encoding != SCHEMA_ENCODING:
            raise ChunkRefused(f"unexpected schema {name!r} in {encoding!r}")
        if body.sized() != DEFINITIONS[name].encode():
            raise ChunkRefused(f"the definition of {name!r} is another one than ROS's")
        body.done()
        if name in self._types.values():
            raise ChunkRefused(f"schema {name!r} is there twice")
        self._recording.schemas[number], self._types[number] = (at, size), name

    def _add_channel(self, at: int, size: int) -> None:
        recording = self._recording
        body = RecordBody(recording.unpacked, at, size, "channel")
        number, schema, topic = body.u16(), body.u16(), body.text(_MAX_NAME_BYTES)
        encoding, attributes = body.text(64), body.sized()
        body.done()
        expected = self._expected.get(topic)
        if expected is None or number in recording.topics or topic in recording.topics.values():
            raise ChunkRefused(
                f"topic {topic!r} on channel {number} is there twice, or is none of "
                f"{list(self._expected)}"
            )
        if encoding != MESSAGE_ENCODING or len(attributes):
            raise ChunkRefused(f"topic {topic!r}: expected plain {MESSAGE_ENCODING} messages")
        if self._types.get(schema) != expected:
            raise ChunkRefused(
                f"topic {topic!r}: expected {expected}, got {self._types.get(schema)}"
            )
        recording.channels[number], recording.topics[number] = (at, size), topic
        self._channels.append(number)

    def _add_message(self, at: int, size: int) -> None:
        if size < MESSAGE_HEAD.size:
            raise ChunkRefused(f"message record of {size} bytes")
        channel, _, log_time, _ = MESSAGE_HEAD.unpack_from(self._recording.unpacked, at)
        if channel not in self._recording.topics:
            raise ChunkRefused(f"message on channel {channel}, which was not introduced")
        if len(self._rows) >= self._steps * len(self._expected):
            raise ChunkRefused(f"more messages than {self._steps} steps have")
        self._rows.append((channel, log_time, at + MESSAGE_HEAD.size, size - MESSAGE_HEAD.size))

    def _pattern(self, start: int) -> bool:
        """Find all messages from ``start`` on at once; False unless steps repeat the first."""
        recording, count = self._recording, len(self._channels)
        heads, at, end = [], start, int(recording.starts[1])
        for _ in range(count):
            if end - at < _HEAD_BYTES:
                return False
            opcode, length = RECORD.unpack_from(recording.unpacked, at)
            if opcode != records.MESSAGE or not MESSAGE_HEAD.size <= length <= end - at:
                return False
            heads.append((at - start, length - MESSAGE_HEAD.size))
            at += RECORD.size + length
        step = at - start
        sizes = np.diff(np.concatenate([[start], recording.starts[1:]]))
        steps = int(recording.starts[-1] - start) // step
        if at > end or (sizes % step).any() or steps > self._steps:
            return False
        table = np.frombuffer(recording.unpacked, np.uint8, offset=start).reshape(steps, step)
        offsets = np.array([head for head, _ in heads])
        same = table.take((offsets[:, None] + np.arange(_SAME_BYTES)).ravel(), axis=1)
        if (same != same[0]).any():
            return False
        channels = same[0].reshape(count, -1)[:, -2:].copy().view("<u2").ravel()
        if sorted(channels.tolist()) != sorted(self._channels):
            return False
        times = table.take((offsets[:, None] + _LOG_TIME_AT + np.arange(8)).ravel(), axis=1)
        times = times.view("<u8")
        rows = step * np.arange(steps)
        for i, channel in enumerate(channels.tolist()):
            first = start + heads[i][0] + _HEAD_BYTES
            recording.messages[recording.topics[channel]] = Messages(
                times[:, i], rows + first, np.full(steps, heads[i][1])
            )
        return True

    def _sort(self, rows: np.ndarray) -> None:
        """Sort rows (n, 4) uint64 of channel, log time, offset and size by topic."""
        for channel, topic in self._recording.topics.items():
            own = rows[rows[:, 0] == channel]
            if len(own) > self._steps:
                raise ChunkRefused(f"{topic} has more messages than there are steps")
            places = own[:, 2:].astype(np.int64)
            self._recording.messages[topic] = Messages(own[:, 1], places[:, 0], places[:, 1])


def _add_metadata(recording: Recording, at: int, size: int) -> None:
    """Read a metadata record; there is one entry in it, and few records."""
    body = RecordBody(recording.data, at, size, "metadata")
    name, entries = body.text(_MAX_NAME_BYTES), body.sized()
    body.done()
    inner = RecordBody(entries, 0, len(entries), "metadata")
    key, value = inner.text(_MAX_NAME_BYTES), inner.text(MAX_METADATA_BYTES)
    inner.done()
    if recording.metadata:
        raise ChunkRefused("more than one metadata record")
    recording.metadata[name] = {key: value}


def read_recording(data: bytes) -> Recording:
    """Read the outer records of an MCAP file; nothing is decompressed yet.

    Raises:
        ChunkRefused: for what is truncated, fails a checksum, is not of profile ``ros2`` or
            holds a record that ``write_recording`` does not write.
    """
    magic = len(MCAP0_MAGIC)
    if len(data) < 2 * magic or data[:magic] != MCAP0_MAGIC or data[-magic:] != MCAP0_MAGIC:
        raise ChunkRefused(f"{len(data)} bytes that do not begin and end as an MCAP file does")
    recording, end = Recording(data), len(data) - magic
    profile, summary_at, footer = None, None, None
    for opcode, at, size in walk(data, magic, end, most=MAX_RECORDS):
        if footer is not None:
            raise ChunkRefused("records behind the footer")
        if (opcode == records.HEADER) != (profile is None):
            raise ChunkRefused("MCAP file does not begin with its one header")
        if opcode == records.HEADER:
            profile = RecordBody(data, at, size, "header").text(64)
        elif summary_at is not None:
            if opcode == records.FOOTER:
                footer = RecordBody(data, at, size, "footer")
            recording.summary.append((opcode, at, size))
        elif opcode == records.CHUNK:
            recording.blocks.append(records.read_block(data, at, size))
            recording.indexes.append([])
            if len(recording.blocks) > MAX_BLOCKS:
                raise ChunkRefused(f"more than {MAX_BLOCKS} blocks")
        elif opcode == records.MESSAGE_INDEX and recording.blocks:
            recording.indexes[-1].append((at, size))
            if len(recording.indexes[-1]) > MAX_INDEXES:
                raise ChunkRefused(f"more than {MAX_INDEXES} message indexes of one block")
        elif opcode == records.METADATA and not recording.blocks:
            _add_metadata(recording, at, size)
        elif opcode == records.DATA_END:
            stated = RecordBody(data, at, size, "data end").u32()
            if stated != zlib.crc32(memoryview(data)[: at - RECORD.size]):
                raise ChunkRefused("MCAP file fails its checksum")
            summary_at = at + size
        else:
            raise ChunkRefused(f"unexpected record {opcode} of an MCAP file")
    if profile != PROFILE:
        raise ChunkRefused(f"expected MCAP profile {PROFILE!r}, got {profile!r}")
    if footer is None or footer.u64() != summary_at:
        raise ChunkRefused("MCAP file without its data end, summary and footer")
    footer.u64()
    if footer.u32() != zlib.crc32(memoryview(data)[summary_at : end - 4]):
        raise ChunkRefused("MCAP file fails its checksum")
    footer.done()
    return recording
