"""Reads the keywords of a constructor: a JSON object, or NAME=VALUE words."""

from __future__ import annotations

import json
from typing import Any

import tyro

from wm_core.contract.files import json_text

_PYTHON = {"True": True, "False": False, "None": None}  #: read as Python spells them, too


def read_keywords(words: list[str]) -> dict[str, Any]:
    """Read ``{"n": 3}``, or words like ``n=3 name=left``, whose values are JSON or else text.

    Raises:
        ValueError: for a word without a name or ``=``, or JSON that is no object.
    """
    text = " ".join(words).strip()
    if text.startswith("{"):
        try:
            found = json.loads(text)
        except ValueError as error:
            raise ValueError(f"expected a JSON object, got {text!r}: {error}") from None
        return dict(found)
    keywords = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals or not name.isidentifier():
            raise ValueError(f"expected NAME=VALUE words or one JSON object, got {word!r}")
        keywords[name] = _value(value)
    return keywords


def _value(text: str) -> Any:
    if text in _PYTHON:
        return _PYTHON[text]
    try:
        return json.loads(text)
    except ValueError:
        return text


def keywords_rule(
    info: tyro.constructors.PrimitiveTypeInfo,
) -> tyro.constructors.PrimitiveConstructorSpec[Any] | None:
    """Say how an option whose type is ``dict[str, JsonValue]`` is read and shown."""
    if "JsonValue" not in str(info.type) or getattr(info.type, "__origin__", None) is not dict:
        return None
    return tyro.constructors.PrimitiveConstructorSpec(
        nargs="*",
        metavar="NAME=VALUE",
        instance_from_str=read_keywords,
        is_instance=lambda value: isinstance(value, dict),
        str_from_instance=lambda value: [json_text(value)],
    )
