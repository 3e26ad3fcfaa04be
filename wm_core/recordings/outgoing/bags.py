"""Writes each session as a rosbag2 or as an MCAP file, with the messages of the store's chunks.

Images are ``sensor_msgs/msg/Image``, or ``CompressedImage`` with the bytes that were stored;
vectors, actions and the numbers of a step are ``sensor_msgs/msg/JointState``; ``docs/wire.md`` has
the topics.  All messages of a step have one log time, which grows from step to step.  The file
says of itself, as JSON, what no message says:
robot, session, task, spec, and which steps of the session each episode is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import yaml
from mcap.writer import CompressionType
from mcap.writer import Writer as McapFileWriter

from wm_core.contract.errors import RecordingError
from wm_core.contract.files import json_text
from wm_core.contract.spec import Spec
from wm_core.contract.step import Step
from wm_core.format.cdr import COMPRESSED_IMAGE, DEFINITIONS, IMAGE, JOINT_STATE
from wm_core.format.chunk import ChunkMeta, codecs_of, encode_chunk, encode_step
from wm_core.format.pictures import Codecs
from wm_core.format.recording import MESSAGE_ENCODING, PROFILE, SCHEMA_ENCODING, Topic
from wm_core.recordings.outgoing.episodes import ChosenEpisode
from wm_core.recordings.outgoing.format import NAME, VERSION

_BLOCK_BYTES = 1 << 20  # that are compressed together
_BAG_VERSION = 8  # of metadata.yaml; ROS 2 Humble and later read it
#: type -> hash of its definition (REP 2011), by which ROS 2 knows it
TYPE_HASHES = {
    IMAGE: "RIHS01_d31d41a9a4c4bc8eae9be757b0beed306564f7526c88ea6a4588fb9582527d47",
    COMPRESSED_IMAGE: "RIHS01_15640771531571185e2efc8a100baf923961a4d15d5569652e6cb6691e8e371a",
    JOINT_STATE: "RIHS01_a13ee3a330e346c9d87b5aa18d24e11690752bd33a0350f11c5882bc9179260e",
}


def writer(name: str, folder: Path, spec: Spec, *, video: bool) -> BagWriter:
    """Open a writer of ``rosbag2`` or ``mcap``; see ``format.open_writer``."""
    if video:
        raise RecordingError(f"{name} holds images as messages, no video; leave --video away")
    if name == "rosbag2":
        return BagWriter(lambda stem: _Rosbag2(folder / stem))
    return BagWriter(lambda stem: _Mcap(folder / f"{stem}.mcap"))


class _Bag(Protocol):
    """Is one file, or folder, that messages are written to."""

    def write(self, log_time: int, topics: Sequence[Topic], messages: Sequence[bytes]) -> None: ...

    def finish(self, about: str) -> None: ...

    def abandon(self) -> None: ...


class BagWriter:
    """Writes episodes to bags named ``<robot>-<session>``, one open at a time.

    Args:
        open_bag: opens the bag of a name.
    """

    def __init__(self, open_bag: Callable[[str], _Bag]) -> None:
        self._open_bag = open_bag
        self._bag: _Bag | None = None
        self._stems: dict[str, int] = {}  # how many bags of a session there are
        self._about: dict[str, Any] = {}
        self._log_time = -1

    def add(self, episode: ChosenEpisode, on_step: Callable[[], object]) -> None:
        """Write one episode behind those of the same session."""
        about = {
            "version": VERSION,
            "robot": episode.robot,
            "session": episode.session,
            "task": episode.task,
            "spec": episode.spec.model_dump(mode="json"),
        }
        if self._bag is None or about != {k: v for k, v in self._about.items() if k in about}:
            self._finish()
            self._begin(episode, about)
        count = 0
        codecs: Codecs = {}
        topics = _meta(episode.spec, 1, codecs).topics
        for step in episode.steps:
            if (found := codecs_of(step)) != codecs:  # chosen while the robot ran
                codecs, topics = found, _meta(episode.spec, 1, found).topics
            stamp_ns, messages = encode_step(step, episode.spec, codecs)
            self._log_time = max(stamp_ns, self._log_time + 1)
            self._bag.write(self._log_time, topics, messages)  # type: ignore[union-attr]
            count += 1
            on_step()
        self._about["episodes"].append([episode.first_step, count])

    def close(self) -> None:
        """Finish the last bag."""
        self._finish()

    def abandon(self) -> None:
        """Close the file that is open as it is."""
        if self._bag is not None:
            bag, self._bag = self._bag, None
            bag.abandon()

    def estimate(self, steps: Sequence[Step], spec: Spec) -> int:
        """Guess how many bytes ``steps`` take: those of a chunk of them."""
        codecs = codecs_of(steps[-1])
        return len(encode_chunk(steps, _meta(spec, len(steps), codecs)))

    def _begin(self, episode: ChosenEpisode, about: dict[str, Any]) -> None:
        stem = f"{episode.robot}-{episode.session}"
        number = self._stems.get(stem, 0)
        self._stems[stem] = number + 1
        if number:  # of another task or spec
            stem += f"-{number + 1}"
        self._bag = self._open_bag(stem)
        self._about, self._log_time = {**about, "episodes": []}, -1

    def _finish(self) -> None:
        if self._bag is not None:
            bag, self._bag = self._bag, None
            try:
                bag.finish(json_text(self._about))
            except BaseException:
                bag.abandon()
                raise


def _meta(spec: Spec, steps: int, codecs: Codecs) -> ChunkMeta:
    """Describe a chunk that is never stored: it knows the topics of a spec."""
    any_key = {"robot": "any", "session": "0" * 32, "seq": 0}
    return ChunkMeta(**any_key, spec=spec, first_step=0, steps=steps).with_codecs(codecs)


class _Mcap:
    """Writes one MCAP file; a topic is introduced before the first step that has it."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("xb")
        self._writer = McapFileWriter(
            self._file,
            chunk_size=_BLOCK_BYTES,
            compression=CompressionType.ZSTD,
            enable_data_crcs=True,
        )
        self._writer.start(profile=PROFILE, library="wm_core")
        self._schemas: dict[str, int] = {}
        self._channels: dict[Topic, int] = {}
        self.counts: dict[Topic, int] = {}  #: of messages

    def write(self, log_time: int, topics: Sequence[Topic], messages: Sequence[bytes]) -> None:
        new = [topic for topic in topics if topic not in self._channels]
        for kind in dict.fromkeys(t.type for t in new if t.type not in self._schemas):
            definition = DEFINITIONS[kind].encode()
            self._schemas[kind] = self._writer.register_schema(kind, SCHEMA_ENCODING, definition)
        for topic in new:
            self._channels[topic] = self._writer.register_channel(
                topic.name, MESSAGE_ENCODING, self._schemas[topic.type]
            )
            self.counts[topic] = 0
        for topic, message in zip(topics, messages, strict=True):
            channel, count = self._channels[topic], self.counts[topic]
            self._writer.add_message(channel, log_time, message, log_time, sequence=count)
            self.counts[topic] = count + 1

    def finish(self, about: str) -> None:
        self._writer.add_metadata(NAME, {"meta": about})
        self._writer.finish()
        self._file.close()

    def abandon(self) -> None:
        self._file.close()


