"""Describes what a robot file says of observations: a class for each message that is heard.

An image input is one part; a vector input joins the numbers of its parts in their order.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from wm_core.contract.errors import nearest
from wm_core.contract.inputs import FIT_TEXT, RGB, CodecRule, Depth, Fit, ImageSpec, Mono
from wm_core.robot.entries import (
    EitherSpelling,
    Entry,
    Labels,
    Misfit,
    Numbers,
    OneOrMore,
    TopicName,
    Words,
    spread,
)

_XYZ = ("x", "y", "z")
_QUATERNION = ("qx", "qy", "qz", "qw")
_TWIST = tuple(f"{part}.{axis}" for part in ("linear", "angular") for axis in _XYZ)
JointField = Literal["position", "velocity", "effort"]


class SensorPart(Entry):
    """Describes one message that is heard, and the numbers or pixels that it gives."""

    is_image: ClassVar[bool] = False
    stamped: ClassVar[bool] = True  #: the message says when it was measured

    type: str = Field(description="Message of this part, such as sensor_msgs/Image.")
    latest: bool = Field(
        False, description="Whether the last message counts however old it is: a goal, a command."
    )
    max_age_s: float | None = Field(
        None, gt=0, description="Oldest message in seconds; left out: the file's tolerance."
    )

    @property
    def topics(self) -> tuple[str, ...]:
        """List the topics on which the message is heard."""
        topic: str | tuple[str, ...] = getattr(self, "topic", ())
        return (topic,) if isinstance(topic, str) else topic

    @property
    def names(self) -> tuple[str, ...]:
        """Name each number; an image has none."""
        return ()

    @property
    def size(self) -> int:
        """Count the numbers; an image has none."""
        return len(self.names)


class ImagePart(SensorPart):
    """Describes a camera, whose frames are cropped and reduced to what the network sees."""

    is_image = True

    type: Literal["sensor_msgs/Image", "sensor_msgs/CompressedImage"]
    topic: TopicName = Field(description="Topic of the camera, such as camera/image_raw.")
    colours: Literal["rgb", "mono", "depth"] = Field(
        "rgb", description="What a pixel is: three colours, one shade, or a distance."
    )
    height: int = Field(64, gt=0, le=4096, description="Rows that the network sees, pixels.")
    width: int = Field(64, gt=0, le=4096, description="Columns that the network sees, pixels.")
    fit: Fit = Field("crop", description=FIT_TEXT)
    accept_mono: bool = Field(
        False, description="Whether a grey camera may stand in for one with colours."
    )
    near_mm: int = Field(0, ge=0, description="Depth: distance seen as 0, in millimetres.")
    far_mm: int = Field(
        10_000, gt=0, lt=2**16, description="Depth: distance seen as 1, in millimetres."
    )

    codec: CodecRule | None = Field(
        None,
        description="How its images are recorded: zstd, jpeg, or auto, which is as they compress; "
        "left out: as spool.codec says.",
    )

    @model_validator(mode="after")
    def _of_its_colours(self) -> ImagePart:
        if self.colours == "depth" and self.codec in ("jpeg", "auto"):
            raise Misfit("codec", f"distances are recorded without loss, got {self.codec!r}")
        if self.colours != "depth" and self.model_fields_set & {"near_mm", "far_mm"}:
            raise Misfit("colours", f"near_mm and far_mm are for depth, got {self.colours!r}")
        if self.near_mm >= self.far_mm:
            raise Misfit("near_mm", f"expected less than far_mm {self.far_mm}, got {self.near_mm}")
        if self.accept_mono and self.colours != "rgb":
            raise Misfit("accept_mono", f"is for colours: rgb, got colours: {self.colours}")
        return self

    @model_serializer(mode="wrap")
    def _without_unsaid_codec(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out what is not said: a file then means, to a hash, what it meant before."""
        said: dict[str, Any] = handler(self)
        if self.codec is None:
            said.pop("codec", None)
        return said

    def input(self) -> ImageSpec:
        """Describe the policy's input."""
        if self.colours == "depth":
            return Depth(
                height=self.height,
                width=self.width,
                fit=self.fit,
                near_mm=self.near_mm,
                far_mm=self.far_mm,
            )
        kind = RGB if self.colours == "rgb" else Mono
        return kind(height=self.height, width=self.width, fit=self.fit)


