"""Defines the base of every settings model."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field


class Frozen(BaseModel):
    """Holds settings that never change and refuses fields that it does not know."""

    # its validator is made at the first use: a node starts with few of the models it imports
    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)


def ranged(default: float, low: float, high: float, text: str) -> Any:
    """Make a field from ``low`` to ``high``, both included; ``text`` describes it."""
    return Field(default, ge=low, le=high, description=text)
