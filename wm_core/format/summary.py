"""Holds a recording's indexes, statistics and repeated definitions to what its blocks say.

Other tools read a file by them.  A file whose summary tells another story than its messages would
be shown, replayed or repaired as something that nobody recorded.
"""

from __future__ import annotations

import struct

import numpy as np

from wm_core.contract.errors import ChunkRefused
from wm_core.format import records
from wm_core.format.recording import Recording
from wm_core.format.records import MESSAGE_HEAD, RECORD, RecordBody

_INDEX_FRONT = struct.Struct("<HI")  # channel, bytes of the entries
_CHUNK_INDEX = struct.Struct("<QQQQI")  # first and last time, place, length, bytes of offsets
_OFFSET = struct.Struct("<HQ")  # channel, place of its message index
_CHUNK_INDEX_END = struct.Struct("<QI4sQQ")  # bytes of indexes, codec, packed and unpacked size
_CHUNK_FRONT = RECORD.size + 32 + len(records.COMPRESSION) + 8  # before a block's packed bytes
_COUNTS = np.dtype([("channel", "<u2"), ("count", "<u8")])
#: a table of contents that nothing is decided by; its offsets lie in the summary
_PLAIN = (records.METADATA_INDEX, records.SUMMARY_OFFSET, records.FOOTER)


def check_summary(recording: Recording) -> None:
    """Raise ``ChunkRefused`` unless the summary of an unpacked recording fits its blocks.

    Its topics have to have as many messages each, at the same times, which grow.
    """
    by_kind: dict[int, list[tuple[int, int]]] = {}
    for opcode, at, size in recording.summary:
        by_kind.setdefault(opcode, []).append((at, size))
    unknown = by_kind.keys() - {
        records.SCHEMA, records.CHANNEL, records.STATISTICS, records.CHUNK_INDEX, *_PLAIN
    }  # fmt: skip
    if unknown:
        raise ChunkRefused(f"unexpected records {sorted(unknown)} in the summary")
    for kind, name, originals in (
        (records.SCHEMA, "schemas", recording.schemas),
        (records.CHANNEL, "channels", recording.channels),
    ):
        stated = [bytes(recording.data[at : at + size]) for at, size in by_kind.get(kind, [])]
        original = [bytes(recording.unpacked[a : a + n]) for a, n in originals.values()]
        if sorted(stated) != sorted(original):
            raise ChunkRefused(f"the summary's {name} are others than the blocks'")
    statistics, chunks = by_kind.get(records.STATISTICS, []), by_kind.get(records.CHUNK_INDEX, [])
    if len(statistics) != 1 or len(chunks) != len(recording.blocks):
        raise ChunkRefused(
            f"expected one statistics record and {len(recording.blocks)} chunk indexes in the "
            f"summary, got {len(statistics)} and {len(chunks)}"
        )
    _check_statistics(recording, *statistics[0])
    _check_indexes(recording, chunks)


def _check_statistics(recording: Recording, at: int, size: int) -> None:
    """Compare every count of the statistics with what was found."""
    body = RecordBody(recording.data, at, size, "statistics")
    stated = (body.u64(), body.u16(), body.u32(), body.u32(), body.u32(), body.u32())
    times = (body.u64(), body.u64())
    by_channel = body.sized()
    body.done()
    counts = {c: len(recording.messages[topic].size) for c, topic in recording.topics.items()}
    found = (
        sum(counts.values()), len(recording.schemas), len(counts), 0, len(recording.metadata),
        len(recording.blocks),
    )  # fmt: skip
    if stated != found:
        raise ChunkRefused(
            "the statistics say (messages, schemas, channels, attachments, metadata, chunks) "
            f"{stated}, the file has {found}"
        )
    log_time = next(iter(recording.messages.values())).log_time  # of every topic, and it grows
    if times != (int(log_time[0]), int(log_time[-1])):
        raise ChunkRefused("the statistics say other times than the messages")
    if len(by_channel) != _COUNTS.itemsize * len(counts) or counts != dict(
        np.frombuffer(by_channel, _COUNTS).tolist()
    ):
        raise ChunkRefused("the statistics say other counts of messages by channel")


def _check_indexes(recording: Recording, chunks: list[tuple[int, int]]) -> None:
    """Compare each chunk index and message index with the block that it describes."""
    index = _Index(recording)
    for number, (at, size) in enumerate(chunks):
        block = recording.blocks[number]
        length_behind, found = index.check(number)
        start, end = block.offset - _CHUNK_FRONT, block.offset + block.size
        front = (block.start_time, block.end_time, start, end - start, 10 * len(found))
        behind = (length_behind, 4, records.COMPRESSION, block.size, block.unpacked_size)
        offsets = b"".join([_OFFSET.pack(*item) for item in found.items()])
        expected = _CHUNK_INDEX.pack(*front) + offsets + _CHUNK_INDEX_END.pack(*behind)
        if recording.data[at : at + size] != expected:
            raise ChunkRefused(f"chunk index {number} does not describe its block")


class _Index:
    """Knows what the message indexes of a recording have to say."""

    def __init__(self, recording: Recording) -> None:
        self._recording = recording
        topics = [recording.messages[topic] for topic in recording.topics.values()]
        offsets = np.stack([messages.offset for messages in topics])  # (topics, steps)
        _, within = recording.block_of(offsets)
        entries = np.empty((*offsets.shape, 2), "<u8")
        entries[..., 0] = [messages.log_time for messages in topics]
        entries[..., 1] = within - (RECORD.size + MESSAGE_HEAD.size)
        self._entries = dict(zip(recording.topics, map(bytes, entries), strict=True))
        #: where the messages of each block begin, (blocks + 1,) by channel
        self._parts = {
            channel: np.searchsorted(own, recording.starts).tolist()
            for channel, own in zip(recording.topics, offsets, strict=True)
        }
        self._times = topics[0].log_time.tolist()  # the same for every topic

    def check(self, number: int) -> tuple[int, dict[int, int]]:
        """Compare the message indexes behind block ``number`` with its messages.

        Returns:
            The bytes of these records, and where each one begins by channel.
        """
        recording, total, found = self._recording, 0, {}
        data, low, high = recording.data, 2**64, -1
        for at, size in recording.indexes[number]:
            channel, length = _INDEX_FRONT.unpack_from(data, at) if size >= 6 else (-1, 0)
            if channel not in self._parts or channel in found or size != 6 + length:
                raise ChunkRefused(f"message index of channel {channel}, which is none or has one")
            first, end = self._parts[channel][number : number + 2]
            if data[at + 6 : at + size] != self._entries[channel][16 * first : 16 * end]:
                raise ChunkRefused(f"message index of block {number} points elsewhere")
            found[channel], total = at - RECORD.size, total + RECORD.size + size
        for channel, parts in self._parts.items():
            first, end = parts[number : number + 2]
            if end > first:
                low, high = min(low, self._times[first]), max(high, self._times[end - 1])
                if channel not in found:
                    raise ChunkRefused(f"block {number} lacks a message index")
        block = recording.blocks[number]
        if (block.start_time, block.end_time) != (low, high):
            raise ChunkRefused(f"block {number} states other times than its messages")
        return total, found
