"""Lists the kinds of sensors, and joins several sensors into one observation.

A new kind is a file in this folder and a row in one or both tables: ``SENSORS`` names what
parameters may ask for, ``OF_PARTS`` what a robot file may.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from wm_core.contract.errors import SpecMismatch
from wm_core.contract.spec import Obs, Spec
from wm_core.robot import RobotFile
from wm_core.robot.parts import (
    ImagePart,
    ImuPart,
    JointsPart,
    LaserScanPart,
    NumbersPart,
    OdometryPart,
    PosePart,
    PrevActionPart,
    RangePart,
    SensorPart,
    TwistPart,
)
from wm_ros.sensors.camera import Camera
from wm_ros.sensors.compressed import CompressedCamera, CompressedDepthCamera
from wm_ros.sensors.depth import DepthCamera
from wm_ros.sensors.joint_states import JointStates
from wm_ros.sensors.motion import Imu, Odometry, Pose, Velocity
from wm_ros.sensors.numbers import NumberList, PrevAction
from wm_ros.sensors.ranges import LaserScan, Range
from wm_ros.sensors.source import FAR_NS, KEEP_NS, Absent, Senses, Source

#: what the parameter ``<sensor>.type`` may name
SENSORS: dict[str, type[Source]] = {
    "camera": Camera,
    "depth": DepthCamera,
    "compressed": CompressedCamera,
    "compressed_depth": CompressedDepthCamera,
    "joint_states": JointStates,
}

#: what hears each kind of part of a robot file
OF_PARTS: dict[type[SensorPart], type[Source]] = {
    JointsPart: JointStates,
    ImuPart: Imu,
    OdometryPart: Odometry,
    RangePart: Range,
    LaserScanPart: LaserScan,
    NumbersPart: NumberList,
    PosePart: Pose,
    TwistPart: Velocity,
    PrevActionPart: PrevAction,
}


_POSE_NS = 500_000_000  #: where a joint was so long ago is not where it is


class Sensor(Protocol):
    """Says where one sensor is heard, as ``wm_ros.settings.SensorSettings`` does."""

    @property
    def type(self) -> str: ...
    @property
    def topic(self) -> str: ...
    @property
    def joints(self) -> tuple[str, ...]: ...
    @property
    def fields(self) -> tuple[str, ...]: ...


def source_of(name: str, sensor: Sensor) -> Source:
    """Make the source that parameters describe."""
    kind = SENSORS[sensor.type]
    if issubclass(kind, JointStates):
        return kind(name, sensor.topic, joints=sensor.joints, fields=sensor.fields)
    return kind(name, sensor.topic)


def sources_of(name: str, part: SensorPart) -> list[Source]:
    """Make what hears a part of a robot file: a source, or one for each of several topics."""
    if isinstance(part, ImagePart):
        packed = part.type == "sensor_msgs/CompressedImage"
        colours = CompressedCamera if packed else Camera
        depth = CompressedDepthCamera if packed else DepthCamera
        return [(depth if part.colours == "depth" else colours)(name, part.topic, part)]
    kind = OF_PARTS[type(part)]
    found = [kind(name, topic, part) for topic in part.topics or ("",)]
    if isinstance(found[0], JointStates):
        found[0].partners = tuple(s for s in found[1:] if isinstance(s, JointStates))
    return found


def assign(sources: Sequence[Source], spec: Spec) -> dict[str, Source]:
    """Find the source that feeds each input of a policy, by the input's name.

    A source feeds the input of its own name.  Inputs without one share out the sources that are
    left: one camera feeds one image, joint states feed every vector whose joints are named.

    Raises:
        SpecMismatch: for an input without exactly one source that fits, a first source (it sets
            the pace) that feeds nothing, or two inputs that nothing tells apart.
    """
    fed: dict[str, Source] = {}
    for name, kind in spec.inputs.items():
        named = [source for source in sources if source.name == name]
        free = [s for s in sources if s.name not in spec.inputs]
        left = [s for s in free if s.feeds_many or s not in fed.values()]
        fitting = [source for source in named or left if source.fits(kind)]
        if len(fitting) != 1:
            raise SpecMismatch(
                f"the policy's input {name!r} is {kind.what}; sensors that could feed it: "
                f"{[s.name for s in fitting]} of {[s.name for s in sources]}; name one of "
                f"them {name!r} in the parameter sensors, and set {name}.type and {name}.topic"
            )
        fed[name] = fitting[0]
        fitting[0].bind(kind)
    _refuse_alike(fed, spec)
    if sources[0] not in fed.values():
        raise SpecMismatch(
            f"expected a policy with an input for the first sensor, {sources[0].name!r}, "
            f"which sets the pace; its inputs are {[*spec.inputs]}; see the parameter sensors"
        )
    return fed


def _refuse_alike(fed: Mapping[str, Source], spec: Spec) -> None:
    """Raise ``SpecMismatch`` where two inputs would get the same numbers of one source."""
    seen: dict[tuple[Source, tuple[str, ...]], str] = {}
    for name, vector in spec.vectors.items():
        source = fed[name]
        names = () if isinstance(source, JointStates) and source.joints else vector.names
        other = seen.setdefault((source, tuple(sorted(names))), name)
        if other != name:
            raise SpecMismatch(
                f"the policy's inputs {other!r} and {name!r} would both be fed the same joints by "
                f"the sensor {source.name!r}; name a sensor after each in the parameter sensors, "
                f"and say in {other}.joints and {name}.joints which joints each has"
            )


class Sensors:
    """Joins what the sources remember into the observation of a tick.

    The first source sets the pace: its newest message gives an observation its stamp, and a tick
    waits for it.  From every other source comes the message that is nearest to that stamp, at
    most ``tolerance_s`` away.  Where none sets the pace, the stamp is the time of the tick.

    Args:
        sources: at least one; the first sets the pace.
        period_ns: of one agent step.
        parts: what feeds each input, where a robot file says it; else inputs and sources find
            each other by their names.
        paced: whether the first source sets the pace; else a timer does.
        tolerance_s: farthest that a message may be from the stamp; None: one period.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        period_ns: int,
        *,
        parts: Mapping[str, Sequence[Source]] | None = None,
        paced: bool = True,
        tolerance_s: float | None = None,
    ) -> None:
        self.sources = tuple(source for source in sources if source.topic)
        self.period_ns, self._tolerance_s, self._parts = period_ns, tolerance_s, parts
        self.first: Source | None = self.sources[0] if paced else None  #: None: a timer
        if self.first is not None:
            self.first.sets_pace = True
            if self.first.is_image:
                self.first.history.most = 2  # its newest gives the stamp, and belongs to it
        self.frames_missed = 0  #: gaps in the stamps of the first source, in periods
        self.refusal = ""  #: why the newest messages do not fit the policy
        self._oldest_ns, self._wrong_pace = 0, ""
        self._spec: Spec | None = None
        self._fed: Mapping[str, Sequence[Source]] = {}

    @classmethod
    def of_parameters(cls, sensors: Mapping[str, Sensor], period_ns: int) -> Sensors:
        """Make what the parameters describe, by the names of the sensors."""
        return cls([source_of(name, sensor) for name, sensor in sensors.items()], period_ns)

    @classmethod
    def of_file(cls, file: RobotFile, period_ns: int) -> Sensors:
        """Make what a robot file describes."""
        parts: dict[str, list[Source]] = {}
        heard: list[Source] = []
        for name, described in file.observations.items():
            topics = {topic for part in described for topic in part.topics}
            parts[name] = []
            for part in described:
                found = sources_of(name, part)
                for source in found if len(topics) > 1 else ():
                    source.name = f"{name}.{source.topic.strip('~/').replace('/', '_')}"
                parts[name].append(found[0])
                heard += found
        pace = file.paced_by
        if pace is not None:
            heard.sort(key=lambda source: source is not parts[pace][0])
        return cls(
            heard, period_ns, parts=parts, paced=pace is not None, tolerance_s=file.tolerance_s
        )

    @property
    def frames(self) -> int:
        """Count the messages of the first source."""
        return 0 if self.first is None else self.first.messages

    @property
    def tolerance_ns(self) -> int:
        """Give the farthest that a message may be from the observation's stamp."""
        return self.period_ns if self._tolerance_s is None else round(self._tolerance_s * 1e9)

    def label(self, name: str, i: int) -> str:
        """Name element ``i`` of the input ``name`` for people, and the topics that feed it."""
        kind = None if self._spec is None else self._spec.vectors.get(name)
        topics = ", ".join(source.topic for source in self._fed.get(name, ()))
        element = kind.names[i] if kind is not None and i < len(kind.names) else f"number {i + 1}"
        return f"{element} of {name}" + (f", from {topics}" if topics else "")

    def check(self, spec: Spec) -> None:
        """Raise ``SpecMismatch`` for a policy with an input that these sensors cannot feed."""
        self._feeding(spec)

    def _feeding(self, spec: Spec) -> Mapping[str, Sequence[Source]]:
        if self._parts is None:
            return {name: (source,) for name, source in assign(self.sources, spec).items()}
        lacking = [name for name in spec.inputs if name not in self._parts]
        if lacking:
            raise SpecMismatch(
                f"the policy has the inputs {lacking}, which the robot file has not; "
                f"it has {[*self._parts]}"
            )
        return {name: self._parts[name] for name in spec.inputs}

    def begin(self, spec: Spec, period_ns: int, oldest_s: float = 0.0) -> None:
        """Take inputs and period from the first policy.

        Args:
            spec: of the policy.
            period_ns: of one agent step.
            oldest_s: oldest observation on which the policy acts, seconds: messages are kept at
                least so long, and the tolerance longer.
        """
        self._spec, self._fed, self.period_ns = spec, self._feeding(spec), period_ns
        fed = [source for parts in self._fed.values() for source in parts]
        fed += [other for s in fed if isinstance(s, JointStates) for other in s.partners]
        self._oldest_ns = round(max(oldest_s, 0.0) * 1e9)
        for source in self.sources:
            source.unused = source not in fed and source is not self.first
            keep_ns = self.tolerance_ns + self._oldest_ns
            source.history.keep_ns = max(KEEP_NS, keep_ns)

    def on_message(self, source: Source, msg: Any, now_ns: int) -> None:
        """Remember a message; gaps between stamps of the first source count as missed frames."""
        before_ns, known = source.stamp_ns, source.messages > 0
        source.on_message(msg, now_ns)
        if source is self.first and known and source.stamp_ns > before_ns:
            periods = round((source.stamp_ns - before_ns) / self.period_ns)
            self.frames_missed += max(0, periods - 1)

    def on_sent(self, action: np.ndarray) -> None:
        """Remember the action (A,) that was sent, for inputs that hold it."""
        for parts in (self._parts or {}).values():
            for source in parts:
                if isinstance(source, PrevAction) and source.sent.shape == action.shape:
                    source.sent = action.astype(np.float64)

    def pose(self, joints: Sequence[str], now_ns: int) -> np.ndarray | None:
        """Tell where joints are at the steady time ``now_ns``, (n,); None unless all are known.

        Every sensor of joint states is asked, whether the policy reads it or not.
        """
        found: dict[str, float] = {}
        for source in self.sources:
            if isinstance(source, JointStates):
                missing = [joint for joint in joints if joint not in found]
                found |= source.positions(missing, now_ns, _POSE_NS)
        if not joints or len(found) < len(joints):
            return None
        pose = np.array([found[joint] for joint in joints])
        return pose if np.isfinite(pose).all() else None

    def drain(self, now_ns: int) -> None:
        """Remember what waits on the topics that do not set the pace."""
        for source in self.sources:
            if source is not self.first:
                source.drain(now_ns)

    def sense(self, *, fresh: bool, now_ns: int, ros_now_ns: int) -> Senses:
        """Build the observation of a tick.

        Args:
            fresh: whether the first source's newest message came since the last tick.
            now_ns: steady time.
            ros_now_ns: ROS time, to which stamps belong.
        """
        self.drain(now_ns)
        first = self.first
        if self._spec is None or (first is not None and not first.messages):
            return Senses(None, ages=self._ages(now_ns))
        stamp_ns = ros_now_ns if first is None else first.stamp_ns
        if fresh and first is not None and ros_now_ns:
            self._judge_pace(ros_now_ns - (now_ns - first.arrived_ns) - stamp_ns)
        obs, refused, detail = self._observe(self._spec, stamp_ns)
        return Senses(
            obs=obs,
            stamp_ns=stamp_ns,
            fresh=fresh or first is None,
            receive_age_s=0.0 if first is None else (now_ns - first.arrived_ns) * 1e-9,
            stamp_age_s=(ros_now_ns - stamp_ns) * 1e-9,
            refused=refused,
            detail=detail,
            ages=self._ages(now_ns),
        )

    def _ages(self, now_ns: int) -> dict[str, float]:
        """List the seconds since the last message, by topic; infinite for none yet."""
        return {
            s.topic: (now_ns - s.arrived_ns) * 1e-9 if s.messages else float("inf")
            for s in self.sources
        }

    def _observe(self, spec: Spec, stamp_ns: int) -> tuple[Obs | None, str | None, str]:
        """Observe; or give None, why in one word, and in a sentence.

        Every source is asked, so that each can say what is wrong with it.
        """
        obs: Obs = {}
        refused: list[str] = []
        absent: list[Absent] = []
        for source in self.sources:  # those that another speaks for, too
            source.refusal = source.apart = ""
        for name, kind in spec.inputs.items():
            values = []
            for source in self._fed[name]:
                try:
                    values.append(source.observe(kind, stamp_ns, self.tolerance_ns))
                except SpecMismatch as error:
                    source.refusal = str(error)
                    refused.append(source.refusal)
                except Absent as error:
                    error.source.apart = error.detail
                    absent.append(error)
            if not refused and not absent:
                try:
                    obs[name] = _joined(name, values, kind)
                except SpecMismatch as error:
                    refused.append(str(error))
        self.refusal = refused[0] if refused else ""
        if refused:
            return None, "frame_refused", self.refusal
        wrong = self._wrong_pace if absent else ""
        if wrong:
            absent = _silent(absent)
        if absent:
            source = absent[0].source
            return None, f"no_{source.name}", f"{source.topic}: {absent[0].detail}"
        if wrong:
            return None, wrong, ""
        return obs, None, ""

    def _judge_pace(self, behind_ns: int) -> None:
        """Note, in one word, a stamp so wrong that no other message can be near to it."""
        wrong = "stale_stamp" if behind_ns > 0 else "stamp_in_future"
        self._wrong_pace = wrong if abs(behind_ns) > max(FAR_NS, self._oldest_ns) else ""


def _silent(absent: list[Absent]) -> list[Absent]:
    """Keep those that gave nothing; no source is to blame for being far from a wrong stamp."""
    for error in absent:
        if error.source.messages:
            error.source.apart = ""
    return [error for error in absent if not error.source.messages or error.source.latest]


def _joined(name: str, values: list[np.ndarray], kind: Any) -> np.ndarray:
    """Join the parts of an input: an image (H, W, C) has one, a vector (n,) float32 several."""
    if len(values) == 1:
        value = values[0] if values[0].dtype == kind.dtype else values[0].astype(kind.dtype)
    else:
        value = np.concatenate(values).astype(kind.dtype)
    kind.check(name, value)
    return value
