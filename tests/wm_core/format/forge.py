"""Takes a chunk apart and puts it together again with right checksums, whatever was changed.

What a test changes is therefore judged by its meaning, not noticed by a checksum.  ``build``
without a change gives a file that is as good as the original one.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field

import zstandard
from mcap.writer import MCAP0_MAGIC

from wm_core.format import records
from wm_core.format.records import MESSAGE_HEAD, RECORD, walk

Record = tuple[int, bytes]  #: opcode, body
#: gets opcode, number among its kind and body; gives a body, None for no such record, or records
Change = Callable[[int, int, bytes], bytes | list[Record] | None]


def text(value: str | bytes) -> bytes:
    """A string as MCAP has it."""
    raw = value.encode() if isinstance(value, str) else value
    return struct.pack("<I", len(raw)) + raw


def pack(opcode: int, body: bytes) -> bytes:
    return RECORD.pack(opcode, len(body)) + body


def read_all(data: bytes, start: int, end: int) -> list[Record]:
    found = walk(data, start, end, most=10**6)
    return [(opcode, bytes(data[at : at + size])) for opcode, at, size in found]


@dataclass
class Forged:
    """The parts of a chunk that everything else in it follows from."""

    header: bytes
    metadata: dict[str, dict[str, str]]
    blocks: list[list[Record]]  #: schemas, channels and messages
    change: Change = field(default=lambda opcode, number, body: body)
    compress: Callable[[bytes], bytes] = zstandard.compress

    @property
    def meta(self) -> dict:
        return json.loads(self.metadata["wm_chunk"]["meta"])

    def set_meta(self, **changed: object) -> None:
        self.metadata["wm_chunk"]["meta"] = json.dumps(self.meta | changed)

    def build(self) -> bytes:
        """Write the file, each of its records changed by ``change`` first."""
        self._seen: dict[int, int] = {}
        self._out = bytearray(MCAP0_MAGIC)
        self._put(records.HEADER, self.header)
        metadata_at = len(self._out)
        for name, entries in self.metadata.items():
            inner = b"".join(text(k) + text(v) for k, v in entries.items())
            self._put(records.METADATA, text(name) + text(inner))
        metadata_size = len(self._out) - metadata_at
        chunks = [self._put_block(block) for block in self.blocks]
        self._put(records.DATA_END, struct.pack("<I", zlib.crc32(self._out)))
        summary_at = len(self._out)
        own = [record for block in self.blocks for record in block]
        for kind in (records.SCHEMA, records.CHANNEL):
            for opcode, body in own:
                if opcode == kind:
                    self._put(kind, body)
        self._put(records.STATISTICS, self._statistics(own))
        for chunk in chunks:
            self._put(records.CHUNK_INDEX, chunk)
        where = struct.pack("<QQ", metadata_at, metadata_size)
        self._put(records.METADATA_INDEX, where + text("wm_chunk"))
        front = RECORD.pack(records.FOOTER, 20) + struct.pack("<QQ", summary_at, 0)
        crc = zlib.crc32(front, zlib.crc32(self._out[summary_at:]))
        self._put(records.FOOTER, front[RECORD.size :] + struct.pack("<I", crc))
        return bytes(self._out + MCAP0_MAGIC)

    def _put(self, opcode: int, body: bytes) -> None:
        number = self._seen[opcode] = self._seen.get(opcode, -1) + 1
        changed = self.change(opcode, number, body)
        if changed is not None:
            several = [(opcode, changed)] if isinstance(changed, bytes) else changed
            for kind, inner in several:
                self._out += pack(kind, inner)

    def _put_block(self, block: list[Record]) -> bytes:
        """Write a block and its message indexes; returns the body of its chunk index."""
        inner = b"".join(pack(*record) for record in block)
        index: dict[int, list[tuple[int, int]]] = {}
        at = 0
        for opcode, body in block:
            if opcode == records.MESSAGE and len(body) >= MESSAGE_HEAD.size:
                channel, _, log_time, _ = MESSAGE_HEAD.unpack_from(body)
                index.setdefault(channel, []).append((log_time, at))
            at += RECORD.size + len(body)
        times = [time for entries in index.values() for time, _ in entries] or [0]
        packed, start = self.compress(inner), len(self._out)
        head = struct.pack("<QQQI", min(times), max(times), len(inner), zlib.crc32(inner))
        body = head + text("zstd") + struct.pack("<Q", len(packed)) + packed
        self._put(records.CHUNK, body)
        length, offsets = len(self._out) - start, b""
        for channel, entries in index.items():
            offsets += struct.pack("<HQ", channel, len(self._out))
            listed = b"".join(struct.pack("<QQ", *entry) for entry in entries)
            self._put(records.MESSAGE_INDEX, struct.pack("<H", channel) + text(listed))
        behind = len(self._out) - start - length
        return (
            struct.pack("<QQQQ", min(times), max(times), start, length)
            + text(offsets)
            + struct.pack("<Q", behind)
            + text("zstd")
            + struct.pack("<QQ", len(packed), len(inner))
        )

    def _statistics(self, own: list[Record]) -> bytes:
        heads = [
            MESSAGE_HEAD.unpack_from(body.ljust(MESSAGE_HEAD.size, b"\x00"))
            for opcode, body in own
            if opcode == records.MESSAGE
        ]
        kinds = [opcode for opcode, _ in own]
        by_channel: dict[int, int] = {}
        for channel, *_ in heads:
            by_channel[channel] = by_channel.get(channel, 0) + 1
        times = [head[2] for head in heads] or [0]
        return struct.pack(
            "<QHIIIIQQ", len(heads), kinds.count(records.SCHEMA), kinds.count(records.CHANNEL), 0,
            len(self.metadata), len(self.blocks), min(times), max(times),
        ) + text(b"".join(struct.pack("<HQ", *item) for item in by_channel.items()))  # fmt: skip


def take_apart(data: bytes) -> Forged:
    """Read the parts of a good chunk."""
    outer = read_all(data, len(MCAP0_MAGIC), len(data) - len(MCAP0_MAGIC))
    forged = Forged(header=outer[0][1], metadata={}, blocks=[])
    for opcode, body in outer:
        if opcode == records.METADATA:
            name, entries = _texts(body)
            key, value = _texts(entries.encode())
            forged.metadata[name] = {key: value}
        elif opcode == records.CHUNK:
            block = records.read_block(body, 0, len(body))
            inner = zstandard.decompress(body[block.offset :])
            forged.blocks.append(read_all(inner, 0, len(inner)))
    return forged


def _texts(body: bytes) -> tuple[str, str]:
    (size,) = struct.unpack_from("<I", body)
    return body[4 : 4 + size].decode(), body[8 + size :].decode()