class NumericPart(SensorPart):
    """Describes a message with numbers, each scaled and shifted."""

    scale: Numbers = Field(
        (1.0,), description="Factor on each number, one for all or one for each."
    )
    offset: Numbers = Field(
        (0.0,), description="Added to each number after the factor, one for all or one for each."
    )
    prefix: str = Field(
        "", description="Put before the names of the numbers, to tell two parts apart."
    )

    def labels(self) -> tuple[str, ...]:
        """Name each number, without the prefix."""
        raise NotImplementedError

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self.prefix + label for label in self.labels())

    @model_validator(mode="after")
    def _spread(self) -> Any:
        size = len(self.labels())
        if size == 0 and not isinstance(self, PrevActionPart):
            raise ValueError("expected at least one number, got none")
        if size:
            self._fill("scale", spread(self, "scale", size))
            self._fill("offset", spread(self, "offset", size))
        if 0.0 in self.scale:
            raise Misfit("scale", f"expected no zero, got {list(self.scale)}")
        return self


class JointsPart(NumericPart):
    """Describes joints, found by name in the messages of one or several publishers."""

    type: Literal["sensor_msgs/JointState"]
    topic: Annotated[tuple[TopicName, ...], OneOrMore(str)] = Field(
        ("joint_states",),
        min_length=1,
        description="Topic of the joints, or several to be joined.",
    )
    joints: Words = Field(
        min_length=1, description="Joints in the policy's order, by their names."
    )
    fields: Annotated[tuple[JointField, ...], OneOrMore(str)] = Field(
        ("position",),
        min_length=1,
        description="What is read of every joint: all positions first, then the next field.",
    )

    @model_validator(mode="after")
    def _once(self) -> JointsPart:
        if len({*self.fields}) != len(self.fields):
            raise Misfit("fields", f"expected each field once, got {list(self.fields)}")
        if len({*self.topic}) != len(self.topic):
            raise Misfit("topic", f"expected each topic once, got {list(self.topic)}")
        return self

    def labels(self) -> tuple[str, ...]:
        return tuple(
            joint if field == "position" else f"{joint}.{field}"
            for field in self.fields
            for joint in self.joints
        )


class FieldsPart(NumericPart):
    """Describes a message of which some numbers are read, by their names."""

    known: ClassVar[tuple[str, ...]]  #: what ``fields`` may name

    fields: Words = Field((), description="Numbers that are read of the message, in this order.")

    @model_validator(mode="after")
    def _known_fields(self) -> Any:
        for i, field in enumerate(self.fields):
            if field not in self.known:
                raise Misfit(("fields", i), nearest(field, self.known, what="field"))
        return self

    def labels(self) -> tuple[str, ...]:
        return self.fields


class ImuPart(FieldsPart):
    """Describes an inertial sensor; ``gravity`` is the unit vector downwards in its frame."""

    known = (
        *(f"angular_velocity.{axis}" for axis in _XYZ),
        *(f"linear_acceleration.{axis}" for axis in _XYZ),
        *(f"orientation.{axis}" for axis in "xyzw"),
        *(f"gravity.{axis}" for axis in _XYZ),
        *("roll", "pitch", "yaw"),
    )

    type: Literal["sensor_msgs/Imu"]
    topic: TopicName = Field("imu", description="Topic of the inertial sensor, such as imu/data.")
    fields: Words = Field(
        known[:6],
        min_length=1,
        description="Numbers read: rad/s, m/s², quaternion, angles in rad.",
    )


class OdometryPart(FieldsPart):
    """Describes odometry: velocities in the robot's frame, pose in the odometry's."""

    known = (*_TWIST, *_XYZ, *_QUATERNION, "yaw")

    type: Literal["nav_msgs/Odometry"]
    topic: TopicName = Field("odom", description="Topic of the odometry, such as odom.")
    fields: Words = Field(
        ("linear.x", "angular.z"),
        min_length=1,
        description="Numbers read: velocities in m/s and rad/s, pose in m, yaw in rad.",
    )


class PosePart(FieldsPart):
    """Describes a pose, such as a goal: position and orientation in the frame of its message."""

    known = (*_XYZ, *_QUATERNION, "yaw")

    type: Literal["geometry_msgs/PoseStamped"]
    topic: TopicName = Field(description="Topic of the pose, such as goal_pose.")
    fields: Words = Field(
        (*_XYZ, *_QUATERNION), min_length=1, description="Numbers read: metres, quaternion, yaw."
    )


