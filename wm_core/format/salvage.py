"""Recovers the steps of a damaged chunk: each block that is whole by its checksum gives its own.

Blocks are found by what they begin with, not by the records before them, so that damage anywhere
costs no more than the blocks that it lies in.  Nothing is guessed: a step is recovered when every
message of it decodes.
"""

from __future__ import annotations

import contextlib
import math
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import zstandard

from wm_core.contract.errors import ChunkRefused, SpecMismatch
from wm_core.contract.step import DEFAULTS, FLAGS, NUMBERS, Step, check_step
from wm_core.format import cdr, pictures, records
from wm_core.format.meta import MAX_META_BYTES, METADATA, ChunkMeta, image_topic
from wm_core.format.records import MESSAGE_HEAD, RecordBody, read_block, walk

_CODEC = struct.pack("<I", len(records.COMPRESSION)) + records.COMPRESSION
_BEFORE_CODEC = 28  # bytes of a chunk record's body: two times, a size and a checksum
_NAME = struct.pack("<I", len(METADATA)) + METADATA.encode()
_MAX_RECORDS = 1 << 20


@dataclass
class Salvaged:
    """Holds what could be recovered of a damaged chunk."""

    meta: ChunkMeta | None  #: None where neither the file nor the caller knew it
    blocks: int = 0  #: that were whole
    steps: dict[int, Step] = field(default_factory=dict)  #: by index within the chunk

    @property
    def runs(self) -> list[tuple[int, list[Step]]]:
        """List (index of the first, steps) of each run of consecutive steps."""
        found: list[tuple[int, list[Step]]] = []
        for index in sorted(self.steps):
            if not found or found[-1][0] + len(found[-1][1]) != index:
                found.append((index, []))
            found[-1][1].append(self.steps[index])
        return found


def salvage(data: bytes, meta: ChunkMeta | None = None) -> Salvaged:
    """Recover what is whole of a chunk's file.

    Args:
        data: its bytes, as far as they can be read.
        meta: what the chunk is, where that is known from elsewhere; None: as the file says.
    """
    meta = meta or salvage_meta(data)
    found = Salvaged(meta)
    if meta is None:
        return found
    topics = {i: topic.name for i, topic in enumerate(meta.topics, 1)}  # as they are written
    parts: dict[int, dict[str, bytes]] = {}
    for block in _blocks(data, meta):
        with contextlib.suppress(ChunkRefused):
            _take_block(block, topics, meta, parts)
            found.blocks += 1
    named = set(topics.values())
    with contextlib.suppress(ChunkRefused):  # a neighbour may have recorded its cameras otherwise
        meta = meta.with_codecs(
            {k: "jpeg" for k in meta.spec.images if image_topic(k, {k: "jpeg"}).name in named}
        )
    found.meta = meta
    for index, messages in parts.items():
        with contextlib.suppress(ChunkRefused, SpecMismatch, KeyError, ValueError):
            found.steps[index] = _step(messages, meta)
    return found


def salvage_meta(data: bytes) -> ChunkMeta | None:
    """Read the meta of a damaged chunk; None where it cannot be."""
    at = data.find(_NAME)
    while at >= 0:
        with contextlib.suppress(ChunkRefused):
            body = RecordBody(data, at + len(_NAME), len(data) - at - len(_NAME), "metadata")
            entries = body.sized()
            inner = RecordBody(entries, 0, len(entries), "metadata")
            inner.text(256)
            return ChunkMeta.parse(inner.text(2 * MAX_META_BYTES))
        at = data.find(_NAME, at + 1)
    return None


def _blocks(data: bytes, meta: ChunkMeta) -> Iterator[bytes]:
    """Unpack every block that is whole."""
    decompressor = zstandard.ZstdDecompressor()
    at = data.find(_CODEC)
    while at >= 0:
        body = at - _BEFORE_CODEC
        size_at = at + len(_CODEC)
        with contextlib.suppress(ChunkRefused, struct.error):
            (packed_size,) = struct.unpack_from("<Q", data, size_at)
            if body >= 0 and packed_size <= len(data) - size_at - 8:
                block = read_block(data, body, size_at + 8 + packed_size - body)
                if 0 < block.unpacked_size <= meta.unpacked_bytes:
                    out = bytearray(block.unpacked_size)
                    packed = memoryview(data)[block.offset : block.offset + block.size]
                    records.unpack_into(decompressor, packed, memoryview(out))
                    if zlib.crc32(out) == block.crc:
                        yield bytes(out)
        at = data.find(_CODEC, at + 1)


def _take_block(
    block: bytes, topics: dict[int, str], meta: ChunkMeta, parts: dict[int, dict[str, bytes]]
) -> None:
    """Sort the messages of a block by their step and topic."""
    for opcode, at, size in walk(block, 0, len(block), most=_MAX_RECORDS):
        if opcode == records.CHANNEL:
            body = RecordBody(block, at, size, "channel")
            number, _ = body.u16(), body.u16()
            topics[number] = body.text(256)
        elif opcode == records.MESSAGE and size >= MESSAGE_HEAD.size:
            channel, index, _, _ = MESSAGE_HEAD.unpack_from(block, at)
            if index < meta.steps and channel in topics:
                message = block[at + MESSAGE_HEAD.size : at + size]
                there = parts.setdefault(index, {}).setdefault(topics[channel], message)
                if there != message:  # steps that are not numbered as we number them
                    raise ChunkRefused(f"step {index} is there twice")


def _step(messages: dict[str, bytes], meta: ChunkMeta) -> Step:
    """Decode the messages of one step; raises where one is missing or does not fit."""
    spec = meta.spec
    numbers = cdr.decode_joint_state(messages["/step"])
    named = dict(zip(numbers.names, numbers.position.tolist(), strict=True))
    action = cdr.decode_joint_state(messages["/action"])
    obs: dict[str, np.ndarray] = {}
    jpegs: dict[str, bytes] = {}
    for key, image in spec.images.items():
        data = messages[image_topic(key, meta.codecs).name]
        if key in meta.codecs:
            jpegs[key] = bytes(cdr.jpeg_at(data, cdr.decode_jpeg(data).offset))
            obs[key] = pictures.decode_picture(jpegs[key], image)
            continue
        place = cdr.decode_image(data, image)
        little = image.dtype.newbyteorder("<")
        pixels = np.frombuffer(data, little, math.prod(image.shape), place.offset)
        obs[key] = pixels.reshape(image.shape).astype(image.dtype)
    for key in spec.vectors:
        obs[key] = cdr.decode_joint_state(messages[f"/{key}"]).position.astype(np.float32)
    values = {name: _value(name, named) for name in NUMBERS}
    step = Step(
        obs=obs,
        action=action.position.astype(np.float32),
        requested_action=action.effort.astype(np.float32) if len(action.effort) else None,
        stamp_ns=numbers.stamp_ns,
        jpegs=jpegs or None,
        **values,
    )
    check_step(step, spec)
    return step


def _value(name: str, named: dict[str, float]) -> Any:
    """The number ``name`` of a step as its field's kind; its default where it is not there."""
    if name not in named:
        return DEFAULTS[name]
    if name in FLAGS:
        return bool(named[name])
    return int(named[name]) if NUMBERS[name].kind == "i" else float(named[name])
