"""Reads a chunk field by field: every message of it, at once where messages are alike.

A chunk of one layout, which is what robots send, is read by comparing the bytes that must not
differ and viewing those that may.  What is not alike is read message by message, by the same
decoder that judges the first of each: both ways give the same verdict and the same columns.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from wm_core.contract.errors import ChunkRefused
from wm_core.contract.inputs import ImageSpec
from wm_core.contract.step import DEFAULTS, NUMBERS, WHOLE_LIMIT
from wm_core.format import cdr, pictures
from wm_core.format.meta import METADATA, ChunkMeta, image_topic
from wm_core.format.recording import Messages, Recording, read_recording
from wm_core.format.summary import check_summary

_MAX_SIZES = 8  #: layouts of a topic's messages that are looked at as groups


@dataclass(frozen=True)
class Columns:
    """Holds the n steps of a chunk field by field, images by their place in the file.

    ``image_block`` and ``image_offset`` say for each camera in which block of ``blocks``, and
    where in it once unpacked, the pixels of each step begin, or its JPEG picture where the camera
    is one of ``meta.codecs``; ``vector_block`` and
    ``vector_offset`` say the same of the numbers of each vector, which stand there as float64.
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
    vector_block: dict[str, np.ndarray]  #: (n,) int32
    vector_offset: dict[str, np.ndarray]  #: (n,) int64

    def image(self, key: str, index: int) -> np.ndarray:
        """View or decode the image (H, W, C) of camera ``key`` at step ``index``, read-only.

        Raises:
            ChunkRefused: naming the step, for a JPEG picture that does not decode.
        """
        image = self.meta.spec.images[key]
        if key in self.meta.codecs:
            try:
                return pictures.decode_picture(self._jpeg(key, index), image)
            except ChunkRefused as error:
                raise ChunkRefused(f"/{key} step {index}: {error}") from None
        start = int(self.recording.starts[self.image_block[key][index]])
        start += int(self.image_offset[key][index])
        dtype, unpacked = image.dtype.newbyteorder("<"), self.recording.unpacked.toreadonly()
        return np.frombuffer(unpacked, dtype, math.prod(image.shape), start).reshape(image.shape)

    def check_pictures(self) -> None:
        """Decode each JPEG picture; raises ``ChunkRefused``, naming its step, for one that fails.

        What is read of a chunk without it was held to the pictures' headers alone.
        """
        for key in self.meta.codecs:
            for index in range(self.meta.steps):
                self.image(key, index)

    def jpeg(self, key: str, index: int) -> bytes:
        """Copy the JPEG picture of camera ``key``, one of ``meta.codecs``, at step ``index``."""
        return bytes(self._jpeg(key, index))

    def _jpeg(self, key: str, index: int) -> memoryview:
        start = int(self.recording.starts[self.image_block[key][index]])
        start += int(self.image_offset[key][index])
        return cdr.jpeg_at(self.recording.unpacked, start)


def read_columns(data: bytes, *, bulk: bool = True) -> Columns:
    """Read and check everything in a chunk; raises ``ChunkRefused`` where it does not fit.

    Args:
        data: the file's bytes.
        bulk: look at messages that are alike at once; False reads one after another, slowly.
    """
    recording = read_recording(data)
    entry = recording.metadata.get(METADATA, {}).get("meta")
    if entry is None:
        raise ChunkRefused(f"no {METADATA!r} metadata: an MCAP file, but not a chunk")
    meta = ChunkMeta.parse(entry)
    recording.unpack(meta.topics, meta.steps, max_bytes=meta.unpacked_bytes, bulk=bulk)
    _check_times(recording, meta)
    check_summary(recording)
    return _Reader(recording, meta, bulk).columns()


def _check_times(recording: Recording, meta: ChunkMeta) -> None:
    """Check that all topics have one message per step, at log times that grow."""
    times: np.ndarray | None = None
    for topic, messages in recording.messages.items():
        own = messages.log_time
        if len(own) != meta.steps:
            raise ChunkRefused(f"meta says {meta.steps} steps, {topic} has {len(own)} messages")
        if times is not None and not np.array_equal(own, times):
            raise ChunkRefused(f"{topic} is not logged at the same times as the other topics")
        times = own
    if times is None or (times[1:] <= times[:-1]).any():
        raise ChunkRefused("log times do not grow from step to step")


class _Joints:
    """Holds JointState messages of one topic: (n,) stamps, (n, size) positions and efforts.

    Args:
        count: of messages.
        size: of each array of numbers in them.
        names: that each message has to have.
        efforts: whether a message may have efforts too.
    """

    def __init__(self, count: int, size: int, names: tuple[str, ...], efforts: bool) -> None:
        self.stamp_ns = np.empty(count, np.int64)
        self.position = np.empty((count, size))
        self.effort = np.full((count if efforts else 0, size), np.nan)
        self.has_effort = np.zeros(count, bool)
        self.offset = np.zeros(count, np.int64)  # of the positions within each message
        self.size, self.names = size, names
        self.effort_sizes = (0, size) if efforts else (0,)


