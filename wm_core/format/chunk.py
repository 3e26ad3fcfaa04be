"""Encodes a run of Steps as one MCAP file, which the robot spools and the store keeps.

Topics: ``/<image>`` Image or ``/<image>/compressed`` CompressedImage, ``/<vector>`` JointState,
``/action`` (position: the action; effort: the requested action, or nothing) and ``/step`` (reward,
flags, policy version), one message each per step and all stamped alike, so that rosbag2 and
Foxglove open a chunk as they find it.  The log time is the stamp, moved on where stamps do not
grow.  ``docs/wire.md`` describes the format.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from wm_core.contract.errors import ChunkRefused
from wm_core.contract.spec import ImageSpec, Spec
from wm_core.contract.step import NUMBERS, Step, check_step
from wm_core.format import cdr, pictures
from wm_core.format.columns import Columns as Columns
from wm_core.format.columns import read_columns as read_columns
from wm_core.format.meta import MAX_FIRST_STEP as MAX_FIRST_STEP
from wm_core.format.meta import MAX_STEPS as MAX_STEPS
from wm_core.format.meta import METADATA as METADATA
from wm_core.format.meta import ChunkKey as ChunkKey
from wm_core.format.meta import ChunkMeta as ChunkMeta
from wm_core.format.meta import chunk_path as chunk_path
from wm_core.format.recording import write_recording

STEPS_PER_BLOCK = 16  #: steps that are compressed together, the unit of a read from disk


def encode_chunk(steps: Sequence[Step], meta: ChunkMeta) -> bytes:
    """Encode ``steps`` as an MCAP file, without loss but for the cameras of ``meta.codecs``.

    Raises:
        ChunkRefused: where the number of steps is not ``meta.steps``.
        SpecMismatch: where a step does not fit ``meta.spec``.
    """
    return join_steps([encode_step(step, meta.spec, meta.codecs) for step in steps], meta)


class EncodedStep(NamedTuple):
    """Holds the CDR messages of one step, one per topic, in the order of ``ChunkMeta.topics``."""

    stamp_ns: int
    messages: list[bytes]


def encode_step(step: Step, spec: Spec, codecs: pictures.Codecs | None = None) -> EncodedStep:
    """Encode one step.

    Args:
        step: images that have a JPEG picture already, in ``step.jpegs``, keep it.
        spec: of the step.
        codecs: the cameras whose images become JPEG pictures; the others are lossless.

    Raises:
        SpecMismatch: where a chunk of ``spec`` cannot hold it.
        ChunkRefused: for a picture in ``step.jpegs`` that does not fit.
    """
    check_step(step, spec)
    return EncodedStep(step.stamp_ns, _step_messages(step, spec, codecs or {}))


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


def _step_messages(step: Step, spec: Spec, codecs: pictures.Codecs) -> list[bytes]:
    """Encode one message per topic, in the order of ``ChunkMeta.topics``."""
    stamp, action = step.stamp_ns, spec.action
    values = np.array([getattr(step, name) for name in NUMBERS], np.float64)
    return [
        *(_image_message(step, k, s, k in codecs) for k, s in spec.images.items()),
        *(cdr.encode_joint_state(s.names, step.obs[k], stamp) for k, s in spec.vectors.items()),
        cdr.encode_joint_state(action.names, step.action, stamp, step.requested_action),
        cdr.encode_joint_state(tuple(NUMBERS), values, stamp),
    ]


def _image_message(step: Step, key: str, image: ImageSpec, as_jpeg: bool) -> bytes:
    if not as_jpeg:
        return cdr.encode_image(step.obs[key], image, step.stamp_ns, key)
    picture = (step.jpegs or {}).get(key)
    if picture is None:
        picture = pictures.encode_picture(step.obs[key], image)
    else:
        pictures.check_picture(picture, image)
    return cdr.encode_jpeg(picture, step.stamp_ns, key)


def codecs_of(step: Step) -> dict[str, pictures.Codec]:
    """Give the codecs with which a recording keeps the pictures that ``step`` brings."""
    return dict.fromkeys(step.jpegs or (), "jpeg")


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
            jpegs={k: c.jpeg(k, i) for k in c.meta.codecs} or None,
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