class TwistPart(FieldsPart):
    """Describes a velocity, such as one that a person commands."""

    known = _TWIST

    type: Literal["geometry_msgs/Twist", "geometry_msgs/TwistStamped"]
    topic: TopicName = Field(description="Topic of the velocity, such as cmd_vel_wanted.")
    fields: Words = Field(
        ("linear.x", "angular.z"), min_length=1, description="Numbers read, in m/s and rad/s."
    )


class RangePart(NumericPart):
    """Describes a sensor of one distance in metres; nothing seen is read as ``max_m``."""

    type: Literal["sensor_msgs/Range"]
    topic: TopicName = Field(description="Topic of the distance sensor, such as range/front.")
    max_m: float = Field(
        5.0, gt=0, description="Distance that stands for everything farther, in metres."
    )

    def labels(self) -> tuple[str, ...]:
        return ("range",)


class LaserScanPart(NumericPart):
    """Describes a laser scanner, reduced to some beams; nothing seen is read as ``max_m``."""

    type: Literal["sensor_msgs/LaserScan"]
    topic: TopicName = Field("scan", description="Topic of the laser scanner, such as scan.")
    beams: int = Field(
        gt=0, le=10_000, description="Number of equal sectors, each giving one distance."
    )
    max_m: float = Field(
        10.0, gt=0, description="Distance that stands for everything farther, in metres."
    )
    reduce: Literal["min", "nearest"] = Field(
        "min", description="Distance of a sector: its smallest, or that of the beam in its middle."
    )
    from_rad: float | None = Field(
        None, description="Angle at which the first sector begins; left out: the scanner's own."
    )
    to_rad: float | None = Field(
        None, description="Angle at which the last sector ends; left out: the scanner's own."
    )

    @model_validator(mode="after")
    def _angles(self) -> LaserScanPart:
        if (self.from_rad is None) != (self.to_rad is None):
            raise Misfit("from_rad", "expected both from_rad and to_rad, or neither")
        if self.from_rad is not None and self.to_rad is not None and self.from_rad >= self.to_rad:
            raise Misfit("from_rad", f"expected less than to_rad {self.to_rad}")
        return self

    def labels(self) -> tuple[str, ...]:
        return tuple(f"beam_{i}" for i in range(self.beams))


class NumbersPart(NumericPart):
    """Describes a bare list of numbers, taken at its arrival."""

    stamped = False

    type: Literal["std_msgs/Float32MultiArray", "std_msgs/Float64MultiArray"]
    topic: TopicName = Field(description="Topic of the numbers, such as touch.")
    size_: int = Field(
        0, ge=0, le=100_000, alias="size", description="How many numbers a message has."
    )
    names_: Words = Field((), alias="names", description="Names of the numbers, if they have any.")

    @model_validator(mode="after")
    def _sized(self) -> NumbersPart:
        if self.size_ and self.names_ and len(self.names_) != self.size_:
            raise Misfit("names", f"expected {self.size_} names (size), got {len(self.names_)}")
        return self

    def labels(self) -> tuple[str, ...]:
        return self.names_ or tuple(f"value_{i}" for i in range(self.size_))


class PrevActionPart(NumericPart):
    """Describes the action that was sent last, in [-1, 1] or one-hot; zeros before the first."""

    stamped = False

    type: Literal["prev_action"]
    of_actions: Labels = Field((), description="Filled in by the file, from its actions.")

    def labels(self) -> tuple[str, ...]:
        return tuple(f"prev.{name}" for name in self.of_actions)

    def follow(self, actions: tuple[str, ...], at: tuple[str | int, ...]) -> list[Misfit]:
        """Take the names of the actions, which the file that holds this part knows."""
        self._fill("of_actions", actions)
        try:
            for field in ("scale", "offset"):
                self._fill(field, spread(self, field, len(actions)))
        except Misfit as misfit:
            return [Misfit((*at, *misfit.path), str(misfit))]
        return []


PARTS: tuple[type[SensorPart], ...] = (
    ImagePart,
    JointsPart,
    ImuPart,
    OdometryPart,
    RangePart,
    LaserScanPart,
    NumbersPart,
    PosePart,
    TwistPart,
    PrevActionPart,
)

AnyPart = Annotated[
    ImagePart
    | JointsPart
    | ImuPart
    | OdometryPart
    | RangePart
    | LaserScanPart
    | NumbersPart
    | PosePart
    | TwistPart
    | PrevActionPart,
    Field(discriminator="type"),
    EitherSpelling,
]
