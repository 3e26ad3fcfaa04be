"""Reads back what ``wm data export`` wrote as rosbag2 or MCAP, to the bit.

All messages of a step have one log time, and the file says of itself which steps of a session each
episode is.  The messages are those of a chunk, so a chunk's own reader makes the Steps.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml
from mcap.reader import make_reader

from wm_core.contract.errors import ChunkRefused, RecordingError, WmError
from wm_core.contract.spec import Spec
from wm_core.contract.step import Step
from wm_core.format.chunk import METADATA as CHUNK
from wm_core.format.chunk import ChunkMeta, EncodedStep, decode_chunk, join_steps
from wm_core.format.meta import image_topic
from wm_core.format.pictures import Codec, Codecs
from wm_core.recordings.bag_damage import examine_bag
from wm_core.recordings.options import ReadOptions

ABOUT, ENTRY, VERSION = "wm_ros", "meta", 1  #: metadata record of such files, and its entry
_AT_ONCE = 16  # steps that are decoded together
_TAKEN = ("name", "task")  # of the options


def recognise(path: Path) -> bool:
    """Tell whether ``path`` is a bag that this project wrote, or one of its chunks."""
    return bool(_said(path) or _records(path).get(CHUNK))


def open_source(path: Path, options: ReadOptions) -> OwnBag:
    """Open such a bag; raises ``RecordingError`` for damage, and for a chunk of experience."""
    if not _said(path):
        raise RecordingError(
            f"{path} is a chunk of experience, not a recording of another system: wm store import "
            f"--root RUN --from {path.parent} takes in the chunks of a folder"
        )
    return OwnBag(path, options)


def _storage(path: Path) -> list[Path]:
    return [path] if path.is_file() else sorted(path.glob("*.mcap"))


def _said(path: Path) -> str:
    """Give what a bag says of itself, JSON; empty where it says nothing."""
    try:
        if path.is_dir():
            found = yaml.safe_load((path / "metadata.yaml").read_text())
            custom = found["rosbag2_bagfile_information"].get("custom_data") or {}
            return str(custom.get(ABOUT, "")) if _storage(path) else ""
    except (OSError, UnicodeDecodeError, yaml.YAMLError, LookupError, TypeError, AttributeError):
        return ""
    return str(_records(path).get(ABOUT, {}).get(ENTRY, ""))


def _records(path: Path) -> dict[str, dict[str, str]]:
    """List the metadata records of an MCAP file by name; none of what is no such file."""
    if path.suffix != ".mcap" or not path.is_file():
        return {}
    try:
        with path.open("rb") as stream:
            return {found.name: found.metadata for found in make_reader(stream).iter_metadata()}
    except Exception:  # its reader raises whatever it stumbles over; another one says what
        return {}


class OwnBag:
    """Is one bag of this project's own as a source of episodes."""

    as_stored = True  #: stamps and flags are those of the store that it came from

    def __init__(self, path: Path, options: ReadOptions) -> None:
        options.check_taken(_TAKEN, path, "is read back as it was stored")
        self._path = path
        examined = examine_bag(path)
        try:
            said: dict[str, Any] = json.loads(_said(path))
            if said["version"] != VERSION:
                raise ValueError(f"version {said['version']!r}, expected {VERSION}")
            self._spec = Spec.model_validate(said["spec"])
            self._lengths = [int(count) for _, count in said.get("episodes", ())]
            self.name = options.name or str(said["robot"])
            self.task = options.task or str(said["task"])
        except (ValueError, LookupError, TypeError, WmError) as error:
            text = " ".join(str(error).split())
            raise RecordingError(
                f"{path}: what the bag says of itself is wrong: {text}"
            ) from error
        self.left_out: Counter[str] = Counter()
        self._read = 0  # steps, so far
        told = "\n".join((examined, self.name, self.task))
        self._fingerprint = hashlib.sha256(told.encode()).hexdigest()

    @property
    def spec(self) -> Spec:
        return self._spec

    @property
    def fingerprint(self) -> str:
        return self._fingerprint

    def episodes(self) -> Iterator[Iterable[Step]]:
        """Yield the episodes as they were stored; one without its begin or end gets flags."""
        steps = _bordered(self._steps(), self._lengths)
        for first in steps:
            yield _episode(first, steps)
        taken = sum(self._lengths)
        if self._read < taken:
            raise RecordingError(f"{self._path}: expected {taken} steps, got {self._read}")

    def _steps(self) -> Iterator[Step]:
        self._read = 0
        plain = ChunkMeta(
            robot="any", session="0" * 32, seq=0, spec=self._spec, first_step=0, steps=1
        )
        encoded: list[EncodedStep] = []
        meta = plain
        pictures = {k: image_topic(k, {k: "jpeg"}).name for k in self._spec.images}
        for log_ns, said in self._moments():
            codecs: dict[str, Codec] = {
                k: "jpeg" for k, topic in pictures.items() if topic in said
            }
            if len(encoded) == _AT_ONCE or (encoded and codecs != meta.codecs):
                self._read += len(encoded)
                yield from _decoded(encoded, meta)
                encoded = []
            if codecs != meta.codecs:
                meta = self._with_codecs(plain, codecs)
            lacks = [topic.name for topic in meta.topics if topic.name not in said]
            if lacks:
                raise RecordingError(f"{self._path}: at {log_ns} ns there is nothing on {lacks}")
            encoded.append(EncodedStep(log_ns, [said[topic.name] for topic in meta.topics]))
        self._read += len(encoded)
        yield from _decoded(encoded, meta)

    def _with_codecs(self, meta: ChunkMeta, codecs: Codecs) -> ChunkMeta:
        try:
            return meta.with_codecs(codecs)
        except ChunkRefused as error:
            raise RecordingError(f"{self._path}: {error}") from error

    def _moments(self) -> Iterator[tuple[int, dict[str, bytes]]]:
        """Yield (log time, message by topic) of each step."""
        open_ns: int | None = None
        said: dict[str, bytes] = {}
        for path in _storage(self._path):
            with path.open("rb") as stream:
                for _, channel, message in make_reader(stream).iter_messages():
                    if open_ns is not None and message.log_time != open_ns:
                        yield open_ns, said
                        said = {}
                    open_ns = message.log_time
                    said[channel.topic] = message.data
        if open_ns is not None:
            yield open_ns, said


def _decoded(encoded: list[EncodedStep], meta: ChunkMeta) -> list[Step]:
    if not encoded:
        return []
    counted = meta.model_copy(update={"steps": len(encoded)})
    return decode_chunk(join_steps(encoded, counted))[1]


def _bordered(steps: Iterator[Step], lengths: list[int]) -> Iterator[Step]:
    """Set the flags where an episode begins or ends without one; one step is held back.

    Args:
        steps: of the whole session.
        lengths: steps of each episode, one after the other.
    """
    ends = set(itertools.accumulate(lengths))
    before: Step | None = None
    for i, step in enumerate(steps):
        begins = before is None or step.is_first or before.is_last or i in ends
        if before is not None:
            yield replace(before, is_last=True) if begins else before
        before = replace(step, is_first=True) if begins else step
    if before is not None:
        yield replace(before, is_last=True)


def _episode(step: Step, more: Iterator[Step]) -> Iterator[Step]:
    yield step
    while not step.is_last:
        step = next(more)
        yield step
