"""Encodes a run of Steps as one MCAP file, which the robot spools and the store keeps.

Topics: ``/<image>`` Image, ``/<vector>`` JointState, ``/action`` (position: the action; effort:
the requested action, or nothing) and ``/step`` (reward, flags, policy version), one message each
per step and all stamped alike, so that rosbag2 and Foxglove open a chunk as they find it.  The
log time is the stamp, moved on where stamps do not grow.  ``docs/wire.md`` describes the format.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from wm_core.contract.errors import ChunkRefused
from wm_core.contract.inputs import ImageSpec
from wm_core.contract.spec import Spec
from wm_core.contract.step import DEFAULTS, NUMBERS, Step, check_step
from wm_core.format import cdr
from wm_core.format.meta import MAX_FIRST_STEP as MAX_FIRST_STEP
from wm_core.format.meta import MAX_STEPS as MAX_STEPS
from wm_core.format.meta import METADATA as METADATA
from wm_core.format.meta import ChunkKey as ChunkKey
from wm_core.format.meta import ChunkMeta as ChunkMeta
from wm_core.format.meta import chunk_path as chunk_path
from wm_core.format.recording import Recording, read_recording, write_recording

STEPS_PER_BLOCK = 16  #: steps that are compressed together, the unit of a read from disk


def encode_chunk(steps: Sequence[Step], meta: ChunkMeta) -> bytes:
    """Encode ``steps`` as an MCAP file, without loss.

    Raises:
        ChunkRefused: where the number of steps is not ``meta.steps``.
        SpecMismatch: where a step does not fit ``meta.spec``.
    """
    return join_steps([encode_step(step, meta.spec) for step in steps], meta)


class EncodedStep(NamedTuple):
    """Holds the CDR messages of one step, one per topic, in the order of ``ChunkMeta.topics``."""

    stamp_ns: int
    messages: list[bytes]


def encode_step(step: Step, spec: Spec) -> EncodedStep:
    """Encode one step; raises ``SpecMismatch`` where a chunk of ``spec`` cannot hold it."""
    check_step(step, spec)
    return EncodedStep(step.stamp_ns, _step_messages(step, spec))


def join_steps(steps: Sequence[EncodedStep], meta: ChunkMeta) -> bytes:
    """Make the MCAP file of ``steps``, which follow each other; the same bytes each time.

    Raises:
        ChunkRefused: where the number of steps is not ``meta.steps``.
    """
    if len(steps) != meta.steps:
        raise ChunkRefused(f"meta says {meta.steps} steps, got {len(steps)}")
    if meta.first_step > MAX_FIRST_STEP:  # a copy of a meta is not validated
        raise ChunkRefused(f"a session has at most {MAX_FIRST_STEP} steps; begin a new one")
    timed, log_time = [], -1
    for stamp_ns, messages in steps:
        log_time = max(stamp_ns, log_time + 1)
        timed.append((log_time, messages))
    return write_recording(
        meta.topics,
        timed,
        metadata={METADATA: {"meta": meta.model_dump_json()}},
        steps_per_block=STEPS_PER_BLOCK,
    )


def _step_messages(step: Step, spec: Spec) -> list[bytes]:
    """Encode one message per topic, in the order of ``ChunkMeta.topics``."""
    stamp, action = step.stamp_ns, spec.action
    values = np.array([getattr(step, name) for name in NUMBERS], np.float64)
    return [
        *(cdr.encode_image(step.obs[k], s, stamp, k) for k, s in spec.images.items()),
        *(cdr.encode_joint_state(s.names, step.obs[k], stamp) for k, s in spec.vectors.items()),
        cdr.encode_joint_state(action.names, step.action, stamp, step.requested_action),
        cdr.encode_joint_state(tuple(NUMBERS), values, stamp),
    ]


@dataclass(frozen=True)
class Columns:
    """Holds the n steps of a chunk field by field, images by their place in the file.

    ``image_block`` and ``image_offset`` say for each camera in which block of ``blocks``, and
    where in it once unpacked, the pixels of each step begin.
    """

    meta: ChunkMeta
    recording: Recording
    stamp_ns: np.ndarray  #: (n,) int64
    action: np.ndarray  #: (n, A) float32
    requested_action: np.ndarray  #: (n, A) float32, NaN where none was recorded
    has_request: np.ndarray  #: (n,) bool, whether one was recorded
    numbers: dict[str, np.ndarray]  #: (n,) every one of ``contract.step.NUMBERS``
    vectors: dict[str, np.ndarray]  #: (n, size) float32
    image_block: dict[str, np.ndarray]  #: (n,) int32
    image_offset: dict[str, np.ndarray]  #: (n,) int64

    def image(self, key: str, index: int) -> np.ndarray:
        """View the image (H, W, C) of camera ``key`` at step ``index``, read-only."""
        image = self.meta.spec.images[key]
        block = self.recording.unpacked[self.image_block[key][index]]
        start, dtype = self.image_offset[key][index], image.dtype.newbyteorder("<")
        return np.frombuffer(block, dtype, math.prod(image.shape), start).reshape(image.shape)


def read_columns(data: bytes) -> Columns:
    """Read and check everything in a chunk; raises ``ChunkRefused`` where it does not fit."""
    recording = read_recording(data)
    entry = recording.metadata.get(METADATA, {}).get("meta")
    if entry is None:
        raise ChunkRefused(f"no {METADATA!r} metadata: an MCAP file, but not a chunk")
    meta = ChunkMeta.parse(entry)
    recording.unpack(max_bytes=meta.unpacked_bytes)
    if recording.types != {topic.name: topic.type for topic in meta.topics}:
        raise ChunkRefused(f"expected {meta.topics}, got {recording.types}")
    stamp_ns = _stamps(recording, meta)
    spec = meta.spec
    vectors = {
        k: _joints(recording, f"/{k}", stamp_ns, s.size)[0] for k, s in spec.vectors.items()
    }
    action, requested, has_request = _joints(recording, "/action", stamp_ns, spec.action.size)
    images = {k: _images(recording, f"/{k}", stamp_ns, s) for k, s in spec.images.items()}
    return Columns(
        meta=meta,
        recording=recording,
        stamp_ns=stamp_ns,
        action=_float32(action),
        requested_action=_float32(requested),
        has_request=has_request,
        numbers=_numbers(recording, stamp_ns),
        vectors={k: _float32(v) for k, v in vectors.items()},
        image_block={k: places[0].astype(np.int32) for k, places in images.items()},
        image_offset={k: places[1] for k, places in images.items()},
    )


def _numbers(recording: Recording, stamp_ns: np.ndarray) -> dict[str, np.ndarray]:
    """Read each of ``NUMBERS``, (n,); one that is newer than the recording has its default."""
    first = cdr.decode_joint_state(recording.view(recording.messages["/step"][0]))
    required = len(NUMBERS.keys() - DEFAULTS.keys())
    names = tuple(NUMBERS)[: max(required, len(first.names))]
    values, _, _ = _joints(recording, "/step", stamp_ns, len(names), names=names)
    columns = {
        name: np.full(len(stamp_ns), DEFAULTS[name], NUMBERS[name])
        for name in tuple(NUMBERS)[len(names) :]
    }
    for name, column in zip(names, values.T, strict=True):
        dtype = NUMBERS[name]
        if dtype.kind == "b" and not np.isin(column, (0.0, 1.0)).all():
            raise ChunkRefused(f"{name}: expected 0 or 1 in each step, got something else")
        whole = (np.abs(column) < 2**53) & (column == np.rint(column))
        if dtype.kind == "i" and not whole.all():
            raise ChunkRefused(f"{name}: expected a whole number in each step, got another")
        columns[name] = column.astype(dtype)
    return columns


def _float32(values: np.ndarray) -> np.ndarray:
    """Convert (...) to float32; what is too large becomes infinite, which training leaves out."""
    with np.errstate(over="ignore"):
        return values.astype(np.float32)


def _stamps(recording: Recording, meta: ChunkMeta) -> np.ndarray:
    """Read the stamps (n,) int64 ns; checks counts, order and that all topics agree."""
    times = None
    for topic, messages in recording.messages.items():
        if len(messages) != meta.steps:
            raise ChunkRefused(
                f"meta says {meta.steps} steps, {topic} has {len(messages)} messages"
            )
        log_times = [message.log_time for message in messages]
        if times is not None and log_times != times:
            raise ChunkRefused(f"{topic} is not logged at the same times as the other topics")
        times = log_times
    if times is None or any(b <= a for a, b in pairwise(times)):
        raise ChunkRefused("log times do not grow from step to step")
    views = map(recording.view, recording.messages["/step"])
    return np.array([cdr.decode_stamp(view) for view in views], np.int64)


def _joints(
    recording: Recording,
    topic: str,
    stamp_ns: np.ndarray,
    size: int,
    names: tuple[str, ...] | None = None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Read positions (n, size), efforts (n, size) or NaN, and if there was an effort (n,)."""
    position = np.empty((len(stamp_ns), size))
    effort = np.full((len(stamp_ns), size), np.nan)
    has_effort = np.zeros(len(stamp_ns), bool)
    for i, message in enumerate(recording.messages[topic]):
        joint = cdr.decode_joint_state(recording.view(message))
        if joint.stamp_ns != stamp_ns[i] or len(joint.position) != size:
            raise ChunkRefused(
                f"{topic} step {i}: expected {size} values at {stamp_ns[i]} ns, "
                f"got {len(joint.position)} at {joint.stamp_ns} ns"
            )
        if names is not None and joint.names != names:
            raise ChunkRefused(f"{topic} step {i}: expected the names {names}, got {joint.names}")
        position[i] = joint.position
        if len(joint.effort):
            if len(joint.effort) != size:
                raise ChunkRefused(f"{topic} step {i}: {len(joint.effort)} efforts, not {size}")
            effort[i], has_effort[i] = joint.effort, True
    return position, effort, has_effort


