"""Defines what the entries of a robot file share: strict types, lists, topics, errors."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, ConfigDict, GetJsonSchemaHandler
from pydantic_core import CoreSchema

from wm_core.contract.frozen import Frozen

_TOPIC = re.compile(r"(~/|/)?[A-Za-z][A-Za-z0-9_]*(/[A-Za-z_][A-Za-z0-9_]*)*")
_INPUT = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
_ROBOT = re.compile(r"[a-z0-9_-]+")


class Entry(Frozen):
    """Is an entry of the file; refuses words for numbers, infinities and unknown fields."""

    # A node without a robot file never needs the validators, which take 0.1 s to build.
    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, allow_inf_nan=False, defer_build=True
    )

    def _fill(self, name: str, value: Any) -> None:
        """Set a field that was left out, while the entry is being made."""
        self.__dict__[name] = value


class Misfit(ValueError):
    """Reports fields that do not fit one another.

    Args:
        field: name of the field to blame, below the entry that is checked; may be a path.
        text: what was expected, what came, what to do.
    """

    def __init__(self, field: str | tuple[str | int, ...], text: str) -> None:
        super().__init__(text)
        self.path: tuple[str | int, ...] = (field,) if isinstance(field, str) else field


class Misfits(ValueError):
    """Reports several misfits of one entry."""

    def __init__(self, found: Sequence[Misfit]) -> None:
        super().__init__("; ".join(map(str, found)))
        self.found = tuple(found)


class OneOrMore:
    """Lets a list with one element be written without the brackets, also for editors."""

    def __init__(self, *kinds: type) -> None:
        self.kinds = kinds

    def listed(self, value: Any) -> Any:
        if isinstance(value, list):
            return tuple(value)
        if isinstance(value, self.kinds) and not isinstance(value, bool):
            return (value,)
        return value

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> CoreSchema:
        from pydantic_core import core_schema

        return core_schema.no_info_before_validator_function(self.listed, handler(source))

    def __get_pydantic_json_schema__(
        self, core: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        many = handler(core)
        return {"anyOf": [many["items"], many]} if "items" in many else many


def _is_topic(value: str) -> str:
    if not _TOPIC.fullmatch(value):
        raise ValueError(f"expected a name of ROS such as camera/image_raw, got {value!r}")
    return value


def _is_input(value: str) -> str:
    if not _INPUT.fullmatch(value):
        raise ValueError(f"expected letters, digits and _, a letter first, got {value!r}")
    return value


def _is_robot(value: str) -> str:
    if not _ROBOT.fullmatch(value):
        raise ValueError(f"expected letters a-z, digits, _ and -, got {value!r}")
    return value


def _is_distinct(values: tuple[str, ...]) -> tuple[str, ...]:
    twice = sorted({value for value in values if values.count(value) > 1})
    if twice:
        raise ValueError(f"expected each name once, got twice: {', '.join(twice)}")
    if not all(values):
        raise ValueError(f"expected names that are not empty, got {list(values)}")
    return values


#: a topic or service, relative to the robot's namespace unless it begins with /
TopicName = Annotated[str, AfterValidator(_is_topic)]
InputName = Annotated[str, AfterValidator(_is_input)]
RobotName = Annotated[str, AfterValidator(_is_robot)]
#: numbers, of which a single one counts for every element
Numbers = Annotated[tuple[float, ...], OneOrMore(int, float)]
#: distinct words, of which a single one may be written without brackets
Words = Annotated[tuple[str, ...], AfterValidator(_is_distinct), OneOrMore(str)]
#: words that may repeat, such as units
Labels = Annotated[tuple[str, ...], OneOrMore(str)]


def spread(entry: Entry, field: str, size: int) -> tuple[float, ...]:
    """Give the numbers of ``field`` once per element; one number counts for each of ``size``.

    Raises:
        Misfit: for another number of numbers.
    """
    values: tuple[float, ...] = getattr(entry, field)
    if len(values) == 1:
        return values * size
    if len(values) != size:
        wanted = f"1 or {size} numbers" if size > 1 else "1 number"
        raise Misfit(field, f"expected {wanted}, got {len(values)}: {list(values)}")
    return values


def without_msg(value: Any) -> Any:
    """Read ``sensor_msgs/msg/Image`` as ``sensor_msgs/Image``, in the ``type`` of an entry."""
    if isinstance(value, dict) and isinstance(value.get("type"), str):
        return {**value, "type": value["type"].replace("/msg/", "/")}
    return value


#: accepts both spellings of a message's name
EitherSpelling = BeforeValidator(without_msg)

JointMode = Literal["position", "velocity", "effort"]
