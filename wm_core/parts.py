"""Open tables of parts: a user's package adds a backbone or a prior without a change in here.

A part is a settings model and whatever makes the part from it.  It enters its table by
``register``, or by an entry point of the group ``wm_core.KIND`` that names a ``Part``.  Built-in
parts are given as ``module:name`` and imported when first used, so that tables need no torch.
"""

from __future__ import annotations

import functools
import importlib
import importlib.metadata
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar, cast

from pydantic import BaseModel

from wm_core.contract.errors import SettingsError, nearest

Make = TypeVar("Make", bound=Callable[..., Any])


@dataclass(frozen=True)
class Part(Generic[Make]):
    """What a table holds of one part."""

    settings: type[BaseModel]  #: its settings; every field has a default
    make: Make | str  #: makes the part, or says as ``module:name`` where to import what does


class PartTable(Generic[Make]):
    """The parts of one kind by their names.

    Args:
        kind: what its parts are, such as ``backbone``; named in errors and entry points.
        builtin: the parts that come with this project; their names cannot be taken.
        base: what the settings of every part derive from.
    """

    def __init__(
        self, kind: str, builtin: Mapping[str, Part[Make]], base: type[BaseModel] = BaseModel
    ) -> None:
        self.kind, self.group, self.base = kind, f"wm_core.{kind}", base
        self._builtin, self._registered = dict(builtin), dict[str, Part[Make]]()

    def register(self, name: str, settings: type[BaseModel], make: Make | str) -> None:
        """Add a part, or replace one that was registered under the same ``name``.

        Raises:
            SettingsError: for the name of a built-in part, for one that is no identifier, and for
                settings that do not derive from the table's base.
        """
        if name in self._builtin:
            raise SettingsError(f"{self.kind} {name!r} is built in; choose another name")
        if not name.isidentifier():
            raise SettingsError(f"expected an identifier as name of a {self.kind}, got {name!r}")
        if not issubclass(settings, self.base):
            raise SettingsError(
                f"expected settings of {self.kind} {name!r} that derive from "
                f"{self.base.__name__}, got {settings.__name__}"
            )
        self._registered[name] = Part(settings, make)

    def names(self) -> list[str]:
        """The names of all parts: built in, registered, and offered by installed packages."""
        return list(dict.fromkeys([*self._builtin, *self._registered, *self._installed]))

    def is_builtin(self, name: str) -> bool:
        """Whether ``name`` came with this project."""
        return name in self._builtin

    def checked(self, name: str) -> str:
        """``name`` itself; raises ``SettingsError`` where there is no such part."""
        self._part(name)
        return name

    def settings_of(self, name: str) -> type[BaseModel]:
        """The settings model of the part ``name``."""
        return self._part(name).settings

    def make(self, name: str) -> Make:
        """The class or function that makes the part ``name``; imports it where that is due."""
        make = self._part(name).make
        if not isinstance(make, str):
            return make
        module, _, attribute = make.partition(":")
        return cast(Make, getattr(importlib.import_module(module), attribute))

    def _part(self, name: str) -> Part[Make]:
        known = self._builtin | self._registered
        if name in known:
            return known[name]
        if name not in self._installed:
            raise SettingsError(
                f"{nearest(name, self.names(), what=self.kind)}; one of your own enters by "
                f"`register` or by an entry point of the group {self.group}"
            )
        part = self._installed[name].load()
        if not isinstance(part, Part):
            raise SettingsError(
                f"entry point {name!r} of {self.group}: expected a wm_core.parts.Part, "
                f"got {type(part).__name__}"
            )
        self.register(name, part.settings, part.make)
        return part

    @functools.cached_property
    def _installed(self) -> dict[str, importlib.metadata.EntryPoint]:
        return {point.name: point for point in importlib.metadata.entry_points(group=self.group)}


def with_own_settings(values: Any, tables: Mapping[str, PartTable[Any]]) -> Any:
    """``values`` of a settings model whose ``own`` holds those of the chosen registered parts.

    Args:
        values: the model's input; anything but a dict is returned unchanged.
        tables: for each field that names a part, the table of such parts.

    Raises:
        SettingsError: for a name that no table knows.
    """
    if not isinstance(values, dict):
        return values
    given, own = dict(values.get("own") or {}), {}
    for field, table in tables.items():
        name = values.get(field)
        if not isinstance(name, str) or table.is_builtin(table.checked(name)):
            continue
        model, settings = table.settings_of(name), given.get(name, {})
        own[name] = settings if isinstance(settings, model) else model(**settings)
    known = [name for table in tables.values() for name in table.names()]
    for name in given:
        if name not in known:
            raise SettingsError(nearest(name, known, what="part in own"))
    return values | {"own": own}


def named_settings(
    own: Mapping[str, Any], tables: Iterable[PartTable[Any]], words: Iterable[str]
) -> dict[str, Any]:
    """``own`` with default settings of each registered part that the ``words`` name.

    A command line can then say ``--world.own.NAME.field`` of a part that it chooses itself.
    """
    named = {part for word in words for part in word.replace("=", ".").split(".")}
    chosen = {
        name: table.settings_of(name)()
        for table in tables
        for name in table.names()
        if name in named and not table.is_builtin(name)
    }
    return chosen | dict(own)