def _images(
    recording: Recording, topic: str, stamp_ns: np.ndarray, image: ImageSpec
) -> np.ndarray:
    """Find, (2, n) int64, the block of each step's pixels and their offset in it."""
    places = np.empty((2, len(stamp_ns)), np.int64)
    for i, message in enumerate(recording.messages[topic]):
        found = cdr.decode_image(recording.view(message), image)
        if found.stamp_ns != stamp_ns[i]:
            raise ChunkRefused(
                f"{topic} step {i}: expected the stamp {stamp_ns[i]} ns, got {found.stamp_ns} ns"
            )
        places[:, i] = message.block, message.offset + found.offset
    return places


def decode_chunk(data: bytes) -> tuple[ChunkMeta, list[Step]]:
    """Decode the meta and the steps of a chunk; the arrays own their memory.

    Raises:
        ChunkRefused: for anything truncated, of another version, inconsistent or too large.
    """
    c = read_columns(data)
    spec = c.meta.spec
    steps = [
        Step(
            obs={k: c.image(k, i).copy() for k in spec.images}
            | {k: v[i].copy() for k, v in c.vectors.items()},
            action=c.action[i].copy(),
            requested_action=c.requested_action[i].copy() if c.has_request[i] else None,
            stamp_ns=int(c.stamp_ns[i]),
            **{name: column[i].item() for name, column in c.numbers.items()},
        )
        for i in range(c.meta.steps)
    ]
    return c.meta, steps


def check_chunk(data: bytes, key: ChunkKey | None, *, max_bytes: int) -> Columns:
    """Read every message of a chunk that may come from anywhere.

    Args:
        data: the file's bytes.
        key: what the chunk was announced as; ``None`` takes what it says itself.
        max_bytes: a larger file is refused unread.

    Raises:
        ChunkRefused: with what was expected and what came.
    """
    if len(data) > max_bytes:
        raise ChunkRefused(f"chunk of {len(data)} bytes; at most {max_bytes} are taken")
    columns = read_columns(data)
    if key is not None and columns.meta.key != key:
        raise ChunkRefused(f"announced as {tuple(key)}, but it says {tuple(columns.meta.key)}")
    return columns
