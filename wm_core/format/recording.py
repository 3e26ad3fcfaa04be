"""Writes MCAP files by the mcap library, and reads them with every size checked first.

The library's own reader believes the sizes that a file states.  This one is for bytes that came
over a network: it validates each size against what is there before it uses it, and every
checksum is compared, so that one changed bit is noticed.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import zstandard
from mcap.data_stream import ReadDataStream
from mcap.exceptions import McapError
from mcap.opcode import Opcode
from mcap.records import Channel, DataEnd, Footer, Header, Metadata, Schema
from mcap.writer import MCAP0_MAGIC, CompressionType, Writer

from wm_core.contract.errors import ChunkRefused
from wm_core.format.cdr import DEFINITIONS

PROFILE, SCHEMA_ENCODING, MESSAGE_ENCODING, COMPRESSION = "ros2", "ros2msg", "cdr", "zstd"

_RECORD = struct.Struct("<BQ")  # opcode, length
_MESSAGE = struct.Struct("<HIQQ")  # channel, sequence, log time, publish time
_CHUNK = struct.Struct("<QQQII")  # start, end, unpacked size, its crc, length of the codec's name


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


@dataclass(frozen=True)
class Block:
    """Locates one compressed run of records within the file."""

    offset: int  #: of the compressed bytes in the file
    size: int  #: of the compressed bytes
    unpacked_size: int
    crc: int


class Message(NamedTuple):
    """Locates one message."""

    log_time: int  #: ns
    block: int  #: number of the block that holds it
    offset: int  #: of its first CDR byte within the unpacked block
    size: int


@dataclass
class Recording:
    """Holds the content of an MCAP file, its blocks packed until ``unpack`` is called."""

    data: bytes
    metadata: dict[str, dict[str, str]] = field(default_factory=dict)
    blocks: list[Block] = field(default_factory=list)
    unpacked: list[bytes] = field(default_factory=list)
    types: dict[str, str] = field(default_factory=dict)  #: topic -> message type
    messages: dict[str, list[Message]] = field(default_factory=dict)  #: by topic, in file order

    def view(self, message: Message) -> memoryview:
        """View the CDR bytes of ``message``."""
        return memoryview(self.unpacked[message.block])[message.offset :][: message.size]

    def unpack(self, *, max_bytes: int) -> None:
        """Decompress all blocks and find the messages in them.

        Raises:
            ChunkRefused: for more than ``max_bytes`` in all, raised before anything is unpacked.
        """
        total = sum(block.unpacked_size for block in self.blocks)
        if total > max_bytes:
            raise ChunkRefused(f"unpacks to {total} bytes; its steps need at most {max_bytes}")
        schemas: dict[int, Schema] = {}
        topics: dict[int, str] = {}
        for number, block in enumerate(self.blocks):
            data = unpack_block(self.data[block.offset :][: block.size], block)
            self.unpacked.append(data)
            for opcode, at, body in _records(memoryview(data), 0):
                if opcode == Opcode.MESSAGE:
                    self._add_message(number, at, body, topics)
                elif opcode == Opcode.SCHEMA:
                    schema = _read(Schema, body)
                    schemas[schema.id] = schema
                elif opcode == Opcode.CHANNEL:
                    self._add_channel(_read(Channel, body), schemas, topics)
                else:
                    raise ChunkRefused(f"unexpected record {opcode} within a block")

    def _add_channel(
        self, channel: Channel, schemas: dict[int, Schema], topics: dict[int, str]
    ) -> None:
        schema = schemas.get(channel.schema_id)
        if schema is None or schema.encoding != SCHEMA_ENCODING:
            raise ChunkRefused(f"topic {channel.topic!r} has no {SCHEMA_ENCODING} definition")
        if channel.message_encoding != MESSAGE_ENCODING or channel.topic in self.types:
            raise ChunkRefused(
                f"topic {channel.topic!r} is not {MESSAGE_ENCODING}, or is there twice"
            )
        topics[channel.id] = channel.topic
        self.types[channel.topic] = schema.name
        self.messages[channel.topic] = []

    def _add_message(self, block: int, at: int, body: memoryview, topics: dict[int, str]) -> None:
        if len(body) < _MESSAGE.size:
            raise ChunkRefused(f"message record of {len(body)} bytes")
        channel, _, log_time, _ = _MESSAGE.unpack_from(body)
        topic = topics.get(channel)
        if topic is None:
            raise ChunkRefused(f"message on channel {channel}, which was not introduced")
        offset, size = at + _MESSAGE.size, len(body) - _MESSAGE.size
        self.messages[topic].append(Message(log_time, block, offset, size))


def unpack_block(packed: bytes, block: Block) -> bytes:
    """Unpack one block; raises ``ChunkRefused`` where size or checksum do not fit."""
    try:
        stated = zstandard.frame_content_size(packed)
        if stated != block.unpacked_size:
            raise ChunkRefused(f"block states {block.unpacked_size} bytes, its frame {stated}")
        data = zstandard.ZstdDecompressor().decompress(packed)
    except zstandard.ZstdError as error:
        raise ChunkRefused(f"block does not decompress: {error}") from error
    if len(data) != block.unpacked_size or zlib.crc32(data) != block.crc:
        raise ChunkRefused("block does not fit its size or checksum")
    return data


def _records(data: memoryview, start: int) -> Iterator[tuple[int, int, memoryview]]:
    """Yield opcode, offset of the body, and body of each record from ``start`` to the end."""
    while start < len(data):
        if len(data) - start < _RECORD.size:
            raise ChunkRefused(f"{len(data) - start} bytes left over behind the last record")
        opcode, length = _RECORD.unpack_from(data, start)
        start += _RECORD.size
        if length > len(data) - start:
            raise ChunkRefused(f"record of {length} bytes where {len(data) - start} are left")
        yield opcode, start, data[start : start + length]
        start += length


def _read(kind: type[Any], body: memoryview) -> Any:
    """Parse ``body`` as a record of the mcap library."""
    try:
        return kind.read(ReadDataStream(io.BytesIO(body)))
    except (McapError, struct.error, UnicodeDecodeError) as error:
        raise ChunkRefused(f"{kind.__name__} record does not parse: {error!r}") from error


def _block(at: int, body: memoryview) -> Block:
    """Read the chunk record at ``at`` and validate its sizes against the record's length."""
    if len(body) < _CHUNK.size:
        raise ChunkRefused(f"chunk record of {len(body)} bytes")
    _, _, unpacked_size, crc, name_size = _CHUNK.unpack_from(body)
    start = _CHUNK.size + name_size + 8
    if start > len(body) or bytes(body[_CHUNK.size : start - 8]) != COMPRESSION.encode():
        raise ChunkRefused(f"block is not compressed with {COMPRESSION}")
    size = int.from_bytes(body[start - 8 : start], "little")
    if size != len(body) - start:
        raise ChunkRefused(
            f"block states {size} packed bytes, its record holds {len(body) - start}"
        )
    return Block(at + start, size, unpacked_size, crc)


