"""Turns the settings of the nodes into ROS parameters, with their ranges and texts.

The tables hold no ROS types, so that launch files and their YAML can be checked without ROS.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar, get_args

from pydantic import ValidationError
from pydantic.fields import FieldInfo

from wm_core.contract.errors import SettingsError, nearest
from wm_core.contract.spec import Frozen
from wm_ros.sensors.table import SENSORS
from wm_ros.settings import PolicySettings, SensorSettings, SimSettings

if TYPE_CHECKING:
    from rclpy.node import Node

Value = bool | int | float | str | list[str]
Model = TypeVar("Model", bound=Frozen)

#: names of earlier releases, which parameter files may still use
RENAMED = {
    "spool_max_bytes": "spool.max_bytes",
    "seal_steps": "spool.seal_steps",
    "seal_s": "spool.seal_s",
}


@dataclass(frozen=True, slots=True)
class Param:
    """Describes one ROS parameter."""

    name: str
    default: Value
    text: str
    low: float | None = None  #: with ``high`` the range of a number, both included
    high: float | None = None
    choices: tuple[str, ...] = ()  #: that the word, or each word of a list, is one of


def params_of(settings: Frozen, prefix: str = "") -> tuple[Param, ...]:
    """List the parameters of ``settings``, whose values are the defaults."""
    found: list[Param] = []
    for name, field in type(settings).model_fields.items():
        value = getattr(settings, name)
        if isinstance(value, Frozen):
            found += params_of(value, f"{prefix}{name}.")
        else:
            found.append(_param(prefix + name, value, field))
    return tuple(found)


def _param(name: str, value: Any, field: FieldInfo) -> Param:
    bounds = {
        key: getattr(m, key) for m in field.metadata for key in ("ge", "le") if hasattr(m, key)
    }
    extra = field.json_schema_extra
    choices: Any = extra["choices"] if isinstance(extra, dict) else get_args(field.annotation)
    return Param(
        name,
        list(value) if isinstance(value, tuple) else value,
        field.description or "",
        bounds.get("ge"),
        bounds.get("le"),
        tuple(word for word in choices if isinstance(word, str)),
    )


POLICY = params_of(PolicySettings())
SIM = params_of(SimSettings())


def sensor_params(name: str) -> tuple[Param, ...]:
    """List the parameters of the sensor ``name``: a kind of that name, or else a camera."""
    kind = name if name in SENSORS else "camera"
    return params_of(SensorSettings(type=kind), f"{name}.")


#: parameters that ROS itself gives to every node
_OF_ROS = ("use_sim_time", "start_type_description_service", "qos_overrides.")


def _refuse_unknown(given: Mapping[str, Any]) -> None:
    """Raise ``SettingsError`` for a name that neither node has: ROS passes over it in silence."""
    sensors = given["sensors"].value if "sensors" in given else PolicySettings().sensors
    own = [param for name in sensors for param in sensor_params(name)]
    known = {param.name for param in (*POLICY, *SIM, *own)} | RENAMED.keys()
    for name in given:
        if name not in known and not name.startswith(_OF_ROS):
            raise SettingsError(nearest(name, known, what="parameter"))


def declare(node: Node, table: Iterable[Param]) -> None:
    """Declare every parameter of ``table`` on ``node``, with its text and range.

    Raises:
        SettingsError: for a parameter that was given and does not exist.
    """
    from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor

    given = node._parameter_overrides
    _refuse_unknown(given)
    old_names = {new: old for old, new in RENAMED.items()}
    for param in table:
        if node.has_parameter(param.name):
            continue
        descriptor = ParameterDescriptor(description=param.text)
        if param.choices:
            descriptor.additional_constraints = "one of: " + ", ".join(param.choices)
        if param.low is not None and param.high is not None:
            if isinstance(param.default, float):
                descriptor.floating_point_range = [
                    FloatingPointRange(from_value=float(param.low), to_value=float(param.high))
                ]
            else:
                descriptor.integer_range = [
                    IntegerRange(from_value=int(param.low), to_value=int(param.high))
                ]
        old = given.get(old_names.get(param.name))
        default = param.default if old is None else old.value
        node.declare_parameter(param.name, default, descriptor)


def read(node: Node, model: type[Model]) -> Model:
    """Read the settings that the node's parameters have now.

    Raises:
        SettingsError: for a word that is none of a parameter's choices, or a value that does not
            fit.
    """
    return _read(node, model, params_of(model()), "")


def read_sensors(node: Node, names: Iterable[str]) -> dict[str, SensorSettings]:
    """Read the settings of each sensor, declared here because their names are settings themselves.

    The topic is what was given, or that of the sensor's kind.
    """
    found: dict[str, SensorSettings] = {}
    for name in names:
        table = sensor_params(name)
        declare(node, table)
        settings = _read(node, SensorSettings, table, f"{name}.")
        if not settings.topic:
            topic = SENSORS[settings.type].default_topic
            taken = any(other.topic == topic for other in found.values())
            settings = settings.model_copy(update={"topic": f"{name}/{topic}" if taken else topic})
        found[name] = settings
    return found


def _read(node: Node, model: type[Model], table: Iterable[Param], prefix: str) -> Model:
    values: dict[str, Any] = {}
    for param in table:
        value = node.get_parameter(param.name).value
        for word in value if isinstance(value, list) else [value]:
            if param.choices and word not in param.choices:
                raise SettingsError(nearest(str(word), param.choices, what=param.name))
        *groups, name = param.name.removeprefix(prefix).split(".")
        inner = values
        for group in groups:
            inner = inner.setdefault(group, {})
        inner[name] = value
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise SettingsError(f"parameters: {error}") from error
