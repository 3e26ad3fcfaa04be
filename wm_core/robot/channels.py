"""Describes what a robot file says of actions: a class for each message that carries a command.

The elements of all channels, in their order, make up the command; the action maps -1 .. 1 to
``low`` .. ``high`` of each element, or chooses one row of ``choices``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema, model_validator

from wm_core.contract.errors import nearest
from wm_core.robot.entries import (
    EitherSpelling,
    Entry,
    JointMode,
    Labels,
    Misfit,
    Numbers,
    TopicName,
    Words,
    spread,
)

SAFE_WORDS = ("zero", "hold", "none")
TWIST_FIELDS = tuple(f"{part}.{axis}" for part in ("linear", "angular") for axis in "xyz")
_UNITS: Mapping[str, str] = {"position": "rad", "velocity": "rad/s", "effort": "N m"}


def _all(mode: JointMode, size: int) -> tuple[JointMode, ...]:
    return (mode,) * size


def _read_safe(value: Any) -> Any:
    if isinstance(value, str) and value not in SAFE_WORDS:
        raise ValueError(f"{nearest(value, SAFE_WORDS, what='safe action')}, or a list of numbers")
    if isinstance(value, list):
        value = tuple(value)
    if isinstance(value, tuple):
        for number in value:
            if isinstance(number, bool) or not isinstance(number, int | float):
                raise ValueError(f"expected a list of numbers, got {number!r} in it")
        return tuple(map(float, value))
    if not isinstance(value, str):
        raise ValueError(
            f"expected zero, hold, none or a list of numbers (a posture), got {value!r}"
        )
    return value


#: ``zero``, ``hold``, ``none`` or a posture: one number for each element
Safe = Annotated[
    Any,
    BeforeValidator(_read_safe),
    WithJsonSchema(
        {"anyOf": [{"enum": [*SAFE_WORDS]}, {"type": "array", "items": {"type": "number"}}]}
    ),
]


class Channel(Entry):
    """Describes one message that carries elements of the command, within limits."""

    rests_at_zero: ClassVar[bool] = True  #: a command of zeros stops these elements
    default_units: ClassVar[tuple[str, ...]] = ()

    type: str = Field(description="Message of this channel, such as geometry_msgs/Twist.")
    topic: TopicName = Field(description="Topic on which the command is sent, such as cmd_vel.")
    low: Numbers = Field(description="Least command, one number for all elements or one for each.")
    high: Numbers = Field(
        description="Greatest command, one number for all elements or one for each."
    )
    units: Labels = Field(
        (), description="Unit of each element, such as m/s; one for all or each."
    )
    names: Words = Field((), description="Name of each element; left out: as the message has it.")
    max_rate: Numbers = Field(
        (), description="Greatest change in units per second; left out: no such limit."
    )
    max_jerk: Numbers = Field(
        (), description="Greatest change of the rate, in units per second squared; left out: none."
    )
    safe: Safe = Field(
        None,
        validate_default=False,
        description="Command that stops it: zero, hold, none (send nothing) or a posture.",
    )
    hold_s: float = Field(
        0.0, ge=0, le=3600, description="Seconds that hold lasts for velocities and efforts."
    )
    takeover: TopicName | None = Field(
        None,
        description="Topic of the same message whose commands go out instead while they come.",
    )
    choices: dict[str, Numbers] = Field(
        {}, description="Command of each choice by its name; makes the action discrete."
    )

    def elements(self) -> tuple[str, ...]:
        """Name the elements as the message has them; empty: ``names`` must say."""
        return ()

    @property
    def size(self) -> int:
        """Count the elements of the command that this channel carries."""
        return len(self.names)

    @property
    def modes(self) -> tuple[JointMode, ...]:
        """Say for each element whether it is a position, a velocity or an effort."""
        return _all("velocity", self.size)

    @property
    def posture(self) -> tuple[float, ...] | None:
        """Give the numbers of the safe action; None for hold and none."""
        if self.safe == "zero":
            return (0.0,) * self.size
        return None if isinstance(self.safe, str) else self.safe

    @model_validator(mode="after")
    def _consistent(self) -> Any:
        elements = self.elements()
        self._fill("names", self.names or elements)
        if elements and len(self.names) != len(elements):
            raise Misfit("names", f"expected {len(elements)} names, got {len(self.names)}")
        if not self.names:
            raise Misfit("names", "expected a name for each element, got none")
        self._spread_over(self.size)
        self._check_choices()
        self._check_safe()
        return self

    def _check_choices(self) -> None:
        for name, numbers in self.choices.items():
            self._check_command(("choices", name), numbers)
        for field in ("max_rate", "max_jerk") if self.choices else ():
            if getattr(self, field):
                raise Misfit(
                    field,
                    f"expected none beside choices, got {[*getattr(self, field)]}: a choice is "
                    "sent whole and at once, so the limit would not hold; leave it out",
                )
        if self.choices and isinstance(self.safe, tuple):
            raise Misfit(
                "safe",
                f"expected zero, hold or none beside choices, got the posture {[*self.safe]}: no "
                "choice leads there slowly",
            )

    def _spread_over(self, size: int) -> None:
        for field in ("low", "high", "max_rate", "max_jerk"):
            if getattr(self, field) or not field.startswith("max"):
                self._fill(field, spread(self, field, size))
            if field.startswith("max") and any(v <= 0 for v in getattr(self, field)):
                raise Misfit(field, f"expected numbers above 0, got {[*getattr(self, field)]}")
        units = self.units or self.default_units
        if len(units) not in (0, 1, size):
            raise Misfit("units", f"expected 1 or {size} units, got {len(units)}: {[*units]}")
        self._fill("units", units * size if len(units) == 1 else units or ("",) * size)
        for name, low, high in zip(self.names, self.low, self.high, strict=True):
            if not low < high:
                raise Misfit(
                    "low", f"expected less than high for {name!r}, got {low:g} .. {high:g}"
                )

    def _check_safe(self) -> None:
        if self.safe is None:
            self._fill("safe", "zero" if self.rests_at_zero else "hold")
        if self.safe == "zero" and not self.rests_at_zero:
            zeros = ", ".join(["0"] * self.size)
            raise Misfit(
                "safe",
                "zero would drive positions to 0; write hold to stay where they are, or the "
                f"posture to go to, even if it is [{zeros}]",
            )
        if self.safe == "hold" and self.rests_at_zero and not self.hold_s:
            raise Misfit(
                "safe",
                "hold repeats a velocity or effort, so the robot goes on moving; write zero, or "
                "say in hold_s after how many seconds zero follows",
            )
        if self.posture is not None and not self.rests_at_zero and not self.max_rate:
            raise Misfit("safe", "a posture needs max_rate, so that the robot moves there slowly")
        if self.posture is not None:
            advice = "use hold or a posture within the range" if self.safe == "zero" else ""
            self._check_command(("safe",), self.posture, advice)

    def _check_command(
        self, path: tuple[str, ...], numbers: tuple[float, ...], advice: str = ""
    ) -> None:
        """Raise ``Misfit`` unless the command (size,) lies between ``low`` and ``high``."""
        if len(numbers) != self.size:
            raise Misfit(path, f"expected {self.size} numbers {[*self.names]}, got {len(numbers)}")
        for name, low, high, got in zip(self.names, self.low, self.high, numbers, strict=True):
            if not low <= got <= high:
                text = f"expected {low:g} .. {high:g} for {name!r}, got {got:g}"
                raise Misfit(path, "; ".join(filter(None, (text, advice))))


def _is_twist(fields: tuple[str, ...]) -> tuple[str, ...]:
    for field in fields:
        if field not in TWIST_FIELDS:
            raise ValueError(nearest(field, TWIST_FIELDS, what="field of a twist"))
    return fields


class TwistChannel(Channel):
    """Describes the velocity of a base, in m/s and rad/s."""

    type: Literal["geometry_msgs/Twist", "geometry_msgs/TwistStamped"]
    topic: TopicName = Field("cmd_vel", description="Topic of the velocity, such as cmd_vel.")
    fields: Annotated[Words, AfterValidator(_is_twist)] = Field(
        ("linear.x", "angular.z"), description="Field of the twist that each element drives."
    )
    frame: str = Field("base_link", description="Frame of reference of a stamped velocity.")

    def elements(self) -> tuple[str, ...]:
        return self.fields

    @model_validator(mode="after")
    def _si(self) -> TwistChannel:
        if not any(self.units):
            units = ["m/s" if field.startswith("linear") else "rad/s" for field in self.fields]
            self._fill("units", tuple(units))
        return self


class JointTrajectoryChannel(Channel):
    """Describes positions of joints as a trajectory of one point, for a trajectory controller."""

    rests_at_zero, default_units = False, ("rad",)

    type: Literal["trajectory_msgs/JointTrajectory"]
    topic: TopicName = Field(
        "joint_trajectory_controller/joint_trajectory",
        description="Topic of the controller that takes trajectories.",
    )
    joints: Words = Field(description="Joints in the order of the command, by their names.")
    reach_s: float = Field(
        0.0, ge=0, le=60, description="Seconds in which a point is reached; 0: one period."
    )

    @property
    def modes(self) -> tuple[JointMode, ...]:
        return _all("position", self.size)

    def elements(self) -> tuple[str, ...]:
        return self.joints


class _Moded(Channel):
    """Is a channel whose numbers mean what its ``mode`` says."""

    mode: JointMode = Field(description="What the numbers are: position, velocity or effort.")

    @property
    def modes(self) -> tuple[JointMode, ...]:
        return (self.mode,) * self.size

    @property
    def rests_at_zero(self) -> bool:  # type: ignore[override]
        return self.mode != "position"

    @property
    def default_units(self) -> tuple[str, ...]:  # type: ignore[override]
        return (_UNITS[self.mode],)


class JointStateChannel(_Moded):
    """Describes positions, velocities or efforts of joints, named in every message."""

    type: Literal["sensor_msgs/JointState"]
    topic: TopicName = Field("joint_command", description="Topic of the command of the joints.")
    joints: Words = Field(description="Joints in the order of the command, by their names.")

    def elements(self) -> tuple[str, ...]:
        return self.joints


class MultiArrayChannel(_Moded):
    """Describes bare numbers, as the forward controllers of ros2_control take them."""

    type: Literal["std_msgs/Float64MultiArray"]
    topic: TopicName = Field(
        description="Topic of the controller, such as arm_controller/commands."
    )
    names: Words = Field(
        min_length=1, description="Joints in the order in which the controller has them."
    )


class GripperChannel(Channel):
    """Describes a gripper by the position of its one joint, from open to closed."""

    rests_at_zero, default_units = False, ("m",)

    type: Literal["gripper"]
    message: Literal["std_msgs/Float64MultiArray", "trajectory_msgs/JointTrajectory"] = Field(
        "std_msgs/Float64MultiArray", description="Message that carries the position."
    )
    topic: TopicName = Field(
        description="Topic of the gripper, such as gripper_controller/commands."
    )
    joint: str = Field("gripper", min_length=1, description="Joint of the gripper, by its name.")
    open: float = Field(description="Position at which the gripper is open.")
    closed: float = Field(description="Position at which the gripper is closed.")
    reach_s: float = Field(
        0.0, ge=0, le=60, description="Seconds in which a point is reached; 0: one period."
    )
    low: Numbers = Field((), description="Filled in: the smaller of open and closed.")
    high: Numbers = Field((), description="Filled in: the greater of open and closed.")

    @property
    def modes(self) -> tuple[JointMode, ...]:
        return ("position",)

    def elements(self) -> tuple[str, ...]:
        return (self.joint,)

    def _spread_over(self, size: int) -> None:
        low, high = sorted((self.open, self.closed))
        for field, value in (("low", low), ("high", high)):
            if getattr(self, field) not in ((), (value,)):
                raise Misfit(field, "is told by open and closed; leave it out")
            self._fill(field, (value,))
        if low == high:
            raise Misfit("closed", f"expected another position than open, got {low:g} for both")
        super()._spread_over(size)


class AckermannChannel(Channel):
    """Describes speed and steering of a car, in m/s and rad."""

    default_units = ("m/s", "rad")

    type: Literal["ackermann_msgs/AckermannDriveStamped"]
    topic: TopicName = Field("drive", description="Topic of the car's drive, such as drive.")

    @property
    def modes(self) -> tuple[JointMode, ...]:
        return ("velocity", "position")

    def elements(self) -> tuple[str, ...]:
        return ("speed", "steering_angle")


CHANNELS: tuple[type[Channel], ...] = (
    TwistChannel,
    JointTrajectoryChannel,
    JointStateChannel,
    MultiArrayChannel,
    GripperChannel,
    AckermannChannel,
)

AnyChannel = Annotated[
    TwistChannel
    | JointTrajectoryChannel
    | JointStateChannel
    | MultiArrayChannel
    | GripperChannel
    | AckermannChannel,
    Field(discriminator="type"),
    EitherSpelling,
]
