"""Reads rosbag2 and MCAP as a source of episodes; it is named in ``wm_core.recordings.formats``.

The table names this module by a string, so that neither package imports the other: what is read
takes the same way through sensors, rewards and commands as on the robot.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from wm_core.contract.errors import RecordingError, WmError
from wm_core.contract.inputs import CodecRule
from wm_core.contract.spec import Spec
from wm_core.contract.step import Step
from wm_core.recordings.bag_damage import examine_bag, whole_bag
from wm_core.robot import RobotFile
from wm_ros.recorded.bag import Bag
from wm_ros.recorded.mapping import map_topics
from wm_ros.recorded.playback import Playback

if TYPE_CHECKING:
    from wm_core.recordings.options import ReadOptions

_VERSION = 1  #: of how bags become steps; another one makes other chunks
_FINGERPRINTED = {
    "name",
    "task",
    "from_s",
    "until_s",
    "namespace",
    "rewards",
    "hold_s",
    "log_times",
}
_TAKEN = {*_FINGERPRINTED, "robot"}  # of the options
MCAP_MAGIC = b"\x89MCAP0\r\n"
METADATA = "metadata.yaml"


def recognise(path: Path) -> bool:
    """Tell whether ``path`` is a rosbag2 folder or an MCAP file."""
    if path.is_dir():
        return (path / METADATA).is_file() or any(path.glob("*.db3"))
    try:
        with path.open("rb") as stream:
            begin = stream.read(len(MCAP_MAGIC))
    except OSError:
        return False
    return begin == MCAP_MAGIC or path.suffix in (".mcap", ".db3")


def open_source(path: Path, options: ReadOptions) -> BagSource:
    """Open a bag, after a look at every byte of it.

    Raises:
        RecordingError: for damage, a robot file that is missing, topics that the bag lacks, or
            options of tables.
    """
    return BagSource(path, options)


class BagSource:
    """Is one bag as a source of episodes."""

    def __init__(self, path: Path, options: ReadOptions) -> None:
        self._path, self._options = path, options
        options.check_taken(_TAKEN, path, "is a bag, and some options are of tables")
        examined = examine_bag(path)
        with whole_bag(path) as whole, Bag(whole) as bag:
            self.notes: list[str] = []
            self.span_ns = self._window(bag)
            self.topics = dict(bag.topics)
            if options.robot is None:
                listed = ", ".join(f"{t.name} ({t.message})" for t in bag.topics.values())
                raise RecordingError(
                    f"{path}: a bag needs --robot FILE, which says what its topics are to the "
                    f"robot; it has {listed or 'no topic'}"
                )
            file = RobotFile.load(options.robot)
            self._spec, self._codecs = file.spec(), file.codecs
            try:
                self._found = map_topics(
                    file, bag.topics, options.namespace, rewards=options.rewards
                )
                self._played(bag)  # finds a field that is missing
            except WmError as error:
                raise RecordingError(f"{path}: {error}") from error
        self.name = options.name or file.robot
        self.task = options.task
        self.left_out: Counter[str] = Counter()
        said = options.model_dump_json(include=_FINGERPRINTED)
        told = [str(_VERSION), examined, file.model_dump_json(), said]
        self._fingerprint = hashlib.sha256("\n".join(told).encode()).hexdigest()

    @property
    def spec(self) -> Spec:
        return self._spec

    @property
    def codecs(self) -> dict[str, CodecRule]:
        """Say how cameras are recorded in the store; those that are not named: without loss."""
        return self._codecs

    @property
    def fingerprint(self) -> str:
        return self._fingerprint

    @property
    def expected_bytes(self) -> int:
        """Bound the bytes that its steps take in a store, before they are packed."""
        per_step = sum(sensor.recorded_bytes for sensor in self._spec.inputs.values())
        seconds = (self.span_ns[1] - self.span_ns[0]) * 1e-9
        return round(seconds / self._spec.period_s + 1) * per_step

    def _played(self, bag: Bag) -> Playback:
        options = self._options
        return Playback(bag, self._found, options.hold_s, log_times=options.log_times)

    def _window(self, bag: Bag) -> tuple[int, int]:
        """Give the times between which messages are read."""
        begin, end = bag.begin_ns, max(bag.begin_ns, bag.end_ns)
        low, high = self._options.from_s, self._options.until_s
        if low is not None and high is not None and low >= high:
            raise RecordingError(f"expected --from before --until, got {low:g} and {high:g}")
        return (
            begin if low is None else begin + round(low * 1e9),
            end if high is None else min(end, begin + round(high * 1e9)),
        )

    def episodes(self) -> Iterator[Iterable[Step]]:
        """Yield the episodes; each is read to its end before the next is asked for."""
        with whole_bag(self._path) as whole, Bag(whole) as bag:
            played = self._played(bag)
            try:
                steps = played.steps(*self.span_ns)
                for first in steps:
                    yield _episode(first, steps)
            finally:
                self.left_out.clear()
                self.left_out.update(played.left_out)
                self.notes[:] = [*self._found.notes, *played.notes]


def _episode(step: Step, more: Iterator[Step]) -> Iterator[Step]:
    yield step
    while not step.is_last:
        step = next(more)
        yield step
