"""Settings with single values changed, as a person writes them in Python."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from wm_core.contract.errors import SettingsError, nearest
from wm_core.renamed import RENAMED

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


def names_of_changes(changes: Mapping[str, Any], prefix: str = "") -> set[str]:
    """The dotted names that ``changes`` give a value: {"train": {"steps": 1}} has train.steps."""
    names: set[str] = set()
    for name, value in changes.items():
        names |= (
            names_of_changes(value, f"{prefix}{name}.")
            if isinstance(value, Mapping)
            else {prefix + name}
        )
    return names


def _merge(values: dict[str, Any], changes: Mapping[str, Any], room: str = "") -> None:
    """Put ``changes`` into ``values`` of the group whose name, with a dot, is ``room``."""
    for name, value in changes.items():
        first, _, rest = name.partition(".")
        if rest:
            value = {rest: value}
        held, full = values.get(first), room + first
        if isinstance(held, dict) and not isinstance(value, Mapping) and full in RENAMED:
            (new,) = RENAMED[full]  # the old name of one setting, and a group's name now
            value = {new.removeprefix(f"{full}."): value}
        if isinstance(held, dict) and isinstance(value, Mapping):
            _merge(held, value, f"{full}.")
        else:
            values[first] = value


def _reason(values: Any, error: dict[str, Any]) -> str:
    """One sentence about one of pydantic's errors."""
    *folder, name = error["loc"] or ("",)
    at = ".".join(map(str, error["loc"]))
    if error["type"] == "value_error":
        reason = str(error["ctx"]["error"])
        whole = isinstance(error["input"], Mapping | BaseModel)  # the reason names the settings
        return reason if whole else f"{at}: {reason}"
    if error["type"] != "extra_forbidden":
        return f"{at}: {error['msg']}, got {error['input']!r}" if at else str(error["msg"])
    for part in folder:
        values = values[part]
    known = set(values) - {name}
    if not folder:
        rooms = sorted(r for r in known if isinstance(values[r], dict) and name in values[r])
        if rooms:
            hint = " or ".join(repr(f"{room}.{name}") for room in rooms)
            return f"unknown setting {name!r}; did you mean {hint}?"
    what = f"setting of {'.'.join(map(str, folder))}" if folder else "setting"
    return nearest(str(name), known, what=what)
