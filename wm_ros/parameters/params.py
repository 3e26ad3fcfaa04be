"""Turns the settings of the nodes into ROS parameters, with their ranges and texts.

The tables hold no ROS types, so that launch files and their YAML can be checked without ROS.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar, get_args

from pydantic import ValidationError
from pydantic.fields import FieldInfo

from wm_core.contract.errors import SettingsError, nearest
from wm_core.contract.spec import Frozen
from wm_ros.parameters.given import Param as Param
from wm_ros.parameters.given import fit_all, where
from wm_ros.robot import Robot, robot_of
from wm_ros.sensors.table import SENSORS
from wm_ros.settings import LIVE, PolicySettings, SensorSettings, SimSettings

if TYPE_CHECKING:
    from rclpy.node import Node

Model = TypeVar("Model", bound=Frozen)

#: names of earlier releases, which parameter files may still use
RENAMED = {
    "spool_max_bytes": "spool.max_bytes",
    "seal_steps": "spool.seal_steps",
    "seal_s": "spool.seal_s",
}


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
    marks: Any = extra if isinstance(extra, dict) else {}
    choices: Any = marks.get("choices") or get_args(field.annotation)
    return Param(
        name,
        list(value) if isinstance(value, tuple) else value,
        field.description or "",
        bounds.get("ge"),
        bounds.get("le"),
        tuple(word for word in choices if isinstance(word, str)),
        LIVE in field.metadata,
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
    sensors: Any = given["sensors"].value if "sensors" in given else PolicySettings().sensors
    names = sensors if isinstance(sensors, list | tuple) else []
    own = [param for name in names for param in sensor_params(str(name))]
    known = {param.name for param in (*POLICY, *SIM, *own)} | RENAMED.keys()
    for name in given:
        if name not in known and not name.startswith(_OF_ROS):
            place = where(name, sys.argv)
            about = nearest(name, known, what="parameter")
            raise SettingsError(f"{about} ({place})" if place else about)


def declare(node: Node, table: Iterable[Param]) -> None:
    """Declare every parameter of ``table`` on ``node``, with its text and range.

    Raises:
        SettingsError: for a parameter that was given and does not exist, or whose value does not
            fit.
    """
    given = node._parameter_overrides
    _refuse_unknown(given)
    new = {param.name: param for param in table if not node.has_parameter(param.name)}
    olds = {old: name for old, name in RENAMED.items() if name in new and name not in given}
    values = {olds.get(name, name): got.value for name, got in given.items()}
    fitted = fit_all(values, new, sys.argv)
    for param in new.values():
        value = fitted.get(param.name, param.default)
        node.declare_parameter(param.name, value, _descriptor(param), ignore_override=True)


def _descriptor(param: Param) -> Any:
    from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor

    descriptor = ParameterDescriptor(description=param.text)
    notes = ["one of: " + ", ".join(param.choices)] if param.choices else []
    notes.append("may change while the node runs" if param.live else "read at configuration")
    descriptor.additional_constraints = "; ".join(notes)
    if param.low is None or param.high is None:
        return descriptor
    if isinstance(param.default, float):
        descriptor.floating_point_range = [
            FloatingPointRange(from_value=float(param.low), to_value=float(param.high))
        ]
    else:
        descriptor.integer_range = [
            IntegerRange(from_value=int(param.low), to_value=int(param.high))
        ]
    return descriptor


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


def read_robot(node: Node) -> Robot:
    """Read what the robot is, from its file or from the parameters.

    Raises:
        SettingsError: for a file that is wrong, or a parameter that contradicts it.
    """
    settings = read(node, PolicySettings)
    given = {name: value.value for name, value in node._parameter_overrides.items()}
    sensors = {} if settings.robot_file else read_sensors(node, settings.sensors)
    return robot_of(settings, sensors, given)


def _read(node: Node, model: type[Model], table: Iterable[Param], prefix: str) -> Model:
    values = {param.name: node.get_parameter(param.name).value for param in table}
    return build(model, table, values, prefix)


def build(
    model: type[Model], table: Iterable[Param], values: Mapping[str, Any], prefix: str = ""
) -> Model:
    """Make settings of ``values``, by the names of their parameters.

    Raises:
        SettingsError: for a value that does not fit.
    """
    nested: dict[str, Any] = {}
    for param in table:
        *groups, name = param.name.removeprefix(prefix).split(".")
        inner = nested
        for group in groups:
            inner = inner.setdefault(group, {})
        inner[name] = param.fitted(values[param.name])
    try:
        return model.model_validate(nested)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"])
        raise SettingsError(f"parameter {prefix}{name}: {first['msg']}") from error
