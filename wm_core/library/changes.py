"""Settings with single values changed, as a person writes them in Python."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from wm_core.contract.errors import SettingsError, nearest

T = TypeVar("T", bound=BaseModel)


def with_changes(settings: T, changes: Mapping[str, Any]) -> T:
    """``settings`` with ``changes`` made, and checked again.

    Args:
        settings: stay as they are.
        changes: values by name; nested by dictionaries ({"world": {"units": 64}}), by dotted
            names ({"world.units": 64}), or by both.

    Raises:
        SettingsError: for a name that does not exist (naming the nearest) or a wrong value.
    """
    values = settings.model_dump()
    _merge(values, changes)
    try:
        return type(settings).model_validate(values)
    except ValidationError as error:
        raise SettingsError("; ".join(_reason(values, dict(e)) for e in error.errors())) from error


def _merge(values: dict[str, Any], changes: Mapping[str, Any]) -> None:
    for name, value in changes.items():
        first, _, rest = name.partition(".")
        if rest:
            value = {rest: value}
        if isinstance(value, Mapping) and isinstance(values.get(first), dict):
            _merge(values[first], value)
        else:
            values[first] = value


def _reason(values: Any, error: dict[str, Any]) -> str:
    """One sentence about one of pydantic's errors."""
    *folder, name = error["loc"] or ("",)
    if error["type"] != "extra_forbidden":
        at = ".".join(map(str, error["loc"]))
        return f"{at}: {error['msg']}, got {error['input']!r}" if at else str(error["msg"])
    for part in folder:
        values = values[part]
    return nearest(str(name), set(values) - {name}, what=".".join(["setting", *folder]))
