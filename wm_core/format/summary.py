"""Holds a recording's indexes, statistics and repeated definitions to what its blocks say.

Other tools read a file by them.  A file whose summary tells another story than its messages would
be shown, replayed or repaired as something that nobody recorded.
"""

from __future__ import annotations

import numpy as np

from wm_core.contract.errors import ChunkRefused
from wm_core.format import records
from wm_core.format.recording import Recording
from wm_core.format.records import MESSAGE_HEAD, RECORD, RecordBody

_OFFSETS = np.dtype([("channel", "<u2"), ("offset", "<u8")])
_COUNTS = np.dtype([("channel", "<u2"), ("count", "<u8")])
#: a table of contents that nothing is decided by; its offsets lie in the summary
_PLAIN = (records.METADATA_INDEX, records.SUMMARY_OFFSET, records.FOOTER)


def check_summary(recording: Recording) -> None:
    """Raise ``ChunkRefused`` unless the summary of an unpacked recording fits its blocks."""
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
    if times != _range(recording, {channel: (0, n) for channel, n in counts.items()}):
        raise ChunkRefused("the statistics say other times than the messages")
    if len(by_channel) != _COUNTS.itemsize * len(counts) or counts != dict(
        np.frombuffer(by_channel, _COUNTS).tolist()
    ):
        raise ChunkRefused("the statistics say other counts of messages by channel")


def _range(recording: Recording, parts: dict[int, tuple[int, int]]) -> tuple[int, int]:
    """Give the earliest and the latest log time of messages ``start`` to ``end`` by channel."""
    low, high = [], []
    for channel, (start, end) in parts.items():
        if end > start:  # log times grow
            times = recording.messages[recording.topics[channel]].log_time
            low.append(int(times[start]))
            high.append(int(times[end - 1]))
    return (min(low), max(high)) if low else (0, 0)


def _check_indexes(recording: Recording, chunks: list[tuple[int, int]]) -> None:
    """Compare each chunk index and message index with the block that it describes."""
    index = _Index(recording)
    for number, (at, size) in enumerate(chunks):
        block = recording.blocks[number]
        body = RecordBody(recording.data, at, size, "chunk index")
        times, start, length = (body.u64(), body.u64()), body.u64(), body.u64()
        by_channel, indexes_bytes = body.sized(), body.u64()
        codec, packed, unpacked = body.sized(), body.u64(), body.u64()
        body.done()
        length_behind, found = index.check(number)
        record = block.offset - 8 - len(records.COMPRESSION) - 32 - RECORD.size
        ends = block.offset + block.size
        expected = (block.start_time, block.end_time), record, ends - record, length_behind
        if (times, start, length, indexes_bytes) != expected or (
            bytes(codec) != records.COMPRESSION
            or (packed, unpacked) != (block.size, block.unpacked_size)
        ):
            raise ChunkRefused(f"chunk index {number} does not describe its block")
        if len(by_channel) != _OFFSETS.itemsize * len(found) or found != dict(
            np.frombuffer(by_channel, _OFFSETS).tolist()
        ):
            raise ChunkRefused(f"chunk index {number} does not find its message indexes")


class _Index:
    """Knows what the message indexes of a recording have to say."""

    def __init__(self, recording: Recording) -> None:
        self._recording = recording
        self._entries: dict[int, bytes] = {}  # of all messages of a channel
        self._parts: dict[int, list[int]] = {}  # where the messages of each block begin
        for channel, topic in recording.topics.items():
            messages = recording.messages[topic]
            _, within = recording.block_of(messages.offset)
            entries = np.empty((len(within), 2), "<u8")
            entries[:, 0] = messages.log_time
            entries[:, 1] = within - (RECORD.size + MESSAGE_HEAD.size)
            self._entries[channel] = entries.tobytes()
            self._parts[channel] = np.searchsorted(messages.offset, recording.starts).tolist()

    def check(self, number: int) -> tuple[int, dict[int, int]]:
        """Compare the message indexes behind block ``number`` with its messages.

        Returns:
            The bytes of these records, and where each one begins by channel.
        """
        recording, total, found = self._recording, 0, {}
        parts = {c: (own[number], own[number + 1]) for c, own in self._parts.items()}
        for at, size in recording.indexes[number]:
            body = RecordBody(recording.data, at, size, "message index")
            channel, entries = body.u16(), body.sized()
            body.done()
            if channel not in parts or channel in found:
                raise ChunkRefused(f"message index of channel {channel}, which is none or has one")
            first, end = parts[channel]
            if entries != self._entries[channel][16 * first : 16 * end]:
                raise ChunkRefused(f"message index of block {number} points elsewhere")
            found[channel], total = at - RECORD.size, total + RECORD.size + size
        missing = [c for c, (first, end) in parts.items() if end > first and c not in found]
        block = recording.blocks[number]
        if missing or (block.start_time, block.end_time) != _range(recording, parts):
            raise ChunkRefused(f"block {number} lacks a message index, or states other times")
        return total, found