class _Rosbag2:
    """Writes ``<name>/<name>_0.mcap`` and the ``metadata.yaml`` by which ``ros2 bag`` finds it."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self._path = folder / f"{folder.name}_0.mcap"
        self._mcap = _Mcap(self._path)
        self._begin_ns, self._end_ns = -1, -1

    def write(self, log_time: int, topics: Sequence[Topic], messages: Sequence[bytes]) -> None:
        self._mcap.write(log_time, topics, messages)
        self._begin_ns = log_time if self._begin_ns < 0 else self._begin_ns
        self._end_ns = log_time

    def finish(self, about: str) -> None:
        self._mcap.finish(about)
        times = {
            "starting_time": {"nanoseconds_since_epoch": max(self._begin_ns, 0)},
            "duration": {"nanoseconds": self._end_ns - self._begin_ns},
            "message_count": sum(self._mcap.counts.values()),
        }
        information = {
            "version": _BAG_VERSION,
            "storage_identifier": "mcap",
            "relative_file_paths": [self._path.name],
            **times,
            "topics_with_message_count": [
                {
                    "topic_metadata": {
                        "name": topic.name,
                        "type": topic.type,
                        "serialization_format": MESSAGE_ENCODING,
                        "offered_qos_profiles": "",
                        "type_description_hash": TYPE_HASHES[topic.type],
                    },
                    "message_count": count,
                }
                for topic, count in self._mcap.counts.items()
            ],
            "compression_format": "",
            "compression_mode": "",
            "files": [{"path": self._path.name, **times}],
            "custom_data": {NAME: about},
            "ros_distro": "",
        }
        text = yaml.safe_dump({"rosbag2_bagfile_information": information}, sort_keys=False)
        self._path.with_name("metadata.yaml").write_text(text)

    def abandon(self) -> None:
        self._mcap.abandon()
