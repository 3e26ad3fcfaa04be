"""Defines the base of every settings model."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

MAX_NAME = 128  #: characters of a name or a unit


class Frozen(BaseModel):
    """Holds settings that never change and refuses fields that it does not know."""

    # its validator is made at the first use: a node starts with few of the models it imports
    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)


def ranged(default: float, low: float, high: float, text: str) -> Any:
    """Make a field from ``low`` to ``high``, both included; ``text`` describes it."""
    return Field(default, ge=low, le=high, description=text)


def _printable(text: str) -> str:
    if len(text) > MAX_NAME or not text.isprintable():
        raise ValueError(f"expected at most {MAX_NAME} printable characters, got {text[:40]!r}")
    return text


Name = Annotated[str, AfterValidator(_printable)]  #: it is printed and logged as it is
