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
from typing import Any, ClassVar, NamedTuple, TypeVar

from pydantic import Field, SerializeAsAny, model_validator

from wm_core.contract.errors import SettingsError, nearest
from wm_core.contract.spec import Frozen

Make = Callable[..., Any]
Settings = TypeVar("Settings", bound="PartSettings")


class Part(NamedTuple):
    """What a table holds of one part."""

    settings: type[Frozen]  #: its settings; every field has a default
    make: Make | str  #: makes the part, or says as ``module:name`` where to import what does


class PartTable:
    """The parts of one kind by their names.

    Args:
        kind: what its parts are, such as ``backbone``; named in errors and entry points.
        base: what the settings of every part derive from.
        builtin: the parts that come with this project; their names cannot be taken.
    """

    def __init__(self, kind: str, base: type[Frozen] = Frozen, /, **builtin: Part) -> None:
        self.kind, self.group, self.base = kind, f"wm_core.{kind}", base
        self._builtin, self._registered = builtin, dict[str, Part]()

    def register(self, name: str, settings: type[Frozen], make: Make | str) -> None:
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

    def settings_of(self, name: str) -> type[Frozen]:
        """The settings model of the part ``name``; ``SettingsError`` where there is no such."""
        return self._part(name).settings

    def make(self, name: str) -> Make:
        """The class or function that makes the part ``name``; imports it where that is due."""
        make = self._part(name).make
        if not isinstance(make, str):
            return make
        module, _, attribute = make.partition(":")
        imported: Make = getattr(importlib.import_module(module), attribute)
        return imported

    def _part(self, name: str) -> Part:
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


class PartSettings(Frozen):
    """Settings that choose parts by name.

    Those of a built-in part are the field of its name, those of a part from elsewhere stand in
    ``own``.  ``tables`` has, for each field that names a part, the table of such parts.
    """

    tables: ClassVar[Mapping[str, PartTable]] = {}

    own: dict[str, SerializeAsAny[Frozen]] = Field(
        {}, description="Settings of chosen parts that other packages registered."
    )

    @model_validator(mode="before")
    @classmethod
    def _with_own(cls, values: Any) -> Any:
        """Check the parts' names, and give the chosen ones from elsewhere their settings."""
        if not isinstance(values, dict):
            return values
        given, own = dict(values.get("own") or {}), {}
        for field, table in cls.tables.items():
            if isinstance(name := values.get(field), str):
                model, settings = table.settings_of(name), given.get(name, {})
                if not table.is_builtin(name):
                    own[name] = settings if isinstance(settings, model) else model(**settings)
        known = [name for table in cls.tables.values() for name in table.names()]
        for name in given:
            if name not in known:
                raise SettingsError(nearest(name, known, what="part in own"))
        return values | {"own": own}

    def settings_of(self, name: str) -> Any:
        """The settings of the chosen part ``name``, built in or from elsewhere."""
        return self.own[name] if name in self.own else getattr(self, name)

    def with_named(self: Settings, words: Iterable[str]) -> Settings:
        """These settings with the default ones of each registered part that the ``words`` name.

        A command line can then say ``--world.own.NAME.field`` of a part that it chooses itself.
        """
        named = {part for word in words for part in word.replace("=", ".").split(".")}
        own = {
            name: table.settings_of(name)()
            for table in self.tables.values()
            for name in table.names()
            if name in named and not table.is_builtin(name)
        }
        return self.model_copy(update={"own": own | self.own})
