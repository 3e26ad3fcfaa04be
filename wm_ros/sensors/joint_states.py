"""Reads joints by their names from ``sensor_msgs/JointState``.

The order in a message means nothing: drivers sort it as they like, add joints, and share topics.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from wm_core.contract.errors import SpecMismatch
from wm_core.contract.inputs import Vector
from wm_core.robot.parts import JointsPart, SensorPart
from wm_ros.convert import message_class, set_header
from wm_ros.sensors.history import Heard
from wm_ros.sensors.source import Absent, Source

FIELDS = ("position", "velocity", "effort")
Wanted = tuple[str, str]  #: a joint and one of ``FIELDS``


class JointStates(Source):
    """Hears joints, each of which counts as in the nearest message that has it.

    Which joints, and in which order, is said by the robot file, by ``joints`` and ``fields``, or
    by the names in the policy's spec; a policy that names none takes the order of the first
    message, which later ones must have too, in whatever order.

    Args:
        name: of the sensor.
        topic: where it is heard.
        part: what the robot file says of it.
        joints: by name, in the policy's order.
        fields: what is read of every joint: all of the first field, then of the next.
    """

    message, default_topic = "sensor_msgs/JointState", "joint_states"
    feeds_many = True

    def __init__(
        self,
        name: str,
        topic: str = "",
        part: SensorPart | None = None,
        *,
        joints: Sequence[str] = (),
        fields: Sequence[str] = (),
    ) -> None:
        super().__init__(name, topic, part)
        if isinstance(part, JointsPart):
            joints, fields = part.joints, part.fields
        self.partners: tuple[JointStates, ...] = ()  #: on other topics, with more of the joints
        self.joints, self.fields = tuple(joints), tuple(fields)
        self._learnt: tuple[str, ...] = ()  # what the first message has, for nameless policies
        self._came_ns: dict[Wanted, int] = {}  # steady time at which a joint came last

    def fits(self, kind: object) -> bool:
        return isinstance(kind, Vector)

    def names_inputs(self, kind: Vector) -> bool:
        """Tell whether it is said which joints an input of this kind has."""
        return bool(self.joints or kind.names)

    def bind(self, kind: Vector) -> None:
        """Hold the names that are said against the size of the input.

        Raises:
            SpecMismatch: for another number of joints, or a joint that is named twice.
        """
        wanted = self._said(kind)
        if wanted and len(wanted) != kind.size:
            raise SpecMismatch(
                f"{self.name}: the policy wants {kind.size} numbers, and {len(wanted)} are named: "
                f"{_listed(wanted)}"
            )
        if len(set(wanted)) != len(wanted):
            raise SpecMismatch(f"{self.name}: a joint is named twice in {_listed(wanted)}")

    def _said(self, kind: Vector) -> tuple[Wanted, ...]:
        """List what is read where parameters or robot file say it, or the policy by its names."""
        if self.joints:
            fields = self.fields or FIELDS[: max(1, kind.size // len(self.joints))]
            return tuple((joint, field) for field in fields for joint in self.joints)
        if self.fields and len(self.fields) * len(kind.names) == kind.size:
            return tuple((joint, field) for field in self.fields for joint in kind.names)
        if 2 * len(kind.names) == kind.size:
            return tuple((joint, field) for field in FIELDS[:2] for joint in kind.names)
        return tuple((name, "position") for name in kind.names)

    @property
    def note(self) -> str:
        if not self._learnt:
            return ""
        return (
            f"{self.name}: the policy states no names of joints, so their order is taken from the "
            f"first message: {', '.join(self._learnt)}; joints of this sensor can state it"
        )

    # ------------------------------------------------------------------------------ reading

    def observe(self, kind: Any, stamp_ns: int, within_ns: int) -> np.ndarray:
        if self.joints or kind.names:
            return self.adjusted(self._by_name(self._said(kind), stamp_ns, within_ns))
        heard = self.nearest(stamp_ns, within_ns)
        return self._in_order(heard.parsed(_parse), kind.size)

    def _by_name(self, wanted: tuple[Wanted, ...], stamp_ns: int, within_ns: int) -> np.ndarray:
        """Find each joint, (n,) float32, in the message nearest to the stamp that has it."""
        found: dict[Wanted, float] = {}
        missing, named = wanted, set[str]()
        for source in (self, *self.partners):
            heard_any = False
            for heard in source.candidates(stamp_ns, within_ns):
                heard_any, joints = True, heard.parsed(_parse)
                named.update(joints.index)
                for key in missing:
                    value = joints.get(key)
                    if value is not None:
                        found[key] = value
                        self._came_ns[key] = heard.arrived_ns
                missing = tuple(key for key in missing if key not in found)
                if not missing:
                    return np.array([found[key] for key in wanted], np.float32)
            if not heard_any:
                raise Absent(source, source.distance(stamp_ns, self.allowed_ns(within_ns)))
        raise self._lacking(missing, named)

    def candidates(self, stamp_ns: int, within_ns: int) -> Iterator[Heard]:
        """List the messages that may belong to a stamp, the nearest first."""
        if not self.latest:
            return self.history.around(stamp_ns, self.allowed_ns(within_ns))
        return self.history.around(self.nearest(stamp_ns, within_ns).stamp_ns, 2**63)

    def positions(self, joints: Iterable[str], now_ns: int, within_ns: int) -> dict[str, float]:
        """Find where ``joints`` are: those that a message of the last ``within_ns`` has.

        The newest message counts; one that does not fit is passed over.
        """
        found: dict[str, float] = {}
        missing = [*joints]
        newest = self.history.newest
        for heard in () if newest is None else self.history.around(newest.stamp_ns, 2**63):
            if not missing or now_ns - heard.arrived_ns > within_ns:
                break
            try:
                said = heard.parsed(_parse)
            except SpecMismatch:
                continue
            values = {joint: said.get((joint, "position")) for joint in missing}
            found |= {joint: value for joint, value in values.items() if value is not None}
            missing = [joint for joint in missing if joint not in found]
        return found

    def _lacking(self, missing: Sequence[Wanted], named: set[str]) -> Exception:
        """Make the error for joints that no message near the observation has."""
        topics = " and ".join(source.topic for source in (self, *self.partners))
        there = ", ".join(sorted(named)) or "none with a name"
        gone = [key for key in missing if key in self._came_ns]
        if gone:
            age_s = max(self.steady_now() - self._came_ns[key] for key in gone) * 1e-9
            return Absent(
                self, f"{_listed(gone)} came last {age_s:.2f} s ago; now there are {there}"
            )
        fieldless = [key for key in missing if key[0] in named]
        if fieldless:
            return SpecMismatch(
                f"{self.name}: expected {_listed(fieldless)}, but the messages on {topics} carry "
                "no such field"
            )
        return SpecMismatch(
            f"{self.name}: expected the joints {_listed(missing)}, but {topics} has "
            f"{there}; joints of this sensor names those that the policy means, in its order"
        )

    def _in_order(self, joints: _Joints, size: int) -> np.ndarray:
        """Read all joints, (size,) float32, in the order of the first message."""
        order = tuple(joints.index)
        if self._learnt and {*order} != {*self._learnt}:
            lacks, more = {*self._learnt} - {*order}, {*order} - {*self._learnt}
            raise SpecMismatch(
                f"{self.name}: expected the joints of the first message, {_listed(self._learnt)}; "
                f"this one lacks {_listed(lacks)} and has {_listed(more)} more; joints of this "
                "sensor names those that the policy means, in its order"
            )
        values = joints.all_of(self._learnt or order, size, self.name)
        self._learnt = self._learnt or order
        return values


class _Joints:
    """Holds what one message says of joints, by name.

    Raises:
        SpecMismatch: for a name that comes twice, or a field with fewer numbers than names.
    """

    def __init__(self, msg: Any) -> None:
        self.index = {name: i for i, name in enumerate(msg.name)}
        self._values = {field: getattr(msg, field) for field in FIELDS}
        if len(self.index) != len(msg.name):
            twice = sorted({name for name in msg.name if list(msg.name).count(name) > 1})
            raise SpecMismatch(f"joint states: expected each name once, got twice: {twice}")
        for field, values in self._values.items():
            if msg.name and len(values) not in (0, len(msg.name)):
                raise SpecMismatch(
                    f"joint states: expected a {field} for each of {len(msg.name)} names, "
                    f"got {len(values)}"
                )

    def get(self, wanted: Wanted) -> float | None:
        """Find a number; ``elbow.velocity`` is that of elbow where no joint has such a name."""
        joint, field = wanted
        if joint not in self.index and joint.endswith(tuple(f".{f}" for f in FIELDS)):
            joint, _, field = joint.rpartition(".")
        index, values = self.index.get(joint), self._values[field]
        return None if index is None or not len(values) else float(values[index])

    def all_of(self, order: Sequence[str], size: int, what: str) -> np.ndarray:
        """Read (size,) float32: positions, with velocities behind where they fit."""
        positions, velocities = self._values["position"], self._values["velocity"]
        if len(positions) == size:
            fields = [positions]
        elif len(positions) + len(velocities) == size:
            fields = [positions, velocities]
        else:
            raise SpecMismatch(
                f"{what}: expected {size} positions, or positions and velocities, "
                f"got {len(positions)} and {len(velocities)}"
            )
        places = [self.index[name] for name in order]
        if not places:  # a message without names has one order only
            return np.concatenate([np.array(f, np.float32) for f in fields])
        return np.array([field[i] for field in fields for i in places], np.float32)


def _parse(msg: Any) -> _Joints:
    return _Joints(msg)


def _listed(wanted: Iterable[Wanted | str]) -> str:
    names = [w if isinstance(w, str) else _label(w) for w in wanted]
    return ", ".join(names) or "none"


def _label(wanted: Wanted) -> str:
    joint, field = wanted
    return joint if field == "position" else f"{joint}.{field}"


def to_vector(msg: Any, size: int, what: str) -> np.ndarray:
    """Read (size,) float32 of a joint state: positions, with velocities behind where they fit.

    Raises:
        SpecMismatch: where neither has ``size`` numbers; ``what`` names the sensor.
    """
    joints = _parse(msg)
    return joints.all_of(tuple(joints.index), size, what)


def from_vector(vector: np.ndarray, stamp_ns: int, names: Sequence[str]) -> Any:
    """Make a joint state whose positions are ``vector`` (n,)."""
    msg = message_class("sensor_msgs/JointState")(
        name=list(names), position=[float(v) for v in vector]
    )
    set_header(msg.header, stamp_ns)
    return msg
