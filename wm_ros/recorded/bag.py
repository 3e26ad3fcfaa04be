"""Opens rosbag2 folders and MCAP files and reads their messages, by the library rosbags.

Definitions of messages that the file brings along win over those that the library knows.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import zstandard
from mcap.reader import make_reader

from wm_core.contract.errors import RecordingError
from wm_core.recordings.libraries import import_library
from wm_ros.recorded.kinds import MessageFields

NEEDED_FOR = "rosbag2 and MCAP files"
_ZSTD = b"\x28\xb5\x2f\xfd"  # begins what zstd packed; a message in CDR begins with 0
_LARGEST_MESSAGE = 1 << 30
#: messages that a robot file may name and that are no part of ROS itself: old bags define none
_NOT_OF_ROS = {
    "ackermann_msgs/msg/AckermannDrive": "\n".join(
        f"float32 {name}"
        for name in ("steering_angle", "steering_angle_velocity", "speed", "acceleration", "jerk")
    ),
    "ackermann_msgs/msg/AckermannDriveStamped": (
        "std_msgs/Header header\nackermann_msgs/AckermannDrive drive"
    ),
}


@dataclass(frozen=True)
class BagTopic:
    """Describes one topic of a bag."""

    name: str
    message: str  #: such as sensor_msgs/Image
    count: int  #: of its messages, 0 where the file does not say


class Bag:
    """Is an open bag; a context manager.

    Args:
        path: a folder with metadata.yaml, or an MCAP file.

    Raises:
        RecordingError: for what cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._rosbag2 = import_library("rosbags.rosbag2", needed_for=NEEDED_FOR)
        self._typesys = import_library("rosbags.typesys", needed_for=NEEDED_FOR)
        self._reader = self._guarded(lambda: self._opened())
        self.topics: dict[str, BagTopic] = {}
        for connection in self._reader.connections:
            known = self.topics.get(connection.topic)
            message = connection.msgtype.replace("/msg/", "/")
            if known is not None and known.message != message:
                message = f"{known.message} and {message}"
            count = connection.msgcount + (0 if known is None else known.count)
            self.topics[connection.topic] = BagTopic(connection.topic, message, count)
        self._types = self._guarded(self._type_store)
        self.begin_ns = int(self._reader.start_time)
        self.end_ns = int(self._reader.end_time)

    def __enter__(self) -> Bag:
        return self

    def __exit__(self, *_: object) -> None:
        self._reader.close()

    def _opened(self) -> Any:
        if self.path.is_file():
            _refuse_other_messages(self.path)
        reader = self._rosbag2.Reader(self.path)
        reader.open()
        return reader

    def _guarded(self, act: Callable[[], Any]) -> Any:
        """Do what reads the file; whatever its reader raises becomes one line."""
        try:
            return act()
        except RecordingError:
            raise
        except MemoryError:
            raise
        except Exception as error:
            raise RecordingError(f"{self.path}: {type(error).__name__}: {error}") from error

    def _type_store(self) -> Any:
        """Join the definitions in the file with those that the library knows."""
        typesys = self._typesys
        found = dict(typesys.get_typestore(typesys.Stores.ROS2_JAZZY).fielddefs)
        for name, text in _NOT_OF_ROS.items():
            found.update(typesys.get_types_from_msg(text, name))
        for connection in self._reader.connections:
            definition, name = connection.msgdef, connection.msgtype
            if not definition.data:
                continue
            if definition.format.name == "MSG":
                found.update(typesys.get_types_from_msg(definition.data, name))
            else:
                for part in definition.data.split("=" * 80 + "\n"):
                    idl = part.split("\n", 1)[1] if part.startswith("IDL: ") else part
                    found.update(typesys.get_types_from_idl(idl) if idl.strip() else {})
        store = typesys.get_typestore(typesys.Stores.EMPTY)
        store.register(found)
        return store

    def kind(self, message: str) -> MessageFields:
        """Describe the fields of the message ``message``, such as sensor_msgs/Image.

        Raises:
            ImportError: where neither the file nor the library defines it.
        """
        return MessageFields(self._types.fielddefs, message)

    def read(self, data: bytes, message: str) -> Any:
        """Make an object with the fields of a message of its bytes.

        Raises:
            RecordingError: where they do not fit the message's definition.
        """
        name = message.replace("/", "/msg/")
        return self._guarded(lambda: self._types.deserialize_cdr(data, name))

    def messages(
        self, topics: Collection[str], begin_ns: int | None = None, end_ns: int | None = None
    ) -> Iterator[tuple[str, int, bytes]]:
        """Yield (topic, time at which it was written in ns, bytes in CDR) in order of time.

        Raises:
            RecordingError: for damage.
        """
        wanted = [c for c in self._reader.connections if c.topic in topics]
        if not wanted:
            return
        found = self._guarded(lambda: self._reader.messages(wanted, begin_ns, end_ns))
        while True:
            got = self._guarded(lambda: next(found, None))
            if got is None:
                return
            connection, log_ns, data = got
            if data[:4] == _ZSTD:
                data = self._guarded(partial(_unpacked, data))
            yield connection.topic, int(log_ns), data


def _refuse_other_messages(path: Path) -> None:
    """Raise ``RecordingError`` for an MCAP file whose messages are not those of ROS 2."""
    with path.open("rb") as stream:
        reader = make_reader(stream)
        profile, summary = reader.get_header().profile, reader.get_summary()
    if profile != "ros2":
        channels = summary.channels.values() if summary is not None else ()
        kinds = ", ".join(sorted({c.message_encoding for c in channels})) or "nothing"
        raise RecordingError(
            f"{path}: expected an MCAP file of ROS 2 (profile ros2, messages in cdr), got profile "
            f"{profile!r} with {kinds}; convert it, or write it by rosbag2"
        )


def _unpacked(data: bytes) -> bytes:
    size = zstandard.frame_content_size(data)
    if size > _LARGEST_MESSAGE:
        raise ValueError(f"expected a message of at most {_LARGEST_MESSAGE} bytes, got {size}")
    return zstandard.ZstdDecompressor().decompress(data, max_output_size=_LARGEST_MESSAGE)