class _Reader:
    """Decodes the messages of an unpacked recording.

    Args:
        recording: its topics are those of ``meta``, each with ``meta.steps`` messages.
        meta: of the chunk.
        bulk: see ``read_columns``.
    """

    def __init__(self, recording: Recording, meta: ChunkMeta, bulk: bool) -> None:
        self._recording, self._meta, self._bulk = recording, meta, bulk
        self._stamp_ns = np.empty(0, np.int64)
        self._raw_stamps: np.ndarray | None = None  # (n,) of /step as they stand, where known

    def columns(self) -> Columns:
        meta, spec = self._meta, self._meta.spec
        numbers = self._numbers()  # first: its stamps are those that the others must have
        vectors = {k: self._joints(f"/{k}", s.size, s.names) for k, s in spec.vectors.items()}
        choice = spec.action
        action = self._joints("/action", choice.size, choice.names, efforts=True)
        begins = {k: self._images(k, s) for k, s in spec.images.items()}
        for k, vector in vectors.items():
            begins[k] = self._recording.messages[f"/{k}"].offset + vector.offset
        places = {k: self._recording.block_of(begin) for k, begin in begins.items()}
        blocks = {k: block.astype(np.int32) for k, (block, _) in places.items()}
        return Columns(
            meta=meta,
            recording=self._recording,
            stamp_ns=self._stamp_ns,
            action=_float32(action.position),
            requested_action=_float32(action.effort),
            has_request=action.has_effort,
            numbers=numbers,
            vectors={k: _float32(v.position) for k, v in vectors.items()},
            image_block={k: blocks[k] for k in spec.images},
            image_offset={k: places[k][1] for k in spec.images},
            vector_block={k: blocks[k] for k in vectors},
            vector_offset={k: places[k][1] for k in vectors},
        )

    def _numbers(self) -> dict[str, np.ndarray]:
        """Read each of ``NUMBERS``, (n,); one newer than the recording has its default."""
        messages, names = self._recording.messages["/step"], tuple(NUMBERS)
        if messages.size[0] != len(cdr.joint_layout(names, len(names), False).bytes):
            first = cdr.decode_joint_state(self._recording.view(messages, 0))
            required = len(NUMBERS.keys() - DEFAULTS.keys())
            names = names[: max(required, len(first.names))]
        found = self._joints("/step", len(names), names)
        columns = {
            name: np.full(self._meta.steps, DEFAULTS[name], NUMBERS[name])
            for name in tuple(NUMBERS)[len(names) :]
        }
        return columns | _numbers(names, found.position)

    def _joints(
        self, topic: str, size: int, names: tuple[str, ...], *, efforts: bool = False
    ) -> _Joints:
        """Read the JointStates of a topic, stamped as ``/step`` is; see ``_Joints``."""
        messages = self._recording.messages[topic]
        out = _Joints(self._meta.steps, size, names, efforts)
        for which in self._alike(messages):
            if not (self._bulk and self._joints_alike(messages, which, out)):
                for i in which.tolist():
                    self._joint(topic, i, messages, out)
        if topic == "/step":
            self._stamp_ns = out.stamp_ns
        self._check_stamps(topic, out.stamp_ns)
        return out

    def _joint(self, topic: str, i: int, messages: Messages, out: _Joints) -> None:
        """Read the message of step ``i`` into ``out``."""
        joint = cdr.decode_joint_state(self._recording.view(messages, i))
        if len(joint.position) != out.size or len(joint.effort) not in out.effort_sizes:
            raise ChunkRefused(
                f"{topic} step {i}: expected {out.size} values and {out.effort_sizes} efforts, "
                f"got {len(joint.position)} and {len(joint.effort)}"
            )
        if joint.names != out.names:
            raise ChunkRefused(
                f"{topic} step {i}: expected the names {out.names}, got {joint.names}"
            )
        out.stamp_ns[i], out.position[i] = joint.stamp_ns, joint.position
        out.offset[i] = joint.position_at
        if len(joint.effort):
            out.effort[i], out.has_effort[i] = joint.effort, True

    def _joints_alike(self, messages: Messages, which: np.ndarray, out: _Joints) -> bool:
        """Read the steps ``which`` (k,) into ``out``; False where they are not all alike."""
        size = int(messages.size[which[0]])
        for effort_size in out.effort_sizes:
            layout = cdr.joint_layout(out.names, out.size, effort_size > 0)
            if len(layout.bytes) == size:
                break
        else:
            return False
        rows = self._rows(messages, which, size)
        if not layout.fits(rows) or not self._take_stamps(rows, which, out.stamp_ns):
            return False
        position, effort = layout.values
        out.offset[which] = position.start
        out.position[which] = np.ascontiguousarray(rows[:, position]).view("<f8")
        if effort_size:
            out.effort[which] = np.ascontiguousarray(rows[:, effort]).view("<f8")
            out.has_effort[which] = True
        return True

    def _take_stamps(self, rows: np.ndarray, which: np.ndarray, stamp_ns: np.ndarray) -> bool:
        """Write the stamps of ``rows`` (k, bytes) to ``stamp_ns``; False where one is wrong."""
        if self._raw_stamps is not None:
            stamp_ns[which] = self._stamp_ns[which]
            return bool((cdr.raw_stamps(rows) == self._raw_stamps[which]).all())
        stamps = cdr.stamps_of(rows)
        if stamps is None:
            return False
        stamp_ns[which] = stamps
        if not len(self._stamp_ns) and len(which) == len(stamp_ns):  # /step, which comes first
            self._raw_stamps, self._stamp_ns = cdr.raw_stamps(rows), stamp_ns
        return True

    def _images(self, key: str, image: ImageSpec) -> np.ndarray:
        """Find (n,) int64 where the pixels of each step begin in all that was unpacked."""
        topic = image_topic(key, self._meta.codecs).name
        messages = self._recording.messages[topic]
        stamp_ns, offset = np.empty(self._meta.steps, np.int64), np.empty_like(messages.offset)
        if key in self._meta.codecs:
            for i in range(len(stamp_ns)):
                stamp_ns[i], offset[i] = self._picture(topic, i, messages, image)
            self._check_stamps(topic, stamp_ns)
            return messages.offset + offset
        layout = cdr.image_layout(image, key)
        size = len(layout.bytes) + image.recorded_bytes
        for which in self._alike(messages):
            if self._bulk and messages.size[which[0]] == size:
                rows = self._rows(messages, which, len(layout.bytes))
                if layout.fits(rows) and self._take_stamps(rows, which, stamp_ns):
                    offset[which] = len(layout.bytes)
                    continue
            for i in which.tolist():
                found = cdr.decode_image(self._recording.view(messages, i), image)
                stamp_ns[i], offset[i] = found.stamp_ns, found.offset
        self._check_stamps(topic, stamp_ns)
        return messages.offset + offset

    def _picture(
        self, topic: str, i: int, messages: Messages, image: ImageSpec
    ) -> cdr.ImageMessage:
        """Find the JPEG picture of step ``i``, whose header has to fit ``image``."""
        view = self._recording.view(messages, i)
        found = cdr.decode_jpeg(view)
        try:
            pictures.check_picture(cdr.jpeg_at(view, found.offset), image)
        except ChunkRefused as error:
            raise ChunkRefused(f"{topic} step {i}: {error}") from None
        return found

    def _alike(self, messages: Messages) -> list[np.ndarray]:
        """Group steps (k,) whose messages have one size, which may be of one layout."""
        sizes = messages.size
        if (sizes == sizes[0]).all():
            return [np.arange(len(sizes))]
        different = np.unique(sizes)
        if len(different) > _MAX_SIZES or not self._bulk:
            return [np.array([i]) for i in range(len(sizes))]
        return [np.flatnonzero(sizes == size) for size in different]

    def _rows(self, messages: Messages, which: np.ndarray, size: int) -> np.ndarray:
        """View or copy the first ``size`` bytes of each of the messages ``which``, (k, size)."""
        offsets = messages.offset[which]
        strides = offsets[1:] - offsets[:-1]
        start, unpacked = int(offsets[0]), self._recording.unpacked
        if len(strides) and (strides != strides[0]).any():
            table = np.empty((len(which), size), np.uint8)
            for row, offset in zip(table, offsets.tolist(), strict=True):
                row[:] = unpacked[offset : offset + size]
            return table
        stride = int(strides[0]) if len(strides) else size
        return np.ndarray((len(which), size), np.uint8, unpacked, start, (stride, 1))

    def _check_stamps(self, topic: str, stamp_ns: np.ndarray) -> None:
        """Check that the messages of each step are stamped alike."""
        other = np.flatnonzero(stamp_ns != self._stamp_ns)
        if len(other):
            i = int(other[0])
            raise ChunkRefused(
                f"{topic} step {i}: expected the stamp {self._stamp_ns[i]} ns, "
                f"got {stamp_ns[i]} ns"
            )


def _numbers(names: tuple[str, ...], table: np.ndarray) -> dict[str, np.ndarray]:
    """Convert the columns (n, names) float64 of ``/step`` to their kinds, or refuse them."""
    flags = [i for i, name in enumerate(names) if NUMBERS[name].kind == "b"]
    wholes = [i for i, name in enumerate(names) if NUMBERS[name].kind == "i"]
    values = table[:, flags]
    wrong = ~((values == 0.0) | (values == 1.0)).all(0)
    if wrong.any():
        name = names[flags[int(wrong.argmax())]]
        raise ChunkRefused(f"{name}: expected 0 or 1 in each step, got something else")
    values = table[:, wholes]
    wrong = ~((np.abs(values) < WHOLE_LIMIT) & (values == np.rint(values))).all(0)
    if wrong.any():
        name = names[wholes[int(wrong.argmax())]]
        raise ChunkRefused(f"{name}: expected a whole number in each step, got another")
    return {name: table[:, i].astype(NUMBERS[name]) for i, name in enumerate(names)}


def _float32(values: np.ndarray) -> np.ndarray:
    """Convert (...) to float32; what is too large becomes infinite, which training leaves out."""
    with np.errstate(over="ignore"):
        return values.astype(np.float32)