def read_recording(data: bytes) -> Recording:
    """Read the outer records of an MCAP file; nothing is decompressed yet.

    Raises:
        ChunkRefused: for what is truncated, fails a checksum or is not of profile ``ros2``.
    """
    magic = len(MCAP0_MAGIC)
    if len(data) < 2 * magic or data[:magic] != MCAP0_MAGIC or data[-magic:] != MCAP0_MAGIC:
        raise ChunkRefused(f"{len(data)} bytes that do not begin and end as an MCAP file does")
    recording, view = Recording(data), memoryview(data)[:-magic]
    footer: Footer | None = None
    profile, data_crc, summary_at = "", -1, len(data)
    for opcode, at, body in _records(view, magic):
        if footer is not None:
            raise ChunkRefused("records behind the footer")
        if opcode == Opcode.HEADER:
            profile = _read(Header, body).profile
        elif opcode == Opcode.METADATA:
            metadata = _read(Metadata, body)
            recording.metadata[metadata.name] = metadata.metadata
        elif opcode == Opcode.CHUNK:
            recording.blocks.append(_block(at, body))
        elif opcode == Opcode.DATA_END:
            start = at - _RECORD.size
            data_crc = zlib.crc32(view[:start]) ^ _read(DataEnd, body).data_section_crc
            summary_at = at + len(body)
        elif opcode == Opcode.FOOTER:
            footer = _read(Footer, body)
    if profile != PROFILE:
        raise ChunkRefused(f"expected MCAP profile {PROFILE!r}, got {profile!r}")
    if footer is None or footer.summary_start != summary_at:
        raise ChunkRefused("MCAP file without its data end and footer")
    if data_crc != 0 or footer.summary_crc != zlib.crc32(view[summary_at:-4]):
        raise ChunkRefused("MCAP file fails its checksum")
    return recording
