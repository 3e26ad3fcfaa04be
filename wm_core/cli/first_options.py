"""The options of ``wm train`` that matter first, in groups, as ``wm train --help`` shows them."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from wm_core.cli.screen import COLUMNS

#: heading -> names of options; one that the settings do not have is left out
TRAIN: dict[str, Sequence[str]] = {
    "what it learns from": ("task", "env.kwargs", "env.time_limit", "store", "follow", "spec"),
    "where it is kept": ("run", "resume", "init_from", "config_file"),
    "which system": ("preset", "size", "seed"),
    "how long": ("train.minutes", "train.steps", "train.updates"),
    "how it learns": ("train.envs", "train.replay_ratio", "optim.lr", "replay.batch"),
    "what is measured": ("train.eval_every", "loggers"),
    "on what": ("device", "threads"),
}
_NAMES = 25  #: columns of the names


def first_options(
    model: type[BaseModel], groups: Mapping[str, Sequence[str]], default: BaseModel | None
) -> str:
    """The options in ``groups``, each with its description and default, in 80 columns."""
    blocks = []
    for heading, names in groups.items():
        lines = [line for name in names for line in _lines(model, name, default)]
        blocks.append("\n".join([f"{heading}:", *lines]))
    return "\n".join(blocks)


def _lines(model: type[BaseModel], name: str, default: BaseModel | None) -> Iterator[str]:
    field = option(model, name)
    if field is None:
        return
    value: Any = default
    for part in name.split("."):
        value = getattr(value, part, None)
    text = (field.description or "").rstrip(".")
    if isinstance(value, int | float | str) and not isinstance(value, bool) and value != "":
        text += f" ({value:,})" if isinstance(value, int) else f" ({value})"
    word = f"  --{flag(field, name)}"
    folded = textwrap.wrap(text, COLUMNS - _NAMES, break_on_hyphens=False)
    yield f"{word:<{_NAMES - 1}} {folded[0]}"
    yield from (f"{'':<{_NAMES}}{line}" for line in folded[1:])


def flag(field: FieldInfo, name: str) -> str:
    """What ``field`` with the dotted ``name`` is called on the command line, without dashes."""
    stated = [about.name for about in field.metadata if getattr(about, "name", None)]
    return (stated or [name])[0].replace("_", "-")


def option(model: type[BaseModel], name: str) -> FieldInfo | None:
    """The field with the dotted ``name``; None where ``model`` has none."""
    *path, last = name.split(".")
    for part in path:
        inner = model.model_fields.get(part)
        kind = None if inner is None else inner.annotation
        if not (isinstance(kind, type) and issubclass(kind, BaseModel)):
            return None
        model = kind
    return model.model_fields.get(last)
